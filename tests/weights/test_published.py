"""Published weights are known by their tensors."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.conftest import SHARED
from tests.make_model import make_model
from vadis.weights.catalog import WEIGHTS
from vadis.weights.convert import from_tensorflow_name
from vadis.weights.load import load_model, published_name, tensor_sums
from vadis.weights.model_file import load_model_file, save_fp16, save_model


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with the labels of Kinetics-400."""
    return make_model(tmp_path_factory.mktemp("model") / "any-name.safetensors", width=1 / 32)


@pytest.fixture
def model(file: Path, monkeypatch: pytest.MonkeyPatch):
    """It, as if it were the published one."""
    found = load_model(file, "cpu")
    sums = {stream: tensor_sums(network) for stream, network in found.networks.items()}
    monkeypatch.setitem(WEIGHTS, "i3d-kinetics400", replace(WEIGHTS["i3d-kinetics400"], tensor_sums=sums))
    return found


def test_whatever_the_file_is_called_and_with_some_of_its_networks(model) -> None:
    assert model.card.name == "any-name"
    assert published_name(model) == "i3d-kinetics400"
    assert published_name(model.only(("flow",))) == "i3d-kinetics400"


def test_other_tensors_and_other_labels_are_others(model, tmp_path: Path) -> None:
    named = replace(model.card, name="i3d-kinetics400")
    states = {stream: dict(network.state_dict()) for stream, network in model.networks.items()}
    for key in (
        "Conv3d_1a_7x7.conv.weight",
        "Logits.Conv3d_0c_1x1.conv.bias",
        "Mixed_5c.Branch_0.Conv3d_0a_1x1.norm.bias",
    ):
        changed = {**states, "rgb": {**states["rgb"], key: states["rgb"][key] + 1e-3}}
        save_model(tmp_path / "other.safetensors", named, changed)
        assert published_name(load_model_file(tmp_path / "other.safetensors")) is None
    save_fp16(model, tmp_path / "half.safetensors", named)
    assert published_name(load_model_file(tmp_path / "half.safetensors")) is None
    assert published_name(replace(model, card=replace(named, labels=model.card.labels[::-1]))) is None
    assert published_name(replace(model, networks={"rgb": torch.nn.Linear(2, 2)})) is None
    assert published_name(replace(model, networks={})) is None


def test_the_catalog_has_the_sums_of_deepmind_s_checkpoints() -> None:
    facts = SHARED / "facts" / "deepmind" / "variables.json"
    if not facts.exists():
        pytest.skip("needs the facts about the checkpoints in shared/facts beside the checkout")
    checkpoints = {
        files[0].local.partition("/")[0]: row.tensor_sums[stream]
        for row in WEIGHTS.values()
        if row.tensor_sums
        for stream, files in row.checkpoints.items()
    }
    assert len(checkpoints) == 5
    for name, variables in json.loads(facts.read_text()).items():
        sums = {from_tensorflow_name(key): int(facts["crc32c"], 16) for key, facts in variables.items()}
        sums.pop(None, None)
        text = "".join(f"{key} {sums[key]:08x}\n" for key in sorted(sums))
        assert checkpoints[name].all == hashlib.sha256(text.encode()).hexdigest()
        assert checkpoints[name].last_bias == sums["Logits.Conv3d_0c_1x1.conv.bias"]
