"""TensorFlow V2 checkpoints, read without TensorFlow; nothing in them is believed before it was checked.

``PREFIX.index`` is a LevelDB table (its ``doc/table_format.md``) from name to a protobuf message with dtype, shape,
place and CRC-32C (tensorflow ``core/protobuf/tensor_bundle.proto``); the data file holds one tensor after another.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vadis.errors import WeightsError
from vadis.files import os_errors_as
from vadis.flow.numba_cache import compiled

POLYNOMIAL = 0x82F63B78  # 0x1EDC6F41 with the bits reversed: the lowest bit is the highest power of x
MASK_DELTA = 0xA282EAD8  # LevelDB and TensorFlow store CRCs rotated and shifted by this (leveldb/util/crc32c.h)
MAX_INDEX_BYTES = 16 << 20  # the largest official index has 19,632
FOOTER_BYTES = 48  # two block handles, padded to 40, then the magic number
MAGIC = bytes.fromhex("57fb808b247547db")  # 0xdb4775248b80fb57, little-endian
TRAILER_BYTES = 5  # of a block: compression type, masked CRC-32C
MAX_DIMENSIONS = 8  # a kernel has 5
_AGAIN = "copy or download all files of the checkpoint again"
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "|u1", 6: "|i1", 9: "<i8", 10: "|b1", 19: "<f2"}  # types.proto


def crc32c(data: bytes | memoryview) -> int:
    """Return the CRC-32C (Castagnoli, RFC 3720 appendix B.4) of ``data``; 50 MB take about 0.3 s."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ ((table & 1) * np.uint32(POLYNOMIAL))
    return int(_update(table, np.frombuffer(data, np.uint8))) ^ 0xFFFFFFFF


@compiled
def _update(table: npt.NDArray[np.uint32], data: npt.NDArray[np.uint8]) -> int:
    state: np.uint32 = np.uint32(0xFFFFFFFF)
    for octet in data:
        state = np.uint32(table[(state ^ octet) & np.uint32(0xFF)] ^ (state >> np.uint32(8)))
    return np.int64(state)  # type: ignore[no-any-return]


def unmask(stored: int) -> int:
    """Return the CRC that LevelDB's and TensorFlow's masked form ``stored`` stands for."""
    rotated = (stored - MASK_DELTA) & 0xFFFFFFFF
    return ((rotated >> 17) | (rotated << 15)) & 0xFFFFFFFF


class Variable(NamedTuple):
    """Where a tensor lies, and what it must look like."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    offset: int  # bytes from the beginning of the data file
    size: int  # bytes
    crc32c: int


class TensorFlowCheckpoint(NamedTuple):
    """A checkpoint whose index has been read."""

    prefix: Path
    variables: dict[str, Variable]

    @property
    def files(self) -> list[Path]:
        """The index and the data file."""
        return [self.prefix.with_name(f"{self.prefix.name}.{end}") for end in ("index", "data-00000-of-00001")]

    def read(self, name: str) -> npt.NDArray[np.generic]:
        """Return the value of one variable; raise WeightsError if its data are missing, cut short or damaged."""
        variable, path = self.variables[name], self.files[1]
        with os_errors_as(WeightsError, f"{path} cannot be read"), path.open("rb") as stream:
            if (end := variable.offset + variable.size) > stream.seek(0, 2):
                raise WeightsError(f"{path} is cut short: {name} ends at byte {end}", _AGAIN)
            stream.seek(variable.offset)
            content = stream.read(variable.size)
        if crc32c(content) != variable.crc32c:
            raise WeightsError(f"{path} is damaged: the checksum of {name} does not agree", _AGAIN)
        return np.frombuffer(content, variable.dtype).reshape(variable.shape)


def open_checkpoint(prefix: Path) -> TensorFlowCheckpoint:
    """Return the checkpoint whose index is ``prefix`` + ``.index``.

    Raise WeightsError if it is missing, not an index, damaged, or of a kind that is not supported (compressed blocks,
    big-endian or partitioned tensors, several data files, dtypes other than plain numbers).
    """
    path = prefix.with_name(prefix.name + ".index")
    with os_errors_as(WeightsError, f"{path} cannot be read"), path.open("rb") as stream:
        content = stream.read(MAX_INDEX_BYTES + 1)
    try:
        entries = list(_table_entries(content))
        _require(bool(entries) and entries[0][0] == b"", "it has no header")
        num_shards, endianness = _numbers(entries[0][1], 1, 2)  # of the BundleHeaderProto
        _require(endianness == 0, "its tensors are big-endian, which is not supported")
        _require(num_shards == 1, f"it has {num_shards} data files, and one is supported")
        variables = dict(_parse_entry(key, value) for key, value in entries[1:])
    except ValueError as damage:
        message = f"{path} is not a TensorFlow checkpoint index, or is damaged: {damage}"
        raise WeightsError(message, _AGAIN) from damage
    return TensorFlowCheckpoint(prefix, variables)


def _require(condition: bool, damage: str) -> None:
    if not condition:
        raise ValueError(damage)


# --- the table -------------------------------------------------------------------------------------------------------


def _table_entries(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    footer = content[-FOOTER_BYTES:]
    _require(len(content) <= MAX_INDEX_BYTES, f"it has more than {MAX_INDEX_BYTES} bytes")
    _require(len(footer) == FOOTER_BYTES and footer.endswith(MAGIC), "it does not end with the magic number of a table")
    handles = _Bytes(footer[: -len(MAGIC)])
    handles.varint(), handles.varint()  # the meta-index: nothing in it matters here
    for _, handle in _block_entries(_block(content, handles)):
        yield from _block_entries(_block(content, _Bytes(handle)))


def _block(content: bytes, handle: "_Bytes") -> bytes:
    """Return the block at a handle (offset, size), its checksum checked."""
    offset, size = handle.varint(), handle.varint()
    end = offset + size
    _require(end + TRAILER_BYTES <= len(content) - FOOTER_BYTES, "a block lies outside of the file")
    stored = int.from_bytes(content[end + 1 : end + TRAILER_BYTES], "little")
    _require(crc32c(content[offset : end + 1]) == unmask(stored), "the checksum of a block does not agree")
    _require(content[end] == 0, f"its blocks are compressed (type {content[end]}), which is not supported")
    return content[offset:end]


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield a block's keys and values; a key is stored as the length it shares with the one before, and its rest."""
    restarts = 4 * int.from_bytes(block[-4:], "little") + 4
    entries, key = _Bytes(block[: max(0, len(block) - restarts)]), b""
    while entries.rest:
        shared, rest, length = entries.varint(), entries.varint(), entries.varint()
        _require(shared <= len(key), "a key shares more than there is")
        key = key[:shared] + entries.take(rest)
        yield key, entries.take(length)


# --- the messages ----------------------------------------------------------------------------------------------------


class _Bytes:
    """Bytes that are taken from the front; taking more than there are is damage."""

    def __init__(self, content: bytes) -> None:
        self.rest = memoryview(content)

    def take(self, count: int) -> bytes:
        _require(count <= len(self.rest), "it ends in the middle of an entry")
        taken, self.rest = self.rest[:count], self.rest[count:]
        return bytes(taken)

    def varint(self) -> int:
        value = 0
        for shift in range(0, 64, 7):
            (octet,) = self.take(1)
            value |= (octet & 0x7F) << shift
            if octet < 0x80:
                return value
        raise ValueError("a number has more than 64 bits")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a protobuf message: number, and an integer or the bytes of what is nested."""
    reader = _Bytes(message)
    while reader.rest:
        number, wire_type = divmod(reader.varint(), 8)
        if wire_type == 0:
            yield number, reader.varint()
        elif wire_type == 2:
            yield number, reader.take(reader.varint())
        else:
            _require(wire_type in (1, 5), f"a field has the unknown wire type {wire_type}")
            yield number, int.from_bytes(reader.take(8 if wire_type == 1 else 4), "little")


def _numbers(message: bytes, *wanted: int) -> list[int]:
    """Return integer fields of a message by their numbers; 0, protobuf's default, where they are left out."""
    fields = dict(_fields(message))
    values = [value for number in wanted if isinstance(value := fields.get(number, 0), int)]
    _require(len(values) == len(wanted), "a field is not a number")
    return values


def _parse_entry(key: bytes, value: bytes) -> tuple[str, Variable]:
    """Return the variable of a BundleEntryProto, held against itself: its size must be that of its shape."""
    name, fields = key.decode("utf-8"), dict(_fields(value))
    kind, shard, offset, size, crc = _numbers(value, 1, 3, 4, 5, 6)
    _require(kind in DTYPES, f"{name!r} has the dtype {kind}, which is not supported")
    _require(7 not in fields, f"{name!r} is partitioned, which is not supported")
    dtype, shape = np.dtype(DTYPES[kind]), _parse_shape(fields.get(2, b""))
    _require(
        math.prod(shape) * dtype.itemsize == size and shard == 0,
        f"{name!r} has {size} bytes in data file {shard}, its shape is {shape}",
    )
    return name, Variable(dtype, shape, offset, size, unmask(crc))


def _parse_shape(message: int | bytes) -> tuple[int, ...]:
    """Return the sizes in a TensorShapeProto: a list of Dim messages (2), whose field 1 is the size."""
    sizes = []
    for number, dim in _fields(message) if isinstance(message, bytes) else [(0, 0)]:
        if number != 2 or not isinstance(dim, bytes):  # 3: unknown_rank
            raise ValueError("a shape is not known")
        sizes += _numbers(dim, 1)
    _require(len(sizes) <= MAX_DIMENSIONS, f"a tensor has {len(sizes)} dimensions")
    return tuple(sizes)
