"""``vadis classify``: label files, folders, globs or a list, and write the records."""

import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from vadis.cli import interrupts, options, outputs
from vadis.cli.chosen import find_inputs, load_chosen
from vadis.cli.run import Run
from vadis.cli.terminal import file_console, settings, stdout_console
from vadis.cli.timeline import table
from vadis.errors import UsageError, VadisError
from vadis.formats import FORMATS, Format, above
from vadis.results import SEGMENT_SECONDS, VideoResult

Write = Callable[[Iterable[VideoResult]], None]

EPILOG = """
**Examples**

What happens in a video, second by second:  `vadis classify holiday.mp4`

A folder and all below it, one JSON record per video:  `vadis classify clips/ -o results.jsonl`

Subtitles for every video:  `vadis classify clips/ -f srt --output-dir subtitles/`

A list, as a spreadsheet:  `find clips -name '*.mp4' -print0 | vadis classify -0 - -o results.csv`

**Exit codes**: 0 every video labelled; 1 could not go on; 2 wrong use; 3 finished, but some videos failed;
4 no video found; 130 and 143 interrupted.
"""


def classify(
    inputs: options.Inputs = None,
    from_file: options.FromFile = None,
    null: options.Null = False,
    model: options.ModelName = "i3d-kinetics400",
    streams: options.Streams = "both",
    flip: options.Flip = False,
    segment: options.SegmentSeconds = SEGMENT_SECONDS,
    window: options.Window = None,
    stride: options.Stride = None,
    top_k: options.TopK = 5,
    threshold: options.Threshold = 0.0,
    format_name: options.FormatName = "auto",
    output: options.Output = None,
    output_dir: options.OutputDir = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    offline: options.Offline = False,
    debug: options.Debug = False,
) -> None:
    """Find out what happens in videos: labels for each as a whole, and a timeline."""
    settings.debug |= debug
    output = None if output == Path("-") else output
    if stride is not None and window is None:
        raise UsageError("--stride goes with --window", hint="give both, or neither to look at the video as a whole")
    found = find_inputs(inputs or [], from_file, null)
    name = resolve_format(format_name, output, output_dir)
    form = table_format(to_file=bool(output or output_dir)) if name == "table" else FORMATS[name]
    write = _destination(name, form, inputs or [], [source.path for source in found], output, output_dir, overwrite)
    loaded = load_chosen(model, streams, device, offline)

    from vadis.inference import Sliding, classify_many

    run = Run(found, name_problems=name != "table" or bool(output or output_dir))
    sliding = Sliding(segment, window, stride)
    paths = [source.path for source in found if source.error is None]
    labelled = classify_many(paths, loaded, sliding=sliding, top_k=top_k, flip=flip, listed=True, progress=run.report)
    with interrupts.deferred():
        try:
            write(above(record, threshold) for record in run.records(labelled))
        except VadisError as failure:
            run.finish(failure)
        run.finish()


def resolve_format(name: str, output: Path | None, output_dir: Path | None) -> str:
    """The format that ``auto`` means here; any other as it is."""
    if name != "auto":
        return name
    if output is not None:
        extension = output.suffix.removeprefix(".").lower()
        return extension if extension in FORMATS else "jsonl"
    return "table" if output_dir is None and sys.stdout.isatty() else "jsonl"


def table_format(to_file: bool) -> Format:
    """The table as a format, drawn for this terminal, or plain and 80 columns wide for a file."""
    console = file_console() if to_file else stdout_console()
    return Format("a table and a timeline", partial(table, console=console, all_stretches=settings.verbose))


def _destination(
    name: str,
    form: Format,
    inputs: list[str],
    videos: list[str],
    output: Path | None,
    folder: Path | None,
    overwrite: bool,
) -> Write:
    """Where the records go, checked as far as that can be done beforehand."""
    if output and folder:
        raise UsageError("--output and --output-dir exclude each other")
    if folder:
        extension = "txt" if name == "table" else name
        root = outputs.tree_root(inputs, videos)
        target_of = partial(outputs.mirrored, folder, root, extension)
        outputs.check_folder(folder, map(target_of, videos), overwrite)
        return partial(outputs.to_folder, target_of, form)
    if form.one_video and len(videos) > 1:
        hint = "add --output-dir to get one file per video"
        raise UsageError(f"a {name} document has room for one video, and there are {len(videos)}", hint=hint)
    if output:
        outputs.check_file(output, overwrite)
        return partial(outputs.to_file, output, form)
    return partial(outputs.to_stdout, form)
