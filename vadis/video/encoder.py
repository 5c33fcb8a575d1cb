"""Pictures → a video file for people to look at: H.264, at any times, with the sound of another file copied into it."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import ModuleType
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

_TICKS = 90_000  # in a second: 1/24, 1/25, 1/30, 1001/30000 s are whole numbers of them
_ENCODING = {"crf": "20", "preset": "veryfast"}

_SOUND_SLACK_SECONDS = Fraction(1)  # sound that steps back by more has a clock that started again


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
    encoding: dict[str, str] | None = None,
) -> Iterator[Callable[..., None]]:
    """Give ``write(pixels, seconds, duration, zero=None)``, which adds a picture uint8 RGB (H, W, 3), of any size.

    ``zero`` is what is time 0 by the clock of the sound from there on. Raises UsageError for sound that this kind of
    file cannot hold, VadisError where the disk does not take it or FFmpeg cannot encode H.264.

    Args:
        path, size: with an extension of ``CONTAINERS``, there whole or not at all; (width, height) of the pictures.
        fps: what the file says of its rate; the pictures' times decide.
        pixel_aspect: width of a pixel by its height.
        colours: in which the pictures are written, and what the file says of them; None: by BT.601, and nothing.
        sound: has ``streams`` and ``packets``, which are copied in step with the pictures.
        zero_seconds: what is time 0 for the first picture, by the clock of the sound.
        encoding: options of x264 on top of our own.
    """
    import av

    try:
        with (
            write_atomic(path) as file,
            av.open(f"file:{Path(file.name).absolute()}", "w", format=CONTAINERS[path.suffix.lower()]) as container,
        ):
            try:
                stream = container.add_stream("libx264", rate=fps or 25, options=_ENCODING | (encoding or {}))
            except ValueError as error:
                message = "this build of FFmpeg cannot encode H.264"
                raise VadisError(message, hint="install the wheel of PyAV: av") from error
            stream.width, stream.height = (side + side % 2 for side in size)  # yuv420p has no odd sides
            stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, _TICKS)
            if pixel_aspect != 1:
                stream.codec_context.sample_aspect_ratio = pixel_aspect
            writer = _Writer(container, stream, colours)
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

    def __init__(self, container: Any, stream: Any, colours: "Colours | None") -> None:
        from av.video.reformatter import VideoReformatter

        self._container, self._stream, self._reformatter = container, stream, VideoReformatter()
        self._matrix = colours and colours.matrix
        if colours is not None:
            context = stream.codec_context
            context.colorspace, context.color_trc, context.color_primaries = colours
            context.color_range = 1  # AVCOL_RANGE_MPEG: limited, as yuv420p is written
        self._sound: Iterator[Any] = iter(())
        self._waiting: Any = None  # the next packet of sound
        self._clock_zeros = [Fraction(0)]  # time 0 by the clock of the sound: the current one, then later ones
        self._output_streams: dict[int, Any] = {}  # sound streams of the output, by the index of the original
        self._last_sound: dict[int, Fraction] = {}  # time of the last packet, by the same index

    def add_sound(self, sound: Any, zero_seconds: Fraction) -> None:
        """Take the streams of ``sound``; what comes before the pictures has negative times, as the containers allow."""
        import av

        names = [stream.codec_context.name for stream in sound.streams]
        try:
            for stream in sound.streams:
                self._output_streams[stream.index] = self._container.add_stream_from_template(stream)
            self._sound, self._clock_zeros = sound.packets, [zero_seconds]
            self._waiting = next(self._sound, None)
            self._container.start_encoding()
        except (ValueError, av.FFmpegError) as error:
            if getattr(error, "errno", None) in DISK_ERRORS:
                raise
            hint = "let the name end with .mkv, which takes most, or leave the sound out with `with_sound=False`"
            message = f"sound of the kind {', '.join(names)} does not go into this kind of file"
            raise UsageError(message, hint) from error

    def write(
        self, pixels: NDArray[np.uint8], seconds: Fraction, duration: Fraction, zero: Fraction | None = None
    ) -> None:
        import av

        if zero is not None and zero != self._clock_zeros[-1]:
            self._clock_zeros.append(zero)
        self._copy_sound(seconds)
        height, width, _ = pixels.shape
        if height % 2 or width % 2:
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        if self._matrix is not None:  # else the encoder's own conversion, which is that by BT.601
            frame = self._reformatter.reformat(frame, format="yuv420p", dst_colorspace=self._matrix, threads=1)
        frame.time_base = Fraction(1, _TICKS)
        frame.pts = round(seconds * _TICKS)
        frame.duration = max(1, round(duration * _TICKS))
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        self._copy_sound(None)
        self._container.mux(self._stream.encode(None))

    def _copy_sound(self, until: Fraction | None) -> None:
        while (packet := self._waiting) is not None:
            seconds, index = self._sound_seconds(packet), packet.stream.index
            before = self._last_sound.get(index, seconds - 1)
            if until is not None and (seconds > until or seconds < before - _SOUND_SLACK_SECONDS):
                return  # in the latter case until pictures tell how its clock has started again
            if seconds > before:  # else it cannot be written: recordings overlap, or its time is wrong
                shift = round(seconds / packet.time_base) - packet.dts
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                self._last_sound[index], packet.stream = seconds, self._output_streams[index]
                self._container.mux(packet)
            self._waiting = next(self._sound, None)

    def _sound_seconds(self, packet: Any) -> Fraction:
        """Return a packet's time by the clock that best continues the packets before it; drop earlier clocks."""
        clock = packet.dts * packet.time_base
        last = max(self._last_sound.values(), default=clock - self._clock_zeros[0])
        nearest = min(range(len(self._clock_zeros)), key=lambda i: abs(clock - self._clock_zeros[i] - last))
        del self._clock_zeros[:nearest]
        return Fraction(clock - self._clock_zeros[0])


def check_name(path: Path) -> None:
    """Raise UsageError unless the name ends with an extension of ``CONTAINERS``."""
    if path.suffix.lower() not in CONTAINERS:
        hint = f"let it end with {', '.join(CONTAINERS)}"
        raise UsageError(f"{printable(str(path))} is no name of a video that can be written", hint)


def load_opencv() -> ModuleType:
    """Return the module cv2, which only draws here; raise VadisError where it cannot be loaded."""
    path = list(sys.path)
    try:
        import cv2
    except Exception as error:  # whatever a broken installation raises
        sys.path[:] = path  # where it fails, its loader leaves its own folder there, which holds a `typing`
        vars(sys).pop("OpenCV_LOADER", None)  # and a mark by which it gives another reason the next time
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        hint = "install the system's libGL and libxcb (Debian, Ubuntu: apt-get install libgl1), or replace "
        hint += "opencv-python by opencv-python-headless"
        raise VadisError(f"OpenCV, which draws training videos, cannot be loaded: {reason}", hint) from error
    return cv2
