"""Text files as people have them: UTF-8 with or without a byte order mark, and UTF-16 and UTF-32 as Windows writes."""

import codecs
import os
from typing import TextIO

_HEAD_BYTES = 4096
_MARKS = (  # byte order marks; that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROLS = bytes({*range(32), 127} - set(b"\t\n\v\f\r\x1b"))  # in no text


def encoding_of(head: bytes) -> tuple[str, int]:
    """Return the encoding of a text by its first bytes, and the length of its byte order mark.

    Without a mark UTF-16 and UTF-32 are known by the zeros beside a first character of Latin script.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    zeros = tuple(byte == 0 for byte in head[:4])
    if len(zeros) == 4 and zeros[:3] == (True, True, True) and not zeros[3]:
        return "utf-32-be", 0
    if len(zeros) == 4 and not zeros[0] and zeros[1:] == (True, True, True):
        return "utf-32-le", 0
    if zeros[:2] == (True, False):
        return "utf-16-be", 0
    if zeros[:2] == (False, True):
        return "utf-16-le", 0
    return "utf-8", 0


def decode(content: bytes) -> str:
    """Return the text of ``content``; bytes that are not UTF-8 become surrogates, as in the names of files."""
    encoding, start = encoding_of(content)
    return content[start:].decode(encoding, "surrogateescape" if encoding == "utf-8" else "replace")


def open_text(path: str | os.PathLike[str]) -> TextIO:
    """Open a text file in the encoding of its first bytes, as ``decode`` has it; line ends are left as they are."""
    with open(path, "rb") as file:
        encoding, start = encoding_of(file.read(_HEAD_BYTES))
    errors = "surrogateescape" if encoding == "utf-8" else "replace"
    text = open(path, encoding=encoding, errors=errors, newline="")  # noqa: SIM115 (whoever asked for it closes it)
    text.seek(start)
    return text


def is_text(head: bytes) -> bool:
    """Return whether a file that begins with ``head`` is text: in any encoding of ASCII's letters, UTF-16 or UTF-32."""
    encoding, start = encoding_of(head)
    if encoding == "utf-8":
        return not any(byte in _CONTROLS for byte in head)
    decoder = codecs.getincrementaldecoder(encoding)()  # the last character may be cut
    try:
        text = decoder.decode(head[start:])
    except UnicodeDecodeError:
        return False
    return not any(character in text for character in _CONTROLS.decode("ascii"))
