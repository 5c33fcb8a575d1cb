"""Where records go, and what a run finds there that an earlier one left.

A jsonl file (``-o labels.jsonl``) and a folder (``--output-dir``) have a journal (``vadis.batch.journal``): the same
command goes on where the last one ended. Every other document appears under its name when it is whole; a pipe or device
is written to piece by piece. What can be refused is refused before a model is loaded.
"""

import hashlib
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vadis
from vadis.batch.journal import PASSING_ERRORS, Entry, Journal, open_journal
from vadis.batch.shards import Parts, Shard, open_parts
from vadis.cli.terminal import info, show, warn
from vadis.errors import UsageError, VadisError
from vadis.files import locked, os_errors_as, write_all, write_atomic
from vadis.formats import FORMATS, Format
from vadis.results import VideoResult
from vadis.video.sources import VIDEO_EXTENSIONS

if TYPE_CHECKING:
    from vadis.batch.summary import Summary
    from vadis.video.sources import Source, Stamp

FOLDER_JOURNAL = "vadis-results.jsonl"
"""The journal of an ``--output-dir``: every record, beside the documents made of them."""

FILE_EXTENSIONS = (
    *(f".{name}" for name in FORMATS),
    *(".txt", ".xlsx", ".html", ".npz", ".npy", ".h5", ".pt", ".safetensors", ".zip", ".png"),
    *VIDEO_EXTENSIONS,
)
"""What a folder that vadis makes is not called: whoever types that expects a file."""

_MAX_NAME_BYTES = 200  # file systems take 255; the name of the temporary file needs some of them


class DocumentStream:
    """A document that begins and ends with the run."""

    goes_on = False

    def __init__(self, write: Callable[[Iterable[VideoResult], Callable[[], bool]], None]) -> None:
        self.write = write

    def begin(self, settings: dict[str, Any], sources: Sequence["Source"], summary: "Summary") -> list["Source"]:
        """Return all of them."""
        return list(sources)

    def finish(self) -> None:
        """Nothing is left to do."""


@dataclass
class Journaled:
    """A journal, with which the same command goes on, and with ``--output-dir`` a document for each of its records."""

    journal: Journal | Parts
    place: "OutputOptions"
    write_document: Callable[[VideoResult], None] | None = None
    lacks_document: Callable[[str, Entry], bool] = lambda path, entry: False
    goes_on = True

    def begin(self, settings: dict[str, Any], sources: Sequence["Source"], summary: "Summary") -> list["Source"]:
        """Return the inputs without a record that counts, and make documents that are missing of the other records."""
        versions = _versions()
        before = self.journal.begin(settings, versions, overwrite=self.place.overwrite)
        if before != versions:
            then, now = (", ".join(f"{name} {number}" for name, number in each.items()) for each in (before, versions))
            info(f"goes on with results of other versions: {then}, now {now}")
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
        """Write the document before the record: what has a record is whole."""
        for result in results:
            if self.write_document is not None:
                self.write_document(result)
            self.journal.append(result)

    def finish(self) -> None:
        """Leave one record per input."""
        self.journal.finish()

    def _entry_that_counts(self, source: "Source") -> Entry | None:
        if source.path not in self.journal.entries:
            return None
        entry = self.journal.entries.matching(source.path, self.place.stamp(source.path))
        if entry is None or entry.status != "error":
            return entry
        return None if self.place.retry_failed or entry.error_code in PASSING_ERRORS else entry


Destination = DocumentStream | Journaled
"""What ``classify`` writes to.

``begin`` returns the inputs to be done, and counts in a summary those that are done already. ``write`` takes records as
they come, and at their end asks whether they are all that were wanted. ``finish`` follows when every input has its
record. ``goes_on``: whether the same command goes on after an interruption.
"""


@dataclass(frozen=True)
class OutputOptions:
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
        """Yield the destination of a run, checked as far as that can be done beforehand, and held by this run alone.

        Args:
            name: of the format.
            form: the format.
            inputs: as they were given.
            videos: what they stand for, in all shards.

        Raises:
            UsageError: the output cannot be, or is there already and may not be replaced.
            OutputLockedError: another run writes it.
        """
        refuse_both(self.output, self.output_dir)
        with ExitStack() as stack:
            if self.in_parts:
                if self.output is None or name != "jsonl" or self.output.is_file():
                    raise UsageError("--ray writes jsonl into a folder", hint="name one: -o results/")
                stack.enter_context(new_folder(self.output))
                yield Journaled(stack.enter_context(open_parts(self.output)), self)
            elif self.output_dir:
                yield self._folder(stack, self.output_dir, name, form, inputs, videos)
            else:
                refuse_several(name, form, len(videos))
                yield self._file(stack, name, form)

    def _file(self, stack: ExitStack, name: str, form: Format) -> Destination:
        if self.output is None:
            return DocumentStream(lambda results, is_whole: to_stdout(form, results))
        path = self._own(self.output)
        is_special = path.exists() and not path.is_file()
        is_journal = name == "jsonl" and not is_special
        check_file(path, self.overwrite or is_journal)
        if is_journal:
            return Journaled(self._journal(stack, path), self)
        if not is_special:
            stack.enter_context(locked(path))
        return DocumentStream(partial(to_file, path, form))

    def _folder(
        self, stack: ExitStack, folder: Path, name: str, form: Format, inputs: list[str], videos: list[str]
    ) -> Destination:
        target_of = partial(mirrored, folder, tree_root(inputs, videos), extension_of(name))
        stack.enter_context(new_folder(folder))
        journal = self._journal(stack, folder / self._own(Path(FOLDER_JOURNAL)))
        if journal.is_empty:
            own = (video for video in videos if self.shard is None or self.shard.has(video))
            check_targets(map(target_of, own), self.overwrite)

        def lacks_document(path: str, entry: Entry) -> bool:
            return not (form.one_video and entry.status == "error") and not target_of(path).is_file()

        return Journaled(journal, self, lambda result: to_folder(target_of, form, [result]), lacks_document)

    def _journal(self, stack: ExitStack, path: Path) -> Journal:
        journal = stack.enter_context(open_journal(path))
        if journal.is_foreign and not self.overwrite:
            message = f"{show(path)} exists already, and is not a results file that a run can continue"
            raise UsageError(message, hint="add --overwrite to replace it, or choose another name")
        return journal

    def _own(self, path: Path) -> Path:
        return path if self.shard is None else self.shard.own(path)


def _versions() -> dict[str, str]:
    """Return the versions of what computes the numbers of a record."""
    from importlib.metadata import version

    libraries = {name: version(name) for name in ("torch", "av")}
    return {"vadis": vadis.__version__, **libraries, "python": platform.python_version()}


def refuse_both(output: Path | None, folder: Path | None) -> None:
    """Raise UsageError where a file and a folder are asked for at once."""
    if output and folder:
        hint = "-o writes one file for all, --output-dir one for each"
        raise UsageError("--output and --output-dir exclude each other", hint)


def refuse_several(name: str, form: Format, num_videos: int) -> None:
    """Raise UsageError where a document of this format has no room for so many videos."""
    if form.one_video and num_videos > 1:
        hint = "add --output-dir to get one file per video"
        raise UsageError(f"a {name} document has room for one video, and there are {num_videos}", hint=hint)


def extension_of(name: str) -> str:
    """Return the extension of a document in the format ``name``."""
    return "txt" if name == "table" else name


def check_extension(path: Path, extensions: tuple[str, ...]) -> None:
    """Raise UsageError where ``path`` has an extension, and it promises something else than what is written."""
    if path.suffix and path.suffix.lower() not in extensions:
        hint = f"let it end with {' or '.join(extensions)}"
        raise UsageError(f"{show(path)} has the wrong extension for what is written here", hint)


def check_folder_name(folder: Path) -> None:
    """Raise UsageError where a new folder would have the name of a file."""
    if folder.suffix.lower() in FILE_EXTENSIONS and not folder.exists():
        hint = f"name a folder: {show(folder.with_suffix(''))}/"
        raise UsageError(f"{show(folder)} is the name of a file, and a folder is written here", hint)


def check_file(path: Path, overwrite: bool) -> None:
    """Raise UsageError where ``path`` cannot become the output, or may not because it exists."""
    if path.is_dir():
        raise UsageError(f"{show(path)} is a folder", hint="name a file, or use --output-dir for one file per video")
    if path.is_file() and not overwrite:
        raise UsageError(f"{show(path)} exists already", hint="add --overwrite to replace it, or choose another name")
    if not path.parent.is_dir():
        raise UsageError(f"the folder {show(path.parent)} does not exist", hint="create it first")
    target = path if path.exists() else path.parent
    if not os.access(target, os.W_OK):
        raise UsageError(f"{show(target)} cannot be written to", hint="choose another place with -o")


def refuse_source(output: Path, source: str) -> None:
    """Raise UsageError where a new video would take the place of the one that it is made of."""
    if os.path.realpath(output) == os.path.realpath(source):
        raise UsageError("the new video would replace the old one", hint="choose another name with -o")


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Make ``folder`` for this block; what was made of it is taken away again if nothing has come to lie in it.

    Raises:
        UsageError: it cannot be made or written, or has the name of a file.
    """
    check_folder_name(folder)
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    with os_errors_as(UsageError, f"the folder {show(folder)} cannot be made"):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"the folder {show(folder)} cannot be written to", hint="choose another folder")
    try:
        yield
    finally:
        with suppress(OSError):  # not empty
            for each in made:
                each.rmdir()


def check_targets(targets: Iterable[Path], overwrite: bool) -> None:
    """Raise UsageError where any of ``targets`` exists and may not."""
    taken = [] if overwrite else [target for target in targets if target.exists()]
    if taken:
        more = f", and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise UsageError(f"{show(taken[0])} exists already{more}", hint="add --overwrite, or choose another folder")


def writing(place: str) -> AbstractContextManager[None]:
    """Turn what the operating system refuses in this block into an error that names ``place``."""
    return os_errors_as(VadisError, f"cannot write to {place}")


def to_stdout(form: Format, results: Iterable[VideoResult]) -> None:
    """Write every piece as soon as it is there."""
    with writing("stdout"):
        for piece in form.write(results):
            sys.stdout.write(piece)
            sys.stdout.flush()


def to_file(
    path: Path, form: Format, results: Iterable[VideoResult], is_whole: Callable[[], bool] = lambda: True
) -> None:
    """Write one document; raise VadisError where the disk refuses, and then leave no half document behind.

    Where it does not turn out to be whole, what there is of it is kept beside ``path``, and that is said.
    """
    num_written, part = 0, path.with_name(f"{path.stem}.incomplete{path.suffix}")

    def place() -> Path | None:
        return path if is_whole() else part if num_written else None

    def counted() -> Iterator[VideoResult]:
        nonlocal num_written
        for result in results:
            yield result
            num_written += 1

    with writing(show(path)):
        if path.exists() and not path.is_file():  # a device or pipe, which cannot be renamed onto
            with path.open("wb", buffering=0) as file:
                for piece in form.write(results):
                    write_all(file.fileno(), piece.encode())
            return
        with write_atomic(path, place) as stream:
            for piece in form.write(counted()):
                stream.write(piece.encode())
    if not is_whole():
        there = f"; what there is so far is in {show(part)}" if num_written else ""
        warn(f"{show(path)} is not written, because it is not complete{there}")


def to_folder(target_of: Callable[[str], Path], form: Format, results: Iterable[VideoResult]) -> None:
    """Write one document per result; a subtitle file for a video without labels would say nothing and is left out."""
    for result in results:
        if not (form.one_video and result.status == "error"):
            target = target_of(result.path)
            with writing(show(target)):
                target.parent.mkdir(parents=True, exist_ok=True)
            to_file(target, form, [result])


def tree_root(inputs: Iterable[str], videos: Iterable[str]) -> str:
    """Return the folder whose tree is mirrored: the deepest that holds every folder given and every other video."""
    roots = [os.path.abspath(given) for given in inputs if Path(given).is_dir()]  # noqa: PTH100 (keeps symlinks)
    for video in videos:
        path = os.path.abspath(video)  # noqa: PTH100
        if not any(os.path.commonpath([path, root]) == root for root in roots):
            roots.append(os.path.dirname(path))  # noqa: PTH120
    return os.path.commonpath(roots or [os.getcwd()])  # noqa: PTH109


def mirrored(folder: Path, root: str, extension: str, video: str) -> Path:
    """Return the place of a video's document: its path below ``root``, below ``folder``, with one more extension.

    The video's own extension stays, so that a.mp4 and a.mkv do not meet. A name too long for a file system is shortened
    to its beginning and a digest of the whole. Raises VadisError rather than leave ``folder``, be it by ``..`` or by a
    symbolic link inside it.
    """
    relative = Path(os.path.relpath(os.path.abspath(video), root))  # noqa: PTH100
    name = os.fsencode(relative.name)
    if len(name) + 1 + len(extension) > _MAX_NAME_BYTES:
        relative = relative.with_name(f"{name[:150].decode(errors='ignore')}-{hashlib.sha256(name).hexdigest()[:12]}")
    target = folder / relative.with_name(f"{relative.name}.{extension}")
    if ".." in relative.parts or not target.parent.resolve().is_relative_to(folder.resolve()):
        hint = "choose a new folder: in this one a symbolic link leads elsewhere"
        raise VadisError(f"the output of {show(video)} would lie outside {show(folder)}", hint)
    return target
