"""Where ``classify`` puts its records, and what a run finds there that an earlier one left.

A jsonl file (``-o labels.jsonl``) and a folder (``--output-dir``) have a journal (``vadis.batch.journal``): the same
command goes on where the last one ended. Of any other output nothing is there until it is whole.
"""

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vadis.batch.journal import PASSING_ERRORS, Entry, Journal, open_journal
from vadis.batch.parts import Parts, open_parts
from vadis.batch.shards import Shard
from vadis.cli import outputs
from vadis.cli.terminal import info, show, warn
from vadis.errors import UsageError
from vadis.files import locked
from vadis.formats import Format
from vadis.results import VideoResult

if TYPE_CHECKING:
    from vadis.batch.summary import Summary
    from vadis.video.sources import Source, Stamp

FOLDER_JOURNAL = "vadis-results.jsonl"
"""The journal of an ``--output-dir``: every record, beside the documents made of them."""


class Destination(Protocol):
    """What ``classify`` writes to."""

    goes_on: bool
    """Whether the same command goes on after an interruption."""

    def begin(self, settings: dict[str, Any], sources: Sequence["Source"], summary: "Summary") -> list["Source"]:
        """The inputs to be done; those that are done already are counted in ``summary``."""
        ...

    def write(self, results: Iterable[VideoResult], is_whole: Callable[[], bool]) -> None:
        """Write records as they come; ``is_whole`` says at their end whether they are all that were wanted."""
        ...

    def finish(self) -> None:
        """Every input has its record."""
        ...


class Stream:
    """A document that begins and ends with the run."""

    goes_on = False

    def __init__(self, write: Callable[[Iterable[VideoResult], Callable[[], bool]], None]) -> None:
        self.write = write

    def begin(self, settings: dict[str, Any], sources: Sequence["Source"], summary: "Summary") -> list["Source"]:
        """All of them."""
        return list(sources)

    def finish(self) -> None:
        """Nothing is left to do."""


@dataclass
class Journaled:
    """A journal, and with ``--output-dir`` a document for each of its records."""

    journal: Journal | Parts
    overwrite: bool
    retry_failed: bool
    stamp: "Callable[[str], Stamp]"
    write_document: Callable[[VideoResult], None] | None = None
    lacks_document: Callable[[str, Entry], bool] = lambda path, entry: False
    goes_on = True

    def begin(self, settings: dict[str, Any], sources: Sequence["Source"], summary: "Summary") -> list["Source"]:
        """The inputs without a record that counts; documents that are missing are made of the records there are."""
        begun_with = self.journal.begin(settings, _versions(), overwrite=self.overwrite)
        if begun_with != _versions():
            info(f"goes on with results of other versions: {_listed(begun_with)}, now {_listed(_versions())}")
        if self.journal.num_damaged:
            warn(f"{self.journal.num_damaged} damaged lines of the results are left out; their videos are done again")
        pending, lacking = [], set[str]()
        for source in sources:
            entry = self._entry_that_counts(source)
            if entry is None:
                pending.append(source)
                continue
            summary.add_before(entry)
            if self.lacks_document(source.path, entry):
                lacking.add(source.path)
        if lacking and self.write_document is not None:
            for result in self.journal.results(lacking):
                self.write_document(result)
        return pending

    def write(self, results: Iterable[VideoResult], is_whole: Callable[[], bool]) -> None:
        """The document before the record: what has a record is whole."""
        for result in results:
            if self.write_document is not None:
                self.write_document(result)
            self.journal.append(result)

    def finish(self) -> None:
        """Leave one record per input."""
        self.journal.finish()

    def _entry_that_counts(self, source: "Source") -> Entry | None:
        if not self.journal.has(source.path):
            return None
        entry = self.journal.entry(source.path, self.stamp(source.path))
        if entry is None or entry.status != "error":
            return entry
        return None if self.retry_failed or entry.error_code in PASSING_ERRORS else entry


@dataclass(frozen=True)
class Place:
    """What the options say of where records go."""

    output: Path | None
    output_dir: Path | None
    shard: Shard | None
    overwrite: bool
    retry_failed: bool
    stamp: "Callable[[str], Stamp]"  # by which a file is known again
    in_parts: bool = False  # ``output`` is a folder of journals

    @contextmanager
    def opened(self, name: str, form: Format, inputs: list[str], videos: list[str]) -> Iterator[Destination]:
        """The destination of a run, checked as far as that can be done beforehand, and held by this run alone.

        Args:
            name: of the format.
            form: the format.
            inputs: as they were given.
            videos: what they stand for, in all shards.

        Raises:
            UsageError: the output cannot be, or is there already and may not be replaced.
            OutputLockedError: another run writes it.
        """
        outputs.refuse_both(self.output, self.output_dir)
        if self.in_parts:
            if self.output is None or name != "jsonl" or self.output.is_file():
                raise UsageError("--ray writes jsonl into a folder", hint="name one: -o results/")
            with outputs.new_folder(self.output), open_parts(self.output) as parts:
                yield Journaled(parts, self.overwrite, self.retry_failed, self.stamp)
            return
        if self.output_dir:
            with self._folder(self.output_dir, name, form, inputs, videos) as journaled:
                yield journaled
            return
        outputs.refuse_several(name, form, len(videos))
        if self.output is None:
            yield Stream(lambda results, is_whole: outputs.to_stdout(form, results))
            return
        with self._file(self._own(self.output), name, form) as destination:
            yield destination

    def _own(self, path: Path) -> Path:
        return path if self.shard is None else self.shard.own(path)

    @contextmanager
    def _file(self, path: Path, name: str, form: Format) -> Iterator[Destination]:
        is_special = path.exists() and not path.is_file()
        is_journal = name == "jsonl" and not is_special
        outputs.check_file(path, self.overwrite or is_journal)
        if is_journal:
            with self._journal(path) as journal:
                yield Journaled(journal, self.overwrite, self.retry_failed, self.stamp)
            return
        with ExitStack() as held:
            if not is_special:
                with outputs.writing(show(path)):
                    held.enter_context(locked(path))
            yield Stream(partial(outputs.to_file, path, form))

    @contextmanager
    def _folder(
        self, folder: Path, name: str, form: Format, inputs: list[str], videos: list[str]
    ) -> Iterator[Destination]:
        target_of = partial(outputs.mirrored, folder, outputs.tree_root(inputs, videos), outputs.extension_of(name))

        def lacks_document(path: str, entry: Entry) -> bool:
            return not (form.one_video and entry.status == "error") and not target_of(path).is_file()

        with outputs.new_folder(folder), self._journal(folder / self._own(Path(FOLDER_JOURNAL))) as journal:
            if journal.is_empty:
                own = (video for video in videos if self.shard is None or self.shard.has(video))
                outputs.check_targets(map(target_of, own), self.overwrite)
            yield Journaled(
                journal,
                self.overwrite,
                self.retry_failed,
                self.stamp,
                write_document=lambda result: outputs.to_folder(target_of, form, [result]),
                lacks_document=lacks_document,
            )

    @contextmanager
    def _journal(self, path: Path) -> Iterator[Journal]:
        with open_journal(path) as journal:
            if journal.is_foreign and not self.overwrite:
                raise UsageError(
                    f"{show(path)} exists already, and is no results file that a run could go on with",
                    hint="add --overwrite to replace it, or choose another name",
                )
            yield journal


def _versions() -> dict[str, str]:
    """What computes the numbers of a record."""
    from importlib.metadata import version

    import vadis

    return {
        "vadis": vadis.__version__,
        "torch": version("torch"),
        "av": version("av"),
        "python": platform.python_version(),
    }


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())
