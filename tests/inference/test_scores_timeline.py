"""The most likely path: what it says of simple predictions, and that nothing in it is too short."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vadis.inference.scores import CHANGE, CLEAR, FLOOR, SHORTEST_SECONDS, MostLikelyPath

Pieces = list[tuple[float, float, int, float]]


def pieces_of(leaders: list[tuple[int, float]], step: float = 0.32, classes: int = 4) -> Pieces:
    """The pieces where each prediction gives one class a probability, and the others equal shares of the rest."""
    path = MostLikelyPath(classes)
    for number, (leader, score) in enumerate(leaders, 1):
        probabilities = np.full(classes, (1 - score) / (classes - 1))
        probabilities[leader] = score
        path.add(number * step, probabilities)
    return path.pieces()


def test_a_label_holds_from_where_it_is_the_likelier_one() -> None:
    first, second = pieces_of([(0, 0.9)] * 10 + [(1, 0.8)] * 15)
    assert first == (0.0, pytest.approx(3.2), 0, pytest.approx(0.9))
    assert second == (pytest.approx(3.2), pytest.approx(8.0), 1, pytest.approx(0.8))


def test_a_flicker_is_no_change() -> None:
    (only,) = pieces_of([(0, 0.9)] * 10 + [(1, 0.9)] + [(0, 0.9)] * 10)
    assert only[:3] == (0.0, pytest.approx(21 * 0.32), 0)


def test_what_fits_no_class_is_unclear() -> None:
    unclear = [(number % 20, 0.05) for number in range(20)]
    first, second = pieces_of([(0, 0.95)] * 20 + unclear, classes=20)
    assert (first[2], second[2]) == (0, 20)
    assert second[3] == pytest.approx(0.95), "one minus the best probability"
    assert pieces_of(unclear, classes=20) == [(0.0, pytest.approx(6.4), 20, pytest.approx(0.95))]


def test_a_label_that_comes_and_goes_has_a_lower_score_than_its_mean() -> None:
    ((*_, score),) = pieces_of([(0, 0.9), (0, 0.3)] * 10)
    assert 0.3 < score < 0.6


def test_a_few_classes_are_named_as_soon_as_they_are_likely() -> None:
    assert [piece[2] for piece in pieces_of([(1, CLEAR + 0.01)], classes=2)] == [0], "the other one has the rest"


def test_long_windows_weigh_as_much_as_the_time_for_which_they_stand() -> None:
    assert [piece[2] for piece in pieces_of([(0, 0.99), (1, 0.99), (0, 0.99)], step=2.56)] == [0, 1, 0]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.25, 1)), min_size=1, max_size=60), st.floats(0.02, 1.5))
def test_pieces_tile_the_time_change_at_every_border_and_are_long_enough(
    leaders: list[tuple[int, float]], step: float
) -> None:
    pieces, end = pieces_of(leaders, step), len(leaders) * step
    assert pieces[0][0] == 0 and pieces[-1][1] == pytest.approx(end)
    assert all(one[1] == other[0] and one[2] != other[2] for one, other in pairwise(pieces))
    assert all(stop - start >= min(SHORTEST_SECONDS, end) - 1e-6 for start, stop, *_ in pieces)
    assert all(0 <= score <= 1 for *_, score in pieces)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=2), min_size=1, max_size=6))
def test_no_other_path_earns_more(rows: list[list[float]]) -> None:
    """Every path of up to six predictions, by brute force."""
    path = MostLikelyPath(2)
    rates = np.log(FLOOR + (1 - FLOOR) * np.array([[*row, CLEAR] for row in rows]))  # (predictions, states)
    for number, row in enumerate(rows, 1):
        path.add(number * 1.0, np.array(row))

    def earned(states: np.ndarray) -> np.ndarray:
        """(paths, predictions) → (paths,)"""
        return rates[np.arange(len(rows)), states].sum(axis=1) - CHANGE * np.count_nonzero(np.diff(states), axis=1)

    ours = np.repeat([piece[2] for piece in path.pieces()], [round(piece[1] - piece[0]) for piece in path.pieces()])
    every = np.indices([3] * len(rows)).reshape(len(rows), -1).T  # (paths, predictions)
    assert earned(ours[None])[0] == pytest.approx(earned(every).max())
