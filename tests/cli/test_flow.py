"""``vadis flow`` on small videos, with flow that costs nothing."""

import json
import re

import av
import numpy as np
import pytest

from tests.flow.conftest import cheap_flow
from tests.matching import containing
from tests.synthetic import write_video
from vadis.flow.store import FLOW_SETTINGS, FlowStore


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """A folder with two videos to stand beside."""
    monkeypatch.setattr(
        "vadis.flow.store.with_flow", lambda chunks, *rest: ((frames, cheap_flow(frames)) for frames in chunks)
    )
    (tmp_path / "clips" / "deep").mkdir(parents=True)
    write_video(tmp_path / "clips" / "a.mp4", num_frames=20, seed=1)
    write_video(tmp_path / "clips" / "deep" / "b.mp4", num_frames=30, seed=2)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "clips"


def test_a_folder_into_a_store(run_vadis, clips):
    ended = run_vadis("flow", "clips", "-o", "store", "--device", "cpu")
    assert (ended.code, ended.out) == (0, "")
    assert re.search(containing(2, "cpu"), ended.err)
    assert "MB" in ended.err
    assert ended.err.splitlines()[-1] == "2 ok"
    store = FlowStore("store")
    assert [store.num_frames(path) for path in (clips / "a.mp4", clips / "deep" / "b.mp4")] == [20, 30]


@pytest.mark.slow
def test_again_it_has_nothing_to_do(run_vadis, clips):
    run_vadis("flow", "clips", "-o", "store", "--device", "cpu")
    write_video(clips / "c.mp4", num_frames=10, seed=3)
    assert run_vadis("flow", "clips", "-o", "store", "--device", "cpu").err.splitlines()[-1] == "1 ok, 2 skipped"
    ended = run_vadis("flow", "clips", "-o", "store", "--device", "cpu")
    assert (ended.code, ended.err) == (0, "0 ok, 3 skipped\n")


def test_some_failed(run_vadis, clips):
    (clips / "empty.mp4").write_bytes(b"")
    ended = run_vadis("flow", "clips", "missing.mp4", "-o", "store", "--device", "cpu")
    assert ended.code == 3
    assert "clips/empty.mp4: " in ended.err
    assert "missing.mp4: " in ended.err
    assert ended.err.splitlines()[-1] == "2 ok, 2 failed"


def test_wrong_use(run_vadis, clips, tmp_path):
    assert run_vadis("flow", "clips").code == 2
    assert run_vadis("flow", "clips", "-o", "clips").code == 2
    assert run_vadis("flow", "nowhere", "-o", "store").code == 2
    assert not (tmp_path / "store").exists()
    for name in ("flow.webm", "flow.npz"):
        assert run_vadis("flow", "clips", "-o", name).code == 2
        assert not (tmp_path / name).exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "settings.json").write_text(json.dumps({**FLOW_SETTINGS, "bound": 15.0}))
    ended = run_vadis("flow", "clips", "-o", "other")
    assert ended.code == 2
    assert re.search(containing("bound", 15.0, 20.0), ended.err)


def test_no_video(run_vadis, tmp_path):
    (tmp_path / "none").mkdir()
    assert run_vadis("flow", tmp_path / "none", "-o", tmp_path / "store").code == 4


def test_no_room(run_vadis, clips, monkeypatch):
    monkeypatch.setattr("vadis.flow.store.shutil.disk_usage", lambda path: type("Usage", (), {"free": 5})())
    ended = run_vadis("flow", "clips", "-o", "store", "--device", "cpu")
    assert ended.code == 1
    assert "MB" in ended.err


@pytest.fixture
def dataset(clips):
    """A folder dataset of five videos, and one that belongs to no split."""
    for place in ("train/run", "train/jump", "val/run", "test/run", "test/jump"):
        (clips.parent / "data" / place).mkdir(parents=True)
    for seed, place in enumerate(["train/run/a", "train/jump/b", "val/run/c", "test/run/d", "test/jump/e", "stray"]):
        write_video(clips.parent / "data" / f"{place}.mp4", num_frames=10, seed=seed)
    return clips.parent / "data"


def test_a_dataset_into_a_store(run_vadis, dataset):
    ended = run_vadis("flow", "--data", "data", "-o", "store", "--device", "cpu")
    assert (ended.code, ended.out) == (0, "")
    assert "examples: train 2, val 1, test 2" in ended.err
    assert ended.err.splitlines()[-1] == "5 ok"
    store = FlowStore("store")
    assert store.has(dataset / "val/run/c.mp4")
    assert not store.has(dataset / "stray.mp4")
    again = run_vadis("flow", "--data", "data", "--dataset", "folder", "--split", "1", "-o", "store")
    assert (again.code, again.err.splitlines()[-1]) == (0, "0 ok, 5 skipped")


def test_parts_of_one_file_are_one_video(run_vadis, clips):
    lines = ["label,youtube_id,time_start,time_end,split", "run,aaaaaaaaaaa,0,1,train", "jump,aaaaaaaaaaa,2,3,val"]
    (clips / "kinetics.csv").write_text("\n".join(lines) + "\n")
    (clips / "a.mp4").rename(clips / "aaaaaaaaaaa.mp4")
    ended = run_vadis("flow", "--data", "clips", "-o", "store", "--device", "cpu")
    assert (ended.code, ended.err.splitlines()[-1]) == (0, "1 ok"), ended.err


def test_a_broken_video_of_a_dataset(run_vadis, dataset):
    (dataset / "train/run/z.mp4").write_bytes(b"")
    ended = run_vadis("flow", "--data", "data", "-o", "store", "--device", "cpu")
    assert ended.code == 3
    assert "data/train/run/z.mp4: " in ended.err
    assert ended.err.splitlines()[-1] == "5 ok, 1 failed"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("clips", "--data", "data"), "INPUTS"),
        (("--from-file", "list", "--data", "data"), "INPUTS"),
        (("clips", "--split", "2"), "--split"),
        (("clips", "--dataset", "folder"), "--dataset"),
        ((), "--data"),
        (("--data", "data", "--split", "2"), "split 2"),
        (("--data", "nowhere"), "nowhere"),
    ],
)
def test_one_of_dataset_and_inputs(run_vadis, dataset, words, said):
    ended = run_vadis("flow", *words, "-o", "store")
    assert ended.code == 2
    assert said in ended.err
    assert not (dataset.parent / "store").exists()


def test_no_room_is_said_before_anything_is_computed(run_vadis, dataset, monkeypatch):
    monkeypatch.setattr("vadis.flow.store.shutil.disk_usage", lambda path: type("Usage", (), {"free": 5})())
    ended = run_vadis("flow", "--data", "data", "-o", "store", "--device", "cpu")
    assert ended.code == 1
    assert re.search(containing(5, "MB"), ended.err)
    assert [path.suffix for path in (dataset.parent / "store").iterdir()] == [".json"], "its settings alone"


def test_no_room_in_a_store_that_was_there_leaves_what_is_in_it(run_vadis, dataset, monkeypatch):
    assert run_vadis("flow", "clips", "-o", "store", "--device", "cpu").code == 0
    before = sorted((dataset.parent / "store").rglob("*"))
    monkeypatch.setattr("vadis.flow.store.shutil.disk_usage", lambda path: type("Usage", (), {"free": 5})())
    assert run_vadis("flow", "--data", "data", "-o", "store", "--device", "cpu").code == 1
    assert sorted((dataset.parent / "store").rglob("*")) == before


def test_a_video_that_can_be_read_only_in_part_is_said(run_vadis, clips):
    cut = clips / "a.mp4"
    data = cut.read_bytes()
    with av.open(str(cut)) as container:
        last = [packet for packet in container.demux() if packet.size][-5]
    cut.write_bytes(data[: last.pos] + bytes(last.size) + data[last.pos + last.size :])
    ended = run_vadis("flow", "clips", "-o", "store", "--device", "cpu")
    assert ended.code == 3
    assert "clips/a.mp4: partial" in ended.err
    assert ended.err.splitlines()[-1] == "1 ok, 1 partial"
    assert run_vadis("flow", "clips", "-o", "store", "--device", "cpu").code == 0


def test_a_part_is_for_looking_at(run_vadis, clips, monkeypatch):
    monkeypatch.setattr("vadis.flow.store.tvl1", lambda gray, **_: np.zeros((len(gray) - 1, 2, *gray.shape[1:])))
    ended = run_vadis("flow", "clips/a.mp4", "--start", "0.2", "--end", "0:00.6", "-o", "flow.mp4", "--device", "cpu")
    assert (ended.code, ended.out, ended.err) == (0, "flow.mp4\n", "10 frames\n")
    ended = run_vadis("flow", "clips", "--start", "0.2", "-o", "store", "--device", "cpu")
    assert ended.code == 2 and "--start" in ended.err
    assert run_vadis("flow", "clips/a.mp4", "--start", "9", "-o", "late.mp4", "--device", "cpu").code == 3
