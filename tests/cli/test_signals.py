"""Signals and broken pipes, on the program itself (with the road faked, see tests/fake_road.py)."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vadis.cli import signals
from vadis.errors import VadisError

ROOT = Path(__file__).parents[2]
WITHIN_SECONDS = 5  # the promise; a loaded machine included


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4", "slow.mp4", "z.mp4"):
        (folder / name).write_bytes(b"not looked at")
    return folder


def started(*arguments):
    command = [sys.executable, "-m", "tests.fake_road", "classify", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def interrupted(process, signum, ready):
    """What ``process`` leaves after ``signum``, sent once ``ready()``: (exit code, stdout, stderr)."""
    deadline = time.monotonic() + 30
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)  # now it is busy with the slow one
    process.send_signal(signum)
    out, err = process.communicate(timeout=WITHIN_SECONDS)
    return process.returncode, out, err


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_with_its_code_and_the_records_so_far(clips, tmp_path, signum, code):
    out = tmp_path / "out.jsonl"
    process = started(clips, "-o", out)
    ended = interrupted(process, signum, lambda: out.exists() and out.read_bytes().count(b"\n") == 3)
    assert ended[0] == code
    assert ended[2].splitlines()[-1].startswith("2 ok, 2 not done")
    assert [json.loads(line)["path"][-5:] for line in out.read_text().splitlines()[1:]] == ["a.mp4", "b.mp4"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["json", "csv"])
def test_a_document_has_its_name_only_when_it_is_complete(clips, tmp_path, name):
    out = tmp_path / f"out.{name}"
    process = started(clips, "-o", out)
    code, _, err = interrupted(process, signal.SIGINT, lambda: any(tmp_path.glob("*.part")))
    assert code == 130, err
    kept = tmp_path / f"out.incomplete.{name}"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "clips", kept]
    assert str(kept) in err
    text = kept.read_text()
    assert "b.mp4" in text and "slow.mp4" not in text
    if name == "json":
        assert len(json.loads(text)) == 2
    for video in clips.glob("slow*"):
        video.unlink()
    again = started(clips, "-o", out)
    again.communicate(timeout=30)
    assert (again.returncode, out.is_file()) == (0, True)


def test_of_a_document_without_a_record_nothing_is_kept(tmp_path):
    (tmp_path / "slow.mp4").write_bytes(b"not looked at")
    process = started(tmp_path / "slow.mp4", "-o", tmp_path / "out.srt")
    code, _, err = interrupted(process, signal.SIGTERM, lambda: any(tmp_path.glob("*.part")))
    assert (code, list(tmp_path.iterdir())) == (143, [tmp_path / "slow.mp4"]), err


def test_a_reader_that_leaves_ends_the_run_quietly(clips):
    process = started(clips / "a.mp4", clips / "b.mp4")
    process.stdout.close()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.count("\n")) == (1, 1), err


@pytest.fixture
def own_handlers():
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    signals.install()
    yield
    signals.install()  # nothing is to end any more
    for signum, handler in before.items():
        signal.signal(signum, handler)


def test_a_signal_waits_while_a_record_is_written(own_handlers):
    done = []
    with pytest.raises(signals.Interrupted) as raised, signals.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("written")
        with signals.interruptible():
            done.append("too much")
    assert done == ["written"]
    assert raised.value.exit_code == 143


def test_a_signal_that_waited_is_not_forgotten(own_handlers):
    with pytest.raises(signals.Interrupted), signals.deferred():
        os.kill(os.getpid(), signal.SIGINT)


def test_elsewhere_a_signal_is_raised_at_once(own_handlers):
    with pytest.raises(signals.Interrupted) as raised:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    assert raised.value.exit_code == 130


SIGNALS_TWICE = """
import os, signal, sys, time
from vadis.cli import signals
signals.install()
with signals.deferred():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(signals.SAME_SIGNAL_SECONDS * {pause})
    os.kill(os.getpid(), signal.SIGTERM)
    print("still here", flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize(("pause", "code", "out"), [(1.2, 143, ""), (0, 0, "still here\n")])
def test_a_second_signal_ends_the_process_at_once_unless_it_is_the_same_wish(pause, code, out):
    program = SIGNALS_TWICE.format(pause=pause)
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, out, "")


def test_a_signal_waits_for_the_end_of_an_import(own_handlers, tmp_path, monkeypatch):
    """PyTorch's C++ runs Python while it is imported, and ends the process by abort() if that raises."""
    (tmp_path / "long_import.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(0.1)\nis_whole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(signals.Interrupted) as raised:
        import long_import

        time.sleep(1)
    assert long_import.is_whole and raised.value.exit_code == 143


def test_a_signal_in_an_import_inside_a_deferred_block_waits_for_both(own_handlers, tmp_path, monkeypatch):
    (tmp_path / "deferred_import.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    monkeypatch.syspath_prepend(tmp_path)
    done = []
    with pytest.raises(signals.Interrupted), signals.deferred():
        with signals.interruptible():
            import deferred_import  # noqa: F401
        time.sleep(3 * signals.AGAIN_SECONDS)
        done.append("written")
    assert done == ["written"]


CANNOT_END = """
import os, signal, threading, time
from vadis import cli
from vadis.cli import signals
signals.END_SECONDS = 0.3

def work(prog_name):
    thread = threading.Thread(target=time.sleep, args=(60,))  # as one in which numba compiles
    thread.start()
    os.kill(os.getpid(), signal.SIGTERM)
    thread.join()

def work_and_wait(prog_name):
    try:
        work(prog_name)
    finally:
        time.sleep(60)

def import_what_takes_long(prog_name):
    import takes_long

def be_deferred(prog_name):
    with signals.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(3 * signals.END_SECONDS)
        os.write(1, b"saved")

cli.app = {what}
cli.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "out"), [("work", ""), ("work_and_wait", ""), ("import_what_takes_long", ""), ("be_deferred", "saved")]
)
def test_what_does_not_end_is_ended_but_what_is_deferred_is_waited_for(tmp_path, what, out):
    """A thread that the end waits for, one within the work or at the end of the interpreter; or an import."""
    (tmp_path / "takes_long.py").write_text("import os, signal, time\nos.kill(os.getpid(), 15)\ntime.sleep(60)\n")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    command = [sys.executable, "-c", CANNOT_END.format(what=what)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, out, "interrupted\n")


WORKER_STARTS = """
import multiprocessing, time
from vadis import cli
from vadis.cli.signals import Interrupted
from vadis.training.distributed import run_unless_stopped

class LongToRead:
    def __reduce__(self):
        return time.sleep, (5,)

def work(prog_name):
    context = multiprocessing.get_context("spawn")
    context.Process(target=print, args=(LongToRead(), context.Semaphore())).start()
    assert run_unless_stopped(lambda: time.sleep(60), lambda: 15) is None
    raise Interrupted(15)

cli.app = work
cli.main()
"""


def test_a_worker_that_is_still_starting_is_ended_without_a_word():
    """It would look for semaphores that are gone by then."""
    ended = subprocess.run([sys.executable, "-c", WORKER_STARTS], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "", "interrupted\n")


LATE_IN_AN_IMPORT = """
import sys
from vadis import cli
cli.app = lambda prog_name: __import__("late")
cli.main()
"""


def test_a_signal_that_comes_too_late_does_no_harm(tmp_path):
    (tmp_path / "late.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    ended = subprocess.run([sys.executable, "-c", LATE_IN_AN_IMPORT], env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_signal_in_something_that_then_fails_is_still_the_reason(own_handlers):
    """An extension module that was broken off says, when it is imported again, that this cannot be."""
    with pytest.raises(signals.Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    found = signals.cause(ImportError("cannot load module more than once per process"))
    assert (type(found), found.exit_code) == (signals.Interrupted, 143)
    known = VadisError("another process of this run has ended")
    assert signals.cause(known) is known
    signals.install()
    assert isinstance(signals.cause(ImportError("x")), ImportError), "no signal came"
