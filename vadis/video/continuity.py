"""What happens between two packets of a video: a loss, or the beginning of another recording.

FFmpeg tells neither: it goes on with the next packet that it finds. Where the times of two packets are further apart
than usual, the bytes between them tell: in MPEG-TS the headers of transport packets, in other containers their number.
"""

from fractions import Fraction
from typing import Any, NamedTuple

import av

from vadis.video.container import os_refusal
from vadis.video.timegrid import LARGEST_GAP_SECONDS

TRANSPORT_STREAM, _PROGRAM_STREAM = "mpegts", "mpeg"  # FFmpeg's names

_MOST_OVERHEAD = {"matroska,webm": 512, "flv": 512, "ogg": 512, "asf": 4096}
"""Bytes between two packets of a container that need not be packets themselves; FFmpeg skips silently what is damaged.
Containers with an index are not here: what it names and cannot be read is missed anyway."""

_NEARBY = 16  # packets; Ogg and ASF tell times, and skip bytes, a little before or behind the place
_FEWEST_STEPS = 10  # that make a usual distance, before a longer one is a loss
_IN_DOUBT = Fraction(3, 2)  # of the usual distance; beyond, a frame may be missing. Film in NTSC varies by less
_LONG_STEPS, _LONG_SECONDS = 10, Fraction(1)  # usual distances, and time: a step beyond both is a loss without a trace
_MOST_BYTES = 4 << 20  # read at once
_TABLE_BYTES = 1 << 19  # read before that: a program table comes 10 times per second, 0.4 MB apart at 30 Mbit/s
_SYNC = 0x47  # the first byte of a transport packet
_LENGTHS = (188, 192, 204)


class Traces(NamedTuple):
    """What transport packets show: bytes, packets or their contents are missing; the stream was begun anew."""

    of_loss: bool
    of_restart: bool


class Continuity:
    """Watches the packets of a file, in their order there.

    MPEG streams have a constant rate, and what is lost leaves traces. The containers of ``_MOST_OVERHEAD`` may have any
    rate, so that time alone says nothing there. Other formats are not judged.

    Args:
        path: the file.
        format_name: FFmpeg's name of the container.
        stream: the video stream that is read.
        interval: nominal seconds from frame to frame.

    Attributes:
        is_broken: pictures were lost on the way.
        changes_stream: for a stretch, only another video stream had pictures.
    """

    def __init__(self, path: str, format_name: str, stream: av.VideoStream, interval: Fraction) -> None:
        self.is_broken = self.changes_stream = False
        self._path = path
        self._is_transport_stream = format_name == TRANSPORT_STREAM
        self._has_constant_rate = self._is_transport_stream or format_name == _PROGRAM_STREAM
        self._most_overhead = _MOST_OVERHEAD.get(format_name)
        self._stream = stream
        self._interval = self._usual = interval
        self._num_steps = 0  # of the usual distance
        self._last_right: tuple[Fraction, int] | None = None  # before a step backwards: time, and packets since
        self._last: tuple[Fraction, int | None] | None = None  # time and position of the stream's last packet
        self._others_since: Fraction | None = None  # the time of another video stream's first packet after that
        self._read_until: int | None = None  # the position behind all packets so far
        self._since_step = self._since_skip = _NEARBY  # packets since times or bytes were missing

    @property
    def needs_all_streams(self) -> bool:
        """Whether packets of the other streams tell something about this one."""
        return self._is_transport_stream or self._most_overhead is not None

    def has_restarted(self, packet: "av.Packet[Any]") -> bool:
        """Take the next packet; whether another recording, with a clock of its own, begins with it."""
        self._count_skipped(packet)
        if packet.dts is None or packet.stream.type != "video":
            return False
        seconds = packet.dts * (packet.time_base or Fraction(0))
        if packet.stream.index != self._stream.index:
            self._others_since = seconds if self._others_since is None else self._others_since
            waited = abs(seconds - self._others_since)
            self.changes_stream |= self._is_transport_stream and waited > max(_LONG_SECONDS, 2 * self._usual)
            return False
        self._others_since, last = None, self._last
        self._last = seconds, packet.pos
        return last is not None and self._steps_to_restart(*last, seconds, packet.pos)

    def _count_skipped(self, packet: "av.Packet[Any]") -> None:
        if self._most_overhead is None or packet.pos is None:
            return
        skipped = packet.pos - (packet.pos if self._read_until is None else self._read_until)
        self._read_until = packet.pos + packet.size - min(skipped, 0)
        self._since_skip = 0 if skipped > self._most_overhead else self._since_skip + 1

    def _steps_to_restart(
        self, before: Fraction, position_before: int | None, seconds: Fraction, position: int | None
    ) -> bool:
        """Judge the step from one packet of the stream to the next."""
        step, usual = seconds - before, max(self._usual, self._interval)
        if self._last_right is not None:
            self._last_right = self._last_right[0], self._last_right[1] + 1
        is_usual = 0 < step <= usual * _IN_DOUBT
        if self._most_overhead is not None:
            self._since_step = self._since_step + 1 if is_usual else 0
            if step <= 0:  # another recording, whose header was skipped
                self._since_step = self._since_skip = _NEARBY
            self.is_broken |= max(self._since_step, self._since_skip) < _NEARBY
        if is_usual:
            self._usual = step
            self._num_steps += 1
            return False
        if not self._has_constant_rate or self._returns(seconds, usual):
            return False
        if not 0 < step <= LARGEST_GAP_SECONDS:
            self._last_right = (before, 0) if step <= 0 else None
            return True
        traces = Traces(False, False)
        if self._is_transport_stream and position_before is not None and position is not None:
            lead = _TABLE_BYTES if step >= _LONG_SECONDS else 0  # a restart that matters
            traces = traces_between(self._path, self._stream.id, position_before, position, lead)
        is_long = self._num_steps >= _FEWEST_STEPS and step >= max(usual * _LONG_STEPS, _LONG_SECONDS)
        if not traces.of_restart:
            self.is_broken |= traces.of_loss or is_long
        return traces.of_restart

    def _returns(self, seconds: Fraction, usual: Fraction) -> bool:
        """Whether times go on as before a step backwards: only the times between were wrong, and nothing is lost."""
        if self._last_right is None:
            return False
        (before, num_packets), self._last_right = self._last_right, None
        return 0 < seconds - before <= (num_packets + 1) * usual * _IN_DOUBT

    def jump(self) -> None:
        """Reading goes on elsewhere in the file."""
        self._last = self._others_since = self._read_until = None
        self._since_step = self._since_skip = _NEARBY

    def end(self) -> None:
        """Take the end of the file: what follows the last packet may have been pictures too."""
        if self._is_transport_stream and self._last is not None and self._last[1] is not None:
            self.is_broken |= _ends_unreadably(self._path, self._stream.id, self._last[1])


def traces_between(path: str, pid: int, start: int, end: int, lead: int) -> Traces:
    """What the transport packets in a part of a file show.

    A stream is begun anew where a packet says so, or where the program table is counted from 0 again.

    Args:
        path: the file.
        pid: the number of the stream that matters.
        start: position of the packet that begins the last frame before.
        end: position of the packet that begins the next frame.
        lead: bytes before ``start`` in which the last program table is looked for.
    """
    first = max(0, start - lead, end - _MOST_BYTES)
    data, length = _read(path, first, end + max(_LENGTHS))
    counters: dict[int, int] = {}
    at, of_loss, of_restart = _next_sync(data, 0, length), False, False
    while at + length <= len(data):
        if data[at] != _SYNC:
            of_loss |= first + at > start
            at = _next_sync(data, at, length)
            continue
        number = (data[at + 1] & 0x1F) << 8 | data[at + 2]
        expected, counter = counters.get(number), data[at + 3] & 0x0F
        if number in (0, pid):
            if data[at + 3] & 0x10:
                counters[number] = counter
            is_continued = expected is None or counter in (expected, (expected + 1) % 16)
            is_between = first + at > start
            if number == 0:
                of_restart |= is_between and counter == 0 and not is_continued
            else:
                of_loss |= is_between and not (is_continued and _is_clear(data, at))
                has_more = data[at + 3] & 0x20 and data[at + 4]
                of_restart |= is_between and bool(has_more and data[at + 5] & 0x80)  # discontinuity_indicator
        at += length
    return Traces(of_loss, of_restart)


def _ends_unreadably(path: str, pid: int, start: int) -> bool:
    """Whether, from the last frame on, transport packets are scrambled, damaged or empty."""
    data, length = _read(path, start, start + _MOST_BYTES)
    at = 0
    while at + length <= len(data):
        if data[at] != _SYNC:
            if not any(data[at : at + length]):
                return True
            at = _next_sync(data, at, length)
            continue
        if (data[at + 1] & 0x1F) << 8 | data[at + 2] == pid and not _is_clear(data, at):
            return True
        at += length
    return False


def _is_clear(data: bytes, at: int) -> bool:
    """Whether a transport packet is neither scrambled nor marked as damaged."""
    return not (data[at + 1] & 0x80 or data[at + 3] & 0xC0)


def _next_sync(data: bytes, at: int, length: int) -> int:
    """Where transport packets begin, at or after a place; the end of the data where there are none."""
    while (at := data.find(_SYNC, at)) >= 0 and at + length < len(data) and data[at + length] != _SYNC:
        at += 1
    return len(data) if at < 0 else at


def _read(path: str, start: int, end: int) -> tuple[bytes, int]:
    """Bytes of a file, and the length of the transport packets in them."""
    try:
        with open(path, "rb") as file:
            file.seek(start)
            data = file.read(end - start)
    except OSError as error:
        raise os_refusal(error) from error
    return data, max(_LENGTHS, key=lambda length: _num_in_step(data[: 1 << 16], length))


def _num_in_step(data: bytes, length: int) -> int:
    return max(data[at::length].count(_SYNC) for at in range(length)) * length
