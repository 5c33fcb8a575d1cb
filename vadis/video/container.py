"""What a file is and whether it is whole, where FFmpeg does not tell: at its beginning, its end, and on the way."""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO

from vadis.errors import VideoError
from vadis.video.metadata import MP4
from vadis.video.timegrid import LARGEST_GAP_SECONDS

if TYPE_CHECKING:
    import av

FFMPEG_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,h264,hevc"
"""FFmpeg's names of the containers that vadis opens: files with everything inside, no playlists, devices or texts."""

_PLAYLISTS = (b"#extm3u", b"ffconcat", b"<mpd", b"<smil", b"<asx", b"v=0", b"[playlist]", b"[reference]", b"rtsptext")
_AUDIO = (b"ID3", b"fLaC", b"#!AMR", b"caff", b".snd", b"MAC ", b"wvpk", b"MThd", b"\xff\xf1", b"\xff\xf9", b"\x0b\x77")
_STILLS = (b"\xff\xd8\xff", b"\x89PNG", b"\x8aMNG", b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0", b"8BPS", b"qoif")
_CONTAINERS = {b"\x1a\x45\xdf\xa3": "Matroska or WebM", b"\x30\x26\xb2\x75": "Windows Media"}
_CONTAINERS |= {b"FLV": "Flash video", b"OggS": "Ogg", b"GIF8": "GIF"}
_BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"pnot", b"styp", b"sidx")

HEAD_BYTES = 4096
CHECKED_BYTES = 32 << 20
"""Read again at each of three places of a file that cannot be read, well within ``Limits.max_wait_seconds``."""

MAX_BOXES = 10_000  # top-level boxes of an MP4 file looked at; fragmented recordings have two per second
_BLOCK_BYTES = 1 << 20


def from_root(path: str) -> str:
    """Return ``path`` from the root, never shortened as by abspath: the link in "link/.." may lead elsewhere."""
    with suppress(OSError):  # the current folder may be gone
        return os.path.join(os.getcwd(), path) if path else path  # noqa: PTH109, PTH118
    return path


def regular_file(path: str, *, listed: bool) -> os.stat_result:
    """Return the status of a regular, non-empty file; raise VideoError for others, ``disappeared`` if ``listed``."""
    try:
        status = os.stat(path)  # noqa: PTH116 (follows links; Path.stat would normalise the path)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        if listed:
            raise VideoError("disappeared", "the file was there when listed and is gone now") from error
        raise VideoError("not_found", "there is no such file") from error
    except OSError as error:
        raise os_video_error(error) from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
        raise VideoError("not_a_regular_file", f"this is {kind}, not a file")
    if status.st_size == 0:
        raise VideoError("empty_file", "the file is empty (zero bytes)")
    return status


def os_video_error(error: OSError, what: str = "the file") -> VideoError:
    """Return what an error of the operating system means for this input."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return VideoError("disappeared", f"{what} was there when listed and is gone now")
    if error.errno in (errno.EACCES, errno.EPERM):
        return VideoError("permission_denied", f"{what} may not be read")
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return VideoError("not_found", "the path is too long, or a symbolic link that leads back to itself")
    reason = os.strerror(error.errno) if error.errno else "unknown error"
    return VideoError("io_error", f"{what} could not be read: {reason}")


def read_part(path: str, start: int, size: int) -> bytes:
    """Return ``size`` bytes of a file, fewer at its end; raise VideoError where the disk refuses."""
    try:
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(size)
    except OSError as error:
        raise os_video_error(error) from error


def check_disk(path: str, error: Exception, position: int = 0) -> None:
    """Raise VideoError where it is for the disk that FFmpeg raised ``error``, having read up to ``position``.

    FFmpeg reports some damage as errors of input and output. So the file is read again there and at its two ends.
    """
    if isinstance(error, OSError):
        size = regular_file(path, listed=True).st_size
        for start in {0, position, max(0, size - CHECKED_BYTES)}:
            read_part(path, start, CHECKED_BYTES)


def unreadable_error(path: str, error: Exception) -> VideoError:
    """Return why FFmpeg raised ``error`` on opening this file; raise VideoError where the disk is to blame."""
    check_disk(path, error)
    start = read_part(path, 0, _BLOCK_BYTES)
    head, animation = start[:HEAD_BYTES], _animation(start)
    if _is_playlist(head):
        return VideoError("playlist_not_supported", "this is a playlist or script that names other files")
    if animation is not None:
        return VideoError("not_a_video", f"this is an {animation}, which vadis does not read")
    if head.startswith(_STILLS) or _riff_kind(head) == b"WEBP":
        return VideoError("not_a_video", "this is an image, not a video")
    if _is_audio(head):
        return VideoError("no_video_stream", "this is an audio file; there is no picture in it")
    name = _container_name(head)
    if name is None:
        return VideoError("not_a_video", "this is not a video in a format that vadis reads")
    message = f"the file begins like {name} but is cut short or damaged"
    if head[4:8] in _BOXES and is_cut_short(path, MP4):
        message = "the file has no index (moov atom): the recording or copy was cut short"
    return VideoError("truncated_or_incomplete", message)


def is_container(head: bytes) -> bool:
    """Return whether a file that begins with ``head`` is one of the containers that vadis reads, whole or damaged."""
    is_stream = head.startswith((b"\0\0\1", b"\0\0\0\1")) or mpegts_packet_bytes(head) is not None
    return is_stream or _container_name(head) is not None


def _container_name(head: bytes) -> str | None:
    if head[4:8] in _BOXES:
        return "MP4 or QuickTime"
    if _riff_kind(head) == b"AVI ":
        return "AVI"
    return next((name for magic, name in _CONTAINERS.items() if head.startswith(magic)), None)


def is_ogg_without_video(head: bytes) -> bool:
    """Return whether an Ogg file that begins with ``head`` has sound only: its streams are named at its beginning."""
    return head.startswith(b"OggS") and not re.search(rb"\x80theora|\x01video|OVP80|BBCD", head)


def _riff_kind(head: bytes) -> bytes | None:
    return head[8:12] if head[:4] == b"RIFF" else None


def _is_playlist(head: bytes) -> bool:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    is_xml = text.startswith((b"<?xml", b"<!--")) and any(word in text for word in (b"<mpd", b"<smil", b"<asx"))
    return is_xml or text.startswith(_PLAYLISTS)


def _animation(start: bytes) -> str | None:
    """Return the kind of an animated image that looks like a still one, None for anything else."""
    if _riff_kind(start) == b"WEBP" and start[12:16] == b"VP8X" and len(start) > 20 and start[20] & 0x02:  # its flag
        return "animated WebP"
    is_png = start.startswith(b"\x89PNG") and b"acTL" in start.partition(b"IDAT")[0]  # the chunks before the pictures
    return "animated PNG (APNG)" if is_png else None


def _is_audio(head: bytes) -> bool:
    is_riff_or_aiff = head[:4] in (b"RIFF", b"RF64", b"FORM") and head[8:12] in (b"WAVE", b"AIFF", b"AIFC")
    is_bare_mp3 = len(head) > 2 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2 and head[2] >> 4 not in (0, 15)
    return head.startswith(_AUDIO) or is_riff_or_aiff or is_bare_mp3


def is_cut_short(path: str, format_name: str) -> bool:
    """Return whether the structure of a container goes on beyond the end of its file, where FFmpeg does not notice.

    Missing pictures of MP4 and Matroska show in the counts and times of their headers (``Decoder.ends_early``).
    """
    if format_name not in _CHECKS:
        return False
    try:
        with open(path, "rb") as file:
            return _CHECKS[format_name](file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise os_video_error(error) from error


def _is_avi_cut(file: BinaryIO, size: int) -> bool:
    """The first RIFF chunk states its length; live recordings leave it 0 or all ones."""
    length = int.from_bytes(file.read(8)[4:], "little")
    return length != 0xFFFFFFFF and length + 8 > size


def _is_gif_cut(file: BinaryIO, size: int) -> bool:
    """A GIF is a chain of blocks that ends with a semicolon; what some writers add behind it does not matter."""

    def skip_colors(flags: bytes) -> None:
        file.seek(3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0, os.SEEK_CUR)

    skip_colors(file.read(13)[10:11])
    while (kind := file.read(1)) in (b"!", b","):
        if kind == b",":  # a picture: its place, flags and colours, and the length of a code
            skip_colors(file.read(9)[8:9])
        file.seek(1, os.SEEK_CUR)  # that length, or the kind of an extension
        while length := file.read(1)[:1].strip(b"\0"):
            file.seek(length[0], os.SEEK_CUR)
    return kind != b";"


def _is_mpegts_cut(file: BinaryIO, size: int) -> bool:
    """The packets of a transport stream have one length, and a G where each begins, so also the one that is cut."""
    length = mpegts_packet_bytes(file.read(HEAD_BYTES))
    if length is None or size % length == 0:
        return False
    file.seek(size - size % length + MPEGTS_PACKETS[length])
    return file.read(1) in (b"G", b"")  # else something else was added behind


def _is_matroska_cut(file: BinaryIO, size: int) -> bool:
    """The segment that follows the header states its size, unless it was recorded live: then all bits of it are set."""
    head = file.read(HEAD_BYTES)
    sizes = head.partition(b"\x18\x53\x80\x67")[2]
    num_bytes = 9 - sizes[0].bit_length() if sizes else 9  # its first bit that is set tells
    if num_bytes > min(8, len(sizes)):
        return False
    most = (1 << 7 * num_bytes) - 1
    length = int.from_bytes(sizes[:num_bytes], "big") & most
    return length != most and len(head) - len(sizes) + num_bytes + length > size


def mpegts_packet_bytes(head: bytes) -> int | None:
    """Return the length of the packets of a transport stream that begins with ``head``, None for anything else."""
    if len(head) <= 2 * max(MPEGTS_PACKETS):
        return None
    return next((length for length, at in MPEGTS_PACKETS.items() if set(head[at::length]) == {ord("G")}), None)


def _is_mp4_cut(file: BinaryIO, size: int) -> bool:
    """Without a whole index nothing can be trusted; samples missing at the end are found by their count.

    A file in fragments may be cut within one, or damaged where FFmpeg stops although others follow.
    """
    boxes = list(_boxes(file, size))
    if not any(name == b"moov" and end <= size for name, _, end in boxes):
        return True
    if all(name != b"moof" for name, _, _ in boxes):
        return False
    name, start, end = boxes[-1]
    if name.isalnum() and end >= start + 8:
        return end > size
    file.seek(start)
    tail = b""
    while block := file.read(_BLOCK_BYTES):
        if b"moof" in tail + block:
            return True
        tail = block[-3:]
    return False


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the top-level boxes of an MP4 file: name, start, and end, which may lie beyond that of the file."""
    at = 0
    for _ in range(MAX_BOXES):
        file.seek(at)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        length = int.from_bytes(header[8:16], "big") if length == 1 else length
        end = at + length if length else size
        yield header[4:8], at, end
        if end < at + 8 or end >= size:
            return
        at = end


def _is_asf_cut(file: BinaryIO, size: int) -> bool:
    """The file properties object states the size of the file, unless it was broadcast."""
    head = file.read(_BLOCK_BYTES)
    at = head.find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    if at < 0 or len(head) < at + 92 or head[at + 88] & 1:  # the flag of a broadcast
        return False
    return int.from_bytes(head[at + 40 : at + 48], "little") > size


MPEGTS_PACKETS = {188: 0, 192: 4, 204: 0}
"""Lengths in bytes (plain; with a time code in front, as camcorders write; with error correction behind) and where the
G stands in them."""


_CHECKS: dict[str, Callable[[BinaryIO, int], bool]] = {
    "avi": _is_avi_cut,
    "gif": _is_gif_cut,
    "mpegts": _is_mpegts_cut,
    "mpegvideo": _is_mpegts_cut,  # what FFmpeg takes the first few packets of a transport stream for
    "matroska,webm": _is_matroska_cut,
    "asf": _is_asf_cut,
    MP4: _is_mp4_cut,
}


_MOST_OVERHEAD = {"matroska,webm": 512, "flv": 512, "ogg": 512, "asf": 4096}
"""Bytes that may lie between two packets of containers without an index; FFmpeg skips silently what is damaged."""

_NEARBY = 16  # packets; Ogg and ASF tell times, and skip bytes, a little before or behind the place
_FEWEST_STEPS = 10  # that make a usual distance, before a longer one is a loss
_IN_DOUBT = Fraction(3, 2)  # of the usual distance; beyond, a frame may be missing. Film in NTSC varies by less
_LONG_STEPS, _LONG_SECONDS = 10, Fraction(1)  # usual distances, and time: a step beyond both is a loss without a trace
_MOST_BYTES = 4 << 20  # read at once
_TABLE_BYTES = 1 << 19  # read before that: a program table comes 10 times per second, 0.4 MB apart at 30 Mbit/s
_SYNC = 0x47  # G, the first byte of a transport packet


class Continuity:
    """Watches the packets of a file, in their order there, for losses and restarts that FFmpeg does not report.

    Where two packets are further apart in time than usual, the bytes between them tell why: in MPEG-TS the headers of
    transport packets, in the containers of ``_MOST_OVERHEAD`` their number. In MPEG streams time alone tells too.

    ``is_broken``: pictures were lost on the way. ``changes_stream``: for a stretch, only another video stream had some.
    """

    def __init__(self, path: str, format_name: str, stream: "av.VideoStream", interval: Fraction) -> None:
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

    def update(self, packet: "av.Packet[Any]") -> bool:
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

    It did where a packet says so, or the program table, also looked for ``lead`` bytes before, counts from 0 again.
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
