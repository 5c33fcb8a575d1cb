import errno
import hashlib
import json
import os
import pickle
import random
import stat
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from tests.matching import containing
from vadis.errors import WeightsError
from vadis.models import ModelCard, build_networks
from vadis.parsing import MAX_DEPTH
from vadis.weights import model_file
from vadis.weights.model_file import METADATA_KEY, load_model_file, read_header, save_fp16, save_model

CARD = ModelCard("tiny", "i3d", ("rgb", "flow"), ("a", "b", "c"), width=1 / 64, provenance={"made": "here"})


def states(card=CARD):
    torch.manual_seed(0)
    return {stream: network.state_dict() for stream, network in build_networks(card).items()}


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_model(path, CARD, states())
    return path.read_bytes()


@pytest.fixture
def path(tmp_path, content):
    (tmp_path / "m.safetensors").write_bytes(content)
    return tmp_path / "m.safetensors"


def rewrite(path, change_tensors=lambda tensors: None, change_card=lambda values: None):
    """The file at ``path`` with its tensors or card changed by hand."""
    tensors = safetensors.torch.load(path.read_bytes())
    with safetensors.safe_open(path, "pt") as file:
        values = json.loads(file.metadata()[METADATA_KEY])
    change_tensors(tensors), change_card(values)
    body = model_file._split(safetensors.torch.save(tensors))[1]
    card = {key: value for key, value in values.items() if key != "sha256"}
    values["sha256"] = hashlib.sha256(json.dumps(card, sort_keys=True).encode() + body).hexdigest()
    path.write_bytes(safetensors.torch.save(tensors, {METADATA_KEY: json.dumps(values)}))


def test_a_model_comes_back_as_it_was_saved(path):
    model = load_model_file(path)
    assert model.card == CARD
    assert model.device == torch.device("cpu")
    for stream, state in states().items():
        network = model.networks[stream]
        assert not network.training
        assert all(not module.training for module in network.modules())
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, state[key]), key


def test_a_loaded_model_computes_what_the_saved_one_did(path):
    clip = torch.rand(1, 3, 9, 224, 224)
    network = build_networks(CARD)["rgb"].eval()
    network.load_state_dict(states()["rgb"])
    with torch.inference_mode():
        assert torch.equal(load_model_file(path).networks["rgb"](clip), network(clip))


def test_the_hash_is_the_one_in_the_file(path):
    assert load_model_file(path).sha256 == read_header(path)[1] == save_model(path, CARD, states())
    assert save_model(path, replace(CARD, name="other"), states()) != save_model(path, CARD, states())


def test_the_card_can_be_read_alone(path):
    assert read_header(path)[0] == CARD


def test_a_single_stream_is_a_model(tmp_path):
    card = replace(CARD, streams=("flow",))
    save_model(tmp_path / "f.safetensors", card, states(card))
    assert list(load_model_file(tmp_path / "f.safetensors").networks) == ["flow"]


def test_saving_replaces_a_file_as_a_whole_and_leaves_no_other(path):
    before = path.stat().st_ino
    with path.open("rb") as reader:
        save_model(path, replace(CARD, name="other"), states())
        assert json.dumps("tiny").encode()[1:-1] in reader.read()  # the old file, until its reader closes it
    assert path.stat().st_ino != before
    assert [file.name for file in path.parent.iterdir()] == ["m.safetensors"]


def test_the_mode_is_that_of_any_new_file(path, tmp_path):
    (tmp_path / "other").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_a_full_disk_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WeightsError, match=containing("m.safetensors")):
        save_model(path, replace(CARD, name="other"), states())
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["m.safetensors"]


def test_tensors_that_do_not_go_with_the_card_are_not_written(tmp_path):
    with pytest.raises(WeightsError, match=containing(3, "rgb", 2)):
        save_model(tmp_path / "x", replace(CARD, labels=("a", "b")), states())
    with pytest.raises(WeightsError, match=containing("flow")):
        save_model(tmp_path / "x", CARD, {"rgb": states()["rgb"]})
    assert list(tmp_path.iterdir()) == []


BIAS = "rgb.Logits.Conv3d_0c_1x1.conv.bias"
KERNEL = "flow.Conv3d_1a_7x7.conv.weight"


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda tensors: tensors.pop(KERNEL), KERNEL),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "extra"),
        (lambda tensors: tensors.update({f"x{n}": torch.zeros(1) for n in range(9)}), 9),
        (lambda tensors: tensors.update({KERNEL: torch.zeros(1, 3, 7, 7, 7)}), (1, 3, 7, 7, 7)),
        (
            lambda tensors: tensors.update({BIAS: torch.zeros(101)}),
            101,
        ),
    ],
)
def test_other_tensors_are_refused_with_the_difference(path, change, fact):
    rewrite(path, change_tensors=change)
    with pytest.raises(WeightsError, match=containing(fact)):
        load_model_file(path)


def nested(depth: int) -> dict[str, object]:
    return {"x": nested(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"format_version": 2}, 2),
        ({"format_version": None}, "None"),
        ({"architecture": "c3d-9000"}, "'c3d-9000'"),
        ({"architecture": []}, "architecture"),
        ({"streams": ["rgb", "rgb"]}, "streams"),
        ({"streams": ["sound"]}, "streams"),
        ({"streams": []}, "streams"),
        ({"streams": 3}, "m.safetensors"),
        ({"labels": []}, "labels"),
        ({"labels": ["a", "b\x1b[2J", "c"]}, "label 2"),
        ({"labels": ["a", "b", 3]}, "label 3"),
        ({"width": 1e9}, "width"),
        ({"width": "1"}, "width"),
        ({"width": float("nan")}, "width"),
        ({"crop": -1}, "crop"),
        ({"window_frames": 6.5}, "window_frames"),
        ({"flow_bound": 0}, "flow_bound"),
        ({"flow_bound": 5}, "flow_bound"),
        ({"flow_bound": "20"}, "flow_bound"),
        ({"frame_rate": 50}, "frame_rate"),
        ({"frame_rate": True}, "frame_rate"),
        ({"test_window": 5}, "test_window"),
        ({"test_window": 32.0}, "test_window"),
        ({"crop_first": 1}, "crop_first"),
        ({"threshold": 0.6}, "threshold"),
        ({"threshold": 1}, "threshold"),
        ({"provenance": 1}, "provenance"),
        ({"provenance": {"loss": float("nan")}}, "JSON"),
        ({"provenance": nested(700)}, "m.safetensors"),  # Python 3.13 copies it, 3.11 does not
        ({"provenance": nested(MAX_DEPTH)}, "m.safetensors"),
        ({"name": ""}, "name"),
        ({"surprise": 1}, "m.safetensors"),
    ],
)
def test_other_cards_are_refused(path, change, fact):
    rewrite(path, change_card=lambda values: values.update(change))
    with pytest.raises(WeightsError, match=containing(fact)):
        load_model_file(path)


def test_a_card_is_written_only_as_deep_as_it_is_read(path, tmp_path):
    model = load_model_file(path)
    states = {name: network.state_dict() for name, network in model.networks.items()}
    deepest = nested(MAX_DEPTH - 2)
    save_model(path, replace(CARD, provenance=deepest), states)
    assert load_model_file(path).card.provenance == deepest
    with pytest.raises(WeightsError, match=containing(MAX_DEPTH - 1)):
        save_model(path, replace(CARD, provenance={"x": deepest}), states)


@pytest.mark.slow
def test_half_the_bytes_and_nearly_the_same_numbers(path, tmp_path):
    model = load_model_file(path)
    card = replace(CARD, test_window=32, threshold=0.5, crop_first=True)
    sha256 = save_fp16(model, tmp_path / "half.safetensors", card)
    half = load_model_file(tmp_path / "half.safetensors")
    assert half.card == card and half.sha256 == sha256
    bodies = [len(model_file._split(each.read_bytes())[1]) for each in (path, tmp_path / "half.safetensors")]
    assert bodies[1] == bodies[0] / 2
    for name, network in model.networks.items():
        for key, value in half.networks[name].state_dict().items():
            assert value.dtype == network.state_dict()[key].dtype
            torch.testing.assert_close(value, network.state_dict()[key], rtol=1e-3, atol=1e-7)
    with torch.no_grad():
        next(model.networks["flow"].parameters()).mul_(1e9)
    with pytest.raises(WeightsError, match="flow"):
        save_fp16(model, tmp_path / "half.safetensors", card)


def test_a_safetensors_file_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(safetensors.torch.save({"a": torch.zeros(2)}, {"format": "pt"}))
    with pytest.raises(WeightsError, match=containing(tmp_path / "x")):
        load_model_file(tmp_path / "x")


class Harmful:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return os.system, ("exit 1",)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n <!DOCTYPE html><title>404</title>" * 9,
        pickle.dumps(Harmful()),
        b"PK\x03\x04" + bytes(100),
        bytes(100),
        b"\xff" * 100,
        b"text",
        (1000).to_bytes(8, "little") + b'{"__metadata__":' + b"[" * 984,
    ],
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    for load in (load_model_file, read_header):
        with pytest.raises(WeightsError, match=containing(tmp_path / "x")):
            load(tmp_path / "x")


@pytest.mark.slow
def test_flipped_bits_are_refused_or_harmless(path):
    """Harmless: in the blanks at the end of the header."""
    content, refused = path.read_bytes(), 0
    positions = [*range(0, 400, 7), *random.Random(0).sample(range(8 * len(content)), 60)]
    for position in positions:
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            model = load_model_file(path)
        except WeightsError:
            refused += 1
        else:
            assert model.card == CARD
    assert refused >= len(positions) - 2


def test_a_file_without_a_seal_is_refused(path):
    tensors = safetensors.torch.load(path.read_bytes())
    path.write_bytes(safetensors.torch.save(tensors, {METADATA_KEY: json.dumps(CARD.to_json())}))
    with pytest.raises(WeightsError, match=containing(path)):
        load_model_file(path)


def test_a_cut_file_is_refused(path):
    content = path.read_bytes()
    for length in (4, 8, 100, 30_000, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=containing(path)):
            load_model_file(path)


def test_what_is_not_there_or_no_file_is_refused(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(WeightsError, match=containing(path)):
            load_model_file(path)


def test_a_huge_file_is_refused_unread(path, monkeypatch):
    monkeypatch.setattr(model_file, "MAX_MODEL_BYTES", 1000)
    with pytest.raises(WeightsError, match=containing(path, "GiB")):
        load_model_file(path)
