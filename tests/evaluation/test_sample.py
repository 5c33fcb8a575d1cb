import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.make_model import make_model
from tests.matching import containing
from tests.plain_pass import without_training_form
from tests.weights.conftest import remote_file
from vadis.errors import UsageError, WeightsError
from vadis.evaluation import sample
from vadis.evaluation.sample import (
    compare_outputs,
    fetch_sample,
    published_outputs,
    read_array,
    reproduce_sample,
    run_sample,
)
from vadis.models.i3d_inference import ChunkedI3D
from vadis.weights import catalog
from vadis.weights.model_file import load_model_file

SHARED = Path(__file__).parents[2].parent / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared, with the published outputs, is not here")
FAMILIES = ("imagenet", "no_imagenet")
LABELS = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    return load_model_file(make_model(path, width=1 / 64, classes=4))


@pytest.fixture
def arrays(tmp_path):
    """Preprocessed arrays like the sample's, but of 9 frames."""
    rng = np.random.default_rng(0)
    paths = {}
    for stream, channels in (("rgb", 3), ("flow", 2)):
        paths[stream] = tmp_path / f"{stream}.npy"
        np.save(paths[stream], rng.uniform(-1, 1, (1, 9, 224, 224, channels)).astype("f4"))
    return paths


@pytest.mark.parametrize(
    ("family", "stream", "norm", "logit"),
    [
        ("imagenet", "both", 138.468643, 41.8137),
        ("imagenet", "rgb", 87.108887, 25.8566),
        ("imagenet", "flow", 63.252743, 15.957),
        ("no_imagenet", "both", 162.726547, 34.9155),
        ("no_imagenet", "rgb", 87.217987, 19.4886),
        ("no_imagenet", "flow", 85.503799, 15.4269),
    ],
)
def test_the_published_outputs_are_here(family, stream, norm, logit):
    outputs = published_outputs(family, stream)
    assert outputs["norm"] == norm
    assert len(outputs["top"]) == sample.TOP
    assert (outputs["top"][0]["label"], outputs["top"][0]["logit"]) == ("playing cricket", logit)
    logits = [line["logit"] for line in outputs["top"]]
    assert logits == sorted(logits, reverse=True)


@needs_shared
def test_the_published_outputs_are_unchanged():
    copies = Path(sample.__file__).with_name("sample_outputs")
    for path in (SHARED / "facts/deepmind/published_sample_outputs").iterdir():
        assert (copies / path.name).read_bytes() == path.read_bytes()


def test_the_published_labels_are_in_the_label_list():
    from vadis.weights.catalog import published_labels

    for family in FAMILIES:
        labels = {line["label"] for line in published_outputs(family, "both")["top"]}
        assert labels <= set(published_labels("kinetics400"))


def test_logits_are_averaged_over_time_and_summed_over_streams(model, arrays):
    inputs = {stream: read_array(path, stream, 9) for stream, path in arrays.items()}
    with without_training_form(model):
        outputs = run_sample(model, inputs)
    assert list(outputs) == ["rgb", "flow", "both"]
    clip = torch.from_numpy(np.load(arrays["rgb"])).permute(0, 4, 1, 2, 3)
    with torch.inference_mode():
        expected = model.networks["rgb"](clip).mean(2)[0].numpy()
    assert np.abs(outputs["rgb"]["logits"] - expected).max() < 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(
        outputs["both"]["logits"], np.add(outputs["rgb"]["logits"], outputs["flow"]["logits"]), rtol=1e-12
    )
    both = outputs["both"]
    assert both["norm"] == pytest.approx(np.linalg.norm(both["logits"]))
    assert both["top"][0]["label"] == model.card.labels[int(np.argmax(both["logits"]))]
    assert sum(line["probability"] for line in both["top"]) == pytest.approx(1)


def test_the_arrays_go_the_way_of_a_video(model):
    """79 frames, as the sample has: in chunks, by the inference form, to what the training form says of all at once."""
    rng = np.random.default_rng(1)
    array = rng.uniform(-1, 1, (79, 224, 224, 3)).astype("f4")
    with torch.inference_mode():
        plain = model.networks["rgb"](torch.from_numpy(array).permute(3, 0, 1, 2)[None]).mean(2)[0].numpy()
    fed = []
    with without_training_form(model), pytest.MonkeyPatch.context() as patch:
        whole = ChunkedI3D.feed
        patch.setattr(ChunkedI3D, "feed", lambda clip, x, **last: fed.append(x.shape[2]) or whole(clip, x, **last))
        logits = np.array(run_sample(model, {"rgb": array})["rgb"]["logits"])
    assert sum(fed) == 79
    assert max(fed) < 79
    assert np.abs(logits - plain).max() < 1e-5 * np.abs(plain).max()


def test_the_sample_is_for_models_that_see_a_whole_video(model, arrays):
    other = replace(model, card=replace(model.card, architecture="c3d"))
    with pytest.raises(UsageError):
        reproduce_sample(other, arrays)


@pytest.mark.slow
@needs_shared
def test_the_outputs_are_those_of_deepminds_own_code(tmp_path):
    """From TensorFlow names to logits: the weights drawn here are those that DeepMind's code ran with."""
    model = load_model_file(make_model(tmp_path / "m.safetensors", streams=("rgb",), classes=600))
    np.save(tmp_path / "rgb.npy", np.random.default_rng(4).uniform(-1, 1, (1, 10, 224, 224, 3)).astype("f4"))
    logits = reproduce_sample(model, {"rgb": tmp_path / "rgb.npy"})["streams"]["rgb"]["logits"]
    expected = np.load(SHARED / "golden/i3d_deepmind.npz")["RGB_10_600_4/logits"].reshape(-1)
    assert np.abs(np.array(logits) - expected).max() < 1e-4 * np.abs(expected).max()


def outputs(*logits: float, labels=LABELS) -> dict[str, Any]:
    ranked = sorted(zip(labels, logits, strict=True), key=lambda pair: -pair[1])
    top = [{"label": label, "probability": 0.0, "logit": value} for label, value in ranked]
    return {"norm": float(np.linalg.norm(logits)), "top": top, "logits": [*logits]}


PUBLISHED = {"norm": outputs(10, 5, 1, 0)["norm"], "top": outputs(10, 5, 1, 0)["top"][:2]}


def test_equal_outputs_pass():
    comparison = compare_outputs(outputs(10, 5.001, 1, 0), PUBLISHED, LABELS)
    assert comparison["passed"] is True
    assert comparison["largest_error"] == pytest.approx(0.001)


@pytest.mark.parametrize(
    "ours",
    [
        outputs(10, 5.1, 1, 0),  # a logit
        outputs(10, 5, 1, 2),  # the norm
        outputs(10, 5, 5.1, 0),  # a class among the best that is not published there
        outputs(5, 10, 1, 0),  # the order
    ],
)
def test_other_outputs_fail(ours):
    assert compare_outputs(ours, PUBLISHED, LABELS)["passed"] is False


def test_a_model_without_the_published_classes_fails():
    assert compare_outputs(outputs(10, 5, 1, 0, labels="wxyz"), PUBLISHED, tuple("wxyz"))["passed"] is False


def test_arrays_that_are_not_the_sample_have_nothing_to_be_compared_with(model, arrays):
    outcome = reproduce_sample(model, {"flow": arrays["flow"]})
    assert outcome["passed"] is outcome["streams"]["flow"]["passed"] is None
    assert len(outcome["streams"]["flow"]["logits"]) == 4
    assert json.loads(json.dumps(outcome, allow_nan=False)) == outcome


def test_the_sample_is_known_by_its_content(server, model, arrays, monkeypatch):
    """Small arrays in the place of the sample, and a random model under a published name: compared, and failed."""
    for stream, path in arrays.items():
        monkeypatch.setitem(
            catalog.SAMPLE, stream, remote_file(server, f"{stream}.npy", path.read_bytes(), sized=False)
        )
    from dataclasses import replace

    named = replace(model, card=replace(model.card, name="i3d-kinetics400"))
    paths = fetch_sample(named.card.streams, offline=False, progress=lambda *_: None)
    outcome = reproduce_sample(named, paths)
    assert outcome["passed"] is False
    assert outcome["streams"]["both"]["published"]["norm"] == 138.468643
    assert fetch_sample(("rgb",), offline=True, progress=lambda *_: None)["rgb"] == paths["rgb"]


@pytest.mark.parametrize("shape", [(9, 224, 224, 3), (1, 9, 224, 224, 3)])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_arrays_may_have_a_batch_axis_and_any_float(tmp_path, shape, dtype):
    values = np.random.default_rng(0).uniform(-1, 1, shape).astype(dtype)
    np.save(tmp_path / "x.npy", values)
    array = read_array(tmp_path / "x.npy", "rgb", 9)
    assert array.dtype == np.float32 and array.shape == (9, 224, 224, 3)
    np.testing.assert_array_equal(array, values.reshape(array.shape).astype("f4"))


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        (np.zeros((1, 9, 224, 224, 2), "f4"), (9, 224, 224, 2)),
        (np.zeros((2, 9, 224, 224, 3), "f4"), (2, 9, 224, 224, 3)),
        (np.zeros((1, 8, 224, 224, 3), "f4"), 9),
        (np.full((1, 9, 224, 224, 3), 255, "f4"), "[-1, 1]"),
        (np.full((1, 9, 224, 224, 3), np.nan, "f4"), "[-1, 1]"),
        (np.zeros((1, 9, 224, 224, 3), "u1"), "x.npy"),
    ],
)
def test_other_arrays_are_refused(tmp_path, value, fact):
    np.save(tmp_path / "x.npy", value)
    with pytest.raises(UsageError, match=containing(fact)):
        read_array(tmp_path / "x.npy", "rgb", 9)


def test_files_that_hold_no_array_are_refused(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.array([{"an": "object"}]), allow_pickle=True)
    for content in (path.read_bytes(), b"", b"<html>", b"\x93NUMPY\x01\x00\xff\xff"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=containing("x.npy")):
            read_array(path, "rgb", 9)
    np.savez(tmp_path / "x", a=np.zeros(3))
    with pytest.raises(WeightsError, match=containing("x.npz")):
        read_array(tmp_path / "x.npz", "rgb", 9)
    with pytest.raises(UsageError, match=containing("none.npy")):
        read_array(tmp_path / "none.npy", "rgb", 9)
