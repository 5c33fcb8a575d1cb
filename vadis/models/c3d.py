"""The 3D-ConvNet, architecture (b): C3D with batch norm, trained from scratch.

References: (1) Carreira & Zisserman, CVPR 2017, section 2.2; (2) Tran et al., "Learning spatiotemporal features with 3D
convolutional networks", 2015. The first pooling of (1) halves time too, where that of (2) does not, so the last shrinks
space alone, from 7 to 4. Axes: B batch, C channels, T time, H, W.
"""

from collections import OrderedDict
from typing import ClassVar

from torch import Tensor, nn

from vadis.models.i3d import Conv, Pool, batch_norm, build_unit, channels_last, check_clip, initialise, scaled
from vadis.models.inception import ClipNetwork

CLIP_FRAMES = 16
CLIP_SIZE = 112  # px
GRID = 4  # height and width of pool5: 112 / 32, rounded up
HIDDEN = 4096  # units of both fully connected layers, at width 1

ROWS: tuple[Conv | Pool, ...] = (
    Conv("conv1a", 64, (3, 3, 3)),
    Pool("pool1", (2, 2, 2), (2, 2, 2)),  # (1); 1×2×2 in (2)
    Conv("conv2a", 128, (3, 3, 3)),
    Pool("pool2", (2, 2, 2), (2, 2, 2)),
    Conv("conv3a", 256, (3, 3, 3)),
    Conv("conv3b", 256, (3, 3, 3)),
    Pool("pool3", (2, 2, 2), (2, 2, 2)),
    Conv("conv4a", 512, (3, 3, 3)),
    Conv("conv4b", 512, (3, 3, 3)),
    Pool("pool4", (2, 2, 2), (2, 2, 2)),
    Conv("conv5a", 512, (3, 3, 3)),
    Conv("conv5b", 512, (3, 3, 3)),
    Pool("pool5", (1, 2, 2), (1, 2, 2)),
)


def _dense(in_channels: int, channels: int) -> nn.Sequential:
    """Return a fully connected layer (no bias), batch norm, ReLU, dropout: (B, in_channels) → (B, channels)."""
    linear = nn.Linear(in_channels, channels, bias=False)
    return nn.Sequential(OrderedDict(linear=linear, norm=batch_norm(channels, 1), relu=nn.ReLU(), dropout=nn.Dropout()))


class C3D(ClipNetwork):
    """Architecture (b), for RGB alone; ``width`` multiplies the fully connected layers too, dropout follows them."""

    min_batch_size: ClassVar[int] = 2  # in training: batch norm of single values has no variance of one

    def __init__(self, num_classes: int, *, width: float = 1.0) -> None:
        super().__init__()
        self.body, channels = nn.Sequential(), 3
        for row in ROWS:
            unit, channels = build_unit(row, channels, width)
            self.body.add_module(row.name, unit)
        hidden = scaled(HIDDEN, width)
        self.fc6 = _dense(channels * GRID * GRID, hidden)
        self.fc7 = _dense(hidden, hidden)
        self.dropout = nn.Identity()  # fc7 ends with one
        self.Logits = nn.Linear(hidden, num_classes)
        self.apply(initialise)

    def features(self, x: Tensor) -> Tensor:
        """A clip (B, 3, 16, 112, 112) in [-1, 1] → what the last layer sees, (B, 4096, 1), less dropout."""
        check_clip("C3D", x, 3, CLIP_FRAMES, CLIP_SIZE)
        y = self.body(channels_last(x)).flatten(1)  # (B, 512·1·4·4)
        hidden: Tensor = self.fc7(self.fc6(y))
        return hidden.unsqueeze(2)  # (B, 4096, 1)
