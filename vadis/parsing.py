"""JSON and TOML with one limit on nesting (Python's own depends on its version and on the caller), and text in UTF-8 or
UTF-16, with or without a byte order mark; times as people write them."""

import codecs
import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, TextIO

MAX_DEPTH = 64  # levels of objects and lists; what vadis writes has up to 8, and every Python parses and copies 64


def parse_json(content: str | bytes) -> Any:
    """Return the value of a JSON text, or its bytes in UTF-8; raise ValueError for others and those nested too deep."""
    opening = content.count("[") + content.count("{") if isinstance(content, str) else sum(map(content.count, b"[{"))
    parse = partial(json.loads, content)
    return parse() if opening <= MAX_DEPTH else _limited(parse)  # most texts need no look at every value


def parse_toml(content: str) -> dict[str, Any]:
    """Return the table of a TOML text; raise ValueError as ``parse_json`` does."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return dict(_limited(partial(tomllib.loads, content)))


def _limited(parse: Callable[[], Any]) -> Any:
    with suppress(RecursionError):
        value = parse()
        if not is_too_deep(value):
            return value
    raise ValueError(f"nested more than {MAX_DEPTH} deep")


def is_too_deep(value: Any) -> bool:
    """Return whether a parsed value, of plain dicts and lists, is nested more than ``MAX_DEPTH`` deep."""
    level: list[Any] = [[value]]
    for _ in range(MAX_DEPTH + 1):
        values = chain.from_iterable(each.values() if type(each) is dict else each for each in level)
        level = [each for each in values if type(each) is dict or type(each) is list]
        if not level:
            return False
    return True


_CONTROLS = frozenset(map(chr, {*range(32), 127} - set(b"\t\n\v\f\r\x1b")))  # in no text


def _encoding_of(head: bytes) -> tuple[str, str]:
    """Return the encoding of a text by its first bytes, and what becomes of bytes that are not in it."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16", "replace"
    zeros = [byte == 0 for byte in head[:2]]  # beside a first character of Latin script
    if any(zeros) and not all(zeros):
        return "utf-16-be" if zeros[0] else "utf-16-le", "replace"
    return "utf-8-sig", "surrogateescape"


def decode(content: bytes) -> str:
    """Return the text of ``content``; bytes that are not UTF-8 become surrogates, as in the names of files."""
    return content.decode(*_encoding_of(content))


def open_text(path: str | os.PathLike[str]) -> TextIO:
    """Open a text file in the encoding of its first bytes, as ``decode`` has it; line ends are left as they are."""
    with open(path, "rb") as file:
        encoding, errors = _encoding_of(file.read(4))
    return open(path, encoding=encoding, errors=errors, newline="")


_TIME = re.compile(r"(?:(?:(\d{1,5}):)?(\d{1,7}):)?(\d{1,9}(?:\.\d*)?|\.\d+)", re.ASCII)


def parse_seconds(text: str) -> float:
    """Return the seconds that ``90``, ``1:30`` or ``0:01:30.5`` means; raise ValueError for anything else."""
    found = _TIME.fullmatch(text.strip())
    hours, minutes, seconds = (float(number or 0) for number in (found.groups() if found else ("", "", "")))
    is_whole = (":" not in text or seconds < 60) and (text.count(":") < 2 or minutes < 60)
    if found is None or not is_whole:
        raise ValueError(f"{text!r} is no time, such as 90, 1:30 or 0:01:30.5")
    return 3600 * hours + 60 * minutes + seconds


def is_text(head: bytes) -> bool:
    """Return whether a file that begins with ``head`` is text: in any encoding of ASCII's letters, or UTF-16."""
    encoding, _ = _encoding_of(head)
    decoder = codecs.getincrementaldecoder("latin-1" if encoding == "utf-8-sig" else encoding)()  # the last may be cut
    try:
        return _CONTROLS.isdisjoint(decoder.decode(head))
    except UnicodeDecodeError:
        return False
