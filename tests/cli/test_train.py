"""``vadis train``: each of the five architectures on each of the datasets, from videos to a model that is tested."""

import json
from pathlib import Path

import pytest
import torch

from tests.synthetic import write_video
from vadis.datasets import DATASETS
from vadis.datasets.camera import CLASSES as CAMERA_MOTIONS
from vadis.models import MODELS
from vadis.weights.model_file import read_header

pytestmark = pytest.mark.usefixtures("quick_tvl1")

CLASSES = ("clap", "wave")
TINY = ("steps=1", "batch_size=2", "micro_batch=2", "schedule=steps", "validate_every=0")


def ucf101(root: Path) -> list[str]:
    return [f"{c.title()}/v_{c.title()}_g{group:02}_c01.avi" for c in CLASSES for group in (1, 8)]  # test, train


def hmdb51(root: Path) -> list[str]:
    names = {c: [f"A_{c}_h_nm_np1_fr_med_{number}.avi" for number in range(2)] for c in CLASSES}
    lists = root / "testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    for c, (train, test) in names.items():
        (lists / f"{c}_test_split1.txt").write_text(f"{train} 1 \n{test} 2 \n")
    return [f"{c}/{name}" for c in CLASSES for name in names[c]]


def kinetics(root: Path) -> list[str]:
    root.mkdir(parents=True)
    names = []
    for number, split in enumerate(("train", "val", "test")):
        rows = [f"{c},{c:_<10}{number},0,1,{split}\n" for c in CLASSES]
        (root / f"{split}.csv").write_text("label,youtube_id,time_start,time_end,split\n" + "".join(rows))
        names += [f"{c}/{c:_<10}{number}_000000_000001.mp4" for c in CLASSES]
    return names


def folder(root: Path) -> list[str]:
    return [f"{split}/{c}/one.mp4" for split in ("train", "val", "test") for c in CLASSES]


LAYOUTS = {"ucf101": ucf101, "hmdb51": hmdb51, "kinetics": kinetics, "folder": folder}
CELLS = [(architecture, dataset) for architecture in MODELS for dataset in LAYOUTS]
EACH_ONCE = [(architecture, list(LAYOUTS)[i % len(LAYOUTS)]) for i, architecture in enumerate(MODELS)]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_every_dataset_has_a_layout_here() -> None:
    assert list(LAYOUTS) == list(DATASETS)


@pytest.mark.parametrize(
    ("architecture", "dataset"),
    [pytest.param(*cell, marks=() if cell in EACH_ONCE else pytest.mark.exhaustive) for cell in CELLS],
)
def test_each_architecture_on_each_dataset(run_vadis, tmp_path: Path, architecture: str, dataset: str) -> None:
    root = tmp_path / "data"
    names = LAYOUTS[dataset](root)
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(root / name, num_frames=11, size=(64, 48), seed=seed)
    numbers = (*TINY, "clip_frames=16") if architecture == "i3d" else TINY  # the others have lengths of their own
    changes = [word for number in numbers for word in ("--set", number)]
    machine = ("--width", 1 / 32, "--jobs", 0, "--device", "cpu")
    ended = run_vadis("train", "--arch", architecture, "--data", root, *changes, *machine, "-o", tmp_path / "run")
    assert ended.code == 0, ended.err
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (run["architecture"], run["dataset"]["name"]) == (architecture, dataset)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    columns = {"both" if len(MODELS[architecture].streams) > 1 else "rgb"}
    assert columns <= set(metrics)
    video = root / names[0]
    labelled = run_vadis("classify", video, "-m", tmp_path / "run" / "model.safetensors", "-f", "jsonl")
    assert labelled.code == 0
    assert {label["label"].lower() for label in json.loads(labelled.out)["labels"]} == set(CLASSES)


@pytest.mark.slow
@pytest.mark.usefixtures("cv2")
def test_camera_motion_needs_no_data(run_vadis, tmp_path: Path) -> None:
    numbers = ("videos=3", "steps=1", "batch_size=2", "micro_batch=2", "clip_frames=9", "validate_every=0")
    changes = [word for number in numbers for word in ("--set", number)]
    machine = ("--streams", "rgb", "--width", 1 / 32, "--jobs", 0, "--device", "cpu")
    run = tmp_path / "run"
    ended = run_vadis("train", "--recipe", "camera-motion", *machine, *changes, "-o", run)
    assert ended.code == 0, ended.err
    card = read_header(run / "model.safetensors")[0]
    assert (card.name, card.labels, card.test_window, card.window_frames) == ("camera-motion", CAMERA_MOTIONS, 32, 32)
    assert card.provenance["mirror"] is False
    answers = (run / "answers.jsonl").read_text().splitlines()
    assert len(answers) == 1 + len(CAMERA_MOTIONS)


def test_without_data_there_must_be_a_recipe_that_makes_them(run_vadis, tmp_path: Path) -> None:
    ended = run_vadis("train", "-o", tmp_path / "run")
    assert ended.code == 2
    assert "--data" in ended.err and "camera-motion" in ended.err
