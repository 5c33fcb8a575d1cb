"""Tables 2 to 5 of Carreira & Zisserman, CVPR 2017: their figures as printed, in percent, and what each measures.

Three modes lead to a model: ``original`` trains on the dataset alone, ``fixed`` gives the Kinetics network a new last
layer, ``full`` trains that network end to end.
"""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any, NamedTuple

from vadis.models import BOTH, MODELS

COLUMNS = ("rgb", "flow", BOTH)
COLUMN_TITLES = ("RGB", "flow", "both")
DATASET_TITLES = {"ucf101": "UCF-101", "hmdb51": "HMDB-51", "kinetics": "Kinetics"}
TRANSFER_DATASETS = ("ucf101", "hmdb51")
MODE_TITLES = {"original": "original", "fixed": "fixed", "full": "full-FT"}
ALL_SPLITS = (1, 2, 3)
NO_FIGURE = "–"  # the paper has none there

# By architecture: RGB, flow and both on UCF-101, on HMDB-51 and on Kinetics. Split 1, trained on the dataset alone;
# with ImageNet, but for the 3D-ConvNet, which starts from nothing.
_TABLE_2 = {
    "lstm": "81.0 – – 36.0 – – 63.3 – –",
    "c3d": "51.6 – – 24.3 – – 56.1 – –",
    "two-stream": "83.6 85.6 91.2 43.2 56.3 58.3 62.2 52.4 65.6",
    "fused": "83.2 85.8 89.3 49.2 55.5 56.8 – – 67.2",
    "i3d": "84.5 90.6 93.4 49.8 61.9 66.4 71.1 63.4 74.2",
}
# By architecture: RGB, flow and both on Kinetics without ImageNet before it, then with it.
_TABLE_3 = {
    "lstm": "53.9 – – 63.3 – –",
    "c3d": "56.1 – – – – –",
    "two-stream": "57.9 49.6 62.8 62.2 52.4 65.6",
    "fused": "– – 62.7 – – 67.2",
    "i3d": "68.4 61.5 71.6 71.1 63.4 74.2",
}
_TABLE_3_TOP5 = "88.0 83.4 90.0 89.3 84.9 91.3"  # of I3D: what the paper has in brackets
# By architecture, and whether with ImageNet before everything else: original, fixed and full on UCF-101, then on
# HMDB-51, split 1. RGB of the architectures that have no flow, else both streams.
_TABLE_4 = {
    ("lstm", True): "81.0 88.1 91.0 36.0 50.8 53.4",
    ("lstm", False): "54.2 82.6 86.8 18.3 47.1 49.7",
    ("c3d", True): "– – – – – –",
    ("c3d", False): "51.6 76.0 79.9 24.3 47.0 49.4",
    ("two-stream", True): "91.2 93.9 94.2 58.3 66.6 66.6",
    ("two-stream", False): "83.6 93.3 93.8 47.1 65.9 64.3",
    ("fused", True): "89.3 94.3 94.2 56.8 69.9 71.0",
    ("fused", False): "69.5 89.8 91.5 37.3 64.6 66.5",
    ("i3d", True): "93.4 97.7 98.0 66.4 79.7 81.2",
    ("i3d", False): "88.8 97.4 97.6 62.2 78.6 81.3",
}
# I3D fine-tuned from Kinetics (full), with ImageNet or without: the means over three splits of UCF-101 and HMDB-51.
_TABLE_5 = {
    "RGB-I3D, ImageNet+Kinetics": ("rgb", True, "95.6 74.8"),
    "Flow-I3D, ImageNet+Kinetics": ("flow", True, "96.7 77.1"),
    "Two-Stream I3D, ImageNet+Kinetics": (BOTH, True, "98.0 80.7"),
    "RGB-I3D, Kinetics": ("rgb", False, "95.1 74.3"),
    "Flow-I3D, Kinetics": ("flow", False, "96.5 77.3"),
    "Two-Stream I3D, Kinetics": (BOTH, False, "97.8 80.9"),
}


class Cell(NamedTuple):
    """What a number of the paper was measured on."""

    architecture: str
    dataset: str  # trained and tested on
    mode: str  # a key of MODE_TITLES
    imagenet: bool  # whether the parameters began with ImageNet
    column: str  # of COLUMNS
    splits: tuple[int, ...] = (1,)  # over which it is the mean
    figure: str = "top1"  # or "top5", as metrics.json has it

    @property
    def paper(self) -> float | None:
        """The paper's figure, in [0, 1]."""
        return _FIGURES.get(self)


class TableRow(NamedTuple):
    """A line of a table, with the paper's figures as they are printed."""

    title: str
    cells: tuple[Cell, ...]
    printed: str


class Table(NamedTuple):
    """A table of the paper; ``groups`` have the titles of the columns, which every row has a cell for."""

    title: str
    groups: Mapping[str, tuple[str, ...]]
    rows: list[TableRow]

    def cells(self) -> tuple[Cell, ...]:
        """Return all that the paper has a figure for, row by row."""
        return tuple(cell for row in self.rows for cell in row.cells if cell.paper is not None)


def _row(title: str, printed: str, architecture: str, *axes: Iterable[Any], **more: Any) -> TableRow:
    """Return a row with a cell for each combination of dataset, mode, start and column, in this order of ``axes``."""
    return TableRow(title, tuple(Cell(architecture, *place, **more) for place in product(*axes)), printed)


_NAMES = {name: f"({row.letter}) {row.title}" for name, row in MODELS.items()}
_RGB = ("lstm", "c3d")  # which have no flow
_KINETICS = (["kinetics"], ["original"], [False, True], COLUMNS)
_TRANSFER_TITLES = tuple(DATASET_TITLES[name] for name in TRANSFER_DATASETS)

TABLES = {
    2: Table(
        "Trained and tested on the same data, split 1, top-1 in %",
        dict.fromkeys(DATASET_TITLES.values(), COLUMN_TITLES),
        [
            _row(_NAMES[name], printed, name, DATASET_TITLES, ["original"], [name != "c3d"], COLUMNS)
            for name, printed in _TABLE_2.items()
        ],
    ),
    3: Table(
        "Kinetics without and with ImageNet before it, top-1 in %",
        dict.fromkeys(("Kinetics", "ImageNet+Kinetics"), COLUMN_TITLES),
        [_row(_NAMES[name], printed, name, *_KINETICS) for name, printed in _TABLE_3.items()]
        + [_row("    the same, top-5", _TABLE_3_TOP5, "i3d", *_KINETICS, figure="top5")],
    ),
    4: Table(
        "With and without ImageNet and Kinetics before, split 1, top-1 in %",
        dict.fromkeys(_TRANSFER_TITLES, tuple(MODE_TITLES.values())),
        [
            _row(title, printed, name, TRANSFER_DATASETS, MODE_TITLES, [imagenet], ["rgb" if name in _RGB else BOTH])
            for (name, imagenet), printed in _TABLE_4.items()
            for title in [_NAMES[name] if imagenet else "    w/o ImageNet"]
        ],
    ),
    5: Table(
        "I3D fine-tuned from Kinetics, mean of the three splits, top-1 in %",
        {"": _TRANSFER_TITLES},
        [
            _row(title, printed, "i3d", TRANSFER_DATASETS, ["full"], [imagenet], [column], splits=ALL_SPLITS)
            for title, (column, imagenet, printed) in _TABLE_5.items()
        ],
    ),
}
"""The tables by their numbers in the paper."""

_FIGURES = {
    cell: round(float(text) / 100, 3)
    for table in TABLES.values()
    for row in table.rows
    for cell, text in zip(row.cells, row.printed.split(), strict=True)
    if text != NO_FIGURE
}

FIGURE_3 = {  # receptive fields, by what is just above them: frames, pixels, pixels
    "MaxPool3d_2a_3x3": (7, 11, 11),
    "MaxPool3d_3a_3x3": (11, 27, 27),
    "MaxPool3d_4a_3x3": (23, 75, 75),
    "MaxPool3d_5a_2x2": (59, 219, 219),
    "Pooled": (99, 539, 539),
}
