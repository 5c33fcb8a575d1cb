"""The weights of an ImageNet Inception-v1 → those of the networks that start from it: inflated, adapted, checked.

References: (1) Carreira & Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017, sections 2.3 and 2.4.

A 2D kernel becomes a 3D one by being repeated N times along time and divided by N. A video that repeats one image then
gives, at every step, what the 2D network gives for the image: the boring-video fixed point. The image kernels of the
first layer are averaged over colour for flow, and repeated for each of its channels. Batch norm, gamma included, is
taken over as it is; last layers stay as they are, because they tell other classes apart.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from vadis.models.i3d import I3D, ROWS, Mixed, Pool
from vadis.models.inception import InceptionBody, flat_name

BODY = "body."  # where an ``Inception`` keeps its ``InceptionBody``
FIRST_KERNEL = f"{flat_name(ROWS[0].name)}.conv.weight"
RGB_CHANNELS = 3
LEAVES = ("conv.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")

StateDict = dict[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]


def from_imagenet(network: nn.Module, imagenet: Mapping[str, Tensor]) -> None:
    """Start ``network`` from ImageNet: every Inception-v1 and I3D in it, whatever it is called; the rest is left alone.

    Args:
        network: any of the paper's but the 3D-ConvNet, or several in one module (``Averaged``); changed in place.
        imagenet: the state dict of an ``Inception`` for RGB, of the same width.

    Raises:
        ValueError: where there is nothing in ``network`` to start from ImageNet, or where names or shapes are not
            exactly those that are needed; ``network`` is then unchanged.
    """
    targets = [module for module in network.modules() if isinstance(module, I3D | InceptionBody)]
    if not targets:
        raise ValueError(f"{type(network).__name__} has no Inception-v1 in it, so it cannot start from ImageNet")
    body = imagenet_body(imagenet)
    states = [_for_target(target, body) for target in targets]
    for target, state in zip(targets, states, strict=True):
        target.load_state_dict({**target.state_dict(), **state})


def imagenet_body(imagenet: Mapping[str, Tensor]) -> StateDict:
    """The tensors of the ``InceptionBody`` in an ``Inception``'s state dict, under its names.

    Raises:
        ValueError: where they are not all there, or the first layer is not for RGB.
    """
    expected = [f"{unit}.{leaf}" for unit in units().values() for leaf in LEAVES]
    found = [key.removeprefix(BODY) for key in imagenet if key.startswith(BODY)]
    wrong = [f"{key} missing" for key in expected if key not in found]
    wrong += [f"{key} unexpected" for key in found if key not in expected and not key.endswith(".num_batches_tracked")]
    if wrong:
        raise ValueError(f"these are not the weights of an Inception-v1: {_some(wrong)}")
    body = {key: imagenet[BODY + key] for key in expected}
    shape = tuple(body[FIRST_KERNEL].shape)
    if len(shape) != 4 or shape[1] != RGB_CHANNELS:
        raise ValueError(f"the Inception-v1 to start from is not for RGB: its first kernel has the shape {shape}")
    return body


def inflated(body: Mapping[str, Tensor], in_channels: int) -> StateDict:
    """The state dict of an I3D but its last layer, from that of an ``InceptionBody`` for RGB.

    Args:
        body: from ``imagenet_body``.
        in_channels: 3 for RGB, 2 for flow.
    """
    flat = adapted(body, in_channels)
    state = {}
    for name, flat_unit in units().items():
        for leaf in LEAVES:
            value = flat[f"{flat_unit}.{leaf}"]
            state[f"{name}.{leaf}"] = inflated_kernel(value) if leaf == "conv.weight" else value.clone()
    return state


def adapted(body: Mapping[str, Tensor], in_channels: int) -> StateDict:
    """The state dict of an ``InceptionBody`` for images of ``in_channels``, from that of one for RGB.

    Other than 3 channels are flow: 2 for each of its frames.
    """
    kernel = body[FIRST_KERNEL]  # (64, 3, 7, 7)
    if in_channels != RGB_CHANNELS:
        kernel = kernel.mean(dim=1, keepdim=True).repeat(1, in_channels, 1, 1)  # (64, in_channels, 7, 7)
    return {**{key: value.clone() for key, value in body.items()}, FIRST_KERNEL: kernel.clone()}


def inflated_kernel(kernel: Tensor) -> Tensor:
    """A 2D kernel (out, in, N, N) as a cube (out, in, N, N, N), repeated along time and divided by N (1)."""
    size = kernel.shape[-1]
    return kernel.unsqueeze(2).repeat(1, 1, size, 1, 1) / size


def units() -> dict[str, str]:
    """The 57 convolutions of I3D by name, with what each is called in 2D."""
    names = []
    for row in ROWS:
        if isinstance(row, Mixed):
            for index, branch in enumerate(row.branches()):
                names += [f"{row.name}.Branch_{index}.{inner.name}" for inner in branch if not isinstance(inner, Pool)]
        elif not isinstance(row, Pool):
            names.append(row.name)
    return {name: flat_name(name) for name in names}


def _for_target(target: I3D | InceptionBody, body: Mapping[str, Tensor]) -> StateDict:
    """What ``target`` takes from ImageNet, in its names and shapes."""
    own = {
        key: tuple(value.shape)
        for key, value in target.state_dict().items()
        if not key.startswith("Logits.") and not key.endswith(".num_batches_tracked")
    }
    make = inflated if isinstance(target, I3D) else adapted
    first = FIRST_KERNEL if isinstance(target, InceptionBody) else f"{ROWS[0].name}.conv.weight"
    state = make(body, own[first][1])
    _check(own, {key: tuple(value.shape) for key, value in state.items()})
    return state


def _check(expected: Shapes, found: Shapes) -> None:
    wrong = [
        f"{key} {found.get(key, 'missing')} for {shape}" for key, shape in expected.items() if found.get(key) != shape
    ]
    wrong += [f"{key} unexpected" for key in found if key not in expected]
    if wrong:
        raise ValueError(f"ImageNet's weights are not of this network's size: {_some(wrong)}")


def _some(names: list[str]) -> str:
    """The first of them, and how many there are in all."""
    return f"{', '.join(names[:3])}{f' and more, {len(names)} in all' if len(names) > 3 else ''}"
