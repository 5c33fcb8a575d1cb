"""``vadis report``: one page to look at, from results or from a training run."""

from pathlib import Path
from typing import Annotated

import typer

from vadis.batch.results_file import LastResults, files_below
from vadis.cli import options
from vadis.cli.export import read_results
from vadis.cli.options import OUTPUT, option
from vadis.cli.outputs import check_extension, check_file, writing
from vadis.cli.terminal import info, show, video_progress
from vadis.errors import UsageError

EPILOG = """
**Examples**

A page on an archive:  `vadis classify archive/ -o results.jsonl`, then  `vadis report results.jsonl -o report.html`

Without pictures, of several files:  `vadis report monday.jsonl tuesday.jsonl --thumbnails 0 -o week.html`

A page on a training run or an evaluation:  `vadis report ucf101-run/`

**Exit codes**: 0 the page is there; 1 could not go on; 2 wrong use; 4 no record found; 130 and 143 interrupted.
"""

RESULTS = "Results of vadis classify"

_INPUTS = "Files or folders that 'vadis classify' wrote as jsonl or json; or one folder of a training run."
Inputs = Annotated[list[Path], typer.Argument(metavar="RESULTS|RUN", help=_INPUTS, show_default=False)]
_OUTPUT = "The page; by default report.html, here or in the folder of the run."
Output = Annotated[Path | None, option(OUTPUT, _OUTPUT, "--output", "-o", metavar="FILE.html")]
Title = Annotated[str | None, option(OUTPUT, "What stands above it all.", metavar="TEXT")]
Thumbnails = Annotated[int, option(RESULTS, "Pictures of each video; 0 for none.", metavar="N", min=0)]
_MEGABYTES = "What all pictures may take; many share it."
ThumbnailMegabytes = Annotated[int, option(RESULTS, _MEGABYTES, metavar="MB", min=0)]
_ROOT = "Where relative paths in RESULTS begin; by default the current folder, else that of RESULTS."
Root = Annotated[Path | None, option(RESULTS, _ROOT, metavar="DIR")]


def report(
    inputs: Inputs,
    output: Output = None,
    overwrite: options.Replace = False,
    title: Title = None,
    thumbnails: Thumbnails = 4,
    thumbnail_mb: ThumbnailMegabytes = 32,
    root: Root = None,
    debug: options.Debug = False,
) -> None:
    """Make one HTML page to look at: an archive's labels over time, or how a training run went.

    The page is one file that needs no network. It plays the videos from where they lie.
    """
    from vadis.report.run_page import is_run, write_run_page

    first, others = inputs[0], len(inputs) - 1
    of_run = not others and first.is_dir() and is_run(first)
    page = output or (first if of_run else Path()) / "report.html"
    check_extension(page, (".html", ".htm"))
    check_file(page, overwrite or (of_run and output is None))  # a run's own page may be replaced, because runs go on
    name = first.resolve().name if first.is_dir() else first.stem
    title = title or (f"{name} and {others} more" if others else name)
    if of_run:
        with writing(show(page)):
            write_run_page(first, page, title)
    else:
        if root is not None and not root.is_dir():
            raise UsageError(f"{show(root)} is not a folder", hint="name the folder where relative paths begin")
        files = [file for given in inputs for file in _files(given)]
        bases = [root] if root else [Path(), *dict.fromkeys(file.parent for file in files)]
        _of_results(read_results(files), page, title, bases, thumbnails, thumbnail_mb * 1_000_000)
    typer.echo(show(page))


def _files(given: Path) -> list[Path]:
    """Return a file, or those of a folder and all below it that may hold results."""
    if not given.is_dir():
        return [given]
    found = files_below(given, (".jsonl", ".json"))
    if not found:
        hint = "give what vadis classify wrote as jsonl or json"
        raise UsageError(f"{show(given)} holds no results (no .jsonl or .json file)", hint=hint)
    return found


def _of_results(
    found: LastResults, output: Path, title: str, bases: list[Path], thumbnails: int, max_bytes: int
) -> None:
    from vadis.report.page import write_page

    with video_progress() as bar, writing(show(output)):
        task = bar.add_task("", total=len(found.paths))
        made = write_page(
            output,
            found,
            title=title,
            bases=bases,
            num_thumbnails=thumbnails,
            max_thumbnail_bytes=max_bytes,
            progress=lambda path: bar.update(task, description=f"pictures: {show(Path(path).name)}", advance=1),
        )
    if made.not_found:
        info(f"{made.not_found:,} of {made.num_videos:,} videos are not where the results say: --root DIR tells where")
    if made.fewer_pictures:
        info(f"{made.fewer_pictures:,} videos have fewer pictures, to keep the page small: --thumbnail-mb allows more")
    info(f"{made.num_videos:,} videos, {made.num_bytes / 1e6:,.1f} MB")
