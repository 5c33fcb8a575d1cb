"""Records of ``vadis classify`` against a split: which record is whose, and what they cannot tell."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.matching import containing
from vadis import formats
from vadis.datasets import Dataset, Example
from vadis.errors import UsageError
from vadis.evaluation.metrics import Ranking
from vadis.evaluation.records import Matched, match, read_records
from vadis.results import Label, VideoResult

CLASSES = ("run", "jump", "sit", "walk", "swim", "climb")
EXAMPLES = (Example("/data/ucf/run/a.mp4", "run"), Example("/data/ucf/jump/b.mp4", "jump"))
DATASET = Dataset("folder", "/data/ucf", CLASSES, 1, {"test": EXAMPLES})


def record(path: str, *labels: str, model: str = "m", streams: tuple[str, ...] = ("rgb", "flow")) -> VideoResult:
    scores = tuple(Label(label, 0.1) for label in labels)
    return VideoResult(path, "ok", model=model, model_sha256=f"{model}00", streams=streams, labels=scores)


def matched(folder: Path, *results: VideoResult, dataset: Dataset = DATASET) -> Matched:
    file = folder / "results.jsonl"
    file.write_text("".join(formats.jsonl(results)))
    return match(read_records([file]).records, dataset, dataset.examples("test"))


FIVE = ("run", "jump", "sit", "walk", "swim")


@pytest.mark.parametrize("name", ["/data/ucf/run/a.mp4", "run/a.mp4", "/other/ucf/run/a.mp4", "ucf/../ucf/run/a.mp4"])
def test_a_path_may_be_absolute_or_below_the_dataset_or_that_of_a_dataset_that_has_moved(
    tmp_path: Path, name: str
) -> None:
    found = matched(tmp_path, record(name, *FIVE), record("/data/ucf/jump/b.mp4", *FIVE))
    assert found.rankings == (Ranking("run", FIVE), Ranking("jump", FIVE))
    assert (found.missing, found.outside, found.column, found.is_top5_known) == ((), 0, "both", True)


def test_a_path_is_taken_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    example = Example("clips/run/a.mp4", "run")
    dataset = Dataset("folder", "clips", CLASSES, 1, {"test": (example,)})
    assert matched(tmp_path, record("./clips/run/a.mp4", *FIVE), dataset=dataset).missing == ()
    assert matched(tmp_path, record(f"{tmp_path}/clips/run/a.mp4", *FIVE), dataset=dataset).missing == ()


def test_another_datasets_file_of_the_same_name_is_none_of_ours(tmp_path: Path) -> None:
    found = matched(tmp_path, record("/data/hmdb/run/a.mp4", *FIVE), record("jump/b.mp4", *FIVE))
    assert (found.missing, found.outside) == (("/data/ucf/run/a.mp4",), 1)
    with pytest.raises(UsageError, match=containing("/data")):
        matched(tmp_path, record("/data/hmdb/run/a.mp4", *FIVE))


def test_records_of_different_files_for_one_example_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=containing(1, "/x/ucf/", "/y/ucf/")):
        matched(tmp_path, record("/x/ucf/run/a.mp4", *FIVE), record("/y/ucf/run/a.mp4", *FIVE))


def test_a_record_of_two_examples_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inner, outer = Example(f"{tmp_path}/a/a/1.mp4", "run"), Example(f"{tmp_path}/a/1.mp4", "jump")
    dataset = Dataset("folder", f"{tmp_path}/a", CLASSES, 1, {"test": (inner, outer)})
    with pytest.raises(UsageError, match=containing(1, "a/1.mp4")):
        matched(tmp_path, record("a/1.mp4", *FIVE), dataset=dataset)


def test_the_last_record_of_a_video_counts(tmp_path: Path) -> None:
    failed = VideoResult("run/a.mp4", "error", error_code="io_error", error_message="the disk")
    found = matched(tmp_path, failed, record("/data/ucf/run/a.mp4", *FIVE), record("jump/b.mp4", *FIVE))
    assert (found.failed, found.repeated) == ({}, 1)
    found = matched(tmp_path, record("run/a.mp4", *FIVE), record("jump/b.mp4", *FIVE), failed)
    assert found.failed == {"/data/ucf/run/a.mp4": "io_error: the disk"}
    assert found.rankings[0] == Ranking("run", ())


def test_a_video_without_a_label_above_the_threshold_is_wrong(tmp_path: Path) -> None:
    found = matched(tmp_path, record("run/a.mp4"), record("jump/b.mp4", *FIVE))
    assert found.failed == {"/data/ucf/run/a.mp4": "no label: all were below the threshold"}
    assert not found.is_top5_known


def test_labels_that_are_no_class(tmp_path: Path) -> None:
    found = matched(tmp_path, record("run/a.mp4", "fly", *FIVE), record("jump/b.mp4", *FIVE))
    assert found.strange == {"fly": 1}
    with pytest.raises(UsageError, match=containing("fly")):
        matched(tmp_path, record("run/a.mp4", "fly"), record("jump/b.mp4", "fly"))


def test_five_labels_or_all_classes_tell_top_5(tmp_path: Path) -> None:
    few = (record("run/a.mp4", "run", "jump"), record("jump/b.mp4", "run", "jump"))
    assert not matched(tmp_path, *few).is_top5_known
    assert matched(tmp_path, *few, dataset=replace(DATASET, classes=("run", "jump"))).is_top5_known


def test_records_by_two_models_or_streams_are_refused(tmp_path: Path) -> None:
    for other in (record("jump/b.mp4", *FIVE, model="n"), record("jump/b.mp4", *FIVE, streams=("rgb",))):
        with pytest.raises(UsageError, match=containing("m", other.model if other.model != "m" else "rgb")):
            matched(tmp_path, record("run/a.mp4", *FIVE), other)
    alone = replace(record("jump/b.mp4", *FIVE, streams=("rgb",)), flags=("no_flow",))
    assert matched(tmp_path, record("run/a.mp4", *FIVE), alone).streams == ("rgb", "flow")


def test_parts_of_files_have_no_records(tmp_path: Path) -> None:
    parts = Example("/data/ucf/run/a.mp4", "run", 0.0, 10.0)
    with pytest.raises(UsageError, match=containing(1, "a.mp4")):
        matched(tmp_path, record("run/a.mp4", *FIVE), dataset=replace(DATASET, splits={"test": (parts,)}))


@pytest.mark.parametrize(("seconds", "is_whole"), [(10.0, True), (300.0, True), (450.0, False)])
def test_a_clip_that_is_cut_already_has_a_record(tmp_path: Path, seconds: float, is_whole: bool) -> None:
    clip = Example("/data/ucf/run/a.mp4", "run", 417.0, 427.0, may_be_trimmed=True)
    results, dataset = record("run/a.mp4", *FIVE), replace(DATASET, splits={"test": (clip,)})
    results = replace(results, duration_seconds=seconds)
    if is_whole:
        assert matched(tmp_path, results, dataset=dataset).rankings == (Ranking("run", FIVE),)
    else:
        with pytest.raises(UsageError, match=containing(1, "a.mp4")):
            matched(tmp_path, results, dataset=dataset)


def test_a_name_that_is_not_utf8_is_found(tmp_path: Path) -> None:
    path = os.fsdecode(b"/data/ucf/run/\xff.mp4")
    dataset = replace(DATASET, splits={"test": (Example(path, "run"),)})
    assert matched(tmp_path, record(path, *FIVE), dataset=dataset).missing == ()


def test_a_folder_of_one_file_per_video(tmp_path: Path) -> None:
    (tmp_path / "out" / "run").mkdir(parents=True)
    (tmp_path / "out" / "run" / "a.mp4.jsonl").write_text("".join(formats.jsonl([record("run/a.mp4", *FIVE)])))
    (tmp_path / "out" / "b.mp4.json").write_text("".join(formats.json([record("jump/b.mp4", *FIVE)])))
    (tmp_path / "out" / "notes.txt").write_text("x")
    assert [each.path for each in read_records([tmp_path / "out"]).records] == ["jump/b.mp4", "run/a.mp4"]


def test_a_torn_last_line_is_left_out_and_named(tmp_path: Path) -> None:
    text = "".join(formats.jsonl([record("run/a.mp4", *FIVE), record("jump/b.mp4", *FIVE)]))
    (tmp_path / "torn.jsonl").write_text(text[:-20])
    found = read_records([tmp_path / "torn.jsonl"])
    assert ([each.path for each in found.records], found.torn) == (["run/a.mp4"], [str(tmp_path / "torn.jsonl")])


def test_skipped_videos_have_no_record(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(VideoResult("run/a.mp4", "skipped").to_json_line() + "\n")
    assert read_records([tmp_path / "a.jsonl"]).records == []


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (json.dumps({**record("a").to_json(), "path_b64": "!"}) + "\n", "line 1"),
        ("half a line", "line 1"),
        ("{torn\n{}\n", "line 1"),
        (json.dumps({"dataset": "ucf101"}) + "\n", "line 1"),
        ("3\n", "line 1"),
        ('[{"status": "ok"}]', "record 1"),
        ("[1, 2", "JSON"),
    ],
)
def test_what_is_no_record_is_named(tmp_path: Path, content: str, fact: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(UsageError, match=containing(fact)):
        read_records([tmp_path / "a.jsonl"])


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=containing("nothing.jsonl", "No such file")):
        read_records([tmp_path / "nothing.jsonl"])
    with pytest.raises(UsageError, match=containing(tmp_path)):
        read_records([tmp_path])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "answers.jsonl").write_text("")
    with pytest.raises(UsageError, match=containing(tmp_path)):
        read_records([tmp_path])
