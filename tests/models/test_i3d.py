"""The network, against outputs of DeepMind's own TensorFlow code (tests/golden/recipe.py says how they were made)."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.conftest import GOLDEN
from tests.golden import recipe
from tests.matching import containing
from vadis.evaluation.paper_tables import FIGURE_3
from vadis.models.i3d import I3D, MIN_FRAMES, ROWS, ConvUnit, Mixed, PoolUnit, pad_same, receptive_field, same_padding
from vadis.weights.convert import state_key

LOGITS_TOLERANCE = 1e-4  # of the largest logit: float32 sums in another order differ by 1e-6, a wrong epsilon by 1e-1
MEANS_TOLERANCE = 1e-4  # relative, of an endpoint's mean absolute value
BFLOAT16_TOLERANCE = 0.1  # of a gradient's length: numbers of 8 bits, and some outputs on the other side of the ReLU
GOLDENS = np.load(GOLDEN / "i3d_deepmind.npz")
CASES = sorted({key.split("/")[0] for key in GOLDENS.files})


def deepmind_network(stream: str, num_classes: int) -> I3D:
    """An I3D with the random weights that the goldens were made with, found by their TensorFlow names."""
    network = I3D(num_classes, {"RGB": 3, "Flow": 2}[stream]).eval()
    state = network.state_dict()
    for name in tensorflow_names(stream):
        key = state_key(name)
        shape = tuple(state[key].shape)
        if state[key].ndim == 5:
            value = recipe.tf_value(name, (*shape[2:], shape[1], shape[0])).transpose(4, 3, 0, 1, 2)
        else:
            value = recipe.tf_value(name, shape)
        state[key] = torch.from_numpy(np.ascontiguousarray(value))
    network.load_state_dict(state)
    return network


def tensorflow_names(stream: str) -> list[str]:
    """The 230 variables of DeepMind's checkpoints, written out from the table of rows."""
    units = []
    for row in ROWS:
        if isinstance(row, Mixed):
            for index, branch in enumerate(row.branches()):
                units += [f"{row.name}/Branch_{index}/{inner.name}" for inner in branch if "Conv" in inner.name]
        elif "Conv" in row.name:
            units.append(row.name)
    units = [unit.replace("Mixed_5b/Branch_2/Conv3d_0b", "Mixed_5b/Branch_2/Conv3d_0a") for unit in units]
    leaves = ["conv_3d/w", "batch_norm/beta", "batch_norm/moving_mean", "batch_norm/moving_variance"]
    names = [f"{unit}/{leaf}" for unit in units for leaf in leaves]
    names += ["Logits/Conv3d_0c_1x1/conv_3d/w", "Logits/Conv3d_0c_1x1/conv_3d/b"]
    return [f"{stream}/inception_i3d/{name}" for name in names]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_deepminds_code(case: str) -> None:
    stream, frames, num_classes, seed = case.split("_")
    network = deepmind_network(stream, int(num_classes))
    clip = torch.from_numpy(recipe.clip(int(seed), int(frames), 3 if stream == "RGB" else 2))
    with torch.inference_mode():
        endpoints = dict(network.endpoints(clip.permute(0, 4, 1, 2, 3)))  # (B, T, H, W, C) → (B, C, T, H, W)
    endpoints["Logits"] = endpoints["Logits"].mean(dim=2)  # DeepMind's endpoint is averaged over time
    endpoints["Predictions"] = endpoints["Logits"].softmax(dim=1)

    logits = GOLDENS[f"{case}/logits"]
    assert np.abs(endpoints["Logits"][0].numpy() - logits).max() < LOGITS_TOLERANCE * np.abs(logits).max()
    assert tuple(endpoints) == recipe.ENDPOINTS
    means = [endpoint.abs().mean().item() for endpoint in endpoints.values()]
    np.testing.assert_allclose(means, GOLDENS[f"{case}/endpoint_mean_abs"], rtol=MEANS_TOLERANCE)


def test_has_the_papers_number_of_parameters() -> None:
    two_streams = [sum(p.numel() for p in I3D(400, channels).parameters() if p.requires_grad) for channels in (3, 2)]
    assert two_streams == [12_689_984, 12_668_032]  # trainable variables of rgb_imagenet and flow_imagenet
    assert round(sum(two_streams) / 1e6) == 25  # M, table 1


@pytest.mark.parametrize(("frames", "steps"), [(9, 1), (16, 1), (17, 2), (64, 7), (79, 9), (250, 31)])
def test_steps_follow_from_the_number_of_frames(frames: int, steps: int) -> None:
    network = I3D(5, width=1 / 64).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, frames, 224, 224)).shape == (1, 5, steps)


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(ValueError, match=containing(9)):
        I3D(5, width=1 / 64)(torch.zeros(1, 3, MIN_FRAMES - 1, 224, 224))


def test_width_scales_every_channel_count() -> None:
    full, half = (dict(I3D(10, width=width).named_parameters()) for width in (1.0, 0.5))
    assert half.keys() == full.keys()
    for name, parameter in full.items():
        classes = name.startswith("Logits")
        assert half[name].shape[0] == (parameter.shape[0] if classes else parameter.shape[0] // 2), name


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (224, 7, 2, (2, 3)),
        (225, 7, 2, (3, 3)),
        (112, 3, 2, (0, 1)),
        (7, 3, 1, (1, 1)),
        (8, 2, 2, (0, 0)),
        (9, 2, 2, (0, 1)),
    ],
)
def test_same_padding_is_tensorflows(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == expected


def test_gradients_reach_every_trainable_parameter() -> None:
    network = I3D(3, width=1 / 16).train()
    network(torch.randn(1, 3, 16, 224, 224)).sum().backward()
    for name, parameter in network.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, name


@pytest.mark.parametrize("size", [(8, 14, 14), (9, 13, 15)])
@pytest.mark.parametrize(("kernel", "stride"), [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2))])
def test_pooling_without_a_padded_copy_is_the_same(size, kernel, stride) -> None:
    """Forward and backward, to the bit; behind the ReLU that is before every pooling."""
    found = []
    for pool in (
        PoolUnit(kernel, stride),
        lambda x: functional.max_pool3d(pad_same(x, kernel, stride), kernel, stride),
    ):
        x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).requires_grad_()
        y = pool(functional.relu(x))
        (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum().backward()
        found.append((y, x.grad))
    assert all(torch.equal(own, plain) for own, plain in zip(*found, strict=True))


@pytest.mark.parametrize(("kernel", "stride"), [((3, 3, 3), (1, 1, 1)), ((1, 1, 1), (1, 1, 1)), ((7, 7, 7), (2, 2, 2))])
def test_convolution_without_a_padded_copy_is_the_same(kernel, stride) -> None:
    unit = ConvUnit(3, 4, kernel, stride)
    found = []
    for padded in (False, True):
        x = torch.randn(2, 3, 9, 14, 15, generator=torch.Generator().manual_seed(0)).requires_grad_()
        if padded:
            weight = unit.conv.weight
            y = functional.relu(unit.norm(functional.conv3d(pad_same(x, kernel, stride), weight, None, stride)))
        else:
            y = unit(x)
        (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum().backward()
        found.append((y, x.grad))
    for own, plain in zip(*found, strict=True):
        torch.testing.assert_close(own, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_output_depends_on_its_receptive_field_and_on_nothing_else(axis: int, monkeypatch) -> None:
    """By the gradient: mean instead of maximum, and no negative weights, so that no path is lost."""
    monkeypatch.setattr(functional, "max_pool3d", functional.avg_pool3d)
    network, size = I3D(2, width=1 / 64).eval(), [12, 48, 48]
    size[axis] = (96, 352, 352)[axis]
    for parameter in network.parameters():
        parameter.data.abs_()
    clip = torch.ones(1, 3, *size, requires_grad=True)
    for layer, y in network.endpoints(clip):
        if layer not in {"Conv3d_1a_7x7", "MaxPool3d_4a_3x3", "Mixed_4f"}:
            continue
        centre = y.movedim(2 + axis, 0)[y.shape[2 + axis] // 2].sum()
        (gradient,) = torch.autograd.grad(centre, clip, retain_graph=True)
        seen = gradient.movedim(2 + axis, 0).flatten(1).any(dim=1).nonzero()
        assert int(seen[-1] - seen[0]) + 1 == len(seen) == receptive_field(layer)[axis], layer
        if layer == "Mixed_4f":
            break


def test_receptive_fields_are_those_of_figure_3_but_for_a_fifth_block() -> None:
    ours = {layer: receptive_field(layer) for layer in FIGURE_3}
    fifth = {"MaxPool3d_5a_2x2": (8, 32, 32), "Pooled": (8, 32, 32)}  # 2 steps of 4 frames or 16 px
    for layer, paper in FIGURE_3.items():
        more = fifth.get(layer, (0, 0, 0))
        assert ours[layer] == tuple(size + extra for size, extra in zip(paper, more, strict=True))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("channels", [(2, 8), (24, 48)])
@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_gradients_in_bfloat16_are_those_of_float32(frames, channels, layout):
    """Also where a clip is shorter than the kernel."""
    torch.manual_seed(0)
    unit = ConvUnit(*channels, (3, 3, 3), (1, 1, 1))
    clip = torch.randn(2, channels[0], frames, 14, 14).contiguous(memory_format=layout)
    weight, after = unit.conv.weight, torch.randn(2, channels[1], frames, 14, 14)
    gradients = []
    for is_rounded in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_rounded):
            y = unit(clip)
        assert y.shape == after.shape
        gradients += torch.autograd.grad((y.float() * after).sum(), weight)
    exact, rounded = gradients
    assert (rounded - exact).norm() < BFLOAT16_TOLERANCE * exact.norm()
