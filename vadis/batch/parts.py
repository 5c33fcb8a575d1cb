"""The journal of a run in parts, in a folder of its own: no file of it grows without end.

    results/part-00001.jsonl   10,000 records at most, each part a journal with its header (``vadis.batch.journal``)

One process writes them, a part after the other, whatever number of machines does the work: so a record that is there
is there once. Of several records of one input that of the last part counts.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from vadis.batch.journal import Entry, Journal, Remembered, open_journal
from vadis.errors import UsageError
from vadis.files import locked
from vadis.results import VideoResult, printable

PART_RECORDS = 10_000


class Parts(Remembered):
    """What ``Journal`` is, over a folder of them; made by ``open_parts``."""

    def __init__(self, folder: Path) -> None:
        self.num_damaged = 0
        self._folder = folder
        self._entries: dict[str, Entry] = {}
        self._header: tuple[Mapping[str, Any], Mapping[str, str]] = ({}, {})
        self._held = ExitStack()  # of the part that is written
        self._journal: Journal | None = None
        self._number = self._num_records = 0

    def begin(self, settings: Mapping[str, Any], versions: Mapping[str, str], *, overwrite: bool) -> dict[str, str]:
        """See ``Journal.begin``; every part must have been made with the same settings."""
        self._header = (settings, versions)
        begun_with = dict(versions)
        for path in sorted(self._folder.glob("part-*.jsonl")):
            if overwrite:
                path.unlink()
                continue
            with open_journal(path) as part:
                if part.is_foreign:
                    raise UsageError(f"{printable(str(path))} is no results file", hint="choose another folder")
                begun_with = part.begin(settings, versions, overwrite=False)
                self.num_damaged += part.num_damaged
                self._entries |= part.entries
                self._number, self._num_records = int(path.stem.removeprefix("part-")), len(part.entries)
        return begun_with

    def append(self, result: VideoResult) -> None:
        """See ``Journal.append``."""
        if self._journal is None or self._num_records >= PART_RECORDS:
            self._open_next()
        assert self._journal is not None
        self._journal.append(result)
        self._num_records += 1

    def results(self, paths: set[str]) -> Iterator[VideoResult]:
        """None: there are no documents beside the parts that could want them."""
        return iter(())

    def finish(self) -> None:
        """See ``Journal.finish``; earlier parts stay as they are."""
        if self._journal is not None:
            self._journal.finish()

    def close(self) -> None:
        """Leave everything that was written on the disk."""
        self._held.close()

    def _open_next(self) -> None:
        """The last part, if it has room, or a new one."""
        self._held.close()
        if self._number == 0 or self._num_records >= PART_RECORDS:
            self._number, self._num_records = self._number + 1, 0
        path = self._folder / f"part-{self._number:05}.jsonl"
        self._journal = self._held.enter_context(open_journal(path))
        settings, versions = self._header
        self._journal.begin(settings, versions, overwrite=False)


@contextmanager
def open_parts(folder: Path) -> Iterator[Parts]:
    """The parts in ``folder``, for this run alone.

    Raises:
        OutputLockedError: another run writes them.
        VadisError: the folder cannot be written.
    """
    with ExitStack() as held:
        held.enter_context(locked(folder / "parts"))
        parts = Parts(folder)
        held.callback(parts.close)
        yield parts
