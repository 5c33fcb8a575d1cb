"""Thousands of files: memory and file descriptors do not grow with their number.

The whole, 20,000 real videos: ``pytest -n 0 -m exhaustive -s tests/reliability/test_many.py``.
"""

import os
import time
from pathlib import Path

import pytest

from tests.reliability.program import Batch, fake_batch, needs_proc, real_batch, records

pytestmark = needs_proc
MOST_GROWTH_BYTES = 50e6


def watched(batch: Batch, output: Path) -> tuple[list[int], list[int]]:
    """Resident bytes and open descriptors of the main process while it labels, looked at every tenth of a second."""
    memory, descriptors = [], []
    process = batch.start(output)
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
    process.communicate()
    return memory, descriptors


def check(batch: Batch, output: Path, num_videos: int) -> None:
    memory, descriptors = watched(batch, output)
    growth = max(memory) - min(memory[: max(1, len(memory) // 10)])
    print(f"\n{num_videos:,} videos: memory grew by {growth / 1e6:.1f} MB, descriptors {set(descriptors)}")
    assert len(memory) > 5, "it was looked at more than once"
    assert growth < MOST_GROWTH_BYTES
    assert max(descriptors) - min(descriptors) <= 3, descriptors
    assert len(records(output)) == num_videos


def test_two_thousand_names(tmp_path):
    check(fake_batch(tmp_path / "videos", 2000, seconds=0.001), tmp_path / "out.jsonl", 2000)


@pytest.mark.exhaustive
def test_twenty_thousand_videos(tmp_path):
    check(real_batch(tmp_path / "videos", 20_000), tmp_path / "out.jsonl", 20_000)
