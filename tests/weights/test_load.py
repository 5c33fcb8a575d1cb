"""Models by name and path, and published weights, known by their tensors."""

import fcntl
import hashlib
import json
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import vadis
from tests.conftest import SHARED
from tests.make_model import make_model
from tests.matching import containing
from vadis.errors import DeviceError, UsageError, WeightsError
from vadis.models import I3D, check_precision
from vadis.weights import cache as cache_room
from vadis.weights.catalog import STAND_IN, WEIGHTS
from vadis.weights.convert import state_key
from vadis.weights.load import load_model, published_name, tensor_hash, verify_model
from vadis.weights.model_file import load_model_file, save_fp16, save_model

NAME = "i3d-kinetics400"


@pytest.fixture
def ready(published):
    """The model, fetched; with its path."""
    load_model(NAME, "cpu")
    return cache_room.model_path(NAME)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_first_use_downloads_converts_and_remembers(published, server, cache):
    steps = []
    model = vadis.load_model(progress=lambda *step: steps.append(step), device="cpu")
    assert (model.card.name, model.card.streams, len(model.card.labels)) == (NAME, ("rgb", "flow"), 400)
    assert isinstance(model.networks["flow"], I3D)
    assert steps[-1] == (NAME, published.num_bytes, published.num_bytes)
    assert model.card.provenance["files"][0]["url"] == published.files[0].urls[0]
    requests = len(server.requests)
    again = load_model(NAME, torch.device("cpu"))
    assert len(server.requests) == requests == 4
    assert again.sha256 == model.sha256
    assert [name for name in files_in(cache) if not name.startswith("downloads")] == [
        f"locks/{NAME}.lock",
        f"models/{NAME}.safetensors",
    ]


def test_the_model_stays_when_its_checkpoints_are_deleted(ready, published):
    for file in published.files:
        cache_room.download_path(file).unlink()
    assert load_model(NAME, "cpu", offline=True).card.name == NAME


def test_checkpoints_put_there_by_hand_are_enough(published, bundles, cache):
    for stream, prefix in bundles.items():
        folder = cache / "downloads" / f"{stream}_imagenet"
        folder.mkdir(parents=True)
        for file in prefix.parent.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    assert load_model(NAME, "cpu", offline=True).card.name == NAME


def test_a_model_put_there_by_hand_is_enough(ready, tmp_path, monkeypatch):
    monkeypatch.setenv("VADIS_CACHE", str(tmp_path / "elsewhere"))
    target = cache_room.model_path(NAME)
    target.parent.mkdir(parents=True)
    target.write_bytes(ready.read_bytes())
    assert load_model(NAME, "cpu", offline=True).card.name == NAME


def test_a_path_is_loaded_as_it_is(ready, tmp_path):
    own = tmp_path / "own model.safetensors"
    own.write_bytes(ready.read_bytes())
    assert load_model(own, "cpu").sha256 == load_model(str(own), "cpu").sha256


@pytest.mark.parametrize(
    ("vendor", "flags", "is_faster"),
    [
        ("AuthenticAMD", "fpu avx512_bf16 vmx", True),
        ("GenuineIntel", "avx512_bf16 amx_tile amx_bf16", True),
        ("GenuineIntel", "fpu avx512_bf16 avx512_fp16", False),  # half the rate of float32
        ("AuthenticAMD", "avx2 avx512f avx512_bf16x", False),
        (None, None, False),
    ],
)
def test_bf16_is_for_processors_that_gain_by_it(ready, monkeypatch, tmp_path, vendor, flags, is_faster):
    """And refused on others, and where nothing says what the processor can."""
    monkeypatch.setattr("vadis.device.CPU_FACTS", tmp_path / "cpuinfo")
    if vendor is not None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\nbogomips\t: 1\n")
    assert load_model(ready, "cpu").precision == "fp32"
    if is_faster:
        assert load_model(ready, "cpu", precision="bf16").settings["precision"] == "bf16"
        return
    with pytest.raises(DeviceError, match=containing("slower")) as refused:
        load_model(ready, "cpu", precision="bf16")
    assert "`precision`" in refused.value.hint


def test_other_precisions_are_wrong_use(ready, monkeypatch):
    with pytest.raises(UsageError, match=containing("'fp64'")):
        load_model(ready, "cpu", precision="fp64")
    with pytest.raises(UsageError, match=containing("bf16")):
        check_precision("bf16", "c3d", torch.device("cpu"))
    with pytest.raises(DeviceError, match=containing("cuda")):
        check_precision("bf16", "i3d", torch.device("cuda"))


def test_an_unknown_name_lists_the_known_ones():
    for name in ("i3d-kinetics4000", "models/none.safetensors"):
        with pytest.raises(UsageError, match=containing(repr(name))) as failure:
            load_model(name)
        assert "i3d-kinetics400, i3d-kinetics400-scratch, i3d-kinetics600" in failure.value.hint


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("i3d-kinetic400", "i3d-kinetics400"),
        ("I3D-Kinetics400-RGB", "i3d-kinetics400-rgb"),
        ("kinetics600", "i3d-kinetics600"),
        ("camera_motion", "camera-motion"),
    ],
)
def test_a_misspelt_name_gets_the_nearest_one(typed, meant):
    with pytest.raises(UsageError) as failure:
        load_model(typed)
    assert f"{meant}?" in failure.value.hint


def test_a_name_like_no_other_gets_no_guess():
    with pytest.raises(UsageError) as failure:
        load_model("resnet50.pth")
    assert "?" not in failure.value.hint


def test_a_damaged_model_is_set_aside_and_made_again(ready, caplog):
    caplog.set_level("INFO", "vadis")
    flip_a_bit(ready)
    model = load_model(NAME, "cpu")
    assert len(caplog.messages) == 1
    assert f"{NAME}.safetensors.corrupt" in caplog.messages[0]
    assert ready.with_name(f"{ready.name}.corrupt").is_file()
    assert verify_model(NAME) == model.sha256
    assert load_model(NAME, "cpu").sha256 == model.sha256
    assert len(caplog.messages) == 1


def test_a_damaged_model_is_named_when_offline(ready):
    flip_a_bit(ready)
    with pytest.raises(WeightsError, match=containing("i3d-kinetics400.safetensors")) as failure:
        load_model(NAME, "cpu", offline=True)
    assert f"vadis weights download {NAME}" in failure.value.hint
    assert ready.is_file()
    with pytest.raises(WeightsError, match=containing(f"{NAME}.safetensors")):
        verify_model(NAME)


def test_another_model_under_the_name_is_not_taken_for_it(ready, tmp_path):
    from tests.make_model import make_model

    make_model(ready, width=1 / 64, classes=7)
    with pytest.raises(WeightsError, match=containing("i3d-kinetics400")):
        load_model(NAME, "cpu", offline=True)


def test_a_conversion_that_fails_leaves_no_model(published, monkeypatch, cache):
    from vadis.weights import load

    def fail(path):
        raise WeightsError("no")

    monkeypatch.setattr(load, "load_model_file", fail)
    with pytest.raises(WeightsError, match="no"):
        load_model(NAME, "cpu")
    assert [name for name in files_in(cache) if name.startswith("models")] == []


def test_without_a_network_nothing_is_made_up(published, server, cache):
    server.faults["/rgb_imagenet/model.ckpt.index"].extend(["404"] * 9)
    with pytest.raises(WeightsError, match=containing("rgb_imagenet/model.ckpt.index")) as failure:
        load_model(NAME, "cpu")
    for file in published.files:
        assert str(cache / "downloads" / file.local) in failure.value.hint
    assert STAND_IN in failure.value.hint
    assert str(cache / "models" / f"{NAME}.safetensors") in failure.value.hint


def test_offline_with_a_read_only_cache_opens_no_socket(ready, cache):
    events, recording = [], True
    sys.addaudithook(lambda event, _: events.append(event) if recording and event.startswith("socket.") else None)
    folders = [cache, *(path for path in cache.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert load_model(NAME, "cpu", offline=True).card.name == NAME
    finally:
        recording = False
        for folder in folders:
            folder.chmod(0o755)
    assert events == []


@pytest.mark.slow
@pytest.mark.parametrize("locks", [True, False])
def test_eight_at_once_make_one_model(published, server, cache, monkeypatch, caplog, locks):
    """Threads stand for processes: a lock belongs to an open file, not to a process."""
    if not locks:
        monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    monkeypatch.setattr(cache_room, "LOCK_POLL_SECONDS", 0.02)
    caplog.set_level("INFO", "vadis")
    hashes = []

    def work() -> None:
        hashes.append(load_model(NAME, "cpu").sha256)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(hashes) == 8 and len(set(hashes)) == 1
    assert not [name for name in files_in(cache) if name.endswith((".part", ".corrupt"))]
    if locks:
        assert len(server.requests) == 4
        assert len(caplog.messages) == 7 and all(NAME in notice for notice in caplog.messages)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with the labels of Kinetics-400."""
    return make_model(tmp_path_factory.mktemp("model") / "any-name.safetensors", width=1 / 32)


@pytest.fixture
def model(file: Path, monkeypatch: pytest.MonkeyPatch):
    """It, as if it were the published one."""
    found = load_model(file, "cpu")
    hashes = {stream: tensor_hash(network) for stream, network in found.networks.items()}
    monkeypatch.setitem(WEIGHTS, "i3d-kinetics400", replace(WEIGHTS["i3d-kinetics400"], tensor_hashes=hashes))
    return found


def test_whatever_the_file_is_called_and_with_some_of_its_networks(model) -> None:
    assert model.card.name == "any-name"
    assert published_name(model) == "i3d-kinetics400"
    assert published_name(model.only(("flow",))) == "i3d-kinetics400"


@pytest.mark.slow
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


def test_the_catalog_has_the_hashes_of_deepmind_s_checkpoints() -> None:
    facts = SHARED / "facts" / "deepmind" / "variables.json"
    if not facts.exists():
        pytest.skip("needs the facts about the checkpoints in shared/facts beside the checkout")
    checkpoints = {
        files[0].local.partition("/")[0]: row.tensor_hashes[stream]
        for row in WEIGHTS.values()
        if row.tensor_hashes
        for stream, files in row.checkpoints.items()
    }
    assert len(checkpoints) == 5
    for name, variables in json.loads(facts.read_text()).items():
        sums = {state_key(key): int(facts["crc32c"], 16) for key, facts in variables.items()}
        sums.pop(None, None)
        text = "".join(f"{key} {sums[key]:08x}\n" for key in sorted(sums))
        assert checkpoints[name] == hashlib.sha256(text.encode()).hexdigest()
