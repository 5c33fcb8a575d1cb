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
from collections.abc import Container, Iterator, Mapping
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


class Entries(dict[str, Entry]):
    """What is remembered of every input, by path."""

    def matching(self, path: str, stamp: tuple[int | None, str | None]) -> Entry | None:
        """Return the entry of an input, if it is still the same file; ``stamp``: its size and time of change."""
        entry = self.get(path)
        return None if entry is None or entry[:2] != stamp else entry


class Line(NamedTuple):
    """A whole line of a journal that holds a record: where it begins, its input's path, and what counts of it."""

    start: int
    path: str
    entry: Entry


class Scan:
    """A pass over the lines of a results file.

    Iterating, once, gives the records in the order of the file. Afterwards ``header`` is its header (None: it has
    none), ``end`` where the last whole line ends, and ``num_damaged`` how many lines are neither.
    """

    def __init__(self, path: Path) -> None:
        self.header: dict[str, Any] | None = None
        self.num_damaged = self.end = 0
        self._path = path

    def __iter__(self) -> Iterator[Line]:
        with self._path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    return
                start, self.end = self.end, self.end + len(line)
                content = _read(line)
                if isinstance(content, tuple):
                    yield Line(start, *content)
                elif start == 0 and content is not None:
                    self.header = content
                else:
                    self.num_damaged += 1


class Journal:
    """A results file that this run alone writes; made by ``open_journal``.

    Attributes:
        entries: what is remembered of every input.
        num_damaged: lines that hold no whole record; their inputs are done again.
        is_empty: nothing whole stands in the file.
        is_foreign: the file is no journal: it begins with no header, whole or cut short.
    """

    def __init__(self, log: AppendLog) -> None:
        self._log, scan = log, Scan(log.path)
        self.entries, self._num_records = Entries(), 0
        for line in scan:
            self._remember(line.path, line.entry)
        self._header, self.num_damaged, self.is_empty = scan.header, scan.num_damaged, scan.end == 0
        with log.path.open("rb") as file:
            start = file.read(len(_HEADER_START))
        self.is_foreign = not _HEADER_START.startswith(start) if self.is_empty else self._header is None

    def begin(self, settings: Mapping[str, Any], versions: Mapping[str, str], *, overwrite: bool) -> dict[str, str]:
        """Write the header, or compare it with the one that is there.

        Returns:
            The versions that the file was begun with.

        Raises:
            UsageError: the file was made with other settings.
            VadisError: the disk refuses.
        """
        run = {"settings": dict(settings), "versions": dict(versions)}
        if overwrite or self._header is None:
            self.entries.clear()
            self._num_records = self._log.end = self.num_damaged = 0
            self._log.append(json.dumps({"schema": SCHEMA, HEADER_KEY: run}).encode() + b"\n")
            sync_folder(self._log.path.parent)
            return dict(versions)
        there = self._header[HEADER_KEY]
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
        """Yield the records of ``paths``, read again from the file.

        Raises:
            UsageError: for a damaged record, of which only the beginning was read before.
        """
        for line in self._lines(self._last_starts(paths)):
            try:
                result = VideoResult.from_json(parse_json(line))
            except ValueError as error:
                hint = "`vadis export` names its line: take that out, and give the same command again"
                raise UsageError(f"{self._log.shown} holds a damaged record", hint) from error
            yield result

    def finish(self) -> None:
        """Take out what later records have replaced, now that the run is complete."""
        self._log.sync()
        if self._num_records == len(self.entries) and not self.num_damaged:
            return
        with os_errors_as(VadisError, f"cannot write to {self._log.shown}"), write_atomic(self._log.path) as file:
            file.writelines(self._lines([0, *self._last_starts(self.entries)]))

    def _remember(self, path: str, entry: Entry) -> None:
        self._num_records += 1
        self.entries[path] = entry

    def _last_starts(self, paths: Container[str]) -> list[int]:
        """Return where the last record of each input begins, in the order of their first ones."""
        return list({line.path: line.start for line in Scan(self._log.path) if line.path in paths}.values())

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
"""A record as ``VideoResult.to_json_line`` writes it: 100,000 of them are read in a second; json.loads is slower."""


def _read(line: bytes) -> tuple[str, Entry] | dict[str, Any] | None:
    """Return what a whole line holds: a record's path and entry, a header, or None for what cannot be trusted."""
    match = _RECORD.fullmatch(line)
    if match is None or b"\0" in line:  # a power cut may leave zeros where something was to be written
        return _read_slowly(line)
    path, path_b64, size, mtime, status, code, seconds = match.groups()
    try:
        name = path_of({"path": parse_json(path)} if path_b64 is None else {"path_b64": path_b64})
    except ValueError:
        return None
    duration_seconds = None if seconds is None else float(seconds)
    mtime, code = (None if text is None else text.decode() for text in (mtime, code))
    return name, Entry(None if size is None else int(size), mtime, status.decode(), code, duration_seconds)


def _read_slowly(line: bytes) -> tuple[str, Entry] | dict[str, Any] | None:
    """As ``_read``, for records that another program has written anew, and for headers."""
    try:
        values = parse_json(line)
        if isinstance(values, dict) and isinstance(values.get(HEADER_KEY), dict):
            return values
        result = VideoResult.from_json(values)
    except ValueError:
        return None
    return result.path, _entry_of(result)


def _entry_of(result: VideoResult) -> Entry:
    return Entry(result.source_bytes, result.source_mtime, result.status, result.error_code, result.duration_seconds)


def _difference(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    keys = [key for key in {**wanted, **there} if there.get(key) != wanted.get(key)]
    return "; ".join(f"{key} was {there.get(key)}, is {wanted.get(key)}" for key in keys)


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """Open the results file ``path``, made if need be, for this run alone; a new one that stays empty is removed again.

    Raises:
        OutputLockedError: another run writes it.
        VadisError: it cannot be written.
    """
    with locked(Path(os.path.realpath(path))), AppendLog(path) as log:
        yield Journal(log)
