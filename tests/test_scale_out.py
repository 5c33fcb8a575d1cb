"""What is foretold of many processes and of a million hours; ``python -m tests.benchmarks scale_out`` runs them."""

import json

import pytest

from tests.benchmarks import plan
from tests.benchmarks.scale_out import Phase, calibrated, foretold, simulated
from tests.pages import ROOT


@pytest.mark.parametrize(
    ("processes", "cores", "seconds"),
    [
        ([[Phase(2, 1), Phase(4, 1)]] * 2, 2, 6),  # a core each
        ([[Phase(2, 1), Phase(4, 1)]] * 4, 2, 12),  # half a core each
        ([[Phase(3, 0.5)]], 2, 3),  # which waits for a disk
        ([[Phase(1, 2)], [Phase(3, 1)]], 2, 3.5),  # slowed down by half for 1.5 s, then alone with 2 s to do
        ([[Phase(1, 1)], [Phase(0, 1)], []], 1, 1),  # shards without a video
    ],
)
def test_processes_share_the_cores(processes, cores, seconds) -> None:
    assert simulated(processes, cores) == pytest.approx(seconds)


def test_two_runs_of_one_process_tell_its_start_and_a_video() -> None:
    start, video = calibrated((3.0, 2.5), (8.0, 8.5), num=11)
    assert (video.seconds, video.cores) == (pytest.approx(0.5), pytest.approx(1.2))
    assert (start.seconds, start.cores) == (pytest.approx(2.5), pytest.approx(1.9 / 2.5))
    paths = [f"/archive/{number}.mp4" for number in range(40)]
    assert foretold(paths, 1, start, video, cores=2) == pytest.approx(2.5 + 40 * 0.5)
    assert foretold(paths, 2, start, video, cores=64) > 2.5 + 20 * 0.5  # no two shards are quite equal


def test_the_page_has_the_plan_that_the_measured_figures_give() -> None:
    text = (ROOT / "docs" / "scale.md").read_text()
    assert plan.table(json.loads(plan.RESULTS.read_text())) in text, "python -m tests.benchmarks.plan"
