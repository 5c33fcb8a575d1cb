"""What there is to see: a ground, nearer layers with holes in them, and things that move by themselves.

A scene has nothing to do with the class: it is drawn from its own numbers, and there are runners before a camera that
stands still, and in a pan.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vadis.video.encoder import load_opencv

Pixels = NDArray[np.uint8]  # (H, W, 3) or (H, W)

TILE = 640  # px, the side of a texture; beyond its border it goes on mirrored
MOST_COVERED = 0.25  # of a square view of 256 px, by things that move


@dataclass(frozen=True)
class Thing:
    """Something flat that can be filmed.

    Attributes:
        colours: uint8 (TILE, TILE, 3).
        mask: uint8 (TILE, TILE), what of it is there; None for all, without end.
        nearness: how much faster than the ground it passes when the camera moves.
        is_carried: it moves with the camera, as a runner does whom it follows.
        start, velocity, swing, hertz: its own motion, in px and px per second: start + velocity · t + swing · sin.
    """

    colours: Pixels
    mask: Pixels | None = None
    nearness: float = 1.0
    is_carried: bool = False
    start: tuple[float, float] = (0.0, 0.0)
    velocity: tuple[float, float] = (0.0, 0.0)
    swing: tuple[float, float] = (0.0, 0.0)
    hertz: float = 1.0

    def place(self, seconds: float) -> tuple[float, float]:
        """Where its middle is, by its own motion."""
        wave = float(np.sin(2 * np.pi * self.hertz * seconds))
        x, y = (a + b * seconds + c * wave for a, b, c in zip(self.start, self.velocity, self.swing, strict=True))
        return x, y


@dataclass(frozen=True)
class Scene:
    """Things from the farthest to the nearest; the first has no holes."""

    things: list[Thing] = field(default_factory=list)


def draw_scene(random: np.random.Generator) -> Scene:
    """A ground, up to two nearer layers, up to three things that move."""
    layers = [Thing(_texture(random), _holes(random), random.uniform(1.1, 1.7)) for _ in range(_few(random, 0.5, 0.35))]
    things: list[Thing] = []
    covered = 0.0
    for _ in range(_few(random, 0.3, 0.3, 0.2)):
        radius = random.uniform(14, 70)
        covered += np.pi * radius**2 / 256**2
        if covered < MOST_COVERED:
            things.append(_runner(radius, random))
    return Scene([Thing(_texture(random)), *layers, *things])


def _few(random: np.random.Generator, *shares: float) -> int:
    """0 with the first share, 1 with the second, and so on; the rest is the highest."""
    return int(np.searchsorted(np.cumsum(shares), random.random(), side="right"))


def _runner(radius: float, random: np.random.Generator) -> Thing:
    """A blob that crosses the view, or swings in it; in some videos the camera follows it."""
    mask = np.zeros((TILE, TILE), np.uint8)
    points = _blob(np.array([TILE / 2, TILE / 2]), radius, random)
    load_opencv().fillPoly(mask, [points], 255, load_opencv().LINE_AA)
    crosses = random.random() < 0.6
    velocity = random.normal(0, 90, 2) if crosses else random.normal(0, 8, 2)
    swing = np.zeros(2) if crosses else random.normal(0, 18, 2)
    start = random.uniform(-110, 110, 2) - velocity * 0.8
    return Thing(
        _texture(random),
        mask,
        is_carried=bool(random.random() < 0.4),
        start=(float(start[0]), float(start[1])),
        velocity=(float(velocity[0]), float(velocity[1])),
        swing=(float(swing[0]), float(swing[1])),
        hertz=float(random.uniform(0.4, 2.5)),
    )


def _texture(random: np.random.Generator) -> Pixels:
    """Noise of several scales in a few colours, with shapes and marks on it: (TILE, TILE, 3)."""
    cv2 = load_opencv()
    height = np.zeros((TILE, TILE), np.float32)
    roughness = random.uniform(0.45, 0.95)
    for octave in range(7):
        side = 5 * 2**octave
        grid = random.normal(0, roughness**octave, (side, side)).astype(np.float32)
        height += cv2.resize(grid, (TILE, TILE), interpolation=cv2.INTER_LINEAR)
    height *= random.uniform(0.4, 1.2) / height.std()
    low, high = random.uniform(0, 140, 3), random.uniform(100, 255, 3)  # flow is seen in grey: let it differ there too
    ramp = np.clip(np.linspace(-2, 2, 256)[:, None] * (high - low) / 4 + (high + low) / 2, 0, 255).astype(np.uint8)
    colours = ramp[np.clip((height + 2) * 64, 0, 255).astype(np.uint8)]  # (TILE, TILE, 3)
    colours = np.ascontiguousarray(colours)
    for _ in range(random.integers(30, 140)):
        _shape(colours, random)
    for _ in range(random.integers(0, 4)):
        _writing(colours, random)
    return colours


def _shape(colours: Pixels, random: np.random.Generator) -> None:
    """A blob, a disc, a frame or a line in one colour."""
    cv2 = load_opencv()
    colour = [int(each) for each in random.integers(0, 256, 3)]
    a, b = (tuple(int(each) for each in random.integers(0, TILE, 2)) for _ in range(2))
    thickness = int(random.choice([-1, -1, 1, 2, 5]))
    kind, radius = random.random(), float(np.exp(random.uniform(1.0, 4.0)))
    if kind < 0.35:
        cv2.fillPoly(colours, [_blob(np.array(a, float), radius, random)], colour, cv2.LINE_AA)
    elif kind < 0.6:
        cv2.circle(colours, a, int(radius), colour, thickness, cv2.LINE_AA)
    elif kind < 0.9:
        far = (a[0] + int(radius * random.uniform(0.5, 2)), a[1] + int(radius * random.uniform(0.5, 2)))
        cv2.rectangle(colours, a, far, colour, thickness, cv2.LINE_AA)
    else:
        cv2.line(colours, a, b, colour, max(1, thickness), cv2.LINE_AA)


def _writing(colours: Pixels, random: np.random.Generator) -> None:
    """Rows of small marks, as far as a camera can tell letters from afar."""
    left, top = (int(each) for each in random.integers(0, TILE - 130, 2))
    colour, size = random.integers(0, 256, 3).astype(np.uint8), int(random.integers(2, 7))
    for row in range(random.integers(1, 6)):
        for column in range(random.integers(5, 24)):
            if random.random() < 0.8:
                y, x = top + row * 3 * size, left + column * (size + 2)
                colours[y : y + int(random.integers(size, 2 * size)), x : x + size] = colour


def _holes(random: np.random.Generator) -> Pixels:
    """The mask of a near layer: posts, or leaves, with much room between them."""
    cv2 = load_opencv()
    mask = np.zeros((TILE, TILE), np.uint8)
    if random.random() < 0.5:
        for _ in range(random.integers(2, 6)):
            x, lean = (int(each) for each in (random.uniform(0, TILE), random.normal(0, 60)))
            cv2.line(mask, (x, 0), (x + lean, TILE), 255, int(random.uniform(4, 30)), cv2.LINE_AA)
    else:
        for _ in range(random.integers(4, 12)):
            points = _blob(random.uniform(0, TILE, 2), random.uniform(12, 60), random)
            cv2.fillPoly(mask, [points], 255, cv2.LINE_AA)
    return mask


def _blob(middle: NDArray[np.float64], radius: float, random: np.random.Generator) -> NDArray[np.int32]:
    """The corners of something round, or not so round: int32 (N, 1, 2)."""
    count = int(random.integers(3, 14))
    angles = np.sort(random.uniform(0, 2 * np.pi, count))
    radii = radius * random.uniform(0.6, 1, count)
    points = middle + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (N, 2)
    return np.asarray(points.round().astype(np.int32)[:, None])
