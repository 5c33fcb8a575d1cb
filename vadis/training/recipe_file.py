"""Which recipe a run goes by: one of the table or a TOML file, with single numbers changed.

    recipe = "ucf101"        # what the file changes; left out, the recipe that the command would take
    learning_rate = 5e-4     # any number of the recipe

    [flow]                   # for one stream only
    steps = 3000

Numbers given on the command line come last.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vadis.errors import UsageError, what_next
from vadis.parsing import encoding_of, parse_toml
from vadis.results import printable
from vadis.training.recipes import RECIPES, Recipe, find_recipe, override, scaled

SUFFIX = ".toml"


def chosen_recipes(
    defaults: Mapping[str, str],
    asked: str | None = None,
    changes: Mapping[str, object] | None = None,
    *,
    num_clips: int | None = None,
    num_processes: int = 1,
) -> dict[str, Recipe]:
    """The recipe of each network.

    Args:
        defaults: the name of the recipe that each network has if nothing else is asked for.
        asked: the name of a recipe, or the path of a TOML file (it ends with ``.toml``).
        changes: by field name, for all networks, on top of a file's.
        num_clips: to learn from, to which recipes are ``scaled`` that say so, before any changes.
        num_processes: of the run, likewise.

    Raises:
        UsageError: for a recipe, field or value that cannot be, or a file that cannot be read.
    """
    if asked is None or not asked.endswith(SUFFIX):
        written: dict[str, Any] = {} if asked is None else {"recipe": asked}
    else:
        written = _read(Path(asked))
    strange = sorted(key for key, value in written.items() if isinstance(value, dict) and key not in defaults)
    if strange:
        message = f"{printable(str(asked))}: there is no network {printable(strange[0])!r} to train"
        raise UsageError(message, hint=f"the networks of this run are {', '.join(defaults)}")
    recipes = {}
    for stream, name in defaults.items():
        recipe, numbers = _named(stream, name, written)
        if num_clips is not None:
            recipe = scaled(recipe, num_clips, num_processes)
        recipes[stream] = override(recipe, {**numbers, **(changes or {})})
    return recipes


def _named(stream: str, default: str, written: Mapping[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """Return the default recipe, or that which the file names; and the file's numbers with the stream's own."""
    general = {key: value for key, value in written.items() if not isinstance(value, dict)}
    numbers = {**general, **written.get(stream, {})}
    name = numbers.pop("recipe", default)
    if not isinstance(name, str):
        raise UsageError(f"recipe is the name of one, not {name!r}", hint=f"one of {', '.join(RECIPES)}")
    return find_recipe(name), numbers


def _read(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
        encoding, start = encoding_of(content)
        return parse_toml(content[start:].decode(encoding))
    except OSError as error:
        message = f"the recipe {printable(str(path))} cannot be read: {error.strerror}"
        raise UsageError(message, hint=what_next(error.errno)) from error
    except ValueError as error:  # TOML's and UTF-8's
        hint = "write one field = value in a line, such as steps = 500; words stand in quotes"
        raise UsageError(f"the recipe {printable(str(path))} cannot be read as TOML: {error}", hint) from error


def default_recipe(architecture: str, dataset: str, run: str, mode: str) -> str:
    """The name of the recipe by which networks are trained on a dataset.

    Args:
        architecture: a key of ``MODELS``.
        dataset: a key of ``DATASETS``.
        run: "rgb", "flow" or "both".
        mode: "scratch" (from nothing, or ImageNet), "full" (fine-tuned end to end) or "fixed" (a new last layer).
    """
    if dataset == "kinetics" and mode == "scratch":
        return f"kinetics-{run}" if architecture == "i3d" else f"{architecture}-kinetics"
    known = "ucf101" if dataset == "kinetics" else dataset
    name = known if mode == "full" else f"{known}-{mode}"
    return name if architecture == "i3d" or mode == "fixed" else f"{architecture}-{name}"
