"""The paper's tables 2 to 5 as cells: what stands where, which figure the paper has there, what run would give ours.

The paper's figures as they are printed there: accuracy in percent, top-1 unless a name says top-5.

Source: Carreira & Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR 2017, tables
2 to 5. Three ways to a model: ``original`` trains on the dataset alone, ``fixed`` gives the Kinetics network a new last
layer, ``full`` trains that end to end.
"""

from dataclasses import dataclass
from typing import NamedTuple

from vadis.errors import UsageError
from vadis.models import BOTH, MODELS


class Start(NamedTuple):
    """Top-1 with ImageNet before everything else, and without it; None where the paper has no figure."""

    imagenet: float | None
    scratch: float | None


class Columns(NamedTuple):
    """Accuracy by the streams that were asked."""

    rgb: float | None
    flow: float | None
    both: float | None


MODES = ("original", "fixed", "full")

TABLE_2 = {
    ("lstm", "ucf101"): Columns(81.0, None, None),
    ("lstm", "hmdb51"): Columns(36.0, None, None),
    ("lstm", "kinetics"): Columns(63.3, None, None),
    ("c3d", "ucf101"): Columns(51.6, None, None),
    ("c3d", "hmdb51"): Columns(24.3, None, None),
    ("c3d", "kinetics"): Columns(56.1, None, None),
    ("two-stream", "ucf101"): Columns(83.6, 85.6, 91.2),
    ("two-stream", "hmdb51"): Columns(43.2, 56.3, 58.3),
    ("two-stream", "kinetics"): Columns(62.2, 52.4, 65.6),
    ("fused", "ucf101"): Columns(83.2, 85.8, 89.3),
    ("fused", "hmdb51"): Columns(49.2, 55.5, 56.8),
    ("fused", "kinetics"): Columns(None, None, 67.2),
    ("i3d", "ucf101"): Columns(84.5, 90.6, 93.4),
    ("i3d", "hmdb51"): Columns(49.8, 61.9, 66.4),
    ("i3d", "kinetics"): Columns(71.1, 63.4, 74.2),
}
"""Split 1, trained on the dataset alone; with ImageNet, but for the 3D-ConvNet, which starts from nothing."""

TABLE_3 = {
    "lstm": (Columns(63.3, None, None), Columns(53.9, None, None)),
    "c3d": (Columns(None, None, None), Columns(56.1, None, None)),
    "two-stream": (Columns(62.2, 52.4, 65.6), Columns(57.9, 49.6, 62.8)),
    "fused": (Columns(None, None, 67.2), Columns(None, None, 62.7)),
    "i3d": (Columns(71.1, 63.4, 74.2), Columns(68.4, 61.5, 71.6)),
}
"""Kinetics; with ImageNet and without it, in the order of ``Start``."""

TABLE_3_TOP5 = {"i3d": (Columns(89.3, 84.9, 91.3), Columns(88.0, 83.4, 90.0))}
"""The same, top-5: what the paper has in brackets."""

TABLE_4 = {
    ("lstm", "ucf101"): (Start(81.0, 54.2), Start(88.1, 82.6), Start(91.0, 86.8)),
    ("lstm", "hmdb51"): (Start(36.0, 18.3), Start(50.8, 47.1), Start(53.4, 49.7)),
    ("c3d", "ucf101"): (Start(None, 51.6), Start(None, 76.0), Start(None, 79.9)),
    ("c3d", "hmdb51"): (Start(None, 24.3), Start(None, 47.0), Start(None, 49.4)),
    ("two-stream", "ucf101"): (Start(91.2, 83.6), Start(93.9, 93.3), Start(94.2, 93.8)),
    ("two-stream", "hmdb51"): (Start(58.3, 47.1), Start(66.6, 65.9), Start(66.6, 64.3)),
    ("fused", "ucf101"): (Start(89.3, 69.5), Start(94.3, 89.8), Start(94.2, 91.5)),
    ("fused", "hmdb51"): (Start(56.8, 37.3), Start(69.9, 64.6), Start(71.0, 66.5)),
    ("i3d", "ucf101"): (Start(93.4, 88.8), Start(97.7, 97.4), Start(98.0, 97.6)),
    ("i3d", "hmdb51"): (Start(66.4, 62.2), Start(79.7, 78.6), Start(81.2, 81.3)),
}
"""Split 1; in the order of ``MODES``. Of RGB for the two architectures that have no flow, else of both streams."""

TABLE_5 = {
    "ucf101": (Start(95.6, 95.1), Start(96.7, 96.5), Start(98.0, 97.8)),
    "hmdb51": (Start(74.8, 74.3), Start(77.1, 77.3), Start(80.7, 80.9)),
}
"""I3D, ``full``, the mean of the three splits; of RGB, flow and both."""

RGB_ONLY = ("lstm", "c3d")


def paper_top1(
    architecture: str, dataset: str, split: int, mode: str, imagenet: bool, column: str = "both"
) -> float | None:
    """The paper's top-1 in [0, 1], or None where it has none.

    Args:
        architecture: a key of ``vadis.models.MODELS``.
        dataset: a key of ``vadis.datasets.DATASETS``.
        split: the paper gives split 1.
        mode: of ``MODES``.
        imagenet: whether the parameters began with ImageNet.
        column: "rgb", "flow" or "both".
    """
    if split != 1 or mode not in MODES or column not in Columns._fields:
        return None
    if dataset == "kinetics":
        return paper_kinetics(architecture, imagenet, column) if mode == "original" else None
    key = architecture, dataset
    if key not in TABLE_4:
        return None
    figures = TABLE_4[key][MODES.index(mode)]
    if column == ("rgb" if architecture in RGB_ONLY else "both"):
        return _share(figures.imagenet if imagenet else figures.scratch)
    if mode == "original" and imagenet:
        return _share(getattr(TABLE_2[key], column))
    return None


def paper_kinetics(architecture: str, imagenet: bool, column: str = "both", *, top5: bool = False) -> float | None:
    """The paper's accuracy on Kinetics in [0, 1], or None where it has none; arguments as above."""
    pair = (TABLE_3_TOP5 if top5 else TABLE_3).get(architecture)
    return None if pair is None else _share(getattr(pair[0 if imagenet else 1], column, None))


def paper_mean_top1(dataset: str, imagenet: bool, column: str = "both") -> float | None:
    """The paper's top-1 of I3D over the three splits, in [0, 1]: ``full`` after Kinetics. Arguments as above."""
    if dataset not in TABLE_5 or column not in Columns._fields:
        return None
    figures = TABLE_5[dataset][Columns._fields.index(column)]
    return _share(figures.imagenet if imagenet else figures.scratch)


def _share(percent: float | None) -> float | None:
    return None if percent is None else round(percent / 100, 3)


TABLES = (2, 3, 4, 5)
COLUMNS = ("rgb", "flow", BOTH)
ALL_SPLITS = (1, 2, 3)
DATASET_TITLES = {"ucf101": "UCF-101", "hmdb51": "HMDB-51", "kinetics": "Kinetics"}
COLUMN_TITLES = {"rgb": "RGB", "flow": "flow", BOTH: "both"}
MODE_TITLES = dict(zip(MODES, ("original", "fixed", "full-FT"), strict=True))


class Cell(NamedTuple):
    """A number of the paper, by what it was measured on.

    Attributes:
        architecture: a key of ``MODELS``.
        dataset: trained and tested on.
        mode: of ``paper.MODES``.
        imagenet: whether the parameters began with ImageNet.
        column: "rgb", "flow" or "both".
        splits: over which it is the mean.
        figure: "top1" or "top5", as metrics.json has it.
    """

    architecture: str
    dataset: str
    mode: str
    imagenet: bool
    column: str
    splits: tuple[int, ...] = (1,)
    figure: str = "top1"

    @property
    def paper(self) -> float | None:
        """The paper's figure, in [0, 1]."""
        if self.splits == ALL_SPLITS:
            return paper_mean_top1(self.dataset, self.imagenet, self.column)
        if self.dataset == "kinetics":
            return paper_kinetics(self.architecture, self.imagenet, self.column, top5=self.figure == "top5")
        return paper_top1(self.architecture, self.dataset, 1, self.mode, self.imagenet, self.column)


class Row(NamedTuple):
    """A line of a table."""

    title: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table of the paper; every row has a cell for each of ``columns``, which belong to ``groups``.

    Attributes:
        number: in the paper.
        title: what its figures are.
        groups: pairs (title, number of columns).
        columns: their titles.
        rows: from the top.
    """

    number: int
    title: str
    groups: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def cells(self) -> tuple[Cell, ...]:
        """All that the paper has a figure for, row by row."""
        return tuple(cell for row in self.rows for cell in row.cells if cell.paper is not None)


def paper_table(number: int) -> Table:
    """Table 2, 3, 4 or 5; raises UsageError for another."""
    tables = {2: _table_2, 3: _table_3, 4: _table_4, 5: _table_5}
    if number not in tables:
        raise UsageError(f"there is no table {number} to reproduce", hint="the paper's results are its tables 2 to 5")
    return tables[number]()


def _titled(architecture: str) -> str:
    row = MODELS[architecture]
    return f"({row.letter}) {row.title}"


def _table_2() -> Table:
    return Table(
        2,
        "Trained and tested on the same data, split 1, top-1 in %",
        groups=tuple((title, len(COLUMNS)) for title in DATASET_TITLES.values()),
        columns=tuple(COLUMN_TITLES.values()) * len(DATASET_TITLES),
        rows=tuple(
            Row(
                _titled(name),
                tuple(Cell(name, data, "original", name != "c3d", each) for data in DATASET_TITLES for each in COLUMNS),
            )
            for name in MODELS
        ),
    )


def _table_3() -> Table:
    def row(title: str, name: str, figure: str = "top1") -> Row:
        starts = (False, True)
        cells = (Cell(name, "kinetics", "original", start, each, figure=figure) for start in starts for each in COLUMNS)
        return Row(title, tuple(cells))

    return Table(
        3,
        "Kinetics without and with ImageNet before it, top-1 in %",
        groups=(("Kinetics", len(COLUMNS)), ("ImageNet+Kinetics", len(COLUMNS))),
        columns=tuple(COLUMN_TITLES.values()) * 2,
        rows=(*(row(_titled(name), name) for name in MODELS), row("    the same, top-5", "i3d", "top5")),
    )


def _table_4() -> Table:
    datasets = ("ucf101", "hmdb51")

    def rows(name: str) -> tuple[Row, ...]:
        column = "rgb" if name in RGB_ONLY else BOTH
        titles = {True: _titled(name), False: "    w/o ImageNet"}
        return tuple(
            Row(title, tuple(Cell(name, data, mode, start, column) for data in datasets for mode in MODES))
            for start, title in titles.items()
        )

    return Table(
        4,
        "With and without ImageNet and Kinetics before, split 1, top-1 in %",
        groups=tuple((DATASET_TITLES[data], len(MODES)) for data in datasets),
        columns=tuple(MODE_TITLES.values()) * len(datasets),
        rows=tuple(row for name in MODELS for row in rows(name)),
    )


def _table_5() -> Table:
    titles = {"rgb": "RGB-I3D", "flow": "Flow-I3D", BOTH: "Two-Stream I3D"}
    datasets = ("ucf101", "hmdb51")
    return Table(
        5,
        "I3D fine-tuned from Kinetics, mean of the three splits, top-1 in %",
        groups=(("", len(datasets)),),
        columns=tuple(DATASET_TITLES[data] for data in datasets),
        rows=tuple(
            Row(
                f"{titles[each]}, {'ImageNet+' if imagenet else ''}Kinetics",
                tuple(Cell("i3d", data, "full", imagenet, each, ALL_SPLITS) for data in datasets),
            )
            for imagenet in (True, False)
            for each in COLUMNS
        ),
    )
