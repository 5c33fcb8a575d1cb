"""What a run will take, from one pass."""

from dataclasses import replace

import pytest

from tests.training.stand_in import ALONE, RECIPE, ForgetfulNetwork, TinyClips, tiny_network
from vadis.training.loop import Context
from vadis.training.plan import expected_seconds, measure_pace


def test_a_probe_takes_its_time():
    found = measure_pace(tiny_network(), TinyClips(), Context(ALONE))
    assert found is not None and min(found) > 0


def test_where_memory_runs_out_nothing_is_told():
    assert measure_pace(ForgetfulNetwork("forward", limit=0), TinyClips(), Context(ALONE)) is None


def test_a_run_is_its_steps_and_its_validations():
    recipe = replace(RECIPE, batch_size=8, steps=100, validate_every=10)
    assert expected_seconds((1.0, 4.0), recipe, 0, 1, 0)[0] == 8 * 5
    assert expected_seconds((1.0, 4.0), recipe, 0, 2, 2) == (4 * 4, 100 * 4 * 4)
    assert expected_seconds((9.0, 4.0), recipe, 0, 1, 2)[0] == 8 * 4.5
    assert expected_seconds((1.0, 4.0), recipe, 3, 1, 2)[1] == pytest.approx(100 * 32 + 11 * 3 * 4 / 3)
