"""What headers promise: hints, by which nothing is refused and nothing whole is called cut."""

import struct
from fractions import Fraction

import pytest

from tests.synthetic import numbered_frames, write_video
from tests.video.reading import delayed, numbers, read, refused, remuxed
from vadis.video.metadata import Limits
from vadis.video.reader import open_video


def promised(path):
    """How many grid frames the header promises."""
    with open_video(path) as video:
        return video.expected_num_frames


# Files whose clock does not start at 0

CODECS = {"flv": "flv", "webm": "libvpx", "ogv": "libvpx", "wmv": "wmv2", "mkv": "mpeg4"}


@pytest.mark.parametrize("hours", [0.002, 5, 30])
@pytest.mark.parametrize("extension", ["mkv", "mp4", "mov", "ts", "webm", "ogv", "wmv", "flv"])
def test_the_start_is_not_part_of_the_length(tmp_path, extension, hours):
    codec = CODECS.get(extension, "libx264")
    whole = write_video(tmp_path / f"a.{extension}", frames=numbered_frames(range(100)), codec=codec)
    path = delayed(whole, tmp_path / f"b.{extension}", round(hours * 3600))
    video, frames = read(path)
    assert len(frames) == 100
    assert (video.facts.status, video.facts.duration_seconds) == ("ok", pytest.approx(4, abs=0.05))
    assert promised(path) == pytest.approx(100, abs=3)


def test_a_segment_of_a_longer_recording(tmp_path):
    whole = write_video(tmp_path / "a.mkv", frames=numbered_frames(range(200)), codec="mpeg4")
    path = remuxed(
        whole,
        tmp_path / "b.mkv",
        lambda packet: packet if 4 <= packet.pts * packet.time_base < 6 else None,
        avoid_negative_ts="disabled",
    )
    video, frames = read(path)
    assert [*numbers(frames)][-2:] == [148, 149]
    assert video.facts.status == "ok"
    assert promised(path) == len(frames)


def test_a_picture_that_begins_after_the_sound(tmp_path):
    whole = write_video(tmp_path / "a.mp4", num_frames=50, audio=True, codec="libx264")

    def late(packet):
        if packet.stream.type == "video":
            ticks = round(5 / packet.time_base)
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
        return packet

    for name in ("b.mkv", "b.mp4"):
        path = remuxed(whole, tmp_path / name, late)
        video, frames = read(path)
        assert (len(frames), video.facts.status) == (50, "ok")
        assert promised(path) == 50


def with_edit_list(data, edits, timescale=1000):
    """An MP4 whose only track shows ``edits``: (seconds, start in ticks of the track, -1: nothing is shown)."""
    entries = b"".join(
        round(seconds * timescale).to_bytes(4, "big") + start.to_bytes(4, "big", signed=True) + b"\0\1\0\0"
        for seconds, start in edits
    )
    content = bytes(4) + len(edits).to_bytes(4, "big") + entries
    new = boxed(b"edts", boxed(b"elst", content))
    at = data.index(b"edts") - 4
    length = int.from_bytes(data[at : at + 4], "big")
    data = data[:at] + new + data[at + length :]
    for name in (b"moov", b"trak"):  # the index is behind the pictures, so that nothing else moves
        place = data.index(name) - 4
        size = int.from_bytes(data[place : place + 4], "big") + len(new) - length
        data = data[:place] + size.to_bytes(4, "big") + data[place + 4 :]
    return data


def boxed(name, content):
    return (8 + len(content)).to_bytes(4, "big") + name + content


@pytest.mark.parametrize(
    ("edits", "shown"),
    [
        ([(3, -1), (4, 1024)], range(100)),  # begins 3 s late, and is cut after 4 s
        ([(4, 1024)], range(100)),
        ([(3, -1), (4, 1024 + 512 * 50)], range(50, 150)),
        ([(2, 1024), (2, 1024 + 512 * 150)], [*range(50), *range(150, 200)]),
        ([(60, -1), (10, 1024)], range(250)),
    ],
)
def test_edit_lists(tmp_path, edits, shown):
    options = {"g": "25", "bf": "2", "x264-params": "scenecut=0"}
    whole = write_video(tmp_path / "a.mp4", frames=numbered_frames(range(250)), codec="libx264", options=options)
    path = tmp_path / "b.mp4"
    path.write_bytes(with_edit_list(whole.read_bytes(), edits))
    video, frames = read(path)
    assert numbers(frames) == list(shown)
    assert (video.facts.status, video.facts.frames_decoded) == ("ok", len(shown))
    assert promised(path) == pytest.approx(len(shown), abs=1)


# Lengths that cannot be


def with_length_of_avi(path, num_frames):
    data = bytearray(path.read_bytes())
    for at in (data.index(b"avih") + 8 + 16, data.index(b"strh") + 8 + 32):
        data[at : at + 4] = num_frames.to_bytes(4, "little")
    path.write_bytes(data)
    return path


def with_duration_of_flv(path, seconds):
    data = bytearray(path.read_bytes())
    at = data.index(b"duration") + 9
    data[at : at + 8] = struct.pack(">d", seconds)
    path.write_bytes(data)
    return path


def test_an_avi_whose_header_was_never_completed(tmp_path):
    path = with_length_of_avi(write_video(tmp_path / "a.avi", frames=numbered_frames(range(60))), 0x7FFFFFFF)
    video, frames = read(path)
    assert numbers(frames) == list(range(60))
    assert (video.facts.status, video.facts.flags) == ("ok", ("length_ignored",))
    assert (video.facts.frames_declared, promised(path)) == (None, None)


def test_a_duration_of_days_in_a_small_file(tmp_path):
    source = write_video(tmp_path / "a.flv", frames=numbered_frames(range(60)), codec="flv")
    path = with_duration_of_flv(source, 1e6)
    video, frames = read(path)
    assert numbers(frames) == list(range(60))
    assert (video.facts.status, video.facts.flags) == ("ok", ("length_ignored",))


def test_a_duration_that_is_only_too_long_is_told(tmp_path):
    source = write_video(tmp_path / "a.flv", frames=numbered_frames(range(60)), codec="flv")
    video, frames = read(with_duration_of_flv(source, 7200))
    assert len(frames) == 60
    assert (video.facts.status, video.facts.flags) == ("partial", ("ends_early",))


def test_limits_are_held_against_what_is_decoded(tmp_path):
    limits = Limits(max_seconds=60, max_frames=1000)
    avi = with_length_of_avi(write_video(tmp_path / "a.avi", num_frames=60), 10_000)
    flv = with_duration_of_flv(write_video(tmp_path / "a.flv", num_frames=60, codec="flv"), 7200)
    for path in (avi, flv):
        assert len(read(path, limits=limits)[1]) == 60
        assert refused(path, limits=Limits(max_seconds=2)) == "too_large"
        assert refused(path, limits=Limits(max_frames=59)) == "too_large"


def test_slides_have_long_steps(tmp_path):
    times = [Fraction(60 * i) for i in range(5)]
    for name in ("a.mkv", "a.mp4"):
        path = write_video(tmp_path / name, num_frames=5, pts_seconds=times, codec="libx264", options={"bf": "0"})
        video, frames = read(path)
        assert len(frames) == promised(path) > 240 * 25
        assert video.facts.status == "ok"
