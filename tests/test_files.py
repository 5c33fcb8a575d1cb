"""Files that are whole or absent, logs that survive a torn line, and the lock, also where the file system has none."""

import errno
import fcntl
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.matching import containing
from vadis.errors import OutputLockedError, UsageError, VadisError
from vadis.files import AppendLog, locked, os_errors_as, write_atomic, write_file


def fail_to_flush(descriptor=None):
    raise OSError(errno.EIO, "Input/output error")


def test_a_file_is_replaced_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "out.json"
    write_file(path, "één\n")
    with write_atomic(path) as file:
        file.write(b"second")
        assert path.read_text() == "één\n"
        assert Path(file.name).stat().st_ino == os.fstat(file.fileno()).st_ino
    assert path.read_bytes() == b"second"
    with pytest.raises(ZeroDivisionError), write_atomic(path) as file:
        file.write(b"third")
        raise ZeroDivisionError
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_a_day_later(tmp_path):
    fresh, old = tmp_path / "[a].json.1-x.part", tmp_path / "[a].json.2-y.part"
    for leftover in (fresh, old):
        leftover.touch()
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    write_file(tmp_path / "[a].json", "")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["[a].json", fresh.name]


@pytest.mark.parametrize(
    ("number", "kind", "raised"),
    [
        (errno.EACCES, UsageError, UsageError),
        (errno.ENOSPC, UsageError, VadisError),
        (errno.EIO, VadisError, VadisError),
    ],
)
def test_what_the_operating_system_refuses_names_the_file_and_its_reason(number, kind, raised):
    with pytest.raises(VadisError) as refused, os_errors_as(kind, "a.json cannot be read", "try again"):
        raise OSError(number, os.strerror(number))
    assert type(refused.value) is raised
    assert refused.value.message == f"a.json cannot be read: {os.strerror(number)}"
    assert refused.value.hint


def test_a_reader_that_has_left_is_no_error_of_the_file():
    with pytest.raises(BrokenPipeError), os_errors_as(VadisError, "stdout"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 5, 7, 70_000, 140_008])
def test_a_log_goes_on_behind_its_last_whole_line(tmp_path, cut):
    path, whole = tmp_path / "log", b"one\ntwo\n" + b"3" * 140_000 + b"\n"
    path.write_bytes(whole[:cut])
    with AppendLog(path) as log:
        assert path.read_bytes() == whole[:cut], "nothing is changed before something is written"
        log.append(b"more\n")
    kept = whole[:cut].rfind(b"\n") + 1
    assert path.read_bytes() == whole[:kept] + b"more\n"


def test_a_log_that_stays_empty_leaves_no_file(tmp_path):
    with AppendLog(tmp_path / "log"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_was_removed_takes_nothing_more(tmp_path):
    with AppendLog(tmp_path / "log") as log:
        log.append(b"one\n")
        (tmp_path / "log").unlink()
        with pytest.raises(VadisError, match="removed or replaced"):
            log.append(b"two\n")


def test_what_a_full_disk_took_of_a_line_is_cut_off(tmp_path, monkeypatch):
    path, write, calls = tmp_path / "log", os.write, []

    def full(descriptor, data):
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, bytes(data[: len(data) // 2]))

    with AppendLog(path) as log:
        log.append(b"one\n")
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(VadisError, match=r"log: No space left on device"):
            log.append(b"two\n")
        monkeypatch.undo()
        assert path.read_bytes() == b"one\n"
        log.append(b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"


def test_every_line_is_on_the_disk_a_second_later_at_most(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    with AppendLog(tmp_path / "log", sync_seconds=0.05) as log:
        for size in (4, 8):
            log.append(b"one\n")
            deadline = time.monotonic() + 10
            while size not in synced and time.monotonic() < deadline:
                time.sleep(0.01)
            assert size in synced


def test_a_disk_that_fails_to_flush_is_told_with_the_next_line(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", fail_to_flush)
    with pytest.raises(VadisError, match="Input/output error"), AppendLog(tmp_path / "log", sync_seconds=0.01) as log:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            log.append(b"one\n")
            time.sleep(0.02)


def test_a_flush_that_fails_while_the_log_is_closed_is_told(tmp_path, monkeypatch):
    """The timer's flush has begun, and its file is closed before the disk has answered."""
    begun, answer = threading.Event(), threading.Event()

    def fsync(descriptor):
        begun.set()
        answer.wait(10)
        fail_to_flush()

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(VadisError, match="Input/output error"), AppendLog(tmp_path / "log", sync_seconds=0.01) as log:
        log.append(b"one\n")
        assert begun.wait(10)
        threading.Timer(0.1, answer.set).start()


def test_a_flush_that_ends_while_the_log_is_closed_is_no_bug(tmp_path):
    for _ in range(200):
        with AppendLog(tmp_path / "log", sync_seconds=0) as log:
            log.append(b"one\n")
    assert (tmp_path / "log").read_bytes() == 200 * b"one\n"


@pytest.fixture
def without_locks(monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_it_says_who_holds_it_and_leaves_nothing(tmp_path):
    output = tmp_path / "out.csv"
    with locked(output):
        assert f"process {os.getpid()} on {socket.gethostname()}," in (tmp_path / "out.csv.lock").read_text()
        with pytest.raises(OutputLockedError, match=containing(os.getpid())), locked(output):
            pass
    assert list(tmp_path.iterdir()) == []
    assert OutputLockedError("").exit_code == 5


def test_a_lock_that_is_removed_while_it_is_taken_is_taken_anew(tmp_path, monkeypatch):
    output, flock, removed = tmp_path / "out.csv", fcntl.flock, []

    def slowly(descriptor, operation):
        flock(descriptor, operation)
        if not removed:  # the run before lets go just now
            removed.append(True)
            (tmp_path / "out.csv.lock").unlink()

    monkeypatch.setattr(fcntl, "flock", slowly)
    with locked(output):
        assert f"process {os.getpid()} on" in (tmp_path / "out.csv.lock").read_text()
    assert list(tmp_path.iterdir()) == []


def test_without_the_kernels_locks_the_file_is_one(tmp_path, without_locks):
    (tmp_path / "out.csv.lock").write_text("")  # by a process that was killed at once
    with locked(tmp_path / "out.csv"):
        with pytest.raises(OutputLockedError) as refused, locked(tmp_path / "out.csv"):
            pass
        assert str(os.getpid()) in refused.value.message
        assert "remove" in refused.value.hint
    assert list(tmp_path.iterdir()) == []
