"""3D-Fused: the grid between the two networks and the last layer, and which flow belongs to which frame."""

import torch

from vadis.models.fused import Fused
from vadis.models.inception import stacked

WIDTH = 1 / 32


def test_the_whole_grid_leads_to_one_place():
    """5×7×7 → 3×3×3 → 1×1×1, and no value of the grid is left out."""
    network = Fused(4, width=WIDTH).eval()
    grid = torch.rand(1, 64, 5, 7, 7, requires_grad=True)
    after = network.fusion.conv(grid)
    assert after.shape == (1, 16, 3, 3, 3)
    assert network.fusion(grid).shape == (1, 16, 1, 1, 1)
    after.sum().backward()
    assert (grid.grad != 0).all(dim=1).all()


def test_a_snippet_of_flow_goes_with_its_frame():
    torch.manual_seed(1)
    network = Fused(4, width=WIDTH).eval()
    flow = torch.rand(1, 2, 50, 224, 224) * 2 - 1
    with torch.no_grad():
        grids = network._grids("flow", flow)  # (1, 32, 5, 7, 7)
        for snippet in range(5):
            alone = network.flow(stacked(flow[:, :, 10 * snippet : 10 * snippet + 10]))
            torch.testing.assert_close(grids[:, :, snippet], alone)


def test_new_layers_are_gaussian():
    torch.manual_seed(1)
    network = Fused(50, width=0.25)
    for weight in (network.fusion.conv.weight, network.Logits.weight):
        assert abs(weight.std().item() - 0.01) < 0.001
        assert weight.abs().max() > 0.025  # a truncated normal has none


def test_streams_are_told_apart():
    """The flow network takes 20 channels, the RGB network 3; the last layer sees both."""
    network = Fused(4, width=WIDTH)
    assert network.rgb.in_channels == 3
    assert network.flow.in_channels == 20
    assert network.fusion.conv.weight.shape[1] == 2 * network.rgb.channels
