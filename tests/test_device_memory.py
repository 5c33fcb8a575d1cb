"""Memory that runs out: the same work in smaller pieces, nothing lost and nothing twice."""

import gc
import re
import weakref

import pytest
import torch

from tests.matching import containing
from vadis.device import BatchLimit, NoMemoryError, run_in_batches
from vadis.errors import DeviceError

CPU = torch.device("cpu")
MESSAGES = [
    "CUDA out of memory. Tried to allocate 2.00 GiB.",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory",
]


def worker(most, message=MESSAGES[0]):
    """Work on which memory runs out where it is more than ``most`` at once; with the calls that went well."""
    done = []

    def work(start, stop):
        if stop - start > most:
            raise torch.OutOfMemoryError(message) if message == MESSAGES[0] else RuntimeError(message)
        done.append((start, stop))
        return list(range(start, stop))

    return work, done


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("count", [1, 2, 7, 32, 33])
@pytest.mark.parametrize("most", [1, 3, 8, 100])
def test_every_item_once_and_in_order(count, most, message):
    work, done = worker(most, message)
    limit = BatchLimit(32)
    assert [item for part in run_in_batches(work, count, limit, CPU) for item in part] == list(range(count))
    assert [stop for _, stop in done[:-1]] == [start for start, _ in done[1:]]
    assert limit.size >= min(most, count) // 2 or limit.size == 1


def test_the_limit_is_kept_and_logged_once(caplog):
    work, done = worker(4)
    limit = BatchLimit(32)
    for _ in range(3):
        list(run_in_batches(work, 32, limit, CPU))
    assert limit.size == 4
    assert len(done) == 3 * 8
    assert len(caplog.messages) == 1 and re.search(containing("cpu", "frames"), caplog.messages[0])


def test_it_gives_up_at_one():
    work, done = worker(0)
    with pytest.raises(NoMemoryError, match=containing("cpu", "windows")) as error:
        list(run_in_batches(work, 8, BatchLimit(8, "windows"), CPU))
    assert done == []
    assert isinstance(error.value, DeviceError) and error.value.exit_code == 1 and error.value.hint


def test_other_errors_are_raised_as_they_are():
    def work(start, stop):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        list(run_in_batches(work, 8, BatchLimit(8), CPU))


class Tensor:
    """Something that can be watched being freed."""


def test_the_attempt_that_failed_keeps_nothing_alive():
    """The traceback of an exception holds all variables on its way: the retry must come after it is gone."""
    held = []

    def work(start, stop):
        big = Tensor()
        gc.disable()  # it must go by itself, or by the explicit collection
        if stop - start > 1:
            held.append(weakref.ref(big))
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert all(reference() is None for reference in held)
        return start

    try:
        assert list(run_in_batches(work, 4, BatchLimit(4), CPU)) == [0, 1, 2, 3]
    finally:
        gc.enable()
    assert len(held) == 2
