"""All videos of a dataset, on every processor: ROOT/SPLIT/CLASS/NUMBER.mp4, as ``vadis.datasets.folder`` reads them.

Each video depends on (seed, split, class, number) alone: the same bytes on the same machine, whatever else is written,
and no video of one split is one of another. A video is there whole or not at all, so the same call goes on where one
before it was interrupted.
"""

import hashlib
import json
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from vadis.datasets.camera.filming import draw_camera, film
from vadis.datasets.camera.paths import CLASSES, draw_path
from vadis.datasets.camera.scenes import draw_scene
from vadis.device import cpu_count
from vadis.errors import UsageError, VadisError, what_next
from vadis.files import write_file
from vadis.parsing import parse_json
from vadis.results import printable
from vadis.video.encoder import load_opencv, video_file

ABOUT_NAME = "camera-motion.json"  # beside the splits: what they were made by
VERSION = 1  # to be raised with whatever changes the videos
SHARES = {"train": 15, "val": 1, "test": 2}


@dataclass(frozen=True)
class Amount:
    """How much is made: ``videos`` of each class in all splits, 3 at least; ``seed`` decides everything in them."""

    videos: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.videos < len(SHARES):
            raise UsageError(
                f"{self.videos} videos of each class are too few", hint="make 3 at least: one for each split"
            )

    def of(self, split: str) -> int:
        """The videos of each class in one split."""
        if split == "train":
            return self.videos - self.of("val") - self.of("test")
        return max(1, self.videos * SHARES[split] // sum(SHARES.values()))


Work = tuple[str, str, int]  # split, class, number


def write_dataset(
    root: Path,
    amount: Amount,
    *,
    processes: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write what is missing of a dataset under ``root``.

    Args:
        root: a folder, made if need be.
        amount: how many videos, from which seed.
        processes: that write at once; by default one on each processor.
        progress: called with the videos that are there, and all that will be.

    Raises:
        UsageError: where ``root`` holds a dataset made otherwise.
        VadisError: where the disk does not take it, or OpenCV cannot be loaded.
    """
    load_opencv()
    _claim(root, amount)
    every = [(split, label, number) for split in SHARES for label in CLASSES for number in range(amount.of(split))]
    missing = [work for work in every if not video_path(root, work).exists()]
    done = len(every) - len(missing)
    progress(done, len(every))
    if not missing:
        return
    count = min(processes or cpu_count(), len(missing))
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_begin_worker)
    try:
        for _ in pool.map(partial(write_one, root, amount.seed), missing, chunksize=4):
            done += 1
            progress(done, len(every))
    finally:
        pool.shutdown(cancel_futures=True)


def video_path(root: Path, work: Work) -> Path:
    """Where a video lies."""
    split, label, number = work
    return root / split / label / f"{number:04}.mp4"


def write_one(root: Path, seed: int, work: Work) -> None:
    """Draw, film and write one video."""
    random = np.random.default_rng(_seed(seed, *work))
    camera = draw_camera(random)
    path = draw_path(work[1], camera.seconds, random)
    scene = draw_scene(random)
    # x264's look-ahead rates blocks by uninitialised borders of small pictures: other bytes from run to run.
    encoding = {"crf": str(camera.quality), "x264-params": "mbtree=0", "threads": "1"}
    fps = Fraction(camera.fps)
    with video_file(video_path(root, work), camera.size, fps, encoding=encoding) as write:
        for number, picture in enumerate(film(scene, path, camera, random)):
            write(picture, number / fps, 1 / fps)


def _seed(*parts: int | str) -> list[int]:
    digest = hashlib.sha256(json.dumps(parts).encode("ascii")).digest()
    return [int.from_bytes(digest[at : at + 4], "little") for at in range(0, 32, 4)]


def _begin_worker() -> None:
    """One thread each; an interruption is the main process's affair."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    load_opencv().setNumThreads(1)


def _claim(root: Path, amount: Amount) -> None:
    """Note what ``root`` holds, or see that it is the same."""
    path, wanted = root / ABOUT_NAME, {"version": VERSION, **asdict(amount)}
    shown = printable(str(root))
    try:
        if path.exists():
            if parse_json(path.read_bytes()) != wanted:
                raise UsageError(f"the videos in {shown} were made by other numbers", hint="choose another folder")
            return
        write_file(path, json.dumps(wanted) + "\n")
    except OSError as error:
        raise VadisError(f"{shown} does not take videos: {error.strerror}", what_next(error.errno)) from error
    except ValueError as error:
        raise UsageError(f"{printable(str(path))} is damaged", hint="choose another folder") from error
