"""The 3D-ConvNet: what each pooling leaves, and where batch norm is."""

import torch
from torch import nn

from vadis.models.c3d import C3D, ROWS
from vadis.models.i3d import Conv, Pool

WIDTH = 1 / 32


def test_eight_convolutions_and_five_poolings():
    assert [row.channels for row in ROWS if isinstance(row, Conv)] == [64, 128, 256, 256, 512, 512, 512, 512]
    assert sum(isinstance(row, Pool) for row in ROWS) == 5


def test_poolings_halve_time_from_the_first_on():
    x, grids = torch.zeros(1, 3, 16, 112, 112), {}
    for name, unit in C3D(4, width=WIDTH).body.named_children():
        x = unit(x)
        grids[name] = tuple(x.shape[2:])
    assert [grids[f"pool{number}"] for number in range(1, 6)] == [
        (8, 56, 56),
        (4, 28, 28),
        (2, 14, 14),
        (1, 7, 7),
        (1, 4, 4),
    ]


def test_batch_norm_follows_all_but_the_last_layer():
    network = C3D(4, width=WIDTH)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv3d | nn.Linear)]
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm3d | nn.BatchNorm1d)]
    assert len(layers) == len(norms) + 1 == 11
    assert [layer.bias is None for layer in layers] == [True] * 10 + [False]


def test_fully_connected_layers_have_the_papers_sizes():
    with torch.device("meta"):
        network = C3D(400)
    assert [
        tuple(network.get_parameter(f"{name}.weight").shape) for name in ("fc6.linear", "fc7.linear", "Logits")
    ] == [
        (4096, 8192),
        (4096, 4096),
        (400, 4096),
    ]
