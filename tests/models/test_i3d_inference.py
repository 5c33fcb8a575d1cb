"""The inference form: equal to the training form, and to itself in chunks of any length."""

import gc
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor

from tests.bfloat16 import emulated_bfloat16
from tests.matching import containing
from vadis.device import multiplies_bfloat16
from vadis.models.i3d import I3D, num_steps
from vadis.models.i3d_inference import LOGITS, ChunkedI3D, FoldedI3D, fold_batch_norm, round_pointwise

CPU = torch.device("cpu")
FORM_TOLERANCE = 1e-5  # of the largest logit: folding changes the order of float32 products and sums
CHUNK_TOLERANCE = 1e-5  # of the largest logit: oneDNN may choose another kernel for another length
BFLOAT16_TOLERANCE = 0.05  # of the largest logit: eight bits, through 20 layers
CHANNELS = {"rgb": 3, "flow": 2}


def narrow_network(stream: str, width: float = 1 / 16, num_classes: int = 7) -> I3D:
    """A network with batch-norm statistics unlike the initial ones, so that a mistake in folding would show."""
    torch.manual_seed(1)
    network = I3D(num_classes, CHANNELS[stream], width=width).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(module.weight, 0.8, 1.6)
            torch.nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.05, 0.2)  # small, so that activations do not die out on the way
    return network


def random_clip(stream: str, frames: int, seed: int, height: int = 224, width: int = 224) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, CHANNELS[stream], frames, height, width, generator=generator) * 2 - 1


def relative_difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return ((a - b).abs().max() / b.abs().max()).item()


def in_chunks(network: FoldedI3D, clip: Tensor, sizes: list[int], layer: str = LOGITS) -> Tensor:
    """The outputs of ``clip`` fed in chunks of the given sizes, over and over."""
    passage, logits, start, turn = ChunkedI3D(network, layer, clip.shape[2]), [], 0, 0
    while start < clip.shape[2]:
        stop = min(start + sizes[turn % len(sizes)], clip.shape[2])
        given = passage.feed(clip[:, :, start:stop], last=stop == clip.shape[2])
        logits += [] if given is None else [given]
        start, turn = stop, turn + 1
    return torch.cat(logits, dim=2)


def test_a_pytorch_without_onednn_computes_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object) -> None:
        raise RuntimeError("PyTorch is not linked with support for mkldnn devices")

    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(Tensor, "to_mkldnn", missing)
    network, clip = narrow_network("flow"), random_clip("flow", 12, seed=0)
    with torch.inference_mode():
        assert relative_difference(FoldedI3D(network, CPU)(clip), network(clip)) < FORM_TOLERANCE


@pytest.mark.parametrize("stream", CHANNELS)
@pytest.mark.parametrize("frames", [9, 10, 15, 16, 17, 23, 64, 79])
def test_equals_the_training_form(stream: str, frames: int) -> None:
    network, clip = narrow_network(stream), random_clip(stream, frames, seed=frames)
    with torch.inference_mode():
        assert relative_difference(FoldedI3D(network, CPU)(clip), network(clip)) < FORM_TOLERANCE


@pytest.mark.parametrize(("height", "width"), [(224, 256), (225, 231), (240, 321)])
def test_equals_the_training_form_at_other_sizes(height: int, width: int) -> None:
    network, clip = narrow_network("rgb"), random_clip("rgb", 17, 3, height, width)
    with torch.inference_mode():
        assert relative_difference(FoldedI3D(network, CPU)(clip), network(clip)) < FORM_TOLERANCE


@pytest.mark.slow
def test_equals_the_training_form_at_full_width() -> None:
    network, clip = narrow_network("rgb", width=1.0, num_classes=400), random_clip("rgb", 16, seed=5)
    with torch.inference_mode():
        assert relative_difference(FoldedI3D(network, CPU)(clip), network(clip)) < FORM_TOLERANCE


def drawn_cases() -> list[tuple[int, int]]:
    """(frames, chunk size): three lengths for every remainder by 8, and the corners; the same in every run."""
    draw = random.Random(20170522)
    corners = [(9, 1), (9, 100), (10, 3), (11, 8), (64, 1), (250, 32), (300, 100), (300, 8)]
    lengths = [8 * draw.randint(first, last) + rest for rest in range(8) for first, last in ((2, 8), (8, 20), (20, 36))]
    return corners + [(frames, draw.choice([1, 2, 7, 31, 32, 33, 64, 128])) for frames in lengths]


@pytest.mark.slow
@pytest.mark.parametrize(("frames", "chunk"), drawn_cases())
def test_chunks_equal_the_training_form_on_exactly_these_frames(frames: int, chunk: int) -> None:
    stream = ("rgb", "flow")[frames % 5 % 2]
    network, clip = narrow_network(stream, width=1 / 32), random_clip(stream, frames, seed=frames)
    with torch.inference_mode():
        expected = network(clip)
    assert expected.shape[2] == num_steps(LOGITS, frames) == -(-frames // 8) - 1
    assert relative_difference(in_chunks(FoldedI3D(network, CPU), clip, [chunk]), expected) < FORM_TOLERANCE


@pytest.mark.parametrize("frames", [33, 34, 35, 36])
def test_chunks_by_the_fast_kernels_equal_the_training_form(frames: int) -> None:
    """From a quarter of the paper's channels on, Winograd and the pooling of our own are at work."""
    network, clip = narrow_network("rgb", width=1 / 4), random_clip("rgb", frames, seed=frames)
    with torch.inference_mode():
        assert relative_difference(in_chunks(FoldedI3D(network, CPU), clip, [13]), network(clip)) < FORM_TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("frames", range(25, 33))
def test_every_layer_of_a_chunked_clip_is_the_training_forms(frames: int) -> None:
    network, clip = narrow_network("rgb", width=1 / 32), random_clip("rgb", frames, seed=frames)
    folded = FoldedI3D(network, CPU)
    with torch.inference_mode():
        for layer, output in network.endpoints(clip):
            expected = output if layer == LOGITS else output.mean(dim=(3, 4))
            assert expected.shape[2] == num_steps(layer, frames)
            assert relative_difference(in_chunks(folded, clip, [7], layer), expected) < FORM_TOLERANCE, layer


@pytest.mark.slow
def test_chunks_of_changing_length_and_a_mirrored_pair() -> None:
    network, clip = FoldedI3D(narrow_network("rgb"), CPU), random_clip("rgb", 72, seed=2)
    pair = torch.cat([clip, clip.flip(-1)])  # (2, C, T, H, W)
    assert relative_difference(in_chunks(network, pair, [1, 19, 3, 32]), network(pair)) < CHUNK_TOLERANCE


@pytest.mark.slow
def test_full_width_network_in_chunks() -> None:
    network, clip = FoldedI3D(narrow_network("flow", width=1.0), CPU), random_clip("flow", 64, seed=4)
    assert relative_difference(in_chunks(network, clip, [24]), network(clip)) < CHUNK_TOLERANCE


def test_what_is_held_back_does_not_grow_with_the_clip() -> None:
    network, chunk = FoldedI3D(narrow_network("rgb"), CPU), random_clip("rgb", 16, seed=6)
    passage, held = ChunkedI3D(network), []
    for _ in range(12):
        passage.feed(chunk)
        held.append(sum(each.numel() for each in gc.get_objects() if type(each) is Tensor))
    assert held[4] > 0
    assert set(held[4:]) == {held[4]}


@pytest.mark.parametrize(("said", "frames"), [(8, 8), (20, 18), (0, 19), (5, 5)])
def test_a_chunked_clip_ends_as_was_said_and_after_nine_frames_at_least(said: int, frames: int) -> None:
    passage = ChunkedI3D(FoldedI3D(narrow_network("rgb", width=1 / 32), CPU), num_frames=said)
    with pytest.raises(ValueError, match=containing(4)):
        passage.feed(random_clip("rgb", frames, seed=0), last=True)


def test_folding_keeps_gamma() -> None:
    unit = narrow_network("rgb").get_submodule("Conv3d_1a_7x7")
    weight, bias = fold_batch_norm(unit)
    x = random_clip("rgb", 9, 7, 21, 21)
    expected = unit.norm(unit.conv(x))
    folded = torch.nn.functional.conv3d(x, weight, bias, stride=2)
    torch.testing.assert_close(folded, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("convolutions", [nullcontext, emulated_bfloat16], ids=["PyTorch's", "oneDNN's"])
def test_bfloat16_is_near_and_float32_again_at_the_end(convolutions: Callable[[], AbstractContextManager]) -> None:
    """By whichever convolutions: those of PyTorch (slow where it is not multiplied), or of a processor that does."""
    network, clip = narrow_network("rgb"), random_clip("rgb", 33, seed=8)
    exact = FoldedI3D(network, CPU)(clip)
    with convolutions():
        rounded = FoldedI3D(network, CPU, torch.bfloat16)
        logits = rounded(clip)
        assert logits.dtype == torch.float32
        assert 0 < relative_difference(logits, exact) < BFLOAT16_TOLERANCE
        assert relative_difference(in_chunks(rounded, clip, [24]), logits) < BFLOAT16_TOLERANCE
        assert rounded(clip, layer="Mixed_4f").dtype == torch.float32


def test_a_pointwise_kernel_keeps_its_mean_when_it_is_rounded() -> None:
    """As far as its channels, fewer than those of the input, tell what the means of the input were."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 64, 1, 1, 1, generator=generator)
    inputs = torch.rand(64, generator=generator) + 0.5
    means = weight.flatten(1) @ inputs
    rounded, bias = round_pointwise(weight, torch.zeros(48), means)
    assert torch.equal(rounded, rounded.to(torch.bfloat16).float())
    by_itself, corrected = rounded.flatten(1) @ inputs - means, rounded.flatten(1) @ inputs + bias - means
    assert corrected.norm() < by_itself.norm() / 4
    nothing, bias = round_pointwise(torch.zeros_like(weight), torch.ones(48), torch.zeros(48))
    assert not nothing.any() and torch.equal(bias, torch.ones(48))


@pytest.mark.skipif(not multiplies_bfloat16(), reason="needs a processor with AVX-512 BF16 or AMX")
def test_the_emulation_is_what_such_a_processor_computes() -> None:
    network, clip = narrow_network("rgb", width=0.5), random_clip("rgb", 64, seed=8)
    own = FoldedI3D(network, CPU, torch.bfloat16)(clip)
    with emulated_bfloat16():
        emulated = FoldedI3D(network, CPU, torch.bfloat16)(clip)
    assert relative_difference(own, emulated) < relative_difference(own, FoldedI3D(network, CPU)(clip))


@pytest.mark.cuda
def test_bfloat16_is_near_on_cuda() -> None:
    network, clip = narrow_network("rgb", width=0.5), random_clip("rgb", 64, seed=9)
    cuda = torch.device("cuda")
    exact, rounded = (FoldedI3D(network, cuda, precision)(clip) for precision in (torch.float32, torch.bfloat16))
    assert relative_difference(rounded, exact) < BFLOAT16_TOLERANCE


@pytest.mark.cuda
@pytest.mark.parametrize("frames", [17, 64])
def test_equals_the_training_form_on_cuda(frames: int) -> None:
    network, clip = narrow_network("rgb", width=0.5), random_clip("rgb", frames, seed=frames)
    torch.backends.cudnn.allow_tf32 = False
    with torch.inference_mode():
        folded = FoldedI3D(network, torch.device("cuda"), torch.float32)(clip).cpu()
        assert relative_difference(folded, network(clip)) < 1e-4  # cuDNN sums in another order
