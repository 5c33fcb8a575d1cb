"""Clips from small videos made in code; flow is written into stores without computing it."""

import logging
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.flow.conftest import cheap_flow
from tests.matching import containing
from tests.synthetic import numbered_frames, write_video
from vadis.datasets import Example
from vadis.errors import VadisError, VideoError
from vadis.flow.store import FlowStore, compute_flow, dequantize
from vadis.models import MODELS
from vadis.preprocessing import STREAMS, centre_crop, network_input
from vadis.training.loader import (
    VideoClips,
    draw_augmentation,
    pack,
    place_of_clip,
    sample_keys,
    stream_clips,
    unpack,
)
from vadis.training.recipes import RECIPES, Recipe, find_recipe, override
from vadis.video.reader import open_video

CLASSES = ("walk", "run")
RECIPE = replace(RECIPES["ucf101"], seed=7)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Five videos of 100 numbered frames, the last a short one of 30."""
    folder = tmp_path_factory.mktemp("clips")
    return [
        str(write_video(folder / f"{i}.avi", frames=numbered_frames(range(length))))
        for i, length in enumerate((100, 100, 100, 100, 30))
    ]


@pytest.fixture(scope="module")
def textures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("textures")
    return [str(write_video(folder / f"{i}.mp4", num_frames=80, seed=i, size=(128, 96))) for i in range(4)]


@pytest.fixture
def cheap_store(tmp_path, monkeypatch):
    """An empty store, which is filled with ``cheap_flow``."""
    monkeypatch.setattr(
        "vadis.flow.store.with_flow", lambda chunks, *rest: ((frames, cheap_flow(frames)) for frames in chunks)
    )
    return FlowStore(tmp_path / "store", create=True)


@pytest.fixture
def store(textures, cheap_store):
    assert not [error for _, error in compute_flow(textures, cheap_store, device=torch.device("cpu")) if error]
    return cheap_store


def examples(videos):
    return [Example(path, CLASSES[i % 2]) for i, path in enumerate(videos)]


class Single(VideoClips):
    """Clips of one stream: the tensor itself, unpack, instead of a tuple of one."""

    def clip(self, epoch, index):
        (tensor,), label, name = super().clip(epoch, index)
        tensor = unpack(tensor)
        return tensor, label, name


def clips_of(videos, stream, train, **changes):
    """``changes`` are fields of the recipe, or of the clips."""
    numbers = {name: changes.pop(name) for name in list(changes) if name in Recipe.__dataclass_fields__}
    return Single(examples(videos), CLASSES, (stream,), replace(RECIPE, **numbers), train=train, **changes)


def for_training(videos, stream="rgb", **changes):
    return clips_of(videos, stream, True, **{"clip_frames": 16, **changes})


def for_testing(videos, stream="rgb", **changes):
    return clips_of(videos, stream, False, **changes)


def whole(path):
    with open_video(path) as video:
        return np.stack([frame.pixels for frame in video])


# What a clip is


def test_a_training_clip_is_what_was_drawn(textures):
    clips = for_training(textures)
    for epoch in range(3):
        draw = draw_augmentation(7, epoch, 1)
        x, label, name = clips.clip(epoch, 1)
        frames = whole(textures[1])
        start, top, left = int(draw.start * 65), int(draw.top * 33), int(draw.left * (341 - 223))
        expected = network_input(
            np.ascontiguousarray(frames[start : start + 16, top : top + 224, left : left + 224]), "rgb"
        )[0]
        assert torch.equal(x, expected.flip(-1) if draw.mirror else expected)
        assert (x.shape, x.dtype, label, name) == ((3, 16, 224, 224), torch.float32, 1, textures[1])


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_a_test_clip_is_what_inference_sees(textures, store, stream):
    x, label, _ = for_testing(textures, stream, clip_frames=70, store=store).clip(0, 2)
    array = whole(textures[2])[:70] if stream == "rgb" else dequantize(store.read_levels(textures[2]))[:70]
    assert torch.equal(x, network_input(centre_crop(array, stream), stream)[0])
    assert label == 0
    assert torch.equal(x, for_testing(textures, stream, clip_frames=70, store=store, seed=5).clip(9, 2)[0])


def test_short_videos_are_looped_from_their_start(videos):
    x, _, _ = for_testing(videos, clip_frames=64).clip(0, 4)
    assert torch.equal(x[:, 30:60], x[:, :30])
    assert torch.equal(x[:, 60:], x[:, :4])
    x, _, _ = for_training(videos, clip_frames=64, flip=False).clip(0, 4)
    assert torch.equal(x[:, 30:60], x[:, :30])


def test_every_fifth_frame_of_a_looped_video_goes_on_from_where_the_loop_is(tmp_path):
    """ConvNet+LSTM's 25 of 125 frames, of 33: … 25 30 2 7 …, not the same ones again."""
    path = str(write_video(tmp_path / "a.avi", num_frames=33, seed=6))
    sampling = MODELS["lstm"].sampling
    x, _, _ = for_testing([path], clip_frames=125, sampling=sampling).clip(0, 0)
    places = [0, 5, 10, 15, 20, 25, 30, 2, 7, 12, 17, 22, 27, 32, 4, 9, 14, 19, 24, 29, 1, 6, 11, 16, 21]
    assert torch.equal(x, network_input(centre_crop(whole(path)[places], "rgb"), "rgb")[0])
    y, _, _ = for_training([path], clip_frames=125, sampling=sampling, flip=False).clip(0, 0)
    assert y.shape == x.shape and not torch.equal(y[:, 6], y[:, 7])


@pytest.mark.slow
def test_the_flow_of_a_mirrored_clip_has_the_other_sign(textures, store):
    """A mirrored clip mirrored back is the clip itself, with dx negated."""
    epoch = next(epoch for epoch in range(20) if draw_augmentation(7, epoch, 0).mirror)
    x, y = (for_training(textures, "flow", store=store, flip=flip).clip(epoch, 0)[0] for flip in (True, False))
    assert torch.equal(x[0], -y[0].flip(-1))
    assert torch.equal(x[1], y[1].flip(-1))
    assert x.abs().max() <= 1


def test_flips_can_be_turned_off(textures):
    flipped, plain = for_training(textures), for_training(textures, flip=False)
    same = [torch.equal(flipped.clip(epoch, 0)[0], plain.clip(epoch, 0)[0]) for epoch in range(10)]
    assert same == [not draw_augmentation(7, epoch, 0).mirror for epoch in range(10)]
    assert True in same and False in same


@pytest.mark.slow
def test_jitter_is_for_the_colours_of_training_clips(textures, store):
    jitter = {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3}
    assert not torch.equal(for_training(textures, **jitter).clip(0, 0)[0], for_training(textures).clip(0, 0)[0])
    assert torch.equal(for_training(textures, **jitter).clip(0, 0)[0], for_training(textures, **jitter).clip(0, 0)[0])
    assert torch.equal(for_testing(textures, **jitter).clip(0, 0)[0], for_testing(textures).clip(0, 0)[0])
    flow = for_training(textures, "flow", store=store, **jitter).clip(0, 0)[0]
    assert torch.equal(flow, for_training(textures, "flow", store=store).clip(0, 0)[0])


def test_rgb_and_flow_of_a_clip_are_in_step(textures, store):
    """``cheap_flow`` has the red of its frame as dx, so both clips show the same pixels."""
    red = for_training(textures, clip_frames=8).clip(3, 1)[0][0]
    dx = for_training(textures, "flow", clip_frames=8, store=store).clip(3, 1)[0][0]
    sign = -1 if draw_augmentation(7, 3, 1).mirror else 1
    assert (sign * dx - (red * 25 / 20).clamp(-1, 1)).abs().mean() < 0.02


# Parts of videos, and lengths that headers do not know


@pytest.mark.parametrize(
    ("bounds", "length", "frames", "part"),
    [
        ((None, None), 250, 64, range(0, 64)),
        ((None, None), 30, 64, range(0, 30)),
        ((2.0, 4.0), 250, 64, range(50, 100)),
        ((2.0, None), 250, 64, range(50, 114)),
        ((2.0, 40.0), 70, 64, range(50, 70)),
    ],
)
def test_the_part_of_a_video_that_is_tested(bounds, length, frames, part):
    assert place_of_clip(Example("a", "walk", *bounds), length, frames, None) == part


@pytest.mark.parametrize(
    ("length", "part"),
    [
        (75, range(0, 64)),  # 3 s, as listed: the clip itself
        (70, range(0, 64)),
        (20, range(0, 20)),  # ends before the clip would begin
        (250, range(50, 114)),  # the whole video
        (124, range(50, 114)),  # the whole video, rounded
    ],
)
def test_the_part_of_a_clip_that_may_be_cut_already(length, part):
    assert place_of_clip(Example("a", "walk", 2.0, 5.0, may_be_trimmed=True), length, 64, None) == part


def test_a_part_that_is_not_there():
    with pytest.raises(VideoError) as error:
        place_of_clip(Example("a", "walk", 10.0, 12.0), 200, 64, None)
    assert error.value.code == "too_short"


def test_training_starts_stay_within_the_part():
    parts = [
        place_of_clip(Example("a", "walk", 2.0, 6.0), 250, 64, draw_augmentation(0, 0, index)) for index in range(500)
    ]
    assert {part.start for part in parts} == set(range(50, 50 + 100 - 64 + 1))


def test_a_header_that_states_no_length(tmp_path):
    path = write_video(tmp_path / "a.gif", frames=numbered_frames(range(40)), codec="gif", fps=20)
    video = whole(path)
    assert len(video) == 50
    x, _, _ = for_testing([path], clip_frames=64).clip(0, 0)
    assert torch.equal(x[:, :50], network_input(centre_crop(video, "rgb"), "rgb")[0])
    assert torch.equal(x[:, 50:], x[:, :14])


def long_by_sound(path, **more):
    """2 s of pictures in a file whose header says 5 s, because its sound goes on."""
    write_video(path, num_frames=50, size=(128, 96), codec="libx264", audio=True, audio_seconds=5.0, **more)
    path.write_bytes(path.read_bytes().replace(b"DURATION", b"UNKNOWN_"))  # tags with the length of each stream
    return str(path)


def test_a_header_that_promises_too_much(tmp_path):
    """The clip is drawn again for the length that there is."""
    path = long_by_sound(tmp_path / "a.mkv")
    with open_video(path) as video:
        length = video.expected_num_frames
    assert length > 100
    clips, frames = for_training([path], flip=False), whole(path)
    late = 0
    for epoch in range(8):
        draw = draw_augmentation(7, epoch, 0)
        promised, real = int(draw.start * (length - 15)), int(draw.start * (50 - 15))
        late += promised > 34
        start = promised if promised <= 34 else real
        top, left = int(draw.top * 33), int(draw.left * (341 - 223))
        seen = np.ascontiguousarray(frames[start : start + 16, top : top + 224, left : left + 224])
        assert torch.equal(clips.clip(epoch, 0)[0], network_input(seen, "rgb")[0])
    assert late


def test_all_streams_of_a_joint_clip_show_the_same_moment_whatever_the_header_says(tmp_path, cheap_store):
    """The file's sound is longer than its pictures, so that header and store know different lengths."""
    path = long_by_sound(tmp_path / "a.mkv", seed=3)
    assert not [error for _, error in compute_flow([path], cheap_store, device=torch.device("cpu")) if error]
    clips = VideoClips(
        examples([path]), CLASSES, ("rgb", "flow"), replace(RECIPE, clip_frames=8), train=True, store=cheap_store
    )
    for epoch in range(6):
        rgb, flow = (unpack(tensor) for tensor in clips.clip(epoch, 0)[0])
        sign = -1 if draw_augmentation(7, epoch, 0).mirror else 1
        assert (sign * flow[0] - (rgb[0] * 25 / 20).clamp(-1, 1)).abs().mean() < 0.02, epoch


def test_a_length_that_was_looked_up_before_changes_no_clip(tmp_path):
    path = long_by_sound(tmp_path / "a.mkv")
    used = for_training([path])
    for epoch in range(4):
        used.clip(epoch, 0)
    assert all(torch.equal(used.clip(e, 0)[0], for_training([path]).clip(e, 0)[0]) for e in range(4))


# The same clips whoever loads them


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(textures):
    recipe = override(find_recipe("ucf101"), {"batch_size": 4, "micro_batch": 4})

    def first(workers):
        order = list(zip(range(10), sample_keys(4, recipe, 0), strict=False))
        stream = stream_clips(for_training(textures, clip_frames=4), [key for _, key in order], workers)
        return [(clip.position, clip.name, clip.label, clip.tensors.sum().item()) for clip in stream]

    assert first(2) == first(0)


def test_clips_can_be_sent_to_other_processes(textures, store):
    for clips in (for_training(textures), for_training(textures, "flow", store=store)):
        assert torch.equal(pickle.loads(pickle.dumps(clips)).clip(1, 1)[0], clips.clip(1, 1)[0])


# Broken videos


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"\0\0\0\x18ftypisom" + bytes(100))
    return str(path)


def test_a_broken_video_is_replaced_by_the_next(textures, broken, caplog):
    clips = for_training([textures[0], broken, textures[1], textures[2]])
    with caplog.at_level(logging.WARNING):
        x, label, name = clips.clip(0, 1)
        clips.clip(1, 1)
    assert (name, label) == (textures[1], 0)
    assert torch.equal(x, clips.clip(0, 1)[0])
    assert not torch.equal(x, clips.clip(0, 2)[0]), "another clip of it than its own"
    assert clips.broken() == [(broken, "truncated_or_incomplete")]
    assert [record.getMessage().count(broken) for record in caplog.records] == [1]


def test_a_video_that_was_broken_for_a_moment_is_so_no_longer(textures, broken, tmp_path):
    clips = for_training([*textures, broken])
    clips.clip(0, 4)
    assert len(clips.broken()) == 1
    (tmp_path / "broken.mp4").write_bytes(Path(textures[0]).read_bytes())
    assert clips.clip(1, 4)[2] == broken and clips.broken() == []


def test_the_last_is_replaced_by_the_first(textures, broken):
    assert for_training([*textures, broken]).clip(0, 4)[2] == textures[0]


def test_a_video_whose_flow_is_missing_is_broken(textures, store, videos):
    labels = {textures[0]: "walk", videos[0]: "run", textures[1]: "run"}
    examples = [Example(path, label) for path, label in labels.items()]
    clips = VideoClips(examples, CLASSES, ("flow",), replace(RECIPE, clip_frames=16), train=True, store=store)
    assert clips.clip(0, 1)[2] == textures[1]
    assert clips.broken() == [(videos[0], "not_found")]


def test_more_than_one_percent_stops_with_the_list(textures, broken):
    """Of 200 examples two may be broken."""
    paths = [textures[0]] * 200
    for number in (3, 50, 120):
        paths[number] = broken
    clips = for_training(paths, clip_frames=2)
    clips.clip(0, 3)
    clips.clip(0, 50)
    with pytest.raises(VadisError, match=containing(3, 200, "broken.mp4 (truncated_or_incomplete")) as error:
        clips.clip(0, 120)
    assert not isinstance(error.value, VideoError)


def test_a_class_without_a_readable_training_video_stops_the_run(textures, broken):
    """Among 1,000 one broken video may be replaced; but nobody learns a class of which it was the only one."""
    others = [Example(textures[0], "walk")] * 1000
    clips = VideoClips([*others, Example(broken, "run")], CLASSES, ("rgb",), replace(RECIPE, clip_frames=2), train=True)
    with pytest.raises(VadisError, match=containing("run", broken)) as error:
        clips.clip(0, 1000)
    assert broken in str(error.value)
    tested = VideoClips(
        [*others, Example(broken, "run")], CLASSES, ("rgb",), replace(RECIPE, clip_frames=2), train=False
    )
    assert tested.clip(0, 1000)[1] == 0


@pytest.mark.slow
def test_workers_count_together(textures, broken):
    """Each of two workers meets one broken video; the main process knows of both."""
    clips = for_training([textures[0], broken, broken, *[textures[1]] * 200], clip_frames=2)
    list(stream_clips(clips, [(position, 0, index) for position, index in enumerate((1, 2, 0, 3))], 2))
    assert [code for _, code in clips.broken()] == ["truncated_or_incomplete"] * 2


def test_bytes_are_what_a_network_eats():
    """Every level of both streams, as it is and in the mirror, value for value as inference scales it."""
    levels = np.arange(256, dtype=np.uint8).repeat(2 * 3).reshape(1, 2, 3, 256)  # (T, 2, H, W)
    flow = network_input(dequantize(levels), "flow")
    assert torch.equal(unpack(pack(levels, "flow", mirror=False)), flow[0])
    assert torch.equal(unpack(pack(levels, "flow", mirror=True)), STREAMS["flow"].mirror(flow)[0])
    pictures = np.arange(256, dtype=np.uint8).repeat(3 * 3).reshape(1, 3, 256, 3)  # (T, H, W, 3)
    rgb = network_input(pictures, "rgb")
    assert torch.equal(unpack(pack(pictures, "rgb", mirror=False)), rgb[0])
    assert torch.equal(unpack(pack(pictures, "rgb", mirror=True)), STREAMS["rgb"].mirror(rgb)[0])
    assert pack(pictures, "rgb", mirror=True).dtype == pack(levels, "flow", mirror=True).dtype == torch.uint8
