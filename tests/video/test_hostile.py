"""Files that pose as videos: only the file itself is read, nothing is fetched, nothing but VideoError is raised."""

import errno
import itertools
import os
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest

from tests.synthetic import write_video
from vadis.errors import VideoError
from vadis.video import container, decoding
from vadis.video.reader import open_video

PAGE = b"<html><body>not found</body></html>"


@pytest.fixture(scope="module")
def server():
    """A server on this machine that counts what is asked of it."""
    hits = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            hits.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", hits
        listening.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a canary beside the files under test: a video that must never be decoded in their place."""
    folder = tmp_path_factory.mktemp("hostile")
    canary = np.zeros((8, 48, 64, 3), np.uint8)
    canary[..., 1] = 255
    write_video(folder / "canary.ts", frames=canary, codec="mpeg2video")
    write_video(folder / "canary.mp4", frames=canary)
    for i in range(3):
        write_video(folder / f"im{i}.png", frames=canary[:1], codec="png", pix_fmt="rgb24")
    return folder


M3U8 = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{target}\n#EXT-X-ENDLIST\n"
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
MPD = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT4S">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{target}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>"
)
PLAYLISTS = {
    "hls": M3U8,
    "hls with a mark": "\ufeff" + M3U8,
    "hls key": M3U8.replace("#EXTINF", '#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF'),
    "hls map": M3U8.replace("#EXTINF", '#EXT-X-MAP:URI="{target}"\n#EXTINF'),
    "concat": "ffconcat version 1.0\nfile '{target}'\n",
    "concat with options": "ffconcat version 1.0\nfile '{target}'\noption safe 0\nduration 4\n",
    "dash": MPD,
    "sdp": SDP,
    "asx": '<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
    "smil": '<smil><body><video src="{target}"/></body></smil>',
    "pls": "[playlist]\nFile1={target}\nNumberOfEntries=1\n",
    "reference": "[Reference]\nRef1={target}\n",
    "rtsptext": "RTSPtext\n{target}\n",
}


@pytest.mark.parametrize("extension", ["mp4", "ts", "avi", "m3u8", "mkv"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_playlists_are_named_as_such(folder, server, kind, extension):
    address, hits = server
    for target in (f"{address}/canary.ts", "canary.ts", str(folder / "canary.ts"), f"file:{folder}/canary.ts"):
        path = folder / f"playlist.{extension}"
        path.write_text(PLAYLISTS[kind].format(target=target))
        with pytest.raises(VideoError) as error, open_video(path) as video:
            list(video)
        assert error.value.code == "playlist_not_supported"
    assert hits == []


NOT_VIDEOS = {
    "text": (b"Some notes about videos.\n" * 40, "not_a_video"),
    "html": (PAGE, "not_a_video"),
    "svg": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "not_a_video"),
    "zip": (b"PK\3\4" + bytes(200), "not_a_video"),
    "pdf": (b"%PDF-1.7\n" + bytes(200), "not_a_video"),
    "json": (b'{"a": 1}', "not_a_video"),
    "shell": (b"#!/bin/sh\necho hello\n", "not_a_video"),
    "subtitles": (b"1\n00:00:01,000 --> 00:00:02,000\nhello\n", "not_a_video"),
    "ansi art": (b"\x1b[2J\x1b[1;31mhello" * 50, "not_a_video"),
    "zeros": (bytes(10_000), "not_a_video"),
    "noise": (random.Random(0).randbytes(10_000), "not_a_video"),
    "one byte": (b"\0", "not_a_video"),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(100), "not_a_video"),
    "bmp": (b"BM" + bytes(100), "not_a_video"),
    "tiff": (b"II*\0" + bytes(100), "not_a_video"),
    "webp": (b"RIFF\x20\0\0\0WEBPVP8 " + bytes(100), "not_a_video"),
    "wave": (b"RIFF\x20\0\0\0WAVEfmt " + bytes(100), "no_video_stream"),
    "flac": (b"fLaC" + bytes(100), "no_video_stream"),
    "mp3": (b"\xff\xfb\x90\x64" + bytes(500), "no_video_stream"),
    "tagged mp3": (b"ID3\3\0\0\0\0\0\0" + bytes(100), "no_video_stream"),
    "avi header": (b"RIFF\xff\0\0\0AVI LIST", "truncated_or_incomplete"),
    "mkv header": (b"\x1a\x45\xdf\xa3" + bytes(3), "truncated_or_incomplete"),
    "mp4 header": (b"\0\0\0\x20ftypisom" + bytes(20), "truncated_or_incomplete"),
}


@pytest.mark.parametrize("extension", ["mp4", "gif", "bin"])
@pytest.mark.parametrize("kind", NOT_VIDEOS)
def test_what_is_not_a_video_says_what_it_is(folder, kind, extension):
    content, code = NOT_VIDEOS[kind]
    path = folder / f"file.{extension}"
    path.write_bytes(content)
    with pytest.raises(VideoError) as error, open_video(path) as video:
        list(video)
    assert error.value.code == code
    assert error.value.message.isprintable()


def test_a_real_still_image(folder):
    with pytest.raises(VideoError) as error, open_video(folder / "im0.png"):
        pass
    assert error.value.code == "not_a_video"


def test_an_image_in_a_video_container(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=1)
    path.write_bytes(path.read_bytes().replace(b"ftypisom", b"ftypavif"))
    with pytest.raises(VideoError) as error, open_video(path):
        pass
    assert error.value.code == "not_a_video"


@pytest.mark.parametrize("name", ["im%d.png", "im%01d.mp4", "im*.png", "im?.png", "im[0-2].png"])
def test_a_name_is_never_a_pattern(folder, name):
    """FFmpeg would read im0.png, im1.png, im2.png for im%d.png, even where a file of exactly that name exists."""
    (folder / name).write_bytes(b"nothing to see")
    with pytest.raises(VideoError) as error, open_video(folder / name):
        pass
    assert error.value.code == "not_a_video"


@pytest.mark.parametrize(
    "address",
    [
        "{server}/canary.ts",
        "concat:canary.ts|canary.ts",
        "subfile,,start,0,end,0,,:canary.ts",
        "file:canary.ts",
        "async:canary.ts",
        "cache:{server}/canary.ts",
        "crypto:canary.ts",
        "data:video/mp4;base64,AAAA",
        "pipe:0",
        "fd:0",
        "tcp://127.0.0.1:9",
        "lavfi:testsrc",
    ],
)
def test_an_address_is_only_a_path(folder, server, monkeypatch, address):
    url, hits = server
    monkeypatch.chdir(folder)
    with pytest.raises(VideoError) as error, open_video(address.format(server=url)):
        pass
    assert error.value.code == "not_found"
    assert hits == []


def test_a_quicktime_file_that_refers_to_another(folder, server):
    """The data reference of a track names a URL or a path instead of "this file"."""
    url, hits = server
    data = (folder / "canary.mp4").read_bytes()
    for target in (f"{url}/canary.mp4", f"file://{folder}/canary.mp4"):
        entry = b"url " + bytes(4) + target.encode() + b"\0"
        own = b"\0\0\0\x0curl \0\0\0\1"
        assert own in data
        path = folder / "reference.mov"
        path.write_bytes(data.replace(own, (4 + len(entry)).to_bytes(4, "big") + entry))
        try:
            with open_video(path) as video:
                list(video)
        except VideoError:
            pass
    assert hits == []


# Disks


class FailingContainer:
    """An open container whose disk fails after ten packets."""

    def __init__(self, container):
        self._container = container

    def __getattr__(self, name):
        return getattr(self._container, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._container.close()

    def demux(self, *streams):
        yield from itertools.islice(self._container.demux(*streams), 10)
        raise av.error.OSError(errno.EIO, "Input/output error", "a.mp4")


def disk_fails(monkeypatch, number):
    """From now on the file system refuses to read any video."""

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(container, "open", refuse, raising=False)


DISK_ERRORS = {
    errno.EIO: "io_error",
    errno.ESTALE: "io_error",
    errno.EACCES: "permission_denied",
    errno.ENOENT: "disappeared",
}


@pytest.mark.parametrize("number", DISK_ERRORS)
@pytest.mark.parametrize("when", ["opening", "looking", "reading"])
def test_a_disk_that_fails_is_told_from_a_damaged_file(tmp_path, monkeypatch, when, number):
    path = write_video(tmp_path / "a.mp4", num_frames=20)
    opened = av.open

    def failing(*args, **options):
        disk_fails(monkeypatch, number)
        if when == "opening":
            raise av.error.OSError(errno.EIO, "Input/output error", str(path))
        return FailingContainer(opened(*args, **options))

    monkeypatch.setattr(av, "open", failing)
    if when != "looking":
        monkeypatch.setattr(decoding, "is_cut_short", lambda path, name: False)  # looks into the file itself
    with pytest.raises(VideoError) as error, open_video(path) as video:
        list(video)
    assert error.value.code == DISK_ERRORS[number]


def test_an_error_that_only_ffmpeg_sees_is_damage(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", num_frames=20)
    opened = av.open
    monkeypatch.setattr(av, "open", lambda *args, **options: FailingContainer(opened(*args, **options)))
    with open_video(path) as video:
        assert 8 <= len(list(video)) <= 10
    assert (video.facts.status, video.facts.flags) == ("partial", ("damaged_packets", "ends_early"))


# Damage

SEEDS = [
    ("a.mp4", "mpeg4", {}),
    ("b.mp4", "libx264", {}),
    ("c.mkv", "libx264", {"audio": True}),
    ("d.avi", "mpeg4", {}),
    ("e.ts", "mpeg2video", {}),
    ("f.webm", "libvpx-vp9", {}),
    ("g.gif", "gif", {}),
    ("h.mpg", "mpeg2video", {}),
    ("i.flv", "flv", {}),
    ("j.wmv", "wmv2", {}),
]


def mutated(data, rng):
    """``data`` with bits flipped, cut, zeroed, doubled or taken out somewhere, or its head overwritten."""
    damaged, at, length = bytearray(data), rng.randrange(len(data)), rng.randrange(1, 400)
    kind = rng.randrange(6)
    if kind == 0:
        for _ in range(rng.choice((1, 4, 32))):
            damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del damaged[max(1, at) :]
    elif kind == 2:
        damaged[at : at + length] = bytes(len(damaged[at : at + length]))
    elif kind == 3:
        damaged[at:at] = damaged[at : at + length]
    elif kind == 4:
        del damaged[at : at + length]
    else:
        at = rng.randrange(min(len(data) - 4, 600))
        damaged[at : at + 4] = rng.randbytes(4)
    return bytes(damaged) or b"\0"


@pytest.mark.slow
def test_damaged_files_give_frames_or_a_video_error(tmp_path):
    """2,000 mutations in one process: nothing else is raised, nothing crashes, and no file descriptor is left open."""
    seeds = [write_video(tmp_path / name, num_frames=8, size=(32, 32), codec=c, **more) for name, c, more in SEEDS]
    contents = [(seed.suffix, seed.read_bytes()) for seed in seeds]
    outcomes = {"ok": 0, "partial": 0, "error": 0}
    for i in range(2000):
        suffix, content = contents[i % len(contents)]
        path = tmp_path / f"damaged{suffix}"
        path.write_bytes(mutated(content, random.Random(i)))
        outcomes[outcome(path)] += 1
    assert min(outcomes.values()) > 200, outcomes
    assert not [link for link in open_files() if "damaged" in link]


def outcome(path):
    try:
        with open_video(path) as video:
            count = sum(1 for _ in zip(range(200), video, strict=False))
    except VideoError as error:
        assert error.message.isprintable()
        assert error.code != "io_error"  # the disk is well: it was the file
        return "error"
    assert count > 0
    assert count == 200 or count == video.facts.num_frames
    return video.facts.status


def open_files():
    """What this process has open, where the system says so."""
    links = [path for path in Path("/proc/self/fd").glob("*") if path.is_symlink()]
    return [os.readlink(path) for path in links if path.is_symlink()]  # noqa: PTH115 (sockets are no paths)


CUTS = [seed for seed in SEEDS if seed[0] not in ("h.mpg",)]  # a program stream states neither length nor count


@pytest.mark.parametrize(("name", "codec", "more"), CUTS, ids=[name for name, _, _ in CUTS])
def test_no_cut_goes_unnoticed(tmp_path, name, codec, more):
    """Cut anywhere, a video that lost more than 5 % of its frames is never plainly ok."""
    whole = write_video(tmp_path / name, num_frames=40, size=(32, 32), codec=codec, **more)
    data = whole.read_bytes()
    path = tmp_path / f"cut{whole.suffix}"
    for share in range(10, 100, 4):
        length = len(data) * share // 100
        path.write_bytes(data[: length + (length % 188 == 0)])  # between two packets of a .ts a cut cannot be seen
        try:
            with open_video(path) as video:
                count = sum(1 for _ in video)
        except VideoError as error:
            assert error.code in ("truncated_or_incomplete", "not_a_video", "no_frames")
        else:
            assert video.facts.status == "partial" or count >= 38
