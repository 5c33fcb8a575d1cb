"""Where records go, and what a run finds there that an earlier one left.

A jsonl file (``-o labels.jsonl``) and a folder (``--output-dir``) have a journal (``vadis.batch``): the same
command goes on where the last one ended. Every other document appears under its name when it is whole; a pipe or device
is written to piece by piece. What can be refused is refused before a model is loaded.
"""

import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import vadis
from vadis.batch import TRANSIENT_ERRORS, Journal, PartitionedJournal, Shard, Summary, changes, open_journal, open_parts
from vadis.cli.terminal import info, show, warn
from vadis.errors import UsageError, VadisError
from vadis.files import locked, os_errors_as, write_atomic
from vadis.formats import FORMATS, Format, above
from vadis.results import VideoResult
from vadis.video.sources import VIDEO_EXTENSIONS, Source, Stamp

_OTHER_FILES = (".txt", ".xlsx", ".html", ".npz", ".npy", ".h5", ".pt", ".safetensors", ".zip", ".png")


@dataclass(frozen=True)
class DocumentFolder:
    """A folder with a document for each video, in the tree of the inputs."""

    folder: Path
    root: str  # of that tree
    form: Format
    videos: Sequence[str]  # that all have their document there

    @cached_property
    def _stems(self) -> Counter[str]:
        return Counter(os.path.splitext(video)[0] for video in self.videos)  # noqa: PTH122

    def target(self, video: str) -> Path:
        """Return the path of a video's document; subtitles take the video's stem where no other video shares it."""
        stem = os.path.splitext(video)[0]  # noqa: PTH122
        name = self.form.name.replace("table", "txt")
        has_own_stem = self.form.one_video and self._stems[stem] == 1
        return mirror_path(self.folder, self.root, name, stem if has_own_stem else video)

    def check(self, videos: Iterable[str], overwrite: bool) -> None:
        """Raise UsageError where the document of a video exists and may not."""
        taken = [] if overwrite else [target for target in map(self.target, videos) if target.exists()]
        if taken:
            more = f", and {len(taken) - 1} more" if len(taken) > 1 else ""
            raise UsageError(f"{show(taken[0])} exists already{more}", hint="add --overwrite, or choose another folder")

    def has_document(self, status: str) -> bool:
        """Return whether a record of this status has a document: subtitles for a failed video would say nothing."""
        return not (self.form.one_video and status == "error")

    def write(self, results: Iterable[VideoResult]) -> None:
        """Write the documents of ``results``, each whole."""
        for result in results:
            if self.has_document(result.status):
                write_document(self.target(result.path), self.form, [result])


@dataclass
class Destination:
    """What a run of ``classify`` writes to: one document, or a journal, with which the same command goes on."""

    output: Path | None
    output_dir: Path | None
    form: Format
    shard: Shard | None
    threshold: float  # below it, labels are left out
    overwrite: bool
    retry_failed: bool
    in_parts: bool = False  # ``output`` is a folder of journals
    journal: Journal | PartitionedJournal | None = None
    folder: DocumentFolder | None = None  # of a document for each record of the journal

    @contextmanager
    def open(self, inputs: list[str], videos: list[str]) -> Iterator[None]:
        """Open the document, folder or journal for this run alone; raise UsageError where it cannot be written.

        ``inputs`` are as they were given, ``videos`` what they stand for, in all shards.
        """
        refuse_combination(self.form, self.output, self.output_dir, len(videos))
        with ExitStack() as stack:
            if self.in_parts:
                if self.output is None or self.form.name != "jsonl" or self.output.is_file():
                    raise UsageError("--ray writes jsonl into a folder", hint="name one: -o results/")
                stack.enter_context(new_folder(self.output))
                self.journal = stack.enter_context(open_parts(self.output, overwrite=self.overwrite))
            elif self.output_dir:
                stack.enter_context(new_folder(self.output_dir))
                self.folder = DocumentFolder(self.output_dir, tree_root(inputs, videos), self.form, videos)
                path = self._shard_path(self.output_dir / "vadis-results.jsonl")
                self.journal = journal = stack.enter_context(open_journal(path, overwrite=self.overwrite))
                if journal.is_empty:
                    own = (video for video in videos if self.shard is None or self.shard.has(video))
                    self.folder.check(own, self.overwrite)
            elif self.output is not None:
                self.output = self._shard_path(self.output)
                is_special = self.output.exists() and not self.output.is_file()
                is_journal = self.form.name == "jsonl" and not is_special
                check_file(self.output, self.overwrite or is_journal)
                if is_journal:
                    self.journal = stack.enter_context(open_journal(self.output, overwrite=self.overwrite))
                elif not is_special:
                    stack.enter_context(locked(self.output))
            yield

    def _shard_path(self, path: Path) -> Path:
        return path if self.shard is None else self.shard.own(path)

    def notice(self) -> str:
        """Return the closing message: where the output is, and which commands read it; "" for stdout."""
        place = self.output_dir or self.output
        if place is None:
            return ""
        is_readable = self.form.name in ("jsonl", "json") and not self.output_dir
        then = f"; next: vadis report {show(place)}, or vadis find {show(place)} 'playing *'" if is_readable else ""
        return f"written: {show(place)}{then}"

    def begin(
        self, settings: dict[str, Any], sources: Sequence[Source], stamp: Callable[[str], Stamp]
    ) -> tuple[Sequence[Source], Summary]:
        """Return the inputs that are still to be done and a summary of the rest; write missing documents of the rest.

        An input counts as unchanged if its size and time of change, which ``stamp`` returns, are those of its record.
        """
        summary = Summary(len(sources))
        if self.journal is None:
            return sources, summary
        from importlib.metadata import version

        versions = {"vadis": vadis.__version__, "torch": version("torch"), "av": version("av")}
        versions["python"] = platform.python_version()
        if changed := changes(self.journal.begin(settings, versions), versions):
            info(f"goes on with results of other versions: {changed}")
        if self.journal.num_damaged:
            warn(f"{self.journal.num_damaged} damaged lines of the results are left out; their videos are done again")
        pending, lacking, folder = [], set[str](), self.folder
        for source in sources:
            entry = self.journal.entries.get(source.path)
            if (
                entry is None
                or (entry.source_bytes, entry.source_mtime) != stamp(source.path)
                or (entry.status == "error" and (self.retry_failed or entry.error_code in TRANSIENT_ERRORS))
            ):
                pending.append(source)
                continue
            summary.add(entry)
            if folder and folder.has_document(entry.status) and not folder.target(source.path).is_file():
                lacking.add(source.path)
        if folder and isinstance(self.journal, Journal):
            folder.write(self.journal.results(lacking))
        return pending, summary

    def write(self, records: Iterable[VideoResult], is_whole: Callable[[], bool]) -> None:
        """Write records as they come; ``is_whole`` tells at their end whether every input has its record."""
        results = (above(record, self.threshold) for record in records)
        if self.journal is not None:
            for result in results:
                if self.folder:  # before the record: what has a record is whole
                    self.folder.write([result])
                self.journal.append(result)
            if is_whole() and isinstance(self.journal, Journal):
                self.journal.finish()
        else:
            write_document(self.output, self.form, results, is_whole)


def refuse_combination(form: Format, output: Path | None, folder: Path | None, num_videos: int) -> None:
    """Raise UsageError for a file and a folder at once, or a document that has no room for so many videos."""
    if output and folder:
        hint = "-o writes one file for all, --output-dir one for each"
        raise UsageError("--output and --output-dir exclude each other", hint)
    if form.one_video and num_videos > 1 and not folder:
        hint = "add --output-dir to get one file per video"
        raise UsageError(f"a {form.name} document has room for one video, and there are {num_videos}", hint=hint)


def check_folder_name(folder: Path) -> None:
    """Raise UsageError where a new folder would have the name of a file: whoever types that expects one."""
    is_file_name = folder.suffix.lower() in (*(f".{name}" for name in FORMATS), *VIDEO_EXTENSIONS, *_OTHER_FILES)
    if is_file_name and not folder.exists():
        hint = f"name a folder: {show(folder.with_suffix(''))}/"
        raise UsageError(f"{show(folder)} is the name of a file, and a folder is written here", hint)


def check_file(path: Path, overwrite: bool, source: str | None = None, extensions: tuple[str, ...] = ()) -> None:
    """Raise UsageError where ``path`` cannot become the output, or may not: it exists, is the source, or misleads."""
    if extensions and path.suffix and path.suffix.lower() not in extensions:
        hint = f"let it end with {' or '.join(extensions)}"
        raise UsageError(f"{show(path)} has the wrong extension for what is written here", hint)
    if path.is_dir():
        raise UsageError(f"{show(path)} is a folder", hint="name a file, or use --output-dir for one file per video")
    if path.is_file() and not overwrite:
        raise UsageError(f"{show(path)} exists already", hint="add --overwrite to replace it, or choose another name")
    if not path.parent.is_dir():
        raise UsageError(f"the folder {show(path.parent)} does not exist", hint="create it first")
    target = path if path.exists() else path.parent
    if not os.access(target, os.W_OK):
        raise UsageError(f"{show(target)} cannot be written to", hint="choose another place with -o")
    if source is not None and os.path.realpath(path) == os.path.realpath(source):
        raise UsageError("the new video would replace the old one", hint="choose another name with -o")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Create ``folder``, and remove it after the block if it is empty; raise UsageError if it cannot be created."""
    check_folder_name(folder)
    created = [each for each in (folder, *folder.parents) if not each.exists()]
    with os_errors_as(UsageError, f"the folder {show(folder)} cannot be made"):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"the folder {show(folder)} cannot be written to", hint="choose another folder")
    try:
        yield folder
    finally:
        with suppress(OSError):  # not empty
            for each in created:
                each.rmdir()


def writing(place: str) -> AbstractContextManager[None]:
    """Turn what the operating system refuses in this block into an error that names ``place``."""
    return os_errors_as(VadisError, f"cannot write to {place}")


def write_document(
    path: Path | None, form: Format, results: Iterable[VideoResult], is_whole: Callable[[], bool] = lambda: True
) -> None:
    """Write one document: to stdout, a device or a pipe in pieces, to a file whole.

    If ``is_whole`` returns False at the end, the records so far go to ``NAME.incomplete.EXTENSION`` beside ``path``.
    """
    if path is None or (path.exists() and not path.is_file()):  # which cannot be renamed onto
        with (
            writing(show(path or "stdout")),
            path.open("w", encoding="utf-8") if path else nullcontext(sys.stdout) as file,
        ):
            for piece in form.write(results):
                file.write(piece)
                file.flush()
        return
    num_written, part = 0, path.with_name(f"{path.stem}.incomplete{path.suffix}")

    def counted() -> Iterator[VideoResult]:
        nonlocal num_written
        for num_written, result in enumerate(results, 1):  # noqa: B007
            yield result

    place = lambda: path if is_whole() else part if num_written else None  # noqa: E731
    with writing(show(path)), write_atomic(path, place) as stream:
        stream.writelines(piece.encode() for piece in form.write(counted()))
    if not is_whole():
        there = f"; what there is so far is in {show(part)}" if num_written else ""
        warn(f"{show(path)} is not written, because it is not complete{there}")


def tree_root(inputs: Iterable[str], videos: Iterable[str]) -> str:
    """Return the folder whose tree is mirrored: the deepest that holds every folder given and every other video."""
    roots = [os.path.abspath(given) for given in inputs if Path(given).is_dir()]  # noqa: PTH100 (keeps symlinks)
    for video in videos:
        path = os.path.abspath(video)  # noqa: PTH100
        if not any(os.path.commonpath([path, root]) == root for root in roots):
            roots.append(os.path.dirname(path))  # noqa: PTH120
    return os.path.commonpath(roots or [os.getcwd()])  # noqa: PTH109


def mirror_path(folder: Path, root: str, extension: str, video: str) -> Path:
    """Return the place of a video's document: its path below ``root``, below ``folder``, with one more extension.

    A name too long for a file system is shortened to its beginning and a digest of the whole. Raises VadisError rather
    than leave ``folder``, be it by ``..`` or by a symbolic link inside it.
    """
    relative = Path(os.path.relpath(os.path.abspath(video), root))  # noqa: PTH100
    name = os.fsencode(relative.name)
    if len(name) + 1 + len(extension) > 200:  # file systems take 255; a temporary file's name needs some of them
        from hashlib import sha256

        kept = name[: 186 - len(extension)].decode(errors="ignore")
        relative = relative.with_name(f"{kept}-{sha256(name).hexdigest()[:12]}")
    target = folder / relative.with_name(f"{relative.name}.{extension}")
    if ".." in relative.parts or not target.parent.resolve().is_relative_to(folder.resolve()):
        hint = "choose a new folder: in this one a symbolic link leads elsewhere"
        raise VadisError(f"the output of {show(video)} would lie outside {show(folder)}", hint)
    return target
