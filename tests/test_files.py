"""The lock beside an output, also where the file system has none of its own."""

import errno
import fcntl
import json
import os
import socket

import pytest

from tests.matching import containing
from vadis import files as lock_module
from vadis.errors import OutputLockedError
from vadis.files import locked


@pytest.fixture
def without_locks(monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock_module.fcntl, "flock", refuse)


def test_it_says_who_holds_it_and_leaves_nothing(tmp_path):
    output = tmp_path / "out.csv"
    with locked(output):
        holder = json.loads((tmp_path / "out.csv.lock").read_text())
        assert (holder["pid"], holder["host"]) == (os.getpid(), socket.gethostname())
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

    monkeypatch.setattr(lock_module.fcntl, "flock", slowly)
    with locked(output):
        assert json.loads((tmp_path / "out.csv.lock").read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def signed(path, **changes):
    path.write_text(json.dumps({"pid": 1, "host": socket.gethostname(), "since": "long ago", **changes}))


@pytest.mark.parametrize(
    "changes",
    [{"pid": 2**22 + 7}, {"pid": None, "host": None}],
    ids=["a process that is gone", "a lock without a name"],
)
def test_without_the_kernels_locks_a_stale_one_is_recognised(tmp_path, without_locks, changes):
    if changes["pid"] is None:
        (tmp_path / "out.csv.lock").write_text("")
    else:
        signed(tmp_path / "out.csv.lock", **changes)
    with locked(tmp_path / "out.csv"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("changes", [{}, {"host": "elsewhere"}], ids=["a living process", "another host"])
def test_without_the_kernels_locks_one_that_may_live_is_respected(tmp_path, without_locks, changes):
    signed(tmp_path / "out.csv.lock", **changes)
    with pytest.raises(OutputLockedError) as refused, locked(tmp_path / "out.csv"):
        pass
    assert "remove" in refused.value.hint
