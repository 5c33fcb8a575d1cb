"""Accuracies, confusion and the tables made of them, by hand."""

import csv
import io

import numpy as np
import pytest

from vadis.evaluation.metrics import Ranking, confusion_csv, measured, metrics, per_class_csv
from vadis.evaluation.predictions import Answer

CLASSES = ("run", "jump", "sit")


def said(label: str, rgb: list[float], flow: list[float] | None = None) -> Answer:
    logits = {"rgb": np.array(rgb, np.float32)} | ({} if flow is None else {"flow": np.array(flow, np.float32)})
    return Answer(f"{label}.mp4", label, logits)


ANSWERS = [
    said("run", [3, 1, 0], [0, 1, 0]),  # rgb right, flow wrong, sum right
    said("run", [0, 1, 0], [0, 1, 0]),  # wrong
    said("jump", [0, 1, 2], [0, 5, 0]),  # flow and sum right
    Answer("broken.mp4", "sit", {}, "empty_file: zero bytes"),  # counts as wrong
]


def test_metrics_by_hand() -> None:
    found = metrics(ANSWERS, CLASSES, ("rgb", "flow"))
    assert list(found) == ["rgb", "flow", "both"]
    assert [column.top1 for column in found.values()] == [0.25, 0.25, 0.5]
    assert found["both"].mean_class == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert found["both"].top5 == 0.75  # there are three classes, so every answer is among the first five
    assert found["both"].confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert confusion_csv(found["both"], CLASSES).splitlines()[:2] == ["true class,run,jump,sit", "run,1,1,0"]


def test_the_sixth_is_not_among_the_first_five() -> None:
    labels = tuple("abcdefg")
    answers = [said("f", [7, 6, 5, 4, 3, 2, 1]), said("e", [7, 6, 5, 4, 3, 2, 1])]
    assert metrics(answers, labels, ("rgb",))["rgb"].top5 == 0.5


def test_a_single_frame_is_wrong_where_flow_is_asked() -> None:
    found = metrics([said("run", [1, 0, 0])], CLASSES, ("rgb", "flow"))
    assert [found[name].top1 for name in ("rgb", "flow", "both")] == [1, 0, 0]


def test_classes_without_an_example_do_not_count() -> None:
    found = metrics([said("run", [1, 0, 0])], CLASSES, ("rgb",))["rgb"]
    assert found.mean_class == 1
    assert np.isnan(found.accuracies()).tolist() == [False, True, True]
    assert found.to_json(CLASSES)["per_class"] == {"run": 1.0, "jump": None, "sit": None}


def test_classes_met_are_those_tested_or_answered() -> None:
    found = measured([Ranking("run", ("sit",))], CLASSES)
    assert found.classes_met().tolist() == [0, 2]


def test_a_row_per_class_with_what_it_was_taken_for() -> None:
    found = metrics(ANSWERS, CLASSES, ("rgb", "flow"))["both"]
    assert list(csv.reader(io.StringIO(per_class_csv(found, CLASSES)))) == [
        ["class", "videos", "right", "accuracy", "most frequent wrong answer"],
        ["run", "2", "1", "0.500000", "jump"],
        ["jump", "1", "1", "1.000000", ""],
        ["sit", "1", "0", "0.000000", ""],  # not read, so taken for nothing
    ]


def test_of_equally_frequent_wrong_answers_the_first_is_named() -> None:
    rankings = [Ranking("sit", ("jump",)), Ranking("sit", ("run",)), Ranking("jump", ("sit",))]
    assert [row.taken_for for row in measured(rankings, CLASSES).per_class(CLASSES)] == ["", "sit", "run"]


def test_a_foreign_first_answer_is_wrong_and_in_no_column() -> None:
    found = measured([Ranking("run", ("swim", "run")), Ranking("run", ("run",))], CLASSES)
    assert (found.top1, found.top5, found.confusion.sum()) == (0.5, 1.0, 1)
    assert measured([Ranking("run", ("run",))], CLASSES, with_top5=False).to_json(CLASSES)["top5"] is None


def test_names_with_commas_and_quotes_survive() -> None:
    names = ('say "hi"', "a, b")
    found = measured([Ranking(names[0], (names[1],))], names)
    assert next(csv.reader(io.StringIO(confusion_csv(found, names)))) == ["true class", *names]
    assert list(csv.reader(io.StringIO(per_class_csv(found, names))))[1][4] == "a, b"


def test_probabilities_are_averaged_where_the_architecture_asks_for_it() -> None:
    loud_flow = said("run", [0, 0.5, 0], [9, 0, 0])  # certain of "run", while rgb leans to "jump"
    quiet = said("jump", [0, 2.9, 3], [0.6, 0.9, 0])  # the sum of logits leads to "jump", that of probabilities too
    found = metrics([loud_flow, quiet], CLASSES, ("rgb", "flow"), "probabilities")
    assert found["both"].confusion.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    torn = said("run", [1.0, 0.0, -30.0], [-30.0, 0.0, 30.0])  # logits 0 for "sit"; by probability it wins
    assert metrics([torn], CLASSES, ("rgb", "flow"), "logits")["both"].confusion[0].tolist() == [0, 1, 0]
    assert metrics([torn], CLASSES, ("rgb", "flow"), "probabilities")["both"].confusion[0].tolist() == [0, 0, 1]


def test_a_network_of_both_streams_is_one_column() -> None:
    answer = Answer("a.mp4", "run", {"both": np.array([1, 0, 0], np.float32)})
    assert list(metrics([answer], CLASSES, ("both",), "probabilities")) == ["both"]
