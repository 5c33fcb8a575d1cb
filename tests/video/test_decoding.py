"""Frames past damage, and from a clip on: those that a full read gives, and what is missing is reported."""

import contextlib
import itertools
from fractions import Fraction

import av
import numpy as np
import pytest

from tests.synthetic import numbered_frames, write_video
from tests.video.reading import TransportPackets, numbers, read, refused, remuxed
from vadis.errors import VideoError
from vadis.video import decoding, reader
from vadis.video.decoding import Decoder
from vadis.video.picture import SHORT_SIDE, GrayPlane
from vadis.video.reader import open_source, open_video


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


LENGTH = 130

FILES = {
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4.mp4": {"codec": "mpeg4"},
    "mpeg4-b.mp4": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mpeg4.mkv": {"codec": "mpeg4"},
    "h264.mp4": {"codec": "libx264", "options": {"g": "30"}},
    "h264-open.mp4": {"codec": "libx264", "options": {"g": "25", "x264-params": "open-gop=1:bframes=3:scenecut=0"}},
    "h264-open.mkv": {"codec": "libx264", "options": {"g": "25", "x264-params": "open-gop=1:bframes=3:scenecut=0"}},
    "h264-refresh.mp4": {"codec": "libx264", "options": {"g": "25", "x264-params": "intra-refresh=1"}},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "keyint=25:open-gop=1:log-level=none"}},
    "30fps.mp4": {"codec": "libx264", "fps": 30},
    "12fps.mkv": {"codec": "libx264", "fps": 12},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "30", "deadline": "realtime", "cpu-used": "8"}},
    "still-long.avi": {"codec": "mpeg4", "options": {"g": "400"}},
    # Not by a seek, for there is no exact one:
    "packed.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "stream.ts": {"codec": "mpeg2video"},
    "bare.h264": {"codec": "libx264"},
    "moving.gif": {"codec": "gif", "fps": 20},
}
READ_FROM_THE_START = {"packed.avi", "stream.ts", "bare.h264", "moving.gif"}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeking")

    def video(name):
        path = folder / name
        return path if path.exists() else write_video(path, frames=numbered_frames(range(LENGTH)), **FILES[name])

    return video


@pytest.fixture
def seeks(monkeypatch):
    """Every seek of the decoder, as its timestamp."""
    seen = []
    plain = Decoder.seek
    monkeypatch.setattr(Decoder, "seek", lambda self, ticks: seen.append(ticks) or plain(self, ticks))
    return seen


def same(frames, others):
    return [f.seconds for f in frames] == [f.seconds for f in others] and all(
        np.array_equal(one.pixels, other.pixels) for one, other in zip(frames, others, strict=True)
    )


@pytest.mark.parametrize("name", FILES)
def test_frames_after_a_seek_are_those_of_a_full_read(videos, name, seeks):
    whole, frames = read(videos(name))
    assert not seeks
    for start in (1, 13, len(frames) // 2, len(frames) - 2):
        part, rest = read(videos(name), start_frame=start)
        assert same(rest, frames[start:]), start
        assert part.facts.num_frames == whole.facts.num_frames == len(frames)
        assert part.facts.status == "ok"
    assert bool(seeks) == (name not in READ_FROM_THE_START)


def test_only_what_a_clip_needs_is_decoded(videos):
    with open_video(videos("mpeg4.avi"), start_frame=100) as video:
        frame = next(iter(video))
    assert frame.seconds == 4
    assert video.facts.frames_decoded <= 16  # the first one, a group of at most 12 to the clip, and one after it
    assert video.facts.num_frames is None


@pytest.mark.parametrize("name", ["mpeg4.avi", "h264.mp4", "stream.ts"])
def test_a_start_beyond_the_end_gives_the_length_and_no_frame(videos, name):
    video, frames = read(videos(name), start_frame=10_000)
    assert frames == []
    assert video.facts.num_frames == LENGTH


def test_a_container_that_cannot_seek_is_read_from_its_start(videos, monkeypatch):
    _, frames = read(videos("h264.mp4"))
    for failure in (av.error.PermissionError(1, "cannot seek"), UnicodeDecodeError("utf-8", b"", 0, 1, "damaged")):

        def refuse(self, ticks, failure=failure):
            raise failure

        monkeypatch.setattr(Decoder, "seek", refuse)
        _, rest = read(videos("h264.mp4"), start_frame=70)
        assert same(rest, frames[70:])


def test_a_seek_that_leads_too_far_is_undone(videos, monkeypatch):
    _, frames = read(videos("h264.mp4"))
    plain, opened = Decoder.seek_ticks, []
    monkeypatch.setattr(Decoder, "seek_ticks", lambda *given: plain(*given) + 25 * 512 * 2)
    monkeypatch.setattr(reader, "_open", lambda *given, _open=reader._open: opened.append(1) or _open(*given))
    _, rest = read(videos("h264.mp4"), start_frame=65)
    assert same(rest, frames[65:])
    assert len(opened) == 2


def test_a_file_without_an_index_of_key_frames(videos, tmp_path):
    """Matroska as live recordings have it: no cues, so that FFmpeg must look for the place itself."""
    path = remuxed(videos("mpeg4.mkv"), tmp_path / "live.mkv", live="1")
    _, frames = read(path)
    for start in (20, 64, 120):
        assert same(read(path, start_frame=start)[1], frames[start:])


def test_a_clip_in_a_recording_that_was_appended(videos, tmp_path):
    """Its clock starts again, so that a seek by time ends in the wrong recording."""
    live = remuxed(videos("mpeg4.mkv"), tmp_path / "live.mkv", live="1").read_bytes()
    path = tmp_path / "twice.mkv"
    path.write_bytes(live + live[live.index(bytes.fromhex("1f43b675")) :])  # the first of its clusters, and all others
    whole, frames = read(path)
    assert whole.facts.num_frames == 2 * LENGTH
    for start in (LENGTH + 10, 2 * LENGTH - 10):
        assert same(read(path, start_frame=start)[1], frames[start:])


def test_a_timestamp_that_is_wrong_after_the_seek_has_the_same_effect(videos, tmp_path):
    def late(packet, counter=[0]):  # noqa: B006
        counter[0] += 1
        if counter[0] == 110:
            packet.pts += 9_000  # ms; those after it seem to go back
        return packet

    path = remuxed(videos("mpeg4.mkv"), tmp_path / "broken.mkv", late)
    _, frames = read(path)
    assert same(read(path, start_frame=90)[1], frames[90:])


def test_variable_frame_rate(tmp_path):
    rng = np.random.default_rng(5)
    times = np.cumsum([0, *rng.integers(1, 12, 99)]) / 100
    pictures = numbered_frames(range(100))
    path = write_video(
        tmp_path / "a.mp4", frames=pictures, pts_seconds=[Fraction(int(t * 100), 100) for t in times], codec="libx264"
    )
    _, frames = read(path)
    for start in range(15, len(frames), 17):
        assert same(read(path, start_frame=start)[1], frames[start:])


@pytest.mark.parametrize(
    "name",
    [
        "baseball.mp4",  # an edit list hides frames
        "R6llTwEh07w.mp4",
        "demo_skeleton.mp4",
        "v_SoccerJuggling_g23_c01.avi",
        "SchoolRulesHowTheyHelpUs_wave_f_nm_np1_ba_med_0.avi",  # packed B-frames
        "eat.mkv",
    ],
)
def test_real_clips(shared, name):
    path = shared / "videos" / "action" / name
    _, frames = read(path)
    for start in (len(frames) // 3, len(frames) - 5):
        assert same(read(path, start_frame=start)[1], frames[start:])


# Grey videos, whose luminance is data


def write_gray(path, pictures, codec="ffv1", pix_fmt="gray"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:], pix_fmt
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
        container.mux(stream.encode(None))
    return path


def test_grey_frames_come_as_they_are_coded(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (40, 70, 33)).astype(np.uint8)
    path = write_gray(tmp_path / "a.mkv", pictures)
    with open_video(path, start_frame=25, scaler=GrayPlane) as video:
        frames = [frame.pixels for frame in video]
    assert np.array_equal(frames, pictures[25:])
    assert video.size == (33, 70) != SHORT_SIDE
    assert video.expected_num_frames == 40


def test_colours_are_no_grey_video(tmp_path):
    path = write_video(tmp_path / "a.mkv", num_frames=3, codec="ffv1")
    with pytest.raises(VideoError) as error, open_video(path, scaler=GrayPlane):
        pass
    assert error.value.code == "decode_failed"


def test_the_guards_stand_before_grey_videos_too(tmp_path):
    (tmp_path / "a.mkv").write_text("ffconcat version 1.0\nfile 'b.mkv'\n")
    with pytest.raises(VideoError) as error, open_video(tmp_path / "a.mkv", scaler=GrayPlane):
        pass
    assert error.value.code == "playlist_not_supported"
