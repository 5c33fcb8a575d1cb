"""It really learns, and from motion alone: narrow networks, from scratch on a CPU, by the commands that people use.

The classes differ in nothing but the order of their frames (``tests.synthetic_dataset``). The slow tests take minutes
on two processors; ``-s`` shows how many, and what came of them.
"""

import io
import json
import sys
import time
from contextlib import redirect_stdout
from math import comb
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from tests.synthetic_dataset import AXES, DIAGONALS, moving_patch, write_dataset
from vadis import cli
from vadis.device import cpu_count

TRAIN, TEST = 24, 10  # videos of a class
RECIPE = {
    "batch_size": 16,
    "micro_batch": 16,
    "clip_frames": 16,
    "steps": 40,
    "schedule": "steps",
    "learning_rate": 0.05,
    "milestones": [[30, 0.005]],
    "batch_norm_decay": 0.8,  # 0.999 wants thousands of steps
    "dropout": 0,
}
NUMBERS = [word for key, value in RECIPE.items() for word in ("--set", f"{key}={value}")]
FROM_SCRATCH = ("train", "--width", "0.125", "--recipe", "ucf101", *NUMBERS, "--no-mirror", "--workers", "0")
DOUBT = 0.001  # how often pure chance lies outside its bounds


def vadis(*words: object) -> str:
    """A command in this process, on all processors: its stdout."""
    threads, out = torch.get_num_threads(), io.StringIO()
    torch.set_num_threads(cpu_count())
    try:
        asked = patch.object(sys, "argv", ["vadis", *map(str, words)])
        with asked, redirect_stdout(out), pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        torch.set_num_threads(threads)
    assert not ended.value.code, words
    return out.getvalue()


def right_answers(run: Path) -> dict[str, int]:
    """How many videos the model was right about, by column (rgb, flow, both)."""
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    columns = {name: column for name, column in metrics.items() if isinstance(column, dict) and "top1" in column}
    return {name: round(column["top1"] * column["num_examples"]) for name, column in columns.items()}


def bounds_of_chance(answers: int) -> range:
    """How many of ``answers`` are right by pure chance, with all but DOUBT of the probability."""
    share = 1 / len(AXES)
    exactly = [comb(answers, k) * share**k * (1 - share) ** (answers - k) for k in range(answers + 1)]
    likely = [k for k in range(answers + 1) if min(sum(exactly[: k + 1]), sum(exactly[k:])) > DOUBT / 2]
    return range(likely[0], likely[-1] + 1)


def frames_in_any_order(frames: np.ndarray) -> list[bytes]:
    return sorted(frame.tobytes() for frame in frames)


@pytest.mark.parametrize("walks", [AXES, DIAGONALS])
def test_nothing_but_the_order_of_frames_tells_the_class(walks):
    films = [moving_patch(walk, seed=3) for walk in walks.values()]
    assert len({film.tobytes() for film in films}) == len(walks)
    assert all(frames_in_any_order(film) == frames_in_any_order(films[0]) for film in films)
    assert len(set(frames_in_any_order(films[0]))) == len(films[0]), "no frame comes twice"


def test_the_bounds_of_chance():
    """40 trials at 1/4: P(X < 2) = 0.00014, P(X < 3) = 0.0010; P(X > 20) = 0.00018, P(X > 19) = 0.00057."""
    assert bounds_of_chance(40) == range(2, 21)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data and, in ``run``, what both networks learnt of it from scratch."""
    folder = tmp_path_factory.mktemp("learnt")
    write_dataset(folder / "data", AXES, {"train": TRAIN, "test": TEST})
    began, used = time.monotonic(), time.process_time()
    vadis(*FROM_SCRATCH, "--data", folder / "data", "-o", folder / "run")
    took = f"{time.monotonic() - began:.0f} s, {time.process_time() - used:.0f} s of processors"
    print(f"\nfrom scratch, flow and test included: {took}: {right_answers(folder / 'run')}")
    return folder


@pytest.mark.slow
def test_both_streams_together_learn_what_no_frame_tells(learnt):
    right = right_answers(learnt / "run")
    assert right["flow"] >= 0.95 * TEST * len(AXES)
    assert right["both"] >= 0.95 * TEST * len(AXES)


@pytest.mark.slow
def test_shuffled_frames_tell_nothing(learnt, tmp_path):
    """The same videos, their frames in another order: the answers are what chance would give."""
    write_dataset(tmp_path / "shuffled", AXES, {"test": TEST}, is_shuffled=True)
    vadis("evaluate", "--data", tmp_path / "shuffled", "-m", learnt / "run/model.safetensors", "-o", tmp_path / "out")
    right = right_answers(tmp_path / "out")
    print(f"\nshuffled: {right}")
    assert set(right) == {"rgb", "flow", "both"}
    assert all(count in bounds_of_chance(TEST * len(AXES)) for count in right.values()), right


@pytest.mark.slow
def test_a_new_last_layer_learns_directions_that_the_network_never_saw(tmp_path):
    write_dataset(tmp_path / "others", DIAGONALS, {"train": TRAIN // 2, "test": 1})
    write_dataset(tmp_path / "data", AXES, {"train": TRAIN // 3, "test": TEST // 2})
    began = time.monotonic()
    fewer = ("--streams", "flow", "--set", "steps=25", "--set", "milestones=[[20, 0.005]]")
    vadis(*FROM_SCRATCH, *fewer, "--data", tmp_path / "others", "-o", tmp_path / "begun")
    begun = ("--from", tmp_path / "begun/model.safetensors", "--streams", "flow", "--device", "cpu")
    trained = time.monotonic()
    vadis("finetune", "--mode", "fixed", *begun, "--data", tmp_path / "data", "-o", tmp_path / "run")
    right = right_answers(tmp_path / "run")
    print(f"\npretrained in {trained - began:.0f} s, fixed in {time.monotonic() - trained:.0f} s: {right}")
    assert right["flow"] > bounds_of_chance(TEST // 2 * len(AXES))[-1]
