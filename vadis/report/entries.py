"""What the page knows of each video: records made small, with a link to the file and pictures of its moments.

Small pictures of a video for a page: which moments to show, and each as a JPEG within a budget of bytes.

Frames come from the children of ``vadis.video.isolated.pool``: a file that crashes its decoder has no pictures.
"""

import base64
import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from vadis.errors import VIDEO_ERROR_CODES, VideoError, advice
from vadis.formats import stretches, visible
from vadis.results import Label, Segment, VideoResult
from vadis.video.isolated.pool import Decoders
from vadis.video.metadata import FLAGS
from vadis.video.timegrid import GRID_FPS

HEIGHT = 108  # pixels; shown at about two thirds of that, so that it is sharp on dense screens too
WIDEST = 2 * HEIGHT  # what is wider loses its sides
NARROWEST = 32  # FFmpeg damages JPEGs of 16 pixels
QUANTISER = "8"  # of FFmpeg's MJPEG, 2 is the best and 31 the worst; a picture takes about 3 kB

_BILINEAR = 0x2  # libswscale/swscale.h


class Thumbnail(NamedTuple):
    """A moment of a video, in seconds, as a JPEG in base64."""

    seconds: float
    jpeg: str


class Budget:
    """Bytes of base64 for the thumbnails of a page: an equal share for each video, and what others leave over.

    Args:
        num_bytes: for the whole page.
        num_videos: how many videos share it.
    """

    def __init__(self, num_bytes: int, num_videos: int) -> None:
        self._left = num_bytes
        self._videos_left = num_videos
        self.refused = 0  # videos that had fewer pictures than they could have had

    def chosen(self, pictures: Iterator[Thumbnail]) -> list[Thumbnail]:
        """As many of a video's pictures as its share takes, the most telling first; no more are made than that."""
        share = self._left // max(1, self._videos_left)
        self._videos_left -= 1
        kept: list[Thumbnail] = []
        for picture in pictures:
            if len(picture.jpeg) > share:
                self.refused += 1
                break
            share -= len(picture.jpeg)
            self._left -= len(picture.jpeg)
            kept.append(picture)
        return sorted(kept)


def thumbnails(decoders: Decoders, place: str, result: VideoResult, count: int) -> Iterator[Thumbnail]:
    """Pictures of a labelled video's moments, each made when it is asked for; ends where the file cannot be read."""
    first = result.segments[0].start if result.segments else 0.0
    for seconds in moments(result, count):
        picture = _frame(decoders, place, seconds - first)
        if picture is None:
            return
        yield Thumbnail(seconds, base64.b64encode(jpeg(picture)).decode("ascii"))


def moments(result: VideoResult, count: int) -> list[float]:
    """At most ``count`` times in seconds, the most telling first: the middles of the longest and surest stretches.

    Where there are fewer stretches than that, the widest gaps between these times are halved.
    """
    first, end = (result.segments[0].start, result.segments[-1].end) if result.segments else (0.0, 0.0)
    best = sorted(stretches(result.segments), key=lambda run: -(run.end - run.start) * run.score)
    found = [(run.start + run.end) / 2 for run in best[:count]]
    while end > 0 and len(found) < count:
        edges = [first, *sorted(found), end]
        gaps = [(after - before, before) for before, after in pairwise(edges)]
        width, before = max(gaps)
        if width < 1.0:  # second: the same picture again
            break
        found.append(before + width / 2)
    return [round(seconds, 2) for seconds in found]


def _frame(decoders: Decoders, place: str, seconds: float) -> NDArray[np.uint8] | None:
    """The picture (H, W, 3) at this time after the first."""
    try:
        with decoders.open(place, start_frame=max(0, int(seconds * GRID_FPS)), max_frames=1) as video:
            return next((frame.pixels for frame in video), None)
    except VideoError:
        return None


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """uint8 RGB (H, W, 3) as a JPEG of HEIGHT pixels; a wide picture loses its sides."""
    import av

    height, width, _ = picture.shape
    most = height * WIDEST // HEIGHT
    if width > most:
        picture = picture[:, (width - most) // 2 :][:, :most]
    scaled_width = max(NARROWEST, round(picture.shape[1] * HEIGHT / height / 2) * 2)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    frame = frame.reformat(scaled_width, HEIGHT, format="yuvj420p", interpolation=_BILINEAR)
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = scaled_width, HEIGHT, "yuvj420p"
    encoder.time_base = frame.time_base = Fraction(1, GRID_FPS)
    encoder.options = {"qmin": QUANTISER, "qmax": QUANTISER, "b": "1G"}  # the bit rate must not stand in its way
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


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
    from vadis.inference.classify import FLAGS as OUR_FLAGS  # PyTorch comes with it

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
