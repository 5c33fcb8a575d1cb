"""The paper's tables 2 to 5 as cells: what stands where, which figure the paper has there, what run would give ours."""

from dataclasses import dataclass
from typing import NamedTuple

from vadis.errors import UsageError
from vadis.evaluation.paper import MODES, RGB_ONLY, paper_kinetics, paper_mean_top1, paper_top1
from vadis.models import BOTH, MODELS

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
