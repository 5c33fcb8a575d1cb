"""Damaged, cut and hostile files through the decoders' pool: one outcome each, no death, no hang, no connection.

The whole: ``pytest -n 0 -s -m exhaustive tests/reliability/test_fuzz.py``; FUZZ_VIDEOS sets how many (10,000).
"""

import os
import random
import time
from collections import Counter

import pytest

from tests.synthetic import write_video
from tests.video.test_hostile import SEEDS, mutated
from vadis.errors import VideoError
from vadis.video.facts import Limits
from vadis.video.isolation import Decoders

WATCHDOG_SECONDS = 20.0
CONTAINERS = ("b.mp4", "c.mkv", "d.avi", "e.ts", "f.webm")


def seeds(folder, num_frames, names=CONTAINERS):
    """Small videos of five containers, as (file name, bytes)."""
    kinds = {name: (codec, more) for name, codec, more in SEEDS}
    made = [
        write_video(folder / n, num_frames=num_frames, size=(32, 32), codec=kinds[n][0], **kinds[n][1]) for n in names
    ]
    return [(path.name, path.read_bytes()) for path in made]


def outcome(decoders, path):
    """Status or error code, and how many grid frames came."""
    count = 0
    try:
        with decoders.open(path) as video:
            for _ in video:
                count += 1
            return video.facts.status, count
    except VideoError as error:
        return error.code, count


def check_mutants(folder, number):
    """Every mutant has one outcome, none takes as long as the watchdog allows, and the pool serves to the end."""
    outcomes: Counter[str] = Counter()
    slowest, contents = 0.0, seeds(folder, 8)
    limits = Limits(max_wait_seconds=WATCHDOG_SECONDS)
    with Decoders(limits) as decoders:
        for seed in range(number):
            name, content = contents[seed % len(contents)]
            path = folder / f"mutant-{name}"
            path.write_bytes(mutated(content, random.Random(seed)))
            began = time.monotonic()
            found, _ = outcome(decoders, path)
            slowest = max(slowest, time.monotonic() - began)
            outcomes[found] += 1
    print(f"\n{number:,} mutants, slowest {slowest:.2f} s: {dict(outcomes.most_common())}")
    assert outcomes.total() == number
    assert not outcomes["timeout"]
    assert outcomes["ok"] and outcomes["partial"], "some damage was harmless, some was not"


def test_five_hundred_mutants(tmp_path):
    check_mutants(tmp_path, 500)


@pytest.mark.exhaustive
def test_ten_thousand_mutants(tmp_path):
    check_mutants(tmp_path, int(os.environ.get("FUZZ_VIDEOS", "10000")))


def check_cuts(folder, names, sizes, places):
    """Of every cut file that is called ok, at least 95 % of the frames are there."""
    cuts = silent = 0
    with Decoders() as decoders:
        for num_frames in sizes:
            for name, content in seeds(folder, num_frames, names):
                for place in range(1, places + 1):
                    length = len(content) * place // (places + 1)
                    path = folder / f"cut-{name}"
                    path.write_bytes(content[: length + (length % 188 == 0)])  # whole packets of a .ts tell nothing
                    status, count = outcome(decoders, path)
                    cuts += 1
                    silent += status == "ok" and count < 0.95 * num_frames
    print(f"\n{cuts:,} cuts, called ok with less than 95 % of the frames: {silent}")
    assert silent == 0


def test_no_cut_is_called_ok(tmp_path):
    check_cuts(tmp_path, CONTAINERS[:4], sizes=(40,), places=20)


@pytest.mark.exhaustive
def test_no_cut_of_twenty_files_at_a_hundred_places_is_called_ok(tmp_path):
    check_cuts(tmp_path, CONTAINERS, sizes=(20, 40, 61, 100), places=100)
