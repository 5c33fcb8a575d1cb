"""Everything that can go wrong, as one tree.

    VadisError                 exit 1   could not go on: environment, disk, bug
    ├── UsageError             exit 2   wrong use: an option, a path, an output that cannot be
    ├── DeviceError            exit 1   the device asked for is not there
    ├── WeightsError           exit 1   no parameters: download, damage, wrong model file
    ├── VideoError             exit 3   one input cannot be labelled; becomes its record, the others go on
    ├── NothingToDoError       exit 4   no video found
    └── OutputLockedError      exit 5   another run holds this output

A message is one plain sentence; a hint says what to do next. The command line prints both and never a traceback
unless asked for with ``--debug``. Exit codes 130 (SIGINT) and 143 (SIGTERM) come from the signals themselves, and 3
is the exit code of a run in which some files failed.
"""


class VadisError(Exception):
    """A failure that a user can read.

    Args:
        message: one sentence that names the file, option or host concerned.
        hint: what to do next, or None.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(VadisError):
    """Wrong use of a command or function."""

    exit_code = 2


class DeviceError(VadisError):
    """The device asked for cannot be used."""


class WeightsError(VadisError):
    """Parameters could not be had, or are not what they should be."""


class VideoError(VadisError):
    """One input that cannot be labelled.

    Args:
        code: a word from ``VIDEO_ERROR_CODES``, the ``error.code`` of the input's record.
        message: one sentence about this input.
        hint: what to do next, or None.
    """

    exit_code = 3

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        if code not in VIDEO_ERROR_CODES:
            raise ValueError(f"unknown video error code {code!r}")
        super().__init__(message, hint)
        self.code = code


class NothingToDoError(VadisError):
    """No input was found."""

    exit_code = 4


class OutputLockedError(VadisError):
    """Another run is writing this output."""

    exit_code = 5


VIDEO_ERROR_CODES = {
    "not_found": "the path does not exist",
    "not_a_regular_file": "a FIFO, socket, device or folder where a file was expected",
    "permission_denied": "the file cannot be read",
    "disappeared": "the file was there when listed and gone when opened",
    "empty_file": "zero bytes",
    "not_a_video": "no container that vadis reads, or a still image",
    "playlist_not_supported": "a playlist or script that names other files",
    "truncated_or_incomplete": "the index is missing: the recording or copy was cut short",
    "no_video_stream": "audio only, or only cover art",
    "unsupported_codec": "the codec is unknown or encrypted",
    "no_frames": "a video stream from which no frame can be decoded",
    "too_large": "more pixels, frames, hours or memory than the limits allow",
    "too_short": "too few frames for the streams asked for",
    "decode_failed": "the decoder gave up before the first frame",
    "decoder_crash": "the process that decodes the file ended on the way: a crash, or somebody killed it",
    "timeout": "nothing came from the decoder for a minute, or it took more than ten times the video's duration",
    "io_error": "the disk failed while reading",
    "changed_while_reading": "the file changed while it was read",
    "not_finite": "the network gave a score that is not a number",
}
"""Every code a record's ``error.code`` can have, with its meaning."""
