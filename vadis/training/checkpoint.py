"""What changes while a network is trained, and the files from which a killed run goes on.

    RUN/checkpoints/step-000000123.000-SHA256.safetensors    (….001-… if that step is saved once more)

Tensors are the network (``network.…``), its average over steps (``average.…``), the network at its best validation
(``best.…``) and what the optimiser keeps (``_SLOTS``); the rest is JSON. Older files are removed when a new one has
been read back; loading takes the newest whose every byte is as written. All randomness follows from the seed and the
position: generators have no state here.
"""

import copy
import hashlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vadis.errors import UsageError, VadisError
from vadis.files import FULL_DISK, os_errors_as, write_file
from vadis.models.i3d_inference import LOGITS
from vadis.parsing import parse_json
from vadis.training.distributed import Process
from vadis.training.log import RESUME, Resumed
from vadis.training.recipes import Plateau, Recipe, learning_rate
from vadis.weights.model_file import describe_difference

KEPT = 2  # the newest, and one before it should the disk lose the newest
CHECKPOINTS_NAME = "checkpoints"

_NAME = re.compile(r"step-(\d{9})\.(\d{3})-([0-9a-f]{64})\.safetensors")


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
    metadata = {"state": json.dumps(checkpoint.state, allow_nan=False)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    content = safetensors.torch.save(tensors, metadata)
    step = f"step-{checkpoint.step:09d}."
    earlier = [path.name for path in list_checkpoints(folder) if path.name.startswith(step)]
    number = int(earlier[-1].removeprefix(step)[:3]) + 1 if earlier else 0
    path = folder / f"{step}{number:03d}-{hashlib.sha256(content).hexdigest()}.safetensors"
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
    for path in list_checkpoints(folder)[:-KEPT]:
        with suppress(OSError):
            path.unlink()


def load_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint at ``path``; raise DamagedCheckpointError unless its every byte is as written."""
    with os_errors_as(DamagedCheckpointError, f"the checkpoint {path} cannot be read"):
        content = path.read_bytes()
    match = _NAME.fullmatch(path.name)
    if match is None or hashlib.sha256(content).hexdigest() != match[3]:
        hint = "look at the disk; a run goes on with `resume=True` from the newest one that is whole"
        raise DamagedCheckpointError(f"the checkpoint {path} is damaged: it is not what was written", hint)
    metadata = parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    return Checkpoint(int(match[1]), safetensors.torch.load(content), parse_json(metadata["state"]))


def load_newest(folder: Path) -> tuple[Checkpoint, Path, list[Path]] | None:
    """Return the newest undamaged checkpoint in ``folder``, its path, and the damaged ones newer than it, or None."""
    damaged = list[Path]()
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
    return sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))


def run_conditions(recipe: Recipe, labels: Sequence[str], data_sha256: str, process: Process) -> dict[str, Any]:
    """Return all that must be the same for a run to go on exactly, as plain JSON values."""
    return {
        **recipe.to_json(),
        "labels": list(labels),
        "clips": data_sha256,
        "processes": process.world_size,
        "device": process.device.type,
        # On a CPU sums are cut differently, which gives other last bits.
        "threads": torch.get_num_threads() if process.device.type == "cpu" else None,
        "torch": torch.__version__,
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what has changed, a clause each; more steps are none, unless the rate falls to zero over all of them."""
    return [
        f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
        and not (name == "steps" and before["steps"] < now["steps"] and now["schedule"] != "cosine")
    ]


def find_resumable(
    folder: Path, now: Mapping[str, Any], process: Process, allow_inexact: bool
) -> tuple[Checkpoint, Resumed] | None:
    """Return the newest undamaged checkpoint of the run in ``folder``, the same on all processes; None without any.

    Newer ones are renamed. With other classes than ``now``, or unless ``allow_inexact`` other differences: UsageError.
    """
    newest = load_newest(folder / CHECKPOINTS_NAME) if process.is_main else None
    path = process.gather(newest and newest[1])[0]
    if path is None:
        return None
    loaded, _, damaged = newest or (load_checkpoint(path), path, [])
    if loaded.state["made_with"]["labels"] != now["labels"]:
        raise UsageError(f"the run in {folder} learns other classes", hint="choose another folder")
    changes = differences(loaded.state["made_with"], now)
    if changes and not allow_inexact:
        message = f"the run in {folder} cannot go on exactly: {'; '.join(changes)}"
        raise UsageError(message, hint="change that back, or go on all the same by `allow_inexact=True`")
    for each in damaged:
        each.replace(each.with_name(f"{each.name}.damaged-{secrets.token_hex(4)}"))
    return loaded, Resumed(loaded.step, str(path), tuple(map(str, damaged)), tuple(changes))


@dataclass
class TrainingProgress:
    micro_batch: int  # the recipe's, or less where memory was short
    step: int = 0  # done
    validated_at: int = 0  # step of the last validation
    best: tuple[int, float, float] | None = None  # step, loss and accuracy of the validation with the lowest loss
    plateau: Plateau = field(default_factory=Plateau)
    smoothed_loss: float | None = None
    smoothed_accuracy: float | None = None


# What the optimisers keep for each parameter, by its name in a checkpoint.
_SLOTS = {"momentum": "momentum_buffer", "mean": "exp_avg", "square": "exp_avg_sq", "count": "step"}


class State:
    """All that a checkpoint holds: a network, its optimiser, its progress, and the network at its best validation.

    Sets the dropout and the batch norms of ``network`` as the recipe says.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, micro_batch: int) -> None:
        norms = [each for each in network.modules() if isinstance(each, _BatchNorm)]
        for norm in norms:
            norm.momentum = 1 - recipe.batch_norm_decay
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = recipe.dropout
        self.frozen = norms if recipe.freeze_batch_norm else []
        for norm in self.frozen:
            norm.requires_grad_(False)
        self.network, self._recipe = network, recipe
        self.progress = TrainingProgress(micro_batch)
        self.best: dict[str, Tensor] = {}  # of the network at its best validation, on the CPU
        self.average = copy.deepcopy(network) if recipe.ema_decay else network  # over the steps: validated and kept
        self.parameters = {name: value for name, value in network.named_parameters() if value.requires_grad}
        parts: tuple[list[Tensor], list[Tensor]] = ([], [])
        for name, value in self.parameters.items():
            parts[f".{LOGITS}." in f".{name}"].append(value)
        factors = (1.0, recipe.last_layer_factor)
        groups = [{"params": part, "factor": factor} for part, factor in zip(parts, factors, strict=True) if part]
        rate, momentum, decay = recipe.learning_rate, recipe.momentum, recipe.weight_decay
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.AdamW(groups, rate, (momentum, 0.999), weight_decay=decay)
            if recipe.optimizer == "adamw"
            else torch.optim.SGD(groups, rate, momentum, weight_decay=decay)
        )

    def begin_step(self) -> None:
        """Make the network learn, but for the batch norms that are frozen."""
        self.network.train()
        for norm in self.frozen:
            norm.eval()
        self.optimizer.zero_grad(set_to_none=True)

    def learning_rate(self) -> float:
        return learning_rate(self._recipe, self.progress.step, self.progress.plateau)

    def update(self) -> None:
        """Do one step of the optimiser, from the gradients as they are."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate() * group["factor"]
        self.optimizer.step()

    def move_average(self) -> None:
        """Move the average over steps, if there is one, towards what the network is after this step."""
        if self.average is self.network:
            return
        step = self.progress.step
        kept = min(self._recipe.ema_decay, (1 + step) / (10 + step))  # at first less: as TensorFlow's
        kept *= step > 1
        for mean, value in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
            mean.copy_(mean.lerp(value, 1 - kept) if value.is_floating_point() else value)

    def to_checkpoint(self, made_with: dict[str, Any], averages: Mapping[str, Tensor]) -> Checkpoint:
        """Return all of it; ``averages`` has tensors by key that are taken instead of the network's own."""
        tensors = {f"network.{key}": value for key, value in {**self.network.state_dict(), **averages}.items()}
        tensors |= {f"best.{key}": value for key, value in self.best.items()}
        if self.average is not self.network:
            tensors |= {f"average.{key}": value for key, value in self.average.state_dict().items()}
        for name, parameter in self.parameters.items():
            kept = self.optimizer.state[parameter]
            tensors |= {f"{slot}.{name}": kept[key] for slot, key in _SLOTS.items() if kept.get(key) is not None}
        return Checkpoint(self.progress.step, tensors, {"progress": asdict(self.progress), "made_with": made_with})

    def load(self, loaded: Checkpoint) -> None:
        """Take all of it from a checkpoint; raise UsageError where that is of another network."""
        parts: dict[str, dict[str, Tensor]] = {each: {} for each in ("network", "best", "average", *_SLOTS)}
        for key, value in loaded.tensors.items():
            part, _, name = key.partition(".")
            parts[part][name] = value
        if difference := describe_difference(self.network.state_dict(), parts["network"]):
            hint = "choose another folder, or ask for that network again"
            raise UsageError(f"the run in this folder trains another network: {difference}", hint)
        self.average.load_state_dict(parts["average"] or parts["network"])
        self.network.load_state_dict(parts["network"])
        self.best = parts["best"]
        if loaded.state["made_with"]["optimizer"] == self._recipe.optimizer:
            for slot, key in _SLOTS.items():
                for name in parts[slot].keys() & self.parameters.keys():
                    parameter, value = self.parameters[name], parts[slot][name]
                    self.optimizer.state[parameter][key] = value if key == "step" else value.to(parameter.device)
        values = loaded.state["progress"]
        self.progress = TrainingProgress(**{**values, "plateau": Plateau(**values["plateau"])})


class RunningAverages:
    """The running means and variances of a network's batch norms, which move once per step.

    They go by ``1 - decay`` towards the mean of all micro-batches' statistics, by which each is normalised alone.
    """

    def __init__(self, network: nn.Module, frozen: Sequence[nn.Module] = ()) -> None:
        norms = [(name, each) for name, each in network.named_modules() if isinstance(each, _BatchNorm)]
        norms = [(name, norm) for name, norm in norms if norm not in frozen]
        # num_batches_tracked, which is one of them, counts steps then.
        self._buffers = {f"{name}.{key}": value for name, norm in norms for key, value in norm.named_buffers()}
        self.before: dict[str, Tensor] = {}  # what they were when the step began, by the network's keys
        self._means: dict[str, Tensor] = {}

    def begin(self) -> None:
        self.before = {key: buffer.clone() for key, buffer in self._buffers.items()}
        self._means = {key: torch.zeros_like(each) for key, each in self.before.items() if each.is_floating_point()}

    def restore(self) -> None:
        """Go back to where the step began: before each micro-batch, and where a step is given up."""
        for key, before in self.before.items():
            self._buffers[key].copy_(before)

    def add(self, share: float) -> None:
        """Add a micro-batch that has passed in training mode, a ``share`` of this process's part of the step."""
        for key, mean in self._means.items():
            mean.add_(self._buffers[key], alpha=share)

    def finish(self, process: Process) -> None:
        """End the step, on all processes."""
        process.average(list(self._means.values()))
        for key, mean in self._means.items():
            self._buffers[key].copy_(mean)
