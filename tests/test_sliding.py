"""Networks that move over a video and run out of memory on the way: the same outputs, to the last clip."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from tests.make_model import make_model
from vadis.memory import NoMemoryError
from vadis.models import folded
from vadis.models.folded import FEATURES, LOGITS
from vadis.sliding import WHOLE_VIDEO, Sliding, outputs
from vadis.video.facts import VideoFacts
from vadis.video.windows import cut
from vadis.weights.model_file import load_model_file

TOLERANCE = 1e-6  # of the largest output, beside a run of one frame or window at a time
FRAMES = 88  # chunks of 32, 32 and 24
PLACES = 50
WINDOWS = Sliding(window=16, stride=16)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model_file(make_model(tmp_path_factory.mktemp("m") / "tiny.safetensors", width=1 / 32, classes=3))


@pytest.fixture(scope="module")
def clip():
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (FRAMES, 224, 224, 3), np.uint8)
    return {"rgb": rgb, "flow": rng.normal(scale=5, size=(FRAMES, 2, 224, 224)).astype(np.float32)}


class Video:
    """A video as far as its length is asked for."""

    facts = VideoFacts(Fraction(25), (224, 224), 0, FRAMES / 25, FRAMES, FRAMES, FRAMES, "ok", ())


def ran(model, clip, sliding, **options):
    model.portions.clear()
    clips = (cut(clip, start, start + 32) for start in range(0, FRAMES, 32))
    return list(outputs(clips, Video(), model, sliding, **options))


class Memory:
    """Counts what the network computes, and runs out at one place, once; or whenever more than ``most`` come."""

    def __init__(self, monkeypatch):
        self.calls, self.fails_at, self.most, self.largest = 0, None, None, []
        plain = folded.FoldedConv.__call__

        def call(unit, x, passage):
            self.calls += 1
            if x is not None:
                self.largest.append(x.shape[0] * x.shape[2])
            if self.calls == self.fails_at or (self.most and x is not None and x.shape[0] * x.shape[2] > self.most):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            return plain(unit, x, passage)

        monkeypatch.setattr(folded.FoldedConv, "__call__", call)


def assert_equal(found, expected):
    assert [seconds for seconds, _ in found] == [seconds for seconds, _ in expected]
    for (_, output), (_, wanted) in zip(found, expected, strict=True):
        assert list(output) == list(wanted)
        for name, row in wanted.items():
            np.testing.assert_allclose(output[name], row, rtol=0, atol=TOLERANCE * np.abs(row).max())


def at_places(model, clip, monkeypatch, sliding, batch_size, places):
    """Memory runs out once, at each of so many places in turn: in every layer, in both streams, in every chunk."""
    memory, said = Memory(monkeypatch), []
    expected = ran(model, clip, sliding, batch_size=1)
    memory.calls = 0
    ran(model, clip, sliding, batch_size=batch_size)
    total = memory.calls
    for place in range(places):
        memory.calls, memory.fails_at = 0, 1 + place * total // places
        found = ran(model, clip, sliding, batch_size=batch_size, notify=said.append)
        assert memory.calls > total  # something was done again
        assert_equal(found, expected)
    assert len(said) == places


@pytest.mark.parametrize(("sliding", "batch_size"), [(WHOLE_VIDEO, 1), (WINDOWS, 4)])
def test_memory_may_run_out_at_any_place(model, clip, monkeypatch, sliding, batch_size):
    at_places(model, clip, monkeypatch, sliding, batch_size, PLACES // 16)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("sliding", "batch_size"), [(WHOLE_VIDEO, 1), (WINDOWS, 4)])
def test_memory_may_run_out_at_fifty_places(model, clip, monkeypatch, sliding, batch_size):
    at_places(model, clip, monkeypatch, sliding, batch_size, PLACES)


@pytest.mark.parametrize("most", [1, 5, 16])
def test_frames_go_through_one_by_one_if_need_be(model, clip, monkeypatch, most):
    """Chunks of any length give what the whole gives; each halving is tried once in a run, not once in a chunk."""
    expected = ran(model, clip, WHOLE_VIDEO)
    memory, said = Memory(monkeypatch), []
    memory.most = most + 8  # with what the first layer holds of the frames before
    assert_equal(ran(model, clip, WHOLE_VIDEO, notify=said.append), expected)
    assert len(said) == 1
    failures = sum(size > memory.most for size in memory.largest)
    assert failures <= 6  # log2(32) + 1


@pytest.mark.parametrize(("batch_size", "layer", "flip"), [(4, LOGITS, True), (64, FEATURES, False)])
def test_a_batch_of_windows_gives_what_they_give_one_by_one(model, clip, batch_size, layer, flip):
    rgb = model.only(("rgb",))
    expected = ran(rgb, {"rgb": clip["rgb"]}, WINDOWS, layer=layer, flip=flip)
    assert len(expected) == 6
    assert_equal(ran(rgb, {"rgb": clip["rgb"]}, WINDOWS, layer=layer, flip=flip, batch_size=batch_size), expected)


def test_where_one_frame_is_too_much_there_is_an_end(model, clip, monkeypatch):
    memory = Memory(monkeypatch)
    memory.most = 0.5
    with pytest.raises(NoMemoryError, match="memory ran out on cpu with one of the frames at a time"):
        ran(model, clip, WHOLE_VIDEO)
