"""What is missing from a video is noticed, and what is there is used."""

import av
import pytest

from tests.synthetic import numbered_frames, write_video
from tests.video.reading import numbers, read, refused, remuxed


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


def test_many_bad_packets_end_the_video(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames=numbered_frames(range(40)), codec="libx264", options={"g": "1"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        damaged = [(packet.pos, packet.size) for packet in container.demux() if packet.size][10:25]
    for position, size in damaged:
        data[position : position + size] = b"\xff" * size
    path.write_bytes(data)
    video, frames = read(path)
    assert video.facts.status == "partial"
    assert set(numbers(frames)) == set(range(10))


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
