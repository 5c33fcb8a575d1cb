"""bfloat16 on processors that do not multiply it: what oneDNN computes there, by convolutions in float32.

Weights and what goes in and comes out are rounded to bfloat16. A product of two such numbers is exact in
float32, in which oneDNN sums them too, in another order. So this shows the error of the numbers, not a speed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from vadis.models.cpu_kernels import Convolution, DirectConv3d, round_to_bfloat16
from vadis.models.i3d import Axes


def _emulated(
    weight: Tensor, bias: Tensor, stride: Axes, activation: str, dtype: torch.dtype = torch.float32
) -> Convolution:
    if dtype == torch.float32:
        return DirectConv3d(weight, bias, stride, activation)
    convolve = DirectConv3d(round_to_bfloat16(weight).float(), bias, stride, activation)
    return lambda x, padding: convolve(x.to(dtype).float(), padding).to(dtype)


@contextmanager
def emulated_bfloat16() -> Iterator[None]:
    """Within this block networks are folded as for a processor that multiplies bfloat16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vadis.models.cpu_kernels.DirectConv3d", _emulated)
        for function in ("is_bfloat16_faster", "i3d_inference.multiplies_bfloat16"):
            patch.setattr(f"vadis.models.{function}", lambda: True)
        yield
