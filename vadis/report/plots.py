"""Pictures of a training run, of an evaluation and of a model, as PNG files: colours that everybody can tell apart.

Settings of the person or a ``matplotlibrc`` in the current folder change nothing, and none set here outlasts a picture.
"""

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vadis.files import write_file
from vadis.training.log import Curve, RunLog, read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 150
FONT = "DejaVu Sans"  # comes with Matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew and more
INK, GREY, PALE = "#222222", "#6E6E6E", "#E2E2E2"
BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito (2008): told apart with every kind of colour vision
STYLE: dict[Any, Any] = {
    "font.family": FONT,
    "font.size": 9.0,  # points: 19 pixels
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), GREY),
    **dict.fromkeys(("axes.linewidth", "grid.linewidth"), 0.8),
    **dict.fromkeys(("savefig.dpi", "figure.dpi"), DOTS_PER_INCH),
    "axes.axisbelow": True,
    "grid.color": PALE,
    "legend.frameon": False,
    "agg.path.chunksize": 10_000,  # else a long curve with many spikes is too much for Agg
}


@contextmanager
def drawing() -> Iterator["type[Figure]"]:
    """Give Matplotlib the style above in this block, and let it not speak of a home folder that cannot be written."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        from matplotlib import style
        from matplotlib.figure import Figure

        with style.context(["default", STYLE]):
            yield Figure
    finally:
        logger.setLevel(level)


def save_png(figure: "Figure", path: Path) -> None:
    """Write ``figure``, with all that stands around its axes; the same figure gives the same bytes. Raises OSError."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", bbox_inches="tight", pad_inches=0.15, metadata={"Software": None})
    write_file(path, picture.getvalue())


def drawable(text: str) -> str:
    """Return ``text`` with an escape, such as ``\\u6253``, for every character that FONT does not have."""
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont(FONT)).get_charmap()
    return "".join(
        char if char.isprintable() and ord(char) in known else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def shortened(text: str, longest: int = 40) -> str:
    """Return ``text``, cut in its middle to ``longest`` characters: names often differ at their ends."""
    if len(text) <= longest:
        return text
    head = (longest - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def _draw_title(axes: "Axes", title: str, above: float = 6.0) -> None:
    """Draw the title so many points ``above`` the axes: its first line bold, what follows below it in grey."""
    headline, _, rest = title.partition("\n")
    axes.set_title(drawable(headline), loc="left", weight="bold", pad=above + (14 if rest else 0))
    axes.annotate(drawable(rest), (0, 1), (0, above), xycoords="axes fraction", textcoords="offset points", color=GREY)


def plot_curves(logs: Mapping[str, Path], path: Path) -> None:
    """Draw loss, accuracy and learning rate against steps, a column for each stream, from its log. Raises OSError.

    The loss is smoothed by a centred mean, which does not lag behind; the accuracy is smoothed as the log has it.
    """
    runs = {stream: read_log(log) for stream, log in logs.items()}
    with drawing() as new_figure:
        figure = new_figure(figsize=(6.4 if len(runs) < 2 else 4.6 * len(runs), 6.6), layout="constrained")
        rows = figure.subplots(3, len(runs), sharex="col", sharey="row", squeeze=False, height_ratios=(5, 5, 2))
        highest = [_draw_run(column, stream, run) for column, (stream, run) in zip(rows.T, runs.items(), strict=True)]
        for axes, name in zip(rows[:, 0], ("loss (nats)", "accuracy", "learning rate"), strict=True):
            axes.set_ylabel(name)
        rows[0, 0].set_ylim(0, 1.05 * max(highest, default=0) or 1.0)
        rows[1, 0].set_ylim(0, 1.02)
        rows[1, 0].yaxis.set_major_formatter("{x:.0%}")
        rates = np.unique(np.concatenate([run.steps["learning_rate"] for run in runs.values()]))
        if len(rates := rates[rates > 0]):
            rows[2, 0].set(yscale="log", ylim=(rates[0] / 2, rates[-1] * 2))
            rows[2, 0].minorticks_off()
            if len(rates) <= 6:
                rows[2, 0].set_yticks(rates.tolist())
        rows[2, 0].yaxis.set_major_formatter("{x:g}")
        rows[0, 0].legend()
        figure.align_ylabels()
        save_png(figure, path)


def _draw_run(column: "Sequence[Axes]", stream: str, run: RunLog) -> float:
    """Draw the curves of a stream; return the highest loss, but for single steps that stand out."""
    loss_axes, accuracy_axes, rate_axes = column
    steps, loss, tests = run.steps["step"], run.steps["loss"], run.validations
    window = max(min(9, len(loss)), len(loss) // 100)
    ones = np.ones(window)  # of the values around each one, or of those of them that there are
    smoothed = np.convolve(loss, ones, "same") / np.convolve(np.ones(len(loss)), ones, "same") if len(loss) else loss
    loss_axes.plot(steps, loss, color=BLUE, alpha=0.3, linewidth=0.8, label="training, each step")
    loss_axes.plot(steps, smoothed, color=BLUE, linewidth=1.6, label=f"training, mean of {window:,} steps")
    accuracy_axes.plot(steps, run.steps["smoothed_accuracy"], color=BLUE, linewidth=1.6)
    rate_axes.step(steps, run.steps["learning_rate"], where="post", color=INK, linewidth=1.2)
    if len(tests["step"]):
        look: dict[str, Any] = {"color": ORANGE, "linewidth": 1.4, "marker": "o", "clip_on": False, "zorder": 3}
        look["markersize"] = 4 if len(tests["step"]) <= 25 else 0  # more dots would hide the line
        loss_axes.plot(tests["step"], tests["loss"], label="validation", **look)
        accuracy_axes.plot(tests["step"], tests["accuracy"], label="validation", **look)
    loss_axes.set_title(stream, loc="left", weight="bold")
    for best in np.flatnonzero(tests["is_best"] > 0)[-1:]:
        words = f"best validation {tests['accuracy'][best]:.1%}, step {tests['step'][best]:,.0f}"
        loss_axes.set_title(words, loc="right", size="medium", color=GREY)
    for axes in column:
        axes.grid(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(length=0)
    rate_axes.set(xlabel="step", xlim=(0, max([1.0, *steps[-1:], *tests["step"][-1:]])))
    rate_axes.locator_params(axis="x", nbins=5, integer=True)
    rate_axes.xaxis.set_major_formatter("{x:,.0f}")
    drawn = np.concatenate([smoothed, tests["loss"], np.sort(loss)[: ceil(0.99 * len(loss))]])
    return float(np.max(drawn[np.isfinite(drawn)], initial=0.0))


LETTER_INCHES = 0.085  # the width of one, of ordinary size


def plot_confusion(confusion: NDArray[np.int64], classes: Sequence[str], path: Path, title: str) -> None:
    """Draw the confusion matrix: how much of each true class (row) got which first answer (column). Raises OSError.

    ``confusion`` (classes, classes) are counts. Rows add up to 100 %; one of a class without answers is grey. The scale
    goes by square roots, so that what is rare can be seen. What follows a newline in ``title`` is drawn in grey.
    """
    count = len(classes)
    cell = min(0.9, max(0.13, 4.2 / count), 21.3 / count)  # inches: a line of small letters; 8 pixels for 400 classes
    side, totals = cell * count, confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, totals, out=np.full(confusion.shape, np.nan), where=totals > 0)
    with drawing() as new_figure:
        from matplotlib.colors import PowerNorm

        names = [shortened(drawable(name)) for name in classes]
        figure = new_figure(figsize=(side, side))
        axes = figure.add_axes((0, 0, 1, 1))
        picture = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest", aspect="auto")
        axes.set_facecolor(PALE)
        _name_cells(axes, names, cell)
        _draw_title(axes, title)
        height = min(2.0, side)  # of the scale of colours, to the right of the matrix
        place = figure.add_axes((1 + 0.2 / side, 1 - height / side, 0.14 / side, height / side))
        bar = figure.colorbar(picture, cax=place, ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 1], format="{x:.0%}")
        bar.set_label("share of the true class")
        bar.outline.set_visible(False)
        if count <= 20:  # classes; with more, the pairs most often confused are listed instead
            for row, column in zip(*np.nonzero(shares >= 0.005), strict=True):
                share = float(shares[row, column])
                colour = "white" if share > 0.4 else INK
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour)
        else:
            _list_confusions(axes, confusion, names, side)
        save_png(figure, path)


def _name_cells(axes: "Axes", names: Sequence[str], cell: float) -> None:
    """Write names at both axes; at every second or third class where there is no room for all."""
    size = 9.0 if cell > 0.17 else 7.0
    every = ceil(size * 1.2 / 72 / cell)
    places = range(0, len(names), every)
    is_level = max(map(len, names)) * LETTER_INCHES < cell
    axes.set_xticks(places, names[::every], rotation=0 if is_level else 90, fontsize=size)
    axes.set_yticks(places, names[::every], fontsize=size)
    axes.set(xlabel="first answer", ylabel="true class")
    axes.tick_params(length=2)
    borders = np.arange(0, len(names) + 1, 1 if every == 1 else 10) - 0.5
    axes.set_xticks(borders, minor=True)
    axes.set_yticks(borders, minor=True)
    axes.tick_params(which="minor", length=0)
    axes.grid(True, which="minor", color=PALE, linewidth=0.5)


def _list_confusions(axes: "Axes", confusion: NDArray[np.int64], names: Sequence[str], side: float) -> None:
    wrong, totals = confusion - np.diag(np.diag(confusion)), confusion.sum(axis=1)
    lines = ["most often confused"]
    for place in np.argsort(-wrong, axis=None, kind="stable")[: min(40, int((side - 2.75) / 0.18))].tolist():
        truth, answer = divmod(place, len(names))
        if wrong[truth, answer]:
            lines.append(f"{wrong[truth, answer]} of {totals[truth]}: {names[truth]} → {names[answer]}")
    place = (1 + 0.2 / side, 1 - 2.5 / side)
    axes.text(*place, "\n".join(lines), transform=axes.transAxes, va="top", linespacing=1.3)


def plot_per_class(accuracies: NDArray[np.float64], classes: Sequence[str], path: Path, title: str) -> None:
    """Draw a bar for each class, the best first, and a line at their mean.

    ``accuracies`` (classes,) are in [0, 1], NaN for a class without examples; the rest as for ``plot_confusion``.
    """
    order = np.argsort(-accuracies, kind="stable")  # NaN come last
    columns = min(4, ceil(len(order) / 34))
    rows = ceil(len(order) / columns)
    with drawing() as new_figure:
        names = [shortened(drawable(name)) for name in classes]
        bar, between, height = 2.0, 0.75 + max(map(len, names)) * LETTER_INCHES, rows * 0.165
        width = columns * bar + (columns - 1) * between
        figure = new_figure(figsize=(width, height))
        for column in range(columns):
            axes = figure.add_axes((column * (bar + between) / width, 0, bar / width, 1))
            taken = order[column * rows : (column + 1) * rows]
            _draw_bars(axes, accuracies[taken], [names[index] for index in taken], rows)
            if not np.isnan(accuracies).all():
                mean = float(np.nanmean(accuracies))
                axes.axvline(mean, color=ORANGE, linewidth=1.2)
                if column == 0:
                    axes.text(mean, -0.8, f"mean {mean:.1%}", ha="center", fontsize=8.0, color=ORANGE)
        _draw_title(figure.axes[0], title, above=18.0)
        save_png(figure, path)


def _draw_bars(axes: "Axes", accuracies: Curve, names: Sequence[str], rows: int) -> None:
    places = np.arange(len(names))
    axes.barh(places, np.nan_to_num(accuracies), height=0.7, color=BLUE)
    for place, accuracy in enumerate(accuracies):
        shown = "–" if np.isnan(accuracy) else f"{accuracy:.0%}"
        axes.text(1.2, place, shown, ha="right", va="center", fontsize=8.0)
    axes.set(xlim=(0, 1), ylim=(rows - 0.5, -0.5))
    axes.set_yticks(places, names, fontsize=8.0)
    axes.set_xticks([0, 0.5, 1], ["0", "50%", "100%"], fontsize=7.0)
    axes.tick_params(length=0)
    axes.grid(True, axis="x")
    axes.spines[:].set_visible(False)


WEIGHT_PIXELS = 4  # of the picture for each weight; more where there are few filters
GAP = 1  # weights' width, between filters
BLOCK_GAP = 4  # between blocks, always white
BAND_GAP_INCHES = 0.46  # room for a title above each band


def plot_filters(
    networks: Mapping[str, NDArray[np.float32]], path: Path, title: str, *, per_filter: bool = False
) -> None:
    """Draw the filters (filters, C, T, H, W) of the first layer of "flow", "rgb" and "imagenet": figure 4 of the paper.

    A band has a block for each slice in time, the first to the left, in which every filter keeps its place. Each
    network, or each filter, has one scale: zero is grey (RGB) or white (flow), the largest weight its end.
    """
    with drawing() as new_figure:
        bands = list(_bands(networks, per_filter))
        widest = max(picture.shape[1] for _, picture in bands)
        inches = max(WEIGHT_PIXELS, 1_800 // widest) / DOTS_PER_INCH  # for each weight; titles need 1,800 pixels
        width = widest * inches
        height = sum(BAND_GAP_INCHES + picture.shape[0] * inches for _, picture in bands)
        figure, bottom = new_figure(figsize=(width, height)), height
        for words, picture in bands:
            tall, wide = (size * inches for size in picture.shape[:2])
            bottom -= BAND_GAP_INCHES + tall
            axes = figure.add_axes((0, bottom / height, wide / width, tall / height))
            axes.imshow(picture, interpolation="nearest", aspect="auto")
            axes.set_axis_off()
            figure.text(0, (bottom + tall + 0.07) / height, words, va="bottom")
        figure.text(0, 1, drawable(title), va="bottom", color=GREY)
        save_png(figure, path)


def _bands(networks: Mapping[str, NDArray[np.float32]], per_filter: bool) -> Iterator[tuple[str, Curve]]:
    """Yield the title and the picture (H, W, 3) in [0, 1] of each band, from the top."""
    from matplotlib import colormaps

    diverging = colormaps["RdBu_r"]  # blue, white, red: minus, zero, plus
    for name in ("flow", "rgb", "imagenet"):
        if name not in networks:
            continue
        weights = networks[name].astype(np.float64)
        ends = np.abs(weights).max(axis=(1, 2, 3, 4) if per_filter else None, keepdims=True)
        shares = 0.5 + weights / np.where(ends, ends, 1) / 2  # (filters, C, T, H, W) in [0, 1]
        end = "its filter's largest" if per_filter else f"{ends.max() or 1:.2g}"
        if name == "flow":
            scale = f"7 slices in time, left to right; blue −{end}, white 0, red +{end}"
            for channel, axis in enumerate(("horizontal (dx)", "vertical (dy)")):
                colours = diverging(shares[:, channel])[..., :3]
                yield f"Flow network, {axis}: {scale}", _side_by_side(colours, 0.8)
        else:
            scale = f"black −{end}, grey 0, white +{end}, by colour channel"
            of_rgb, of_imagenet = "RGB network: 7 slices in time, left to right", "Inception-v1 on ImageNet, in 2D"
            yield f"{of_rgb if name == 'rgb' else of_imagenet}; {scale}", _side_by_side(np.moveaxis(shares, 1, -1), 1.0)


def _side_by_side(filters: Curve, line: float) -> Curve:
    """Colours (filters, T, H, W, 3) → T squares of filters in a row, with lines of a grey between the filters."""
    number, times, height, width, _ = filters.shape
    columns = ceil(number**0.5)
    rows = ceil(number / columns)
    missing = rows * columns - number
    lined = np.pad(filters, ((0, missing), (0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=line)
    squares = lined.reshape(rows, columns, times, height + GAP, width + GAP, 3).transpose(2, 0, 3, 1, 4, 5)
    blocks = squares.reshape(times, rows * (height + GAP), columns * (width + GAP), 3)[:, :-GAP, :-GAP]
    spaced = np.pad(blocks, ((0, 0), (0, 0), (0, BLOCK_GAP), (0, 0)), constant_values=1.0)
    return np.concatenate(spaced, axis=1)[:, :-BLOCK_GAP]
