"""An evaluation as ``vadis evaluate`` leaves it in a folder, without a model: ``write_run``."""

from pathlib import Path

import numpy as np

from vadis.evaluation.predictions import Answer, AnswerFile
from vadis.evaluation.summary import read_run, summary_of_run, write_summary

SETTINGS = {
    "schema": 1,
    "model": "m",
    "model_sha256": "0",
    "architecture": "i3d",
    "streams": ["rgb", "flow"],
    "networks": ["rgb", "flow"],
    "averages": "logits",
    "dataset": "ucf101",
    "split": 1,
    "part": "test",
    "frames": 250,
    "flip": False,
    "classes": ["run", "jump"],
}


def write_run(folder: Path, num_right: int, **changes: object) -> Path:
    """Write an evaluation of four videos of which ``num_right`` were right in every column; returns ``folder``."""
    file = AnswerFile(folder / "answers.jsonl", {**SETTINGS, **changes})
    for number in range(4):
        logits = np.array([1, 0] if number < num_right else [0, 1], np.float32)
        file.append(Answer(f"{number}.mp4", "run", {"rgb": logits, "flow": logits}))
    file.close()
    run = read_run(folder, partial=True)
    write_summary(folder, summary_of_run(run, run.metrics()))
    return folder
