"""A record as a notebook shows it: HTML without a script, its timeline drawn, every name in it as text."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

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
