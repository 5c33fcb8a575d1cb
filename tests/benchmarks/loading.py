"""How many random training clips does one core load per second?

    python tests/benchmarks/loading.py [VIDEO…] [--clips 100] [--store STORE]

Without videos one is made much as UCF-101's are: MPEG-4 in AVI, 320×240, 25 fps, 7 s. Printed are whole
training clips of 64 frames as the loader gives them, and for comparison what decoding alone, and decoding and scaling,
would allow. One process, one thread. With a flow store, flow clips as well.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tests.synthetic import moving_texture, write_video
from vadis.datasets import Example
from vadis.flow.store import FlowStore
from vadis.training.augmentation import Jitter
from vadis.training.loader import CLIP_FRAMES, VideoClips
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--clips", type=int, default=100, help="loaded for each figure")
    parser.add_argument("--store", type=Path)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        report([str(path) for path in options.videos or [made(Path(folder))]], options.clips, options.store)


def report(paths: list[str], count: int, store: Path | None) -> None:
    examples = [Example(path, "a") for path in paths]

    def clips(stream: str, **more: object) -> float:
        loader = VideoClips(examples, ["a"], (stream,), train=True, **more)
        return rate(lambda i: loader.clip(i, i % len(examples)), count)

    def read(i: int) -> int:
        with open_video(paths[i % len(paths)]) as video:
            return sum(1 for _ in video)

    num_frames = sum(read(i) for i in range(len(paths))) / len(paths)
    print(f"{len(paths)} videos of {num_frames:.0f} grid frames on average; one core; clips of {CLIP_FRAMES} frames")
    print(f"decoded and scaled       {rate(read, count) * num_frames / CLIP_FRAMES:6.1f} clips' frames/s")
    scale, reader.Scaler.picture = reader.Scaler.picture, lambda self, frame: frame  # type: ignore[method-assign]
    print(f"only decoded             {rate(read, count) * num_frames / CLIP_FRAMES:6.1f} clips' frames/s")
    reader.Scaler.picture = scale  # type: ignore[method-assign]
    print(f"RGB training clips       {clips('rgb'):6.1f} /s")
    print(f"RGB with colour jitter   {clips('rgb', jitter=Jitter()):6.1f} /s")
    if store is not None:
        print(f"flow training clips      {clips('flow', store=FlowStore(store)):6.1f} /s")


if __name__ == "__main__":
    main()
