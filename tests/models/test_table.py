"""The contract of every row of MODELS: footprints of table 1, and that a model file of it walks the whole road."""

from contextlib import closing

import numpy as np
import pytest
import torch

from tests.matching import containing
from tests.synthetic import write_video
from vadis.datasets import Example
from vadis.errors import UsageError
from vadis.evaluation.metrics import predict_all
from vadis.inference.classify import classify
from vadis.inference.features import extract_features
from vadis.models import BOTH, MODELS, ModelCard, build_networks, inference_form
from vadis.models.i3d_inference import FEATURES
from vadis.preprocessing import STREAMS, centre_crop, network_input
from vadis.video.metadata import SHORT_SIDE
from vadis.video.reader import open_video
from vadis.weights.model_file import load_model_file, save_model

pytestmark = pytest.mark.usefixtures("quick_tvl1")

LABELS = ("a", "b", "c")
WIDTH = 1 / 32
TABLE_1 = {  # what a network sees of a training clip and of a test video, by stream; seconds of both (paper)
    "lstm": ({"rgb": 25}, 5.0, {"rgb": 50}, 10.0),
    "c3d": ({"rgb": 16}, 0.64, {"rgb": 240}, 9.6),
    "two-stream": ({"rgb": 1, "flow": 10}, 0.4, {"rgb": 25, "flow": 250}, 10.0),
    "fused": ({"rgb": 5, "flow": 50}, 2.0, {"rgb": 25, "flow": 250}, 10.0),
    "i3d": ({"rgb": 64, "flow": 64}, 2.56, {"rgb": 250, "flow": 250}, 10.0),
}


def test_every_architecture_of_the_paper_is_there():
    assert list(MODELS) == list(TABLE_1)
    assert [row.letter for row in MODELS.values()] == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("name", MODELS)
def test_footprints_are_those_of_table_1(name):
    row, (training, training_seconds, test, test_seconds) = MODELS[name], TABLE_1[name]
    assert row.window_frames / 25 == training_seconds
    assert row.test_frames / 25 == test_seconds
    window = row.test_window or row.test_frames
    assert row.test_frames % window == 0
    for stream in row.streams:
        assert len(range(row.window_frames)[row.sampling[stream]]) == training[stream]
        assert row.test_frames // window * len(range(window)[row.sampling[stream]]) == test[stream]
    assert row.snapshots in (0, row.test_frames // window)


def card(name: str, **changes) -> ModelCard:
    row = MODELS[name]
    values = {"streams": row.streams, "labels": LABELS, "width": WIDTH, "window_frames": row.window_frames}
    return ModelCard(f"tiny-{name}", name, **{**values, "short_side": row.short_side, "crop": row.crop, **changes})


def saved(path, name, **changes):
    torch.manual_seed(3)
    made = card(name, **changes)
    save_model(path, made, {key: network.state_dict() for key, network in build_networks(made).items()})
    return load_model_file(path, "cpu")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("table") / "v.mp4", num_frames=70, seed=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_model_file_of_it_labels_a_video_and_answers_the_papers_test(tmp_path, video, name):
    model, row = saved(tmp_path / "m.safetensors", name), MODELS[name]
    assert list(model.networks) == list(row.networks(row.streams))
    result = classify(video, model)
    assert result.streams == row.streams
    assert sum(label.score for label in result.clip_score) == pytest.approx(1, abs=1e-5)
    assert result.segments[-1].end == pytest.approx(2.8)
    found = next(predict_all([Example(str(video), "a")], model))
    assert found.status == "ok"
    assert list(found.logits) == list(model.networks)
    arrays, _ = extract_features(video, model, layer=FEATURES)
    assert {key: array.ndim for key, array in arrays.items()} == dict.fromkeys(model.networks, 2)


@pytest.mark.parametrize("name", ["c3d", "two-stream", "fused"])
def test_windows_follow_one_another_and_the_last_ends_with_the_video(tmp_path, video, name):
    model, row = saved(tmp_path / "m.safetensors", name), MODELS[name]
    _, seconds = extract_features(video, model)
    starts = [round(centre * 25 - row.test_window / 2) for centre in seconds]
    expected = [*range(0, 70 - row.test_window + 1, row.test_window)]
    assert starts == expected + [70 - row.test_window] * (70 % row.test_window > 0)


def test_two_stream_takes_25_snapshots_also_of_a_short_video(tmp_path, video):
    model, seen = saved(tmp_path / "m.safetensors", "two-stream", streams=("rgb",)), []

    def form(clip, layer):
        seen.append(clip)
        return torch.zeros(1, len(LABELS), 1)

    model.folded["rgb"] = form
    assert next(predict_all([Example(str(video), "a")], model)).status == "ok"
    with open_video(video) as opened:
        frames = centre_crop(np.stack([frame.pixels for frame in opened]), "rgb")
    starts = [round(number * 60 / 24) for number in range(25)]  # of 70 frames, in windows of 10
    assert torch.equal(torch.cat(seen), torch.cat([network_input(frames[start + 5 :][:1], "rgb") for start in starts]))


def test_the_lstm_is_tested_on_every_fifth_frame_also_of_a_looped_video(tmp_path):
    """33 frames, looped to 250: the fifty that it sees are those of the loop, 5 apart."""
    short = write_video(tmp_path / "short.mp4", num_frames=33, seed=4)
    model, seen = saved(tmp_path / "m.safetensors", "lstm"), []

    def form(clip, layer):
        seen.append(clip)
        return torch.zeros(1, len(LABELS), 1)

    model.folded["rgb"] = form
    assert next(predict_all([Example(str(short), "a")], model)).status == "ok"
    with open_video(short) as opened:
        frames = centre_crop(np.stack([frame.pixels for frame in opened]), "rgb")
    (clip,) = seen
    assert torch.equal(clip, network_input(frames[np.arange(0, 250, 5) % 33], "rgb"))


@pytest.mark.slow
def test_one_stream_of_two_is_a_model_too_where_it_has_a_network(tmp_path, video):
    model = saved(tmp_path / "m.safetensors", "two-stream")
    assert classify(video, model.only(("flow",))).streams == ("flow",)
    with pytest.raises(UsageError, match=containing("tiny-fused")):
        saved(tmp_path / "d.safetensors", "fused").only(("rgb",))
    alone = saved(tmp_path / "n.safetensors", "fused", streams=("rgb",))
    assert list(alone.networks) == ["rgb"]
    assert classify(video, alone).streams == ("rgb",)


@pytest.mark.slow
def test_probabilities_are_averaged_over_streams_and_snapshots(tmp_path, video):
    model = saved(tmp_path / "m.safetensors", "two-stream")
    given = {stream: inference_form(model)[stream] for stream in model.networks}
    from vadis.inference.predict import predict
    from vadis.inference.prefetch import LocalVideo
    from vadis.video.isolated.pool import Decoders

    with Decoders() as decoders, closing(LocalVideo(video, model, decoders)) as pending:
        steps = [output for _, output in predict(pending, model)]
    each = [torch.softmax(torch.from_numpy(step[stream]), 0) for step in steps for stream in given]
    expected = torch.stack(each).mean(dim=0)
    scores = {label.label: label.score for label in classify(video, model).clip_score}
    assert [scores[label] for label in LABELS] == pytest.approx(expected.tolist(), abs=1e-6)
    assert BOTH not in given


def test_c3d_sees_the_crop_shrunk_to_half():
    assert MODELS["c3d"].short_side * 2 == SHORT_SIDE
    frames = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8).numpy()
    x = network_input(frames, "rgb", shrink=2)
    assert x.shape == (1, 3, 2, 112, 112)
    whole = STREAMS["rgb"].to_input(frames)
    assert torch.allclose(x[..., 5, 7], whole[..., 10:12, 14:16].mean(dim=(3, 4)), atol=1e-6)
