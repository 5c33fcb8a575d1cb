"""The tables as cells: laid out as in the paper, each with the figure that is printed there."""

import json
from pathlib import Path

import pytest

from tests.matching import containing
from vadis.errors import UsageError
from vadis.evaluation.paper_tables import ALL_SPLITS, TABLES, Cell, paper_table

FIGURES = {2: 31, 3: 23, 4: 54, 5: 12}  # in the paper, counted by hand


@pytest.mark.parametrize("number", TABLES)
def test_every_row_has_a_cell_for_each_column(number: int) -> None:
    table = paper_table(number)
    assert sum(width for _, width in table.groups) == len(table.columns)
    assert {len(row.cells) for row in table.rows} == {len(table.columns)}
    assert len(table.cells()) == FIGURES[number] == len(set(table.cells()))


def printed(number: int) -> list[list[float | None]]:
    """The figures of a table as it is shown, in percent."""
    return [
        [None if cell.paper is None else round(100 * cell.paper, 1) for cell in row.cells]
        for row in paper_table(number).rows
    ]


def test_they_stand_where_the_paper_has_them(shared: Path) -> None:
    tables = json.loads((shared / "facts" / "paper_tables.json").read_text())
    names = ("ConvNet+LSTM", "3D-ConvNet", "Two-Stream", "3D-Fused", "Two-Stream I3D")
    assert printed(2) == [tables["table2"][name] for name in names]
    assert printed(3) == [tables["table3"][name] for name in (*names, "Two-Stream I3D top-5")]
    pairs = [tables["table4"][name] for name in names]
    assert printed(4) == [[pair[start] for pair in row] for row in pairs for start in (0, 1)]
    rows = [f"{which}, {before}Kinetics" for before in ("ImageNet+", "") for which in ("RGB-I3D", "Flow-I3D")]
    assert [row.title for row in paper_table(5).rows if not row.title.startswith("Two")] == rows
    assert printed(5) == [tables["table5"][row.title] for row in paper_table(5).rows]


def test_a_mean_and_a_split_are_different_cells() -> None:
    split = Cell("i3d", "hmdb51", "full", True, "both")
    assert (split.paper, split._replace(splits=ALL_SPLITS).paper) == (0.812, 0.807)


def test_there_is_no_other_table() -> None:
    with pytest.raises(UsageError, match=containing(1)):
        paper_table(1)
