"""What a recipe can ask for beyond the paper: each does what it says, is off by default, and goes on exactly."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.matching import containing
from tests.training.stand_in import RECIPE, TinyNetwork, digest, run_tiny
from vadis.errors import UsageError
from vadis.training.checkpoint import State
from vadis.training.loop import Validation, clip_losses
from vadis.training.recipes import RECIPES, Plateau, learning_rate

FIXED = {"schedule": "steps", "validator": None}


class Network(TinyNetwork):
    """Its last layer is called as those of all architectures are."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        super().__init__()
        self.Logits, self.head = self.head, nn.Identity()

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x))).mean(dim=(3, 4), keepdim=True)
        return self.Logits(self.dropout(x)).flatten(2)


def stepped(tmp_path, steps=1, **changes) -> dict[str, torch.Tensor]:
    network, _, _ = run_tiny(tmp_path / str(changes), Network(), steps=steps, **FIXED, **changes)
    return {key: value.clone() for key, value in network.state_dict().items()}


BEFORE = Network().state_dict()


def test_all_of_it_is_off_in_every_recipe():
    off = {"optimizer": "sgd", "last_layer_factor": 1, "freeze_batch_norm": False, "warmup_steps": 0, "clip_norm": 0}
    off |= {"precision": "fp32"}
    for recipe in RECIPES.values():
        assert recipe.to_json().items() >= {**off, "label_smoothing": 0, "ema_decay": 0}.items()
        assert recipe.schedule != "cosine"


def test_the_last_layer_learns_at_a_rate_of_its_own(tmp_path):
    plain, faster = stepped(tmp_path), stepped(tmp_path, last_layer_factor=10.0)
    assert torch.equal(plain["conv.weight"], faster["conv.weight"])
    moved, further = (after["Logits.weight"] - BEFORE["Logits.weight"] for after in (plain, faster))
    assert further == pytest.approx(10 * moved, rel=1e-3, abs=1e-7) and moved.abs().max() > 0


def test_frozen_batch_norms_stay_as_they_are_and_their_averages_are_used(tmp_path):
    after = stepped(tmp_path, steps=3, freeze_batch_norm=True)
    learnt = {key for key, value in after.items() if not torch.equal(value, BEFORE[key])}
    assert learnt == {"conv.weight", "Logits.weight", "Logits.bias"}
    network = Network()
    state = State(network, replace(RECIPE, freeze_batch_norm=True), 2)
    state.begin_step()
    assert network.training and network.dropout.training and not network.norm.training


def test_the_rate_rises_linearly_and_falls_as_a_cosine():
    recipe = replace(RECIPE, schedule="cosine", learning_rate=0.8, warmup_steps=4, steps=12)
    rates = [learning_rate(recipe, step, Plateau()) for step in range(13)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert rates[8] == pytest.approx(0.4) and rates[12] == pytest.approx(0)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    steps = replace(recipe, schedule="steps", milestones=((2, 0.4),))
    rates = [learning_rate(steps, step, Plateau()) for step in (0, 1, 2, 3, 9)]
    assert rates == pytest.approx([0.2, 0.4, 0.3, 0.4, 0.4])
    plateau = replace(recipe, schedule="plateau")
    assert learning_rate(plateau, 1, Plateau(drops=1)) == pytest.approx(0.04)


def test_more_steps_make_another_cosine(tmp_path):
    run_tiny(tmp_path, steps=2, schedule="cosine", validator=None)
    with pytest.raises(UsageError, match=containing("steps", 2, 3)):
        run_tiny(tmp_path, steps=3, schedule="cosine", validator=None, resume=True)


def test_adamw_moves_every_weight_by_the_rate_at_first(tmp_path):
    after = stepped(tmp_path, optimizer="adamw", learning_rate=0.01, weight_decay=0.0)
    for key in ("conv.weight", "Logits.bias"):
        assert (after[key] - BEFORE[key]).abs() == pytest.approx(torch.full_like(after[key], 0.01), rel=0.01)


def test_a_gradient_is_no_longer_than_the_limit(tmp_path):
    def moved(after):
        names = ("conv.weight", "norm.bias", "Logits.weight", "Logits.bias")
        return math.sqrt(sum(float((after[name] - BEFORE[name]).square().sum()) for name in names))

    kept = {"learning_rate": 1.0, "weight_decay": 0.0}
    plain = moved(stepped(tmp_path, **kept))
    assert moved(stepped(tmp_path, clip_norm=plain / 4, **kept)) == pytest.approx(plain / 4, rel=1e-3)
    assert moved(stepped(tmp_path, clip_norm=plain * 4, **kept)) == pytest.approx(plain, rel=1e-6)


def test_labels_are_smoothed_in_training_alone(tmp_path):
    logits, labels = torch.randn(2, 3, 1), torch.tensor([0, 2])
    losses, _ = clip_losses(nn.Identity(), [logits], labels, label_smoothing=0.3)
    log = functional.log_softmax(logits[..., 0], dim=1)
    shares = 0.1 + 0.7 * functional.one_hot(labels, 3)
    assert losses == pytest.approx(-(shares * log).sum(dim=1), rel=1e-5)
    assert not torch.equal(stepped(tmp_path)["Logits.bias"], stepped(tmp_path, label_smoothing=0.3)["Logits.bias"])
    still = {"learning_rate": 1e-30, "steps": 1}
    (_, plain, _), (_, smoothed, _) = (
        run_tiny(tmp_path / str(share), label_smoothing=share, **still) for share in (0.0, 0.3)
    )
    assert plain.kept.validation == smoothed.kept.validation


def test_the_average_over_steps_is_what_is_validated_and_kept(tmp_path):
    seen, states = list[torch.Tensor](), list[torch.Tensor]()

    def report(event):
        if type(event).__name__ == "StepDone":
            states.append(network.conv.weight.detach().clone())

    network = Network()
    run_tiny(tmp_path, network, steps=3, ema_decay=0.5, report=report, validate_every=0, validator=None)
    expected = states[0]
    for step, state in enumerate(states[1:], 2):
        kept = min(0.5, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * state
    assert network.conv.weight.detach() == pytest.approx(expected, abs=1e-6)
    assert not torch.equal(network.conv.weight, states[-1])

    def validator(trained):
        assert not trained.training
        seen.append(trained.conv.weight.detach().clone())
        return Validation(1.0, 0.5)

    again = Network()
    run_tiny(tmp_path / "again", again, steps=3, ema_decay=0.5, validate_every=0, validator=validator)
    assert seen[-1] == pytest.approx(expected, abs=1e-6) and torch.equal(again.conv.weight, seen[-1])


EVERYTHING = {
    "optimizer": "adamw",
    "schedule": "cosine",
    "warmup_steps": 3,
    "clip_norm": 0.5,
    "label_smoothing": 0.1,
    "ema_decay": 0.9,
    "last_layer_factor": 10.0,
}


@pytest.mark.parametrize("changes", [EVERYTHING, {"ema_decay": 0.9, "freeze_batch_norm": True}])
def test_a_run_with_all_of_it_goes_on_exactly(tmp_path, changes):
    asked = iter(range(100))
    whole, outcome, _ = run_tiny(tmp_path / "whole", Network(), **changes)
    _, cut, _ = run_tiny(tmp_path / "cut", Network(), stop_requested=lambda: 15 * (next(asked) > 20), **changes)
    assert outcome.step == 12 and 5 < cut.step < 12
    again, ended, _ = run_tiny(tmp_path / "cut", Network(), resume=True, **changes)
    assert ended.kept == outcome.kept and digest(again) == digest(whole)


def test_another_optimiser_goes_on_only_if_it_is_meant_and_begins_anew(tmp_path):
    asked = iter(range(100))
    run_tiny(tmp_path, Network(), stop_requested=lambda: 15 * (next(asked) > 20))
    changes = {"optimizer": "adamw", "freeze_batch_norm": True, "ema_decay": 0.5, "resume": True}
    with pytest.raises(UsageError, match=containing("optimizer", "sgd", "adamw")):
        run_tiny(tmp_path, Network(), **changes)
    _, outcome, _ = run_tiny(tmp_path, Network(), allow_inexact=True, **changes)
    assert outcome.step == 12
