"""From where time counts."""

import pytest

from tests.synthetic import numbered_frames, write_video
from tests.video.reading import numbers, read
from vadis.video.isolated.pool import Decoders


def late(path, seconds, *, audio=True):
    """Ten frames from ``seconds`` on, with sound from 0."""
    times = [seconds + i / 25 for i in range(10)]
    return write_video(path, frames=numbered_frames(range(10)), pts_seconds=times, audio=audio)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.mov"])
def test_a_picture_later_than_its_sound_counts_from_the_sound(tmp_path, name):
    video, frames = read(late(tmp_path / name, 2.0))
    assert video.facts.first_seconds == pytest.approx(2.0, abs=0.05)  # encoders of sound begin a little early
    assert numbers(frames) == list(range(10)) and frames[0].seconds == 0
    assert video.facts.duration_seconds == pytest.approx(0.4)


def test_it_is_known_outside_the_process_that_decodes(tmp_path):
    path = late(tmp_path / "a.mp4", 2.0)
    with Decoders() as decoders, decoders.open(path) as video:
        assert len(list(video)) == 10
        assert video.facts.first_seconds == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_file_whose_clock_does_not_begin_at_0_counts_from_its_first_frame(tmp_path, name):
    video, _ = read(late(tmp_path / name, 2.0, audio=False))
    assert video.facts.first_seconds == 0


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts", "a.avi"])
def test_less_than_a_frame_is_nothing(tmp_path, name):
    codec = "mpeg2video" if name == "a.ts" else "mpeg4"
    video, _ = read(write_video(tmp_path / name, num_frames=20, codec=codec, audio=True))
    assert video.facts.first_seconds == 0
