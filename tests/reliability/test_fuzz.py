"""Damaged, cut and hostile files by the thousand, through the processes that decode: one outcome each, whatever it is.

The whole, as docs/reliability.md has it (the variable makes it 100,000 mutations):

    pytest -m exhaustive tests/reliability/test_fuzz.py
    VADIS_FUZZ=100000 pytest -m exhaustive tests/reliability/test_fuzz.py -k mutations
"""

import os
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest

from tests.reliability.damage import SEEDS, damaged, whole_videos
from tests.synthetic import write_video
from tests.video.test_hostile import M3U8, PLAYLISTS
from vadis.errors import VIDEO_ERROR_CODES, VideoError
from vadis.video.isolated.pool import Decoders
from vadis.video.metadata import Limits
from vadis.video.sources import find_videos

MANY = int(os.environ.get("VADIS_FUZZ", "10000"))
MOST_FRAMES = 2000  # of a file that claims to show its eight frames for a day
AT_ONCE = 2
PATIENCE = Limits(max_wait_seconds=20.0)


def outcome(decoders, path, most=MOST_FRAMES):
    """``ok``, ``partial`` or the code of an error; with the number of frames."""
    try:
        with decoders.open(path, max_frames=most) as video:
            count = sum(1 for _ in video)
    except VideoError as error:
        assert error.code in VIDEO_ERROR_CODES
        assert error.message.isprintable()
        return error.code, 0
    assert count == most or count == video.facts.num_frames
    return video.facts.status, count


def outcomes(folder, num_mutations):
    """How often each outcome came, over so many mutations; exactly one for each."""
    videos = whole_videos(folder)
    shares = [range(first, num_mutations, AT_ONCE) for first in range(AT_ONCE)]
    with Decoders(PATIENCE) as decoders:

        def work(share):
            counts = Counter()
            for seed in share:
                name, content = damaged(videos, seed)
                path = folder / f"{share.start}-{name}"
                path.write_bytes(content)
                found, _ = outcome(decoders, path)
                if found in ("decoder_crash", "timeout"):
                    (folder / f"{found}-{seed}-{name}").write_bytes(content)
                counts[found] += 1
            return counts

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return sum(pool.map(work, shares), Counter())


def check_mutations(folder, num_mutations):
    counts = outcomes(folder, num_mutations)
    print(f"{num_mutations} mutations:", dict(counts.most_common()))
    assert sum(counts.values()) == num_mutations
    assert counts["timeout"] == 0
    assert counts["io_error"] == 0  # the disk is well
    assert min(counts["ok"], counts["partial"]) > num_mutations // 20


@pytest.mark.slow
def test_a_thousand_mutations(tmp_path):
    check_mutations(tmp_path, 1000)


@pytest.mark.exhaustive
def test_ten_thousand_mutations(tmp_path):
    check_mutations(tmp_path, MANY)


ABORTS_FFMPEG = 93_901
"""A seed whose file, a damaged transport stream, makes FFmpeg 8.1.2 abort: an assertion of its own fails."""


def test_a_file_that_ends_ffmpeg_itself_costs_one_record(tmp_path):
    videos = whole_videos(tmp_path)
    name, content = damaged(videos, ABORTS_FFMPEG)
    bad, good = tmp_path / f"bad-{name}", tmp_path / name
    bad.write_bytes(content)
    with Decoders(PATIENCE) as decoders:
        found, _ = outcome(decoders, bad)
        assert found == "decoder_crash" or av.ffmpeg_version_info != "8.1.2"
        assert outcome(decoders, good) == ("ok", 8)


# Cuts

LENGTHS = [40, 57, 75]
CUT_FILES = [  # a cut between two packets of a transport stream leaves a shorter stream with nothing missing
    (f"{number}-{name}", codec, more, LENGTHS[number % len(LENGTHS)])
    for number, (name, codec, more) in enumerate([seed for seed in SEEDS if not seed[0].endswith(".ts")] * 4)
][:20]
ONE_OF_A_KIND = [CUT_FILES[0], CUT_FILES[2], CUT_FILES[4], CUT_FILES[5]]  # mp4, mkv, avi, webm


def check_cuts(folder, files, num_cuts):
    """Whatever has lost more than 5 % of its frames says so."""
    assert {Path(name).suffix for name, *_ in files} == {".mp4", ".mkv", ".avi", ".webm"}
    counts = Counter()
    with Decoders(PATIENCE) as decoders:
        for name, codec, more, num_frames in files:
            whole = write_video(folder / name, num_frames=num_frames, size=(64, 48), codec=codec, **more)
            data = whole.read_bytes()
            assert outcome(decoders, whole) == ("ok", num_frames)
            path = folder / f"cut{whole.suffix}"
            for number in range(num_cuts):
                path.write_bytes(data[: 1 + (len(data) - 1) * number // num_cuts])
                found, count = outcome(decoders, path)
                assert found != "ok" or count >= 0.95 * num_frames, (name, number, count)
                assert found not in ("decoder_crash", "timeout"), (name, number)
                counts[found] += 1
    print(f"{len(files)} files at {num_cuts} places:", dict(counts.most_common()))
    assert sum(counts.values()) == len(files) * num_cuts


@pytest.mark.slow
def test_four_files_cut_at_twenty_five_places(tmp_path):
    check_cuts(tmp_path, ONE_OF_A_KIND, 25)


@pytest.mark.exhaustive
def test_twenty_files_cut_at_a_hundred_places(tmp_path):
    assert len(CUT_FILES) == 20
    check_cuts(tmp_path, CUT_FILES, 100)


# Hostile files, through every entry


@pytest.fixture
def listener():
    """The address of a socket that nobody should connect to, and who did."""
    hits = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    connection, address = server.accept()
                except OSError:
                    return
                hits.append(address)
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", hits
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


NAMES = [
    "im%d.mp4",
    "im%01d.avi",
    "im*.mp4",
    "im?.mkv",
    "http:x.mp4",
    "concat:a|b.mp4",
    "-i.mp4",
    "file:x.ts",
    "a:b.ts",
]


def hostile_files(folder, address):
    """Some fifty files that would have FFmpeg read other files or ask a server; beside a canary, which is green."""
    green = np.zeros((8, 48, 64, 3), np.uint8)
    green[..., 1] = 255
    hidden = folder.parent / "canary"
    hidden.mkdir()
    canary = write_video(hidden / "canary.ts", frames=green, codec="mpeg2video")
    write_video(hidden / "canary.mp4", frames=green)
    for i in range(3):
        write_video(folder / f"im{i}.png", frames=green[:1], codec="png", pix_fmt="rgb24")
    made = []
    for number, (kind, text) in enumerate(PLAYLISTS.items()):
        for extension, target in ((".mp4", f"{address}/canary.ts"), (".ts", canary), (".mkv", f"file:{canary}")):
            path = folder / f"{number}{kind.split()[0]}{extension}"
            path.write_text(text.format(target=target))
            made.append(path)
    names = [
        "im%d.mp4",
        "im%01d.avi",
        "im*.mp4",
        "im?.mkv",
        "http:x.mp4",
        "concat:a|b.mp4",
        "-i.mp4",
        "file:x.mp4",
        "a:b.ts",
    ]
    for name in names:
        (folder / name).write_text(M3U8.format(target=f"{address}/canary.ts"))
        made.append(folder / name)
    data, own = (hidden / "canary.mp4").read_bytes(), b"\0\0\0\x0curl \0\0\0\1"
    for number, target in enumerate((f"{address}/canary.mp4", f"file://{hidden}/canary.mp4", "../canary/canary.mp4")):
        entry = b"url " + bytes(4) + target.encode() + b"\0"
        moved = data.replace(own, (4 + len(entry)).to_bytes(4, "big") + entry)
        path = folder / f"reference{number}.mov"
        path.write_bytes(moved[: moved.index(b"mdat")] + b"mdat" + bytes(4000))  # it has no pictures of its own
        made.append(path)
    return made


ENTRIES = {
    "path": lambda folder, files: find_videos([str(file) for file in files]),
    "folder": lambda folder, files: find_videos([str(folder)]),
    "glob": lambda folder, files: find_videos([str(folder / "*")]),
    "list": lambda folder, files: find_videos([], from_file=str(listed(folder, files)), nul=True),
}


def listed(folder, files):
    path = folder.parent / "list"
    path.write_bytes(b"\0".join(map(os.fsencode, files)))
    return path


@pytest.mark.parametrize("entry", ENTRIES)
def test_hostile_files_reach_nothing_but_themselves(tmp_path, listener, entry):
    address, hits = listener
    (tmp_path / "hostile").mkdir()
    files = hostile_files(tmp_path / "hostile", address)
    assert len(files) >= 30
    found = ENTRIES[entry](tmp_path / "hostile", files)
    wanted = {str(file) for file in files if entry != "folder" or file.suffix != ".ts"}  # a folder's .ts files are text
    assert wanted <= {source.path for source in found}
    green = []
    with Decoders(PATIENCE) as decoders:
        for source in found:
            try:
                with decoders.open(source.path, listed=True) as video:
                    green += [source.path for frame in video if frame.pixels[..., 1].mean() > 200]
            except VideoError:
                continue
    assert green == []
    assert hits == []


def test_the_canary_and_the_listener_are_awake(tmp_path, listener):
    """What the test above looks for would be seen."""
    address, hits = listener
    (tmp_path / "hostile").mkdir()
    hostile_files(tmp_path / "hostile", address)
    with Decoders() as decoders, decoders.open(tmp_path / "canary" / "canary.ts") as video:
        assert all(frame.pixels[..., 1].mean() > 200 for frame in video)
    host, port = address.removeprefix("http://").split(":")
    with closing(socket.create_connection((host, int(port)))) as connection:
        connection.recv(1)
    assert len(hits) == 1
