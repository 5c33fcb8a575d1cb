"""Grey pictures → a video file that a flow store keeps: Motion JPEG in MP4, every frame a key frame.

Chosen by measurement among sixteen (docs/flow-store.md): half the size of what is lossless, as fast to read as any, and
in every build of FFmpeg. Reading is done by ``vadis.video.reader`` alone.
"""

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from vadis.errors import VadisError, what_next
from vadis.video.timegrid import GRID_FPS

CODEC = "mjpeg, quantiser 1, in mp4"
_ENCODER = {"qmin": "1", "qmax": "1", "b": "1G"}  # FFmpeg's best quality; the bit rate must not stand in its way
_FORMAT = "yuvj420p"  # the encoder knows no grey; a neutral colour costs 40 bytes per frame
_NEUTRAL = 128


def record(path: Path, chunks: Iterable[NDArray[np.uint8]]) -> Iterator[int]:
    """Write pictures uint8 (T, H, W), chunk by chunk, as a video of 25 frames per second.

    Gives the number of pictures so far after every chunk. The file is whole when there are no more.

    Raises:
        VadisError: where the disk does not take them.
    """
    num_frames = 0
    try:
        with av.open(f"file:{path.absolute()}", "w", format="mp4") as container:
            stream = container.add_stream("mjpeg", rate=GRID_FPS, options=dict(_ENCODER))
            stream.pix_fmt, stream.codec_context.thread_count = _FORMAT, 1
            for chunk in chunks:
                if num_frames == 0:
                    stream.height, stream.width = chunk.shape[1:]
                for picture in chunk:
                    container.mux(stream.encode(_frame(picture, num_frames)))
                    num_frames += 1
                yield num_frames
            container.mux(stream.encode(None))
    except (OSError, av.FFmpegError) as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        message = f"{path.parent} does not take the flow of a video: {reason}"
        raise VadisError(message, hint=what_next(error.errno)) from error


def _frame(picture: NDArray[np.uint8], index: int) -> av.VideoFrame:
    """A grey picture (H, W) as a frame without colour."""
    frame = av.VideoFrame(picture.shape[1], picture.shape[0], _FORMAT)
    for number, plane in enumerate(frame.planes):
        rows = np.full((plane.height, plane.line_size), _NEUTRAL, np.uint8)
        if number == 0:
            rows[:, : plane.width] = picture
        plane.update(rows.tobytes())
    frame.pts, frame.time_base = index, Fraction(1, GRID_FPS)
    return frame
