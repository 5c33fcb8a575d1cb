"""Accuracies, confusion and the tables made of them, by hand; evaluations read again, and the mean over splits."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from tests.finished_run import write_run
from tests.matching import containing
from vadis.errors import UsageError
from vadis.evaluation.metrics import (
    Prediction,
    confusion_csv,
    measure,
    per_class_csv,
    read_evaluation,
    summarize_splits,
    write_summary,
)

CLASSES = ("run", "jump", "sit")


def said(label: str, rgb: list[float], flow: list[float] | None = None) -> Prediction:
    logits = {"rgb": np.array(rgb, np.float32)} | ({} if flow is None else {"flow": np.array(flow, np.float32)})
    return Prediction(f"{label}.mp4", "ok", label=label, logits=logits)


PREDICTIONS = [
    said("run", [3, 1, 0], [0, 1, 0]),  # rgb right, flow wrong, sum right
    said("run", [0, 1, 0], [0, 1, 0]),  # wrong
    said("jump", [0, 1, 2], [0, 5, 0]),  # flow and sum right
    Prediction("broken.mp4", "error", error_code="empty_file", error_message="", label="sit"),  # counts as wrong
]


def test_metrics_by_hand() -> None:
    found = measure(PREDICTIONS, CLASSES, ("rgb", "flow"))
    assert list(found) == ["rgb", "flow", "both"]
    assert [column.top1 for column in found.values()] == [0.25, 0.25, 0.5]
    assert found["both"].mean_class == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert found["both"].top5 == 0.75  # there are three classes, so every answer is among the first five
    assert found["both"].confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert confusion_csv(found["both"], CLASSES).splitlines()[:2] == ["true class,run,jump,sit", "run,1,1,0"]


def test_the_sixth_is_not_among_the_first_five() -> None:
    labels = tuple("abcdefg")
    answers = [said("f", [7, 6, 5, 4, 3, 2, 1]), said("e", [7, 6, 5, 4, 3, 2, 1])]
    assert measure(answers, labels, ("rgb",))["rgb"].top5 == 0.5


def test_a_single_frame_is_wrong_where_flow_is_asked() -> None:
    found = measure([said("run", [1, 0, 0])], CLASSES, ("rgb", "flow"))
    assert [found[name].top1 for name in ("rgb", "flow", "both")] == [1, 0, 0]


def test_classes_without_an_example_do_not_count() -> None:
    found = measure([said("run", [1, 0, 0])], CLASSES, ("rgb",))["rgb"]
    assert found.mean_class == 1
    assert np.isnan(found.accuracies()).tolist() == [False, True, True]
    assert found.to_json(CLASSES)["per_class"] == {"run": 1.0, "jump": None, "sit": None}


def test_classes_met_are_those_tested_or_answered() -> None:
    found = measure([said("run", [0, 0, 1])], CLASSES, ("rgb",))["rgb"]
    assert found.classes_met().tolist() == [0, 2]


def test_a_row_per_class_with_what_it_was_taken_for() -> None:
    found = measure(PREDICTIONS, CLASSES, ("rgb", "flow"))["both"]
    assert list(csv.reader(io.StringIO(per_class_csv(found, CLASSES)))) == [
        ["class", "videos", "right", "accuracy", "most frequent wrong answer"],
        ["run", "2", "1", "0.500000", "jump"],
        ["jump", "1", "1", "1.000000", ""],
        ["sit", "1", "0", "0.000000", ""],  # not read, so taken for nothing
    ]


def test_of_equally_frequent_wrong_answers_the_first_is_named() -> None:
    made = [said("sit", [0, 1, 0]), said("sit", [1, 0, 0]), said("jump", [0, 0, 1])]
    rows = csv.reader(io.StringIO(per_class_csv(measure(made, CLASSES, ("rgb",))["rgb"], CLASSES)))
    assert [row[-1] for row in rows][1:] == ["", "sit", "run"]


def test_a_class_without_a_score_is_not_among_the_first_five() -> None:
    found = measure([said("sit", [1, 0, -np.inf])], CLASSES, ("rgb",))["rgb"]
    assert (found.top1, found.top5) == (0, 0)


def test_names_with_commas_and_quotes_survive() -> None:
    names = ('say "hi"', "a, b")
    found = measure([said(names[0], [0, 1])], names, ("rgb",))["rgb"]
    assert next(csv.reader(io.StringIO(confusion_csv(found, names)))) == ["true class", *names]
    assert list(csv.reader(io.StringIO(per_class_csv(found, names))))[1][4] == "a, b"


def test_probabilities_are_averaged_where_the_architecture_asks_for_it() -> None:
    loud_flow = said("run", [0, 0.5, 0], [9, 0, 0])  # certain of "run", while rgb leans to "jump"
    quiet = said("jump", [0, 2.9, 3], [0.6, 0.9, 0])  # the sum of logits leads to "jump", that of probabilities too
    found = measure([loud_flow, quiet], CLASSES, ("rgb", "flow"), "probabilities")
    assert found["both"].confusion.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    torn = said("run", [1.0, 0.0, -30.0], [-30.0, 0.0, 30.0])  # logits 0 for "sit"; by probability it wins
    assert measure([torn], CLASSES, ("rgb", "flow"), "logits")["both"].confusion[0].tolist() == [0, 1, 0]
    assert measure([torn], CLASSES, ("rgb", "flow"), "probabilities")["both"].confusion[0].tolist() == [
        0,
        0,
        1,
    ]


def test_a_network_of_both_streams_is_one_column() -> None:
    answer = Prediction("a.mp4", "ok", label="run", logits={"both": np.array([1, 0, 0], np.float32)})
    assert list(measure([answer], CLASSES, ("both",), "probabilities")) == ["both"]


def test_metrics_are_those_of_the_answers(tmp_path: Path) -> None:
    run = read_evaluation(write_run(tmp_path, 3))
    assert {name: column.top1 for name, column in run.columns.items()} == {"rgb": 0.75, "flow": 0.75, "both": 0.75}


def test_an_unfinished_evaluation_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, 3)
    (tmp_path / "metrics.json").unlink()
    with pytest.raises(UsageError, match=containing(4)):
        read_evaluation(tmp_path)


def test_a_torn_last_line_makes_it_unfinished_and_is_not_touched(tmp_path: Path) -> None:
    path = write_run(tmp_path, 3) / "answers.jsonl"
    torn = path.read_bytes()[:-5]
    path.write_bytes(torn)
    with pytest.raises(UsageError, match=containing(3, "metrics.json", 4)):
        read_evaluation(tmp_path)
    assert path.read_bytes() == torn


def test_what_is_no_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_evaluation(tmp_path)
    (tmp_path / "answers.jsonl").write_text('{"schema": 2, "run": {"settings": {"classes": ["a"]}}}\n')
    with pytest.raises(UsageError, match=containing("answers.jsonl")):
        read_evaluation(tmp_path)
    write_run(tmp_path / "run", 1)
    for content in ("{", "[]", "[" * 700 + "]" * 700):
        (tmp_path / "run" / "metrics.json").write_text(content)
        with pytest.raises(UsageError, match=containing("metrics.json")):
            read_evaluation(tmp_path / "run")


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
    runs = [read_evaluation(write_run(tmp_path / "a", 3)), read_evaluation(write_run(tmp_path / "b", 2, **change))]
    with pytest.raises(UsageError, match=containing(fact)):
        summarize_splits(runs)


def test_the_mean_counts_each_split_alike_and_stands_beside_the_papers(tmp_path: Path) -> None:
    runs = [read_evaluation(write_run(tmp_path / str(n), right, split=n)) for n, right in ((1, 4), (2, 3), (3, 0))]
    together = summarize_splits(runs)
    assert together["mean"]["both"] == {
        "num_examples": 12,
        "top1": 0.583333,
        "top5": 1.0,
        "mean_class": 0.583333,
    }
    assert together["paper_mean_top1"]["flow"] == {"imagenet": 0.967, "scratch": 0.965}
    assert list(together["splits"]) == ["1", "2", "3"]
    assert json.loads(json.dumps(together)) == together
    assert summarize_splits(runs[::2])["paper_mean_top1"] == {}


def test_the_metrics_of_training_are_read_again(tmp_path: Path) -> None:
    """Which say more than the columns."""
    run = read_evaluation(write_run(tmp_path, 3))
    write_summary(tmp_path, run.summary(states={"rgb": {"step": 1}}))
    assert len(read_evaluation(tmp_path).predictions) == 4
