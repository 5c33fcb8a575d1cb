"""The video stream of a file: what its header promises, and from packets to frames in display order, past damage."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition

from vadis.errors import VideoError
from vadis.video.container import MPEGTS_PACKETS, Continuity, check_disk, is_cut_short
from vadis.video.isolated.sandbox import memory_error
from vadis.video.metadata import MP4, Limits
from vadis.video.picture import PixelAspect, container_crop
from vadis.video.timegrid import GRID_FPS, Clock

_MICROSECOND = Fraction(1, 1_000_000)  # FFmpeg's unit for the times of a whole container
_DEFAULT_FPS = Fraction(25)  # where a file states no frame rate: what FFmpeg assumes of bare streams
_SLACK_SECONDS = Fraction(1, 2)  # by which a video without a count of frames may end before its header says,
_SLACK_SHARE = Fraction(5, 100)  # and the share of its duration that this may not exceed
_LARGEST_DELAY_SECONDS = Fraction(10)  # a first frame later than this is timed by another clock
_STILL_BRANDS = ("avif", "heic", "heix", "heim", "heis", "mif1")  # images in an MP4 container; sequences have others
_ENDS_STATED = ("matroska,webm", "asf")  # formats whose "duration" is when the last frame ends, by the file's clock

MAX_LOST_SECONDS = Fraction(20 * 60)
"""Of video that cannot be decoded, after which the rest is given up: some seconds of work."""

_LONGEST_LOSS_SECONDS = Fraction(1)  # that one lost packet adds; else a few of a time lapse would reach the limit
_DISORDERED_FRAMES = 32  # after a failure; two groups of the 16 frames that H.264 may hold back
_DISORDER = 3  # places by which one of them may be late; more than was seen
_LEAD_SECONDS = Fraction(1, 2)  # B-frames: files index a frame by when it is decoded, before it is shown
_MIN_SEEK_SECONDS = Fraction(1, 2)  # from the start; to a nearer frame it is quicker to read on

_HIDDEN_FRAMES = ("vp8", "vp9", "av1", "libdav1d", "libvpx", "libvpx-vp9", "libaom-av1")
"""Decoders whose packets may hold frames that are never shown, so that packets and frames cannot be compared."""

_INDEXED = (MP4, "matroska,webm", "avi")
"""FFmpeg's names of the containers with an index of key frames. In others it seeks by a guess in bytes."""


class Header:
    """What the header of a file states of its video stream. All lengths are hints: what is decoded decides."""

    def __init__(self, path: str, container: InputContainer, stream: av.VideoStream, limits: Limits) -> None:
        limits.check_pixels(stream.codec_context.width, stream.codec_context.height)
        self.format_name = name = container.format.name
        self.sample_aspect_ratio = stream.sample_aspect_ratio  # width of a pixel by its height
        self.num_video_streams = len(_video_streams(container))
        self.is_sequential = name == "avi"  # frames at a constant rate, and no timestamps
        self.crop = container_crop(container, stream)
        self._clock_may_restart = bool(container.format.flags & 0x0200)  # AVFMT_TS_DISCONT in FFmpeg's avformat.h
        self.is_cut_short = is_cut_short(path, name)
        self._time_base = stream.time_base or 1 / _DEFAULT_FPS  # seconds per tick of the timestamps
        rates = (stream.average_rate, stream.guessed_rate)
        self.fps = next((rate for rate in rates if rate and Fraction(1, 3600) <= rate <= 1000), None)
        self.interval = 1 / (self.fps or _DEFAULT_FPS)  # nominal seconds from frame to frame
        # Of all streams together: when the first begins, from where players count, and seconds until the last ends.
        self._start = None if container.start_time is None else container.start_time * _MICROSECOND
        self._file_duration = container.duration * _MICROSECOND if container.duration else None
        # Seconds from the first frame to the end of the last; and when that is, by the file's own clock.
        self.duration, self.end = self._extent(stream)
        # Coded ones. GIF states nothing: FFmpeg counted what is there.
        self.num_frames: int | None = None if name == "gif" else stream.frames or None
        if name == MP4 and self.num_frames:  # without those that an edit list leaves out
            self.num_frames = min(self.num_frames, len(stream.index_entries) or self.num_frames)
        # What a file of this size can have: beyond a day, a byte for each second. Transport streams, which FFmpeg
        # measures, maybe by two different clocks: a packet for each frame.
        is_measured, size = name == "mpegts", container.size
        most_seconds = size * self.interval / min(MPEGTS_PACKETS) if is_measured else Fraction(max(86_400, size))
        if (self.num_frames or 0) > size:
            self.num_frames, most_seconds = None, Fraction(-1)
        can_last = (self.duration or 0) <= most_seconds
        self.ignores_length = not can_last and not is_measured
        if not can_last:
            self.duration = self.end = None
        # Frames behind a gap may exceed the stated length by a second. That of MP4 follows from the very numbers that
        # timestamps do, and fragments state that of a part.
        has_latest = self.duration is not None and not self._clock_may_restart and name != MP4
        latest = (self.duration or 0) + Fraction(1) if has_latest else None
        self.clock = Clock(self._time_base, self.interval, sequential=self.is_sequential, latest=latest)

    def first_seconds(self, first: Fraction | None) -> Fraction:
        """Return when the first frame, at ``first`` seconds by the file's own clock, is shown after the file's start.

        Less than a frame of the grid, which is rounding or the silence before compressed sound, is 0. So is what cannot
        be: as long as the file, or a step after which a clock has restarted or belongs to another programme.
        """
        late = Fraction(0) if first is None or self._start is None else first - self._start
        limits = [self._file_duration, _LARGEST_DELAY_SECONDS if self._clock_may_restart else None]
        is_plausible = late >= Fraction(1, GRID_FPS) and all(limit is None or late < limit for limit in limits)
        return late if is_plausible else Fraction(0)

    def _extent(self, stream: av.VideoStream) -> tuple[Fraction | None, Fraction | None]:
        """Return duration and end in seconds, of the stream or else of the container; None where neither states them.

        What is stated as duration may be the end, which contains the time before the first frame.
        """
        start, is_end = (stream.start_time or 0) * self._time_base, self.format_name in _ENDS_STATED
        if stream.duration is not None and stream.duration > 0:
            stated = stream.duration * self._time_base
            entries = stream.index_entries
            if self.format_name == MP4 and len(entries):  # the end, where an empty edit delays the video
                span = (entries[-1].timestamp - entries[0].timestamp) * self._time_base + self.interval
                is_end = abs(stated - start - span) < abs(stated - span)
        elif (self._file_duration or 0) > 0:
            stated = min(filter(None, (self._file_duration, _tagged_duration(stream))))
            start = start if is_end else self._start or Fraction(0)
        else:
            return None, None
        return (stated - start, stated) if is_end and stated > start else (stated, start + stated)


def _video_streams(container: InputContainer) -> list[av.VideoStream]:
    pictures = Disposition.attached_pic | Disposition.timed_thumbnails  # cover art and previews
    return [stream for stream in container.streams.video if not stream.disposition & pictures]


def best_stream(path: str, container: InputContainer) -> av.VideoStream:
    """Return the stream that FFmpeg calls best, among those that can be decoded; raise VideoError if there is none."""
    streams = _video_streams(container)
    # PyAV gives no codec context where FFmpeg has no decoder; to touch such a stream's codec crashes.
    decodable = [stream for stream in streams if stream.codec_context is not None]
    if not decodable and is_cut_short(path, container.format.name):
        raise VideoError("truncated_or_incomplete", "the file is cut short before it says what video it holds")
    if not streams:
        raise VideoError("no_video_stream", "there is no video in this file, only sound, data or cover art")
    brand = container.metadata.get("major_brand")
    if brand in _STILL_BRANDS or all(stream.disposition & Disposition.still_image for stream in streams):
        raise VideoError("not_a_video", "this is an image, not a video")
    if not decodable:
        raise VideoError("unsupported_codec", "its video is in a codec that this build of FFmpeg cannot decode")
    best = container.streams.best("video")
    return next((stream for stream in decodable if stream is best), decodable[0])


def _tagged_duration(stream: av.VideoStream) -> Fraction | None:
    """Return what a tag of Matroska states of this stream alone (hours:minutes:seconds), None where there is none."""
    try:
        hours, minutes, seconds = map(Fraction, stream.metadata.get("DURATION", "").split(":"))
    except (ValueError, ZeroDivisionError):
        return None
    return max(hours * 3600 + minutes * 60 + seconds, Fraction(0))


class Decoder:
    """Decodes the frames of a stream of ``container``, whose file is at ``path``, and counts what it meets."""

    def __init__(self, path: str, container: InputContainer, stream: av.VideoStream, limits: Limits) -> None:
        self.header = header = Header(path, container, stream, limits)
        self.clock = header.clock
        self.continuity = Continuity(path, header.format_name, stream, header.interval)
        self.num_frames = self.num_discarded = self.num_failed = 0  # frames decoded, packets not to be shown, and lost
        self.is_patched = False  # whether the decoder marked a frame as damaged
        self.gave_up = False  # after nothing but failures for a long time
        self.demuxing_failed = False
        self.jumped = False  # not all was read, so that counts say nothing of what is missing
        self._num_packets = 0
        self._position = 0  # of the last packet
        self._end: Fraction | None = None  # the latest end of a packet, in seconds by the file's own clock
        self._path, self._container, self._stream, self._limits = path, container, stream, limits
        self._since_failure = _DISORDERED_FRAMES  # frames
        self._pixel_aspect = PixelAspect(stream)
        context = stream.codec_context
        self._hides_frames = context.name in _HIDDEN_FRAMES  # or gives two fields as one frame
        context.options = {"max_pixels": str(limits.max_decoder_pixels)}  # a container's options are not heeded here
        # More threads gain nothing, or may hang when reading stops early; more processes read many videos faster.
        context.thread_type, context.thread_count = "SLICE", 1

    def frames(self) -> Iterator[tuple[av.VideoFrame, Fraction]]:
        """Yield frames in display order with their times; end where nothing more can be decoded."""
        for frame, time in self.clock.timed(self._in_order()):
            self._limits.check_length(time, self.num_frames)
            yield frame, time

    def seek(self, ticks: int) -> None:
        """Go on at a key frame near a timestamp."""
        self.jumped = True
        self._container.seek(ticks, stream=self._stream)
        self.clock.jump()
        self.continuity.jump()

    def seek_ticks(self, seconds: Fraction) -> int | None:
        """Return the timestamp to seek to for a clip that starts at ``seconds``, None where it is better to read on."""
        header, reorders = self.header, self._stream.codec_context.has_b_frames
        if header.format_name not in _INDEXED or seconds < _MIN_SEEK_SECONDS:
            return None
        # Beyond the end lies a recording that was appended. (Fragments of MP4 state the length of a part.)
        if header.format_name != MP4 and header.duration is not None and seconds > header.duration:
            return None
        if header.is_sequential and reorders:  # frames are counted, and shown in another order than they are stored
            return None
        return self.clock.ticks(seconds - _LEAD_SECONDS if reorders else seconds)

    def frames_at(self, ticks: int, seconds: Fraction) -> Iterator[tuple[av.VideoFrame, Fraction]] | None:
        """Seek, and return the last frame shown at or before ``seconds`` and those after it.

        Return None where that cannot be proved: the file has to be opened again. (Without a frame after it, the clip
        may lie in an appended recording.)
        """
        try:
            self.seek(ticks)
        except Exception:  # noqa: BLE001 (FFmpeg cannot seek)
            return None
        held: tuple[av.VideoFrame, Fraction] | None = None
        for frame, time in (frames := self.frames()):
            if self.clock.has_guessed:
                return None
            if time > seconds:
                return None if held is None else chain([held, (frame, time)], frames)
            if held is None and frame.key_frame and frame.is_corrupt:
                return None
            if held is not None or frame.key_frame:  # those before it may come first, damaged
                held = frame, time
        return None

    def no_frames_error(self) -> VideoError:
        """Return why not a single frame came out."""
        is_cut = self.ends_early()
        self._limits.check_length(num_frames=self._stream.frames)  # FFmpeg drops an index for which there is no memory
        if self.gave_up or (self.num_failed and not is_cut):
            return VideoError("decode_failed", "none of its frames could be decoded: damaged, encrypted or too large")
        if self.demuxing_failed or is_cut:
            return VideoError("truncated_or_incomplete", "the file is cut short or damaged before its first frame")
        return VideoError("no_frames", "its video stream holds no frame that can be shown")

    def ends_early(self, seconds: Fraction | None = None) -> bool:
        """Return whether the packets stop before the header's end; the frames last ``seconds``, None: unknown.

        Where the header counts frames, none may be missing; one that states only a time may round it or mean its sound.
        """
        header = self.header
        if header.is_cut_short and header.format_name == MP4:  # in fragments: the header counts those of the first
            return True
        if header.num_frames and self._num_packets >= header.num_frames:
            return False
        if header.is_cut_short or header.end is None or header.duration is None:
            return header.is_cut_short
        slack = header.interval / 2
        if not header.num_frames:
            slack = min(max(3 * slack, _SLACK_SECONDS), header.duration * _SLACK_SHARE)
        is_reached = self._end is not None and self._end >= header.end - slack
        return not is_reached and (seconds is None or seconds < header.duration - slack)

    def frames_are_missing(self) -> bool:
        """Return whether noticeably fewer frames came out than went in, without the decoder saying so."""
        expected = self._num_packets - self.num_discarded - self.num_failed
        return not self._hides_frames and 100 * self.num_frames < 95 * expected  # some are delayed or packed

    def _in_order(self) -> Iterator[av.VideoFrame]:
        """Yield decoded frames; those after a failure sorted, because decoders of H.264 then give some too late."""
        held: list[av.VideoFrame] = []
        for frame in self._decoded():
            held.append(frame)
            self._since_failure += 1
            while len(held) > (_DISORDER if self._since_failure <= _DISORDERED_FRAMES else 0):
                first, *held = _by_timestamp(held)
                yield first
        yield from _by_timestamp(held)

    def _decoded(self) -> Iterator[av.VideoFrame]:
        lost_seconds = Fraction(0)  # without a frame, because packets failed
        for packet in self._packets():
            try:
                frames = self._stream.decode(packet)
            except Exception as error:  # damaged files raise nearly anything
                if failure := memory_error(error):
                    raise failure from error
                self.num_failed += 1
                self._since_failure = 0
                if packet is not None and packet.size and self.clock.stored:
                    self.clock.stored.pop()
                lost_seconds += min(self.header.interval, _LONGEST_LOSS_SECONDS)
                if lost_seconds > MAX_LOST_SECONDS:
                    self.gave_up = True
                    return
                continue
            self._pixel_aspect.mark(frames, packet)
            for frame in frames:
                lost_seconds = Fraction(0)
                self.num_frames += 1
                self.is_patched |= frame.is_corrupt
                self._hides_frames |= frame.interlaced_frame
                self._limits.check_pixels(frame.width, frame.height)
                yield frame

    def _packets(self) -> "Iterator[av.Packet[Any] | None]":
        """Yield the packets, then an empty one, or None where the container breaks off, to flush the decoder."""
        # Where the stream states no duration of its own, that of the container counts, and with it all its streams.
        needs_all = self._stream.duration is None or self.continuity.needs_all_streams
        demuxer = self._container.demux(*(() if needs_all else (self._stream,)))
        while True:
            try:
                packet = next(demuxer, None)
            except IndexError:  # PyAV's, at the end, for streams that were not there at the beginning
                packet = None
            except Exception as error:
                check_disk(self._path, error, self._position)
                if failure := memory_error(error):
                    raise failure from error
                self.demuxing_failed = True
                yield None
                return
            if packet is None:
                return self.continuity.end()
            if self._is_wanted(packet):
                yield packet

    def _is_wanted(self, packet: "av.Packet[Any]") -> bool:
        """Count a packet; return False for those of other streams and for empty ones of frames dropped by encoders."""
        self._position = packet.pos or self._position
        is_ours = packet.stream.index == self._stream.index  # not stream_index, which is 0 in one that flushes
        start = packet.dts if packet.pts is None else packet.pts
        if start is not None and (is_ours or self._stream.duration is None):
            end = (start + (packet.duration or 0)) * (packet.time_base or Fraction(0))
            self._end = end if self._end is None else max(end, self._end)
        if packet.size and self.continuity.update(packet) and packet.pts is not None:
            self.clock.restarts.add(packet.pts)
        if is_ours and packet.size:
            self._num_packets += 1
            self.num_discarded += packet.is_discard
            self.clock.stored.append(packet.dts)
        return is_ours and (packet.size > 0 or start is None)


def _by_timestamp(frames: list[av.VideoFrame]) -> list[av.VideoFrame]:
    if any(frame.pts is None for frame in frames):
        return frames
    return sorted(frames, key=lambda frame: frame.pts or 0)
