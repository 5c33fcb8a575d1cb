"""Where records go: stdout, a file, or a folder with one file per video.

What can be refused is refused by the ``check_`` functions, before a model is loaded. Documents appear under their name
when they are whole (a temporary file beside them, then a rename). A pipe or device is written to piece by piece, and a
results file that a run can go on with is a journal (``vadis.batch.journal``).
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

from vadis.cli.terminal import show, warn
from vadis.errors import UsageError, VadisError
from vadis.files import os_errors_as, temporary_beside, write_all
from vadis.formats import FORMATS, Format
from vadis.results import VideoResult
from vadis.video.sources import VIDEO_EXTENSIONS

_MAX_NAME_BYTES = 200  # file systems take 255; the name of the temporary file needs some of them

FILE_EXTENSIONS = (
    *(f".{name}" for name in FORMATS),
    *(".txt", ".xlsx", ".html", ".npz", ".npy", ".h5", ".pt", ".safetensors", ".zip", ".png"),
    *VIDEO_EXTENSIONS,
)
"""What a folder that vadis makes is not called: whoever types that expects a file."""

Write = Callable[[bytes], object]


def refuse_both(output: Path | None, folder: Path | None) -> None:
    """Raises UsageError where a file and a folder are asked for at once."""
    if output and folder:
        raise UsageError(
            "--output and --output-dir exclude each other", hint="-o writes one file for all, --output-dir one for each"
        )


def refuse_several(name: str, form: Format, num_videos: int) -> None:
    """Raises UsageError where a document of this format has no room for so many videos."""
    if form.one_video and num_videos > 1:
        hint = "add --output-dir to get one file per video"
        raise UsageError(f"a {name} document has room for one video, and there are {num_videos}", hint=hint)


def extension_of(name: str) -> str:
    """Of a document in the format ``name``."""
    return "txt" if name == "table" else name


def check_extension(path: Path, extensions: tuple[str, ...]) -> None:
    """Raise UsageError where ``path`` has an extension, and it promises something else than what is written."""
    if path.suffix and path.suffix.lower() not in extensions:
        raise UsageError(
            f"{show(path)} is not the name of what is written here", hint=f"let it end with {' or '.join(extensions)}"
        )


def check_folder_name(folder: Path) -> None:
    """Raise UsageError where a new folder would have the name of a file."""
    if folder.suffix.lower() in FILE_EXTENSIONS and not folder.exists():
        hint = f"name a folder: {show(folder.with_suffix(''))}/"
        raise UsageError(f"{show(folder)} is the name of a file, and a folder is written here", hint)


def check_file(path: Path, overwrite: bool) -> None:
    """Raises UsageError where ``path`` cannot become the output, or may not because it exists."""
    if path.is_dir():
        raise UsageError(f"{show(path)} is a folder", hint="name a file, or use --output-dir for one file per video")
    if path.is_file() and not overwrite:
        raise UsageError(f"{show(path)} exists already", hint="add --overwrite to replace it, or choose another name")
    folder = path.parent
    if not folder.is_dir():
        raise UsageError(f"the folder {show(folder)} does not exist", hint="create it first")
    target = path if path.exists() else folder
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
        raise UsageError(f"the folder {show(folder)} cannot be written to", hint="choose another with --output-dir")
    try:
        yield
    finally:
        with suppress(OSError):  # not empty
            for each in made:
                each.rmdir()


def check_targets(targets: Iterable[Path], overwrite: bool) -> None:
    """Raises UsageError where any of ``targets`` exists and may not."""
    taken = [] if overwrite else [target for target in targets if target.exists()]
    if taken:
        more = f", and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise UsageError(f"{show(taken[0])} exists already{more}", hint="add --overwrite, or choose another folder")


def to_stdout(form: Format, results: Iterable[VideoResult]) -> None:
    """Write every piece as soon as it is there."""
    with writing("stdout"):
        for piece in form.write(results):
            sys.stdout.write(piece)
            sys.stdout.flush()


def to_file(
    path: Path, form: Format, results: Iterable[VideoResult], is_whole: Callable[[], bool] = lambda: True
) -> None:
    """Write one document; raises VadisError where the disk refuses, and then leaves no half document behind.

    Where it does not turn out to be whole, what there is of it is kept beside ``path``, and that is said.
    """
    is_special = path.exists() and not path.is_file()  # a device or pipe cannot be renamed onto
    num_written = 0

    def counted() -> Iterator[VideoResult]:
        nonlocal num_written
        for result in results:
            yield result
            num_written += 1

    def place() -> Path | None:
        if is_whole():
            return path
        return path.with_name(f"{path.stem}.incomplete{path.suffix}") if num_written else None

    with writing(show(path)), _growing(path) if is_special else _replacing(path, place) as write:
        for piece in form.write(counted()):
            write(piece.encode())
    if not is_whole() and not is_special:
        kept = place()
        there = f"; what there is so far is in {show(kept)}" if kept else ""
        warn(f"{show(path)} is not written, because it is not complete{there}")


def to_folder(target_of: Callable[[str], Path], form: Format, results: Iterable[VideoResult]) -> None:
    """Write one document per result; a subtitle file for a video without labels would say nothing and is left out."""
    for result in results:
        if form.one_video and result.status == "error":
            continue
        target = target_of(result.path)
        with writing(show(target)):
            target.parent.mkdir(parents=True, exist_ok=True)
        to_file(target, form, [result])


def tree_root(inputs: Iterable[str], videos: Iterable[str]) -> str:
    """The folder whose tree is mirrored: the deepest that holds every folder given and every other video."""
    roots = [os.path.abspath(given) for given in inputs if Path(given).is_dir()]  # noqa: PTH100 (keeps symlinks)
    for video in videos:
        path = os.path.abspath(video)  # noqa: PTH100
        if not any(_is_below(path, root) for root in roots):
            roots.append(os.path.dirname(path))  # noqa: PTH120
    return os.path.commonpath(roots or [os.getcwd()])  # noqa: PTH109


def mirrored(folder: Path, root: str, extension: str, video: str) -> Path:
    """The place of ``video``'s document: its path below ``root``, below ``folder``, with one more extension.

    The video's own extension stays, so that a.mp4 and a.mkv do not meet. Raises VadisError rather than leave
    ``folder``, be it by ``..`` or by a symbolic link inside it.
    """
    relative = Path(os.path.relpath(os.path.abspath(video), root))  # noqa: PTH100
    target = folder / relative.with_name(_fitting(relative.name, extension))
    if ".." in relative.parts or not target.parent.resolve().is_relative_to(folder.resolve()):
        hint = "choose a new folder: in this one a symbolic link leads elsewhere"
        raise VadisError(f"the output of {show(video)} would lie outside {show(folder)}", hint)
    return target


def _is_below(path: str, root: str) -> bool:
    return os.path.commonpath([path, root]) == root


def _fitting(name: str, extension: str) -> str:
    """``name.extension``, a name too long for a file system shortened to its beginning and a digest of the whole."""
    encoded = os.fsencode(name)
    if len(encoded) + 1 + len(extension) <= _MAX_NAME_BYTES:
        return f"{name}.{extension}"
    return f"{encoded[:150].decode(errors='ignore')}-{hashlib.sha256(encoded).hexdigest()[:12]}.{extension}"


def writing(place: str) -> AbstractContextManager[None]:
    """Turn what the operating system refuses in this block into an error that names ``place``."""
    return os_errors_as(VadisError, f"cannot write to {place}")


@contextmanager
def _growing(path: Path) -> Iterator[Write]:
    """Each piece written at once and whole."""
    with path.open("wb", buffering=0) as file:
        yield partial(write_all, file.fileno())


@contextmanager
def _replacing(path: Path, place: Callable[[], Path | None]) -> Iterator[Write]:
    """A temporary file beside ``path`` that becomes ``place()`` when all is written and on the disk, None: nothing."""
    with temporary_beside(path) as (temporary, file):
        yield file.write
        file.flush()
        os.fsync(file.fileno())
        if target := place():
            temporary.replace(target)
