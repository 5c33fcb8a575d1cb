"""It really learns, and from motion alone: narrow networks, from scratch on a CPU, by the commands that people use.

The classes differ in nothing but the order of their frames (``tests.synthetic_dataset``). This is what every test run
proves, in two minutes of two processors; ``-s`` shows how many, and what came of them. All five architectures stand in
``test_five_learn.py``.
"""

import time
from pathlib import Path

import numpy as np
import pytest

from tests.synthetic_dataset import AXES, DIAGONALS, LONG, OPPOSITE, SHORT, moving_patch, shuffled, write_dataset
from tests.training.from_scratch import bounds_of_chance, from_scratch, numbers, right_answers, vadis
from vadis.device import is_bfloat16_faster
from vadis.training.log import LOG_NAME, read_log

TRAIN, TEST = 24, 10  # videos of a class
STEPS_TOGETHER = 10  # whose losses are averaged before two curves are compared: those of single batches are far apart
LOSS_TOLERANCE = 0.15  # nats, between them; it falls from ln 4 = 1.39
RIGHT_TOLERANCE = 1  # answer of 20


def frames_in_any_order(frames: np.ndarray) -> list[bytes]:
    return sorted(frame.tobytes() for frame in frames)


@pytest.mark.parametrize(("walks", "film"), [(AXES, SHORT), (DIAGONALS, SHORT), (AXES, LONG)])
def test_nothing_but_the_order_of_frames_tells_the_class(walks, film):
    films = [moving_patch(walk, 3, film) for walk in walks.values()]
    assert len({film.tobytes() for film in films}) == len(walks)
    assert all(frames_in_any_order(each) == frames_in_any_order(films[0]) for each in films)
    assert len(set(frames_in_any_order(films[0]))) == film.side**2, "every place shows something else"


@pytest.mark.parametrize("film", [SHORT, LONG])
@pytest.mark.parametrize("label", AXES)
def test_backwards_is_the_opposite_class(label, film):
    backwards = moving_patch(AXES[label], 3, film)[::-1]
    assert np.array_equal(backwards, moving_patch(AXES[OPPOSITE[label]], 3, film))


def test_the_bounds_of_chance():
    """40 trials at 1/4: P(X < 2) = 0.00014, P(X < 3) = 0.0010; P(X > 20) = 0.00018, P(X > 19) = 0.00057."""
    assert bounds_of_chance(40) == range(2, 21)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data and, in ``run``, what the 3D-ConvNet learnt of it, which needs no flow."""
    folder = tmp_path_factory.mktemp("learnt")
    write_dataset(folder / "data", AXES, {"train": TRAIN, "test": TEST})
    began, used = time.monotonic(), time.process_time()
    vadis(*from_scratch("c3d", *numbers(60, 0.01)), "--data", folder / "data", "-o", folder / "run")
    took = f"{time.monotonic() - began:.0f} s, {time.process_time() - used:.0f} s of processors"
    print(f"\nfrom scratch, test included: {took}: {right_answers(folder / 'run')}")
    return folder


@pytest.mark.slow
def test_the_3d_convnet_learns_what_no_frame_tells(learnt):
    assert right_answers(learnt / "run")["rgb"] >= 0.95 * TEST * len(AXES)


@pytest.mark.slow
def test_shuffled_frames_tell_nothing(learnt, tmp_path):
    """The same videos, their frames in another order: the answers are what chance would give."""
    write_dataset(tmp_path / "shuffled", AXES, {"test": TEST}, order=shuffled)
    vadis("evaluate", "--data", tmp_path / "shuffled", "-m", learnt / "run/model.safetensors", "-o", tmp_path / "out")
    right = right_answers(tmp_path / "out")
    print(f"\nshuffled: {right}")
    assert set(right) == {"rgb"}
    assert all(count in bounds_of_chance(TEST * len(AXES)) for count in right.values()), right


@pytest.mark.slow
@pytest.mark.skipif(not is_bfloat16_faster(), reason="needs a processor with AMX or AMD's AVX-512 BF16")
def test_in_bf16_the_loss_falls_alike_and_the_test_ends_alike(tmp_path):
    """I3D on flow, from the same weights and the same clips in the same order."""
    write_dataset(tmp_path / "data", AXES, {"train": 12, "test": TEST // 2})
    steps, curves, right = 20, {}, {}
    for precision in ("fp32", "bf16"):
        run, more = tmp_path / precision, ("--streams", "flow", "--flow-store", tmp_path / "store")
        command = from_scratch("i3d", *more, *numbers(steps, 0.05, clip_frames=16), "--precision", precision)
        began = time.monotonic()
        vadis(*command, "--data", tmp_path / "data", "-o", run)
        losses = read_log(run / "flow" / LOG_NAME).steps["loss"]
        curves[precision] = losses.reshape(-1, STEPS_TOGETHER).mean(axis=1)
        right[precision] = right_answers(run)["flow"]
        print(f"\n{precision}: {time.monotonic() - began:.0f} s: {losses.round(3)}, right: {right}")
    assert curves["fp32"][-1] < curves["fp32"][0] / 2
    assert np.abs(curves["bf16"] - curves["fp32"]).max() < LOSS_TOLERANCE
    assert abs(right["bf16"] - right["fp32"]) <= RIGHT_TOLERANCE


@pytest.mark.exhaustive  # two minutes of one processor
def test_a_new_last_layer_learns_directions_that_the_network_never_saw(tmp_path):
    """I3D learns diagonals from flow; of its features, a new last layer learns left, right, up and down."""
    write_dataset(tmp_path / "others", DIAGONALS, {"train": 12, "test": 1})
    write_dataset(tmp_path / "data", AXES, {"train": 8, "test": TEST // 2})
    began = time.monotonic()
    command = from_scratch("i3d", "--streams", "flow", *numbers(20, 0.05, clip_frames=16))
    vadis(*command, "--data", tmp_path / "others", "-o", tmp_path / "begun")
    begun = ("--from", tmp_path / "begun/model.safetensors", "--streams", "flow", "--device", "cpu")
    trained = time.monotonic()
    vadis("finetune", "--mode", "fixed", *begun, "--data", tmp_path / "data", "-o", tmp_path / "run")
    right = right_answers(tmp_path / "run")
    print(f"\npretrained in {trained - began:.0f} s, fixed in {time.monotonic() - trained:.0f} s: {right}")
    assert right["flow"] > bounds_of_chance(TEST // 2 * len(AXES))[-1]
