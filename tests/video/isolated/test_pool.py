"""Decoding in child processes: the same frames and the same refusals as in this one, and nothing worse by any file."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.synthetic import moving_texture, write_video
from tests.video import faulty_child
from tests.video.test_hostile import NOT_VIDEOS, PLAYLISTS
from vadis.errors import VadisError, VideoError
from vadis.results import Part
from vadis.video.isolated.pool import Decoders
from vadis.video.isolated.process import DecoderKilled, Watchdog
from vadis.video.metadata import Limits
from vadis.video.reader import open_video

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def decoders():
    with Decoders() as decoders:
        yield decoders


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """The kinds of video for which frames and facts could differ on the way."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "plain.mp4", num_frames=40)
    write_video(folder / "h264.mkv", codec="libx264", num_frames=40, size=(160, 90), audio=True)
    write_video(folder / "wide.avi", num_frames=20, size=(800, 64))
    write_video(folder / "tall.ts", codec="mpeg2video", num_frames=20, size=(64, 800))
    write_video(folder / "vp9.webm", codec="libvpx-vp9", num_frames=20)
    write_video(folder / "few.gif", codec="gif", num_frames=6, fps=5)
    write_video(folder / "fast.mp4", num_frames=60, fps=60)
    write_video(folder / "slow.mp4", num_frames=30, fps=3)
    write_video(folder / "turned.mp4", num_frames=20, rotation=90)
    write_video(folder / "uneven.mkv", num_frames=10, pts_seconds=[i * i / 40 for i in range(10)])
    write_video(folder / "one.mp4", num_frames=1)
    (folder / "cut.avi").write_bytes((folder / "wide.avi").read_bytes()[:-6000])
    return folder


NAMES = [
    *("plain.mp4", "h264.mkv", "wide.avi", "tall.ts", "vp9.webm", "few.gif", "fast.mp4", "slow.mp4"),
    *("turned.mp4", "uneven.mkv", "one.mp4", "cut.avi"),
]


def read(opened):
    """The frames, and what is known of the video then."""
    with opened as video:
        about = video.size, video.expected_num_frames
        frames = list(video)
        return frames, about, video.facts


def refusal(opened):
    with pytest.raises(VideoError) as error, opened as video:
        list(video)
    return error.value


def assert_same(frames, expected):
    assert [frame.seconds for frame in frames] == [frame.seconds for frame in expected]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(frames, expected, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_frames_and_facts_are_those_of_the_reader(decoders, videos, name):
    frames, *about = read(decoders.open(videos / name))
    expected, *about_expected = read(open_video(videos / name))
    assert_same(frames, expected)
    assert about == about_expected


@pytest.mark.parametrize(("start", "most"), [(0, 0), (0, 1), (10, None), (10, 5), (29, 40), (60, None), (400, None)])
@pytest.mark.parametrize("name", ["plain.mp4", "slow.mp4"])
def test_a_part_of_a_video(decoders, videos, name, start, most):
    frames, _, facts = read(decoders.open(videos / name, start_frame=start, max_frames=most))
    with open_video(videos / name, start_frame=start) as video:
        expected = [frame for frame, _ in zip(video, range(most if most is not None else 10_000), strict=False)]
    assert_same(frames, expected)
    assert (facts.num_frames is None) == (most is not None and len(frames) == most)


@pytest.mark.parametrize("part", [Part(0.4, 0.6), Part(0.41, 0.6), Part(1.16), Part(0.0, 9.0), Part(90.0)])
@pytest.mark.parametrize("name", ["plain.mp4", "slow.mp4"])
def test_a_part_in_seconds_has_the_points_of_the_grid_there(decoders, videos, name, part):
    with decoders.open(videos / name, part=part) as video:
        frames = list(video)
    with open_video(videos / name) as video:
        until = float("inf") if part.end is None else part.end
        assert_same(frames, [frame for frame in video if part.start <= frame.seconds < until])


def test_neighbours_share_one_array_and_cross_the_pipe_once(decoders, videos):
    frames, *_ = read(decoders.open(videos / "slow.mp4"))
    assert len({frame.pixels.ctypes.data for frame in frames}) == 30
    assert len(frames) == 250


@pytest.mark.parametrize("kind", [*PLAYLISTS, *NOT_VIDEOS])
def test_refusals_are_those_of_the_reader(decoders, tmp_path, kind):
    write_video(tmp_path / "canary.mp4", num_frames=2)
    path = tmp_path / "file.mp4"
    playlist = PLAYLISTS.get(kind, "").format(target="canary.mp4")
    path.write_bytes(playlist.encode() or NOT_VIDEOS[kind][0])
    here, there = refusal(open_video(path)), refusal(decoders.open(path))
    assert (there.code, there.message, there.hint) == (here.code, here.message, here.hint)


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("path", ["", "nothing.mp4", "nul\0.mp4", ".", "/dev/null", "a/../nothing", "x" * 5000])
def test_refusals_of_paths_too(decoders, tmp_path, monkeypatch, path, listed):
    monkeypatch.chdir(tmp_path)
    assert refusal(decoders.open(path, listed=listed)).code == refusal(open_video(path, listed=listed)).code


@pytest.mark.parametrize("name", [b"caf\xe9.mp4", "emoji \U0001f3a5.mp4".encode(), b"line\nfeed.mp4", b"-rf.mp4"])
def test_names_of_all_kinds_from_wherever_the_caller_is(decoders, tmp_path, monkeypatch, name):
    """The child is in the folder in which this process was when it was started."""
    write_video(tmp_path / "a.mp4", num_frames=3).rename(tmp_path / os.fsdecode(name))
    monkeypatch.chdir(tmp_path)
    assert len(read(decoders.open(os.fsdecode(name)))[0]) == 3


def children_of(pid):
    """The processes whose parent is ``pid``."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


def decoding(decoders):
    """The process ids of its children."""
    return {child.pid for child in decoders._all}


def test_one_process_serves_many_files(videos):
    with Decoders() as decoders:
        pids = set()
        for name in NAMES:
            read(decoders.open(videos / name))
            refusal(decoders.open(videos / "nothing"))
            with decoders.open(videos / name, max_frames=0):
                pass
            with decoders.open(videos / name, max_frames=1) as video:
                next(iter(video))
            pids |= decoding(decoders)
        assert len(pids) == 1
        with decoders.open(videos / "slow.mp4") as video:
            next(iter(video))  # and the rest is not wanted
        assert not decoding(decoders)
    assert not set(children_of(os.getpid())) & pids


@pytest.mark.slow
def test_many_are_open_at_once(videos):
    expected = [read(open_video(videos / name))[0] for name in NAMES]
    results = [None] * len(NAMES)
    with Decoders() as decoders:

        def work(number):
            results[number] = read(decoders.open(videos / NAMES[number]))[0]

        threads = [threading.Thread(target=work, args=(number,)) for number in range(len(NAMES))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 1 <= len(decoding(decoders)) <= len(NAMES)
    for frames, wanted in zip(results, expected, strict=True):
        assert_same(frames, wanted)


# What goes wrong


@pytest.fixture(scope="module")
def faulty():
    """Children that fail as the names of the files say, with little memory and little patience."""
    with Decoders(Limits(max_memory_mb=600, max_wait_seconds=20), program=faulty_child.PROGRAM) as decoders:
        yield decoders


@pytest.fixture
def named(tmp_path):
    """A video by this name."""
    return lambda name: write_video(tmp_path / "a.mp4", num_frames=30).rename(tmp_path / f"{name}.mp4")


CRASHES = {
    "crash": ("decoder_crash", "SIGSEGV"),
    "abort": ("decoder_crash", "SIGABRT"),
    "leave": ("decoder_crash", "ended"),
    "bug": ("decoder_crash", "RuntimeError: [2Ja bug"),
    "fill": ("too_large", "600 MB"),
    "fill_and_die": ("too_large", "600 MB"),
}


@pytest.mark.parametrize("name", CRASHES)
def test_a_crash_costs_one_file(faulty, named, videos, name):
    code, text = CRASHES[name]
    error = refusal(faulty.open(named(name)))
    assert error.code == code
    assert text in error.message and error.message.isprintable()
    assert not isinstance(error, DecoderKilled)
    assert code != "too_large" or "VADIS_MAX_MEMORY_MB" in error.hint
    assert len(read(faulty.open(videos / "plain.mp4"))[0]) == 40


@pytest.mark.parametrize("which", faulty_child.INVALID)
def test_an_invalid_message_costs_one_file(faulty, named, videos, which):
    error = refusal(faulty.open(named(f"invalid_{which}")))
    assert (error.code, type(error)) == ("decoder_crash", VideoError)
    assert len(read(faulty.open(videos / "plain.mp4"))[0]) == 40


def test_whatever_is_printed_does_not_disturb(faulty, named):
    assert len(read(faulty.open(named("chatter")))[0]) == 30


def test_a_child_that_hangs_is_ended(named, videos):
    with Decoders(Limits(max_wait_seconds=0.2), program=faulty_child.PROGRAM) as decoders:
        before = decoding(decoders)
        error = refusal(decoders.open(named("hang")))
        assert (error.code, "VADIS_MAX_WAIT_SECONDS" in error.hint) == ("timeout", True)
        assert not decoding(decoders) - before


@pytest.mark.slow
def test_time_counts_only_while_the_child_is_waited_for(videos):
    with Decoders(Limits(max_wait_seconds=2)) as decoders, decoders.open(videos / "slow.mp4") as video:
        frames = iter(video)
        next(frames)
        time.sleep(2.5)
        assert len(list(frames)) == 249


def test_the_watchdog_ends_with_silence_and_with_ten_times_the_duration():
    watchdog = Watchdog(60)
    assert watchdog.seconds_left() == 60
    watchdog.waited_seconds = 59.5
    assert watchdog.seconds_left() == 0.5
    watchdog.video_seconds = 100  # by the header, or by the frames that came
    assert watchdog.seconds_left() == 60
    watchdog.waited_seconds = 999
    assert watchdog.seconds_left() == 1
    watchdog.waited_seconds = 1000
    assert watchdog.seconds_left() <= 0


def test_a_child_killed_from_outside(videos):
    with Decoders() as decoders:
        with pytest.raises(VideoError) as error, decoders.open(videos / "slow.mp4") as video:
            frames = iter(video)
            next(frames)
            (pid,) = decoding(decoders)
            os.kill(pid, signal.SIGKILL)
            list(frames)
        assert isinstance(error.value, DecoderKilled) and error.value.code == "decoder_crash"
        assert "SIGKILL" in error.value.message
        read(decoders.open(videos / "plain.mp4"))
        (pid,) = decoding(decoders)
        os.kill(pid, signal.SIGKILL)  # while it has nothing to do: nobody notices
        while children_of(os.getpid()).count(pid):
            time.sleep(0.01)
        assert len(read(decoders.open(videos / "plain.mp4"))[0]) == 40


def test_a_child_started_ahead_reads_the_first_video(videos):
    with Decoders() as decoders:
        decoders.start_one()
        ahead = decoding(decoders)
        assert len(ahead) == 1
        assert len(read(decoders.open(videos / "plain.mp4"))[0]) == 40
        assert decoding(decoders) == ahead
    with Decoders() as decoders:  # ended too where no video came
        decoders.start_one()
        (pid,) = decoding(decoders)
    assert pid not in children_of(os.getpid())


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_for_the_whole_job_leave_the_parent_to_decide(decoders, videos, signum):
    read(decoders.open(videos / "plain.mp4"))
    pids = decoding(decoders)
    for pid in pids:
        os.kill(pid, signum)
    assert len(read(decoders.open(videos / "plain.mp4"))[0]) == 40
    assert decoding(decoders) == pids


def test_a_child_is_in_a_session_of_its_own(decoders, videos):
    read(decoders.open(videos / "plain.mp4"))
    assert os.getsid(0) not in {os.getsid(pid) for pid in decoding(decoders)}


PARENT = """
import sys, threading, time
from vadis.video.isolated.pool import Decoders
from tests.video import faulty_child
decoders = Decoders(program=faulty_child.PROGRAM)
def hang():
    with decoders.open(sys.argv[2]) as video:
        list(video)
threading.Thread(target=hang, daemon=True).start()
with decoders.open(sys.argv[1]) as video:
    next(iter(video))
    while len(decoders._all) < 2:
        time.sleep(0.01)
    print(*[child.pid for child in decoders._all], flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_no_child_outlives_its_parent(videos, named, signum):
    """One is in the middle of a video, one hangs."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(videos / "slow.mp4"), str(named("hang"))],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.send_signal(signum)
        parent.wait()
    deadline = time.monotonic() + 30
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [pid for pid in pids if is_running(pid)]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_closing_ends_what_is_waited_for(named):
    """``cancel`` and ``close`` from another thread: whoever waits gets an error at once."""
    path = named("hang")
    for end in ("cancel", "close"):
        with Decoders(program=faulty_child.PROGRAM) as decoders:
            opened, errors = decoders.open(path), []

            def wait(opened=opened, errors=errors):
                errors.append(refusal(opened))

            thread = threading.Thread(target=wait)
            thread.start()
            while not any(child.lacking is not None for child in list(decoders._all)):
                time.sleep(0.01)
            opened.cancel() if end == "cancel" else decoders.close()
            thread.join()
            assert [(error.code, type(error)) for error in errors] == [("decoder_crash", VideoError)]
            assert not decoding(decoders)


def test_cancelled_before_it_was_opened(decoders, videos):
    opened = decoders.open(videos / "plain.mp4")
    opened.cancel()
    assert refusal(opened).code == "decoder_crash"


@pytest.mark.parametrize("program", ["import sys; sys.exit('no such thing')", "print('hello')", "1/0"])
def test_a_child_that_does_not_start_ends_the_run(videos, program):
    with Decoders(program=program) as decoders:
        with pytest.raises(VadisError) as error, decoders.open(videos / "plain.mp4"):
            pass
        assert not isinstance(error.value, VideoError)
        assert "vadis doctor" in error.value.hint
        assert not decoding(decoders)


# What a child cannot do


def test_a_child_can_read_and_compute_and_nothing_else(faulty, named):
    if faulty.missing_restrictions():
        pytest.skip(f"not here: {faulty.missing_restrictions()}")
    hits = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        message = refusal(faulty.open(named(f"confined-{server.getsockname()[1]}"))).message
        with pytest.raises(TimeoutError):
            hits.append(server.accept())
    assert hits == []
    outcomes = dict(attempt.split() for attempt in message.split("; "))
    assert outcomes.pop("memory") == "MemoryError"
    assert len(outcomes) == 9
    assert set(outcomes.values()) == {"PermissionError"}
    assert not Path("/tmp/vadis-was-here").exists()


def test_a_child_holds_nothing_heavy_and_no_secrets(faulty, named, monkeypatch):
    assert refusal(faulty.open(named("modules"))).message == "av numpy"
    monkeypatch.setenv("SECRET_TOKEN", "x")
    with Decoders(program=faulty_child.PROGRAM) as decoders:
        names = refusal(decoders.open(named("environment"))).message.split()
    assert "SECRET_TOKEN" not in names
    assert "OMP_NUM_THREADS" in names


def test_modules_in_the_current_folder_are_not_taken(videos, tmp_path, monkeypatch):
    for name in ("av", "numpy", "json", "vadis", "selectors"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('from the current folder')")
    monkeypatch.chdir(tmp_path)
    with Decoders() as decoders:
        assert len(read(decoders.open(videos / "plain.mp4"))[0]) == 40


def test_folders_before_the_standard_library_do_not_stand_in_for_it(videos, tmp_path, monkeypatch):
    """A package may have put its own folder in front, as OpenCV's does where it cannot be loaded."""
    for name in ("typing", "signal", "struct", "dataclasses", "fractions"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('from a folder in front')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with Decoders() as decoders:
        assert len(read(decoders.open(videos / "plain.mp4"))[0]) == 40


# Bombs


def boxed(name, *content):
    body = b"".join(content)
    return (8 + len(body)).to_bytes(4, "big") + name + body


def with_samples(data, num_samples):
    """An MP4 whose index claims so many samples, all of one size and in one chunk: a few bytes stand for gigabytes."""
    four = lambda number: number.to_bytes(4, "big")  # noqa: E731

    def replaced(data, name, content):
        at = data.index(name) - 4
        length = int.from_bytes(data[at : at + 4], "big")
        new = boxed(name, content)
        assert len(new) <= length - 8 or len(new) == length
        filler = b"" if len(new) == length else boxed(b"free", bytes(length - len(new) - 8))
        return data[:at] + new + filler + data[at + length :]

    data = replaced(data, b"stsz", four(0) + four(1) + four(num_samples))
    data = replaced(data, b"stsc", four(0) + four(1) + four(1) + four(num_samples) + four(1))
    return replaced(data, b"stts", four(0) + four(1) + four(num_samples) + four(512))


@pytest.mark.parametrize(("num_samples", "code"), [(10_000_000, "decode_failed"), (170_000_000, "too_large")])
def test_a_small_file_whose_index_unfolds_into_gigabytes(tmp_path, videos, num_samples, code):
    source = write_video(tmp_path / "a.mp4", num_frames=64, options={"g": "1"}, frames=moving_texture(64))
    path = tmp_path / "bomb.mp4"
    path.write_bytes(with_samples(source.read_bytes(), num_samples))
    with Decoders() as decoders:
        assert refusal(decoders.open(path)).code == code
        assert len(read(decoders.open(videos / "plain.mp4"))[0]) == 40


@pytest.mark.slow
def test_a_small_file_whose_pictures_unfold_into_more_than_there_is(tmp_path, videos):
    black = np.zeros((4000, 4096, 3), np.uint8)
    path = write_video(tmp_path / "bomb.gif", codec="gif", frames=[black] * 2)
    assert path.stat().st_size < 200_000
    with Decoders(Limits(max_memory_mb=300)) as decoders:
        error = refusal(decoders.open(path))
        assert (error.code, "VADIS_MAX_MEMORY_MB" in error.hint) == ("too_large", True)
        assert "300 MB" in error.message
        assert len(read(decoders.open(videos / "plain.mp4"))[0]) == 40
    assert len(read(open_video(path))[0]) == 2
