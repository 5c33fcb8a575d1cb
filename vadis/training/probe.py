"""How long a training run will take, before its first step: one pass of one clip, and what follows from it."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from vadis.device import release, runs_out_of_memory
from vadis.flow.store import FlowStore
from vadis.models import joined_for_training
from vadis.training.distributed import Process
from vadis.training.plan import Plan, clips_of, new_networks
from vadis.training.recipes import Recipe
from vadis.training.sampler import Clip, ClipDataset
from vadis.training.stopping import unless_stopped
from vadis.training.validation import clip_losses, stack_clips

FORWARD_SHARE = 1 / 3  # of a pass forward and backward: the backward one takes twice as long


@dataclass(frozen=True)
class Pace:
    """What one clip takes, in seconds: to load it, and to learn from it."""

    load_seconds: float
    learn_seconds: float

    def step_seconds(self, recipe: Recipe, num_processes: int, workers: int) -> float:
        """Return what a step takes; clips are loaded meanwhile where there are ``workers`` for it."""
        return recipe.batch_size / num_processes * self._each(self.learn_seconds, workers)

    def run_seconds(self, recipe: Recipe, num_held_out: int, num_processes: int, workers: int) -> float:
        """Return what all steps take, with a validation on ``num_held_out`` clips as often as the recipe has it."""
        validations = 1 + (recipe.steps // recipe.validate_every if recipe.validate_every else 0)
        each = num_held_out / num_processes * self._each(FORWARD_SHARE * self.learn_seconds, workers)
        return recipe.steps * self.step_seconds(recipe, num_processes, workers) + validations * each

    def _each(self, seconds: float, workers: int) -> float:
        return max(seconds, self.load_seconds / workers) if workers else seconds + self.load_seconds


def probe_run(
    run: str, plan: Plan, process: Process, store: FlowStore | None, stop_requested: Callable[[], int]
) -> Pace | None:
    """Measure what a clip of a run of ``plan`` takes on this machine; as ``measure``."""
    clips = clips_of(plan, run, plan.splits(run)[0], learning=True, store=store)
    return measure(joined_for_training(new_networks(plan, run)), clips, process, stop_requested)


def measure(network: nn.Module, clips: ClipDataset, process: Process, stop_requested: Callable[[], int]) -> Pace | None:
    """Measure the pace on a copy of ``network``; None where memory runs out or a stop is requested.

    A GPU's first pass is not counted: it chooses its ways of computing.
    """
    found: list[Pace] = []

    def work() -> bool:
        return runs_out_of_memory(lambda: found.append(_measured(network, clips, process.device)))

    state = torch.random.get_rng_state()
    is_short = unless_stopped(work, stop_requested, process.device)
    torch.random.set_rng_state(state)
    if is_short:
        release(process.device)
    return None if is_short is None or not found else found[0]


def _measured(network: nn.Module, clips: ClipDataset, device: torch.device) -> Pace:
    began = time.perf_counter()
    tensors, label, name = clips.clip(0, 0)
    loaded = time.perf_counter() - began
    learner = copy.deepcopy(network).to(device).train()
    number = getattr(network, "min_batch_size", 1)
    for _ in range(2 if device.type == "cuda" else 1):
        began = time.perf_counter()
        losses, _ = clip_losses(learner, *stack_clips([Clip(0, tensors, label, name)] * number, device))
        losses.sum().backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return Pace(loaded, (time.perf_counter() - began) / number)
