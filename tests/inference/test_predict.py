"""Networks that move over a video: whole, as the plain one sees exactly its frames; or out of memory on the way."""

import random
import weakref
from contextlib import closing
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch

from tests.make_model import make_model
from tests.matching import containing
from tests.plain_pass import cropped_clip, plain_outputs, relative_difference
from tests.synthetic import write_video
from vadis.device import NoMemoryError
from vadis.inference.predict import WHOLE_VIDEO, Sliding, num_padding_frames, over_whole_video, predict
from vadis.inference.prefetch import LocalVideo
from vadis.models import i3d_inference, inference_form
from vadis.models.i3d import num_steps
from vadis.models.i3d_inference import FEATURES, LOGITS
from vadis.preprocessing import cut_clip
from vadis.video.isolated.pool import Decoders
from vadis.video.metadata import VideoFacts
from vadis.weights.model_file import load_model_file

TOLERANCE = 1e-6  # of the largest output, beside a run of one frame or window at a time
FRAMES = 88  # chunks of 32, 32 and 24
PLACES = 50
WINDOWS = Sliding(window=16)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model_file(make_model(tmp_path_factory.mktemp("m") / "tiny.safetensors", width=1 / 32, classes=3))


@pytest.fixture(scope="module")
def clip():
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (FRAMES, 224, 224, 3), np.uint8)
    return {"rgb": rgb, "flow": rng.normal(scale=5, size=(FRAMES, 2, 224, 224)).astype(np.float32)}


class Video:
    """A video whose clips are there."""

    path, expected_num_frames = "v.mp4", None
    facts = VideoFacts(Fraction(25), (224, 224), 0, FRAMES / 25, FRAMES, FRAMES, FRAMES, "ok", ())

    def __init__(self, clip):
        self.streams, self._clip = tuple(clip), clip

    def clips(self, report):
        return (cut_clip(self._clip, start, start + 32) for start in range(0, FRAMES, 32))


def ran(model, clip, sliding, **options):
    model.batch_limits.clear()
    return list(predict(Video(clip), model, sliding, **options))


class Memory:
    """Counts what the network computes, and runs out at one place, once; or whenever more than ``most`` come."""

    def __init__(self, monkeypatch):
        self.calls, self.fails_at, self.most, self.largest = 0, None, None, []
        plain = i3d_inference.FoldedConv.__call__

        def call(unit, x, passage):
            self.calls += 1
            if x is not None:
                self.largest.append(x.shape[0] * x.shape[2])
            if self.calls == self.fails_at or (self.most and x is not None and x.shape[0] * x.shape[2] > self.most):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            return plain(unit, x, passage)

        monkeypatch.setattr(i3d_inference.FoldedConv, "__call__", call)


def assert_equal(found, expected):
    assert [seconds for seconds, _ in found] == [seconds for seconds, _ in expected]
    for (_, output), (_, wanted) in zip(found, expected, strict=True):
        assert list(output) == list(wanted)
        for name, row in wanted.items():
            np.testing.assert_allclose(output[name], row, rtol=0, atol=TOLERANCE * np.abs(row).max())


def at_places(model, clip, monkeypatch, caplog, sliding, batch_size, places):
    """Memory runs out once, at each of so many places in turn: in every layer, in both streams, in every chunk."""
    memory = Memory(monkeypatch)
    expected = ran(model, clip, sliding, batch_size=1)
    memory.calls = 0
    ran(model, clip, sliding, batch_size=batch_size)
    total = memory.calls
    for place in range(places):
        memory.calls, memory.fails_at = 0, 1 + place * total // places
        found = ran(model, clip, sliding, batch_size=batch_size)
        assert memory.calls > total  # something was done again
        assert_equal(found, expected)
    assert len(caplog.messages) == places


@pytest.mark.slow
@pytest.mark.parametrize(("sliding", "batch_size"), [(WHOLE_VIDEO, 1), (WINDOWS, 4)])
def test_memory_may_run_out_at_any_place(model, clip, monkeypatch, caplog, sliding, batch_size):
    at_places(model, clip, monkeypatch, caplog, sliding, batch_size, PLACES // 16)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("sliding", "batch_size"), [(WHOLE_VIDEO, 1), (WINDOWS, 4)])
def test_memory_may_run_out_at_fifty_places(model, clip, monkeypatch, caplog, sliding, batch_size):
    at_places(model, clip, monkeypatch, caplog, sliding, batch_size, PLACES)


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, 5, 16])
def test_frames_go_through_one_by_one_if_need_be(model, clip, monkeypatch, caplog, most):
    """Chunks of any length give what the whole gives; each halving is tried once in a run, not once in a chunk."""
    expected = ran(model, clip, WHOLE_VIDEO)
    memory = Memory(monkeypatch)
    memory.most = most + 8  # with what the first layer holds of the frames before
    assert_equal(ran(model, clip, WHOLE_VIDEO), expected)
    assert len(caplog.messages) == 1
    failures = sum(size > memory.most for size in memory.largest)
    assert failures <= 6  # log2(32) + 1


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "layer", "flip"), [(4, LOGITS, True), (64, FEATURES, False)])
def test_a_batch_of_windows_gives_what_they_give_one_by_one(model, clip, batch_size, layer, flip):
    rgb = model.only(("rgb",))
    expected = ran(rgb, {"rgb": clip["rgb"]}, WINDOWS, layer=layer, flip=flip)
    assert len(expected) == 6
    assert_equal(ran(rgb, {"rgb": clip["rgb"]}, WINDOWS, layer=layer, flip=flip, batch_size=batch_size), expected)


@pytest.mark.slow
def test_where_one_frame_is_too_much_there_is_an_end(model, clip, monkeypatch):
    memory = Memory(monkeypatch)
    memory.most = 0.5
    with pytest.raises(NoMemoryError, match=containing("cpu", "frames")):
        ran(model, clip, WHOLE_VIDEO)


def drawn_lengths():
    """(frames, promised, chunk): for every remainder by 8 a right header, one that lies, and none; as in every run."""
    draw, cases = random.Random(1705), []
    for rest in range(8):
        for promise in ("right", "lies", "unknown"):
            frames = 8 * draw.randint(8, 14) + rest
            lie = frames + draw.choice([-50, -3, -2, -1, 1, 2, 3, 1000])
            promised = {"right": frames, "lies": lie, "unknown": None}[promise]
            cases.append((frames, promised, draw.choice([7, 32, 50, 128])))
    return cases


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    path = make_model(tmp_path_factory.mktemp("m") / "narrow.safetensors", width=1 / 64, classes=3, streams=("rgb",))
    return load_model_file(path)


def random_frames(count):
    return np.random.default_rng(count).integers(0, 256, (count, 224, 224, 3), np.uint8)


def told_in_chunks(frames, size):
    return ({"rgb": frames[start : start + size]} for start in range(0, len(frames), size))


def seen_whole(model, frames, promised, size, layer=LOGITS, least=64):
    found = list(over_whole_video(told_in_chunks(frames, size), model, promised, min_frames=least, layer=layer))
    return [seconds for seconds, _ in found], np.stack([rows["rgb"] for _, rows in found])


@pytest.mark.slow
@pytest.mark.parametrize(("count", "promised", "size"), drawn_lengths())
def test_a_video_is_seen_as_the_plain_network_sees_exactly_its_frames(narrow, count, promised, size):
    """Whatever its header promises."""
    frames = random_frames(count)
    seconds, logits = seen_whole(narrow, frames, promised, size)
    assert relative_difference(logits, plain_outputs({"rgb": frames}, narrow)["rgb"]) < 1e-5
    assert seconds == [Fraction(8 * (step + 1), 25) for step in range(-(-count // 8) - 1)]


@pytest.mark.parametrize(("count", "size", "promised"), [(1, 32, 1), (9, 4, None), (33, 32, 3), (63, 32, 501)])
def test_a_short_video_is_seen_looped(narrow, count, size, promised):
    frames = random_frames(count)
    _, logits = seen_whole(narrow, frames, promised, size)
    assert relative_difference(logits, plain_outputs({"rgb": frames}, narrow)["rgb"]) < 1e-5


@pytest.mark.parametrize(
    ("extra", "layer"),
    [
        *((extra, LOGITS) for extra in (-3, -2, -1, 4, None)),
        (3, "Conv3d_1a_7x7"),
        (1, "Conv3d_1a_7x7"),
        (2, "Mixed_4b"),
    ],
)
def test_a_long_video_is_completed_to_what_was_promised(narrow, monkeypatch, extra, layer):
    """By its last frame; steps in which there is no frame of its own are left out."""
    monkeypatch.setattr("vadis.inference.predict.SHORT_FRAMES", 64)
    frames, promised = random_frames(96), None if extra is None else 96 + extra
    added = num_padding_frames(96, promised)
    assert added == (extra or 0) % 4
    seen = frames[np.minimum(np.arange(96 + added), 95)]
    expected = plain_outputs({"rgb": seen}, narrow, layer)["rgb"][: num_steps(layer, 96)]
    seconds, outputs = seen_whole(narrow, frames, promised, 20, layer)
    assert relative_difference(outputs, expected) < 1e-5
    assert seconds[-1] < Fraction(96, 25)


@pytest.mark.slow
def test_what_is_kept_does_not_grow_with_the_video(narrow, monkeypatch):
    monkeypatch.setattr("vadis.inference.predict.SHORT_FRAMES", 64)
    given, most = [], []

    def clips():
        for _ in range(24):
            chunk = np.zeros((8, 224, 224, 3), np.uint8)
            given.append(weakref.ref(chunk))
            yield {"rgb": chunk}
            del chunk
            most.append(sum(chunk() is not None for chunk in given))

    for promised in (192, None):
        most.clear()
        assert len(list(over_whole_video(clips(), narrow, promised, min_frames=64))) == 23
        assert max(most) <= 64 // 8 + 2
        assert max(most[12:]) <= 3


@pytest.mark.slow
@pytest.mark.parametrize(("start", "most", "count"), [(0, 69, 69), (3, 66, 66), (10, 500, 75), (7, 70, 70), (5, 1, 1)])
def test_a_part_of_a_video_is_seen_as_the_plain_network_sees_it(narrow, tmp_path, start, most, count):
    """As the paper's test looks at it; the part promises its own length, and its progress counts to that."""
    path, seen = write_video(tmp_path / "long.mp4", num_frames=85, size=(96, 64), seed=2), []
    begin = partial(LocalVideo, path, narrow, start_frame=start, max_frames=most)
    with Decoders() as decoders, closing(begin(decoders)) as video:
        found = [rows["rgb"] for _, rows in predict(video, narrow, progress=seen.append)]
    clip = {"rgb": cropped_clip(path, slice(start, start + max(most, 2)))["rgb"][:most]}
    expected = plain_outputs(clip, narrow)["rgb"]
    assert relative_difference(np.stack(found), expected) < 1e-5
    assert {event.frames_total for event in seen} == {seen[-1].frames_done} == {count}


@pytest.mark.slow
def test_windows_of_one_video_share_a_pass(model, clip, monkeypatch):
    """As many as the batch size says; a video's outputs do not depend on the videos beside it."""
    passes, form = [], inference_form(model.only(("rgb",)))["rgb"]

    def counted(x, layer):
        passes.append(len(x))
        return form(x, layer=layer)

    monkeypatch.setitem(model.folded, "rgb", counted)
    rgb = model.only(("rgb",))
    for batch_size, expected in ((4, [4, 2]), (6, [6]), (100, [6]), (0, [1] * 6)):
        ran(rgb, {"rgb": clip["rgb"]}, WINDOWS, batch_size=batch_size)
        assert passes == expected
        passes.clear()
