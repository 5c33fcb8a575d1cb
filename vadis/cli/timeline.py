"""The table for people: labels, a strip of the whole video in letters or colours, and its timeline, in 80 columns.

Letters tell the labels apart where there is no colour; with colour the first one of a block is seen. A dot
stands for no clear label.
"""

import string
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

from vadis.cli.terminal import clock, show, tenths
from vadis.errors import VIDEO_ERROR_CODES, advice, with_options
from vadis.formats import percent, visible
from vadis.results import NO_CLEAR_LABEL, PALETTE, Piece, VideoResult, leading_milliseconds
from vadis.video.metadata import FLAGS, VideoFacts

if TYPE_CHECKING:
    from rich.console import Console

MAX_STRETCHES = 12  # lines in the list; fits a screen of 24 lines together with the rest
_LABEL_CELLS = 36  # the longest of Kinetics' names is cut, the common ones are not
_MARGIN = " " * 7  # before the strip
_TICK_CELLS = 10  # at least so far apart
_TICK_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200)
_BARS = "▁▂▃▄▅▆▇█"
_LEAST_SHOWN = 0.01  # labels below it, which would be "<1 %", are left out, but for the first
_ASCII = str.maketrans("×–█…▁▂▃▄▅▆▇", "x-#~....###", "▏▎▍▌▋▊▉")  # for a terminal without UTF-8


class _Mark(NamedTuple):
    """How a leading label is drawn: its letter, on its colour, with the ink that reads on it."""

    letter: str
    ink: str
    colour: str


_BLACK, _WHITE, _GREY = "#000000", "#ffffff", "#808080"
_COLOURS = tuple((_WHITE if colour in ("#0072b2", "#d55e00") else _BLACK, colour) for colour in PALETTE)
_OTHER = _Mark("*", _WHITE, _GREY)


def table(results: Iterable[VideoResult], console: "Console", all_stretches: bool = False) -> Iterator[str]:
    """Yield the text of one video after another, as ``console`` (its width, colours and encoding) can show it.

    ``all_stretches`` lists every stretch instead of the MAX_STRETCHES longest.
    """
    cells = max(min(console.width - len(_MARGIN) - 1, 120), _TICK_CELLS)
    return _render((_lines(result, cells, all_stretches) for result in results), console)


def lines(results: Iterable[VideoResult], console: "Console") -> Iterator[str]:
    """Yield a line for each video: its name, length and first label, and when that holds, from its start to its end."""
    for_label = min(_LABEL_CELLS, max(24, (console.width - 30) // 3))
    for_name = max(console.width - 30 - for_label, 18)
    return _render(([_line(result, for_name, for_label)] for result in results), console)


def _render(videos: Iterable[Iterable[Text]], console: "Console") -> Iterator[str]:
    is_utf = console.encoding.lower().startswith("utf")
    for texts in videos:
        with console.capture() as captured:
            for text in texts:
                console.print(text, soft_wrap=True)
        yield captured.get() if is_utf else captured.get().translate(_ASCII)


def _line(result: VideoResult, for_name: int, for_label: int) -> Text:
    path = show(result.path)
    name = Text(path if len(path) <= for_name else "…" + path[1 - for_name :])
    name.truncate(for_name, pad=True)
    if result.status == "error":
        reason = visible(with_options(result.error_message or ""))
        return Text.assemble((name.plain, "bold"), ("  not labelled: ", "bold red"), reason)
    seconds, best = result.duration_seconds, next(iter(result.labels), None)
    if best is None:
        return Text.assemble((name.plain, "bold"), f"  {clock(seconds or 0):>7}  no label is above the threshold")
    label = Text(visible(best.label))
    label.truncate(for_label, overflow="ellipsis", pad=True)
    score = f"{percent(best.score):>3} %"
    partial = ("  partial", "bold yellow") if result.status == "partial" else ""
    leads = [label == best.label for label in _leaders(result.timeline, result.scale, 70)]
    bars = "".join(_BARS[sum(leads[start : start + 7])] for start in range(0, 70, 7))  # a bar for each tenth
    return Text.assemble(
        (name.plain, "bold"), f"  {clock(seconds or 0):>7}  ", label, score, "  ", (bars, "cyan"), partial
    )


def _lines(result: VideoResult, cells: int, all_stretches: bool) -> Iterator[Text]:
    yield Text(show(result.path), style="bold")
    if result.status == "error":
        yield Text.assemble(("not labelled: ", "bold red"), visible(with_options(result.error_message or "")))
        if result.error_code in VIDEO_ERROR_CODES:
            yield Text(f"hint: {advice(result.error_code)}", style="dim")
        yield Text()
        return
    yield from _notes(result)
    own, runs = [label.label for label in result.labels], result.timeline
    marks = _marks(runs)
    yield Text()
    for label in [each for each in result.labels if each.score >= _LEAST_SHOWN or each is result.labels[0]]:
        whole, eighths = divmod(round(label.score * 20 * 8), 8)
        bar = "" if label.label == NO_CLEAR_LABEL else "█" * whole + " ▏▎▍▌▋▊▉"[eighths].strip()
        yield Text.assemble("  ", *_label_parts(label.label, label.score, marks.get(label.label)), "  ", (bar, "cyan"))
    if not result.labels:
        yield Text("  no label is above the threshold")
    if any((run.start, run.end) != result.span for run in runs):  # else one label holds throughout
        yield Text()
        yield from _strip(runs, marks, result.scale, cells)
        others = (f"{mark.letter} {visible(name)}" for name, mark in marks.items() if name not in own)
        legend = "   ".join(other.replace(" ", "\xa0") for other in others)  # so that no line ends within a name
        for line in textwrap.wrap(legend, cells, break_long_words=False):
            yield Text(_MARGIN + line.replace("\xa0", " "))
        yield Text()
        yield from _stretch_lines(runs, marks, all_stretches)
    yield Text()


def _notes(result: VideoResult) -> Iterator[Text]:
    """Yield the facts of the file on one line, then each thing out of the ordinary on its own."""
    seconds, size, facts = result.duration_seconds, result.source_size, []
    if seconds is not None:
        digits = 2 if seconds < 0.95 else 1  # a single frame is no "0.0 s"
        facts.append(clock(seconds) if seconds >= 60 else f"{seconds:.{digits}f} s")
    if result.part is not None:
        facts.append(f"from {clock(result.part.start)}" + ("" if seconds is None else f" to {clock(result.span[1])}"))
    if size is not None:
        facts.append(f"{size[0]}×{size[1]}")
    if result.source_fps is not None:
        facts.append(f"{float(result.source_fps):.4g} fps")
    if result.model is not None:
        facts.append(f"labelled by {visible(result.model)}")
    yield Text(", ".join(facts), style="dim")
    if result.status == "partial":
        yield Text.assemble(("partial: ", "bold yellow"), missing_part(result))
    for flag in result.flags:
        from vadis.inference.classify import INFERENCE_FLAGS

        yield Text(f"note: {(FLAGS | INFERENCE_FLAGS).get(flag, visible(flag).replace('_', ' '))}")


def missing_part(result: VideoResult | VideoFacts) -> str:
    """Return what a ``partial`` video leaves out, as far as the file tells."""
    decoded, declared = result.frames_decoded, result.frames_declared  # not of a part
    if decoded is not None and declared is not None and decoded < declared:
        return f"only {decoded} of {declared} frames could be read"
    return "part of the file could not be read"


def _marks(runs: Sequence[Piece]) -> dict[str, _Mark]:
    """Return letters for the labels that lead, in the order of time; colours for those that lead longest."""
    milliseconds = leading_milliseconds(runs)
    longest, colours = dict(milliseconds.most_common(len(_COLOURS))), iter(_COLOURS)
    lettered = zip(milliseconds, string.ascii_uppercase, strict=False)  # beyond Z: drawn as "other"
    return {name: _Mark(letter, *(next(colours) if name in longest else _OTHER[1:])) for name, letter in lettered}


def _stretch_lines(runs: Sequence[Piece], marks: dict[str, _Mark], all_stretches: bool) -> Iterator[Text]:
    longest = sorted(runs, key=lambda run: run.start - run.end)
    listed = runs if all_stretches else sorted(longest[:MAX_STRETCHES], key=lambda run: run.start)
    time = tenths if any(run.end - run.start < 2 for run in listed) else clock
    spans = [f"{time(run.start)}–{time(run.end)}" for run in listed]
    widest = max(map(len, spans), default=0)
    for run, span in zip(listed, spans, strict=True):
        mark = marks.get(run.label, None if run.label == NO_CLEAR_LABEL else _OTHER)
        yield Text.assemble(f"  {span:>{widest}}  ", *_label_parts(run.label, run.score, mark))
    if len(listed) < len(runs):
        more = len(runs) - len(listed)
        yield Text(f"  and {more} shorter; -v shows them all", style="dim")


def _strip(runs: Sequence[Piece], marks: dict[str, _Mark], scale: tuple[float, float], cells: int) -> Iterator[Text]:
    """Yield the whole video, or its part, as one line of blocks, and its time axis, with times at round numbers."""
    strip, (begin, seconds) = Text(_MARGIN), scale
    for label, block in groupby(_leaders(runs, scale, cells)):
        width = len(list(block))
        if label == NO_CLEAR_LABEL:
            strip.append("." * width, "dim")
        else:
            letter, ink, colour = marks.get(label, _OTHER)
            strip.append(letter, f"{ink} on {colour}")
            strip.append(letter * (width - 1), f"{colour} on {colour}")  # seen only where there is no colour
    yield strip
    cells_per_second, axis = cells / seconds, ""
    apart = next((tick for tick in _TICK_SECONDS if tick * cells_per_second >= _TICK_CELLS), _TICK_SECONDS[-1])
    for tick in range(ceil(begin / apart) * apart, int(begin + seconds) + 1, apart):
        column = round((tick - begin) * cells_per_second)
        if column + len(clock(tick)) <= cells:
            axis = axis.ljust(column) + clock(tick)
    yield Text(_MARGIN + axis, style="dim")


def _leaders(runs: Sequence[Piece], scale: tuple[float, float], cells: int) -> Iterator[str]:
    """Yield what leads in the middle of each of so many equal parts of a video, or NO_CLEAR_LABEL."""
    for cell in range(cells):
        middle = scale[0] + (cell + 0.5) * scale[1] / cells  # there may be gaps between runs (``--labels``)
        yield next((run.label for run in runs if run.start <= middle < run.end), NO_CLEAR_LABEL)


def _label_parts(label: str, score: float, mark: _Mark | None) -> tuple[tuple[str, str] | str, str, Text, str]:
    """Return the parts of a label's line: its letter (blank if it never leads), a gap, its name and its score."""
    name = Text(visible(label))
    name.truncate(_LABEL_CELLS, overflow="ellipsis", pad=True)
    chip = (f" {mark.letter} ", f"bold {mark.ink} on {mark.colour}") if mark else "   "
    return chip, "  ", name, "     " if label == NO_CLEAR_LABEL else f"{percent(score):>3} %"
