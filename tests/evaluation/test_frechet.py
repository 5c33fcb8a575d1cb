"""Fréchet video distance: against figures that were published for the TensorFlow code, and by its definition."""

from collections.abc import Iterator

import numpy as np
import pytest

from tests.make_model import make_model
from vadis import FrechetStatistics, UsageError, frechet_distance, load_model
from vadis.evaluation import frechet
from vadis.evaluation.frechet import bootstrap_deviation, embed, extrapolate_distance, kernel_distance

BLACK_TO_WHITE = 151.39244  # 8 videos of 30 frames of 64×64: README of common_metrics_on_video_quality, "videogpt" way
RANDOM = 10.13808536529541  # of the TensorFlow reference for two sets of 128 random videos


def gaussian(means: list[float], deviations: list[float]) -> np.ndarray:
    """Rows whose mean and covariance over n - 1 are exactly these, the latter diagonal."""
    axes = np.eye(len(means)) * deviations * np.sqrt((2 * len(means) - 1) / 2)
    return np.concatenate([axes, -axes]) + means


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("m") / "m.safetensors"
    return load_model(make_model(path, width=1 / 64, classes=20, streams=("rgb",)), "cpu")


def random_videos(count: int, seed: int = 0, size: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 9, size, size, 3), dtype=np.uint8)


def test_of_two_gaussians_on_the_same_axes_it_is_known():
    one, other = gaussian([0, 1, 2], [1, 2, 3]), gaussian([1, 1, 0], [4, 2, 1])
    expected = (1 + 0 + 4) + (3**2 + 0 + 2**2)
    assert FrechetStatistics(one).distance(FrechetStatistics(other)) == pytest.approx(expected, rel=1e-12)
    assert FrechetStatistics(other).distance(FrechetStatistics(one)) == pytest.approx(expected, rel=1e-12)


def test_covariances_that_do_not_commute_give_the_trace_of_the_root_of_their_product():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6)), rng.normal(size=(70, 6)) @ rng.normal(size=(6, 6))
    eigenvalues = np.linalg.eigvals(np.cov(one.T) @ np.cov(other.T))
    traces = np.trace(np.cov(one.T)) + np.trace(np.cov(other.T))
    expected = np.sum((one.mean(0) - other.mean(0)) ** 2) + traces - 2 * np.sqrt(eigenvalues).real.sum()
    assert FrechetStatistics(one).distance(FrechetStatistics(other)) == pytest.approx(expected, rel=1e-9)


def test_statistics_of_parts_in_any_order_are_those_of_the_whole():
    rows = np.random.default_rng(1).normal(loc=100, size=(40, 5))
    parts = FrechetStatistics()
    for part in (rows[30:], rows[:7], rows[7:30]):
        parts.merge(FrechetStatistics(part))
    whole = FrechetStatistics(rows)
    assert parts.count == 40
    np.testing.assert_allclose(parts.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(parts.covariance, np.cov(rows.T), rtol=1e-9, atol=1e-12)
    assert abs(parts.distance(whole)) <= 1e-6 * np.trace(whole.covariance)


def test_fewer_videos_than_dimensions_are_nothing_from_themselves():
    statistics = FrechetStatistics(np.random.default_rng(2).normal(size=(8, 400)))
    assert abs(statistics.distance(statistics)) <= 1e-6 * np.trace(statistics.covariance)


def test_videos_of_any_number_and_order_one_after_the_other(small_model):
    one, other = random_videos(4), random_videos(3, seed=1) // 2
    expected = frechet_distance(one, other, small_model)
    assert expected > 0
    assert frechet_distance(iter(one[::-1]), list(other), small_model) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(embed(one, small_model), other, small_model) == pytest.approx(expected, rel=1e-9)


def test_float_frames_are_what_the_network_takes(small_model):
    frames = random_videos(2, size=224)
    scaled = frames.astype(np.float32) / 127.5 - 1
    expected = embed(frames, small_model).mean
    np.testing.assert_allclose(embed(scaled, small_model).mean, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    "video",
    [
        np.zeros((8, 32, 32, 3), np.uint8),  # too few frames
        np.zeros((9, 3, 32, 32), np.uint8),  # channels first
        np.zeros((9, 32, 32, 3), np.float32),  # float frames of another size
        np.zeros((9, 32, 32, 3), np.int64),
        np.full((9, 224, 224, 3), np.nan, np.float32),
        np.full((9, 224, 224, 3), np.inf),
        "real/a.mp4",
        [[0, 1], [0]],
    ],
)
def test_what_is_no_video_is_refused(small_model, video):
    with pytest.raises(UsageError):
        frechet_distance([video, video], [video, video], small_model)


def test_one_video_has_no_covariance(small_model):
    with pytest.raises(UsageError):
        frechet_distance(random_videos(1), random_videos(2), small_model)


def test_embeddings_that_are_not_finite_are_refused():
    with pytest.raises(UsageError):
        FrechetStatistics(np.array([[0.0, np.nan], [1.0, 2.0]]))


def test_other_numbers_than_the_network_takes_are_refused(small_model):
    frames = random_videos(2, size=224).astype(np.float32)  # of 0 to 255: somebody forgot to scale them
    with pytest.raises(UsageError):
        frechet_distance(frames, frames, small_model)


def test_covariances_over_n_are_smaller_by_one_part_in_n():
    one, other = gaussian([0, 0], [1, 2]), gaussian([0, 0], [3, 5])  # 4 rows each
    found = FrechetStatistics(one).distance(FrechetStatistics(other), over_n=True)
    assert found == pytest.approx((2**2 + 3**2) * 3 / 4, rel=1e-12)


def test_of_few_videos_rounding_is_far_below_the_distance():
    """Square roots of eigenvalues that rounding alone makes would be some 1e-7 of the traces."""
    statistics = FrechetStatistics(np.random.default_rng(2).normal(size=(8, 400)))
    assert abs(statistics.distance(statistics)) <= 1e-12 * np.trace(statistics.covariance)


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray, float]:
    """Two samples of 300 from Gaussians in 40 dimensions, and the true distance of these."""
    rng, scales = np.random.default_rng(5), np.linspace(1, 3, 40)
    return (
        rng.normal(size=(300, 40)) * scales,
        rng.normal(size=(300, 40)) * scales[::-1] + 0.3,
        float(40 * 0.3**2 + ((scales - scales[::-1]) ** 2).sum()),
    )


def test_the_interval_is_as_wide_as_distances_of_new_samples_scatter(drawn):
    rng, scales = np.random.default_rng(6), np.linspace(1, 3, 40)
    again = [
        FrechetStatistics(rng.normal(size=(300, 40)) * scales).distance(
            FrechetStatistics(rng.normal(size=(300, 40)) * scales[::-1] + 0.3)
        )
        for _ in range(60)
    ]
    found = bootstrap_deviation(drawn[:2], FrechetStatistics.distance, 60)
    assert found == pytest.approx(np.std(again, ddof=1), rel=0.4)
    assert bootstrap_deviation((FrechetStatistics(drawn[0]), drawn[1]), FrechetStatistics.distance, 60) < found


def test_extrapolated_to_infinitely_many_videos_most_of_the_bias_is_gone(drawn):
    real, generated, truth = drawn
    plain = FrechetStatistics(real).distance(FrechetStatistics(generated))
    assert plain > 1.05 * truth
    assert abs(extrapolate_distance((real, generated), FrechetStatistics.distance) - truth) < 0.3 * (plain - truth)


def test_kernel_distance_by_its_definition(drawn):
    real, generated = drawn[0][:20], drawn[1][:30]

    def mean(first: np.ndarray, second: np.ndarray, pairs: list[tuple[int, int]]) -> float:
        return float(np.mean([(first[i] @ second[j] / 40 + 1) ** 3 for i, j in pairs]))

    within = [
        mean(rows, rows, [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j])
        for rows in (real, generated)
    ]
    between = mean(real, generated, [(i, j) for i in range(20) for j in range(30)])
    assert kernel_distance(real, generated) == pytest.approx(sum(within) - 2 * between, rel=1e-9)


@pytest.fixture(scope="module")
def full_model(full_precision):
    return load_model(full_precision, "cpu")


@pytest.fixture
def double_model(full_precision):
    """In 32 bits the distance of black and white changes by 3e-6 with the number of threads: that is rounding."""
    model = load_model(full_precision, "cpu")
    network = model.networks["rgb"].double()
    network.register_forward_pre_hook(lambda module, clips: tuple(clip.double() for clip in clips))
    return model


def uniform_videos(seed: int) -> Iterator[np.ndarray]:
    """Yield the videos of ``RandomState(seed).rand(128, 16, 224, 224, 3)`` as float32, one by one."""
    rng = np.random.RandomState(seed)
    return (rng.rand(16, 224, 224, 3).astype(np.float32) for _ in range(128))


@pytest.mark.exhaustive
def test_two_random_sets_have_the_published_distance(full_model):
    assert frechet_distance(uniform_videos(1), uniform_videos(2), full_model) == pytest.approx(RANDOM, abs=1e-5)
    assert [each.value for each in frechet.PUBLISHED_DISTANCES] == [RANDOM, BLACK_TO_WHITE]
    assert frechet.weights_of(full_model) == (32, True)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [("double", 1e-6), ("half", 1e-3)])
def test_black_against_white_gives_the_published_figure(precision, tolerance, request):
    """Published of eight videos on either side, all the same: so one counts twice, for its mean and no covariance."""
    model = load_model("i3d-kinetics400-rgb", "cpu") if precision == "half" else request.getfixturevalue("double_model")
    black = np.zeros((1, 30, 64, 64, 3), np.uint8)
    sides = [embed(videos, model) for videos in (black, black + 255)]
    for side in sides:
        side.merge(side)
    assert frechet_distance(*sides, model) == pytest.approx(BLACK_TO_WHITE, rel=tolerance)


def test_parts_without_videos_add_nothing_and_others_than_rows_are_refused():
    statistics = FrechetStatistics(np.eye(3))
    statistics.merge(FrechetStatistics())
    statistics.add(np.zeros((0, 3)))
    np.testing.assert_array_equal(statistics.covariance, FrechetStatistics(np.eye(3)).covariance)
    for rows in (np.zeros(3), np.zeros((2, 4)), np.zeros((2, 3, 1))):
        with pytest.raises(UsageError):
            statistics.add(rows)
    with pytest.raises(UsageError):
        statistics.distance(FrechetStatistics(np.eye(4)))


def test_two_videos_are_extrapolated_without_a_part_of_one():
    rows = gaussian([0], [1])
    assert np.isfinite(extrapolate_distance((rows, rows + 1), FrechetStatistics.distance))
