"""The program of a process that decodes videos for another one: asked for a file, it tells its frames (``messages``).

It begins with its imports (FFmpeg and NumPy, nothing heavier), gives up whatever decoding does not need
(``confinement``), and then serves one file after another until its input ends. It is never started by hand.
"""

import os
import signal
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, BinaryIO

from vadis.errors import VideoError
from vadis.video.confinement import confine, die_with_parent, has_used_much_memory, too_much_memory
from vadis.video.facts import Limits
from vadis.video.frames import GridFrame, Picture
from vadis.video.messages import (
    CHUNK_BYTES,
    LENGTH_BYTES,
    error_to_json,
    facts_to_json,
    packed,
    unpacked,
    write_all,
)
from vadis.video.reader import open_video
from vadis.video.timegrid import GRID_FPS


def main(parent: int, max_memory_mb: int) -> None:
    """Serve the files that are asked for on stdin, on what is stdout now.

    Args:
        parent: the process id of the one who asks; this process ends with it.
        max_memory_mb: of address space.
    """
    die_with_parent(parent)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # sent to all processes of a job; the parent decides
        signal.signal(signum, signal.SIG_IGN)
    told = os.dup(1)
    os.dup2(2, 1)  # whatever prints does not disturb the messages
    write_all(told, [packed({"ready": confine(max_memory_mb)})])
    try:
        for request in _requests(sys.stdin.buffer):
            for parts in answers(request):
                write_all(told, parts)
    except BrokenPipeError:  # nobody listens any more
        return


def answers(request: dict[str, Any]) -> Iterator[list[bytes | memoryview]]:
    """All that there is to tell of one file, message by message."""
    limits = Limits(**request["limits"])
    try:
        path, listed, start = request["path"], request["listed"], request["start_frame"]
        with open_video(path, start_frame=start, listed=listed, limits=limits) as video:
            about = {"size": video.size, "expected": video.expected_num_frames, "facts": facts_to_json(video.facts)}
            yield [packed({"video": about})]
            for first, counts, pictures in gathered(islice(video, request["max_frames"])):
                yield [packed({"frames": counts, "first": first}), *(picture.data for picture in pictures)]
        yield _last({"end": facts_to_json(video.facts)})
    except VideoError as error:
        yield _last({"error": error_to_json(error)})
    except MemoryError:
        yield _last({"error": error_to_json(too_much_memory(limits.max_memory_mb))})


def gathered(frames: Iterable[GridFrame]) -> Iterator[tuple[int, list[int], list[Picture]]]:
    """Frames in chunks: the index of the first on the grid, how often each picture is shown, the pictures.

    A picture that neighbours share is there once.
    """
    first, counts, pictures = 0, list[int](), list[Picture]()
    for frame in frames:
        if pictures and frame.pixels is pictures[-1]:
            counts[-1] += 1
            continue
        if (len(pictures) + 1) * frame.pixels.nbytes > CHUNK_BYTES and pictures:
            yield first, counts, pictures
            pictures, counts = [], []
        if not pictures:
            first = round(frame.seconds * GRID_FPS)
        pictures.append(frame.pixels)
        counts.append(1)
    if pictures:
        yield first, counts, pictures


def _last(message: dict[str, Any]) -> list[bytes | memoryview]:
    """The last message of a file; a process that has held much memory serves no other."""
    return [packed(message | {"worn": True} if has_used_much_memory() else message)]


def _requests(asked: BinaryIO) -> Iterator[dict[str, Any]]:
    while length := asked.read(LENGTH_BYTES):
        yield unpacked(asked.read(int.from_bytes(length, "big")))
