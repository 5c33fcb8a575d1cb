"""``i3d.I3D`` for inference: batch norm folded into convolutions, and a clip of any length taken in chunks.

Every operation along time is VALID: it holds back the few frames that its next window still needs, begins with the
front padding and ends with the back padding of TensorFlow's SAME. So chunks give the logits of one pass, in constant
memory. How SAME pads in front depends on the length modulo 4. What is pooled comes out of a ReLU, so zeros around it
change nothing. Axes: B batch, C channels, T time, H, W; in memory C comes last.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from vadis.device import multiplies_bfloat16
from vadis.models.i3d import (
    HEAD_POOL,
    I3D,
    MIN_FRAMES,
    PADDING_PERIOD,
    ROWS,
    Axes,
    ConvUnit,
    PoolUnit,
    check_clip,
    frames_per_step,
    same_padding,
)

if TYPE_CHECKING:
    from vadis.models.cpu_kernels import Convolution  # which comes with numba

CHANNELS_LAST = torch.channels_last_3d
FEATURES, LOGITS = "Pooled", "Logits"  # the last two of LAYERS: the input and the output of the last layer
LAYERS = (*(row.name for row in ROWS), FEATURES, LOGITS)
# Multiplied in float32 whatever the precision: where rounded weights move the logits most, and there is little to do.
FLOAT32_ROWS = {"Conv3d_2b_1x1", "Mixed_5b", "Mixed_5c"}
RIDGE = 1e-3  # of the mean square of a channel's weights: so that the regression does not explain noise
TINY = 1e-20  # where all weights are 0


class TemporalState:
    """What a clip in chunks leaves for later: frames that windows still need, and outputs of the faster branches."""

    def __init__(self) -> None:
        self.num_frames, self.is_last = 0, False  # of the clip, modulo 4 until the last chunk; set before each chunk
        self._held: dict[object, Tensor] = {}  # operation → frames that its next window needs
        self._queued: dict[object, list[list[Tensor]]] = {}  # block → what its faster branches have ready

    def copy(self) -> "TemporalState":
        copy = TemporalState()
        copy._held = dict(self._held)
        copy._queued = {block: [list(queue) for queue in queues] for block, queues in self._queued.items()}
        return copy

    def take_input(self, operation: "FoldedConv | FoldedPool", x: Tensor | None) -> tuple[Tensor, int] | None:
        """Return the frames that an operation takes now, and how many zero frames it adds at both ends; None: none."""
        kernel, stride = operation.kernel[0], operation.stride[0]
        if kernel == 1:
            return None if x is None else (x, 0)
        front, back = same_padding(-(-self.num_frames * stride // frames_per_step(operation.row)), kernel, stride)
        if self.is_last and x is not None and operation not in self._held and front == back:
            return x, front  # the whole clip at once: no copy
        ready = self.buffer(
            operation, x, kernel, stride, front, back if self.is_last else 0, operation.outputs_per_call
        )
        return None if ready is None else (ready, 0)

    def buffer(
        self,
        operation: object,
        x: Tensor | None,
        kernel: int,
        stride: int = 1,
        front: int = 0,
        back: int = 0,
        outputs_per_call: int = 1,
    ) -> Tensor | None:
        """Return as many of the held frames, ``x`` and ``back`` zeros as make whole windows; hold what the next needs.

        At first ``front`` zeros are held. None: there is no whole window yet. Before the end of the clip there are a
        multiple of ``outputs_per_call`` windows.
        """
        held = self._held.pop(operation, None)
        if held is None:
            if x is None:
                return None
            held = _zeros(x, front)
        parts = [held, *([] if x is None else [x]), _zeros(held, back)]
        joined = _concatenate([part for part in parts if part.shape[2]] or [held], dim=2)
        count = max((joined.shape[2] - kernel) // stride + 1, 0)
        if not self.is_last:
            count -= count % outputs_per_call
            self._held[operation] = joined[:, :, count * stride :].clone()  # a view would keep all of it alive
        return joined[:, :, : (count - 1) * stride + kernel] if count else None

    def align_branches(self, block: object, outputs: list[Tensor | None]) -> list[Tensor] | None:
        """Return the branches of ``block`` cut to the length that all have reached, if any; the rest waits."""
        queues = self._queued.setdefault(block, [[] for _ in outputs])
        for queue, output in zip(queues, outputs, strict=True):
            if output is not None:
                queue.append(output)
        common = min(sum(part.shape[2] for part in queue) for queue in queues)
        if not common:
            return None
        joined = [_concatenate(queue, dim=2) for queue in queues]
        self._queued[block] = [[y[:, :, common:].clone()] if y.shape[2] > common else [] for y in joined]
        return [y[:, :, :common] for y in joined]


def _concatenate(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)


def _zeros(like: Tensor, frames: int) -> Tensor:
    batch, channels, _, height, width = like.shape
    return like.new_zeros(batch, channels, frames, height, width).contiguous(memory_format=CHANNELS_LAST)


Operation = Callable[[Tensor | None, TemporalState], Tensor | None]
DeviceAndType = tuple[torch.device, torch.dtype]


class FoldedConv:
    """``ConvUnit`` as one convolution with a bias and ReLU."""

    def __init__(self, unit: ConvUnit, to: DeviceAndType, row: str) -> None:
        self.row, self.kernel, self.stride = row, unit.conv.kernel_size, unit.conv.stride
        weight, bias = fold_batch_norm(unit)
        has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        is_fast = has_onednn and to[0].type == "cpu" and (to[1] == torch.float32 or multiplies_bfloat16())
        dtype = torch.float32 if is_fast and row in FLOAT32_ROWS else to[1]
        if dtype != torch.float32 and self.kernel == (1, 1, 1):
            weight, bias = round_pointwise(weight, bias, unit.norm.bias.detach() - bias)
        self.needs_padding = set(self.stride) != {1}
        self.convolve: Convolution
        if is_fast:
            from vadis.models import cpu_kernels

            self.convolve = cpu_kernels.fastest_convolution(weight, bias, self.stride, dtype)
            self.needs_padding &= not isinstance(self.convolve, cpu_kernels.STEMS)
        else:
            self.convolve = _torch_convolution(weight.to(*to), bias.to(*to), self.stride)
        self.outputs_per_call = getattr(self.convolve, "outputs_per_call", 1)  # frames

    def __call__(self, x: Tensor | None, state: TemporalState) -> Tensor | None:
        if x is not None and self.needs_padding:  # SAME of a stride is not symmetric, so it has to be written out
            height, width = map(same_padding, x.shape[3:], self.kernel[1:], self.stride[1:])
            x = functional.pad(x, (*width, *height)).contiguous(memory_format=CHANNELS_LAST)
        ready = state.take_input(self, x)
        if ready is None:
            return None
        space = (0, 0) if self.needs_padding else (self.kernel[1] // 2, self.kernel[2] // 2)
        return self.convolve(ready[0], (ready[1], *space))


class FoldedPool:
    """``PoolUnit``, without a padded copy."""

    outputs_per_call = 1

    def __init__(self, unit: PoolUnit, row: str) -> None:
        self.row, self.kernel, self.stride = row, unit.kernel, unit.stride

    def __call__(self, x: Tensor | None, state: TemporalState) -> Tensor | None:
        ready = state.take_input(self, x)
        if ready is None:
            return None
        y, frames = ready
        height, width = map(same_padding, y.shape[3:], self.kernel[1:], self.stride[1:])
        padding = (frames, height[0], width[0])
        if y.device.type == "cpu" and y.shape[1] % 16 == 0 and y.shape[1] * y.element_size() >= 64:
            from vadis.models.cpu_kernels import max_pool

            return max_pool(y, self.kernel, self.stride, padding)
        return functional.max_pool3d(y, self.kernel, self.stride, padding, ceil_mode=True)


class FoldedMixed:
    """``MixedUnit``, its branches aligned in time."""

    def __init__(self, unit: nn.Module, to: DeviceAndType, row: str) -> None:
        self.branches = [[_fold(inner, to, row) for inner in branch.children()] for branch in unit.children()]

    def __call__(self, x: Tensor | None, state: TemporalState) -> Tensor | None:
        outputs = []
        for branch in self.branches:
            y = x
            for operation in branch:
                y = operation(y, state)
            outputs.append(y)
        aligned = state.align_branches(self, outputs)
        return None if aligned is None else _concatenate(aligned, dim=1)


def _fold(unit: nn.Module, to: DeviceAndType, row: str) -> Operation:
    if isinstance(unit, ConvUnit):
        return FoldedConv(unit, to, row)
    return FoldedPool(unit, row) if isinstance(unit, PoolUnit) else FoldedMixed(unit, to, row)


def fold_batch_norm(unit: ConvUnit) -> tuple[Tensor, Tensor]:
    """Return the convolution that equals ``unit`` without its ReLU: weight w·g, bias b - m·g, with g = γ / √(v + ε)."""
    norm = unit.norm
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
    return unit.conv.weight.detach() * gain[:, None, None, None, None], norm.bias.detach() - norm.running_mean * gain


def round_pointwise(weight: Tensor, bias: Tensor, mean_outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Round ``weight`` (channels, C, 1, 1, 1) to bfloat16, and add the mean error that this makes to ``bias``.

    ``mean_outputs`` (channels,) are the products' means in training, without ``bias``, which batch norm has kept. The
    mean of each input is estimated from them by ridge regression around a common value, and is 0 at least, for inputs
    come out of a ReLU.
    """
    matrix, rounded = weight.flatten(1), weight.to(torch.bfloat16).float()
    sums, gram = matrix.sum(1), matrix @ matrix.t()
    common_mean = (sums @ mean_outputs) / (sums @ sums).clamp(min=TINY)
    gram.diagonal().add_(RIDGE * gram.diagonal().mean() + TINY)
    mean_inputs = common_mean + matrix.t() @ torch.linalg.solve(gram, mean_outputs - common_mean * sums)  # (C,)
    return rounded, bias + (matrix - rounded.flatten(1)) @ mean_inputs.clamp(min=0)


def _torch_convolution(weight: Tensor, bias: Tensor, stride: Axes) -> "Convolution":
    weight = weight.contiguous(memory_format=CHANNELS_LAST)
    return lambda x, padding: functional.conv3d(x.to(weight.dtype), weight, bias, stride, padding).relu_()


class FoldedHead:
    """The two layers of ``Head``: the average over space and over 2 steps, and the linear layer."""

    def __init__(self, head: nn.Module, device: torch.device) -> None:
        last = head.get_submodule("Conv3d_0c_1x1.conv")
        self.weight = last.get_parameter("weight").detach().flatten(1).to(device)  # (classes, 1024)
        self.bias = last.get_parameter("bias").detach().to(device)

    def pool(self, x: Tensor | None, state: TemporalState) -> Tensor | None:
        """(B, 1024, T, H, W) → features (B, 1024, steps), float32 from here on."""
        if x is not None:
            x = functional.avg_pool3d(x.float(), (1, *HEAD_POOL[1:]), stride=1)  # (B, 1024, T, H - 6, W - 6)
            x = x.mean(dim=(3, 4), keepdim=True)  # (B, 1024, T, 1, 1)
        steps = state.buffer(self, x, HEAD_POOL[0])
        return None if steps is None else functional.avg_pool1d(steps.flatten(2), HEAD_POOL[0], stride=1)

    def classify(self, features: Tensor | None, state: TemporalState) -> Tensor | None:
        """(B, 1024, steps) → logits (B, classes, steps)."""
        if features is None:
            return None
        return functional.linear(features.transpose(1, 2), self.weight, self.bias).transpose(1, 2)


class FoldedI3D:
    """A copy of an ``I3D`` in evaluation mode on one device, to 1e-5 of the largest logit.

    ``precision`` is that of what convolutions multiply and pass on; they add up in float32, and the head is float32.
    bfloat16 changes the logits by less than a hundredth of the largest. It is faster on some processors
    (``vadis.device.is_bfloat16_faster``), and slower on others and on an H200, where cuDNN multiplies float32 in TF32.
    """

    def __init__(self, network: I3D, device: torch.device, precision: torch.dtype = torch.float32) -> None:
        self.to, self.in_channels = (device, precision), network.in_channels
        body = {name: _fold(unit, self.to, name) for name, unit in network.named_children() if name != LOGITS}
        head = FoldedHead(network.get_submodule(LOGITS), device)
        self.operations: dict[str, Operation] = {**body, FEATURES: head.pool, LOGITS: head.classify}

    def __call__(self, *clips: Tensor, layer: str = LOGITS) -> Tensor:
        """Return logits (B, classes, ceil(T / 8) - 1) of one whole clip (B, C, T, 224, 224) in [-1, 1], T at least 9.

        With another ``layer`` of ``LAYERS``, its output averaged over space, (B, channels, steps).
        """
        (x,) = clips
        check_clip("I3D", x, self.in_channels, MIN_FRAMES, or_larger=True)
        output = ChunkedI3D(self, layer, x.shape[2]).feed(x, last=True)
        assert output is not None
        return output


class ChunkedI3D:
    """One clip on its way through a network, in chunks of any length, in constant memory.

    Of its ``num_frames`` only the remainder by 4 counts.
    """

    def __init__(self, network: FoldedI3D, layer: str = LOGITS, num_frames: int = 0) -> None:
        self._network, self._layer = network, layer
        self._state, self._frames, self._expected = TemporalState(), 0, num_frames

    @torch.inference_mode()
    def feed(self, x: Tensor, *, last: bool = False) -> Tensor | None:
        """Return the logits (B, classes, steps) that the chunk ``x`` (B, C, T, 224, 224) completes; None: none yet.

        Raise ValueError if the clip ends with too few frames, or another length modulo 4 than was said beforehand. A
        chunk on which anything is raised has not been fed: it can be fed again, or in smaller ones.
        """
        frames, said = self._frames + x.shape[2], self._expected
        if last and ((frames - said) % PADDING_PERIOD or frames < MIN_FRAMES):
            raise ValueError(f"a clip opened for {said} frames, modulo {PADDING_PERIOD}, ended after {frames}")
        state, (device, _) = self._state.copy(), self._network.to
        state.num_frames, state.is_last = frames if last else said, last
        if device.type == "cuda" and x.device.type == "cpu":  # by way of pinned memory nobody waits for it
            x = x.pin_memory().to(device, non_blocking=True)
        y: Tensor | None = x.to(device).contiguous(memory_format=CHANNELS_LAST)
        for name, operation in self._network.operations.items():
            y = operation(y, state)
            if name == self._layer:
                break
        self._state, self._frames = state, frames
        return y.float().mean(dim=(3, 4)) if y is not None and y.ndim == 5 else y
