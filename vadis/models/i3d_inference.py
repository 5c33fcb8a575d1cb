"""The inference form of I3D: batch norm folded into convolutions, and a clip of any length taken in chunks.

I3D is fully convolutional in time and the paper tests it on whole videos (section 2.5). Here every operation along
time is one VALID operation on what it has been given so far: it holds back the few frames that its next window still
needs, begins with the front padding and ends with the back padding of TensorFlow's SAME. So the logits of a clip fed
in chunks equal those of one pass over it, in constant memory. The four branches of an Inception block lag
differently; their outputs queue up and the common length goes on.

How SAME pads in front depends on the length modulo 4 (``i3d.PADDING_PERIOD``), known before the first chunk. What is
pooled comes out of a ReLU, so zeros around it are as good as what TensorFlow does, which leaves them out.

On the CPU, tensors are channels-last (B, T, H, W, C in memory), in which max pooling is some 15 times faster and a
slice along time is no copy, and weights are laid out once for oneDNN, which then needs no reordering at every call.
Axes: B batch, C channels, T time, H, W.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from vadis.flow.simd import LANES
from vadis.models.cpu_kernels import max_pool, recycled
from vadis.models.i3d import (
    HEAD_POOL,
    I3D,
    MIN_FRAMES,
    PADDING_PERIOD,
    ROWS,
    ConvUnit,
    MixedUnit,
    PoolUnit,
    Triple,
    check_long_clip,
    frames_per_step,
    same_padding,
)
from vadis.models.winograd import Convolution, FilteredStem, onednn_convolution

CHANNELS_LAST = torch.channels_last_3d
FEATURES, LOGITS = "Pooled", "Logits"  # the last two of LAYERS: what the last layer sees, and what it says
LAYERS = (*(row.name for row in ROWS), FEATURES, LOGITS)


class Windowed(Protocol):
    """An operation with SAME padding, in the row ``row`` of the network."""

    row: str
    kernel: Triple
    stride: Triple


class Windows(NamedTuple):
    """Frames for which an operation has whole windows, and how many frames of zeros it has yet to add at both ends."""

    x: Tensor
    padding: int


class Passage(Protocol):
    """How a clip goes through the network: at once (``WholeClip``) or in chunks (``ChunkedClip``)."""

    def windows(self, operation: Windowed, x: Tensor | None) -> Windows | None:
        """What ``operation`` can work on now that ``x`` (B, C, T, H, W) has arrived; None: nothing yet."""
        ...

    def valid_windows(self, operation: object, x: Tensor | None, kernel: int) -> Tensor | None:
        """The same for an operation of stride 1 without padding (VALID)."""
        ...

    def level(self, block: object, outputs: list[Tensor | None]) -> list[Tensor] | None:
        """The branches of ``block`` cut to the length that all of them have reached; None: nothing yet."""
        ...


class WholeClip:
    """A clip of any length in one piece."""

    def windows(self, operation: Windowed, x: Tensor | None) -> Windows | None:
        """All frames, padded as SAME says for their number; a symmetric padding is left to the operation (no copy)."""
        assert x is not None
        front, back = same_padding(x.shape[2], operation.kernel[0], operation.stride[0])
        if front == back:
            return Windows(x, front)
        parts = [_blank(x, front), x, _blank(x, back)]
        return Windows(_joined([part for part in parts if part.shape[2]], dim=2), 0)  # without empty parts: faster

    def valid_windows(self, operation: object, x: Tensor | None, kernel: int) -> Tensor | None:
        """All frames."""
        return x

    def level(self, block: object, outputs: list[Tensor | None]) -> list[Tensor] | None:
        """All branches as they are."""
        return [output for output in outputs if output is not None]


class ChunkedClip:
    """A clip of which the length modulo 4 is known from the start, and the length itself with its last chunk."""

    def __init__(self) -> None:
        self.num_frames, self.last = 0, False  # set before each chunk is fed
        self._held: dict[object, Tensor] = {}  # operation → frames that its next window needs
        self._queued: dict[object, list[list[Tensor]]] = {}  # block → what its faster branches have ready

    def state(self) -> "State":
        """What is held now; the tensors themselves, which nothing changes in place."""
        queued = {block: [list(queue) for queue in queues] for block, queues in self._queued.items()}
        return dict(self._held), queued

    def restore(self, state: "State") -> None:
        """Hold again what ``state`` gave."""
        self._held, self._queued = state

    def held_elements(self) -> int:
        """How many numbers are kept for later windows, in all."""
        queued = [part for queues in self._queued.values() for queue in queues for part in queue]
        return sum(tensor.numel() for tensor in [*self._held.values(), *queued])

    def windows(self, operation: Windowed, x: Tensor | None) -> Windows | None:
        """Held frames, then ``x``, then after the last chunk the back padding; cut to whole windows."""
        kernel, stride = operation.kernel[0], operation.stride[0]
        if kernel == 1:
            return None if x is None else Windows(x, 0)
        front, back = same_padding(-(-self.num_frames * stride // frames_per_step(operation.row)), kernel, stride)
        ready = self._join(operation, x, kernel, stride, front, back if self.last else 0)
        return None if ready is None else Windows(ready, 0)

    def valid_windows(self, operation: object, x: Tensor | None, kernel: int) -> Tensor | None:
        """Held frames, then ``x``; cut to whole windows."""
        return self._join(operation, x, kernel, 1, 0, 0)

    def _join(
        self, operation: object, x: Tensor | None, kernel: int, stride: int, front: int, back: int
    ) -> Tensor | None:
        held = self._held.pop(operation, None)
        if held is None:
            if x is None:
                return None
            held = _blank(x, front)
        parts = [held, *([] if x is None else [x]), _blank(held, back)]
        joined = _joined([part for part in parts if part.shape[2]] or [held], dim=2)
        count = max((joined.shape[2] - kernel) // stride + 1, 0)
        self._held[operation] = joined[:, :, count * stride :].clone()  # a view would keep all of ``joined`` alive
        return joined[:, :, : (count - 1) * stride + kernel] if count else None

    def level(self, block: object, outputs: list[Tensor | None]) -> list[Tensor] | None:
        """What all branches have reached; the rest of the faster ones waits."""
        queues = self._queued.setdefault(block, [[] for _ in outputs])
        for queue, output in zip(queues, outputs, strict=True):
            if output is not None:
                queue.append(output)
        common = min(sum(part.shape[2] for part in queue) for queue in queues)
        return [_take(queue, common) for queue in queues] if common else None


State = tuple[dict[object, Tensor], dict[object, list[list[Tensor]]]]


def _take(queue: list[Tensor], count: int) -> Tensor:
    """The first ``count`` frames of ``queue``, in which the rest stays."""
    joined = _joined(queue, dim=2)
    queue[:] = [joined[:, :, count:].clone()] if joined.shape[2] > count else []
    return joined[:, :, :count]


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    """``parts`` (B, C, T, H, W), end to end along ``dim``."""
    if len(parts) == 1:
        return parts[0]
    if parts[0].device.type != "cpu" or parts[0].dtype != torch.float32:
        return torch.cat(parts, dim=dim)
    shape = list(parts[0].shape)
    shape[dim] = sum(part.shape[dim] for part in parts)
    batch, channels, *size = shape
    joined = recycled(batch, *size, channels).permute(0, 4, 1, 2, 3)
    return torch.cat(parts, dim=dim, out=joined)


def _blank(like: Tensor, frames: int) -> Tensor:
    """``frames`` frames of zeros, otherwise as ``like``."""
    batch, channels, _, height, width = like.shape
    return like.new_zeros(batch, channels, frames, height, width).contiguous(memory_format=CHANNELS_LAST)


Operation = Callable[[Tensor | None, Passage], Tensor | None]


class Place(NamedTuple):
    """Where a network computes, and in which type."""

    device: torch.device
    precision: torch.dtype


class FoldedConv:
    """Convolution + batch norm + ReLU as one convolution with a bias."""

    def __init__(self, unit: ConvUnit, place: Place, row: str) -> None:
        self.row, self.kernel, self.stride = row, _triple(unit.conv.kernel_size), _triple(unit.conv.stride)
        weight, bias = fold_batch_norm(unit)
        is_plain = place == Place(torch.device("cpu"), torch.float32)
        has_onednn = is_plain and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        convolution = onednn_convolution if has_onednn else _torch_convolution
        self.convolve = convolution(weight.to(*place), bias.to(*place), self.stride)
        self.is_padded = self.stride != (1, 1, 1) and not isinstance(self.convolve, FilteredStem)

    def __call__(self, x: Tensor | None, passage: Passage) -> Tensor | None:
        """(B, C, T, H, W) → (B, channels, T', H', W'), as ``ConvUnit``; None where there is no whole window yet."""
        if x is not None and self.is_padded:
            x = self._pad_space(x)
        ready = passage.windows(self, x)
        if ready is None:
            return None
        space = (0, 0) if self.is_padded else (self.kernel[1] // 2, self.kernel[2] // 2)
        return self.convolve(ready.x, (ready.padding, *space))

    def _pad_space(self, x: Tensor) -> Tensor:
        """SAME padding of a strided convolution is not symmetric, so it has to be written out; only the first is."""
        height, width = map(same_padding, x.shape[3:], self.kernel[1:], self.stride[1:])
        return functional.pad(x, (*width, *height)).contiguous(memory_format=CHANNELS_LAST)  # (B, C, T, H + 5, W + 5)


class FoldedPool:
    """Max pooling without a padded copy: the odd element of SAME, at the end, is what ``ceil_mode`` allows for."""

    def __init__(self, unit: PoolUnit, row: str) -> None:
        self.row, self.kernel, self.stride = row, unit.kernel, unit.stride

    def __call__(self, x: Tensor | None, passage: Passage) -> Tensor | None:
        """(B, C, T, H, W) → (B, C, T', H', W'), as ``PoolUnit``; None where there is no whole window yet."""
        ready = passage.windows(self, x)
        if ready is None:
            return None
        height, width = map(same_padding, ready.x.shape[3:], self.kernel[1:], self.stride[1:])
        padding = (ready.padding, height[0], width[0])
        is_plain = ready.x.device.type == "cpu" and ready.x.dtype == torch.float32
        if is_plain and ready.x.shape[1] % LANES == 0:
            return max_pool(ready.x, self.kernel, self.stride, padding)
        return functional.max_pool3d(ready.x, self.kernel, self.stride, padding, ceil_mode=True)


class FoldedMixed:
    """An Inception block, its branches brought level."""

    def __init__(self, unit: MixedUnit, place: Place, row: str) -> None:
        self.branches = [[_fold(inner, place, row) for inner in branch.children()] for branch in unit.children()]

    def __call__(self, x: Tensor | None, passage: Passage) -> Tensor | None:
        """(B, C, T, H, W) → (B, b0 + b1 + b2 + b3, T', H, W), as ``MixedUnit``."""
        outputs = []
        for branch in self.branches:
            y = x
            for operation in branch:
                y = operation(y, passage)
            outputs.append(y)
        levelled = passage.level(self, outputs)
        return None if levelled is None else _joined(levelled, dim=1)


class FoldedPooling:
    """Average over space and over 2 steps: what the last layer sees."""

    def __call__(self, x: Tensor | None, passage: Passage) -> Tensor | None:
        """(B, 1024, T, H, W) → features (B, 1024, steps), float32 from here on."""
        if x is not None:
            x = functional.avg_pool3d(x.float(), (1, *HEAD_POOL[1:]), stride=1).mean(
                dim=(3, 4), keepdim=True
            )  # (B, 1024, T, 1, 1)
        steps = passage.valid_windows(self, x, HEAD_POOL[0])
        return None if steps is None else functional.avg_pool1d(steps.flatten(2), HEAD_POOL[0], stride=1)


class FoldedLinear:
    """The last layer, at every step."""

    def __init__(self, head: nn.Module, device: torch.device) -> None:
        last = head.get_submodule("Conv3d_0c_1x1.conv")
        self.weight = last.get_parameter("weight").detach().flatten(1).to(device)  # (classes, 1024)
        self.bias = last.get_parameter("bias").detach().to(device)

    def __call__(self, features: Tensor | None, passage: Passage) -> Tensor | None:
        """(B, 1024, steps) → logits (B, classes, steps)."""
        if features is None:
            return None
        return functional.linear(features.transpose(1, 2), self.weight, self.bias).transpose(1, 2)


class FoldedI3D:
    """The inference form of one stream, on one device: ``I3D`` in evaluation mode, to 1e-5 of the largest logit.

    Args:
        network: the training form; its parameters are copied.
        device: where to compute.
        precision: of the convolutions. bfloat16 changes the logits by about a hundredth of the largest and is slower,
            on a CPU and on an H200, where cuDNN multiplies float32 in TF32 (tests/benchmarks/gpu.py).
    """

    def __init__(self, network: I3D, device: torch.device, precision: torch.dtype = torch.float32) -> None:
        self.device, self.in_channels = device, network.in_channels
        self.place = Place(device, precision)
        body = {name: _fold(unit, self.place, name) for name, unit in network.named_children() if name != LOGITS}
        self.operations: dict[str, Operation] = {
            **body,
            FEATURES: FoldedPooling(),
            LOGITS: FoldedLinear(network.get_submodule(LOGITS), device),
        }

    def __call__(self, *clips: Tensor, layer: str = LOGITS) -> Tensor:
        """Logits (B, classes, ceil(T / 8) - 1) of one whole clip (B, C, T, 224, 224) in [-1, 1], T at least 9.

        With another ``layer`` of ``LAYERS``, its output averaged over space, (B, channels, steps).
        """
        (x,) = clips
        check_long_clip("I3D", x, self.in_channels, MIN_FRAMES)
        output = self._run(x, WholeClip(), layer)
        assert output is not None
        return output

    def open(self, layer: str = LOGITS, *, num_frames: int = 0) -> "ChunkedI3D":
        """A new clip, to be fed in chunks, of ``num_frames`` frames: only the remainder by 4 counts."""
        return ChunkedI3D(self, layer, num_frames)

    @torch.inference_mode()
    def _run(self, x: Tensor, passage: Passage, layer: str) -> Tensor | None:
        y: Tensor | None = self._placed(x)
        for name, operation in self.operations.items():
            y = operation(y, passage)
            if name == layer:
                break
        return y.float().mean(dim=(3, 4)) if y is not None and y.ndim == 5 else y

    def _placed(self, x: Tensor) -> Tensor:
        """``x`` where and as the convolutions take it; to CUDA by way of pinned memory, so that nobody waits for it."""
        if self.device.type == "cuda" and x.device.type == "cpu":
            x = x.pin_memory().to(self.device, non_blocking=True)
        return x.to(*self.place).contiguous(memory_format=CHANNELS_LAST)


class ChunkedI3D:
    """One clip on its way through a network, in chunks of any length, in constant memory; see ``FoldedI3D.open``."""

    def __init__(self, network: FoldedI3D, layer: str, num_frames: int) -> None:
        self._network, self._layer = network, layer
        self._passage, self._frames, self._expected = ChunkedClip(), 0, num_frames

    def feed(self, x: Tensor, *, last: bool = False) -> Tensor | None:
        """The logits (B, classes, steps) that the chunk ``x`` (B, C, T, 224, 224) completes; None: none yet.

        Prediction j of a clip is complete some 60 frames after the frame 8 (j + 1) at its centre. With the ``last``
        chunk the clip must have 9 frames at least, and as many modulo 4 as was said beforehand, else ValueError.
        A chunk on which anything is raised has not been fed: it can be fed again, or in smaller ones.
        """
        frames = self._frames + x.shape[2]
        if last and ((frames - self._expected) % PADDING_PERIOD or frames < MIN_FRAMES):
            raise ValueError(
                f"a clip opened for {self._expected} frames, modulo {PADDING_PERIOD}, ended after {frames}"
            )
        before, self._passage.last = self._passage.state(), last
        self._passage.num_frames = frames if last else self._expected
        try:
            fed = self._network._run(x, self._passage, self._layer)
        except BaseException:
            self._passage.restore(before)
            raise
        self._frames = frames
        return fed

    def held_elements(self) -> int:
        """How many numbers are kept for later windows: the memory of a clip, whatever its length."""
        return self._passage.held_elements()


def fold_batch_norm(unit: ConvUnit) -> tuple[Tensor, Tensor]:
    """The one convolution that equals ``unit`` without its ReLU: weight w·g, bias b - m·g, with g = γ / √(v + ε)."""
    norm = unit.norm
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
    return unit.conv.weight.detach() * gain[:, None, None, None, None], norm.bias.detach() - norm.running_mean * gain


def _fold(unit: nn.Module, place: Place, row: str) -> Operation:
    if isinstance(unit, ConvUnit):
        return FoldedConv(unit, place, row)
    if isinstance(unit, PoolUnit):
        return FoldedPool(unit, row)
    if isinstance(unit, MixedUnit):
        return FoldedMixed(unit, place, row)
    raise TypeError(f"no inference form for {type(unit).__name__}")


def _torch_convolution(weight: Tensor, bias: Tensor, stride: Triple) -> Convolution:
    """On any other device, or in another precision."""
    weight = weight.contiguous(memory_format=CHANNELS_LAST)

    def convolve(x: Tensor, padding: Triple) -> Tensor:
        return functional.conv3d(x, weight, bias, stride, padding).relu_()

    return convolve


def _triple(values: tuple[int, ...]) -> Triple:
    time, height, width = values
    return time, height, width
