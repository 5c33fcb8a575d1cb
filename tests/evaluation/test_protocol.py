"""The paper's test: the clip it looks at, going on where it stopped, and what has to be said of a test."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.flow.conftest import cheap_flow
from tests.make_model import make_model
from tests.matching import containing
from tests.synthetic import write_video
from vadis.datasets import Dataset, Example, Problems
from vadis.errors import UsageError
from vadis.evaluation import (
    Answer,
    AnswerFile,
    about_part,
    answer,
    check_classes,
    evaluate,
    learnt_from_the_test,
    settings_of,
)
from vadis.inference.features import extract_features
from vadis.models import MODELS, Model, ModelCard, build_networks
from vadis.models.i3d_inference import LOGITS
from vadis.weights.model_file import load_model_file


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model_file(make_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", width=1 / 16, classes=3))


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


@pytest.mark.parametrize("bounds", [(2.0, 5.0), (400.0, 403.0)])
def test_a_clip_that_is_cut_already_is_not_cut_again(model: Model, tmp_path: Path, bounds: tuple[float, float]) -> None:
    path = str(write_video(tmp_path / "0wR5jVB-WPk.mkv", num_frames=76, seed=4, codec="ffv1"))
    rgb = model.only(("rgb",))
    found = answer(Example(path, "class 0", *bounds, may_be_trimmed=True), rgb)
    assert found.error is None
    np.testing.assert_array_equal(found.logits["rgb"], answer(Example(path, "class 0"), rgb).logits["rgb"])


def test_a_clip_that_is_cut_already_and_does_not_say_how_long_it_is(model: Model, tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "0wR5jVB-WPk.h264", num_frames=76, seed=4, codec="libx264"))
    rgb = model.only(("rgb",))
    found = answer(Example(path, "class 0", 400.0, 403.0, may_be_trimmed=True), rgb)
    np.testing.assert_array_equal(found.logits["rgb"], answer(Example(path, "class 0"), rgb).logits["rgb"])


def test_a_whole_video_that_might_be_trimmed_is_cut(model: Model, tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "0wR5jVB-WPk.mkv", num_frames=126, seed=4, codec="ffv1"))
    rgb = model.only(("rgb",))
    found = answer(Example(path, "class 0", 2.0, 5.0, may_be_trimmed=True), rgb)
    np.testing.assert_array_equal(found.logits["rgb"], answer(Example(path, "x", 2.0, 5.0), rgb).logits["rgb"])


def test_a_broken_video_gives_the_reason(model: Model, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    found = answer(Example(str(tmp_path / "empty.mp4"), "class 0"), model)
    assert (found.logits, str(found.error).split(": ")[0]) == ({}, "empty_file")


def test_an_interrupted_evaluation_goes_on(model: Model, tmp_path: Path) -> None:
    rgb = model.only(("rgb",))
    examples = [Example(str(write_video(tmp_path / f"{i}.mp4", num_frames=20, seed=i)), "class 1") for i in range(3)]
    whole = list(evaluate(examples, rgb, AnswerFile(tmp_path / "whole.jsonl", {"a": 1})))
    path = tmp_path / "answers.jsonl"
    first = AnswerFile(path, {"a": 1})
    next(evaluate(examples, rgb, first))
    first.close()
    with path.open("ab") as file:
        file.write(b'{"path": "torn')
    again = AnswerFile(path, {"a": 1})
    assert len(again.answers) == 1
    list(evaluate(examples, rgb, again))
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    np.testing.assert_allclose(again.answers[whole[2].key].logits["rgb"], whole[2].logits["rgb"], rtol=0)


@pytest.mark.parametrize(
    ("code", "is_asked_again"),
    [("io_error", True), ("timeout", True), ("decoder_crash", True), ("disappeared", True), ("not_a_video", False)],
)
def test_a_failure_of_a_moment_is_asked_again(model: Model, tmp_path: Path, code: str, is_asked_again: bool) -> None:
    example = Example(str(write_video(tmp_path / "a.mp4", num_frames=20)), "class 1")
    file = AnswerFile(tmp_path / "answers.jsonl", {}, str(tmp_path))
    file.append(Answer(example.path, example.label, {}, f"{code}: it did not work"))
    file.close()
    again = AnswerFile(tmp_path / "answers.jsonl", {}, str(tmp_path))
    (found,) = evaluate([example], model.only(("rgb",)), again)
    assert (found.error is None) == is_asked_again
    assert again.num_appended == is_asked_again and len(again.answers) == 1


def test_answers_are_found_however_the_data_are_named(model: Model, tmp_path: Path, monkeypatch) -> None:
    """By an absolute path, a relative one, and where the folder has been moved."""
    rgb = model.only(("rgb",))
    (tmp_path / "data" / "class 1").mkdir(parents=True)
    write_video(tmp_path / "data" / "class 1" / "a.mp4", num_frames=20)
    monkeypatch.chdir(tmp_path)
    for number, root in enumerate(("data", str(tmp_path / "data"), "./data", "data/../data", "moved")):
        if root == "moved":
            Path("data").rename(root)
        file = AnswerFile(tmp_path / "answers.jsonl", {}, root)
        (found,) = evaluate([Example(f"{root}/class 1/a.mp4", "class 1")], rgb, file)
        assert (found.path, found.error, len(file.answers)) == ("class 1/a.mp4", None, 1)
        assert file.num_appended == (number == 0)
        file.close()


def test_classes_that_the_model_does_not_know_are_refused(model: Model) -> None:
    with pytest.raises(UsageError, match=containing(1, "archery")):
        check_classes([Example("a.mp4", "class 0"), Example("b.mp4", "archery")], model)


def test_logits_that_are_no_numbers_are_an_error_of_the_video(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=20)
    broken = {"rgb": np.array([1, np.nan, 0], np.float32)}
    monkeypatch.setattr("vadis.evaluation.protocol.outputs_together", lambda *arguments, **keywords: [(0, broken)])
    found = answer(Example(str(path), "class 0"), model.only(("rgb",)))
    assert (found.logits, str(found.error).split(": ")[0]) == ({}, "not_finite")
    AnswerFile(tmp_path / "answers.jsonl", {}).append(found)


def dataset(*parts: str, name: str = "folder", split: int = 1) -> Dataset:
    return Dataset(name, "/data", ("a", "b"), split, {part: (Example("a.mp4", "a"),) for part in parts}, Problems())


def test_tested_on_val_is_said() -> None:
    assert about_part(dataset("train", "test"), "test") is None
    text = about_part(dataset("train", "val"), "val")
    assert text is not None
    assert re.search(containing("folder", "val"), text)
    chosen = about_part(dataset("train", "val", "test"), "train")
    assert chosen is not None
    assert chosen.startswith("tested on train; ")
    assert "no test" in chosen


def test_a_model_of_another_split_knows_the_test(model: Model) -> None:
    provenance = {"dataset": {"name": "ucf101", "split": 2}}
    tuned = replace(model, card=replace(model.card, provenance=provenance))
    warning = learnt_from_the_test(tuned, dataset("test", name="ucf101", split=1))
    assert warning is not None
    assert "split 2" in warning
    assert learnt_from_the_test(tuned, dataset("test", name="ucf101", split=2)) is None
    assert learnt_from_the_test(tuned, dataset("test", name="hmdb51", split=1)) is None
    assert learnt_from_the_test(model, dataset("test", name="ucf101", split=1)) is None


def test_the_part_is_one_of_the_settings(model: Model) -> None:
    assert settings_of(model, "folder", 1, False, "val") != settings_of(model, "folder", 1, False)


def test_answers_that_are_known_by_paths_as_they_were_typed_are_refused(model: Model, tmp_path: Path) -> None:
    now = settings_of(model, "folder", 1, False)
    before = {key: value for key, value in now.items() if key != "published"} | {"schema": 1}
    AnswerFile(tmp_path / "answers.jsonl", before).close()
    with pytest.raises(UsageError, match=containing("schema", 1)):
        AnswerFile(tmp_path / "answers.jsonl", now)


@pytest.mark.parametrize(
    ("architecture", "networks"),
    [("lstm", ["rgb"]), ("c3d", ["rgb"]), ("two-stream", ["rgb", "flow"]), ("fused", ["both"])],
)
def test_other_architectures_answer_too(
    architecture: str, networks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "vadis.inference.prefetch.with_flow", lambda chunks, *rest: ((frames, cheap_flow(frames)) for frames in chunks)
    )
    row = MODELS[architecture]
    card = ModelCard(
        "tiny", architecture, row.streams, ("a", "b", "c"), 1 / 16, row.window_frames,
        short_side=row.short_side, crop=row.crop,
    )  # fmt: skip
    tiny = Model(card, build_networks(card), torch.device("cpu"))
    found = answer(Example(str(write_video(tmp_path / "a.mp4", num_frames=20)), "a"), tiny)
    assert list(found.logits) == networks == settings_of(tiny, "folder", 1, False)["networks"]
    file = AnswerFile(tmp_path / "answers.jsonl", settings_of(tiny, "folder", 1, False))
    assert all(row.shape == (3,) for row in file.append(found).logits.values())
