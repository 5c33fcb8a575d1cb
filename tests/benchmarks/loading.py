"""How many random training clips does one core load per second?

    python -m tests.benchmarks loading [--video CLIP]

Without a clip one is made much as UCF-101's are: MPEG-4 in AVI, 320×240, 25 fps, 7 s. Measured are whole training clips
of 64 frames as the loader gives them, and for comparison what decoding alone, and decoding and scaling, would allow.
One process, one thread.
"""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.benchmarks.machine import Options
from tests.synthetic import moving_texture, write_video
from vadis.datasets import Example
from vadis.training.loader import CLIP_FRAMES, VideoClips
from vadis.training.recipes import RECIPES
from vadis.video import reader
from vadis.video.reader import open_video

SECONDS = 7  # the mean length of a UCF-101 clip


def made(folder: Path) -> Path:
    """A texture that drifts, with the noise of a camera."""
    frames = moving_texture(25 * SECONDS, (320, 240), seed=3)
    noise = np.random.default_rng(0).normal(scale=4, size=frames.shape[1:])
    noisy = [np.clip(frame + np.roll(noise, 7 * i, 1), 0, 255).astype(np.uint8) for i, frame in enumerate(frames)]
    return write_video(folder / "made.avi", frames=noisy, options={"qmin": "4", "qmax": "6"})


def rate(job: Callable[[int], object], count: int) -> float:
    """Jobs per second."""
    job(0)
    began = time.perf_counter()
    for i in range(count):
        job(i)
    return count / (time.perf_counter() - began)


def measure(options: Options, count: int = 100) -> dict[str, Any]:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        return rates(str(options.video or made(Path(folder))), count)


def rates(path: str, count: int) -> dict[str, Any]:
    def clips(**shifts: float) -> float:
        loader = VideoClips([Example(path, "a")], ["a"], ("rgb",), replace(RECIPES["ucf101"], **shifts), train=True)
        return rate(lambda i: loader.clip(i, 0), count)

    def read(i: int) -> int:
        with open_video(path) as video:
            return sum(1 for _ in video)

    per_clip = read(0) / CLIP_FRAMES
    found = {
        "training clips": clips(),
        "training clips, with colour jitter": clips(brightness=0.1, contrast=0.2, saturation=0.2),
    }
    found["decoding and scaling alone"] = rate(read, count) * per_clip
    scale, reader.Scaler.picture = reader.Scaler.picture, lambda self, frame: frame  # type: ignore[method-assign]
    found["decoding alone"] = rate(read, count) * per_clip
    reader.Scaler.picture = scale  # type: ignore[method-assign]
    return found
