"""The network itself, as narrow as it gets, on the road that the stand-in walks in the other tests."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.stand_in import run_tiny
from vadis.models.i3d import I3D
from vadis.training.checkpoint import CHECKPOINTS_NAME, load_newest

LABELS = ("left", "right")


class FlowClips:
    """Flow to the left or to the right, 9 frames of it."""

    def __len__(self) -> int:
        return 3

    def clip(self, epoch: int, index: int) -> tuple[tuple[Tensor, ...], int, str]:
        generator = torch.Generator().manual_seed(100 * epoch + index)
        x = 0.1 * torch.randn(2, 9, 224, 224, generator=generator)
        x[0] += 0.5 if index % 2 else -0.5
        return (x,), index % 2, f"{index}.avi"


def train_narrow(folder: Path, seed: int, **changes) -> tuple[I3D, list]:
    torch.manual_seed(seed)
    network = I3D(len(LABELS), in_channels=2, width=1 / 64)
    changes = {"batch_size": 2, "micro_batch": 1, "steps": 4, "validator": None, **changes}
    _, _, events = run_tiny(folder, network, clips=FlowClips(), labels=LABELS, **changes)
    return network, events


@pytest.mark.slow
@pytest.mark.parametrize("asked", [4, 5])  # between steps; between the micro-batches of one
def test_i3d_goes_on_bit_by_bit(tmp_path, asked):
    times = iter(range(1000))
    whole, _ = train_narrow(tmp_path / "whole", seed=0)
    train_narrow(tmp_path / "cut", seed=0, stop_requested=lambda: 15 * (next(times) > asked))
    gone_on, events = train_narrow(tmp_path / "cut", seed=1, resume=True)
    assert 0 < events[0].step < 4
    for key, value in whole.state_dict().items():
        assert torch.equal(value, gone_on.state_dict()[key]), key


def test_the_checkpoint_has_all_of_it_and_gamma_stays(tmp_path):
    network, _ = train_narrow(tmp_path, seed=0, steps=1)
    found = load_newest(tmp_path / CHECKPOINTS_NAME)
    assert found is not None
    names = set(found[0].tensors)
    assert {f"network.{key}" for key in network.state_dict()} <= names
    trained = {name for name, value in network.named_parameters() if value.requires_grad}
    assert {name for name in names if name.startswith("momentum.")} == {f"momentum.{name}" for name in trained}
    assert not any(name.endswith("norm.weight") for name in trained)
    gammas = [value for name, value in network.named_parameters() if name.endswith("norm.weight")]
    assert len(gammas) == 57 and all(torch.equal(value, torch.ones_like(value)) for value in gammas)
