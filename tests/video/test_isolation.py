"""Decoding in child processes: the very frames of the reader, and whatever a child does, it costs one video."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.synthetic import write_video
from vadis.errors import VideoError
from vadis.video.facts import Limits
from vadis.video.isolation import Decoders
from vadis.video.reader import open_video

ROOT = Path(__file__).parents[2]

MISBEHAVING = """
import json, sys
start = json.loads(sys.argv[1])
sys.path[:] = start.pop("path")
import ctypes, os, socket, subprocess, time
from vadis.errors import VideoError
from vadis.video import child

def answers(request, usual=child.answers):
    name = request["path"].rsplit("/", 1)[-1]
    if "crash" in name:
        ctypes.string_at(0)
    if "hang" in name:
        time.sleep(1000)
    if "hog" in name:
        held = [bytearray(50 << 20) for _ in range(1000)]
    if "nonsense" in name:
        yield [b"\\x00\\x00\\x00\\x02{}"]
        return
    if "refused" in name:
        refused = []
        for what, attempt in ATTEMPTS.items():
            try:
                attempt()
            except OSError as error:
                refused.append(f"{what} {error.errno}")
        raise SystemExit("refused: " + ", ".join(refused))
    for number, message in enumerate(usual(request)):
        if number == 2 and "half" in name:
            ctypes.string_at(0)
        yield message

ATTEMPTS = {
    "connect": lambda: socket.create_connection(("127.0.0.1", int(open(PORT).read()))),
    "write": lambda: open(PORT + ".written", "w"),
    "remove": lambda: os.unlink(PORT),
    "run": lambda: subprocess.Popen(["true"]),
    "fork": os.fork,
}
child.answers = answers
child.main(**start)
"""


@pytest.fixture(scope="module")
def decoders():
    with Decoders() as decoders:
        yield decoders


FILES = {
    "plain.mp4": {"num_frames": 30},
    "slow.mkv": {"num_frames": 6, "fps": 5, "codec": "libx264"},
    "fast.mov": {"num_frames": 40, "fps": 50},
    "turned.mp4": {"num_frames": 8, "rotation": 90},
    "old.avi": {"num_frames": 10},
    "stream.ts": {"num_frames": 10, "codec": "mpeg2video"},
    "still.gif": {"num_frames": 1, "codec": "gif"},
    "wide.mp4": {"num_frames": 4, "size": (160, 32), "sample_aspect_ratio": Fraction(4, 3)},
}


@pytest.mark.parametrize("name", FILES)
def test_frames_and_facts_are_those_of_the_reader(tmp_path, decoders, name):
    path = write_video(tmp_path / name, **FILES[name])
    with open_video(path) as here, decoders.open(path) as there:
        for expected, frame in zip(here, there, strict=True):
            assert frame.seconds == expected.seconds
            assert np.array_equal(frame.pixels, expected.pixels)
        assert (there.facts, there.size) == (here.facts, here.size)
        assert there.expected_num_frames == here.expected_num_frames


def test_a_part_of_a_video(tmp_path, decoders):
    path = write_video(tmp_path / "a.mp4", num_frames=60)
    with decoders.open(path, start_frame=20, max_frames=5) as video:
        assert [round(frame.seconds * 25) for frame in video] == [20, 21, 22, 23, 24]


def test_one_child_serves_one_file_after_another(tmp_path, decoders):
    path = write_video(tmp_path / "a.mp4", num_frames=5)
    (tmp_path / "bad.mp4").write_bytes(b"x")
    children = set()
    for name in (path, tmp_path / "bad.mp4", tmp_path / "gone.mp4", path):
        children.add(refusal_or_count(decoders, name)[1])
    assert len(children) == 1


def refusal_or_count(decoders, path):
    """The error code, or the number of frames; and the child's process id."""
    video = decoders.open(path)
    pid = None
    try:
        with video:
            pid = video._child.pid
            return sum(1 for _ in video), pid
    except VideoError as error:
        return error.code, pid or decoders._idle[-1].pid if decoders._idle else None


@pytest.mark.parametrize(
    ("content", "code"), [(None, "not_found"), (b"", "empty_file"), (b"#EXTM3U\n", "playlist_not_supported")]
)
def test_refusals_are_those_of_the_reader(tmp_path, decoders, content, code):
    path = tmp_path / "a.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError) as refused, decoders.open(path):
        pass
    with pytest.raises(VideoError) as expected, open_video(path):
        pass
    assert (refused.value.code, refused.value.message, refused.value.hint) == (
        code,
        expected.value.message,
        expected.value.hint,
    )


@pytest.fixture
def misbehaving(tmp_path, request):
    """Decoders whose children do what the names of the files say."""
    (tmp_path / "port").write_text("1")
    program = MISBEHAVING.replace("PORT", repr(str(tmp_path / "port")))
    seconds = 3.0 if "hang" in request.node.name else 60.0
    with Decoders(Limits(max_wait_seconds=seconds, max_memory_mb=3500), program=program) as decoders:
        yield decoders


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("crash.mp4", "decoder_crash", "SIGSEGV"),
        ("half.mp4", "decoder_crash", "SIGSEGV"),
        ("hang.mp4", "timeout", "nothing for 3 s"),
        ("hog.mp4", "too_large", "3,500 MB"),
        ("nonsense.mp4", "decoder_crash", "nonsense"),
    ],
)
def test_whatever_a_child_does_costs_one_video(tmp_path, misbehaving, name, code, words):
    for each in (name, "good.mp4"):
        write_video(tmp_path / each, num_frames=40, size=(256, 256))
    with pytest.raises(VideoError) as refused, misbehaving.open(tmp_path / name) as video:
        for _ in video:
            pass
    assert (refused.value.code, words in refused.value.message) == (code, True), refused.value.message
    with misbehaving.open(tmp_path / "good.mp4") as video:
        assert sum(1 for _ in video) == 40


def test_a_child_may_not_connect_write_remove_or_run_anything(tmp_path, misbehaving):
    """Refused by the kernel (EPERM), and nothing arrives where it would have gone."""
    write_video(tmp_path / "refused.mp4", num_frames=2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        (tmp_path / "port").write_text(str(server.getsockname()[1]))
        with pytest.raises(VideoError) as refused, misbehaving.open(tmp_path / "refused.mp4"):
            pass
        with pytest.raises(TimeoutError):
            server.accept()
    if misbehaving.lacks():
        pytest.skip(f"this kernel does not refuse it: {misbehaving.lacks()}")
    assert "refused: connect 1, write 1, remove 1, run 1, fork 1" in refused.value.message
    assert (tmp_path / "port").exists() and not (tmp_path / "port.written").exists()


def test_waiting_counts_only_while_the_parent_waits(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=100, size=(256, 256))
    with Decoders(Limits(max_wait_seconds=0.5)) as decoders, decoders.open(path) as video:
        for number, _ in enumerate(video):
            if number == 10:
                time.sleep(1.5)  # the network works on it
        assert number == 99


def test_a_child_killed_by_somebody_else_costs_one_video(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=200, size=(256, 256))
    with Decoders() as decoders:
        with pytest.raises(VideoError, match="SIGKILL") as refused, decoders.open(path) as video:
            for number, _ in enumerate(video):
                if number == 0:
                    os.kill(video._child.pid, signal.SIGKILL)
        assert refused.value.code == "decoder_crash"
        with decoders.open(path) as video:
            assert sum(1 for _ in video) == 200


def test_leaving_a_video_early_and_cancelling_one_end_at_once(tmp_path, decoders):
    path = write_video(tmp_path / "a.mp4", num_frames=400, size=(256, 256))
    began = time.monotonic()
    with decoders.open(path) as video:
        next(iter(video))
    video = decoders.open(path)
    with pytest.raises(VideoError), video:
        threading.Timer(0.2, video.cancel).start()
        for _ in video:
            time.sleep(0.01)
    assert time.monotonic() - began < 30


PARENT = """
import sys, time
from vadis.video.isolation import Decoders
decoders = Decoders()
video = decoders.open(sys.argv[1]).__enter__()
print(video._child.pid, flush=True)
time.sleep(60)
"""


def test_no_child_outlives_a_killed_parent(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=400, size=(256, 256))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(child)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_child_imports_nothing_heavy(tmp_path):
    program = "import sys; import vadis.video.child; print([m for m in ('torch', 'numba', 'cv2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_a_bomb_is_too_large(tmp_path, decoders):
    """A few kilobytes that unpack to a picture of 144 million pixels."""
    path = write_video(
        tmp_path / "bomb.mp4", frames=np.zeros((1, 12000, 12000, 3), np.uint8), codec="mjpeg", pix_fmt="yuvj420p"
    )
    assert path.stat().st_size < 5_000_000
    with pytest.raises(VideoError) as refused, decoders.open(path):
        pass
    assert (refused.value.code, "VADIS_MAX_PIXELS" in (refused.value.hint or "")) == ("too_large", True)
