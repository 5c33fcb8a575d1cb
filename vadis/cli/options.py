"""The options that several commands share, each declared once: its type, its names, its panel and its text in the help.

A command takes them as types of its arguments: ``def classify(inputs: options.Inputs = None, …)``.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from vadis.formats import FORMATS
from vadis.results import FINEST_SEGMENT_SECONDS

STREAM_CHOICES = ("both", "rgb", "flow")

VIDEOS, MODEL, TIME, OUTPUT, MACHINE = "Which videos", "Model", "Time and labels", "Output", "Machine"
"""The panels of the help."""


def option(panel: str, text: str, *names: str, **more: Any) -> Any:
    """Return an option in a panel of the help."""
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


def flag(panel: str, text: str, *names: str) -> Any:
    """Return an option without a value."""
    return option(panel, text, *names, metavar="")


def choice(panel: str, text: str, choices: tuple[str, ...], *names: str, **more: Any) -> Any:
    """Return an option that has one of these values."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in choices:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}")
        return value

    return option(panel, text, *names, metavar="|".join(choices), callback=check, **more)


_INPUTS = "Videos, folders (with everything below them) or globs; - reads a list of them from stdin."
Inputs = Annotated[list[str] | None, typer.Argument(metavar="INPUTS", help=_INPUTS, show_default=False)]
FromFile = Annotated[str | None, option(VIDEOS, "Read inputs from FILE, one per line.", metavar="FILE")]
Null = Annotated[bool, flag(VIDEOS, "In lists, names end with a NUL byte (find -print0).", "--null", "-0")]

DATA = "Dataset"
Data = Annotated[Path | None, option(DATA, "The dataset's folder, or a list.", "--data", metavar="DIR")]
DatasetName = Annotated[str | None, option(DATA, "ucf101, hmdb51, kinetics or folder.", "--dataset", metavar="NAME")]

_MODEL = "A name that 'vadis weights list' shows, or a model file."
ModelName = Annotated[
    str | None, option(MODEL, _MODEL, "--model", "-m", metavar="NAME|PATH", show_default="i3d-kinetics400")
]
_STREAMS = "Judge by the pictures (rgb, faster), by the motion between them (flow), or by both."
Streams = Annotated[str | None, choice(MODEL, _STREAMS, STREAM_CHOICES, show_default="all that the model has")]
Flip = Annotated[bool, flag(MODEL, "Average with the mirrored video: a little better, twice as long.", "--flip")]

_SEGMENT = "Length of the segments of the timeline; by default the model's own, mostly 2.56."
SegmentSeconds = Annotated[float | None, option(TIME, _SEGMENT, metavar="SECONDS", min=FINEST_SEGMENT_SECONDS)]
_WINDOW = "Look at separate windows of FRAMES (25 per second) instead of the video as a whole."
Window = Annotated[int | None, option(TIME, _WINDOW, metavar="FRAMES", min=1)]
_STRIDE = "From the start of one window to the next; by default they follow one another."
Stride = Annotated[int | None, option(TIME, _STRIDE, metavar="FRAMES", min=1)]
Threshold = Annotated[float, option(TIME, "Leave out labels that score below P.", metavar="P", min=0.0, max=1.0)]

_FORMAT = "auto: what the extension of -o says, else a table on a terminal and jsonl anywhere else."
FormatName = Annotated[str, choice(OUTPUT, _FORMAT, ("auto", "table", *FORMATS), "--format", "-f")]
Output = Annotated[Path | None, option(OUTPUT, "Write to FILE; - is stdout.", "--output", "-o", metavar="FILE")]
OutputDir = Annotated[Path | None, option(OUTPUT, "One file per video in DIR, in the inputs' tree.", metavar="DIR")]
Replace = Annotated[bool, flag(OUTPUT, "Replace FILE if it exists already.", "--overwrite")]
Overwrite = Annotated[bool, flag(OUTPUT, "Replace existing outputs instead of going on with them.", "--overwrite")]

Device = Annotated[str, option(MACHINE, "Where to compute; auto takes a GPU if any.", metavar="auto|cpu|cuda[:N]")]
_PRECISION = "bf16 is faster on a processor with AVX-512 BF16 or AMX, and refused elsewhere; logits move by 1 %."
Precision = Annotated[str, choice(MACHINE, _PRECISION, ("fp32", "bf16"), "--precision")]
_JOBS = "Take up to N videos at once, each on a processor of its own, the others read ahead; 0: two per processor."
Jobs = Annotated[int, option(MACHINE, _JOBS, metavar="N", min=0)]
BatchSize = Annotated[int, option(MACHINE, "Separate windows in one pass; 0: 1, or 8 on a GPU.", metavar="N", min=0)]
_SCRATCH = "Room for fetched videos, shared by the --jobs; in the system's folder for temporary files (TMPDIR)."
ScratchSize = Annotated[float | None, option(MACHINE, _SCRATCH, metavar="GB", min=0.001, show_default="4 for each")]
Offline = Annotated[bool, flag(MACHINE, "Never use the network.", "--offline")]
