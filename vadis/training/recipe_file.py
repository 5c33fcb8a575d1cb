"""Which recipe a run goes by: one of the table or a TOML file, with single numbers changed.

    recipe = "ucf101"        # what the file changes; left out, the recipe that the command would take
    learning_rate = 5e-4     # any number of the recipe

    [flow]                   # for one stream only
    steps = 3000

Numbers given on the command line come last.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vadis.errors import UsageError, what_next
from vadis.results import printable
from vadis.text import encoding_of
from vadis.training.recipes import RECIPES, Recipe, find_recipe, override

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUFFIX = ".toml"


def chosen_recipes(
    defaults: Mapping[str, str], asked: str | None = None, changes: Mapping[str, object] | None = None
) -> dict[str, Recipe]:
    """The recipe of each network.

    Args:
        defaults: the name of the recipe that each network has if nothing else is asked for.
        asked: the name of a recipe, or the path of a TOML file (it ends with ``.toml``).
        changes: by field name, for all networks, on top of a file's.

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
    return {stream: _recipe(stream, name, written, changes or {}) for stream, name in defaults.items()}


def _recipe(stream: str, default: str, written: Mapping[str, Any], changes: Mapping[str, object]) -> Recipe:
    """The default recipe, or that which the file names; with the file's numbers, the stream's own, and ``changes``."""
    general = {key: value for key, value in written.items() if not isinstance(value, dict)}
    numbers = {**general, **written.get(stream, {})}
    name = numbers.pop("recipe", default)
    if not isinstance(name, str):
        raise UsageError(f"recipe is the name of one, not {name!r}", hint=f"one of {', '.join(RECIPES)}")
    return override(find_recipe(name), {**numbers, **changes})


def _read(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
        encoding, start = encoding_of(content)
        written: dict[str, Any] = tomllib.loads(content[start:].decode(encoding))
        return written
    except OSError as error:
        message = f"the recipe {printable(str(path))} cannot be read: {error.strerror}"
        raise UsageError(message, hint=what_next(error.errno)) from error
    except ValueError as error:  # TOML's and UTF-8's
        hint = "write one field = value in a line, such as steps = 500; words stand in quotes"
        raise UsageError(f"the recipe {printable(str(path))} is not TOML: {error}", hint) from error


def default_recipe(architecture: str, dataset: str, run: str, mode: str) -> str:
    """The name of the recipe by which networks are trained on a dataset.

    Args:
        architecture: a key of ``MODELS``.
        dataset: a key of ``DATASETS``; a person's own videos are trained on as UCF-101 is.
        run: "rgb", "flow" or "both".
        mode: "scratch" (from nothing, or ImageNet), "full" (fine-tuned end to end) or "fixed" (a new last layer).
    """
    if dataset == "kinetics" and mode == "scratch":
        return f"kinetics-{run}" if architecture == "i3d" else f"{architecture}-kinetics"
    known = dataset if dataset in ("ucf101", "hmdb51") else "ucf101"
    name = known if mode == "full" else f"{known}-{mode}"
    return name if architecture == "i3d" or mode == "fixed" else f"{architecture}-{name}"
