"""What is lost between two packets, and where another recording begins."""

import av
import pytest

from tests.synthetic import numbered_frames, write_video
from tests.video.reading import TransportPackets, delayed, joined, numbers, read, remuxed

CODECS = {"h264": {"codec": "libx264", "options": {"g": "25", "bf": "2"}}, "mpeg2": {"codec": "mpeg2video"}}


@pytest.fixture(scope="module", params=CODECS)
def parts(tmp_path_factory, request):
    """A folder, and two transport streams of 100 frames in it, whose clocks both begin near 0."""
    folder = tmp_path_factory.mktemp(request.param)
    names = (("a.ts", 0), ("b.ts", 100))
    return folder, *(
        write_video(folder / name, frames=numbered_frames(range(first, first + 100)), **CODECS[request.param])
        for name, first in names
    )


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A transport stream of 30 s."""
    path = tmp_path_factory.mktemp("long") / "a.ts"
    return write_video(path, frames=numbered_frames(range(750)), codec="libx264", options={"g": "25", "bf": "2"})


# Recordings one after another: everything is there


@pytest.mark.parametrize(("first", "second"), [(0, 0), (100, 0), (0, 30), (0, 100), (5000, 20), (0, 90_000)])
def test_recordings_with_clocks_of_their_own_follow_one_another(parts, first, second):
    folder, one, other = parts
    path = joined(folder / "joined.ts", delayed(one, folder / "1.ts", first), delayed(other, folder / "2.ts", second))
    video, frames = read(path)
    assert numbers(frames) == list(range(200))
    assert (video.facts.status, video.facts.flags) == ("ok", ("synthetic_timestamps",))
    assert video.facts.duration_seconds == pytest.approx(8)


def test_another_rate_behind_a_restart(tmp_path, parts):
    folder, one, _ = parts
    fast = write_video(tmp_path / "b.ts", frames=numbered_frames(range(100)), fps=50, **CODECS[folder.name[:-1]])
    video, frames = read(joined(tmp_path / "joined.ts", delayed(one, tmp_path / "a.ts", 30), fast))
    assert len(frames) == 100 + 50
    assert video.facts.status == "ok"


@pytest.mark.parametrize("name", ["a.mkv", "a.webm"])
def test_recordings_in_other_containers(tmp_path, name):
    codec = "libvpx" if name == "a.webm" else "mpeg4"
    files = [
        write_video(tmp_path / f"{first}-{name}", frames=numbered_frames(range(first, first + 100)), codec=codec)
        for first in (0, 100)
    ]
    video, frames = read(joined(tmp_path / name, *files))
    assert numbers(frames) == list(range(200))
    assert (video.facts.status, video.facts.flags) == ("ok", ("synthetic_timestamps",))


def test_a_clock_that_runs_over_is_no_restart(parts):
    folder, one, _ = parts
    video, frames = read(delayed(one, folder / "over.ts", 2**33 / 90_000 - 2))
    assert numbers(frames) == list(range(100))
    assert (video.facts.status, video.facts.flags) == ("ok", ())


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "count"), [(-8, 1), (-8, 3), (3600, 1), (3600, 5)])
def test_wrong_times_of_a_few_frames_are_no_loss(tmp_path, long, seconds, count):
    packets = TransportPackets(long)
    first = [i for i in packets.of_video() if packets.begins_frame(i)]
    for i in first[300 : 300 + count]:
        packets.shift(i, seconds * 90_000)
    video, frames = read(packets.write(tmp_path / "a.ts"))
    assert numbers(frames) == list(range(750))
    assert (video.facts.status, video.facts.flags) == ("ok", ("synthetic_timestamps",))


# Losses: what is there keeps its time


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [2, 12])
def test_what_was_left_out_when_copying(tmp_path, long, seconds):
    path = remuxed(
        long, tmp_path / "b.ts", lambda packet: None if 8 <= packet.pts * packet.time_base < 8 + seconds else packet
    )
    video, frames = read(path)
    assert len(frames) == 750
    assert (video.facts.status, "stream_gaps" in video.facts.flags) == ("partial", True)
    assert numbers(frames)[-200:] == list(range(550, 750))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.02, 0.4])
def test_bytes_that_are_missing(tmp_path, long, share):
    packets = TransportPackets(long)
    count = len(packets.packets)
    kept = packets.packets[: count // 3] + packets.packets[count // 3 + int(share * count) :]
    video, frames = read(packets.write(tmp_path / "b.ts", kept))
    assert len(frames) == 750
    assert numbers(frames)[-100:] == list(range(650, 750))
    assert (video.facts.status, "stream_gaps" in video.facts.flags) == ("partial", True)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["middle", "end"])
def test_a_scrambled_stretch(tmp_path, long, where):
    packets = TransportPackets(long)
    count = len(packets.packets)
    packets.scramble(count // 3, count // 2 if where == "middle" else count)
    video, frames = read(packets.write(tmp_path / "b.ts"))
    assert len(frames) == 750 if where == "middle" else 240 <= len(frames) <= 260
    assert (video.facts.status, "stream_gaps" in video.facts.flags) == ("partial", True)
    assert numbers(frames)[:240] == list(range(240))


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.flv", "a.ogv", "a.mpg", "a.ts"])
def test_zeros_in_the_middle(tmp_path, name):
    codec = {"webm": "libvpx", "ogv": "libvpx", "flv": "flv", "mpg": "mpeg2video", "ts": "mpeg2video"}
    path = write_video(tmp_path / name, num_frames=300, codec=codec.get(name[2:], "libx264"), options={"g": "25"})
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 5 : len(data) // 2] = bytes(len(data) // 2 - len(data) * 2 // 5)
    path.write_bytes(data)
    video, frames = read(path)
    assert len(frames) == 300
    assert (video.facts.status, "stream_gaps" in video.facts.flags) == ("partial", True)


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.mp4"])
def test_a_pause_is_no_loss(tmp_path, name):
    times = [i * 0.04 if i < 5 else 0.2 + i * 0.7 for i in range(40)]
    path = write_video(tmp_path / name, num_frames=40, pts_seconds=times, codec="libx264", audio=True)
    video, _ = read(path)
    assert video.facts.status == "ok"
    assert video.facts.duration_seconds == pytest.approx(times[-1] + 0.7, abs=0.7)


# Other streams


@pytest.mark.parametrize("order", [1, -1])
def test_a_stream_that_goes_on_under_another_number_is_not_whole(tmp_path, order):
    """Two streams, one of which has its pictures before the other."""
    path = tmp_path / "two.ts"
    lengths = (50, 150)[::order]
    files = [
        write_video(tmp_path / f"{i}.mp4", frames=numbered_frames(range(length)), codec="libx264")
        for i, length in enumerate(lengths)
    ]
    with av.open(str(files[0])) as first, av.open(str(files[1])) as second, av.open(str(path), "w") as both:
        streams = [both.add_stream_from_template(each.streams.video[0]) for each in (first, second)]
        for container, stream, start in zip((first, second), streams, (0, lengths[0]), strict=True):
            for packet in container.demux():
                if packet.dts is not None:
                    shift = round(start / 25 / packet.time_base)
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    both.mux(packet)
    video, frames = read(path)
    assert (video.facts.status, "stream_changes" in video.facts.flags) == ("partial", True)
    assert len(frames) in lengths


def test_two_programs_beside_each_other_are_whole(tmp_path, long):
    path = tmp_path / "two.ts"
    with av.open(str(long)) as one, av.open(str(long)) as two, av.open(str(path), "w") as both:
        streams = [both.add_stream_from_template(each.streams.video[0]) for each in (one, two)]
        for packets in zip(one.demux(), two.demux(), strict=True):
            for packet, stream in zip(packets, streams, strict=True):
                if packet.dts is not None:
                    packet.stream = stream
                    both.mux(packet)
    video, frames = read(path)
    assert len(frames) == 750
    assert (video.facts.status, video.facts.flags) == ("ok", ("several_video_streams",))
