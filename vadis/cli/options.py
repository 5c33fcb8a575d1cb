"""The options of commands that label videos, as types: what a person reads about each in ``--help``."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from vadis.formats import FORMATS
from vadis.results import FINEST_SEGMENT_SECONDS

FORMAT_CHOICES = ("auto", "table", *FORMATS)
STREAM_CHOICES = ("both", "rgb", "flow")

VIDEOS, MODEL, TIME, OUTPUT, MACHINE = "Which videos", "Model", "Time and labels", "Output", "Machine"
"""The panels of the help."""


def one_of(choices: tuple[str, ...]) -> Callable[[str | None], str | None]:
    """A check that an option has one of these values, if it is given."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in choices:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}")
        return value

    return check


Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUTS",
        help="Videos, folders (with everything below them) or globs; - reads a list of them from stdin.",
        show_default=False,
    ),
]
FromFile = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Read inputs from FILE, one per line.", rich_help_panel=VIDEOS),
]
Null = Annotated[
    bool,
    typer.Option(
        "--null", "-0", metavar="", help="In lists, names end with a NUL byte (find -print0).", rich_help_panel=VIDEOS
    ),
]
AllowRemote = Annotated[
    bool,
    typer.Option(
        "--allow-remote",
        metavar="",
        help="Also fetch videos from s3://, gs:// and https://; needs pip install 'vadis[remote]'.",
        rich_help_panel=VIDEOS,
    ),
]
ScratchGigabytes = Annotated[
    float | None,
    typer.Option(
        "--scratch-gb",
        metavar="GB",
        min=0.001,
        help="Room for fetched videos, shared by the --jobs; in the system's folder for temporary files (TMPDIR).",
        show_default="4 for each",
        rich_help_panel=MACHINE,
    ),
]

ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME|PATH",
        help="A name that 'vadis weights list' shows, or a model file.",
        show_default="i3d-kinetics400",
        rich_help_panel=MODEL,
    ),
]
Streams = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(STREAM_CHOICES),
        callback=one_of(STREAM_CHOICES),
        help="Judge by the pictures (rgb, faster), by the motion between them (flow), or by both.",
        show_default="all that the model has",
        rich_help_panel=MODEL,
    ),
]
Flip = Annotated[
    bool,
    typer.Option(
        "--flip",
        metavar="",
        help="Average with the mirrored video: a little better, twice as long.",
        rich_help_panel=MODEL,
    ),
]

SegmentSeconds = Annotated[
    float | None,
    typer.Option(
        "--segment",
        metavar="SECONDS",
        min=FINEST_SEGMENT_SECONDS,
        help="Length of the segments of the timeline; by default the model's own, mostly 2.56.",
        rich_help_panel=TIME,
    ),
]
Window = Annotated[
    int | None,
    typer.Option(
        metavar="FRAMES",
        min=1,
        help="Look at separate windows of FRAMES (25 per second) instead of the video as a whole.",
        rich_help_panel=TIME,
    ),
]
Stride = Annotated[
    int | None,
    typer.Option(
        metavar="FRAMES",
        min=1,
        help="From the start of one window to the next; by default they follow one another.",
        rich_help_panel=TIME,
    ),
]
TopK = Annotated[
    int,
    typer.Option("--top-k", "-k", metavar="K", min=1, help="Labels per video and per segment.", rich_help_panel=TIME),
]
Threshold = Annotated[
    float,
    typer.Option(
        metavar="P",
        min=0.0,
        max=1.0,
        help="Leave out labels that score below P, between 0 and 1.",
        rich_help_panel=TIME,
    ),
]

FormatName = Annotated[
    str,
    typer.Option(
        "--format",
        "-f",
        metavar="|".join(FORMAT_CHOICES),
        callback=one_of(FORMAT_CHOICES),
        help="auto: what the extension of -o says, else a table on a terminal and jsonl anywhere else.",
        rich_help_panel=OUTPUT,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write to FILE; - is stdout.", rich_help_panel=OUTPUT),
]
OutputDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Write one file per video into DIR, in the same tree as the inputs.",
        rich_help_panel=OUTPUT,
    ),
]
Replace = Annotated[
    bool,
    typer.Option("--overwrite", metavar="", help="Replace FILE if it exists already.", rich_help_panel=OUTPUT),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        metavar="",
        help="Replace outputs that exist already, instead of going on with them.",
        rich_help_panel=OUTPUT,
    ),
]

RetryFailed = Annotated[
    bool,
    typer.Option(
        "--retry-failed",
        metavar="",
        help="Going on with results that are there, try those again that failed.",
        rich_help_panel=OUTPUT,
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", metavar="", help="Take a video that can only be read in part as failed.", rich_help_panel=OUTPUT
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N|auto",
        help="Do the I-th of N parts of the inputs, into a file of its own; auto asks SLURM, Kubernetes or torchrun.",
        rich_help_panel=VIDEOS,
    ),
]
SummaryFile = Annotated[
    Path | None,
    typer.Option("--summary", metavar="FILE", help="Write the counts at the end as JSON.", rich_help_panel=OUTPUT),
]

Device = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda[:N]", help="Where to compute; auto takes a GPU if any.", rich_help_panel=MACHINE
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="[ADDRESS]",
        help="Label on a Ray cluster, into a folder: HOST:PORT, ray://…, auto (the default), or local for one of this "
        "machine's own; needs pip install 'vadis[ray]'.",
        rich_help_panel=MACHINE,
    ),
]
Jobs = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        help="Read up to N videos at once, ahead of the network; 0: one per processor, 4 at most, 16 with a GPU.",
        rich_help_panel=MACHINE,
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        help="Separate windows in one pass; 0: 1, or 8 on a GPU.",
        rich_help_panel=MACHINE,
    ),
]
Offline = Annotated[
    bool,
    typer.Option("--offline", metavar="", help="Never use the network.", rich_help_panel=MACHINE),
]
Debug = Annotated[
    bool,
    typer.Option("--debug", metavar="", help="Show the traceback when something fails.", rich_help_panel=MACHINE),
]
