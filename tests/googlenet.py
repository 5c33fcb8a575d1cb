"""torchvision's GoogLeNet as tests need it: the published names and shapes, with values of any size."""

import ast
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from tests.conftest import GOLDEN
from tests.golden import recipe
from vadis.models.i3d import ROWS
from vadis.models.inception import Inception, InceptionBody
from vadis.weights.convert import state_key


def from_googlenet(entries: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries under the names of ``Inception``."""
    return {key: value for name, value in entries.items() if (key := state_key(name)) is not None}


def body_endpoints(body: InceptionBody, images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The output of every row in turn, with its name in I3D's graph."""
    for row, unit in zip(ROWS, body.children(), strict=True):
        images = unit(images)
        yield row.name, images


SHAPES: dict[str, tuple[int, ...]] = {}
"""Every entry of the published file (torchvision's ``googlenet().state_dict()``), with its shape."""
for line in (GOLDEN / "googlenet_state_dict.txt").read_text().splitlines():
    name, _, shape = line.partition(" ")
    SHAPES[name] = ast.literal_eval(shape)


@lru_cache(maxsize=1)
def golden_entries() -> dict[str, Tensor]:
    """The values with which the goldens were made, without the auxiliary classifiers; not to be changed."""
    shapes = {name: shape for name, shape in SHAPES.items() if not name.startswith("aux")}
    return {name: torch.from_numpy(np.asarray(recipe.torch_value(name, shape))) for name, shape in shapes.items()}


def narrow_entries(width: float, classes: int = 1000) -> dict[str, Tensor]:
    """The same names with the shapes of a narrow network, random; the auxiliary classifiers are tiny."""
    network = Inception(classes, width=width).state_dict()
    entries = {}
    for name, shape in SHAPES.items():
        key = state_key(name)
        if name.endswith("num_batches_tracked"):
            entries[name] = torch.tensor(0)
        else:
            own = tuple(network[key].shape) if key is not None else (2,) * len(shape)
            entries[name] = torch.from_numpy(recipe.torch_value(name, own))
    return entries
