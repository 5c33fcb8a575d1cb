"""What the model that comes with vadis says of real clips, each result recorded, so that a change shows.

The clips are those of ``shared/videos/action`` whose manifest names a class of Kinetics-400 that fits exactly (not
"approx" or "none"); the GIF of optical flow shows no RGB.
"""

import csv
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from tests.bfloat16 import emulated_bfloat16
from tests.pages import ROOT
from vadis import classify, read_frames
from vadis.device import multiplies_bfloat16
from vadis.errors import VideoError
from vadis.models import Model
from vadis.models.i3d_inference import FoldedI3D
from vadis.preprocessing import centre_crop, loop_clip, network_input
from vadis.weights.catalog import STAND_IN
from vadis.weights.load import load_model

TOP1, TOP5 = 0.74, 0.90  # shares of the clips that must be right


class Expected(NamedTuple):
    """The class of the manifest, the label that leads (or those that nearly do), and whether the top 5 has it."""

    truth: str
    leads: tuple[str, ...]
    in_top5: bool = True


def right(truth: str) -> Expected:
    return Expected(truth, (truth,))


SHORT = {
    "part_0.mp4": right("cleaning pool"),
    "6arrowswithin30seconds_shoot_bow_f_nm_np1_fr_med_3.avi": Expected("archery", ("hula hooping",)),
    "Golf_Tips_-_Hit_The_Driver_300+_Yards!!!_golf_f_nm_np1_fr_med_0.avi": right("golf driving"),
    "v_CricketShot_g04_c01_rgb.gif": right("playing cricket"),
    "v_BaseballPitch_g01_c01.avi": Expected("catching or throwing baseball", ("high kick", "side kick")),
    "BaseballHitinSlowMotion_swing_baseball_f_nm_np1_fr_bad_0.avi": right("hitting baseball"),
    "test.avi": right("crawling baby"),
    "example.avi": right("archery"),
}
"""Clips of up to 5.3 s."""

LONG = {
    "demo.mp4": right("arm wrestling"),
    "test.mp4": right("cleaning pool"),
    "R6llTwEh07w.mp4": right("using segway"),
    "hitting_baseball.mp4": right("hitting baseball"),
    "playing_guitar.mp4": right("playing bass guitar"),
    "sample_demo_1.mp4": right("reading book"),
    "v_GGSY1Qvo990.mp4": right("clean and jerk"),
    "v_SoccerJuggling_g23_c01.avi": right("juggling soccer ball"),
    "yoga.mp4": right("yoga"),
    "(HQ)_Rock_Climbing_-_Free_Solo_Speed_Climb_-_Dan_Osman_climb_f_cm_np1_le_med_2.avi": Expected(
        "rock climbing", ("climbing tree",)
    ),
    "bikes.mp4": Expected("riding a bike", ("garbage collecting",), in_top5=False),
}
README_EXAMPLE = "demo.mp4"  # whose labels tests/test_docs.py looks at


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(STAND_IN, "cpu", offline=True)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "expected"), [each for each in (SHORT | LONG).items() if each[0] != README_EXAMPLE])
def test_a_real_clip_gets_its_recorded_labels(name: str, expected: Expected, shared: Path, model: Model) -> None:
    result = classify(shared / "videos" / "action" / name, model, top_k=5)
    labels = [
        label.label for label in result.clip_score
    ]  # the paper's score; tests.benchmarks.timeline has the headline
    assert labels[0] in expected.leads
    assert (expected.truth in labels) == expected.in_top5


def test_the_clips_are_those_that_the_manifest_labels(shared: Path) -> None:
    found = {}
    with (shared / "videos" / "manifest.csv").open(newline="", encoding="utf-8") as rows:
        for row in csv.DictReader(rows):
            _, names_kinetics, classes = row["class"].partition("K400: ")
            label = classes.partition(";")[0]
            if names_kinetics and "(" not in label and "none" not in label and "flow" not in row["file"]:
                found[row["file"].removeprefix("action/")] = label
    assert found == {name: expected.truth for name, expected in (SHORT | LONG).items()}


def test_enough_of_them_are_right() -> None:
    results = list((SHORT | LONG).values())
    top1, top5 = sum(each.truth in each.leads for each in results), sum(each.in_top5 for each in results)
    assert top1 / len(results) >= TOP1
    assert top5 / len(results) >= TOP5
    page = (ROOT / "docs" / "models" / f"{STAND_IN}.md").read_text()
    assert f"{top1} of {len(results)}" in page and f"{top5} of {len(results)}" in page


CHANGE = 0.01  # of the largest logit, by bfloat16
SURE = 0.5  # above which no first answer may change
BF16_CLIPS = ("part_0.mp4", "test.avi")  # the quick share: one that is right, and sure


def logits_of(path: Path, form: FoldedI3D) -> Tensor:
    """Of the first 64 frames, or as many as there are, over and over: the mean over time, (classes,)."""
    frames, _ = read_frames(path, max_frames=64)
    clip = loop_clip({"rgb": centre_crop(frames, "rgb", 224)}, 64)
    return form(network_input(clip["rgb"], "rgb")).mean(dim=(0, 2))


def change_by_bfloat16(path: Path, model: Model) -> tuple[float, float, bool]:
    """The change of a logit, in parts of the largest; the first score in float32; whether its label stays first.

    Products and roundings are those of bfloat16, emulated where the processor does not multiply it.
    """
    network = model.networks["rgb"]
    exact = logits_of(path, FoldedI3D(network, model.device))
    with nullcontext() if multiplies_bfloat16() else emulated_bfloat16():
        rounded = logits_of(path, FoldedI3D(network, model.device, torch.bfloat16))
    change = (exact - rounded).abs().max() / exact.abs().max()
    return float(change), float(exact.softmax(0).max()), bool(exact.argmax() == rounded.argmax())


@pytest.mark.slow
@pytest.mark.parametrize("name", BF16_CLIPS)
def test_bfloat16_changes_little(name: str, shared: Path, model: Model) -> None:
    change, score, is_first = change_by_bfloat16(shared / "videos" / "action" / name, model)
    assert 0 < change <= CHANGE
    assert is_first or score <= SURE


@pytest.mark.exhaustive
def test_bfloat16_changes_little_on_every_clip(shared: Path, model: Model) -> None:
    found = {}
    for path in sorted(path for path in (shared / "videos").rglob("*") if path.is_file()):
        with suppress(VideoError):
            found[path.name] = change_by_bfloat16(path, model)
            print(path.name, *found[path.name])
    assert len(found) > 45
    assert {name: each for name, each in found.items() if not 0 < each[0] <= CHANGE} == {}
    assert [name for name, (_, score, is_first) in found.items() if score > SURE and not is_first] == []
