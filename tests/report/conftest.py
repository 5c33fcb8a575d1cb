"""What tests of pages share: a browser, and an archive of a few labelled videos."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.browser import Browser, opened
from tests.synthetic import write_video
from vadis import formats
from vadis.results import Label, Piece, Segment, VideoResult

SEGMENT_SECONDS = 2.0


@pytest.fixture(scope="module")  # not longer: Playwright's event loop runs as long, and asyncio allows one in a thread
def browser() -> Iterator[Browser]:
    with opened() as one:
        yield one


def labelled(path: str, leaders: Sequence[tuple[str, float]], status: str = "ok") -> VideoResult:
    """A result whose segments of two seconds are led by these labels with these scores, "other" coming second.

    Every segment is a piece of the timeline.
    """
    segments = [
        Segment(i * SEGMENT_SECONDS, (i + 1) * SEGMENT_SECONDS, (Label(name, score), Label("other", 1 - score)))
        for i, (name, score) in enumerate(leaders)
    ]
    names = list(dict.fromkeys(name for name, _ in leaders))
    labels = [
        Label(
            name,
            sum(score for other, score in leaders if other == name) / len(leaders),
            max(score for other, score in leaders if other == name),
            SEGMENT_SECONDS * sum(other == name for other, _ in leaders),
        )
        for name in names
    ]
    ranked = tuple(sorted(labels, key=lambda label: -label.score))
    return VideoResult(
        path,
        status,
        duration_seconds=SEGMENT_SECONDS * len(leaders),
        source_size=(96, 64),
        model="i3d-kinetics400",
        model_sha256="0" * 64,
        streams=("rgb", "flow"),
        labels=ranked,
        clip_score=tuple(Label(each.label, each.score) for each in ranked),
        timeline=tuple(Piece(each.start, each.end, each.labels[0].label, each.labels[0].score) for each in segments),
        segments=tuple(segments),
    )


def write_results(path: Path, *results: VideoResult) -> Path:
    path.write_text("".join(formats.jsonl(results)))
    return path


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two videos of four and six seconds, and results.jsonl of them, of a lost and of a broken one."""
    folder = tmp_path_factory.mktemp("archive")
    write_video(folder / "a b#1.webm", num_frames=100, codec="libvpx")
    write_video(folder / "party.webm", num_frames=150, codec="libvpx", seed=2)
    write_results(
        folder / "results.jsonl",
        labelled("a b#1.webm", [("archery", 0.9), ("bowling", 0.6)]),
        labelled("party.webm", [("dancing", 0.8), ("dancing", 0.7), ("archery", 0.5)], status="partial"),
        labelled("gone/lost.mp4", [("bowling", 0.4)] * 40),
        VideoResult("broken.mp4", "error", error_code="empty_file", error_message="the file is empty (zero bytes)"),
    )
    return folder
