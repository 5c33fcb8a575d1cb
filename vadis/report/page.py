"""A page of an archive as one HTML file: markup, style, script and data in it, and nothing fetched from anywhere.

Nothing that a record says can become markup or script. Names are data in a JSON block, in which every ``<``, ``>`` and
``&`` is an escape, and the script puts them on the page as text; the page's policy lets only this one script run, by
its SHA-256, and lets nothing be loaded but local videos.

Pictures come from the children of ``vadis.video.isolated.pool``: a file that crashes its decoder has none.
"""

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from html import escape
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

import vadis
from vadis.batch.results_file import LastResults
from vadis.errors import VIDEO_ERROR_CODES, VideoError, advice
from vadis.files import write_atomic
from vadis.formats import stretches, visible
from vadis.results import Segment, VideoResult
from vadis.video.isolated.pool import Decoders
from vadis.video.metadata import FLAGS
from vadis.video.timegrid import GRID_FPS

STYLES = ("colours.css", "report.css")
SCRIPTS = ("data.js", "timeline.js", "player.js", "cards.js", "report.js")
"""Files of the folder ``assets``, in the order in which they stand in the page."""

MAX_LABELS = 5  # of a video and of a piece of its timeline; records may have more
MAX_PIECES = 1_000  # of a timeline: a screen has hardly more pixels for it
MIN_PIECES = 80  # of a timeline, however many videos there are
PIECES_OF_A_PAGE = 400_000  # shared by all its videos; about 20 MB

HEIGHT = 108  # pixels of a picture; shown at about two thirds of that, so that it is sharp on dense screens too
MAX_WIDTH = 2 * HEIGHT  # what is wider loses its sides
MIN_WIDTH = 32  # FFmpeg damages JPEGs of 16 pixels
QUANTISER = "8"  # of FFmpeg's MJPEG, 2 is the best and 31 the worst; a picture takes about 3 kB
MIN_GAP_SECONDS = 1.0  # between pictures, else it is the same one again

_BILINEAR = 0x2  # libswscale/swscale.h
_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})

Numbers = dict[str, int]  # of texts in the order in which they are first met, so that each is in the page once


@dataclass
class Written:
    """What a page holds: videos, and how many of them were not found, or have fewer pictures than there could be."""

    num_videos: int = 0
    not_found: int = 0
    fewer_pictures: int = 0
    num_bytes: int = 0


def write_page(
    path: Path,
    results: LastResults,
    *,
    title: str,
    bases: Sequence[Path] = (Path(),),
    num_thumbnails: int = 4,
    max_thumbnail_bytes: int = 32_000_000,
    progress: Callable[[str], None] = lambda path: None,
) -> Written:
    """Write the page of ``results`` to ``path``, which is there whole or not at all.

    Args:
        path: of the page; the videos are linked to by their places as seen from it.
        results: records, read one by one.
        title: above it all.
        bases: folders in which relative paths of the records may begin, in the order in which to look.
        num_thumbnails: pictures of each video, at most.
        max_thumbnail_bytes: of all pictures in the page.
        progress: called with the path of each video before its pictures are taken.

    Raises:
        UsageError: for what is no record.
        OSError: where the page cannot be written.
    """
    written, budget = Written(), Budget(max_thumbnail_bytes, len(results.paths))
    labels, models, max_pieces = Numbers(), Numbers(), pieces_for(len(results.paths))
    style, script = read(*STYLES), '"use strict";\n(() => {\n' + read(*SCRIPTS) + "})();\n"
    with write_atomic(path) as file, Decoders() as decoders:

        def write(text: str) -> None:
            written.num_bytes += file.write(text.encode("utf-8"))

        write(head(title, style, script) + read("report.html"))
        write('<script type="application/json" id="data">{"videos":[')
        for result in results:
            progress(result.path)
            place, url, pictures = place_of(result.path, bases), None, list[Thumbnail]()
            if place is not None:
                url = url_of(place, path)
                if num_thumbnails:
                    pictures = budget.choose(thumbnails(decoders, place, result, num_thumbnails))
            values = _entry(result, labels, models, url, pictures, max_pieces)
            write((",\n" if written.num_videos else "") + safe_json(values))
            written.num_videos += 1
            written.not_found += place is None
        names = {"labels": list(map(visible, labels)), "models": list(map(visible, models))}
        write("],\n" + safe_json({**names, **_words(), "version": vadis.__version__})[1:])
        write(f"</script>\n<script>{script}</script>\n</body>\n</html>\n")
    written.fewer_pictures = budget.refused
    return written


def safe_json(values: Any) -> str:
    """JSON that is data wherever it stands in HTML: ASCII, without a character that could end or begin markup."""
    return json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


def head(title: str, style: str, script: str = "") -> str:
    """The beginning of a page, up to its body; only ``style`` and ``script`` themselves may have an effect in it."""

    def source(content: str) -> str:
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode("ascii")
        return f"'sha256-{digest}'" if content else "'none'"

    policy = (
        "default-src 'none'; img-src data:; media-src 'self' file:; base-uri 'none'; form-action 'none'; "
        f"style-src {source(style)}; script-src {source(script)}"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="generator" content="vadis {vadis.__version__}">
<title>{escape(visible(title))}</title>
<style>{style}</style>
</head>
<body>
"""


def read(*names: str) -> str:
    """Files of the folder ``assets``, one after the other."""
    folder = files("vadis.report") / "assets"
    return "".join((folder / name).read_text("utf-8") for name in names)


def _entry(
    result: VideoResult,
    labels: Numbers,
    models: Numbers,
    url: str | None,
    pictures: Sequence["Thumbnail"],
    max_pieces: int,
) -> dict[str, Any]:
    """A record as the page has it, in plain JSON values; what is empty is left out.

    Scores are in thousandths. A timeline is a list of pieces ``[start, end, label, score, label, score, …]``: seconds,
    and the numbers of ``labels``, the best first; each stands for ``joined`` segments.
    """
    segments, size = result.segments, result.source_size
    joined = -(-len(segments) // max_pieces) or 1
    model = result.model and f"{result.model} ({' + '.join(result.streams)})"
    video_labels = [
        [
            labels.setdefault(label.label, len(labels)),
            round(1000 * label.score),
            round(1000 * (label.score if label.peak is None else label.peak)),
            None if label.seconds is None else round(label.seconds, 2),
        ]
        for label in result.labels[:MAX_LABELS]
    ]
    fields: dict[str, Any] = {
        "path": visible(result.path),
        "status": result.status,
        "url": url,
        "seconds": None if result.duration_seconds is None else round(result.duration_seconds, 2),
        "size": None if size is None else f"{size[0]}×{size[1]}",
        "fps": None if result.source_fps is None else round(float(result.source_fps), 2),
        "flags": list(result.flags),
        "error": None if result.error_code is None else [result.error_code, visible(result.error_message or "")],
        "model": None if model is None else models.setdefault(model, len(models)),
        "labels": video_labels,
        "pieces": [_piece(segments[at : at + joined], labels) for at in range(0, len(segments), joined)],
        "joined": joined if joined > 1 else None,
        "pictures": [[picture.seconds, picture.jpeg] for picture in pictures],
    }
    return {name: value for name, value in fields.items() if value not in (None, [])}


def _piece(segments: Sequence[Segment], labels: Numbers) -> list[Any]:
    """Neighbouring segments as one: each label's mean, weighted by their lengths (absent: 0)."""
    means = {label.label: label.score for label in segments[0].labels}
    if len(segments) > 1:
        total, sums = sum(segment.end - segment.start for segment in segments) or 1.0, dict[str, float]()
        for segment in segments:
            for label in segment.labels:
                sums[label.label] = sums.get(label.label, 0.0) + label.score * (segment.end - segment.start)
        means = {name: score / total for name, score in sorted(sums.items(), key=lambda pair: -pair[1])}
    piece: list[Any] = [round(segments[0].start, 2), round(segments[-1].end, 2)]
    for name, score in list(means.items())[:MAX_LABELS]:
        piece += [labels.setdefault(name, len(labels)), round(1000 * score)]
    return piece


def pieces_for(num_videos: int) -> int:
    """How many pieces each timeline may have in a page of so many videos."""
    return min(MAX_PIECES, max(MIN_PIECES, PIECES_OF_A_PAGE // max(1, num_videos)))


def _words() -> dict[str, dict[str, str]]:
    """The meaning of every error code and flag, and what to do next about an error."""
    from vadis.inference.classify import INFERENCE_FLAGS as OUR_FLAGS  # PyTorch comes with it

    reasons = {code: each.meaning for code, each in VIDEO_ERROR_CODES.items()}
    return {"reasons": reasons, "next": {code: advice(code) for code in reasons}, "flags": FLAGS | OUR_FLAGS}


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


class Thumbnail(NamedTuple):
    """A moment of a video, in seconds, as a JPEG in base64."""

    seconds: float
    jpeg: str


class Budget:
    """Bytes of base64 for the thumbnails of a page: an equal share for each video, and what others leave over."""

    def __init__(self, num_bytes: int, num_videos: int) -> None:
        self._bytes_left, self._videos_left = num_bytes, num_videos
        self.refused = 0  # videos that had fewer pictures than they could have had

    def choose(self, pictures: Iterator[Thumbnail]) -> list[Thumbnail]:
        """As many of a video's pictures as its share takes, the most telling first; no more are made than that."""
        share = self._bytes_left // max(1, self._videos_left)
        self._videos_left -= 1
        kept: list[Thumbnail] = []
        for picture in pictures:
            if len(picture.jpeg) > share:
                self.refused += 1
                break
            share -= len(picture.jpeg)
            self._bytes_left -= len(picture.jpeg)
            kept.append(picture)
        return sorted(kept)


def thumbnails(decoders: Decoders, place: str, result: VideoResult, count: int) -> Iterator[Thumbnail]:
    """Yield pictures of a labelled video's moments, each made when it is asked for, until the file cannot be read."""
    first = result.segments[0].start if result.segments else 0.0
    for seconds in moments(result, count):
        start = max(0, int((seconds - first) * GRID_FPS))
        try:
            with decoders.open(place, start_frame=start, max_frames=1) as video:
                picture = next((frame.pixels for frame in video), None)  # (H, W, 3)
        except VideoError:
            return
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
        width, before = max((after - before, before) for before, after in pairwise([first, *sorted(found), end]))
        if width < MIN_GAP_SECONDS:
            break
        found.append(before + width / 2)
    return [round(seconds, 2) for seconds in found]


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """Encode uint8 RGB (H, W, 3) as a JPEG of HEIGHT pixels; a wide picture loses its sides."""
    import av

    height, width, _ = picture.shape
    max_width = height * MAX_WIDTH // HEIGHT
    if width > max_width:
        picture = picture[:, (width - max_width) // 2 :][:, :max_width]
    scaled_width = max(MIN_WIDTH, round(picture.shape[1] * HEIGHT / height / 2) * 2)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    frame = frame.reformat(scaled_width, HEIGHT, format="yuvj420p", interpolation=_BILINEAR)
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = scaled_width, HEIGHT, "yuvj420p"
    encoder.time_base = frame.time_base = Fraction(1, GRID_FPS)
    encoder.options = {"qmin": QUANTISER, "qmax": QUANTISER, "b": "1G"}  # the bit rate must not stand in its way
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
