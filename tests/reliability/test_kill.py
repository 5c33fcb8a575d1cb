"""Killed at random moments: no record lost, doubled or torn, and the result as if nothing had been.

The quick share kills the program with the road faked, whose journal, signals and outputs are the real ones. The whole,
200 times each, also with the real road: ``pytest -n 0 -m exhaustive tests/reliability/test_kill.py``.
"""

import random
import signal
import time
from dataclasses import replace

import pytest

from tests.reliability.program import (
    ENDS_WITHIN_SECONDS,
    Batch,
    ended,
    fake_batch,
    kill,
    left_of,
    members,
    needs_proc,
    real_batch,
    records,
)

pytestmark = needs_proc
SEED = 20170724


def killed_until_done(batch: Batch, output, kills: int, seed: int) -> tuple[int, int]:
    """Runs of ``batch`` into ``output``, killed at random moments ``kills`` times; one result after another.

    Returns how many results became whole, and how many records the last run before the end found there.
    """
    moments, whole, resumed = random.Random(seed), 0, 0
    while kills > 0:
        process = batch.start(output)
        try:
            process.communicate(timeout=moments.uniform(0, batch.seconds))
        except Exception:
            kill(process)
            assert left_of(process) == []
            kills -= 1
            resumed += output.is_file() and output.read_bytes().count(b"\n") > 1
            continue
        assert process.returncode == 3
        whole += 1
        check_and_begin_anew(batch, output)
    assert batch.run(output) == 3
    return whole, resumed


def check_and_begin_anew(batch: Batch, output) -> None:
    assert len(records(output)) == len(list(batch.videos.iterdir()))
    output.unlink()


def check_killed(batch: Batch, folder, kills: int) -> None:
    start = time.monotonic()
    assert batch.run(folder / "undisturbed.jsonl") == 3
    batch = replace(batch, seconds=time.monotonic() - start)  # as long as it takes on this machine
    _, resumed = killed_until_done(batch, folder / "killed.jsonl", kills, SEED)
    assert resumed, "some runs were killed after they had begun to write"
    undisturbed, killed = (
        sorted((folder / f"{name}.jsonl").read_bytes().splitlines(keepends=True)) for name in ("undisturbed", "killed")
    )
    assert killed == undisturbed
    assert {entry.name for entry in folder.iterdir() if "killed" in entry.name} == {"killed.jsonl"}


@pytest.mark.slow
def test_killed_at_random_moments_the_result_is_that_of_an_undisturbed_run(tmp_path):
    check_killed(fake_batch(tmp_path / "videos", 60), tmp_path, kills=8)


@pytest.mark.exhaustive
@pytest.mark.parametrize("make", [fake_batch, real_batch])
def test_killed_200_times_in_a_batch_of_200(tmp_path, make):
    check_killed(make(tmp_path / "videos", 200), tmp_path, kills=200)


@pytest.mark.slow
def test_an_output_folder_survives_kills_too(tmp_path):
    batch, moments = fake_batch(tmp_path / "videos", 40), random.Random(SEED)
    for _ in range(6):
        process = batch.start(tmp_path / "out", "-f", "srt")
        time.sleep(moments.uniform(0.1, batch.seconds))
        kill(process)
    assert batch.run(tmp_path / "out", "-f", "srt") == 3
    labelled = {f"{video.stem}.srt" for video in batch.videos.iterdir() if "bad" not in video.name}
    left = {entry.name for entry in (tmp_path / "out").iterdir() if not entry.name.endswith(".part")}
    assert left == {*labelled, "vadis-results.jsonl"}
    assert len(records(tmp_path / "out" / "vadis-results.jsonl")) == 40


def check_signals(batch: Batch, folder, times: int) -> None:
    """Each signal ``times`` times: the right code within the time promised, no record half there, no child left."""
    moments = random.Random(SEED)
    for signum, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        output = folder / f"{code}.jsonl"
        for _ in range(times):
            process = batch.start(output)
            wait_until_it_holds(process, output)
            time.sleep(moments.uniform(0, batch.seconds / 2))
            is_running = holds(process, output)
            found, took, left = ended(process, signum)
            assert not left
            if is_running and found != 3:  # it may end of itself just then
                assert (found, took < ENDS_WITHIN_SECONDS) == (code, True), (found, took)
            if output.exists():
                assert output.read_bytes().endswith(b"\n")
            if found == 3:
                check_and_begin_anew(batch, output)
        assert batch.run(output) == 3
        assert len(records(output)) == len(list(batch.videos.iterdir()))


def holds(process, output) -> bool:
    """Whether the run has come so far as to hold its output: the signals' handlers are there long before."""
    lock = output.with_name(f"{output.name}.lock")
    return lock.exists() and f"process {process.pid} on" in lock.read_text()


def wait_until_it_holds(process, output) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and not holds(process, output):
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
def test_signals_end_a_batch_in_good_order(tmp_path):
    check_signals(fake_batch(tmp_path / "videos", 60), tmp_path, times=3)


@pytest.mark.exhaustive
@pytest.mark.parametrize("make", [fake_batch, real_batch])
def test_signals_end_a_batch_in_good_order_50_times(tmp_path, make):
    check_signals(make(tmp_path / "videos", 100), tmp_path, times=50)


def test_the_members_of_a_group_are_found(tmp_path):
    batch = fake_batch(tmp_path / "videos", 60)
    process = batch.start(tmp_path / "out.jsonl")
    assert members(process.pid) == [process.pid]
    kill(process)
    assert members(process.pid) == []
