"""Videos to look at: one with its labels drawn in, and one with its optical flow beside it.

The labels of the moment with a bar for each score, and the whole timeline below, are drawn over every frame of the
source, at its own time and upright, with its sound. OpenCV draws the letters; it is imported when something is drawn.

Flow is shown in the usual colour wheel (Baker et al. 2007): the colour says where a pixel moves to, its strength how
far. White stands still, the full colour is FULL_PIXELS per frame, and beyond it colours are darker.
"""

from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vadis.errors import VideoError
from vadis.formats import percent, visible
from vadis.report.drawing import shortened
from vadis.results import Label, Segment, VideoResult
from vadis.video.encoder import load_opencv, video_file
from vadis.video.isolated.pool import ChildSound, Decoders, SourceVideo
from vadis.video.metadata import VideoFacts
from vadis.video.timegrid import GRID_FPS

if TYPE_CHECKING:
    import torch

Pixels = NDArray[np.uint8]  # (H, W, 3), RGB
Colour = tuple[int, int, int]

MAX_LABELS = 3
FONT_SHARE, FONT_PIXELS = 24, (10, 44)  # a letter's height: this part of the shorter side, within these bounds
PANEL_LETTERS = 22  # the panel's width in letters' heights
STRIP_LETTERS = 0.55  # the timeline's height
BACKGROUND, BACKGROUND_ALPHA = (12, 12, 14), 0.7
WHITE, BAR_TRACK, NOTHING = (255, 255, 255), (70, 70, 76), (58, 58, 62)

# Okabe and Ito's colours, told apart by nearly everyone; labels beyond them share the last.
COLOURS: tuple[Colour, ...] = (
    *((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (0, 114, 178), (213, 94, 0)),
    (150, 150, 150),
)


class Overlay:
    """Draws one result, with segments, into the frames of its video, (width, height) in ``size``."""

    def __init__(self, result: VideoResult, size: tuple[int, int]) -> None:
        self._cv2 = load_opencv()
        self._width, self._height = size
        self._letter = int(np.clip(min(size) / FONT_SHARE, *FONT_PIXELS))
        self._segments = result.segments
        self._end = result.segments[-1].end if result.segments else 1.0
        self._colours = _colours(result)
        self._font = self._cv2.FontFace("sans")
        self._strip = self._make_strip()  # (h, W, 3)
        self._panel: Pixels = np.empty((0, 0, 3), np.uint8)  # of the segment drawn last
        self._drawn = -1

    def draw(self, pixels: Pixels, seconds: Fraction) -> Pixels:
        """The frame (H, W, 3) shown at ``seconds``, with everything drawn in; ``pixels`` stay as they are."""
        drawn: Pixels = pixels.copy()
        strip = min(len(self._strip), self._height)
        bottom = self._height - strip
        drawn[bottom:] = self._strip[:strip]
        at = min(self._width - 1, int(float(seconds) / self._end * self._width))
        half = max(1, self._letter // 10)
        drawn[bottom:, max(0, at - half) : at + half] = WHITE
        starts = [segment.start for segment in self._segments]  # the last one reaches to the end of the file
        index = int(np.searchsorted(starts, float(seconds) + 1e-6, side="right")) - 1
        if index >= 0 and self._segments[index].labels:
            self._draw_panel(drawn, index, bottom)
        return drawn

    def _draw_panel(self, drawn: Pixels, index: int, bottom: int) -> None:
        if index != self._drawn:
            self._panel, self._drawn = self._make_panel(self._segments[index]), index
        height, width = min(self._panel.shape[0], bottom), min(self._panel.shape[1], self._width)
        margin = min(self._letter // 2, max(0, bottom - height), max(0, self._width - width))
        place = drawn[bottom - margin - height : bottom - margin, margin : margin + width]  # (h, w, 3)
        panel = self._panel[:height, :width]
        is_background = (panel == BACKGROUND).all(axis=2, keepdims=True)
        mixed = place * (1 - BACKGROUND_ALPHA) + panel * BACKGROUND_ALPHA
        place[:] = np.where(is_background, mixed, panel).astype(np.uint8)

    def _make_panel(self, segment: Segment) -> Pixels:
        """The labels of a segment, one to a line: name, percentage, and a bar below."""
        letter, labels = self._letter, segment.labels[:MAX_LABELS]
        line, width = int(letter * 1.75), min(PANEL_LETTERS * letter, self._width)
        panel = np.full((line * len(labels) + letter // 2, width, 3), BACKGROUND, np.uint8)
        for number, label in enumerate(labels):
            self._draw_label(panel, label, number * line)
        return panel

    def _draw_label(self, panel: Pixels, label: Label, top: int) -> None:
        letter, width = self._letter, panel.shape[1]
        pad, base = letter // 2, top + int(letter * 1.15)
        score, name = f"{percent(label.score)} %", visible(label.label)
        score_left = width - pad - self._text_width(score)
        longest = len(name)
        while longest > 1 and pad + self._text_width(shortened(name, longest)) > score_left - pad:
            longest -= 1
        for text, left in ((shortened(name, longest), pad), (score, score_left)):
            self._cv2.putText(panel, text, (left, base), WHITE, self._font, letter)
        bar = slice(base + max(2, letter // 4), base + max(2, letter // 4) + max(2, letter // 6))
        panel[bar, pad : width - pad] = BAR_TRACK
        panel[bar, pad : pad + round((width - 2 * pad) * label.score)] = self._colours.get(label.label, COLOURS[-1])

    def _text_width(self, text: str) -> int:
        _, _, width, _ = self._cv2.getTextSize((self._width, self._height), text, (0, 0), self._font, self._letter)
        return int(width)

    def _make_strip(self) -> Pixels:
        """The timeline: every column in the colour of the label that leads at its time."""
        height = max(4, int(self._letter * STRIP_LETTERS))
        columns = np.full((self._width, 3), NOTHING, np.uint8)
        for segment in self._segments:
            if segment.labels:
                first, last = (round(time / self._end * self._width) for time in (segment.start, segment.end))
                columns[first:last] = self._colours.get(segment.labels[0].label, COLOURS[-1])
        return np.repeat(columns[None], height, axis=0)  # (h, W, 3)


def _colours(result: VideoResult) -> dict[str, Colour]:
    """A colour for each label that leads, those that lead longest first."""
    seconds: dict[str, float] = {}
    for segment in result.segments:
        if segment.labels:
            name = segment.labels[0].label
            seconds[name] = seconds.get(name, 0.0) + segment.end - segment.start
    return dict(zip(sorted(seconds, key=lambda name: -seconds[name]), COLOURS, strict=False))


def annotate(
    video: str,
    result: VideoResult,
    path: Path,
    *,
    with_sound: bool = True,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> VideoFacts:
    """Write ``video`` with what ``result`` says drawn in to ``path``; returns what is known of it now that all is read.

    Args:
        video: the file that the result is of.
        result: with segments.
        path: with an extension of ``vadis.video.encoder.CONTAINERS``.
        with_sound: copy the sound, bit by bit.
        progress: called after each frame with how many are done, and how many the header declares.

    Raises:
        VideoError: where the video cannot be read.
        UsageError: for sound that this kind of file cannot hold.
        VadisError: where OpenCV or an encoder is missing, or the disk does not take it.
    """
    with ExitStack() as stack:
        decoders = stack.enter_context(Decoders())
        source = stack.enter_context(SourceVideo(decoders, video))
        sound = stack.enter_context(ChildSound(decoders, video)) if with_sound else None
        overlay, facts = Overlay(result, source.size), source.facts
        first, copied = source.first_seconds, sound if sound and sound.streams else None
        with video_file(
            path,
            source.size,
            facts.source_fps,
            pixel_aspect=source.pixel_aspect,
            colours=source.colours,
            sound=copied,
            zero_seconds=(source.start_seconds or Fraction(0)) - first,
        ) as write:
            for number, frame in enumerate(source.source_frames(), 1):
                seconds = first + frame.seconds
                zero = None if frame.zero_seconds is None else frame.zero_seconds - first
                write(overlay.draw(frame.pixels, seconds), seconds, frame.duration_seconds, zero)
                progress(number, facts.frames_declared)
    return source.facts


FULL_PIXELS = 6.0  # per frame; most actions move by less
BEYOND = 0.75  # of the full colour, for what moves further
ARCS = (  # of the wheel: from colour to colour, and how many steps lie between them
    ((255, 0, 0), 15),  # red to yellow
    ((255, 255, 0), 6),  # to green
    ((0, 255, 0), 4),  # to cyan
    ((0, 255, 255), 11),  # to blue
    ((0, 0, 255), 13),  # to magenta
    ((255, 0, 255), 6),  # to red
)
WHEEL_PIXELS = 49  # side of the one in the corner
CHUNK_FRAMES = 8


def colour_wheel() -> NDArray[np.float64]:
    """The colours around the wheel, (55, 3) in [0, 1], red first."""
    starts = [np.array(colour) for colour, _ in ARCS]
    arcs = [
        start + (end - start) * np.arange(steps)[:, None] / steps
        for start, end, (_, steps) in zip(starts, [*starts[1:], starts[0]], ARCS, strict=True)
    ]
    return np.asarray(np.concatenate(arcs) / 255, np.float64)


def in_colours(flow: NDArray[np.float32], full_pixels: float = FULL_PIXELS) -> Pixels:
    """Flow (2, H, W) in pixels per frame, dx and dy (down), as uint8 RGB (H, W, 3)."""
    wheel = colour_wheel()
    dx, dy = flow.astype(np.float64)
    strength = np.hypot(dx, dy)[..., None] / full_pixels  # (H, W, 1)
    turn = (np.arctan2(-dy, -dx) / np.pi + 1) / 2 * (len(wheel) - 1)  # (H, W), in steps of the wheel
    low = np.floor(turn).astype(int)
    part = (turn - low)[..., None]
    colour = wheel[low] * (1 - part) + wheel[(low + 1) % len(wheel)] * part  # (H, W, 3)
    shown = np.where(strength <= 1, 1 - strength * (1 - colour), colour * BEYOND)
    return np.asarray(255 * shown, np.uint8)


def legend(side: int = WHEEL_PIXELS) -> tuple[Pixels, NDArray[np.bool_]]:
    """The wheel itself, uint8 (side, side, 3), and where it is, (side, side)."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    return in_colours(np.stack([x, y]).astype(np.float32), 1.0), np.hypot(x, y) <= 1


def write_flow_video(
    video: str,
    path: Path,
    device: "torch.device",
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> VideoFacts:
    """Write the 25 fps grid of ``video`` with its TV-L1 flow, computed on ``device``, to the right of it.

    Arguments, what is returned and raised as for ``annotate``; VideoError ``too_short`` for a single frame.
    """
    from vadis.flow.video_flow import with_flow
    from vadis.video.colour import BT709
    from vadis.video.windows import chunks

    done, (wheel, is_wheel) = 0, legend()
    with Decoders() as decoders, decoders.open(video) as opened:
        width, height = opened.size
        with video_file(path, (2 * width, height), Fraction(GRID_FPS), colours=BT709) as write:
            pairs = with_flow(chunks((frame.pixels for frame in opened), CHUNK_FRAMES), device)
            for frames, flows in pairs:  # (T, H, W, 3), (T, 2, H, W)
                if flows is None:
                    raise VideoError("too_short", "it has one frame only, and flow takes two")
                for frame, flow in zip(frames, flows, strict=True):
                    coloured = in_colours(flow)
                    corner = coloured[-WHEEL_PIXELS - 4 : -4, -WHEEL_PIXELS - 4 : -4]
                    corner[is_wheel] = wheel[is_wheel]
                    write(np.concatenate([frame, coloured], axis=1), Fraction(done, GRID_FPS), Fraction(1, GRID_FPS))
                    done += 1
                    progress(done, opened.expected_num_frames)
    return opened.facts
