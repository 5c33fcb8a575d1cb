"""A path through a scene → pictures, as a real camera gives them: motion blur, soft focus, noise, changing exposure."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vadis.datasets.camera.paths import Path
from vadis.datasets.camera.scenes import TILE, Pixels, Scene, Thing
from vadis.video.encoder import load_opencv

SIDES = (120, 144, 160, 180, 208, 240, 256)  # px, the short side
SHAPES = (1.0, 1.0, 1.25, 4 / 3, 4 / 3, 16 / 9)  # width by height; now and then upright
FEWEST_SECONDS, MOST_SECONDS = 1.36, 1.56  # 34 to 39 frames at 25 per second: one window of 32, from anywhere in it
RATES = (24, 25, 30)
SHORTEST = 256.0  # px: the unit of paths and scenes


@dataclass(frozen=True)
class Camera:
    """What is drawn of a camera, beside its path.

    Attributes:
        size: (width, height), even numbers of px.
        fps: frames per second.
        seconds: how long it runs.
        shutter: the share of a frame's time in which it is exposed; 0 for sharp frames.
        softness: the standard deviation of its blur, in px of its own frames.
        noise: the standard deviation of what the sensor adds.
        gain, gain_hertz: how exposure swings, as a share, and how fast.
        bars: black borders above and below, as a share of the height; 0 for most.
        quality: of the compression: x264's crf.
    """

    size: tuple[int, int]
    fps: int
    seconds: float
    shutter: float
    softness: float
    noise: float
    gain: float
    gain_hertz: float
    bars: float
    quality: int


def draw_camera(random: np.random.Generator) -> Camera:
    """A camera of any make."""
    side, shape = int(random.choice(SIDES)), float(random.choice(SHAPES))
    size = (2 * round(side * shape / 2), side)
    return Camera(
        size=(size[1], size[0]) if random.random() < 0.15 else size,
        fps=int(random.choice(RATES)),
        seconds=float(random.uniform(FEWEST_SECONDS, MOST_SECONDS)),
        shutter=float(random.choice([0.0, 0.0, 0.5])),
        softness=float(max(0.0, random.uniform(-0.6, 1.2))),
        noise=float(max(0.0, random.uniform(-2, 6))),
        gain=float(max(0.0, random.uniform(-0.1, 0.15))),
        gain_hertz=float(random.uniform(0.1, 1.0)),
        bars=float(random.uniform(0.05, 0.12)) if random.random() < 0.1 else 0.0,
        quality=int(random.integers(16, 33)),
    )


def film(scene: Scene, path: Path, camera: Camera, random: np.random.Generator) -> Iterator[Pixels]:
    """The frames of a video, uint8 RGB (H, W, 3)."""
    grain = _grain(camera, random)
    phase = random.random()
    for number in range(round(camera.seconds * camera.fps)):
        seconds = number / camera.fps
        picture = _exposed(scene, path, camera, seconds)
        yield _developed(picture, camera, seconds, phase, grain, random)


def _exposed(scene: Scene, path: Path, camera: Camera, seconds: float) -> Pixels:
    """What falls on the sensor in the time of one frame."""
    if camera.shutter == 0:
        return render(scene, path, camera.size, seconds)
    moments = seconds + np.array([-0.5, 0.0, 0.5]) * camera.shutter / camera.fps
    views = [render(scene, path, camera.size, float(each)) for each in moments]
    return np.asarray(np.mean(views, axis=0, dtype=np.float32).astype(np.uint8))


def render(scene: Scene, path: Path, size: tuple[int, int], seconds: float) -> Pixels:
    """The view at one moment, without the flaws of a camera: uint8 (H, W, 3)."""
    cv2 = load_opencv()
    picture: Pixels | None = None
    for thing in scene.things:
        matrix = _matrix(thing, path, size, seconds)
        how = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP}
        colours = cv2.warpAffine(thing.colours, matrix, size, borderMode=cv2.BORDER_REFLECT_101, **how)
        if thing.mask is None:
            picture = colours
            continue
        border = cv2.BORDER_CONSTANT if thing.nearness == 1 else cv2.BORDER_REFLECT_101
        mask = cv2.warpAffine(thing.mask, matrix, size, borderMode=border, **how)
        if mask.any():
            picture = cv2.blendLinear(colours, picture, *(x.astype(np.float32) / 255 for x in (mask, 255 - mask)))
    assert picture is not None
    return picture


def _matrix(thing: Thing, path: Path, size: tuple[int, int], seconds: float) -> NDArray[np.float64]:
    """From px of the frame to px of a thing's texture: (2, 3)."""
    unit = min(size) / SHORTEST  # px of the frame, and of textures, in one of paths
    x, y, log_zoom, roll = (0.0, 0.0, 0.0, 0.0) if thing.is_carried else path.at(seconds)
    own = thing.place(seconds)
    turned = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]]) / np.exp(log_zoom)
    middle = unit * (thing.nearness * np.array([x, y]) - own) + TILE / 2
    centre = (np.array(size, float) - 1) / 2
    return np.column_stack([turned, middle - turned @ centre])


def _grain(camera: Camera, random: np.random.Generator) -> NDArray[np.int16] | None:
    """Noise larger than a frame, cut out anew for each; None where there is none."""
    if camera.noise == 0:
        return None
    width, height = camera.size
    return np.asarray(random.normal(0, camera.noise, (height + 40, width + 40, 3)).round().astype(np.int16))


def _developed(
    picture: Pixels,
    camera: Camera,
    seconds: float,
    phase: float,
    grain: NDArray[np.int16] | None,
    random: np.random.Generator,
) -> Pixels:
    """A picture with the camera's flaws."""
    cv2 = load_opencv()
    if camera.softness:
        picture = cv2.GaussianBlur(picture, (0, 0), camera.softness)
    gain = 1 + camera.gain * float(np.sin(2 * np.pi * (camera.gain_hertz * seconds + phase)))
    picture = cv2.convertScaleAbs(picture, alpha=gain)
    height, width, _ = picture.shape
    if grain is not None:
        top, left = random.integers(0, 40, 2)
        noisy = picture + grain[top : top + height, left : left + width]
        picture = np.clip(noisy, 0, 255).astype(np.uint8)
    bar = round(camera.bars * height)
    if bar:
        picture[:bar] = picture[-bar:] = 0
    return picture
