"""Lists as they were published: lines and tables of text, every fault told with its place."""

import csv
from collections.abc import Iterator

from vadis.errors import UsageError, what_next
from vadis.results import printable
from vadis.text import open_text

_MAX_HEADER = 4096  # characters of a first line looked at: a table of features may have one of megabytes


def read_lines(path: str) -> Iterator[tuple[str, str]]:
    """The lines of a list that are not empty, without blanks at their ends, each with its place ("a.txt, line 3").

    Bytes that are not text are kept as surrogates, as in the names of files.

    Raises:
        UsageError: if the list cannot be read.
    """
    try:
        with open_text(path) as file:
            for number, line in enumerate(file, start=1):
                if stripped := line.strip():
                    yield f"{printable(path)}, line {number},", stripped
    except OSError as error:
        message = f"the list {printable(path)} cannot be read: {error.strerror}"
        raise UsageError(message, what_next(error.errno)) from error


def columns_of(path: str) -> tuple[str, ...]:
    """The names of a table's columns, in lower case; empty if its first line cannot be read as names."""
    try:
        with open_text(path) as file:
            return tuple(name.strip().lower() for name in next(csv.reader([file.readline(_MAX_HEADER)]), []))
    except (OSError, csv.Error):
        return ()


def read_table(path: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV table with a header, as column → cell, each with its place.

    Raises:
        UsageError: if the table cannot be read, or a row has fewer cells than the header.
    """
    columns = columns_of(path)
    try:
        with open_text(path) as file:
            reader = csv.reader(file)
            next(reader, None)
            for cells in reader:
                place = f"{printable(path)}, line {reader.line_num},"
                if not any(cells):
                    continue
                if len(cells) < len(columns):
                    hint = f"write all of {','.join(columns)}; a cell may be empty"
                    raise UsageError(f"{place} has {len(cells)} cells instead of {len(columns)}", printable(hint))
                yield place, {column: cell.strip() for column, cell in zip(columns, cells, strict=False)}
    except OSError as error:
        message = f"the list {printable(path)} cannot be read: {error.strerror}"
        raise UsageError(message, what_next(error.errno)) from error
    except csv.Error as error:
        raise UsageError(f"the list {printable(path)} cannot be read: {error}", "save it as CSV again") from error
