"""Thousands of files, hours of video: memory and file descriptors grow neither with their number nor with their length.

The whole, with one of an hour: ``pytest -n 0 -m exhaustive -s tests/reliability/test_many.py``.
"""

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.reliability.program import Batch, fake_batch, members, needs_proc, real_batch, records
from tests.synthetic import moving_texture, write_video

pytestmark = needs_proc
MOST_GROWTH_BYTES = 50e6


def watched(batch: Batch, output: Path) -> tuple[list[int], list[int]]:
    """Resident bytes and open descriptors of the main process while it labels, looked at every tenth of a second."""
    memory, descriptors = [], []
    process = batch.start(output, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            count = sum(1 for _ in Path(f"/proc/{process.pid}/fd").iterdir())
        except OSError:
            break
        if output.exists() and output.stat().st_size > 2000:  # it is under way
            memory.append(pages * os.sysconf("SC_PAGE_SIZE"))
            descriptors.append(count)
        time.sleep(0.1)
    process.wait()
    return memory, descriptors


def check(batch: Batch, output: Path, num_videos: int, at_first: Callable[[list[int]], int] = min) -> None:
    """Memory stays within 50 MB of what ``at_first`` makes of the first tenth."""
    memory, descriptors = watched(batch, output)
    tenths = [memory[len(memory) * tenth // 10 : len(memory) * (tenth + 1) // 10] or memory for tenth in range(10)]
    growth = max(memory) - at_first(tenths[0])
    print(f"\n{num_videos:,} videos: memory grew by {growth / 1e6:.1f} MB, descriptors {set(descriptors)}")
    print("MB in each tenth: " + ", ".join(f"{min(tenth) / 1e6:.0f}-{max(tenth) / 1e6:.0f}" for tenth in tenths))
    assert len(memory) > 5, "it was looked at more than once"
    assert growth < MOST_GROWTH_BYTES
    assert max(descriptors) - descriptors[0] <= 3, descriptors  # fewer are open at the very end
    assert len(records(output)) == num_videos


@pytest.mark.slow
def test_two_thousand_names(tmp_path):
    check(fake_batch(tmp_path / "videos", 2000, seconds=0.001), tmp_path / "out.jsonl", 2000)


@pytest.mark.exhaustive
def test_twenty_thousand_names(tmp_path):
    """Their decoding is tests/inference/test_prefetch.py's: the network on all of them would take an hour."""
    check(fake_batch(tmp_path / "videos", 20_000, seconds=0.001), tmp_path / "out.jsonl", 20_000)


@pytest.mark.exhaustive
def test_a_thousand_videos(tmp_path):
    """The network takes and gives back some 100 MB with each: growth is what goes beyond the beginning's most."""
    check(real_batch(tmp_path / "videos", 1_000), tmp_path / "out.jsonl", 1_000, at_first=max)


def most_memory(batch: Batch, video: Path, streams: str) -> float:
    """The most bytes that a run on one video holds, its decoder with it, looked at every tenth of a second."""
    output = video.with_suffix(".jsonl")
    process = replace(batch, videos=video).start(output, "--streams", streams, stderr=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        most = max(most, sum(map(resident, members(process.pid))))
        time.sleep(0.1)
    assert process.wait() == 0
    (record,) = records(output)
    assert record["status"] == "ok"
    output.unlink()  # another run would go on where this one is: at its end
    return most


def resident(pid: int) -> int:
    """Bytes; 0 of a process that has just ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


@pytest.mark.parametrize(
    ("streams", "short_seconds", "long_seconds"),
    [
        pytest.param("rgb", 30, 100, marks=pytest.mark.slow),
        pytest.param("rgb", 60, 3600, marks=pytest.mark.exhaustive),
        pytest.param("both", 30, 300, marks=pytest.mark.exhaustive),
    ],
)
def test_a_long_video_in_the_memory_of_a_short_one(tmp_path, streams, short_seconds, long_seconds):
    """The most of two runs each, for it depends by some 6 % on how threads take turns; it is there within 30 s."""
    batch, texture = real_batch(tmp_path / "videos", 1), moving_texture(64, (64, 48), seed=0)

    def held(seconds: int) -> float:
        frames = [texture[index % 64] for index in range(25 * seconds)]
        video = write_video(tmp_path / f"{seconds}.mp4", frames=frames)
        most = [most_memory(batch, video, streams) for _ in range(2)]
        print(f"\n{streams}, {seconds} s: " + ", ".join(f"{each / 1e6:.0f} MB" for each in most))
        return max(most)

    assert held(long_seconds) < 1.1 * held(short_seconds)
