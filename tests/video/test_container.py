"""Files are refused with the right word; headers promise lengths that refuse nothing and call nothing whole cut."""

import errno
import io
import os
import struct
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.synthetic import numbered_frames, write_video
from tests.video.reading import delayed, numbers, read, refused, remuxed
from vadis.errors import VideoError
from vadis.video import container
from vadis.video.metadata import Limits
from vadis.video.reader import open_video


def test_what_is_not_there(tmp_path):
    assert refused(tmp_path / "nothing.mp4") == "not_found"
    assert refused(tmp_path / "nothing.mp4", listed=True) == "disappeared"
    assert refused("") == "not_found"
    assert refused("a\0b") == "not_found"
    assert refused(write_video(tmp_path / "a.mp4", num_frames=1) / "b.mp4") == "not_found"


def test_what_is_not_a_file(tmp_path):
    assert refused(tmp_path) == "not_a_regular_file"
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "pipe.mp4")
        assert refused(tmp_path / "pipe.mp4") == "not_a_regular_file"  # and does not wait for a writer
        assert refused("/dev/zero") == "not_a_regular_file"


def test_an_empty_file(tmp_path):
    (tmp_path / "a.mp4").touch()
    assert refused(tmp_path / "a.mp4") == "empty_file"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read anything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=2)
    path.chmod(0)
    assert refused(path) == "permission_denied"


def test_sound_alone_and_cover_art(tmp_path):
    path = tmp_path / "a.m4a"
    cover = tmp_path / "cover.mp4"
    with av.open(str(path), "w", format="mp4") as container:
        write_sound(container)
    assert refused(path) == "no_video_stream"
    picture = write_video(tmp_path / "one.mp4", num_frames=1, codec="mjpeg", pix_fmt="yuvj420p")
    with av.open(str(picture)) as source, av.open(str(cover), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        stream.disposition = av.stream.Disposition.attached_pic
        write_sound(container)
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    assert refused(cover) == "no_video_stream"


def write_sound(container):
    stream = container.add_stream("aac", rate=44100, layout="mono")
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.int16), format="s16", layout="mono")
    frame.sample_rate, frame.pts = 44100, 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


@pytest.mark.parametrize(("name", "codec"), [("a.apng", "apng"), ("a.webp", "libwebp_anim")])
def test_animated_images_are_called_what_they_are(tmp_path, name, codec):
    for frames, kind in ((3, "animated"), (1, "this is an image")):
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=10)
            stream.width = stream.height = 32
            stream.pix_fmt = "rgb24" if codec == "apng" else "yuv420p"
            for number in range(frames):
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 80 * number, np.uint8), format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        if name == "a.apng" and frames == 1:
            path.write_bytes(path.read_bytes().replace(b"acTL", b"vpAg"))  # as a still image has none
        with pytest.raises(VideoError) as error:
            read(path)
        assert error.value.code == "not_a_video" and kind in error.value.message


def test_an_unknown_codec(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=4, codec="libx264")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    assert refused(path) == "unsupported_codec"


def test_limits(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=50)
    assert refused(path, limits=Limits(max_seconds=1.9)) == "too_large"
    assert refused(path, limits=Limits(max_frames=49)) == "too_large"
    _, frames = read(path, limits=Limits(max_seconds=2.0, max_frames=50, max_pixels=96 * 64))
    assert len(frames) == 50


LARGE = {"a.mp4": "libx264", "b.ts": "mpeg2video", "c.webm": "libvpx-vp9", "d.avi": "mpeg4", "e.gif": "gif"}


@pytest.mark.parametrize("max_pixels", [640 * 480 - 1, 100])  # the decoder would refuse the latter itself
@pytest.mark.parametrize("name", LARGE)
def test_large_pictures(tmp_path, name, max_pixels):
    path = write_video(tmp_path / name, num_frames=3, size=(640, 480), codec=LARGE[name])
    assert refused(path, limits=Limits(max_pixels=max_pixels)) == "too_large"


def test_limits_that_the_header_does_not_show(tmp_path):
    stream = write_video(tmp_path / "a.m2v", num_frames=50, codec="mpeg2video")
    assert refused(stream, limits=Limits(max_seconds=1.0)) == "too_large"
    assert refused(stream, limits=Limits(max_frames=20)) == "too_large"


def test_a_large_picture_whose_size_only_the_decoder_knows(tmp_path):
    path = write_video(
        tmp_path / "a.mp4", num_frames=3, size=(640, 480)
    )  # MPEG-4 in MP4: FFmpeg does not believe the container
    assert refused(path, limits=Limits(max_pixels=100)) == "decode_failed"


def test_the_decoder_itself_refuses_large_pictures(tmp_path, monkeypatch):
    """A header may lie about the size; what counts is what the decoder would allocate."""
    path = write_video(tmp_path / "a.mp4", num_frames=3, size=(640, 480))
    monkeypatch.setattr(Limits, "check_pixels", lambda self, width, height: None)
    assert refused(path, limits=Limits(max_pixels=100)) == "decode_failed"


def test_a_file_that_changes_while_it_is_read(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=30)
    with pytest.raises(VideoError) as error, open_video(path) as video:
        for frame in video:
            if frame.seconds == 0:
                os.utime(path, ns=(1, 1))
    assert error.value.code == "changed_while_reading"


@pytest.mark.skipif(sys.platform != "linux", reason="what a process reads is counted there")
def test_of_a_large_damaged_file_only_a_part_is_read_again(tmp_path):
    """FFmpeg's error could be the disk's; to read all of 20 GB again would take longer than a decoder may be silent."""

    def num_read():
        return int(Path("/proc/self/io").read_text().split()[1])

    path = write_video(tmp_path / "a.mkv", num_frames=10)
    with open(path, "r+b") as file:
        file.truncate(20 << 30)
    before = num_read()
    container.check_disk(str(path), OSError(), 10 << 30)
    assert 2 * container.CHECKED_BYTES < num_read() - before < 4 * container.CHECKED_BYTES


def test_a_disk_that_fails_where_a_file_was_read_last_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "a.mkv"
    with open(path, "wb") as file:
        file.truncate(1 << 30)
    bad = 500 << 20

    class FailingFile(io.FileIO):
        def read(self, size=-1):
            if self.tell() <= bad < self.tell() + size:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size)

    def opened(path, mode="r", **options):
        return FailingFile(path) if mode == "rb" else io.open(path, mode, **options)  # noqa: UP020 (open is patched)

    monkeypatch.setattr("builtins.open", opened)
    with pytest.raises(VideoError) as failure:
        container.check_disk(str(path), OSError(), bad - (1 << 20))
    assert failure.value.code == "io_error"


# Whole files and what others have added behind them


@pytest.mark.parametrize("added", [b"\r\n", b"\0" * 40, b"<html>not part of it</html>" * 30])
@pytest.mark.parametrize("name", ["a.gif", "a.ts", "a.mp4", "a.avi", "a.mkv", "a.flv", "a.wmv"])
def test_what_is_added_behind_the_end_does_not_matter(tmp_path, name, added):
    codec = {"gif": "gif", "ts": "mpeg2video", "flv": "flv", "wmv": "wmv2"}.get(name[2:], "mpeg4")
    path = write_video(tmp_path / name, num_frames=30, codec=codec)
    path.write_bytes(path.read_bytes() + added)
    video, frames = read(path)
    assert (len(frames), video.facts.status) == (30, "ok")


@pytest.mark.parametrize("share", [0.6, 0.9, 0.99])
@pytest.mark.parametrize("name", ["a.gif", "a.ts", "a.mkv"])
def test_a_structure_that_is_cut_is_noticed(tmp_path, name, share):
    """Also where what is missing is too little to show in times and counts."""
    path = write_video(tmp_path / name, num_frames=60, codec={"gif": "gif", "ts": "mpeg2video"}.get(name[2:], "mpeg4"))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share) // 188 * 188 + 1])
    video, _ = read(path)
    assert (video.facts.status, "ends_early" in video.facts.flags) == ("partial", True)


@pytest.mark.parametrize("damage", ["zeros", "cut"])
def test_fragments_that_are_lost_are_noticed(tmp_path, damage):
    whole = write_video(tmp_path / "a.mp4", num_frames=200, codec="libx264", options={"g": "20"})
    path = remuxed(whole, tmp_path / "b.mp4", movflags="frag_keyframe+empty_moov+default_base_moof")
    video, frames = read(path)
    assert (len(frames), video.facts.status) == (200, "ok")
    data = bytearray(path.read_bytes())
    at = len(data) // 2
    place = data.index(b"moof", at) - 4
    if damage == "zeros":
        data[place : place + 40] = bytes(40)
    else:
        del data[place + 60 :]
    path.write_bytes(data)
    video, frames = read(path)
    assert video.facts.status == "partial"
    assert 60 < len(frames) < 150


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


def test_fragments_whose_first_ones_are_all_that_the_header_counts(tmp_path):
    """Cut within the header of a later fragment, where FFmpeg sees an orderly end."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "frag_keyframe"}) as file:
        stream = file.add_stream("libx264", rate=25, options={"g": "2", "bf": "0"})
        stream.width, stream.height = 160, 96
        for picture in numbered_frames(range(40)):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        file.mux(stream.encode())
    data = path.read_bytes()
    at = -1
    for _ in range(4):
        at = data.index(b"moof", at + 1)
    path.write_bytes(data[: at + 8])
    video, frames = read(path)
    assert 0 < len(frames) < 40
    assert (video.facts.status, "ends_early" in video.facts.flags) == ("partial", True)
