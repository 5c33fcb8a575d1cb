import os
import signal
from collections import Counter
from contextlib import closing
from dataclasses import replace
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.matching import containing
from tests.training.stand_in import RECIPE, TinyClips
from vadis.errors import UsageError, VadisError, VideoError
from vadis.training.loader import derived_seed, micro_batches, permutation, sample_keys, share_of_step, stream_clips


@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 9))
def test_every_epoch_shows_every_clip_once(size, batch_size, seed):
    order = sample_keys(size, replace(RECIPE, batch_size=batch_size, seed=seed), step=0)
    keys = list(islice(order, 3 * size))
    assert [position for position, _, _ in keys] == list(range(3 * size))
    for epoch in range(3):
        assert sorted(index for _, e, index in keys if e == epoch) == list(range(size))


def test_epochs_and_seeds_differ_and_do_not_change():
    assert permutation(0, 0, 8) == permutation(0, 0, 8)
    assert len({tuple(permutation(seed, epoch, 20)) for seed in range(3) for epoch in range(3)}) == 9
    assert permutation(0, 0, 8) == [5, 6, 1, 3, 7, 2, 4, 0]  # the same on every machine, in every version
    assert len({derived_seed(a, b) for a in range(30) for b in range(30)}) == 900
    assert derived_seed(1, 23) != derived_seed(12, 3)


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 30), st.integers(3, 40))
def test_processes_share_each_step_without_doubles(world_size, each, step, size):
    recipe = replace(RECIPE, batch_size=world_size * each)
    alone = list(islice(sample_keys(size, recipe, step), 2 * recipe.batch_size))
    shared = [list(islice(sample_keys(size, recipe, step, rank, world_size), 2 * each)) for rank in range(world_size)]
    assert sorted(key for keys in shared for key in keys) == alone
    shares = [share_of_step(recipe, step, rank, world_size) for rank in range(world_size)]
    assert [position for share in shares for position in share] == [key[0] for key in alone[: recipe.batch_size]]


def test_going_on_needs_no_replay():
    whole = list(islice(sample_keys(10, RECIPE, step=0), 40))
    assert list(islice(sample_keys(10, RECIPE, step=7), 12)) == whole[28:]


def test_a_batch_that_cannot_be_shared_equally():
    with pytest.raises(UsageError, match=containing(4, 3)):
        share_of_step(RECIPE, 0, 0, 3)


def test_micro_batches():
    assert micro_batches(range(8, 16), 3) == [range(8, 11), range(11, 14), range(14, 16)]
    assert micro_batches(range(4), 9) == [range(4)]


class FailingClips(TinyClips):
    """Fails in the ways a dataset in a worker can; ``sent`` goes to the whole group of a terminal."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def clip(self, epoch, index):
        if self.way == "error":
            raise VideoError("no_frames", "clip-3.avi has no frames", hint="look at it")
        if self.way == "bug":
            raise RuntimeError("a bug")
        if self.way == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.way == "interrupted":
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
        return super().clip(epoch, index)


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing():
    alone = list(islice(stream_clips(TinyClips(), sample_keys(10, RECIPE, step=2), workers=0), 9))
    before = torch.get_rng_state()
    with closing(stream_clips(TinyClips(), sample_keys(10, RECIPE, step=2), workers=2)) as stream:
        shared = list(islice(stream, 9))
    assert torch.equal(torch.get_rng_state(), before)
    assert [clip._replace(tensors=()) for clip in alone] == [clip._replace(tensors=()) for clip in shared]
    assert all(torch.equal(one.tensors[0], other.tensors[0]) for one, other in zip(alone, shared, strict=True))
    counts = Counter((position // 10, clip.name) for position, clip in enumerate(alone, start=8))
    assert max(counts.values()) == 1


@pytest.mark.slow
def test_signals_to_the_whole_group_do_not_take_the_clips_away():
    with closing(stream_clips(FailingClips("interrupted"), sample_keys(10, RECIPE, step=0), workers=1)) as stream:
        assert [clip.position for clip in islice(stream, 3)] == [0, 1, 2]


@pytest.mark.slow
def test_a_worker_that_is_killed():
    stream = stream_clips(FailingClips("killed"), sample_keys(10, RECIPE, step=0), workers=1)
    with pytest.raises(VadisError) as error:
        next(stream)
    assert "`workers`" in str(error.value.hint) and "--shm-size" in str(error.value.hint)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_dataset_s_own_failures_come_through(workers):
    with pytest.raises(VadisError, match=r"^clip-3\.avi has no frames$") as error:
        next(stream_clips(FailingClips("error"), sample_keys(10, RECIPE, step=0), workers))
    assert error.value.hint == "look at it"
    with pytest.raises(RuntimeError, match="a bug"):
        next(stream_clips(FailingClips("bug"), sample_keys(10, RECIPE, step=0), workers))
