import math

import pytest

from vadis.training.recipes import RECIPES, Plateau, after_validation, is_finished, learning_rate, override

UCF101 = override(
    RECIPES["ucf101"], {"plateau_patience": 2, "plateau_drops": 2, "plateau_improvement": 0.01, "steps": 1000}
)


@pytest.mark.parametrize(
    ("step", "rgb", "flow"),
    [
        (0, 1e-1, 1e-1),
        (96_999, 1e-1, 1e-1),
        (97_000, 1e-2, 1e-2),
        (104_499, 1e-2, 1e-2),
        (104_500, 1e-2, 1e-3),
        (107_999, 1e-2, 1e-3),
        (108_000, 1e-3, 1e-3),
        (114_999, 1e-3, 1e-3),
        (115_000, None, 1e-1),
        (140_000, None, 1e-2),
        (150_000, None, 1e-3),
        (154_999, None, 1e-3),
    ],
)
def test_the_schedule_of_the_code(step, rgb, flow):
    assert learning_rate(RECIPES["kinetics-flow"], step, Plateau()) == flow
    if rgb is not None:
        assert learning_rate(RECIPES["kinetics-rgb"], step, Plateau(drops=2)) == rgb


def rates_along(losses: list[float]) -> list[float]:
    state, rates = Plateau(), []
    for loss in losses:
        state = after_validation(UCF101, state, loss)
        rates.append(learning_rate(UCF101, 0, state))
    return rates


def test_the_rule_of_the_paper():
    falling = [3.0, 2.0, 1.0]
    assert rates_along(falling) == [1e-3] * 3
    assert rates_along([*falling, 1.0, 1.2]) == pytest.approx([1e-3] * 4 + [1e-4])
    assert rates_along([*falling, 1.0, 0.9, 1.0]) == [1e-3] * 6  # better in between: patience begins anew
    assert rates_along([*falling, 0.995, 0.991]) == pytest.approx([1e-3] * 4 + [1e-4])  # too little counts as none
    assert rates_along([1.0] * 7) == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5, 1e-5])


def test_after_the_last_division_saturation_ends_the_run():
    state, ends = Plateau(), []
    for _ in range(7):
        state = after_validation(UCF101, state, 1.0)
        ends.append(is_finished(UCF101, 0, state))
    assert ends == [False] * 6 + [True]
    assert is_finished(UCF101, 1000, Plateau()) and not is_finished(UCF101, 999, Plateau())
    assert not is_finished(RECIPES["kinetics-rgb"], 0, Plateau(drops=9))


def test_a_loss_that_is_not_a_number_is_no_improvement():
    state = after_validation(UCF101, Plateau(), math.nan)
    assert state == Plateau(best=None, stale=1)
    assert after_validation(UCF101, state, 2.0) == Plateau(best=2.0)
