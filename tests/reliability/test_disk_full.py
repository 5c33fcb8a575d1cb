"""A full disk, at every place that ``classify`` writes: said with its name, exit 1, what is there stays whole.

A limit on the size of files (``ulimit -f``) stands in for the disk: the write that crosses it is cut short and the next
is refused, as on a full disk, and nobody has to be root.
"""

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_road import result
from tests.reliability.program import ROOT, fake_batch, records
from tests.synthetic import write_video

NUM_VIDEOS = 40


def run_limited(num_bytes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.fake_road", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY)),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    return fake_batch(tmp_path / "videos", NUM_VIDEOS).videos


def check_refused(done: subprocess.CompletedProcess[str], named: str) -> None:
    assert (done.returncode, named in done.stderr) == (1, True), done.stderr
    assert "Traceback" not in done.stderr and "bug" not in done.stderr
    assert "not done" in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("num_bytes", [0, 100, 300, 1000, 5000, 20_000])
def test_the_journal_keeps_whole_lines_and_the_same_command_goes_on(videos, tmp_path, num_bytes):
    out = tmp_path / "out.jsonl"
    done = run_limited(num_bytes, "classify", videos, "-o", out)
    assert (done.returncode, "out.jsonl" in done.stderr) == (1, True), done.stderr
    assert "Traceback" not in done.stderr
    left = out.read_bytes() if out.exists() else b""
    assert len(left) <= num_bytes and (not left or left.endswith(b"\n"))
    assert run_limited(10**9, "classify", videos, "-o", out).returncode == 3
    assert run_limited(10**9, "classify", videos, "-o", tmp_path / "undisturbed.jsonl").returncode == 3
    assert out.read_bytes() == (tmp_path / "undisturbed.jsonl").read_bytes()


@pytest.mark.parametrize("name", ["csv", "json"])
@pytest.mark.parametrize("num_bytes", [0, 1000])
def test_a_document_that_has_no_room_leaves_the_old_one(videos, tmp_path, name, num_bytes):
    out = tmp_path / f"out.{name}"
    out.write_text("old")
    done = run_limited(num_bytes, "classify", videos, "-o", out, "--overwrite")
    assert (done.returncode, f"out.{name}" in done.stderr, "Traceback" in done.stderr) == (1, True, False), done.stderr
    assert out.read_text() == "old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [f"out.{name}", "videos"]


@pytest.mark.slow
def test_a_folder_of_documents_goes_on(videos, tmp_path):
    out = tmp_path / "out"
    done = run_limited(3000, "classify", videos, "--output-dir", out, "-f", "srt")
    check_refused(done, "vadis-results.jsonl")
    assert run_limited(10**9, "classify", videos, "--output-dir", out, "-f", "srt").returncode == 3
    assert len(records(out / "vadis-results.jsonl")) == NUM_VIDEOS
    assert len(list(out.glob("*.srt"))) == NUM_VIDEOS * 9 // 10


@pytest.mark.slow
def test_replacing_old_records_keeps_all_of_them(videos, tmp_path):
    """At the end of a run that did videos anew, the file is written once more without their old records."""
    out = tmp_path / "out.jsonl"
    run_limited(10**9, "classify", videos, "-o", out)
    for video in list(videos.iterdir())[:3]:
        video.write_bytes(b"another film")
    size = out.stat().st_size
    done = run_limited(size + 4000, "classify", videos, "-o", out)
    assert done.returncode == 3, "there was room for both"
    for video in list(videos.iterdir())[:3]:
        video.write_bytes(b"a third film")
    done = run_limited(size + 600, "classify", videos, "-o", out)
    check_refused(done, "out.jsonl")
    assert run_limited(10**9, "classify", videos, "-o", out).returncode == 3
    assert sorted(record["path"] for record in records(out)) == sorted(map(str, videos.iterdir()))


def test_a_summary_without_room_is_told(videos, tmp_path):
    done = run_limited(100, "classify", videos, "-f", "csv", "--summary", tmp_path / "summary.json")
    assert (done.returncode, "summary.json" in done.stderr) == (1, True), done.stderr
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.slow
def test_an_export_without_room_is_told(videos, tmp_path):
    out = tmp_path / "out.jsonl"
    run_limited(10**9, "classify", videos, "-o", out)
    for more in (["-o", tmp_path / "out.csv"], ["--output-dir", tmp_path / "documents", "-f", "json"]):
        done = run_limited(200, "export", out, *more)
        assert (done.returncode, os.strerror(errno.EFBIG) in done.stderr) == (1, True), done.stderr
    assert not (tmp_path / "out.csv").exists()
    assert [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("num_bytes", [0, 300])
@pytest.mark.parametrize("name", ["seen.mp4", "seen.mkv"])
def test_a_video_without_room_is_told_by_the_disk_and_not_by_its_sound(tmp_path, num_bytes, name):
    video = write_video(tmp_path / "a.mp4", num_frames=10, size=(160, 90), audio=True)
    record = result(str(video)).to_json_line()
    (tmp_path / "results.jsonl").write_text(record + "\n")
    done = run_limited(num_bytes, "annotate", video, "--results", tmp_path / "results.jsonl", "-o", tmp_path / name)
    assert done.returncode == 1, done.stderr
    assert name in done.stderr and os.strerror(errno.EFBIG) in done.stderr and "ulimit -f" in done.stderr
    assert not list(tmp_path.glob(f"{name}*"))
