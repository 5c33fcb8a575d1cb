import contextlib
import hashlib
import json
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from urllib.request import Request

import pytest

from tests.matching import containing
from tests.weights.conftest import HASTE, blob_id, remote_file
from vadis.errors import UsageError, WeightsError
from vadis.video.metadata import network_patience
from vadis.weights import cache as cache_room
from vadis.weights.cache import ensure_downloaded
from vadis.weights.catalog import RemoteFile

CONTENT = os.urandom(300_000)


class Log:
    """What ``ensure_downloaded`` told its caller, and the log."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.progress: list[tuple[str, int, int | None]] = []
        self.caplog = caplog

    @property
    def notices(self) -> list[str]:
        return self.caplog.messages

    def report(self, *step) -> None:
        self.progress.append(step)


@pytest.fixture
def log(caplog):
    caplog.set_level("INFO", "vadis")
    return Log(caplog)


def fetch(files, log, *, offline=False):
    return ensure_downloaded(
        "model",
        files,
        offline=offline,
        progress=log.report,
        fallback_hint="use --model PATH",
    )


def assert_nothing_left(cache):
    """Only files under their final names, and all of those right."""
    assert not list(cache.rglob("*.part"))


@pytest.fixture
def file(server):
    return remote_file(server, "net/data.bin", CONTENT)


def test_a_file_is_fetched_once_and_then_taken_from_the_cache(server, file, log, cache):
    (path,) = fetch([file], log)
    assert path == cache / "downloads/net/data.bin"
    assert path.read_bytes() == CONTENT
    assert fetch([file], log) == [path]
    assert server.requests == [("/net/data.bin", None)]
    assert log.notices == []
    assert_nothing_left(cache)


def test_the_mode_is_that_of_any_new_file(file, log, tmp_path):
    (path,) = fetch([file], log)
    (tmp_path / "other").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_progress_counts_the_bytes_of_all_missing_files(server, log):
    files = [remote_file(server, name, CONTENT[:size]) for name, size in (("a", 1000), ("b", 200_000), ("c", 30))]
    fetch(files[2:], log)
    log.progress.clear()
    fetch(files, log)
    assert {step[0] for step in log.progress} == {"model"} and {step[2] for step in log.progress} == {201_000}
    done = [step[1] for step in log.progress]
    assert done == sorted(done) and done[0] == 0 and done[-1] == 201_000


@pytest.mark.parametrize(
    ("faults", "requests"),
    [
        (["cut"], [None, "bytes=150000-"]),
        (["cut", "cut", "cut", "cut"], [None, "bytes=150000-", "bytes=225000-", "bytes=262500-", "bytes=281250-"]),
        (["cut_no_length"], [None, "bytes=150000-"]),
        (["stall"], [None, "bytes=150000-"]),
        (["drip"], None),
        (["503", "503"], [None, None, None]),
        (["cut", "503"], [None, "bytes=150000-", "bytes=150000-"]),
        (["cut", "ignore_range"], [None, "bytes=150000-"]),
        (["cut", "416"], [None, "bytes=150000-", None]),
        (["cut", "wrong_range"], [None, "bytes=150000-", None]),
        (["no_length"], [None]),
    ],
)
def test_what_may_pass_is_tried_again(server, file, log, cache, faults, requests):
    server.faults["/net/data.bin"].extend(faults)
    (path,) = fetch([file], log)
    assert path.read_bytes() == CONTENT
    assert requests is None or [wanted for _, wanted in server.requests] == requests
    assert len(log.notices) == len([fault for fault in faults if fault not in ("no_length", "ignore_range")])
    assert_nothing_left(cache)


@pytest.mark.parametrize(
    ("fault", "fact", "times"),
    [
        ("html", "text/html", 1),
        ("404", 404, 1),
        ("wrong", "net/data.bin", 1),
        ("too_long", "300,000", 1),
        ("503", 503, 5),
        ("cut_no_length", "net/data.bin", 5),
        ("stall", "net/data.bin", 5),
    ],
)
def test_what_stays_wrong_is_refused_and_leaves_nothing(server, file, log, cache, fault, fact, times):
    server.faults["/net/data.bin"].extend([fault] * 9)
    with pytest.raises(WeightsError, match=containing(fact)) as failure:
        fetch([file], log)
    assert f"{server.url}/net/data.bin" in failure.value.message
    assert str(cache / "downloads/net/data.bin") in failure.value.hint
    assert len(server.requests) == times
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_a_size_that_cannot_be_right_is_refused_before_the_transfer(server, file, log):
    server.files["/net/data.bin"] = CONTENT + b"x"
    with pytest.raises(WeightsError, match=containing("300,001", "300,000")):
        fetch([file], log)
    assert log.progress == []


def test_bytes_that_prove_wrong_after_a_resume_are_fetched_anew(server, file, log, monkeypatch):
    """The first half came from another version of the file: nobody can know before the end."""
    server.files["/net/data.bin"] = CONTENT[::-1]
    server.faults["/net/data.bin"].append("cut")
    swap = partial(server.files.__setitem__, "/net/data.bin", CONTENT)
    monkeypatch.setattr(cache_room._log, "info", lambda *_: swap())
    (path,) = fetch([file], log)
    assert path.read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=150000-", None]


def test_the_next_address_is_asked_when_one_refuses(server, log):
    file = remote_file(server, "second", CONTENT)
    file = RemoteFile(file.local, ("https://a.invalid/first", "https://b.invalid/second"), file.git_blob, file.size)
    (path,) = fetch([file], log)
    assert path.read_bytes() == CONTENT
    assert [asked for asked, _ in server.requests] == ["/first", "/second"]


def test_a_redirect_is_followed_between_plain_hosts(server, file, log):
    server.redirect_to = server.url
    server.faults["/net/data.bin"].append("redirect")
    (path,) = fetch([file], log)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("target", ["file://", "ftp://127.0.0.1"])
def test_a_redirect_elsewhere_is_refused(server, file, log, target):
    server.redirect_to = target
    server.faults["/net/data.bin"].extend(["redirect"] * 5)
    with pytest.raises(WeightsError, match=containing(f"{server.url}/net/data.bin")):
        fetch([file], log)


def test_a_redirect_from_https_to_http_is_refused():
    from vadis.weights.cache import HTTPError, _Redirects

    class Connection:
        closed = False

        def close(self) -> None:
            self.closed = True

    connection = Connection()
    with pytest.raises(HTTPError):
        _Redirects().redirect_request(Request("https://x.invalid"), connection, 302, "", {}, "http://x.invalid/")
    assert connection.closed


def test_a_file_of_unknown_size_is_known_by_its_blob_id(server, log):
    file = remote_file(server, "sample.npy", CONTENT, sized=False)
    assert fetch([file], log)[0].read_bytes() == CONTENT
    assert log.progress[-1] == ("model", 300_000, 300_000)


def test_a_file_of_unknown_size_has_a_limit(server, log, monkeypatch):
    monkeypatch.setattr(cache_room, "SIZE_CAP", 100_000)
    server.faults["/sample.npy"].extend(["no_length"] * 9)
    with pytest.raises(WeightsError, match=containing("100,000")):
        fetch([remote_file(server, "sample.npy", CONTENT, sized=False)], log)


def test_a_wrong_file_in_the_cache_is_set_aside_and_fetched_again(file, log):
    path = cache_room.download_path(file)
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:-1] + b"?")
    assert fetch([file], log)[0].read_bytes() == CONTENT
    assert path.with_name("data.bin.corrupt").read_bytes() == CONTENT[:-1] + b"?"
    assert len(log.notices) == 1 and "data.bin.corrupt" in log.notices[0]


def test_what_a_killed_process_left_is_removed_after_a_day(file, log, cache):
    old, young = (cache / f"downloads/net/data.bin.{number}-abcd.part" for number in (1, 2))
    old.parent.mkdir(parents=True)
    old.write_bytes(b"x"), young.write_bytes(b"y")
    os.utime(old, (1, 1))
    fetch([file], log)
    assert not old.exists() and young.exists()


# --- no network ------------------------------------------------------------------------------------------------------


def test_nobody_listening_gives_one_message_with_the_url_and_the_place(file, log, monkeypatch, cache):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("VADIS_MIRROR", f"http://127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(WeightsError, match="Connection refused") as failure:
            fetch([file], log)
    assert re.search(containing("/net/data.bin", "127.0.0.1"), failure.value.message)
    assert "\n" not in failure.value.message
    assert str(cache / "downloads/net/data.bin") in failure.value.hint
    assert "--model PATH" in failure.value.hint


def test_silence_ends_within_the_time_for_a_first_answer(server, file, log):
    server.faults["/net/data.bin"].extend(["silent"] * 9)
    start = time.monotonic()
    with pytest.raises(WeightsError, match=containing(f"{server.url}/net/data.bin")):
        fetch([file], log)
    assert time.monotonic() - start < HASTE["FIRST_ANSWER_SECONDS"] + 0.5


@pytest.mark.slow
def test_a_name_lookup_that_hangs_ends_within_the_time_for_a_first_answer(server, file, log, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: server.released.wait(30) or [])
    start = time.monotonic()
    with pytest.raises(WeightsError, match=containing(f"{server.url}/net/data.bin")):
        fetch([file], log)
    assert time.monotonic() - start < HASTE["FIRST_ANSWER_SECONDS"] + 0.5


def test_the_default_patience_keeps_the_promise_of_15_seconds():
    code = "from vadis.weights import cache; print(cache.FIRST_ANSWER_SECONDS, len(cache.PAUSES))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first_answer, rounds = done.stdout.split()
    assert float(first_answer) <= 10  # the rest is for importing PyTorch on a slow machine
    assert int(rounds) == 5


def test_offline_opens_no_socket(file, log, cache):
    events = []
    sys.addaudithook(lambda event, _: events.append(event) if event.startswith("socket.") and recording else None)
    recording = True
    with pytest.raises(WeightsError, match=containing("net/data.bin")) as failure:
        fetch([file], log, offline=True)
    assert events == []
    assert "/net/data.bin" in failure.value.hint
    fetch([file], log)
    assert "socket.connect" in events
    events.clear()
    fetch([file], log, offline=True)
    assert events == []
    recording = False


def test_offline_names_a_wrong_file_and_leaves_it(file, log):
    path = cache_room.download_path(file)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"wrong")
    with pytest.raises(WeightsError, match=containing("data.bin")):
        fetch([file], log, offline=True)
    assert path.read_bytes() == b"wrong"


@pytest.mark.parametrize(
    ("value", "offline"), [("1", True), ("yes", True), ("0", False), ("", False), ("false", False)]
)
def test_the_environment_can_ask_for_offline(monkeypatch, value, offline):
    monkeypatch.setenv("VADIS_OFFLINE", value)
    assert cache_room.is_offline() is offline


@pytest.mark.parametrize("mirror", ["mirror.example", "ftp://x", "http://", "http://user:secret@host"])
def test_a_mirror_must_be_the_address_of_a_host(file, log, monkeypatch, mirror):
    monkeypatch.setenv("VADIS_MIRROR", mirror)
    with pytest.raises(WeightsError, match="VADIS_MIRROR") as failure:
        fetch([file], log)
    assert "secret" not in failure.value.message + failure.value.hint


def test_a_mirror_keeps_the_path_and_may_have_one_itself(server, log, monkeypatch):
    server.files["/far/away/net/data.bin"] = CONTENT
    file = RemoteFile("data.bin", ("https://published.invalid/net/data.bin",), blob_id(CONTENT), len(CONTENT))
    monkeypatch.setenv("VADIS_MIRROR", f"{server.url}/far/away/")
    assert fetch([file], log)[0].read_bytes() == CONTENT


# --- the disk --------------------------------------------------------------------------------------------------------


def test_a_cache_that_cannot_be_written_is_named_with_the_variable(file, log, monkeypatch, tmp_path):
    (tmp_path / "occupied").write_text("a file where the cache should be")
    monkeypatch.setenv("VADIS_CACHE", str(tmp_path / "occupied"))
    with pytest.raises(WeightsError, match=containing(tmp_path / "occupied")) as failure:
        fetch([file], log)
    assert "VADIS_CACHE" in failure.value.message


@contextlib.contextmanager
def without_privileges():
    """As a user whom permissions bind: root may write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder(monkeypatch):
    """A cache that every user may enter (pytest's own folders are private)."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("VADIS_CACHE", folder)
        yield Path(folder)
        for path in (Path(folder), *(path for path in Path(folder).rglob("*") if path.is_dir())):
            path.chmod(0o755)


def test_a_read_only_cache_serves_what_it_holds(server, file, log, open_folder):
    fetch([file], log)
    for path in (open_folder, *open_folder.rglob("*")):
        path.chmod(0o555)
    with without_privileges():
        assert fetch([file], log)[0].read_bytes() == CONTENT
    assert len(server.requests) == 1


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_read_only_cache_without_the_file_is_named_with_the_variable(server, file, log, open_folder, mode):
    open_folder.chmod(mode)
    with without_privileges(), pytest.raises(WeightsError, match=containing("Permission denied")) as failure:
        fetch([file], log)
    assert str(open_folder) in failure.value.message
    assert "VADIS_CACHE" in failure.value.message
    assert server.requests == []


def test_a_full_disk_is_named_with_the_path_and_the_size(file, log, cache):
    """A limit on the size of files stands for the disk: the kernel refuses the write in both cases."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(WeightsError, match=containing("data.bin", "0.3 MB")) as failure:
            fetch([file], log)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "VADIS_CACHE" in failure.value.message
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    assert hashlib.sha1(fetch([file], log)[0].read_bytes()).digest() == hashlib.sha1(CONTENT).digest()


# --- many at once ----------------------------------------------------------------------------------------------------

CHILD = """
import fcntl, json, logging, sys
from vadis.weights.catalog import RemoteFile
from vadis.weights.cache import download_lock
from vadis.weights import cache
from vadis.weights.cache import ensure_downloaded
cache.STALL_SECONDS = 0.5
if sys.argv[2] == "no_locks":
    fcntl.flock = lambda *_: None
files = [RemoteFile(local, tuple(urls), blob, size) for local, urls, blob, size in json.loads(sys.argv[1])]
logging.basicConfig(level="INFO")
with download_lock("model"):
    ensure_downloaded("model", files, offline=False, progress=lambda *_: None, fallback_hint="")
print("right")
"""


@pytest.mark.slow
@pytest.mark.parametrize("locks", ["locks", "no_locks"])
def test_eight_processes_at_once_all_end_right(server, log, cache, locks):
    files = [remote_file(server, f"f{number}", os.urandom(2_000_000)) for number in range(3)]
    for number, faults in enumerate((["cut", "stall", "503"], ["no_length"], ["503"])):
        server.faults[f"/f{number}"].extend(faults)
    rows = json.dumps([[file.local, file.urls, file.git_blob, file.size] for file in files])
    command = [sys.executable, "-c", CHILD, rows, locks]
    children = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(8)
    ]
    outputs = [child.communicate(timeout=60)[0] for child in children]
    assert [child.returncode for child in children] == [0] * 8, outputs
    for file in files:
        assert (cache / "downloads" / file.local).read_bytes() == server.files[f"/{file.local}"]
    assert {path.name for path in cache.rglob("*") if path.is_file()} == {"f0", "f1", "f2", "model.lock"}
    if locks == "locks":  # one did it all, with the requests that the faults made necessary
        assert sorted(path for path, _ in server.requests) == ["/f0"] * 4 + ["/f1"] + ["/f2"] * 2
        assert any("model" in output for output in outputs)


@pytest.mark.slow
def test_a_process_killed_at_any_moment_leaves_only_right_files(server, log, cache):
    files = [remote_file(server, f"f{number}", os.urandom(3_000_000)) for number in range(8)]
    rows = json.dumps([[file.local, file.urls, file.git_blob, file.size] for file in files])
    complete = 0
    for moment in range(6):
        child = subprocess.Popen([sys.executable, "-c", CHILD, rows, "locks"], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while len(server.requests) == complete and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)  # until it is at work
        time.sleep(0.004 * moment)
        child.kill()
        child.wait()
        complete = len(server.requests)
        for file in files:
            path = cache / "downloads" / file.local
            assert not path.exists() or path.read_bytes() == server.files[f"/{file.local}"]
    fetch(files, log)
    assert all((cache / "downloads" / file.local).is_file() for file in files)


@pytest.mark.parametrize(("given", "factor"), [(None, 1), ("", 1), ("3", 3), ("0.5", 0.5)])
def test_hosts_are_waited_for_as_long_as_asked(server, file, log, monkeypatch, given, factor):
    monkeypatch.delenv("VADIS_NETWORK_PATIENCE", raising=False)
    if given is not None:
        monkeypatch.setenv("VADIS_NETWORK_PATIENCE", given)
    waited = list[tuple[float, float]]()

    def refuse(url, headers, answer_seconds, stall_seconds):
        waited.append((answer_seconds, stall_seconds))
        raise cache_room.HTTPError("no")

    monkeypatch.setattr(cache_room, "get", refuse)
    with pytest.raises(WeightsError):
        fetch([file], log)
    assert waited == [(HASTE["ANSWER_SECONDS"] * factor, HASTE["STALL_SECONDS"] * factor)]


@pytest.mark.parametrize("given", ["0", "-1", "long", "nan", "inf"])
def test_a_patience_that_cannot_be_is_wrong_use(monkeypatch, given):
    monkeypatch.setenv("VADIS_NETWORK_PATIENCE", given)
    with pytest.raises(UsageError, match="VADIS_NETWORK_PATIENCE"):
        network_patience()
