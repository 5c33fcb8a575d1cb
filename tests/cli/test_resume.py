"""The same command again: what is done, what is done anew, what is refused (the road faked, see conftest)."""

import json
import os
import re

import pytest

from vadis.batch import open_journal
from vadis.cli import run as run_module


@pytest.fixture
def clips(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    for name in ("a.mp4", "bad.mp4", "c.mp4", "cut.mp4"):
        (tmp_path / "clips" / name).write_bytes(b"not looked at")
    return tmp_path / "clips"


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


@pytest.fixture
def asked(road, monkeypatch):
    """The paths that the faked road was asked to label, by run."""
    from vadis.inference import classify

    runs, labelled = [], classify.label_videos

    def label_videos(paths, options, **more):
        runs.append([])

        def noted():
            for path in paths:
                runs[-1].append(os.path.basename(path))  # noqa: PTH119
                yield path

        return labelled(noted(), options, **more)

    monkeypatch.setattr("vadis.inference.classify.label_videos", label_videos)
    return runs


def test_the_same_command_again_does_nothing_again(clips, asked, run_vadis):
    first = run_vadis("classify", "clips", "-o", "out.jsonl")
    before = (clips.parent / "out.jsonl").read_bytes()
    again = run_vadis("classify", "clips", "-o", "out.jsonl")
    assert asked == [["a.mp4", "bad.mp4", "c.mp4", "cut.mp4"], []]
    assert (first.code, again.code) == (3, 3)
    assert re.search(r"^2 ok, 1 partial, 1 failed\b.*\b4\b", again.err.splitlines()[-1])
    assert (clips.parent / "out.jsonl").read_bytes() == before


def test_only_what_is_missing_new_or_changed_is_done(clips, asked, run_vadis):
    run_vadis("classify", "clips", "-o", "out.jsonl")
    out = clips.parent / "out.jsonl"
    out.write_bytes(b"".join(out.read_bytes().splitlines(keepends=True)[:-1]) + b'{"schema": 2, "pa')
    (clips / "a.mp4").write_bytes(b"another film altogether")
    (clips / "new.mp4").write_bytes(b"x")
    run_vadis("classify", "clips", "-o", "out.jsonl")
    assert asked[1] == ["a.mp4", "cut.mp4", "new.mp4"]
    names = ["clips/a.mp4", "clips/bad.mp4", "clips/c.mp4", "clips/cut.mp4", "clips/new.mp4"]
    assert [record["path"] for record in records(out)] == names
    assert records(out)[0]["source_bytes"] == len(b"another film altogether")


def test_a_time_of_change_in_the_future_is_as_good_as_any(clips, asked, run_vadis):
    os.utime(clips / "a.mp4", ns=(0, 2**62))
    os.utime(clips / "c.mp4", ns=(0, -(10**18) - 1))
    for _ in range(2):
        run_vadis("classify", "clips", "-o", "out.jsonl")
    assert asked[1] == []


def test_failed_videos_are_tried_again_only_when_asked(clips, asked, run_vadis):
    run_vadis("classify", "clips", "-o", "out.jsonl")
    ended = run_vadis("classify", "clips", "-o", "out.jsonl", "--retry-failed")
    assert asked[1] == ["bad.mp4"]
    assert (ended.code, len(records(clips.parent / "out.jsonl"))) == (3, 4)


def test_errors_of_a_moment_are_tried_again_unasked(clips, asked, run_vadis):
    (clips / "lost.mp4").write_bytes(b"x")
    for _ in range(2):
        run_vadis("classify", "clips", "gone.mp4", "-o", "out.jsonl")
    assert asked[1] == ["lost.mp4"]
    assert [record["path"] for record in records(clips.parent / "out.jsonl")][-2:] == ["clips/lost.mp4", "gone.mp4"]
    (clips.parent / "gone.mp4").write_bytes(b"back again")
    run_vadis("classify", "clips", "gone.mp4", "-o", "out.jsonl")
    assert asked[2] == ["lost.mp4", "gone.mp4"]
    assert records(clips.parent / "out.jsonl")[-1]["status"] == "ok"


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (["-k", "3"], "top_k was 5, is 3"),
        (["--flip"], "flip was False, is True"),
        (["--threshold", "0.5"], "threshold was 0.0, is 0.5"),
        (["--strict"], "strict was False, is True"),
        (["--segment", "0.64"], "sliding was"),
        (["--streams", "rgb"], "streams was ['rgb', 'flow'], is ['rgb']"),
    ],
)
def test_other_settings_are_refused_and_nothing_is_touched(clips, asked, run_vadis, options, difference):
    run_vadis("classify", "clips", "-o", "out.jsonl")
    before = (clips.parent / "out.jsonl").read_bytes()
    ended = run_vadis("classify", "clips", "-o", "out.jsonl", *options)
    assert (ended.code, difference in ended.err) == (2, True), ended.err
    assert (clips.parent / "out.jsonl").read_bytes() == before
    assert run_vadis("classify", "clips", "-o", "out.jsonl", "--overwrite", *options).code == 3


def test_another_model_is_refused(clips, asked, run_vadis, monkeypatch):
    from tests.fake_road import FakeModel

    run_vadis("classify", "clips", "-o", "out.jsonl")
    monkeypatch.setattr("vadis.weights.load.load_model", lambda *args, **options: FakeModel(sha256="00" * 32))
    ended = run_vadis("classify", "clips", "-o", "out.jsonl")
    assert (ended.code, "model_sha256" in ended.err) == (2, True)


def test_other_versions_go_on_and_that_is_said(clips, asked, run_vadis):
    run_vadis("classify", "clips", "-o", "out.jsonl")
    out = clips.parent / "out.jsonl"
    out.write_text(out.read_text().replace('"vadis": "', '"vadis": "0.0.', 1))
    ended = run_vadis("classify", "clips", "-o", "out.jsonl")
    assert (ended.code, "vadis was 0.0.0" in ended.err) == (3, True)


def test_a_file_that_is_no_journal_is_refused(clips, asked, run_vadis):
    out = clips.parent / "out.jsonl"
    out.write_text(run_vadis("classify", "clips", "-f", "jsonl").out)
    ended = run_vadis("classify", "clips", "-o", out)
    assert (ended.code, "--overwrite" in ended.err) == (2, True)
    assert len(asked) == 1


def test_a_second_run_on_the_same_output_is_5(clips, asked, run_vadis):
    with open_journal(clips.parent / "out.jsonl"):
        ended = run_vadis("classify", "clips", "-o", "out.jsonl")
    assert (ended.code, str(os.getpid()) in ended.err) == (5, True)
    assert asked == []


def test_an_output_folder_goes_on_and_makes_documents_of_what_it_knows(clips, asked, run_vadis):
    out = clips.parent / "out"
    run_vadis("classify", "clips", "-f", "srt", "--output-dir", "out")
    (out / "a.srt").unlink()
    (clips / "new.mp4").write_bytes(b"x")
    run_vadis("classify", "clips", "-f", "srt", "--output-dir", "out")
    run_vadis("classify", "clips", "-f", "csv", "--output-dir", "out")
    assert asked[1:] == [["new.mp4"], []]
    assert (out / "a.srt").read_text().startswith("1\n00:00:00,000")
    made = sorted(path.name for path in out.iterdir())
    assert [name for name in made if name.endswith("csv")] == [
        f"{name}.mp4.csv" for name in ("a", "bad", "c", "cut", "new")
    ]


def test_shards_have_files_of_their_own_and_together_all_videos(clips, asked, run_vadis):
    for number in (1, 2):
        ended = run_vadis("classify", "clips", "-o", "out.jsonl", "--shard", f"{number}/2")
        assert ended.err.startswith(f"shard {number}/2: ")
    files = [clips.parent / f"out.shard-{number}-of-2.jsonl" for number in (1, 2)]
    assert sorted(record["path"] for file in files for record in records(file)) == sorted(
        f"clips/{path.name}" for path in clips.iterdir()
    )
    assert not (clips.parent / "out.jsonl").exists()
    ended = run_vadis("export", *files, "-f", "csv")
    assert (ended.code, re.findall(r"\d+", ended.err)) == (3, ["4", "1"])


def test_shards_share_a_folder_of_documents(clips, asked, run_vadis):
    for number in range(8):
        (clips / f"{number}.mp4").write_bytes(b"x")
    for number in (1, 2):
        ended = run_vadis("classify", "clips", "-f", "csv", "--output-dir", "out", "--shard", f"{number}/2")
        assert ended.code in (0, 3), ended.err
    assert all(asked), "there was something to do for both"
    documents = sorted(path.name for path in (clips.parent / "out").glob("*.csv"))
    assert documents == sorted(f"{path.name}.csv" for path in clips.iterdir())


def test_strict_takes_no_part_for_the_whole(clips, asked, run_vadis):
    ended = run_vadis("classify", "clips", "-o", "out.jsonl", "--strict")
    assert ended.err.splitlines()[-1] == "2 ok, 2 failed"
    record = records(clips.parent / "out.jsonl")[-1]
    assert (record["status"], record["error"]["code"]) == ("error", "truncated_or_incomplete")
    assert (record["frames_decoded"], record["frames_declared"]) == (128, 200)


def test_the_summary_is_written_whatever_the_end(clips, asked, run_vadis):
    (clips / "full.mp4").write_bytes(b"x")
    ended = run_vadis("classify", "clips", "-o", "out.jsonl", "--summary", "summary.json")
    assert ended.err.splitlines()[-1].startswith("2 ok, 1 partial, 1 failed, 1 not done")
    summary = json.loads((clips.parent / "summary.json").read_text())
    assert (summary["records"]["ok"], summary["errors"], summary["exit_code"]) == (2, {"no_frames": 1}, 1)


def test_a_disk_that_has_gone_ends_the_run_instead_of_failing_every_video(clips, asked, run_vadis, monkeypatch):
    monkeypatch.setattr(run_module, "MOST_UNREADABLE", 3)
    for number in range(10):
        (clips / f"lost{number}.mp4").write_bytes(b"x")
    ended = run_vadis("classify", "clips", "-o", "out.jsonl")
    assert (ended.code, "last 3 videos" in ended.err) == (1, True)
    assert len(records(clips.parent / "out.jsonl")) == 4 + 3
    run_vadis("classify", "clips", "-o", "out.jsonl")
    assert asked[1] == [f"lost{number}.mp4" for number in range(3)], "they are tried again when the disk is back"
