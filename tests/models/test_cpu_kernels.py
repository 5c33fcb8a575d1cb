"""Fast convolution and pooling on the CPU against the plain operations, at random and odd sizes."""

import random

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.bfloat16 import emulated_bfloat16
from tests.matching import containing
from vadis.models.cpu_kernels import (
    LAYOUTS,
    DirectConv3d,
    PairedStem,
    WinogradConv3d,
    WinogradStem,
    fastest_convolution,
    max_pool,
    round_to_bfloat16,
)
from vadis.models.i3d import same_padding

TOLERANCE = 2e-5  # of the largest value, against float64
BFLOAT16 = 0.01  # of the largest value: bfloat16 rounds to 2^-9 of a number


def channels_last(*shape: int, seed: int) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last_3d)


def drawn(count: int, seed: int) -> list[tuple[int, int, int, int, int]]:
    """(batch, channels, T, H, W), a batch of 1 and a single frame among them."""
    draw = random.Random(seed)
    cases = [(1, 16, 1, 1, 1), (1, 32, 4, 7, 7), (2, 16, 5, 3, 9)]
    sizes = [(draw.randint(1, 12), draw.randint(1, 15), draw.randint(1, 15)) for _ in range(count)]
    return cases + [(draw.randint(1, 2), 16 * draw.randint(1, 3), *size) for size in sizes]


@pytest.mark.parametrize(
    ("shape", "front"), [(shape, front) for shape in drawn(12, seed=1) for front in (0, 1) if shape[2] + 2 * front >= 3]
)
def test_filtered_convolution_equals_the_plain_one(shape: tuple[int, ...], front: int) -> None:
    x = channels_last(*shape, seed=2)
    weight, bias = torch.randn(48, shape[1], 3, 3, 3) / (27 * shape[1]) ** 0.5, torch.randn(48)
    expected = functional.conv3d(x.double(), weight.double(), bias.double(), padding=(front, 1, 1)).relu()
    found = WinogradConv3d(weight, bias)(x, (front, 1, 1))
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < TOLERANCE * expected.abs().max()
    with emulated_bfloat16():
        rounded = WinogradConv3d(weight, bias, torch.bfloat16)(x.to(torch.bfloat16), (front, 1, 1))
    assert rounded.shape == expected.shape and rounded.dtype == torch.bfloat16
    assert (rounded - expected).abs().max() < 2 * BFLOAT16 * expected.abs().max()


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("front", [0, 1, 3])
@pytest.mark.parametrize("size", [(7, 8, 8), (8, 9, 23), (11, 31, 8), (24, 13, 40)])
def test_filtered_stem_equals_the_plain_one(channels: int, front: int, size: tuple[int, int, int]) -> None:
    x = channels_last(1 + front % 2, channels, *size, seed=6)
    weight, bias = torch.randn(16, channels, 7, 7, 7) / (343 * channels) ** 0.5, torch.randn(16)
    height, width = (same_padding(length, 7, 2) for length in size[1:])
    padded = functional.pad(x.double(), (*width, *height, front, front))
    expected = functional.conv3d(padded, weight.double(), bias.double(), 2).relu()
    found = WinogradStem(weight, bias)(x, (front, 0, 0))
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < TOLERANCE * expected.abs().max()
    with emulated_bfloat16():
        rounded = PairedStem(weight, bias)(x, (front, 0, 0))
    assert rounded.shape == expected.shape and rounded.dtype == torch.bfloat16
    assert (rounded - expected).abs().max() < BFLOAT16 * expected.abs().max()


def test_the_stem_of_bfloat16_takes_8_bit_pictures_exactly() -> None:
    """Here weights and outputs are numbers that bfloat16 holds too: nothing is left to round."""
    weight, generator = torch.zeros(16, 3, 7, 7, 7), torch.Generator().manual_seed(0)
    weight[:, 1, 3, 2, 4] = 255.0  # of the middle frame, in every second row and column, from the third column on
    x = (2 * torch.randint(0, 256, (1, 3, 7, 16, 16), generator=generator) - 255) / 255
    with emulated_bfloat16():
        found = PairedStem(weight, torch.zeros(16))(x.contiguous(memory_format=torch.channels_last_3d), (0, 0, 0))
    assert torch.equal(found[0, 0, 0, :, :7].float(), (x[0, 1, 3, ::2, 2::2].relu() * 255).round())


def test_errors_of_rounded_weights_cancel() -> None:
    for channels in (16, 24, 5):
        weight = torch.rand(channels, 40, 3, 3, 3, generator=torch.Generator().manual_seed(channels))
        rounded = round_to_bfloat16(weight)
        assert rounded.shape == weight.shape and rounded.dtype == torch.bfloat16
        error = (rounded.double() - weight).flatten(1)
        assert error.abs().max() <= 2**-8  # of numbers below 1: its own half of a step, and that of the one before
        assert error.sum(dim=1).abs().max() <= 2**-9 + 1e-4  # half of a step, of 1,080 numbers together


def test_rows_too_short_for_the_filtered_stem_are_refused() -> None:
    with pytest.raises(ValueError, match=containing(15)):
        WinogradStem(torch.zeros(16, 3, 7, 7, 7), torch.zeros(16))(torch.zeros(1, 3, 9, 9, 5), (0, 0, 0))


def test_filtering_is_hardly_less_exact_than_the_plain_sum() -> None:
    x, weight, bias = channels_last(1, 128, 8, 14, 14, seed=3), torch.randn(64, 128, 3, 3, 3) / 58, torch.zeros(64)
    exact = functional.conv3d(x.double(), weight.double(), padding=1).relu()
    ways = (WinogradConv3d(weight, bias), DirectConv3d(weight, bias, (1, 1, 1), "relu"))
    filtered, direct = ((way(x, (1, 1, 1)) - exact).abs().mean().item() for way in ways)
    assert filtered < 6 * direct
    assert filtered < 1e-6


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_convolution_serves_inputs_of_other_sizes_than_its_first(kernel: int) -> None:
    """The weights are laid out for the first, or for each length."""
    weight, bias, padding = torch.randn(384, 32, *[kernel] * 3) / 30, torch.randn(384), (kernel // 2,) * 3
    ways = [fastest_convolution(weight, bias, (1, 1, 1)), DirectConv3d(weight, bias, (1, 1, 1), "relu")]
    for size in ((4, 7, 7), (8, 14, 14), (3, 5, 28), *((frames, 7, 7) for frames in range(9, 9 + LAYOUTS)), (4, 7, 7)):
        x = channels_last(1, 32, *size, seed=4)
        expected = functional.conv3d(x, weight, bias, padding=padding).relu()
        for way in ways:
            torch.testing.assert_close(way(x, padding), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "exact", "rounded"),
    [
        ((16, 16), 3, 1, WinogradConv3d, DirectConv3d),
        ((192, 64), 3, 1, WinogradConv3d, WinogradConv3d),
        ((128, 96), 3, 1, WinogradConv3d, DirectConv3d),
        ((16, 24), 3, 1, DirectConv3d, DirectConv3d),
        ((16, 2), 7, 2, WinogradStem, PairedStem),
        ((16, 3), 7, 1, DirectConv3d, DirectConv3d),
    ],
)
def test_which_way_is_taken(shape: tuple[int, int], kernel: int, stride: int, exact: type, rounded: type) -> None:
    weight, bias, strides = torch.zeros(*shape, *[kernel] * 3), torch.zeros(shape[0]), (stride, stride, stride)
    assert type(fastest_convolution(weight, bias, strides)) is exact
    assert type(fastest_convolution(weight, bias, strides, torch.bfloat16)) is rounded


@pytest.mark.parametrize("shape", drawn(8, seed=5))
@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (1, 1, 1)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2))],
)
@pytest.mark.parametrize(("threads", "kind"), [(1, torch.float32), (2, torch.float32), (2, torch.bfloat16)])
def test_max_pooling_equals_that_of_pytorch(
    shape: tuple[int, ...],
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int],
    threads: int,
    kind: torch.dtype,
) -> None:
    x = channels_last(shape[0], shape[1] + 16, *shape[2:], seed=6).relu().to(kind)  # bfloat16 takes 32 channels or more
    draw = random.Random(str(shape))
    least = [max(0, -(-(window - size) // 2)) for size, window in zip(shape[2:], kernel, strict=True)]
    padding = tuple(draw.randint(*ends) for ends in zip(least, (window // 2 for window in kernel), strict=True))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = max_pool(x, kernel, stride, padding)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found, functional.max_pool3d(x, kernel, stride, padding, ceil_mode=True))
