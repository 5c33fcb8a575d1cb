"""Time and memory against the length of a video, and against the number of files; drawn into the docs.

    python -m tests.benchmarks scale

At full width two hours of video would take three: the source is tiny (96×64, which vadis enlarges as
any other), the stream is RGB, and the network has a sixteenth of its channels. What grows with the input grows all the
same.
"""

import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.end_to_end import play_over
from tests.benchmarks.machine import Options
from tests.benchmarks.watched import vadis, watch
from tests.make_model import make_model
from tests.synthetic import write_video
from vadis.report.plots import BLUE, GREY, ORANGE, drawing, save_png

LENGTHS = (10, 60, 600, 1800, 7200)  # s
COUNTS = (1, 20, 100, 300)  # files


def measure(options: Options) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_model(folder / "narrow.safetensors", width=1 / 16)
        command = vadis("classify", "--model", model, "--streams", "rgb", "-f", "jsonl")
        found = {"lengths": by_length(folder, command), "files": by_count(folder, command)}
    draw(found, options.plots / "scale.png")
    return found


def by_length(folder: Path, command: list[str]) -> list[dict[str, float]]:
    clip = write_video(folder / "clip.mp4", num_frames=250, size=(96, 64))
    watch([*command, str(clip)])  # warm-up
    points = []
    for seconds in LENGTHS:
        video = play_over(clip, folder / "long.mp4", seconds // 10)
        seen = watch([*command, str(video)])
        points.append({"size": seconds, "seconds": seen.seconds, "peak_mb": seen.peak_mb})
    return points


def by_count(folder: Path, command: list[str]) -> list[dict[str, float]]:
    clip = write_video(folder / "short.mp4", num_frames=25, size=(96, 64))
    points = []
    for count in COUNTS:
        archive = folder / f"archive{count}"
        archive.mkdir()
        for number in range(count):
            (archive / f"{number:05}.mp4").write_bytes(clip.read_bytes())
        seen = watch([*command, "-o", str(folder / f"{count}.jsonl"), str(archive)])
        points.append({"size": count, "seconds": seen.seconds, "peak_mb": seen.peak_mb})
    return points


def draw(found: dict[str, Any], path: Path) -> None:
    with drawing() as new_figure:
        figure = new_figure(figsize=(5.6, 3.0), layout="constrained")
        for column, (key, name, unit) in enumerate((("lengths", "minutes of video", 60), ("files", "files", 1))):
            sizes = [point["size"] / unit for point in found[key]]
            for row, (field, label, colour) in enumerate(
                (("seconds", "seconds", BLUE), ("peak_mb", "peak memory, MB", ORANGE))
            ):
                axes = figure.add_subplot(2, 2, 1 + column + 2 * row)
                values = [point[field] for point in found[key]]
                axes.plot(sizes, values, "o-", color=colour, markersize=3)
                straight = [values[0] if field == "seconds" else values[-1], values[-1]]
                axes.plot([0, sizes[-1]], straight, ":", color=GREY, linewidth=0.8)
                axes.set(ylim=(0, max(values) * 1.15), xlim=(0, None), ylabel="" if column else label)
                axes.set_xlabel(name if row else "")
        save_png(figure, path)
