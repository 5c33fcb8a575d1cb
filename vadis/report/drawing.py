"""What all pictures share: colours, letters, and a file that appears whole or not at all.

Matplotlib draws in memory (Agg, without a display) and with its own defaults: neither the settings of the person nor a
``matplotlibrc`` in the current folder change a picture, and none of what is set here outlasts it.
"""

import io
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vadis.files import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontEntry

DOTS_PER_INCH = 150
FONT = "DejaVu Sans"  # comes with Matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew and more
LONGEST_NAME = 40  # characters of a class name; the longest of Kinetics-400 has 39
INK, GREY, PALE = "#222222", "#6E6E6E", "#E2E2E2"
BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito (2008): told apart with every kind of colour vision
STYLE: dict[Any, Any] = {
    "font.size": 9.0,  # points: 19 pixels
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "axes.formatter.use_mathtext": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "savefig.dpi": DOTS_PER_INCH,
    "figure.dpi": DOTS_PER_INCH,
    "path.simplify": True,
}


@contextmanager
def drawing(texts: Iterable[str] = ()) -> "Iterator[Callable[[str], str]]":
    """Matplotlib as above while the body makes and saves a figure that shows ``texts``.

    Nothing of Matplotlib is imported before, so that what it says while it starts is not said here either.

    Gives a function that makes one of ``texts`` drawable: a character that no installed font has becomes an escape,
    such as ``\\u6253``. Where the home folder cannot be written, Matplotlib keeps its list of fonts in a temporary one,
    and need not say so.
    """
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import matplotlib

        characters = set().union(*texts)
        fonts, unknown = _fonts_for({character for character in characters if character.isprintable()})
        unknown |= {character for character in characters if not character.isprintable()}
        escapes = {ord(character): character.encode("unicode_escape").decode("ascii") for character in unknown}
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(STYLE)
            matplotlib.rcParams["font.family"] = fonts
            yield lambda text: text.translate(escapes)
    finally:
        logger.setLevel(level)


def _fonts_for(characters: set[str]) -> tuple[list[str], set[str]]:
    """The fonts that have ``characters``, ours first, and the characters that none of this machine's has."""
    from matplotlib import font_manager

    ours = [
        font_manager.findfont(font_manager.FontProperties(family=FONT, weight=weight)) for weight in ("normal", "bold")
    ]
    fonts, missing = [FONT], characters - (_characters_of(ours[0]) & _characters_of(ours[1]))
    others = {font.name: font.fname for font in font_manager.fontManager.ttflist if _is_plain(font)}
    for name, path in sorted(others.items()):
        if not missing:
            break
        found = missing & _characters_of(path)
        if found:
            fonts.append(name)
            missing -= found
    return fonts, missing


def _is_plain(font: "FontEntry") -> bool:
    """Whether a font is upright, of normal weight, and has real letters (not "Last Resort", whose are all boxes)."""
    is_upright = font.style == "normal" and font.weight in (400, "normal", "regular")
    return is_upright and not font.name.lower().replace(" ", "").startswith(("lastresort", ".lastresort"))


def _characters_of(path: str) -> set[str]:
    from matplotlib.font_manager import get_font

    try:
        return {chr(code) for code in get_font(path).get_charmap()}
    except (OSError, RuntimeError):  # a font that is gone, or that FreeType does not take
        return set()


def shortened(text: str, longest: int = LONGEST_NAME) -> str:
    """``text``, cut in its middle to ``longest`` characters: names often differ at their ends."""
    if len(text) <= longest:
        return text
    head = (longest - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def width_inches(texts: Sequence[str], points: float) -> float:
    """The width of the widest of ``texts``, in letters of this size; within a ``drawing``."""
    from matplotlib.figure import Figure

    text = Figure().text(0, 0, "\n".join(texts), fontsize=points)
    return float(text.get_window_extent().width) / DOTS_PER_INCH


def save_png(figure: "Figure", path: Path) -> None:
    """Write ``figure``, with all that stands around its axes, to ``path``; the same figure gives the same bytes.

    Raises:
        OSError: where it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture = io.BytesIO()
    FigureCanvasAgg(figure)  # becomes the figure's canvas
    figure.savefig(picture, format="png", bbox_inches="tight", pad_inches=0.15, metadata={"Software": None})
    write_file(path, picture.getvalue())
