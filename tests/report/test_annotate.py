"""The annotated video: every frame at its own time, upright, with its sound; the labels where they belong."""

import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from tests.report.conftest import labelled
from tests.synthetic import numbered_frames, read_number, write_video
from tests.video import faulty_child
from vadis.errors import UsageError, VadisError, VideoError
from vadis.report import overlay
from vadis.report.annotate import annotate
from vadis.report.flow_video import write_flow_video
from vadis.report.overlay import COLOURS, WHITE, Overlay
from vadis.results import Label, Segment, VideoResult
from vadis.video import decoder_process
from vadis.video.reader import open_source

RESULT = labelled("a.mp4", [("archery", 0.9), ("bowling", 0.6)])


def frames_of(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with open_source(path) as video:
        found = [(frame.pixels, float(frame.seconds)) for frame in video.source_frames()]
    return [pixels for pixels, _ in found], [seconds for _, seconds in found]


def sound_of(path: Path) -> list[tuple[bytes, float]]:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.audio[0]) if packet.size]
        return [(bytes(packet), float(packet.pts * packet.time_base)) for packet in packets]


@pytest.mark.parametrize(
    ("fps", "times"),
    [
        (Fraction(30000, 1001), None),
        (Fraction(12), None),
        (Fraction(30), [0, 0.04, 0.1, 0.4, 0.5, 0.51, 1.3, 2.0]),
    ],
)
def test_frames_and_times_are_those_of_the_source(tmp_path: Path, fps: Fraction, times: list[float] | None) -> None:
    source = write_video(tmp_path / "a.mp4", frames=numbered_frames(range(8)), fps=fps, pts_seconds=times)
    assert annotate(str(source), RESULT, tmp_path / "seen.mp4") == 8
    (_, before), (after, now) = frames_of(source), frames_of(tmp_path / "seen.mp4")
    assert now == pytest.approx(before, abs=1e-4)
    assert [read_number(pixels[:30]) for pixels in after] == list(range(8))


@pytest.mark.parametrize("name", ["seen.mp4", "seen.mkv", "seen.mov"])
def test_sound_is_copied_bit_by_bit_and_keeps_its_place(tmp_path: Path, name: str) -> None:
    source = write_video(tmp_path / "a.mp4", num_frames=50, audio=True)
    annotate(str(source), RESULT, tmp_path / name)
    before, after = sound_of(source), sound_of(tmp_path / name)
    assert {packet for packet, _ in after} <= {packet for packet, _ in before}
    assert len(before) - len(after) <= 1, "Matroska leaves out what is only there to start the decoder"
    start = frames_of(tmp_path / name)[1][0]
    with av.open(str(tmp_path / name)) as container:
        first = container.streams.video[0].start_time * container.streams.video[0].time_base
    assert start == 0
    assert after[-1][1] - float(first) == pytest.approx(before[-1][1], abs=0.002)
    annotate(str(source), RESULT, tmp_path / f"silent-{name}", with_sound=False)
    with av.open(str(tmp_path / f"silent-{name}")) as container:
        assert not container.streams.audio


def test_a_file_that_crashes_the_decoder_costs_its_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(decoder_process, "PROGRAM", faulty_child.PROGRAM)
    write_video(tmp_path / "crash.mp4", num_frames=10)
    with pytest.raises(VideoError) as error:
        annotate(str(tmp_path / "crash.mp4"), RESULT, tmp_path / "seen.mp4")
    assert error.value.code == "decoder_crash"
    with pytest.raises(VideoError) as error:
        write_flow_video(str(tmp_path / "crash.mp4"), tmp_path / "flow.mp4", torch.device("cpu"))
    assert error.value.code == "decoder_crash"
    assert list(tmp_path.iterdir()) == [tmp_path / "crash.mp4"]


def test_a_turned_picture_stands_upright_and_pixels_keep_their_shape(tmp_path: Path) -> None:
    source = write_video(
        tmp_path / "a.mp4", frames=numbered_frames(range(3)), rotation=90, sample_aspect_ratio=Fraction(4, 3)
    )
    annotate(str(source), RESULT, tmp_path / "seen.mp4")
    with open_source(source) as before, open_source(tmp_path / "seen.mp4") as after:
        assert before.size == after.size == (96, 160)
        assert before.pixel_aspect == after.pixel_aspect == Fraction(3, 4)
        assert after.facts.rotation == 0


def test_odd_sizes_are_written(tmp_path: Path) -> None:
    frames = np.full((3, 31, 45, 3), 90, np.uint8)
    source = write_video(tmp_path / "a.mkv", frames=frames, codec="ffv1")
    annotate(str(source), RESULT, tmp_path / "seen.mp4")
    with open_source(tmp_path / "seen.mp4") as video:
        assert video.size == (46, 32)


def test_the_strip_shows_the_leading_labels_and_where_we_are() -> None:
    drawn = Overlay(RESULT, (200, 100)).draw(np.zeros((100, 200, 3), np.uint8), Fraction(1))
    line = drawn[-1]
    assert tuple(line[10]) == COLOURS[0] and tuple(line[190]) == COLOURS[1]
    assert tuple(line[50]) == WHITE


def test_labels_are_drawn_with_bars_as_long_as_their_scores() -> None:
    ours = Overlay(RESULT, (640, 480))
    blank = np.full((480, 640, 3), 100, np.uint8)
    widths = []
    for seconds in (1, 3):
        drawn = ours.draw(blank, Fraction(seconds))
        colour = COLOURS[0] if seconds == 1 else COLOURS[1]
        rows = (drawn[:-20] == colour).all(axis=2).sum(axis=1)
        widths.append(int(rows.max()))
    assert widths[1] / widths[0] == pytest.approx(0.6 / 0.9, abs=0.02)
    assert (blank == 100).all(), "the frame itself is not drawn into"
    assert (ours.draw(blank, Fraction(1))[:240] == 100).all(), "the upper half stays free"


@pytest.mark.parametrize("size", [(2, 2), (16, 16), (1000, 8), (8, 1000), (96, 64)])
def test_any_size_can_be_drawn_into(size: tuple[int, int]) -> None:
    hostile = Label("<b>打\u202e\n" + "long " * 50, 1.0)
    result = VideoResult("a", "ok", segments=(Segment(0, 1, (hostile,)), Segment(1, 2, ())))
    for seconds in (0, 1, 5):
        drawn = Overlay(result, size).draw(np.zeros((size[1], size[0], 3), np.uint8), Fraction(seconds))
        assert drawn.shape == (size[1], size[0], 3)


def test_sound_that_does_not_fit_is_refused_with_what_to_do(tmp_path: Path) -> None:
    source = tmp_path / "a.avi"
    with av.open(str(source), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        sound = container.add_stream("wmav2", rate=44100, layout="mono")
        sound.bit_rate = 64_000
        container.mux(video.encode(av.VideoFrame(32, 32, "yuv420p")))
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        tone.sample_rate, tone.pts = 44100, 0
        for stream, frame in ((sound, tone), (sound, None), (video, None)):
            container.mux(stream.encode(frame))
    with pytest.raises(UsageError, match="wmav2") as error:
        annotate(str(source), RESULT, tmp_path / "seen.mp4")
    assert error.value.hint is not None
    assert not list(tmp_path.glob("seen*"))
    assert annotate(str(source), RESULT, tmp_path / "seen.mp4", with_sound=False) == 1


def test_without_libgl_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(VadisError, match="OpenCV") as error:
        overlay.opencv()
    assert error.value.hint is not None and "libgl1" in error.value.hint
