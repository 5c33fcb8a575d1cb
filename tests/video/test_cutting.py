"""Clips: the right frames, by copy or encoded, with the sound of just that time."""

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from tests.synthetic import numbered_frames, read_number, write_video
from vadis.errors import VideoError
from vadis.video.cutting import clip_extension, cut
from vadis.video.isolated.pool import Decoders

EVERY = 12  # frames from one picture that stands alone to the next, as write_video makes them


def numbers_in(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [read_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def sound_seconds(path: Path) -> tuple[float, float]:
    with av.open(str(path)) as container:
        (stream,) = container.streams.audio
        times = [float(packet.pts * packet.time_base) for packet in container.demux(stream) if packet.size]
    return min(times), max(times)


@pytest.fixture(params=["a.mp4", "a.mkv", "a.avi", "a.ts"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    codec = "mpeg2video" if request.param == "a.ts" else "mpeg4"
    return write_video(tmp_path / request.param, frames=numbered_frames(range(75)), codec=codec, audio=True)


@pytest.mark.parametrize("exact", [False, True])
def test_a_clip_has_the_frames_and_the_sound_of_its_stretch(source: Path, tmp_path: Path, exact: bool) -> None:
    clip = tmp_path / f"clip{clip_extension(str(source), exact)}"
    with Decoders() as decoders:
        begins = cut(decoders, str(source), 1.2, 2.0, clip, exact=exact)
    found = numbers_in(clip)
    assert all(b - a == 1 for a, b in pairwise(found))
    assert set(range(30, 50)) <= set(found) and max(found) <= 50
    if exact:
        assert (begins, len(found)) == (1.2, 20)
    else:
        assert begins == pytest.approx(found[0] / 25, abs=0.05) and found[0] > 30 - EVERY
    first, last = sound_seconds(clip)
    assert first == pytest.approx(0, abs=0.1)
    assert last == pytest.approx(len(found) / 25, abs=0.15)


def test_sound_can_be_left_out(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", num_frames=50, audio=True)
    with Decoders() as decoders:
        for exact in (False, True):
            cut(decoders, str(source), 0.0, 1.0, tmp_path / f"{exact}.mp4", exact=exact, sound=False)
            with av.open(str(tmp_path / f"{exact}.mp4")) as container:
                assert not container.streams.audio


def test_what_cannot_be_copied_is_encoded(tmp_path: Path) -> None:
    """MP4 has no place for VP8."""
    source = write_video(tmp_path / "a.webm", frames=numbered_frames(range(20)), codec="libvpx")
    with Decoders() as decoders:
        assert cut(decoders, str(source), 0.2, 0.6, tmp_path / "clip.mp4") == 0.2
    assert numbers_in(tmp_path / "clip.mp4") == list(range(5, 15))


def test_a_file_that_cannot_be_sought_is_encoded(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.flv", frames=numbered_frames(range(20)), codec="flv", audio=True)
    with Decoders() as decoders:
        assert cut(decoders, str(source), 0.0, 0.4, tmp_path / "clip.mkv") == 0.0
    assert numbers_in(tmp_path / "clip.mkv") == list(range(10))


def test_sound_that_the_clip_has_no_place_for_is_a_fault_of_the_video(tmp_path: Path) -> None:
    source, clip = tmp_path / "a.avi", tmp_path / "clip.mp4"
    with av.open(str(source), "w") as container:
        pictures, sound = container.add_stream("mpeg4", rate=25), container.add_stream("adpcm_ms", rate=44100)
        pictures.width, pictures.height, pictures.pix_fmt, sound.layout = 96, 64, "yuv420p", "mono"
        for picture in numbered_frames(range(20)):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 35280), np.int16), format="s16", layout="mono")
        tone.sample_rate = 44100
        for stream, frame in ((sound, tone), (sound, None), (pictures, None)):
            container.mux(stream.encode(frame))
    with Decoders() as decoders:
        with pytest.raises(VideoError):
            cut(decoders, str(source), 0.0, 0.4, clip, exact=True)
        cut(decoders, str(source), 0.0, 0.4, clip, exact=True, sound=False)
    assert numbers_in(clip) == list(range(10))


def test_a_stretch_beyond_the_end_and_a_file_that_is_no_video_leave_nothing(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", num_frames=10)
    (tmp_path / "letter.mp4").write_text("Dear Sir")
    with Decoders() as decoders:
        with pytest.raises(VideoError):
            cut(decoders, str(source), 5.0, 6.0, tmp_path / "clip.mp4", exact=True)
        with pytest.raises(VideoError):
            cut(decoders, str(tmp_path / "letter.mp4"), 0.0, 1.0, tmp_path / "clip.mp4")
    assert not (tmp_path / "clip.mp4").exists()
