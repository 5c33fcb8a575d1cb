"""The LSTM with recurrent batch norm: its equations, its statistics of every step, and that it sees an order."""

import pytest
import torch

from vadis.models.lstm import GAMMA, MAX_STEPS, ConvLSTM, RecurrentLayer, StepNorm
from vadis.training.checkpoint import RunningAverages

CHANNELS, HIDDEN = 5, 3


@pytest.fixture
def layer():
    """A small layer with statistics of its own for every step."""
    torch.manual_seed(1)
    layer = RecurrentLayer(CHANNELS, HIDDEN).eval()
    layer.initialise()
    for norm in (layer.input_norm, layer.hidden_norm, layer.cell_norm):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    torch.nn.init.normal_(layer.cell_norm.bias)
    return layer


def normalised(norm, value, step, shift=0.0):
    """Batch norm at test, written out."""
    step = min(step, MAX_STEPS - 1)
    scale = norm.weight / torch.sqrt(norm.running_var[step] + norm.eps)
    return (value - norm.running_mean[step]) * scale + shift


@pytest.mark.parametrize("steps", [1, 4, 25, 40])
def test_equations_of_cooijmans(layer, steps):
    x = torch.randn(2, steps, CHANNELS)
    hidden, cell, expected = torch.zeros(2, HIDDEN), torch.zeros(2, HIDDEN), []
    with torch.no_grad():
        for step in range(steps):
            gates = normalised(layer.input_norm, x[:, step] @ layer.input.weight.T, step)
            gates = gates + normalised(layer.hidden_norm, hidden @ layer.hidden.weight.T, step) + layer.bias
            f, i, o, g = (gates[:, HIDDEN * k : HIDDEN * (k + 1)] for k in range(4))
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(normalised(layer.cell_norm, cell, step, layer.cell_norm.bias))
            expected.append(hidden)
        torch.testing.assert_close(layer(x), torch.stack(expected, dim=1))


def test_training_normalises_by_the_batch_and_begins_with_a_tenth():
    norm = StepNorm(4, shift=True).train()
    y = norm(torch.randn(1000, 4) * 7 + 3)
    torch.testing.assert_close(y.mean(dim=0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(dim=0), torch.full((4,), GAMMA), atol=1e-3, rtol=0)


def test_each_step_has_its_own_running_averages():
    norm = StepNorm(2, shift=False).train()
    norm.momentum = 0.25
    first, second = torch.tensor([[1.0, 0], [3, 0]]), torch.tensor([[10.0, 1], [10, -1]])
    norm(first, 0)
    norm(second, 1, is_last=True)
    assert norm.running_mean[0].tolist() == [0.5, 0]  # a quarter of the way from 0 to 2
    assert norm.running_var[0].tolist() == [1.25, 0.75]  # from 1 to 2, and to 0
    assert norm.running_mean[1].tolist() == [2.5, 0]


def test_steps_after_the_end_of_a_sequence_take_its_last_statistics():
    """A network trained on short clips and tested on long ones has no untrained statistics."""
    norm = StepNorm(1, shift=False).train()
    norm.momentum = 1.0
    norm(torch.tensor([[1.0], [3]]), 0)
    norm(torch.tensor([[6.0], [8]]), 1, is_last=True)
    assert norm.running_mean[:, 0].tolist() == [2.0, *[7.0] * (MAX_STEPS - 1)]
    norm(torch.tensor([[20.0], [30]]), MAX_STEPS + 5)  # a longer sequence's later steps count for the last
    assert norm.running_mean[-2:, 0].tolist() == [7.0, 25.0]


def test_has_statistics_for_a_training_clip_of_the_paper():
    assert MAX_STEPS == 25  # table 1: 25 frames in training, 50 at test


def test_the_order_of_frames_matters():
    """A clip and its reverse are the same set of frames, but another sequence."""
    torch.manual_seed(2)
    network = ConvLSTM(4, width=1 / 16)
    clip = torch.rand(2, 3, 6, 224, 224) * 2 - 1
    clip[:, :, :3] *= 0.2  # the first half is pale
    network.train()
    with torch.no_grad():
        for module in network.modules():
            if hasattr(module, "momentum"):
                module.momentum = 1.0
        network(clip)
        network.eval()
        forward, backward = network(clip), network(clip.flip(2))
        frames = network.body(clip[0].transpose(0, 1))  # (T, 3, H, W) → (T, 64, 7, 7)
        reverse = network.body(clip[0].flip(1).transpose(0, 1))
    torch.testing.assert_close(frames.mean(dim=0), reverse.mean(dim=0))
    assert (forward[:, :, -1] - backward[:, :, -1]).abs().max() > 1e-3 * forward[:, :, -1].abs().max()


def test_the_training_loop_finds_the_running_averages():
    """They move once per step of training, however many micro-batches it has."""
    network = ConvLSTM(4, width=1 / 32).train()
    averages = RunningAverages(network)
    mean = network.lstm.input_norm.running_mean
    before = mean.clone()
    averages.begin()
    with torch.no_grad():
        network(torch.rand(2, 3, 2, 224, 224))
    moved = mean.clone()
    assert not torch.equal(moved, before)
    averages.add(1.0)
    averages.restore()
    assert torch.equal(mean, before)
