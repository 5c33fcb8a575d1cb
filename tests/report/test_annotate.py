"""The annotated video: every frame at its own time, upright, with its sound; the labels where they belong."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import ImageColor

from tests.matching import containing
from tests.report.conftest import labelled
from tests.synthetic import numbered_frames, read_number, write_video
from tests.video import faulty_child
from vadis.errors import UsageError, VideoError
from vadis.report.annotate import WHITE, Overlay, annotate, write_flow_video
from vadis.results import NO_CLEAR_LABEL, PALETTE, Part, Piece, VideoResult
from vadis.video.isolated import process
from vadis.video.reader import open_source

COLOURS = [ImageColor.getrgb(colour) for colour in PALETTE]
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
    assert annotate(str(source), RESULT, tmp_path / "seen.mp4").frames_decoded == 8
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


@pytest.mark.parametrize("name", ["seen.mp4", "seen.mkv"])
def test_a_part_is_written_with_its_sound_and_begins_at_zero(tmp_path: Path, name: str) -> None:
    source = write_video(tmp_path / "a.mp4", frames=numbered_frames(range(75)), audio=True)
    facts = annotate(str(source), replace(RESULT, part=Part(1.0, 2.0)), tmp_path / name)
    pictures, times = frames_of(tmp_path / name)
    assert facts.frames_decoded == len(pictures) == 25
    assert [read_number(pixels[:30]) for pixels in pictures] == list(range(25, 50))
    assert times == pytest.approx([i / 25 for i in range(25)], abs=1e-3)
    heard, before = sound_of(tmp_path / name), sound_of(source)
    own = [packet for packet, seconds in before if 1.0 <= seconds < 2.0]
    assert 0 <= len(own) - len(heard) <= 1 and {packet for packet, _ in heard} <= set(own)
    assert -0.05 < heard[0][1] < 0.05 and 0.9 < heard[-1][1] < 1.0


def test_the_strip_of_a_part_begins_where_the_part_does() -> None:
    result = replace(labelled("a.mp4", [("archery", 0.9), ("bowling", 0.6)]), part=Part(1.0, 4.0))
    line = Overlay(result, (200, 100)).draw(np.zeros((100, 200, 3), np.uint8), Fraction(4))[-1]
    assert tuple(line[60]) == COLOURS[1] or tuple(line[60]) == COLOURS[0]
    assert (line[60] == line[5]).all() and (line[75] != line[60]).any(), "a third, then two thirds"
    assert tuple(line[199]) == WHITE


def test_a_part_behind_the_end_leaves_no_file(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", num_frames=10)
    for write in (
        lambda: annotate(str(source), replace(RESULT, part=Part(5.0)), tmp_path / "seen.mp4"),
        lambda: write_flow_video(str(source), tmp_path / "seen.mp4", torch.device("cpu"), part=Part(5.0)),
    ):
        with pytest.raises(VideoError) as error:
            write()
        assert error.value.code == "outside"
    assert list(tmp_path.iterdir()) == [source]


def test_a_file_that_crashes_the_decoder_costs_its_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(process, "PROGRAM", faulty_child.PROGRAM)
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
    hostile = "<b>打\u202e\n" + "long " * 50
    result = VideoResult("a", "ok", timeline=(Piece(0, 1, hostile, 1.0), Piece(1, 2, NO_CLEAR_LABEL, 0.9)))
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
    with pytest.raises(UsageError, match=containing("wmav2")) as error:
        annotate(str(source), RESULT, tmp_path / "seen.mp4")
    assert error.value.hint is not None
    assert not list(tmp_path.glob("seen*"))
    assert annotate(str(source), RESULT, tmp_path / "seen.mp4", with_sound=False).frames_decoded == 1


@pytest.mark.parametrize("name", ["seen.mp4", "seen.mkv"])
def test_a_picture_that_begins_late_does_so_in_the_annotated_video(tmp_path: Path, name: str) -> None:
    times = [2 + i / 25 for i in range(50)]
    source = write_video(tmp_path / "a.mp4", num_frames=50, pts_seconds=times, audio=True)
    late = VideoResult("a.mp4", "ok", timeline=(Piece(2, 3, "a", 0.9), Piece(3, 4, "b", 0.9)))
    annotate(str(source), late, tmp_path / name)
    before, after = sound_of(source), sound_of(tmp_path / name)
    assert after[0][1] == pytest.approx(before[0][1], abs=0.03)
    with av.open(str(tmp_path / name)) as container:
        first, *_, last = container.decode(video=0)
        assert first.time == pytest.approx(2, abs=0.03)
        assert last.time == pytest.approx(2 + 49 / 25, abs=0.03)
    line = first.to_ndarray(format="rgb24")[-2].astype(int)
    assert np.abs(line[60] - COLOURS[0]).max() < 40 and np.abs(line[90] - COLOURS[1]).max() < 40


def as_transport_stream(
    source: Path, path: Path, begins_at: Fraction = Fraction(0), sound_after: Fraction = Fraction(0)
) -> Path:
    """The same pictures and sound (AAC gets ADTS headers there), by a clock that begins at this second."""
    with av.open(str(source)) as before, av.open(str(path), "w", format="mpegts") as after:
        copies = {stream.index: after.add_stream_from_template(stream) for stream in before.streams}
        for packet in before.demux():
            if packet.dts is not None:
                later = sound_after if packet.stream.type == "audio" else Fraction(0)
                ticks = round((begins_at + later) / packet.time_base)
                packet.pts, packet.dts, packet.stream = (
                    packet.pts + ticks,
                    packet.dts + ticks,
                    copies[packet.stream.index],
                )
                after.mux(packet)
    return path


@pytest.mark.parametrize("name", ["seen.mp4", "seen.mkv"])
def test_aac_of_a_transport_stream_is_copied(tmp_path: Path, name: str) -> None:
    source = write_video(tmp_path / "a.mp4", codec="mpeg2video", num_frames=30, audio=True)
    annotate(str(as_transport_stream(source, tmp_path / "a.ts")), RESULT, tmp_path / name)
    with av.open(str(tmp_path / name)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
        assert sum(frame.samples for frame in container.decode(audio=0)) >= 1.1 * 44_100
    assert len(sound_of(tmp_path / name)) >= len(sound_of(source)) - 1


def test_sound_that_begins_late_is_copied(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", codec="mpeg2video", num_frames=250, audio=True, audio_seconds=1)
    late = as_transport_stream(source, tmp_path / "a.ts", sound_after=Fraction(9))
    annotate(str(late), RESULT, tmp_path / "seen.mp4")
    times = [seconds for _, seconds in sound_of(tmp_path / "seen.mp4")]
    assert times[0] == pytest.approx(9, abs=0.1)
    assert times[-1] == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize("name", ["seen.mp4", "seen.mkv"])
@pytest.mark.parametrize("begins_at", [(100, 5), (5, 100), (5, 5), (5, 20_000)])
def test_sound_follows_a_clock_that_starts_again(tmp_path: Path, begins_at: tuple[int, int], name: str) -> None:
    source = write_video(tmp_path / "a.mp4", codec="mpeg2video", num_frames=50, audio=True)
    parts = [as_transport_stream(source, tmp_path / f"{at}.ts", Fraction(at)).read_bytes() for at in begins_at]
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    facts = annotate(str(tmp_path / "a.ts"), RESULT, tmp_path / name)
    assert facts.num_frames == 100
    with av.open(str(tmp_path / name)) as container:
        zero = container.streams.video[0].start_time * container.streams.video[0].time_base
    times = [seconds - float(zero) for _, seconds in sound_of(tmp_path / name)]
    assert len(times) >= 2 * len(sound_of(source)) - 4
    assert times[-1] == pytest.approx(4, abs=0.1)
    assert max(after - before for before, after in pairwise(times)) < 0.1


# ITU-T H.273: matrix, transfer function, primaries; and the green (40, 200, 60) in Y, Cb, Cr of the matrix.
GREEN = {(1, 1, 1): (150, 83, 63), (6, 6, 6): (137, 88, 66), (9, 14, 9): (146, 85, 62)}


@pytest.mark.parametrize("colours", GREEN)
def test_colours_are_those_of_the_source_in_a_player(tmp_path: Path, colours: tuple[int, int, int]) -> None:
    source = coloured(tmp_path / "a.mp4", GREEN[colours], colours)
    annotate(str(source), RESULT, tmp_path / "seen.mp4")
    assert written(tmp_path / "seen.mp4") == (colours, 1)
    assert np.abs(np.subtract(samples(tmp_path / "seen.mp4"), GREEN[colours])).max() <= 2


@pytest.mark.parametrize("colours", [(10, 2, 2), (9, 16, 9), (14, 1, 1)])
def test_colours_that_had_to_be_converted_are_written_as_bt709(tmp_path: Path, colours: tuple[int, int, int]) -> None:
    source = coloured(tmp_path / "a.mp4", (128, 128, 128), colours)
    annotate(str(source), RESULT, tmp_path / "seen.mp4")
    assert written(tmp_path / "seen.mp4") == ((1, 1, 1), 1)


def test_rgb_is_written_as_bt709(tmp_path: Path) -> None:
    frames = np.full((3, 96, 128, 3), (40, 200, 60), np.uint8)
    source = write_video(tmp_path / "a.mkv", frames=frames, codec="ffv1")
    annotate(str(source), RESULT, tmp_path / "seen.mp4")
    assert written(tmp_path / "seen.mp4") == ((1, 1, 1), 1)
    assert np.abs(np.subtract(samples(tmp_path / "seen.mp4"), GREEN[1, 1, 1])).max() <= 2


def test_a_source_that_states_no_colours_is_written_without(tmp_path: Path) -> None:
    source = coloured(tmp_path / "a.mp4", (140, 90, 70), (2, 2, 2))
    annotate(str(source), RESULT, tmp_path / "seen.mp4")
    assert written(tmp_path / "seen.mp4") == ((2, 2, 2), 0)
    assert np.abs(np.subtract(samples(tmp_path / "seen.mp4"), (140, 90, 70))).max() <= 2


def coloured(path: Path, planes: tuple[int, ...], colours: tuple[int, int, int]) -> Path:
    """Three frames of one colour in Y, Cb, Cr."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        context = stream.codec_context
        context.colorspace, context.color_trc, context.color_primaries = colours
        for number in range(3):
            frame = av.VideoFrame(128, 96, "yuv420p")
            for plane, value in zip(frame.planes, planes, strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            frame.pts = number
            frame.colorspace, frame.color_trc, frame.color_primaries = colours
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def written(path: Path) -> tuple[tuple[int, int, int], int]:
    """What a file says of its colours, and their range."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    return (frame.colorspace, frame.color_trc, frame.color_primaries), frame.color_range


def samples(path: Path) -> tuple[int, ...]:
    """Y, Cb and Cr near the upper right corner, where nothing is drawn."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    rows = [np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size) for plane in frame.planes]
    return tuple(int(row[4, plane.width - 4]) for row, plane in zip(rows, frame.planes, strict=True))


def test_where_no_label_is_told_nothing_is_drawn_but_the_strip() -> None:
    gaps = replace(RESULT, timeline=(Piece(1, 2, "archery", 0.9),))
    blank = np.zeros((100, 200, 3), np.uint8)
    shown = [bool(Overlay(gaps, (200, 100)).draw(blank, Fraction(seconds))[:-20].any()) for seconds in (0.5, 1.5, 2.5)]
    assert shown == [False, True, False]
    assert tuple(Overlay(gaps, (200, 100)).draw(blank, Fraction(0))[-1][75]) == COLOURS[0], "of four seconds"
