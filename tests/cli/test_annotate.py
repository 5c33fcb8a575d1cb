"""``vadis annotate``: labels from a file or from a model, and what is refused."""

from pathlib import Path

import pytest

from tests.report.conftest import labelled, write_results
from tests.synthetic import write_video
from vadis.results import VideoResult
from vadis.video.reader import open_source


@pytest.fixture
def video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    broken = VideoResult("broken.mp4", "error", error_code="empty_file", error_message="nothing in it")
    one, other = labelled("a.mp4", [("archery", 0.9)]), labelled("deep/a.mp4", [("bowling", 0.9)])
    write_results(Path("results.jsonl"), one, other, labelled("moved/b.mp4", [("bowling", 0.9)]), broken)
    for name in ("b.mp4", "broken.mp4", "c.mp4"):
        write_video(Path(name), num_frames=5)
    return write_video(Path("a.mp4"), num_frames=10)


def test_labels_are_taken_from_results(run_vadis, video):
    ended = run_vadis("annotate", video, "--results", "results.jsonl", "-o", "seen.mp4")
    assert (ended.code, ended.out, ended.err) == (0, "seen.mp4\n", "10 frames\n")
    with open_source("seen.mp4") as seen:
        assert len(list(seen.source_frames())) == 10
    assert run_vadis("annotate", "b.mp4", "--results", "results.jsonl", "-o", "moved.mp4").code == 0


def test_labels_are_found_by_the_model_otherwise(run_vadis, video, road, monkeypatch):
    monkeypatch.setattr(
        "vadis.inference.classify.classify", lambda path, model, **options: labelled(path, [("archery", 0.9)])
    )
    assert run_vadis("annotate", video, "-o", "seen.mp4", "--model", "mine").code == 0
    assert road.options["model"] == "mine"


def test_a_part_may_be_annotated(run_vadis, video):
    command = ("annotate", video, "--results", "results.jsonl", "--start", "0.2", "--end", "1:00")
    ended = run_vadis(*command, "-o", "seen.mp4")
    assert (ended.code, ended.err) == (0, "5 frames\n")
    assert run_vadis("annotate", video, "--results", "results.jsonl", "--start", "3", "-o", "late.mp4").code == 3
    assert run_vadis(*command[:4], "--start", "3", "--end", "2", "-o", "late.mp4").code == 2


@pytest.mark.slow
def test_a_part_of_a_video_is_annotated_and_told(run_vadis, video):
    whole = write_video(Path("whole.ts"), num_frames=60, codec="mpeg2video")
    content = whole.read_bytes()
    Path("b.mp4").write_bytes(content[: len(content) // 2 + 7])
    for command in (("annotate", "b.mp4", "--results", "results.jsonl"), ("flow", "b.mp4", "--device", "cpu")):
        ended = run_vadis(*command, "-o", f"{command[0]}.mp4")
        assert (ended.code, ended.out) == (3, f"{command[0]}.mp4\n")
        assert "b.mp4" in ended.err and "partial" in ended.err
        with open_source(f"{command[0]}.mp4") as seen:
            assert 0 < len(list(seen.source_frames())) < 60


def test_a_missing_video_is_said_before_a_model_is_loaded(run_vadis, video, road):
    assert run_vadis("annotate", "gone.mp4", "-o", "b.mp4", "--overwrite").code == 3
    assert road.calls == []


@pytest.mark.parametrize("option", [("--model", "mine"), ("--device", "cpu"), ("--streams", "rgb")])
def test_options_that_would_not_be_heeded_are_refused(run_vadis, video, option):
    ended = run_vadis("annotate", "a.mp4", "--results", "results.jsonl", "-o", "seen.mp4", *option)
    assert (ended.code, option[0] in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["a.mp4", "-o", "a.avi"], 2, ".mp4"),
        (["a.mp4", "-o", "b.mp4"], 2, "--overwrite"),
        (["a.mp4", "-o", "a.mp4", "--overwrite"], 2, "-o"),
        (["c.mp4", "-o", "seen.mp4"], 2, "c.mp4"),
        (["broken.mp4", "-o", "seen.mp4"], 3, "nothing in it"),
        (["gone.mp4", "-o", "seen.mp4"], 2, "gone.mp4"),
    ],
)
def test_what_cannot_be_is_said(run_vadis, video, arguments, code, said):
    ended = run_vadis("annotate", *arguments, "--results", "results.jsonl")
    assert ended.code == code
    assert said in " ".join(ended.err.split())
    assert "Traceback" not in ended.err and not Path("seen.mp4").exists()
