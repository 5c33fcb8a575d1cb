"""The paper's figures, against the transcription beside the checkout where there is one."""

import json
from pathlib import Path

import pytest

from vadis.evaluation.paper_tables import (
    MODES,
    TABLE_2,
    TABLE_3,
    TABLE_3_TOP5,
    TABLE_4,
    TABLE_5,
    Columns,
    paper_kinetics,
    paper_mean_top1,
    paper_top1,
)
from vadis.models import MODELS

NAMES = {
    "lstm": "ConvNet+LSTM",
    "c3d": "3D-ConvNet",
    "two-stream": "Two-Stream",
    "fused": "3D-Fused",
    "i3d": "Two-Stream I3D",
}  # in the transcription
DATASETS = ("ucf101", "hmdb51")


def test_every_figure_is_the_papers(shared: Path) -> None:
    tables = json.loads((shared / "facts" / "paper_tables.json").read_text())
    for (architecture, dataset), columns in TABLE_2.items():
        place = tables["table2"]["columns"].index(f"{dataset}_rgb")
        assert list(columns) == tables["table2"][NAMES[architecture]][place : place + 3]
    for architecture, starts in TABLE_3.items():
        assert [*starts[1], *starts[0]] == tables["table3"][NAMES[architecture]]
    assert [*TABLE_3_TOP5["i3d"][1], *TABLE_3_TOP5["i3d"][0]] == tables["table3"]["Two-Stream I3D top-5"]
    for (architecture, dataset), starts in TABLE_4.items():
        place = tables["table4"]["columns"].index(f"{dataset}_original")
        assert [list(start) for start in starts] == tables["table4"][NAMES[architecture]][place : place + 3]
    for place, dataset in enumerate(tables["table5"]["columns"]):
        for column, start in zip(("RGB-I3D", "Flow-I3D", "Two-Stream I3D"), TABLE_5[dataset], strict=True):
            found = [tables["table5"][f"{column}, {before}Kinetics"][place] for before in ("ImageNet+", "")]
            assert list(start) == found
    assert set(NAMES) == set(MODELS) == set(TABLE_3)
    assert set(TABLE_4) == {(name, dataset) for name in NAMES for dataset in DATASETS}
    assert set(TABLE_2) == {*TABLE_4, *((name, "kinetics") for name in NAMES)}


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
    assert paper_top1(*asked) == top1


def test_table_2_agrees_with_tables_3_and_4_on_what_both_have() -> None:
    for (architecture, dataset), columns in TABLE_2.items():
        if dataset == "kinetics":
            assert columns == next(each for each in TABLE_3[architecture] if each != Columns(None, None, None))
            continue
        original = TABLE_4[architecture, dataset][MODES.index("original")]
        assert (columns.both or columns.rgb) == (original.imagenet or original.scratch)


def test_the_mean_of_three_splits() -> None:
    assert paper_mean_top1("ucf101", True, "rgb") == 0.956
    assert paper_mean_top1("hmdb51", False) == 0.809
    assert paper_mean_top1("folder", True) is None
    assert paper_mean_top1("ucf101", True, "sum") is None


def test_top_5_is_known_of_i3d_alone() -> None:
    assert paper_kinetics("i3d", True, top5=True) == 0.913
    assert paper_kinetics("lstm", True, "rgb", top5=True) is None
