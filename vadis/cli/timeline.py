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
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

from vadis.cli.terminal import clock, show
from vadis.errors import VIDEO_ERROR_CODES, advice, with_options
from vadis.formats import Stretch, percent, stretches, visible
from vadis.results import VideoResult

if TYPE_CHECKING:
    from rich.console import Console

    from vadis.video.metadata import VideoFacts

MAX_STRETCHES = 12  # lines in the list; fits a screen of 24 lines together with the rest
_LABEL_CELLS = 36  # the longest of Kinetics' names is cut, the common ones are not
_BAR_CELLS = 20
_MARGIN = " " * 7  # before the strip
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
_Marks = dict[str, _Mark]


def table(results: Iterable[VideoResult], console: "Console", all_stretches: bool = False) -> Iterator[str]:
    """Yield the text of one video after another, as ``console`` (its width, colours and encoding) can show it.

    ``all_stretches`` lists every stretch instead of the MAX_STRETCHES longest.
    """
    look = _Look(
        cells=max(min(console.width - len(_MARGIN) - 1, _MAX_STRIP_CELLS), _TICK_CELLS),
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
        yield Text()
        return
    yield from _notes(result, look)
    own, runs = [label.label for label in result.labels], stretches(result.segments)
    marks = _marks(own, runs)
    yield Text()
    for label in result.labels:
        named = _named(label.label, label.score, marks.get(label.label), look)
        yield Text.assemble("  ", named, "  ", _bar(label.score, look))
    if not result.labels:
        yield Text("  no label is above the threshold")
    if len(result.segments) > 1:
        yield Text()
        yield from _strip(runs, marks, result.segments[-1].end, look)
        others = "   ".join(f"{mark.letter} {visible(name)}" for name, mark in marks.items() if name not in own)
        for line in textwrap.wrap(others, look.cells, break_long_words=False):
            yield Text(_MARGIN + line)
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


def _marks(own: list[str], runs: list[Stretch]) -> _Marks:
    """Return letters for the labels that lead: first the video's own in their order, then the others by their time."""
    milliseconds = Counter[str]()
    for run in runs:
        milliseconds[run.label] += round(1000 * (run.end - run.start))
    others = sorted(milliseconds.keys() - own, key=lambda name: (-milliseconds[name], name))
    names = [name for name in own if name in milliseconds] + others
    styles = chain(_COLOURS, repeat(_OTHER.style))  # beyond Z: drawn as "other"
    return {name: _Mark(*mark) for name, *mark in zip(names, string.ascii_uppercase, styles, strict=False)}


def _stretch_lines(runs: list[Stretch], marks: _Marks, look: _Look, all_stretches: bool) -> Iterator[Text]:
    longest = sorted(runs, key=lambda run: run.start - run.end)
    listed = runs if all_stretches else sorted(longest[:MAX_STRETCHES], key=lambda run: run.start)
    tenths = any(run.end - run.start < 2 for run in listed)
    dash = "–" if look.fine else "-"
    spans = [dash.join(_time(seconds, tenths) for seconds in (run.start, run.end)) for run in listed]
    widest = max(map(len, spans), default=0)
    for run, span in zip(listed, spans, strict=True):
        named = _named(run.label, run.score, marks.get(run.label, _OTHER), look)
        yield Text.assemble(f"  {span:>{widest}}  ", named)
    if len(listed) < len(runs):
        more = len(runs) - len(listed)
        yield Text(f"  and {more} shorter; `vadis -v classify` shows them all", style="dim")


def _strip(runs: list[Stretch], marks: _Marks, end_seconds: float, look: _Look) -> Iterator[Text]:
    """Yield the whole video as one line of blocks, and its time axis below, with times at round numbers."""
    strip, before = Text(_MARGIN), None
    for label in _leaders(runs, end_seconds, look.cells):
        mark = _Mark(".", "dim") if label is None else marks.get(label, _OTHER)
        is_blank = look.colour and label is not None and label == before
        strip.append(" " if is_blank else mark.letter, style=mark.style if look.colour else "")
        before = label
    yield strip
    cells_per_second, axis = look.cells / end_seconds, ""
    apart = next((tick for tick in _TICK_SECONDS if tick * cells_per_second >= _TICK_CELLS), _TICK_SECONDS[-1])
    for tick in range(0, int(end_seconds) + 1, apart):
        column = round(tick * cells_per_second)
        if column + len(clock(tick)) <= look.cells:
            axis = axis.ljust(column) + clock(tick)
    yield Text(_MARGIN + axis, style="dim")


def _leaders(runs: list[Stretch], end_seconds: float, cells: int) -> Iterator[str | None]:
    """Yield for each cell of the strip the label that leads in most of its time; None where no label does."""
    wide = end_seconds / cells
    led = [defaultdict[str | None, float](float) for _ in range(cells)]
    for run in runs:
        for cell in range(int(run.start / wide), min(int(run.end / wide) + 1, cells)):
            led[cell][run.label] += min(run.end, (cell + 1) * wide) - max(run.start, cell * wide)
    for seconds in led:
        seconds[None] = wide - sum(seconds.values())
        yield max(seconds, key=seconds.__getitem__)


def _time(seconds: float, tenths: bool) -> str:
    return f"{clock(int(seconds + 0.05))}.{int((seconds + 0.05) * 10) % 10}" if tenths else clock(seconds)


def _named(label: str, score: float, mark: _Mark | None, look: _Look) -> Text:
    """Return a label after its letter, which is blank for one that never leads, and before its score."""
    chip = (f" {mark.letter} ", f"bold {mark.style}" if look.colour else "") if mark else "   "
    name = Text(visible(label))
    name.truncate(_LABEL_CELLS, overflow="ellipsis", pad=True)
    return Text.assemble(chip, "  ", name, f"{percent(score):>3} %")


def _bar(score: float, look: _Look) -> Text:
    if not look.fine:
        return Text("#" * round(score * _BAR_CELLS))
    whole, eighths = divmod(round(score * _BAR_CELLS * 8), 8)
    return Text("█" * whole + " ▏▎▍▌▋▊▉"[eighths].strip(), style="cyan" if look.colour else "")
