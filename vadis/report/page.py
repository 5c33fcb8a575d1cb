"""Pages of an archive and of a training run: HTML files with all that they need, nothing fetched from anywhere.

Nothing that a record says can become markup or script: it is data in a JSON block, which the page's only script shows
as text; the page's policy lets no other one run, and nothing be loaded but local videos.
"""

import base64
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, SupportsFloat
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

import vadis
from vadis.batch import LastResults
from vadis.errors import VIDEO_ERROR_CODES, UsageError, VideoError, advice
from vadis.files import write_atomic, write_file
from vadis.formats import visible
from vadis.parsing import parse_json
from vadis.report.plots import plot_curves
from vadis.results import NO_CLEAR_LABEL, VideoResult
from vadis.video.isolated.pool import Decoders
from vadis.video.metadata import FLAGS
from vadis.video.timegrid import GRID_FPS

MAX_LABELS = 5  # of a video; records may have more
MAX_PICTURES = 10_000  # of a page, some 40 MB

HEIGHT = 108  # pixels of a picture; shown at about two thirds of that, so that it is sharp on dense screens too
WIDTHS = (32, 2 * HEIGHT)  # what is wider loses its sides

_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})

TextIndex = dict[str, int]  # of texts in the order in which they are first met, so that each is in the page once
Thumbnail = tuple[float, str]  # a moment of a video, in seconds, and its picture as a JPEG in base64


@dataclass
class PageSummary:
    """What a page holds: videos, how many of them were not found, and how many pictures each has at most."""

    num_thumbnails: int
    num_videos: int = 0
    not_found: int = 0
    num_bytes: int = 0


def write_page(
    path: Path,
    results: LastResults,
    *,
    title: str,
    bases: Sequence[Path] = (Path(),),
    num_thumbnails: int = 4,
    progress: Callable[[str], None] = lambda path: None,
) -> PageSummary:
    """Write the page of ``results``, whole or not at all; raise UsageError for what is no record, and OSError.

    Relative paths of records begin in one of ``bases``. Each video has ``num_thumbnails`` pictures at most, fewer where
    they would be more than ``MAX_PICTURES``. ``progress`` is called with the path of each video before these are taken.
    """
    written = PageSummary(min(num_thumbnails, MAX_PICTURES // max(1, len(results.paths))))
    labels, models = TextIndex(), TextIndex()
    scripts = read_assets("data.js", "timeline.js", "player.js", "cards.js", "report.js")
    style, script = read_assets("colours.css", "report.css"), '"use strict";\n(() => {\n' + scripts + "})();\n"
    with write_atomic(path) as file, Decoders() as decoders:

        def write(text: str) -> None:
            written.num_bytes += file.write(text.encode("utf-8"))

        write(head(title, style, script) + read_assets("report.html"))
        write('<script type="application/json" id="data">{"videos":[')
        for result in results:
            progress(result.path)
            place, added = place_of(result.path, bases), dict[str, Any]()
            if place is None:
                written.not_found += 1
            else:
                pictures = thumbnails(decoders, place, result, written.num_thumbnails)
                added = {"url": url_of(place, path), "pictures": pictures}
            values = {**_entry(result, labels, models), **added}
            kept = {name: value for name, value in values.items() if value not in (None, [], ())}
            write((",\n" if written.num_videos else "") + safe_json(kept))
            written.num_videos += 1
        write("],\n" + safe_json(_words(labels, models))[1:])
        write(f"</script>\n<script>{script}</script>\n</body>\n</html>\n")
    return written


def _words(labels: TextIndex, models: TextIndex) -> dict[str, Any]:
    from vadis.inference.classify import INFERENCE_FLAGS  # PyTorch comes with it

    return {
        "labels": list(map(visible, labels)),
        "unclear": NO_CLEAR_LABEL,
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

    sources = {"style_source": source(style), "script_source": source(script)}
    return fill_template("head.html", title=title, version=vadis.__version__, style=style, **sources)


def read_assets(*names: str) -> str:
    """Return files of the folder ``assets``, one after the other."""
    folder = files("vadis.report") / "assets"
    return "".join((folder / name).read_text("utf-8") for name in names)


def _entry(result: VideoResult, labels: TextIndex, models: TextIndex) -> dict[str, Any]:
    """Return a record as the page has it, in JSON values; labels are numbers of ``labels``."""

    def number(label: str) -> int:
        return labels.setdefault(label, len(labels))

    size, model = result.source_size, f"{result.model} ({' + '.join(result.streams)})"
    model += ", bf16" if result.precision == "bf16" else ""
    return {
        "path": visible(result.path),
        "status": result.status,
        "seconds": _rounded(result.duration_seconds),
        "size": None if size is None else f"{size[0]}×{size[1]}",
        "fps": _rounded(result.source_fps),
        "flags": result.flags,
        "error": None if result.error_code is None else [result.error_code, visible(result.error_message or "")],
        "model": None if result.model is None else models.setdefault(model, len(models)),
        "labels": [[number(each.label), each.score, _rounded(each.seconds)] for each in result.labels[:MAX_LABELS]],
        "begin": _rounded(result.part.start) if result.part and result.timeline else None,
        "end": _rounded(result.span[1] or None),
        "pieces": [[_rounded(p.start), _rounded(p.end), number(p.label), p.score] for p in result.timeline],
    }


def _rounded(number: SupportsFloat | None) -> float | None:
    return None if number is None else round(float(number), 2)


def place_of(path: str, bases: Iterable[Path]) -> str | None:
    """Return the absolute path of the file that a record means; None where there is none now.

    A relative one begins in the first of ``bases`` in which there is such a file.
    """
    places = (os.path.join(os.path.abspath(base), path) for base in bases)  # noqa: PTH118, PTH100 (keeps "link/..")
    return next(filter(os.path.isfile, places), None)


def url_of(place: str, page: Path) -> str:
    """Return the address of a file as seen from the page: relative, so that both can be moved together."""
    relative = os.path.relpath(place, os.path.abspath(page.parent))  # noqa: PTH100 (keeps symlinks)
    return "./" + quote(os.fsencode(relative))  # a name such as "javascript:…" is a name


def thumbnails(decoders: Decoders, place: str, result: VideoResult, count: int) -> list[Thumbnail]:
    """Return pictures of a labelled video's moments, in their order, as far as it can be read."""
    taken: list[Thumbnail] = []
    first = 0.0 if result.part else result.span[0]  # frame of the file
    for seconds in moments(result, count):
        start = max(0, int((seconds - first) * GRID_FPS))
        try:
            with decoders.open(place, start_frame=start, max_frames=1) as video:
                content = base64.b64encode(jpeg(next(iter(video)).pixels)).decode("ascii")
        except (VideoError, StopIteration):
            break
        taken.append((seconds, content))
    return sorted(taken)


def moments(result: VideoResult, count: int) -> list[float]:
    """Return at most ``count`` times in seconds, the most telling first: the middles of the longest, surest pieces.

    Where there are fewer pieces with a label than that, the widest gaps between these times are halved.
    """
    first, end = result.span
    clear = (piece for piece in result.timeline if piece.label != NO_CLEAR_LABEL)
    best = sorted(clear, key=lambda piece: -(piece.end - piece.start) * piece.score)
    found = [(piece.start + piece.end) / 2 for piece in best[:count]]
    while end > 0 and len(found) < count:
        width, before = max((after - before, before) for before, after in pairwise([first, *sorted(found), end]))
        if width < 1:  # second: it would be the same picture again
            break
        found.append(before + width / 2)
    return [round(seconds, 2) for seconds in found]


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """Encode uint8 RGB (H, W, 3) as a JPEG of HEIGHT pixels; a wide picture loses its sides."""
    from PIL import Image, ImageOps

    image, encoded = Image.fromarray(picture), io.BytesIO()
    width = int(np.clip(round(image.width * HEIGHT / image.height), *WIDTHS))
    ImageOps.fit(image, (width, HEIGHT)).save(encoded, "JPEG", quality=65)  # about 3 kB
    return encoded.getvalue()


# The page of a training run or an evaluation: the pictures are those that the run keeps as PNG; curves are drawn anew
# where there are logs. There is no script in it.

RUN_NAME, METRICS_NAME, LOG_NAME, CURVES_NAME = "run.json", "metrics.json", "log.jsonl", "curves.png"
NETWORKS = ("rgb", "flow", "both")  # the folders of a run, and the columns of a test


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a training run or an evaluation."""
    return any((folder / name).is_file() for name in (RUN_NAME, METRICS_NAME)) or bool(_logs(folder))


def write_run_page(folder: Path, path: Path, title: str) -> None:
    """Write the page of the run in ``folder``; of a run that is still training, what there is by now.

    Raises UsageError where a file of the run is damaged, OSError where the page or the curves cannot be written.
    """
    run, metrics = _json(folder / RUN_NAME), _json(folder / METRICS_NAME)
    if logs := _logs(folder):
        plot_curves(logs, folder / CURVES_NAME)
    columns = {name: metrics[name] for name in NETWORKS if isinstance(metrics.get(name), dict)}
    pictures = {each.name: base64.b64encode(each.read_bytes()).decode("ascii") for each in folder.glob("*.png")}
    try:
        page = fill_template("run.html", title=title, run=run, metrics=metrics, columns=columns, pictures=pictures)
    except Exception as error:  # of other JSON: AttributeError, TypeError, UndefinedError, …
        message = f"{visible(str(folder))} holds a damaged {RUN_NAME} or {METRICS_NAME}"
        raise UsageError(message, "run the command again that wrote them") from error
    write_file(path, head(title, read_assets("colours.css", "run.css")) + page)


def _logs(folder: Path) -> dict[str, Path]:
    return {name: folder / name / LOG_NAME for name in NETWORKS if (folder / name / LOG_NAME).is_file()}


def _json(path: Path) -> Mapping[str, Any]:
    try:
        values = parse_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UsageError(f"{visible(str(path))} is damaged: no JSON", "run the command again that wrote it") from error
    return values if isinstance(values, dict) else {}


def fill_template(name: str, **values: Any) -> str:
    """Return a file of ``assets``, a template of Jinja, with these values; whatever they hold is shown as text."""
    from jinja2 import Environment

    def text(value: Any) -> Any:
        return value if hasattr(value, "__html__") else visible(str(value))

    environment = Environment(autoescape=True, finalize=text, trim_blocks=True)
    environment.filters |= {"percent": _percent, "shown": _shown}
    return environment.from_string(read_assets(name)).render(**values)


def _percent(share: Any) -> str:
    return f"{share:.1%}" if isinstance(share, int | float) else "–"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, dict):
        return json.dumps(value)
    return {"None": "–", "True": "yes", "False": "no", "": "–"}.get(str(value), str(value))
