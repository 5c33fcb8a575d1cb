"""Windows of several videos in one pass: each video's record is the one it has alone, and nothing waits for ever."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from tests.inference.test_prefetch import Begun
from tests.make_model import make_model
from tests.matching import containing
from tests.synthetic import write_video
from vadis.device import NoMemoryError
from vadis.errors import UsageError
from vadis.inference import predict
from vadis.inference.classify import Sliding, classify, classify_many
from vadis.inference.features import features_of_many
from vadis.inference.predict import Batches, Tray, outputs_together
from vadis.inference.prefetch import each_prepared
from vadis.models import Model
from vadis.models.i3d_inference import LOGITS
from vadis.weights.model_file import load_model_file

pytestmark = pytest.mark.usefixtures("quick_tvl1")

CPU = torch.device("cpu")
WINDOWS = Sliding(window=16, stride=16)
TOLERANCE = 1e-5  # of a score: the last bits follow from how many windows share a pass
LENGTHS = (40, 5, 1, 33, 16, 70)  # frames: 3, 1 (looped), 1 (without flow), 3, 1 and 5 windows


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model_file(make_model(tmp_path_factory.mktemp("m") / "tiny.safetensors", width=1 / 32, classes=3))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    found = [write_video(folder / f"{n}.mp4", num_frames=n, seed=n, size=(64, 48)) for n in LENGTHS]
    broken = folder / "broken.mp4"
    broken.write_bytes(b"no video")
    return [*map(str, found[:4]), str(broken), *map(str, found[4:])]


@pytest.fixture
def passes(monkeypatch):
    """The windows of every pass."""
    found, plain = [], predict.of_windows

    def counted(windows, *arguments):
        found.append(len(windows))
        return plain(windows, *arguments)

    monkeypatch.setattr(predict, "of_windows", counted)
    return found


@pytest.fixture
def across(monkeypatch):
    """As on a GPU."""
    for module in (classify, "vadis.inference.features"):
        name = module if isinstance(module, str) else module.__name__
        monkeypatch.setattr(f"{name}.Batches", partial(Batches, across=True))


def assert_same(record, alone):
    assert (record.path, record.status, record.error_code) == (alone.path, alone.status, alone.error_code)
    assert [segment.start for segment in record.segments] == [segment.start for segment in alone.segments]
    scores, wanted = ({label.label: label.score for label in each.labels} for each in (record, alone))
    assert scores == pytest.approx(wanted, abs=TOLERANCE)


@pytest.mark.parametrize("size", [1, 3, 4, 100])
@pytest.mark.parametrize("jobs", [1, 3])
def test_records_are_those_of_each_video_alone(model, videos, across, passes, size, jobs):
    alone = list(classify_many(videos, model.only(("rgb",)), sliding=WINDOWS, batch_size=1))
    before = len(passes)
    together = list(classify_many(videos, model.only(("rgb",)), sliding=WINDOWS, batch_size=size, jobs=jobs))
    for record, wanted in zip(together, alone, strict=True):
        assert_same(record, wanted)
    assert passes[before:] == [size] * (14 // size) + [14 % size] * (14 % size > 0)


def test_a_video_without_flow_goes_through_between_the_others(model, videos, across, passes):
    alone = list(classify_many(videos, model, sliding=WINDOWS, batch_size=1))
    before = len(passes)
    for record, wanted in zip(classify_many(videos, model, sliding=WINDOWS, batch_size=8), alone, strict=True):
        assert_same(record, wanted)
        assert record.streams == wanted.streams
    assert passes[before:] == [4, 1, 8, 1]


def test_on_the_cpu_a_record_does_not_depend_on_its_neighbours(model, videos, passes):
    rgb = model.only(("rgb",))
    one_by_one = [next(classify_many([path], rgb, sliding=WINDOWS, batch_size=4)) for path in videos]
    assert passes == [3, 1, 1, 3, 1, 4, 1]
    assert list(classify_many(videos, rgb, sliding=WINDOWS, batch_size=4)) == one_by_one
    assert passes == [3, 1, 1, 3, 1, 4, 1] * 2
    passes.clear()
    next(classify_many(videos, rgb, sliding=WINDOWS))
    assert set(passes) == {1}, "by default one at a time"


def test_features_share_passes_too(model, videos, across, passes):
    rgb = model.only(("rgb",))
    alone = [found for _, found in features_of_many(videos, rgb, sliding=WINDOWS, batch_size=1)]
    before = len(passes)
    together = [found for _, found in features_of_many(videos, rgb, sliding=WINDOWS, batch_size=5)]
    assert passes[before:] == [5, 5, 4]
    for found, wanted in zip(together, alone, strict=True):
        if hasattr(wanted, "arrays"):
            np.testing.assert_array_equal(found.seconds, wanted.seconds)
            np.testing.assert_allclose(found.arrays["rgb"], wanted.arrays["rgb"], rtol=1e-4, atol=1e-5)
        else:
            assert found.code == wanted.code == "not_a_video"


def tray(model):
    return Tray(model, model.card.streams, LOGITS, False, lambda text: None)


def clip(seed):
    return {"rgb": np.random.default_rng(seed).integers(0, 256, (16, 224, 224, 3), np.uint8)}


def test_what_is_withdrawn_is_not_computed(model, passes):
    rgb, batches = model.only(("rgb",)), Batches(3, CPU, across=True)
    stays, goes = tray(rgb), tray(rgb)
    batches.put(stays, 0, clip(0))
    batches.put(goes, 0, clip(1))
    batches.withdraw(goes)
    batches.put(stays, 16, clip(2))
    assert passes == []
    batches.run()
    batches.run()
    assert passes == [2] and not goes.answered
    assert [start for start, _ in stays.answered] == [0, 16] and stays.waiting == 0


def test_nothing_is_lost_where_memory_does_not_suffice(model, monkeypatch, passes):
    rgb, batches, plain = model.only(("rgb",)), Batches(2, CPU, across=True), predict.of_windows
    rgb.portions.clear()

    def short(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    a, b = tray(rgb), tray(rgb)
    batches.put(a, 0, clip(0))
    monkeypatch.setattr(predict, "of_windows", short)
    with pytest.raises(NoMemoryError):
        batches.put(b, 0, clip(1))
    monkeypatch.setattr(predict, "of_windows", plain)
    rgb.portions.clear()
    batches.run()
    assert (len(a.answered), len(b.answered), passes) == (1, 1, [2])


def test_what_waits_follows_a_model_that_leaves_its_device(model):
    """Also a window of one stream, for which a part of the model is taken."""
    on_its_way = replace(model, device=torch.device("meta"), folded={}, portions={})
    batches, wanted = Batches(2, CPU, across=True), Batches(1, CPU)
    waits = Tray(on_its_way, ("rgb",), LOGITS, False, lambda text: None)
    alone = Tray(model, ("rgb",), LOGITS, False, lambda text: None)
    batches.put(waits, 0, clip(0))
    wanted.put(alone, 0, clip(0))
    on_its_way.to_cpu()
    batches.run()
    np.testing.assert_array_equal(waits.answered[0][1]["rgb"], alone.answered[0][1]["rgb"])


def test_the_last_pass_may_leave_a_device_that_nobody_asked_for():
    """The windows that wait at the end are the only ones whose pass no video of its own asks for."""
    model, tried, said = Model(None, {}, torch.device("meta"), may_leave_device=True), [], []

    class Short:
        def run(self):
            tried.append(model.device.type)
            if model.device.type != "cpu":
                raise NoMemoryError("memory ran out")

    def work(item, prepared):
        yield
        while tried[-1:] != ["cpu"]:
            yield
        return f"{item} done"

    found = list(each_prepared("ab", Begun, work, model, jobs=1, batches=Short(), notify=said.append))
    assert found == [("a", "a done"), ("b", "b done")]
    assert (tried, len(said)) == (["meta", "cpu"], 1)


def test_a_video_is_answered_as_soon_as_its_windows_are(model):
    """Not only at the end: a batch of 100,000 files holds back a few records, not all."""
    batches, taken = Batches(3, CPU, across=True), []

    class Video:
        class facts:
            num_frames = 32

    def paths():
        for number in range(5):
            taken.append(number)
            yield number

    def work(item, prepared):
        clips = iter([{"rgb": np.concatenate([clip(item)["rgb"]] * 2)}])  # two windows
        count = 0
        for each in outputs_together(clips, Video, model.only(("rgb",)), WINDOWS, batches):
            if each is None:
                yield
            else:
                count += 1
        return count

    there = [
        (item, count, taken[-1])
        for item, count in each_prepared(
            paths(), Begun, work, Model(None, {}, CPU), jobs=1, batches=batches, notify=print
        )
    ]
    assert there == [(0, 2, 1), (1, 2, 2), (2, 2, 2), (3, 2, 4), (4, 2, 4)]


def test_a_size_that_cannot_be():
    with pytest.raises(UsageError, match=containing("batch_size", -1)):
        Batches(-1, CPU)
    assert Batches(0, torch.device("cuda")).across and not Batches(0, CPU).across
