"""The program on a real road: a small random model, a synthetic video, and no OpenCV to be had."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.make_model import make_model
from tests.pseudo_terminal import on_a_terminal
from tests.synthetic import write_video
from vadis.weights.catalog import DEFAULT_MODEL, SHIPPED, STAND_IN, WEIGHTS

ROOT = Path(__file__).parents[2]
WITHOUT_OPENCV = "import sys; sys.modules['cv2'] = None; from vadis.cli import main; main()"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with a model, and clips/ with a good video, a cut one and an empty one."""
    folder = tmp_path_factory.mktemp("real")
    make_model(folder / "model.safetensors", width=1 / 16, classes=7)
    (folder / "clips").mkdir()
    video = write_video(folder / "clips" / "a.mp4", num_frames=40)
    (folder / "clips" / "cut.mp4").write_bytes(video.read_bytes()[:500])
    (folder / "clips" / "empty.mp4").write_bytes(b"")
    return folder


@pytest.mark.slow
def test_from_files_to_records_without_opencv(inputs):
    command = [sys.executable, "-c", WITHOUT_OPENCV, "classify", "clips", "-m", "model.safetensors", "--streams", "rgb"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=inputs, env=environment, capture_output=True, text=True)
    assert ended.returncode == 3, ended.stderr
    records = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [(record["path"], record["status"]) for record in records] == [
        ("clips/a.mp4", "ok"),
        ("clips/cut.mp4", "error"),
        ("clips/empty.mp4", "error"),
    ]
    assert records[0]["streams"] == ["rgb"]
    assert [label["label"].split()[0] for label in records[0]["labels"]] == ["class"] * 5
    assert records[0]["segments"][-1]["end"] == records[0]["duration_seconds"] == 1.6
    assert ended.stderr.splitlines()[0] == "model, rgb, on cpu"
    assert ended.stderr.splitlines()[-1] == "1 ok, 2 failed"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-m", "clips/a.mp4"], 1, "error: "),
        (["-m", "no-such-model"], 2, "i3d-kinetics400"),
        (["-m", "model.safetensors", "--window", "2"], 2, "window"),
        (["-m", "model.safetensors", "--device", "tpu"], 2, "tpu"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(inputs, run_vadis, monkeypatch, arguments, code, words):
    monkeypatch.chdir(inputs)
    ended = run_vadis("classify", "clips/a.mp4", "--offline", *arguments)
    assert (ended.code, ended.out) == (code, "")
    assert words in ended.err
    assert "Traceback" not in ended.err and "bug" not in ended.err


@pytest.mark.slow
def test_where_the_default_cannot_be_had_the_rgb_model_answers_and_says_so_in_two_lines(inputs, run_vadis, monkeypatch):
    monkeypatch.chdir(inputs)
    ended = run_vadis("--quiet", "classify", "clips/a.mp4", "--offline")
    record = json.loads(ended.out)
    assert (ended.code, record["status"]) == (0, "ok")
    assert (record["model"], record["streams"]) == (STAND_IN, ["rgb"])
    unreachable, instead = ended.err.splitlines()
    assert DEFAULT_MODEL in unreachable
    figures = SHIPPED[STAND_IN].accuracy["rgb"][0], WEIGHTS[DEFAULT_MODEL].accuracy["both"][0]
    for fact in (STAND_IN, *map(str, figures), "vadis weights download"):
        assert fact in instead


@pytest.mark.parametrize(
    "arguments",
    [
        *(["-m", DEFAULT_MODEL], ["-o", "out.jsonl"], ["--output-dir", "out"], ["--ray", "local", "-o", "out"]),
        *(["--streams", "flow"], ["-f", "csv"], ["-f", "srt"], ["-f", "vtt"]),  # these formats name no model
    ],
)
def test_none_stands_in_where_it_could_be_taken_for_the_default(inputs, run_vadis, monkeypatch, arguments):
    monkeypatch.chdir(inputs)
    ended = run_vadis("classify", "clips/a.mp4", "--offline", *arguments)
    assert (ended.code, ended.out) == (1, "")
    assert DEFAULT_MODEL in ended.err and f"`--model {STAND_IN} --streams rgb`" in ended.err
    assert not [*inputs.glob("*.jsonl"), *inputs.glob("out/*")]


@pytest.mark.slow
def test_progress_is_shown_on_a_terminal(inputs):
    model, video = inputs / "model.safetensors", inputs / "clips" / "a.mp4"
    text, code = on_a_terminal(sys.executable, "-m", "vadis", "classify", video, "-m", model, "--streams", "rgb")
    assert code == 0
    assert "network: a.mp4" in text or "decoding: a.mp4" in text
    assert "class " in text
