"""Shards: each path in exactly one, the same one always, whichever scheduler says so. The journal in parts."""

import json
import os
from pathlib import Path

import pytest

from tests.matching import containing
from vadis import batch
from vadis.batch import LastResults, Shard, open_parts, parse_shard
from vadis.errors import OutputLockedError, UsageError
from vadis.results import VideoResult

PATHS = [f"clips/{number}.mp4" for number in range(1000)] + [os.fsdecode(b"caf\xe9.mp4")]


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_every_path_is_in_exactly_one_shard_and_shards_are_about_equal(count):
    every = [Shard(index, count) for index in range(1, count + 1)]
    sizes = [sum(shard.has(path) for path in PATHS) for shard in every]
    assert all(sum(shard.has(path) for shard in every) == 1 for path in PATHS)
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


SETTINGS, VERSIONS = {"top_k": 5}, {"vadis": "1"}


def failed(name: str, size: int = 1) -> VideoResult:
    return VideoResult(name, "error", size, "1.5", error_code="no_frames", error_message="none")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(batch, "PART_RECORDS", 3)


def write(folder, *results, overwrite=False) -> None:
    with open_parts(folder, overwrite=overwrite) as parts:
        parts.begin(SETTINGS, VERSIONS)
        for result in results:
            parts.append(result)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_part_holds_so_many_records_and_the_next_run_goes_on_in_it(tmp_path):
    write(tmp_path, *(failed(f"{number}.mp4") for number in range(4)))
    assert names(tmp_path) == ["part-00001.jsonl", "part-00002.jsonl"]
    write(tmp_path, failed("4.mp4"), failed("5.mp4"), failed("6.mp4"))
    assert [len(path.read_text().splitlines()) for path in sorted(tmp_path.iterdir())] == [1 + 3, 1 + 3, 1 + 1]
    assert len(LastResults(sorted(tmp_path.iterdir())).paths) == 7
    headers = {path.read_text().splitlines()[0] for path in tmp_path.iterdir()}
    assert [json.loads(header)["run"]["settings"] for header in headers] == [SETTINGS]


def test_what_is_there_is_known_and_the_last_counts(tmp_path):
    write(tmp_path, *(failed(f"{number}.mp4") for number in range(3)), failed("0.mp4", size=2))
    with open_parts(tmp_path) as parts:
        assert parts.begin(SETTINGS, {"vadis": "2"}) == VERSIONS
        assert "1.mp4" in parts.entries and "9.mp4" not in parts.entries
        assert parts.entries["0.mp4"][:2] == (2, "1.5")
    last = {result.path: result.source_bytes for result in LastResults(sorted(tmp_path.iterdir()))}
    assert last == {"0.mp4": 2, "1.mp4": 1, "2.mp4": 1}


def test_a_torn_last_line_is_cut_off(tmp_path):
    write(tmp_path, failed("a.mp4"))
    with (tmp_path / "part-00001.jsonl").open("a") as file:
        file.write('{"schema": 2, "pa')
    write(tmp_path, failed("b.mp4"))
    assert LastResults([tmp_path / "part-00001.jsonl"]).paths == ("a.mp4", "b.mp4")


def test_other_settings_other_files_and_other_runs_are_refused(tmp_path):
    write(tmp_path, failed("a.mp4"))
    with open_parts(tmp_path) as parts:
        with pytest.raises(UsageError, match=containing("top_k", 5, 6)):
            parts.begin({"top_k": 6}, VERSIONS)
        with pytest.raises(OutputLockedError), open_parts(tmp_path):
            pass
    write(tmp_path, failed("b.mp4"), overwrite=True)
    assert LastResults([tmp_path / "part-00001.jsonl"]).paths == ("b.mp4",)
    (tmp_path / "part-00001.jsonl").write_text("something else\n")
    with pytest.raises(UsageError, match=containing("part-00001.jsonl")):
        write(tmp_path, failed("c.mp4"))
