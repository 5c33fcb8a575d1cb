"""Two-Stream: what is averaged, and that both networks learn through the average."""

import torch
from torch.nn import functional

from vadis.models.inception import SNAPSHOT_FRAMES, Averaged, Inception, mean_log_probabilities

WIDTH = 1 / 32


def networks():
    torch.manual_seed(5)
    return {stream: Inception(4, stream, width=WIDTH) for stream in ("rgb", "flow")}


def clips():
    return torch.rand(2, 3, 1, 224, 224) * 2 - 1, torch.rand(2, 2, 10, 224, 224) * 2 - 1


def test_footprint_is_that_of_table_1():
    assert SNAPSHOT_FRAMES == {"rgb": 1, "flow": 10}


def test_flow_goes_in_as_twenty_channels():
    assert networks()["flow"].body.Conv2d_1a_7x7.conv.weight.shape[1] == 20


def test_probabilities_are_averaged_not_logits():
    logits = torch.tensor([[10.0, 0.0], [-1.0, 1.0]]).view(2, 1, 2, 1)  # one stream sure of class 0, the other not of 1
    mean = mean_log_probabilities(logits).exp().squeeze()
    torch.testing.assert_close(mean, (logits[0].softmax(1) + logits[1].softmax(1)).squeeze() / 2)
    assert mean[0] < 0.6  # the softmax of added logits would be 0.9997


def test_of_networks_on_their_clips():
    each, (rgb, flow) = networks(), clips()
    joint = Averaged(each).eval()
    with torch.no_grad():
        found = joint(rgb, flow).softmax(dim=1)
        expected = (each["rgb"](rgb).softmax(dim=1) + each["flow"](flow).softmax(dim=1)) / 2
    torch.testing.assert_close(found, expected)


def test_cross_entropy_is_that_of_the_average():
    log_mean = mean_log_probabilities(torch.randn(2, 3, 4, 1)).squeeze(2)
    labels = torch.tensor([0, 3, 1])
    picked = log_mean.exp()[torch.arange(3), labels]
    torch.testing.assert_close(functional.cross_entropy(log_mean, labels, reduction="none"), -picked.log())


def test_each_network_learns_from_what_the_other_says():
    each, (rgb, flow) = networks(), clips()
    joint = Averaged(each).eval()
    labels = torch.tensor([0, 1])

    def gradient(opinion):
        torch.nn.init.constant_(each["flow"].Logits.bias[:1], opinion)
        joint.zero_grad()
        functional.cross_entropy(joint(rgb, flow).squeeze(2), labels).backward()
        return each["rgb"].Logits.weight.grad.norm(dim=1)

    undecided, sure = gradient(0.0), gradient(5.0)
    assert (undecided > 0).all()
    assert not torch.allclose(undecided, sure, rtol=0.1)


def test_tensors_are_named_by_stream():
    keys = Averaged(networks()).state_dict().keys()
    assert keys == {f"{stream}.{key}" for stream, network in networks().items() for key in network.state_dict()}
