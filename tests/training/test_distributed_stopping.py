"""Heavy work that is waited for, or left alone."""

import signal
from threading import Event

import pytest
import torch

from vadis.training.distributed import has_abandoned_work, run_unless_stopped


def test_what_work_returns_and_raises_is_what_comes():
    def fail():
        raise ValueError("wrong")

    assert run_unless_stopped(lambda: 7, lambda: 0) == 7
    with pytest.raises(ValueError, match="wrong"):
        run_unless_stopped(fail, lambda: 0)
    assert not has_abandoned_work()


def test_work_knows_whether_gradients_are_wanted():
    with torch.no_grad():
        assert run_unless_stopped(torch.is_grad_enabled, lambda: 0) is False
    assert run_unless_stopped(torch.is_grad_enabled, lambda: 0) is True


@pytest.mark.slow
def test_work_that_does_not_end_is_abandoned():
    end = Event()
    assert run_unless_stopped(lambda: end.wait(60), lambda: signal.SIGTERM) is None
    assert has_abandoned_work()
    end.set()


@pytest.mark.slow
def test_work_that_is_nearly_done_is_waited_for():
    end = Event()

    def stop():
        end.set()
        return signal.SIGTERM

    assert run_unless_stopped(lambda: end.wait(60), stop) is True
