"""Pictures → a video file for people to look at: H.264, at any times, with the sound of another file copied into it."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vadis.errors import UsageError, VadisError, what_next
from vadis.files import DISK_ERRORS, write_atomic
from vadis.results import printable

if TYPE_CHECKING:
    from vadis.video.colour import Colours

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""FFmpeg's name of a container, by the extension of the file."""

ENCODERS: dict[str, tuple[int, dict[str, str]]] = {
    "libx264": (90_000, {"crf": "20", "preset": "veryfast"}),
    "mpeg4": (60_000, {"qmin": "3", "qmax": "3", "b": "1G"}),  # where x264 was left out of FFmpeg
}
"""What encodes, the first that there is, with its ticks in a second: 1/24, 1/25, 1/30, 1001/30000 s are whole ones."""

SOUND_SLACK_SECONDS = Fraction(1)
"""By which sound may step back before its clock is taken to have started again; pictures and sound are stored less far
apart."""


@contextmanager
def video_file(
    path: Path,
    size: tuple[int, int],
    fps: Fraction | None,
    *,
    pixel_aspect: Fraction = Fraction(1),
    colours: "Colours | None" = None,
    sound: Any = None,
    zero_seconds: Fraction = Fraction(0),
    encoding: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Callable[..., None]]:
    """Give ``write(pixels, seconds, duration, zero=None)``, which adds a picture uint8 RGB (H, W, 3), of any size.

    ``zero`` is what is time 0 by the clock of the sound from there on. The file is there whole, when the body is done,
    or not at all.

    Args:
        path, size: with an extension of ``CONTAINERS``; (width, height) of the pictures.
        fps: what the file says of its rate; the pictures' times decide.
        pixel_aspect: width of a pixel by its height.
        colours: in which the pictures are written, and what the file says of them; None: by BT.601, and nothing.
        sound: a ``vadis.video.reader.Sound``, whose packets are copied in step with the pictures.
        zero_seconds: what is time 0 for the first picture, by the clock of the sound.
        encoding: options of x264 on top of our own; where it was left out of FFmpeg they count nothing.

    Raises UsageError for sound that this kind of file cannot hold, VadisError where the disk does not take it.
    """
    import av

    try:
        with (
            write_atomic(path) as file,
            av.open(f"file:{Path(file.name).absolute()}", "w", format=CONTAINERS[path.suffix.lower()]) as container,
        ):
            writer = _Writer(container, size, fps, encoding)
            if pixel_aspect != 1:
                writer.context.sample_aspect_ratio = pixel_aspect
            if colours is not None:
                writer.set_colours(colours)
            if sound is not None:
                writer.add_sound(sound, zero_seconds)
            yield writer.write
            writer.finish()
    except (OSError, av.FFmpegError) as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        message = f"{printable(str(path))} cannot be written: {reason}"
        raise VadisError(message, hint=what_next(error.errno)) from error


class _Writer:
    """An open file: one video stream, encoded, and streams of sound, copied."""

    def __init__(
        self, container: Any, size: tuple[int, int], fps: Fraction | None, encoding: Mapping[str, str]
    ) -> None:
        from av.video.reformatter import VideoReformatter

        name, self._ticks, options = _encoder()
        options |= encoding if name == "libx264" else {}
        self._container = container
        self._stream = container.add_stream(name, rate=fps or 25, options=options)
        self._stream.width, self._stream.height = (side + side % 2 for side in size)  # yuv420p has no odd sides
        self._stream.pix_fmt = "yuv420p"
        self.context = self._stream.codec_context
        self.context.time_base = Fraction(1, self._ticks)
        self._matrix: int | None = None
        self._reformatter = VideoReformatter()
        self._sound: Iterator[Any] = iter(())
        self._waiting: Any = None  # the next packet of sound
        self._zeros = [Fraction(0)]  # by the clock of the sound: what it goes by now, and later ones
        self._last_sound: dict[int, Fraction] = {}  # by stream: the time of its last packet

    def set_colours(self, colours: "Colours") -> None:
        self._matrix = self.context.colorspace = colours.matrix
        self.context.color_trc, self.context.color_primaries = colours.transfer, colours.primaries
        self.context.color_range = 1  # AVCOL_RANGE_MPEG: limited, as yuv420p is written

    def add_sound(self, sound: Any, zero_seconds: Fraction) -> None:
        """Take the streams of ``sound``; what comes before the pictures has negative times, as the containers allow."""
        import av

        copies, refused = {}, sound.streams
        try:
            for stream in sound.streams:
                refused = (stream,)
                copies[stream.index] = self._container.add_stream_from_template(stream)
            refused = sound.streams
            self._sound, self._zeros = _bind(sound.packets, copies), [zero_seconds]
            self._waiting = next(self._sound, None)
            self._container.start_encoding()
        except (ValueError, av.FFmpegError) as error:
            if getattr(error, "errno", None) in DISK_ERRORS:
                raise
            names = ", ".join(stream.codec_context.name for stream in refused)
            hint = "let the name end with .mkv, which takes most, or leave the sound out with `with_sound=False`"
            raise UsageError(f"sound of the kind {names} does not go into this kind of file", hint=hint) from error

    def write(
        self, pixels: NDArray[np.uint8], seconds: Fraction, duration: Fraction, zero: Fraction | None = None
    ) -> None:
        import av

        if zero is not None and zero != self._zeros[-1]:
            self._zeros.append(zero)
        self._copy_sound(seconds)
        height, width, _ = pixels.shape
        if height % 2 or width % 2:
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        if self._matrix is not None:  # else the encoder's own conversion, which is that by BT.601
            frame = self._reformatter.reformat(frame, format="yuv420p", dst_colorspace=self._matrix, threads=1)
        frame.time_base = Fraction(1, self._ticks)
        frame.pts = round(seconds * self._ticks)
        frame.duration = max(1, round(duration * self._ticks))
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        self._copy_sound(None)
        self._container.mux(self._stream.encode(None))

    def _copy_sound(self, until: Fraction | None) -> None:
        while (packet := self._waiting) is not None:
            seconds = self._sound_seconds(packet)
            before = self._last_sound.get(packet.stream.index, seconds - 1)
            if until is not None and (seconds > until or seconds < before - SOUND_SLACK_SECONDS):
                return  # in the latter case until pictures tell how its clock has started again
            if seconds > before:  # else it cannot be written: recordings overlap, or its time is wrong
                shift = round(seconds / packet.time_base) - packet.dts
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                self._last_sound[packet.stream.index] = seconds
                self._container.mux(packet)
            self._waiting = next(self._sound, None)

    def _sound_seconds(self, packet: Any) -> Fraction:
        """Return the time of a packet, by that of the clocks which continues the packets before it best."""
        clock = packet.dts * packet.time_base
        last = max(self._last_sound.values(), default=clock - self._zeros[0])
        nearest = min(range(len(self._zeros)), key=lambda i: abs(clock - self._zeros[i] - last))
        del self._zeros[:nearest]
        return Fraction(clock - self._zeros[0])


def _bind(packets: Any, copies: dict[int, Any]) -> Iterator[Any]:
    """Yield packets that belong to their new streams."""
    for packet in packets:
        packet.stream = copies[packet.stream.index]
        yield packet


def _encoder() -> tuple[str, int, dict[str, str]]:
    """Return the first encoder that there is, its ticks per second and its options."""
    import av

    for name, (ticks, options) in ENCODERS.items():
        try:
            av.Codec(name, "w")
        except ValueError:
            continue
        return name, ticks, dict(options)
    raise VadisError("this build of FFmpeg can encode neither H.264 nor MPEG-4", hint="install the wheel of PyAV: av")


def check_name(path: Path) -> None:
    """Raise UsageError unless the name ends with an extension of ``CONTAINERS``."""
    if path.suffix.lower() not in CONTAINERS:
        message = f"{printable(str(path))} is no name of a video that can be written"
        raise UsageError(message, hint=f"let it end with {', '.join(CONTAINERS)}")


def load_opencv() -> ModuleType:
    """Return the module cv2, which only draws here; raise VadisError where it cannot be loaded."""
    path = list(sys.path)
    try:
        import cv2
    except Exception as error:  # whatever a broken installation raises
        # Where it fails, OpenCV's loader leaves its own folder in the path, which holds a `typing`, and a mark by which
        # it gives another reason the next time.
        sys.path[:] = path
        vars(sys).pop("OpenCV_LOADER", None)
        # Its desktop wheel needs libGL and libxcb.
        hint = (
            "install the system's libGL and libxcb (Debian, Ubuntu: apt-get install libgl1), or replace opencv-python "
            "by opencv-python-headless"
        )
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise VadisError(f"OpenCV, which draws into videos, cannot be loaded: {reason}", hint=hint) from error
    module: ModuleType = cv2
    return module
