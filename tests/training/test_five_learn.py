"""Each of the paper's five architectures learns what its input can tell, and nothing else: many minutes.

    pytest -n 0 -m exhaustive -s tests/training/test_five_learn.py

The classes differ in nothing but the order of their frames (``tests.synthetic_dataset``). Each network is a narrow one,
trained from scratch on the CPU and tested by ``vadis train``. ``-s`` prints the rows of the table in
docs/reproducing.md.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, NamedTuple

import pytest
from torch import Tensor, nn

from tests.synthetic_dataset import AXES, LONG, OPPOSITE, SHORT, Film, reversed_in_time, shuffled, write_dataset
from tests.training.from_scratch import bounds_of_chance, from_scratch, numbers, right_answers, vadis
from vadis.models import MODELS
from vadis.models.i3d import initialise
from vadis.models.inception import InceptionBody

TEST = 10  # videos of a class
ALL = TEST * len(AXES)
CHANCE = bounds_of_chance(ALL)
LOSSLESS = "ffv1"  # for the videos to be tested on: backwards they are the same frames to the bit

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]


class Lesson(NamedTuple):
    """What an architecture learns from, and what it must be able to tell then."""

    film: Film
    videos: int  # of a class
    numbers: list[str]
    tells: tuple[str, ...]  # the columns that know the direction
    cannot_tell: tuple[str, ...] = ()


LESSONS = {
    "lstm": Lesson(LONG, 100, numbers(130, 0.1), tells=("rgb",)),
    "c3d": Lesson(SHORT, 24, numbers(80, 0.01), tells=("rgb",)),
    "two-stream": Lesson(SHORT, 24, numbers(60, 0.05), tells=("flow", "both"), cannot_tell=("rgb",)),
    "fused": Lesson(SHORT, 24, numbers(60, 0.05), tells=("both",)),
    "i3d": Lesson(SHORT, 24, numbers(60, 0.02, clip_frames=16), tells=("rgb", "flow", "both")),
}


class FramePooling(nn.Module):
    """ConvNet+LSTM without its LSTM: the same Inception-v1 on the same frames, its answers averaged over them."""

    training_steps: ClassVar[str] = "mean"
    test_steps: ClassVar[str] = "mean"

    def __init__(self, num_classes: int, *, width: float) -> None:
        super().__init__()
        self.body = InceptionBody(3, width=width)
        self.Logits = nn.Linear(self.body.channels, num_classes)
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes, T) of (B, 3, T, 224, 224); in no step of time is anything known of another."""
        frames = x.transpose(1, 2).flatten(0, 1)  # (B·T, 3, H, W)
        logits: Tensor = self.Logits(self.body(frames).mean(dim=(2, 3)))  # (B·T, classes)
        return logits.view(len(x), x.shape[2], -1).transpose(1, 2)  # (B, classes, T)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("five")


@pytest.fixture(scope="module")
def learnt(folder: Path) -> Callable[[str], Path]:
    """Makes the run of an architecture, once."""

    def run(architecture: str) -> Path:
        path = folder / architecture
        if not path.exists():
            train(architecture, folder, path)
        return path

    return run


def videos(folder: Path, film: Film, count: int) -> Path:
    """A dataset to learn from and to be tested on, made once."""
    root = folder / f"{film.num_frames}-frames-{count}"
    if not root.exists():
        write_dataset(root, AXES, {"train": count}, film=film)
        write_dataset(root, AXES, {"test": TEST}, film=film, codec=LOSSLESS)
    return root


def train(architecture: str, folder: Path, run: Path) -> None:
    lesson = LESSONS[architecture]
    data = videos(folder, lesson.film, lesson.videos)
    command = from_scratch(architecture, *lesson.numbers, "--flow-store", folder / "flow-store")
    began = time.monotonic()
    vadis(*command, "--data", data, "-o", run)
    took = time.monotonic() - began
    print(f"\n{run.name}: {lesson.videos} videos of a class, {took:.0f} s: {right_answers(run)} of {ALL}")


def asked_again(run: Path, order: Callable, folder: Path) -> dict[str, int]:
    """The right answers about the test videos of its lesson, their frames in another order."""
    film = LESSONS[json.loads((run / "run.json").read_text())["architecture"]].film
    data, name = folder / f"{film.num_frames}-{order.__name__}", f"{run.name}-{order.__name__}"
    if not data.exists():
        write_dataset(data, AXES, {"test": TEST}, film=film, order=order, codec=LOSSLESS)
    vadis("evaluate", "--data", data, "-m", run / "model.safetensors", "-o", folder / name)
    right = right_answers(folder / name)
    print(f"\n{name}: {right} of {ALL}")
    return right


@pytest.mark.parametrize("architecture", LESSONS)
def test_what_its_input_tells_and_nothing_else(learnt, architecture):
    lesson, right = LESSONS[architecture], right_answers(learnt(architecture))
    assert {*lesson.tells, *lesson.cannot_tell} == set(right)
    assert all(right[column] > CHANCE[-1] for column in lesson.tells), right
    assert all(right[column] in CHANCE for column in lesson.cannot_tell), right


def test_flow_leaves_i3d_in_no_doubt(learnt):
    """Not only more than chance."""
    right = right_answers(learnt("i3d"))
    assert right["flow"] >= 0.95 * ALL
    assert right["both"] >= 0.95 * ALL


@pytest.mark.parametrize("architecture", LESSONS)
def test_shuffled_frames_tell_nothing(learnt, folder, architecture):
    right = asked_again(learnt(architecture), shuffled, folder)
    assert all(count in CHANCE for count in right.values()), right


def answers(run: Path) -> dict[tuple[str, str], list[float]]:
    """The logits of every test video, by its class and the end of its name."""
    _, *lines = map(json.loads, (run / "answers.jsonl").read_text().splitlines())
    return {(line["label"], Path(line["path"]).name.split("_", 2)[-1]): line["logits"]["rgb"] for line in lines}


def test_backwards_the_lstm_sees_the_new_direction(learnt, folder):
    assert asked_again(learnt("lstm"), reversed_in_time, folder)["rgb"] > CHANCE[-1]


def test_backwards_is_all_the_same_to_pooled_frames(folder, monkeypatch):
    """The LSTM's features, averaged over the frames instead: forwards or backwards, the answer is the same."""
    pooled = replace(MODELS["lstm"], build=lambda streams, classes, width: FramePooling(classes, width=width))
    monkeypatch.setitem(MODELS, "lstm", pooled)
    run = folder / "frame-pooling"
    train("lstm", folder, run)
    forwards, backwards = right_answers(run)["rgb"], asked_again(run, reversed_in_time, folder)["rgb"]
    assert forwards in CHANCE and backwards in CHANCE
    again = answers(folder / f"{run.name}-{reversed_in_time.__name__}")
    for (label, name), logits in answers(run).items():
        assert logits == pytest.approx(again[OPPOSITE[label], name], rel=1e-3, abs=1e-4)
