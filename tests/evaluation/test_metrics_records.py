"""Records of ``vadis classify`` as an evaluation: which record is whose, and what they cannot tell."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.matching import containing
from vadis import formats
from vadis.datasets import Dataset, Example
from vadis.errors import UsageError
from vadis.evaluation.metrics import Evaluation, read_records
from vadis.results import Label, Part, VideoResult

CLASSES = ("run", "jump", "sit", "walk", "swim", "climb")
EXAMPLES = (Example("/data/ucf/run/a.mp4", "run"), Example("/data/ucf/jump/b.mp4", "jump"))
DATASET = Dataset("folder", "/data/ucf", CLASSES, 1, {"test": EXAMPLES})
FIVE = ("run", "jump", "sit", "walk", "swim")


def record(path: str, *labels: str, model: str = "m", streams: tuple[str, ...] = ("rgb", "flow")) -> VideoResult:
    scores = tuple(Label(label, 0.3 - number / 100) for number, label in enumerate(labels))
    return VideoResult(
        path, "ok", model=model, model_sha256=model.encode().hex().zfill(64), streams=streams, clip_score=scores
    )


A, B = record("run/a.mp4", *FIVE), record("jump/b.mp4", *FIVE)


def matched(folder: Path, *results: VideoResult, dataset: Dataset = DATASET) -> Evaluation:
    file = folder / "results.jsonl"
    file.write_text("".join(formats.jsonl(results)))
    return read_records([file], dataset, "test")


@pytest.mark.parametrize("name", ["/data/ucf/run/a.mp4", "run/a.mp4", "/data/ucf/../ucf/run/a.mp4"])
def test_a_path_may_be_absolute_or_below_the_dataset(tmp_path: Path, name: str) -> None:
    found = matched(tmp_path, record(name, *FIVE), B)
    assert [prediction.label for prediction in found.predictions] == ["run", "jump"]
    (column,) = found.columns.items()
    assert (column[0], column[1].top1, column[1].top5) == ("both", 0.5, 1.0)


def test_a_path_is_taken_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = Dataset("folder", "clips", CLASSES, 1, {"test": (Example("clips/run/a.mp4", "run"),)})
    for name in ("./clips/run/a.mp4", f"{tmp_path}/clips/run/a.mp4"):
        assert matched(tmp_path, record(name, *FIVE), dataset=dataset).num_failed == 0


def test_another_datasets_file_of_the_same_name_is_none_of_ours(tmp_path: Path) -> None:
    other = record("/data/hmdb/run/a.mp4", *FIVE)
    with pytest.raises(UsageError, match=containing(1, "/data/ucf/run/a.mp4")):
        matched(tmp_path, other, B)


def test_the_last_record_of_a_video_counts(tmp_path: Path) -> None:
    failed = VideoResult("run/a.mp4", "error", error_code="io_error", error_message="the disk")
    assert matched(tmp_path, failed, A, B).num_failed == 0
    found = matched(tmp_path, A, B, failed)
    assert (found.predictions[0].error_code, found.num_failed) == ("io_error", 1)
    assert found.columns["both"].top1 == 0


def test_labels_that_are_no_class_are_wrong(tmp_path: Path) -> None:
    found = matched(tmp_path, record("run/a.mp4", "fly", *FIVE), B)
    assert (found.classes, found.columns["both"].confusion[0, -1]) == ((*CLASSES, "fly"), 1)
    with pytest.raises(UsageError, match=containing("fly")):
        matched(tmp_path, record("run/a.mp4", *["fly"] * 5), record("jump/b.mp4", *["fly"] * 5))


def test_fewer_than_five_labels_do_not_tell_top_5(tmp_path: Path) -> None:
    few = (record("run/a.mp4", "run", "jump"), record("jump/b.mp4", "run", "jump"))
    with pytest.raises(UsageError, match=containing(2, 5, "a.mp4")):
        matched(tmp_path, *few)
    assert matched(tmp_path, *few, dataset=replace(DATASET, classes=("run", "jump"))).columns["both"].top5 == 1


def test_records_by_two_models_or_streams_are_refused(tmp_path: Path) -> None:
    for other in (record("jump/b.mp4", *FIVE, model="n"), record("jump/b.mp4", *FIVE, streams=("rgb",))):
        with pytest.raises(UsageError, match=containing("m", other.model if other.model != "m" else "rgb")):
            matched(tmp_path, A, other)
    alone = replace(record("jump/b.mp4", *FIVE, streams=("rgb",)), flags=("no_flow",))
    assert matched(tmp_path, A, alone).settings["streams"] == ("rgb", "flow")


def test_parts_of_files_have_no_records(tmp_path: Path) -> None:
    parts = Example("/data/ucf/run/a.mp4", "run", 0.0, 10.0)
    with pytest.raises(UsageError, match=containing(1, "a.mp4")):
        matched(tmp_path, A, dataset=replace(DATASET, splits={"test": (parts,)}))
    with pytest.raises(UsageError, match=containing(1, "a.mp4")):
        matched(tmp_path, replace(A, part=Part(0.0, 2.0)), B)


@pytest.mark.parametrize(("seconds", "is_whole"), [(10.0, True), (300.0, True), (450.0, False)])
def test_a_clip_that_is_cut_already_has_a_record(tmp_path: Path, seconds: float, is_whole: bool) -> None:
    clip = Example("/data/ucf/run/a.mp4", "run", 417.0, 427.0, may_be_trimmed=True)
    results, dataset = replace(A, duration_seconds=seconds), replace(DATASET, splits={"test": (clip,)})
    if is_whole:
        assert matched(tmp_path, results, dataset=dataset).num_failed == 0
    else:
        with pytest.raises(UsageError, match=containing(1, "a.mp4")):
            matched(tmp_path, results, dataset=dataset)


def test_a_name_that_is_not_utf8_is_found(tmp_path: Path) -> None:
    path = os.fsdecode(b"/data/ucf/run/\xff.mp4")
    dataset = replace(DATASET, splits={"test": (Example(path, "run"),)})
    assert matched(tmp_path, record(path, *FIVE), dataset=dataset).num_failed == 0


def test_a_folder_of_one_file_per_video(tmp_path: Path) -> None:
    (tmp_path / "out" / "run").mkdir(parents=True)
    (tmp_path / "out" / "run" / "a.mp4.jsonl").write_text("".join(formats.jsonl([A])))
    (tmp_path / "out" / "b.mp4.json").write_text("".join(formats.json([B])))
    (tmp_path / "out" / "notes.txt").write_text("x")
    assert read_records([tmp_path / "out"], DATASET, "test").num_failed == 0


def test_a_torn_last_line_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "".join(formats.jsonl([A, B]))
    (tmp_path / "torn.jsonl").write_text(text[:-20])
    with pytest.raises(UsageError, match=containing(1, "b.mp4")):
        read_records([tmp_path / "torn.jsonl"], DATASET, "test")
    assert "torn.jsonl" in caplog.text


def test_skipped_videos_have_no_record(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=containing(1, "a.mp4")):
        matched(tmp_path, VideoResult("run/a.mp4", "skipped"), B)


@pytest.mark.parametrize("content", [json.dumps({"dataset": "ucf101"}) + "\n", "half a line"])
def test_what_is_no_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(UsageError, match=containing("a.jsonl", "line 1")):
        read_records([tmp_path / "a.jsonl"], DATASET, "test")


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=containing("nothing.jsonl", "No such file")):
        read_records([tmp_path / "nothing.jsonl"], DATASET, "test")
    with pytest.raises(UsageError, match=containing(tmp_path)):
        read_records([tmp_path], DATASET, "test")
