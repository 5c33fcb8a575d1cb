"""Evaluations that have been run: read again, refused where their mean would mean nothing, and the mean."""

import json
from pathlib import Path

import pytest

from tests.finished_run import write_run
from tests.matching import containing
from vadis.errors import UsageError
from vadis.evaluation.metrics import Ranking, measured
from vadis.evaluation.summary import check_together, mean, read_run, summary_of_run, summary_of_splits


def test_metrics_are_those_of_the_answers(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, 3))
    assert run.is_complete
    assert {name: column.top1 for name, column in run.metrics().items()} == {"rgb": 0.75, "flow": 0.75, "both": 0.75}


def test_an_unfinished_evaluation_is_refused_unless_partial(tmp_path: Path) -> None:
    write_run(tmp_path, 3)
    (tmp_path / "metrics.json").unlink()
    with pytest.raises(UsageError, match=containing(4)):
        read_run(tmp_path)
    assert not read_run(tmp_path, partial=True).is_complete


def test_a_torn_last_line_makes_it_unfinished_and_is_not_touched(tmp_path: Path) -> None:
    path = write_run(tmp_path, 3) / "answers.jsonl"
    torn = path.read_bytes()[:-5]
    path.write_bytes(torn)
    with pytest.raises(UsageError, match=containing(3, "metrics.json", 4)):
        read_run(tmp_path)
    assert len(read_run(tmp_path, partial=True).answers) == 3
    assert path.read_bytes() == torn


def test_what_is_no_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_run(tmp_path)
    (tmp_path / "answers.jsonl").write_text('{"settings": {"classes": ["a"]}}\n')
    with pytest.raises(UsageError, match=containing("answers.jsonl")):
        read_run(tmp_path)
    write_run(tmp_path / "run", 1)
    for content in ("{", "[]", "[" * 700 + "]" * 700):
        (tmp_path / "run" / "metrics.json").write_text(content)
        with pytest.raises(UsageError, match=containing("metrics.json")):
            read_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"split": 2, "dataset": "hmdb51"}, "dataset"),
        ({"split": 2, "classes": ["run", "sit"]}, "classes"),
        ({"split": 2, "flip": True}, "flip"),
        ({"split": 2, "part": "val"}, "part"),
        ({"split": 1, "model": "n"}, "split 1"),
    ],
)
def test_runs_that_have_no_mean(tmp_path: Path, change: dict[str, object], fact: str) -> None:
    runs = [read_run(write_run(tmp_path / "a", 3)), read_run(write_run(tmp_path / "b", 2, **change))]
    with pytest.raises(UsageError, match=containing(fact)):
        check_together(runs)


def test_the_mean_counts_each_split_alike_and_stands_beside_the_papers(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / str(n), right, split=n)) for n, right in ((1, 4), (2, 3), (3, 0))]
    check_together(runs)
    found = {run.split: run.metrics() for run in runs}
    summaries = {run.split: summary_of_run(run, found[run.split]) for run in runs}
    together = summary_of_splits(found, summaries)
    assert together["mean"]["both"] == {"top1": 0.583333, "top5": 1.0, "mean_class": 0.583333}
    assert together["paper_mean_top1"]["flow"] == {"imagenet": 0.967, "scratch": 0.965}
    assert list(together["splits"]) == ["1", "2", "3"]
    assert json.loads(json.dumps(together)) == together
    two = summary_of_splits({n: found[n] for n in (1, 3)}, {n: summaries[n] for n in (1, 3)})
    assert two["paper_mean_top1"] == {}


def test_there_is_no_mean_of_what_is_not_known() -> None:
    without = measured([Ranking("run", ("run",))], ("run", "jump"), with_top5=False)
    assert mean([without, without]) == {"top1": 1.0, "top5": None, "mean_class": 1.0}
