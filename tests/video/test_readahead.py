"""Work that runs ahead in a thread: in order, never far, and gone when nobody wants it."""

import threading
import time

import pytest

from vadis.video.readahead import Prefetcher, Stopped, prefetch


def numbers(stop, made=None, error=None):
    """A function for ``Prefetcher`` that counts to ``stop``, then raises ``error``; ``made`` gets what was made."""

    def make(ahead):
        for number in range(stop):
            if made is not None:
                made.append(number)
            yield number
        if error is not None:
            raise error

    return make


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "ahead"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert not threads()


def settled(made):
    """What was made, when no more is."""
    while True:
        before = len(made)
        time.sleep(0.05)
        if len(made) == before:
            return made


@pytest.mark.parametrize("size", [1, 2, 7])
def test_all_items_in_order(size):
    ahead = Prefetcher(numbers(100), size)
    assert list(ahead.items()) == list(range(100))
    ahead.close()


@pytest.mark.parametrize("size", [1, 3])
def test_no_more_is_made_than_wanted(size):
    made = []
    ahead = Prefetcher(numbers(100, made), size)
    walk = ahead.items()
    assert settled(made) == list(range(size + 1))  # so many wait, and one is in hand
    assert next(walk) == 0
    assert settled(made) == list(range(size + 2))
    ahead.close()
    assert len(made) == size + 2


def test_an_error_comes_after_the_items_before_it():
    ahead = Prefetcher(numbers(3, error=ZeroDivisionError("three")), 8)
    walk = ahead.items()
    assert [next(walk) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ZeroDivisionError, match="three"):
        next(walk)
    ahead.close()


def test_notes_are_heard_in_the_thread_of_who_walks():
    heard = []

    def make(ahead):
        for number in range(3):
            ahead.report_stage(f"making {number}")
            yield number

    ahead = Prefetcher(make, 1)
    assert list(ahead.items(lambda text: heard.append((text, threading.current_thread())))) == [0, 1, 2]
    assert heard == [(f"making {number}", threading.current_thread()) for number in range(3)]
    ahead.close()


def test_closing_ends_the_generator_in_its_thread():
    ended = []

    def make(ahead):
        try:
            while True:
                yield 0
        finally:
            ended.append(threading.current_thread().name)

    ahead = Prefetcher(make, 1)
    next(ahead.items())
    ahead.close()
    assert ended == ["ahead"]


def test_closing_stops_long_work_at_its_next_look():
    begun, seen = threading.Event(), []

    def make(ahead):
        begun.set()
        try:
            while True:
                ahead.check()
                time.sleep(0.001)
        except Stopped:
            seen.append("stopped")
            raise
        yield 0

    ahead = Prefetcher(make, 1)
    begun.wait()
    ahead.close()
    assert seen == ["stopped"]


def test_closing_cancels_what_is_waited_for():
    waiting = threading.Event()

    def make(ahead):
        waiting.wait()
        yield 0

    Prefetcher(make, 1, cancel=waiting.set).close()
    assert waiting.is_set()


def test_closing_twice_and_at_the_end_is_allowed():
    ahead = Prefetcher(numbers(1), 1)
    assert list(ahead.items()) == [0]
    ahead.close()
    ahead.close()


class Made:
    """What ``prefetch`` begins; keeps count of what is open."""

    def __init__(self, item, log):
        self.item, self.log = item, log
        log.append(("begin", item))

    def close(self):
        self.log.append(("close", self.item))


def most_open(log):
    count = most = 0
    for what, _ in log:
        count += 1 if what == "begin" else -1
        most = max(most, count)
    assert count == 0
    return most


@pytest.mark.parametrize("num", [1, 2, 5])
@pytest.mark.parametrize("length", [0, 1, 4, 20])
def test_items_are_begun_ahead_and_closed_in_order(num, length):
    log = []
    taken = [
        item for item, made in prefetch(lambda item: Made(item, log), range(length), lambda: num) if made.item == item
    ]
    assert taken == list(range(length))
    assert most_open(log) == min(num, length)


@pytest.mark.parametrize("num", [1, 3])
def test_items_are_taken_no_further_ahead_than_needed(num):
    source = iter(range(10))
    walk = prefetch(lambda item: Made(item, []), source, lambda: num)
    next(walk)
    assert next(source) == num
    walk.close()


def test_who_leaves_early_leaves_nothing_open():
    log = []
    walk = prefetch(lambda item: Made(item, log), range(10), lambda: 3)
    next(walk), next(walk)
    walk.close()
    assert most_open(log) == 3


def test_an_error_of_the_source_comes_after_what_was_begun():
    def source():
        yield from range(2)
        raise ZeroDivisionError

    log, taken = [], []
    with pytest.raises(ZeroDivisionError):
        taken.extend(item for item, _ in prefetch(lambda item: Made(item, log), source(), lambda: 3))
    assert [each for each in log if each[0] == "close"] == [("close", 0), ("close", 1)]
