"""ConvNet+LSTM, architecture (a): Inception-v1 on every frame, then an LSTM with batch norm over the frames.

References: (1) Carreira & Zisserman, CVPR 2017, section 2.1; (2) Cooijmans et al., "Recurrent batch normalization",
2016, section 3. A step, with BN the batch norm of (2), which has statistics of its own for every step in time:

    f, i, o, g = split(BN(W_h h[t-1]) + BN(W_x x[t]) + b)
    c[t] = σ(f) c[t-1] + σ(i) tanh(g)
    h[t] = σ(o) tanh(BN(c[t]))

Axes: B batch, C channels, T time, H, W.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from vadis.models.i3d import BATCH_NORM_MOMENTUM, check_clip, initialise, scaled
from vadis.models.inception import ClipNetwork, InceptionBody

HIDDEN = 512  # units of the LSTM, at width 1 (1)
GAMMA = 0.1  # at the start, of every recurrent batch norm: with 1 the gradient of tanh vanishes over time (2)
EPSILON = 1e-5  # (2)'s; I3D's 1e-3 is as large as the variance of W_h h in the first steps
FORGET_BIAS = 1.0  # at the start, so that a new cell keeps what it saw for some steps; ours
# Steps with statistics of their own: the 25 frames of a training clip (table 1). The 25 more frames of a test clip
# take those of the last, as (2) does with longer sequences.
MAX_STEPS = 25


class StepNorm(_BatchNorm):
    """Batch norm of one step of a sequence: gamma and beta are common to all steps, the running averages are not.

    A sequence that ends before ``MAX_STEPS`` counts its last step for all steps after it too.
    """

    running_mean: Tensor  # (MAX_STEPS, channels)
    running_var: Tensor

    def __init__(self, channels: int, *, shift: bool) -> None:
        super().__init__(channels, eps=EPSILON, momentum=BATCH_NORM_MOMENTUM)
        self.register_buffer("running_mean", torch.zeros(MAX_STEPS, channels))
        self.register_buffer("running_var", torch.ones(MAX_STEPS, channels))
        nn.init.constant_(self.weight, GAMMA)
        if not shift:  # (2) has no beta where a bias is added anyway
            self.register_parameter("bias", None)

    def forward(self, x: Tensor, step: int = 0, *, is_last: bool = False) -> Tensor:
        """Return step ``step``, (B, channels), normalised; ``is_last`` for the last step of its sequence."""
        x = x.float()  # in whatever precision it was computed
        step = min(step, MAX_STEPS - 1)
        if not self.training:
            return functional.batch_norm(
                x, self.running_mean[step], self.running_var[step], self.weight, self.bias, False, 0.0, self.eps
            )
        steps = slice(step, MAX_STEPS if is_last else step + 1)
        normalised = functional.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        variance, mean = torch.var_mean(x.detach(), dim=0)  # the unbiased variance, as in PyTorch's own batch norm
        assert self.momentum is not None
        self.running_mean[steps].lerp_(mean, self.momentum)
        self.running_var[steps].lerp_(variance, self.momentum)
        return normalised


class RecurrentLayer(nn.Module):
    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.input = nn.Linear(in_channels, 4 * channels, bias=False)  # W_x, the four gates below one another
        self.hidden = nn.Linear(channels, 4 * channels, bias=False)  # W_h
        self.bias = nn.Parameter(torch.zeros(4 * channels))
        self.input_norm = StepNorm(4 * channels, shift=False)
        self.hidden_norm = StepNorm(4 * channels, shift=False)
        self.cell_norm = StepNorm(channels, shift=True)

    def initialise(self) -> None:
        with torch.no_grad():
            for weight in (self.input.weight, self.hidden.weight):
                for gate in weight.chunk(4):
                    nn.init.orthogonal_(gate)
            self.bias.zero_()
            self.bias[: self.channels] = FORGET_BIAS

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, in_channels) → the hidden state after every step, (B, T, channels)."""
        batch, steps = x.shape[:2]
        inputs = self.input(x).unbind(1)  # T times (B, 4·channels)
        hidden = cell = x.new_zeros(batch, self.channels, dtype=torch.float32)
        outputs = []
        for step, projected in enumerate(inputs):
            is_last = step == steps - 1
            gates = self.input_norm(projected, step, is_last=is_last) + self.bias
            gates = gates + self.hidden_norm(self.hidden(hidden), step, is_last=is_last)
            forget, write, show, new = gates.chunk(4, dim=1)
            cell = forget.sigmoid() * cell + write.sigmoid() * new.tanh()
            hidden = show.sigmoid() * self.cell_norm(cell, step, is_last=is_last).tanh()
            outputs.append(hidden)
        return torch.stack(outputs, dim=1)


class ConvLSTM(ClipNetwork):
    """Architecture (a), for RGB alone: a prediction after every frame of a clip; ``width`` is the LSTM's too.

    The frames are every fifth of 25 per second, 25 in the paper's training, 50 in its test.
    """

    training_steps: ClassVar[str] = "each"  # cross-entropy at every step, averaged (1)
    test_steps: ClassVar[str] = "last"  # only the output on the last frame counts (1)
    min_batch_size: ClassVar[int] = 2  # in training: batch norm of single values has no variance of one

    def __init__(self, num_classes: int, *, width: float = 1.0) -> None:
        super().__init__()
        self.body = InceptionBody(width=width)
        self.lstm = RecurrentLayer(self.body.channels, scaled(HIDDEN, width))
        self.dropout = nn.Dropout()
        self.Logits = nn.Linear(self.lstm.channels, num_classes)
        self.apply(initialise)
        self.lstm.initialise()

    def features(self, x: Tensor) -> Tensor:
        """A clip (B, 3, T, 224, 224) in [-1, 1] → the hidden state after every frame, (B, 512, T)."""
        check_clip("ConvNet+LSTM", x, 3, frames=1, or_larger=True)
        frames = x.transpose(1, 2).flatten(0, 1)  # (B·T, 3, H, W)
        pooled = self.body(frames).mean(dim=(2, 3)).view(len(x), x.shape[2], -1)  # (B, T, 1024)
        hidden: Tensor = self.lstm(pooled)
        return hidden.transpose(1, 2)  # (B, 512, T)
