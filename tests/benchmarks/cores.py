"""What does a batch gain by more cores, and by a core for each video?

    python -m tests.benchmarks cores
    python -m tests.benchmarks.cores VIDEO… --model MODEL [--streams rgb] [--rounds N] [--before CHECKOUT]

The first labels clips that are made, on one core of this machine and on all of them, in turn. The second labels these
videos on all cores, and with ``--before`` in turn with the code of an older checkout: the ratio of each round, and
whether both write the same records.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.end_to_end import drifting_noise
from tests.benchmarks.machine import Options
from tests.benchmarks.watched import Watched, vadis, watch
from tests.synthetic import write_video
from vadis.device import cpu_count

CLIPS, FRAMES = 8, 100
PINNED = (
    "import os, sys; os.sched_setaffinity(0, map(int, sys.argv[1].split(','))); os.execv(sys.argv[2], sys.argv[2:])"
)


def on_cores(cores: list[int], command: list[str]) -> list[str]:
    """The command, which may use these processors alone."""
    return [sys.executable, "-c", PINNED, ",".join(map(str, cores)), *command]


def measure(options: Options, rounds: int = 3) -> dict[str, Any]:
    mine = sorted(os.sched_getaffinity(0))[: cpu_count()]
    with tempfile.TemporaryDirectory() as folder:
        clips = [write_video(Path(folder) / f"{n}.mp4", frames=drifting_noise(FRAMES)) for n in range(CLIPS)]
        runs: dict[str, list[Watched]] = {}
        for _ in range(rounds + 1):  # the first one warms caches
            for streams in ("rgb", "both"):
                command = vadis("classify", "--model", options.model, "--streams", streams, "-f", "jsonl", *clips)
                for cores in (mine[:1], mine):
                    runs.setdefault(f"{streams} {len(cores)}", []).append(watch(on_cores(cores, command)))
    return {
        "clips": CLIPS,
        "seconds_of_video": FRAMES / 25,
        "runs": {
            name: {"seconds": [run.seconds for run in found[1:]], "peak_mb": max(run.peak_mb for run in found)}
            for name, found in runs.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--streams", default="both")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path, help="a checkout of the code that takes turns")
    options = parser.parse_args()
    root = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory() as folder:
        seconds: dict[Path, list[float]] = {}
        for number in range(options.rounds + 1):
            for checkout in filter(None, (options.before, root)):
                target = Path(folder) / f"{number} {checkout.name}.jsonl"
                command = vadis(
                    "classify",
                    *map(Path.resolve, options.videos),
                    "--model",
                    options.model,
                    "--streams",
                    options.streams,
                )
                took = watch([*command, "-o", str(target)], directory=checkout.resolve())
                seconds.setdefault(checkout, []).append(took.seconds)
                print(f"{checkout}: {took.seconds:.1f} s, {took.peak_mb:.0f} MB{'' if number else ' (warm-up)'}")
        if options.before is None:
            return
        written = [[json.loads(line) for line in path.read_text().splitlines()] for path in Path(folder).iterdir()]
        print("records alike:", all(each == written[0] for each in written))
    ratios = [before / now for before, now in zip(seconds[options.before][1:], seconds[root][1:], strict=True)]
    print(f"before ÷ now, by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}; median {median(ratios):.2f}")


if __name__ == "__main__":
    main()
