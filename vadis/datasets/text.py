"""Lists as they were published: lines and tables of text, every fault told with its place.

Text is UTF-8, UTF-16 or UTF-32, with or without a byte order mark, as spreadsheets and Windows' editors save it.
"""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from vadis.errors import UsageError, what_next
from vadis.results import printable
from vadis.text import encoding_of
from vadis.text import open_text as open_any_text

_MAX_HEADER = 4096  # characters of a first line looked at: a table of features may have one of megabytes
_MAX_HEAD = 1 << 16  # bytes by which a file is known for text


@contextmanager
def open_text(path: str) -> Iterator[TextIO]:
    """A list, open for reading; bytes that are not text are kept as surrogates, as in the names of files.

    Raises:
        UsageError: if the list cannot be read.
    """
    try:
        with open_any_text(path) as file:
            yield file
    except OSError as error:
        message = f"the list {printable(path)} cannot be read: {error.strerror}"
        raise UsageError(message, what_next(error.errno)) from error
    except (csv.Error, UnicodeError) as error:
        raise UsageError(f"the list {printable(path)} cannot be read: {error}", "save it as CSV again") from error


def is_text(path: str) -> bool:
    """Whether a file begins as a list of lines: it can be read, is not empty or binary, and its lines have an end."""
    try:
        with open(path, "rb") as file:
            head = file.read(_MAX_HEAD)
    except OSError:
        return False
    is_wide = encoding_of(head)[0] != "utf-8"
    return bool(head) and (is_wide or b"\0" not in head) and max(map(len, head.splitlines())) < _MAX_HEADER


def read_lines(path: str) -> Iterator[tuple[str, str]]:
    """The lines of a list that are not empty, without blanks at their ends, each with its place ("a.txt, line 3").

    Raises:
        UsageError: if the list cannot be read.
    """
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if stripped := line.strip():
                yield f"{printable(path)}, line {number},", stripped


def columns_of(path: str, delimiter: str = ",") -> tuple[str, ...]:
    """The names of a table's columns, in lower case; empty if its first line cannot be read as names."""
    try:
        with open_text(path) as file:
            line = file.readline(_MAX_HEADER)
            cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
            return tuple(name.strip().lower() for name in cells)
    except UsageError:
        return ()


def read_rows(path: str, delimiter: str = ",") -> Iterator[tuple[str, list[str]]]:
    """The rows of a table that are not empty, as cells without blanks at their ends, each row with its place.

    Raises:
        UsageError: if the table cannot be read.
    """
    with open_text(path) as file:
        reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
        for cells in reader:
            if any(cells):
                yield f"{printable(path)}, line {reader.line_num},", [cell.strip() for cell in cells]


def read_table(path: str, delimiter: str = ",") -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a table with a header, as column → cell, each with its place.

    Raises:
        UsageError: if the table cannot be read, or a row has fewer cells than the header.
    """
    columns = columns_of(path, delimiter)
    rows = read_rows(path, delimiter)
    next(rows, None)
    for place, cells in rows:
        if len(cells) < len(columns):
            hint = f"write all of {','.join(columns)}; a cell may be empty"
            raise UsageError(f"{place} has {len(cells)} cells instead of {len(columns)}", printable(hint))
        if any(cells[len(columns) :]):
            hint = "put a cell with a comma in it between quotation marks"
            raise UsageError(f"{place} has {len(cells)} cells instead of {len(columns)}", hint)
        yield place, dict(zip(columns, cells, strict=False))
