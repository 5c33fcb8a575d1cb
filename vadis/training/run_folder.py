"""The folder of a run: who may write there, and whether what lies there can be gone on with.

RUN/run.lock       held while a process trains there
RUN/log.jsonl      see ``log``
RUN/checkpoints/   see ``checkpoint``
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vadis.atomic import temporary_beside
from vadis.errors import OutputLockedError, UsageError, what_next
from vadis.parsing import parse_json
from vadis.results import printable
from vadis.training.checkpoint import Checkpoint, list_checkpoints, load_checkpoint, load_newest, set_aside
from vadis.training.distributed import Process
from vadis.training.log import Resumed
from vadis.training.recipes import Recipe

LOCK_NAME = "run.lock"


def checkpoints_in(folder: Path) -> Path:
    """Where the checkpoints of the run in ``folder`` lie."""
    return folder / "checkpoints"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make ``folder`` if need be, and keep other runs out of it.

    Raises:
        OutputLockedError: where another process is training there.
        UsageError: where the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        message = f"{folder} cannot hold a training run: {error.strerror}"
        raise UsageError(message, hint=what_next(error.errno)) from error
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)  # which also unlocks


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        hint = "wait for it, or choose another folder"
        raise OutputLockedError(f"another vadis (process {owner}) is training in {folder}", hint) from error
    except OSError:
        return  # a file system without locks: they are politeness, not correctness
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write what a run is made with, whole or not at all; raise UsageError where that cannot be."""
    try:
        with temporary_beside(path) as (temporary, file):
            file.write(json.dumps(values, indent=1).encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
    except OSError as error:
        message = f"{printable(str(path.parent))} cannot hold a training run: {error.strerror}"
        raise UsageError(message, hint=what_next(error.errno)) from error


def read_json(path: Path) -> dict[str, Any]:
    """Return what ``write_json`` wrote, of anything else an empty dictionary.

    Raises:
        UsageError: where the file is damaged, or cannot be read.
    """
    try:
        values = parse_json(path.read_bytes())
    except OSError as error:
        message = f"{printable(str(path))} cannot be read: {error.strerror}"
        raise UsageError(message, hint=what_next(error.errno)) from error
    except ValueError as error:
        raise UsageError(f"{printable(str(path))} is damaged", hint="choose another folder") from error
    return values if isinstance(values, dict) else {}


def is_longer(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    """Whether a run is that which is ``there``, with more steps of the optimiser."""
    before, now = there.get("recipes"), wanted["recipes"]
    if (
        not isinstance(before, dict)
        or {**there, "recipes": 0} != {**wanted, "recipes": 0}
        or before.keys() != now.keys()
    ):
        return False
    same = all({**before[run], "steps": 0} == {**now[run], "steps": 0} for run in now)
    return same and before != now and all(before[run]["steps"] <= now[run]["steps"] for run in now)


def made_with(recipe: Recipe, labels: tuple[str, ...], data_sha256: str, process: Process) -> dict[str, Any]:
    """All that must be the same for a run to go on exactly, as plain JSON values."""
    on_cpu = process.device.type == "cpu"
    return {
        "recipe": recipe.to_json(),
        "labels": list(labels),
        "data_sha256": data_sha256,
        "processes": process.world_size,
        "device": process.device.type,
        "threads": torch.get_num_threads() if on_cpu else None,  # sums are cut differently: other last bits
        "torch": torch.__version__,
    }


_NAMES = {
    "processes": "the number of processes",
    "device": "the device",
    "threads": "the number of threads",
    "torch": "the version of PyTorch",
}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two ``made_with``, one clause each; ``labels`` are not compared here.

    More steps are no difference: those that are done were the same.
    """
    recipe_before, recipe_now = before["recipe"], now["recipe"]
    is_longer = recipe_before["steps"] < recipe_now["steps"]
    found = [
        f"{name} was {recipe_before.get(name)!r} and is {recipe_now.get(name)!r}"
        for name in {**recipe_before, **recipe_now}
        if recipe_before.get(name) != recipe_now.get(name) and not (name == "steps" and is_longer)
    ]
    if before["data_sha256"] != now["data_sha256"]:
        found.append("the list of clips has changed")
    found += [f"{what} was {before[key]} and is {now[key]}" for key, what in _NAMES.items() if before[key] != now[key]]
    return found


def refuse_another_run(folder: Path) -> None:
    """Raise UsageError where ``folder`` holds a run already."""
    if list_checkpoints(checkpoints_in(folder)):
        raise UsageError(
            f"{folder} holds a training run already",
            hint="go on with it by `resume=True`, or choose another folder",
        )


def find_resumable(
    folder: Path, now: Mapping[str, Any], process: Process, *, allow_inexact: bool
) -> tuple[Checkpoint, Resumed] | None:
    """The newest undamaged checkpoint of the run in ``folder``, the same on all processes; None without any.

    Damaged ones that are newer are renamed, so that they are not met again.

    Raises:
        UsageError: where the run cannot go on with what there is ``now`` (see ``made_with``): with other classes
            never, with other differences only if ``allow_inexact``.
        DamagedCheckpointError: where there are checkpoints, and all are damaged.
    """
    newest = load_newest(checkpoints_in(folder)) if process.is_main else None
    path = process.from_main(newest[1] if newest else None)
    if path is None:
        return None
    loaded = newest[0] if newest else load_checkpoint(path)
    before = loaded.state["made_with"]
    if before["labels"] != now["labels"]:
        raise UsageError(f"the run in {folder} learns other classes", hint="choose another folder")
    changes = differences(before, now)
    if changes and not allow_inexact:
        raise UsageError(
            f"the run in {folder} cannot go on exactly: {'; '.join(changes)}",
            hint="change that back, or go on all the same by `allow_inexact=True`",
        )
    damaged = newest[2] if newest else []
    for one in damaged:
        set_aside(one)
    return loaded, Resumed(loaded.step, str(path), tuple(map(str, damaged)), tuple(changes))
