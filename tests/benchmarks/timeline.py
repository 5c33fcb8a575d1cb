"""Is the timeline right? On the shared montage, on montages made at random of single clips, and on these clips.

    python -m tests.benchmarks.timeline [--montages 4] [--plot docs/timeline.png]

A scene of a montage is right for as long as the timeline has one of its labels there; one that fits no class, for as
long as no label is clear or its score is below FAINT. On single clips the headline is held against the paper's score.
"""

import argparse
import csv
import json
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.synthetic import write_video
from vadis import classify, load_model, read_frames
from vadis.models import Model
from vadis.results import FINEST_SEGMENT_SECONDS, NO_CLEAR_LABEL, PALETTE, VideoResult

SHARED = Path(__file__).parents[3] / "shared"
FAINT = 0.4
SIDE = 256  # px, of the frames of a montage
SCENES, UNCLEAR = 10, 2  # of a random montage: with a label, and of no class
SCENE_FRAMES = (50, 225)  # at 25 per second
ALSO = {  # labels that fit a clip as well as that of the manifest
    "clean and jerk": ("snatch weight lifting",),
    "playing bass guitar": ("playing guitar",),
    "reading book": ("reading newspaper",),
    "golf driving": ("golf putting", "golf chipping"),
}
OF_NO_CLASS = ("nasa_13013.mp4", "video_with_failing_audio.mp4", "av1_video.mkv", "edit_list_positive_shift.mp4")


class Scene(NamedTuple):
    """A part of a montage, in seconds, and the labels that are right there."""

    start: float
    end: float
    labels: Sequence[str]


class Figures(NamedTuple):
    """How well a timeline fits the scenes: shares of time, numbers of changes, seconds to the border of each cut."""

    right: float
    changes: int
    cuts: int
    borders: list[float]
    unclear: list[float]  # of each scene that fits no class


def fit(result: VideoResult, scenes: Sequence[Scene]) -> Figures:
    """Hold a timeline against the scenes of a montage."""

    def right_seconds(scene: Scene) -> float:
        return sum(
            max(0.0, min(piece.end, scene.end) - max(piece.start, scene.start))
            for piece in result.timeline
            if (piece.label in scene.labels if scene.labels else piece.label == NO_CLEAR_LABEL or piece.score < FAINT)
        )

    borders = [piece.start for piece in result.timeline[1:]]
    named = [scene for scene in scenes if scene.labels]
    return Figures(
        sum(map(right_seconds, named)) / sum(scene.end - scene.start for scene in named),
        len(borders),
        len(scenes) - 1,
        [min((abs(border - scene.start) for border in borders), default=np.inf) for scene in scenes[1:]],
        [right_seconds(scene) / (scene.end - scene.start) for scene in scenes if not scene.labels],
    )


def scenes_in(truth: Path) -> list[Scene]:
    """Return the scenes of a montage from its truth.json."""
    return [Scene(**scene) for scene in json.loads(truth.read_text())]


def exact_labels() -> dict[Path, str]:
    """Return the clips whose manifest names a class of Kinetics-400 that fits exactly."""
    found = {}
    with (SHARED / "videos" / "manifest.csv").open(newline="", encoding="utf-8") as rows:
        for row in csv.DictReader(rows):
            _, names_kinetics, classes = row["class"].partition("K400: ")
            label = classes.partition(";")[0]
            if names_kinetics and "(" not in label and "none" not in label and "flow" not in row["file"]:
                found[SHARED / "videos" / row["file"]] = label
    return found


def random_montage(path: Path, clips: dict[Path, str], seed: int) -> list[Scene]:
    """Write parts of clips, cut together hard, and return what is in them."""
    draw = np.random.default_rng(seed)
    none = [place for name in OF_NO_CLASS for place in (SHARED / "videos").glob(f"*/{name}")]
    chosen = [*draw.permutation(list(clips))[:SCENES], *draw.permutation(none)[:UNCLEAR]]
    frames, scenes, at = [], list[Scene](), 0
    for clip in draw.permutation(chosen):
        pictures, _ = read_frames(clip)  # (T, H, W, 3), the shorter side SIDE
        count = min(len(pictures), int(draw.integers(*SCENE_FRAMES)))
        start = int(draw.integers(len(pictures) - count + 1))
        top, left = ((side - SIDE) // 2 for side in pictures.shape[1:3])
        frames.extend(pictures[start : start + count, top : top + SIDE, left : left + SIDE])
        label = clips.get(clip)
        scenes.append(Scene(at / 25, (at + count) / 25, (label, *ALSO.get(label, ())) if label else ()))
        at += count
    write_video(path, frames=frames, codec="libx264", options={"crf": "18"})
    return scenes


def headlines(clips: dict[Path, str], model: Model) -> Iterator[tuple[Path, bool, bool]]:
    """Yield every clip, whether its headline is right, and whether the paper's score is."""
    for clip, label in clips.items():
        result = classify(clip, model)
        yield clip, result.labels[0].label == label, result.clip_score[0].label == label


def draw_picture(result: VideoResult, fine: VideoResult, scenes: Sequence[Scene], path: Path) -> None:
    """Draw what is in a montage, every prediction's first label, the segments' and the timeline, one above another."""
    from vadis.report.plots import GREY, drawing, save_png

    names = [scene.labels[0] for scene in scenes if scene.labels]
    colour = {name: PALETTE[number % len(PALETTE)] for number, name in enumerate(names)}
    rows = {
        "what there is": [(scene.start, scene.end, next(iter(scene.labels), "")) for scene in scenes],
        "predictions": [(each.start, each.end, each.labels[0].label) for each in fine.segments],
        "segments": [(each.start, each.end, each.labels[0].label) for each in result.segments],
        "timeline": [(each.start, each.end, each.label) for each in result.timeline],
    }
    with drawing() as new_figure:
        axes = new_figure(figsize=(6.4, 2.4), layout="constrained").subplots()
        for height, bars in enumerate(rows.values()):
            spans = [(start, end - start) for start, end, _ in bars]
            shades = ["white" if name in ("", NO_CLEAR_LABEL) else colour.get(name, "#222222") for _, _, name in bars]
            axes.broken_barh(
                spans,
                (-height - 0.4, 0.8),
                facecolors=shades,
                edgecolor="white",
                linewidth=0.3 if len(bars) < 100 else 0,
            )
        for scene in scenes[1:]:
            axes.axvline(scene.start, color=GREY, linewidth=0.4)
        axes.set(yticks=range(0, -len(rows), -1), yticklabels=list(rows), xlabel="seconds", xlim=(0, scenes[-1].end))
        save_png(axes.figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--montages", type=int, default=4, help="at random")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    model, clips = load_model("i3d-kinetics400-rgb", offline=True), exact_labels()
    found = list(headlines(clips, model))
    print(f"headline right in {sum(ours for _, ours, _ in found)} of {len(found)} clips,", end=" ")
    print(f"the paper's score in {sum(papers for *_, papers in found)}")
    known = {clip: clips[clip] for clip, _, papers in found if papers}  # of others no timeline could be right
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "montage.mp4"
        for seed in range(options.montages):
            scenes = random_montage(path, known, seed)
            print(f"random {seed}: {fit(classify(path, model), scenes)}", flush=True)
    path, scenes = SHARED / "montage" / "montage.mp4", scenes_in(SHARED / "montage" / "truth.json")
    result = classify(path, model)
    shortest = min(one.end - one.start for one in result.timeline)
    print(f"shared: {fit(result, scenes)}, shortest piece {shortest:.2f} s")
    print("labels:", ", ".join(f"{label.label} {label.score:.3f}" for label in result.labels))
    assert all(one.end == other.start for one, other in pairwise(result.timeline))
    if options.plot:
        draw_picture(result, classify(path, model, segment=FINEST_SEGMENT_SECONDS), scenes, options.plot)


if __name__ == "__main__":
    main()
