"""The shell completes commands, options, and the names of models, formats and labels."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("vadis cla", "classify"),
        ("vadis weights ver", "verify"),
        ("vadis report --thumb", "--thumbnails"),
        ("vadis classify -m camera", "camera-motion"),
        ("vadis export a.jsonl -f cs", "csv"),
        ("vadis classify --labels yo", "yoga"),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_is_begun_is_completed(shell: str, typed: str, offered: str) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    asked = {"_TYPER_COMPLETE_ARGS": typed, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    environment = {**os.environ, "_VADIS_COMPLETE": f"complete_{shell}", **words, **asked}
    program = "import sys; sys.argv = ['vadis']; from vadis.cli import main; main()"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert offered in ended.stdout, ended.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_shown(run_vadis, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    ended = run_vadis("--show-completion", shell)
    assert ended.code == 0 and "_VADIS_COMPLETE" in ended.out
