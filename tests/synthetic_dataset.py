"""Datasets that only motion explains, laid out as UCF-101: a bright textured patch moves over dark textured ground.

    ROOT/<Class>/v_<Class>_g<group>_c<clip>.avi        groups 1 to 7 test, 8 to 25 train, as in split 1

The patch visits the places of a square grid one after the other: along the rows (right) or the columns (down), or the
same backwards (left, up). So what the frames of a video show does not depend on its class; only their order does. No
frame tells the class, nor do all of them together: once they are shuffled, nothing is left that a network could learn.
And a video played backwards is a video of the opposite class. Ground and patch are drawn anew for each video.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.synthetic import Frames, moving_texture, write_video

UPRIGHT, SLANTED = ((1, 0), (0, 1)), ((1, 1), (-1, 1))  # the two directions (dx, dy) of a grid's lines


class Walk(NamedTuple):
    """An order of the places of a grid."""

    grid: tuple[tuple[int, int], tuple[int, int]]
    line: int  # along the grid's first or second direction: 0 or 1
    is_backwards: bool


AXES = {
    "Down": Walk(UPRIGHT, 1, False),
    "Left": Walk(UPRIGHT, 0, True),
    "Right": Walk(UPRIGHT, 0, False),
    "Up": Walk(UPRIGHT, 1, True),
}
DIAGONALS = {
    "DownLeft": Walk(SLANTED, 1, False),
    "DownRight": Walk(SLANTED, 0, False),
    "UpLeft": Walk(SLANTED, 0, True),
    "UpRight": Walk(SLANTED, 1, True),
}
OPPOSITE = {"Down": "Up", "Left": "Right", "Right": "Left", "Up": "Down"}
SIZE = 64  # px, width and height
PATCH = 32  # px
GROUPS = {"test": range(1, 8), "train": range(8, 26)}  # of split 1


class Film(NamedTuple):
    """How the patch moves, whatever its direction."""

    side: int  # places in a line of the grid
    speed: int  # px from one place to the next
    frames_per_place: int
    wanders: bool  # whether the grid lies somewhere else in each video; what leaves at one side comes back at the other

    @property
    def num_frames(self) -> int:
        """The length of a video."""
        return self.frames_per_place * self.side**2


SHORT = Film(side=4, speed=3, frames_per_place=1, wanders=True)
"""16 frames. 3 px are 12 where the short side has 256 px; flow is cut at 20."""
LONG = Film(side=5, speed=8, frames_per_place=5, wanders=False)
"""125 frames for ConvNet+LSTM, which sees every fifth: each place once. The grid fills the picture, and a frame tells
where in it the patch is."""


def places(walk: Walk, film: Film = SHORT) -> np.ndarray:
    """Where the patch is in each frame, in px: int (T, 2), x and y."""
    across, along = np.divmod(np.arange(film.side**2), film.side)
    steps = np.stack([along, across] if walk.line == 0 else [across, along], axis=1)  # (side², 2)
    visited = film.speed * steps[:: -1 if walk.is_backwards else 1] @ np.array(walk.grid)
    return visited.repeat(film.frames_per_place, axis=0)


def moving_patch(walk: Walk, seed: int, film: Film = SHORT) -> Frames:
    """One video: uint8 (T, 64, 64, 3). ``seed`` decides ground, patch, and where a grid that wanders lies."""
    ground, texture = (moving_texture(1, (SIZE, SIZE), seed=2 * seed + number)[0] // 2 for number in (1, 2))
    patch, side = texture[:PATCH, :PATCH] + 128, np.arange(PATCH)
    corner = np.random.default_rng(seed).integers(0, SIZE, 2) if film.wanders else np.zeros(2, int)
    frames = np.repeat(ground[None], film.num_frames, axis=0)
    for frame, (left, top) in zip(frames, corner + places(walk, film), strict=True):
        frame[np.ix_((side + top) % SIZE, (side + left) % SIZE)] = patch
    return frames


def as_it_is(frames: Frames, seed: int) -> Frames:
    """A video with its frames in their order."""
    return frames


def shuffled(frames: Frames, seed: int) -> Frames:
    """A video with its frames in an order drawn for it."""
    return np.random.default_rng([seed, 1]).permutation(frames)


def reversed_in_time(frames: Frames, seed: int) -> Frames:
    """A video played backwards."""
    return frames[::-1]


def write_dataset(
    root: Path,
    walks: Mapping[str, Walk],
    counts: Mapping[str, int],
    *,
    film: Film = SHORT,
    order: Callable[[Frames, int], Frames] = as_it_is,
    codec: str = "mpeg4",
) -> Path:
    """Write ``counts[split]`` videos of each class, the same ones every time; returns ``root``.

    ``order`` is what becomes of the order of their frames. Videos played backwards go to the opposite class, under the
    number that they have in their own.
    """
    for split, count in counts.items():
        for number in range(count):
            for kind, (label, walk) in enumerate(walks.items()):
                seed = 10_000 * list(GROUPS).index(split) + len(walks) * number + kind
                frames = order(moving_patch(walk, seed, film), seed)
                shown = OPPOSITE[label] if order is reversed_in_time else label
                clip, place = divmod(number, len(GROUPS[split]))
                name = f"v_{shown}_g{GROUPS[split][place]:02}_c{clip + 1:02}.avi"
                (root / shown).mkdir(parents=True, exist_ok=True)
                write_video(root / shown / name, frames=frames, codec=codec)
    return root
