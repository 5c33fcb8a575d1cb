"""How a camera moves, without anything learnt: corners followed from frame to frame, and what most of them agree on.

    python -m tests.camera.classical VIDEO… [--model NAME|FILE] [--frames DIR] [--truth]

For every window of 32 frames (25 per second, short side 256 px) one of the ten labels; or none, where corners are few,
do not agree, or where the motion is mixed. With a model: how often it says the same where this is sure of itself, and
pictures of where it does not. With ``--truth``: the same against the folders in which videos lie.
"""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from vadis.inference.classify import classify
from vadis.models import Model
from vadis.video.encoder import load_opencv
from vadis.video.reader import open_video
from vadis.video.sources import find_videos
from vadis.weights.load import load_model

WINDOW = 32
RADIUS = 128  # px from the centre, where growth and turn are measured
CORNERS, QUALITY, APART = 400, 0.005, 6
REPEATED = 0.5  # px: a corner that is followed there and back comes back so near
MOST_OFF = 1.0  # px, of a corner that agrees
FEWEST, SHARE = 25, 0.5  # corners that agree, and their share of all
PAIRS = 0.85  # of a window's pairs of frames, that must be sure
STILL = 0.12  # px per frame
MOVING = 0.6
STRAY = 0.5  # of the speed
STEADY = 0.85  # of the pairs must go the same way
DRIFT = 0.25  # of a shake's speed, that may be left

AXES = (
    ("pan right", "pan left"),
    ("tilt down", "tilt up"),
    ("zoom in", "zoom out"),
    ("roll clockwise", "roll counter-clockwise"),
)


@dataclass(frozen=True)
class Window:
    """What is known of 32 frames of a video."""

    path: str
    start: int
    label: str | None  # None: not sure
    mean: np.ndarray  # (4,), the camera's motion in px per frame along x, y, zoom and roll; NaN where no corners agree


def gray_frames(path: str) -> np.ndarray:
    """uint8 (T, H, W)."""
    cv2 = load_opencv()
    with open_video(path) as video:
        return np.stack([cv2.cvtColor(frame.pixels, cv2.COLOR_RGB2GRAY) for frame in video])


def camera_motion(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How the camera moves from one frame to the next: px (4,) along x, y, zoom, roll; NaN where that is not sure."""
    cv2 = load_opencv()
    unsure = np.full(4, np.nan)
    corners = cv2.goodFeaturesToTrack(before, CORNERS, QUALITY, APART)
    if corners is None or len(corners) < FEWEST:
        return unsure
    there, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, None, winSize=(21, 21), maxLevel=4)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(after, before, there, None, winSize=(21, 21), maxLevel=4)
    near = np.linalg.norm((corners - back).reshape(-1, 2), axis=1) < REPEATED
    kept = near & (found.ravel() == 1) & (found_back.ravel() == 1)
    if kept.sum() < FEWEST:
        return unsure
    centre = (np.array(before.shape[::-1], np.float32) - 1) / 2
    old, new = (points.reshape(-1, 2)[kept] - centre for points in (corners, there))
    matrix, agree = cv2.estimateAffinePartial2D(old, new, ransacReprojThreshold=MOST_OFF, maxIters=500)
    if matrix is None or agree.sum() < max(FEWEST, SHARE * len(old)):
        return unsure
    (a, _, dx), (b, _, dy) = matrix
    return np.array([-dx, -dy, np.log(np.hypot(a, b)) * RADIUS, -np.arctan2(b, a) * RADIUS])


def label_of(motions: np.ndarray) -> str | None:
    """One of the ten labels for the motions (N, 4) of a window's pairs of frames, or None."""
    motions = motions[~np.isnan(motions).any(axis=1)]
    if len(motions) < PAIRS * (WINDOW - 1):
        return None
    mean, speeds = motions.mean(axis=0), np.linalg.norm(motions, axis=1)
    speed = speeds.mean()
    if speed < STILL:
        return "static"
    axis = int(np.abs(mean).argmax())
    way = abs(mean[axis])
    if way >= MOVING and np.delete(np.abs(mean), axis).max() <= STRAY * way:
        along = motions[:, axis] * np.sign(mean[axis])
        if (along > 0.2 * way).mean() >= STEADY and np.delete(motions, axis, axis=1).std(axis=0).max() < way:
            return AXES[axis][int(mean[axis] < 0)]
    if speed >= MOVING and np.linalg.norm(mean) <= DRIFT * speed:
        return "handheld shake"
    return None


def windows(path: str) -> Iterator[Window]:
    """Every whole window of a video, one after the other."""
    frames = gray_frames(path)
    for start in range(0, len(frames) - WINDOW + 1, WINDOW):
        part = frames[start : start + WINDOW]
        motions = np.array([camera_motion(*pair) for pair in pairwise(part)])
        sure = motions[~np.isnan(motions).any(axis=1)]
        yield Window(path, start, label_of(motions), sure.mean(axis=0) if len(sure) else np.full(4, np.nan))


def said_by(model: Model, path: str) -> dict[int, tuple[str, float]]:
    """What a model says of each window, with its probability, by the window's first frame."""
    result = classify(path, model, segment=WINDOW / 25, window=WINDOW, top_k=1)
    return {
        round(segment.start * 25): (segment.labels[0].label, segment.labels[0].score)
        for segment in result.segments
        if segment.labels
    }


def draw(window: Window, said: str, folder: Path) -> None:
    """Six frames of a window side by side, with what is said of it."""
    cv2 = load_opencv()
    with open_video(window.path, start_frame=window.start) as video:
        frames = [frame.pixels for _, frame in zip(range(WINDOW), video, strict=False)]
    strip = np.hstack([cv2.resize(frames[at], None, fx=0.5, fy=0.5) for at in range(0, len(frames), 6)])
    text = f"classical: {window.label} {np.round(window.mean, 2).tolist()}   other: {said}"
    cv2.putText(strip, text, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 0), 1, cv2.LINE_AA)
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"{Path(window.path).stem[:40]}-{window.start}.png"), strip[:, :, ::-1])


def compare(paths: Iterable[str], model: Model | None, truth: bool, frames: Path | None) -> Counter[str]:
    """Print a line for each window, and count: "windows", "sure", "same"."""
    counts: Counter[str] = Counter()
    for path in paths:
        others = said_by(model, path) if model else {}
        for window in windows(path):
            other, share = others.get(window.start, (Path(path).parent.name, 1.0) if truth else ("", 0.0))
            counts["windows"] += 1
            if window.label is not None:
                counts["sure"] += 1
                counts["same"] += window.label == other
                if frames is not None and other and other != window.label:
                    draw(window, f"{other} {share:.0%}", frames)
            mark = "" if window.label in (None, other) or not other else "  <-- differs"
            print(f"{window.start / 25:7.2f} s  {window.label or 'not sure':24}{other:24}{share:5.0%}  {path}{mark}")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", help="files or folders")
    parser.add_argument("--model", help="a model of the ten labels, by name or path")
    parser.add_argument("--frames", type=Path, help="a folder for pictures of disagreements")
    parser.add_argument("--truth", action="store_true", help="compare with the names of the videos' folders")
    asked = parser.parse_args()
    model = load_model(asked.model, "cpu") if asked.model else None
    found = [source.path for source in find_videos(asked.videos) if source.error is None]
    counts = compare(found, model, asked.truth and model is None, asked.frames)
    print(f"{counts['windows']} windows, {counts['sure']} of them sure", end="")
    if model or asked.truth:
        print(f", {counts['same']} of these the same: {counts['same'] / max(1, counts['sure']):.1%}", end="")
    print()


if __name__ == "__main__":
    main()
