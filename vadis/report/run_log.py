"""The log of a training run (``log.jsonl``, written by training/log.py) as numbers to draw."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vadis.parsing import parse_json

Values = NDArray[np.float64]


@dataclass(frozen=True)
class RunLog:
    """What the log says, after each step and each validation.

    ``steps`` maps step, loss, smoothed_accuracy and learning_rate to (steps,); ``validations`` maps step, loss,
    accuracy and is_best to (validations,). Losses in nats, accuracies in [0, 1]; what was not finite is NaN.
    """

    steps: Mapping[str, Values]
    validations: Mapping[str, Values]


def read_log(path: Path) -> RunLog:
    """Read a log that may still be written to: a torn line is left out, as are events that are not drawn.

    Raises:
        OSError: where it cannot be read.
    """
    done, validated = [], []
    with path.open("rb") as file:
        for event in _events(file):
            if event.get("event") == "StepDone":
                done.append(event)
            elif event.get("event") == "Validated":
                validated.append(event)
    names = ("step", "loss", "smoothed_accuracy", "learning_rate")
    return RunLog(_columns(done, names), _columns(validated, ("step", "loss", "accuracy", "is_best")))


def _events(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            event = parse_json(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def _columns(events: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, Values]:
    # None, which stands for a number that is not finite, becomes NaN.
    return {name: np.array([event.get(name) for event in events], np.float64) for name in names}
