"""What is refused, and with which word."""

import errno
import io
import os
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from tests.synthetic import write_video
from tests.video.reading import read, refused, remuxed
from vadis.errors import VideoError
from vadis.video import integrity
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
    assert integrity.disk_failure(str(path)) is None
    assert num_read() - before < 4 * integrity.CHECKED_BYTES


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
    with io.FileIO(path) as read_by_ffmpeg:
        read_by_ffmpeg.seek(bad)
        failure = integrity.disk_failure(str(path))
    assert failure is not None and failure.code == "io_error"


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
