"""The results file of a run is its journal: a header, then one record per input, appended and never changed.

    {"schema": 2, "run": {"settings": {…}, "versions": {…}}}
    {"schema": 2, "path": "a.mp4", "source_bytes": 1234, "source_mtime": "1700000000.5", "status": "ok", …}

There is no second file that could disagree. Whatever ends a run costs a second of work: the next one cuts off a torn
last line and passes over the inputs, known by path, size and time of change, whose records are there. Of several
records of one input the last counts; once a run is complete, the others are taken out.
"""

import json
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from vadis.errors import UsageError, VadisError
from vadis.files import AppendLog, locked, os_errors_as, sync_folder, write_atomic
from vadis.parsing import open_text, parse_json
from vadis.results import SCHEMA, STATUSES, VideoResult, path_of, printable
from vadis.video.metadata import AnyPath

_log = logging.getLogger(__name__)

TRANSIENT_ERRORS = frozenset({"not_found", "disappeared", "changed_while_reading", "io_error"})
"""Errors that may go away by themselves: the next run tries these inputs again unasked."""

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
                content = _parse_line(line, start)
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


def _parse_line(line: bytes, start: int) -> tuple[str, Entry] | dict[str, Any] | None:
    """Return what a whole line holds: a record's path and entry, a header, or None for what cannot be trusted."""
    at = line.find(b', "source_fps": ')  # the long rest of a record, not needed here
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


# --- work that outgrows one process or one file ----------------------------------------------------------------------

COUNT_VARIABLE = "VADIS_SHARDS"  # how many there are, where Kubernetes tells each process only its own number
PART_RECORDS = 10_000


@dataclass(frozen=True)
class Shard:
    """Number ``index`` of ``count`` shards, counted from 1.

    An input belongs to one by a digest of its path as given, which all machines must spell alike, and by nothing else.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise UsageError(f"there is no shard {self.index} of {self.count}", hint="the first is 1/N, the last N/N")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def has(self, path: str) -> bool:
        """Return whether this shard takes the input."""
        from hashlib import sha256  # its library is loaded for this alone

        digest = sha256(os.fsencode(path)).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index - 1

    def own(self, output: Path) -> Path:
        """Return this shard's own file: ``labels.jsonl`` → ``labels.shard-2-of-8.jsonl``."""
        return output.with_name(f"{output.stem}.shard-{self.index}-of-{self.count}{output.suffix}")


def parse_shard(text: str, environment: Mapping[str, str] = os.environ) -> Shard:
    """Return the shard that ``I/N`` or ``auto`` means; raise UsageError for anything else.

    ``auto`` asks, in this order: an array of SLURM; an indexed job of Kubernetes, with ``VADIS_SHARDS`` for the number
    of its completions; torchrun; the tasks of one SLURM job.
    """
    if match := re.fullmatch(r"(\d+)/(\d+)", text):
        return Shard(int(match[1]), int(match[2]))
    if text != "auto":
        raise UsageError(f"{text!r} is not a shard", hint="give I/N, such as 2/8, or auto")

    def number(name: str) -> int:
        text = environment.get(name, "")
        if not re.fullmatch(r"\d+", text):
            raise UsageError(f"the variable {name} is no number: {text!r}", hint="give the shard: `shard=I/N`")
        return int(text)

    if "SLURM_ARRAY_TASK_ID" in environment:
        count, first = number("SLURM_ARRAY_TASK_COUNT"), number("SLURM_ARRAY_TASK_MIN")
        if count == 1 or number("SLURM_ARRAY_TASK_MAX") - first + 1 != count:  # submitted again in part
            message = "the SLURM array has a single task, or gaps between its tasks, so their numbers tell no shards"
            raise UsageError(message, "say it: `shard=$SLURM_ARRAY_TASK_ID/N`, with tasks from 1 to N")
        return Shard(number("SLURM_ARRAY_TASK_ID") - first + 1, count)
    if "JOB_COMPLETION_INDEX" in environment:
        if COUNT_VARIABLE not in environment:
            hint = f"set {COUNT_VARIABLE} to the job's completions (docs/archives.md has an example)"
            raise UsageError("Kubernetes tells a job its number but not how many there are", hint)
        return Shard(number("JOB_COMPLETION_INDEX") + 1, number(COUNT_VARIABLE))
    for rank, size in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):  # torchrun, a SLURM job's tasks
        if {rank, size} <= environment.keys():
            return Shard(number(rank) + 1, number(size))
    message = "`shard=auto` finds no SLURM array, Kubernetes indexed job or torchrun here"
    raise UsageError(message, "give the shard: I/N")


class PartitionedJournal:
    """A journal in parts, ``part-00001.jsonl`` and so on in a folder, so that no file grows without end.

    Each is a journal with its header, and stays as it was written; of several records of one input that of the last
    part counts. Made by ``open_parts``, whose ``stack`` holds the last.
    """

    def __init__(self, folder: Path, stack: ExitStack, overwrite: bool) -> None:
        self.entries, self.num_damaged, self._overwrite = dict[str, Entry](), 0, overwrite
        self._folder, self._stack, self._number = folder, stack, 1
        self._header: tuple[Mapping[str, Any], Mapping[str, str]] = ({}, {})
        self._journal: Journal | None = None

    def begin(self, settings: Mapping[str, Any], versions: Mapping[str, str]) -> dict[str, str]:
        """See ``Journal.begin``; every part must have been made with the same settings."""
        self._header, begun_with = (settings, versions), dict(versions)
        for path in sorted(self._folder.glob("part-*.jsonl")):
            if self._overwrite:
                path.unlink()
                continue
            with open_journal(path) as part:
                begun_with = part.begin(settings, versions)
                self.num_damaged += part.num_damaged
                self.entries |= part.entries
                self._number = int(path.stem.removeprefix("part-"))
        return begun_with

    def append(self, result: VideoResult) -> None:
        """See ``Journal.append``; where the last part has no room, another one is begun."""
        while self._journal is None or len(self._journal.entries) >= PART_RECORDS:
            self._stack.close()
            self._number += self._journal is not None
            self._journal = self._stack.enter_context(open_journal(self._folder / f"part-{self._number:05}.jsonl"))
            self._journal.begin(*self._header)
        self._journal.append(result)


@contextmanager
def open_parts(folder: Path, *, overwrite: bool = False) -> Iterator[PartitionedJournal]:
    """Open the parts in ``folder``, for this run alone; raise OutputLockedError and VadisError as ``open_journal``."""
    with locked(folder / "parts"), ExitStack() as stack:
        yield PartitionedJournal(folder, stack, overwrite)


# --- results files, of one run or of the shards of one, read again ----------------------------------------------------


def read_results(*paths: AnyPath) -> list[VideoResult]:
    """Return what was written, equal to what ``classify`` gave: of several records of one input, the last.

    ``paths`` are jsonl or json files, such as the shards of one run, and folders with all jsonl files below them. Raise
    UsageError where one cannot be read, holds anything else, or a folder has no such file. A file that ends within a
    record, as one does that is being written, gives all before it, and the logger ``vadis`` a warning.
    """
    return list(LastResults(results_files(map(Path, paths))))


def results_files(paths: Iterable[Path], extensions: tuple[str, ...] = (".jsonl", ".ndjson")) -> list[Path]:
    """Return files and those below folders that have one of these extensions; UsageError for a folder without one."""
    found = list[Path]()
    for path in paths:
        below = files_below(path, extensions) if path.is_dir() else [path]
        if not below:
            hint = "give the folder or the files that `vadis classify` wrote as jsonl or json"
            raise UsageError(f"{printable(str(path))} holds no results", hint)
        found += below
    return found


def results_in(path: Path, kind: type[VideoResult] = VideoResult, *, warns: bool = True) -> Iterator[VideoResult]:
    """Yield all records of a file, in its order, also those that later ones replace.

    It is jsonl, with or without a header, or a json array. If it ends within a record, that is left out, which the
    logger is told. Raises UsageError for what cannot be read or holds no records, and for any other damaged line.
    """
    shown = printable(str(path))
    with os_errors_as(UsageError, f"{shown} cannot be read"), open_text(path) as file:
        start = file.tell()
        is_array = file.read(1) == "["
        file.seek(start)
        if is_array:
            yield from _parse_array(shown, file.read(), kind)
            return
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            try:
                values = parse_json(line)
            except ValueError:
                if number > 1 and not line.endswith("\n"):
                    if warns:
                        _log.warning("%s ends within a record, which is left out", shown)
                    return
                values = None
            if not (isinstance(values, dict) and HEADER_KEY in values and "path" not in values):
                yield _parse_record(values, f"{shown}, line {number},", kind)


def _parse_array(shown: str, content: str, kind: type[VideoResult]) -> Iterator[VideoResult]:
    try:
        every = parse_json(content)
    except ValueError as error:
        hint = "make it again by the command that wrote it, or give the jsonl file that it was exported from"
        raise UsageError(f"{shown} is damaged: not a whole JSON array", hint) from error
    for number, values in enumerate(every, 1):
        yield _parse_record(values, f"{shown}, record {number},", kind)


def _parse_record(values: Any, place: str, kind: type[VideoResult]) -> VideoResult:
    try:
        return kind.from_json(values)
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{place} is not a record of vadis", "give what it wrote as jsonl or json") from error


def folders_below(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield every folder with its folders, which may be taken out, and files, as ``os.walk`` does, however deep it is.

    Before Python 3.12 ``os.walk`` calls itself for each level, and ``Path.rglob`` for each pattern and level.
    """
    pending = [str(root)]
    while pending:
        for place, folders, files in islice(os.walk(pending.pop()), 1):
            yield Path(place), folders, files
            below = (os.path.join(place, folder) for folder in reversed(folders))  # noqa: PTH118
            pending += [path for path in below if not os.path.islink(path)]  # noqa: PTH114


def files_below(root: Path, extensions: tuple[str, ...]) -> list[Path]:
    """Return the files below a folder that have one of these extensions, in order."""
    found = (place / file for place, _, files in folders_below(root) for file in files if file.endswith(extensions))
    return sorted(path for path in found if path.is_file())


class LastResults:
    """The last record of every input that files have: read again whenever it is iterated over, never all in memory.

    ``paths`` are the inputs of ``files``, in the order of their first records. Raises UsageError as ``results_in``, and
    for what can be read once alone.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        for file in files:
            if file == Path("-") or (file.exists() and not file.is_file() and not file.is_dir()):
                hint = "save it to a file, and give that"
                raise UsageError(f"{printable(str(file))} is no file, and results are read more than once", hint)
        self.files = files
        self._counts = Counter(result.path for file in files for result in results_in(file))
        self.paths = tuple(self._counts)

    def __iter__(self) -> Iterator[VideoResult]:
        left = self._counts.copy()
        for file in self.files:
            for result in results_in(file, warns=False):
                left[result.path] -= 1
                if not left[result.path]:
                    yield result
