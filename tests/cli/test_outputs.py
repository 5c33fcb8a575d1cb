"""Where records go: whole or not at all, below the folder given, and never onto each other."""

import os
import stat
from pathlib import Path

import pytest

from tests.fake_road import result
from tests.matching import containing
from vadis.cli import outputs
from vadis.errors import UsageError, VadisError
from vadis.formats import FORMATS


@pytest.mark.parametrize("old", [None, "old"])
def test_any_other_file_appears_only_when_it_is_whole(tmp_path, old):
    out = tmp_path / "out.csv"
    if old:
        out.write_text(old)

    def results():
        yield result("a.mp4")
        assert (out.read_text() if out.exists() else None) == old
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        outputs.write_document(out, FORMATS["csv"], results())
    assert (out.read_text() if out.exists() else None) == old
    assert list(tmp_path.iterdir()) == ([out] if old else [])


def test_files_have_the_permissions_of_ordinary_files(tmp_path):
    before = os.umask(0o027)
    try:
        for name in ("jsonl", "csv"):
            outputs.write_document(tmp_path / name, FORMATS[name], [result("a.mp4")])
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("inputs", "videos", "root"),
    [
        (["clips"], ["clips/a.mp4", "clips/x/b.mp4"], "clips"),
        (["clips/x"], ["clips/x/y/a.mp4"], "clips/x"),
        (["a.mp4"], ["a.mp4"], "."),
        (["clips/a.mp4", "other/x/b.mp4"], ["clips/a.mp4", "other/x/b.mp4"], "."),
        (["clips", "other"], ["clips/a.mp4", "other/b.mp4"], "."),
        (["../outside.mp4", "clips"], ["../outside.mp4", "clips/a.mp4"], ".."),
    ],
)
def test_the_root_of_the_tree_holds_all_inputs(tmp_path, monkeypatch, inputs, videos, root):
    work = tmp_path / "work"
    for folder in ("clips/x/y", "other/x"):
        (work / folder).mkdir(parents=True)
    monkeypatch.chdir(work)
    assert outputs.tree_root(inputs, videos) == os.path.normpath(work / root)
    targets = {outputs.mirror_path(work / "out", outputs.tree_root(inputs, videos), "srt", video) for video in videos}
    assert len(targets) == len(videos)
    assert all(target.resolve().is_relative_to(work / "out") for target in targets)


def test_equal_stems_do_not_meet_and_others_stand_where_players_look(tmp_path):
    videos = [f"/videos/{name}" for name in ("a.mp4", "a.mkv", "x/a.mp4")]
    srt, json = (outputs.DocumentFolder(tmp_path, "/videos", FORMATS[name], videos) for name in ("srt", "json"))
    assert list(map(srt.target, videos)) == [tmp_path / "a.mp4.srt", tmp_path / "a.mkv.srt", tmp_path / "x" / "a.srt"]
    assert json.target(videos[2]) == tmp_path / "x" / "a.mp4.json"


def test_nothing_is_written_outside_the_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path)
    with pytest.raises(VadisError, match=containing("/a.mp4")):
        outputs.mirror_path(tmp_path / "out", "/videos", "srt", "/videos/link/a.mp4")
    with pytest.raises(VadisError, match=containing("/a.mp4")):
        outputs.mirror_path(tmp_path / "out", "/videos", "srt", "/elsewhere/a.mp4")


@pytest.mark.parametrize("name", ["é" * 120 + ".mp4", "x" * 251 + ".mp4", os.fsdecode(b"\xff" * 250) + ".mp4"])
def test_names_too_long_for_another_extension_are_shortened(tmp_path, name):
    target = outputs.mirror_path(tmp_path, "/videos", "jsonl", f"/videos/{name}")
    outputs.write_document(target, FORMATS["json"], [result("a.mp4")])
    assert target.is_file() and target.suffix == ".jsonl"
    assert target != outputs.mirror_path(tmp_path, "/videos", "jsonl", f"/videos/x{name}")


def test_a_disk_that_refuses_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    folder = outputs.DocumentFolder(tmp_path / "file", "/", FORMATS["json"], [])
    with pytest.raises(VadisError, match=containing("file/a.mp4.json")):
        folder.write([result("/a.mp4")])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    for check in (
        lambda: outputs.check_file(tmp_path / "a.csv", False),
        lambda: outputs.new_folder(tmp_path).__enter__(),
    ):
        with pytest.raises(UsageError, match=containing(tmp_path)):
            check()


def test_a_device_is_no_file_to_overwrite():
    outputs.check_file(Path(os.devnull), overwrite=False)
    outputs.write_document(Path(os.devnull), FORMATS["csv"], [result("a.mp4")])
    assert not Path(os.devnull).is_file()
