"""TensorFlow V2 checkpoints ("tensor bundles"), read without TensorFlow.

``PREFIX.index`` is a LevelDB table (one or more blocks of sorted keys with their common prefixes left out, a block that
lists the blocks, a footer) from variable name to a protobuf message with dtype, shape, place and CRC-32C;
``PREFIX.data-00000-of-00001`` holds the tensors one after another. Formats: leveldb ``doc/table_format.md``,
tensorflow ``core/protobuf/tensor_bundle.proto`` and ``core/lib/io/table_format.txt``.

The files come from elsewhere, so nothing in them is believed: every length is held against what is there before
anything is allocated, and every block and every tensor against its checksum. Whatever is wrong is a WeightsError.

CRC-32C (Castagnoli, RFC 3720 appendix B.4), the checksum of TensorFlow's checkpoints.

A CRC is linear over GF(2), so a long message may be cut into pieces of equal length, the CRCs of all pieces computed
side by side as one NumPy vector, and the results joined two by two: crc(A B) = crc(A)·x^(8·len(B)) + crc(B), modulo
the polynomial. Reference for joining by multiplication: zlib's crc32_combine_gen.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from vadis.errors import WeightsError, what_next

POLYNOMIAL = 0x82F63B78  # 0x1EDC6F41 with the bits reversed: the lowest bit is the highest power of x
ONE = 0x80000000  # x^0 in that order
MASK_DELTA = 0xA282EAD8  # LevelDB and TensorFlow store CRCs rotated and shifted by this (leveldb/util/crc32c.h)
SHORT_BYTES = 1024  # up to here one byte after the other is faster
WORDS_PER_LANE = 64  # least length of a piece, in 16-bit words: below it joining costs more than it saves
MAX_LANES_LOG2 = 14  # 16,384 pieces: the vector of states (64 KB) stays in the processor's cache

Words = npt.NDArray[np.uint32]
Polynomial = TypeVar("Polynomial", int, npt.NDArray[Any])  # one, or an array of uint32


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C of ``data``; 50 MB take about 0.4 s."""
    if len(data) <= SHORT_BYTES:
        return _advance_by_bytes(0xFFFFFFFF, data) ^ 0xFFFFFFFF
    octets = np.frombuffer(data, np.uint8)
    lanes_log2 = min(MAX_LANES_LOG2, max(0, (len(octets) // 2 // WORDS_PER_LANE).bit_length() - 1))
    lanes = 1 << lanes_log2
    words = -(-len(octets) // (2 * lanes))  # 16-bit words in a lane
    padded = np.zeros(2 * lanes * words, np.uint8)
    padded[len(padded) - len(octets) :] = octets  # zeros in front leave a zero state as it is
    state = _advance(np.ascontiguousarray(padded.view("<u2").reshape(lanes, words).T))
    length = 2 * words  # bytes behind each state
    while len(state) > 1:
        state = _multiply(_power_of_x(8 * length), state[0::2]) ^ state[1::2]
        length *= 2
    start = _multiply(_power_of_x(8 * len(octets)), 0xFFFFFFFF)
    return int(state[0]) ^ start ^ 0xFFFFFFFF


def unmask(stored: int) -> int:
    """The CRC that LevelDB's and TensorFlow's masked form ``stored`` stands for."""
    rotated = (stored - MASK_DELTA) & 0xFFFFFFFF
    return ((rotated >> 17) | (rotated << 15)) & 0xFFFFFFFF


def _advance(columns: npt.NDArray[np.uint16]) -> Words:
    """The states of all lanes after their words; ``columns`` is (words, lanes)."""
    table = _table(16)
    state = np.zeros(columns.shape[1], np.uint32)
    for column in columns:
        state = table[(state ^ column) & 0xFFFF] ^ (state >> 16)
    return state


def _advance_by_bytes(state: int, data: bytes | memoryview) -> int:
    """The state after ``data``."""
    table = _byte_table()
    for octet in data:
        state = table[(state ^ octet) & 0xFF] ^ (state >> 8)
    return state


def _multiply(factor: int, values: Polynomial) -> Polynomial:
    """``factor`` times each of ``values``, as polynomials modulo POLYNOMIAL."""
    product: Polynomial = values ^ values
    for bit in range(31, -1, -1):
        if factor >> bit & 1:
            product = product ^ values
        values = (values >> 1) ^ ((values & 1) * POLYNOMIAL)  # times x
    return product


@lru_cache(maxsize=256)
def _power_of_x(exponent: int) -> int:
    """x to the ``exponent``, modulo POLYNOMIAL."""
    result, square = ONE, ONE >> 1
    while exponent:
        if exponent & 1:
            result = _multiply(square, result)
        square = _multiply(square, square)
        exponent >>= 1
    return result


@lru_cache
def _table(bits: int) -> Words:
    """What the lowest ``bits`` of a state become after as many zeros."""
    table = np.arange(1 << bits, dtype=np.uint32)
    for _ in range(bits):
        table = (table >> 1) ^ ((table & 1) * np.uint32(POLYNOMIAL))
    return table


@lru_cache
def _byte_table() -> list[int]:
    return [int(entry) for entry in _table(8)]


MAX_INDEX_BYTES = 16 << 20  # the largest official index has 19,632
FOOTER_BYTES = 48  # two block handles, padded to 40, then the magic number
MAGIC = bytes.fromhex("57fb808b247547db")  # 0xdb4775248b80fb57, little-endian
TRAILER_BYTES = 5  # of a block: compression type, masked CRC-32C
MAX_DIMENSIONS = 8  # a kernel has 5
_AGAIN = "copy or download all files of the checkpoint again"
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "|u1", 6: "|i1", 9: "<i8", 10: "|b1", 19: "<f2"}  # types.proto


class _DamageError(Exception):
    """A byte that cannot be there; becomes a WeightsError that names the file."""


@dataclass(frozen=True)
class Variable:
    """Where a tensor lies, and what it must look like."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    shard: int
    offset: int  # bytes from the beginning of the shard
    size: int  # bytes
    crc32c: int


@dataclass(frozen=True)
class Checkpoint:
    """An index that has been read: the variables by name, and their number of data files."""

    prefix: Path
    num_shards: int
    variables: dict[str, Variable]

    def read(self, name: str) -> npt.NDArray[np.generic]:
        """The value of one variable, its CRC-32C checked.

        Raises:
            WeightsError: if the data file is missing, too short, or damaged there.
        """
        variable = self.variables[name]
        path = self.shard_path(variable.shard)
        try:
            with path.open("rb") as shard:
                available = shard.seek(0, 2)
                if variable.offset + variable.size > available:
                    message = f"{path} is cut short: {name} ends at byte {variable.offset + variable.size}"
                    raise WeightsError(message, _AGAIN)
                shard.seek(variable.offset)
                content = shard.read(variable.size)
        except OSError as error:
            raise WeightsError(f"{path} cannot be read: {error.strerror}", what_next(error.errno)) from error
        if len(content) != variable.size or crc32c(content) != variable.crc32c:
            raise WeightsError(f"{path} is damaged: the checksum of {name} does not agree", _AGAIN)
        return np.frombuffer(content, variable.dtype).reshape(variable.shape)

    def shard_path(self, shard: int) -> Path:
        """The data file of a shard."""
        return self.prefix.with_name(f"{self.prefix.name}.data-{shard:05d}-of-{self.num_shards:05d}")


def open_checkpoint(prefix: Path) -> Checkpoint:
    """The checkpoint whose index is ``prefix`` + ``.index``.

    Raises:
        WeightsError: if the index is missing, not an index, damaged, or of a kind that is not supported (compressed
            blocks, big-endian or partitioned tensors, dtypes other than plain numbers).
    """
    path = prefix.with_name(prefix.name + ".index")
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_INDEX_BYTES + 1)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}", what_next(error.errno)) from error
    try:
        entries = list(_table_entries(content))
        num_shards = _parse_header(entries)
        variables = [_parse_entry(key, value, num_shards) for key, value in entries[1:]]
    except _DamageError as damage:
        message = f"{path} is not a TensorFlow checkpoint index, or is damaged: {damage}"
        raise WeightsError(message, _AGAIN) from damage
    return Checkpoint(prefix, num_shards, {variable.name: variable for variable in variables})


# --- the table -------------------------------------------------------------------------------------------------------


def _table_entries(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All keys and values of a LevelDB table, in ascending order of keys."""
    if len(content) > MAX_INDEX_BYTES:
        raise _DamageError(f"it has more than {MAX_INDEX_BYTES} bytes")
    footer = content[-FOOTER_BYTES:]
    if len(footer) < FOOTER_BYTES or not footer.endswith(MAGIC):
        raise _DamageError("it does not end with the magic number of a table")
    handles = _Bytes(footer[: -len(MAGIC)])
    handles.varint(), handles.varint()  # the meta-index: nothing in it matters here
    previous: bytes | None = None
    for _, handle in _block_entries(_block(content, handles)):
        for key, value in _block_entries(_block(content, _Bytes(handle))):
            if previous is not None and key <= previous:
                raise _DamageError("its keys are not in order")
            previous = key
            yield key, value


def _block(content: bytes, handle: "_Bytes") -> bytes:
    """The block at a handle (offset, size), its checksum checked."""
    offset, size = handle.varint(), handle.varint()
    end = offset + size
    if end + TRAILER_BYTES > len(content) - FOOTER_BYTES:
        raise _DamageError("a block lies outside of the file")
    compression = content[end]
    stored = int.from_bytes(content[end + 1 : end + TRAILER_BYTES], "little")
    if crc32c(content[offset : end + 1]) != unmask(stored):
        raise _DamageError("the checksum of a block does not agree")
    if compression != 0:
        raise _DamageError(f"its blocks are compressed (type {compression}), which is not supported")
    return content[offset:end]


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; a key is given as the length it shares with the one before, and its rest."""
    if len(block) < 4:
        raise _DamageError("a block is too short")
    restarts = 4 * int.from_bytes(block[-4:], "little") + 4
    if restarts > len(block):
        raise _DamageError("a block has more restart points than bytes")
    entries = _Bytes(block[: len(block) - restarts])
    key = b""
    while entries:
        shared, rest, length = entries.varint(), entries.varint(), entries.varint()
        if shared > len(key):
            raise _DamageError("a key shares more than there is")
        key = key[:shared] + entries.take(rest)
        yield key, entries.take(length)


# --- the messages ----------------------------------------------------------------------------------------------------


class _Bytes:
    """A place in some bytes, going forward; reading beyond the end is damage."""

    def __init__(self, content: bytes) -> None:
        self.content, self.position = content, 0

    def __bool__(self) -> bool:
        return self.position < len(self.content)

    def take(self, count: int) -> bytes:
        taken = self.content[self.position : self.position + count]
        if len(taken) < count:
            raise _DamageError("it ends in the middle of an entry")
        self.position += count
        return taken

    def varint(self) -> int:
        value = 0
        for shift in range(0, 64, 7):
            (octet,) = self.take(1)
            value |= (octet & 0x7F) << shift
            if octet < 0x80:
                return value
        raise _DamageError("a number has more than 64 bits")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message: number, and an integer or the bytes of what is nested."""
    reader = _Bytes(message)
    while reader:
        tag = reader.varint()
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            yield number, reader.varint()
        elif wire_type == 2:
            yield number, reader.take(reader.varint())
        elif wire_type in (1, 5):
            yield number, int.from_bytes(reader.take(8 if wire_type == 1 else 4), "little")
        else:
            raise _DamageError(f"a field has the unknown wire type {wire_type}")


def _numbers(message: bytes, meanings: dict[int, str]) -> dict[str, int]:
    """The integer fields of a message that have a meaning, by it; 0, protobuf's default, where they are left out."""
    found = dict.fromkeys(meanings.values(), 0)
    for number, value in _fields(message):
        if number in meanings:
            if not isinstance(value, int):
                raise _DamageError(f"the field {meanings[number]} is not a number")
            found[meanings[number]] = value
    return found


def _parse_header(entries: list[tuple[bytes, bytes]]) -> int:
    """The number of data files, from the BundleHeaderProto under the empty key."""
    if not entries or entries[0][0] != b"":
        raise _DamageError("it has no header")
    header = _numbers(entries[0][1], {1: "num_shards", 2: "endianness"})
    if header["endianness"] != 0:
        raise _DamageError("its tensors are big-endian, which is not supported")
    if not 1 <= header["num_shards"] <= 99_999:
        raise _DamageError(f"it has {header['num_shards']} data files")
    return header["num_shards"]


def _parse_entry(key: bytes, value: bytes, num_shards: int) -> Variable:
    """A BundleEntryProto, held against itself: its size must be that of its shape."""
    numbers = _numbers(value, {1: "dtype", 3: "shard", 4: "offset", 5: "size", 6: "crc32c"})
    try:
        name = key.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _DamageError("a name is not UTF-8") from error
    if numbers["dtype"] not in DTYPES:
        raise _DamageError(f"{name!r} has the dtype {numbers['dtype']}, which is not supported")
    dtype = np.dtype(DTYPES[numbers["dtype"]])
    shape: tuple[int, ...] = ()
    for number, nested in _fields(value):
        if number == 2:
            shape = _parse_shape(nested)
        elif number == 7:
            raise _DamageError(f"{name!r} is partitioned, which is not supported")
    if math.prod(shape) * dtype.itemsize != numbers["size"] or numbers["shard"] >= num_shards:
        raise _DamageError(
            f"{name!r} has {numbers['size']} bytes in data file {numbers['shard']}, its shape is {shape}"
        )
    return Variable(name, dtype, shape, numbers["shard"], numbers["offset"], numbers["size"], unmask(numbers["crc32c"]))


def _parse_shape(message: int | bytes) -> tuple[int, ...]:
    """A TensorShapeProto: a list of Dim messages, whose field 1 is the size."""
    if not isinstance(message, bytes):
        raise _DamageError("a shape is not a message")
    sizes = []
    for number, nested in _fields(message):
        if number == 3 or not isinstance(nested, bytes):
            raise _DamageError("a shape is not known")
        if number == 2:
            sizes.append(_numbers(nested, {1: "size"})["size"])
    if len(sizes) > MAX_DIMENSIONS:
        raise _DamageError(f"a tensor has {len(sizes)} dimensions")
    return tuple(sizes)
