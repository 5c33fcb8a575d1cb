"""The results file of a run is its journal: a header, then one record per input, appended and never changed.

    {"schema": 2, "run": {"settings": {…}, "versions": {…}}}
    {"schema": 2, "path": "a.mp4", "source_bytes": 1234, "source_mtime": "1700000000.5", "status": "ok", …}

There is no second file that could disagree. Whatever ends a run costs a second of work: the next one cuts off a torn
last line and passes over the inputs, known by path, size and time of change, whose records are there. Of several
records of one input the last counts; once a run is complete, the others are taken out.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vadis.errors import UsageError, VadisError
from vadis.files import AppendLog, locked, os_errors_as, sync_folder, write_atomic
from vadis.parsing import parse_json
from vadis.results import SCHEMA, STATUSES, VideoResult, path_of

PASSING_ERRORS = frozenset({"not_found", "disappeared", "changed_while_reading", "io_error"})
"""Errors of a moment rather than of a file: a later run tries again unasked."""

HEADER_KEY = "run"
_HEADER_START = json.dumps({"schema": SCHEMA, HEADER_KEY: {}}).encode().rstrip(b"}")


def changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return which settings have changed, "stride was 8, is 16"; "" where none has."""
    changed = [key for key in {**now, **was} if was.get(key) != now.get(key)]
    return "; ".join(f"{key} was {was.get(key)!s:.80}, is {now.get(key)!s:.80}" for key in changed)


class Entry(NamedTuple):
    """What a journal remembers of an input's last record."""

    source_bytes: int | None
    source_mtime: str | None
    status: str
    error_code: str | None
    duration_seconds: float | None
    start: int = 0  # of its line in the file


class Journal:
    """A results file that this run alone writes; made by ``open_journal``.

    ``entries`` are by path, in the order of their first records. ``num_damaged`` lines hold no whole record; their
    inputs are done again. A file that ``is_empty`` has no whole line.
    """

    def __init__(self, log: AppendLog, overwrite: bool) -> None:
        self._log, self._header, self._overwrite = log, dict[str, Any](), overwrite
        self.entries = dict[str, Entry]()
        self._num_records = self.num_damaged = start = 0
        with log.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                content = _read(line, start)
                if isinstance(content, tuple):
                    self._remember(*content)
                elif start == 0 and content is not None:
                    self._header = content
                else:
                    self.num_damaged += 1
                start += len(line)
            file.seek(0)
            begins_as_header = _HEADER_START.startswith(file.read(len(_HEADER_START)))
        self.is_empty = log.end == 0
        if not (overwrite or self._header or (self.is_empty and begins_as_header)):
            message = f"{log.shown} exists already, and is not a results file that a run can continue"
            raise UsageError(message, hint="give `overwrite=True` to replace it, or choose another name")

    def begin(self, settings: Mapping[str, Any], versions: Mapping[str, str]) -> dict[str, str]:
        """Write the header, or compare it with the one that is there.

        Returns the versions that the file was begun with; raises UsageError where it was made with other settings.
        """
        run = {"settings": dict(settings), "versions": dict(versions)}
        if self._overwrite or not self._header:
            self.entries.clear()
            self._num_records = self._log.end = self.num_damaged = 0
            self._log.append(json.dumps({"schema": SCHEMA, HEADER_KEY: run}).encode() + b"\n")
            sync_folder(self._log.path.parent)
            return dict(versions)
        there = self._header[HEADER_KEY]
        was = there.get("settings", {})
        if difference := changes(was, settings):
            hint = "give the same ones to go on, another file, or `overwrite=True` to start anew"
            raise UsageError(f"{self._log.shown} was made with other settings: {difference}", hint)
        return dict(there.get("versions", {}))

    def append(self, result: VideoResult) -> None:
        """Write one record, wholly or not at all; raise VadisError where the disk refuses, or the file was removed."""
        start = self._log.end
        self._log.append(result.to_json_line().encode() + b"\n")
        size, mtime, seconds = result.source_bytes, result.source_mtime, result.duration_seconds
        self._remember(result.path, Entry(size, mtime, result.status, result.error_code, seconds, start))

    def results(self, paths: set[str], kind: type[VideoResult] = VideoResult) -> Iterator[VideoResult]:
        """Yield the records of ``paths``, read again; raise UsageError for one that is damaged behind its beginning."""
        for line in self._lines(entry.start for path, entry in self.entries.items() if path in paths):
            try:
                result = kind.from_json(parse_json(line))
            except ValueError as error:
                hint = "`vadis export` names its line: take that out, and give the same command again"
                raise UsageError(f"{self._log.shown} holds a damaged record", hint) from error
            yield result

    def finish(self) -> None:
        """Take out what later records have replaced, now that the run is complete."""
        self._log.sync()
        if self._num_records == len(self.entries) and not self.num_damaged:
            return
        entries = dict[str, Entry]()
        with os_errors_as(VadisError, f"cannot write to {self._log.shown}"), write_atomic(self._log.path) as file:
            file.writelines(self._lines([0]))
            for path, entry in self.entries.items():
                entries[path] = entry._replace(start=file.tell())
                file.writelines(self._lines([entry.start]))
        self.entries = entries

    def _remember(self, path: str, entry: Entry) -> None:
        self._num_records += 1
        self.entries[path] = entry

    def _lines(self, starts: Iterable[int]) -> Iterator[bytes]:
        with self._log.path.open("rb") as file:
            for start in starts:
                file.seek(start)
                yield file.readline()


def _read(line: bytes, start: int) -> tuple[str, Entry] | dict[str, Any] | None:
    """Return what a whole line holds: a record's path and entry, a header, or None for what cannot be trusted."""
    at = line.find(b', "source_fps": ')  # from where on a record that vadis has written is long, and of no concern here
    try:
        values = parse_json(line[:at] + b"}" if at > 0 and line.endswith(b"}\n") else line)
        if values["schema"] != SCHEMA:
            return None
        if isinstance(values.get(HEADER_KEY), dict):
            return dict(values)
        path, status, error = path_of(values), values["status"], values.get("error") or {}
        if status not in STATUSES or b"\0" in line:  # a power cut may leave zeros where something was to be written
            return None
        size, mtime, seconds = (values.get(name) for name in ("source_bytes", "source_mtime", "duration_seconds"))
        return path, Entry(size, mtime, status, error.get("code"), seconds, start)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


@contextmanager
def open_journal(path: Path, *, overwrite: bool = False) -> Iterator[Journal]:
    """Open the results file ``path``, made if need be, for this run alone; a new one that stays empty is removed again.

    Raises OutputLockedError where another run writes it, VadisError where it cannot be written, and UsageError where it
    is none, unless ``overwrite`` lets ``begin`` replace it.
    """
    with locked(Path(os.path.realpath(path))), AppendLog(path) as log:
        yield Journal(log, overwrite)


_STATUS_WORDS = {"ok": "ok", "partial": "partial", "skipped": "skipped", "error": "failed"}


@dataclass
class Summary:
    """Counts of the records of a run, and of those that an earlier run had left, out of ``num_inputs``."""

    num_inputs: int
    statuses: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)  # by code
    num_before: int = 0  # records that were there already
    video_seconds: float = 0.0  # of what was labelled in this run
    video_seconds_before: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @property
    def num_left(self) -> int:
        """Inputs without a record."""
        return self.num_inputs - self.statuses.total()

    def add(self, record: VideoResult | Entry) -> None:
        """Count a record of this run, or the entry of one that was there before."""
        self.statuses[record.status] += 1
        if record.error_code is not None:
            self.errors[record.error_code] += 1
        if isinstance(record, Entry):
            self.num_before += 1
            self.video_seconds_before += record.duration_seconds or 0.0
        else:
            self.video_seconds += record.duration_seconds or 0.0

    def line(self) -> str:
        """Return all in one line."""
        counts = {word: self.statuses[status] for status, word in _STATUS_WORDS.items()} | {"not done": self.num_left}
        parts = [", ".join(f"{count:,} {word}" for word, count in counts.items() if count or word == "ok")]
        seconds = time.monotonic() - self.began
        if self.num_before:
            parts.append(f"{self.num_before:,} of them done before")
        if self.video_seconds and seconds >= 10:  # a shorter run says nothing of the speed of a long one
            speed = self.video_seconds / seconds
            minutes = self.video_seconds / 60
            length = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:,.1f} h"
            length = f"{self.video_seconds:.0f} s" if self.video_seconds < 100 else length
            parts.append(f"{length} of video at {speed:.1f} times the speed of playing")
        return "; ".join(parts)

    def to_json(self, exit_code: int) -> dict[str, Any]:
        """Return the whole as plain JSON values."""
        seconds = time.monotonic() - self.began
        return {
            "schema": SCHEMA,
            "inputs": self.num_inputs,
            "records": {status: self.statuses[status] for status in _STATUS_WORDS},
            "errors": dict(sorted(self.errors.items())),
            "done_before": self.num_before,
            "not_done": self.num_left,
            "video_hours": round((self.video_seconds + self.video_seconds_before) / 3600, 6),
            "video_hours_in_this_run": round(self.video_seconds / 3600, 6),
            "elapsed_seconds": round(seconds, 3),
            "times_playing_speed": round(self.video_seconds / seconds, 3) if seconds else 0.0,
            "exit_code": exit_code,
        }
