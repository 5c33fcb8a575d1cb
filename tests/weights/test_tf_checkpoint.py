import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import tf_bundle
from tests.matching import containing
from vadis.errors import WeightsError
from vadis.weights.tf_checkpoint import POLYNOMIAL, crc32c, open_checkpoint, unmask

SHARED = Path(__file__).parents[2].parent / "shared"
OFFICIAL = ("rgb_imagenet", "flow_imagenet", "rgb_scratch", "flow_scratch", "rgb_scratch_kin600")
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared, with the official index files, is not here")

TENSORS = {
    "a/w": np.arange(24, dtype="f4").reshape(2, 3, 4),
    "a/b": np.float64([1.5, -2]),
    "counter": np.int64(12),
    "empty": np.zeros((0, 3), "f4"),
    "flags": np.array([True, False]),
    "half": np.float16([0.5, 1]),
    "octets": np.arange(7, dtype="u1"),
}


@pytest.fixture
def bundle(tmp_path):
    tf_bundle.write_bundle(tmp_path / "model.ckpt", TENSORS, block_entries=3)
    return tmp_path / "model.ckpt"


def index_of(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".index")


def data_of(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".data-00000-of-00001")


def read_all(prefix: Path) -> dict[str, np.ndarray]:
    checkpoint = open_checkpoint(prefix)
    return {name: checkpoint.read(name) for name in checkpoint.variables}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape
        np.testing.assert_array_equal(found[name], value)


@needs_shared
@pytest.mark.parametrize("name", OFFICIAL)
def test_official_index_lists_exactly_its_variables(name):
    expected = json.loads((SHARED / "facts/deepmind/variables.json").read_text())[name]
    found = open_checkpoint(SHARED / f"facts/deepmind/{name}.model.ckpt").variables
    assert list(found) == sorted(expected, key=str.encode)
    for key, variable in found.items():
        fact = expected[key]
        assert variable.dtype == np.dtype("f4") and fact["dtype"] == "DT_FLOAT"
        assert list(variable.shape) == fact["shape"]
        assert (0, variable.offset, variable.size) == (fact["shard_id"], fact["offset"], fact["size"])
        assert variable.crc32c == int(fact["crc32c"], 16)


@needs_shared
def test_golden_bundle_reads_to_its_exact_values():
    values = np.load(SHARED / "golden/mini_bundle_values.npz")
    expected = {name.replace("|", "/"): values[name] for name in values.files}
    assert_same(read_all(SHARED / "golden/mini_bundle"), expected)


@needs_shared
def test_flipped_bits_of_the_golden_index_are_refused_or_harmless(tmp_path):
    for suffix in (".index", ".data-00000-of-00001"):
        shutil.copyfile(SHARED / f"golden/mini_bundle{suffix}", tmp_path / f"mini_bundle{suffix}")
    assert count_refused_flips(tmp_path / "mini_bundle", index_of, step=3) > 800  # of 960; the rest lie in the footer


def test_values_survive_blocks_and_shared_key_prefixes(bundle):
    assert_same(read_all(bundle), TENSORS)


def test_flipped_bits_are_refused_or_harmless(bundle):
    count_refused_flips(bundle, index_of, step=11)
    size = data_of(bundle).stat().st_size
    assert count_refused_flips(bundle, data_of, step=8) == size  # every byte of the data belongs to a tensor


def count_refused_flips(prefix: Path, part, step: int = 1) -> int:
    """Flip one bit of a file after the other; whatever can still be read must be equal."""
    path = part(prefix)
    expected, content, refused = read_all(prefix), path.read_bytes(), 0
    for bit in range(0, 8 * len(content), step):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert_same(read_all(prefix), expected)
        except WeightsError:
            refused += 1
    path.write_bytes(content)
    return refused


def test_every_cut_of_the_index_is_refused(bundle):
    content = index_of(bundle).read_bytes()
    for length in range(len(content)):
        index_of(bundle).write_bytes(content[:length])
        with pytest.raises(WeightsError, match=containing("model.ckpt.index")):
            open_checkpoint(bundle)


def test_data_that_is_cut_short_is_refused_with_the_name_of_the_tensor(bundle):
    data = data_of(bundle)
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=containing("octets")):
        open_checkpoint(bundle).read("octets")


def test_missing_data_is_refused(bundle):
    data_of(bundle).unlink()
    with pytest.raises(WeightsError, match=containing("No such file")):
        open_checkpoint(bundle).read("counter")


def test_compressed_blocks_are_refused_as_such(tmp_path, monkeypatch):
    append = tf_bundle._append_block
    monkeypatch.setattr(tf_bundle, "_append_block", lambda content, block: append(content, block, compression=1))
    tf_bundle.write_bundle(tmp_path / "x", {"a": np.zeros(3, "f4")})
    with pytest.raises(WeightsError, match=containing("type 1")):
        open_checkpoint(tmp_path / "x")


ENTRY = tf_bundle.entry_message(np.zeros((2, 3), "f4"), 0, bytes(24))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_message_under_a_right_checksum_is_read_or_refused(tmp_path, data):
    """What a checksum cannot catch: an index that was made wrong, or made to do harm."""
    entry = bytearray(ENTRY)
    for _ in range(data.draw(st.integers(1, 4))):
        entry[data.draw(st.integers(0, len(entry) - 1))] = data.draw(st.integers(0, 255))
    entry = bytes(entry[: data.draw(st.integers(0, len(entry)))])
    (tmp_path / "x.data-00000-of-00001").write_bytes(bytes(24))
    (tmp_path / "x.index").write_bytes(tf_bundle.table([(b"", tf_bundle.header_message()), (b"v", entry)]))
    try:
        values = read_all(tmp_path / "x")
    except WeightsError:
        return
    assert values["v"].nbytes <= 24


def shape_message(*sizes: int) -> bytes:
    dims = b"".join(
        b"\x12" + tf_bundle.varint(len(dim)) + dim for dim in (b"\x08" + tf_bundle.varint(n) for n in sizes)
    )
    return b"\x12" + tf_bundle.varint(len(dims)) + dims


@pytest.mark.parametrize(
    ("entry", "fact"),
    [
        (b"\x08\x07", "dtype 7"),  # DT_STRING
        (ENTRY + b"\x3a\x00", "'v'"),
        (b"\x08\x01\x28\x04" + shape_message(1_000_000, 1_000_000), 4),
        (b"\x08\x01\x28\x04" + shape_message(2**63, 2), 4),
        (b"\x08\x01\x28\x04\x18\x05", "file 5"),
        (b"\x08\x01\x28\x04" + shape_message(*[1] * 9), "9 dimensions"),
        (b"\x08\x01\x28\x04\x12\x02\x18\x01", "x.index"),
        (b"\x0b", "wire type 3"),
        (b"\x08" + b"\xff" * 11, 64),
    ],
)
def test_entries_that_are_not_supported_are_refused(tmp_path, entry, fact):
    (tmp_path / "x.index").write_bytes(tf_bundle.table([(b"", tf_bundle.header_message()), (b"v", entry)]))
    with pytest.raises(WeightsError, match=containing(fact)):
        open_checkpoint(tmp_path / "x")


def test_big_endian_tensors_are_refused(tmp_path):
    (tmp_path / "x.index").write_bytes(tf_bundle.table([(b"", b"\x08\x01\x10\x01")]))
    with pytest.raises(WeightsError, match=containing("x.index")):
        open_checkpoint(tmp_path / "x")


def test_an_index_without_a_header_is_refused(tmp_path):
    (tmp_path / "x.index").write_bytes(tf_bundle.table([(b"v", ENTRY)]))
    with pytest.raises(WeightsError, match=containing("x.index")):
        open_checkpoint(tmp_path / "x")


def test_other_files_are_refused(tmp_path):
    for content in (b"", b"<!DOCTYPE html>" * 10, bytes(1000)):
        (tmp_path / "x.index").write_bytes(content)
        with pytest.raises(WeightsError, match=containing("x.index")):
            open_checkpoint(tmp_path / "x")


def bitwise(data: bytes) -> int:
    """The definition, one bit at a time."""
    crc = 0xFFFFFFFF
    for octet in data:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "crc"),
    [  # RFC 3720, appendix B.4, and the usual check value
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_known_values(data, crc):
    assert crc32c(data) == crc


@given(st.binary(max_size=300))
def test_agrees_with_the_definition(data):
    assert crc32c(data) == bitwise(data)


@pytest.mark.parametrize("size", [1023, 4096, 65_537])
def test_many_lanes_agree_with_the_definition(size):
    data = np.random.default_rng(size).bytes(size)
    assert crc32c(data) == bitwise(data)


def test_one_flipped_bit_in_a_long_message_is_seen():
    data = bytearray(np.random.default_rng(0).bytes(3_000_001))
    before = crc32c(bytes(data))
    data[1_234_567] ^= 4
    assert crc32c(bytes(data)) != before


def test_unmask_undoes_leveldbs_mask():
    # The first variable of rgb_imagenet, as stored and as meant.
    assert unmask(0x4BCA9953) == 0xD73DD4A3
