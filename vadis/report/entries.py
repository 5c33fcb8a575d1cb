"""What the page knows of each video: records made small, with a link to the file and pictures of its moments."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vadis.errors import VIDEO_ERROR_CODES, advice
from vadis.formats import visible
from vadis.report.thumbnails import Thumbnail
from vadis.results import Label, Segment, VideoResult
from vadis.video.facts import FLAGS

MOST_LABELS = 5  # of a video and of a piece of its timeline; records may have more
MOST_PIECES = 1_000  # of a timeline: a screen has hardly more pixels for it
PIECES_OF_A_PAGE = 400_000  # shared by all its videos; about 20 MB
FEWEST_PIECES = 80  # of a timeline, however many videos there are


class Names:
    """Texts numbered in the order in which they are first met, so that each is in the page once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """The number of ``name``."""
        return self._numbers.setdefault(name, len(self._numbers))

    def all(self) -> list[str]:
        """By number, as they may be shown."""
        return [visible(name) for name in self._numbers]


def entry(
    result: VideoResult,
    labels: Names,
    models: Names,
    *,
    url: str | None,
    pictures: Sequence[Thumbnail],
    most_pieces: int,
) -> dict[str, Any]:
    """A record as the page has it, in plain JSON values; what is empty is left out.

    Scores are in thousandths. A timeline is a list of pieces ``[start, end, label, score, label, score, …]``: seconds,
    and the numbers of ``labels``, the best first; each stands for ``joined`` segments.
    """
    joined = -(-len(result.segments) // most_pieces) or 1
    size = result.source_size
    model = result.model and f"{result.model} ({' + '.join(result.streams)})"
    fields: dict[str, Any] = {
        "path": visible(result.path),
        "status": result.status,
        "url": url,
        "seconds": None if result.duration_seconds is None else round(result.duration_seconds, 2),
        "size": None if size is None else f"{size[0]}×{size[1]}",
        "fps": None if result.source_fps is None else round(float(result.source_fps), 2),
        "flags": list(result.flags),
        "error": None if result.error_code is None else [result.error_code, visible(result.error_message or "")],
        "model": None if model is None else models.number(model),
        "labels": [_label(label, labels) for label in result.labels[:MOST_LABELS]],
        "pieces": [
            _piece(result.segments[first : first + joined], labels) for first in range(0, len(result.segments), joined)
        ],
        "joined": joined if joined > 1 else None,
        "pictures": [[picture.seconds, picture.jpeg] for picture in pictures],
    }
    return {name: value for name, value in fields.items() if value not in (None, [])}


def pieces_for(num_videos: int) -> int:
    """How many pieces each timeline may have in a page of so many videos."""
    return min(MOST_PIECES, max(FEWEST_PIECES, PIECES_OF_A_PAGE // max(1, num_videos)))


def words() -> dict[str, dict[str, str]]:
    """The meaning of every error code and flag, and what to do next about an error."""
    from vadis.inference import FLAGS as OUR_FLAGS  # PyTorch comes with it

    reasons = {code: each.meaning for code, each in VIDEO_ERROR_CODES.items()}
    what_next = {code: advice(code) for code in VIDEO_ERROR_CODES}
    return {"reasons": reasons, "next": what_next, "flags": FLAGS | OUR_FLAGS}


def place_of(path: str, bases: Iterable[Path]) -> str | None:
    """The absolute path of the file that a record means; None where there is none now.

    A relative one begins in the first of ``bases`` in which there is such a file.
    """
    for base in bases:
        place = os.path.join(os.path.abspath(base), path)  # noqa: PTH118, PTH100 (keeps "link/.." as it is)
        if os.path.isfile(place):  # noqa: PTH113
            return place
    return None


def url_of(place: str, page: Path) -> str:
    """The address of a file as seen from the page: relative, so that both can be moved together."""
    relative = os.path.relpath(place, os.path.abspath(page.parent))  # noqa: PTH100 (keeps symlinks)
    return "./" + quote(os.fsencode(relative))  # a name such as "javascript:…" is a name


def _label(label: Label, labels: Names) -> list[Any]:
    seconds = None if label.seconds is None else round(label.seconds, 2)
    peak = label.score if label.peak is None else label.peak
    return [labels.number(label.label), _thousandths(label.score), _thousandths(peak), seconds]


def _piece(segments: Sequence[Segment], labels: Names) -> list[Any]:
    """Neighbouring segments as one: each label's mean, weighted by their lengths (absent: 0)."""
    piece: list[Any] = [round(segments[0].start, 2), round(segments[-1].end, 2)]
    for name, score in _means(segments)[:MOST_LABELS]:
        piece += [labels.number(name), _thousandths(score)]
    return piece


def _means(segments: Sequence[Segment]) -> list[tuple[str, float]]:
    if len(segments) == 1:
        return [(label.label, label.score) for label in segments[0].labels]
    total = sum(segment.end - segment.start for segment in segments) or 1.0
    sums: dict[str, float] = {}
    for segment in segments:
        for label in segment.labels:
            sums[label.label] = sums.get(label.label, 0.0) + label.score * (segment.end - segment.start)
    return sorted(((name, score / total) for name, score in sums.items()), key=lambda pair: -pair[1])


def _thousandths(score: float) -> int:
    return round(1000 * score)
