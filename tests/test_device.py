"""cuda or cpu: what is asked for, what is there."""

import pytest
import torch

from vadis.device import cpu_count, resolve_device
from vadis.errors import DeviceError, UsageError


@pytest.fixture
def without_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_auto_takes_the_cpu_where_there_is_nothing_else(without_cuda):
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")


def test_cuda_by_name_is_never_replaced(without_cuda):
    with pytest.raises(DeviceError, match="no CUDA device can be used") as refused:
        resolve_device("cuda")
    assert (refused.value.exit_code, "--device" in refused.value.hint) == (1, True)


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(DeviceError, match="has 2 CUDA"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:one", "cpu:0", ""])
def test_other_words_are_wrong_use(without_cuda, name):
    if name == "cuda:":
        with pytest.raises(DeviceError):
            resolve_device(name)
        return
    with pytest.raises(UsageError, match="unknown device"):
        resolve_device(name)


def test_at_least_one_processor():
    assert cpu_count() >= 1
