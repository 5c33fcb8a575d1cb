"""Folders nested deeper than Python calls itself (1000): what lies at the bottom is found, or the refusal is plain."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.report.conftest import labelled, write_results
from tests.trained_run import write_tested
from vadis.batch import files_below
from vadis.datasets import Dataset, Example
from vadis.datasets.scan import scan_tree
from vadis.errors import UsageError
from vadis.evaluation.metrics import read_records
from vadis.evaluation.paper_plan import find_runs
from vadis.video.sources import find_videos

LEVELS = 1100


@pytest.fixture
def bottom(tmp_path: Path) -> Iterator[Path]:
    """The last of many folders in one another, which no tool in Python itself can remove."""
    folders = [tmp_path / "d"]
    while len(folders) < LEVELS:
        folders.append(folders[-1] / "d")
    for folder in folders:
        folder.mkdir()
    yield folders[-1]
    for folder in reversed(folders):
        for entry in folder.iterdir():
            entry.unlink()
        folder.rmdir()


def test_results_and_runs_are_found_however_deep(tmp_path: Path, bottom: Path) -> None:
    results = write_results(bottom / "results.jsonl", labelled("a.mp4", [("archery", 0.9)]))
    dataset = Dataset("folder", str(tmp_path), ("archery",), 1, {"test": (Example(f"{tmp_path}/a.mp4", "archery"),)})
    assert len(read_records([tmp_path], dataset, "test").predictions) == 1
    assert results in files_below(tmp_path, (".jsonl",))
    write_tested(bottom, "i3d-kinetics400", "i3d", "kinetics", {"both": 900})
    assert len(find_runs(tmp_path).runs) == 1


@pytest.mark.slow
def test_videos_are_found_however_deep(tmp_path: Path, bottom: Path) -> None:
    (bottom / "a.mp4").write_bytes(b"\0 not looked at")
    assert [source.path for source in find_videos([tmp_path])] == [str(bottom / "a.mp4")]
    assert scan_tree(tmp_path).videos == (str(bottom / "a.mp4"),)
    with suppress(UsageError):  # where Python's glob calls itself for each level
        assert [source.path for source in find_videos([f"{tmp_path}/**/*.mp4"])] == [str(bottom / "a.mp4")]


def test_linked_folders_are_not_gone_into(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    write_results(inner / "results.jsonl", labelled("a.mp4", [("archery", 0.9)]))
    (inner / "again").symlink_to(tmp_path)
    assert files_below(tmp_path, (".jsonl",)) == [inner / "results.jsonl"]
