"""The shape of pixels where it changes on the way."""

from fractions import Fraction

import av
import numpy as np
import pytest

from tests.video.reading import read


def test_a_pixel_aspect_that_changes_is_followed_from_its_own_frame_on(tmp_path):
    """MPEG-2 holds a frame back, so the decoder knows the new aspect before the last old frame is out."""
    path = tmp_path / "a.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        for part, aspect in enumerate((Fraction(16, 15), Fraction(64, 45))):
            encoder = av.CodecContext.create("mpeg2video", "w")
            encoder.width, encoder.height, encoder.pix_fmt = 180, 144, "yuv420p"
            encoder.time_base, encoder.framerate, encoder.sample_aspect_ratio = Fraction(1, 25), Fraction(25), aspect
            encoder.max_b_frames = 2
            if part == 0:
                stream.width, stream.height, stream.pix_fmt = 180, 144, "yuv420p"
                stream.codec_context.sample_aspect_ratio = aspect
            for number in range(12):
                y, x = np.mgrid[:144, :180]
                disc = ((x - 90) * float(aspect)) ** 2 + (y - 72) ** 2 < 48**2
                frame = av.VideoFrame.from_ndarray(np.repeat(np.uint8(255) * disc[..., None], 3, 2), format="rgb24")
                frame.pts, frame.time_base = 12 * part + number, Fraction(1, 25)
                mux(container, stream, encoder.encode(frame))
            mux(container, stream, encoder.encode(None))
    video, frames = read(path)
    assert len(frames) == 24 and video.facts.flags == ("size_changes",)
    for frame in frames:
        white = frame.pixels[..., 0] > 128
        width, height = (np.ptp(np.flatnonzero(white.any(axis=axis))) for axis in (0, 1))
        assert width == pytest.approx(height, abs=4), frame.seconds


def mux(container, stream, packets):
    for packet in packets:
        packet.stream = stream
        container.mux(packet)
