"""The tables as cells: laid out as in the paper, each with the figure that is printed there."""

import json
from pathlib import Path

import pytest

from vadis.evaluation.paper_tables import ALL_SPLITS, TABLES, Cell
from vadis.models import MODELS

FIGURES = {2: 31, 3: 23, 4: 54, 5: 12}  # in the paper, counted by hand


@pytest.mark.parametrize("number", TABLES)
def test_every_row_has_a_cell_for_each_column(number: int) -> None:
    table = TABLES[number]
    assert {len(row.cells) for row in table.rows} == {sum(map(len, table.groups.values()))}
    assert len(table.cells()) == FIGURES[number] == len(set(table.cells()))


def printed(number: int) -> list[list[float | None]]:
    """The figures of a table as it is shown, in percent."""
    return [
        [None if cell.paper is None else round(100 * cell.paper, 1) for cell in row.cells]
        for row in TABLES[number].rows
    ]


def test_they_stand_where_the_paper_has_them(shared: Path) -> None:
    tables = json.loads((shared / "facts" / "paper_tables.json").read_text())
    names = ("ConvNet+LSTM", "3D-ConvNet", "Two-Stream", "3D-Fused", "Two-Stream I3D")
    assert printed(2) == [tables["table2"][name] for name in names]
    assert printed(3) == [tables["table3"][name] for name in (*names, "Two-Stream I3D top-5")]
    pairs = [tables["table4"][name] for name in names]
    assert printed(4) == [[pair[start] for pair in row] for row in pairs for start in (0, 1)]
    rows = [f"{which}, {before}Kinetics" for before in ("ImageNet+", "") for which in ("RGB-I3D", "Flow-I3D")]
    assert [row.title for row in TABLES[5].rows if not row.title.startswith("Two")] == rows
    assert printed(5) == [tables["table5"][row.title] for row in TABLES[5].rows]


def test_a_mean_and_a_split_are_different_cells() -> None:
    split = Cell("i3d", "hmdb51", "full", True, "both")
    assert (split.paper, split._replace(splits=ALL_SPLITS).paper) == (0.812, 0.807)


@pytest.mark.parametrize(
    ("asked", "top1"),
    [
        (("i3d", "ucf101", 1, "full", True, "both"), 0.980),
        (("i3d", "ucf101", 1, "full", False, "both"), 0.976),
        (("i3d", "hmdb51", 1, "fixed", True, "both"), 0.797),
        (("i3d", "hmdb51", 1, "original", False, "both"), 0.622),
        (("i3d", "ucf101", 1, "original", True, "rgb"), 0.845),  # table 2
        (("i3d", "ucf101", 1, "original", True, "flow"), 0.906),
        (("i3d", "ucf101", 1, "original", True, "both"), 0.934),
        (("i3d", "ucf101", 1, "original", False, "rgb"), None),  # only the sum is there
        (("i3d", "ucf101", 1, "full", True, "rgb"), None),
        (("lstm", "ucf101", 1, "full", False, "rgb"), 0.868),
        (("lstm", "ucf101", 1, "full", False, "both"), None),
        (("c3d", "hmdb51", 1, "original", False, "rgb"), 0.243),
        (("c3d", "hmdb51", 1, "original", True, "rgb"), None),
        (("i3d", "ucf101", 2, "full", True, "both"), None),
        (("i3d", "kinetics", 1, "original", True, "both"), 0.742),  # table 3
        (("two-stream", "kinetics", 1, "original", False, "flow"), 0.496),
        (("i3d", "kinetics", 1, "full", True, "both"), None),
        (("c3d", "kinetics", 1, "original", True, "rgb"), None),
        (("i3d", "folder", 1, "original", True, "both"), None),
        (("i3d", "ucf101", 1, "other", True, "both"), None),
        (("i3d", "ucf101", 1, "full", True, "sum"), None),
    ],
)
def test_a_figure_or_none(asked: tuple[str, str, int, str, bool, str], top1: float | None) -> None:
    architecture, dataset, split, mode, imagenet, column = asked
    assert Cell(architecture, dataset, mode, imagenet, column, (split,)).paper == top1


def test_a_figure_that_stands_in_two_tables_is_the_same_in_both() -> None:
    printed = {}
    for table in TABLES.values():
        for row in table.rows:
            for cell, text in zip(row.cells, row.printed.split(), strict=True):
                assert printed.setdefault(cell, text) == text
    assert len(printed) < sum(len(row.cells) for table in TABLES.values() for row in table.rows)


def test_every_architecture_is_in_the_tables() -> None:
    for number in (2, 3, 4):
        assert {cell.architecture for row in TABLES[number].rows for cell in row.cells} == set(MODELS)


def test_the_mean_of_three_splits() -> None:
    assert Cell("i3d", "ucf101", "full", True, "rgb", ALL_SPLITS).paper == 0.956
    assert Cell("i3d", "folder", "full", True, "both", ALL_SPLITS).paper is None


def test_top_5_is_known_of_i3d_alone() -> None:
    assert Cell("i3d", "kinetics", "original", True, "both", figure="top5").paper == 0.913
    assert Cell("lstm", "kinetics", "original", True, "rgb", figure="top5").paper is None
