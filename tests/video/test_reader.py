import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.synthetic import numbered_frames, write_video
from tests.video.reading import numbers, read, refused
from vadis.errors import VIDEO_ERROR_CODES
from vadis.video import reader
from vadis.video.metadata import FLAGS
from vadis.video.reader import open_video

# Frames


def test_a_25_fps_video_comes_out_frame_by_frame(tmp_path):
    video, frames = read(write_video(tmp_path / "a.mp4", frames=numbered_frames(range(30))))
    assert numbers(frames) == list(range(30))
    assert [frame.seconds for frame in frames] == [i / 25 for i in range(30)]
    assert all(frame.pixels.shape == (256, 427, 3) and frame.pixels.dtype == np.uint8 for frame in frames)
    assert video.size == (427, 256)
    assert video.expected_num_frames == 30


@pytest.mark.parametrize(
    "name", ["a.mp4", "a.mov", "a.mkv", "a.avi", "a.m4v", "a.flv", "a.ts", "a.mpg", "a.wmv", "a.ogv"]
)
def test_containers(tmp_path, name):
    codec = {"ts": "mpeg2video", "mpg": "mpeg2video", "wmv": "wmv2", "flv": "flv", "ogv": "vp8"}.get(name[2:], "mpeg4")
    video, frames = read(write_video(tmp_path / name, frames=numbered_frames(range(24)), codec=codec))
    assert numbers(frames) == list(range(24))
    assert (video.facts.status, video.facts.flags) == ("ok", ())


@pytest.mark.parametrize("fps", [10, 15, 24, Fraction(30000, 1001), 30, 50, 60])
def test_other_frame_rates_show_the_nearest_frame(tmp_path, fps):
    count = int(fps * 2)
    video, frames = read(write_video(tmp_path / "a.mkv", frames=numbered_frames(range(count)), fps=fps))
    assert len(frames) == round(count / Fraction(fps) * 25)
    distance = [
        abs(number / Fraction(fps) - frame.seconds) for number, frame in zip(numbers(frames), frames, strict=True)
    ]
    assert max(distance[:-1]) <= 0.5 / fps + 0.001  # Matroska rounds times to milliseconds
    assert video.facts.duration_seconds == pytest.approx(count / fps, abs=0.002)


def test_a_variable_frame_rate_goes_by_time(tmp_path):
    times = [0, 0.04, 0.05, 0.06, 0.30, 0.34]
    path = write_video(tmp_path / "a.mp4", frames=numbered_frames(range(6)), pts_seconds=times)
    _, frames = read(path)
    nearest = [min(range(6), key=lambda i: (abs(times[i] - frame.seconds), i)) for frame in frames]
    assert numbers(frames) == nearest
    assert len(frames) == round((0.34 + 0.04) * 25)


def test_time_counts_from_the_first_frame(tmp_path):
    path = write_video(
        tmp_path / "a.mkv", frames=numbered_frames(range(10)), pts_seconds=[7 + i / 25 for i in range(10)]
    )
    video, frames = read(path)
    assert numbers(frames) == list(range(10))
    assert frames[0].seconds == 0
    assert video.facts.duration_seconds == pytest.approx(0.4)


def test_a_frame_that_the_grid_skips_is_not_converted(tmp_path, monkeypatch):
    converted = []
    plain = reader.Scaler.picture
    monkeypatch.setattr(reader.Scaler, "picture", lambda self, frame: converted.append(frame.pts) or plain(self, frame))
    _, frames = read(write_video(tmp_path / "a.mkv", num_frames=60, fps=100))
    assert len(frames) == len(converted) == 15


def test_a_frame_that_the_grid_repeats_is_converted_once(tmp_path):
    _, frames = read(write_video(tmp_path / "a.mp4", num_frames=10, fps=5))
    assert len(frames) == 50
    assert len({id(frame.pixels) for frame in frames}) == 10


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_phone_videos_stand_upright(tmp_path, rotation):
    coded = numbered_frames([0b1000000000] * 3)  # one bright bar at the left
    video, frames = read(write_video(tmp_path / "a.mp4", frames=coded, rotation=rotation))
    upright = np.rot90(coded[0], rotation // 90)
    assert video.size == ((427, 256) if rotation == 180 else (256, 427))
    assert video.facts.source_size == upright.shape[1::-1]
    assert abs(video.facts.rotation) == abs(rotation)
    rows, columns = np.nonzero(frames[0].pixels[..., 0] > 128)
    where, shape = np.nonzero(upright[..., 0] > 128), upright.shape
    assert rows.mean() / frames[0].pixels.shape[0] == pytest.approx(where[0].mean() / shape[0], abs=0.02)
    assert columns.mean() / frames[0].pixels.shape[1] == pytest.approx(where[1].mean() / shape[1], abs=0.02)


def test_pixels_that_are_not_square(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=2, size=(180, 144), sample_aspect_ratio=Fraction(64, 45))
    video, frames = read(path)
    assert video.size == (455, 256)
    assert frames[0].pixels.shape == (256, 455, 3)
    assert video.facts.source_size == (180, 144)


@pytest.mark.parametrize("size", [(97, 65), (33, 200), (16, 16)])
def test_odd_sizes(tmp_path, size):
    video, _ = read(write_video(tmp_path / "a.mkv", num_frames=2, size=size, codec="ffv1"))
    assert min(video.size) == 256
    assert video.size[0] / video.size[1] == pytest.approx(size[0] / size[1], rel=0.01)


def test_pixels_come_through(tmp_path):
    """A lossless video with a short side of 256 is what was written, but for the chroma's rounding."""
    written = np.random.default_rng(0).integers(0, 256, (3, 256, 300, 3)).astype(np.uint8)
    _, frames = read(write_video(tmp_path / "a.mkv", frames=written, codec="ffv1"))
    assert np.array_equal([frame.pixels for frame in frames], written)


def test_a_gif(tmp_path):
    video, frames = read(write_video(tmp_path / "a.gif", frames=numbered_frames(range(8)), fps=10, codec="gif"))
    assert numbers(frames) == [0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4, 5, 5, 6, 6, 6, 7, 7, 7]
    assert video.facts.status == "ok"


def test_sound_does_not_matter(tmp_path):
    silent, _ = read(write_video(tmp_path / "a.mkv", num_frames=20))
    loud, _ = read(write_video(tmp_path / "b.mkv", num_frames=20, audio=True))
    assert silent.facts == loud.facts


def test_packed_b_frames_keep_their_order(tmp_path):
    """AVI has no timestamps: what FFmpeg makes of B-frames is out of order, although the frames are not."""
    video, frames = read(write_video(tmp_path / "a.avi", frames=numbered_frames(range(40)), options={"bf": "2"}))
    assert numbers(frames) == list(range(40))
    assert video.facts.status == "ok"


def test_a_bare_stream_has_the_nominal_rate(tmp_path):
    path = write_video(tmp_path / "a.h264", frames=numbered_frames(range(10)), codec="libx264", options={"bf": "0"})
    video, frames = read(path)
    assert numbers(frames) == list(range(10))
    assert video.facts.flags == ("synthetic_timestamps",)


def test_timestamps_that_start_again(tmp_path):
    """Two transport streams glued together: the second goes on where the first ended."""
    parts = [
        write_video(tmp_path / f"{i}.ts", frames=numbered_frames(range(i, i + 20)), codec="mpeg2video") for i in (0, 20)
    ]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    video, frames = read(path)
    assert numbers(frames) == list(range(40))
    assert "synthetic_timestamps" in video.facts.flags


def test_a_timestamp_beyond_the_end_of_the_video_is_not_believed(tmp_path):
    """One flipped bit would make a still of four hours."""
    path = write_video(tmp_path / "a.flv", frames=numbered_frames(range(20)), codec="flv")
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        tag = [packet.pos for packet in container.demux() if packet.size][12]
    assert int.from_bytes(data[tag + 4 : tag + 7], "big") == 12 * 40
    data[tag + 7] = 1  # the upper 8 of the timestamp's 32 bits, in milliseconds
    path.write_bytes(data)
    video, frames = read(path)
    assert numbers(frames) == list(range(20))
    assert video.facts.flags == ("synthetic_timestamps",)


def test_a_change_of_size_on_the_way(tmp_path):
    parts = [
        write_video(tmp_path / f"{size[0]}.ts", frames=numbered_frames(range(20), size), codec="mpeg2video")
        for size in ((160, 96), (200, 120))
    ]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    video, frames = read(path)
    assert {frame.pixels.shape for frame in frames} == {(256, 427, 3)}
    assert set(numbers(frames)[:19]) <= set(range(20))
    assert numbers(frames)[-20:] == list(range(20))
    assert "size_changes" in video.facts.flags


@pytest.mark.parametrize("order", [1, -1])
def test_the_best_of_several_video_streams(tmp_path, order):
    """A preview and the video itself, which is marked as the default, in either order."""
    sizes = [(64, 48), (320, 240)][::order]
    files = [write_video(tmp_path / f"{size[0]}.mp4", num_frames=10, size=size) for size in sizes]
    path = tmp_path / "both.mp4"
    with av.open(str(files[0])) as first, av.open(str(files[1])) as second, av.open(str(path), "w") as both:
        streams = [both.add_stream_from_template(each.streams.video[0]) for each in (first, second)]
        streams[sizes.index((320, 240))].disposition = av.stream.Disposition.default
        for container, stream in zip((first, second), streams, strict=True):
            for packet in container.demux():
                if packet.dts is not None:
                    packet.stream = stream
                    both.mux(packet)
    video, frames = read(path)
    assert video.facts.flags == ("several_video_streams",)
    assert video.facts.source_size == (320, 240)
    assert len(frames) == 10


# Facts


def test_facts_before_and_after(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=60, fps=30, size=(128, 96))
    with open_video(path) as video:
        before = video.facts
        list(video)
    assert (before.num_frames, before.frames_declared, before.duration_seconds) == (None, 60, 2.0)
    facts = video.facts
    assert (facts.source_fps, facts.source_size, facts.rotation) == (Fraction(30), (128, 96), 0)
    assert (facts.num_frames, facts.frames_decoded, facts.frames_declared) == (50, 60, 60)
    assert (facts.status, facts.flags, facts.duration_seconds) == ("ok", (), 2.0)


def test_a_video_can_be_left_before_its_end(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=60)
    with open_video(path) as video:
        next(iter(video))
    assert video.facts.num_frames is None
    assert video.facts.frames_decoded < 60


def test_an_error_of_the_caller_passes_through_and_closes_the_file(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=10)
    before = open_files()
    with pytest.raises(ZeroDivisionError), open_video(path) as video:
        next(iter(video))
        raise ZeroDivisionError
    assert open_files() == before


def open_files():
    """How many files this process has open, None where the system does not say."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else None


# Names


NAMES = [
    *("-i.mp4", "a:b.mp4", "http:x.mp4", "concat:a|b.mp4", "im%03d.mp4", "a?b*.mp4", "[red]x.mp4", "a b'\"$(x).mp4"),
    *("new\nline.mp4", "\x1b[2J.mp4", "\u202egnp.mp4", "🎬.mp4", "file:x.mp4", "%s.mp4", "data:,a.mp4", "pipe:0.mp4"),
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_only_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "plain.mp4", frames=numbered_frames(range(3))).rename(tmp_path / name)
    assert numbers(read(name)[1]) == [0, 1, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems only take UTF-8 names")
def test_names_that_are_not_utf8(tmp_path):
    plain = write_video(tmp_path / "plain.mp4", num_frames=2)
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.mp4")
    plain.rename(name)
    assert len(read(name)[1]) == 2


def test_a_link_and_what_is_above_it(tmp_path, monkeypatch):
    """``link/..`` is the folder above where the link leads, not the one that holds the link."""
    (tmp_path / "deep" / "folder").mkdir(parents=True)
    write_video(tmp_path / "deep" / "a.mp4", num_frames=2)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "folder")
    monkeypatch.chdir(tmp_path)
    assert len(read("link/../a.mp4")[1]) == 2


# The house


def test_every_flag_and_code_is_in_its_table(tmp_path):
    video, _ = read(write_video(tmp_path / "a.mp4", num_frames=2))
    assert set(video.facts.flags) <= set(FLAGS)
    assert refused(tmp_path) in VIDEO_ERROR_CODES


def test_memory_does_not_grow_with_the_length(tmp_path):
    """Peak memory of a process that reads a short and a long video: 8 and 400 seconds, 60 MB of frames apart."""
    program = (
        "import resource, sys; from vadis.video.reader import open_video\n"
        "def peak(path):\n"
        "    with open_video(path) as video: count = sum(1 for _ in video)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, count\n"
        "print(*peak(sys.argv[1]), *peak(sys.argv[2]))"
    )
    short = write_video(tmp_path / "short.mp4", num_frames=20)
    long = write_video(tmp_path / "long.mp4", num_frames=1000)
    output = subprocess.run(
        [sys.executable, "-c", program, short, long], check=True, capture_output=True, text=True
    ).stdout
    megabytes_short, _, megabytes_long, frames = map(float, output.split())
    assert frames == 1000  # 1000 frames of 256 x 384 x 3 bytes are 295 MB
    assert megabytes_long - megabytes_short < 15


def test_the_reader_needs_no_torch():
    program = "import sys, vadis.video.reader, vadis.video.sources; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout == "False\n"
    )
