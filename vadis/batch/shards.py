"""Which of several machines takes which input: each path belongs to one shard, whatever else is in the archive.

The shard follows from a digest of the path as it was given, so all machines must be given the same spelling of it;
files that come or go move no other file to another shard.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vadis.errors import UsageError

COUNT_VARIABLE = "VADIS_SHARDS"  # how many there are, where Kubernetes tells each process only its own number


@dataclass(frozen=True)
class Shard:
    """Number ``index`` of ``count`` shards, counted from 1."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise UsageError(f"there is no shard {self.index} of {self.count}", hint="the first is 1/N, the last N/N")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def has(self, path: str) -> bool:
        """Whether this shard takes the input."""
        digest = hashlib.sha256(os.fsencode(path)).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index - 1

    def own(self, output: Path) -> Path:
        """This shard's own file: ``labels.jsonl`` → ``labels.shard-2-of-8.jsonl``."""
        return output.with_name(f"{output.stem}.shard-{self.index}-of-{self.count}{output.suffix}")


def parse_shard(text: str, environment: Mapping[str, str] = os.environ) -> Shard:
    """The shard that ``I/N`` or ``auto`` means.

    ``auto`` asks, in this order: an array of SLURM; an indexed job of Kubernetes, with ``VADIS_SHARDS`` for the number
    of its completions; torchrun; the tasks of one SLURM job.

    Raises:
        UsageError: for any other text, numbers that cannot be, and ``auto`` where nothing is found.
    """
    if text == "auto":
        return _found(environment)
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None:
        raise UsageError(f"{text!r} is not a shard", hint="give I/N, such as 2/8, or auto")
    return Shard(int(match[1]), int(match[2]))


def _found(environment: Mapping[str, str]) -> Shard:
    for find in (_of_slurm_array, _of_kubernetes, _of_torchrun, _of_slurm_tasks):
        shard = find(environment)
        if shard is not None:
            return shard
    raise UsageError(
        "`shard=auto` finds no SLURM array, Kubernetes indexed job or torchrun here", hint="give the shard: I/N"
    )


def _of_slurm_array(environment: Mapping[str, str]) -> Shard | None:
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return None
    task, first = _number(environment, "SLURM_ARRAY_TASK_ID"), _number(environment, "SLURM_ARRAY_TASK_MIN")
    count = _number(environment, "SLURM_ARRAY_TASK_COUNT")
    if count == 1 or _number(environment, "SLURM_ARRAY_TASK_MAX") - first + 1 != count:  # submitted again in part
        raise UsageError(
            "the SLURM array has a single task, or gaps between its tasks, so their numbers tell no shards",
            hint="say it: `shard=$SLURM_ARRAY_TASK_ID/N`, with tasks from 1 to N",
        )
    return Shard(task - first + 1, count)


def _of_kubernetes(environment: Mapping[str, str]) -> Shard | None:
    if "JOB_COMPLETION_INDEX" not in environment:
        return None
    if COUNT_VARIABLE not in environment:
        raise UsageError(
            "Kubernetes tells a job its number but not how many there are",
            hint=f"set {COUNT_VARIABLE} to the job's completions (docs/archives.md has an example)",
        )
    return Shard(_number(environment, "JOB_COMPLETION_INDEX") + 1, _number(environment, COUNT_VARIABLE))


def _of_torchrun(environment: Mapping[str, str]) -> Shard | None:
    if not {"RANK", "WORLD_SIZE"} <= environment.keys():
        return None
    return Shard(_number(environment, "RANK") + 1, _number(environment, "WORLD_SIZE"))


def _of_slurm_tasks(environment: Mapping[str, str]) -> Shard | None:
    if not {"SLURM_PROCID", "SLURM_NTASKS"} <= environment.keys():
        return None
    return Shard(_number(environment, "SLURM_PROCID") + 1, _number(environment, "SLURM_NTASKS"))


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not re.fullmatch(r"\d+", text):
        raise UsageError(f"the variable {name} is no number: {text!r}", hint="give the shard: `shard=I/N`")
    return int(text)
