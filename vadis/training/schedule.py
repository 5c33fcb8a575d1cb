"""The learning rate: the paper's rule and the code's list, two pure functions over a recipe.

The paper (section 2.5) divides the rate by 10 when the validation loss saturates; the published code changed it at
fixed steps. All the memory that the rule needs is ``Plateau``, which is saved in every checkpoint.
"""

import math
from dataclasses import dataclass, replace

from vadis.training.recipes import Recipe


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
