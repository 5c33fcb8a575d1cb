import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.flow.conftest import cheap_flow
from tests.matching import containing
from tests.synthetic import write_video
from vadis.errors import UsageError, VadisError, VideoError
from vadis.flow import store as flow_store
from vadis.flow.store import (
    FLOW_BOUND,
    FLOW_SETTINGS,
    STEPS,
    FlowStore,
    compute_flow,
    dequantize,
    estimate_flow,
    quantize,
    videos_without_flow,
)
from vadis.video.reader import open_video

CPU = torch.device("cpu")


@pytest.fixture
def store(tmp_path):
    return FlowStore(tmp_path / "store", create=True)


@pytest.fixture
def video(tmp_path):
    return str(write_video(tmp_path / "a.mp4", num_frames=90, seed=1))


def fill(store, *videos):
    return [(path, error and error.code) for path, error in compute_flow(videos, store, device=CPU)]


def frames_of(video):
    with open_video(video) as opened:
        return np.stack([frame.pixels for frame in opened])


@pytest.mark.slow
def test_flow_comes_back_within_the_bounds_of_the_table(store, video, instant_flow):
    """docs/flow-store.md has the figures of real flow; this field is rougher, and in parts beyond ±20."""
    assert fill(store, video) == [(video, None)]
    flow = cheap_flow(frames_of(video)).clip(-20, 20)
    error = np.abs(dequantize(store.read_levels(video)) - flow)
    assert dequantize(store.read_levels(video)).dtype == np.float32
    assert error.mean() < 0.1
    assert np.percentile(error, 99) < 0.35
    assert store.num_frames(video) == len(flow) == 90


def test_any_window_is_the_same_as_in_the_whole(store, video, instant_flow):
    fill(store, video)
    whole = store.read_levels(video)
    for start, count in [(0, 64), (1, 3), (13, 64), (26, 64), (60, 30), (80, 64), (89, 1)]:
        assert np.array_equal(store.read_levels(video, start, count), whole[start : start + count])
    assert dequantize(store.read_levels(video, 90, 5)).shape == (0, 2, *whole.shape[2:])
    assert np.array_equal(store.read_levels(video, len(whole) - 7), whole[-7:])


def test_real_flow_is_in_step_with_the_frames(store, tmp_path):
    """A texture that moves 2 px to the right and 1 down, in a frame that is enlarged 4 times."""
    video = write_video(tmp_path / "a.mkv", num_frames=4, size=(64, 64), codec="ffv1")
    fill(store, str(video))
    flow = dequantize(store.read_levels(video))
    assert flow.shape == (4, 2, 256, 256)
    assert np.array_equal(flow[3], flow[2])
    middle = np.median(flow[:, :, 64:192, 64:192], axis=(2, 3))
    assert np.abs(middle - [8, 4]).max() < 1


@pytest.mark.parametrize("size", [(64, 97), (97, 65), (33, 200)])
def test_any_size(store, tmp_path, size, instant_flow):
    video = str(write_video(tmp_path / "a.mkv", num_frames=5, size=size, codec="ffv1"))
    fill(store, video)
    assert dequantize(store.read_levels(video)).shape[2:] == frames_of(video).shape[1:3]


def test_a_video_is_known_by_its_content(store, tmp_path, video, instant_flow):
    fill(store, video)
    moved = Path(shutil.copy(video, tmp_path / "other name.mp4"))
    assert store.has(moved)
    assert videos_without_flow([str(moved)], store) == []
    moved.write_bytes(moved.read_bytes() + b"\0")
    assert not store.has(moved)
    assert videos_without_flow([str(moved), video], store) == [str(moved)]


def test_one_file_per_video_and_nothing_else(store, video, tmp_path, instant_flow):
    other = str(write_video(tmp_path / "b.mp4", num_frames=20, seed=2))
    fill(store, video, other)
    files = {path for path in store.root.rglob("*") if path.is_file()}
    assert files == {store.root / "settings.json", store.path(video), store.path(other)}


def test_what_is_there_is_not_computed_again(store, video, instant_flow):
    fill(store, video)
    before = store.path(video).stat().st_mtime_ns
    assert fill(FlowStore(store.root), video) == [(video, None)]
    assert len(instant_flow) == 1
    assert store.path(video).stat().st_mtime_ns == before


def test_one_bad_video_does_not_stop_the_others(store, video, tmp_path, instant_flow):
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert fill(store, str(tmp_path / "empty.mp4"), video) == [
        (str(tmp_path / "empty.mp4"), "empty_file"),
        (video, None),
    ]


def test_a_single_frame_has_no_flow(store, tmp_path):
    video = str(write_video(tmp_path / "a.mkv", num_frames=1))
    assert fill(store, video) == [(video, "too_short")]
    assert not list(store.root.glob("*/*"))


def test_flow_that_is_not_there(store, video):
    with pytest.raises(VideoError) as error:
        dequantize(store.read_levels(video))
    assert error.value.code == "not_found"
    assert "vadis flow" in error.value.hint


def test_a_damaged_file_of_the_store_is_named(store, video, instant_flow):
    fill(store, video)
    path = store.path(video)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(VideoError) as error:
        dequantize(store.read_levels(video))
    assert error.value.code == "truncated_or_incomplete"
    assert path.name in error.value.message


# The folder


@pytest.mark.parametrize(("key", "value"), [("bound", 15.0), ("codec", "ffv1"), ("short_side", 128), ("format", 2)])
def test_a_store_made_with_other_settings_is_refused(store, key, value):
    path = store.root / "settings.json"
    path.write_text(json.dumps({**FLOW_SETTINGS, key: value}))
    with pytest.raises(UsageError, match=containing(key, repr(value), repr(FLOW_SETTINGS[key]))):
        FlowStore(store.root, create=True)


def test_damaged_settings_are_refused(store):
    for content in ("{", "[" * 700 + "]" * 700):
        (store.root / "settings.json").write_text(content)
        with pytest.raises(UsageError, match=containing("settings.json")):
            FlowStore(store.root)


def test_a_folder_with_something_else_is_not_taken(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match=containing(tmp_path)):
        FlowStore(tmp_path, create=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_store_is_made_only_when_asked_for(tmp_path):
    with pytest.raises(UsageError, match=containing(tmp_path / "store")):
        FlowStore(tmp_path / "store")
    assert not (tmp_path / "store").exists()


# What it will take, and what can go wrong on the way


def test_the_estimate_is_near(store, tmp_path, instant_flow):
    videos = [str(write_video(tmp_path / f"{seed}.mp4", num_frames=40 + 10 * seed, seed=seed)) for seed in range(1, 5)]
    (tmp_path / "empty.mp4").write_bytes(b"")
    expected = estimate_flow([*videos, str(tmp_path / "empty.mp4")], store, CPU)
    assert expected.num_videos == 5
    assert expected.num_frames == 5 * 65  # the mean of 50, 60, 70, 80
    assert expected.seconds > 0
    fill(store, *videos)
    written = sum(path.stat().st_size for path in store.root.glob("*/*"))
    assert 0.5 < expected.num_bytes * 4 / 5 / written < 2
    expected.check_space(store)


def test_too_little_room_is_said_before_the_work(store, video, instant_flow, monkeypatch):
    usage = shutil.disk_usage(store.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(VadisError, match=containing("0.0 MB")):
        estimate_flow([video], store, CPU).check_space(store)


def test_nothing_readable_takes_nothing(store, tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    expected = estimate_flow([str(tmp_path / "empty.mp4")], store, CPU)
    assert (expected.num_frames, expected.num_bytes, expected.seconds) == (0, 0, 0)


def test_progress(store, video, instant_flow):
    seen = []
    list(compute_flow([video], store, device=CPU, progress=lambda *now: seen.append(now)))
    assert seen == [(video, 32, None), (video, 64, None), (video, 90, None)]


PROCESS = """
import os, resource, signal, sys, time
import torch
from tests.flow.conftest import cheap_flow
from vadis.errors import VadisError
from vadis.flow import store as flow_store
from vadis.flow.store import FlowStore
flow_store.with_flow = lambda chunks, *rest: ((frames, cheap_flow(frames)) for frames in chunks)
root, *videos = sys.argv[1:]
compute = lambda report: list(
    flow_store.compute_flow(videos, FlowStore(root), device=torch.device("cpu"), progress=report)
)
"""


def in_a_process(code, store, *videos):
    return subprocess.run(
        [sys.executable, "-c", PROCESS + code, str(store.root), *videos],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_half(store, video):
    """A process whose files may have 20 kB."""
    code = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    compute(print)
except VadisError as error:
    print(error.message)
"""
    done = in_a_process(code, store, video)
    assert "File too large" in done.stdout, done.stderr
    assert not store.has(video)
    assert [path for path in store.root.rglob("*") if path.is_file()] == [store.root / "settings.json"]


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on(store, video, tmp_path, instant_flow):
    """Killed in the middle of the second video."""
    other = str(write_video(tmp_path / "b.mp4", num_frames=90, seed=2))
    code = """
store, record = FlowStore(root), flow_store.write_mjpeg
def killed_in_the_second(path, chunks):
    for num_frames in record(path, chunks):
        yield num_frames
        if path.name.startswith(store.path(videos[1]).name) and num_frames == 64:
            while not store.has(videos[0]):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
flow_store.write_mjpeg = killed_in_the_second
compute(print)
"""
    assert in_a_process(code, store, video, other).returncode == -signal.SIGKILL
    assert (store.has(video), store.has(other)) == (True, False)
    assert videos_without_flow([video, other], store) == [other]
    assert fill(store, video, other) == [(video, None), (other, None)]
    assert len(instant_flow) == 1  # in this process
    assert store.num_frames(other) == 90


def test_a_record_that_does_not_read_back_gets_no_name(store, video, instant_flow, monkeypatch):
    record = flow_store.write_mjpeg
    monkeypatch.setattr(flow_store, "write_mjpeg", lambda path, chunks: (count + 1 for count in record(path, chunks)))
    with pytest.raises(VadisError, match=containing(store.root)):
        fill(store, video)
    assert not store.has(video)


def back_and_forth(values):
    flow = np.asarray(values, np.float32).reshape(1, 1, 1, -1).repeat(2, axis=1)  # (1, 2, 1, W)
    return dequantize(quantize(flow)).reshape(2, -1)[0]


@given(st.lists(st.floats(-FLOW_BOUND, FLOW_BOUND, width=32), min_size=1, max_size=50))
def test_a_number_comes_back_within_half_a_step(values):
    assert np.abs(back_and_forth(values) - np.float32(values)).max() <= FLOW_BOUND / STEPS / 2 + 1e-5


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20))
def test_the_mirror_image_of_a_code_is_a_code(values):
    assert np.array_equal(back_and_forth([-value for value in values]), -back_and_forth(values))


def test_what_stands_still_stays_still_and_the_bound_is_kept():
    assert back_and_forth([0, 0.07, 20, 54, -20, -1e9]).tolist() == [0, 0, 20, 20, -20, -20]


def test_every_byte_has_a_meaning_within_the_bound():
    assert np.abs(dequantize(np.arange(256, dtype=np.uint8))).max() == FLOW_BOUND


def test_dx_lies_above_dy():
    flow = np.zeros((3, 2, 4, 5), np.float32)
    flow[:, 0], flow[:, 1] = 20, -20
    codes = quantize(flow)
    assert codes.shape == (3, 8, 5)
    assert set(codes[:, :4].ravel()) == {255}
    assert set(codes[:, 4:].ravel()) == {1}
