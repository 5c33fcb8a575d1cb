"""The classical estimate and the labels of the videos made here check each other."""

from pathlib import Path

import numpy as np
import pytest

from tests.camera.classical import WINDOW, compare, label_of, windows
from vadis.datasets.camera import CLASSES, video_path
from vadis.datasets.camera import write_video as write_camera_video

pytestmark = pytest.mark.usefixtures("cv2")


@pytest.mark.slow
def test_where_it_is_sure_it_says_what_the_videos_were_made_for(tmp_path: Path, capsys) -> None:
    works = [("train", label, number) for label in CLASSES for number in range(1)]
    for work in works:
        write_camera_video(tmp_path, 0, work)
    paths = [str(video_path(tmp_path, work)) for work in works]
    counts = compare(paths, None, True, tmp_path / "frames")
    assert counts["windows"] >= len(works) and counts["sure"] > 0.6 * counts["windows"]
    assert counts["same"] == counts["sure"]
    assert len(capsys.readouterr().out.splitlines()) == counts["windows"]
    assert not (tmp_path / "frames").exists()


def test_it_is_not_sure_of_a_wall_and_of_mixed_motions(tmp_path: Path) -> None:
    from tests.synthetic import write_video

    wall = write_video(tmp_path / "wall.mp4", frames=np.full((40, 64, 96, 3), 120, np.uint8))
    assert [window.label for window in windows(str(wall))] == [None]
    assert label_of(np.full((WINDOW - 1, 4), [2.0, 2.0, 0, 0])) is None
    turning_back = np.zeros((WINDOW - 1, 4))
    turning_back[:, 0] = np.linspace(-3, 4, WINDOW - 1)
    assert label_of(turning_back) is None
