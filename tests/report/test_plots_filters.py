"""Figure 4: every weight is where it belongs, in the colour of its network's scale."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.image import imread

from vadis.report.plots import WEIGHT_PIXELS as PIXELS
from vadis.report.plots import plot_filters

SIDE = 8 * (7 + 1) - 1  # weights, of a block of 8 × 8 filters


def drawn(path: Path, networks: dict[str, np.ndarray]) -> np.ndarray:
    plot_filters(networks, path, "a model")
    return imread(path)[..., :3]


def zeros(channels: int, slices: int = 7, filters: int = 64) -> np.ndarray:
    return np.zeros((filters, channels, slices, 7, 7), np.float32)


def places(picture: np.ndarray, colour: tuple[float, float, float]) -> list[tuple[int, int]]:
    """Where pixels of a colour are: upper left corners of the squares of one weight."""
    rows, columns = np.nonzero(np.abs(picture - colour).max(axis=-1) < 0.01)
    corners = [(row, column) for row, column in zip(rows.tolist(), columns.tolist(), strict=True)]
    return [
        (row, column)
        for row, column in corners
        if (row - 1, column) not in corners and (row, column - 1) not in corners
    ]


def test_a_weight_is_a_square_at_the_place_of_its_filter_and_its_time(tmp_path: Path) -> None:
    weights = zeros(3)
    weights[0, 0, 0, 0, 0] = 0.2  # the first weight of all, red
    weights[63, 1, 6, 6, 6] = 0.2  # the last, green
    weights[9, 2, 3, 2, 5] = 0.2  # blue
    picture = drawn(tmp_path / "a.png", {"rgb": weights})
    grey = 0.5
    ((top, left),) = places(picture, (1, grey, grey))
    ((bottom, right),) = places(picture, (grey, 1, grey))
    ((row, column),) = places(picture, (grey, grey, 1))
    step = SIDE + 4  # a block and what is between
    assert (bottom - top, right - left) == (PIXELS * (SIDE - 1), PIXELS * (6 * step + SIDE - 1))
    assert (row - top, column - left) == (PIXELS * (8 + 2), PIXELS * (3 * step + 8 + 5))


def test_both_directions_of_flow_have_a_band_in_one_scale(tmp_path: Path) -> None:
    weights = zeros(2)
    weights[:, 0], weights[:, 1] = 0.5, -1.0
    picture = drawn(tmp_path / "a.png", {"flow": weights})
    half, least = (np.array(colormaps["RdBu_r"](share)[:3]) for share in (0.75, 0.0))
    is_half, is_least = (np.abs(picture - colour).max(axis=-1) < 0.05 for colour in (half, least))
    weights_drawn = 7 * 64 * 49 * PIXELS**2
    assert is_half.sum() == pytest.approx(weights_drawn, rel=0.05)
    assert is_least.sum() == pytest.approx(weights_drawn, rel=0.05)
    assert np.nonzero(is_half)[0].mean() < np.nonzero(is_least)[0].mean(), "dx above dy"


def test_each_network_has_a_scale_of_its_own_and_flow_is_on_top(tmp_path: Path) -> None:
    small, large = zeros(3), zeros(2)
    small[:] = 0.001
    large[:] = 100.0
    picture = drawn(tmp_path / "a.png", {"rgb": small, "flow": large, "imagenet": -small[:, :, :1]})
    red = np.abs(picture - colormaps["RdBu_r"](1.0)[:3]).max(axis=-1) < 0.02
    black = picture.max(axis=-1) < 0.02
    assert red.sum() == pytest.approx(2 * 7 * 64 * 49 * PIXELS**2, rel=0.05)
    assert np.nonzero(black)[0].mean() > np.nonzero(red)[0].max(), "the original is below"
    columns = np.flatnonzero(black.sum(axis=0) > 7 * PIXELS)
    assert np.ptp(columns) < PIXELS * SIDE, "a single block"


def test_each_filter_may_have_a_scale_of_its_own(tmp_path: Path) -> None:
    weights = zeros(3, filters=4)
    weights[0, 0, 0, 0, 0], weights[3, 0, 0, 0, 0] = 100.0, 0.001
    for per_filter, number in ((False, 1), (True, 2)):
        plot_filters({"rgb": weights}, tmp_path / "a.png", "", per_filter=per_filter)
        assert len(places(imread(tmp_path / "a.png")[..., :3], (1, 0.5, 0.5))) == number


@pytest.mark.parametrize("filters", [1, 4, 6])
def test_narrow_networks_have_fewer_filters(tmp_path: Path, filters: int) -> None:
    weights = zeros(3, filters=filters)
    weights[:, 0, 0, 0, 0] = 1
    assert len(places(drawn(tmp_path / "a.png", {"rgb": weights}), (1, 0.5, 0.5))) == filters


def test_the_same_filters_give_the_same_bytes(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(4, 2, 7, 7, 7)).astype(np.float32)
    for name in ("a.png", "b.png"):
        plot_filters({"flow": weights}, tmp_path / name, "a model \N{SNOWMAN} $x$")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_filters_of_zeros_can_be_drawn(tmp_path: Path) -> None:
    plot_filters({"rgb": zeros(3), "flow": zeros(2)}, tmp_path / "a.png", "")
    assert (tmp_path / "a.png").stat().st_size > 1000
