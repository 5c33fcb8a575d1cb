"""A dataset that only motion explains: a textured patch moves left, right, up or down over textured ground.

Ground, patch and place are drawn anew for each video, and what leaves at one side comes back at the other, so a patch
is equally likely to be anywhere and no single frame tells the class. As a folder dataset:
``ROOT/{train,val,test}/{left,right,up,down}/NN.mp4``.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.synthetic import Frames, moving_texture, write_video

DIRECTIONS = {"down": (0, 1), "left": (-1, 0), "right": (1, 0), "up": (0, -1)}  # (dx, dy) of one step
SPEED = 3  # px per frame, at the size of the video: some 12 px per frame at a short side of 256 px


def moving_patch(label: str, seed: int, num_frames: int = 64, size: tuple[int, int] = (64, 64)) -> Frames:
    """One video: uint8 (T, H, W, 3). ``seed`` decides ground, patch, and where the patch is half-way."""
    width, height = size
    dx, dy = DIRECTIONS[label]
    ground = moving_texture(1, size, seed=2 * seed + 1)[0]
    patch = moving_texture(1, (width // 2, height // 2), seed=2 * seed + 2)[0]
    left, top = np.random.default_rng(seed).integers(0, (width, height))
    frames = np.repeat(ground[None], num_frames, axis=0)
    for number, frame in enumerate(frames):
        way = SPEED * (number - num_frames // 2)
        rows = (np.arange(height // 2) + top + dy * way) % height
        columns = (np.arange(width // 2) + left + dx * way) % width
        frame[np.ix_(rows, columns)] = patch
    return frames


def write_dataset(root: Path, counts: Mapping[str, int], num_frames: int = 64) -> Path:
    """Write ``counts[split]`` videos of each class and return ``root``."""
    for place, split in enumerate(counts):
        for number in range(counts[split]):
            for kind, label in enumerate(DIRECTIONS):
                folder = root / split / label
                folder.mkdir(parents=True, exist_ok=True)
                seed = 10_000 * place + 4 * number + kind
                write_video(folder / f"{number:02}.mp4", frames=moving_patch(label, seed, num_frames))
    return root
