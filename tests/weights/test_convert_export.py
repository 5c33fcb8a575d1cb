"""Exported models give what vadis gives, in the programs that they are made for.

The real weights do in tests/test_docs.py, which runs what docs/python.md says of them.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.matching import containing
from vadis.errors import UsageError, VadisError
from vadis.inference.features import FEATURES
from vadis.models import Model, ModelCard, build_networks, inference_form
from vadis.weights import convert as exporting
from vadis.weights.convert import EXPORT_METADATA_KEY, export

ONNX = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # of the largest number


def tiny(architecture="i3d", streams=("rgb", "flow")) -> Model:
    torch.manual_seed(0)
    card = ModelCard("tiny", architecture, streams, ("a", "b", "c"), width=1 / 32)
    networks = {name: network.eval() for name, network in build_networks(card).items()}
    return Model(card, networks, torch.device("cpu"), sha256="ab" * 32)


def clips(model: Model, frames: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(frames)
    shapes = {"rgb": (1, 3, frames, 224, 224), "flow": (1, 2, frames, 224, 224)}
    return {stream: torch.rand(shapes[stream]) * 2 - 1 for stream in model.networks}


def assert_same(found, model: Model, given: dict[str, torch.Tensor]) -> None:
    """Logits and features are those of the inference form, which shares no code with what was exported."""
    forms = inference_form(model)
    expected = [sum(form(given[name], layer="Logits") for name, form in forms.items())]
    expected += [form(given[name], layer=FEATURES) for name, form in forms.items()]
    for ours, theirs in zip(expected, found, strict=True):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() < TOLERANCE * np.abs(ours).max()


def run_onnx(path: Path, given: dict[str, torch.Tensor]) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return session.run(None, {name: clip.numpy() for name, clip in given.items()})


@pytest.mark.slow
@pytest.mark.integration(*ONNX)
def test_onnx_of_any_length(tmp_path: Path) -> None:
    import onnxruntime

    model, path = tiny(streams=("flow",)), tmp_path / "m.onnx"
    export(model, "onnx", path)
    for frames in (16, 40):
        assert_same(run_onnx(path, clips(model, frames)), model, clips(model, frames))
    session = onnxruntime.InferenceSession(path)
    assert {each.name: each.shape[1:] for each in session.get_inputs()}["flow"] == [2, "frames", 224, 224]
    assert session.get_outputs()[0].shape[1:] == [3, "steps"]
    card = json.loads(session.get_modelmeta().custom_metadata_map[EXPORT_METADATA_KEY])
    assert (card["labels"], card["sha256"]) == (["a", "b", "c"], model.sha256)
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.slow
def test_an_exported_program_of_pytorch_with_both_streams(tmp_path: Path) -> None:
    model, path = tiny(), tmp_path / "m.pt2"
    export(model, "torch-export", path, frames=17)
    files = {EXPORT_METADATA_KEY: ""}
    program = torch.export.load(path, extra_files=files)
    given = clips(model, 17)
    assert_same([each.detach() for each in program.module()(*given.values())], model, given)
    assert json.loads(files[EXPORT_METADATA_KEY])["name"] == "tiny"


def test_what_cannot_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(UsageError, match=containing("tiny")):
        export(tiny("c3d", ("rgb",)), "onnx", path)
    with pytest.raises(UsageError, match=containing("8")):
        export(tiny(), "onnx", path, frames=8)
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(VadisError, match=containing("onnxscript")) as caught:
        export(tiny(), "onnx", path)
    assert not isinstance(caught.value, UsageError)
    assert not path.exists()
