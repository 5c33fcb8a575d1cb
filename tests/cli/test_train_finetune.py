"""``vadis finetune`` and ``vadis train`` on a real road: tiny networks, two classes of synthetic videos, few steps."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.make_model import make_model
from tests.matching import containing
from tests.pseudo_terminal import on_a_terminal
from tests.synthetic import write_video

pytestmark = pytest.mark.usefixtures("quick_tvl1", "quick_plots")

ROOT = Path(__file__).parents[2]
TINY = ("steps=2", "batch_size=2", "micro_batch=2", "clip_frames=9", "schedule=steps")
FAST = (*(word for change in TINY for word in ("--set", change)), "--jobs", "0", "--device", "cpu")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tiny networks gain nothing from threads, and a run goes on bit by bit only at one number of them."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of processes started here
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_model(tmp_path / "start.safetensors", width=1 / 64, classes=3)
    for seed, place in enumerate(["train/one", "train/two", "val/one", "val/two", "test/one", "test/two"]):
        (tmp_path / "data" / place).mkdir(parents=True)
        write_video(tmp_path / "data" / place / f"{seed}.mp4", num_frames=12, seed=seed)
    monkeypatch.chdir(tmp_path)
    return tmp_path


FINETUNE = ("finetune", "--data", "data", "--from", "start.safetensors", *FAST, "-o", "run")
SCRATCH = (
    "train",
    "--data",
    "data",
    "--streams",
    "rgb",
    "--width",
    "0.015625",
    "--recipe",
    "ucf101",
    *FAST,
    "-o",
    "run",
)


@pytest.mark.slow
def test_both_streams_become_one_model_that_classifies(run_vadis, inputs):
    ended = run_vadis(*FINETUNE)
    assert ended.code == 0, ended.err
    assert [line.split()[0] for line in ended.out.splitlines()] == ["top-1", "rgb", "flow", "both"]
    for word in ("rgb: 2 of 2 steps done", "flow: 2 of 2 steps done", "clips/s", "left", "their flow takes about"):
        assert word in ended.err
    card = json.loads(run_vadis("classify", "data/test/one/4.mp4", "-m", "run/model.safetensors", "-f", "jsonl").out)
    assert card["streams"] == ["rgb", "flow"]
    assert {label["label"] for label in card["labels"]} == {"one", "two"}


@pytest.mark.slow
def test_the_model_file_says_what_it_was_made_of(run_vadis, inputs):
    from vadis.weights.model_file import load_model_file, read_header

    assert run_vadis(*FINETUNE, "--streams", "rgb").code == 0
    provenance = read_header(Path("run/model.safetensors"))[0].provenance
    assert provenance["recipes"]["rgb"]["steps"] == 2
    assert provenance["from"]["sha256"] == load_model_file(Path("start.safetensors")).sha256
    assert provenance["metrics"]["rgb"]["num_examples"] == 2
    assert provenance["metrics"] == json.loads(Path("run/metrics.json").read_text())
    assert provenance["states"]["rgb"]["validation"]["accuracy"] <= 1
    assert provenance["metrics"]["states"] == provenance["states"]


@pytest.mark.slow
def test_resume_after_the_end_changes_nothing_and_asks_nothing_again(run_vadis, inputs):
    assert run_vadis(*SCRATCH).code == 0
    model, log = Path("run/model.safetensors").read_bytes(), Path("run/rgb/log.jsonl").read_text()
    answers = Path("run/answers.jsonl").read_bytes()
    refused = run_vadis(*SCRATCH)
    assert refused.code == 2
    assert "--resume" in refused.err
    again = run_vadis(*SCRATCH, "--resume")
    assert again.code == 0, again.err
    assert "step 2" in again.err
    assert Path("run/answers.jsonl").read_bytes() == answers
    assert Path("run/model.safetensors").read_bytes() == model
    assert Path("run/rgb/log.jsonl").read_text().startswith(log)


@pytest.mark.slow
def test_sigterm_saves_and_resume_ends_as_if_nothing_had_been(run_vadis, inputs):
    many = (*SCRATCH, "--set", "steps=12")
    assert run_vadis(*many, "-o", "whole").code == 0
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    command = [sys.executable, "-m", "vadis", *many]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    log = Path("run/rgb/log.jsonl")
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("StepDone") > 1) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143, err
    assert "resource_tracker" not in err  # what multiprocessing says of semaphores that nobody takes back
    assert err.rstrip().endswith("interrupted")
    assert not Path("run/model.safetensors").exists()
    assert run_vadis(*many, "--resume").code == 0
    assert Path("run/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


@pytest.mark.slow
def test_on_a_terminal_one_line_changes_and_leaves(inputs):
    command = [sys.executable, "-m", "vadis", *SCRATCH, "--data", str(inputs / "data"), "-o", str(inputs / "run")]
    shown, code = on_a_terminal(*command, columns=80)
    assert code == 0, shown
    assert "the first step" in shown
    assert "\x1b[?25h" in shown, "the cursor is shown again"
    *_, last = (part for part in shown.replace("\r", "").split("\x1b[2K") if part)
    assert "rgb step" not in last
    assert "top-1" in last


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        (("--data", "nowhere"), 2, "nowhere"),
        (("-o", "data"), 2, "is not empty and holds no run"),
        (("--device", "cuda:99"), 1, "cuda"),
        (("--set", "steps"), 2, "does not say KEY=VALUE"),
        (("--set", "step=3"), 2, "did you mean steps?"),
        (("--set", "clip_frames=8"), 2, "clip_frames must be at least 9"),
        (("--recipe", "ucf-101"), 2, "did you mean ucf101?"),
        (("--from", "nothing.safetensors"), 2, "nothing.safetensors"),
        (("--width", "0.5"), 2, "--width"),
        (("--recipe", "none.toml"), 2, "cannot be read"),
        (("--mode", "frozen"), 2, "not one of full, fixed"),
        (("--mode", "fixed", "--from", "scratch"), 2, "needs a model"),
    ],
)
def test_wrong_use_is_said_before_any_work(run_vadis, inputs, changed, code, said):
    ended = run_vadis(*FINETUNE, *changed)
    assert ended.code == code
    assert said.lower() in ended.err.lower()
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [((), 1, "slower"), (("--arch", "c3d", "--from", "scratch"), 2, "3D-ConvNet"), (("--mode", "fixed"), 1, "slower")],
)
def test_bf16_is_refused_before_any_work_where_it_gains_nothing(run_vadis, inputs, monkeypatch, more, code, said):
    monkeypatch.setattr("vadis.models.is_bfloat16_faster", lambda: False)
    ended = run_vadis(*FINETUNE, *more, "--precision", "bf16")
    assert ended.code == code and said in ended.err and "--precision" in ended.err
    Path("mine.toml").write_text('precision = "bf16"\n')
    assert run_vadis(*FINETUNE, *more, "--recipe", "mine.toml").code == code
    assert not Path("run").exists()


@pytest.mark.slow
def test_bf16_stands_in_the_run_and_another_precision_does_not_go_on(run_vadis, inputs, monkeypatch):
    monkeypatch.setattr("vadis.models.is_bfloat16_faster", lambda: True)
    ended = run_vadis(*SCRATCH, "--precision", "bf16")
    assert ended.code == 0, ended.err
    assert "bf16" in ended.err
    (recipe,) = json.loads(Path("run/run.json").read_text())["recipes"].values()
    assert recipe["precision"] == "bf16"
    assert "precision" not in json.loads(Path("run/metrics.json").read_text()), "tested in float32"
    refused = run_vadis(*SCRATCH, "--resume")
    assert refused.code == 2
    assert re.search(containing("precision", "bf16", "fp32"), refused.err)
    assert run_vadis(*SCRATCH, "--resume", "--precision", "bf16").code == 0
    assert run_vadis("report", "run").code == 0
    assert "bf16" in Path("run/report.html").read_text()


@pytest.mark.slow
def test_a_folder_with_another_run_is_refused(run_vadis, inputs):
    assert run_vadis(*SCRATCH).code == 0
    for changed, what in (
        (("--set", "steps=1"), "steps was 2 and is 1"),
        (("--no-mirror",), "mirror"),
        (("--width", "0.03125"), "width"),
    ):
        ended = run_vadis(*SCRATCH, "--resume", *changed)
        assert ended.code == 2
        assert what in ended.err
    Path("data/train/two").rename("data/train/three")
    Path("data/val/two").rename("data/val/three")
    Path("data/test/two").rename("data/test/three")
    other = run_vadis(*SCRATCH, "--resume")
    assert other.code == 2
    assert "labels" in other.err


@pytest.mark.slow
def test_a_toml_file_is_a_recipe(run_vadis, inputs):
    Path("mine.toml").write_text("brightness = 0.1\n[rgb]\nlearning_rate = 0.5\n")
    assert run_vadis(*SCRATCH, "--recipe", "mine.toml").code == 0
    (recipe,) = json.loads(Path("run/run.json").read_text())["recipes"].values()
    assert (recipe["name"], recipe["learning_rate"], recipe["brightness"]) == ("folder-scratch", 0.5, 0.1)
    assert recipe["steps"] == 2


@pytest.mark.slow
def test_another_number_of_threads_goes_on_only_if_allowed(run_vadis, inputs):
    assert run_vadis(*SCRATCH).code == 0
    torch.set_num_threads(2)
    refused = run_vadis(*SCRATCH, "--resume")
    assert refused.code == 2
    assert re.search(containing("threads", 1, 2), refused.err)
    assert "--allow-inexact-resume" in refused.err
    assert run_vadis(*SCRATCH, "--resume", "--allow-inexact-resume").code == 0


@pytest.mark.slow
def test_no_room_for_the_flow_is_said_before_it_is_computed(run_vadis, inputs, monkeypatch):
    full = type(shutil.disk_usage("."))(10**9, 10**9, 0)
    with monkeypatch.context() as patched:
        patched.setattr("vadis.flow.store.shutil.disk_usage", lambda path: full)
        ended = run_vadis(*FINETUNE)
    assert ended.code == 1
    assert "0.0 MB" in ended.err
    assert not list(Path("run/flow-store").glob("*/*"))
    assert run_vadis(*FINETUNE).code == 0, "the same command, with room, and without --resume"


def test_a_class_that_is_only_tested_is_refused(run_vadis, inputs):
    Path("data/test/two").rename("data/test/too")
    ended = run_vadis(*SCRATCH)
    assert ended.code == 2
    assert re.search(containing("too"), ended.err)


@pytest.mark.slow
def test_classes_without_training_clips_are_left_out_and_not_tested(run_vadis, inputs):
    """UCF-101 in part: of a class of which only the test clips are here a model would get 0.0 %."""
    places = {"One": (1, 8), "Two": (1, 8), "Three": (1,)}  # groups 1 to 7 are tested
    names = [f"{label}/v_{label}_g{group:02}_c01.avi" for label, groups in places.items() for group in groups]
    Path("ucf").mkdir()
    train = [name for name in names if "_g08" in name] + ["Three/v_Three_g08_c01.avi"]
    Path("ucf/trainlist01.txt").write_text("".join(f"{name} 1\n" for name in train))
    Path("ucf/testlist01.txt").write_text("".join(f"{name}\n" for name in names if "_g01" in name))
    for name in names:
        Path("ucf", name).parent.mkdir(exist_ok=True)
        shutil.copy("data/train/one/0.mp4", Path("ucf", name))
    arguments = (*SCRATCH, "--data", "ucf", "--recipe", "ucf101-scratch")
    assert run_vadis(*arguments).code == 2
    ended = run_vadis(*arguments, "--allow-missing", 1)
    assert ended.code == 0, ended.err
    assert "Three" in ended.err
    assert set(json.loads(Path("run/metrics.json").read_text())["rgb"]["per_class"]) == {"One", "Two"}


@pytest.mark.slow
def test_a_run_goes_on_for_more_steps_and_is_tested_again(run_vadis, inputs):
    assert run_vadis(*SCRATCH).code == 0
    longer = run_vadis(*SCRATCH, "--resume", "--set", "steps=4")
    assert longer.code == 0, longer.err
    assert "step 2" in longer.err and "4 of 4" in longer.err
    assert json.loads(Path("run/run.json").read_text())["recipes"]["rgb"]["steps"] == 4
    assert json.loads(Path("run/metrics.json").read_text())["states"]["rgb"]["steps"] == 4
    assert run_vadis(*SCRATCH, "--resume").code == 2
    assert run_vadis(*SCRATCH, "--resume", "--set", "steps=6", "--set", "seed=1").code == 2


@pytest.mark.slow
def test_what_it_will_take_is_told_before_the_first_step_and_a_quicker_way_on_a_cpu(run_vadis, inputs):
    few = ("finetune", "--data", "data", "--from", "start.safetensors", "--streams", "rgb", "--jobs", "0")
    sizes = ("--set", "clip_frames=9", "--set", "micro_batch=2", "--set", "batch_size=2", "--set", "schedule=steps")
    quick = run_vadis(*few, *sizes, "--device", "cpu", "--set", "steps=2", "-o", "quick")
    assert quick.code == 0, quick.err
    told = next(line for line in quick.err.splitlines() if "2 clips" in line)
    assert "2 steps" in told and quick.err.index(told) < quick.err.index("rgb step 1/2")
    assert "--mode fixed" not in quick.err
    limit = ("--set", "steps=9999999", "--set", "learning_rate=1e30")  # which ends at the first loss that is no number
    endless = run_vadis(*few, *sizes, "--device", "cpu", *limit, "-o", "endless")
    assert endless.code == 1
    assert "--mode fixed" in endless.err
