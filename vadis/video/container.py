"""What a file is, where FFmpeg does not tell: the reasons for which a file is refused, in plain sentences.

Everything here reads the file by itself, a few kilobytes of it, and some megabytes where the disk is in doubt.

Which stream of a container is the video, and what its header promises.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

import av
from av.stream import Disposition

from vadis.errors import VideoError
from vadis.video.cropping import Crop, container_crop
from vadis.video.metadata import MP4, Limits
from vadis.video.timegrid import GRID_FPS, Clock, grid_length

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,h264,hevc"
"""FFmpeg's names of the containers that vadis opens. Each of them is one file with everything inside: no playlist, no
script, no device, no numbered pictures, no text."""

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


_MICROSECONDS = 1_000_000  # in a second; FFmpeg's unit for the times of a whole container
_DEFAULT_FPS = Fraction(25)  # where a file states no frame rate: what FFmpeg assumes of bare streams
_PLAUSIBLE_FPS = (Fraction(1, 3600), Fraction(1000))
_SLACK_SECONDS = Fraction(1, 2)  # by which a video without a count of frames may end before its header says,
_SLACK_SHARE = Fraction(5, 100)  # and the share of its duration that this may not exceed
_LARGEST_DELAY_SECONDS = Fraction(10)  # of a first frame where clocks may restart: a longer one is of another clock
_STILL_BRANDS = ("avif", "heic", "heix", "heim", "heis", "mif1")  # images in an MP4 container; sequences have others
_CLOCK_MAY_RESTART = 0x0200  # AVFMT_TS_DISCONT in FFmpeg's libavformat/avformat.h
_GAP_SLACK_SECONDS = Fraction(1)  # by which frames behind a gap may exceed the duration that a header states
_ENDS_STATED = ("matroska,webm", "asf")  # formats whose "duration" is when the last frame ends, by the file's clock
_DAY_SECONDS = 86_400  # a longer video has at least one byte for each second
_TRANSPORT_PACKET_BYTES = 188  # of which a frame takes at least one
_FOREVER = Fraction(1 << 62)


@dataclass(frozen=True)
class Header:
    """What the header of a file says of its video stream.

    All lengths are hints: what is decoded decides.

    Attributes:
        fps: mean frames per second, None where it states none that is plausible.
        interval: nominal seconds from frame to frame.
        time_base: seconds per tick of the timestamps.
        duration: seconds from the first frame to the end of the last, None where it states none.
        end: when the stream ends (where it does not say, when the container ends), in seconds by the file's own clock.
        num_frames: coded frames, None where it states none.
        ignores_length: it states a length that a file of this size cannot have, which is None instead.
        sample_aspect_ratio: width of a pixel by its height, None where unknown.
        num_video_streams: attached pictures not counted.
        clock_may_restart: the format allows timestamps to start again on the way.
        is_sequential: the format stores a sequence of frames at a constant rate and no timestamps.
        is_cut_short: the container's structure goes on beyond the end of the file.
        format_name: FFmpeg's name of the container.
        crop: borders of the coded frames that are not to be shown, None where there are none.
        start: when the first of its streams begins, from where players count, in seconds by the file's own clock; None
            where it states none.
        file_duration: seconds of all its streams together, None where it states none.
    """

    fps: Fraction | None
    interval: Fraction
    time_base: Fraction
    duration: Fraction | None
    end: Fraction | None
    num_frames: int | None
    ignores_length: bool
    sample_aspect_ratio: Fraction | None
    num_video_streams: int
    clock_may_restart: bool
    is_sequential: bool
    is_cut_short: bool
    format_name: str
    crop: Crop | None
    start: Fraction | None
    file_duration: Fraction | None

    @property
    def expected_num_frames(self) -> int | None:
        """How many grid frames the header promises, None where it does not."""
        return None if self.duration is None else grid_length(self.duration)

    def clock(self) -> Clock:
        """The clock that tells the times of this stream's frames."""
        # The length of MP4 follows from the very numbers that timestamps do; fragments state that of a part.
        states_length = self.duration is not None and not self.clock_may_restart and self.format_name != MP4
        latest = self.duration + _GAP_SLACK_SECONDS if self.duration is not None and states_length else None
        return Clock(self.time_base, self.interval, sequential=self.is_sequential, latest=latest)

    def ends_early(self, num_packets: int, end: Fraction | None, seconds: Fraction | None = None) -> bool:
        """Whether the packets read, the last of which ends at ``end`` seconds, stop before the header's end.

        Where the header counts frames, one missing at the end is one too many; frames that an edit list hides or that
        were dropped when encoding are not missing. A header that states only a time may round it or mean its sound.

        Args:
            num_packets: how many packets were read.
            end: by the file's own clock.
            seconds: how long the frames last, which differs where that clock started again.
        """
        if self.num_frames and num_packets >= self.num_frames:
            return False
        if self.is_cut_short or self.end is None or self.duration is None:
            return self.is_cut_short
        slack = self.interval / 2
        if not self.num_frames:
            slack = min(max(3 * slack, _SLACK_SECONDS), self.duration * _SLACK_SHARE)
        is_reached = end is not None and end >= self.end - slack
        return not is_reached and (seconds is None or seconds < self.duration - slack)

    def first_seconds(self, first: Fraction | None) -> Fraction:
        """When the first frame, at ``first`` seconds by the file's own clock, is shown after the start of the file.

        Less than a frame of the grid is how containers round, and the silence before compressed sound: 0. So is what
        cannot be: as long as the file, or a step after which a clock has restarted or belongs to another programme.
        """
        late = Fraction(0) if first is None or self.start is None else first - self.start
        limits = [self.file_duration, _LARGEST_DELAY_SECONDS if self.clock_may_restart else None]
        is_plausible = late >= Fraction(1, GRID_FPS) and all(limit is None or late < limit for limit in limits)
        return late if is_plausible else Fraction(0)


def video_streams(container: av.container.InputContainer) -> list[av.VideoStream]:
    """The container's video streams without cover art and thumbnails."""
    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    return [stream for stream in container.streams.video if not stream.disposition & pictures]


def best_stream(path: str, container: av.container.InputContainer) -> av.VideoStream:
    """The stream that FFmpeg calls best, among those that can be decoded.

    Raises:
        VideoError: ``no_video_stream``, ``unsupported_codec``, ``not_a_video``, ``truncated_or_incomplete``.
    """
    streams = video_streams(container)
    if not any(stream.codec_context for stream in streams) and is_cut_short(path, container.format.name):
        raise VideoError("truncated_or_incomplete", "the file is cut short before it says what video it holds")
    if not streams:
        raise VideoError("no_video_stream", "there is no video in this file, only sound, data or cover art")
    brand = container.metadata.get("major_brand")
    if brand in _STILL_BRANDS or all(stream.disposition & Disposition.still_image for stream in streams):
        raise VideoError("not_a_video", "this is an image, not a video")
    # PyAV gives no codec context where FFmpeg has no decoder; to touch such a stream's codec crashes.
    streams = [stream for stream in streams if stream.codec_context is not None]
    if not streams:
        raise VideoError("unsupported_codec", "its video is in a codec that this build of FFmpeg cannot decode")
    best = container.streams.best("video")
    return next((stream for stream in streams if stream is best), streams[0])


def read_header(path: str, container: av.container.InputContainer, stream: av.VideoStream, limits: Limits) -> Header:
    """What the header of the file says of ``stream``.

    Raises:
        VideoError: ``too_large``, for a picture beyond the limits.
    """
    time_base = stream.time_base or 1 / _DEFAULT_FPS
    limits.check_pixels(stream.codec_context.width, stream.codec_context.height)
    fps = next((rate for rate in (stream.average_rate, stream.guessed_rate) if rate and _plausible(rate)), None)
    interval = 1 / (fps or _DEFAULT_FPS)
    duration, end = _extent(container, stream, time_base, interval)
    num_frames = _num_frames(container, stream)
    can_have_frames = (num_frames or 0) <= container.size
    can_last = can_have_frames and (duration or 0) <= max(_DAY_SECONDS, container.size)
    is_measured = container.format.name == "mpegts"  # by FFmpeg, from the first timestamp to the last
    if is_measured and duration is not None:  # which may be of different clocks
        can_last &= duration / interval * _TRANSPORT_PACKET_BYTES <= container.size
    num_frames = num_frames if can_have_frames else None
    duration, end = (duration, end) if can_last else (None, None)
    return Header(
        fps=fps,
        interval=interval,
        time_base=time_base,
        duration=duration,
        end=end,
        num_frames=num_frames,
        ignores_length=not can_last and not is_measured,
        sample_aspect_ratio=stream.sample_aspect_ratio,
        num_video_streams=len(video_streams(container)),
        clock_may_restart=bool(container.format.flags & _CLOCK_MAY_RESTART),
        is_sequential=container.format.name == "avi",
        is_cut_short=is_cut_short(path, container.format.name),
        format_name=container.format.name,
        crop=container_crop(container.format.name, stream),
        start=None if container.start_time is None else Fraction(container.start_time, _MICROSECONDS),
        file_duration=Fraction(container.duration, _MICROSECONDS) if container.duration else None,
    )


def _plausible(fps: Fraction) -> bool:
    return _PLAUSIBLE_FPS[0] <= fps <= _PLAUSIBLE_FPS[1]


def _num_frames(container: av.container.InputContainer, stream: av.VideoStream) -> int | None:
    """Coded frames that the header promises, without those that an edit list leaves out; None where it does not say."""
    if container.format.name == "gif":  # states nothing: FFmpeg counted what is there
        return None
    if container.format.name == MP4 and stream.frames:
        return min(stream.frames, len(stream.index_entries) or stream.frames)
    return stream.frames or None


def _extent(
    container: av.container.InputContainer, stream: av.VideoStream, time_base: Fraction, interval: Fraction
) -> tuple[Fraction | None, Fraction | None]:
    """Duration and end in seconds, of the stream or else of the container; both None where neither is stated.

    What is stated as duration may be the end, which contains the time before the first frame.
    """
    start, name = (stream.start_time or 0) * time_base, container.format.name
    is_end = name in _ENDS_STATED
    if stream.duration is not None and stream.duration > 0:
        stated = stream.duration * time_base
        if name == MP4 and len(stream.index_entries):  # the end, where an empty edit delays the video
            entries = stream.index_entries
            span = (entries[-1].timestamp - entries[0].timestamp) * time_base + interval
            is_end = abs(stated - start - span) < abs(stated - span)
    elif container.duration is not None and container.duration > 0:
        stated = min(Fraction(container.duration, _MICROSECONDS), _tagged_duration(stream) or _FOREVER)
        if not is_end:
            return stated, Fraction(container.start_time or 0, _MICROSECONDS) + stated
    else:
        return None, None
    return (stated - start, stated) if is_end and stated > start else (stated, start + stated)


def _tagged_duration(stream: av.VideoStream) -> Fraction | None:
    """What a tag of Matroska says of this stream alone (hours:minutes:seconds), None where there is none."""
    parts = stream.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = (Fraction(part) for part in parts)
    except (ValueError, ZeroDivisionError):
        return None
    tagged = hours * 3600 + minutes * 60 + seconds
    return tagged if tagged > 0 else None
