"""Pictures of a training run, of an evaluation and of a model, as PNG files: colours that everybody can tell apart.

Class names are drawn as they are, whatever they hold; see ``drawing`` for letters that no font has.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vadis.report.drawing import (
    BLUE,
    DOTS_PER_INCH,
    GREY,
    INK,
    ORANGE,
    PALE,
    drawing,
    save_png,
    shortened,
    width_inches,
)
from vadis.training.log import RunLog, Values, read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

MAX_POINTS = 1_000  # of a curve: more than it has pixels
MAX_DOTS = 25  # of a curve: with more, they hide it
SMOOTHED_SHARE = 100  # the loss is drawn as a mean over this part of the run,
SMOOTHED_STEPS = 9  # or over so many steps, if that is more
MAX_RATES = 6  # that get a tick each
MAX_MATRIX_INCHES = 21.3  # side of a confusion matrix; 8 pixels for each of 400 classes
MIN_CELL_INCHES = 0.13  # unless that bound is reached: room for a line of small letters
MAX_CELL_INCHES = 0.9
NUMBERS_UP_TO = 20  # classes; with more, the pairs most often confused are listed instead,
MAX_PAIRS = 40  # at most so many
BARS_IN_COLUMN = 34  # as long as that gives at most 4 columns
BAR_INCHES = 0.165  # from bar to bar
SMALL = 7.0  # points: 15 pixels


def plot_curves(logs: Mapping[str, Path], path: Path) -> None:
    """Loss, accuracy and learning rate against steps, a column for each stream.

    The loss is smoothed here, by a centred mean that does not lag behind; the accuracy as the log has it. Of more than
    ``MAX_POINTS`` steps, each point stands for several: the faint band reaches from the lowest to the highest loss of
    these, the lines are their means.
    ``logs`` are by stream, RUN/<stream>/log.jsonl. Raises OSError.
    """
    runs = {stream: read_log(log) for stream, log in logs.items()}
    with drawing(runs) as drawable:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4 if len(runs) < 2 else 4.6 * len(runs), 6.6), layout="constrained")
        rows = figure.subplots(3, len(runs), sharex="col", sharey="row", squeeze=False, height_ratios=(5, 5, 2))
        for column, (stream, run) in enumerate(runs.items()):
            loss, accuracy, rate = rows[:, column]
            _draw_loss(loss, run)
            _draw_accuracy(accuracy, run)
            _draw_rate(rate, run)
            loss.set_title(drawable(stream), loc="left", weight="bold")
            loss.set_title(_best_validation(run), loc="right", size="medium", color=GREY)
        _finish_curves(rows, list(runs.values()))
        figure.align_ylabels()
        save_png(figure, path)


def _draw_loss(axes: "Axes", run: RunLog) -> None:
    smoothed, window = _smooth(run.steps["loss"])
    taken, tests = _thin_out({**run.steps, "smoothed": smoothed}), run.validations
    if len(smoothed) <= MAX_POINTS:
        axes.plot(taken["step"], taken["loss"], color=BLUE, alpha=0.3, linewidth=0.8, label="training, each step")
    else:
        low, high = taken["lowest"], taken["highest"]
        axes.fill_between(taken["step"], low, high, color=BLUE, alpha=0.25, linewidth=0, label="training, all steps")
    label = f"training, mean of {window:,} steps"
    axes.plot(taken["step"], taken["smoothed"], color=BLUE, linewidth=1.6, label=label)
    _draw_validations(axes, tests["step"], tests["loss"])


def _smooth(loss: Values) -> tuple[Values, int]:
    """The mean of so many values around each one (of those of them that there are), and how many these are."""
    count = len(loss)
    window = max(min(SMOOTHED_STEPS, count), count // SMOOTHED_SHARE)
    ends = np.arange(count) + (window + 1) // 2
    starts, ends = np.maximum(ends - window, 0), np.minimum(ends, count)
    sums = np.append(0.0, np.cumsum(loss))
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts), np.float64), window


def _draw_accuracy(axes: "Axes", run: RunLog) -> None:
    taken, tests = _thin_out(run.steps), run.validations
    axes.plot(taken["step"], taken["smoothed_accuracy"], color=BLUE, linewidth=1.6)
    _draw_validations(axes, tests["step"], tests["accuracy"])


def _draw_validations(axes: "Axes", steps: Values, values: Values) -> None:
    """Draw a line with a dot for each validation, unless the dots would hide it."""
    if len(steps):
        (drawn,) = axes.plot(steps, values, color=ORANGE, linewidth=1.4, zorder=3, label="validation")
        if len(steps) <= MAX_DOTS:
            drawn.set(marker="o", markersize=4.0, clip_on=False)


def _draw_rate(axes: "Axes", run: RunLog) -> None:
    """The learning rate where it changes, and at both ends."""
    steps, rates = run.steps["step"], run.steps["learning_rate"]
    changes = np.flatnonzero(np.diff(rates, prepend=np.nan) != 0)
    kept = np.unique(np.append(changes, max(len(rates) - 1, 0)))[: len(rates)]
    axes.step(steps[kept], rates[kept], where="post", color=INK, linewidth=1.2)


def _thin_out(columns: Mapping[str, Values]) -> dict[str, Values]:
    """``columns`` as at most ``MAX_POINTS`` means, with the ``lowest`` and ``highest`` loss behind each."""
    count = len(columns["step"])
    if count <= MAX_POINTS:
        return {**columns, "lowest": columns["loss"], "highest": columns["loss"]}
    edges = np.linspace(0, count, MAX_POINTS + 1).astype(int)
    sizes = np.diff(edges)
    thin = {name: np.add.reduceat(values, edges[:-1]) / sizes for name, values in columns.items()}
    loss = columns["loss"]
    return {**thin, "lowest": np.fmin.reduceat(loss, edges[:-1]), "highest": np.fmax.reduceat(loss, edges[:-1])}


def _best_validation(run: RunLog) -> str:
    """The validation with the lowest loss, in words; nothing where there is none."""
    best = np.flatnonzero(run.validations["is_best"] > 0)
    if not len(best):
        return ""
    step, accuracy = (run.validations[name][best[-1]] for name in ("step", "accuracy"))
    return f"best validation {accuracy:.1%}, step {step:,.0f}"


def _finish_curves(rows: "NDArray[np.object_]", runs: Sequence[RunLog]) -> None:
    """Limits, ticks and the legend."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

    for axes in rows.flat:
        axes.grid(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(length=0)
    for column, run in zip(rows.T, runs, strict=True):
        column[-1].set_xlabel("step")
        column[-1].set_xlim(0, max([1.0, *run.steps["step"][-1:], *run.validations["step"][-1:]]))
        column[-1].xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 2.5, 5, 10]))
        column[-1].xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    for axes, name in zip(rows[:, 0], ("loss (nats)", "accuracy", "learning rate"), strict=True):
        axes.set_ylabel(name)
    rows[0, 0].set_ylim(0, _highest_loss(runs))
    rows[1, 0].set_ylim(0, 1.02)
    rows[1, 0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _rate_ticks(rows[2, 0], np.concatenate([run.steps["learning_rate"] for run in runs]))
    for axes in rows[0]:
        if axes.get_lines():
            axes.legend()  # where the curves leave most room
            break


def _highest_loss(runs: Sequence[RunLog]) -> float:
    """The top of the axis: above all that is drawn, but for the highest 1 % of the single steps."""
    losses = [run.steps["loss"] for run in runs]
    drawn = [run.validations["loss"] for run in runs] + [_smooth(loss)[0] for loss in losses]
    found = [np.fmax.reduce(values, initial=0) for values in drawn]
    found += [np.nanquantile(loss, 0.99) for loss in losses if np.isfinite(loss).any()]
    return 1.05 * float(max(found, default=0)) or 1.0


def _rate_ticks(axes: "Axes", rates: Values) -> None:
    """Make the axis logarithmic; with few rates, each has a tick."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    def shown(rate: float, _: object) -> str:
        """``0.05``, ``0.001``, ``2.5e-4``."""
        mantissa, _, exponent = f"{rate:.3e}".partition("e")
        return f"{rate:.4g}" if rate >= 0.001 else f"{float(mantissa):g}e{int(exponent)}"

    used = np.unique(rates[rates > 0])
    if len(used):
        axes.set_yscale("log")
        axes.set_ylim(used[0] / 2, used[-1] * 2)
        axes.yaxis.set_major_locator(FixedLocator(used.tolist()) if len(used) <= MAX_RATES else LogLocator(numticks=5))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(shown))


def plot_confusion(confusion: NDArray[np.int64], classes: Sequence[str], path: Path, title: str) -> None:
    """The confusion matrix: how much of each true class (row) got which first answer (column).

    Rows add up to 100 %; one of a class without answers is grey. The scale goes by square roots, so that what is rare
    can be seen. Up to ``NUMBERS_UP_TO`` classes have percentages in their cells; of very many, only some have names.

    ``confusion`` (classes, classes) are counts. What follows a newline in ``title`` is drawn smaller. Raises OSError.
    """
    count = len(classes)
    cell = min(MAX_CELL_INCHES, max(MIN_CELL_INCHES, 4.2 / count), MAX_MATRIX_INCHES / count)
    side, totals = cell * count, confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, totals, out=np.full(confusion.shape, np.nan), where=totals > 0)
    with drawing([*classes, title]) as drawable:
        from matplotlib.colors import PowerNorm
        from matplotlib.figure import Figure

        names = [shortened(drawable(name)) for name in classes]
        figure = Figure(figsize=(side, side))
        axes = figure.add_axes((0, 0, 1, 1))
        picture = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest", aspect="auto")
        axes.set_facecolor(PALE)
        _name_cells(axes, names, cell)
        _draw_title(axes, [drawable(line) for line in title.split("\n")])
        _draw_scale(figure, picture, side)
        if count <= NUMBERS_UP_TO:
            _write_numbers(axes, shares)
        else:
            _list_confusions(axes, confusion, names, side)
        save_png(figure, path)


def _name_cells(axes: "Axes", names: Sequence[str], cell: float) -> None:
    """Names at both axes; at every second or third class where there is no room for all."""
    size = 9.0 if cell > 0.17 else SMALL
    every = ceil(size * 1.2 / 72 / cell)
    places = range(0, len(names), every)
    lying = width_inches(names, size) < 0.95 * cell
    axes.set_xticks(places, names[::every], rotation=0 if lying else 90, fontsize=size)
    axes.set_yticks(places, names[::every], fontsize=size)
    axes.set_xlabel("first answer")
    axes.set_ylabel("true class")
    axes.tick_params(length=2)
    step = 1 if every == 1 else 10
    axes.set_xticks(np.arange(0, len(names) + 1, step) - 0.5, minor=True)
    axes.set_yticks(np.arange(0, len(names) + 1, step) - 0.5, minor=True)
    axes.tick_params(which="minor", length=0)
    axes.grid(True, which="minor", color=PALE, linewidth=0.5)


def _draw_title(axes: "Axes", lines: Sequence[str], above: float = 6.0) -> None:
    """The title, its first line bold, so many points ``above`` the axes."""
    looks: tuple[dict[str, Any], ...] = ({"size": "large", "weight": "bold"}, {"size": "medium", "color": GREY})
    for number, line in enumerate(lines):
        look, height = looks[min(number, 1)], above + 14.0 * (len(lines) - 1 - number)
        axes.annotate(line, (0, 1), (0, height), xycoords="axes fraction", textcoords="offset points", **look)


def _draw_scale(figure: "Figure", picture: "ScalarMappable", side: float) -> None:
    """What the colours mean, to the right of the matrix."""
    from matplotlib.ticker import PercentFormatter

    height = min(2.0, side)
    place = figure.add_axes((1 + 0.2 / side, 1 - height / side, 0.14 / side, height / side))
    bar = figure.colorbar(picture, cax=place, ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 1], format=PercentFormatter(1, 0))
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)


def _write_numbers(axes: "Axes", shares: NDArray[np.float64]) -> None:
    """Percentages, where they do not round to nothing."""
    for row, column in zip(*np.nonzero(shares >= 0.005), strict=True):
        share = float(shares[row, column])
        axes.text(column, row, f"{share:.0%}"[:-1], ha="center", va="center", color="white" if share > 0.4 else INK)
    for row in np.flatnonzero(np.isnan(shares).any(axis=1)).tolist():
        axes.text((len(shares) - 1) / 2, row, "no answers", ha="center", va="center", color=GREY)


def _list_confusions(axes: "Axes", confusion: NDArray[np.int64], names: Sequence[str], side: float) -> None:
    """The pairs that were confused most often, below the scale."""
    wrong = confusion - np.diag(np.diag(confusion))
    lines = min(MAX_PAIRS, int((side - 2.75) / 0.18))
    totals = confusion.sum(axis=1)
    worst = np.argsort(-wrong, axis=None, kind="stable")[:lines]
    pairs = [divmod(int(place), len(names)) for place in worst]
    pairs = [pair for pair in pairs if wrong[pair] > 0]
    texts = (
        (0.2, 2.5, "most often confused" if pairs else "nothing confused", GREY),
        (0.2, 2.75, "\n".join(f"{wrong[pair]} of {totals[pair[0]]}" for pair in pairs), INK),
        (1.0, 2.75, "\n".join(f"{names[truth]} → {names[answer]}" for truth, answer in pairs), INK),
    )
    for right, down, text, color in texts:
        axes.text(1 + right / side, 1 - down / side, text, transform=axes.transAxes, va="top", color=color)


def plot_per_class(accuracies: NDArray[np.float64], classes: Sequence[str], path: Path, title: str) -> None:
    """A bar for each class, the best first, and a line at their mean.

    ``accuracies`` (classes,) are in [0, 1], NaN for a class without examples; the rest as for ``plot_confusion``.
    """
    order = np.argsort(-accuracies, kind="stable")  # NaN come last
    columns = min(4, ceil(len(order) / BARS_IN_COLUMN))
    rows = ceil(len(order) / columns)
    with drawing([*classes, title]) as drawable:
        from matplotlib.figure import Figure

        names = [shortened(drawable(name)) for name in classes]
        bar, between, height = 2.0, 0.75 + width_inches(names, 8.0), rows * BAR_INCHES
        width = columns * bar + (columns - 1) * between
        figure = Figure(figsize=(width, height))
        for column in range(columns):
            axes = figure.add_axes((column * (bar + between) / width, 0, bar / width, 1))
            taken = order[column * rows : (column + 1) * rows]
            _draw_bars(axes, accuracies[taken], [names[index] for index in taken], rows)
            _draw_mean(axes, accuracies, is_named=column == 0)
        _draw_title(figure.axes[0], [drawable(line) for line in title.split("\n")], above=18.0)
        save_png(figure, path)


def _draw_bars(axes: "Axes", accuracies: Values, names: Sequence[str], rows: int) -> None:
    """One column of bars, from the top, with their values to the right."""
    places = np.arange(len(names))
    axes.barh(places, np.nan_to_num(accuracies), height=0.7, color=BLUE)
    for place, accuracy in enumerate(accuracies):
        said = "–" if np.isnan(accuracy) else f"{accuracy:.0%}"
        axes.text(1.2, place, said, ha="right", va="center", fontsize=8.0, color=INK)
    axes.set_xlim(0, 1)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_yticks(places, names, fontsize=8.0)
    axes.set_xticks([0, 0.5, 1], ["0", "50%", "100%"], fontsize=SMALL)
    axes.tick_params(length=0)
    axes.grid(True, axis="x")
    axes.spines[:].set_visible(False)


def _draw_mean(axes: "Axes", accuracies: Values, *, is_named: bool) -> None:
    """A line at the mean of all classes that have examples."""
    if np.isnan(accuracies).all():
        return
    mean = float(np.nanmean(accuracies))
    axes.axvline(mean, color=ORANGE, linewidth=1.2)
    if is_named:
        axes.annotate(
            f"mean {mean:.1%}", (mean, 1), (0, 4), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="center", fontsize=8.0, color=ORANGE,
        )  # fmt: skip


Filters = NDArray[np.float32]  # (filters, C, T, H, W); C is 3 (RGB) or 2 (flow)
Colours = NDArray[np.float64]  # (…, 3) in [0, 1]

WEIGHT_PIXELS = 4  # of the picture for each weight; more where there are few filters,
MIN_WIDTH = 1_800  # pixels, so that titles have room
GAP = 1  # weights' width, between filters
BLOCK_GAP = 4  # between blocks, always white
LINE_GREYS = {"flow": 0.8, "rgb": 1.0, "imagenet": 1.0}  # grey of what is between filters: zero is white in flow's
BAND_GAP_INCHES = 0.46  # room for a title above each band
TITLE_INCHES = 0.07  # from a band to its title
DIVERGING = "RdBu_r"  # blue, white, red: minus, zero, plus


class Band(NamedTuple):
    """A row of the picture: the slices in time of one network's filters, side by side."""

    title: str
    scale: str  # what the colours mean
    picture: Colours  # (H, W, 3)
    is_single: bool  # of one block: there is no time


def plot_filters(networks: Mapping[str, Filters], path: Path, title: str) -> None:
    """Draw the filters of the first layer of some networks: figure 4 of the paper. Raises OSError.

    From the top: the flow network's filters, one band for dx and one for dy, the RGB network's, and those of the
    Inception-v1 that both were inflated from. Every filter keeps its place in all 7 blocks, which are its 7 slices in
    time, the first to the left. Each network has one scale: zero is grey (RGB) or white (flow), the largest weight of
    either sign is the end of the scale.
    ``networks`` are "flow", "rgb", "imagenet" (with one slice in time), as far as there are any.
    """
    with drawing([title]) as drawable:
        from matplotlib.figure import Figure

        bands = list(_bands(networks))
        widest = max(band.picture.shape[1] for band in bands)
        inches = max(WEIGHT_PIXELS, MIN_WIDTH // widest) / DOTS_PER_INCH  # for each weight
        width = widest * inches
        height = sum(BAND_GAP_INCHES + band.picture.shape[0] * inches for band in bands)
        figure, bottom = Figure(figsize=(width, height)), height
        for band in bands:
            tall, wide = (size * inches for size in band.picture.shape[:2])
            bottom -= BAND_GAP_INCHES + tall
            axes = figure.add_axes((0, bottom / height, wide / width, tall / height))
            axes.imshow(band.picture, interpolation="nearest", aspect="auto")
            axes.set_axis_off()
            top = (bottom + tall + TITLE_INCHES) / height
            figure.text(0, top, band.title, weight="bold", va="bottom")
            if band.is_single:  # there is room to its right
                figure.text((wide + BLOCK_GAP * inches) / width, bottom / height, band.scale, color=GREY, va="bottom")
            else:
                figure.text(1, top, band.scale, color=GREY, va="bottom", ha="right")
        figure.text(0, 1, drawable(title), va="bottom", color=GREY)
        save_png(figure, path)


def _bands(networks: Mapping[str, Filters]) -> Iterator[Band]:
    """The rows of the picture, from the top."""
    from matplotlib import colormaps

    diverging = colormaps[DIVERGING]
    for name in ("flow", "rgb", "imagenet"):
        if name not in networks:
            continue
        weights = networks[name].astype(np.float64)
        largest = float(np.abs(weights).max()) or 1.0
        scaled, end, line = weights / largest, f"{largest:.2g}", LINE_GREYS[name]
        if name == "flow":
            scale = f"7 slices in time, left to right; blue −{end}, white 0, red +{end}"
            for channel, title in enumerate(("Flow network, horizontal (dx)", "Flow network, vertical (dy)")):
                yield Band(title, scale, _side_by_side(diverging(0.5 + scaled[:, channel] / 2)[..., :3], line), False)
            continue
        colours = 0.5 + np.moveaxis(scaled, 1, -1) / 2  # (filters, T, H, W, 3)
        scale = f"black −{end}, grey 0, white +{end}, by colour channel"
        if name == "rgb":
            yield Band("RGB network", f"7 slices in time, left to right; {scale}", _side_by_side(colours, line), False)
        else:
            yield Band("Inception-v1 on ImageNet, in 2D", f"no time; {scale}", _side_by_side(colours, line), True)


def _side_by_side(filters: Colours, line: float) -> Colours:
    """Colours (filters, T, H, W, 3) → T squares of filters in a row, with lines of a grey between the filters."""
    number, _, height, width, _ = filters.shape
    columns = ceil(number**0.5)
    rows = ceil(number / columns)
    blocks = []
    for at_time in np.moveaxis(filters, 1, 0):
        block = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), line)
        for index, colours in enumerate(at_time):
            top, left = (index // columns) * (height + GAP), (index % columns) * (width + GAP)
            block[top : top + height, left : left + width] = colours
        blocks += [np.ones((block.shape[0], BLOCK_GAP, 3)), block]
    return np.concatenate(blocks[1:], axis=1)
