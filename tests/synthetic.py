"""Test videos made in code: ``write_video`` and the pictures it puts into them.

Shared by every room's tests: ``from tests.synthetic import write_video``.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]  # (T, H, W, 3), RGB

_TICKS = 12800  # of one second: divisible by 25 and 50, below MPEG-4's 16-bit limit
_NUMBER_BITS = 10
QUICK_VP = {"deadline": "realtime", "cpu-used": "8"}  # of libvpx, which else takes seconds


def moving_texture(num_frames: int, size: tuple[int, int] = (96, 64), seed: int = 0) -> Frames:
    """Smooth coloured noise that moves by whole pixels, up to 2 per frame and axis: uint8 (T, H, W, 3).

    Args:
        num_frames: T.
        size: (width, height).
        seed: decides the texture and its velocity.
    """
    width, height = size
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-height // 8) + 1, -(-width // 8) + 1, 3)).astype(np.float32)
    texture = _enlarge(_enlarge(coarse, 0, height), 1, width).astype(np.uint8)
    dx, dy = rng.integers(-2, 3, 2) if seed else (2, 1)
    return np.stack([np.roll(texture, (int(dy) * i, int(dx) * i), (0, 1)) for i in range(num_frames)])


def _enlarge(image: npt.NDArray[np.float32], axis: int, length: int) -> npt.NDArray[np.float32]:
    """``image`` stretched linearly along one axis."""
    at = np.linspace(0, image.shape[axis] - 1.001, length)
    low = at.astype(int)
    weight = np.expand_dims((at - low).astype(np.float32), tuple(i for i in range(3) if i != axis))
    return image.take(low, axis) * (1 - weight) + image.take(low + 1, axis) * weight


def numbered_frames(numbers: Sequence[int], size: tuple[int, int] = (160, 96)) -> Frames:
    """Frames that carry their number (0 to 1023) as ten black or white bars: uint8 (T, H, W, 3).

    The bars survive compression and scaling; ``read_number`` reads them.
    """
    width, height = size
    bars = np.arange(width) * _NUMBER_BITS // width
    rows = [np.where((number >> (_NUMBER_BITS - 1 - bars)) & 1, 235, 16) for number in numbers]
    lines = np.array(rows, dtype=np.uint8).reshape(len(numbers), 1, width, 1)
    return np.ascontiguousarray(np.broadcast_to(lines, (len(numbers), height, width, 3)))


def read_number(frame: Frames) -> int:
    """The number that ``numbered_frames`` drew into a frame (H, W, 3), at whatever size it is now."""
    line = frame.mean(axis=(0, 2))
    middles = (np.arange(_NUMBER_BITS) + 0.5) * line.size / _NUMBER_BITS
    return int("".join("1" if line[int(at)] > 128 else "0" for at in middles), 2)


def write_video(
    path: str | Path,
    *,
    num_frames: int = 64,
    size: tuple[int, int] = (96, 64),
    fps: int | Fraction = 25,
    codec: str = "mpeg4",
    seed: int = 0,
    frames: Frames | Sequence[Frames] | None = None,
    pts_seconds: Sequence[float] | None = None,
    pix_fmt: str | None = None,
    rotation: int = 0,
    sample_aspect_ratio: Fraction | None = None,
    audio: bool = False,
    audio_seconds: float | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a video file; its container follows from the extension.

    Args:
        path: where to write, for example ``tmp_path / "a.mp4"`` (also .avi, .mkv, .mov, .ts, .webm, .gif).
        num_frames: how many frames of ``moving_texture`` to write, where ``frames`` is not given.
        size: (width, height) in pixels of that texture.
        fps: frames per second; the duration of the last frame where ``pts_seconds`` is given.
        codec: "mpeg4" is in every build of FFmpeg; libx264, libx265, libvpx-vp9, mpeg2video, ffv1 are in PyAV's wheels.
        seed: decides the texture.
        frames: the pictures, uint8 (T, H, W, 3), instead of a texture.
        pts_seconds: the display time of each frame, for variable frame rates; default i / fps.
        pix_fmt: the coded pixel format, default what the codec likes best.
        rotation: degrees counter-clockwise by which a player has to turn the frames (display matrix; mp4 and mov only).
        sample_aspect_ratio: width of a pixel divided by its height.
        audio: adds a tone (AAC, MP2 in .avi and .ts).
        audio_seconds: how long that is, where not as long as the pictures.
        options: of the encoder.
    """
    path = Path(path)
    pictures = moving_texture(num_frames, size, seed) if frames is None else frames
    times = [Fraction(i) / Fraction(fps) for i in range(len(pictures))]
    if pts_seconds is not None:
        times = [Fraction(seconds) for seconds in pts_seconds]
    regular = pts_seconds is None
    with av.open(str(path), "w") as container:
        chosen = {"g": "12", **(QUICK_VP if codec.startswith("libvpx") else {}), **(options or {})}
        stream = container.add_stream(codec, rate=Fraction(fps), options=chosen)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt or {"gif": "rgb8", "ffv1": "bgr0"}.get(codec, "yuv420p")
        stream.codec_context.time_base = 1 / Fraction(fps) if regular else Fraction(1, _TICKS)
        if sample_aspect_ratio is not None:
            stream.codec_context.sample_aspect_ratio = sample_aspect_ratio
        if rotation:
            stream.set_display_rotation(rotation)
        if audio:
            seconds = float(times[-1] + 1 / Fraction(fps)) if audio_seconds is None else audio_seconds
            _write_tone(container, "mp2" if path.suffix in (".avi", ".ts") else "aac", seconds)
        for picture, time in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(time / frame.time_base)
            frame.duration = max(1, round(1 / Fraction(fps) / frame.time_base))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _write_tone(container: "av.container.OutputContainer", codec: str, seconds: float) -> None:
    rate = 44100
    stream = container.add_stream(codec, rate=rate, layout="mono")
    tone = (8000 * np.sin(np.arange(int(rate * seconds)) * 2 * np.pi * 440 / rate)).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts = rate, 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
