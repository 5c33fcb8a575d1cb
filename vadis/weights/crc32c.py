"""CRC-32C (Castagnoli, RFC 3720 appendix B.4), the checksum of TensorFlow's checkpoints.

A CRC is linear over GF(2), so a long message may be cut into pieces of equal length, the CRCs of all pieces computed
side by side as one NumPy vector, and the results joined two by two: crc(A B) = crc(A)·x^(8·len(B)) + crc(B), modulo
the polynomial. Reference for joining by multiplication: zlib's crc32_combine_gen.
"""

from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

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
