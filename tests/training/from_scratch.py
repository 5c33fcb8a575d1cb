"""Networks that learn from scratch on a CPU, by the commands that people use: what the tests of learning share."""

import io
import json
import sys
from contextlib import redirect_stdout
from math import comb
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from vadis import cli
from vadis.device import cpu_count

DOUBT = 0.001  # how often pure chance lies outside its bounds


def numbers(steps: int, learning_rate: float, **others: object) -> list[str]:
    """The options that make a recipe of minutes: a rate, a tenth of it for the last quarter of the steps, no more."""
    recipe = {
        "batch_size": 16,
        "micro_batch": 16,
        "steps": steps,
        "schedule": "steps",
        "learning_rate": learning_rate,
        "milestones": [[steps * 3 // 4, learning_rate / 10]],
        "batch_norm_decay": 0.8,  # 0.999 wants thousands of steps
        "dropout": 0,
        **others,
    }
    return [word for key, value in recipe.items() for word in ("--set", f"{key}={value}")]


def from_scratch(architecture: str, *words: object) -> tuple[object, ...]:
    """``vadis train`` with a narrow network; left and right are told apart, so nothing is mirrored."""
    return ("train", "--arch", architecture, "--width", "0.125", "--no-mirror", "--jobs", "0", *words)


def vadis(*words: object) -> str:
    """A command in this process, on all processors: its stdout."""
    threads, out = torch.get_num_threads(), io.StringIO()
    torch.set_num_threads(cpu_count())
    try:
        asked = patch.object(sys, "argv", ["vadis", *map(str, words)])
        with asked, redirect_stdout(out), pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        torch.set_num_threads(threads)
    assert not ended.value.code, words
    return out.getvalue()


def right_answers(run: Path) -> dict[str, int]:
    """How many videos the model was right about, by column (rgb, flow, both)."""
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    columns = {name: column for name, column in metrics.items() if isinstance(column, dict) and "top1" in column}
    return {name: round(column["top1"] * column["num_examples"]) for name, column in columns.items()}


def bounds_of_chance(answers: int, classes: int = 4) -> range:
    """How many of ``answers`` are right by pure chance, with all but DOUBT of the probability."""
    share = 1 / classes
    exactly = [comb(answers, k) * share**k * (1 - share) ** (answers - k) for k in range(answers + 1)]
    likely = [k for k in range(answers + 1) if min(sum(exactly[: k + 1]), sum(exactly[k:])) > DOUBT / 2]
    return range(likely[0], likely[-1] + 1)
