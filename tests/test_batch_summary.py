"""The count at the end of a run, in one line and as JSON."""

import pytest

from tests.fake_road import result
from vadis.batch import Entry, Summary


def of(*names, num_inputs=None, seconds=0.0):
    found = Summary(num_inputs or len(names))
    found.began -= seconds
    for name in names:
        found.add(result(name))
    return found


def test_one_line_says_what_there_is():
    assert of("a.mp4", "bad.mp4", "cut.mp4").line() == "1 ok, 1 partial, 1 failed"
    assert of("a.mp4", num_inputs=3).line() == "1 ok, 2 not done"


def test_what_was_done_before_is_counted_and_told():
    summary = of("a.mp4", num_inputs=3)
    summary.add(Entry(3, "1.0", "ok", None, 60.0))
    summary.add(Entry(3, "1.0", "error", "no_frames", None))
    assert summary.line() == "2 ok, 1 failed; 2 of them done before"
    assert (summary.num_left, summary.to_json(3)["errors"]) == (0, {"no_frames": 1})


def test_speed_is_told_of_runs_that_are_long_enough():
    assert of("a.mp4", seconds=20.48).line() == "1 ok; 5 s of video at 0.2 times the speed of playing"


@pytest.mark.parametrize(
    ("seconds", "said"), [(99.4, "99 s"), (100, "2 min"), (7199, "120 min"), (7200, "2.0 h"), (9.75744e6, "2,710.4 h")]
)
def test_lengths_come_in_the_unit_that_suits_them(seconds, said):
    summary = of("a.mp4", seconds=20)
    summary.video_seconds = seconds
    assert f"; {said} of video at " in summary.line()


def test_as_json():
    found = of("a.mp4", "bad.mp4", num_inputs=3).to_json(130)
    assert found["records"] == {"ok": 1, "partial": 0, "skipped": 0, "error": 1}
    assert (found["inputs"], found["not_done"], found["done_before"], found["exit_code"]) == (3, 1, 0, 130)
    assert found["video_hours"] == found["video_hours_in_this_run"] == round(5.12 / 3600, 6)
