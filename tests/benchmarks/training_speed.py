"""How much of a training step is not spent in the network? Full-width I3D on random clips of 64 frames.

    python -m tests.benchmarks training

A run of ``vadis.training.loop`` itself on a video much as UCF-101's are, loaded by worker processes; clocks are held
to its parts from outside. *Overhead* is what the loop takes besides the forward and backward passes and besides
waiting for clips: putting batches together, running averages, gradient norm, optimiser, log. Waiting depends on the
numbers of workers and processors, so it stands apart. The peer is the same network as one writes it first, with
contiguous tensors and padded copies. The floor is the multiply-adds of all convolutions, three times over (forward,
backward to inputs, backward to weights), at the rate that one large convolution reaches in this run.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from tests.benchmarks.loading import made
from tests.benchmarks.machine import Options
from tests.benchmarks.network_speed import convolution_flops, large_convolution, seconds_in_turn
from tests.benchmarks.plain_network import plainly_written
from vadis.datasets import Example
from vadis.device import cpu_count, multiplies_bfloat16
from vadis.models.i3d import I3D
from vadis.preprocessing import STREAMS
from vadis.training import loop
from vadis.training.distributed import Process
from vadis.training.loader import TrainingClip, VideoClips, stream_clips
from vadis.training.loop import Context
from vadis.training.recipes import RECIPES, override

CLIPS, MICRO_BATCH, FRAMES, STEPS = 4, 2, 64, 3
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

    def waiting_for_clips(self, *args: Any, **options: Any) -> Iterator[TrainingClip]:
        with closing(stream_clips(*args, **options)) as stream:
            following = self.around(WAITING, stream.__next__)
            while True:
                yield following()

    @contextmanager
    def watching(self) -> Iterator[None]:
        with (
            patch.object(loop, "clip_losses", self.around(PASSES[0], loop.clip_losses)),
            patch.object(Tensor, "backward", self.around(PASSES[1], Tensor.backward)),
            patch.object(loop.loader, "stream_clips", self.waiting_for_clips),
            patch.object(loop.Trainer, "take_step", self.around(STEP, loop.Trainer.take_step)),
        ):
            yield


def train(folder: Path) -> None:
    numbers = {"batch_size": CLIPS, "micro_batch": MICRO_BATCH, "clip_frames": FRAMES}
    recipe = override(RECIPES["ucf101"], {**numbers, "schedule": "steps", "steps": STEPS + 1})
    examples = [Example(str(made(folder)), label) for label in LABELS]
    loop.Trainer(
        I3D(len(LABELS), STREAMS["rgb"].channels),
        VideoClips(examples, LABELS, ("rgb",), recipe, train=True),
        None,
        recipe,
        folder / "run",
        labels=LABELS,
        data_sha256="",
        context=Context(Process(torch.device("cpu")), workers=1),
    ).train()


def passes(network: I3D, x: Tensor, precision: str = "fp32") -> None:
    network.zero_grad(set_to_none=True)
    losses, _ = loop.clip_losses(network, [x], torch.zeros(len(x), dtype=torch.int64), precision=precision)
    losses.sum().backward()


def plain_passes(network: I3D, x: Tensor) -> None:
    with plainly_written():
        passes(network, x)


def overhead(clock: Clock) -> float:
    steps = zip(clock.each(*PASSES), clock.each(WAITING), clock.each(STEP), strict=True)
    return median((step - waiting - network) / (step - waiting) for network, waiting, step in steps)


def alone(repeats: int = 3) -> dict[str, Any]:
    """Forward and backward without the loop, beside the peer; where the processor multiplies it, in bfloat16 too."""
    network = I3D(len(LABELS)).train()
    x = torch.rand(MICRO_BATCH, 3, FRAMES, 224, 224) * 2 - 1
    with torch.inference_mode():
        large, large_flops = large_convolution()
        flops = 3 * convolution_flops(network.eval(), x)
    network.train()
    works = [lambda: plain_passes(network, x), lambda: passes(network, x), large]
    rounded = [lambda: passes(network, x, "bf16")] * multiplies_bfloat16()
    peer, own, one, *in_bf16 = seconds_in_turn([*works, *rounded], repeats)
    return {
        "clips": MICRO_BATCH,
        "plain_seconds": peer,
        "own_seconds": own,
        "ratio": median(first / second for first, second in zip(peer, own, strict=True)),
        "floor_seconds": flops / (large_flops / min(one)),
        **({"bf16_seconds": in_bf16[0]} if in_bf16 else {}),
    }


def measure(options: Options) -> dict[str, Any]:
    torch.set_num_threads(cpu_count())
    torch.manual_seed(0)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, clock.watching():
        train(Path(folder))
    steps = {name: clock.each(name) for name in (*PASSES, WAITING, STEP)}
    return {"steps": steps, "overhead": overhead(clock), **alone()}
