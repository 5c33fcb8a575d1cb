"""What vadis says of a video: ``VideoResult``, ``Segment``, ``Label``, and their JSON (one object per video).

The record is a contract: ``schema`` 1, documented field by field in docs/command-line.md. Intervals are half-open
``[start, end)`` in seconds as players count: from the start of the file, which is its first frame unless the sound
begins earlier. Scores are probabilities in [0, 1] and always finite.

A record as a notebook shows it: HTML without a script, its timeline drawn, every name in it as text.
"""

import base64
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from html import escape
from typing import Any

from vadis.errors import VadisError

WIDTH, HEIGHT = 720, 44  # pixels of the timeline
MOST_BARS = 400  # of a timeline; of more segments, only some are drawn

# Okabe and Ito's colours, told apart by nearly everyone; labels beyond them are grey.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a200")
OTHER = "#8a8a8a"


def shown(record: Mapping[str, Any]) -> str:
    """HTML of a record: its path, the labels with bars, and the timeline, whose scores show on hover."""
    parts = [f"<div><b>{_text(record['path'])}</b> {_text(_facts(record))}"]
    if "error" in record:
        parts.append(f"<p>not labelled: {_text(record['error']['message'])}</p>")
    labels, segments = record.get("labels", []), record.get("segments", [])
    colours = dict(zip(_leaders(segments), COLOURS, strict=False))
    if segments:
        parts.append(_timeline(segments, colours))
    if labels:
        parts.append(
            '<table style="margin:4px 0;color:inherit">'
            + "".join(_row(label, colours) for label in labels)
            + "</table>"
        )
    return "".join(parts) + "</div>"


def rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each segment and label: start, end (seconds), rank from 1, label, score."""
    return [
        {"start": segment["start"], "end": segment["end"], "rank": rank, "label": each["label"], "score": each["score"]}
        for segment in record.get("segments", [])
        for rank, each in enumerate(segment["labels"], 1)
    ]


COLUMNS = ("start", "end", "rank", "label", "score")


def _facts(record: Mapping[str, Any]) -> str:
    seconds, size = record.get("duration_seconds"), record.get("source_size")
    facts = [record["status"]] if record["status"] != "ok" else []
    facts += [] if seconds is None else [f"{seconds:.1f} s"]
    facts += [] if size is None else [f"{size[0]}×{size[1]}"]
    return ", ".join([*facts, *record.get("flags", [])])


def _leaders(segments: Sequence[Mapping[str, Any]]) -> list[str]:
    """The labels that lead somewhere, those that lead longest first."""
    seconds: dict[str, float] = {}
    for segment in segments:
        if segment["labels"]:
            name = segment["labels"][0]["label"]
            seconds[name] = seconds.get(name, 0.0) + segment["end"] - segment["start"]
    return sorted(seconds, key=lambda name: -seconds[name])


def _timeline(segments: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> str:
    end = segments[-1]["end"] or 1.0
    bars = "".join(_bars(segments[:: -(-len(segments) // MOST_BARS)], end, colours))
    frame = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#8882"/>'
    below = HEIGHT + 14
    axis = f'<text x="0" y="{below}">0 s</text><text x="{WIDTH}" y="{below}" text-anchor="end">{end:.1f} s</text>'
    style = "display:block;max-width:100%;margin:4px 0;font:11px sans-serif;fill:currentColor"
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 18}" width="{WIDTH}" style="{style}">{frame}{bars}{axis}</svg>'


def _bars(segments: Sequence[Mapping[str, Any]], end: float, colours: Mapping[str, str]) -> Iterator[str]:
    """A bar for each segment, as high as the score of the label that leads; each reaches to the next."""
    ends = [*(segment["start"] for segment in segments[1:]), end]
    for segment, until in zip(segments, ends, strict=True):
        if not segment["labels"]:
            continue
        best = segment["labels"][0]
        left, right = (WIDTH * time / end for time in (segment["start"], until))
        height = HEIGHT * (0.12 + 0.88 * best["score"])
        told = ", ".join(f"{each['label']} {each['score']:.0%}" for each in segment["labels"])
        title = f"<title>{segment['start']:.1f}–{until:.1f} s: {_text(told)}</title>"
        place = (
            f'x="{left:.1f}" y="{HEIGHT - height:.1f}" width="{max(0.5, right - left - 1):.1f}" height="{height:.1f}"'
        )
        yield f'<rect {place} fill="{colours.get(best["label"], OTHER)}">{title}</rect>'


def _row(label: Mapping[str, Any], colours: Mapping[str, str]) -> str:
    colour = colours.get(label["label"], OTHER)
    bar = f'<div style="width:{120 * label["score"]:.0f}px;height:8px;background:{colour}"></div>'
    led = f"leads {label['seconds']:.1f} s" if label.get("seconds") else ""
    cells = (_text(label["label"]), bar, f"{label['score']:.1%}", led)
    return "<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in cells) + "</tr>"


def _text(text: str) -> str:
    """Text in HTML; a name that turns the direction of writing turns nothing but itself."""
    return f"<bdi>{escape(text)}</bdi>"


SCHEMA = 1
STATUSES = ("ok", "partial", "error", "skipped")
SEGMENT_SECONDS = 2.56  # 64 frames at 25 fps, the length of a training clip (paper, table 1)
FINEST_SEGMENT_SECONDS = 0.32  # 8 frames at 25 fps, the temporal stride of I3D


@dataclass(frozen=True)
class Label:
    """A class name with its score.

    ``peak`` (the highest score in any segment) and ``seconds`` (for how long the label leads) belong to the labels of
    a whole video and are None in a segment.
    """

    label: str
    score: float
    peak: float | None = None
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The label as in the record; what is None is left out."""
        record: dict[str, Any] = {"label": self.label, "score": _finite(self.score)}
        if self.peak is not None:
            record["peak"] = _finite(self.peak)
        if self.seconds is not None:
            record["seconds"] = round(self.seconds, 3)
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Label":
        """The label that ``to_json`` gave; raises KeyError or TypeError for anything else."""
        return cls(str(record["label"]), float(record["score"]), record.get("peak"), record.get("seconds"))


@dataclass(frozen=True)
class Segment:
    """What happens in ``[start, end)``, in seconds; the best label first."""

    start: float
    end: float
    labels: tuple[Label, ...]

    def to_json(self) -> dict[str, Any]:
        """The segment as in the record, its times to the millisecond."""
        labels = [label.to_json() for label in self.labels]
        return {"start": round(self.start, 3), "end": round(self.end, 3), "labels": labels}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Segment":
        """The segment that ``to_json`` gave; raises KeyError or TypeError for anything else."""
        return cls(float(record["start"]), float(record["end"]), tuple(map(Label.from_json, record["labels"])))


@dataclass(frozen=True)
class VideoResult:
    """One record: all that vadis says of one input.

    ``path`` is the path as given; bytes that are not UTF-8 are kept in it as surrogates (``os.fsencode`` gives them
    back). ``source_bytes`` and ``source_mtime`` (seconds since 1970 as a decimal text, to the nanosecond) are the size
    and the time of change that the file had when it was opened: by them a later run sees whether it is still the same.
    ``status`` is ``ok``, ``partial`` (fewer frames decoded than the file declares), ``error`` or ``skipped``;
    ``error_code`` is a key of ``vadis.errors.VIDEO_ERROR_CODES``. ``flags`` name what was out of the ordinary.
    """

    path: str
    status: str
    source_bytes: int | None = None
    source_mtime: str | None = None
    duration_seconds: float | None = None
    source_fps: Fraction | None = None
    source_size: tuple[int, int] | None = None  # (width, height), upright, as coded
    num_frames: int | None = None  # on the 25 fps grid
    frames_decoded: int | None = None
    frames_declared: int | None = None
    flags: tuple[str, ...] = ()
    model: str | None = None
    model_sha256: str | None = None
    cudnn: str | None = None  # the version that computed it, None for the CPU
    streams: tuple[str, ...] = ()
    sliding: dict[str, Any] = field(default_factory=dict)
    labels: tuple[Label, ...] = ()
    segments: tuple[Segment, ...] = ()
    error_code: str | None = None
    error_message: str | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"{self.status = } is not one of {STATUSES}")
        if (self.status == "error") != (self.error_code is not None):
            raise ValueError(f"{self.status = } does not go with {self.error_code = }")

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values; raises ValueError rather than write a score that is not finite."""
        record: dict[str, Any] = {"schema": SCHEMA, **_path_fields(self.path)}
        if self.source_bytes is not None:
            record |= {"source_bytes": self.source_bytes, "source_mtime": self.source_mtime}
        record["status"] = self.status
        if self.error_code is not None:
            record["error"] = {"code": self.error_code, "message": printable(self.error_message or "")}
        record |= self._facts()
        if self.status in ("ok", "partial"):
            record |= self._findings()
        return record

    def to_json_line(self) -> str:
        """The record as one line of ASCII, without its line feed."""
        return json.dumps(self.to_json(), ensure_ascii=True, allow_nan=False)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "VideoResult":
        """The result that ``to_json`` gave, as exactly as it was written.

        Raises:
            ValueError: for anything else.
        """
        try:
            return cls(path=path_of(record), status=str(record["status"]), **_other_fields(record))
        except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
            raise ValueError("not a record of vadis classify") from error

    def to_pandas(self) -> Any:
        """The timeline as a pandas DataFrame, a row for each segment and label: start, end, rank, label, score.

        Raises:
            VadisError: where pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise VadisError("pandas is not installed", hint="pip install pandas") from error
        return DataFrame(rows(self.to_json()), columns=list(COLUMNS))

    def _repr_html_(self) -> str:
        """What a notebook shows: labels and timeline."""
        return shown(self.to_json())

    def _facts(self) -> dict[str, Any]:
        """What is known of the file; in an error record only what was found out before it."""
        fps = self.source_fps
        facts = {
            "duration_seconds": None if self.duration_seconds is None else round(self.duration_seconds, 3),
            "source_fps": None if fps is None else f"{fps.numerator}/{fps.denominator}",
            "source_size": None if self.source_size is None else list(self.source_size),
            "num_frames": self.num_frames,
            "frames_decoded": self.frames_decoded,
            "frames_declared": self.frames_declared,
            "flags": list(self.flags),
        }
        if self.status == "error":
            return {key: value for key, value in facts.items() if value not in (None, [])}
        return facts

    def _findings(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "model_sha256": self.model_sha256,
            **({} if self.cudnn is None else {"cudnn": self.cudnn}),
            "streams": list(self.streams),
            "sliding": self.sliding,
            "labels": [label.to_json() for label in self.labels],
            "segments": [segment.to_json() for segment in self.segments],
        }


def printable(text: str) -> str:
    """``text`` with lone surrogates (bytes that are not UTF-8) written as ``\\xNN``, so that any encoder takes it."""
    try:
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a UTF-16 pair, which no file name holds but a caller's text may
        content = text.encode("utf-8", "backslashreplace")
    return content.decode("utf-8", "backslashreplace")


_AS_WRITTEN = (
    *("source_bytes", "source_mtime", "duration_seconds", "num_frames", "frames_decoded", "frames_declared"),
    *("model", "model_sha256", "cudnn"),
)
"""The fields whose JSON values are those of the result."""


def _other_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """Everything in a record but path and status, as arguments of ``VideoResult``."""
    error, fps, size = record.get("error"), record.get("source_fps"), record.get("source_size")
    return {
        **{name: record.get(name) for name in _AS_WRITTEN},
        "source_fps": None if fps is None else Fraction(fps),
        "source_size": None if size is None else (int(size[0]), int(size[1])),
        "flags": tuple(record.get("flags", ())),
        "streams": tuple(record.get("streams", ())),
        "sliding": dict(record.get("sliding", {})),
        "labels": tuple(map(Label.from_json, record.get("labels", ()))),
        "segments": tuple(map(Segment.from_json, record.get("segments", ()))),
        "error_code": None if error is None else str(error["code"]),
        "error_message": None if error is None else str(error["message"]),
    }


def path_of(record: Mapping[str, Any]) -> str:
    """The path in a record, bytes that are not UTF-8 as surrogates; raises KeyError or ValueError where it has none."""
    if "path_b64" not in record:
        return str(record["path"])
    return os.fsdecode(base64.b64decode(record["path_b64"], validate=True))  # binascii.Error is a ValueError


def _path_fields(path: str) -> dict[str, str]:
    """``path`` as text; where its bytes are not UTF-8, also ``path_b64``, from which they come back exactly."""
    text = printable(path)
    if text == path:
        return {"path": path}
    return {"path": text, "path_b64": base64.b64encode(os.fsencode(path)).decode("ascii")}


def _finite(score: float) -> float:
    if not math.isfinite(score):
        raise ValueError(f"a score must be finite, got {score}")
    return round(float(score), 6)
