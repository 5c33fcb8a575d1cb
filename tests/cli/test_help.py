"""Help and version: quick, light, and true to the tables."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import vadis
from vadis.cli.doctor import CODECS
from vadis.formats import FORMATS

ROOT = Path(__file__).parents[2]
HEAVY = ("av", "cv2", "numba", "numpy", "platformdirs", "safetensors", "torch")


@pytest.mark.slow
def test_help_imports_nothing_heavy():
    program = (
        "import sys\n"
        "from vadis.cli import main\n"
        "try:\n    main()\nfinally:\n"
        f"    sys.stderr.write(' '.join(name for name in {HEAVY} if name in sys.modules))\n"
    )
    for arguments in (["--help"], ["classify", "--help"], ["weights", "--help"], ["--version"]):
        command = [sys.executable, "-c", program, *arguments]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert (ended.returncode, ended.stderr) == (0, ""), arguments


@pytest.mark.parametrize(
    "command",
    [
        "classify",
        "doctor",
        "evaluate",
        "features",
        "finetune",
        "flow",
        "plot",
        "report",
        "reproduce",
        "train",
        "weights",
    ],
)
def test_every_command_is_in_the_help_and_has_its_own(run_vadis, command):
    assert command in run_vadis("--help").out
    ended = run_vadis(command, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert "Usage" in ended.out


def test_classify_explains_its_options_formats_and_exit_codes(run_vadis, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = run_vadis("classify", "--help").out
    assert "|".join(("auto", "table", *FORMATS)) in text
    for word in ("Examples", "Exit codes", "Which videos", "Model", "Time and labels", "Output", "Machine"):
        assert word in text


def test_version(run_vadis):
    ended = run_vadis("--version")
    assert (ended.code, ended.out) == (0, f"vadis {vadis.__version__}\n")


def test_python_m_vadis_is_the_same_program():
    ended = subprocess.run([sys.executable, "-m", "vadis", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout == f"vadis {vadis.__version__}\n"


@pytest.mark.parametrize("arguments", [["label"], ["--loud"], ["-q", "-v", "doctor"]])
def test_wrong_use_is_2_without_a_traceback(run_vadis, arguments):
    ended = run_vadis(*arguments)
    assert ended.code == 2
    assert "Traceback" not in ended.err


def test_codecs_of_the_doctor_are_words():
    assert all(re.fullmatch(r"[A-Za-z0-9. -]+", name) and decoders for name, decoders in CODECS.items())


def test_global_flags_may_stand_anywhere(run_vadis, tmp_path):
    missing = tmp_path / "gone.mp4"
    for words in (["--debug", "classify", missing], ["classify", missing, "--debug"], ["classify", "--debug", missing]):
        assert "Traceback" in run_vadis(*words).err
    assert run_vadis("-q", "doctor", "-v").code == 2
    assert "Traceback" not in run_vadis("classify", "--", "--debug", missing).err
