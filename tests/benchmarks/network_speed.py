"""How fast is the inference form of I3D, beside a plain eager version of the same network, in one run?

    python tests/benchmarks/network_speed.py [--frames 64] [--repeats 5] [--chunk 32]

The peer is ``vadis.models.i3d.I3D`` in evaluation mode under ``torch.inference_mode``, computed as one writes it first
(``plain_network``): batch norm as a layer of its own, SAME padding written out by ``functional.pad``, contiguous
tensors. The floor is the multiply-adds of all convolutions at the rate that one large convolution, alone and in the
cache, reaches on this machine in the same run: what the network would take if every layer were as kind to the
processor.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.plain_network import plainly_written
from vadis.device import cpu_count
from vadis.models.folded import CHANNELS_LAST, FoldedConv, FoldedI3D, WholeClip
from vadis.models.i3d import I3D, ConvUnit


def seconds_in_turn(calls: list[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Wall seconds of every call, taken in turn so that a drift of the machine meets all of them."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()  # warm-up
    for _ in range(repeats):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return times


def convolution_flops(network: I3D, x: torch.Tensor) -> int:
    """2 × the multiply-adds of all convolutions for the clip ``x``."""
    total = 0

    def count(module: torch.nn.Module, _: object, y: torch.Tensor) -> None:
        nonlocal total
        total += 2 * y.numel() * module.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, torch.nn.Conv3d)]
    network(x)
    for hook in hooks:
        hook.remove()
    return total


def large_convolution() -> tuple[FoldedConv, torch.Tensor]:
    """A 3×3×3 convolution, 192 → 192 channels, and its input of 16 frames of 28×28."""
    unit = ConvUnit(192, 192, (3, 3, 3), (1, 1, 1)).eval()
    return FoldedConv(unit, torch.device("cpu")), torch.rand(1, 192, 16, 28, 28).contiguous(memory_format=CHANNELS_LAST)


def in_chunks(network: FoldedI3D, x: torch.Tensor, size: int) -> None:
    clip = network.open()
    for start in range(0, x.shape[2], size):
        clip.feed(x[:, :, start : start + size], last=start + size >= x.shape[2])


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--chunk", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(cpu_count())
    torch.manual_seed(0)
    plain = I3D(400).eval()
    folded = FoldedI3D(plain, torch.device("cpu"))
    x = torch.rand(1, 3, options.frames, 224, 224) * 2 - 1
    large, y = large_convolution()

    def plainly() -> None:
        with plainly_written():
            plain(x)

    calls = [
        plainly,
        lambda: folded(x),
        lambda: in_chunks(folded, x, options.chunk),
        lambda: large(y, WholeClip()),
    ]
    names = ["plain eager", "inference form", f"inference form, chunks of {options.chunk}"]
    flops = convolution_flops(plain, x)
    times = seconds_in_turn(calls, options.repeats)
    rate = 2 * y.numel() * 192 * 27 / min(times[3])
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")
    print(f"{options.frames} frames of 224×224 RGB, fp32: {flops / 1e9:.1f} GFLOP in convolutions")
    print(f"floor {flops / rate:.3f} s at the {rate / 1e9:.0f} GFLOP/s of one 3×3×3 convolution of 192 channels\n")
    for name, taken in zip(names[:3], times[:3], strict=True):
        ratio = statistics.median(eager / own for eager, own in zip(times[0], taken, strict=True))
        print(f"{name:32} median {statistics.median(taken):6.3f} s   {ratio:5.2f} × plain eager")


if __name__ == "__main__":
    main()
