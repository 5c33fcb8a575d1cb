"""Shards: each path in exactly one, the same one always, whichever scheduler says so."""

import os
from pathlib import Path

import pytest

from tests.matching import containing
from vadis.batch.shards import Shard, parse_shard
from vadis.errors import UsageError

PATHS = [f"clips/{number}.mp4" for number in range(1000)] + [os.fsdecode(b"caf\xe9.mp4")]


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_every_path_is_in_exactly_one_shard_and_shards_are_about_equal(count):
    shards = [Shard(index, count) for index in range(1, count + 1)]
    sizes = [sum(shard.has(path) for path in PATHS) for shard in shards]
    assert all(sum(shard.has(path) for shard in shards) == 1 for path in PATHS)
    mean = len(PATHS) / count
    assert max(sizes) - min(sizes) <= 10 * mean**0.5, "six standard deviations and more"


def test_a_path_stays_in_its_shard():
    """Fixed for good: the shards of a run must fit those of its beginning, whatever version begins and ends it."""
    assert [next(i for i in range(1, 5) if Shard(i, 4).has(path)) for path in PATHS[:8]] == [1, 3, 2, 3, 1, 1, 4, 2]


def test_each_shard_has_its_own_file():
    assert Shard(2, 8).own(Path("x/labels.jsonl")) == Path("x/labels.shard-2-of-8.jsonl")


SLURM = {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "4", "SLURM_ARRAY_TASK_MAX": "7"}


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        ({**SLURM, "SLURM_ARRAY_TASK_COUNT": "4"}, Shard(2, 4)),
        ({"JOB_COMPLETION_INDEX": "0", "VADIS_SHARDS": "3"}, Shard(1, 3)),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, Shard(2, 2)),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4"}, Shard(4, 4)),
        ({**SLURM, "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, Shard(2, 4)),
    ],
)
def test_auto_asks_the_schedulers(environment, shard):
    assert parse_shard("auto", environment) == shard


@pytest.mark.parametrize(
    ("text", "environment", "fact"),
    [
        ("0/4", {}, 0),
        ("5/4", {}, 5),
        ("half", {}, "half"),
        ("auto", {}, "torchrun"),
        ("auto", {"JOB_COMPLETION_INDEX": "1"}, "Kubernetes"),
        ("auto", {"JOB_COMPLETION_INDEX": "x", "VADIS_SHARDS": "2"}, "JOB_COMPLETION_INDEX"),
        ("auto", {**SLURM, "SLURM_ARRAY_TASK_COUNT": "3"}, "SLURM"),
        ("auto", {**SLURM, "SLURM_ARRAY_TASK_COUNT": "1"}, "SLURM"),
    ],
)
def test_what_tells_no_shard_is_refused(text, environment, fact):
    with pytest.raises(UsageError, match=containing(fact)):
        parse_shard(text, environment)
