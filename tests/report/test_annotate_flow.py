"""Flow in colours: the wheel of Baker et al., and a video with the picture beside it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.synthetic import moving_texture, numbered_frames, read_number, write_video
from vadis.errors import VideoError
from vadis.report.annotate import FULL_PIXELS, WHEEL_PIXELS, flow_to_rgb, legend, write_flow_video
from vadis.results import Part
from vadis.video.reader import open_source


def colour(dx: float, dy: float) -> tuple[int, ...]:
    return tuple(int(value) for value in flow_to_rgb(np.array([[[dx]], [[dy]]], np.float32))[0, 0])


def test_what_stands_still_is_white_and_directions_have_the_usual_colours() -> None:
    assert colour(0, 0) == (255, 255, 255)
    right, left, down, up = (colour(FULL_PIXELS * x, FULL_PIXELS * y) for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1)))
    assert right[0] > 240 and max(right[1:]) < 30, "red"
    assert left[2] > 240 and left[0] < 30, "between cyan and blue"
    assert min(down[:2]) > 200 and down[2] < 30, "yellow"
    assert up[2] > 200 and up[1] < 60, "violet"


def test_colours_grow_with_the_speed_and_are_darker_beyond_the_full_one() -> None:
    blues = [colour(speed, 0)[2] for speed in (0.5, 1.5, 3.0, FULL_PIXELS)]
    assert blues == sorted(blues, reverse=True)
    assert colour(2 * FULL_PIXELS, 0)[0] == 191


def test_the_legend_is_a_disc() -> None:
    wheel, is_wheel = legend()
    assert wheel.shape == (WHEEL_PIXELS, WHEEL_PIXELS, 3)
    assert is_wheel[WHEEL_PIXELS // 2].all() and not is_wheel[0, 0]
    assert is_wheel.mean() == pytest.approx(np.pi / 4, abs=0.05)


def test_the_video_has_the_picture_and_beside_it_its_flow(tmp_path: Path) -> None:
    frames = moving_texture(12, (256, 256), seed=0)  # by (2, 1) pixels per frame: right and down
    source = write_video(tmp_path / "a.mp4", frames=frames)
    assert write_flow_video(str(source), tmp_path / "flow.mp4", torch.device("cpu")).num_frames == 12
    with open_source(tmp_path / "flow.mp4") as video:
        assert video.size == (512, 256)
        shown = [frame.pixels for frame in video.source_frames()]
    assert len(shown) == 12
    left, right = np.split(shown[5].astype(int), 2, axis=1)
    assert np.abs(left - frames[5]).mean() < 12
    middle, expected = right[64:192, 64:192].reshape(-1, 3).mean(axis=0), np.array(colour(2, 1))
    assert np.abs(middle - expected).max() < 25


def test_of_a_part_only_that_is_written(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", frames=numbered_frames(range(20), (256, 256)))
    facts = write_flow_video(str(source), tmp_path / "flow.mp4", torch.device("cpu"), part=Part(0.2, 0.4))
    with open_source(tmp_path / "flow.mp4") as video:
        shown = [read_number(frame.pixels[:200, :256]) for frame in video.source_frames()]
    assert shown == list(range(5, 10)) and facts.num_frames == 5


def test_a_single_frame_has_no_flow(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", num_frames=1)
    with pytest.raises(VideoError) as error:
        write_flow_video(str(source), tmp_path / "flow.mp4", torch.device("cpu"))
    assert error.value.code == "too_short" and not (tmp_path / "flow.mp4").exists()
