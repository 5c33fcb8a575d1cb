"""``vadis export``: results that are there already, in another format."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vadis.batch.results_file import LastResults
from vadis.cli import options, outputs
from vadis.cli.classify import resolve_format, table_format
from vadis.cli.run import SOME_FAILED
from vadis.cli.terminal import info, num_videos, settings, show, warn
from vadis.errors import NothingToDoError
from vadis.formats import FORMATS, Format, above
from vadis.results import VideoResult

EPILOG = """
**Examples**

A spreadsheet of what a run has found so far:  `vadis export labels.jsonl -o labels.csv`

The shards of several machines as one:  `vadis export labels.shard-*.jsonl -o labels.jsonl`

Subtitles beside one another:  `vadis export labels.jsonl -f srt --output-dir subtitles/`

**Exit codes**: 0 written; 1 could not go on; 2 wrong use; 3 written, but some of the videos had failed; 4 no records.
"""

Results = Annotated[
    list[Path],
    typer.Argument(metavar="RESULTS", help="What classify wrote as jsonl or json; several are taken together."),
]


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
    settings.debug |= debug
    output = None if output == Path("-") else output
    name = resolve_format(format_name, output, output_dir)
    form = table_format(to_file=bool(output or output_dir)) if name == "table" else FORMATS[name]
    outputs.refuse_both(output, output_dir)
    found = LastResults(results)
    for path in found.torn:
        warn(f"{show(path)} ends within a record, which is left out")
    if not found.paths:
        raise NothingToDoError("there are no records yet", hint="wait until vadis classify has written some")
    counts: Counter[str] = Counter()
    with _destination(found.paths, name, form, output, output_dir, overwrite) as write:
        write(_counted((above(result, threshold) for result in found), counts))
    info(num_videos(counts.total()) + (f", of which {counts['error']:,} had failed" if counts["error"] else ""))
    if counts["error"]:
        raise typer.Exit(SOME_FAILED)


def _counted(results: Iterable[VideoResult], counts: Counter[str]) -> Iterator[VideoResult]:
    for result in results:
        counts[result.status] += 1
        yield result


@contextmanager
def _destination(
    paths: Sequence[str], name: str, form: Format, output: Path | None, folder: Path | None, overwrite: bool
) -> Iterator[Callable[[Iterable[VideoResult]], None]]:
    if folder:
        target_of = partial(outputs.mirrored, folder, outputs.tree_root([], paths), outputs.extension_of(name))
        with outputs.new_folder(folder):
            outputs.check_targets(map(target_of, paths), overwrite)
            yield partial(outputs.to_folder, target_of, form)
        return
    outputs.refuse_several(name, form, len(paths))
    if output is None:
        yield partial(outputs.to_stdout, form)
        return
    outputs.check_file(output, overwrite)
    yield partial(outputs.to_file, output, form)
