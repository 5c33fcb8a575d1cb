"""Small pictures of a video for a page: which moments to show, and each as a JPEG within a budget of bytes.

Frames come from the children of ``vadis.video.isolation``: a file that crashes its decoder has no pictures.
"""

import base64
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vadis.errors import VideoError
from vadis.formats import stretches
from vadis.results import VideoResult
from vadis.video.isolation import Decoders
from vadis.video.timegrid import GRID_FPS

HEIGHT = 108  # pixels; shown at about two thirds of that, so that it is sharp on dense screens too
WIDEST = 2 * HEIGHT  # what is wider loses its sides
NARROWEST = 32  # FFmpeg damages JPEGs of 16 pixels
QUANTISER = "8"  # of FFmpeg's MJPEG, 2 is the best and 31 the worst; a picture takes about 3 kB

_BILINEAR = 0x2  # libswscale/swscale.h


class Thumbnail(NamedTuple):
    """A moment of a video, in seconds, as a JPEG in base64."""

    seconds: float
    jpeg: str


class Budget:
    """Bytes of base64 for the thumbnails of a page: an equal share for each video, and what others leave over.

    Args:
        num_bytes: for the whole page.
        num_videos: how many videos share it.
    """

    def __init__(self, num_bytes: int, num_videos: int) -> None:
        self._left = num_bytes
        self._videos_left = num_videos
        self.refused = 0  # videos that had fewer pictures than they could have had

    def chosen(self, pictures: Iterator[Thumbnail]) -> list[Thumbnail]:
        """As many of a video's pictures as its share takes, the most telling first; no more are made than that."""
        share = self._left // max(1, self._videos_left)
        self._videos_left -= 1
        kept: list[Thumbnail] = []
        for picture in pictures:
            if len(picture.jpeg) > share:
                self.refused += 1
                break
            share -= len(picture.jpeg)
            self._left -= len(picture.jpeg)
            kept.append(picture)
        return sorted(kept)


def thumbnails(decoders: Decoders, place: str, result: VideoResult, count: int) -> Iterator[Thumbnail]:
    """Pictures of a labelled video's moments, each made when it is asked for; ends where the file cannot be read."""
    first = result.segments[0].start if result.segments else 0.0
    for seconds in moments(result, count):
        picture = _frame(decoders, place, seconds - first)
        if picture is None:
            return
        yield Thumbnail(seconds, base64.b64encode(jpeg(picture)).decode("ascii"))


def moments(result: VideoResult, count: int) -> list[float]:
    """At most ``count`` times in seconds, the most telling first: the middles of the longest and surest stretches.

    Where there are fewer stretches than that, the widest gaps between these times are halved.
    """
    first, end = (result.segments[0].start, result.segments[-1].end) if result.segments else (0.0, 0.0)
    best = sorted(stretches(result.segments), key=lambda run: -(run.end - run.start) * run.score)
    found = [(run.start + run.end) / 2 for run in best[:count]]
    while end > 0 and len(found) < count:
        edges = [first, *sorted(found), end]
        gaps = [(after - before, before) for before, after in pairwise(edges)]
        width, before = max(gaps)
        if width < 1.0:  # second: the same picture again
            break
        found.append(before + width / 2)
    return [round(seconds, 2) for seconds in found]


def _frame(decoders: Decoders, place: str, seconds: float) -> NDArray[np.uint8] | None:
    """The picture (H, W, 3) at this time after the first."""
    try:
        with decoders.open(place, start_frame=max(0, int(seconds * GRID_FPS)), max_frames=1) as video:
            return next((frame.pixels for frame in video), None)
    except VideoError:
        return None


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """uint8 RGB (H, W, 3) as a JPEG of HEIGHT pixels; a wide picture loses its sides."""
    import av

    height, width, _ = picture.shape
    most = height * WIDEST // HEIGHT
    if width > most:
        picture = picture[:, (width - most) // 2 :][:, :most]
    scaled_width = max(NARROWEST, round(picture.shape[1] * HEIGHT / height / 2) * 2)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    frame = frame.reformat(scaled_width, HEIGHT, format="yuvj420p", interpolation=_BILINEAR)
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = scaled_width, HEIGHT, "yuvj420p"
    encoder.time_base = frame.time_base = Fraction(1, GRID_FPS)
    encoder.options = {"qmin": QUANTISER, "qmax": QUANTISER, "b": "1G"}  # the bit rate must not stand in its way
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
