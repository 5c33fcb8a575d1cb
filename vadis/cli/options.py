"""The options that several commands share, each declared once: its type, its names, its panel and its text in the help.

A command takes them as types of its arguments: ``def classify(inputs: options.Inputs = None, …)``.
"""

import math
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from vadis.formats import FORMATS
from vadis.parsing import parse_seconds
from vadis.results import FINEST_SEGMENT_SECONDS
from vadis.weights.catalog import PUBLISHED_LISTS, SHIPPED, WEIGHTS, published_labels

STREAM_CHOICES = ("both", "rgb", "flow")

VIDEOS, MODEL, TIME, OUTPUT, MACHINE = "Which videos", "Model", "Time and labels", "Output", "Machine"
"""The panels of the help."""


class _PlainHelp:
    """Help without what typer adds: types of Python's, a box for ``--help`` alone, brackets around metavars."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if isinstance(param, TyperArgument):
                setattr(param, "display_type_rich", lambda ctx: None)  # noqa: B010
            elif param.is_flag:
                param.metavar = ""
            param.hidden |= "--help" in param.opts
        return params

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [param for param in self.get_params(ctx) if isinstance(param, TyperArgument)]
        shown = (str(each.metavar) if each.required else f"[{each.metavar}]" for each in arguments)
        return ["[OPTIONS]", *shown, *["COMMAND …"] * isinstance(self, TyperGroup)]


class Command(_PlainHelp, TyperCommand):
    """One command."""


class Group(_PlainHelp, TyperGroup):
    """A command that has commands."""


_HEAD = "**Examples**\n"  # of several


class App(typer.Typer):
    """What commands are added to, each with its examples."""

    def __init__(self, epilog: str, cls: type[TyperGroup] = Group, **more: Any) -> None:
        examples = _HEAD * epilog.startswith("\n") + epilog
        super().__init__(cls=cls, no_args_is_help=True, rich_markup_mode="markdown", epilog=examples, **more)

    def add(self, name: str, examples: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Return a decorator that makes a function the command of this name."""
        return self.command(name, cls=Command, epilog=_HEAD * examples.startswith("\n") + examples)


def option(panel: str, text: str, *names: str, **more: Any) -> Any:
    """Return an option in a panel of the help; a number from ``min`` to ``max``."""
    low, high = more.pop("min", -math.inf), more.pop("max", math.inf)

    def check(value: Any) -> Any:
        if value is not None and not low <= value <= high:
            bounds = f"{low:g} or more" if high == math.inf else f"from {low:g} to {high:g}"
            raise typer.BadParameter(f"{value:g} is not {bounds}")
        return value

    if low > -math.inf:
        more["callback"] = check
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


def offer(words: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return what completes a value in the shell: those of ``words()`` that begin with what has been typed."""
    return lambda incomplete: [word for word in words() if word.startswith(incomplete)]


def flag(panel: str, text: str, *names: str) -> Any:
    """Return an option without a value."""
    return option(panel, text, *names)


def choice(panel: str, text: str, choices: tuple[str, ...], *names: str, **more: Any) -> Any:
    """Return an option that has one of these values."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in choices:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}")
        return value

    completed = offer(lambda: choices)
    return option(panel, text, *names, metavar="|".join(choices), callback=check, autocompletion=completed, **more)


_INPUTS = "Videos, folders (with everything below them) or globs; - reads a list of them from stdin."
Inputs = Annotated[list[str] | None, typer.Argument(metavar="INPUTS…", help=_INPUTS, show_default=False)]
FromFile = Annotated[str | None, option(VIDEOS, "Read inputs from FILE, one per line.", metavar="FILE")]
Null = Annotated[bool, flag(VIDEOS, "In lists, names end with a NUL byte (find -print0).", "--null", "-0")]

DATA = "Dataset"
Data = Annotated[Path | None, option(DATA, "The dataset's folder, or a list.", "--data", metavar="DIR")]
DatasetName = Annotated[str | None, option(DATA, "ucf101, hmdb51, kinetics or folder.", "--dataset", metavar="NAME")]
Split = Annotated[int, option(DATA, "The official split.", metavar="N", min=1)]


_MODELS = offer(lambda: [*WEIGHTS, *SHIPPED, *map(str, Path().glob("*.safetensors"))])
_MODEL, NAME_OR_FILE = "A name that 'vadis weights list' shows, or a model file.", "NAME|FILE"
OF_MODEL: dict[str, Any] = {"metavar": NAME_OR_FILE, "autocompletion": _MODELS}
ModelName = Annotated[str | None, option(MODEL, _MODEL, "--model", "-m", **OF_MODEL, show_default="i3d-kinetics400")]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=_MODEL, autocompletion=_MODELS)]
_STREAMS = "Judge by the pictures (rgb, faster), by the motion between them (flow), or by both."
Streams = Annotated[str | None, choice(MODEL, _STREAMS, STREAM_CHOICES, show_default="all that the model has")]
Flip = Annotated[bool, flag(MODEL, "Average with the mirrored video: a little better, twice as long.", "--flip")]


def _seconds(text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


_START = "Leave out what is before TIME, such as 90, 1:30 or 0:01:30.5, as players count."
Start = Annotated[float | None, option(TIME, _START, metavar="TIME", parser=_seconds)]
End = Annotated[float | None, option(TIME, "Leave out what is after TIME.", metavar="TIME", parser=_seconds)]
_SEGMENT = "Step of the raw segments in records; by default the model's own, mostly 2.56."
SegmentSeconds = Annotated[float | None, option(TIME, _SEGMENT, metavar="SECONDS", min=FINEST_SEGMENT_SECONDS)]
_WINDOW = "Look at separate windows of FRAMES (25 per second) instead of the video as a whole."
Window = Annotated[int | None, option(TIME, _WINDOW, metavar="FRAMES", min=1)]
_STRIDE = "From the start of one window to the next; by default they follow one another."
Stride = Annotated[int | None, option(TIME, _STRIDE, metavar="FRAMES", min=1)]
Threshold = Annotated[float, option(TIME, "Leave out labels that score below P.", metavar="P", min=0.0, max=1.0)]
_KNOWN_LABELS = offer(lambda: chain.from_iterable(map(published_labels, PUBLISHED_LISTS)))
LABEL: dict[str, Any] = {"metavar": "LABEL", "autocompletion": _KNOWN_LABELS}
_LABELS = "Show only labels like this, in any case, with * for any letters: 'playing *'."
Labels = Annotated[str | None, option(TIME, _LABELS, "--labels", **LABEL)]

_PER = "Rows of a csv: one for each label of a segment, or one for a video."
Per = Annotated[str, choice(OUTPUT, _PER, ("video", "segment"))]
_FORMAT = "auto: what the extension of -o says, else a table on a terminal and jsonl anywhere else."
FormatName = Annotated[str, choice(OUTPUT, _FORMAT, ("auto", "table", *FORMATS), "--format", "-f")]
_AS_FILE = {"metavar": "FILE", "callback": lambda path: None if path == Path("-") else path}
Output = Annotated[Path | None, option(OUTPUT, "Write to FILE; - is stdout.", "--output", "-o", **_AS_FILE)]
OutputDir = Annotated[Path | None, option(OUTPUT, "One file per video in DIR, in the inputs' tree.", metavar="DIR")]
NoSound = Annotated[bool, flag(OUTPUT, "Leave the sound out.", "--no-sound")]
Replace = Annotated[bool, flag(OUTPUT, "Replace the output if it exists already.", "--overwrite")]
Overwrite = Annotated[bool, flag(OUTPUT, "Replace existing outputs instead of going on with them.", "--overwrite")]

_DEVICES = offer(lambda: ("auto", "cpu", "cuda"))
_DEVICE = "Where to compute; auto takes a GPU if any."
Device = Annotated[str, option(MACHINE, _DEVICE, metavar="auto|cpu|cuda[:N]", autocompletion=_DEVICES)]
_PRECISION = "bf16 is faster with AMX or AMD's AVX-512 BF16, and refused on other processors; logits move by up to 1 %."
Precision = Annotated[str, choice(MACHINE, _PRECISION, ("fp32", "bf16"), "--precision")]
_JOBS = "Take up to N videos at once, each on a processor of its own, the others read ahead; 0: two per processor."
Jobs = Annotated[int, option(MACHINE, _JOBS, metavar="N", min=0)]
BatchSize = Annotated[int, option(MACHINE, "Separate windows in one pass; 0: 1, or 8 on a GPU.", metavar="N", min=0)]
_SCRATCH = "Room for fetched videos, shared by the --jobs; in the system's folder for temporary files (TMPDIR)."
ScratchSize = Annotated[float | None, option(MACHINE, _SCRATCH, metavar="GB", min=0.001, show_default="4 for each")]
AsJson = Annotated[bool, flag(OUTPUT, "Write JSON on stdout.", "--json")]
Offline = Annotated[bool, flag(MACHINE, "Never use the network.", "--offline")]
