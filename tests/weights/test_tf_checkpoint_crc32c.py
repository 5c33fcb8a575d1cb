import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vadis.weights.tf_checkpoint import POLYNOMIAL, crc32c, unmask


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
