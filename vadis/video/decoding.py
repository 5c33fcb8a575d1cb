"""From the packets of a video stream to decoded frames in display order, past damage; and straight to a clip.

A packet that cannot be decoded is skipped and counted. Only where nothing could be decoded for ``MAX_LOST_SECONDS`` of
the video is the rest given up.

A seek leads to a key frame at or before the clip, from where decoding is complete. Its place on the time grid must
follow from its timestamp alone, and that of every later frame too. Where this is not sure the file is read from its
start, which costs time and nothing else.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from typing import Any, NamedTuple

import av

from vadis.errors import VideoError
from vadis.video.container import Header
from vadis.video.integrity import Continuity, disk_failure
from vadis.video.isolated.sandbox import memory_refusal
from vadis.video.metadata import MP4, Limits
from vadis.video.picture import PixelAspect
from vadis.video.timegrid import Clock

MAX_LOST_SECONDS = Fraction(20 * 60)
"""Of a video, in which nothing in a row can be decoded; more than between two key frames of any live stream. (To fail
on a packet of H.264 takes 20 µs to 0.2 ms, so it takes seconds until the rest is given up.)"""

_LONGEST_LOSS_SECONDS = Fraction(1)  # that one packet counts: of a time lapse a few would be the limit above

THREADS = 1
"""Decoder threads. More gain nothing here (slice threading) or may hang when reading stops early (frame threading);
many videos are read faster by many processes."""

_DISORDERED_FRAMES = 32  # after a failure; two groups of the 16 frames that H.264 may hold back
_DISORDER = 3  # places by which one of them may be late; more than was seen

_HIDDEN_FRAMES = ("vp8", "vp9", "av1", "libdav1d", "libvpx", "libvpx-vp9", "libaom-av1")
"""Decoders whose packets may hold frames that are never shown, so that packets and frames cannot be compared."""

_FEWEST_FRAMES = Fraction(95, 100)  # of the stored frames; below, frames are missing rather than delayed or packed

_INDEXED = (MP4, "matroska,webm", "avi")
"""FFmpeg's names of the containers with an index of key frames, in which a seek is exact. In the others FFmpeg guesses
by bytes, or their clocks may start again on the way."""

_LEAD_SECONDS = Fraction(1, 2)  # B-frames: files index a frame by when it is decoded, before it is shown
_WORTH_SECONDS = Fraction(1, 2)  # from the start; nearer, it is quicker to read on


@dataclass
class Tally:
    """What was read of a stream so far; ``ends`` is the latest end of a packet by stream, in that stream's ticks."""

    packets: int = 0
    discarded: int = 0
    failed: int = 0
    frames: int = 0
    patched: int = 0
    interlaced: int = 0
    gave_up: bool = False  # the decoder, after nothing but failures for a long time
    broke_off: bool = False  # the container, by an error of its own
    jumped: bool = False  # not all was read, so that counts say nothing of what is missing
    ends: dict[int, int] = field(default_factory=dict)


class Decoder:
    """Decodes the frames of one stream, each with its time in seconds after the first.

    ``path`` is that of the opened ``container``, to be looked at again should reading fail.
    """

    def __init__(
        self, path: str, container: av.container.InputContainer, stream: av.VideoStream, header: Header, limits: Limits
    ) -> None:
        self.tally, self.clock = Tally(), header.clock()
        self.continuity = Continuity(path, header.format_name, stream, header.interval)
        self._path, self._container, self._stream = path, container, stream
        self._limits, self._interval = limits, header.interval
        self._since_failure = _DISORDERED_FRAMES  # frames
        self._time_bases = {each.index: each.time_base or Fraction(0) for each in container.streams}
        self._pixel_aspect = PixelAspect(stream)
        context = stream.codec_context
        self._hides_frames = context.name in _HIDDEN_FRAMES
        context.options = {"max_pixels": str(limits.max_decoder_pixels)}  # a container's options are not heeded here
        context.thread_type = "SLICE"
        context.thread_count = THREADS

    def frames(self) -> Iterator[tuple[av.VideoFrame, Fraction]]:
        """Yield frames in display order with their times; end where nothing more can be decoded."""
        for frame, time in self.clock.timed(self._in_order()):
            self._limits.check_length(time, self.tally.frames)
            yield frame, time

    def frames_from(self, ticks: int) -> Iterator[tuple[av.VideoFrame, Fraction]]:
        """Yield frames from a key frame near a timestamp on; frames shown before it may come first, damaged."""
        self.tally.jumped = True
        self._container.seek(ticks, stream=self._stream)
        self.clock.jump()
        self.continuity.jump()
        return self.frames()

    def no_frames(self, *, is_cut: bool) -> VideoError:
        """Return why not a single frame came out; ``is_cut``: the file ends earlier than its header says."""
        self._limits.check_length(None, self._stream.frames)  # FFmpeg drops an index for which there is no memory
        if self.tally.gave_up or (self.tally.failed and not is_cut):
            return VideoError("decode_failed", "none of its frames could be decoded: damaged, encrypted or too large")
        if self.tally.broke_off or is_cut:
            return VideoError("truncated_or_incomplete", "the file is cut short or damaged before its first frame")
        return VideoError("no_frames", "its video stream holds no frame that can be shown")

    def end(self) -> Fraction | None:
        """Return until when, in seconds by the file's own clock, there were packets; None where they have no times."""
        return max((at * self._time_bases[i] for i, at in self.tally.ends.items()), default=None)

    def frames_are_missing(self) -> bool:
        """Return whether noticeably fewer frames came out than went in, without the decoder saying so."""
        tally = self.tally
        if tally.interlaced or self._hides_frames:
            return False
        return tally.frames < (tally.packets - tally.discarded - tally.failed) * _FEWEST_FRAMES

    def _in_order(self) -> Iterator[av.VideoFrame]:
        """Yield decoded frames; those after a failure sorted, because decoders of H.264 then give some too late."""
        held: list[av.VideoFrame] = []
        for frame in self._decoded():
            held.append(frame)
            self._since_failure += 1
            if self._since_failure > _DISORDERED_FRAMES:
                yield from _by_timestamp(held)
                held = []
            elif len(held) > _DISORDER:
                first, *held = _by_timestamp(held)
                yield first
        yield from _by_timestamp(held)

    def _decoded(self) -> Iterator[av.VideoFrame]:
        lost_seconds = Fraction(0)  # without a frame, because packets failed
        for packet in self._packets():
            frames = self._decode(packet)
            if frames is None:
                lost_seconds += min(self._interval, _LONGEST_LOSS_SECONDS)
                if lost_seconds > MAX_LOST_SECONDS:
                    self.tally.gave_up = True
                    return
                continue
            for frame in frames:
                lost_seconds = Fraction(0)
                self._pixel_aspect.mark(frame)
                self.tally.frames += 1
                self.tally.patched += frame.is_corrupt
                self.tally.interlaced += frame.interlaced_frame
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
                failure = disk_failure(self._path) if isinstance(error, OSError) else None
                failure = failure or memory_refusal(error)
                if failure is not None:
                    raise failure from error
                self.tally.broke_off = True
                yield None
                return
            if packet is None:
                return self.continuity.end()
            if self._is_wanted(packet):
                yield packet

    def _is_wanted(self, packet: "av.Packet[Any]") -> bool:
        """Count a packet; return False for those of other streams and for empty ones of frames dropped by encoders."""
        index = packet.stream.index  # not stream_index, which is 0 in the packet that flushes any stream
        is_flush = packet.dts is None and packet.pts is None and packet.size == 0
        start = packet.dts if packet.pts is None else packet.pts
        if start is not None and (index == self._stream.index or self._stream.duration is None):
            end = start + (packet.duration or 0)
            self.tally.ends[index] = max(end, self.tally.ends.get(index, end))
        if packet.size and self.continuity.has_restarted(packet) and packet.pts is not None:
            self.clock.restart_at(packet.pts)
        if index != self._stream.index:
            return False
        if packet.size:
            self.tally.packets += 1
            self.tally.discarded += packet.is_discard
            self.clock.note_stored(packet.dts)
        return is_flush or packet.size > 0

    def _decode(self, packet: "av.Packet[Any] | None") -> list[av.VideoFrame] | None:
        """Return the frames that come out when ``packet`` goes in, None where it cannot be decoded."""
        try:
            frames = self._stream.decode(packet)
        except Exception as error:  # damaged files raise nearly anything
            if failure := memory_refusal(error):
                raise failure from error
            self.tally.failed += 1
            self._since_failure = 0
            self.clock.drop_stored()
            return None
        self._pixel_aspect.after_packet(packet)
        return frames


def _by_timestamp(frames: list[av.VideoFrame]) -> list[av.VideoFrame]:
    """Return the frames sorted by timestamp, where all have one."""
    if len(frames) < 2 or any(frame.pts is None for frame in frames):
        return frames
    return sorted(frames, key=lambda frame: frame.pts or 0)


class Position(NamedTuple):
    """Where reading goes on: a frame, its time in seconds after the first of the file, and the frames after it."""

    frame: av.VideoFrame
    seconds: Fraction
    following: Iterator[tuple[av.VideoFrame, Fraction]]


def seek_ticks(header: Header, stream: av.VideoStream, clock: Clock, seconds: Fraction) -> int | None:
    """Return the timestamp to seek to for a clip that starts at ``seconds``, None where it is better to read on."""
    if header.format_name not in _INDEXED or seconds < _WORTH_SECONDS:
        return None
    is_beyond = header.duration is not None and seconds > header.duration
    if is_beyond and header.format_name != MP4:  # whose fragments state a part; else in a recording that was appended
        return None
    reorders = stream.codec_context.has_b_frames
    if header.is_sequential and reorders:  # frames are counted, and shown in another order than they are stored
        return None
    return clock.ticks(seconds - _LEAD_SECONDS if reorders else seconds)


def position_before(decoder: Decoder, ticks: int, seconds: Fraction) -> Position | None:
    """Return the last frame shown at or before ``seconds``, after a seek to ``ticks``; None where it is not sure.

    Then the decoder has lost its place, and the file has to be opened again. It is not sure either where no frame
    follows: the clip lies behind the end, or in a recording that was appended, whose clock started again.
    """
    try:
        frames = decoder.frames_from(ticks)
    except Exception:  # noqa: BLE001 (FFmpeg cannot seek)
        return None
    held: tuple[av.VideoFrame, Fraction] | None = None
    for frame, time in frames:
        if decoder.clock.has_guessed:
            return None
        if time > seconds:
            return None if held is None else Position(*held, chain([(frame, time)], frames))
        if held is None and frame.key_frame and frame.is_corrupt:
            return None
        if held is not None or frame.key_frame:  # those before a key frame lean on frames that were not read
            held = frame, time
    return None
