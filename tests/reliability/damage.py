"""Videos made in code, and damage done to them by a seed: flips, cuts, zeros, doubles, splices, lying headers."""

import random
from pathlib import Path

from tests.synthetic import write_video

SEEDS = [
    ("a.mp4", "mpeg4", {}),
    ("b.mp4", "libx264", {"audio": True}),
    ("c.mkv", "libx264", {}),
    ("d.mkv", "ffv1", {}),
    ("e.avi", "mpeg4", {"audio": True}),
    ("f.ts", "mpeg2video", {}),
    ("g.ts", "libx264", {"audio": True}),
    ("h.webm", "libvpx-vp9", {}),
]
"""Name, codec and options of the videos that are damaged: mp4, mkv, avi, ts and webm."""

_HEADER_BYTES = 800
_BOXES = (b"moov", b"trak", b"mdia", b"stbl", b"stsd", b"stsz", b"stco", b"stsc", b"stts", b"mdhd", b"tkhd", b"avcC")
_VALUES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0xFFFF_FFF0, 1 << 24)


def whole_videos(folder: Path, num_frames: int = 8, size: tuple[int, int] = (32, 32)) -> list[tuple[str, bytes]]:
    """The name and content of each video."""
    made = [write_video(folder / name, num_frames=num_frames, size=size, codec=c, **more) for name, c, more in SEEDS]
    return [(path.name, path.read_bytes()) for path in made]


def damaged(videos: list[tuple[str, bytes]], seed: int) -> tuple[str, bytes]:
    """One of the videos with one to three kinds of damage; the same for the same seed."""
    rng = random.Random(seed)
    name, content = videos[seed % len(videos)]
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        kind = rng.choice(KINDS)
        kind(data, rng, videos)
    return name, bytes(data) or b"\0"


def flip(data, rng, videos):
    for _ in range(rng.choice((1, 4, 32))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut(data, rng, videos):
    del data[max(1, rng.randrange(len(data) + 1)) :]


def zero(data, rng, videos):
    at, length = place(data, rng)
    data[at : at + length] = bytes(len(data[at : at + length]))


def duplicate(data, rng, videos):
    at, length = place(data, rng)
    data[at:at] = data[at : at + length]


def remove(data, rng, videos):
    at, length = place(data, rng)
    if len(data) > length:
        del data[at : at + length]


def splice(data, rng, videos):
    """A piece of another file, of whatever kind."""
    _, other = rng.choice(videos)
    at, length = place(data, rng)
    begin = rng.randrange(len(other))
    data[at : at + length] = other[begin : begin + rng.randrange(1, 2000)]


def lie(data, rng, videos):
    """A number in the header that is as far off as can be."""
    head = min(len(data) - 4, _HEADER_BYTES)
    if head > 0:
        at = rng.randrange(head)
        data[at : at + 4] = rng.choice(_VALUES).to_bytes(4, rng.choice(("big", "little")))


def lie_in_a_box(data, rng, videos):
    """The same in what an MP4 says of its samples, or in its sizes of boxes; elsewhere anywhere."""
    at = data.find(rng.choice(_BOXES))
    at = rng.randrange(len(data) + 1) if at < 0 else max(0, at + rng.randrange(-4, 24))
    data[at : at + 4] = rng.choice(_VALUES).to_bytes(4, "big")


def shuffle(data, rng, videos):
    """Two halves the other way round."""
    at, _ = place(data, rng)
    data[:] = data[at:] + data[:at]


KINDS = (flip, cut, zero, duplicate, remove, splice, lie, lie_in_a_box, shuffle)


def place(data, rng):
    return rng.randrange(len(data) + 1) if data else 0, rng.randrange(1, 400)
