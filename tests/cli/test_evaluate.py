"""``vadis evaluate`` on a real road: a small random model and a folder dataset of synthetic videos."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.finished_run import write_run
from tests.make_model import make_model
from tests.matching import containing
from tests.synthetic import write_video
from vadis import formats
from vadis.evaluation.metrics import open_predictions
from vadis.results import Label, VideoResult


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    make_model(folder / "model.safetensors", width=1 / 64, classes=2)
    for seed, place in enumerate(["train/class 0", "train/class 1", "test/class 0", "test/class 1"]):
        (folder / "data" / place).mkdir(parents=True)
        write_video(folder / "data" / place / "a.mp4", num_frames=20, seed=seed)
    return folder


@pytest.fixture
def inputs(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take a second each; one test draws them."""
    for name in ("plot_confusion", "plot_per_class"):
        monkeypatch.setattr(f"vadis.report.plots.{name}", lambda *arguments: None)


EVALUATE = ("evaluate", "--data", "data", "-m", "model.safetensors", "--streams", "rgb", "-o", "run")


@pytest.mark.slow
def test_metrics_on_stdout_and_in_files(run_vadis, inputs):
    ended = run_vadis(*EVALUATE, "--json")
    assert ended.code == 0, ended.err
    metrics = json.loads(ended.out)
    assert metrics == json.loads(Path("run/metrics.json").read_text())
    assert (metrics["rgb"]["num_examples"], metrics["part"]) == (2, "test")
    assert list(metrics["rgb"]["per_class"]) == ["class 0", "class 1"]
    assert Path("run/confusion-rgb.csv").read_text().startswith("true class,class 0,class 1\n")
    rows = list(csv.DictReader(Path("run/per-class-rgb.csv").read_text().splitlines()))
    assert [(row["class"], row["videos"]) for row in rows] == [("class 0", "1"), ("class 1", "1")]
    for name in ("confusion-rgb.png", "per-class-rgb.png"):
        assert Path("run", name).read_bytes().startswith(b"\x89PNG")
    assert not list(Path("run").glob("*.part"))


def test_a_broken_video_counts_as_wrong_and_is_said(run_vadis, inputs, no_pictures):
    Path("data/test/class 0/b.mp4").write_bytes(b"")
    ended = run_vadis(*EVALUATE, "--json")
    assert ended.code == 3
    assert (json.loads(ended.out)["failed"], json.loads(ended.out)["rgb"]["num_examples"]) == (1, 3)
    assert "class 0/b.mp4: the file is empty" in ended.err


def test_other_classes_are_wrong_use(run_vadis, inputs):
    Path("data/test/class 1").rename("data/test/archery")
    Path("data/train/class 1").rename("data/train/archery")
    ended = run_vadis(*EVALUATE)
    assert ended.code == 2
    assert "archery" in ended.err
    assert not Path("run").exists()


@pytest.mark.slow
def test_an_evaluation_unlike_the_papers_says_so_and_is_kept_apart(run_vadis, inputs, no_pictures):
    ended = run_vadis(*EVALUATE, "--spatial", "full", "--frames", "all", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["unlike_the_paper"] == ["on 256×256", "on all frames"]
    refused = run_vadis(*EVALUATE)
    assert refused.code == 2
    assert re.search(containing("frames"), refused.err)


def test_without_a_test_split_it_says_tested_on_val(run_vadis, inputs, no_pictures):
    Path("data/test").rename("data/val")
    ended = run_vadis("-q", *EVALUATE, "--json")
    assert ended.code == 0
    assert re.search(containing("val"), ended.err)
    assert json.loads(ended.out)["part"] == "val"


def test_another_evaluation_into_this_folder_is_kept_out(run_vadis, inputs):
    Path("run").mkdir()
    with open_predictions(Path("run/answers.jsonl"), {}):
        ended = run_vadis(*EVALUATE)
    assert ended.code == 5
    assert re.search(containing("run"), ended.err)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--data", "data"), "-o"),
        (("-o", "run"), "--data"),
        ((*EVALUATE[1:], "-o", "model.safetensors"), "model.safetensors"),
        ((*EVALUATE[1:], "-o", "model.safetensors/run"), "model.safetensors"),
        ((*EVALUATE[1:], "--part", "vall"), "vall"),
        ((*EVALUATE[1:], "-m", "camera-motion", "--flip"), "camera-motion"),
        (("--results", "data"), "answers.jsonl"),
        (("--results", "data", "--split", "2"), "--split"),
        (("--results", "data", "-m", "model.safetensors"), "--model"),
        (("--results", "data", "--data", "data", "--flip"), "--flip"),
        (("--results", "data", "--data", "data", "--spatial", "full"), "--spatial"),
        (("--results", "data", "--data", "data", "--frames", "all"), "--frames"),
        ((*EVALUATE[1:], "--frames", "some"), "some"),
        (("--results", "nowhere.jsonl", "--data", "data"), "nowhere.jsonl"),
        (("--results", "data", "--data", "data"), "data holds no results"),
    ],
)
def test_wrong_use(run_vadis, inputs, words, said):
    ended = run_vadis("evaluate", *words)
    assert ended.code == 2
    assert said in ended.err
    assert not Path("run").exists()


@pytest.mark.slow
def test_results_of_an_evaluation_are_the_same_figures(run_vadis, inputs, no_pictures):
    whole = json.loads(run_vadis(*EVALUATE, "--json").out)
    answers = Path("run/answers.jsonl").read_bytes()
    again = run_vadis(*EVALUATE)
    assert Path("run/answers.jsonl").read_bytes() == answers
    assert again.out.splitlines()[0].split() == ["top-1", "top-5", "mean", "class", "videos"]
    shutil.rmtree("data")  # no video is opened
    Path("model.safetensors").unlink()
    ended = run_vadis("evaluate", "--results", "run", "--json", "-o", "again")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out) == whole
    assert Path("again/confusion-rgb.csv").read_bytes() == Path("run/confusion-rgb.csv").read_bytes()
    refused = run_vadis("evaluate", "--results", "run", "-o", "run")
    assert refused.code == 2
    assert "-o" in refused.err


def write_split(split: int, num_right: int) -> str:
    """The folder of an evaluation of UCF-101 in which ``num_right`` of four videos were right."""
    return str(write_run(Path(f"run{split}"), num_right, split=split))


def test_three_splits_their_mean_and_the_papers(run_vadis, inputs, no_pictures):
    runs = [word for split, right in ((3, 4), (1, 3), (2, 2)) for word in ("--results", write_split(split, right))]
    ended = run_vadis("evaluate", *runs, "-o", "all")
    assert ended.code == 0, ended.err
    lines = [line.split() for line in ended.out.splitlines()]
    assert [lines[place + 2][:2] for place in (0, 5, 10)] == [["rgb", "75.0%"], ["rgb", "50.0%"], ["rgb", "100.0%"]]
    assert lines[-2] == ["both", "75.0%", "100.0%", "75.0%", "12", "98.0%", "(97.8%)"]
    assert "table 5" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80
    assert re.search(containing(4, "3,783"), ended.err)
    together = json.loads(Path("all/metrics.json").read_text())
    assert together["mean"]["both"]["top1"] == 0.75
    assert together == json.loads(run_vadis("evaluate", *runs, "--json").out)
    assert sorted(path.parent.name for path in Path("all").glob("*/per-class-both.csv")) == [
        "split-1",
        "split-2",
        "split-3",
    ]


def test_two_splits_have_a_mean_but_not_the_papers(run_vadis, inputs):
    ended = run_vadis("evaluate", "--results", write_split(1, 3), "--results", write_split(2, 1))
    assert ended.out.splitlines()[-1].split() == ["both", "50.0%", "100.0%", "50.0%", "8"]
    assert "paper" not in ended.out


def test_an_unfinished_evaluation_has_no_figures(run_vadis, inputs):
    write_split(1, 3)
    Path("run1/metrics.json").unlink()
    refused = run_vadis("evaluate", "--results", "run1")
    assert (refused.code, refused.out) == (2, "")


def write_records(*labels: tuple[str, ...], folder: str = "data/test") -> None:
    """results.jsonl with a record for the test video of each class."""
    results = [
        VideoResult(
            f"{folder}/class {number}/a.mp4",
            "ok" if names else "error",
            error_code=None if names else "io_error",
            error_message=None if names else "the disk",
            model="m",
            model_sha256="0" * 64,
            streams=("rgb", "flow"),
            clip_score=tuple(Label(name, 0.5) for name in names),
        )
        for number, names in enumerate(labels)
    ]
    Path("results.jsonl").write_text("".join(formats.jsonl(results)))


RECORDS = ("evaluate", "--data", "data", "--results", "results.jsonl")


def test_records_of_classify_are_judged(run_vadis, inputs, no_pictures):
    write_records(("class 0", "class 1"), ("class 0", "class 1"))
    ended = run_vadis(*RECORDS, "-o", "judged")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[1].split() == ["both", "50.0%", "100.0%", "50.0%", "2"]
    assert Path("judged/confusion-both.csv").read_text().splitlines()[1:] == ["class 0,1,0", "class 1,1,0"]
    metrics = json.loads(Path("judged/metrics.json").read_text())
    assert metrics["model"] == "m"


@pytest.mark.slow
def test_what_classify_writes_is_what_evaluate_reads(run_vadis, inputs):
    labelled = run_vadis("classify", "data", "-m", "model.safetensors", "--streams", "rgb", "-o", "results.jsonl")
    assert labelled.code == 0, labelled.err
    ended = run_vadis(*RECORDS, "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["rgb"]["num_examples"] == 2


def test_records_that_failed_count_as_wrong_and_are_named(run_vadis, inputs):
    write_records(("class 0", "class 1"), ())
    ended = run_vadis(*RECORDS)
    assert ended.code == 3
    assert "class 1/a.mp4: the disk" in ended.err
    assert ended.out.splitlines()[1].split() == ["both", "50.0%", "50.0%", "50.0%", "2"]


def test_records_of_a_part_of_the_split_are_refused(run_vadis, inputs):
    write_records(("class 0", "class 1"))
    refused = run_vadis(*RECORDS)
    assert (refused.code, refused.out) == (2, "")
    assert "data/test/class 1/a.mp4" in refused.err
