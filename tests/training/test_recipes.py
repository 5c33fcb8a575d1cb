import math
import re

import pytest

from tests.matching import containing
from vadis.errors import UsageError
from vadis.models import MODELS
from vadis.training.recipes import RECIPES, find_recipe, override, scale_recipe


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "camera-motion"])  # which is none of the paper's
def test_every_recipe(name):
    recipe = RECIPES[name]
    assert find_recipe(name) is recipe and recipe.name == name
    assert (recipe.momentum, recipe.weight_decay, recipe.dropout) == (0.9, 1e-7, 0.5)
    assert (recipe.batch_norm_decay, recipe.plateau_factor) == (0.999, 10)
    architecture = next((key for key in MODELS if name.startswith(key)), "i3d")
    assert recipe.clip_frames == MODELS[architecture].window_frames
    assert override(recipe, recipe.to_json()) == recipe
    assert recipe.batch_size % recipe.micro_batch == 0
    for world_size in (8, 16):
        assert recipe.batch_size % world_size == 0


def test_the_numbers_of_the_paper_and_its_code():
    rgb, flow = RECIPES["kinetics-rgb"], RECIPES["kinetics-flow"]
    assert rgb.batch_size == 6 * 64 and rgb.micro_batch == 6 and rgb.learning_rate == 0.1
    assert rgb.steps == 115_000 and rgb.milestones == ((97_000, 0.01), (108_000, 0.001))
    assert flow.steps == 155_000
    later = ((115_000, 0.1), (140_000, 0.01), (150_000, 0.001))
    assert flow.milestones == ((97_000, 0.01), (104_500, 0.001), *later)
    for name in ("ucf101", "hmdb51"):
        assert RECIPES[name].learning_rate == 1e-3 and RECIPES[name].steps == 5_000
        assert RECIPES[name].schedule == "plateau"


def test_every_field_can_be_overridden_by_its_own_value_and_by_text():
    recipe = RECIPES["kinetics-rgb"]
    for name, value in recipe.to_json().items():
        assert override(recipe, {name: value}) == recipe
        assert override(recipe, {name: str(value)}) == recipe
    changed = override(recipe, {"learning_rate": "1e-2", "steps": 10, "milestones": [[5, 1e-3]], "seed": "7"})
    assert (changed.learning_rate, changed.steps, changed.milestones, changed.seed) == (0.01, 10, ((5, 0.001),), 7)
    assert override(recipe, {"learning_rate": 1}).learning_rate == 1.0


def test_an_unknown_field_names_the_nearest():
    with pytest.raises(UsageError, match=containing("'learning-rat'")) as error:
        override(RECIPES["ucf101"], {"learning-rat": 1})
    assert re.search(containing("name, ", "did you mean learning_rate?"), str(error.value.hint))
    with pytest.raises(UsageError, match=containing("'zzz'")) as error:
        override(RECIPES["ucf101"], {"zzz": 1})
    assert "name, " in str(error.value.hint)


def test_an_unknown_recipe_names_the_nearest_and_all():
    with pytest.raises(UsageError, match=containing("'ucf-101'")) as error:
        find_recipe("ucf-101")
    assert re.search(containing("kinetics-flow", "did you mean ucf101?"), str(error.value.hint))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", "many"),
        ("steps", 1.5),
        ("steps", True),
        ("steps", math.nan),
        ("steps", math.inf),
        ("learning_rate", [1]),
        ("learning_rate", "1e"),
        ("schedule", 3),
        ("milestones", [1, 2]),
        ("milestones", "[[1]]"),
        ("milestones", 5),
        ("milestones", "[" * 700 + "]" * 700),
    ],
)
def test_values_of_another_kind(name, value):
    with pytest.raises(UsageError, match=containing(name)):
        override(RECIPES["ucf101"], {name: value})


@pytest.mark.parametrize(
    ("name", "value", "fact"),
    [
        ("steps", 0, "steps"),
        ("micro_batch", -1, "micro_batch"),
        ("validate_every", -1, "validate_every"),
        ("dropout", 1.0, "[0, 1)"),
        ("momentum", math.nan, "momentum"),
        ("schedule", "linear", "plateau, steps, cosine"),
        ("optimizer", "lamb", "sgd, adamw"),
        ("warmup_steps", -1, "warmup_steps"),
        ("clip_norm", math.inf, "clip_norm"),
        ("label_smoothing", 1, "label_smoothing"),
        ("ema_decay", -0.1, "ema_decay"),
        ("last_layer_factor", 0, "last_layer_factor"),
        ("plateau_factor", 1, "plateau_factor"),
        ("learning_rate", 0, "ucf101"),
        ("milestones", [[5, math.inf]], "ucf101"),
        ("milestones", [[5, 0.1], [5, 0.2]], "milestones"),
    ],
)
def test_values_that_cannot_be(name, value, fact):
    with pytest.raises(UsageError, match=containing(fact)):
        override(RECIPES["ucf101"], {name: value})


@pytest.mark.parametrize("name", ["folder", "folder-scratch", "lstm-folder", "c3d-folder-scratch", "folder-fixed"])
@pytest.mark.parametrize("processes", [1, 2, 8])
def test_a_folder_s_recipe_follows_the_number_of_its_clips(name, processes):
    largest, before = RECIPES[name], None
    for num_clips in (2, 9, 23, 100, 700, 10_000, 300_000):
        found = scale_recipe(largest, num_clips, processes)
        assert found.batch_size % found.micro_batch == 0
        assert found.batch_size <= largest.batch_size and found.steps <= largest.steps
        assert found.validate_every <= found.steps and found.validate_every <= largest.validate_every
        if before:
            assert found.batch_size >= before.batch_size and found.plateau_patience <= before.plateau_patience
        before = found
        if name != "folder-fixed":
            assert found.batch_size % processes == 0
            assert num_clips >= 10_000 or found.steps * found.batch_size <= 51 * num_clips + found.batch_size
    assert before == largest
    few = scale_recipe(largest, 23, 1)
    assert few.batch_size < 0.5 * largest.batch_size and few.batch_size <= 30


def test_other_recipes_are_what_they_are_whatever_the_number_of_clips():
    assert all(scale_recipe(recipe, 23) == recipe for name, recipe in RECIPES.items() if "folder" not in name)
