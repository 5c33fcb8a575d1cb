"""Datasets that only motion explains, laid out as UCF-101: a textured patch moves over textured ground.

    ROOT/<Class>/v_<Class>_g<group>_c<clip>.avi        groups 1 to 7 test, 8 to 25 train, as in split 1

The patch visits the 16 places of a 4×4 grid, one per frame: along the rows (right) or the columns (down), or the same
backwards (left, up). So what the frames of a video show does not depend on its class; only their order does. No frame
tells the class, nor do all of them together: once they are shuffled, nothing is left that a network could learn.
Ground, patch and the grid's place are drawn anew for each video; what leaves at one side comes back at the other.
"""

from collections.abc import Mapping
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
SIDE = 4  # places in a line of the grid
NUM_FRAMES = SIDE**2
SIZE = 64  # px, width and height
SPEED = 3  # px per frame: 12 px where the short side has 256 px; flow is cut at 20
GROUPS = {"test": range(1, 8), "train": range(8, 26)}  # of split 1


def places(walk: Walk) -> np.ndarray:
    """Where the patch is in each frame, in px: int (16, 2), x and y."""
    across, along = np.divmod(np.arange(NUM_FRAMES), SIDE)
    steps = np.stack([along, across] if walk.line == 0 else [across, along], axis=1)  # (16, 2)
    return SPEED * steps[:: -1 if walk.is_backwards else 1] @ np.array(walk.grid)


def moving_patch(walk: Walk, seed: int) -> Frames:
    """One video: uint8 (16, 64, 64, 3). ``seed`` decides ground, patch, and where the grid lies."""
    ground, texture = (moving_texture(1, (SIZE, SIZE), seed=2 * seed + number)[0] for number in (1, 2))
    patch, side = texture[: SIZE // 2, : SIZE // 2], np.arange(SIZE // 2)
    corner = np.random.default_rng(seed).integers(0, SIZE, 2)
    frames = np.repeat(ground[None], NUM_FRAMES, axis=0)
    for frame, (left, top) in zip(frames, corner + places(walk), strict=True):
        frame[np.ix_((side + top) % SIZE, (side + left) % SIZE)] = patch
    return frames


def write_dataset(
    root: Path, walks: Mapping[str, Walk], counts: Mapping[str, int], *, is_shuffled: bool = False
) -> Path:
    """Write ``counts[split]`` videos of each class, the same ones every time; returns ``root``.

    With ``is_shuffled`` they are the same videos with their frames in an order drawn for each.
    """
    for split, count in counts.items():
        for number in range(count):
            for kind, (label, walk) in enumerate(walks.items()):
                seed = 10_000 * list(GROUPS).index(split) + len(walks) * number + kind
                frames = moving_patch(walk, seed)
                if is_shuffled:
                    frames = np.random.default_rng([seed, 1]).permutation(frames)
                clip, place = divmod(number, len(GROUPS[split]))
                name = f"v_{label}_g{GROUPS[split][place]:02}_c{clip + 1:02}.avi"
                (root / label).mkdir(parents=True, exist_ok=True)
                write_video(root / label / name, frames=frames)
    return root
