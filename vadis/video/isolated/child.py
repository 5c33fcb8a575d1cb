"""The program of a process that decodes videos for its parent: it reads requests and sends frames (``protocol``).

It imports FFmpeg and NumPy, nothing heavier, gives up all rights that decoding does not need (``sandbox``), and then
serves one file after another until its input ends.
"""

import io
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import av
import numpy as np

from vadis.errors import VideoError
from vadis.video.isolated import protocol, sandbox
from vadis.video.isolated.protocol import LENGTH_BYTES, pack_message
from vadis.video.metadata import GridFrame, Limits, Picture
from vadis.video.reader import open_sound, open_source, open_video
from vadis.video.timegrid import GRID_FPS

Message = list[bytes | memoryview]  # the packed message, then the bytes that it announces


def main(parent: int, max_memory_mb: int) -> None:
    """Serve the requests on stdin, on what is stdout now; end with the process ``parent``."""
    sandbox.die_with_parent(parent)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # sent to all processes of a job; the parent decides
        signal.signal(signum, signal.SIG_IGN)
    output = os.dup(1)
    os.dup2(2, 1)  # whatever prints does not disturb the messages
    protocol.send_all(output, [pack_message({"ready": sandbox.enter_sandbox(max_memory_mb)})])
    try:
        while length := sys.stdin.buffer.read(LENGTH_BYTES):
            request = protocol.unpack_message(sys.stdin.buffer.read(int.from_bytes(length, "big")))
            for parts in answers(request):
                protocol.send_all(output, parts)
    except BrokenPipeError:  # the parent has ended or has given up this video
        return


def answers(request: dict[str, Any]) -> Iterator[Message]:
    """Yield the messages about one file."""
    limits = Limits(**request["limits"])
    try:
        yield from _ANSWERS[request["what"]](request, limits)
    except VideoError as error:
        yield _last_message({"error": protocol.error_to_json(error)})
    except MemoryError:
        yield _last_message({"error": protocol.error_to_json(sandbox.too_much_memory(limits.max_memory_mb))})


def _last_message(message: dict[str, Any]) -> Message:
    """Return the last message about a file; a process that has held much memory serves no other."""
    return [pack_message(message | {"worn": True} if sandbox.has_used_much_memory() else message)]


def _send_grid(request: dict[str, Any], limits: Limits) -> Iterator[Message]:
    path, listed, start = request["path"], request["listed"], request["start_frame"]
    with open_video(path, start_frame=start, listed=listed, limits=limits) as video:
        about = {"size": video.size, "expected": video.expected_num_frames, "facts": vars(video.facts)}
        yield [pack_message({"video": about})]
        for first, repeats, pictures in _group_frames(islice(video, request["max_frames"])):
            yield [pack_message({"frames": repeats, "first": first}), *(picture.data for picture in pictures)]
    yield _last_message({"end": vars(video.facts)})


def _group_frames(frames: Iterable[GridFrame]) -> Iterator[tuple[int, list[int], list[Picture]]]:
    """Yield frames in chunks: the grid index of the first, how often each picture is shown, the pictures, each once."""
    first, repeats, pictures = 0, list[int](), list[Picture]()
    for frame in frames:
        if pictures and frame.pixels is pictures[-1]:
            repeats[-1] += 1
            continue
        if (len(pictures) + 1) * frame.pixels.nbytes > protocol.CHUNK_BYTES and pictures:
            yield first, repeats, pictures
            pictures, repeats = [], []
        if not pictures:
            first = round(frame.seconds * GRID_FPS)
        pictures.append(frame.pixels)
        repeats.append(1)
    if pictures:
        yield first, repeats, pictures


def _send_source(request: dict[str, Any], limits: Limits) -> Iterator[Message]:
    with open_source(request["path"], limits=limits) as video:
        names = ("size", "start_seconds", "first_seconds", "pixel_aspect", "colours")
        about = {name: getattr(video, name) for name in names} | {"facts": vars(video.facts)}
        yield [pack_message({"video": about})]
        for frame in video.source_frames():
            times = {"seconds": frame.seconds, "duration": frame.duration_seconds, "zero": frame.zero_seconds}
            yield [pack_message(times), np.ascontiguousarray(frame.pixels).data]
    yield _last_message({"end": vars(video.facts)})


def _send_sound(request: dict[str, Any], limits: Limits) -> Iterator[Message]:
    with open_sound(request["path"], limits=limits) as sound:
        first = list(islice(sound.packets, protocol.SAMPLE_PACKETS))
        sample, not_copied = b"", list[str]()
        try:
            sample = _write_sample(sound.streams, first) if sound.streams else b""
        except (ValueError, av.FFmpegError):  # Matroska has no place for a codec: hardly any program plays it
            not_copied = [stream.codec_context.name for stream in sound.streams]
        yield [pack_message({"sound": {"sample_bytes": len(sample), "not_copied": not_copied}}), sample]
        places = {stream.index: place for place, stream in enumerate(sound.streams)}
        for packet in () if not_copied else chain(first, sound.packets):
            content = _strip_adts(bytes(packet), packet.stream.codec_context.name)
            about: dict[str, Any] = {"pts": packet.pts, "dts": packet.dts, "duration": packet.duration or 0}
            about |= {"stream": places[packet.stream.index], "time_base": packet.time_base, "num_bytes": len(content)}
            if len(content) <= protocol.MAX_PACKET_BYTES:
                yield [pack_message(about), content]
    yield _last_message({"end": None})


def _strip_adts(content: bytes, codec: str) -> bytes:
    """Return a packet of AAC without the header that transport streams put before it (ISO/IEC 13818-7, 6.2).

    The sample holds the same. FFmpeg's muxer of Matroska strips it too, but may spoil its own header then.
    """
    is_adts = codec == "aac" and len(content) > 9 and content[0] == 0xFF and content[1] & 0xF0 == 0xF0
    return content[7 if content[1] & 1 else 9 :] if is_adts else content


def _write_sample(streams: "Sequence[av.AudioStream]", packets: "Sequence[av.Packet[Any]]") -> bytes:
    """Return a Matroska file of ``streams`` with ``packets``; raise ValueError or FFmpegError if it cannot hold them.

    It carries the parameters of the codecs to the parent; times travel in messages, so that none is rounded.
    """
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


_ANSWERS = {"grid": _send_grid, "source": _send_source, "sound": _send_sound}
