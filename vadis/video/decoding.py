"""From the packets of a video stream to decoded frames in display order, past damage; and straight to a clip.

A packet that cannot be decoded is skipped and counted. A seek leads to a key frame at or before the clip; where the
times of that and of every later frame do not follow from their timestamps alone, the file is read from its start.
"""

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import Any

import av

from vadis.errors import VideoError
from vadis.video.container import MPEGTS_PACKETS, check_disk, read_part
from vadis.video.header import Header
from vadis.video.isolated.sandbox import memory_refusal
from vadis.video.metadata import MP4, Limits
from vadis.video.picture import PixelAspect
from vadis.video.timegrid import LARGEST_GAP_SECONDS

MAX_LOST_SECONDS = Fraction(20 * 60)
"""Of a video in which nothing can be decoded, before the rest is given up: more than between two key frames of any live
stream, and some seconds of work (20 µs to 0.2 ms for a packet of H.264)."""

_LONGEST_LOSS_SECONDS = Fraction(1)  # that one lost packet adds; else a few of a time lapse would reach the limit
_DISORDERED_FRAMES = 32  # after a failure; two groups of the 16 frames that H.264 may hold back
_DISORDER = 3  # places by which one of them may be late; more than was seen
_FEWEST_FRAMES = Fraction(95, 100)  # of the stored frames; below, frames are missing rather than delayed or packed
_LEAD_SECONDS = Fraction(1, 2)  # B-frames: files index a frame by when it is decoded, before it is shown
_WORTH_SECONDS = Fraction(1, 2)  # from the start; nearer, it is quicker to read on

_HIDDEN_FRAMES = ("vp8", "vp9", "av1", "libdav1d", "libvpx", "libvpx-vp9", "libaom-av1")
"""Decoders whose packets may hold frames that are never shown, so that packets and frames cannot be compared."""

_INDEXED = (MP4, "matroska,webm", "avi")
"""FFmpeg's names of the containers with an index of key frames. In the others it seeks by a guess in bytes."""


class Decoder:
    """Decodes the frames of one stream, each with its time in seconds after the first, and counts what it meets.

    ``path`` is that of the opened ``container``, to be looked at again should reading fail.
    """

    def __init__(
        self, path: str, container: av.container.InputContainer, stream: av.VideoStream, header: Header, limits: Limits
    ) -> None:
        self.clock = header.clock()
        self.continuity = Continuity(path, header.format_name, stream, header.interval)
        self.num_frames = self.num_discarded = self.num_failed = 0  # frames decoded, packets not to be shown, and lost
        self.is_patched = False  # whether the decoder marked a frame as damaged
        self.gave_up = False  # after nothing but failures for a long time
        self.broke_off = False  # the container, by an error of its own
        self.jumped = False  # not all was read, so that counts say nothing of what is missing
        self._num_packets = 0
        self._position = 0  # of the last packet
        self._end: Fraction | None = None  # the latest end of a packet, in seconds by the file's own clock
        self._path, self._container, self._stream, self._header = path, container, stream, header
        self._limits = limits
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
        """Go on at a key frame near a timestamp; frames shown before it may come first, damaged."""
        self.jumped = True
        self._container.seek(ticks, stream=self._stream)
        self.clock.jump()
        self.continuity.jump()

    def seek_ticks(self, seconds: Fraction) -> int | None:
        """Return the timestamp to seek to for a clip that starts at ``seconds``, None where it is better to read on."""
        header, reorders = self._header, self._stream.codec_context.has_b_frames
        if header.format_name not in _INDEXED or seconds < _WORTH_SECONDS:
            return None
        is_beyond = header.duration is not None and seconds > header.duration
        if (
            is_beyond and header.format_name != MP4
        ):  # whose fragments state a part; else in a recording that was appended
            return None
        if header.is_sequential and reorders:  # frames are counted, and shown in another order than they are stored
            return None
        return self.clock.ticks(seconds - _LEAD_SECONDS if reorders else seconds)

    def frames_at(self, ticks: int, seconds: Fraction) -> Iterator[tuple[av.VideoFrame, Fraction]] | None:
        """Seek, and return the last frame shown at or before ``seconds`` and those after it; None where it is not sure.

        Then the decoder has lost its place, and the file has to be opened again. It is not sure either where no frame
        follows: the clip lies behind the end, or in a recording that was appended.
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
            if held is not None or frame.key_frame:  # those before a key frame lean on frames that were not read
                held = frame, time
        return None

    def no_frames(self) -> VideoError:
        """Return why not a single frame came out."""
        is_cut = self.ends_early()
        self._limits.check_length(num_frames=self._stream.frames)  # FFmpeg drops an index for which there is no memory
        if self.gave_up or (self.num_failed and not is_cut):
            return VideoError("decode_failed", "none of its frames could be decoded: damaged, encrypted or too large")
        if self.broke_off or is_cut:
            return VideoError("truncated_or_incomplete", "the file is cut short or damaged before its first frame")
        return VideoError("no_frames", "its video stream holds no frame that can be shown")

    def ends_early(self, seconds: Fraction | None = None) -> bool:
        """Return whether the file ends before its header says; its frames last ``seconds``, None where not all came."""
        return self._header.ends_early(self._num_packets, self._end, seconds)

    def frames_are_missing(self) -> bool:
        """Return whether noticeably fewer frames came out than went in, without the decoder saying so."""
        expected = self._num_packets - self.num_discarded - self.num_failed
        return not self._hides_frames and self.num_frames < expected * _FEWEST_FRAMES

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
                lost_seconds += min(self._header.interval, _LONGEST_LOSS_SECONDS)
                if lost_seconds > MAX_LOST_SECONDS:
                    self.gave_up = True
                    return
                continue
            for frame in frames:
                lost_seconds = Fraction(0)
                self._pixel_aspect.mark(frame)
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
                if failure := memory_refusal(error):
                    raise failure from error
                self.broke_off = True
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
        if packet.size and self.continuity.has_restarted(packet) and packet.pts is not None:
            self.clock.restarts.add(packet.pts)
        if is_ours and packet.size:
            self._num_packets += 1
            self.num_discarded += packet.is_discard
            self.clock.stored.append(packet.dts)
        return is_ours and (packet.size > 0 or start is None)

    def _decode(self, packet: "av.Packet[Any] | None") -> list[av.VideoFrame] | None:
        """Return the frames that come out when ``packet`` goes in, None where it cannot be decoded."""
        try:
            frames = self._stream.decode(packet)
        except Exception as error:  # damaged files raise nearly anything
            if failure := memory_refusal(error):
                raise failure from error
            self.num_failed += 1
            self._since_failure = 0
            if self.clock.stored:
                self.clock.stored.pop()
            return None
        self._pixel_aspect.after_packet(packet)
        return frames


def _by_timestamp(frames: list[av.VideoFrame]) -> list[av.VideoFrame]:
    """Return the frames sorted by timestamp, where all have one."""
    if any(frame.pts is None for frame in frames):
        return frames
    return sorted(frames, key=lambda frame: frame.pts or 0)


_MOST_OVERHEAD = {"matroska,webm": 512, "flv": 512, "ogg": 512, "asf": 4096}
"""Bytes between two packets of a container that need not be packets themselves; FFmpeg skips silently what is damaged.
Containers with an index are not here: what it names and cannot be read is missed anyway."""

_NEARBY = 16  # packets; Ogg and ASF tell times, and skip bytes, a little before or behind the place
_FEWEST_STEPS = 10  # that make a usual distance, before a longer one is a loss
_IN_DOUBT = Fraction(3, 2)  # of the usual distance; beyond, a frame may be missing. Film in NTSC varies by less
_LONG_STEPS, _LONG_SECONDS = 10, Fraction(1)  # usual distances, and time: a step beyond both is a loss without a trace
_MOST_BYTES = 4 << 20  # read at once
_TABLE_BYTES = 1 << 19  # read before that: a program table comes 10 times per second, 0.4 MB apart at 30 Mbit/s
_SYNC = 0x47  # G, the first byte of a transport packet


class Continuity:
    """Watches the packets of a file, in their order there, for losses and restarts that FFmpeg does not report.

    Where the times of two packets are further apart than usual, the bytes between them tell why: in MPEG-TS the headers
    of transport packets, in the containers of ``_MOST_OVERHEAD`` their number. In MPEG streams, which have a constant
    rate, time alone tells too. Other formats are not judged.

    ``is_broken``: pictures were lost on the way. ``changes_stream``: for a stretch, only another video stream had some.
    """

    def __init__(self, path: str, format_name: str, stream: av.VideoStream, interval: Fraction) -> None:
        self.is_broken = self.changes_stream = False
        self._path, self._stream = path, stream
        self._is_transport_stream = format_name == "mpegts"
        self._has_constant_rate = format_name in ("mpegts", "mpeg")
        self._most_overhead = _MOST_OVERHEAD.get(format_name)
        self.needs_all_streams = self._is_transport_stream or self._most_overhead is not None
        self._interval = self._usual = interval
        self._num_steps = self._num_usual = 0  # from packet to packet; and of the usual distance
        self._last_right: tuple[Fraction, int] | None = None  # time before a step backwards, and its number
        self.jump()

    def jump(self) -> None:
        """Forget the last packets: reading goes on elsewhere in the file."""
        self._last: tuple[Fraction, int | None] | None = None  # time and position of the stream's last packet
        self._others_since: Fraction | None = None  # the time of another video stream's first packet after that
        self._read_until: int | None = None  # the position behind all packets so far
        self._since_step = self._since_skip = _NEARBY  # packets since times or bytes were missing

    def has_restarted(self, packet: "av.Packet[Any]") -> bool:
        """Take the next packet; return whether another recording, with a clock of its own, begins with it."""
        if self._most_overhead is not None and packet.pos is not None:
            skipped = 0 if self._read_until is None else packet.pos - self._read_until
            self._read_until = packet.pos + packet.size - min(skipped, 0)
            self._since_skip = 0 if skipped > self._most_overhead else self._since_skip + 1
        if packet.dts is None or packet.stream.type != "video":
            return False
        seconds = packet.dts * (packet.time_base or Fraction(0))
        if packet.stream.index != self._stream.index:
            self._others_since = seconds if self._others_since is None else self._others_since
            waited = abs(seconds - self._others_since)
            self.changes_stream |= self._is_transport_stream and waited > max(_LONG_SECONDS, 2 * self._usual)
            return False
        self._others_since, last, self._last = None, self._last, (seconds, packet.pos)
        return last is not None and self._steps_to_restart(last, seconds, packet.pos)

    def _steps_to_restart(self, last: tuple[Fraction, int | None], seconds: Fraction, position: int | None) -> bool:
        """Judge the step from the last packet of the stream to the next."""
        before, position_before = last
        step, usual = seconds - before, max(self._usual, self._interval)
        self._num_steps += 1
        is_usual = 0 < step <= usual * _IN_DOUBT
        if self._most_overhead is not None:
            self._since_step = self._since_step + 1 if is_usual else 0
            if step <= 0:  # another recording, whose header was skipped
                self._since_step = self._since_skip = _NEARBY
            self.is_broken |= max(self._since_step, self._since_skip) < _NEARBY
        if is_usual:
            self._usual = step
            self._num_usual += 1
            return False
        if not self._has_constant_rate:
            return False
        if self._last_right is not None:
            (right, number), self._last_right = self._last_right, None
            if 0 < seconds - right <= (self._num_steps - number + 1) * usual * _IN_DOUBT:
                return False  # times go on as before a step backwards: only those between were wrong
        if not 0 < step <= LARGEST_GAP_SECONDS:
            self._last_right = (before, self._num_steps) if step <= 0 else None
            return True
        has_loss = has_restart = False
        if self._is_transport_stream and position_before is not None and position is not None:
            lead = _TABLE_BYTES if step >= _LONG_SECONDS else 0  # a restart that matters
            has_loss, has_restart = _find_traces(self._path, self._stream.id, position_before, position, lead)
        is_long = self._num_usual >= _FEWEST_STEPS and step >= max(usual * _LONG_STEPS, _LONG_SECONDS)
        self.is_broken |= not has_restart and (has_loss or is_long)
        return has_restart

    def end(self) -> None:
        """Take the end of the file: behind the last packet, pictures may be scrambled, damaged or empty."""
        if not self._is_transport_stream or self._last is None or self._last[1] is None:
            return
        for _, packet in _transport_packets(self._path, self._last[1], self._last[1] + _MOST_BYTES):
            is_ours = packet[0] == _SYNC and _pid(packet) == self._stream.id
            self.is_broken |= not any(packet) or (is_ours and not _is_clear(packet))


def _find_traces(path: str, pid: int, start: int, end: int, lead: int) -> tuple[bool, bool]:
    """Return whether, between the packets at ``start`` and ``end``, contents are missing, and the stream began anew.

    It did where a packet says so, or where the program table, whose last one is looked for in ``lead`` bytes before, is
    counted from 0 again.
    """
    first = max(0, start - lead, end - _MOST_BYTES)
    counters: dict[int, int] = {}
    has_loss = has_restart = False
    for position, packet in _transport_packets(path, first, end + max(MPEGTS_PACKETS)):
        is_between, number = position > start, _pid(packet)
        if packet[0] != _SYNC:
            has_loss |= is_between and position > first
        elif number in (0, pid):
            expected, counter = counters.get(number), packet[3] & 0x0F
            is_continued = expected is None or counter in (expected, (expected + 1) % 16)
            if packet[3] & 0x10:
                counters[number] = counter
            if is_between and number == 0:
                has_restart |= counter == 0 and not is_continued
            elif is_between:
                has_loss |= not (is_continued and _is_clear(packet))
                has_restart |= bool(packet[3] & 0x20 and packet[4] and packet[5] & 0x80)  # it says so itself
    return has_loss, has_restart


def _transport_packets(path: str, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield the transport packets in a part of a file, each with its position; of bytes between them only the first."""
    data, at = read_part(path, start, end - start), 0
    head = data[: 1 << 16]
    length = max(MPEGTS_PACKETS, key=lambda n: n * max(head[offset::n].count(_SYNC) for offset in range(n)))
    while at + length <= len(data):
        yield start + at, data[at : at + length]
        if data[at] == _SYNC:
            at += length
            continue
        while (at := data.find(_SYNC, at)) >= 0 and at + length < len(data) and data[at + length] != _SYNC:
            at += 1
        at = len(data) if at < 0 else at


def _pid(packet: bytes) -> int:
    return (packet[1] & 0x1F) << 8 | packet[2]


def _is_clear(packet: bytes) -> bool:
    """Return whether a transport packet is neither scrambled nor marked as damaged."""
    return not (packet[1] & 0x80 or packet[3] & 0xC0)
