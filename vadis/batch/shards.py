"""Work that outgrows one process or one file: which of several machines takes which input, and a journal in parts.

The parts, ``part-00001.jsonl`` and so on in a folder of their own, are journals with their headers, so that no file
grows without end. One process writes them; of several records of one input that of the last part counts.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vadis.batch.journal import Entry, Journal, open_journal
from vadis.errors import UsageError
from vadis.files import locked
from vadis.results import VideoResult

COUNT_VARIABLE = "VADIS_SHARDS"  # how many there are, where Kubernetes tells each process only its own number
PART_RECORDS = 10_000


@dataclass(frozen=True)
class Shard:
    """Number ``index`` of ``count`` shards, counted from 1.

    An input belongs to one by a digest of its path as given, which all machines must spell alike, and by nothing else.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise UsageError(f"there is no shard {self.index} of {self.count}", hint="the first is 1/N, the last N/N")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def has(self, path: str) -> bool:
        """Return whether this shard takes the input."""
        from hashlib import sha256  # its library is loaded for this alone

        digest = sha256(os.fsencode(path)).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index - 1

    def own(self, output: Path) -> Path:
        """Return this shard's own file: ``labels.jsonl`` → ``labels.shard-2-of-8.jsonl``."""
        return output.with_name(f"{output.stem}.shard-{self.index}-of-{self.count}{output.suffix}")


def parse_shard(text: str, environment: Mapping[str, str] = os.environ) -> Shard:
    """Return the shard that ``I/N`` or ``auto`` means; raise UsageError for anything else.

    ``auto`` asks, in this order: an array of SLURM; an indexed job of Kubernetes, with ``VADIS_SHARDS`` for the number
    of its completions; torchrun; the tasks of one SLURM job.
    """
    if match := re.fullmatch(r"(\d+)/(\d+)", text):
        return Shard(int(match[1]), int(match[2]))
    if text != "auto":
        raise UsageError(f"{text!r} is not a shard", hint="give I/N, such as 2/8, or auto")

    def number(name: str) -> int:
        text = environment.get(name, "")
        if not re.fullmatch(r"\d+", text):
            raise UsageError(f"the variable {name} is no number: {text!r}", hint="give the shard: `shard=I/N`")
        return int(text)

    if "SLURM_ARRAY_TASK_ID" in environment:
        count, first = number("SLURM_ARRAY_TASK_COUNT"), number("SLURM_ARRAY_TASK_MIN")
        if count == 1 or number("SLURM_ARRAY_TASK_MAX") - first + 1 != count:  # submitted again in part
            message = "the SLURM array has a single task, or gaps between its tasks, so their numbers tell no shards"
            raise UsageError(message, "say it: `shard=$SLURM_ARRAY_TASK_ID/N`, with tasks from 1 to N")
        return Shard(number("SLURM_ARRAY_TASK_ID") - first + 1, count)
    if "JOB_COMPLETION_INDEX" in environment:
        if COUNT_VARIABLE not in environment:
            hint = f"set {COUNT_VARIABLE} to the job's completions (docs/archives.md has an example)"
            raise UsageError("Kubernetes tells a job its number but not how many there are", hint)
        return Shard(number("JOB_COMPLETION_INDEX") + 1, number(COUNT_VARIABLE))
    for rank, size in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):  # torchrun, a SLURM job's tasks
        if {rank, size} <= environment.keys():
            return Shard(number(rank) + 1, number(size))
    message = "`shard=auto` finds no SLURM array, Kubernetes indexed job or torchrun here"
    raise UsageError(message, "give the shard: I/N")


class Parts:
    """A journal in parts, which stay as they were written; made by ``open_parts``, whose ``stack`` holds the last."""

    def __init__(self, folder: Path, stack: ExitStack, overwrite: bool) -> None:
        self.entries, self.num_damaged, self._overwrite = dict[str, Entry](), 0, overwrite
        self._folder, self._stack, self._number = folder, stack, 1
        self._header: tuple[Mapping[str, Any], Mapping[str, str]] = ({}, {})
        self._journal: Journal | None = None

    def begin(self, settings: Mapping[str, Any], versions: Mapping[str, str]) -> dict[str, str]:
        """See ``Journal.begin``; every part must have been made with the same settings."""
        self._header, begun_with = (settings, versions), dict(versions)
        for path in sorted(self._folder.glob("part-*.jsonl")):
            if self._overwrite:
                path.unlink()
                continue
            with open_journal(path) as part:
                begun_with = part.begin(settings, versions)
                self.num_damaged += part.num_damaged
                self.entries |= part.entries
                self._number = int(path.stem.removeprefix("part-"))
        return begun_with

    def append(self, result: VideoResult) -> None:
        """See ``Journal.append``; where the last part has no room, another one is begun."""
        while self._journal is None or len(self._journal.entries) >= PART_RECORDS:
            self._stack.close()
            self._number += self._journal is not None
            self._journal = self._stack.enter_context(open_journal(self._folder / f"part-{self._number:05}.jsonl"))
            self._journal.begin(*self._header)
        self._journal.append(result)


@contextmanager
def open_parts(folder: Path, *, overwrite: bool = False) -> Iterator[Parts]:
    """Open the parts in ``folder``, for this run alone; raise OutputLockedError and VadisError as ``open_journal``."""
    with locked(folder / "parts"), ExitStack() as stack:
        yield Parts(folder, stack, overwrite)
