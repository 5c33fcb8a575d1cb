"""Finished runs below a folder: which cell each belongs to, and what does not count."""

import json
from pathlib import Path

import pytest

from tests.matching import containing
from tests.trained_run import begun, write_model, write_tested, write_trained
from vadis.errors import UsageError
from vadis.evaluation.paper_plan import find_runs
from vadis.evaluation.paper_tables import ALL_SPLITS, Cell

BOTH = {"rgb": 700, "flow": 800, "both": 900}
FULL = Cell("i3d", "ucf101", "full", True, "both")


def test_a_run_is_found_at_any_depth_by_what_it_did(tmp_path: Path) -> None:
    write_trained(tmp_path / "a" / "deep" / "run", "i3d", "ucf101", BOTH, start=begun("i3d-kinetics400"))
    found = find_runs(tmp_path)
    assert found.notes == []
    assert found.figure(FULL) == 0.9
    assert found.figure(FULL._replace(column="flow")) == 0.8
    for other in ({"imagenet": False}, {"mode": "fixed"}, {"dataset": "hmdb51"}, {"architecture": "fused"}):
        assert found.figure(FULL._replace(**other)) is None


@pytest.mark.parametrize(
    ("mode", "start", "imagenet", "cell"),
    [
        ("full", "i3d-kinetics400-scratch", False, FULL._replace(imagenet=False)),
        ("fixed", "i3d-kinetics400", False, FULL._replace(mode="fixed")),
        ("full", None, True, FULL._replace(mode="original")),
        ("full", None, False, FULL._replace(mode="original", imagenet=False)),
    ],
)
def test_the_cell_follows_from_the_beginning_and_the_mode(tmp_path, mode, start, imagenet, cell) -> None:
    model = begun(start) if start else None
    write_trained(tmp_path / "run", "i3d", "ucf101", BOTH, mode=mode, start=model, imagenet=imagenet)
    assert find_runs(tmp_path).figure(cell) == 0.9


def test_a_model_trained_here_is_known_by_its_file(tmp_path: Path) -> None:
    before = write_trained(tmp_path / "k", "lstm", "kinetics", {"rgb": 500}, imagenet=True)
    sha256 = write_model(before / "model.safetensors")
    own = begun("lstm-kinetics-split1", "lstm", sha256)
    write_trained(tmp_path / "b", "lstm", "hmdb51", {"rgb": 520}, start=own)
    write_trained(tmp_path / "c", "lstm", "ucf101", {"rgb": 520}, start=begun("lstm-kinetics-split1", "lstm", "1" * 64))
    found = find_runs(tmp_path)
    assert found.figure(Cell("lstm", "hmdb51", "full", True, "rgb")) == 0.52
    assert found.figure(Cell("lstm", "kinetics", "original", True, "rgb")) == 0.5
    (note,) = found.notes
    assert "c does not count: it began from lstm-kinetics-split1, which is no model of a finished run" in note


def test_published_weights_are_known_by_their_tensors_not_by_a_name(tmp_path: Path) -> None:
    """Both ways: another file of that name is nothing, and a file of any name is what its tensors are."""
    write_trained(tmp_path / "a", "i3d", "ucf101", BOTH, start=begun("i3d-kinetics400"), published=None)
    (note,) = find_runs(tmp_path).notes
    assert "a does not count" in note
    write_trained(tmp_path / "b", "i3d", "ucf101", BOTH, start=begun("mine"), published="i3d-kinetics400-scratch")
    assert find_runs(tmp_path).figure(FULL._replace(imagenet=False)) == 0.9
    cell = Cell("i3d", "kinetics", "original", True, "both")
    write_tested(tmp_path / "c", "i3d-kinetics400", "i3d", "kinetics", BOTH, published=None)
    assert find_runs(tmp_path).figure(cell) is None
    write_tested(tmp_path / "d", "mine", "i3d", "kinetics", BOTH, published="i3d-kinetics400")
    assert find_runs(tmp_path).figure(cell) == 0.9


def test_of_two_runs_the_newest_counts_not_the_better(tmp_path: Path) -> None:
    model = begun("i3d-kinetics400")
    write_trained(tmp_path / "old", "i3d", "ucf101", {"both": 990}, start=model, age_seconds=60)
    write_trained(tmp_path / "new", "i3d", "ucf101", {"both": 900}, start=model)
    found = find_runs(tmp_path)
    assert found.figure(FULL) == 0.9
    assert [run.folder.name for run in found.runs_of(FULL, 1)] == ["new", "old"]


def test_a_mean_needs_all_of_its_splits(tmp_path: Path) -> None:
    cell = FULL._replace(splits=ALL_SPLITS)
    for split, right in ((1, 900), (3, 960)):
        write_trained(
            tmp_path / str(split), "i3d", "ucf101", {"both": right}, split=split, start=begun("i3d-kinetics400")
        )
    found = find_runs(tmp_path)
    assert found.figure(cell) is None
    assert found.splits_missing(cell) == (2,)
    write_trained(tmp_path / "2", "i3d", "ucf101", {"both": 930}, split=2, start=begun("i3d-kinetics400"))
    assert find_runs(tmp_path).figure(cell) == pytest.approx(0.93)


def test_a_published_model_that_was_tested_counts_without_a_run(tmp_path: Path) -> None:
    write_tested(tmp_path / "k", "i3d-kinetics400", "i3d", "kinetics", BOTH, part="val")
    found = find_runs(tmp_path)
    cell = Cell("i3d", "kinetics", "original", True, "rgb")
    assert found.figure(cell) == 0.7
    assert found.figure(cell._replace(figure="top5")) == 0.7
    assert found.runs[0].remarks == ("tested on val",)


def test_a_test_unlike_the_papers_is_told(tmp_path: Path) -> None:
    write_tested(tmp_path / "k", "i3d-kinetics400", "i3d", "kinetics", BOTH)
    path = tmp_path / "k" / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "unlike_the_paper": ["on 256×256", "on all frames"]}))
    assert find_runs(tmp_path).runs[0].remarks == ("tested on 256×256", "tested on all frames")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"width": 0.5}, "0.5 times as wide"),
        ({"part": "train"}, "tested on what it learnt from"),
        ({"start": begun("mine")}, "began from mine"),
    ],
)
def test_what_does_not_count_is_said(tmp_path: Path, options, said: str) -> None:
    write_trained(tmp_path / "run", "i3d", "ucf101", BOTH, **options)
    found = find_runs(tmp_path)
    assert found.runs == []
    assert said in found.notes[0]


def test_a_test_without_its_run_is_said(tmp_path: Path) -> None:
    write_tested(tmp_path / "run", "mine", "i3d", "ucf101", BOTH)
    assert "is a test of mine without its run" in find_runs(tmp_path).notes[0]


def test_ones_own_videos_are_no_business_of_the_papers(tmp_path: Path) -> None:
    write_trained(tmp_path / "run", "i3d", "folder", BOTH, start=begun("i3d-kinetics400"))
    found = find_runs(tmp_path)
    assert (found.runs, found.notes) == ([], [])


def test_other_numbers_than_the_recipes_are_told(tmp_path: Path) -> None:
    write_trained(tmp_path / "run", "lstm", "ucf101", {"rgb": 1}, changes={"steps": 100})
    (run,) = find_runs(tmp_path).runs
    assert run.remarks == ("lstm-ucf101-scratch with steps 100 for 5000, schedule steps for plateau",)


def test_an_unfinished_run_and_a_missing_folder_are_nothing(tmp_path: Path) -> None:
    write_trained(tmp_path / "run", "lstm", "ucf101", {"rgb": 1}, is_tested=False)
    assert find_runs(tmp_path).runs == []
    assert find_runs(tmp_path / "nowhere").runs == []
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=containing(tmp_path / "file")):
        find_runs(tmp_path / "file")


@pytest.mark.parametrize("name", ["run.json", "metrics.json"])
@pytest.mark.parametrize("content", ['{"dataset": "ucf101", "rgb": {}}', '{"mode": 3', "[1]", "[" * 700 + "]" * 700])
def test_a_damaged_run_is_said_and_the_others_count(tmp_path: Path, name: str, content: str) -> None:
    for folder in ("bad", "good"):
        write_trained(tmp_path / folder, "i3d", "ucf101", BOTH, start=begun("i3d-kinetics400"))
    (tmp_path / "bad" / name).write_text(content)
    found = find_runs(tmp_path)
    assert [run.folder.name for run in found.runs] == ["good"]
    assert "bad does not count" in found.notes[0]


def test_the_mean_of_several_evaluations_is_not_counted_once_more(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps({"dataset": "ucf101", "splits": {}, "mean": {}, "part": "test"}))
    found = find_runs(tmp_path)
    assert (found.runs, found.notes) == ([], [])
