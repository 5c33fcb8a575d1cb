"""Where I3D's time goes on a CUDA device, layer by layer, and what would be faster there.

    python -m tests.benchmarks.gpu_layers -o layers.json

Every convolution and pooling of the network goes by each of the ways below, in TF32 and bfloat16, on inputs of the
shapes that ``--clips`` clips of 64 frames give it; then the whole network by the ways that vadis has and those it might
get, also as one CUDA graph, with the change of its logits against the processor's in float32; and forward and backward
in training. The JSON has milliseconds, TFLOP/s and clips/s of all of them, and cuDNN's version. Ways that vadis does
not have are here to be measured, and go there only if they gain.

cuDNN's kernels for 3D convolutions are slow in 16 bits; those for 2D are the best there are. So ``in_frames`` makes a
3D convolution one of 2D: the frames under a kernel become channels, which takes a copy, kernel length times as large.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional

from vadis.device import cudnn_version, resolve_device
from vadis.models import i3d_inference
from vadis.models.i3d import I3D, Axes
from vadis.models.i3d_inference import CHANNELS_LAST, FoldedConv, FoldedI3D, FoldedMixed, FoldedPool
from vadis.training.loop import clip_losses

TYPES = {"tf32": torch.float32, "bf16": torch.bfloat16}
EXACT = "fp32"  # without TF32, of the whole network alone
CHANNEL_MULTIPLE = 8  # of 16-bit numbers that tensor cores take at once
Call = Callable[[Tensor], Tensor]


class Layer(NamedTuple):
    """One operation as the network calls it."""

    name: str
    shape: tuple[int, ...]  # of its input, (B, C, T, H, W)
    weight: Tensor | None  # (channels, C, kt, kh, kw); None: it pools
    bias: Tensor | None
    kernel: Axes
    stride: Axes
    padding: Axes


def windows(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """(B, C, T, H, W) → (B, T', H, W, kernel, C): the frames under each place of a kernel along time."""
    frames = functional.pad(x.permute(0, 2, 3, 4, 1), (0, 0, 0, 0, 0, 0, padding, padding))  # (B, T, H, W, C)
    return frames.unfold(1, kernel, stride).transpose(4, 5)


def as_frames(x: Tensor) -> Tensor:
    """(B, T, H, W, …) → (B · T, product of …, H, W), channels last in memory; a copy unless it is dense."""
    return x.flatten(4).flatten(0, 1).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def as_clips(y: Tensor, batch: int) -> Tensor:
    """(B · T, C, H, W) → (B, C, T, H, W), channels last in memory: no copy."""
    return y.permute(0, 2, 3, 1).unflatten(0, (batch, -1)).permute(0, 4, 1, 2, 3)


def in_frames(weight: Tensor, bias: Tensor, stride: Axes, padding: Axes, *, fused: bool) -> Call:
    """ReLU(conv3d(x)) as a convolution of 2D; ``fused``: with bias and ReLU in cuDNN's kernel."""
    missing = -weight[0, :, :, 0, 0].numel() % CHANNEL_MULTIPLE
    flat = functional.pad(weight.transpose(1, 2).flatten(1, 2), (0, 0, 0, 0, 0, missing))  # (channels, kt · C, kh, kw)
    flat = flat.contiguous(memory_format=torch.channels_last)

    def convolve(x: Tensor) -> Tensor:
        frames = as_frames(windows(x, weight.shape[2], stride[0], padding[0]).flatten(4))
        frames = functional.pad(frames, (0, 0, 0, 0, 0, missing)) if missing else frames
        if fused:
            y = torch.cudnn_convolution_relu(frames, flat, bias, stride[1:], padding[1:], (1, 1), 1)
        else:
            y = functional.conv2d(frames, flat, bias, stride[1:], padding[1:]).relu_()
        return as_clips(y, len(x))

    return convolve


def as_product(weight: Tensor, bias: Tensor) -> Call:
    """ReLU(conv3d(x)) of a 1×1×1 kernel, as a product of matrices."""
    matrix = weight.flatten(1).t().contiguous()

    def convolve(x: Tensor) -> Tensor:
        frames = x.permute(0, 2, 3, 4, 1)
        y = torch.addmm(bias, frames.reshape(-1, frames.shape[4]), matrix).relu_()
        return y.view(*frames.shape[:4], -1).permute(0, 4, 1, 2, 3)

    return convolve


def in_space(weight: Tensor, bias: Tensor, stride: Axes, padding: Axes, memory_format: torch.memory_format) -> Call:
    """ReLU(conv3d(x)) by cuDNN's kernels for 3D, as vadis has it where channels come last."""
    laid_out = weight.contiguous(memory_format=memory_format)
    return lambda x: functional.conv3d(x, laid_out, bias, stride, padding).relu_()


def convolutions(layer: Layer, dtype: torch.dtype, device: torch.device) -> dict[str, tuple[Call, torch.memory_format]]:
    """Every way of a convolution, and how its input lies in memory."""
    assert layer.weight is not None and layer.bias is not None
    weight, bias, steps = layer.weight.to(device, dtype), layer.bias.to(device, dtype), (layer.stride, layer.padding)
    ways = {
        "3D": (in_space(weight, bias, *steps, torch.contiguous_format), torch.contiguous_format),
        "3D, channels last": (in_space(weight, bias, *steps, CHANNELS_LAST), CHANNELS_LAST),
        "2D": (in_frames(weight, bias, *steps, fused=False), CHANNELS_LAST),
    }
    if device.type == "cuda":
        ways["2D, fused"] = (in_frames(weight, bias, *steps, fused=True), CHANNELS_LAST)
    if layer.kernel == (1, 1, 1) == layer.stride:
        ways["product"] = (as_product(weight, bias), CHANNELS_LAST)
    return ways


def pool_in_frames(layer: Layer, x: Tensor) -> Tensor:
    """Max pooling along time, then of each frame; what is pooled is never below 0."""
    (length, *kernel), (step, *stride), (front, *padding) = layer.kernel, layer.stride, layer.padding
    missing = -(x.shape[2] + 2 * front - length) % step  # ceil_mode
    x = functional.pad(x, (0, 0, 0, 0, front, front + missing)) if front + missing else x
    count = (x.shape[2] - length) // step + 1
    longest = x[:, :, : (count - 1) * step + 1 : step]
    for offset in range(1, length):
        longest = torch.maximum(longest, x[:, :, offset : offset + (count - 1) * step + 1 : step])
    frames = as_frames(longest.permute(0, 2, 3, 4, 1))
    return as_clips(functional.max_pool2d(frames, kernel, stride, padding, ceil_mode=True), len(x))


def poolings(layer: Layer) -> dict[str, tuple[Call, torch.memory_format]]:
    def pool(x: Tensor) -> Tensor:
        return functional.max_pool3d(x, layer.kernel, layer.stride, layer.padding, ceil_mode=True)

    return {
        "3D": (pool, torch.contiguous_format),
        "3D, channels last": (pool, CHANNELS_LAST),
        "2D": (partial(pool_in_frames, layer), CHANNELS_LAST),
    }


def layers_of(network: I3D, x: Tensor) -> list[Layer]:
    """The convolutions and poolings of ``network`` as it calls them for the clips ``x``, on the processor."""
    found = list[Layer]()

    def convolution(weight: Tensor, bias: Tensor, stride: Axes) -> Any:
        def convolve(x: Tensor, padding: Axes) -> Tensor:
            kernel = tuple(weight.shape[2:])
            found.append(Layer(names[len(found)], tuple(x.shape), weight, bias, kernel, stride, padding))
            return functional.conv3d(x, weight, bias, stride, padding).relu_()

        return convolve

    def pool(x: Tensor, kernel: Axes, stride: Axes, padding: Axes, **_: bool) -> Tensor:
        found.append(Layer(names[len(found)], tuple(x.shape), None, None, kernel, stride, padding))
        return max_pool3d(x, kernel, stride, padding, ceil_mode=True)

    max_pool3d = functional.max_pool3d
    with (
        patch.object(i3d_inference, "_torch_convolution", convolution),
        patch.object(torch.backends.mkldnn, "is_available", lambda: False),
        patch.object(functional, "max_pool3d", pool),
        patch("vadis.models.cpu_kernels.max_pool", lambda y, *how: pool(y, *how)),
    ):
        form = FoldedI3D(network, torch.device("cpu"))
        names = [name for row, operation in form.operations.items() for name in operation_names(row, operation)]
        form(x)
    return found


def operation_names(row: str, operation: object) -> list[str]:
    """The names of a row's operations, in the order in which it calls them."""
    if isinstance(operation, FoldedMixed):
        return [f"{row}.{i}.{j}" for i, branch in enumerate(operation.branches) for j in range(len(branch))]
    return [row] if isinstance(operation, FoldedConv | FoldedPool) else []


def milliseconds(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    """The shortest of several runs, each to its end on the device."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    taken = []
    for _ in range(repeats + 1):  # the first is for cuDNN's search
        wait()
        start = time.perf_counter()
        call()
        wait()
        taken.append(time.perf_counter() - start)
    return 1000 * min(taken[1:])


def profile(layers: list[Layer], device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """A row for each layer and type: milliseconds of every way, and TFLOP/s of the fastest; errors as they are."""
    rows = []
    for layer in layers:
        for kind, dtype in TYPES.items():
            x = torch.rand(layer.shape, device=device).to(dtype)
            ways = poolings(layer) if layer.weight is None else convolutions(layer, dtype, device)
            taken, y = dict[str, Any](), None
            for name, (call, memory_format) in ways.items():
                laid_out = x.contiguous(memory_format=memory_format)
                try:
                    y = call(laid_out)
                    taken[name] = milliseconds(partial(call, laid_out), device, repeats)
                except RuntimeError as error:  # a way that this cuDNN has not
                    taken[name] = str(error).splitlines()[0]
            times = [each for each in taken.values() if not isinstance(each, str)]
            flops = 0 if layer.weight is None or y is None else 2 * y.numel() * layer.weight[0].numel()
            rate = flops / min(times) / 1e9 if times else None
            facts = {"layer": layer.name, "type": kind, "input": layer.shape, "kernel": layer.kernel}
            rows.append({**facts, "milliseconds": taken, "best_tflops": rate})
    return rows


def frames_convolution(weight: Tensor, bias: Tensor, stride: Axes) -> Any:
    """In the place of ``i3d_inference._torch_convolution``: by the 2D kernels, fused where cuDNN does that."""
    forms = dict[Axes, Call]()

    def convolve(x: Tensor, padding: Axes) -> Tensor:
        if padding not in forms:
            forms[padding] = in_frames(weight, bias, stride, padding, fused=weight.is_cuda)
        return forms[padding](x.to(weight.dtype))

    return convolve


def graphed(form: FoldedI3D, x: Tensor) -> Callable[[], Tensor]:
    """A CUDA graph of one pass over ``x``."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            form(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        y = form(x)

    def replay() -> Tensor:
        graph.replay()
        return y

    return replay


def whole(network: I3D, x: Tensor, device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """Clips per second of the network as it is and by 2D kernels, called and as a graph; the change of its logits."""
    exact = FoldedI3D(network, torch.device("cpu"))(x[:1])
    rows, clips = [], x.to(device).contiguous(memory_format=CHANNELS_LAST)
    for way, convolution in (("as it is", i3d_inference._torch_convolution), ("2D", frames_convolution)):
        for kind, dtype in {EXACT: torch.float32, **TYPES}.items():
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = kind != EXACT
            with (
                patch.object(i3d_inference, "_torch_convolution", convolution),
                patch.object(torch.backends.mkldnn, "is_available", lambda: False),  # on the processor: PyTorch's own
            ):
                form = FoldedI3D(network, device, dtype)
            change = ((form(clips[:1]).cpu() - exact).abs().max() / exact.abs().max()).item()
            row = {"way": way, "type": kind, "change": change}
            row["clips_per_second"] = 1000 * len(x) / milliseconds(partial(form, clips), device, repeats)
            if device.type == "cuda":
                replay = graphed(form, clips)
                row["clips_per_second_as_graph"] = 1000 * len(x) / milliseconds(replay, device, repeats)
            rows.append(row)
    return rows


def frames_forward(convolution: nn.Conv3d, x: Tensor) -> Tensor:
    """In the place of ``nn.Conv3d.forward``, without a bias: by the 2D kernels, forward and backward."""
    flat = convolution.weight.transpose(1, 2).flatten(1, 2)  # (channels, kt · C, kh, kw)
    frames = as_frames(windows(x, convolution.kernel_size[0], convolution.stride[0], convolution.padding[0]).flatten(4))
    return as_clips(functional.conv2d(frames, flat, None, convolution.stride[1:], convolution.padding[1:]), len(x))


def training(width: float, x: Tensor, device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """Clips per second, forward and backward, of the network as it is and by 2D kernels."""
    network, rows = I3D(400, width=width).to(device).train(), []
    clips, labels = x.to(device), torch.zeros(len(x), dtype=torch.long, device=device)
    for way, forward in (("as it is", nn.Conv3d.forward), ("2D", frames_forward)):
        for kind, dtype in TYPES.items():

            def passes(dtype: torch.dtype = dtype) -> None:
                network.zero_grad(set_to_none=True)
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
                    losses, _ = clip_losses(network, [clips], labels)
                losses.mean().backward()

            with patch.object(nn.Conv3d, "forward", forward):
                rate = 1000 * len(x) / milliseconds(passes, device, repeats)
            rows.append({"way": way, "type": kind, "clips_per_second": rate})
    return rows


def measure(device: torch.device, clips: int, frames: int = 64, width: float = 1.0, repeats: int = 5) -> dict[str, Any]:
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = True, True
    network, x = I3D(400, width=width).eval(), torch.rand(clips, 3, frames, 224, 224) * 2 - 1
    where = {"torch": torch.__version__, "cudnn": cudnn_version(device), "clips": clips}
    with torch.inference_mode():
        layers = [layer._replace(shape=(clips, *layer.shape[1:])) for layer in layers_of(network, x[:1])]
        rows, networks = profile(layers, device, repeats), whole(network, x, device, repeats)
    return {**where, "layers": rows, "network": networks, "training": training(width, x, device, repeats)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=8, help="in a pass")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    found = measure(resolve_device(options.device), options.clips)
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    for row in sorted(found["layers"], key=lambda row: -row["milliseconds"].get("3D, channels last", 0)):
        print(row["type"], row["layer"], row["milliseconds"], row["best_tflops"])
    for row in found["network"] + found["training"]:
        print(row)


if __name__ == "__main__":
    main()
