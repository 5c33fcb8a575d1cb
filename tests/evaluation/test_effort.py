"""What runs will take, against sums by hand."""

import pytest

from vadis.evaluation.effort import (
    SIZES,
    clip_flops,
    evaluation_effort,
    flow_effort,
    last_layer_effort,
    network_sizes,
    training_effort,
    video_flops,
)

RGB, STREAMS = ("rgb",), ("rgb", "flow")


def test_training_is_three_passes_for_every_clip_of_every_step() -> None:
    effort = training_effort("c3d", "ucf101", 1, "full", RGB)
    training = 3 * clip_flops("c3d", RGB) * 16 * 15 * 5_000  # 16 GPUs of 15 clips, 5 k steps (paper)
    assert effort.flops == training + 3_783 * video_flops("c3d", RGB)
    assert effort.gpu_hours(10) == pytest.approx(effort.flops / 1e13 / 3600)


def test_each_stream_of_i3d_has_a_run_and_a_recipe_of_its_own() -> None:
    test = 40_000 * video_flops("i3d", STREAMS)
    rgb, flow = (3 * clip_flops("i3d", (stream,)) * 384 for stream in STREAMS)
    effort = training_effort("i3d", "kinetics", 1, "scratch", STREAMS)
    assert effort.flops == rgb * 115_000 + flow * 155_000 + test


def test_streams_that_are_trained_as_one_have_one_run() -> None:
    effort = training_effort("two-stream", "kinetics", 1, "scratch", STREAMS)
    assert effort.flops == 3 * clip_flops("two-stream", STREAMS) * 384 * 110_000 + 40_000 * video_flops(
        "two-stream", STREAMS
    )


def test_a_last_layer_costs_its_features() -> None:
    effort = last_layer_effort("i3d", "hmdb51", 2, STREAMS)
    assert effort.flops == (3_570 + 1_530) * video_flops("i3d", STREAMS)
    assert effort.num_bytes["features"] == 3_570 * 2 * 1024 * 4
    assert "checkpoints" not in effort.num_bytes


def test_two_checkpoints_keep_parameters_and_momentum() -> None:
    (size,) = network_sizes("lstm", RGB, 51).values()
    kept = training_effort("lstm", "hmdb51", 1, "full", RGB).num_bytes
    assert kept["models"] == 4 * size.stored
    assert kept["checkpoints"] == 2 * 4 * (size.stored + size.learning)


def test_flow_is_what_its_page_says() -> None:
    ucf101 = flow_effort("ucf101", all_splits=False)
    assert ucf101.num_bytes["flow"] == pytest.approx(12e9, rel=0.03)  # docs/flow-store.md
    assert ucf101.core_hours == pytest.approx(25, rel=0.02)
    assert flow_effort("hmdb51", all_splits=True).core_seconds / flow_effort(
        "hmdb51", all_splits=False
    ).core_seconds == pytest.approx(6_766 / 5_100)


def test_a_test_keeps_the_logits_of_every_network() -> None:
    assert evaluation_effort("i3d", "kinetics", 1, STREAMS).num_bytes == {"answers": 40_000 * 400 * 2 * 10}


def test_splits_add_up_to_the_dataset() -> None:
    for train, test in zip(SIZES["ucf101"].train, SIZES["ucf101"].test, strict=True):
        assert train + test == 13_320
