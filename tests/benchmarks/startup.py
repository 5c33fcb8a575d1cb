"""How long until something is there: ``vadis --help``, and the label of a 2 s clip, as a user starts them.

python -m tests.benchmarks start
"""

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
        label = vadis("classify", "--model", options.model, "--streams", "both", "-f", "jsonl", clip)
        cold = watch(label, VADIS_CACHE=str(Path(folder) / "cache")).seconds
        watch(label)
        return {
            "help_seconds": [watch(vadis("--help")).seconds for _ in range(9)],
            "label_seconds": [watch(label).seconds for _ in range(3)],
            "cold_seconds": cold,
        }
