"""``vadis fvd`` against its network alone, and its memory against the number of videos.

    python -m tests.benchmarks.fvd [--videos 256] [--rounds 2] [--memory 256 2560]

The floor is what the network takes for clips that are there already, resized; the rest decodes, resizes, hashes and
writes. Rounds take turns; seconds of processors count also where others keep the machine busy. Memory is that of whole
runs with a small network, for its size does not matter there.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.benchmarks.watched import watch
from tests.make_model import make_model
from tests.synthetic import write_video
from vadis import load_model
from vadis.evaluation.embedding import Embedding, embed_clip, network_frames
from vadis.video.isolated.pool import Decoders

LIMIT = 1.15  # times the network's own time
DIFFERENT = 8  # files; the others are links to them


def write_set(folder: Path, count: int, frames: int, size: tuple[int, int], codec: str) -> None:
    folder.mkdir()
    for number in range(min(DIFFERENT, count)):
        write_video(folder / f"{number:05}.mp4", num_frames=frames, size=size, seed=number, codec=codec)
    for number in range(DIFFERENT, count):
        (folder / f"{number:05}.mp4").hardlink_to(folder / f"{number % DIFFERENT:05}.mp4")


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock, and of processors, children included once they have ended."""

    def processors() -> float:
        both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(used.ru_utime + used.ru_stime for used in both)

    began, before = time.perf_counter(), processors()
    work()
    return time.perf_counter() - began, processors() - before


def time_ratio(folder: Path, count: int, rounds: int) -> None:
    write_set(folder / "videos", count, 16, (256, 256), "libx264")
    paths = sorted(str(path) for path in (folder / "videos").iterdir())
    model = load_model("i3d-kinetics400-rgb", "cpu")
    clips = []
    with Decoders() as decoders:
        for path in paths[:DIFFERENT]:
            with decoders.open_source(path) as video:
                clips.append(network_frames(np.stack([frame.pixels for frame in video])))

    def network() -> None:
        for number in range(count):
            embed_clip({"rgb": clips[number % DIFFERENT]}, model)

    def whole() -> None:
        records = list(Embedding(model).embed(paths))
        assert all(record.status == "ok" for record in records)

    embed_clip({"rgb": clips[0]}, model)
    found = [(timed(network), timed(whole)) for _ in range(rounds)]
    for name, index in (("on the clock", 0), ("of processors", 1)):
        floor, all_of_it = (min(each[side][index] for each in found) for side in (0, 1))
        ratio = all_of_it / floor
        print(f"{count} videos of 16 frames, 256×256, {name}: the network alone {floor:.1f} s, all {all_of_it:.1f} s: "
              f"{ratio:.3f} times (at most {LIMIT})", flush=True)  # fmt: skip


def memory(folder: Path, counts: list[int]) -> None:
    model = make_model(folder / "small.safetensors", width=1 / 32, streams=("rgb",))
    for count in counts:
        write_set(folder / str(count), count, 9, (64, 64), "mpeg4")
        command = [sys.executable, "-m", "vadis", "-q", "fvd", str(folder / str(count)), "-m", str(model)]
        seen = watch([*command, "--save", str(folder / f"{count}.npz"), "--device", "cpu", "--jobs", "2"])
        print(f"{count} videos: {seen.peak_mb:.0f} MB at most, children included, in {seen.seconds:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--memory", type=int, nargs="*", default=[256, 2560])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.videos:
            time_ratio(Path(folder), options.videos, options.rounds)
        memory(Path(folder), options.memory)


if __name__ == "__main__":
    main()
