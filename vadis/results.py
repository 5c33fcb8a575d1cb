"""What vadis says of a video, a ``VideoResult``, and its JSON (docs/command-line.md).

Intervals are half-open ``[start, end)``, in seconds from the start of the file. Scores are finite, in [0, 1].
"""

import base64
import json
import math
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from fractions import Fraction
from html import escape
from typing import Any, NamedTuple

from vadis.errors import UsageError, VadisError

SCHEMA = 2
STATUSES = ("ok", "partial", "error", "skipped")
SEGMENT_SECONDS = 2.56  # 64 frames at 25 fps, the length of a training clip (paper, table 1)
FINEST_SEGMENT_SECONDS = 0.32  # 8 frames at 25 fps, the temporal stride of I3D
MAX_LABEL_LENGTH = 200  # characters
NO_CLEAR_LABEL = "no clear label"
"""Stands for a label where none is clear (``vadis.inference.scores``)."""
MAX_BARS = 400  # of the timeline in a notebook, which shows its longest pieces
# Of labels wherever a timeline is drawn, as in report/assets/data.js: Okabe and Ito's, told apart by nearly everyone.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a200")


class Part(NamedTuple):
    """A part of a video, ``[start, end)`` in seconds from the start of the file; without ``end`` up to its end."""

    start: float = 0.0
    end: float | None = None

    @property
    def exact(self) -> tuple[Fraction, Fraction | None]:
        """The decimal numbers that were written: 0.28 is 7/25, not its binary neighbour."""
        return Fraction(str(self.start)), None if self.end is None else Fraction(str(self.end))

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Part":
        return cls(_number(record["start"]), None if record["end"] is None else _number(record["end"]))


def part_of(start: float | None, end: float | None) -> Part | None:
    """Return the part that a caller wants; None for the whole video. Raise UsageError for what cannot be."""
    part = Part(float(start or 0), None if end is None or end == math.inf else float(end))
    if not 0 <= part.start < (math.inf if part.end is None else part.end):
        until = "the end" if part.end is None else f"{part.end:g}"
        message = f"there is no part from {part.start:g} to {until}: a part begins at 0 s or later, before it ends"
        raise UsageError(message, hint="leave `start` out for the beginning, `end` for the end")
    return None if part == Part() else part


@dataclass(frozen=True)
class Label:
    """A class name with its score; ``peak`` and ``seconds`` belong to the labels of a whole video."""

    label: str
    score: float
    peak: float | None = None  # the highest probability in any prediction
    seconds: float | None = None  # for how long the label leads the timeline

    def to_json(self) -> dict[str, Any]:
        """Return the label as in the record; what is None is left out."""
        record: dict[str, Any] = {"label": self.label, "score": _finite(self.score)}
        if self.peak is not None:
            record["peak"] = _finite(self.peak)
        if self.seconds is not None:
            record["seconds"] = round(self.seconds, 3)
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Label":
        peak, seconds = (None if record.get(key) is None else _number(record[key]) for key in ("peak", "seconds"))
        return cls(str(record["label"]), _number(record["score"], most=1), peak, seconds)


@dataclass(frozen=True)
class Segment:
    """What happens in ``[start, end)``, in seconds; the best label first."""

    start: float
    end: float
    labels: tuple[Label, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the segment as in the record, its times to the millisecond."""
        labels = [label.to_json() for label in self.labels]
        return {"start": round(self.start, 3), "end": round(self.end, 3), "labels": labels}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Segment":
        return cls(*_times(record), tuple(map(Label.from_json, record["labels"])))


@dataclass(frozen=True)
class Piece:
    """A piece of the timeline: ``label`` holds in ``[start, end)``, in seconds, with a ``score`` like a probability."""

    start: float
    end: float
    label: str  # or NO_CLEAR_LABEL, whose score is what speaks against the best label
    score: float

    def to_json(self) -> dict[str, Any]:
        """Return the piece as in the record, its times to the millisecond."""
        times = {"start": round(self.start, 3), "end": round(self.end, 3)}
        return {**times, "label": self.label, "score": _finite(self.score)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Piece":
        return cls(*_times(record), str(record["label"]), _number(record["score"], most=1))


@dataclass(frozen=True)
class VideoResult:
    """One record: all that vadis says of one input."""

    path: str  # as given; bytes that are not UTF-8 are kept as surrogates (``os.fsencode`` gives them back)
    status: str  # one of STATUSES; "partial": a part of the video is missing (``PARTIAL_FLAGS``)
    source_bytes: int | None = None  # the size of the file when it was opened
    source_mtime: str | None = None  # when it had been changed: seconds since 1970, to the nanosecond
    duration_seconds: float | None = None
    part: Part | None = None  # of the file, if it is not about the whole of it
    source_fps: Fraction | None = None
    source_size: tuple[int, int] | None = None  # (width, height), upright, as coded
    num_frames: int | None = None  # on the 25 fps grid
    frames_decoded: int | None = None
    frames_declared: int | None = None
    flags: tuple[str, ...] = ()  # what was out of the ordinary
    model: str | None = None
    model_sha256: str | None = None
    precision: str | None = None  # "fp32" or "bf16"; None in records of an older vadis
    cudnn: str | None = None  # the version that computed it, None for the CPU
    streams: tuple[str, ...] = ()
    sliding: dict[str, Any] = field(default_factory=dict)
    labels: tuple[Label, ...] = ()  # by the mean of their probabilities over time
    clip_score: tuple[Label, ...] = ()  # by the paper's score of a trimmed clip, which an evaluation uses
    timeline: tuple[Piece, ...] = ()  # what people read
    segments: tuple[Segment, ...] = ()  # the same time in equal steps, for machines
    error_code: str | None = None  # a key of ``vadis.errors.VIDEO_ERROR_CODES``
    error_message: str | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"{self.status = } is not one of {STATUSES}")
        if (self.status == "error") != (self.error_code is not None):
            raise ValueError(f"{self.status = } does not go with {self.error_code = }")

    @property
    def span(self) -> tuple[float, float]:
        """Where the video begins and ends, in seconds; the timeline may lack parts of that (``--labels``)."""
        parts = self.segments or self.timeline
        return (parts[0].start, parts[-1].end) if parts else (0.0, 0.0)

    @property
    def scale(self) -> tuple[float, float]:
        """Where a drawing of the timeline begins, and how many seconds it spans: from the start of file or part."""
        begin = self.part.start if self.part else 0.0
        return begin, max(0.0, self.span[1] - begin) or 1.0

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values; raise ValueError rather than write a score that is not finite."""
        is_error, fps = self.status == "error", self.source_fps
        record: dict[str, Any] = {"schema": SCHEMA, **path_fields(self.path)}
        if self.source_bytes is not None:
            record |= {"source_bytes": self.source_bytes, "source_mtime": self.source_mtime}
        record["status"] = self.status
        if is_error:
            record["error"] = {"code": self.error_code, "message": printable(self.error_message or "")}
        facts = {
            "duration_seconds": None if self.duration_seconds is None else round(self.duration_seconds, 3),
            **({} if self.part is None else {"part": self.part._asdict()}),
            "source_fps": None if fps is None else f"{fps.numerator}/{fps.denominator}",
            "source_size": None if self.source_size is None else list(self.source_size),
            **{name: getattr(self, name) for name in ("num_frames", "frames_decoded", "frames_declared")},
            "flags": list(self.flags),
        }  # of an error, only what was found out before it
        record |= {key: value for key, value in facts.items() if not is_error or value not in (None, [])}
        if self.status in ("ok", "partial"):
            record |= {"model": self.model, "model_sha256": self.model_sha256}
            how = {"precision": self.precision, "cudnn": self.cudnn}
            record |= {name: value for name, value in how.items() if value is not None}
            record |= {"streams": list(self.streams), "sliding": self.sliding}
            record |= {name: [each.to_json() for each in getattr(self, name)] for name in _PARTS}
        return record

    def to_json_line(self) -> str:
        """Return the record as one line of ASCII, without its line feed."""
        return json.dumps(self.to_json(), ensure_ascii=True, allow_nan=False)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "VideoResult":
        """Return the result that ``to_json`` gave, as exactly as it was written; raise ValueError for anything else."""
        try:
            if record["schema"] != SCHEMA:
                raise KeyError("schema")
            found = {name: read(record[name]) for name, read in _READERS.items() if record.get(name) is not None}
            if (error := record.get("error")) is not None:
                found |= {"error_code": str(error["code"]), "error_message": str(error["message"])}
            return cls(path_of(record), str(record["status"]), **found)
        except (LookupError, TypeError, AttributeError, ArithmeticError) as fault:
            raise ValueError("not a record of vadis classify") from fault

    def to_pandas(self) -> Any:
        """Return the segments as a pandas DataFrame, a row for each label: start, end, rank, label, score."""
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise VadisError("pandas is not installed", hint="pip install pandas") from error
        rows = [
            (segment.start, segment.end, rank, label.label, label.score)
            for segment in self.segments
            for rank, label in enumerate(segment.labels, 1)
        ]
        return DataFrame(rows, columns=["start", "end", "rank", "label", "score"])

    def _repr_html_(self) -> str:
        """Return what a notebook shows: labels, and a timeline with scores on hover; every name in it is text."""
        names = dict.fromkeys(piece.label for piece in self.timeline if piece.label != NO_CLEAR_LABEL)
        colours, bars = dict(zip(names, PALETTE, strict=False)), []
        begin, seconds = self.scale
        for piece in sorted(self.timeline, key=lambda piece: piece.start - piece.end)[:MAX_BARS]:
            what = f"{piece.start:.1f}–{piece.end:.1f} s: {_html(f'{piece.label} {piece.score:.0%}')}"
            x, width = (piece.start - begin) / seconds, (piece.end - piece.start) / seconds
            place = f'x="{x:.2%}" width="{width:.2%}"'
            colour, height = colours.get(piece.label, "#8a8a8a"), piece.score if piece.label in names else 0.1
            bar = f'y="{1 - height:.0%}" height="100%" fill="{colour}"'
            bars.append(f"<rect {place} {bar}><title>{what}</title></rect>")
        timeline = f'<svg width="720" height="44" style="display:block">{"".join(bars)}</svg>' if bars else ""
        rows = [(_html(label.label), f"{label.score:.1%}", f"{label.seconds or 0:.1f} s") for label in self.labels]
        table = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
        facts = _html(", ".join((self.error_message or self.status, *self.flags)))
        return f"<div><b>{_html(self.path)}</b> {facts}{timeline}<table>{table}</table></div>"


def leading_milliseconds(timeline: Iterable[Piece]) -> Counter[str]:
    """Return the milliseconds for which each label leads, in the order in which the labels first lead."""
    milliseconds = Counter[str]()
    for piece in timeline:
        if piece.label != NO_CLEAR_LABEL:
            milliseconds[piece.label] += round(1000 * (piece.end - piece.start))
    return milliseconds


def printable(text: str) -> str:
    """Return ``text`` with lone surrogates (bytes that are not UTF-8) as ``\\xNN``, so that any encoder takes it."""
    try:
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a UTF-16 pair, which no file name holds but a caller's text may
        content = text.encode("utf-8", "backslashreplace")
    return content.decode("utf-8", "backslashreplace")


def is_like(label: str, pattern: str) -> bool:
    """Return whether a label is what ``pattern`` describes, in any case, with ``*`` for any letters.

    Every other character stands for itself, brackets too. "No clear label" is no label: it is what only its whole name
    describes.
    """
    folded = unicodedata.normalize("NFC", pattern).casefold()
    if label == NO_CLEAR_LABEL:
        return folded == label
    return fnmatchcase(unicodedata.normalize("NFC", label).casefold(), re.sub(r"[\[?]", r"[\g<0>]", folded))


def path_fields(path: str) -> dict[str, Any]:
    """Return a path as it stands in a record: as text, and where that is not all of it, exactly."""
    text = printable(path)
    exact = {"path_b64": base64.b64encode(os.fsencode(path)).decode("ascii")} if text != path else {}
    return {"path": text, **exact}


def path_of(record: Mapping[str, Any]) -> str:
    """Return the path in a record; raise KeyError or ValueError for none."""
    exact = record.get("path_b64")
    path = str(record["path"]) if exact is None else os.fsdecode(base64.b64decode(exact, validate=True))
    if "\0" in path:
        raise ValueError("no path has NUL in it")
    return path


def _number(value: Any, most: float = sys.float_info.max) -> float:
    """Return a number of a record; raise ValueError for anything else, below 0, above ``most``, or not finite."""
    if type(value) not in (int, float) or not 0 <= value <= most:
        raise ValueError(f"{value!r} is no number of a record")
    return float(value)


def _times(record: Mapping[str, Any]) -> tuple[float, float]:
    end = _number(record["end"])
    return _number(record["start"], most=end), end


def _whole(value: Any) -> int:
    if type(value) is not int:  # nor a bool
        raise ValueError(f"{value!r} is no whole number")
    _number(value)
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _size(numbers: Any) -> tuple[int, int]:
    width, height = map(_whole, numbers)
    if not (width and height):
        raise ValueError(f"a picture of {width} × {height}")
    return width, height


def _rate(text: str) -> Fraction:
    rate = Fraction(*map(int, text.split("/")))
    _number(float(rate))
    return rate


def _finite_values(values: Any) -> dict[str, Any]:
    json.dumps(values, allow_nan=False)  # raises ValueError
    return dict(values)


def _each(read: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda values: tuple(map(read, values))


_PARTS: dict[str, Any] = {"labels": Label, "clip_score": Label, "timeline": Piece, "segments": Segment}
_READERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("source_bytes", "num_frames", "frames_decoded", "frames_declared"), _whole),
    **dict.fromkeys(("source_mtime", "model", "model_sha256", "precision", "cudnn"), _text),
    **dict.fromkeys(("flags", "streams"), _each(str)),
    **{name: _each(kind.from_json) for name, kind in _PARTS.items()},
    "duration_seconds": _number,
    "part": Part.from_json,
    "source_fps": _rate,
    "source_size": _size,
    "sliding": _finite_values,
}
"""What each field of a record is made of again."""


def _finite(score: float) -> float:
    if not math.isfinite(score):
        raise ValueError(f"a score must be finite, got {score}")
    return round(float(score), 6)


def _html(text: str) -> str:
    """Return text for HTML; a name that turns the direction of writing turns nothing but itself."""
    return f"<bdi>{escape(printable(text))}</bdi>"


def label_fault(label: object) -> str | None:
    """Return what keeps ``label`` from being one ("is empty", …), or None if it is one."""
    if not isinstance(label, str):
        return "is not text"
    if not label.strip():
        return "is empty"
    if len(label) > MAX_LABEL_LENGTH:
        return f"has more than {MAX_LABEL_LENGTH} characters"
    # Cc: control characters; Cs: surrogates, which bytes become that are no text; Zl, Zp: line and paragraph separators
    if "\ufffd" in label or any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in label):
        return "has a control character, or is not UTF-8"
    return None
