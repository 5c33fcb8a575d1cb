"""An evaluation as ``vadis evaluate`` leaves it in a folder, without a model: ``write_run``."""

from pathlib import Path

import numpy as np

from vadis.evaluation.metrics import (
    Evaluation,
    Prediction,
    open_predictions,
    read_predictions,
    read_settings,
    write_summary,
)

SETTINGS = {
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
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "answers.jsonl"
    with open_predictions(path, {**SETTINGS, **changes}) as journal:
        for number in range(4):
            logits = np.array([1, 0] if number < num_right else [0, 1], np.float32)
            journal.append(Prediction(f"{number}.mp4", "ok", label="run", logits={"rgb": logits, "flow": logits}))
    write_summary(folder, Evaluation(folder, read_settings(path), [*read_predictions(path).values()]).summary())
    return folder
