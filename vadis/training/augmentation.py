"""What is random in a training clip: where it begins, what is cropped, whether it is mirrored, how its colours shift.

The paper (section 2.5): a random 224×224 crop of the frames with their short side at 256, a random start among those
early enough, one left-right flip for the whole clip. It names photometric changes as promising and untried; here they
are off unless asked for.
"""

from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from vadis.streams import CROP
from vadis.training.order import derived_seed

_LUMA = (0.299, 0.587, 0.114)  # Rec. 601, of red, green and blue


@dataclass(frozen=True)
class Jitter:
    """The largest photometric changes, one draw per clip.

    Attributes:
        brightness: added, as a share of the whole range.
        contrast: the factor around the clip's mean lies in [1 - contrast, 1 + contrast].
        saturation: the factor around grey, likewise.
    """

    brightness: float = 0.1
    contrast: float = 0.2
    saturation: float = 0.2


@dataclass(frozen=True)
class Draw:
    """What was drawn for one clip.

    Attributes:
        start, top, left: in [0, 1), shares of the room there is.
        is_mirrored: left and right are exchanged.
        brightness, contrast, saturation: in [-1, 1), shares of what a ``Jitter`` allows.
    """

    start: float
    top: float
    left: float
    is_mirrored: bool
    brightness: float
    contrast: float
    saturation: float


def drawn(seed: int, epoch: int, index: int) -> Draw:
    """The draw for a clip; the same on every machine, whatever was drawn before."""
    random = Random(derived_seed(seed, "clip", epoch, index))
    start, top, left, mirror, *shifts = (random.random() for _ in range(7))
    brightness, contrast, saturation = (2 * shift - 1 for shift in shifts)
    return Draw(start, top, left, mirror < 0.5, brightness, contrast, saturation)


def crop_window(size: tuple[int, int], draw: Draw | None) -> tuple[slice, slice]:
    """Rows and columns of a 224×224 crop of frames of ``size`` (width, height): as drawn, or the centre."""
    width, height = size
    rooms = (height - CROP, width - CROP)
    if draw is None:
        top, left = (room // 2 for room in rooms)
    else:
        top, left = (int(share * (room + 1)) for share, room in zip((draw.top, draw.left), rooms, strict=True))
    return slice(top, top + CROP), slice(left, left + CROP)


def shift_colours(x: Tensor, jitter: Jitter, draw: Draw) -> Tensor:
    """An RGB clip (3, T, H, W) in [-1, 1] with other saturation, contrast and brightness, in [-1, 1] again."""
    gray = torch.einsum("c,cthw->thw", x.new_tensor(_LUMA), x)  # (T, H, W)
    x = torch.lerp(gray, x, 1 + jitter.saturation * draw.saturation)  # (3, T, H, W)
    x = torch.lerp(gray.mean(), x, 1 + jitter.contrast * draw.contrast)
    return x.add_(2 * jitter.brightness * draw.brightness).clamp_(-1, 1)
