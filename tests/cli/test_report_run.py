"""``vadis report RUN`` and ``vadis flow VIDEO -o VIDEO``: from the command line."""

from pathlib import Path

import pytest

from tests.synthetic import write_video
from tests.trained_run import write_trained
from vadis.video.reader import open_source


def test_a_run_has_its_page_in_its_folder_and_a_newer_one_takes_its_place(run_vadis, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_trained(Path("run"), "i3d", "folder", {"rgb": 700, "flow": 650, "both": 800})
    for _ in range(2):
        ended = run_vadis("report", "run")
        assert (ended.code, ended.out, ended.err) == (0, "run/report.html\n", "")
    assert "<h1>run</h1>" in Path("run/report.html").read_text()
    assert run_vadis("report", "run", "-o", "page.html").code == 0
    assert run_vadis("report", "run", "-o", "page.html").code == 2


def test_the_flow_of_a_video_is_a_video(run_vadis, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video("a.mp4", num_frames=4)
    ended = run_vadis("flow", "a.mp4", "-o", "flow.mp4", "--device", "cpu")
    assert (ended.code, ended.out, ended.err) == (0, "flow.mp4\n", "4 frames\n")
    with open_source("flow.mp4") as video:
        assert video.size == (768, 256)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.mp4", "b.mp4", "-o", "flow.mp4"], "flow.mp4"),
        ([".", "-o", "flow.mp4"], "flow.mp4"),
        (["a.mp4", "-o", "b.mp4"], "--overwrite"),
        (["a.mp4", "-o", "a.mp4", "--overwrite"], "-o"),
    ],
)
def test_a_flow_video_that_cannot_be_is_refused(run_vadis, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "b.mp4"):
        write_video(name, num_frames=2)
    ended = run_vadis("flow", *arguments)
    assert ended.code == 2 and said in " ".join(ended.err.split())
    assert not Path("flow.mp4").exists()
