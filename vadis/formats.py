"""Results as text: FORMATS, one small function per output format.

Each takes results one after another and yields the text of the document piece by piece, as the run goes. When the
results end early the document still ends well-formed.
"""

import csv as csv_lines
import io
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from html import escape

from vadis.results import Label, Segment, VideoResult, printable

CSV_COLUMNS = ("path", "start", "end", "rank", "label", "score", "status", "error")
"""The head of the csv: times in seconds, rank 1 is the leading label, ``error`` is a code and a message."""

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for a formula (OWASP ASVS 1.2.10)
_SAME_TIME_SECONDS = 1e-6  # neighbouring segments share their border but for rounding


@dataclass(frozen=True)
class Format:
    """One row of FORMATS: ``write`` turns results into pieces of text, of one video where there is no room for more."""

    name: str
    write: Callable[[Iterable[VideoResult]], Iterator[str]]
    one_video: bool = False


@dataclass(frozen=True)
class Stretch:
    """Neighbouring segments under one leading label, ``[start, end)`` in seconds; ``score`` is its mean over time."""

    start: float
    end: float
    label: str
    score: float


def jsonl(results: Iterable[VideoResult]) -> Iterator[str]:
    """One record per line."""
    for result in results:
        yield result.to_json_line() + "\n"


def json(results: Iterable[VideoResult]) -> Iterator[str]:
    """An array of records; ``[]`` where there are none."""
    before = "[\n"
    for result in results:
        yield before + result.to_json_line()
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def csv(results: Iterable[VideoResult]) -> Iterator[str]:
    """A row per segment and label under CSV_COLUMNS; a video without any (failed, or all below the threshold) has one.

    Text that a spreadsheet would run as a formula gets a leading apostrophe; control characters become escapes.
    """
    yield csv_line(CSV_COLUMNS)
    for result in results:
        path, error = _cell(result.path), f"{result.error_code}: {result.error_message}" if result.error_code else ""
        for segment in result.segments:
            for rank, label in enumerate(segment.labels, 1):
                times, score = (f"{segment.start:.3f}", f"{segment.end:.3f}"), f"{label.score:.6f}"
                yield csv_line((path, *times, rank, _cell(label.label), score, result.status, ""))
        if not any(segment.labels for segment in result.segments):
            yield csv_line((path, "", "", "", "", "", result.status, _cell(error)))


def csv_line(cells: Iterable[object]) -> str:
    """Return a row of a CSV file, its line feed included."""
    line = io.StringIO()
    csv_lines.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def srt(results: Iterable[VideoResult]) -> Iterator[str]:
    """SubRip: numbered cues, neighbours with the same leading label merged; a failed video has none."""
    for result in results:
        for number, (times, text) in enumerate(_cues(result), 1):
            yield f"{number}\n{times.replace('.', ',')}\n{text}\n\n"


def vtt(results: Iterable[VideoResult]) -> Iterator[str]:
    """WebVTT: the cues of ``srt``, with the three characters escaped that mean markup there."""
    yield "WEBVTT\n\n"
    for result in results:
        for times, text in _cues(result):
            yield f"{times}\n{escape(text, quote=False)}\n\n"


def _cues(result: VideoResult) -> Iterator[tuple[str, str]]:
    for stretch in stretches(result.segments):
        text = f"{visible(stretch.label)} ({percent(stretch.score)}%)"
        yield f"{_clock(stretch.start)} --> {_clock(stretch.end)}", text


def _clock(seconds: float) -> str:
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}.{milliseconds % 1000:03}"


def _cell(text: str) -> str:
    return ("'" if text.startswith(_FORMULA_STARTS) else "") + visible(text)


FORMATS = {
    "jsonl": Format("jsonl", jsonl),
    "json": Format("json", json),
    "csv": Format("csv", csv),
    "srt": Format("srt", srt, one_video=True),
    "vtt": Format("vtt", vtt, one_video=True),
}
"""Every output format, by the name that ``--format`` takes and that files get as extension."""


def stretches(segments: Iterable[Segment]) -> list[Stretch]:
    """Return segments merged where neighbours have the same leading label, without those that have none."""
    merged: list[Stretch] = []
    for segment in segments:
        if not segment.labels:
            continue
        best, end = segment.labels[0], segment.end
        last = merged[-1] if merged else None
        if last and last.label == best.label and abs(last.end - segment.start) < _SAME_TIME_SECONDS:
            area = last.score * (last.end - last.start) + best.score * (end - last.end)
            merged[-1] = replace(last, end=end, score=area / (end - last.start))
        else:
            merged.append(Stretch(segment.start, end, best.label, best.score))
    return merged


def above(result: VideoResult, threshold: float) -> VideoResult:
    """Return ``result`` without the labels whose score is below ``threshold``; its segments stay, even when empty."""

    def kept(labels: tuple[Label, ...]) -> tuple[Label, ...]:
        return tuple(label for label in labels if label.score >= threshold)

    segments = tuple(replace(segment, labels=kept(segment.labels)) for segment in result.segments)
    return replace(result, labels=kept(result.labels), segments=segments)


def visible(text: str) -> str:
    """Return ``text`` as it may be shown: what a terminal would obey or hide becomes an escape (``\\n``, ``\\x1b``).

    That is controls, line separators, bidirectional and zero-width characters, and bytes that are not UTF-8.
    """
    return "".join(
        char
        if char.isprintable() or unicodedata.category(char) == "Zs"  # spaces of other scripts are harmless
        else char.encode("unicode_escape").decode("ascii")
        for char in printable(text)
    )


def percent(score: float) -> str:
    """Return a score as a whole percentage without its sign; what rounds to none is "<1", for no score is zero."""
    return "<1" if 0 < score < 0.005 else f"{100 * score:.0f}"
