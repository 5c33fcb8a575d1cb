"""Where the camera is at each moment: ten kinds of motion, with the speeds, easing and jitter of real ones.

Units: px of a picture whose short side has 256 px; x to the right, y down; angles in radians, clockwise as seen on
the screen. A speed is in px per 1/25 s; for a zoom or a roll, at ``RADIUS`` px from the centre, where the picture's
nearer border is.

    static          at most 0.05
    pan, tilt       0.9 to 11, zoom 0.9 to 4, roll 0.9 to 9, in the mean of any 32 frames; never above 12
    shake           0.9 to 6 in the mean of any 32 frames, with next to no way left at their end
    jitter          on a motion, at most a quarter of its speed; the same for what else strays from its direction
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

CLASSES = (
    "handheld shake",
    "pan left",
    "pan right",
    "roll clockwise",
    "roll counter-clockwise",
    "static",
    "tilt down",
    "tilt up",
    "zoom in",
    "zoom out",
)
"""Alphabetically, as the outputs of a network that learnt them."""

RADIUS = 128.0  # px
RATE = 25.0  # a speed is per 1 / RATE seconds
WINDOW_SECONDS = 32 / RATE  # what a label must be true of
FASTEST = 12.0
TREMBLING = 0.05
JITTER = 0.25  # of the speed
MOST_JITTER = 1.5
STRAY = 0.15  # of the speed
DRIFT = 0.15  # of a shake's speed
TRIES = 60  # for a shake that drifts as little

_STEPS = 8  # of the integration, per 1 / RATE seconds


@dataclass(frozen=True)
class Path:
    """The camera over time, all (N,): the scene's point in the middle of the view, enlargement (0 at the least), angle.

    A point p of the view, counted from its middle, shows the scene's point (x, y) + R(roll) p / exp(log_zoom).
    """

    seconds: Numbers
    x: Numbers
    y: Numbers
    log_zoom: Numbers
    roll: Numbers

    def at(self, seconds: float) -> tuple[float, float, float, float]:
        """x, y, log_zoom and roll at one moment, linear between the path's points."""
        x, y, log_zoom, roll = (
            float(np.interp(seconds, self.seconds, each)) for each in (self.x, self.y, self.log_zoom, self.roll)
        )
        return x, y, log_zoom, roll


def draw_path(label: str, seconds: float, random: np.random.Generator) -> Path:
    """A camera that moves as ``label`` says for so many seconds; raises KeyError for what is no class."""
    times = np.arange(round(seconds * RATE * _STEPS) + 1) / (RATE * _STEPS)
    velocities = _KINDS[label](times, random)  # (4, N)
    zoom, roll = (np.cumsum(each) / _STEPS / RADIUS for each in velocities[2:])
    zoom -= zoom.min()
    along, down = velocities[:2] / np.exp(zoom)  # a way in the scene looks larger in a close view
    cos, sin = np.cos(roll), np.sin(roll)  # left and right are those of the camera
    x, y = (np.cumsum(each) / _STEPS for each in (cos * along - sin * down, sin * along + cos * down))
    return Path(times, x - x.mean(), y - y.mean(), zoom, roll)


def _static(times: Numbers, random: np.random.Generator) -> Numbers:
    strength = TREMBLING * max(0.0, random.uniform(-1, 1))  # half of all tripods stand still
    return _trembling(times, strength, random)


def _shake(times: Numbers, random: np.random.Generator) -> Numbers:
    """The steadiest of some drafts, at the speed that was drawn."""
    speed = _log_uniform(random, 0.9, 6.0)
    drafts = [_trembling(times, 1.0, random, low=1.2, high=4.0) for _ in range(TRIES)]
    best = next((each for each in drafts if _drift(each) <= DRIFT), min(drafts, key=_drift))
    return np.asarray(best * min(speed / _least(_norm(best)), FASTEST / _norm(best).max()))


def _moving(axis: int, sign: int, fastest: float) -> Callable[[Numbers, np.random.Generator], Numbers]:
    """A motion along one of x, y, zoom, roll: its speed over time, what strays from it, and jitter."""

    def kind(times: Numbers, random: np.random.Generator) -> Numbers:
        shape = _easing(times, random)
        shape /= _least(shape)
        speed = min(_log_uniform(random, 0.9, fastest), FASTEST / shape.max())
        velocities = np.zeros((4, len(times)))
        velocities[axis] = sign * speed * shape
        for other in {0, 1, 3} - {axis}:
            velocities[other] = speed * shape * random.normal(0, STRAY / 3) * (random.random() < 0.6)
        jitter = min(JITTER * speed * max(0.0, random.uniform(-0.5, 1)), MOST_JITTER)
        return np.asarray(velocities + _trembling(times, jitter, random))

    return kind


_KINDS: dict[str, Callable[[Numbers, np.random.Generator], Numbers]] = {
    "handheld shake": _shake,
    "pan left": _moving(0, -1, 11.0),
    "pan right": _moving(0, +1, 11.0),
    "roll clockwise": _moving(3, +1, 9.0),
    "roll counter-clockwise": _moving(3, -1, 9.0),
    "static": _static,
    "tilt down": _moving(1, +1, 11.0),
    "tilt up": _moving(1, -1, 11.0),
    "zoom in": _moving(2, +1, 4.0),
    "zoom out": _moving(2, -1, 4.0),
}


def _easing(times: Numbers, random: np.random.Generator) -> Numbers:
    """A speed over time, up to a factor: constant, slow at the beginning, at the end or at both, or wavering."""
    end, ramp, floor = times[-1], random.uniform(0.2, 0.6) * times[-1], random.uniform(0.3, 0.8)
    rising = np.clip(times / ramp, 0, 1)
    falling = np.clip((end - times) / ramp, 0, 1)
    shapes = (
        np.ones_like(times),
        rising,
        falling,
        np.minimum(rising, falling),
        0.5 + 0.5 * np.sin(2 * np.pi * (times / end * random.uniform(0.5, 1.5) + random.random())),
    )
    shape = shapes[random.integers(len(shapes))]
    return np.asarray(floor + (1 - floor) * shape * shape * (3 - 2 * shape))


def _trembling(
    times: Numbers, speed: float, random: np.random.Generator, low: float = 1.0, high: float = 6.0
) -> Numbers:
    """Velocities (4, N) of a hand between ``low`` and ``high`` Hz: mostly shifts, a little roll, no zoom."""
    velocities = np.zeros((4, len(times)))
    shares = {0: random.uniform(0.4, 1), 1: random.uniform(0.4, 1), 3: random.uniform(0, 0.4)}
    for axis, share in shares.items():
        hertz, phases = random.uniform(low, high, (5, 1)), random.uniform(0, 2 * np.pi, (5, 1))
        waves = random.uniform(0.3, 1, (5, 1)) * np.sin(2 * np.pi * hertz * times + phases)
        velocities[axis] = share * waves.sum(axis=0)
    root = np.sqrt(np.mean(_norm(velocities) ** 2))
    return np.asarray(velocities * (speed / root))


def _norm(velocities: Numbers) -> Numbers:
    """The speed (N,) that velocities (4, N) come to."""
    return np.asarray(np.sqrt((velocities**2).sum(axis=0)))


def _windows(values: Numbers) -> Numbers:
    """The mean of ``values`` (…, N) over each window that a label must be true of."""
    length = min(round(WINDOW_SECONDS * RATE * _STEPS), values.shape[-1] - 1)
    sums = np.cumsum(values, axis=-1)
    return np.asarray((sums[..., length:] - sums[..., :-length]) / length)


def _least(speeds: Numbers) -> float:
    return float(_windows(speeds).min())


def _drift(velocities: Numbers) -> float:
    """The way that is left at the end of a window, by the way that was gone; the worst window's."""
    return float((_norm(_windows(velocities)) / _windows(_norm(velocities))).max())


def _log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(random.uniform(np.log(low), np.log(high))))
