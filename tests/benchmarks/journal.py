"""What it costs to go on: reading the journal of 100,000 records, and writing one.

python -m tests.benchmarks journal
"""

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.benchmarks.machine import Options
from tests.benchmarks.watched import memory_mb
from tests.fake_road import result
from vadis.batch import open_journal
from vadis.results import Segment, VideoResult

SEGMENTS = 4  # of a 10 s video
LABELS = 5


def record(number: int) -> VideoResult:
    """A record as long as that of a 10 s video."""
    plain = result(f"/archive/2019/{number:07}.mp4")
    labels = tuple(replace(plain.labels[0], score=0.1 + index / 100) for index in range(LABELS))
    bare = tuple(replace(label, peak=None, seconds=None) for label in labels)
    segments = tuple(Segment(2.56 * index, 2.56 * (index + 1), bare) for index in range(SEGMENTS))
    return replace(
        plain, source_bytes=1_000_000 + number, source_mtime="1700000000.5", labels=labels, segments=segments
    )


def measure(options: Options, count: int = 100_000) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.jsonl"
        began = time.perf_counter()
        with open_journal(path) as journal:
            journal.begin({}, {})
            for number in range(count):
                journal.append(record(number))
        wrote = time.perf_counter() - began
        # Not ru_maxrss: that of the process that started this one counts as the least of ours.
        before, began = memory_mb(os.getpid(), own=True), time.perf_counter()
        with open_journal(path) as journal:
            journal.begin({}, {})
            known = sum(
                journal.entries[f"/archive/2019/{number:07}.mp4"].source_bytes == 1_000_000 + number
                for number in range(count)
            )
            read = time.perf_counter() - began
            grown = memory_mb(os.getpid(), own=True) - before
    assert known == count
    return {
        "records": count,
        "write_us": wrote / count * 1e6,
        "read_seconds": read,
        "memory_mb": grown,
    }
