"""A page of an archive as one HTML file: markup, style, script and data in it, and nothing fetched from anywhere.

Nothing that a record says can become markup or script: names are data in a JSON block, which the script puts on the
page as text, and the page's policy lets only this one script run, and nothing be loaded but local videos.
"""

import base64
import hashlib
import io
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from string import Template
from typing import Any, SupportsFloat
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
WIDTHS = (32, 2 * HEIGHT)  # what is wider loses its sides
JPEG_QUALITY = 65  # a picture takes about 3 kB
MIN_GAP_SECONDS = 1.0  # between pictures, else it is the same one again

_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})

Numbers = dict[str, int]  # of texts in the order in which they are first met, so that each is in the page once
Thumbnail = tuple[float, str]  # a moment of a video, in seconds, and its picture as a JPEG in base64


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
    """Write the page of ``results``, whole or not at all; raise UsageError for what is no record, and OSError.

    Relative paths of records begin in one of ``bases``. Each video has ``num_thumbnails`` pictures at most; each may
    take an equal share of ``max_thumbnail_bytes``, and what those before it left over. ``progress`` is called with the
    path of each video before its pictures are taken.
    """
    written, bytes_left, num_videos = Written(), max_thumbnail_bytes, len(results.paths)
    labels, models, max_pieces = Numbers(), Numbers(), pieces_for(num_videos)
    style, script = read(*STYLES), '"use strict";\n(() => {\n' + read(*SCRIPTS) + "})();\n"
    with write_atomic(path) as file, Decoders() as decoders:

        def write(text: str) -> None:
            written.num_bytes += file.write(text.encode("utf-8"))

        write(head(title, style, script) + read("report.html"))
        write('<script type="application/json" id="data">{"videos":[')
        for result in results:
            progress(result.path)
            place, added = place_of(result.path, bases), dict[str, Any]()
            if place is None:
                written.not_found += 1
            else:
                share = bytes_left // (num_videos - written.num_videos)
                pictures, is_cut = thumbnails(decoders, place, result, num_thumbnails, share)
                bytes_left -= sum(len(jpeg) for _, jpeg in pictures)
                written.fewer_pictures += is_cut
                added = {"url": url_of(place, path), "pictures": pictures}
            values = {**_entry(result, labels, models, max_pieces), **added}
            kept = {name: value for name, value in values.items() if value not in (None, [], ())}
            write((",\n" if written.num_videos else "") + safe_json(kept))
            written.num_videos += 1
        write("],\n" + safe_json(_words(labels, models))[1:])
        write(f"</script>\n<script>{script}</script>\n</body>\n</html>\n")
    return written


def _words(labels: Numbers, models: Numbers) -> dict[str, Any]:
    from vadis.inference.classify import INFERENCE_FLAGS  # PyTorch comes with it

    return {
        "labels": list(map(visible, labels)),
        "models": list(map(visible, models)),
        "reasons": {code: each.meaning for code, each in VIDEO_ERROR_CODES.items()},
        "next": {code: advice(code) for code in VIDEO_ERROR_CODES},
        "flags": FLAGS | INFERENCE_FLAGS,
        "version": vadis.__version__,
    }


def safe_json(values: Any) -> str:
    """Return JSON that is data wherever it stands in HTML: ASCII, without a character that could be markup."""
    return json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


def head(title: str, style: str, script: str = "") -> str:
    """Return the beginning of a page, up to its body: only ``style`` and ``script`` themselves have an effect in it."""

    def source(content: str) -> str:
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode("ascii")
        return f"'sha256-{digest}'" if content else "'none'"

    return Template(read("head.html")).substitute(
        title=escape(visible(title)),
        version=vadis.__version__,
        style=style,
        style_source=source(style),
        script_source=source(script),
    )


def read(*names: str) -> str:
    """Return files of the folder ``assets``, one after the other."""
    folder = files("vadis.report") / "assets"
    return "".join((folder / name).read_text("utf-8") for name in names)


def _entry(result: VideoResult, labels: Numbers, models: Numbers, max_pieces: int) -> dict[str, Any]:
    """Return a record as the page has it, in JSON values; scores are in thousandths.

    A timeline is a list of pieces ``[start, end, label, score, label, score, …]``: seconds, and numbers of ``labels``,
    the best first; each piece stands for ``joined`` segments.
    """
    segments, size = result.segments, result.source_size
    joined = -(-len(segments) // max_pieces) or 1
    model = f"{result.model} ({' + '.join(result.streams)})"
    video_labels = [
        [
            labels.setdefault(label.label, len(labels)),
            round(1000 * label.score),
            round(1000 * (label.score if label.peak is None else label.peak)),
            _rounded(label.seconds),
        ]
        for label in result.labels[:MAX_LABELS]
    ]
    return {
        "path": visible(result.path),
        "status": result.status,
        "seconds": _rounded(result.duration_seconds),
        "size": None if size is None else f"{size[0]}×{size[1]}",
        "fps": _rounded(result.source_fps),
        "flags": result.flags,
        "error": None if result.error_code is None else [result.error_code, visible(result.error_message or "")],
        "model": None if result.model is None else models.setdefault(model, len(models)),
        "labels": video_labels,
        "pieces": [_piece(segments[at : at + joined], labels) for at in range(0, len(segments), joined)],
        "joined": joined if joined > 1 else None,
    }


def _rounded(number: SupportsFloat | None) -> float | None:
    return None if number is None else round(float(number), 2)


def _piece(segments: Sequence[Segment], labels: Numbers) -> list[Any]:
    """Return neighbouring segments as one: each label's mean, weighted by their lengths (absent: 0)."""
    total, sums = sum(segment.end - segment.start for segment in segments) or 1.0, defaultdict[str, float](float)
    for segment in segments:
        for label in segment.labels:
            sums[label.label] += label.score * (segment.end - segment.start)
    best = sorted(sums, key=lambda name: -sums[name])[:MAX_LABELS]
    scores = [
        number for name in best for number in (labels.setdefault(name, len(labels)), round(1000 * sums[name] / total))
    ]
    return [_rounded(segments[0].start), _rounded(segments[-1].end), *scores]


def pieces_for(num_videos: int) -> int:
    """Return how many pieces each timeline may have in a page of so many videos."""
    return min(MAX_PIECES, max(MIN_PIECES, PIECES_OF_A_PAGE // max(1, num_videos)))


def place_of(path: str, bases: Iterable[Path]) -> str | None:
    """Return the absolute path of the file that a record means; None where there is none now.

    A relative one begins in the first of ``bases`` in which there is such a file.
    """
    for base in bases:
        place = os.path.join(os.path.abspath(base), path)  # noqa: PTH118, PTH100 (keeps "link/.." as it is)
        if os.path.isfile(place):  # noqa: PTH113
            return place
    return None


def url_of(place: str, page: Path) -> str:
    """Return the address of a file as seen from the page: relative, so that both can be moved together."""
    relative = os.path.relpath(place, os.path.abspath(page.parent))  # noqa: PTH100 (keeps symlinks)
    return "./" + quote(os.fsencode(relative))  # a name such as "javascript:…" is a name


def thumbnails(
    decoders: Decoders, place: str, result: VideoResult, count: int, max_bytes: int
) -> tuple[list[Thumbnail], bool]:
    """Return pictures of a labelled video's moments, and whether ``max_bytes`` were too few for all of them."""
    taken: list[Thumbnail] = []
    first = result.segments[0].start if result.segments else 0.0
    for seconds in moments(result, count):
        start = max(0, int((seconds - first) * GRID_FPS))
        try:
            with decoders.open(place, start_frame=start, max_frames=1) as video:
                picture = next((frame.pixels for frame in video), None)  # (H, W, 3)
        except VideoError:
            break
        if picture is None:
            break
        content = base64.b64encode(jpeg(picture)).decode("ascii")
        max_bytes -= len(content)
        if max_bytes < 0:
            return sorted(taken), True
        taken.append((seconds, content))
    return sorted(taken), False


def moments(result: VideoResult, count: int) -> list[float]:
    """Return at most ``count`` times in seconds, the most telling first: the middles of the longest, surest stretches.

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
    from PIL import Image, ImageOps

    image, encoded = Image.fromarray(picture), io.BytesIO()
    width = int(np.clip(round(image.width * HEIGHT / image.height), *WIDTHS))
    ImageOps.fit(image, (width, HEIGHT)).save(encoded, "JPEG", quality=JPEG_QUALITY)
    return encoded.getvalue()
