"""Everything that can go wrong: a ``VadisError`` of some kind, each with the exit code of the command.

A message is one plain sentence; a hint says what to do next. Where they name an argument of a function, in backticks as
in `device="cpu"`, the command line shows the option instead (``with_options``).
"""

import errno
import re
from typing import NamedTuple


class VadisError(Exception):
    """A failure that a user can read: one sentence that names the file, option or host, and what to do next."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class UsageError(VadisError):
    """Wrong use of a command or function: an option, a path, an output that cannot be."""

    exit_code = 2


class DeviceError(VadisError):
    """The device asked for cannot be used."""


class WeightsError(VadisError):
    """Parameters could not be had, or are not what they should be: download, damage, wrong model file."""


class UnreachableError(WeightsError):
    """Parameters are not in the cache, and no host gives them."""


class VideoError(VadisError):
    """An input that cannot be labelled; ``code``, a key of ``VIDEO_ERROR_CODES``, gives the hint if none is given."""

    exit_code = 3

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        if code not in VIDEO_ERROR_CODES:
            raise ValueError(f"unknown video error code {code!r}")
        super().__init__(message, hint or VIDEO_ERROR_CODES[code].what_next)
        self.code, self.own_hint = code, hint

    @property
    def in_full(self) -> str:
        """The message with the hint of its own, as records and lists of failures have it."""
        return self.message if self.own_hint is None else f"{self.message} ({self.own_hint})"


class NothingToDoError(VadisError):
    """No input was found."""

    exit_code = 4


class OutputLockedError(VadisError):
    """Another run is writing this output."""

    exit_code = 5


class VideoErrorCode(NamedTuple):
    """What the code of an input that cannot be labelled means, and what to do next about such an input."""

    meaning: str
    what_next: str


_VIDEO_ERRORS = """\
not_found: the path does not exist
    see that it is spelled right and that its disk is there; the same command tries it again
not_a_regular_file: a FIFO, socket, device or folder where a file was expected
    give the video file itself; save to a file what comes through a pipe or from a device
permission_denied: the file cannot be read
    get the right to read it (ls -l shows whose it is), then try again
disappeared: the file was there when listed and gone when opened
    put it back, or see that its disk is still there; the same command tries it again
empty_file: zero bytes
    copy it again from its source, or remove it
not_a_video: no container that vadis reads, or an image, still or animated
    if a player shows a video, convert it (ffmpeg -i FILE new.mp4) and give that; otherwise leave it out
playlist_not_supported: a playlist or script that names other files
    give the files that it names instead
truncated_or_incomplete: the file is cut short, or its index is missing or damaged
    copy it again from its source
no_video_stream: audio only, or only cover art
    leave it out, or give the file that has the pictures
unsupported_codec: the codec is unknown or encrypted
    convert it with a program that plays it, to H.264 for example, and give that
no_frames: a video stream from which no frame can be decoded
    if a player shows it, convert it there and give that; otherwise copy it again, or leave it out
outside: nothing is shown in the part that was asked for: the video ends before it
    ask for an earlier part, or leave `start` and `end` out
too_large: more pixels, frames, hours or memory than the limits allow
    scale it down or cut it up with FFmpeg; or raise the limit, then try again
too_short: too few frames for the streams asked for
    leave it out; RGB alone (`streams="rgb"`) takes a single frame, if the model has a network for it
decode_failed: the decoder gave up before the first frame
    if a player shows it, convert it there and give that; otherwise copy it again, or leave it out
decoder_crash: the process that decodes the file ended on the way: a crash, or somebody killed it
    try again with less at once (`jobs=1`); if it ends once more, convert the file
timeout: nothing came from the decoder for a minute, or it took more than ten times the video's duration
    see what else keeps its disk or this machine busy, then try again
io_error: the disk failed while reading
    look at the disk and its cable or network (dmesg tells); the same command tries it again
changed_while_reading: the file changed while it was read
    wait until it is finished; the same command tries it again
not_finite: the network gave a score that is not a number
    try the CPU (`device="cpu"`), or another model; train your own again at a lower learning rate
"""

VIDEO_ERROR_CODES: dict[str, VideoErrorCode] = {
    code: VideoErrorCode(meaning, what_next)
    for code, meaning, what_next in re.findall(r"^(\w+): (.+)\n +(.+)", _VIDEO_ERRORS, re.MULTILINE)
}
"""Every code that a record's ``error.code`` can have."""


def advice(code: str) -> str:
    """Return what to do next about an input with this code on the command line, where failures are records of a run."""
    return with_options(VIDEO_ERROR_CODES[code].what_next.replace("try again", "try again (classify: `retry_failed`)"))


_ARGUMENT = re.compile(r'`([a-z_]+)(?:="?([^"`]*)"?)?`')
_OPTIONS = {  # of arguments that have another name on the command line
    "address": "ray",
    "allow_inexact": "allow-inexact-resume",
    "with_sound": "no-sound",
    "changes": "set",
    "schedule": "set schedule",
    "scratch_bytes": "scratch-gb",
    "places": "jobs",
    "remote": "allow-remote",
    "nul": "null",
    "name": "dataset",
}


def with_options(text: str) -> str:
    """Return ``text`` with options of the command line in place of the arguments that it names in backticks."""

    def option(found: re.Match[str]) -> str:
        name, value = found.groups()
        shown = "--" + _OPTIONS.get(name, name).replace("_", "-")
        return shown if value in (None, "True", "False") else f"{shown}{'=' if ' ' in shown else ' '}{value}"

    return _ARGUMENT.sub(option, text)


AGAIN = "give the same command again"


def what_next(number: int | None, again: str = AGAIN) -> str:
    """Return what to do next where the operating system refuses: its ``errno``; ``again``, once the disk is well."""
    return _BY_ERRNO.get(number or 0, _OTHERWISE).format(again=again)


_OTHERWISE = "see that its disk is there and works, then {again}"
_RIGHTS = "get the right to it and to its folders (ls -ld shows whose they are), or choose another place"
_CROWDED = "close other programs, or take fewer `jobs` or `workers`"

_BY_ERRNO = {
    errno.ENOSPC: "make room on that disk, then {again}",
    errno.EDQUOT: "make room: your quota on that disk is used up; then {again}",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or choose another disk; then {again}",
    **dict.fromkeys((errno.EACCES, errno.EPERM), _RIGHTS),
    errno.EROFS: "choose a place on another disk: this one is mounted read-only",
    errno.ENOENT: "see that the path is spelled right and that its disk is there",
    errno.ENOTDIR: "choose another path: a part of this one is a file, not a folder",
    errno.EEXIST: "choose another name, or move away what has this one",
    errno.EBADF: "leave >&- out, or name a file by `output`",
    errno.EISDIR: "name a file: this is a folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "look at the symbolic links of the path (namei -l): one leads back to itself",
    errno.EIO: "the disk fails (dmesg tells more): use another one, then {again}",
    errno.EMFILE: "allow more open files (ulimit -n), or take fewer `jobs` or `workers`",
    **dict.fromkeys((errno.ENFILE, errno.EAGAIN, errno.ENOMEM), _CROWDED),
}
