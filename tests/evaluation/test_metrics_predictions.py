"""The paper's test: what it looks at, how it goes on, and predictions on a disk: torn, damaged, foreign, locked."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.flow.conftest import cheap_flow
from tests.make_model import make_model
from tests.matching import containing
from tests.synthetic import write_video
from vadis.batch import Journal
from vadis.datasets import Dataset, Example
from vadis.errors import OutputLockedError, UsageError
from vadis.evaluation.metrics import (
    Prediction,
    check_classes,
    evaluation_settings,
    name_of,
    on_whole_frames,
    open_predictions,
    overlap_warning,
    pending,
    predict_all,
    read_predictions,
    read_settings,
)
from vadis.inference.features import extract_features
from vadis.models import MODELS, Model, ModelCard, build_networks
from vadis.models.i3d_inference import LOGITS
from vadis.preprocessing import centre_crop, network_input
from vadis.video.reader import open_video
from vadis.weights.model_file import load_model_file

SETTINGS = {"model": "a", "split": 1, "classes": ["run", "jump", "sit"]}


def said(number: int) -> Prediction:
    logits = {"rgb": np.array([number, 0.5, 1 / 3], np.float32)}
    return Prediction(f"{number}.mp4", "ok", label="run", logits=logits)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with three predictions, closed."""
    with open_predictions(tmp_path / "answers.jsonl", SETTINGS) as journal:
        for number in range(3):
            journal.append(said(number))
    return tmp_path / "answers.jsonl"


def reopened(path: Path, settings: dict[str, object] = SETTINGS) -> list[str]:
    with open_predictions(path, settings) as journal:
        return list(journal.entries)


def test_what_is_read_again_has_six_digits_of_each_logit_and_gives_the_same_line(path: Path) -> None:
    again = read_predictions(path)["1.mp4"]
    np.testing.assert_allclose(again.logits["rgb"], said(1).logits["rgb"], rtol=1e-5)
    assert again.to_json_line() == said(1).to_json_line()


def test_a_file_cut_anywhere_loses_one_prediction_at_most(path: Path) -> None:
    whole = path.read_bytes()
    header, *_, last = whole.splitlines(keepends=True)
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with open_predictions(path, SETTINGS) as journal:
            assert len(journal.entries) == max(0, whole[:length].count(b"\n") - 1)
            journal.append(said(2))
        rest = whole[: whole[:length].rfind(b"\n") + 1] or header
        assert path.read_bytes() == rest + last


def test_a_foreign_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    for content in (
        b"notes without an end of line",
        b"[1]\n",
        b'{"settings": 3}\n{}\n',
        b"[" * 700 + b"]" * 700 + b"\n",
        b"\n",
        b"\xff\x00\n",
    ):
        other = tmp_path / "other.jsonl"
        other.write_bytes(content)
        for go_on in (True, False):
            with pytest.raises(UsageError, match=containing("other.jsonl")), open_predictions(other, {}, go_on=go_on):
                pass
        with pytest.raises(UsageError, match=containing("other.jsonl")):
            read_settings(other)
        assert other.read_bytes() == content


@pytest.mark.parametrize(
    "line",
    [
        b"\x00\x00\x00",
        b"[]",
        b'{"path": "x"}',
        b"[" * 700 + b"]" * 700,
        b'{"schema": 2, "path": "x", "status": "ok", "label": "run", "logits": 5}',
        b'{"schema": 2, "path": "x", "status": "ok", "label": "run", "logits": {"rgb": [[1, 2]]}}',
        b'{"schema": 2, "path": "x", "status": "ok", "label": "run", "logits": {"rgb": [1, 2, NaN]}}',
    ],
)
def test_a_damaged_line_is_named_and_nothing_is_changed(path: Path, line: bytes) -> None:
    header, first, *others = path.read_bytes().splitlines()
    content = b"\n".join([header, first, line, *others, b""])
    path.write_bytes(content)
    with pytest.raises(UsageError, match=containing("line 3")):
        read_predictions(path)
    assert path.read_bytes() == content


def test_predictions_of_other_settings_are_refused(path: Path) -> None:
    with pytest.raises(UsageError, match=containing("split", 1, 2)):
        reopened(path, {**SETTINGS, "split": 2})
    with pytest.raises(UsageError, match=containing("part", "None", "val")):
        reopened(path, {**SETTINGS, "part": "val"})
    with pytest.raises(UsageError, match=containing("model", "a", "None")):
        reopened(path, {key: value for key, value in SETTINGS.items() if key != "model"})
    with pytest.raises(UsageError, match=containing("classes")):
        reopened(path, {**SETTINGS, "classes": ["x", "y", "z"]})
    assert len(reopened(path)) == 3


def test_a_file_may_be_begun_anew_where_the_settings_are_others(path: Path) -> None:
    for settings, number in ((SETTINGS, 3), ({**SETTINGS, "model": "b"}, 0)):
        with open_predictions(path, settings, go_on=False) as journal:
            assert len(journal.entries) == number
        assert len(reopened(path, settings)) == number


def test_of_one_video_the_last_prediction_counts(path: Path) -> None:
    with open_predictions(path, SETTINGS) as journal:
        journal.append(Prediction("1.mp4", "error", error_code="io_error", error_message="again", label="run"))
    assert read_predictions(path)["1.mp4"].error_code == "io_error"


def test_another_run_is_kept_out_until_this_one_is_done(path: Path) -> None:
    with open_predictions(path, SETTINGS), pytest.raises(OutputLockedError):
        reopened(path)
    assert len(reopened(path)) == 3
    assert list(path.parent.iterdir()) == [path]


def test_examples_are_known_by_their_place_in_the_data_and_in_the_file() -> None:
    parts = [Example("data/b/a.mp4", "b", start) for start in (None, 0.0, 2.5)]
    assert [name_of(example, "data") for example in parts] == ["b/a.mp4", "b/a.mp4#t=0.0", "b/a.mp4#t=2.5"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model_file(make_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", width=1 / 16, classes=3))


def predicted(example: Example, model: Model) -> Prediction:
    (found,) = predict_all([example], model)
    return found


@pytest.mark.slow
def test_the_prediction_is_the_mean_of_the_first_250_frames(model: Model, tmp_path: Path) -> None:
    long = write_video(tmp_path / "long.mkv", num_frames=270, seed=3, codec="ffv1")
    rgb = model.only(("rgb",))
    found = predicted(Example(str(long), "class 0"), rgb)
    short = tmp_path / "short.mkv"
    write_video(short, frames=_frames_of(long)[:250], codec="ffv1")
    expected = extract_features(short, rgb, layer=LOGITS)[0]["rgb"].mean(axis=0)
    np.testing.assert_allclose(found.logits["rgb"], expected, rtol=1e-4)


@pytest.mark.slow
def test_all_frames_and_whole_frames_are_seen_where_they_are_asked_for(model: Model, tmp_path: Path) -> None:
    """270 frames of 256×320: what the plain network says of all of them, and of their 256×256 centre."""
    rgb, path = model.only(("rgb",)), tmp_path / "long.mkv"
    full = on_whole_frames(rgb)
    write_video(path, num_frames=270, size=(320, 256), seed=3, codec="ffv1")
    (found,) = predict_all([Example(str(path), "class 0")], full, whole=True)
    with open_video(path) as opened:
        frames = centre_crop(np.stack([frame.pixels for frame in opened]), "rgb", 256)
    with torch.inference_mode():
        expected = rgb.networks["rgb"](network_input(frames, "rgb")).mean(dim=2)[0].numpy()
    np.testing.assert_allclose(found.logits["rgb"], expected, atol=1e-4 * np.abs(expected).max())
    assert evaluation_settings(full, "folder", 1, False, whole=True)["unlike_the_paper"] == [
        "on 256×256",
        "on all frames",
    ]
    assert "unlike_the_paper" not in evaluation_settings(rgb, "folder", 1, False)


def test_networks_of_one_size_see_no_whole_frames() -> None:
    row = MODELS["c3d"]
    card = ModelCard("tiny", "c3d", ("rgb",), ("a",), row.window_frames, short_side=row.short_side, crop=row.crop)
    with pytest.raises(UsageError, match=containing("3D-ConvNet", 112)):
        on_whole_frames(Model(card, {}, torch.device("cpu")))


def _frames_of(path: Path) -> np.ndarray:
    import av

    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.slow
def test_an_example_inside_a_file(model: Model, tmp_path: Path) -> None:
    path = write_video(tmp_path / "uncut.mkv", num_frames=150, seed=4, codec="ffv1")
    rgb = model.only(("rgb",))
    inside = predicted(Example(str(path), "class 0", 2.0, 5.0), rgb)
    cut = write_video(tmp_path / "cut.mkv", frames=_frames_of(path)[50:125], codec="ffv1")
    np.testing.assert_allclose(inside.logits["rgb"], predicted(Example(str(cut), "x"), rgb).logits["rgb"], rtol=1e-4)


@pytest.mark.parametrize("bounds", [(2.0, 5.0), (400.0, 403.0)])
def test_a_clip_that_is_cut_already_is_not_cut_again(model: Model, tmp_path: Path, bounds: tuple[float, float]) -> None:
    path = str(write_video(tmp_path / "0wR5jVB-WPk.mkv", num_frames=76, seed=4, codec="ffv1"))
    rgb = model.only(("rgb",))
    found = predicted(Example(path, "class 0", *bounds, may_be_trimmed=True), rgb)
    assert found.status == "ok"
    np.testing.assert_array_equal(found.logits["rgb"], predicted(Example(path, "class 0"), rgb).logits["rgb"])


@pytest.mark.slow
def test_a_clip_that_is_cut_already_and_does_not_say_how_long_it_is(model: Model, tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "0wR5jVB-WPk.h264", num_frames=76, seed=4, codec="libx264"))
    rgb = model.only(("rgb",))
    found = predicted(Example(path, "class 0", 400.0, 403.0, may_be_trimmed=True), rgb)
    np.testing.assert_array_equal(found.logits["rgb"], predicted(Example(path, "class 0"), rgb).logits["rgb"])


def test_a_whole_video_that_might_be_trimmed_is_cut(model: Model, tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "0wR5jVB-WPk.mkv", num_frames=126, seed=4, codec="ffv1"))
    rgb = model.only(("rgb",))
    found = predicted(Example(path, "class 0", 2.0, 5.0, may_be_trimmed=True), rgb)
    np.testing.assert_array_equal(found.logits["rgb"], predicted(Example(path, "x", 2.0, 5.0), rgb).logits["rgb"])


def test_a_broken_video_gives_the_reason(model: Model, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    found = predicted(Example(str(tmp_path / "empty.mp4"), "class 0"), model)
    assert (found.logits, found.error_code) == ({}, "empty_file")


def evaluate(examples: list[Example], model: Model, journal: Journal, root: str, most: int = 9) -> int:
    """Make and keep ``most`` of the predictions that lack; how many that were."""
    missing = pending(examples, journal, root)[:most]
    with closing(predict_all(missing, model, root)) as made:
        for prediction in made:
            journal.append(prediction)
    return len(missing)


@pytest.mark.slow
def test_an_interrupted_evaluation_goes_on(model: Model, tmp_path: Path) -> None:
    rgb, root, path = model.only(("rgb",)), str(tmp_path), tmp_path / "answers.jsonl"
    examples = [Example(str(write_video(tmp_path / f"{i}.mp4", num_frames=20, seed=i)), "class 1") for i in range(3)]
    with open_predictions(tmp_path / "whole.jsonl", {"a": 1}) as journal:
        assert evaluate(examples, rgb, journal, root) == 3
    with open_predictions(path, {"a": 1}) as journal:
        evaluate(examples, rgb, journal, root, most=1)
    with path.open("ab") as torn:
        torn.write(b'{"path": "torn')
    with open_predictions(path, {"a": 1}) as journal:
        assert len(journal.entries) == 1
        assert evaluate(examples, rgb, journal, root) == 2
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert list(read_predictions(path)) == ["0.mp4", "1.mp4", "2.mp4"]


@pytest.mark.parametrize(
    ("code", "is_tried_again"),
    [("io_error", True), ("timeout", True), ("decoder_crash", True), ("disappeared", True), ("not_a_video", False)],
)
def test_a_failure_of_a_moment_is_tried_again(model: Model, tmp_path: Path, code: str, is_tried_again: bool) -> None:
    path, root = tmp_path / "answers.jsonl", str(tmp_path)
    example = Example(str(write_video(tmp_path / "a.mp4", num_frames=20)), "class 1")
    failed = Prediction("a.mp4", "error", error_code=code, error_message="it did not work", label="class 1")
    with open_predictions(path, {}) as journal:
        journal.append(failed)
    with open_predictions(path, {}) as journal:
        assert evaluate([example], model.only(("rgb",)), journal, root) == is_tried_again
        journal.finish()
    (found,) = read_predictions(path).values()
    assert (found.status == "ok") == is_tried_again
    assert len(path.read_bytes().splitlines()) == 2


def test_predictions_are_found_however_the_data_are_named(model: Model, tmp_path: Path, monkeypatch) -> None:
    """By an absolute path, a relative one, and where the folder has been moved."""
    rgb = model.only(("rgb",))
    (tmp_path / "data" / "class 1").mkdir(parents=True)
    write_video(tmp_path / "data" / "class 1" / "a.mp4", num_frames=20)
    monkeypatch.chdir(tmp_path)
    for number, root in enumerate(("data", str(tmp_path / "data"), "./data", "data/../data", "moved")):
        if root == "moved":
            Path("data").rename(root)
        with open_predictions(tmp_path / "answers.jsonl", {}) as journal:
            assert evaluate([Example(f"{root}/class 1/a.mp4", "class 1")], rgb, journal, root) == (number == 0)
        ((name, found),) = read_predictions(tmp_path / "answers.jsonl").items()
        assert (name, found.status, found.num_frames) == ("class 1/a.mp4", "ok", 20)


def test_classes_that_the_model_does_not_know_are_refused(model: Model) -> None:
    with pytest.raises(UsageError, match=containing(1, "archery")):
        check_classes([Example("a.mp4", "class 0"), Example("b.mp4", "archery")], model)


def test_logits_that_are_no_numbers_are_an_error_of_the_video(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=20)
    broken = {"rgb": np.array([1, np.nan, 0], np.float32)}
    monkeypatch.setattr("vadis.evaluation.metrics.predict", lambda *arguments, **keywords: [(0, broken)])
    found = predicted(Example(str(path), "class 0"), model.only(("rgb",)))
    assert (found.logits, found.error_code) == ({}, "not_finite")


def dataset(*parts: str, name: str = "folder", split: int = 1) -> Dataset:
    return Dataset(name, "/data", ("a", "b"), split, {part: (Example("a.mp4", "a"),) for part in parts})


def test_a_model_of_another_split_knows_the_test(model: Model) -> None:
    provenance = {"dataset": {"name": "ucf101", "split": 2}}
    tuned = replace(model, card=replace(model.card, provenance=provenance))
    warning = overlap_warning(tuned, dataset("test", name="ucf101", split=1))
    assert warning is not None
    assert "split 2" in warning
    assert overlap_warning(tuned, dataset("test", name="ucf101", split=2)) is None
    assert overlap_warning(tuned, dataset("test", name="hmdb51", split=1)) is None
    assert overlap_warning(model, dataset("test", name="ucf101", split=1)) is None


def test_the_part_is_one_of_the_settings(model: Model) -> None:
    assert evaluation_settings(model, "folder", 1, False, "val") != evaluation_settings(model, "folder", 1, False)


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
    found = predicted(Example(str(write_video(tmp_path / "a.mp4", num_frames=20)), "a"), tiny)
    assert list(found.logits) == networks == evaluation_settings(tiny, "folder", 1, False)["networks"]
    again = Prediction.from_json(found.to_json())
    assert all(row.shape == (3,) for row in again.logits.values())
