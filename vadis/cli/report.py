"""``vadis report``: one page to look at, from results or from a training run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vadis.cli import options
from vadis.cli.outputs import check_extension, check_file, writing
from vadis.cli.terminal import info, settings, show, video_progress, warn
from vadis.errors import NothingToDoError, UsageError

if TYPE_CHECKING:
    from vadis.batch.results_file import LastResults

EPILOG = """
**Examples**

A page on an archive:  `vadis classify archive/ -o results.jsonl`, then  `vadis report results.jsonl -o report.html`

Without pictures, of several files:  `vadis report monday.jsonl tuesday.jsonl --thumbnails 0 -o week.html`

A page on a training run or an evaluation:  `vadis report ucf101-run/`

**Exit codes**: 0 the page is there; 1 could not go on; 2 wrong use; 4 no record found; 130 and 143 interrupted.
"""

THUMBNAILS, THUMBNAIL_MEGABYTES = 4, 32  # of a video; of a page
RESULTS = "Results of vadis classify"
EXTENSIONS = (".jsonl", ".json")
PAGES = (".html", ".htm")

Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="RESULTS|RUN",
        help="Files or folders that 'vadis classify' wrote as jsonl or json; or one folder of a training run.",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE.html",
        help="The page; by default report.html, here or in the folder of the run.",
        rich_help_panel=options.OUTPUT,
    ),
]


def report(
    inputs: Inputs,
    output: Output = None,
    overwrite: options.Replace = False,
    title: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What stands above it all.", rich_help_panel=options.OUTPUT)
    ] = None,
    thumbnails: Annotated[
        int, typer.Option(metavar="N", min=0, help="Pictures of each video; 0 for none.", rich_help_panel=RESULTS)
    ] = THUMBNAILS,
    thumbnail_mb: Annotated[
        int,
        typer.Option(metavar="MB", min=0, help="What all pictures may take; many share it.", rich_help_panel=RESULTS),
    ] = THUMBNAIL_MEGABYTES,
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where relative paths in RESULTS begin; by default the current folder, else that of RESULTS.",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Make one HTML page to look at: an archive's labels over time, or how a training run went.

    The page is one file that needs no network. It plays the videos from where they lie.
    """
    settings.debug |= debug
    if len(inputs) == 1 and inputs[0].is_dir():
        from vadis.report.run_page import is_run

        if is_run(inputs[0]):
            _of_run(inputs[0], output, overwrite, title)
            return
    output = output or Path("report.html")
    check_extension(output, PAGES)
    check_file(output, overwrite)
    if root is not None and not root.is_dir():
        raise UsageError(f"{show(root)} is not a folder", hint="name the folder where relative paths begin")
    from vadis.batch.results_file import LastResults

    files = [file for given in inputs for file in _files(given)]
    found = LastResults(files)
    for torn in found.torn:
        warn(f"{show(torn)} ends within a record, which is left out")
    if not found.paths:
        raise NothingToDoError("there is no record in these files", hint="label videos first: vadis classify")
    bases = [root] if root else [Path(), *dict.fromkeys(file.parent for file in files)]
    _of_results(found, output, title or _title(inputs), bases, thumbnails, thumbnail_mb * 1_000_000)


def _of_run(folder: Path, output: Path | None, overwrite: bool, title: str | None) -> None:
    """The page of a run; one that vadis put into the run's own folder may be replaced, because runs go on."""
    from vadis.report.run_page import write_run_page

    page = output or folder / "report.html"
    check_extension(page, PAGES)
    check_file(page, overwrite or output is None)
    with writing(show(page)):
        write_run_page(folder, page, title or _title([folder]))
    typer.echo(show(page))


def _files(given: Path) -> list[Path]:
    """A file, or those of a folder and all below it that may hold results."""
    from vadis.batch.results_file import files_below

    if not given.is_dir():
        return [given]
    found = files_below(given, EXTENSIONS)
    if not found:
        hint = "give what vadis classify wrote as jsonl or json"
        raise UsageError(f"{show(given)} holds no results (no .jsonl or .json file)", hint=hint)
    return found


def _title(inputs: list[Path]) -> str:
    first = inputs[0].resolve().name if inputs[0].is_dir() else inputs[0].stem
    return first if len(inputs) == 1 else f"{first} and {len(inputs) - 1} more"


def _of_results(
    found: "LastResults", output: Path, title: str, bases: list[Path], thumbnails: int, max_bytes: int
) -> None:
    from vadis.report.page import write_page

    with video_progress() as bar, writing(show(output)):
        task = bar.add_task("", total=len(found.paths))

        def progress(path: str) -> None:
            bar.update(task, description=f"pictures: {show(Path(path).name)}", advance=1)

        made = write_page(
            output,
            found,
            title=title,
            bases=bases,
            num_thumbnails=thumbnails,
            max_thumbnail_bytes=max_bytes,
            progress=progress,
        )
    if made.not_found:
        info(f"{made.not_found:,} of {made.num_videos:,} videos are not where the results say: --root DIR tells where")
    if made.fewer_pictures:
        info(f"{made.fewer_pictures:,} videos have fewer pictures, to keep the page small: --thumbnail-mb allows more")
    info(f"{made.num_videos:,} videos, {made.num_bytes / 1e6:,.1f} MB")
    typer.echo(show(output))
