"""I3D as one writes it first, the peer of the benchmarks: contiguous tensors, and SAME padding in copies."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from unittest.mock import patch

from torch import Tensor
from torch.nn import functional

from vadis.models.i3d import ConvUnit, PoolUnit, pad_same


def _conv(unit: ConvUnit, x: Tensor) -> Tensor:
    x = pad_same(x, unit.conv.kernel_size, unit.conv.stride)
    return functional.relu(unit.norm(functional.conv3d(x, unit.conv.weight, None, unit.conv.stride)))


def _pool(unit: PoolUnit, x: Tensor) -> Tensor:
    return functional.max_pool3d(pad_same(x, unit.kernel, unit.stride), unit.kernel, unit.stride)


@contextmanager
def plainly_written() -> Iterator[None]:
    """Within this block every ``I3D`` computes so."""
    with (
        patch.object(import_module("vadis.models.i3d"), "channels_last", lambda x: x),
        patch.object(ConvUnit, "forward", _conv),
        patch.object(PoolUnit, "forward", _pool),
    ):
        yield
