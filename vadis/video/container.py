"""What a file is and whether it is whole, where FFmpeg does not tell: the reasons for which a file is refused."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import BinaryIO

from vadis.errors import VideoError
from vadis.video.metadata import MP4

FFMPEG_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,h264,hevc"
"""FFmpeg's names of the containers that vadis opens: one file with everything inside. No playlists, scripts, devices,
numbered pictures or texts."""

_PLAYLISTS = (b"#extm3u", b"ffconcat", b"<mpd", b"<smil", b"<asx", b"v=0", b"[playlist]", b"[reference]", b"rtsptext")
_AUDIO = (b"ID3", b"fLaC", b"#!AMR", b"caff", b".snd", b"MAC ", b"wvpk", b"MThd", b"\xff\xf1", b"\xff\xf9", b"\x0b\x77")
_WEBP_ANIMATED = 0x02  # the flag in the first byte of a WebP's VP8X chunk
_STILLS = (b"\xff\xd8\xff", b"\x89PNG", b"\x8aMNG", b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0", b"8BPS", b"qoif")
_CONTAINERS = {b"\x1a\x45\xdf\xa3": "Matroska or WebM", b"\x30\x26\xb2\x75": "Windows Media"}
_CONTAINERS |= {b"FLV": "Flash video", b"OggS": "Ogg", b"GIF8": "GIF"}
_MP4_NAME = "MP4 or QuickTime"
_OGG_VIDEO = (b"\x80theora", b"\x01video", b"OVP80", b"BBCD")
_BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"pnot", b"styp", b"sidx")

HEAD_BYTES = 4096
CHECKED_BYTES = 32 << 20
"""Read again at each of three places of a file that cannot be read: 96 MB take a disk of 3 MB a second 30 s, half of
what a decoder may be silent (``Limits.max_wait_seconds``)."""

MAX_BOXES = 10_000  # top-level boxes of an MP4 file looked at; fragmented recordings have two per second
_BLOCK_BYTES = 1 << 20


def regular_file(path: str, *, listed: bool) -> os.stat_result:
    """Return the status of a regular, non-empty file; raise VideoError for anything else, without opening it.

    ``listed``: the file was there when inputs were listed, so that a missing one has disappeared.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 (follows links; Path.stat would normalise the path)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        if listed:
            raise VideoError("disappeared", "the file was there when listed and is gone now") from error
        raise VideoError("not_found", "there is no such file") from error
    except OSError as error:
        raise os_refusal(error) from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
        raise VideoError("not_a_regular_file", f"this is {kind}, not a file")
    if status.st_size == 0:
        raise VideoError("empty_file", "the file is empty (zero bytes)")
    return status


def os_refusal(error: OSError, what: str = "the file") -> VideoError:
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
        raise os_refusal(error) from error


def check_disk(path: str, error: Exception, position: int = 0) -> None:
    """Raise VideoError where it is for the disk that FFmpeg raised ``error``, having read up to ``position``.

    FFmpeg reports damage of some containers as errors of input and output, or as forbidden. So the file is read again
    from there on, and at its two ends, where headers and indices lie; not many gigabytes.
    """
    if isinstance(error, OSError):
        size = regular_file(path, listed=True).st_size
        for start in {0, position, max(0, size - CHECKED_BYTES)}:
            read_part(path, start, CHECKED_BYTES)


def refusal(path: str, error: Exception) -> VideoError:
    """Return, or raise, why FFmpeg, raising ``error``, found nothing in this file that vadis opens."""
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
    if name == _MP4_NAME and is_cut_short(path, MP4):
        message = "the file has no index (moov atom): the recording or copy was cut short"
    return VideoError("truncated_or_incomplete", message)


def is_container(head: bytes) -> bool:
    """Return whether a file that begins with ``head`` is one of the containers that vadis reads, whole or damaged."""
    is_stream = head.startswith((b"\0\0\1", b"\0\0\0\1")) or mpegts_packet_bytes(head) is not None
    return is_stream or _container_name(head) is not None


def _container_name(head: bytes) -> str | None:
    if head[4:8] in _BOXES:
        return _MP4_NAME
    if _riff_kind(head) == b"AVI ":
        return "AVI"
    return next((name for magic, name in _CONTAINERS.items() if head.startswith(magic)), None)


def is_ogg_without_video(head: bytes) -> bool:
    """Return whether an Ogg file that begins with ``head`` has sound only: its streams are named at its beginning."""
    return head.startswith(b"OggS") and not any(name in head for name in _OGG_VIDEO)


def _riff_kind(head: bytes) -> bytes | None:
    return head[8:12] if head[:4] == b"RIFF" else None


def _is_playlist(head: bytes) -> bool:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    is_xml = text.startswith((b"<?xml", b"<!--")) and any(word in text for word in (b"<mpd", b"<smil", b"<asx"))
    return is_xml or text.startswith(_PLAYLISTS)


def _animation(start: bytes) -> str | None:
    """Return the kind of an animated image that looks like a still one, None for anything else."""
    if _riff_kind(start) == b"WEBP" and start[12:16] == b"VP8X" and len(start) > 20 and start[20] & _WEBP_ANIMATED:
        return "animated WebP"
    is_png = start.startswith(b"\x89PNG") and b"acTL" in start.partition(b"IDAT")[0]  # the chunks before the pictures
    return "animated PNG (APNG)" if is_png else None


def _is_audio(head: bytes) -> bool:
    is_riff_or_aiff = head[:4] in (b"RIFF", b"RF64", b"FORM") and head[8:12] in (b"WAVE", b"AIFF", b"AIFC")
    is_bare_mp3 = len(head) > 2 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2 and head[2] >> 4 not in (0, 15)
    return head.startswith(_AUDIO) or is_riff_or_aiff or is_bare_mp3


def is_cut_short(path: str, format_name: str) -> bool:
    """Return whether the structure of a container goes on beyond the end of its file, where FFmpeg does not notice.

    Missing pictures of MP4 and Matroska show in the counts and times of their headers (``Header.ends_early``).
    """
    if format_name not in _CHECKS:
        return False
    try:
        with open(path, "rb") as file:
            return _CHECKS[format_name](file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise os_refusal(error) from error


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
    """The segment that follows the header states its size, unless it was recorded live."""
    at = 0
    for _ in range(MAX_BOXES):
        file.seek(at)
        head = file.read(12)
        element, _, middle = matroska_number(head, 0)
        _, length, end = matroska_number(head, middle)
        is_segment, is_live = element == _MATROSKA_SEGMENT, length == (1 << 7 * (end - middle)) - 1
        if len(head) <= middle or not head[0] or not head[middle] or (is_segment and is_live):
            return False
        at += end + length
        if is_segment or at >= size:
            return at > size
    return False


def matroska_number(content: bytes, at: int) -> tuple[int, int, int]:
    """Return a number whose leading zero bits count its further bytes, with and without the first 1, and its end."""
    length = max(1, 9 - content[at].bit_length()) if at < len(content) else 1
    number = int.from_bytes(content[at : at + length], "big")
    return number, number & ((1 << 7 * length) - 1), at + length


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
    at = head.find(_ASF_FILE_PROPERTIES)
    if at < 0 or len(head) < at + 92 or head[at + 88] & 1:  # the flag of a broadcast
        return False
    return int.from_bytes(head[at + 40 : at + 48], "little") > size


MPEGTS_PACKETS = {188: 0, 192: 4, 204: 0}
"""Lengths in bytes (plain; with a time code in front, as camcorders write; with error correction behind) and where the
G stands in them."""

_MATROSKA_SEGMENT = 0x18538067
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")

_CHECKS: dict[str, Callable[[BinaryIO, int], bool]] = {
    "avi": _is_avi_cut,
    "gif": _is_gif_cut,
    "mpegts": _is_mpegts_cut,
    "mpegvideo": _is_mpegts_cut,  # what FFmpeg takes the first few packets of a transport stream for
    "matroska,webm": _is_matroska_cut,
    "asf": _is_asf_cut,
    MP4: _is_mp4_cut,
}
