"""Videos made here, whose class is how the camera moves: labels that are right by construction, from a seed alone.

A label names the motion of the camera, not of the picture: in a ``pan left`` what is seen moves right, in a ``tilt up``
down, in a ``zoom in`` it grows; when the camera rolls clockwise, the picture turns counter-clockwise.
"""

import hashlib
import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from vadis.device import cpu_count
from vadis.errors import UsageError, VadisError
from vadis.files import os_errors_as, write_file
from vadis.results import printable
from vadis.video.encoder import load_opencv, video_file

Numbers = NDArray[np.float64]
Pixels = NDArray[np.uint8]  # (H, W, 3) or (H, W)

# Where the camera is at each moment: the speeds, easing and jitter of real ones
#
# All motions are measured as the networks see them: px of a picture whose short side has 256 px, per 1/25 s; x to the
# right, y down; angles in radians, clockwise as seen on the screen. The speed of a zoom or a roll is that at ``RADIUS``
# px from the centre, where the picture's nearer border is. The classes keep a distance from each other, so that a label
# is never a matter of opinion:
#
#     static          at most 0.05
#     pan, tilt       0.9 to 11, zoom 0.9 to 4, roll 0.9 to 9, in the mean of any 32 frames; never above 12
#     shake           0.9 to 6 in the mean of any 32 frames, with next to no way left at their end
#     jitter          on a motion, at most a quarter of its speed; the same for what else strays from its direction

RADIUS = 128.0  # px
RATE = 25.0  # a speed is per 1 / RATE seconds
FASTEST = 12.0
_STEPS = 8  # of the integration, per 1 / RATE seconds


class CameraPath(NamedTuple):
    """The camera over time: a point p of the view, from its middle, shows (x, y) + R(roll) p / exp(log_zoom)."""

    seconds: Numbers  # (N,)
    places: Numbers  # (4, N): x, y, log_zoom (0 at the least), roll

    def at(self, seconds: float) -> Numbers:
        """Return the place (4,) at one moment, linear between the path's points."""
        return np.array([np.interp(seconds, self.seconds, each) for each in self.places])


def draw_path(label: str, seconds: float, random: Generator) -> CameraPath:
    """Return a camera that moves as ``label`` says for so many seconds."""
    times = np.arange(round(seconds * RATE * _STEPS) + 1) / (RATE * _STEPS)
    velocities = _MOTIONS[label](times, random)  # (4, N)
    zoom, roll = (np.cumsum(each) / _STEPS / RADIUS for each in velocities[2:])
    zoom -= zoom.min()
    along, down = velocities[:2] / np.exp(zoom)  # a way in the scene looks larger in a close view
    cos, sin = np.cos(roll), np.sin(roll)  # left and right are those of the camera
    x, y = (np.cumsum(each) / _STEPS for each in (cos * along - sin * down, sin * along + cos * down))
    return CameraPath(times, np.stack([x - x.mean(), y - y.mean(), zoom, roll]))


def _static(times: Numbers, random: Generator) -> Numbers:
    return _trembling(times, 0.05 * max(0.0, random.uniform(-1, 1)), random)  # half of all tripods stand still


def _shake(times: Numbers, random: Generator) -> Numbers:
    """Return the first draft that drifts little, or else the steadiest, at the speed that was drawn."""
    speed = _log_uniform(random, 0.9, 6.0)
    drafts = [_trembling(times, 1.0, random, low=1.2, high=4.0) for _ in range(60)]
    best = next((each for each in drafts if _drift(each) <= 0.15), min(drafts, key=_drift))
    speeds = np.linalg.norm(best, axis=0)
    return np.asarray(best * min(speed / _windows(speeds).min(), FASTEST / speeds.max()))


def _moving(axis: int, sign: int, fastest: float, times: Numbers, random: Generator) -> Numbers:
    """Return a motion along one of x, y, zoom, roll: its speed over time, what strays from it, and jitter."""
    shape = _easing(times, random)
    shape /= _windows(shape).min()
    speed = min(_log_uniform(random, 0.9, fastest), FASTEST / shape.max())
    velocities = np.zeros((4, len(times)))
    velocities[axis] = sign * speed * shape
    for other in {0, 1, 3} - {axis}:
        velocities[other] = speed * shape * random.normal(0, 0.15 / 3) * (random.random() < 0.6)
    jitter = min(0.25 * speed * max(0.0, random.uniform(-0.5, 1)), 1.5)
    return np.asarray(velocities + _trembling(times, jitter, random))


_MOTIONS: dict[str, Callable[[Numbers, Generator], Numbers]] = {
    "handheld shake": _shake,
    "pan left": partial(_moving, 0, -1, 11.0),
    "pan right": partial(_moving, 0, +1, 11.0),
    "roll clockwise": partial(_moving, 3, +1, 9.0),
    "roll counter-clockwise": partial(_moving, 3, -1, 9.0),
    "static": _static,
    "tilt down": partial(_moving, 1, +1, 11.0),
    "tilt up": partial(_moving, 1, -1, 11.0),
    "zoom in": partial(_moving, 2, +1, 4.0),
    "zoom out": partial(_moving, 2, -1, 4.0),
}
CLASSES = tuple(_MOTIONS)  # alphabetically, as the outputs of a network that learnt them


def _easing(times: Numbers, random: Generator) -> Numbers:
    """Return a speed over time, up to a factor: constant, slow at the beginning, the end or both, or wavering."""
    end, ramp, floor = times[-1], random.uniform(0.2, 0.6) * times[-1], random.uniform(0.3, 0.8)
    rising, falling = np.clip(times / ramp, 0, 1), np.clip((end - times) / ramp, 0, 1)
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * (times / end * random.uniform(0.5, 1.5) + random.random()))
    shape = (np.ones_like(times), rising, falling, np.minimum(rising, falling), wave)[random.integers(5)]
    return np.asarray(floor + (1 - floor) * shape * shape * (3 - 2 * shape))


def _trembling(times: Numbers, speed: float, random: Generator, low: float = 1.0, high: float = 6.0) -> Numbers:
    """Return velocities (4, N) of a hand between ``low`` and ``high`` Hz: mostly shifts, a little roll, no zoom."""
    velocities = np.zeros((4, len(times)))
    shares = random.uniform(0.4, 1), random.uniform(0.4, 1), random.uniform(0, 0.4)
    for axis, share in zip((0, 1, 3), shares, strict=True):
        hertz, phases = random.uniform(low, high, (5, 1)), random.uniform(0, 2 * np.pi, (5, 1))
        waves = random.uniform(0.3, 1, (5, 1)) * np.sin(2 * np.pi * hertz * times + phases)
        velocities[axis] = share * waves.sum(axis=0)
    return np.asarray(velocities * (speed / np.sqrt(np.mean(np.linalg.norm(velocities, axis=0) ** 2))))


def _windows(values: Numbers) -> Numbers:
    """Return the mean of ``values`` (…, N) over each window that a label must be true of."""
    length = min(32 * _STEPS, values.shape[-1] - 1)
    sums = np.cumsum(values, axis=-1)
    return np.asarray((sums[..., length:] - sums[..., :-length]) / length)


def _drift(velocities: Numbers) -> float:
    """Return the way that is left at the end of a window, by the way that was gone; the worst window's."""
    ways = _windows(np.linalg.norm(velocities, axis=0))
    return float((np.linalg.norm(_windows(velocities), axis=0) / ways).max())


def _log_uniform(random: Generator, low: float, high: float) -> float:
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


# What there is to see. It has nothing to do with the class: there are runners before a camera that stands still, too

TILE = 640  # px, the side of a texture; beyond its border it goes on mirrored


class Thing(NamedTuple):
    """Something flat that can be filmed."""

    colours: Pixels  # (TILE, TILE, 3)
    mask: Pixels | None = None  # (TILE, TILE), what of it is there; None: all, without end
    nearness: float = 1.0  # how many times as fast as the ground it passes when the camera moves
    is_carried: bool = False  # it moves with the camera, as a runner does whom it follows
    place: Callable[[float], Numbers] = lambda seconds: np.zeros(2)  # its own motion: px (2,) at a moment


def draw_scene(random: Generator) -> list[Thing]:
    """Return a ground, up to two nearer layers with holes, up to three things that move: from the farthest on."""
    count = int(random.choice(3, p=(0.5, 0.35, 0.15)))
    layers = [Thing(_texture(random), _holes(random), random.uniform(1.1, 1.7)) for _ in range(count)]
    runners: list[Thing] = []
    covered = 0.0
    for _ in range(random.choice(4, p=(0.3, 0.3, 0.2, 0.2))):
        radius = random.uniform(14, 70)
        covered += np.pi * radius**2 / 256**2
        if covered < 0.25:  # of a square view of 256 px
            runners.append(_runner(radius, random))
    return [Thing(_texture(random)), *layers, *runners]


def _runner(radius: float, random: Generator) -> Thing:
    """Return a blob that crosses the view, or swings in it; in some videos the camera follows it."""
    cv2 = load_opencv()
    mask = np.zeros((TILE, TILE), np.uint8)
    cv2.fillPoly(mask, [_blob(np.array([TILE / 2, TILE / 2]), radius, random)], 255, cv2.LINE_AA)
    crosses = random.random() < 0.6
    velocity = random.normal(0, 90, 2) if crosses else random.normal(0, 8, 2)
    swing = np.zeros(2) if crosses else random.normal(0, 18, 2)
    start = random.uniform(-110, 110, 2) - velocity * 0.8
    colours, is_carried, speed = _texture(random), bool(random.random() < 0.4), 2 * np.pi * random.uniform(0.4, 2.5)
    return Thing(colours, mask, 1.0, is_carried, lambda at: start + velocity * at + swing * np.sin(speed * at))


def _texture(random: Generator) -> Pixels:
    """Return noise of several scales in a few colours, with shapes and marks on it: (TILE, TILE, 3)."""
    cv2 = load_opencv()
    height = np.zeros((TILE, TILE), np.float32)
    roughness = random.uniform(0.45, 0.95)
    for octave in range(7):
        grid = random.normal(0, roughness**octave, (5 * 2**octave, 5 * 2**octave)).astype(np.float32)
        height += cv2.resize(grid, (TILE, TILE), interpolation=cv2.INTER_LINEAR)
    height *= random.uniform(0.4, 1.2) / height.std()
    low, high = random.uniform(0, 140, 3), random.uniform(100, 255, 3)  # flow is seen in grey: let it differ there too
    ramp = np.clip(np.linspace(-2, 2, 256)[:, None] * (high - low) / 4 + (high + low) / 2, 0, 255).astype(np.uint8)
    colours = np.ascontiguousarray(ramp[np.clip((height + 2) * 64, 0, 255).astype(np.uint8)])  # (TILE, TILE, 3)
    for _ in range(random.integers(30, 140)):
        _draw_shape(colours, random)
    for _ in range(random.integers(0, 4)):
        _draw_writing(colours, random)
    return colours


def _draw_shape(colours: Pixels, random: Generator) -> None:
    cv2 = load_opencv()
    colour = random.integers(0, 256, 3).tolist()
    a, b = (random.integers(0, TILE, 2).tolist() for _ in range(2))
    thickness = int(random.choice([-1, -1, 1, 2, 5]))
    kind, radius = random.random(), float(np.exp(random.uniform(1.0, 4.0)))
    if kind < 0.35:
        cv2.fillPoly(colours, [_blob(np.array(a, float), radius, random)], colour, cv2.LINE_AA)
    elif kind < 0.6:
        cv2.circle(colours, a, int(radius), colour, thickness, cv2.LINE_AA)
    elif kind < 0.9:
        far = [each + int(radius * random.uniform(0.5, 2)) for each in a]
        cv2.rectangle(colours, a, far, colour, thickness, cv2.LINE_AA)
    else:
        cv2.line(colours, a, b, colour, max(1, thickness), cv2.LINE_AA)


def _draw_writing(colours: Pixels, random: Generator) -> None:
    left, top = random.integers(0, TILE - 130, 2).tolist()
    colour, size = random.integers(0, 256, 3).astype(np.uint8), int(random.integers(2, 7))
    for row in range(random.integers(1, 6)):
        for column in range(random.integers(5, 24)):
            if random.random() < 0.8:
                y, x = top + row * 3 * size, left + column * (size + 2)
                colours[y : y + random.integers(size, 2 * size), x : x + size] = colour


def _holes(random: Generator) -> Pixels:
    """Return the mask of a near layer: posts, or leaves, with much room between them."""
    cv2 = load_opencv()
    mask = np.zeros((TILE, TILE), np.uint8)
    if random.random() < 0.5:
        for _ in range(random.integers(2, 6)):
            x, lean = (int(each) for each in (random.uniform(0, TILE), random.normal(0, 60)))
            cv2.line(mask, (x, 0), (x + lean, TILE), 255, int(random.uniform(4, 30)), cv2.LINE_AA)
    else:
        for _ in range(random.integers(4, 12)):
            leaf = _blob(random.uniform(0, TILE, 2), random.uniform(12, 60), random)
            cv2.fillPoly(mask, [leaf], 255, cv2.LINE_AA)
    return mask


def _blob(middle: Numbers, radius: float, random: Generator) -> NDArray[np.int32]:
    """Return the corners of something round, or not so round: int32 (N, 1, 2)."""
    count = int(random.integers(3, 14))
    angles = np.sort(random.uniform(0, 2 * np.pi, count))
    radii = radius * random.uniform(0.6, 1, count)
    points = middle + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (N, 2)
    return np.asarray(points.round().astype(np.int32)[:, None])


# A path through a scene → pictures, as a real camera gives them

FEWEST_SECONDS, MOST_SECONDS = 1.36, 1.56  # 34 to 39 frames at 25 per second: one window of 32, from anywhere in it
SHORTEST = 256.0  # px: the unit of paths and scenes


class Camera:
    """A camera of any make, beside its path."""

    def __init__(self, random: Generator) -> None:
        side = int(random.choice((120, 144, 160, 180, 208, 240, 256)))  # px, the short one
        shape = float(random.choice((1.0, 1.0, 1.25, 4 / 3, 4 / 3, 16 / 9)))
        size = (2 * round(side * shape / 2), side)  # width, height: even numbers of px
        self.size = (size[1], size[0]) if random.random() < 0.15 else size
        self.fps = int(random.choice((24, 25, 30)))
        self.seconds = random.uniform(FEWEST_SECONDS, MOST_SECONDS)
        self.shutter = float(random.choice([0.0, 0.0, 0.5]))  # the share of a frame's time in which it is exposed
        self.softness = max(0.0, random.uniform(-0.6, 1.2))  # the standard deviation of its blur, in px of its frames
        self.noise = max(0.0, random.uniform(-2, 6))  # the standard deviation of what the sensor adds
        self.gain = max(0.0, random.uniform(-0.1, 0.15))  # how exposure swings, as a share
        self.gain_hertz = random.uniform(0.1, 1.0)
        self.bars = random.uniform(0.05, 0.12) if random.random() < 0.1 else 0.0  # black, as a share of the height
        self.quality = int(random.integers(16, 33))  # of the compression: x264's crf


def film(scene: list[Thing], path: CameraPath, camera: Camera, random: Generator) -> Iterator[Pixels]:
    """Yield the frames of a video, uint8 RGB (H, W, 3), with motion blur, soft focus, changing exposure and noise."""
    cv2 = load_opencv()
    width, height = camera.size
    grain = None  # larger than a frame, cut out anew for each
    if camera.noise:
        grain = random.normal(0, camera.noise, (height + 40, width + 40, 3)).round().astype(np.int16)
    phase, bar = random.random(), round(camera.bars * height)
    moments = np.array([-0.5, 0.0, 0.5] if camera.shutter else [0.0]) * camera.shutter / camera.fps
    for number in range(round(camera.seconds * camera.fps)):
        seconds = number / camera.fps
        views = [render(scene, path, camera.size, seconds + each) for each in moments]
        picture = np.mean(views, axis=0, dtype=np.float32).astype(np.uint8) if camera.shutter else views[0]
        if camera.softness:
            picture = cv2.GaussianBlur(picture, (0, 0), camera.softness)
        gain = 1 + camera.gain * float(np.sin(2 * np.pi * (camera.gain_hertz * seconds + phase)))
        picture = cv2.convertScaleAbs(picture, alpha=gain)
        if grain is not None:
            top, left = random.integers(0, 40, 2)
            noisy = picture + grain[top : top + height, left : left + width]
            picture = np.clip(noisy, 0, 255).astype(np.uint8)
        picture[:bar] = picture[height - bar :] = 0
        yield picture


def render(scene: list[Thing], path: CameraPath, size: tuple[int, int], seconds: float) -> Pixels:
    """Return the view at one moment, without the flaws of a camera: uint8 (H, W, 3)."""
    cv2 = load_opencv()
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    picture = np.empty(0, np.uint8)
    for thing in scene:
        matrix = _matrix(thing, path, size, seconds)
        colours = cv2.warpAffine(thing.colours, matrix, size, borderMode=cv2.BORDER_REFLECT_101, flags=flags)
        if thing.mask is None:
            picture = colours
            continue
        border = cv2.BORDER_CONSTANT if thing.nearness == 1 else cv2.BORDER_REFLECT_101
        mask = cv2.warpAffine(thing.mask, matrix, size, borderMode=border, flags=flags)
        if mask.any():
            picture = cv2.blendLinear(colours, picture, *(x.astype(np.float32) / 255 for x in (mask, 255 - mask)))
    return picture


def _matrix(thing: Thing, path: CameraPath, size: tuple[int, int], seconds: float) -> Numbers:
    """Return what leads from px of the frame to px of a thing's texture: (2, 3)."""
    unit = min(size) / SHORTEST  # px of the frame, and of textures, in one of paths
    x, y, log_zoom, roll = np.zeros(4) if thing.is_carried else path.at(seconds)
    turned = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]]) / np.exp(log_zoom)
    middle = unit * (thing.nearness * np.array([x, y]) - thing.place(seconds)) + TILE / 2
    centre = (np.array(size, float) - 1) / 2
    return np.column_stack([turned, middle - turned @ centre])


# All videos of a dataset, on every processor
#
# Each video, ROOT/SPLIT/CLASS/NUMBER.mp4, depends on (seed, split, class, number) alone: the same bytes on the same
# machine, whatever else is written, and no video of one split is one of another. It is there whole or not at all, so
# that the same call goes on where one before it was interrupted.

NAME = "camera-motion"  # of the dataset; NAME.json, beside the splits, says what they were made by
VERSION = 1  # to be raised with whatever changes the videos
Work = tuple[str, str, int]  # split, class, number


def write_dataset(root: Path, videos: int, seed: int, progress: Callable[[int, int], None]) -> None:
    """Write what is missing of a dataset with so many videos of each class under ``root``, which may hold no other one.

    ``progress`` is called with the number of videos that are there, and of all that will be.
    """
    load_opencv()
    numbers = videos_of_splits(videos)
    path, shown = root / f"{NAME}.json", printable(str(root))
    content = json.dumps({"version": VERSION, "videos": videos, "seed": seed}).encode() + b"\n"
    with os_errors_as(VadisError, f"{shown} does not take videos"):
        if not path.exists():
            write_file(path, content)
        if path.read_bytes() != content:
            raise UsageError(f"the videos in {shown} were made by other numbers", hint="choose another folder")
    every = [(split, label, number) for split in numbers for label in CLASSES for number in range(numbers[split])]
    missing = [work for work in every if not video_path(root, work).exists()]
    progress(len(every) - len(missing), len(every))
    count = max(1, min(cpu_count(), len(missing)))
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_begin_worker)
    try:
        written = pool.map(partial(write_video, root, seed), missing, chunksize=4)
        for done, _ in enumerate(written, start=1 + len(every) - len(missing)):
            progress(done, len(every))
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interruption is the main process's affair
    load_opencv().setNumThreads(1)


def videos_of_splits(videos: int) -> dict[str, int]:
    """Return the videos of each class in every split, as 15 to 1 to 2 of ``videos``, and at least one."""
    if videos < 3:
        raise UsageError(f"{videos} videos of each class are too few", hint="make 3 at least: one for each split")
    val, test = max(1, videos // 18), max(1, videos * 2 // 18)
    return {"train": videos - val - test, "val": val, "test": test}


def video_path(root: Path, work: Work) -> Path:
    """Return where a video lies."""
    return root / work[0] / work[1] / f"{work[2]:04}.mp4"


def write_video(root: Path, seed: int, work: Work) -> None:
    """Draw, film and write one video."""
    digest = hashlib.sha256(json.dumps((seed, *work)).encode("ascii")).digest()
    random = np.random.default_rng(np.frombuffer(digest, "<u4"))
    camera = Camera(random)
    path = draw_path(work[1], camera.seconds, random)
    scene = draw_scene(random)
    # x264's look-ahead rates blocks by uninitialised borders of small pictures: other bytes from run to run.
    encoding = {"crf": str(camera.quality), "x264-params": "mbtree=0", "threads": "1"}
    fps = Fraction(camera.fps)
    with video_file(video_path(root, work), camera.size, fps, encoding=encoding) as write:
        for number, picture in enumerate(film(scene, path, camera, random)):
            write(picture, number / fps, 1 / fps)
