"""What changes while a network is trained, and so what a checkpoint holds: parameters, momentum, progress.

Batch norm in a step that is made of several micro-batches, on one device or many.

Each micro-batch is normalised by its own statistics, as on each of the paper's replicas. The running averages, which
serve at test time, move once per step by ``1 - decay`` towards the mean of all micro-batches' statistics. So one device
with 64 micro-batches does what 64 devices do with one each, and a decay of 0.999 means the same for any number of them.

The learning rate: the paper's rule and the code's list, two pure functions over a recipe.

The paper (section 2.5) divides the rate by 10 when the validation loss saturates; the published code changed it at
fixed steps. All the memory that the rule needs is ``Plateau``, which is saved in every checkpoint.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vadis.errors import UsageError
from vadis.training.checkpoint import Checkpoint
from vadis.training.distributed import Process
from vadis.training.recipes import Recipe
from vadis.weights.model_file import describe_difference


@dataclass(frozen=True)
class Plateau:
    """What the validations so far have shown; ``best`` is None before the first of them."""

    best: float | None = None  # validation loss, in nats
    stale: int = 0  # validations in a row without improvement
    drops: int = 0  # divisions of the rate so far
    exhausted: bool = False  # saturated again after the last division


def learning_rate(recipe: Recipe, step: int, plateau: Plateau) -> float:
    """The rate of the step that follows ``step`` steps already done."""
    return stepped_rate(recipe, step) if recipe.schedule == "steps" else plateau_rate(recipe, plateau)


def stepped_rate(recipe: Recipe, step: int) -> float:
    """The rate of the last milestone reached, or the initial one."""
    reached = [rate for milestone, rate in recipe.milestones if milestone <= step]
    return reached[-1] if reached else recipe.learning_rate


def plateau_rate(recipe: Recipe, plateau: Plateau) -> float:
    """The initial rate, divided once per saturation."""
    return recipe.learning_rate / recipe.plateau_factor**plateau.drops


def after_validation(recipe: Recipe, plateau: Plateau, loss: float) -> Plateau:
    """The state after one more validation of this loss; a loss that is not finite is no improvement."""
    best = math.inf if plateau.best is None else plateau.best
    if loss < best - recipe.plateau_improvement:
        return replace(plateau, best=loss, stale=0)
    if plateau.stale + 1 < recipe.plateau_patience:
        return replace(plateau, stale=plateau.stale + 1)
    if plateau.drops >= recipe.plateau_drops:
        return replace(plateau, stale=0, exhausted=True)
    return replace(plateau, stale=0, drops=plateau.drops + 1)


def is_finished(recipe: Recipe, step: int, plateau: Plateau) -> bool:
    """Whether all steps are done, or the loss has saturated at the lowest rate."""
    return step >= recipe.steps or (recipe.schedule == "plateau" and plateau.exhausted)


@dataclass
class Progress:
    """How far a run is."""

    micro_batch: int  # the recipe's, or less where memory was short
    step: int = 0  # done
    validated_at: int = 0  # step of the last validation
    best_at: int | None = None  # step of the validation with the lowest loss so far
    best_loss: float = math.inf  # in nats
    best_accuracy: float = 0.0
    plateau: Plateau = field(default_factory=Plateau)
    smoothed_loss: float | None = None
    smoothed_accuracy: float | None = None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Progress":
        """The progress that ``to_json`` gave."""
        best = math.inf if values["best_loss"] is None else values["best_loss"]
        return cls(**{**values, "plateau": Plateau(**values["plateau"]), "best_loss": best})

    def to_json(self) -> dict[str, Any]:
        """Return the progress as plain JSON values, which know no infinity; ``from_json`` takes them."""
        return {**asdict(self), "best_loss": None if self.best_at is None else self.best_loss}


class State:
    """A network with its optimiser and its progress, and a copy of the network as it was at its best validation.

    Sets the dropout and the batch norms' decay of ``network`` as the recipe says. Parameters that need no gradient stay
    as they are.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, micro_batch: int) -> None:
        apply_recipe(network, recipe)
        self.network, self._recipe = network, recipe
        self.progress = Progress(micro_batch)
        self._best: dict[str, Tensor] = {}  # on the CPU
        self.parameters = {name: value for name, value in network.named_parameters() if value.requires_grad}
        self.optimizer = torch.optim.SGD(
            self.parameters.values(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )

    def learning_rate(self) -> float:
        """The rate of the next step."""
        return learning_rate(self._recipe, self.progress.step, self.progress.plateau)

    def update(self) -> None:
        """One step of the optimiser, from the gradients as they are."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.optimizer.step()

    def keep_if_best(self, loss: float, accuracy: float) -> bool:
        """Keep the network as it is now where no validation before gave so low a loss; return whether that is so."""
        if not loss < self.progress.best_loss:
            return False
        now = self.progress
        now.best_at, now.best_loss, now.best_accuracy = now.step, loss, accuracy
        self._best = {key: value.detach().cpu().clone() for key, value in self.network.state_dict().items()}
        return True

    def forget_best(self) -> None:
        """Let the next validation be the best so far: those before were on other clips."""
        now = self.progress
        now.best_at, now.best_loss, now.plateau = None, math.inf, replace(now.plateau, best=None, stale=0)
        self._best = {}

    def restore_best(self) -> None:
        """Make the network what it was at its best validation, if there was one."""
        if self._best:
            self.network.load_state_dict(self._best)

    def to_checkpoint(
        self, made_with: dict[str, Any], instead: Mapping[int, Tensor] = MappingProxyType({})
    ) -> Checkpoint:
        """All of it, with a note of what the run was made with.

        ``instead`` has tensors, by the address of those of the network, in whose place they are taken.
        """
        network = self.network.state_dict()
        tensors = {f"network.{key}": instead.get(value.data_ptr(), value) for key, value in network.items()}
        tensors |= {f"best.{key}": value for key, value in self._best.items()}
        for name, parameter in self.parameters.items():
            momentum = self.optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum
        return Checkpoint(self.progress.step, tensors, {"progress": self.progress.to_json(), "made_with": made_with})

    def load(self, loaded: Checkpoint) -> None:
        """Take all of it from a checkpoint; raises UsageError where that is of another network."""
        found = {key: tuple(value.shape) for key, value in loaded.tensors.items() if key.startswith("network.")}
        expected = {f"network.{key}": tuple(value.shape) for key, value in self.network.state_dict().items()}
        difference = describe_difference(expected, found)
        if difference is not None:
            hint = "choose another folder, or ask for that network again"
            raise UsageError(f"the run in this folder trains another network: {difference}", hint)
        self.network.load_state_dict({key.removeprefix("network."): loaded.tensors[key] for key in found})
        self._best = {
            key.removeprefix("best."): value for key, value in loaded.tensors.items() if key.startswith("best.")
        }
        for name, parameter in self.parameters.items():
            momentum = loaded.tensors.get(f"momentum.{name}")
            if momentum is not None:
                self.optimizer.state[parameter]["momentum_buffer"] = momentum.to(parameter.device)
        self.progress = Progress.from_json(loaded.state["progress"])


def apply_recipe(network: nn.Module, recipe: Recipe) -> None:
    """Set dropout and the batch norms' decay as ``recipe`` says."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = recipe.dropout
        elif isinstance(module, _BatchNorm):
            module.momentum = 1 - recipe.batch_norm_decay


def import_optimizer() -> None:
    """Have PyTorch import what its first optimiser needs: seconds in which a signal would have to wait, later."""
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)


class RunningAverages:
    """The running means and variances of a network's batch norms."""

    def __init__(self, network: nn.Module) -> None:
        norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        pairs = [(norm.running_mean, norm.running_var) for norm in norms]
        self._buffers: list[Tensor] = [buffer for pair in pairs for buffer in pair if buffer is not None]
        counters = [norm.num_batches_tracked for norm in norms]  # of steps, then: one per step is kept
        self._counters: list[Tensor] = [counter for counter in counters if counter is not None]
        self._before: list[Tensor] = []
        self._after: list[Tensor] = []

    def begin(self) -> None:
        """A step begins."""
        self._before = [buffer.clone() for buffer in self._buffers + self._counters]
        self._after = [buffer.new_zeros(buffer.shape) for buffer in self._buffers]

    def restore(self) -> None:
        """Back to where the step began: before each micro-batch, and where a step is given up."""
        for buffer, before in zip(self._buffers + self._counters, self._before, strict=True):
            buffer.copy_(before)

    def before(self) -> dict[int, Tensor]:
        """Return what the buffers were when the step began, by the address of each."""
        pairs = zip(self._buffers + self._counters, self._before, strict=True)
        return {buffer.data_ptr(): before for buffer, before in pairs}

    def add(self, share: float) -> None:
        """A micro-batch has passed in training mode; ``share`` is its part of this process's clips in the step.

        Leaves the buffers alone, because the backward pass may be yet to come and wants them as they were.
        """
        for buffer, after in zip(self._buffers, self._after, strict=True):
            after.add_(buffer, alpha=share)

    def finish(self, process: Process) -> None:
        """The step is done, on all processes."""
        process.average(self._after)
        for buffer, after in zip(self._buffers, self._after, strict=True):
            buffer.copy_(after)
