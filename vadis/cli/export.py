"""``vadis export``: results that are there already, in another format."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from vadis.batch.results_file import LastResults
from vadis.cli import options
from vadis.cli.classify import choose_format
from vadis.cli.outputs import (
    DocumentFolder,
    check_file,
    new_folder,
    refuse_both,
    refuse_several,
    to_file,
    to_stdout,
    tree_root,
)
from vadis.cli.run import SOME_FAILED
from vadis.cli.terminal import info, num_videos, show, warn
from vadis.errors import NothingToDoError
from vadis.formats import above
from vadis.results import VideoResult

EPILOG = """
**Examples**

A spreadsheet of what a run has found so far:  `vadis export labels.jsonl -o labels.csv`

The shards of several machines as one:  `vadis export labels.shard-*.jsonl -o labels.jsonl`

Subtitles beside one another:  `vadis export labels.jsonl -f srt --output-dir subtitles/`

**Exit codes**: 0 written; 1 could not go on; 2 wrong use; 3 written, but some of the videos had failed; 4 no records.
"""

_RESULTS = "What classify wrote as jsonl or json; several are taken together."
Results = Annotated[list[Path], typer.Argument(metavar="RESULTS", help=_RESULTS)]


def export(
    results: Results,
    format_name: options.FormatName = "auto",
    output: options.Output = None,
    output_dir: options.OutputDir = None,
    threshold: options.Threshold = 0.0,
    overwrite: options.Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """Turn results into another format; of several records of one video the last counts."""
    output = None if output == Path("-") else output
    name, form = choose_format(format_name, output, output_dir)
    refuse_both(output, output_dir)
    found = read_results(results)
    counts: Counter[str] = Counter()

    def wanted() -> Iterator[VideoResult]:
        for result in found:
            counts[result.status] += 1
            yield above(result, threshold)

    if output_dir:
        with new_folder(output_dir):
            folder = DocumentFolder(output_dir, tree_root([], found.paths), name, form)
            folder.check(found.paths, overwrite)
            folder.write(wanted())
    else:
        refuse_several(name, form, len(found.paths))
        if output is None:
            to_stdout(form, wanted())
        else:
            check_file(output, overwrite)
            to_file(output, form, wanted())
    info(num_videos(counts.total()) + (f", of which {counts['error']:,} had failed" if counts["error"] else ""))
    if counts["error"]:
        raise typer.Exit(SOME_FAILED)


def read_results(files: Sequence[Path]) -> LastResults:
    """Return the records of files, of which there must be one at least; say which end within one."""
    found = LastResults(files)
    for path in found.torn:
        warn(f"{show(path)} ends within a record, which is left out")
    if not found.paths:
        raise NothingToDoError("there is no record in these files", hint="label videos first: vadis classify")
    return found
