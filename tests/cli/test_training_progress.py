"""What a person sees of a training run: two lines on a terminal, which leave; plain lines elsewhere."""

import re
import sys
import time

import pytest

from tests.matching import containing
from tests.pseudo_terminal import on_a_terminal
from vadis.cli import terminal
from vadis.cli.training_run import training_progress
from vadis.training.log import MemoryShort, Resumed, Saved, StepDone, Validated


def step_done(step: int, steps: int = 5_000, **changes) -> StepDone:
    values = {"epoch": 0.5, "loss": 9.9, "smoothed_loss": 1.2345, "smoothed_accuracy": 0.567, "learning_rate": 0.001}
    values |= {"gradient_norm": 2.0, "clips_per_second": 12.34, "seconds_left": 3723.0, **changes}
    return StepDone(step, steps, **values)


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """What time it is: its only value can be set."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_step_in_one_line(capsys):
    with training_progress("rgb") as report:
        report(step_done(1_234))
    said = "rgb step 1,234/5,000  loss 1.234  accuracy 56.7%  rate 0.001  12.3 clips/s  1:02:03 left"
    assert capsys.readouterr().err.splitlines()[0] == said


def test_elsewhere_a_line_now_and_then_and_one_at_the_end(capsys, clock):
    with training_progress("flow") as report:
        for step in range(1, 26):
            report(step_done(step, 25))
            clock[0] += 1
        report(Validated(25, 1.5, 0.25, 0.001, is_best=True))
    said = capsys.readouterr().err.splitlines()
    assert [re.split("  |[:,]", one)[0] for one in said] == [
        "flow step 1/25",
        "flow step 11/25",
        "flow step 21/25",
        "flow after step 25",
        "flow",
    ]


def test_an_interruption_says_how_far_it_came(capsys, clock):
    with pytest.raises(KeyboardInterrupt), training_progress("rgb") as report:
        report(step_done(7))
        clock[0] += 65
        raise KeyboardInterrupt
    last = "rgb: 7 of 5,000 steps done after 1:05, loss 1.234, accuracy 56.7%"
    assert capsys.readouterr().err.splitlines()[-1] == last


def test_a_run_without_a_step_says_nothing_of_steps(capsys):
    with training_progress("rgb") as report:
        report(Resumed(9, "x", ("step-10",), ()))
    resumed, damaged = capsys.readouterr().err.splitlines()
    assert re.search(containing("rgb", 9), resumed) and re.search(containing("rgb", "step-10"), damaged)


def test_quiet_leaves_only_problems(capsys, monkeypatch):
    monkeypatch.setattr(terminal.settings, "quiet", True)
    with training_progress("rgb") as report:
        report(step_done(1))
        report(Validated(1, 1.5, 0.25, 0.001, is_best=False))
        report(Saved(1, "x"))
        report(MemoryShort(1, 4, 8, 16))
    (said,) = capsys.readouterr().err.splitlines()
    assert re.search(containing("rgb", 4), said)


ON_A_TERMINAL = """
import time
from vadis.cli.training_run import training_progress
from vadis.training.log import StepDone, Validated
with training_progress("rgb") as report:
    for step in (1, 2):
        report(StepDone(step, 2, 1.0, 1.0, 1.0, 0.5, 0.1, 1.0, 8.0, 2.0 - step))
        time.sleep(0.3)
        report(Validated(step, 1.5, 0.25, 0.1, step == 1))
print("the end")
"""


def shown_at_the_end(written: str) -> list[str]:
    """The screen that ``written`` leaves: carriage return, line feed, cursor up and erase line, as a terminal obeys."""
    screen, row, column = [""], 0, 0
    for code, char in re.findall(r"\x1b\[([\d;?]*[A-Za-z])|([^\x1b])", written):
        if code.endswith("A"):
            row -= int(code[:-1] or 1)
        elif code == "2K":
            screen[row] = ""
        elif char == "\r":
            column = 0
        elif char == "\n":
            row += 1
            screen += [""] * (row + 1 - len(screen))
        elif char:
            screen[row] = screen[row].ljust(column)[:column] + char + screen[row][column + 1 :]
            column += 1
    return [one.rstrip() for one in screen if one.strip()]


def test_on_a_terminal_only_plain_lines_stay():
    written, code = on_a_terminal(sys.executable, "-c", ON_A_TERMINAL, columns=80)
    assert code == 0, written
    assert "━" in written and "0:01 left" in written and "accuracy 50.0%" in written
    assert "\x1b[?25h" in written, "the cursor is shown again"
    said = shown_at_the_end(written)
    for step, line_of_step in enumerate(said[:2], 1):
        assert re.search(containing("rgb", f"step {step}", "1.500", "25.0%"), line_of_step)
    assert re.search(containing("rgb", "2 of 2", "1.000", "50.0%"), said[2])
    assert said[3:] == ["the end"]


def test_a_terminal_that_obeys_nothing_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    code = ON_A_TERMINAL.replace("import time", "import os, time\nos.environ['TERM'] = 'dumb'", 1)
    written, _ = on_a_terminal(sys.executable, "-c", code, columns=80)
    assert "\x1b" not in written
    assert "rgb step 1/2  loss 1.000" in written
