"""The first layer's filters as a picture: figure 4 of the paper.

From the top: the flow network's filters, one band for dx and one for dy, the RGB network's, and those of the
Inception-v1 that both were inflated from. Every filter keeps its place in all 7 blocks, which are its 7 slices in time,
the first to the left. Each network has one scale: zero is grey (RGB) or white (flow), the largest weight of either sign
is the end of the scale.
"""

from collections.abc import Iterator, Mapping
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vadis.report.drawing import DOTS_PER_INCH, GREY, drawing, save_png

Filters = NDArray[np.float32]  # (filters, C, T, H, W); C is 3 (RGB) or 2 (flow)
Colours = NDArray[np.float64]  # (…, 3) in [0, 1]

PIXELS = 4  # of the picture for each weight; more where there are few filters,
LEAST_WIDTH = 1_800  # pixels, so that titles have room
GAP = 1  # weights' width, between filters
BLOCK_GAP = 4  # between blocks, always white
LINES = {"flow": 0.8, "rgb": 1.0, "imagenet": 1.0}  # grey of what is between filters: zero is white in flow's
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
    """Draw the filters of some networks, one below the other.

    Args:
        networks: "flow", "rgb", "imagenet" (with one slice in time), as far as there are any.
        path: of the PNG.
        title: above it all.

    Raises:
        OSError: where the picture cannot be written.
    """
    with drawing([title]) as drawable:
        from matplotlib.figure import Figure

        bands = list(_bands(networks))
        widest = max(band.picture.shape[1] for band in bands)
        inches = max(PIXELS, LEAST_WIDTH // widest) / DOTS_PER_INCH  # for each weight
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
    for name in ("flow", "rgb", "imagenet"):
        if name not in networks:
            continue
        weights = networks[name].astype(np.float64)
        largest = float(np.abs(weights).max()) or 1.0
        scaled, end, line = weights / largest, f"{largest:.2g}", LINES[name]
        if name == "flow":
            scale = f"7 slices in time, left to right; blue −{end}, white 0, red +{end}"
            for channel, title in enumerate(("Flow network, horizontal (dx)", "Flow network, vertical (dy)")):
                yield Band(title, scale, _side_by_side(_diverging(scaled[:, channel]), line), False)
            continue
        colours = 0.5 + np.moveaxis(scaled, 1, -1) / 2  # (filters, T, H, W, 3)
        scale = f"black −{end}, grey 0, white +{end}, by colour channel"
        if name == "rgb":
            yield Band("RGB network", f"7 slices in time, left to right; {scale}", _side_by_side(colours, line), False)
        else:
            yield Band("Inception-v1 on ImageNet, in 2D", f"no time; {scale}", _side_by_side(colours, line), True)


def _diverging(values: NDArray[np.float64]) -> Colours:
    """Values in [-1, 1] of any shape → colours (…, 3)."""
    from matplotlib import colormaps

    return np.asarray(colormaps[DIVERGING](0.5 + values / 2)[..., :3])


def _side_by_side(filters: Colours, line: float) -> Colours:
    """Colours (filters, T, H, W, 3) → T blocks in a row."""
    blocks = [_block(slice_, line) for slice_ in np.moveaxis(filters, 1, 0)]
    between = np.ones((blocks[0].shape[0], BLOCK_GAP, 3))
    parts = [part for block in blocks for part in (between, block)]
    return np.concatenate(parts[1:], axis=1)


def _block(filters: Colours, line: float) -> Colours:
    """Colours (filters, H, W, 3) → one square of filters, row by row, with lines of a grey between them."""
    number, height, width, _ = filters.shape
    columns = ceil(number**0.5)
    rows = ceil(number / columns)
    block = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), line)
    for index, colours in enumerate(filters):
        top, left = (index // columns) * (height + GAP), (index % columns) * (width + GAP)
        block[top : top + height, left : left + width] = colours
    return block
