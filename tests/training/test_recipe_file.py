import pytest

from tests.matching import containing
from vadis.datasets import DATASETS
from vadis.errors import UsageError
from vadis.models import MODELS
from vadis.parsing import MAX_DEPTH
from vadis.training.recipes import RECIPES, choose_recipes, default_recipe

BOTH = {"rgb": "kinetics-rgb", "flow": "kinetics-flow"}


@pytest.fixture
def toml(tmp_path):
    def write(text: str) -> str:
        (tmp_path / "mine.toml").write_text(text)
        return str(tmp_path / "mine.toml")

    return write


def test_without_a_wish_each_network_has_its_own():
    assert choose_recipes(BOTH) == {stream: RECIPES[name] for stream, name in BOTH.items()}


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("mode", ["scratch", "full", "fixed"])
def test_there_is_a_recipe_for_every_cell(architecture, dataset, mode):
    row = MODELS[architecture]
    for run in row.training_groups(row.streams):
        name = default_recipe(architecture, dataset, run, mode)
        assert RECIPES[name].clip_frames == row.window_frames or mode == "fixed"


def test_a_name_is_for_all_and_changes_come_last():
    found = choose_recipes(BOTH, "ucf101", {"steps": "7"})
    assert [(recipe.name, recipe.steps) for recipe in found.values()] == [("ucf101", 7)] * 2


def test_a_file_changes_numbers_for_all_and_for_one(toml):
    path = toml('recipe = "ucf101"\nsteps = 20\nmilestones = [[5, 0.01]]\n[flow]\nsteps = 30\nlearning_rate = 1')
    found = choose_recipes(BOTH, path, {"batch_size": "12"})
    assert [(r.steps, r.learning_rate, r.batch_size) for r in found.values()] == [(20, 1e-3, 12), (30, 1.0, 12)]
    assert found["rgb"].milestones == ((5, 0.01),)


def test_a_file_without_a_recipe_changes_the_default(toml):
    found = choose_recipes(BOTH, toml("seed = 3\n"))
    assert [(r.name, r.seed) for r in found.values()] == [("kinetics-rgb", 3), ("kinetics-flow", 3)]


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("steps = ", "TOML"),
        ("steps = " + "[" * 700 + "]" * 700, MAX_DEPTH),
        ("step = 3", "'step'"),
        ("[sound]\nsteps = 3", "'sound'"),
        ("recipe = 3", 3),
        ('recipe = "ucf-101"', "'ucf-101'"),
        ("steps = 2024-01-01", "steps"),
    ],
)
def test_what_a_file_cannot_say(toml, text, fact):
    with pytest.raises(UsageError, match=containing(fact)):
        choose_recipes(BOTH, toml(text))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=containing("none.toml", "No such file")):
        choose_recipes(BOTH, str(tmp_path / "none.toml"))
