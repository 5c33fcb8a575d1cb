"""How much of a training step is not spent in the network? Full-width I3D on random clips of 64 frames.

    python tests/benchmarks/training_speed.py [--width 1] [--clips 4] [--micro-batch 2] [--steps 3] [--workers 1]

A run of ``vadis.training.loop`` itself on a video much as UCF-101's are, loaded by worker processes; clocks are held
to its parts from outside. *Overhead* is what the loop takes besides the forward and backward passes and besides
waiting for clips: putting batches together, running averages, gradient norm, optimiser, log. Waiting depends on the
numbers of workers and processors, so it stands apart. The peer is the same network as one writes it first, with
contiguous tensors and padded copies. The floor is the multiply-adds of all convolutions, three times over (forward,
backward to inputs, backward to weights), at the rate that one large convolution reaches in this run.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch
from torch import Tensor

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.loading import made
from tests.benchmarks.network_speed import convolution_flops, large_convolution, seconds_in_turn
from tests.benchmarks.plain_network import plainly_written
from vadis.datasets import Example
from vadis.device import cpu_count
from vadis.models.folded import WholeClip
from vadis.models.i3d import I3D
from vadis.streams import STREAMS
from vadis.training import loop
from vadis.training.distributed import Process
from vadis.training.loader import VideoClips
from vadis.training.recipes import RECIPES, override

LABELS = ("a", "b")
PASSES = ("forward", "backward")
WAITING, STEP = "waiting for clips", "whole step"


class Clock:
    """Wall seconds of each step, by what they went into; the first step, in which everything warms up, is left out."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def around(self, what: str, function: Callable) -> Callable:
        def timed(*args: object, **more: object) -> object:
            if what == STEP:
                self.steps.append(dict.fromkeys((*PASSES, WAITING, STEP), 0.0))
            began = time.perf_counter()
            result = function(*args, **more)
            self.steps[-1][what] += time.perf_counter() - began
            return result

        return timed

    def each(self, *parts: str) -> list[float]:
        return [sum(step[part] for part in parts) for step in self.steps[1:]]

    @contextmanager
    def watching(self) -> Iterator[None]:
        with (
            patch.object(loop, "clip_losses", self.around(PASSES[0], loop.clip_losses)),
            patch.object(Tensor, "backward", self.around(PASSES[1], Tensor.backward)),
            patch.object(loop._Run, "_next_clip", self.around(WAITING, loop._Run._next_clip)),
            patch.object(loop._Run, "take_step", self.around(STEP, loop._Run.take_step)),
        ):
            yield


def train(folder: Path, options: argparse.Namespace) -> None:
    numbers = {"batch_size": options.clips, "micro_batch": options.micro_batch, "clip_frames": options.frames}
    recipe = override(RECIPES["ucf101"], {**numbers, "schedule": "steps", "steps": options.steps + 1})
    examples = [Example(str(made(folder)), label) for label in LABELS]
    loop.train(
        I3D(len(LABELS), STREAMS["rgb"].channels, width=options.width),
        VideoClips(examples, LABELS, ("rgb",), frames=options.frames, train=True),
        recipe,
        folder / "run",
        labels=LABELS,
        data_sha256="",
        process=Process(torch.device("cpu")),
        settings=loop.Settings(workers=options.workers),
    )


def passes(network: I3D, x: Tensor) -> None:
    network.zero_grad(set_to_none=True)
    network(x).sum().backward()


def plain_passes(network: I3D, x: Tensor) -> None:
    with plainly_written():
        passes(network, x)


def report_overhead(clock: Clock) -> None:
    steps = zip(clock.each(*PASSES), clock.each(WAITING), clock.each(STEP), strict=True)
    shares = [(step - waiting - network) / (step - waiting) for network, waiting, step in steps]
    for name, seconds in (
        ("forward", clock.each("forward")),
        ("backward", clock.each("backward")),
        ("waiting for clips", clock.each(WAITING)),
        ("whole step", clock.each(STEP)),
    ):
        print(f"{name:18} median {median(seconds):7.3f} s")
    print(f"overhead           median {median(shares):7.2%}   largest {max(shares):.2%}")


def report_network(options: argparse.Namespace, repeats: int = 3) -> None:
    network = I3D(len(LABELS), width=options.width).train()
    x = torch.rand(options.micro_batch, 3, options.frames, 224, 224) * 2 - 1
    with torch.inference_mode():
        large, y = large_convolution()
        flops = 3 * convolution_flops(network.eval(), x)
    network.train()
    peer, own, one = seconds_in_turn(
        [lambda: plain_passes(network, x), lambda: passes(network, x), lambda: large(y, WholeClip())], repeats
    )
    rate = 2 * y.numel() * 192 * 27 / min(one)
    for name, seconds in (("as one writes it first", peer), ("as it is", own)):
        print(f"{name:24} median {median(seconds):6.3f} s   {options.micro_batch / median(seconds):6.3f} clips/s")
    ratio = median(first / second for first, second in zip(peer, own, strict=True))
    print(f"{'ratio':24} median {ratio:6.2f}")
    print(f"{'floor':24}        {flops / rate:6.3f} s   {options.micro_batch * rate / flops:6.3f} clips/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--clips", type=int, default=4, help="of a step")
    parser.add_argument("--micro-batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(cpu_count())
    torch.manual_seed(0)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, clock.watching():
        train(Path(folder), options)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")
    print(
        f"I3D of width {options.width:g}; a step of {options.clips} clips of {options.frames} frames of 224×224 RGB\n"
    )
    report_overhead(clock)
    print(f"\nforward and backward of {options.micro_batch} clips")
    report_network(options)


if __name__ == "__main__":
    main()
