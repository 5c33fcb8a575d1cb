"""Flow that is begun before the model is there: the same numbers, computed once, and nothing where it cannot be."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.synthetic import write_video
from vadis.errors import VideoError
from vadis.flow import store, tvl1
from vadis.flow.store import FirstFlow, with_flow
from vadis.video.isolated.pool import Decoders
from vadis.video.readahead import Stopped, chunks
from vadis.video.reader import open_video

CPU = torch.device("cpu")
SIZE = (48, 32)
CHUNK_FRAMES = 4  # here; a second of video takes a second


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Or nothing would be begun."""
    tvl1(np.zeros((2, 32, 48), np.uint8))


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNK_FRAMES", CHUNK_FRAMES)


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with Decoders() as given:
        yield given


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames each computation of ``with_flow`` itself had."""
    seen: list[int] = []

    def noted(gray, **how):
        if threading.current_thread() is threading.main_thread():  # else it is what FirstFlow computes
            seen.append(len(gray))
        return tvl1(gray, **how)

    monkeypatch.setattr(store, "tvl1", noted)
    return seen


def frames_of(path: Path) -> np.ndarray:
    with open_video(path) as video:
        return np.stack([frame.pixels for frame in video])


def flow_of(frames: np.ndarray, first: FirstFlow | None = None) -> list[np.ndarray | None]:
    return [flow for _, flow in with_flow(chunks(iter(frames), CHUNK_FRAMES), CPU, first=first)]


@pytest.mark.parametrize(("length", "left"), [(1, []), (2, []), (4, []), (5, []), (6, [2]), (10, [5, 2])])
def test_the_same_flow_and_the_first_chunk_is_not_computed_again(length, left, tmp_path, decoders, computed):
    path = write_video(tmp_path / "video.mp4", num_frames=length, size=SIZE, seed=length)
    frames = frames_of(path)
    expected = flow_of(frames)
    computed.clear()
    with FirstFlow(str(path), decoders) as first:
        found = flow_of(frames, first)
    assert computed == left
    for one, other in zip(found, expected, strict=True):
        assert (one is None and other is None) or np.array_equal(one, other)


def test_other_frames_get_their_own_flow(tmp_path, decoders, computed):
    path = write_video(tmp_path / "one.mp4", num_frames=4, size=SIZE, seed=1)
    other = frames_of(write_video(tmp_path / "other.mp4", num_frames=4, size=SIZE, seed=2))
    with FirstFlow(str(path), decoders) as first:
        (found,) = flow_of(other, first)
    assert computed == [4]
    assert np.array_equal(found, flow_of(other)[0])


@pytest.mark.parametrize("content", [None, b"", b"no video at all"])
def test_what_cannot_be_read_is_told_by_who_labels_it(content, tmp_path, decoders):
    path = tmp_path / "bad.mp4"
    if content is not None:
        path.write_bytes(content)
    with FirstFlow(str(path), decoders) as first:
        assert first.of(np.zeros((2, 32, 48), np.uint8), lambda: None) is None
    with pytest.raises(VideoError), decoders.open(path):
        pass


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Flow that takes for ever, or until it is checked: has it begun, has it ended?"""
    begun, ended = threading.Event(), threading.Event()

    def going_on(gray, check):
        begun.set()
        try:
            while True:
                check()
                time.sleep(0.01)
        finally:
            ended.set()

    monkeypatch.setattr(store, "tvl1", going_on)
    return begun, ended


def test_it_ends_with_its_context(tmp_path, decoders, endless):
    path = write_video(tmp_path / "video.mp4", num_frames=4, size=SIZE)
    begun, ended = endless
    with FirstFlow(str(path), decoders):
        assert begun.wait(60)
    assert ended.is_set()


def test_who_waits_for_it_may_lose_patience(tmp_path, decoders, endless):
    path = write_video(tmp_path / "video.mp4", num_frames=4, size=SIZE)
    frames = frames_of(path)

    def stopped() -> None:
        raise Stopped

    with FirstFlow(str(path), decoders) as first, pytest.raises(Stopped):
        list(with_flow([frames], CPU, stopped, first))
    assert all(event.is_set() for event in endless)


def test_it_may_end_before_it_has_begun(tmp_path, decoders):
    path = write_video(tmp_path / "video.mp4", num_frames=4, size=SIZE)
    with FirstFlow(str(path), decoders):
        pass
    assert len(flow_of(frames_of(path))) == 1


def test_nothing_is_begun_that_has_yet_to_be_compiled(tmp_path, decoders, computed, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "nothing"))
    path = write_video(tmp_path / "video.mp4", num_frames=4, size=SIZE)
    with FirstFlow(str(path), decoders) as first:
        flow_of(frames_of(path), first)
    assert computed == [4]
