"""What every network of the paper does alike: shapes, gradients, refusals, saving, and table 1's numbers."""

import math
import re

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vadis.models import BOTH, MODELS
from vadis.models.c3d import C3D
from vadis.models.fused import Fused
from vadis.models.i3d import I3D
from vadis.models.inception import Averaged, Inception
from vadis.models.lstm import ConvLSTM

CLASSES = 6
WIDTH = 1 / 32
PARAMETERS_TOLERANCE = 0.02  # of table 1


def two_stream(classes, width):
    return Averaged({s: Inception(classes, s, width=width) for s in ("rgb", "flow")})


def two_stream_i3d(classes, width):
    return nn.ModuleList([I3D(classes, channels, width=width) for channels in (3, 2)])


RGB, FLOW = (3, 5, 224, 224), (2, 50, 224, 224)
NETWORKS = {  # what makes it, from classes and width; the clips it takes; its steps
    "lstm": (lambda n, w: ConvLSTM(n, width=w), [(3, 4, 224, 224)], 4),
    "c3d": (lambda n, w: C3D(n, width=w), [(3, 16, 112, 112)], 1),
    "two-stream rgb": (lambda n, w: Inception(n, "rgb", width=w), [(3, 1, 224, 224)], 1),
    "two-stream flow": (lambda n, w: Inception(n, "flow", width=w), [(2, 10, 224, 224)], 1),
    "two-stream": (two_stream, [(3, 1, 224, 224), (2, 10, 224, 224)], 1),
    "fused": (lambda n, w: Fused(n, width=w), [RGB, FLOW], 1),
    "fused rgb": (lambda n, w: Fused(n, ("rgb",), width=w), [RGB], 1),
    "fused flow": (lambda n, w: Fused(n, ("flow",), width=w), [FLOW], 1),
    "i3d rgb": (lambda n, w: I3D(n, 3, width=w), [(3, 16, 224, 224)], 1),
    "i3d flow": (lambda n, w: I3D(n, 2, width=w), [(2, 16, 224, 224)], 1),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def make(name):
    """The network, and two clips of each kind that it takes."""
    build, shapes, _ = NETWORKS[name]
    torch.manual_seed(3)
    return build(CLASSES, WIDTH), [torch.rand(2, *shape) * 2 - 1 for shape in shapes]


def outputs(network, clips):
    with torch.no_grad():
        return network(*clips)


@pytest.mark.parametrize(
    ("build", "millions"),
    [
        (NETWORKS["lstm"][0], 9),
        (NETWORKS["c3d"][0], 79),
        (two_stream, 12),
        (NETWORKS["fused"][0], 39),
        (two_stream_i3d, 25),
    ],
    ids=["lstm", "c3d", "two-stream", "fused", "i3d"],
)
def test_parameters_are_those_of_table_1(build, millions):
    with torch.device("meta"):
        network = build(400, 1.0)
    count = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert math.isclose(count, millions * 1e6, rel_tol=PARAMETERS_TOLERANCE)


@every_network
def test_logits_are_batch_classes_steps(name):
    network, clips = make(name)
    network.eval()
    logits = outputs(network, clips)
    assert logits.shape == (2, CLASSES, NETWORKS[name][2])
    torch.testing.assert_close(outputs(network, [clip[1:] for clip in clips]), logits[1:])  # clips do not mix


@every_network
def test_gradients_reach_every_trainable_parameter(name):
    network, clips = make(name)
    network.train()
    network(*clips).square().sum().backward()
    for key, parameter in network.named_parameters():
        assert not parameter.requires_grad or parameter.grad.abs().max() > 0, key


@every_network
def test_training_differs_from_testing_in_batch_norm_and_dropout_alone(name):
    network, clips = make(name)
    network.eval()
    expected = outputs(network, clips)
    network.train()
    assert not torch.allclose(outputs(network, clips), expected)
    network, clips = make(name)
    network.train()
    for module in network.modules():
        if isinstance(module, (_BatchNorm, nn.Dropout)):
            module.eval()
    assert torch.equal(outputs(network, clips), expected)


@every_network
def test_a_network_is_rebuilt_from_its_tensors(name):
    """As a model file does it: laid out without memory, every tensor from the file, no counters."""
    network, clips = make(name)
    network.train()
    outputs(network, clips)  # running averages of their own
    network.eval()
    state = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    with torch.device("meta"):
        again = NETWORKS[name][0](CLASSES, WIDTH).eval()
    again.load_state_dict(state, strict=True, assign=True)
    assert torch.equal(outputs(again, clips), outputs(network, clips))


def shape_of(name, index):
    channels, frames, *size = NETWORKS[name][1][index]
    frames = "T" if name in ANY_LENGTH else frames
    return re.escape(f"(B, {channels}, {frames}, {size[0]}, {size[1]})")


ANY_LENGTH = ("lstm", "i3d rgb", "i3d flow")
OTHER_SHAPES = {
    "channels": lambda x: torch.cat([x, x], dim=1),
    "a frame less": lambda x: x[:, :, :-1],
    "a frame more": lambda x: torch.cat([x, x[:, :, :1]], dim=2),
    "size": lambda x: x[..., :-1],
    "transposed": lambda x: x.transpose(1, 2),
    "no batch": lambda x: x[0],
    "an empty batch": lambda x: x[:0],
}


@pytest.mark.parametrize(
    ("name", "other"),
    [(name, other) for name in NETWORKS for other in OTHER_SHAPES if not (name in ANY_LENGTH and "frame" in other)],
)
def test_a_clip_of_another_shape_is_refused_by_name(name, other):
    network, clips = make(name)
    for index in range(len(clips)):
        given = [OTHER_SHAPES[other](clip) if number == index else clip for number, clip in enumerate(clips)]
        with pytest.raises(ValueError, match=shape_of(name, index)):
            network(*given)


def test_every_network_of_models_is_here():
    """Whatever streams a model has, its networks are among those above: as many parameters, of the same names."""
    for architecture, row in MODELS.items():
        for streams in (row.streams, *((stream,) for stream in row.streams)):
            for name in row.networks(streams):
                alone = architecture if name == BOTH or len(row.streams) == 1 else f"{architecture} {name}"
                built = row.build(row.networks(streams)[name], CLASSES, WIDTH)
                expected = NETWORKS[alone][0](CLASSES, WIDTH)
                assert shapes(built) == shapes(expected), alone


def shapes(network):
    return {key: value.shape for key, value in network.state_dict().items()}


@pytest.mark.parametrize("name", ["two-stream", "fused"])
def test_a_missing_stream_is_refused(name):
    network, clips = make(name)
    with pytest.raises(ValueError, match="shorter"):
        network(clips[0])


@pytest.mark.parametrize("name", ["lstm", "c3d"])
def test_a_single_clip_cannot_be_trained_on_where_only_the_batch_has_a_variance(name):
    network, clips = make(name)
    network.train()
    with pytest.raises(ValueError, match="per channel"):
        network(*[clip[:1] for clip in clips])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@every_network
def test_trains_in_mixed_precision(name, device):
    """Convolutions in bfloat16, statistics in float32."""
    network, clips = make(name)
    network.to(device).train()
    with torch.autocast(device, dtype=torch.bfloat16):
        logits = network(*[clip.to(device) for clip in clips])
    assert logits.isfinite().all()
    logits.float().square().sum().backward()
    assert all(value.dtype == torch.float32 for value in network.state_dict().values() if value.is_floating_point())
    gradients = [value.grad for value in network.parameters() if value.requires_grad]
    assert all(gradient.isfinite().all() for gradient in gradients)
