"""Pictures of full size and coded sound from a child process: what the reader gives in this one."""

from fractions import Fraction

import numpy as np
import pytest

from tests.synthetic import numbered_frames, read_number, write_video
from vadis.errors import VideoError
from vadis.results import Part
from vadis.video import reader
from vadis.video.isolated import pool
from vadis.video.isolated.pool import Decoders
from vadis.video.metadata import Limits


@pytest.fixture(scope="module")
def decoders():
    with Decoders() as decoders:
        yield decoders


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "plain.mp4", num_frames=30, audio=True)
    write_video(folder / "h264.ts", codec="libx264", num_frames=30, size=(162, 90), audio=True)
    write_video(folder / "uneven.mkv", num_frames=10, pts_seconds=[i * i / 40 for i in range(10)])
    write_video(
        folder / "turned.mp4",
        frames=numbered_frames(range(3)),
        rotation=90,
        sample_aspect_ratio=Fraction(4, 3),
        audio=True,
    )
    content = (folder / "plain.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(content[: len(content) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    return folder


NAMES = ["plain.mp4", "h264.ts", "uneven.mkv", "turned.mp4"]


@pytest.mark.parametrize("name", NAMES)
def test_frames_and_facts_are_those_of_the_reader(decoders, videos, name):
    with pool.SourceVideo(decoders, videos / name) as there, reader.open_source(videos / name) as here:
        about, expected_about = (
            (video.size, video.pixel_aspect, video.start_seconds, video.first_seconds, video.colours, video.facts)
            for video in (there, here)
        )
        assert about == expected_about
        frames, expected = list(there.source_frames()), list(here.source_frames())
        assert there.facts == here.facts
    assert [frame[1:] for frame in frames] == [frame[1:] for frame in expected]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(frames, expected, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_packets_are_those_of_the_reader(decoders, videos, name):
    def told(packet):
        return bytes(packet), packet.pts, packet.dts, packet.duration, packet.time_base

    with pool.ChildSound(decoders, videos / name) as there, reader.open_packets(videos / name) as here:
        assert len(there.streams) == len(here.streams)
        for ours, theirs in zip(there.streams, here.streams, strict=True):
            ours, theirs = ours.codec_context, theirs.codec_context
            assert (ours.name, ours.sample_rate, ours.layout.name) == (
                theirs.name,
                theirs.sample_rate,
                theirs.layout.name,
            )
        assert [told(packet) for packet in there.packets] == [told(packet) for packet in here.packets]


@pytest.mark.parametrize("name", ["cut.mp4", "empty.mp4", "gone.mp4"])
def test_refusals_are_those_of_the_reader(decoders, videos, name):
    def refusal(opened):
        with pytest.raises(VideoError) as error, opened:
            pass
        return error.value.code, error.value.message

    assert refusal(pool.SourceVideo(decoders, videos / name)) == refusal(reader.open_source(videos / name))
    assert refusal(pool.ChildSound(decoders, videos / name)) == refusal(reader.open_packets(videos / name))


def test_limits_are_heeded_there(videos):
    def read():
        few = Decoders(Limits(max_frames=20))
        with few, pool.SourceVideo(few, videos / "plain.mp4") as video:
            return list(video.source_frames())

    with pytest.raises(VideoError) as error:
        read()
    assert error.value.code == "too_large"


def test_a_child_serves_one_video_after_the_other(videos):
    with Decoders() as decoders:
        for _ in range(2):
            with pool.SourceVideo(decoders, videos / "plain.mp4") as video:
                assert len(list(video.source_frames())) == 30
            with pool.ChildSound(decoders, videos / "plain.mp4") as sound:
                next(sound.packets)
            with decoders.open(videos / "plain.mp4") as video:
                assert len(list(video)) == 30


@pytest.mark.parametrize(
    ("part", "numbers"),
    [
        (Part(5.01, 5.99), range(125, 151)),  # from the one shown there, and the next one
        (Part(5.0, 5.02), range(125, 127)),
        (Part(0.0, 0.04), range(2)),
        (Part(7.9), range(197, 200)),
        (Part(9.0), range(0)),
    ],
)
@pytest.mark.parametrize("name", ["long.mp4", "long.ts"])  # with an index, and without
def test_a_part_has_the_frames_that_are_shown_in_it(decoders, long, name, part, numbers):
    with decoders.open_source(long / name, part=part) as video:
        frames = list(video.source_frames())
    assert [read_number(frame.pixels) for frame in frames] == list(numbers)
    assert [float(frame.seconds) for frame in frames] == pytest.approx([number / 25 for number in numbers])


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    write_video(folder / "long.mp4", frames=numbered_frames(range(200)))
    write_video(folder / "long.ts", frames=numbered_frames(range(200)), codec="mpeg2video")
    return folder
