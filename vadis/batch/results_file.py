"""Results files → results: what ``vadis classify`` wrote as jsonl or json, of one run or of the shards of one."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from vadis.batch.journal import HEADER_KEY
from vadis.errors import UsageError
from vadis.files import os_errors_as
from vadis.parsing import open_text, parse_json
from vadis.results import VideoResult, printable
from vadis.video.metadata import AnyPath

_log = logging.getLogger(__name__)


def read_results(*paths: AnyPath) -> list[VideoResult]:
    """Return what was written, equal to what ``classify`` gave: of several records of one input, the last.

    ``paths`` are jsonl or json files, such as the shards of one run, and folders with all jsonl files below them. Raise
    UsageError where one cannot be read, holds anything else, or a folder has no such file. A file that ends within a
    record, as one does that is being written, gives all before it, and the logger ``vadis`` a warning.
    """
    files = list[Path]()
    for path in map(Path, paths):
        below = files_below(path, (".jsonl", ".ndjson")) if path.is_dir() else [path]
        if not below:
            hint = "give the folder or the files that `vadis classify` wrote"
            raise UsageError(f"there are no results in {printable(str(path))}", hint)
        files += below
    return list(LastResults(files))


def results_in(path: Path, *, warns: bool = True) -> Iterator[VideoResult]:
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
            yield from _of_array(shown, file.read())
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
                yield _record(values, f"{shown}, line {number},")


def _of_array(shown: str, content: str) -> Iterator[VideoResult]:
    try:
        every = parse_json(content)
    except ValueError as error:
        hint = "make it again by the command that wrote it, or give the jsonl file that it was exported from"
        raise UsageError(f"{shown} is damaged: not a whole JSON array", hint) from error
    for number, values in enumerate(every, 1):
        yield _record(values, f"{shown}, record {number},")


def _record(values: Any, place: str) -> VideoResult:
    try:
        return VideoResult.from_json(values)
    except ValueError as error:
        hint = "give what vadis classify wrote as jsonl or json"
        raise UsageError(f"{place} is not a record of vadis classify", hint) from error


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
