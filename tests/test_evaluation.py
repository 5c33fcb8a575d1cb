"""The paper's test: the clip it looks at, the metrics by hand, and going on where it stopped."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.make_model import make_model
from tests.synthetic import write_video
from vadis.datasets import Example
from vadis.errors import UsageError
from vadis.evaluation import Answer, AnswerFile, answer, check_classes, confusion_csv, evaluate, metrics
from vadis.features import extract_features
from vadis.models import Model
from vadis.models.folded import LOGITS
from vadis.weights.model_file import load_model_file

CLASSES = ("run", "jump", "sit")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model_file(make_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", width=1 / 16, classes=3))


def said(label: str, rgb: list[float], flow: list[float] | None = None, start: float | None = None) -> Answer:
    logits = {"rgb": np.array(rgb, np.float32)} | ({} if flow is None else {"flow": np.array(flow, np.float32)})
    return Answer(f"{label}.mp4", label, logits, None, start)


def test_metrics_by_hand() -> None:
    answers = [
        said("run", [3, 1, 0], [0, 1, 0]),  # rgb right, flow wrong, sum right
        said("run", [0, 1, 0], [0, 1, 0]),  # wrong
        said("jump", [0, 1, 2], [0, 5, 0]),  # flow and sum right
        Answer("broken.mp4", "sit", {}, "empty_file: zero bytes"),  # counts as wrong
    ]
    found = metrics(answers, CLASSES, ("rgb", "flow"))
    assert list(found) == ["rgb", "flow", "both"]
    assert [column.top1 for column in found.values()] == [0.25, 0.25, 0.5]
    assert found["both"].mean_class == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert found["both"].top5 == 0.75  # there are three classes, so every answer is among the first five
    assert found["both"].confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert confusion_csv(found["both"], CLASSES).splitlines()[:2] == ["true class,run,jump,sit", "run,1,1,0"]


def test_classes_without_an_example_do_not_count() -> None:
    found = metrics([said("run", [1, 0, 0])], CLASSES, ("rgb",))
    assert found["rgb"].mean_class == 1


def test_the_answer_is_the_mean_of_the_first_250_frames(model: Model, tmp_path: Path) -> None:
    long = write_video(tmp_path / "long.mkv", num_frames=270, seed=3, codec="ffv1")
    rgb = model.only(("rgb",))
    found = answer(Example(str(long), "class 0"), rgb)
    short = tmp_path / "short.mkv"
    write_video(short, frames=_frames_of(long)[:250], codec="ffv1")
    expected = extract_features(short, rgb, layer=LOGITS)[0]["rgb"].mean(axis=0)
    np.testing.assert_allclose(found.logits["rgb"], expected, rtol=1e-4)


def _frames_of(path: Path) -> np.ndarray:
    import av

    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_an_example_inside_a_file(model: Model, tmp_path: Path) -> None:
    path = write_video(tmp_path / "uncut.mkv", num_frames=150, seed=4, codec="ffv1")
    rgb = model.only(("rgb",))
    inside = answer(Example(str(path), "class 0", 2.0, 5.0), rgb)
    cut = write_video(tmp_path / "cut.mkv", frames=_frames_of(path)[50:125], codec="ffv1")
    np.testing.assert_allclose(inside.logits["rgb"], answer(Example(str(cut), "x"), rgb).logits["rgb"], rtol=1e-4)


def test_a_broken_video_gives_the_reason(model: Model, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    found = answer(Example(str(tmp_path / "empty.mp4"), "class 0"), model)
    assert (found.logits, found.error) == ({}, "empty_file: the file is empty (zero bytes)")


def test_an_interrupted_evaluation_goes_on(model: Model, tmp_path: Path) -> None:
    rgb = model.only(("rgb",))
    examples = [Example(str(write_video(tmp_path / f"{i}.mp4", num_frames=20, seed=i)), "class 1") for i in range(3)]
    whole = list(evaluate(examples, rgb, AnswerFile(tmp_path / "whole.jsonl", {"a": 1})))
    path = tmp_path / "answers.jsonl"
    next(evaluate(examples, rgb, AnswerFile(path, {"a": 1})))
    with path.open("ab") as file:
        file.write(b'{"path": "torn')
    again = AnswerFile(path, {"a": 1})
    assert len(again.answers) == 1
    list(evaluate(examples, rgb, again))
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    np.testing.assert_allclose(again.answers[whole[2].key].logits["rgb"], whole[2].logits["rgb"], rtol=1e-5)


def test_parts_of_one_file_are_kept_apart(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "answers.jsonl", {})
    file.append(said("run", [1, 0, 0], start=0.0))
    file.append(said("run", [0, 1, 0], start=10.0))
    assert len(AnswerFile(tmp_path / "answers.jsonl", {}).answers) == 2


def test_answers_of_other_settings_are_refused(tmp_path: Path) -> None:
    AnswerFile(tmp_path / "answers.jsonl", {"model": "a", "split": 1})
    with pytest.raises(UsageError, match="split was 1, is 2"):
        AnswerFile(tmp_path / "answers.jsonl", {"model": "a", "split": 2})
    (tmp_path / "other.jsonl").write_text(json.dumps([1]) + "\n")
    with pytest.raises(UsageError, match="not a file of answers"):
        AnswerFile(tmp_path / "other.jsonl", {})


def test_classes_that_the_model_does_not_know_are_refused(model: Model) -> None:
    with pytest.raises(UsageError, match="no class for 1 classes of the dataset: archery"):
        check_classes([Example("a.mp4", "class 0"), Example("b.mp4", "archery")], model)
