"""The results file of a run is its journal: a header, then one record per input, appended and never changed.

    {"schema": 1, "run": {"settings": {…}, "versions": {…}}}
    {"schema": 1, "path": "a.mp4", "source_bytes": 1234, "source_mtime": "1700000000.5", "status": "ok", …}

There is no second file that could disagree with it. A record is one ``write`` to a descriptor that appends, and is on
the disk within a second, so whatever ends a run costs a second of work: the next run cuts off a torn last line, passes
over the inputs whose records are there, and does the others. An input is the same as long as its path, size and time of
change are. Where one has been done again its last record counts; once a run is complete, the others are taken out.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from vadis.errors import UsageError, VadisError
from vadis.files import AppendLog, locked, os_errors_as, sync_folder, write_atomic
from vadis.parsing import parse_json
from vadis.results import SCHEMA, VideoResult, path_of

PASSING_ERRORS = frozenset({"not_found", "disappeared", "changed_while_reading", "io_error"})
"""Errors of a moment rather than of a file: a later run tries again unasked."""

HEADER_KEY = "run"
_HEADER_START = json.dumps({"schema": SCHEMA, HEADER_KEY: {}}).encode().rstrip(b"}")


class Entry(NamedTuple):
    """What a journal remembers of a record."""

    source_bytes: int | None
    source_mtime: str | None
    status: str
    error_code: str | None
    duration_seconds: float | None


class Line(NamedTuple):
    """A whole line of a journal that holds a record: where it begins, its input's path, and what counts of it."""

    start: int
    path: str
    entry: Entry


class Scan:
    """A pass over the lines of a results file.

    Iterating, once, gives the records in the order of the file. Afterwards ``header`` is its header (None: it has
    none), ``end`` where the last whole line ends, and ``damaged`` the numbers of the lines that are neither.
    """

    def __init__(self, path: Path) -> None:
        self.header: dict[str, Any] | None = None
        self.damaged: list[int] = []
        self.end = 0
        self._path = path

    def __iter__(self) -> Iterator[Line]:
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                start, self.end = self.end, self.end + len(line)
                found = _read(line)
                if isinstance(found, tuple):
                    yield Line(start, *found)
                elif number == 1 and found is not None:
                    self.header = found
                else:
                    self.damaged.append(number)


class Remembered:
    """What was said of every input before, by its path."""

    _entries: dict[str, Entry]

    @property
    def entries(self) -> Mapping[str, Entry]:
        """What is remembered of every input, by path."""
        return self._entries

    def has(self, path: str) -> bool:
        """Whether anything was said of an input."""
        return path in self._entries

    def entry(self, path: str, stamp: tuple[int | None, str | None]) -> Entry | None:
        """What was said of an input, if it is still the same file; ``stamp``: its size and time of change."""
        entry = self._entries.get(path)
        return None if entry is None or entry[:2] != stamp else entry


class Journal(Remembered):
    """A results file that this run alone writes; made by ``open_journal``."""

    def __init__(self, log: AppendLog) -> None:
        self._log = log
        self._scan = Scan(log.path)
        self._entries: dict[str, Entry] = {}
        self._superseded = 0
        for line in self._scan:
            self._remember(line.path, line.entry)

    @property
    def is_empty(self) -> bool:
        """Whether nothing whole stands in the file."""
        return self._scan.end == 0

    @property
    def is_foreign(self) -> bool:
        """Whether the file is no journal: it begins neither with a header nor with half a one."""
        if not self.is_empty:
            return self._scan.header is None
        with self._log.path.open("rb") as file:
            return not _HEADER_START.startswith(file.read(len(_HEADER_START)))

    @property
    def num_damaged(self) -> int:
        """Lines that hold no whole record; their inputs are done again."""
        return len(self._scan.damaged)

    def begin(self, settings: Mapping[str, Any], versions: Mapping[str, str], *, overwrite: bool) -> dict[str, str]:
        """Write the header, or compare it with the one that is there.

        Returns:
            The versions that the file was begun with.

        Raises:
            UsageError: the file was made with other settings.
            VadisError: the disk refuses.
        """
        run = {"settings": dict(settings), "versions": dict(versions)}
        header = self._scan.header
        if overwrite or header is None:
            self._entries.clear()
            self._superseded = self._log.end = 0
            self._scan = Scan(self._log.path)
            self._log.append(json.dumps({"schema": SCHEMA, HEADER_KEY: run}).encode() + b"\n")
            sync_folder(self._log.path.parent)
            return dict(versions)
        there = header[HEADER_KEY]
        if difference := _difference(there.get("settings", {}), run["settings"]):
            raise UsageError(
                f"{self._log.shown} was made with other settings: {difference}",
                hint="give the same ones to go on, another file, or `overwrite=True` to start anew",
            )
        return dict(there.get("versions", {}))

    def append(self, result: VideoResult) -> None:
        """Write one record: wholly, or not at all.

        Raises:
            VadisError: the disk refuses, or the file was removed or replaced meanwhile.
        """
        self._log.append(result.to_json_line().encode() + b"\n")
        self._remember(result.path, _entry_of(result))

    def results(self, paths: set[str]) -> Iterator[VideoResult]:
        """The records of ``paths``, read again from the file.

        Raises:
            UsageError: for a damaged record, of which only the beginning was read before.
        """
        for line in self._lines(self._last_lines(paths)):
            try:
                result = VideoResult.from_json(parse_json(line))
            except ValueError as error:
                hint = "`vadis export` names its line: take that out, and give the same command again"
                raise UsageError(f"{self._log.shown} holds a damaged record", hint) from error
            yield result

    def finish(self) -> None:
        """Take out what later records have replaced, now that the run is complete."""
        self._log.sync()
        if self._superseded or self._scan.damaged:
            with os_errors_as(VadisError, f"cannot write to {self._log.shown}"), write_atomic(self._log.path) as file:
                file.writelines(self._lines([0, *self._last_lines(None)]))

    def _remember(self, path: str, entry: Entry) -> None:
        self._superseded += path in self._entries
        self._entries[path] = entry

    def _last_lines(self, paths: set[str] | None) -> list[int]:
        """Where the last record of each input begins, in the order of their first ones."""
        last: dict[str, int] = {}
        for line in Scan(self._log.path):
            if paths is None or line.path in paths:
                last[line.path] = line.start
        return list(last.values())

    def _lines(self, starts: list[int]) -> Iterator[bytes]:
        with self._log.path.open("rb") as file:
            for start in starts:
                file.seek(start)
                yield file.readline()


_RECORD = re.compile(
    rb'\{"schema": 1, "path": ("(?:[^"\\]|\\.)*")(?:, "path_b64": "([^"]*)")?'
    rb'(?:, "source_bytes": (\d+), "source_mtime": "([^"]*)")?, "status": "(\w+)"'
    rb'(?:, "error": \{"code": "(\w+)"|, "duration_seconds": ([\d.]+))?.*\}\n',
)
"""A record as ``VideoResult.to_json_line`` writes it: 100,000 of them are read in a second, which json.loads is not."""


def _read(line: bytes) -> tuple[str, Entry] | dict[str, Any] | None:
    """What a whole line holds: a record's path and entry, a header, or nothing that can be trusted."""
    match = _RECORD.fullmatch(line)
    if match is None or b"\0" in line:  # a power cut may leave zeros where something was to be written
        return _read_slowly(line)
    path, path_b64, size, mtime, status, code, seconds = match.groups()
    try:
        name = path_of({"path": parse_json(path)} if path_b64 is None else {"path_b64": path_b64})
    except ValueError:
        return None
    return name, Entry(
        None if size is None else int(size),
        None if mtime is None else mtime.decode(),
        status.decode(),
        None if code is None else code.decode(),
        None if seconds is None else float(seconds),
    )


def _read_slowly(line: bytes) -> tuple[str, Entry] | dict[str, Any] | None:
    """As ``_read``, for records that another program has written anew, and for headers."""
    try:
        values = parse_json(line)
        if isinstance(values, dict) and isinstance(values.get(HEADER_KEY), dict):
            return values
        found = VideoResult.from_json(values)
    except ValueError:
        return None
    return found.path, _entry_of(found)


def _entry_of(result: VideoResult) -> Entry:
    return Entry(result.source_bytes, result.source_mtime, result.status, result.error_code, result.duration_seconds)


def _difference(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    keys = [key for key in {**wanted, **there} if there.get(key) != wanted.get(key)]
    return "; ".join(f"{key} was {there.get(key)}, is {wanted.get(key)}" for key in keys)


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """The results file ``path``, made if need be, for this run alone; a new one that stays empty is removed again.

    Raises:
        OutputLockedError: another run writes it.
        VadisError: it cannot be written.
    """
    with locked(Path(os.path.realpath(path))), AppendLog(path) as log:
        yield Journal(log)
