"""An HTML page that is one file: markup, style, script and data in it, and nothing fetched from anywhere.

Nothing that a record says can become markup or script. Names are data in a JSON block, in which every ``<``, ``>`` and
``&`` is an escape, and the script puts them on the page as text; the page's policy lets only this one script run, by
its SHA-256, and lets nothing be loaded but local videos.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import vadis
from vadis.batch.results_file import LastResults
from vadis.files import write_atomic
from vadis.formats import visible
from vadis.report.entries import Budget, Names, entry, pieces_for, place_of, thumbnails, url_of, words
from vadis.video.isolated.pool import Decoders

STYLES = ("colours.css", "report.css")
SCRIPTS = ("data.js", "timeline.js", "player.js", "cards.js", "report.js")
"""Files beside this one, in the order in which they stand in the page."""

_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


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
    made = Written()
    with write_atomic(path) as file:
        for piece in _document(title, _data(path, results, made, bases, num_thumbnails, max_thumbnail_bytes, progress)):
            made.num_bytes += file.write(piece.encode("utf-8"))
    return made


def _data(
    page: Path,
    results: LastResults,
    made: Written,
    bases: Sequence[Path],
    num_thumbnails: int,
    max_thumbnail_bytes: int,
    progress: Callable[[str], None],
) -> Iterator[str]:
    """The data of the page as JSON, video by video; into ``made`` goes what became of them."""
    labels, models, most_pieces = Names(), Names(), pieces_for(len(results.paths))
    budget = Budget(max_thumbnail_bytes, len(results.paths))
    before = '{"videos":['
    with Decoders() as decoders:
        for result in results:
            progress(result.path)
            place = place_of(result.path, bases)
            made.num_videos += 1
            made.not_found += place is None
            taken = thumbnails(decoders, place, result, num_thumbnails) if place and num_thumbnails else None
            pictures = [] if taken is None else budget.chosen(taken)
            url = None if place is None else url_of(place, page)
            yield before + safe_json(entry(result, labels, models, url=url, pictures=pictures, most_pieces=most_pieces))
            before = ",\n"
    made.fewer_pictures = budget.refused
    rest = {"labels": labels.all(), "models": models.all(), **words(), "version": vadis.__version__}
    yield ('{"videos":[' if before[0] == "{" else "") + "],\n" + safe_json(rest)[1:]


def safe_json(values: Any) -> str:
    """JSON that is data wherever it stands in HTML: ASCII, without a character that could end or begin markup."""
    return json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


def _document(title: str, data: Iterable[str]) -> Iterator[str]:
    style, script = read(*STYLES), '"use strict";\n(() => {\n' + read(*SCRIPTS) + "})();\n"
    yield head(title, style, script)
    yield read("report.html")
    yield '<script type="application/json" id="data">'
    yield from data
    yield f"</script>\n<script>{script}</script>\n</body>\n</html>\n"


def head(title: str, style: str, script: str = "") -> str:
    """The beginning of a page, up to its body; only ``style`` and ``script`` themselves may have an effect in it."""
    policy = (
        "default-src 'none'; img-src data:; media-src 'self' file:; base-uri 'none'; form-action 'none'; "
        f"style-src {_source(style)}; script-src {_source(script) if script else chr(39) + 'none' + chr(39)}"
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


def _source(content: str) -> str:
    """What a policy calls a text that may run: its digest."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode('ascii')}'"


def read(*names: str) -> str:
    """Files of the folder ``assets``, one after the other."""
    folder = files("vadis.report") / "assets"
    return "".join((folder / name).read_text("utf-8") for name in names)
