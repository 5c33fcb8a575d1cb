"""What changes while a network is trained, and the files from which a killed run goes on.

    RUN/checkpoints/step-000123-SHA256.safetensors    (step-000123.1-… if that step is saved once more)

A checkpoint has the network (``network.…``), the network at its best validation (``best.…``) and the optimiser's
momentum (``momentum.…``) as tensors, and the rest as JSON: progress, recipe, labels, what the run was made with. Its
name has the SHA-256 of its content. It is written under a temporary name, flushed, renamed and read back, and only then
are older ones removed; loading takes the newest whose every byte is as written. Nothing in it is pickled, so nothing in
it can run, and it has no states of random generators: all randomness follows from the seed and the position.
"""

import contextlib
import hashlib
import json
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vadis.errors import UsageError, VadisError
from vadis.files import FULL_DISK, os_errors_as, write_file
from vadis.parsing import parse_json
from vadis.training.distributed import Process
from vadis.training.log import RESUME, Resumed
from vadis.training.recipes import Recipe
from vadis.weights.model_file import describe_difference

SCHEMA = 1
KEPT = 2  # the newest, and one before it should the disk lose the newest
CHECKPOINTS_NAME = "checkpoints"

_NAME = re.compile(r"step-(\d{6,})(?:\.(\d+))?-([0-9a-f]{64})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on: ``tensors`` by name, on the CPU, and ``state``, plain JSON values."""

    step: int
    tensors: Mapping[str, Tensor]
    state: dict[str, Any]


class DamagedCheckpointError(VadisError):
    """A checkpoint that is not what was written."""


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write ``checkpoint`` into ``folder``, read it back, and remove all but the newest two.

    On a full disk surplus checkpoints are removed, and it is tried once more.
    """
    text = json.dumps(checkpoint.state, allow_nan=False)
    metadata = {"schema": str(SCHEMA), "step": str(checkpoint.step), "state": text}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    content = safetensors.torch.save(tensors, metadata)
    same_step = [number for step, number in map(_order, list_checkpoints(folder)) if step == checkpoint.step]
    name = f"step-{checkpoint.step:06d}" + (f".{max(same_step) + 1}" if same_step else "")
    path = folder / f"{name}-{hashlib.sha256(content).hexdigest()}.safetensors"
    what = f"the checkpoint {path} ({len(content) / 1e6:,.1f} MB) cannot be written, but the one before it is intact"
    with os_errors_as(VadisError, what, RESUME):
        for leftover in folder.glob("*.part"):  # of a killed process: the caller has the lock of the run
            leftover.unlink(missing_ok=True)
        try:
            write_file(path, content)
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            _remove_surplus(folder)
            write_file(path, content)
    load_checkpoint(path)
    _remove_surplus(folder)
    return path


def _remove_surplus(folder: Path) -> None:
    """Remove all checkpoints but the newest; one that cannot be removed does not stop the run."""
    for path in list_checkpoints(folder)[:-KEPT]:
        with contextlib.suppress(OSError):
            path.unlink()


def load_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint at ``path``, every byte of it compared."""
    with os_errors_as(DamagedCheckpointError, f"the checkpoint {path} cannot be read"):
        content = path.read_bytes()
    match = _NAME.fullmatch(path.name)
    if match is None or hashlib.sha256(content).hexdigest() != match[3]:
        hint = "look at the disk; a run goes on with `resume=True` from the newest one that is whole"
        raise DamagedCheckpointError(f"the checkpoint {path} is damaged: it is not what was written", hint)
    header_end = 8 + int.from_bytes(content[:8], "little")
    metadata = parse_json(content[8:header_end])["__metadata__"]
    if metadata["schema"] != str(SCHEMA):
        message = f"the checkpoint {path} has schema {metadata['schema']}, this vadis reads {SCHEMA}"
        raise VadisError(message, hint="go on with the vadis that wrote it, or choose another folder")
    return Checkpoint(int(metadata["step"]), safetensors.torch.load(content), parse_json(metadata["state"]))


def load_newest(folder: Path) -> tuple[Checkpoint, Path, list[Path]] | None:
    """Return the newest undamaged checkpoint in ``folder``, its path, and the damaged ones newer than it, or None."""
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
    """Return the complete checkpoints in ``folder``, damaged or not, the oldest first."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in paths if _NAME.fullmatch(path.name)), key=_order)


def _order(path: Path) -> tuple[int, int]:
    """Return (step, number among those of the same step)."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1]), int(match[2] or 0)


def made_with(recipe: Recipe, labels: tuple[str, ...], data_sha256: str, process: Process) -> dict[str, Any]:
    """Return all that must be the same for a run to go on exactly, as plain JSON values."""
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


def recipe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs in a recipe, a clause each; more steps are no change: those done were the same."""
    return [
        f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
        for name in {**before, **now}
        if before.get(name) != now.get(name) and not (name == "steps" and before["steps"] < now["steps"])
    ]


def find_resumable(
    folder: Path, now: Mapping[str, Any], process: Process, *, allow_inexact: bool
) -> tuple[Checkpoint, Resumed] | None:
    """Return the newest undamaged checkpoint of the run in ``folder``, the same on all processes; None without any.

    Damaged ones that are newer are renamed, so that they are not found again. With other classes than ``now`` a run
    never goes on, with other differences (see ``made_with``) only if ``allow_inexact``: UsageError.
    """
    newest = load_newest(folder / CHECKPOINTS_NAME) if process.is_main else None
    path = process.from_main(newest[1] if newest else None)
    if path is None:
        return None
    loaded = newest[0] if newest else load_checkpoint(path)
    before = loaded.state["made_with"]
    if before["labels"] != now["labels"]:
        raise UsageError(f"the run in {folder} learns other classes", hint="choose another folder")
    changes = recipe_changes(before["recipe"], now["recipe"])
    if before["data_sha256"] != now["data_sha256"]:
        changes.append("the list of clips has changed")
    names = {
        "processes": "the number of processes",
        "device": "the device",
        "threads": "the number of threads",
        "torch": "the version of PyTorch",
    }
    changes += [f"{name} was {before[key]} and is {now[key]}" for key, name in names.items() if before[key] != now[key]]
    if changes and not allow_inexact:
        raise UsageError(
            f"the run in {folder} cannot go on exactly: {'; '.join(changes)}",
            hint="change that back, or go on all the same by `allow_inexact=True`",
        )
    damaged = newest[2] if newest else []
    for each in damaged:
        each.replace(each.with_name(f"{each.name}.damaged-{secrets.token_hex(4)}"))
    return loaded, Resumed(loaded.step, str(path), tuple(map(str, damaged)), tuple(changes))


@dataclass(frozen=True)
class Plateau:
    """What the validations so far have shown: all that the paper's rule needs."""

    best: float | None = None  # validation loss, in nats
    stale: int = 0  # validations in a row without improvement
    drops: int = 0  # divisions of the rate so far
    exhausted: bool = False  # saturated again after the last division


def learning_rate(recipe: Recipe, step: int, plateau: Plateau) -> float:
    """Return the rate of the step that follows ``step`` steps already done.

    The paper (section 2.5) divides it by 10 when the validation loss saturates; the code changed it at fixed steps.
    """
    if recipe.schedule == "plateau":
        return recipe.learning_rate / recipe.plateau_factor**plateau.drops
    return [recipe.learning_rate, *(rate for milestone, rate in recipe.milestones if milestone <= step)][-1]


def after_validation(recipe: Recipe, plateau: Plateau, loss: float) -> Plateau:
    """Return the state after one more validation of this loss; a loss that is not finite is no improvement."""
    best = math.inf if plateau.best is None else plateau.best
    if loss < best - recipe.plateau_improvement:
        return replace(plateau, best=loss, stale=0)
    if plateau.stale + 1 < recipe.plateau_patience:
        return replace(plateau, stale=plateau.stale + 1)
    if plateau.drops >= recipe.plateau_drops:
        return replace(plateau, stale=0, exhausted=True)
    return replace(plateau, stale=0, drops=plateau.drops + 1)


def is_finished(recipe: Recipe, step: int, plateau: Plateau) -> bool:
    """Return whether all steps are done, or the loss has saturated at the lowest rate."""
    return step >= recipe.steps or (recipe.schedule == "plateau" and plateau.exhausted)


@dataclass
class TrainingProgress:
    """How far a run is."""

    micro_batch: int  # the recipe's, or less where memory was short
    step: int = 0  # done
    validated_at: int = 0  # step of the last validation
    best_at: int | None = None  # step of the validation with the lowest loss so far
    best_loss: float | None = None  # in nats
    best_accuracy: float | None = None
    plateau: Plateau = field(default_factory=Plateau)
    smoothed_loss: float | None = None
    smoothed_accuracy: float | None = None


class State:
    """A network with its optimiser and its progress, and a copy of the network as it was at its best validation.

    Sets the dropout and the batch norms' decay of ``network`` as the recipe says. Parameters that need no gradient stay
    as they are.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, micro_batch: int) -> None:
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = recipe.dropout
            elif isinstance(module, _BatchNorm):
                module.momentum = 1 - recipe.batch_norm_decay
        self.network, self._recipe = network, recipe
        self.progress = TrainingProgress(micro_batch)
        self._best: dict[str, Tensor] = {}  # on the CPU
        self.parameters = {name: value for name, value in network.named_parameters() if value.requires_grad}
        self.optimizer = torch.optim.SGD(
            self.parameters.values(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )

    def learning_rate(self) -> float:
        """Return the rate of the next step."""
        return learning_rate(self._recipe, self.progress.step, self.progress.plateau)

    def update(self) -> None:
        """Do one step of the optimiser, from the gradients as they are."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.step()

    def keep_if_best(self, loss: float, accuracy: float) -> bool:
        """Keep the network as it is now where no validation before gave so low a loss; return whether that is so."""
        now = self.progress
        if not loss < (math.inf if now.best_loss is None else now.best_loss):
            return False
        now.best_at, now.best_loss, now.best_accuracy = now.step, loss, accuracy
        self._best = {key: value.detach().cpu().clone() for key, value in self.network.state_dict().items()}
        return True

    def forget_best(self) -> None:
        """Let the next validation be the best so far: those before were on other clips."""
        now = self.progress
        now.best_at, now.best_loss, now.plateau = None, None, replace(now.plateau, best=None, stale=0)
        self._best = {}

    def restore_best(self) -> None:
        """Make the network what it was at its best validation, if there was one."""
        if self._best:
            self.network.load_state_dict(self._best)

    def to_checkpoint(
        self, made_with: dict[str, Any], instead: Mapping[int, Tensor] = MappingProxyType({})
    ) -> Checkpoint:
        """Return all of it, with a note of what the run was made with.

        ``instead`` has tensors, by the address of those of the network, in whose place they are taken.
        """
        network = self.network.state_dict()
        tensors = {f"network.{key}": instead.get(value.data_ptr(), value) for key, value in network.items()}
        tensors |= {f"best.{key}": value for key, value in self._best.items()}
        for name, parameter in self.parameters.items():
            momentum = self.optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum
        return Checkpoint(self.progress.step, tensors, {"progress": asdict(self.progress), "made_with": made_with})

    def load(self, loaded: Checkpoint) -> None:
        """Take all of it from a checkpoint; raise UsageError where that is of another network."""

        def part(prefix: str) -> dict[str, Tensor]:
            names = [name for name in loaded.tensors if name.startswith(prefix)]
            return {name.removeprefix(prefix): loaded.tensors[name] for name in names}

        network, momenta = part("network."), part("momentum.")
        if difference := describe_difference(self.network.state_dict(), network):
            hint = "choose another folder, or ask for that network again"
            raise UsageError(f"the run in this folder trains another network: {difference}", hint)
        self.network.load_state_dict(network)
        self._best = part("best.")
        for name, parameter in self.parameters.items():
            if name in momenta:
                self.optimizer.state[parameter]["momentum_buffer"] = momenta[name].to(parameter.device)
        values = loaded.state["progress"]
        self.progress = TrainingProgress(**{**values, "plateau": Plateau(**values["plateau"])})


class RunningAverages:
    """The running means and variances of a network's batch norms over the micro-batches of a step.

    Each micro-batch is normalised by its own statistics, as on each of the paper's replicas. The running averages,
    which serve at test time, move once per step by ``1 - decay`` towards the mean of all micro-batches' statistics. So
    one device with 64 micro-batches does what 64 devices do with one each.
    """

    def __init__(self, network: nn.Module) -> None:
        norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        self._buffers = [
            buffer for norm in norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None
        ]
        # num_batches_tracked, then, counts steps: one per step is kept.
        self._counters = [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]
        self._before: list[Tensor] = []
        self._after: list[Tensor] = []

    def begin(self) -> None:
        """Begin a step."""
        self._before = [buffer.clone() for buffer in self._buffers + self._counters]
        self._after = [torch.zeros_like(buffer) for buffer in self._buffers]

    def restore(self) -> None:
        """Go back to where the step began: before each micro-batch, and where a step is given up."""
        for buffer, before in zip(self._buffers + self._counters, self._before, strict=True):
            buffer.copy_(before)

    def before(self) -> dict[int, Tensor]:
        """Return what the buffers were when the step began, by the address of each."""
        pairs = zip(self._buffers + self._counters, self._before, strict=True)
        return {buffer.data_ptr(): before for buffer, before in pairs}

    def add(self, share: float) -> None:
        """Add a micro-batch that has passed in training mode, which is a ``share`` of this process's part of the step.

        Leaves the buffers alone, because the backward pass may be yet to come and wants them as they were.
        """
        for buffer, after in zip(self._buffers, self._after, strict=True):
            after.add_(buffer, alpha=share)

    def finish(self, process: Process) -> None:
        """End the step, on all processes."""
        process.average(self._after)
        for buffer, after in zip(self._buffers, self._after, strict=True):
            buffer.copy_(after)
