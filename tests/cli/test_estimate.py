"""``vadis classify --dry-run``: counts, lengths, and a time that a probe gives; nothing is written."""

import re

import pytest

from tests.make_model import make_model
from tests.synthetic import write_video


@pytest.fixture
def archive(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "archive").mkdir()
    for name, frames in (("a.mp4", 50), ("b.mp4", 100)):
        write_video(tmp_path / "archive" / name, num_frames=frames)
    (tmp_path / "archive" / "bad.mp4").write_text("Dear Sir")
    make_model(tmp_path / "m.safetensors", width=1 / 64, classes=3, streams=("rgb",))
    return tmp_path / "archive"


def test_an_estimate_is_printed_and_nothing_written(archive, run_vadis):
    ended = run_vadis("classify", archive, "--dry-run", "-m", "m.safetensors", "--device", "cpu", "-o", "labels.jsonl")
    assert ended.code == 0, ended.err
    assert re.match(r"[23] videos, 0:0[69] in all.*takes about 0:\d\d here", ended.out)
    assert not (archive.parent / "labels.jsonl").exists()


def test_where_nothing_can_be_read_there_is_no_estimate(archive, run_vadis):
    (archive / "a.mp4").unlink()
    (archive / "b.mp4").unlink()
    assert run_vadis("classify", archive, "--dry-run", "-m", "m.safetensors", "--device", "cpu").code == 4


def test_the_longest_may_be_damaged_and_what_cannot_be_is_refused(archive, run_vadis):
    long = write_video(archive / "c.mkv", num_frames=200)
    content = bytearray(long.read_bytes())
    content[len(content) // 20 : -2000] = bytes(len(content[len(content) // 20 : -2000]))
    long.write_bytes(content)
    how = ("--dry-run", "-m", "m.safetensors", "--device", "cpu")
    assert run_vadis("classify", archive, *how, "--window", 16, "--flip").code == 0
    assert run_vadis("classify", archive, *how, "--window", 3).code == 2
    assert run_vadis("classify", archive, *how, "--ray").code == 2


def test_videos_that_tell_no_length_are_not_0_seconds(archive, run_vadis):
    for path in archive.iterdir():
        path.unlink()
    write_video(archive / "a.h264", num_frames=30, codec="libx264")
    ended = run_vadis("classify", archive, "--dry-run", "-m", "m.safetensors", "--device", "cpu")
    assert ended.code == 4 or "0:00 in all" not in ended.out


def test_of_a_part_only_that_is_counted(archive, run_vadis):
    (archive / "bad.mp4").unlink()
    command = ("classify", archive, "--dry-run", "-m", "m.safetensors", "--device", "cpu", "--start")
    assert re.match(r"2 videos, 0:04 in all", run_vadis(*command, "0:01").out)
    assert re.match(r"2 videos, 0:02 in all", run_vadis(*command, "3", "--end", "5").out) is None
    assert run_vadis(*command, "1:00").code == 4
