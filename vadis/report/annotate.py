"""A video with its labels drawn in: every frame of the source at its own time, upright, and its sound.

What is drawn over a frame: the labels of the moment with a bar for each score, and the whole timeline below.

OpenCV draws the letters; it is imported when something is drawn (``opencv``).
"""

from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vadis.formats import percent, visible
from vadis.report.drawing import shortened
from vadis.results import Label, Segment, VideoResult
from vadis.video.encoder import load_opencv, video_file
from vadis.video.metadata import VideoFacts

Pixels = NDArray[np.uint8]  # (H, W, 3), RGB
Colour = tuple[int, int, int]

MOST_LABELS = 3
FONT_SHARE, FONT_PIXELS = 24, (10, 44)  # a letter's height: this part of the shorter side, within these bounds
PANEL_LETTERS = 22  # the panel's width in letters' heights
STRIP_LETTERS = 0.55  # the timeline's height
GROUND, GROUND_ALPHA = (12, 12, 14), 0.7
WHITE, BAR_TRACK, NOTHING = (255, 255, 255), (70, 70, 76), (58, 58, 62)

# Okabe and Ito's colours, told apart by nearly everyone; labels beyond them share the last.
COLOURS: tuple[Colour, ...] = (
    *((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (0, 114, 178), (213, 94, 0)),
    (150, 150, 150),
)


class Overlay:
    """Draws one result into the frames of its video.

    Args:
        result: of the video, with segments.
        size: (width, height) of its frames.
    """

    def __init__(self, result: VideoResult, size: tuple[int, int]) -> None:
        self._cv2 = load_opencv()
        self._width, self._height = size
        self._letter = int(np.clip(min(size) / FONT_SHARE, *FONT_PIXELS))
        self._segments = result.segments
        self._end = result.segments[-1].end if result.segments else 1.0
        self._colours = _colours(result)
        self._font = self._cv2.FontFace("sans")
        self._strip = self._drawn_strip()  # (h, W, 3)
        self._panel: Pixels | None = None  # of the segment drawn last
        self._drawn = -1

    def draw(self, pixels: Pixels, seconds: Fraction) -> Pixels:
        """The frame (H, W, 3) shown at ``seconds``, with everything drawn in; ``pixels`` stay as they are."""
        drawn: Pixels = pixels.copy()
        strip = min(len(self._strip), self._height)
        drawn[self._height - strip :] = self._strip[:strip]
        at = min(self._width - 1, int(float(seconds) / self._end * self._width))
        half = max(1, self._letter // 10)
        drawn[self._height - strip :, max(0, at - half) : at + half] = WHITE
        index = self._segment_at(float(seconds))
        if index is not None and self._segments[index].labels:
            self._lay_panel(drawn, index, self._height - strip)
        return drawn

    def _segment_at(self, seconds: float) -> int | None:
        """The segment that ``seconds`` is in; the last one reaches to the end of the file."""
        starts = [segment.start for segment in self._segments]
        index = int(np.searchsorted(starts, seconds + 1e-6, side="right")) - 1
        return index if index >= 0 else None

    def _lay_panel(self, drawn: Pixels, index: int, bottom: int) -> None:
        if index != self._drawn or self._panel is None:
            self._panel, self._drawn = self._drawn_panel(self._segments[index]), index
        height, width = min(self._panel.shape[0], bottom), min(self._panel.shape[1], self._width)
        margin = min(self._letter // 2, max(0, bottom - height), max(0, self._width - width))
        place = drawn[bottom - margin - height : bottom - margin, margin : margin + width]  # (h, w, 3)
        panel = self._panel[:height, :width]
        is_ground = (panel == GROUND).all(axis=2, keepdims=True)
        mixed = place * (1 - GROUND_ALPHA) + panel * GROUND_ALPHA
        place[:] = np.where(is_ground, mixed, panel).astype(np.uint8)

    def _drawn_panel(self, segment: Segment) -> Pixels:
        """The labels of a segment, one to a line: name, percentage, and a bar below."""
        letter, labels = self._letter, segment.labels[:MOST_LABELS]
        line, width = int(letter * 1.75), min(PANEL_LETTERS * letter, self._width)
        panel = np.full((line * len(labels) + letter // 2, width, 3), GROUND, np.uint8)
        for number, label in enumerate(labels):
            self._draw_label(panel, label, number * line)
        return panel

    def _draw_label(self, panel: Pixels, label: Label, top: int) -> None:
        letter, width = self._letter, panel.shape[1]
        pad, base = letter // 2, top + int(letter * 1.15)
        score = f"{percent(label.score)} %"
        score_left = width - pad - self._text_width(score)
        name = visible(label.label)
        longest = len(name)
        while longest > 1 and pad + self._text_width(shortened(name, longest)) > score_left - pad:
            longest -= 1
        self._text(panel, shortened(name, longest), (pad, base))
        self._text(panel, score, (score_left, base))
        high = max(2, letter // 6)
        bar_top, bar_width = base + max(2, letter // 4), width - 2 * pad
        panel[bar_top : bar_top + high, pad : width - pad] = BAR_TRACK
        filled = round(bar_width * label.score)
        panel[bar_top : bar_top + high, pad : pad + filled] = self._colours.get(label.label, COLOURS[-1])

    def _text(self, panel: Pixels, text: str, at: tuple[int, int]) -> None:
        self._cv2.putText(panel, text, at, WHITE, self._font, self._letter)

    def _text_width(self, text: str) -> int:
        _, _, width, _ = self._cv2.getTextSize((self._width, self._height), text, (0, 0), self._font, self._letter)
        return int(width)

    def _drawn_strip(self) -> Pixels:
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
    ranked = sorted(seconds, key=lambda name: -seconds[name])
    return dict(zip(ranked, COLOURS, strict=False))


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
    from vadis.video.isolated.pool import Decoders, open_sound, open_source

    done = 0
    with ExitStack() as stack:
        decoders = stack.enter_context(Decoders())
        source = stack.enter_context(open_source(decoders, video))
        sound = stack.enter_context(open_sound(decoders, video)) if with_sound else None
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
            for frame in source.source_frames():
                seconds = first + frame.seconds
                zero = None if frame.zero_seconds is None else frame.zero_seconds - first
                write(overlay.draw(frame.pixels, seconds), seconds, frame.duration_seconds, zero)
                done += 1
                progress(done, facts.frames_declared)
    return source.facts
