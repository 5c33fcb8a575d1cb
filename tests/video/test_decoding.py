"""What is missing from a video is noticed, and what is there is used."""

import contextlib
import itertools
from fractions import Fraction

import av
import pytest

from tests.synthetic import numbered_frames, write_video
from tests.video.reading import TransportPackets, numbers, read, refused, remuxed
from vadis.video import decoding
from vadis.video.reader import open_source


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.flv", "a.gif", "a.ts", "a.wmv"])
def test_a_file_cut_short_is_partial(tmp_path, name, share):
    codec = {"ts": "mpeg2video", "wmv": "wmv2", "flv": "flv", "gif": "gif"}.get(name[2:], "mpeg4")
    whole = write_video(tmp_path / name, num_frames=60, codec=codec)
    if name == "a.mp4":  # with its index in front, as for the web
        whole = remuxed(whole, tmp_path / "b.mp4", movflags="faststart")
    data = whole.read_bytes()
    cut = tmp_path / f"cut.{name[2:]}"
    cut.write_bytes(data[: int(len(data) * share) // 188 * 188 + 1])
    if name == "a.avi" and share == 0.5:
        return  # its index, at the end, is longer than its pictures
    video, frames = read(cut)
    assert video.facts.status == "partial"
    assert "ends_early" in video.facts.flags or "damaged_packets" in video.facts.flags
    assert 5 < len(frames) < 60
    assert video.facts.frames_decoded < 60


def test_a_missing_index_is_said(tmp_path):
    data = write_video(tmp_path / "a.mp4", num_frames=20).read_bytes()
    for length in (200, len(data) // 2, data.index(b"moov") + 40):
        path = tmp_path / "cut.mp4"
        path.write_bytes(data[:length])
        assert refused(path) == "truncated_or_incomplete"


def test_single_bad_packets_are_skipped(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=numbered_frames(range(40)), codec="libx264", options={"g": "1"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        damaged = [(packet.pos, packet.size) for packet in container.demux() if packet.size][10:13]
    for position, size in damaged:
        data[position : position + size] = b"\xff" * size
    path.write_bytes(data)
    video, frames = read(path)
    assert video.facts.status == "partial"
    assert "damaged_packets" in video.facts.flags
    assert video.facts.frames_decoded == 37
    assert set(numbers(frames)) == {*range(10), *range(13, 40)}


def damaged(path, target, first, last):
    """A copy in which the packets from ``first`` up to ``last`` hold nothing but zeros."""
    count = itertools.count()

    def zeroed(packet):
        if not first <= next(count) < last:
            return packet
        empty = av.Packet(bytes(packet.size))
        empty.pts, empty.dts, empty.duration, empty.time_base = (
            packet.pts,
            packet.dts,
            packet.duration,
            packet.time_base,
        )
        empty.stream = packet.stream
        return empty

    return remuxed(path, target, zeroed)


CODED = {
    "h264.mp4": {"codec": "libx264", "options": {"g": "20", "bf": "0", "x264-params": "scenecut=0"}},
    "h264-b.mp4": {"codec": "libx264", "options": {"g": "20", "bf": "2", "x264-params": "scenecut=0"}},
    "h264-b.mkv": {"codec": "libx264", "options": {"g": "20", "bf": "2", "x264-params": "scenecut=0"}},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "keyint=20:scenecut=0:log-level=none"}},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"g": "20"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"g": "20"}},
    "mpeg2.mkv": {"codec": "mpeg2video", "options": {"g": "20"}},
    "vp8.webm": {"codec": "libvpx", "options": {"g": "20", "deadline": "realtime", "cpu-used": "8"}},
}


@pytest.mark.parametrize("name", CODED)
def test_many_bad_packets_do_not_end_the_video(tmp_path, name):
    """From the next key frame on every frame is there at its own time; those before it lean on what was lost."""
    source = tmp_path / ("source" + {"vp8.webm": ".webm", "mpeg4.avi": ".avi"}.get(name, ".mp4"))
    write_video(source, frames=numbered_frames(range(100)), **CODED[name])
    path = damaged(source, tmp_path / name, 25, 45)
    video, frames = read(path)
    seen = numbers(frames)
    assert seen[:20] == list(range(20)) and seen[60:100] == list(range(60, 100))
    assert video.facts.duration_seconds == pytest.approx(4, abs=0.05)
    assert 60 <= video.facts.frames_decoded <= 81
    assert video.facts.status == "partial"


def test_frames_after_a_failure_come_in_order(tmp_path):
    """FFmpeg's decoder of H.264 gives those that it held back then after later ones."""
    options = {"g": "20", "bf": "2", "x264-params": "scenecut=0"}
    source = write_video(tmp_path / "a.mp4", frames=numbered_frames(range(100)), codec="libx264", options=options)
    path = damaged(source, tmp_path / "b.mp4", 40, 55)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        pts = []
        for packet in container.demux(stream):
            with contextlib.suppress(av.FFmpegError):
                pts += [frame.pts for frame in stream.decode(packet)]
    with open_source(path) as video:
        times = [round(frame.seconds * 25) for frame in video.source_frames()]
    assert pts != sorted(pts)
    assert times == sorted(ticks // 512 for ticks in pts)


def test_a_stream_that_was_joined_on_its_way_begins_at_the_first_key_frame(tmp_path):
    options = {"g": "100", "bf": "0", "x264-params": "scenecut=0"}
    whole = write_video(tmp_path / "a.ts", frames=numbered_frames(range(150)), codec="libx264", options=options)
    packets = TransportPackets(whole)
    starts = [i for i in packets.of_video() if packets.begins_frame(i)]
    joined = packets.write(tmp_path / "joined.ts", packets.packets[:3] + packets.packets[starts[20] :])
    video, frames = read(joined)
    assert numbers(frames) == list(range(100, 150))
    assert video.facts.frames_decoded == 50
    assert video.facts.status == "partial"


def test_where_nothing_can_be_decoded_for_long_the_rest_is_given_up(tmp_path, monkeypatch):
    source = write_video(tmp_path / "a.mp4", num_frames=100, codec="libx264", options={"g": "10"})
    path = damaged(source, tmp_path / "b.mp4", 20, 50)
    monkeypatch.setattr(decoding, "MAX_LOST_SECONDS", 1)
    video, _ = read(path)
    assert video.facts.frames_decoded < 21
    assert video.facts.status == "partial"


def test_a_few_lost_frames_do_not_end_a_time_lapse(tmp_path):
    source = write_video(tmp_path / "a.mp4", num_frames=20, fps=Fraction(1, 600), codec="libx264", options={"g": "1"})
    with open_source(damaged(source, tmp_path / "b.mp4", 5, 10)) as video:
        times = [frame.seconds for frame in video.source_frames()]
    assert times[-1] == 19 * 600
    assert video.facts.status == "partial"


def test_frames_that_an_edit_list_hides_are_not_missing(tmp_path):
    """Trimmed without re-encoding: the frames before the first shown one are decoded and dropped."""
    whole = write_video(tmp_path / "a.mp4", frames=numbered_frames(range(50)))
    shifted = remuxed(whole, tmp_path / "b.mp4", lambda packet: shift(packet, -10 * 512), avoid_negative_ts="disabled")
    video, frames = read(shifted)
    assert numbers(frames) == list(range(10, 50))
    assert (video.facts.status, video.facts.frames_declared, video.facts.frames_decoded) == ("ok", 40, 40)


def shift(packet, ticks):
    packet.pts += ticks
    packet.dts += ticks
    return packet
