"""The table for people: what happens in a video, and when, at a glance in 80 columns.

    clips/holiday.mp4
    20.5 s, 340×256, 28 fps

      A  arm wrestling       61 %  ████████████
      B  playing cricket     22 %  ████▍
         hurling              3 %  ▋

         AAAAAAAAAAAAAAAAAAAAAAAABBBBBBBBBBBBBBB
         0:00      0:05      0:10      0:15

      0:00–0:13  A  arm wrestling       97 %
      0:13–0:20  B  playing cricket     88 %

Letters tell the labels apart where there is no colour; with colour the strip is drawn in blocks.
"""

import string
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

from vadis.cli.terminal import clock, show
from vadis.errors import VIDEO_ERROR_CODES, advice, with_options
from vadis.formats import Stretch, percent, stretches, visible
from vadis.results import Label, VideoResult

if TYPE_CHECKING:
    from rich.console import Console

    from vadis.video.metadata import VideoFacts

MAX_STRETCHES = 12  # lines in the list; fits a screen of 24 lines together with the rest
_LABEL_CELLS = 36  # the longest of Kinetics' names is cut, the common ones are not
_BAR_CELLS = 20
_MARGIN_CELLS = 7  # before the strip
_MAX_STRIP_CELLS = 120
_TICK_CELLS = 10  # at least so far apart
_TICK_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200)

# Okabe and Ito's colours, told apart by nearly everyone, each with the ink that reads on it.
_COLOURS = (
    "#000000 on #56b4e9",
    "#000000 on #e69f00",
    "#000000 on #009e73",
    "#000000 on #cc79a7",
    "#000000 on #f0e442",
    "#ffffff on #0072b2",
    "#ffffff on #d55e00",
)


class _Look(NamedTuple):
    """What this terminal can show."""

    cells: int  # of the strip
    colour: bool
    fine: bool  # block elements, dashes and the like, not only ASCII


class _Mark(NamedTuple):
    """How a leading label is drawn: its letter, and the style of its blocks."""

    letter: str
    style: str


_OTHER = _Mark("*", "reverse")
_NOTHING = _Mark(".", "dim")


def table(results: Iterable[VideoResult], console: "Console", all_stretches: bool = False) -> Iterator[str]:
    """Yield the text of one video after another, as ``console`` (its width, colours and encoding) can show it.

    ``all_stretches`` lists every stretch instead of the MAX_STRETCHES longest.
    """
    look = _Look(
        cells=max(min(console.width - _MARGIN_CELLS - 1, _MAX_STRIP_CELLS), _TICK_CELLS),
        colour=console.color_system is not None and not console.no_color,
        fine=console.encoding.lower().startswith("utf"),
    )
    for result in results:
        with console.capture() as captured:
            for line in _lines(result, look, all_stretches):
                console.print(line, soft_wrap=True)
        yield captured.get()


def _lines(result: VideoResult, look: _Look, all_stretches: bool) -> Iterator[Text]:
    yield Text(show(result.path), style="bold")
    if result.status == "error":
        yield Text.assemble(("not labelled: ", "bold red"), visible(with_options(result.error_message or "")))
        if result.error_code in VIDEO_ERROR_CODES:
            yield Text(f"hint: {advice(result.error_code)}", style="dim")
    else:
        yield from _notes(result, look)
        runs = stretches(result.segments)
        marks = _marks(result.labels, runs)
        yield Text()
        yield from _label_lines(result.labels, marks, look)
        if len(result.segments) > 1:
            yield Text()
            yield from _strip(runs, marks, result.segments[-1].end, look)
            yield from _legend([label.label for label in result.labels], marks, look)
            yield Text()
            yield from _stretch_lines(runs, marks, look, all_stretches)
    yield Text()


def _notes(result: VideoResult, look: _Look) -> Iterator[Text]:
    """Yield the facts of the file on one line, then each thing out of the ordinary on its own."""
    seconds = result.duration_seconds
    digits = 2 if seconds is not None and seconds < 0.95 else 1  # a single frame is no "0.0 s"
    facts = [] if seconds is None else [clock(seconds) if seconds >= 60 else f"{seconds:.{digits}f} s"]
    if result.source_size is not None:
        facts.append(("×" if look.fine else "x").join(map(str, result.source_size)))
    if result.source_fps is not None:
        facts.append(f"{float(result.source_fps):.4g} fps")
    if result.model is not None:
        facts.append(f"labelled by {visible(result.model)}")
    yield Text(", ".join(facts), style="dim")
    if result.status == "partial":
        yield Text.assemble(("partial: ", "bold yellow"), missing_part(result))
    for flag in result.flags:
        from vadis.inference import classify
        from vadis.video import metadata

        words = {**metadata.FLAGS, **classify.INFERENCE_FLAGS}.get(flag, visible(flag).replace("_", " "))
        yield Text(f"note: {words}")


def missing_part(result: "VideoResult | VideoFacts") -> str:
    """Return what a ``partial`` video leaves out, as far as the file tells."""
    decoded, declared = result.frames_decoded, result.frames_declared
    if decoded is not None and declared is not None and decoded < declared:
        return f"only {decoded} of {declared} frames could be read"
    return "part of the file could not be read"


def _marks(labels: tuple[Label, ...], runs: list[Stretch]) -> dict[str, _Mark]:
    """Return letters for the labels that lead: first the video's own in their order, then the others by their time."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for run in runs:
        seconds[run.label] += run.end - run.start
    own = [label.label for label in labels if label.label in seconds]
    others = sorted(set(seconds) - set(own), key=lambda name: (-seconds[name], name))
    named = zip(own + others, string.ascii_uppercase, strict=False)  # beyond Z: drawn as "other"
    styles = chain(_COLOURS, repeat(_OTHER.style))
    return {name: _Mark(letter, style) for (name, letter), style in zip(named, styles, strict=False)}


def _label_lines(labels: tuple[Label, ...], marks: dict[str, _Mark], look: _Look) -> Iterator[Text]:
    if not labels:
        yield Text("  no label is above the threshold")
    for label in labels:
        mark, bar = marks.get(label.label), _bar(label.score, look)
        yield Text.assemble("  ", _chip(mark, look), *_scored(label.label, label.score), "  ", bar)


def _stretch_lines(runs: list[Stretch], marks: dict[str, _Mark], look: _Look, all_stretches: bool) -> Iterator[Text]:
    longest = sorted(runs, key=lambda run: run.start - run.end)
    listed = runs if all_stretches else sorted(longest[:MAX_STRETCHES], key=lambda run: run.start)
    fine_times = any(run.end - run.start < 2 for run in listed)
    dash = "–" if look.fine else "-"
    spans = [f"{_time(run.start, fine_times)}{dash}{_time(run.end, fine_times)}" for run in listed]
    widest = max(map(len, spans), default=0)
    for run, span in zip(listed, spans, strict=True):
        chip = _chip(marks.get(run.label, _OTHER), look)
        yield Text.assemble(f"  {span:>{widest}}  ", chip, *_scored(run.label, run.score))
    if len(listed) < len(runs):
        more = len(runs) - len(listed)
        yield Text(f"  and {more} shorter; `vadis -v classify` shows them all", style="dim")


def _strip(runs: list[Stretch], marks: dict[str, _Mark], end_seconds: float, look: _Look) -> Iterator[Text]:
    """Yield the whole video as one line of blocks, and its time axis below."""
    strip = Text(" " * _MARGIN_CELLS)
    before = None
    for label in _leaders(runs, end_seconds, look.cells):
        mark = _NOTHING if label is None else marks.get(label, _OTHER)
        letter = mark.letter if label != before or not look.colour or label is None else " "
        strip.append(letter, style=mark.style if look.colour else "")
        before = label
    yield strip
    yield Text(" " * _MARGIN_CELLS + _axis(end_seconds, look.cells), style="dim")


def _legend(explained: list[str], marks: dict[str, _Mark], look: _Look) -> Iterator[Text]:
    """Yield the letters of leading labels that are not among the video's own, as many to a line as fit."""
    others = [f"{mark.letter} {visible(name)}" for name, mark in marks.items() if name not in explained]
    unbroken = "   ".join(other.replace(" ", "\N{NO-BREAK SPACE}") for other in others)
    for line in textwrap.wrap(unbroken, look.cells, break_long_words=False):
        yield Text(" " * _MARGIN_CELLS + line.replace("\N{NO-BREAK SPACE}", " "))


def _leaders(runs: list[Stretch], end_seconds: float, cells: int) -> list[str | None]:
    """Return for each cell of the strip the label that leads in most of its time; None where no label does."""
    cell_seconds = end_seconds / cells
    led: list[defaultdict[str, float]] = [defaultdict(float) for _ in range(cells)]
    for run in runs:
        first, last = int(run.start / cell_seconds), min(int(run.end / cell_seconds), cells - 1)
        for cell in range(first, last + 1):
            overlap = min(run.end, (cell + 1) * cell_seconds) - max(run.start, cell * cell_seconds)
            led[cell][run.label] += overlap
    leaders: list[str | None] = []
    for seconds in led:
        best = max(seconds, key=lambda name: seconds[name], default=None)
        unlabelled = cell_seconds - sum(seconds.values())
        leaders.append(best if best is not None and seconds[best] >= unlabelled else None)
    return leaders


def _axis(end_seconds: float, cells: int) -> str:
    """Return the times under the strip, at round numbers."""
    cells_per_second = cells / end_seconds
    apart = next((tick for tick in _TICK_SECONDS if tick * cells_per_second >= _TICK_CELLS), _TICK_SECONDS[-1])
    axis = ""
    for tick in range(0, int(end_seconds) + 1, apart):
        column = round(tick * cells_per_second)
        if column + len(clock(tick)) <= cells:
            axis = axis.ljust(column) + clock(tick)
    return axis


def _time(seconds: float, tenths: bool) -> str:
    return f"{clock(int(seconds + 0.05))}.{int((seconds + 0.05) * 10) % 10}" if tenths else clock(seconds)


def _chip(mark: _Mark | None, look: _Look) -> Text:
    """Return a letter on its colour, five cells wide; blank for a label that never leads."""
    if mark is None:
        return Text("     ")
    return Text.assemble((f" {mark.letter} ", f"bold {mark.style}" if look.colour else ""), "  ")


def _scored(label: str, score: float) -> tuple[Text, str]:
    name = Text(visible(label))
    name.truncate(_LABEL_CELLS, overflow="ellipsis", pad=True)
    return name, f"{percent(score):>3} %"


def _bar(score: float, look: _Look) -> Text:
    if not look.fine:
        return Text("#" * round(score * _BAR_CELLS))
    whole, eighths = divmod(round(score * _BAR_CELLS * 8), 8)
    return Text("█" * whole + (" ▏▎▍▌▋▊▉"[eighths] if eighths else ""), style="cyan" if look.colour else "")
