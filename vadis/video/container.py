"""What a file is, where FFmpeg does not tell: the reasons for which a file is refused, in plain sentences.

Everything here reads the file by itself, a few kilobytes of it, and some megabytes where the disk is in doubt.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import BinaryIO

from vadis.errors import VideoError

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,h264,hevc"
"""FFmpeg's names of the containers that vadis opens. Each of them is one file with everything inside: no playlist, no
script, no device, no numbered pictures, no text."""

MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
"""FFmpeg's name for MP4 and QuickTime."""

_HEAD_BYTES = 4096
_BLOCK_BYTES = 1 << 20
CHECKED_BYTES = 32 << 20
"""Read again at each of three places of a file that FFmpeg cannot read: 96 MB are 30 s of a disk of 3 MB a second, half
of what a decoder may be silent (``Limits.max_wait_seconds``)."""

_MAX_BOXES = 10_000  # top-level boxes of an MP4 file looked at; fragmented recordings have two per second

_PLAYLISTS = (b"#extm3u", b"ffconcat", b"<mpd", b"<smil", b"<asx", b"v=0", b"[playlist]", b"[reference]", b"rtsptext")
_AUDIO = (b"ID3", b"fLaC", b"#!AMR", b"caff", b".snd", b"MAC ", b"wvpk", b"MThd", b"\xff\xf1", b"\xff\xf9", b"\x0b\x77")
_PNG = b"\x89PNG\r\n\x1a\n"
_WEBP_ANIMATED = 0x02  # the flag in the first byte of a WebP's VP8X chunk
_STILLS = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0", b"8BPS", b"qoif")
_CONTAINERS = {
    b"\x1a\x45\xdf\xa3": "Matroska or WebM",
    b"FLV": "Flash video",
    b"\x30\x26\xb2\x75": "Windows Media",
    b"OggS": "Ogg",
    b"GIF8": "GIF",
}
_OGG_VIDEO = (b"\x80theora", b"\x01video", b"OVP80", b"BBCD")
_BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"pnot", b"styp", b"sidx")


def regular_file(path: str, *, listed: bool) -> os.stat_result:
    """The status of ``path``, which is a regular, non-empty file.

    Args:
        path: any string; never opened here, so that a FIFO cannot block.
        listed: the file was there when inputs were listed, so a missing one has disappeared.

    Raises:
        VideoError: ``not_found``, ``disappeared``, ``permission_denied``, ``not_a_regular_file``, ``empty_file``,
            ``io_error``.
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
    """What an error of the operating system means for this input."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return VideoError("disappeared", f"{what} was there when listed and is gone now")
    if error.errno in (errno.EACCES, errno.EPERM):
        return VideoError("permission_denied", f"{what} may not be read")
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return VideoError("not_found", "the path is too long, or a symbolic link that leads back to itself")
    reason = os.strerror(error.errno) if error.errno else "unknown error"
    return VideoError("io_error", f"{what} could not be read: {reason}")


def disk_failure(path: str) -> VideoError | None:
    """What the disk says when the file is read once more where FFmpeg stopped, None where it does not complain.

    FFmpeg reports damage of some containers as errors of input and output, or as forbidden. Where a file that this
    process has open was read last is where such an error was met; besides, headers and indices lie at its two ends. All
    of it is not read: of many gigabytes that would take longer than anybody waits for a decoder.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            last = max(0, status.st_size - CHECKED_BYTES)
            for start in {0, max(0, _read_until(status) - _BLOCK_BYTES), last}:
                file.seek(start)
                for _ in range(0, CHECKED_BYTES, _BLOCK_BYTES):
                    if not file.read(_BLOCK_BYTES):
                        break
    except OSError as error:
        return os_refusal(error)
    return None


def _read_until(status: os.stat_result) -> int:
    """How far this process has read a file that it has open (Linux tells); 0 where that is not known."""
    farthest = 0
    with suppress(OSError):
        for each in os.scandir("/proc/self/fd"):
            with suppress(OSError, ValueError, IndexError):
                if os.path.samestat(os.stat(each.path), status):  # noqa: PTH116 (follows the link to the file)
                    with open(f"/proc/self/fdinfo/{each.name}", encoding="ascii") as file:
                        farthest = max(farthest, int(file.readline().split()[1]))  # "pos:	1234"
    return farthest


def refusal(path: str, error: Exception) -> VideoError:
    """Why FFmpeg, raising ``error``, found nothing in this file that vadis opens."""
    failure = disk_failure(path) if isinstance(error, OSError) else None
    if failure is not None:
        return failure
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
            animation = _animation(file, head)
    except OSError as unreadable:
        return os_refusal(unreadable)
    if _is_playlist(head):
        return VideoError("playlist_not_supported", "this is a playlist or script that names other files")
    if animation is not None:
        return VideoError(
            "not_a_video", f"this is an {animation}, an animated image of a kind that vadis does not read"
        )
    if _is_still(head):
        return VideoError("not_a_video", "this is an image, not a video")
    if _is_audio(head):
        return VideoError("no_video_stream", "this is an audio file; there is no picture in it")
    if head[4:8] in _BOXES:
        return _broken_mp4(path)
    return _broken_container(head)


def is_container(head: bytes) -> bool:
    """Return whether a file that begins with ``head`` is one of the containers that vadis reads, whole or damaged."""
    is_avi = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    is_stream = head.startswith((b"\0\0\1", b"\0\0\0\1")) or _mpegts_packet_bytes(head) is not None
    return is_avi or is_stream or head[4:8] in _BOXES or head.startswith(tuple(_CONTAINERS))


def is_ogg_without_video(head: bytes) -> bool:
    """Return whether an Ogg file that begins with ``head`` has sound only: its streams are named at its beginning."""
    return head.startswith(b"OggS") and not any(name in head for name in _OGG_VIDEO)


def _is_playlist(head: bytes) -> bool:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    is_xml = text.startswith((b"<?xml", b"<!--")) and any(word in text for word in (b"<mpd", b"<smil", b"<asx"))
    return is_xml or text.startswith(_PLAYLISTS)


def _is_still(head: bytes) -> bool:
    return head.startswith(_STILLS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _animation(file: BinaryIO, head: bytes) -> str | None:
    """What kind of animated image this is, None where it is none that looks like a still image or like nothing."""
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) > 20 and head[20] & _WEBP_ANIMATED:
        return "animated WebP"
    if head.startswith(b"\x8aMNG"):
        return "MNG"
    return "animated PNG (APNG)" if head.startswith(_PNG) and _has_png_chunk(file, b"acTL", before=b"IDAT") else None


def _has_png_chunk(file: BinaryIO, name: bytes, before: bytes) -> bool:
    file.seek(len(_PNG))
    for _ in range(_MAX_BOXES):
        header = file.read(8)
        if len(header) < 8 or header[4:] in (name, before):
            return header[4:] == name
        file.seek(int.from_bytes(header[:4], "big") + 4, os.SEEK_CUR)  # the chunk, and its checksum
    return False


def _is_audio(head: bytes) -> bool:
    is_riff_or_aiff = head[:4] in (b"RIFF", b"RF64", b"FORM") and head[8:12] in (b"WAVE", b"AIFF", b"AIFC")
    is_bare_mp3 = len(head) > 2 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2 and head[2] >> 4 not in (0, 15)
    return head.startswith(_AUDIO) or is_riff_or_aiff or is_bare_mp3


def _broken_mp4(path: str) -> VideoError:
    if is_cut_short(path, MP4):
        message = "the file has no index (moov atom): the recording or copy was cut short"
        return VideoError("truncated_or_incomplete", message)
    return VideoError("truncated_or_incomplete", "this is an MP4 or QuickTime file whose index is damaged")


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """The top-level boxes of an MP4 file, each with its name, start and end, which may lie beyond that of the file."""
    at = 0
    for _ in range(_MAX_BOXES):
        file.seek(at)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        end = size if length == 0 else at + length
        yield header[4:8], at, end
        if end < at + 8 or end >= size:
            return
        at = end


def _has_box(file: BinaryIO, size: int, wanted: bytes) -> bool:
    """Whether an MP4 file has a top-level box of this name that lies wholly inside the file."""
    return any(name == wanted and end <= size for name, _, end in _boxes(file, size))


def _loses_fragments(file: BinaryIO, size: int) -> bool:
    """Whether an MP4 file in fragments is cut within one, or damaged where FFmpeg stops although others follow."""
    boxes = list(_boxes(file, size))
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


def _broken_container(head: bytes) -> VideoError:
    name = next((name for magic, name in _CONTAINERS.items() if head.startswith(magic)), None)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        name = "AVI"
    if name is not None:
        return VideoError("truncated_or_incomplete", f"the file begins like {name} but is cut short or damaged")
    return VideoError("not_a_video", "this is not a video in a format that vadis reads")


def is_cut_short(path: str, format_name: str) -> bool:
    """Whether the structure of a container goes on beyond the end of its file, where FFmpeg does not notice.

    Missing pictures of MP4 and Matroska files show in the counts and times that their headers state
    (``Header.ends_early``); MPEG program streams state nothing, and a cut between two packets of a transport stream
    cannot be seen.
    """
    check = _CUT_SHORT.get(format_name)
    if check is None:
        return False
    try:
        with open(path, "rb") as file:
            return check(file, os.fstat(file.fileno()).st_size)
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

    header = file.read(13)
    skip_colors(header[10:11])
    while (kind := file.read(1)) in (b"!", b","):
        if kind == b"!":  # an extension, of the kind that the next byte tells
            file.seek(1, os.SEEK_CUR)
        else:  # a picture: its place, flags and colours, and the length of a code
            skip_colors(file.read(9)[8:9])
            file.seek(1, os.SEEK_CUR)
        while length := file.read(1)[:1].strip(b"\0"):
            file.seek(length[0], os.SEEK_CUR)
    return kind != b";"


def _is_mpegts_cut(file: BinaryIO, size: int) -> bool:
    """The packets of a transport stream have one length, and a G where each begins, so also the one that is cut."""
    length = _mpegts_packet_bytes(file.read(_HEAD_BYTES))
    if length is None or size % length == 0:
        return False
    file.seek(size - size % length + _MPEGTS_PACKETS[length])
    return file.read(1) in (b"G", b"")  # else something else was added behind


def _is_matroska_cut(file: BinaryIO, size: int) -> bool:
    """The segment that follows the header states its size, unless it was recorded live."""
    at = 0
    for _ in range(_MAX_BOXES):
        file.seek(at)
        head = file.read(12)
        if not head or not head[0]:
            return False
        id_bytes = 9 - head[0].bit_length()  # the first 1 tells how many bytes a number has
        length = head[id_bytes : id_bytes + 8]
        if not length or not length[0]:
            return False
        length_bytes = 9 - length[0].bit_length()
        stated = int.from_bytes(length[:length_bytes], "big") & ((1 << 7 * length_bytes) - 1)
        is_segment = head[:id_bytes] == _MATROSKA_SEGMENT
        if is_segment and stated == (1 << 7 * length_bytes) - 1:
            return False
        at += id_bytes + length_bytes + stated
        if is_segment or at >= size:
            return at > size
    return False


def _mpegts_packet_bytes(head: bytes) -> int | None:
    """The length of the packets of a transport stream that begins with ``head``, None for anything else."""
    if len(head) <= 2 * max(_MPEGTS_PACKETS):
        return None
    return next((length for length, at in _MPEGTS_PACKETS.items() if set(head[at::length]) == {ord("G")}), None)


def _is_mp4_cut(file: BinaryIO, size: int) -> bool:
    """Without a whole index nothing can be trusted; samples missing at the end are found by their count."""
    return not _has_box(file, size, b"moov") or _loses_fragments(file, size)


def _is_asf_cut(file: BinaryIO, size: int) -> bool:
    """The file properties object states the size of the file, unless it was broadcast."""
    head = file.read(_BLOCK_BYTES)
    at = head.find(_ASF_FILE_PROPERTIES)
    if at < 0 or len(head) < at + 92:
        return False
    is_broadcast = bool(head[at + 88] & 1)
    return not is_broadcast and int.from_bytes(head[at + 40 : at + 48], "little") > size


_MPEGTS_PACKETS = {188: 0, 192: 4, 204: 0}
"""Lengths in bytes (plain; with a time code in front, as camcorders write; with error correction behind) and where the
G stands in them."""

_MATROSKA_SEGMENT = bytes.fromhex("18538067")
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")

_CUT_SHORT: dict[str, Callable[[BinaryIO, int], bool]] = {
    "avi": _is_avi_cut,
    "gif": _is_gif_cut,
    "mpegts": _is_mpegts_cut,
    "mpegvideo": _is_mpegts_cut,  # what FFmpeg takes the first few packets of a transport stream for
    "matroska,webm": _is_matroska_cut,
    "asf": _is_asf_cut,
    MP4: _is_mp4_cut,
}
