"""From a video file to upright RGB frames on the 25 fps grid; and from folders of numbered pictures.

The only place that opens files with FFmpeg, which by itself would follow playlists to other files or hosts, and take a
name with ``%d`` for numbered pictures.
"""

import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from fractions import Fraction
from itertools import chain
from typing import Any, NamedTuple

import av
import numpy as np

from vadis.errors import VideoError
from vadis.results import Part
from vadis.video.container import FFMPEG_FORMATS, from_root, os_video_error, regular_file, unreadable_error
from vadis.video.decoding import Decoder, best_stream
from vadis.video.isolated.sandbox import memory_error
from vadis.video.metadata import FLAGS, PARTIAL_FLAGS, AnyPath, GridFrame, Limits, Picture, SourceFrame, VideoFacts
from vadis.video.picture import SCALERS, GrayPlane, Scaler
from vadis.video.sources import picture_names, stamp
from vadis.video.timegrid import GRID_FPS, frame_range, grid_length, grid_points

# How far FFmpeg looks for sound that begins late: 10 minutes, and as many bytes as a disk reads in a second or so
_UNTIL_SOUND = {"analyzeduration": "600000000", "probesize": str(256 << 20)}
_PILLOW_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")  # those of ``PICTURE_EXTENSIONS``


class Packets(NamedTuple):
    """Streams, that of pictures first if it is there, and their packets; ``zero_seconds`` is the file's start there."""

    streams: list[Any]
    packets: "Iterator[av.Packet[Any]]"
    zero_seconds: Fraction


class Video:
    """A video of at least one frame, open for reading, once.

    ``size`` is the (width, height) of every frame of the grid, ``expected_num_frames`` how many the header promises,
    ``pixel_aspect`` the width of an upright pixel by its height, 1 where that is unknown or not plausible, and
    ``start_seconds`` when the first frame is shown by the clock of sound and pictures, None where there is none.
    """

    def __init__(self, decoder: Decoder, limits: Limits, scaler: Callable[..., Scaler | GrayPlane]) -> None:
        self._header, self._decoder, self._clock, self._limits = decoder.header, decoder, decoder.clock, limits
        self.start_frame = 0  # on the grid, of those that are wanted
        self._frames = decoder.frames()
        first = next(self._frames, None)
        if first is None:
            raise decoder.no_frames_error()
        self._next_frame, self._next_seconds = first
        self._scaler = scaler(self._next_frame, self._header.sample_aspect_ratio, self._header.crop)
        self.start_seconds = self._clock.start_seconds
        self._duration: Fraction | None = None
        self._length: int | None = None
        self.size, self.colours = self._scaler.size, self._scaler.colours
        aspect = self._scaler.pixel_aspect  # of a coded pixel
        self.pixel_aspect = 1 / aspect if self._scaler.rotation % 180 else aspect
        self.expected_num_frames = None if self._header.duration is None else grid_length(self._header.duration)

    @property
    def facts(self) -> VideoFacts:
        """What is known by now; final once the frames have all been read."""
        header, decoder = self._header, self._decoder
        seconds = header.duration if self._duration is None else self._duration
        is_whole = self._length is not None and not decoder.jumped and not decoder.gave_up
        found = {
            "synthetic_timestamps": self._clock.synthetic,
            "damaged_packets": decoder.num_failed > 0 or decoder.demuxing_failed,
            "damaged_frames": decoder.is_patched,
            "stream_gaps": decoder.continuity.is_broken,
            "stream_changes": decoder.continuity.changes_stream,
            "ends_early": is_whole and decoder.ends_early(self._duration),
            "length_ignored": header.ignores_length,
            "frames_missing": is_whole and decoder.frames_are_missing(),
            "several_video_streams": header.num_video_streams > 1,
        }
        flags = tuple(flag for flag in FLAGS if flag in self._scaler.flags or found.get(flag))
        return VideoFacts(
            source_fps=header.fps,
            source_size=self._scaler.source_size,
            rotation=self._scaler.rotation,
            duration_seconds=None if seconds is None else float(seconds),
            frames_declared=None if header.num_frames is None else header.num_frames - decoder.num_discarded,
            frames_decoded=decoder.num_frames,
            num_frames=self._length,
            status="partial" if PARTIAL_FLAGS.intersection(flags) else "ok",
            flags=flags,
            first_seconds=float(self.first_seconds),
        )

    def source_frames(self, start: int = 0) -> Iterator[SourceFrame]:
        """Yield the frames that the file has, at its own times, from number ``start`` on; raise as iterating."""
        held, seconds, zero, number = self._next_frame, self._next_seconds, self._clock.zero_seconds, 0
        for number, (frame, time) in enumerate(self._frames, 1):
            if number > start:
                yield SourceFrame(self._scaler.picture(held), seconds, time - seconds, zero)
            held, seconds, zero = frame, time, self._clock.zero_seconds
        end = self._end(held)
        if number >= start:
            yield SourceFrame(self._scaler.picture(held), seconds, end - seconds, zero)
        self._duration, self._length = end, grid_length(end)

    @property
    def first_seconds(self) -> Fraction:
        """When the first frame is shown after the start of the file, as players count."""
        return self._header.first_seconds(self._clock.start_seconds)

    def skip_to(self, start: int | Part, *, allow_seek: bool) -> bool:
        """Move to this grid frame, or to the frame that is shown where a part begins, by a seek where that is exact.

        Return False where the seek turned out inexact: open the file again, and pass ``allow_seek=False``.
        """
        if isinstance(start, Part):
            self.start_frame, seconds = frame_range(start, self.first_seconds)[0], start.exact[0] - self.first_seconds
        else:
            self.start_frame, seconds = start, Fraction(start, GRID_FPS)
        if not allow_seek or (ticks := self._decoder.seek_ticks(seconds)) is None:
            return True
        frames = self._decoder.frames_at(ticks, seconds)
        if frames is not None:
            (self._next_frame, self._next_seconds), self._frames = next(frames), frames
        return frames is not None

    def __iter__(self) -> Iterator[GridFrame]:
        """Yield the frames of the grid, once, from the first that is wanted on; raises VideoError."""
        frame, points = self._next_frame, range(0)
        frames = chain([(frame, self._next_seconds)], self._frames)
        for frame, points in grid_points(frames, self._end):
            if wanted := points[max(0, self.start_frame - points.start) :]:
                pixels = self._scaler.picture(frame)
                yield from (GridFrame(pixels, i / GRID_FPS) for i in wanted)
        self._duration, self._length = self._end(frame), points.stop

    def _end(self, last: av.VideoFrame) -> Fraction:
        end = self._clock.end(last.duration)
        self._limits.check_length(end)
        return end


class PictureFolder:
    """A folder of pictures, open for reading, once: what ``Video`` has that ``source_frames`` belongs to.

    Files of pictures have no times: ``source_frames`` shows 25 per second.
    """

    expected_num_frames = start_seconds = colours = None
    first_seconds, pixel_aspect, start_frame = Fraction(0), Fraction(1), 0

    def __init__(self, folder: str, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        try:
            self._names = picture_names(folder)
        except OSError as error:
            raise os_video_error(error, what="the folder") from error
        if not self._names:
            raise VideoError("no_frames", "the folder holds no pictures")
        limits.check_length(num_frames=len(self._names))
        self._num_read = 0
        height, width = self._read(self._names[0]).shape[:2]
        self.size = width, height

    @property
    def facts(self) -> VideoFacts:
        """What is known by now."""
        count = len(self._names)
        return VideoFacts(None, self.size, 0, None, count, self._num_read, None, "ok", ())

    def source_frames(self, start: int = 0) -> Iterator[SourceFrame]:
        """Yield the pictures from number ``start`` on; raise VideoError for one that is no whole picture."""
        for number, name in enumerate(self._names[start:], start):
            pixels = self._read(name)
            if pixels.shape[1::-1] != self.size:
                raise VideoError("decode_failed", f"{name} has another size than the first picture")
            self._num_read += 1
            yield SourceFrame(pixels, Fraction(number, GRID_FPS), Fraction(1, GRID_FPS), None)

    def _read(self, name: str) -> Picture:
        from PIL import Image, UnidentifiedImageError

        path = os.path.join(self._folder, name)  # noqa: PTH118
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
                raise VideoError("not_a_regular_file", f"{name} is not a regular file")
            with Image.open(path, formats=_PILLOW_FORMATS) as image:
                self._limits.check_pixels(*image.size)
                if image.mode.startswith(("I", "F")):
                    raise VideoError("decode_failed", f"{name} has more than 8 bits per channel")
                return np.asarray(image.convert("RGB"))
        except UnidentifiedImageError as error:
            raise VideoError("decode_failed", f"{name} is not a picture that can be read") from error
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            if isinstance(error, OSError) and error.errno:
                raise os_video_error(error, what=name) from error
            raise VideoError("truncated_or_incomplete", f"{name} is cut short or damaged") from error


@contextmanager
def open_video(
    path: AnyPath,
    *,
    start_frame: int | Part = 0,
    limits: Limits | None = None,
    listed: bool = False,
    scaler: Callable[..., Scaler | GrayPlane] = Scaler,
) -> Iterator[Video]:
    """Open one video file for reading, once, from its start or from a clip on; of several streams, the best by FFmpeg.

    Args:
        path: a file; any other string, a URL too, is taken as the path of a file as well.
        start_frame: the first grid frame wanted, or that of a part. What comes before is not decoded where the file
            allows that; only a broken timestamp there goes unnoticed.
        limits: what to refuse as ``too_large``.
        listed: the file was there when inputs were listed: a missing one is ``disappeared`` rather than ``not_found``.
        scaler: what makes pictures of the frames.

    Raises VideoError with any code of ``VIDEO_ERROR_CODES`` that concerns files and decoding.
    """
    name, limits = os.fspath(path), limits or Limits.of_environment()
    regular_file(name, listed=listed)
    before = stamp(name)
    for allow_seek in (True, False):
        with _open(name, limits) as container:
            stream = best_stream(name, container)
            if not stream.codec_context.width:  # lost when decoding is refused: a picture beyond the limit, or damage
                with _open(name, limits, codec_whitelist="none") as undecoded:
                    context = best_stream(name, undecoded).codec_context
                    limits.check_pixels(context.width, context.height)
            video = Video(Decoder(name, container, stream, limits), limits, scaler)
            if video.skip_to(start_frame, allow_seek=allow_seek):
                yield video
                if video.facts.num_frames is not None and stamp(name) != before:
                    raise VideoError("changed_while_reading", "the file changed while it was read")
                return


def open_source(
    path: AnyPath,
    *,
    listed: bool = False,
    limits: Limits | None = None,
    size: str = "full",
    start_frame: int | Part = 0,
) -> "AbstractContextManager[Video | PictureFolder]":
    """Open a video for its ``source_frames``, in a ``size`` of ``SCALERS``; or a folder of pictures, as they are.

    Of a video, these then begin with the one that is shown at the ``start_frame`` of the grid.
    """
    if os.path.isdir(path):  # noqa: PTH112
        return nullcontext(PictureFolder(os.fspath(path), limits or Limits.of_environment()))
    return open_video(path, start_frame=start_frame, listed=listed, limits=limits, scaler=SCALERS[size])


@contextmanager
def open_packets(
    path: AnyPath, *, limits: Limits | None = None, start: float | None = None, sound: bool = True
) -> Iterator[Packets]:
    """Yield the coded packets of a video's sound, if any, in the order of the file, up to damage.

    With a ``start`` those of its pictures too, from before so many seconds on. The first is of a picture that stands
    alone: the last before ``start`` that has a place in the file's index.
    """
    name = os.fspath(path)
    regular_file(name, listed=False)
    with _open(name, limits or Limits.of_environment(), **(_UNTIL_SOUND if start is None else {})) as container:
        # PyAV gives no codec context where FFmpeg has no decoder; to touch such a stream's codec crashes.
        heard = [stream for stream in container.streams.audio if stream.codec_context is not None] if sound else []
        zero, streams = container.start_time or 0, heard if start is None else [best_stream(name, container), *heard]
        if start is not None:
            container.seek(zero + round(start * 1e6))  # in microseconds
        packets = container.demux(*streams) if streams else iter(())
        yield Packets(streams, _with_times(packets), Fraction(zero, 1_000_000))


def _with_times(packets: "Iterator[av.Packet[Any]]") -> "Iterator[av.Packet[Any]]":
    with suppress(Exception):  # damaged files raise nearly anything
        yield from (each for each in packets if each.size and each.pts is not None and each.dts is not None)


def sample_streams(content: bytes) -> tuple[av.AudioStream, ...]:
    """Return the streams of a Matroska file in memory: what a child has written, not a person's file."""
    options = {"protocol_whitelist": "", "format_whitelist": "matroska"}
    try:
        container = av.open(io.BytesIO(content), "r", format="matroska", options=options)
    except Exception as error:  # whatever a child sends that a file has taken over
        raise VideoError("decoder_crash", "the process that reads its sound sent an invalid message") from error
    return tuple(container.streams.audio)


def _open(path: str, limits: Limits, **more: str) -> av.container.InputContainer:
    """Open the container, by an address that can only mean this one file; decodes its first frames on the way."""
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": FFMPEG_FORMATS,
        "max_pixels": str(limits.max_decoder_pixels),
        **more,
    }
    try:
        return av.open("file:" + from_root(path), "r", options=options, metadata_errors="ignore")
    except Exception as error:  # damaged files raise nearly anything: UnicodeDecodeError, MemoryError, …
        raise memory_error(error) or unreadable_error(path, error) from error
