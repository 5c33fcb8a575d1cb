"""Results as text: FORMATS, one small function per output format.

Each takes results one after another and yields the text of the document piece by piece, as the run goes. When the
results end early the document still ends well-formed.
"""

import csv as csv_lines
import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from html import escape

from vadis.results import NO_CLEAR_LABEL, Label, Piece, VideoResult, is_like, printable

CSV_COLUMNS = ("path", "start", "end", "rank", "label", "score", "status", "error")
"""The head of the csv: times in seconds, rank 1 is the leading label, ``error`` is a code and a message."""

VIDEO_COLUMNS = ("path", "duration", "label", "score", "seconds", "status", "error")
"""The head of the csv with a row per video: ``seconds`` is for how long its first label leads."""

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for a formula (OWASP ASVS 1.2.10)


@dataclass(frozen=True)
class Format:
    """One row of FORMATS: ``write`` turns results into pieces of text, of one video where there is no room for more."""

    name: str
    write: Callable[[Iterable[VideoResult]], Iterator[str]]
    one_video: bool = False


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
        path = spreadsheet_cell(result.path)
        for segment in result.segments:
            for rank, label in enumerate(segment.labels, 1):
                times, score = (f"{segment.start:.3f}", f"{segment.end:.3f}"), f"{label.score:.6f}"
                yield csv_line((path, *times, rank, spreadsheet_cell(label.label), score, result.status, ""))
        if not any(segment.labels for segment in result.segments):
            yield csv_line((path, "", "", "", "", "", result.status, _error(result)))


def csv_of_videos(results: Iterable[VideoResult]) -> Iterator[str]:
    """A row per video under VIDEO_COLUMNS, with its first label."""
    yield csv_line(VIDEO_COLUMNS)
    for result in results:
        path, best = spreadsheet_cell(result.path), result.labels[0] if result.labels else None
        duration = "" if result.duration_seconds is None else f"{result.duration_seconds:.3f}"
        label = (spreadsheet_cell(best.label), f"{best.score:.6f}", f"{best.seconds or 0:.3f}") if best else ("",) * 3
        yield csv_line((path, duration, *label, result.status, _error(result)))


def _error(result: VideoResult) -> str:
    return spreadsheet_cell(f"{result.error_code}: {result.error_message}") if result.error_code else ""


def csv_line(cells: Iterable[object]) -> str:
    """Return a row of a CSV file, its line feed included."""
    line = io.StringIO()
    csv_lines.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def srt(results: Iterable[VideoResult]) -> Iterator[str]:
    """SubRip: a numbered cue for each piece of the timeline; a failed video has none."""
    for result in results:
        for number, (times, text) in enumerate(_cues(result), 1):
            yield f"{number}\n{times.replace('.', ',')}\n{text}\n\n"


def vtt(results: Iterable[VideoResult]) -> Iterator[str]:
    """WebVTT: the cues of ``srt``, with the three characters escaped that mean markup there."""
    yield "WEBVTT\n\n"
    for result in results:
        for times, text in _cues(result):
            yield f"{times}\n{escape(text, quote=False)}\n\n"


def ffmetadata(results: Iterable[VideoResult]) -> Iterator[str]:
    """Chapters as FFmpeg reads them: a chapter for each piece of the timeline."""
    yield ";FFMETADATA1\n"
    for result in results:
        for piece in result.timeline:
            start, end = (round(1000 * seconds) for seconds in (piece.start, piece.end))
            title = re.sub(r"([=;#\\])", r"\\\1", visible(piece.label))
            yield f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={start}\nEND={end}\ntitle={title}\n"


def _cues(result: VideoResult) -> Iterator[tuple[str, str]]:
    for piece in result.timeline:
        score = "" if piece.label == NO_CLEAR_LABEL else f" ({percent(piece.score)}%)"
        yield f"{_clock(piece.start)} --> {_clock(piece.end)}", visible(piece.label) + score


def _clock(seconds: float) -> str:
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}.{milliseconds % 1000:03}"


def spreadsheet_cell(text: str) -> str:
    """Return text for a cell: nothing in it is run as a formula, or hidden."""
    return ("'" if text.startswith(_FORMULA_STARTS) else "") + visible(text)


FORMATS = {
    "jsonl": Format("jsonl", jsonl),
    "json": Format("json", json),
    "csv": Format("csv", csv),
    "srt": Format("srt", srt, one_video=True),
    "vtt": Format("vtt", vtt, one_video=True),
    "ffmetadata": Format("ffmetadata", ffmetadata, one_video=True),
}
"""Every output format, by the name that ``--format`` takes and that files get as extension."""


def above(result: VideoResult, threshold: float) -> VideoResult:
    """Return ``result`` without the labels whose score is below ``threshold``.

    Its segments stay, even when empty; in its timeline such a label becomes "no clear label".
    """
    timeline: list[Piece] = []
    for piece in result.timeline:
        if piece.score < threshold and piece.label != NO_CLEAR_LABEL:
            piece = replace(piece, label=NO_CLEAR_LABEL, score=1 - piece.score)
        if timeline and timeline[-1].label == piece.label:
            last, seconds = timeline.pop(), piece.end - piece.start
            mean = (last.score * (last.end - last.start) + piece.score * seconds) / (piece.end - last.start)
            piece = replace(piece, start=last.start, score=mean)
        timeline.append(piece)
    return _filtered(result, lambda label: label.score >= threshold, timeline)


def only(result: VideoResult, pattern: str) -> VideoResult:
    """Return ``result`` with the labels like ``pattern`` alone; what of the timeline has another is left out."""
    timeline = (piece for piece in result.timeline if is_like(piece.label, pattern))
    return _filtered(result, lambda label: is_like(label.label, pattern), timeline)


def _filtered(result: VideoResult, is_kept: Callable[[Label], bool], timeline: Iterable[Piece]) -> VideoResult:
    segments = tuple(replace(segment, labels=tuple(filter(is_kept, segment.labels))) for segment in result.segments)
    labels, clip_score = tuple(filter(is_kept, result.labels)), tuple(filter(is_kept, result.clip_score))
    return replace(result, labels=labels, clip_score=clip_score, timeline=tuple(timeline), segments=segments)


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
