"""Videos on their way to the networks: a disk that fails is asked again, a device that is full is left."""

import pytest
import torch

from vadis import preparing
from vadis.errors import DeviceError, VideoError
from vadis.memory import NoMemoryError
from vadis.models import Model


class Begun:
    """Stands for ``Preparation``: what is begun, and whether it was ended."""

    def __init__(self, item):
        self.item, self.is_closed = item, False

    def close(self):
        self.is_closed = True


@pytest.fixture
def begun(monkeypatch):
    """All that was begun; without the waits between tries."""
    monkeypatch.setattr(preparing, "WAITS_SECONDS", (0.0, 0.0, 0.0))
    found = []
    return found


def outcomes(items, work, begun, model=None):
    def begin(item):
        begun.append(Begun(item))
        return begun[-1]

    model = model or Model(None, {}, torch.device("cpu"))
    found = list(preparing.each_prepared(items, begin, work, model, jobs=1, notify=lambda text: None))
    assert all(each.is_closed for each in begun)
    return found


def failing(times, code):
    """Work that fails ``times`` times before it is done."""
    left = [times]

    def work(item, prepared):
        if left[0]:
            left[0] -= 1
            raise VideoError(code, "it could not be read")
        return f"{item} done"

    return work


def test_a_disk_that_comes_back_costs_nothing(begun):
    assert outcomes(["a"], failing(3, "io_error"), begun) == [("a", "a done")]
    assert len(begun) == 4


def test_a_disk_that_stays_away_is_asked_four_times_in_all(begun):
    ((item, error),) = outcomes(["a"], failing(9, "io_error"), begun)
    assert (item, error.code, len(begun)) == ("a", "io_error", 4)


def test_other_failures_are_final(begun):
    ((_, error),) = outcomes(["a"], failing(1, "no_frames"), begun)
    assert (error.code, len(begun)) == ("no_frames", 1)


def too_large_for_a_gpu(model):
    def work(item, prepared):
        if model.device.type != "cpu":
            raise NoMemoryError("memory ran out")
        return f"{item} done"

    return work


def test_a_device_that_nobody_asked_for_is_left_and_the_video_done_again(begun):
    model = Model(None, {}, torch.device("meta"), may_leave_device=True)
    assert outcomes(["a", "b"], too_large_for_a_gpu(model), begun, model) == [("a", "a done"), ("b", "b done")]
    assert (model.device.type, len(begun)) == ("cpu", 3)


def test_a_device_that_was_asked_for_is_not_left(begun):
    model = Model(None, {}, torch.device("meta"))
    with pytest.raises(DeviceError, match="memory ran out"):
        outcomes(["a"], too_large_for_a_gpu(model), begun, model)
