"""How long until something is there: ``vadis --help``, and the label of a 2 s clip, as a user starts them.

    python -m tests.benchmarks start

What a label takes is also shown as times ``import torch``, which takes its turn in the same run: machines differ, and
so does what else they do.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.end_to_end import drifting_noise
from tests.benchmarks.machine import Options
from tests.benchmarks.watched import vadis, watch
from tests.synthetic import write_video


def measure(options: Options) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        clip = write_video(Path(folder) / "clip.mp4", frames=drifting_noise(50))
        by_rgb, by_both = (
            vadis("classify", "--model", options.model, "--streams", streams, "-f", "jsonl", clip)
            for streams in ("rgb", "both")
        )
        cold = _seconds(by_both, VADIS_CACHE=str(Path(folder) / "cache"))
        commands = {"torch": [sys.executable, "-c", "import torch"], "rgb": by_rgb, "label": by_both}
        for command in commands.values():
            _seconds(command)
        rounds = [{name: _seconds(command) for name, command in commands.items()} for _ in range(9)]
        return {
            "help_seconds": [_seconds(vadis("--help")) for _ in range(9)],
            **{f"{name}_seconds": [each[name] for each in rounds] for name in commands},
            "cold_seconds": cold,
        }


def _seconds(command: list[str], **environment: str) -> float:
    return watch(command, step=None, **environment).seconds
