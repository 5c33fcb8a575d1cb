"""How fast is the inference form of I3D, beside OpenVINO, ONNX Runtime and plain eager PyTorch, in one run?

    python -m tests.benchmarks network --peer peer/bin/python

The plain version is ``vadis.models.i3d.I3D`` in evaluation mode under ``torch.inference_mode``, computed as one writes
it first (``plain_network``): batch norm as a layer of its own, SAME padding written out by ``functional.pad``,
contiguous tensors. It is also what the other two are given, as ONNX, to optimise as they like, in float32 and with as
many threads. Where the processor multiplies bfloat16, vadis and OpenVINO take their turns in that too.

The floor is the multiply-adds of all convolutions at the rate that one large convolution, alone and in
the cache, reaches on this machine in the same run: what the network would take if every layer were as kind to the
processor, and no multiplication were saved.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.machine import Options
from tests.benchmarks.network_peers import peers
from tests.benchmarks.plain_network import plainly_written
from vadis.device import cpu_count, multiplies_bfloat16, resolve_device
from vadis.models.cpu_kernels import DirectConv3d
from vadis.models.i3d import I3D
from vadis.models.i3d_inference import CHANNELS_LAST, ChunkedI3D, FoldedI3D


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


def large_convolution() -> tuple[Callable[[], object], float]:
    """A 3×3×3 convolution of 16 frames of 28×28, 192 → 192 channels, without Winograd; and its FLOPs."""
    x = torch.rand(1, 192, 16, 28, 28).contiguous(memory_format=CHANNELS_LAST)
    convolve = DirectConv3d(torch.rand(192, 192, 3, 3, 3), torch.zeros(192), (1, 1, 1), "relu")
    return lambda: convolve(x, (1, 1, 1)), 2 * x.numel() * 192 * 27


def in_chunks(network: FoldedI3D, x: torch.Tensor, size: int) -> None:
    clip = ChunkedI3D(network)
    for start in range(0, x.shape[2], size):
        clip.feed(x[:, :, start : start + size], last=start + size >= x.shape[2])


FRAMES, CHUNK = 64, 32
ROUNDED, ROUNDED_WHOLE = "vadis, bf16, in chunks", "vadis, bf16, in one piece"
PLAIN, WHOLE, CHUNKED = "plain eager PyTorch", "vadis, in one piece", f"vadis, chunks of {CHUNK}, as classify does it"


def measure(options: Options, repeats: int = 7) -> dict[str, Any]:
    """Seconds of every way, taken in turn."""
    peer = options.peer_python()
    torch.set_num_threads(cpu_count())
    torch.manual_seed(0)
    plain = I3D(400).eval()
    folded = FoldedI3D(plain, resolve_device("cpu"))  # with the allocator as vadis sets it
    x = torch.rand(1, 3, FRAMES, 224, 224) * 2 - 1
    with (
        tempfile.TemporaryDirectory() as folder,
        peers(peer, plain, x, Path(folder), cpu_count()) as others,
        torch.inference_mode(),
    ):
        return _measured(plain, folded, x, others, repeats)


def _measured(plain: I3D, folded: FoldedI3D, x: torch.Tensor, others: list[Any], repeats: int) -> dict[str, Any]:
    def plainly() -> None:
        with plainly_written():
            plain(x)

    large, large_flops = large_convolution()
    rounded = FoldedI3D(plain, torch.device("cpu"), torch.bfloat16) if multiplies_bfloat16() else None
    ways: dict[str, Callable[[], object]] = {
        PLAIN: plainly,
        **{other.name: other for other in others},
        WHOLE: lambda: folded(x),
        **(
            {}
            if rounded is None
            else {ROUNDED_WHOLE: lambda: rounded(x), ROUNDED: lambda: in_chunks(rounded, x, CHUNK)}
        ),
        CHUNKED: lambda: in_chunks(folded, x, CHUNK),
        "floor": large,
    }
    flops, logits = convolution_flops(plain, x), folded(x).numpy()
    answers = {other.name: other.logits for other in others}
    if rounded is not None:
        answers[ROUNDED] = rounded(x).numpy()
    times = dict(zip(ways, seconds_in_turn(list(ways.values()), repeats), strict=True))
    rate = large_flops / min(times.pop("floor"))
    return {
        "seconds": times,
        "gflop": flops / 1e9,
        "gflop_per_second": rate / 1e9,
        "floor_seconds": flops / rate,
        "versions": {other.name: other.version for other in others},
        "difference": {name: float(abs(found - logits).max() / abs(logits).max()) for name, found in answers.items()},
    }
