"""Draw what vadis says of a clip, for the README: its frames with their labels, the terminal, and the report page.

    python -m tests.picture ../shared/videos/action/baseball.mp4 docs/baseball.jpg

Takes the model that comes with vadis, and Chromium for the page.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

import vadis
from tests.browser import opened
from vadis.batch import LastResults
from vadis.cli.terminal import file_console
from vadis.cli.timeline import table
from vadis.report.annotate import annotate
from vadis.report.page import write_page
from vadis.weights.catalog import STAND_IN

WIDTH, SHOWN_SHARES = 960, (0.15, 0.4, 0.8)  # pixels; of the clip, where its frames are taken from
LETTER, PAPER, INK = 15, (24, 24, 28), (225, 225, 230)  # pixels; colours of the terminal


def frames_of(clip: Path, result: vadis.VideoResult, folder: Path) -> Image.Image:
    """Return some frames side by side, as ``vadis annotate`` draws them."""
    annotate(str(clip), result, folder / "seen.mp4")
    frames, _ = vadis.read_frames(folder / "seen.mp4")
    shown = [Image.fromarray(frames[int(share * len(frames))]) for share in SHOWN_SHARES]
    size = (WIDTH // len(shown), round(WIDTH / len(shown) * shown[0].height / shown[0].width))
    return Image.fromarray(np.concatenate([np.asarray(each.resize(size)) for each in shown], axis=1))


def terminal_of(result: vadis.VideoResult) -> Image.Image:
    """Return the table of a result as a terminal shows it, without its colours."""
    text = "$ vadis classify baseball.mp4\n" + "".join(table([result], file_console())).rstrip()
    font = ImageFont.truetype(findfont("DejaVu Sans Mono"), LETTER)
    image = Image.new("RGB", (WIDTH, int((text.count("\n") + 3) * LETTER * 1.25)), PAPER)
    ImageDraw.Draw(image).multiline_text((LETTER, LETTER), text, INK, font, spacing=LETTER // 4)
    return image


def page_of(clip: Path, result: vadis.VideoResult, folder: Path) -> Image.Image:
    """Return the top of the report page, as a browser shows it."""
    (folder / "labels.jsonl").write_text(result.to_json_line() + "\n")
    write_page(folder / "report.html", LastResults([folder / "labels.jsonl"]), title="baseball", bases=[clip.parent])
    with opened() as browser:
        browser.open(folder / "report.html", WIDTH, 620, "light")
        browser.page.wait_for_timeout(1500)
        browser.page.screenshot(path=folder / "page.png")
    return Image.open(folder / "page.png").convert("RGB")


def main() -> None:
    clip, output = Path(sys.argv[1]), Path(sys.argv[2])
    result = vadis.classify(clip, STAND_IN)
    result = vadis.VideoResult.from_json(result.to_json() | {"path": clip.name})
    with tempfile.TemporaryDirectory() as folder:
        parts = [frames_of(clip, result, Path(folder)), terminal_of(result), page_of(clip, result, Path(folder))]
    whole = Image.new("RGB", (WIDTH, sum(part.height for part in parts)), PAPER)
    for number, part in enumerate(parts):
        whole.paste(part, (0, sum(each.height for each in parts[:number])))
    whole.save(output, quality=80, optimize=True)


if __name__ == "__main__":
    main()
