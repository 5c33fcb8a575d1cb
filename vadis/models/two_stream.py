"""Two-Stream, architecture (c): Inception-v1 on one frame and on ten frames of flow, trained as one network.

References: (1) Carreira & Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017, section 2.3; (2) Simonyan &
Zisserman, "Two-stream convolutional networks for action recognition in videos", 2014, the paper's [27].

The two networks meet in the average of their predictions, which (1) has inside the training ("end-to-end, including the
two-stream averaging process"). What is averaged are probabilities, as in (2), which fuses by averaging softmax scores;
the logits of (1)'s own architecture (e) are added instead. With probabilities, a stream that is sure outweighs one
that is not, whatever the scale of their logits.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from vadis.models.inception import Inception

SNAPSHOT_FRAMES = {"rgb": 1, "flow": 10}
"""How many frames of a stream make one prediction (table 1: 0.4 s)."""


def snapshot_network(
    num_classes: int, stream: str, in_channels: int, *, width: float = 1.0, dropout: float = 0.5
) -> Inception:
    """The network of one stream: of "rgb" for (B, 3, 1, 224, 224), of "flow" for (B, 2, 10, 224, 224)."""
    return Inception(num_classes, in_channels, frames=SNAPSHOT_FRAMES[stream], width=width, dropout=dropout)


class Averaged(nn.Module):
    """Networks of several streams as one: the average of their predictions.

    Its parameters are named ``STREAM.KEY``, as in a model file; the networks stay usable alone.

    Args:
        networks: by stream, in the order in which ``forward`` takes their clips.
    """

    training_steps: ClassVar[str] = "mean"  # of one step
    test_steps: ClassVar[str] = "mean"

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for stream, network in networks.items():
            self.add_module(stream, network)

    def forward(self, *clips: Tensor) -> Tensor:
        """The logarithm of the averaged probabilities, (B, classes, steps); of one clip per stream.

        It serves as logits: its softmax is the average, its cross-entropy the average's.
        Raises ValueError for another number of clips.
        """
        networks = dict(self.named_children())
        if len(clips) != len(networks):
            raise ValueError(f"one clip is needed for each of {', '.join(networks)}; got {len(clips)}")
        each = [network(clip) for network, clip in zip(networks.values(), clips, strict=True)]
        return mean_log_probabilities(torch.stack(each))


def mean_log_probabilities(logits: Tensor) -> Tensor:
    """Logits (N, B, classes, steps) → the logarithm of their N softmaxes' mean, (B, classes, steps), float32."""
    return logits.float().log_softmax(dim=2).logsumexp(dim=0) - math.log(len(logits))
