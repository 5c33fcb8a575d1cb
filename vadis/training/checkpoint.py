"""A run that can be killed at any moment: folders that are complete and proven, or do not count.

    RUN/checkpoints/step-000123/       (step-000123.1 if that step is saved once more)
        tensors.safetensors   the network (``network.…``) and the optimiser's momentum (``momentum.…``)
        state.json            the rest: progress, recipe, labels, what the run was made with
        manifest.json         length and SHA-256 of both, and its own seal

A checkpoint is written under a temporary name, flushed to the disk, renamed, read back, and only then are older ones
removed. Loading takes the newest whose every byte is proven. Nothing in it is pickled, so nothing in it can run. There
are no states of random generators in it either: all randomness follows from the seed and the position (``order``).

The folder of a run: who may write there, and whether what lies there can be gone on with.

RUN/run.lock       held while a process trains there
RUN/log.jsonl      see ``log``
RUN/checkpoints/   see ``checkpoint``
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from vadis.errors import OutputLockedError, UsageError, VadisError, what_next
from vadis.files import FULL_DISK, sync_folder, write_file
from vadis.parsing import parse_json
from vadis.results import printable
from vadis.training.distributed import Process
from vadis.training.log import RESUME, Resumed
from vadis.training.recipes import Recipe

SCHEMA = 1
KEPT = 2  # the newest, and one before it should the disk lose the newest
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"

_COMPLETE = re.compile(r"step-(\d{6,})(?:\.(\d+))?")
_UNFINISHED = re.compile(r".+\.tmp-[0-9a-f]{8}")


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on: ``tensors`` by name, on the CPU, and ``state``, plain JSON values."""

    step: int
    tensors: Mapping[str, Tensor]
    state: dict[str, Any]


class DamagedCheckpointError(VadisError):
    """A checkpoint that is not what was written."""


_PASSED_OVER = "look at the disk; a run goes on with `resume=True` from the newest one that is whole"


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write ``checkpoint`` among those in ``folder``, prove it, and remove all but the newest two.

    On a full disk what earlier runs left unfinished and surplus checkpoints are removed, and it is tried once more.

    Raises:
        VadisError: where it cannot be written; the checkpoints so far are as they were.
    """
    contents = _contents(checkpoint)
    num_bytes = sum(map(len, contents.values()))
    target = _next_name(folder, checkpoint.step)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder)
        try:
            _write(target, contents)
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            _remove_surplus(folder)
            _write(target, contents)
        load_checkpoint(target)
    except OSError as error:
        raise _write_error(target, num_bytes, error) from error
    _remove_surplus(folder)
    return target


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at ``path``, every byte of it proven.

    Raises:
        DamagedCheckpointError: where a file is missing or differs from what was written.
        VadisError: where another version of vadis wrote it.
    """
    try:
        manifest = _read_manifest(path)
        contents = {name: (path / name).read_bytes() for name in (TENSORS, STATE)}
    except OSError as error:
        message = f"the checkpoint {path} cannot be read: {error.strerror}"
        raise DamagedCheckpointError(message, hint=what_next(error.errno)) from error
    for name, content in contents.items():
        if manifest["files"][name] != _fingerprint(content):
            message = f"the checkpoint {path} is damaged: {name} is not what was written"
            raise DamagedCheckpointError(message, hint=_PASSED_OVER)
    tensors = safetensors.torch.load(contents[TENSORS])
    return Checkpoint(manifest["step"], tensors, parse_json(contents[STATE]))


def load_newest(folder: Path) -> tuple[Checkpoint, Path, list[Path]] | None:
    """The newest undamaged checkpoint in ``folder``, its path, and the damaged ones newer than it; None without any.

    Raises:
        DamagedCheckpointError: where there are checkpoints, and all are damaged.
        VadisError: where another version of vadis wrote the newest undamaged one.
    """
    damaged: list[Path] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            return load_checkpoint(path), path, damaged
        except DamagedCheckpointError:
            damaged.append(path)
    if damaged:
        hint = "choose another folder, to begin anew; and look at the disk"
        raise DamagedCheckpointError(f"all {len(damaged)} checkpoints in {folder} are damaged", hint)
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in ``folder``, damaged or not, the oldest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _COMPLETE.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=_order)


def set_aside(path: Path) -> None:
    """Rename a damaged checkpoint so that it is not met again; it is not deleted."""
    path.replace(path.with_name(f"{path.name}.damaged-{secrets.token_hex(4)}"))


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left while they wrote."""
    for path in folder.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _next_name(folder: Path, step: int) -> Path:
    """``step-000123``, or ``step-000123.1`` and so on after others of that step, over which it cannot be renamed."""
    taken = [number for of_step, number in map(_order, list_checkpoints(folder)) if of_step == step]
    return folder / (f"step-{step:06d}.{max(taken) + 1}" if taken else f"step-{step:06d}")


def _order(path: Path) -> tuple[int, int]:
    """(step, number among those of the same step)."""
    found = _COMPLETE.fullmatch(path.name)
    assert found is not None
    return int(found[1]), int(found[2] or 0)


def _contents(checkpoint: Checkpoint) -> dict[str, bytes]:
    """The bytes of every file of a checkpoint, the manifest last."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    contents = {TENSORS: safetensors.torch.save(tensors), STATE: _canonical(checkpoint.state)}
    files = {name: _fingerprint(content) for name, content in contents.items()}
    contents[MANIFEST] = _sealed({"schema": SCHEMA, "step": checkpoint.step, "files": files})
    return contents


def _write(target: Path, contents: Mapping[str, bytes]) -> None:
    """All of ``contents`` as the folder ``target``, or nothing."""
    temporary = target.with_name(f"{target.name}.tmp-{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        for name, content in contents.items():
            with (temporary / name).open("xb") as stream:  # a file object: `torch.save(path)` hides a full disk
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        sync_folder(temporary)
        temporary.replace(target)
        sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _remove_surplus(folder: Path) -> None:
    """Remove all checkpoints but the newest; one that cannot be removed does not stop the run."""
    for path in list_checkpoints(folder)[:-KEPT]:
        doomed = path.with_name(f"{path.name}.tmp-{secrets.token_hex(4)}")  # or a kill would leave it half there
        with contextlib.suppress(OSError):
            path.replace(doomed)
            shutil.rmtree(doomed)


def _read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the checkpoint at ``path``, proven by its own seal."""
    content = (path / MANIFEST).read_bytes()
    try:
        values = parse_json(content)
        del values["seal"]
        if content != _sealed(values):
            raise ValueError("the seal does not fit")
    except (ValueError, KeyError, TypeError) as error:
        message = f"the checkpoint {path} is damaged: {MANIFEST} is not what was written"
        raise DamagedCheckpointError(message, hint=_PASSED_OVER) from error
    if values["schema"] != SCHEMA:
        message = f"the checkpoint {path} has schema {values['schema']!r}, this vadis reads {SCHEMA}"
        raise VadisError(message, hint="go on with the vadis that wrote it, or choose another folder")
    manifest: dict[str, Any] = values
    return manifest


def _sealed(values: dict[str, Any]) -> bytes:
    """JSON text of ``values`` with the SHA-256 of the text without it."""
    return _canonical({**values, "seal": hashlib.sha256(_canonical(values)).hexdigest()})


def _canonical(values: dict[str, Any]) -> bytes:
    """One JSON text for equal values."""
    return json.dumps(values, ensure_ascii=True, allow_nan=False, sort_keys=True, indent=1).encode("ascii")


def _fingerprint(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _write_error(target: Path, num_bytes: int, error: OSError) -> VadisError:
    if error.errno in FULL_DISK:
        return VadisError(
            f"no space left to write the checkpoint {target} ({num_bytes / 1e6:,.1f} MB); the one before it is intact",
            hint=f"free some space, then {RESUME}",
        )
    message = f"the checkpoint {target} cannot be written: {error.strerror}; the one before it is intact"
    return VadisError(message, hint=what_next(error.errno, again=RESUME))


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
        write_file(path, json.dumps(values, indent=1) + "\n")
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
