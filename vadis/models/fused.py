"""3D-Fused Two-Stream, architecture (d): two Inception-v1 whose grids meet in a 3D convolution.

Reference: (1) Carreira & Zisserman, CVPR 2017, section 2.3, after Feichtenhofer et al., 2016. It does not give strides
and padding, but 39 M parameters in all, so the last layer sees 512 values; these lead there, with nothing padded (axes:
B batch, C channels, T time, H, W):

    5×7×7  → convolution 3×3×3, stride 1×2×2 →  3×3×3  → max pooling 3×3×3 →  1×1×1
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from vadis.models.i3d import batch_norm, check_clip, initialise, scaled
from vadis.models.inception import SNAPSHOT_FRAMES, ClipNetwork, InceptionBody, stacked
from vadis.preprocessing import STREAMS

SNIPPETS = 5  # along time: RGB frames, 10 frames apart, each with its snippet of flow (1)
FUSED = 512  # channels of the convolution, at width 1 (1)
FUSION_STRIDE = (1, 2, 2)
GAUSSIAN_STD = 0.01  # of the new layers' weights; (1) says Gaussian, not how wide. Batch norm follows the convolution


class Fused(ClipNetwork):
    """Architecture (d); ``streams`` are "rgb" and "flow" in this order, or one of them (table 2 has both alone too)."""

    def __init__(self, num_classes: int, streams: tuple[str, ...] = ("rgb", "flow"), *, width: float = 1.0) -> None:
        super().__init__()
        self.streams, joined = streams, 0
        for stream in streams:
            body = InceptionBody(STREAMS[stream].channels * SNAPSHOT_FRAMES[stream], width=width)
            self.add_module(stream, body)
            joined += body.channels
        fused = scaled(FUSED, width)
        self.fusion = nn.Sequential(
            OrderedDict(
                conv=nn.Conv3d(joined, fused, (3, 3, 3), FUSION_STRIDE, bias=False),  # (B, channels, 3, 3, 3)
                norm=batch_norm(fused, 3),
                relu=nn.ReLU(inplace=True),
                pool=nn.MaxPool3d((3, 3, 3)),  # (B, channels, 1, 1, 1)
            )
        )
        self.dropout = nn.Dropout()
        self.Logits = nn.Linear(fused, num_classes)
        self.apply(initialise)
        nn.init.normal_(self.Logits.weight, std=GAUSSIAN_STD)
        nn.init.normal_(self.fusion.get_submodule("conv").weight, std=GAUSSIAN_STD)  # type: ignore[arg-type]

    def features(self, *clips: Tensor) -> Tensor:
        """RGB (B, 3, 5, 224, 224) and flow (B, 2, 50, 224, 224), ten frames for each of RGB's → (B, 512, 1)."""
        grids = [self._grids(stream, clip) for stream, clip in zip(self.streams, clips, strict=True)]
        pooled: Tensor = self.fusion(torch.cat(grids, dim=1))  # (B, 512, 1, 1, 1)
        return pooled.flatten(2)  # (B, 512, 1)

    def _grids(self, stream: str, x: Tensor) -> Tensor:
        """Return the last grid of every snippet of a stream, (B, 1024, 5, 7, 7)."""
        check_clip(f"3D-Fused ({stream})", x, STREAMS[stream].channels, SNIPPETS * SNAPSHOT_FRAMES[stream])
        snippets = torch.cat(x.chunk(SNIPPETS, dim=2))  # (5·B, C, frames, H, W)
        grids = self.get_submodule(stream)(stacked(snippets))  # (5·B, 1024, 7, 7)
        return torch.stack(grids.chunk(SNIPPETS), dim=2)  # (B, 1024, 5, 7, 7)
