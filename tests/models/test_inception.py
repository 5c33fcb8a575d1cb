"""The 2D network, against logits of torchvision's GoogLeNet (tests/golden/recipe.py says how they were made)."""

import numpy as np
import pytest
import torch

from tests.conftest import GOLDEN
from tests.golden import recipe
from tests.googlenet import SHAPES, body_endpoints, from_googlenet, golden_entries
from vadis.models.i3d import ROWS
from vadis.models.inception import Inception, InceptionBody, stacked

LOGITS_TOLERANCE = 1e-4  # of the largest logit: float32 sums in another order differ by 1e-6
GOLDENS = np.load(GOLDEN / "googlenet.npz")


@pytest.mark.parametrize("case", ["torchvision_padding", "tf_same_padding"])
def test_agrees_with_torchvisions_googlenet(case):
    with torch.device("meta"):
        network = Inception(1000).eval()
    network.load_state_dict(from_googlenet(golden_entries()), strict=True, assign=True)
    if case == "torchvision_padding":  # its port pads by three on all sides, where SAME pads by two in front
        stem = network.body.Conv2d_1a_7x7
        stem.pads_in_conv, stem.conv.padding = True, (3, 3)
    with torch.inference_mode():
        logits = network(torch.from_numpy(recipe.image()).unsqueeze(2))  # (1, 3, 224, 224) → (1, 3, 1, 224, 224)
    expected = GOLDENS[f"{case}/logits"]
    assert logits.shape == (1, 1000, 1)
    assert np.abs(logits[0, :, 0].numpy() - expected).max() < LOGITS_TOLERANCE * np.abs(expected).max()


def test_the_two_paddings_tell_apart():
    """The goldens would not notice a wrong padding if they agreed with each other."""
    one, other = (GOLDENS[f"{case}/logits"] for case in ("torchvision_padding", "tf_same_padding"))
    assert np.abs(one - other).max() > 100 * LOGITS_TOLERANCE * np.abs(one).max()


def test_has_all_of_googlenets_tensors_but_the_auxiliary_ones():
    with torch.device("meta"):
        own = {key: tuple(value.shape) for key, value in Inception(1000).state_dict().items()}
    entries = {name: torch.empty(shape, device="meta") for name, shape in SHAPES.items()}
    found = {key: tuple(value.shape) for key, value in from_googlenet(entries).items()}
    assert found == {key: shape for key, shape in own.items() if "num_batches" not in key}


@pytest.mark.parametrize(("size", "grid"), [(224, 7), (161, 6)])
def test_every_endpoint_has_tensorflows_size(size, grid):
    body = InceptionBody(width=1 / 32)
    shapes = {name: tuple(y.shape) for name, y in body_endpoints(body, torch.zeros(1, 3, size, size))}
    assert tuple(shapes) == tuple(row.name for row in ROWS)
    half = -(-size // 2)  # each of the five strides of 2 rounds up
    assert shapes["Conv3d_1a_7x7"] == (1, 2, half, half)
    assert shapes["Mixed_5c"] == (1, body.channels, grid, grid)


def test_frames_are_stacked_frame_by_frame():
    """dx₁, dy₁, dx₂, dy₂, …: the two channels of a frame stay together."""
    flow = torch.tensor([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]]).view(1, 2, 3, 1, 1)  # dx, then dy, of three frames
    assert stacked(flow).flatten().tolist() == [1, -1, 2, -2, 3, -3]


def test_features_are_what_the_last_layer_sees():
    network = Inception(5, "flow", width=1 / 32).eval()
    x = torch.randn(2, 2, 10, 224, 224)
    with torch.inference_mode():
        features = network.features(x)
        assert features.shape == (2, 32, 1)
        torch.testing.assert_close(network.Logits(features.squeeze(2)), network(x).squeeze(2))
