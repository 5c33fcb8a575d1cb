"""Videos made ready ahead of the networks: in order, bounded, with nothing left behind, and again where that helps."""

import os
import re
import threading
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.make_model import make_model
from tests.matching import containing
from tests.synthetic import write_video
from tests.video import faulty_child
from tests.video.isolated.test_pool import children_of
from vadis.device import NoMemoryError, take_share
from vadis.errors import DeviceError, UsageError, VideoError
from vadis.flow import to_gray, tvl1
from vadis.inference import prefetch
from vadis.inference.classify import ClassifyOptions, classify_many, label_videos
from vadis.inference.prefetch import VIDEO_BYTES, LocalVideo, map_videos, num_jobs
from vadis.models import Model
from vadis.preprocessing import centre_crop
from vadis.video.isolated import process
from vadis.video.isolated.pool import Decoders
from vadis.video.isolated.process import DecoderKilled
from vadis.video.reader import open_video
from vadis.weights.model_file import load_model_file


@pytest.fixture(scope="module")
def both_streams(tmp_path_factory):
    return load_model_file(make_model(tmp_path_factory.mktemp("m") / "tiny.safetensors", width=1 / 32, classes=3))


@pytest.fixture(scope="module")
def model(both_streams):
    return both_streams.only(("rgb",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def videos(folder):
    return [str(write_video(folder / f"{number}.mp4", num_frames=5 + number, seed=number)) for number in range(6)]


@pytest.fixture(autouse=True)
def nothing_is_left():
    before = set(children_of(os.getpid()))
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("ahead", "decoders", "network"))]
    assert not set(children_of(os.getpid())) - before


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2, 4, 9])
def test_records_come_in_the_order_of_the_inputs(model, videos, folder, jobs):
    paths = [*videos[:3], folder / "missing.mp4", *videos[3:], videos[0]]
    records = list(classify_many(paths, model, jobs=jobs))
    assert [record.path for record in records] == [str(path) for path in paths]
    assert [record.error_code for record in records] == [None] * 3 + ["not_found"] + [None] * 4
    assert [record.num_frames for record in records] == [5, 6, 7, None, 8, 9, 10, 5]
    assert records[0] == records[-1]


@pytest.mark.parametrize("jobs", [1, 3])
def test_no_more_inputs_are_taken_ahead_than_jobs(model, videos, jobs):
    source = iter(videos)
    with closing(classify_many(source, model, jobs=jobs)) as records:
        next(records)
        assert len(list(source)) == len(videos) - jobs


def test_the_number_of_jobs(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr("vadis.inference.prefetch.cpu_count", lambda: 3)
    monkeypatch.setattr("vadis.inference.prefetch.memory_bytes", lambda: float("inf"))
    assert [num_jobs(jobs, cpu) for jobs in (None, 0, 1, 7)] == [6, 6, 1, 7]
    monkeypatch.setattr("vadis.inference.prefetch.cpu_count", lambda: 64)
    assert (num_jobs(None, cpu), num_jobs(None, cuda), num_jobs(7, cuda)) == (128, 16, 7)
    for size, expected in ((20 * VIDEO_BYTES, 20), (1e6, 1)):
        monkeypatch.setattr("vadis.inference.prefetch.memory_bytes", lambda size=size: size)
        assert (num_jobs(None, cpu), num_jobs(7, cpu)) == (expected, 7)
    with pytest.raises(UsageError):
        num_jobs(-1, cpu)


@pytest.fixture
def cores(request):
    """How many processors PyTorch computes on; 1 where a test does not say it."""
    before, count = torch.get_num_threads(), getattr(request, "param", 1)
    torch.set_num_threads(count)
    yield count
    assert torch.get_num_threads() == count
    torch.set_num_threads(before)


@pytest.mark.parametrize("cores", [1, 2, 4], indirect=True)
def test_each_core_takes_a_video_and_the_last_one_has_them_all(begun, cores):
    together = threading.Barrier(cores)

    def work(video):
        together.wait(10)
        take_share()
        at_first, end = torch.get_num_threads(), time.monotonic() + 10
        together.wait(10)
        while video.item == 0 and torch.get_num_threads() < cores and time.monotonic() < end:
            take_share()
        return at_first, torch.get_num_threads(), threading.get_ident()

    found = [outcome for _, outcome in outcomes(range(cores), work, begun, jobs=cores)]
    assert [at_first for at_first, _, _ in found] == [1] * cores
    assert found[0][1] == cores
    assert len({thread for _, _, thread in found}) == cores


@pytest.mark.slow
def test_records_do_not_depend_on_the_number_of_cores(videos, both_streams):
    before, records = torch.get_num_threads(), []
    try:
        for count, jobs in ((1, 1), (1, 3), (2, 4), (3, 4), (4, 1)):
            torch.set_num_threads(count)
            both_streams.folded.clear()  # the first chunk decides how weights lie in memory
            records.append([record.to_json_line() for record in classify_many(videos[:4], both_streams, jobs=jobs)])
    finally:
        torch.set_num_threads(before)
    assert all(each == records[0] for each in records)


class Signal(BaseException):
    """What a signal handler raises."""


@pytest.mark.parametrize("stage", ["decoding", "network"])
def test_a_signal_ends_everything_at_once(model, videos, stage):
    def progress(now):
        if now.path == videos[2] and now.stage == stage:
            raise Signal

    records = classify_many(videos, model, jobs=3, progress=progress)
    with pytest.raises(Signal):
        list(records)


def test_a_consumer_that_stops_early_leaves_nothing(model, videos):
    records = classify_many(videos, model, jobs=4)
    assert next(records).path == videos[0]
    records.close()


@pytest.mark.slow
def test_one_bad_child_never_stops_the_others(model, videos, folder, monkeypatch):
    """Crashes, invalid messages, memory and hanging, beside each other, are one record each."""
    monkeypatch.setattr(process, "PROGRAM", faulty_child.PROGRAM)
    monkeypatch.setenv("VADIS_MAX_MEMORY_MB", "600")
    monkeypatch.setenv("VADIS_MAX_WAIT_SECONDS", "3")
    names = ["crash", "abort", "fill", "invalid_text", "hang", "leave"]
    bad = [str(Path(videos[0]).with_name(f"{name}.mp4")) for name in names]
    for path in bad:
        write_video(path, num_frames=30)
    paths = [path for pair in zip(videos, bad, strict=True) for path in pair]
    records = list(classify_many(paths, model, jobs=3))
    assert [record.path for record in records] == paths
    assert [record.status for record in records[::2]] == ["ok"] * 6
    codes = [record.error_code for record in records[1::2]]
    assert codes == ["decoder_crash", "decoder_crash", "too_large", "decoder_crash", "timeout", "decoder_crash"]


@pytest.mark.slow
def test_decoders_that_are_given_serve_on(model, videos):
    with Decoders() as decoders:
        for _ in range(2):
            assert len(list(label_videos(videos, ClassifyOptions(model), jobs=1, decoders=decoders))) == len(videos)
            assert len(decoders._all) == 1


def test_where_memory_does_not_suffice_the_cpu_takes_over(model, videos, caplog):
    """Only where nobody asked for the device; the video at hand is begun anew, so nothing is lost or double."""
    tried = []

    def work(video):
        tried.append((video.path, model_there.device.type))
        count = sum(len(clip["rgb"]) for clip in video.clips())
        if model_there.device.type == "cuda" and video.path == videos[1]:
            raise NoMemoryError("memory ran out on cuda with one of the frames at a time")
        return count

    model_there = replace(model, device=torch.device("cuda"), may_leave_device=True)
    with Decoders() as decoders:
        begin = partial(LocalVideo, model=model_there, decoders=decoders)
        each = partial(map_videos, videos[:3], begin, work, model_there, jobs=2)
        assert [(path, count) for path, _, count in each()] == list(zip(videos, (5, 6, 7), strict=False))
        assert [device for _, device in tried] == ["cuda", "cuda", "cpu", "cpu"]
        assert len(caplog.messages) == 1 and re.search(containing("cuda", "frames"), caplog.messages[0])
        model_there.device, model_there.may_leave_device = torch.device("cuda"), False
        with pytest.raises(NoMemoryError):
            list(each())


def test_a_video_without_flow_is_refused_only_where_it_must_be(model, folder):
    path = write_video(folder / "one.mp4", num_frames=1)
    with Decoders() as decoders, closing(LocalVideo(path, model, decoders)) as video:
        assert [len(clip["rgb"]) for clip in video.clips()] == [1]
        assert video.streams == ("rgb",)


def test_frames_that_are_cut_first_have_the_flow_of_what_is_left(model, folder):
    """The same frames to the last bit; the flow is a little other than the whole frame's."""
    path = write_video(folder / "wide.mp4", num_frames=4, size=(107, 64))

    def clip(card):
        asked = replace(model, card=card)
        with Decoders() as decoders, closing(LocalVideo(path, asked, decoders)) as video:
            (found,) = video.clips()
        return found

    both = replace(model.card, streams=("rgb", "flow"))
    plain, cut = clip(both), clip(replace(both, crop_first=True))
    np.testing.assert_array_equal(cut["rgb"], plain["rgb"])
    with open_video(path) as video:
        seen = centre_crop(np.stack([frame.pixels for frame in video]), "rgb")
    expected = tvl1(to_gray(seen))
    np.testing.assert_array_equal(cut["flow"], np.concatenate([expected, expected[-1:]]))
    assert not np.array_equal(cut["flow"], plain["flow"])


def memory_mb(pid):
    """What a process holds of its own."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) / 1024


def grown(model, path, num_files, warm_up):
    """By how many MB this process and its children grow over so many files; the open files before and after."""
    states = []

    def state():
        pids = [os.getpid(), *(child.pid for child in list(decoders._all))]
        return sum(map(memory_mb, pids)), len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    def work(video):
        return sum(len(clip["rgb"]) for clip in video.clips())

    with Decoders() as decoders:
        begin = lambda number: LocalVideo(path, model, decoders)  # noqa: E731
        for number, _, found in map_videos(range(num_files), begin, work, model, jobs=4):
            assert found == 2, (number, found)
            if number in (warm_up, num_files - 4):
                states.append(state())
    (before, files_before), (after, files_after) = states
    return after - before, files_before, files_after


def check_growth(model, folder, num_files):
    path = write_video(folder / "tiny.mp4", num_frames=2, size=(64, 48))
    growth, files_before, files_after = grown(model, path, num_files, warm_up=100)
    print(f"{num_files} files: grown by {growth:.1f} MB, {files_before} files open before, {files_after} after")
    assert growth < 50
    assert files_after <= files_before + 4 * 5  # a child more or less


@pytest.mark.slow
def test_memory_and_open_files_do_not_grow_with_the_number_of_files(model, folder):
    check_growth(model, folder, 500)


@pytest.mark.exhaustive
def test_memory_and_open_files_do_not_grow_over_twenty_thousand_files(model, folder):
    check_growth(model, folder, 20_000)


def test_an_error_keeps_its_hint_in_the_record(model, videos, monkeypatch):
    monkeypatch.setenv("VADIS_MAX_PIXELS", "100")
    (record,) = classify_many(videos[:1], model)
    assert record.error_code == "too_large"
    assert "VADIS_MAX_PIXELS" in record.error_message
    monkeypatch.setenv("VADIS_MAX_PIXELS", "many")
    with pytest.raises(UsageError, match=containing("VADIS_MAX_PIXELS")):
        list(classify_many(videos[:1], model))


def test_errors_of_paths_that_are_no_text(model):
    with pytest.raises(TypeError):
        list(classify_many([object()], model))


def test_refusals_are_video_errors(model, folder):
    with pytest.raises(VideoError), Decoders() as decoders, closing(LocalVideo("x", model, decoders)) as video:
        video.clips()


class Begun:
    """Stands for a video: what is begun, and whether it was ended."""

    def __init__(self, item):
        self.item, self.is_closed = item, False

    def close(self):
        self.is_closed = True


@pytest.fixture
def begun(monkeypatch):
    """All that was begun; without the waits between tries."""
    monkeypatch.setattr(prefetch, "RETRY_SECONDS", (0.0, 0.0, 0.0))
    found = []
    return found


def outcomes(items, work, begun, model=None, jobs=1):
    def begin(item):
        begun.append(Begun(item))
        return begun[-1]

    model = model or Model(None, {}, torch.device("cpu"))
    found = list(map_videos(items, begin, work, model, jobs=jobs))
    assert all(each.is_closed for each in begun)
    assert [video.item for _, video, _ in found] == [item for item, _, _ in found]
    return [(item, outcome) for item, _, outcome in found]


def failing(times, code):
    """Work that fails ``times`` times before it is done."""
    left = [times]

    def work(video):
        if left[0]:
            left[0] -= 1
            raise VideoError(code, "it could not be read")
        return f"{video.item} done"

    return work


def test_a_disk_that_comes_back_costs_nothing(begun):
    assert outcomes(["a"], failing(3, "io_error"), begun) == [("a", "a done")]
    assert len(begun) == 4


def test_a_disk_that_stays_away_is_asked_four_times_in_all(begun):
    ((item, error),) = outcomes(["a"], failing(9, "io_error"), begun)
    assert (item, error.code, len(begun)) == ("a", "io_error", 4)


def test_other_failures_are_final(begun):
    ((_, error),) = outcomes(["a"], failing(1, "no_frames"), begun)
    assert (error.code, len(begun)) == ("no_frames", 1)


def too_large_for_a_gpu(model):
    def work(video):
        if model.device.type != "cpu":
            raise NoMemoryError("memory ran out")
        return f"{video.item} done"

    return work


def test_a_device_that_nobody_asked_for_is_left_and_the_video_done_again(begun):
    model = Model(None, {}, torch.device("meta"), may_leave_device=True)
    assert outcomes(["a", "b"], too_large_for_a_gpu(model), begun, model) == [("a", "a done"), ("b", "b done")]
    assert (model.device.type, len(begun)) == ("cpu", 3)


def test_a_device_that_was_asked_for_is_not_left(begun):
    model = Model(None, {}, torch.device("meta"))
    with pytest.raises(DeviceError, match="memory ran out"):
        outcomes(["a"], too_large_for_a_gpu(model), begun, model)


def killed_at(begun, *items):
    """Work that finds the decoders of some items killed, and counts how many items are open."""

    def work(video):
        count = sum(not each.is_closed for each in begun)
        if video.item in items:
            raise DecoderKilled("decoder_crash", "the process that decodes it ended (SIGKILL)")
        return count

    return work


def test_fewer_videos_at_once_when_the_system_kills_decoders(begun, cores, caplog):
    found = dict(outcomes(range(20), killed_at(begun, 4, 10, 11, 15), begun, jobs=4))
    assert {item for item, outcome in found.items() if isinstance(outcome, DecoderKilled)} == {4, 10, 11, 15}
    assert [found[item] for item in (3, 5, 8, 12, 14, 16, 19)] == [4, 3, 2, 1, 1, 1, 1]
    assert len(caplog.messages) == 1


def test_one_video_at_a_time_cannot_become_fewer(begun, cores, caplog):
    found = outcomes(range(3), killed_at(begun, 0), begun)
    assert [outcome for _, outcome in found[1:]] == [1, 1] and not caplog.messages
