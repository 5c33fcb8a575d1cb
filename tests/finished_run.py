"""An evaluation as ``vadis evaluate`` leaves it in a folder, without a model: ``write_run``."""

from pathlib import Path

import numpy as np

from vadis.evaluation.metrics import Evaluation, write_summary
from vadis.evaluation.predictions import Prediction, open_predictions, parse_predictions

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
    with open_predictions(folder / "answers.jsonl", {**SETTINGS, **changes}) as file:
        for number in range(4):
            logits = np.array([1, 0] if number < num_right else [0, 1], np.float32)
            file.append(Prediction(f"{number}.mp4", "run", {"rgb": logits, "flow": logits}))
    settings, made = parse_predictions(Path("answers.jsonl"), (folder / "answers.jsonl").read_bytes())
    write_summary(folder, Evaluation(folder, settings, list(made.values())).summary())
    return folder
