"""The program of a process that decodes videos for another one: asked for a file, it tells its frames (``messages``).

It begins with its imports (FFmpeg and NumPy, nothing heavier), gives up whatever decoding does not need
(``confinement``), and then serves one file after another until its input ends. It is never started by hand.
"""

import io
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, BinaryIO

import av
import numpy as np

from vadis.errors import VideoError
from vadis.video.isolated.protocol import (
    CHUNK_BYTES,
    LENGTH_BYTES,
    MAX_PACKET_BYTES,
    SAMPLE_PACKETS,
    error_to_json,
    facts_to_json,
    packed,
    pair_of,
    unpacked,
    write_all,
)
from vadis.video.isolated.sandbox import confine, die_with_parent, has_used_much_memory, too_much_memory
from vadis.video.metadata import GridFrame, Limits, Picture
from vadis.video.reader import Sound, Video, open_sound, open_source, open_video
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
        yield from _KINDS[request.get("what", "grid")](request, limits)
    except VideoError as error:
        yield _last({"error": error_to_json(error)})
    except MemoryError:
        yield _last({"error": error_to_json(too_much_memory(limits.max_memory_mb))})


def _grid(request: dict[str, Any], limits: Limits) -> Iterator[list[bytes | memoryview]]:
    path, listed, start = request["path"], request["listed"], request["start_frame"]
    with open_video(path, start_frame=start, listed=listed, limits=limits) as video:
        about = {"size": video.size, "expected": video.expected_num_frames, "facts": facts_to_json(video.facts)}
        yield [packed({"video": about})]
        for first, counts, pictures in gathered(islice(video, request["max_frames"])):
            yield [packed({"frames": counts, "first": first}), *(picture.data for picture in pictures)]
    yield _last({"end": facts_to_json(video.facts)})


def _source(request: dict[str, Any], limits: Limits) -> Iterator[list[bytes | memoryview]]:
    with open_source(request["path"], limits=limits) as video:
        yield from _told_of_source(video)
    yield _last({"end": facts_to_json(video.facts)})


def _sound(request: dict[str, Any], limits: Limits) -> Iterator[list[bytes | memoryview]]:
    with open_sound(request["path"], limits=limits) as sound:
        yield from _told_of_sound(sound)
    yield _last({"end": None})


def _told_of_source(video: Video) -> Iterator[list[bytes | memoryview]]:
    """Tell of a ``reader.Video`` and its frames, all but the end."""
    about = {
        "size": video.size,
        "facts": facts_to_json(video.facts),
        "start": None if video.start_seconds is None else pair_of(video.start_seconds),
        "first": pair_of(video.first_seconds),
        "pixel_aspect": pair_of(video.pixel_aspect),
        "colours": video.colours,
    }
    yield [packed({"video": about})]
    for frame in video.source_frames():
        times = {"seconds": pair_of(frame.seconds), "duration": pair_of(frame.duration_seconds)}
        zero = None if frame.zero_seconds is None else pair_of(frame.zero_seconds)
        yield [packed(times | {"zero": zero}), np.ascontiguousarray(frame.pixels).data]


def _told_of_sound(sound: Sound) -> Iterator[list[bytes | memoryview]]:
    """Tell of the sound of a file and its packets, all but the end."""
    first = list(islice(sound.packets, SAMPLE_PACKETS))
    sample, not_copied = b"", [stream.codec_context.name for stream in sound.streams]
    try:
        sample, not_copied = _sample(sound.streams, first) if sound.streams else b"", []
    except (ValueError, av.FFmpegError):  # Matroska has no place for a codec: hardly any program plays it
        first = []
    yield [packed({"sound": {"sample_bytes": len(sample), "not_copied": not_copied}}), sample]
    if not_copied:
        return
    places = {stream.index: place for place, stream in enumerate(sound.streams)}
    for packet in chain(first, sound.packets):
        content = _without_adts(bytes(packet), packet.stream.codec_context.name)
        told = {
            "stream": places[packet.stream.index],
            "pts": packet.pts,
            "dts": packet.dts,
            "duration": packet.duration or 0,
            "time_base": pair_of(packet.time_base),
            "num_bytes": len(content),
        }
        if len(content) <= MAX_PACKET_BYTES:
            yield [packed(told), content]


def _without_adts(content: bytes, codec: str) -> bytes:
    """A packet of AAC without the header that transport streams put before it (ISO/IEC 13818-7, 6.2).

    What it says the sample says. FFmpeg's muxer of Matroska takes it off too, but then spoils its own header, where it
    has known that before.
    """
    is_adts = codec == "aac" and len(content) > 9 and content[0] == 0xFF and content[1] & 0xF0 == 0xF0
    return content[7 if content[1] & 1 else 9 :] if is_adts else content


def _sample(streams: "Sequence[av.AudioStream]", packets: "Sequence[av.Packet[Any]]") -> bytes:
    """A Matroska file of ``streams`` with ``packets``; raises ValueError or FFmpegError where it cannot hold them."""
    written = io.BytesIO()
    with av.open(written, "w", format="matroska") as container:
        copies = {stream.index: container.add_stream_from_template(stream) for stream in streams}
        container.start_encoding()
        for packet in packets:
            copy: av.Packet[Any] = av.Packet(bytes(packet))
            copy.time_base, copy.pts, copy.dts, copy.is_keyframe = packet.time_base, packet.pts, packet.dts, True
            copy.stream = copies[packet.stream.index]
            container.mux(copy)
    return written.getvalue()


_KINDS = {"grid": _grid, "source": _source, "sound": _sound}


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
