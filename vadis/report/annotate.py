"""Videos to look at: one with its labels drawn in, and one with its optical flow beside it."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vadis.errors import VideoError
from vadis.formats import percent
from vadis.report.plots import FONT, drawable, shortened
from vadis.results import NO_CLEAR_LABEL, PALETTE, Part, VideoResult, leading_milliseconds
from vadis.video.cutting import open_clip
from vadis.video.encoder import video_file
from vadis.video.isolated.pool import Decoders
from vadis.video.metadata import VideoFacts
from vadis.video.timegrid import GRID_FPS, frames_in_part

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

Pixels = NDArray[np.uint8]  # (H, W, 3), RGB
Progress = Callable[[int, int | None], None]  # how many frames are done, and how many the header declares

FONT_SHARE, FONT_PIXELS = 24, (10, 44)  # a letter's height: this part of the shorter side, within these bounds
WHITE, BAR_TRACK, NOTHING = (255, 255, 255), (70, 70, 76), (58, 58, 62)

COLOURS = (*PALETTE, "#969696")  # labels beyond the palette share the last


class Overlay:
    """Draws the timeline of a result into the frames of its video, (width, height) in ``size``."""

    def __init__(self, result: VideoResult, size: tuple[int, int]) -> None:
        from matplotlib.font_manager import findfont
        from PIL import ImageFont

        self._width, self._height = size
        self._letter = int(np.clip(min(size) / FONT_SHARE, *FONT_PIXELS))
        self._font = ImageFont.truetype(findfont(FONT), self._letter)
        self._pieces = result.timeline
        self._end, (self._begin, self._seconds) = result.span[1], result.scale
        longest = leading_milliseconds(result.timeline).most_common()
        self._colours = {label: colour for (label, _), colour in zip(longest, COLOURS, strict=False)}
        self._strip = self._make_strip()
        self._panel = lru_cache(maxsize=1)(self._make_panel)  # of the piece drawn last

    def draw(self, pixels: Pixels, seconds: Fraction) -> Pixels:
        """Return the frame (H, W, 3) shown at ``seconds``, with everything drawn in; ``pixels`` stay as they are."""
        from PIL import Image, ImageDraw

        image = Image.fromarray(pixels)  # copies the pixels when it is drawn into
        bottom = self._height - self._strip.height
        image.paste(self._strip, (0, bottom))
        at = min(self._width - 1, int((float(seconds) - self._begin) / self._seconds * self._width))
        half = max(1, self._letter // 10)
        ImageDraw.Draw(image).rectangle((at - half, bottom, at + half - 1, self._height), WHITE)
        index = bisect_right(self._pieces, float(seconds) + 1e-6, key=lambda piece: piece.start) - 1
        # What ends where the video ends reaches to the end of the file; elsewhere there may be gaps (``--labels``).
        if index >= 0 and (self._pieces[index].end == self._end or float(seconds) < self._pieces[index].end):
            panel, margin = self._panel(index), self._letter // 2
            image.paste(panel, (margin, max(0, bottom - margin - panel.height)), panel)
        return np.array(image)

    def _make_panel(self, index: int) -> "Image":
        """Return the label of a piece: name, percentage, and a bar below; of no clear label the words alone."""
        from PIL import Image, ImageDraw

        piece = self._pieces[index]
        letter, is_clear = self._letter, piece.label != NO_CLEAR_LABEL
        pad, thick, base = letter // 2, max(2, letter // 6), int(letter * 1.15)
        width = min(22 * letter, max(1, self._width - letter))
        panel = Image.new("RGBA", (width, int(letter * 1.75) + pad), (12, 12, 14, 178))
        draw = ImageDraw.Draw(panel)
        score, name = f"{percent(piece.score)} %" if is_clear else "", drawable(piece.label)
        room = width - 3 * pad - draw.textlength(score, self._font)
        longest = len(name)
        while longest > 1 and draw.textlength(shortened(name, longest), self._font) > room:
            longest -= 1
        draw.text((pad, base), shortened(name, longest), WHITE, self._font, "ls")
        draw.text((width - pad, base), score, WHITE, self._font, "rs")
        top, length = base + max(2, letter // 4), max(0, width - 2 * pad)
        bars = ((1.0, BAR_TRACK), (piece.score, self._colours.get(piece.label, COLOURS[-1])))
        for share, colour in bars if is_clear else ():
            panel.paste(colour, (pad, top, pad + round(length * share), top + thick))
        return panel

    def _make_strip(self) -> "Image":
        """Return the timeline: every column in the colour of the label that leads at its time."""
        from PIL import Image

        height = min(self._height, max(4, int(self._letter * 0.55)))
        strip = Image.new("RGB", (self._width, height), NOTHING)
        for piece in self._pieces:
            if piece.label != NO_CLEAR_LABEL:
                times = (piece.start - self._begin, piece.end - self._begin)
                first, last = (round(time / self._seconds * self._width) for time in times)
                strip.paste(self._colours.get(piece.label, COLOURS[-1]), (first, 0, last, height))
        return strip


def annotate(
    video: str, result: VideoResult, path: Path, *, with_sound: bool = True, progress: Progress = lambda *_: None
) -> VideoFacts:
    """Write ``video`` with the label of the moment, its score and the timeline of ``result`` drawn in to ``path``.

    Frames keep their times, but that those of a part begin with it, and sound is copied bit by bit. Returns what is
    known of what was read.

    Raises VideoError where the video cannot be read, UsageError where this kind of file cannot hold the sound, and
    VadisError where an encoder is missing, or the disk is full.
    """
    part, number = result.part, 0
    start, _ = (part or Part()).exact
    with Decoders() as decoders, open_clip(decoders, video, part, path, sound=with_sound) as (source, pictures, write):
        overlay, facts = Overlay(result, source.size), source.facts
        promised = frames_in_part(part, source.first_seconds, facts.source_fps, facts.frames_declared)
        for number, (pixels, seconds, *times) in enumerate(pictures, 1):
            write(overlay.draw(pixels, start + seconds), seconds, *times)
            progress(number, promised)
    return source.facts if part is None else replace(source.facts, frames_decoded=number, frames_declared=None)


# The usual colour wheel (Baker et al., 2007): the colour says where a pixel moves to, its strength how far.
FULL_PIXELS = 6.0  # per frame, in the full colour, beyond which colours are darker; most actions move by less
WHEEL_STEPS = (0, 15, 21, 25, 36, 49, 54)  # where the colours below stand on the wheel,
WHEEL = np.array(  # red, yellow, green, cyan, blue, magenta, and one step before red
    [(1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 0, 1 / 6)]
)
WHEEL_PIXELS = 49  # side of the one in the corner


def flow_to_rgb(flow: NDArray[np.float32], full_pixels: float = FULL_PIXELS) -> Pixels:
    """Return flow (2, H, W) in pixels per frame, dx and dy (down), as uint8 RGB (H, W, 3)."""
    dx, dy = flow.astype(np.float64)
    strength = np.hypot(dx, dy)[..., None] / full_pixels  # (H, W, 1)
    steps = (np.arctan2(-dy, -dx) / np.pi + 1) / 2 * WHEEL_STEPS[-1]  # (H, W)
    colour = np.stack([np.interp(steps, WHEEL_STEPS, channel) for channel in WHEEL.T], axis=-1)  # (H, W, 3)
    shown = np.where(strength <= 1, 1 - strength * (1 - colour), colour * 0.75)
    return np.asarray(255 * shown, np.uint8)


def legend() -> tuple[Pixels, NDArray[np.bool_]]:
    """Return the wheel itself, uint8 (WHEEL_PIXELS, WHEEL_PIXELS, 3), and where it is in this square."""
    y, x = np.mgrid[-1 : 1 : WHEEL_PIXELS * 1j, -1 : 1 : WHEEL_PIXELS * 1j]
    return flow_to_rgb(np.stack([x, y]).astype(np.float32), 1.0), np.hypot(x, y) <= 1


def write_flow_video(
    video: str, path: Path, device: "torch.device", progress: Progress = lambda *_: None, *, part: Part | None = None
) -> VideoFacts:
    """Write the 25 fps grid of ``video``, or a part, with its TV-L1 flow, computed on ``device``, to the right of it.

    Arguments, what is returned and raised as for ``annotate``; VideoError ``too_short`` for a single frame.
    """
    from vadis.flow.store import with_flow
    from vadis.video.colour import BT709
    from vadis.video.readahead import chunks

    done, (wheel, is_wheel) = 0, legend()
    with Decoders() as decoders, decoders.open(video, part=part) as opened:
        promised = frames_in_part(part, opened.first_seconds, GRID_FPS, opened.expected_num_frames)
        width, height = opened.size
        with video_file(path, (2 * width, height), Fraction(GRID_FPS), colours=BT709) as write:
            pairs = with_flow(chunks((frame.pixels for frame in opened), 8), device)
            for frames, flows in pairs:  # (T, H, W, 3), (T, 2, H, W)
                if flows is None:
                    raise VideoError("too_short", "it has one frame only, and flow takes two")
                for frame, flow in zip(frames, flows, strict=True):
                    coloured = flow_to_rgb(flow)
                    corner = coloured[-WHEEL_PIXELS - 4 : -4, -WHEEL_PIXELS - 4 : -4]
                    corner[is_wheel] = wheel[is_wheel]
                    write(np.concatenate([frame, coloured], axis=1), Fraction(done, GRID_FPS), Fraction(1, GRID_FPS))
                    done += 1
                    progress(done, promised)
            if not done:
                raise VideoError("outside", "no frame is shown in the part that was asked for")
    return replace(opened.facts, num_frames=done, frames_declared=None) if part else opened.facts
