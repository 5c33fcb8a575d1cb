"""Heavy work that is waited for, or left alone."""

import signal
from threading import Event

import pytest
import torch

from vadis.training.stopping import is_left_alone, unless_stopped
from vadis.training.validation import never


def test_what_work_returns_and_raises_is_what_comes():
    def fail():
        raise ValueError("wrong")

    assert unless_stopped(lambda: 7, never) == 7
    with pytest.raises(ValueError, match="wrong"):
        unless_stopped(fail, never)
    assert not is_left_alone()


def test_work_knows_whether_gradients_are_wanted():
    with torch.no_grad():
        assert unless_stopped(torch.is_grad_enabled, never) is False
    assert unless_stopped(torch.is_grad_enabled, never) is True


def test_work_that_does_not_end_is_left_alone():
    end = Event()
    assert unless_stopped(lambda: end.wait(60), lambda: signal.SIGTERM) is None
    assert is_left_alone()
    end.set()


def test_work_that_is_nearly_done_is_waited_for():
    end = Event()

    def stop():
        end.set()
        return signal.SIGTERM

    assert unless_stopped(lambda: end.wait(60), stop) is True
