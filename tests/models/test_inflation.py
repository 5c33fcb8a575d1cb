"""From ImageNet's 2D weights to the paper's networks: the boring-video fixed point, first layers, what is refused."""

import pytest
import torch
from torch import nn

from tests.golden import recipe
from tests.googlenet import body_endpoints, from_googlenet, golden_entries, narrow_entries
from tests.matching import containing
from vadis.models.c3d import C3D
from vadis.models.fused import Fused
from vadis.models.i3d import I3D
from vadis.models.inception import (
    Averaged,
    Inception,
    InceptionBody,
    from_imagenet,
    imagenet_body,
    inflate,
)
from vadis.models.lstm import ConvLSTM

TOLERANCE = 1e-4  # of an endpoint's largest value; a kernel that was not divided by N is wrong by a factor
WIDTH = 1 / 16
CHANNELS = {"rgb": 3, "flow": 2}


def narrow_imagenet(width=WIDTH):
    return from_googlenet(narrow_entries(width))


def flat_network(imagenet, in_channels):
    """The 2D network itself, with its first layer adapted."""
    width = imagenet_body(imagenet)["Conv2d_1a_7x7.conv.weight"].shape[0] / 64
    network = InceptionBody(in_channels, width=width).eval()
    from_imagenet(network, imagenet)
    return network


def assert_equal(found, expected, name):
    assert found.shape == expected.shape, name
    assert (found - expected).abs().max() < TOLERANCE * expected.abs().max(), name


@pytest.mark.slow
@pytest.mark.parametrize("in_channels", [3, 2])
def test_boring_video_with_replicated_borders_at_full_width(in_channels):
    """Layer by layer: a step away from the borders is taken and repeated, as if no layer ever saw a border."""
    imagenet = from_googlenet(golden_entries())
    network = I3D(7, in_channels).eval()
    from_imagenet(network, imagenet)
    image = torch.from_numpy(recipe.image())[:, :in_channels]
    steps = image
    with torch.inference_mode():
        for name, expected in body_endpoints(flat_network(imagenet, in_channels), image):
            length = 9 if name == "Conv3d_1a_7x7" else 5  # kernel and stride from the middle fit in
            video = steps.unsqueeze(2).repeat(1, 1, length, 1, 1)
            found = network.get_submodule(name)(video)
            steps = found[:, :, found.shape[2] // 2]
            assert_equal(steps, expected, name)


def test_boring_video_in_the_middle_of_a_long_clip():
    """The whole network at once; 128 frames, of which Mixed_5c sees 99."""
    imagenet = narrow_imagenet()
    network = I3D(7, width=WIDTH).eval()
    from_imagenet(network, imagenet)
    image = torch.from_numpy(recipe.image())
    video = image.unsqueeze(2).repeat(1, 1, 128, 1, 1)
    with torch.inference_mode():
        flat = body_endpoints(flat_network(imagenet, 3), image)
        for (name, expected), (_, found) in zip(flat, network.endpoints(video), strict=False):
            assert_equal(found[:, :, found.shape[2] // 2], expected, name)
        pooled = expected.mean(dim=(2, 3))
    assert name == "Mixed_5c"
    assert pooled.abs().max() > 0


def test_a_kernel_is_repeated_along_time_and_divided():
    kernel = torch.randn(4, 3, 7, 7)
    cube = inflate(kernel)
    assert cube.shape == (4, 3, 7, 7, 7)
    torch.testing.assert_close(cube.sum(dim=2), kernel)
    assert torch.equal(cube[:, :, 0], cube[:, :, 6])
    assert torch.equal(inflate(kernel[..., :1, :1])[:, :, 0], kernel[..., :1, :1])


@pytest.mark.parametrize("in_channels", [2, 20])
def test_first_layer_for_flow_is_the_mean_over_colour(in_channels):
    kernel = imagenet_body(narrow_imagenet())["Conv2d_1a_7x7.conv.weight"]
    first = flat_network(narrow_imagenet(), in_channels).state_dict()["Conv2d_1a_7x7.conv.weight"]
    assert first.shape == (4, in_channels, 7, 7)
    for channel in range(in_channels):
        torch.testing.assert_close(first[:, channel], (kernel[:, 0] + kernel[:, 1] + kernel[:, 2]) / 3)


NETWORKS = {
    "lstm": lambda: ConvLSTM(7, width=WIDTH),
    "two-stream rgb": lambda: Inception(7, "rgb", width=WIDTH),
    "two-stream flow": lambda: Inception(7, "flow", width=WIDTH),
    "two-stream": lambda: Averaged({s: Inception(7, s, width=WIDTH) for s in CHANNELS}),
    "fused": lambda: Fused(7, width=WIDTH),
    "i3d rgb": lambda: I3D(7, 3, width=WIDTH),
    "i3d flow": lambda: I3D(7, 2, width=WIDTH),
}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_every_tensor_of_the_base_network_comes_from_imagenet_and_no_other(make):
    network, imagenet = make(), narrow_imagenet()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    from_imagenet(network, imagenet)
    for key, value in network.state_dict().items():
        place = key.find("Conv3d_1a" if isinstance(network, I3D) else "Conv2d_1a"), key.find("Mixed_")
        is_base = "Conv2d_" in key or ("Conv3d_" in key and not key.startswith("Logits"))
        if not is_base or key.endswith("num_batches_tracked"):
            assert torch.equal(value, before[key]), key
            continue
        start = max(place) if max(place) >= 0 else key.find("Conv")
        source = imagenet[f"body.{key[start:].replace('Conv3d', 'Conv2d')}"]
        if value.ndim > 1 and value.shape[1] != source.shape[1]:
            source = source.mean(dim=1, keepdim=True).expand(-1, value.shape[1], -1, -1)
        found = value.sum(dim=2) if value.ndim == 5 else value
        torch.testing.assert_close(found, source, msg=key)


def test_the_3d_convnet_cannot_start_from_imagenet():
    with pytest.raises(ValueError, match=containing("C3D")):
        from_imagenet(C3D(7, width=WIDTH), narrow_imagenet())


def break_name(state):
    state["body.Mixed_3b.Branch_1.Conv2d_0c_3x3.conv.weight"] = state.pop(
        "body.Mixed_3b.Branch_1.Conv2d_0b_3x3.conv.weight"
    )


def break_shape(state):
    state["body.Mixed_4c.Branch_2.Conv2d_0b_3x3.norm.bias"] = torch.zeros(3)


def break_first(state):
    state["body.Conv2d_1a_7x7.conv.weight"] = torch.zeros(4, 20, 7, 7)


@pytest.mark.parametrize("network", [I3D(7, width=WIDTH), Fused(7, width=WIDTH)], ids=["i3d", "fused"])
@pytest.mark.parametrize(
    ("damage", "fact"),
    [
        (break_name, "Conv2d_0c_3x3.conv.weight"),
        (break_shape, (3,)),
        (break_first, (4, 20, 7, 7)),
        (lambda state: state.clear(), 285),
    ],
)
def test_other_weights_are_refused_by_name_and_nothing_is_changed(network: nn.Module, damage, fact):
    before, imagenet = {key: value.clone() for key, value in network.state_dict().items()}, narrow_imagenet()
    damage(imagenet)
    with pytest.raises(ValueError, match=containing(fact)):
        from_imagenet(network, imagenet)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_weights_of_another_width_are_refused():
    with pytest.raises(ValueError, match=containing("Conv2d_1a_7x7.conv.weight", (2, 3, 7, 7), (4, 3, 7, 7))):
        from_imagenet(Inception(7, width=WIDTH), narrow_imagenet(WIDTH / 2))
