"""Is a core idle while ``vadis classify`` labels a 10 s clip with both streams? A timeline, drawn into the docs.

    python -m tests.benchmarks utilisation

*In use* is what the program's threads got of the processors; *waited for* adds what they could have used had no other
program been running (the time in which a thread was ready and had none), so it holds on a busy machine too.
"""

import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.end_to_end import clip_of_ten_seconds
from tests.benchmarks.machine import Options
from tests.benchmarks.watched import KINDS, WAITED, Watched, vadis, watch
from vadis.device import cpu_count
from vadis.report.plots import BLUE, GREY, ORANGE, PALE, drawing, save_png

SMOOTHED_SECONDS = 0.2


def measure(options: Options) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        clip = clip_of_ten_seconds(Path(folder))
        command = vadis("classify", "--model", options.model, "--streams", "both", "-f", "jsonl", clip)
        watch(command)  # warm-up
        seen = watch(command)
    draw(seen, options.plots / "utilisation.png")
    cores, steps = cpu_count(), seen.steps()
    began = next(t0 for t0, _, used in steps if sum(used) > 1.5)
    ended = max(t1 for _, t1, used in steps if sum(used) > 1.5)
    working = [step for step in steps if step[0] >= began and step[1] <= ended]
    return {
        "seconds": seen.seconds,
        "in_use": _share(steps, cores, with_waiting=False),
        "wanted": _share(steps, cores, with_waiting=True),
        "busy_seconds": ended - began,
        "busy": _share(working, cores, with_waiting=False),
        "busy_wanted": _share(working, cores, with_waiting=True),
    }


def _share(steps: list[tuple[float, float, list[float]]], cores: int, *, with_waiting: bool) -> float:
    kinds = WAITED + 1 if with_waiting else WAITED
    used = sum((t1 - t0) * min(cores, sum(parts[:kinds])) for t0, t1, parts in steps)
    return used / sum(t1 - t0 for t0, t1, _ in steps) / cores


def draw(seen: Watched, path: Path) -> None:
    """Processors in use over time, by kind of thread."""
    import numpy as np

    steps = seen.steps()
    width = max(1, round(SMOOTHED_SECONDS * len(steps) / seen.seconds))
    kernel = np.ones(width) / width
    times = np.array([t1 for _, t1, _ in steps])
    parts = np.array([used for _, _, used in steps]).T  # (kinds + waited, steps)
    smooth = [np.convolve(part, kernel, mode="same") for part in parts]
    with drawing() as new_figure:
        axes = new_figure(figsize=(6.4, 2.8), layout="constrained").subplots()
        labels = [*KINDS, "ready, but another program ran"]
        axes.stackplot(times, smooth, labels=labels, colors=[BLUE, ORANGE, GREY, PALE])
        axes.axhline(cpu_count(), color=GREY, linewidth=0.8)
        axes.set(
            xlabel="seconds since the command",
            ylabel="processors",
            xlim=(0, seen.seconds),
            ylim=(0, cpu_count() * 1.1),
        )
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, fontsize=7, frameon=False)
        save_png(axes.figure, path)
