"""What networks cost, against counts by hand and against figures measured elsewhere."""

import pytest

from vadis.evaluation.effort import clip_flops, network_sizes, training_flops, video_flops
from vadis.models import MODELS

GIGA = 1e9


def test_i3d_has_the_figure_that_the_benchmark_names() -> None:
    assert clip_flops("i3d", ("rgb",)) / GIGA == pytest.approx(222, abs=0.5)  # docs/performance.md


def test_flow_differs_by_the_first_layer_alone() -> None:
    outputs = 64 * 32 * 112 * 112  # channels, time, height, width
    one_channel = 2 * 7**3 * outputs  # a multiplication and an addition for each weight
    assert clip_flops("i3d", ("rgb",)) - clip_flops("i3d", ("flow",)) == one_channel


def test_a_model_costs_what_its_networks_do() -> None:
    assert clip_flops("i3d", ("rgb", "flow")) == clip_flops("i3d", ("rgb",)) + clip_flops("i3d", ("flow",))
    joined = clip_flops("fused", ("rgb", "flow"))
    assert joined < clip_flops("fused", ("rgb",)) + clip_flops("fused", ("flow",)) + 1e6, "one last layer, not two"


def test_the_lstm_looks_at_25_frames_in_training_and_at_50_in_the_test() -> None:
    one_image = clip_flops("two-stream", ("rgb",))
    assert clip_flops("lstm", ("rgb",)) == pytest.approx(25 * one_image, rel=0.01)
    assert video_flops("lstm", ("rgb",)) == pytest.approx(50 * one_image, rel=0.01)


@pytest.mark.parametrize(("architecture", "clips"), [("c3d", 15), ("two-stream", 25), ("fused", 5), ("i3d", 250 / 64)])
def test_the_test_of_a_video_is_that_of_its_windows(architecture: str, clips: float) -> None:
    streams = MODELS[architecture].streams
    assert video_flops(architecture, streams) == pytest.approx(clips * clip_flops(architecture, streams), rel=2e-3)


def test_learning_is_three_forward_passes() -> None:
    assert training_flops("c3d", ("rgb",)) == 3 * clip_flops("c3d", ("rgb",))


@pytest.mark.parametrize("architecture", MODELS)
def test_sizes_are_those_of_table_1(architecture: str) -> None:
    row = MODELS[architecture]
    sizes = network_sizes(architecture, row.streams, 400)
    assert list(sizes) == list(row.networks(row.streams))
    stored = sum(size.stored for size in sizes.values())  # with running averages
    assert stored / 1e6 == pytest.approx(row.params_millions, rel=0.03)
    assert all(size.learning < size.stored for size in sizes.values())  # running averages do not learn
    last = {"lstm": 512, "c3d": 4096, "two-stream": 1024, "fused": 512, "i3d": 1024}[architecture]
    assert {size.features for size in sizes.values()} == {last}
