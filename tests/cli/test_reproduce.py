"""``vadis reproduce``: DeepMind's sample, and the paper's tables with ours beside and the commands as a script."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.make_model import make_model
from tests.matching import containing
from tests.trained_run import begun, write_trained
from vadis.cli.reproduce import app
from vadis.errors import UsageError, WeightsError
from vadis.evaluation import sample

BOTH = {"rgb": 950, "flow": 961, "both": 979}
MAX_COLUMNS = 80


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small model of 400 classes, and preprocessed arrays of 9 frames."""
    folder = tmp_path_factory.mktemp("reproduce")
    make_model(folder / "m.safetensors", width=1 / 64)
    for stream, channels in (("rgb", 3), ("flow", 2)):
        values = np.random.default_rng(0).uniform(-1, 1, (1, 9, 224, 224, channels)).astype("f4")
        np.save(folder / f"{stream}.npy", values)
    return folder


def vadis(*arguments):
    return CliRunner().invoke(app, ["sample", *map(str, arguments)], catch_exceptions=False)


def test_all_logits_come_as_json(files):
    result = vadis(
        "--rgb", files / "rgb.npy", "--flow", files / "flow.npy", "--model", files / "m.safetensors", "--json"
    )
    assert result.exit_code == 0
    outcome = json.loads(result.stdout)
    streams = outcome["streams"]
    assert list(streams) == ["rgb", "flow", "both"]
    assert [len(stream["logits"]) for stream in streams.values()] == [400] * 3
    assert streams["both"]["logits"] == pytest.approx(
        np.add(streams["rgb"]["logits"], streams["flow"]["logits"]).tolist()
    )
    assert outcome["passed"] is None


def test_one_stream_is_shown_as_a_table_of_80_columns(files):
    result = vadis("--flow", files / "flow.npy", "--model", files / "m.safetensors")
    lines = result.stdout.splitlines()
    assert len([line for line in lines if line.startswith("  ")]) == 23  # head, norm, 20 classes, verdict
    assert all(len(line) <= 80 for line in lines[1:])
    assert "nothing is published" in result.stdout


@pytest.mark.parametrize(("shift", "code", "word"), [(0.0, 0, "PASS"), (1.0, 1, "FAIL")])
def test_the_verdict_is_the_exit_code(files, monkeypatch, shift, code, word):
    def itself(model, arrays):
        found = run_sample(model, arrays)
        published = [{"norm": ours["norm"] + shift * ours["norm"], "top": ours["top"]} for ours in found.values()]
        monkeypatch.setattr(sample, "published_outputs", lambda family, stream: published[0])
        return found

    run_sample = sample.run_sample
    monkeypatch.setattr(sample, "run_sample", itself)
    monkeypatch.setattr(sample, "published_name", lambda model: "i3d-kinetics400")
    monkeypatch.setattr(sample, "git_blob_id", lambda path: sample.SAMPLE["rgb"].git_blob)
    result = vadis("--rgb", files / "rgb.npy", "--model", files / "m.safetensors")
    assert result.exit_code == code
    assert word in result.stdout


def test_a_stream_that_the_model_lacks_is_wrong_use(files, tmp_path):
    make_model(tmp_path / "rgb.safetensors", width=1 / 64, classes=3, streams=("rgb",))
    with pytest.raises(UsageError, match=containing("flow")):
        vadis("--flow", files / "flow.npy", "--model", tmp_path / "rgb.safetensors")


def test_the_sample_itself_is_wanted_without_arrays(files, tmp_path, monkeypatch):
    monkeypatch.setenv("VADIS_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=containing("v_CricketShot_g04_c01_rgb.npy")) as failure:
        vadis("--model", files / "m.safetensors", "--offline")
    assert '`rgb="FILE.npy"`' in failure.value.hint


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three finished runs, two of them for one cell."""
    monkeypatch.chdir(tmp_path)
    start = begun("i3d-kinetics400")
    write_trained(Path("runs/old"), "i3d", "ucf101", {"both": 990}, start=start, age_seconds=100)
    write_trained(Path("runs/new"), "i3d", "ucf101", BOTH, start=start)
    write_trained(Path("runs/lstm"), "lstm", "hmdb51", {"rgb": 361}, imagenet=True)
    return Path("runs")


def test_ours_stands_below_the_papers(run_vadis, runs):
    ended = run_vadis("reproduce", "table", 4, "--runs", "runs")
    assert ended.code == 0
    lines = [line.split() for line in ended.out.splitlines()]
    (lstm,) = (at for at, words in enumerate(lines) if words[:2] == ["(a)", "ConvNet+LSTM"])
    assert lines[lstm][2:] == ["paper", "81.0", "88.1", "91.0", "36.0", "50.8", "53.4"]
    assert lines[lstm + 1] == ["ours", "·", "·", "·", "*36.1", "·", "·"]
    (i3d,) = (at for at, words in enumerate(lines) if words[:3] == ["(e)", "Two-Stream", "I3D"])
    assert lines[i3d + 1] == ["ours", "·", "·", "*97.9", "·", "·", "·"]


def test_the_newest_of_several_runs_counts_and_that_is_said(run_vadis, runs):
    out = run_vadis("reproduce", "table", 4, "--runs", "runs").out
    assert "* runs/new is the newest of 2 runs; also runs/old" in out.splitlines()
    assert "* runs/lstm: lstm-hmdb51-scratch with schedule steps for plateau" in out.splitlines()


def test_a_mean_that_is_not_complete_is_no_figure_but_said(run_vadis, runs):
    out = run_vadis("reproduce", "table", 5, "--runs", "runs").out
    assert [line.split() for line in out.splitlines() if "*" in line][:3] == [["ours", "*·", "·"]] * 3
    assert "* ucf101, ImageNet+Kinetics: there is no run yet of split 2, 3" in out.splitlines()


@pytest.mark.parametrize("number", [2, 3, 4, 5])
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_it_fits_a_terminal_of_80_columns(run_vadis, tmp_path, monkeypatch, number, more):
    monkeypatch.chdir(tmp_path)
    ended = run_vadis("reproduce", "table", number, "--runs", "runs", *more)
    assert ended.code == 0
    assert "runs" in ended.err
    assert max(map(len, ended.out.splitlines())) <= MAX_COLUMNS


def test_the_commands_are_a_script(run_vadis, tmp_path, monkeypatch):
    """A shell understands every line; with a `vadis` that only tells what it was asked."""
    monkeypatch.chdir(tmp_path)
    script = run_vadis("reproduce", "table", 2, "--runs", "my runs", "--dry-run").out
    told = subprocess.run(
        ["sh", "-eu"],
        input='vadis() { printf "%s|" "$@"; echo; }\n' + script,
        capture_output=True,
        text=True,
        check=True,
    )
    calls = told.stdout.splitlines()
    assert len(calls) == 23
    assert "train|--arch|c3d|--from|scratch|--data|kinetics400/|-o|my runs/c3d-kinetics|" in calls
    assert told.stderr == ""


def test_dry_run_tells_time_and_room_for_the_assumed_gpu(run_vadis, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = run_vadis("reproduce", "table", 5, "--runs", "runs", "--dry-run").out
    assert "Table 5." not in out
    assert "# 2. flow of UCF-101, 25.0 core-hours, 12.2 GB" in out
    assert "# in all: 206.4 GPU-hours, 30.5 core-hours, 30.3 GB with the videos" in out
    faster = run_vadis("reproduce", "table", 5, "--runs", "runs", "--dry-run", "--tflops", 20).out
    assert "# in all: 103.2 GPU-hours" in faster and "if a GPU sustains 20 TFLOP/s" in faster


def test_what_does_not_count_is_told_on_stderr(run_vadis, runs):
    write_trained(runs / "narrow", "lstm", "ucf101", {"rgb": 990}, width=0.5)
    ended = run_vadis("-q", "reproduce", "table", 4, "--runs", "runs")
    assert re.search(containing("runs/narrow", 0.5), ended.err)


def test_a_table_that_is_complete_needs_no_command(run_vadis, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for start in ("i3d-kinetics400", "i3d-kinetics400-scratch"):
        for dataset in ("ucf101", "hmdb51"):
            for split in (1, 2, 3):
                folder = Path("runs", f"{start}-{dataset}-{split}")
                write_trained(folder, "i3d", dataset, BOTH, split=split, start=begun(start))
    out = run_vadis("reproduce", "table", 5, "--runs", "runs").out
    assert "# table 5: 0 of 12 numbers are missing" in out.splitlines()
    assert "vadis" not in out


@pytest.mark.parametrize("number", ["1", "6", "four"])
def test_there_are_no_other_tables(run_vadis, tmp_path, number):
    assert run_vadis("reproduce", "table", number, "--runs", tmp_path).code == 2


def test_the_folder_must_be_one(run_vadis, tmp_path):
    (tmp_path / "file").touch()
    ended = run_vadis("reproduce", "table", 2, "--runs", tmp_path / "file")
    assert ended.code == 2
    assert str(tmp_path / "file") in "".join(ended.err.split("\n"))
