"""The paper's tables 2 to 5: their figures as printed there, in percent, and what each of them was measured on.

Source: Carreira & Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR 2017. Figures
are top-1 unless a row says top-5. Three modes lead to a model: ``original`` trains on the dataset alone, ``fixed``
gives the Kinetics network a new last layer, ``full`` trains that network end to end.
"""

from typing import NamedTuple

from vadis.models import BOTH, MODELS

COLUMNS = ("rgb", "flow", BOTH)
COLUMN_TITLES = {"rgb": "RGB", "flow": "flow", BOTH: "both"}
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
# By architecture: original, fixed and full on UCF-101, then on HMDB-51, split 1. The first row with ImageNet before
# everything else, the second without; RGB of the architectures that have no flow, else both streams.
_TABLE_4 = {
    "lstm": ("81.0 88.1 91.0 36.0 50.8 53.4", "54.2 82.6 86.8 18.3 47.1 49.7"),
    "c3d": ("– – – – – –", "51.6 76.0 79.9 24.3 47.0 49.4"),
    "two-stream": ("91.2 93.9 94.2 58.3 66.6 66.6", "83.6 93.3 93.8 47.1 65.9 64.3"),
    "fused": ("89.3 94.3 94.2 56.8 69.9 71.0", "69.5 89.8 91.5 37.3 64.6 66.5"),
    "i3d": ("93.4 97.7 98.0 66.4 79.7 81.2", "88.8 97.4 97.6 62.2 78.6 81.3"),
}
# I3D fine-tuned from Kinetics (full): the means over three splits of UCF-101 and HMDB-51; with ImageNet, and without.
_TABLE_5 = {
    "rgb": ("95.6 74.8", "95.1 74.3"),
    "flow": ("96.7 77.1", "96.5 77.3"),
    BOTH: ("98.0 80.7", "97.8 80.9"),
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
    """A table of the paper; every row has a cell for each of ``columns``, which belong to ``groups`` (title, width)."""

    number: int
    title: str
    groups: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]

    def cells(self) -> tuple[Cell, ...]:
        """All that the paper has a figure for, row by row."""
        return tuple(cell for row in self.rows for cell in row.cells if cell.paper is not None)


def _name(architecture: str) -> str:
    return f"({MODELS[architecture].letter}) {MODELS[architecture].title}"


def _table_2() -> Table:
    places = [(data, column) for data in DATASET_TITLES for column in COLUMNS]
    return Table(
        2,
        "Trained and tested on the same data, split 1, top-1 in %",
        groups=tuple((title, len(COLUMNS)) for title in DATASET_TITLES.values()),
        columns=tuple(COLUMN_TITLES[column] for _, column in places),
        rows=tuple(
            TableRow(
                _name(name), tuple(Cell(name, data, "original", name != "c3d", at) for data, at in places), printed
            )
            for name, printed in _TABLE_2.items()
        ),
    )


def _table_3() -> Table:
    def cells(name: str, figure: str) -> tuple[Cell, ...]:
        places = ((start, column) for start in (False, True) for column in COLUMNS)
        return tuple(Cell(name, "kinetics", "original", start, column, figure=figure) for start, column in places)

    rows = [TableRow(_name(name), cells(name, "top1"), printed) for name, printed in _TABLE_3.items()]
    return Table(
        3,
        "Kinetics without and with ImageNet before it, top-1 in %",
        groups=(("Kinetics", len(COLUMNS)), ("ImageNet+Kinetics", len(COLUMNS))),
        columns=tuple(COLUMN_TITLES.values()) * 2,
        rows=(*rows, TableRow("    the same, top-5", cells("i3d", "top5"), _TABLE_3_TOP5)),
    )


def _table_4() -> Table:
    places = [(data, mode) for data in TRANSFER_DATASETS for mode in MODE_TITLES]
    rows = []
    for name, both_starts in _TABLE_4.items():
        column = BOTH if "flow" in MODELS[name].streams else "rgb"
        for start, title, printed in zip((True, False), (_name(name), "    w/o ImageNet"), both_starts, strict=True):
            rows.append(TableRow(title, tuple(Cell(name, data, mode, start, column) for data, mode in places), printed))
    return Table(
        4,
        "With and without ImageNet and Kinetics before, split 1, top-1 in %",
        groups=tuple((DATASET_TITLES[data], len(MODE_TITLES)) for data in TRANSFER_DATASETS),
        columns=tuple(MODE_TITLES[mode] for _, mode in places),
        rows=tuple(rows),
    )


def _table_5() -> Table:
    titles = {"rgb": "RGB-I3D", "flow": "Flow-I3D", BOTH: "Two-Stream I3D"}
    return Table(
        5,
        "I3D fine-tuned from Kinetics, mean of the three splits, top-1 in %",
        groups=(("", len(TRANSFER_DATASETS)),),
        columns=tuple(DATASET_TITLES[data] for data in TRANSFER_DATASETS),
        rows=tuple(
            TableRow(
                f"{titles[column]}, {'ImageNet+' if start else ''}Kinetics",
                tuple(Cell("i3d", data, "full", start, column, ALL_SPLITS) for data in TRANSFER_DATASETS),
                _TABLE_5[column][0 if start else 1],
            )
            for start in (True, False)
            for column in COLUMNS
        ),
    )


TABLES = {table.number: table for table in (_table_2(), _table_3(), _table_4(), _table_5())}
"""The tables by their numbers in the paper."""

_FIGURES = {
    cell: round(float(text) / 100, 3)
    for table in TABLES.values()
    for row in table.rows
    for cell, text in zip(row.cells, row.printed.split(), strict=True)
    if text != NO_FIGURE
}
