"""The program of a process that decodes videos for its parent: it reads requests and sends frames (``process``)."""

import io
import os
import signal
import sys
from collections.abc import Generator, Iterator, Sequence
from fractions import Fraction
from itertools import chain, groupby, islice
from typing import Any

import av
import numpy as np

from vadis.errors import VideoError
from vadis.parsing import parse_json
from vadis.results import Part
from vadis.video.isolated import sandbox
from vadis.video.isolated.process import MAX_PACKET_BYTES, SAMPLE_PACKETS, error_to_json, pack_message
from vadis.video.metadata import Limits
from vadis.video.reader import Packets, PictureFolder, Video, open_packets, open_source, open_video
from vadis.video.timegrid import GRID_FPS, frame_range, select_part

Answer = list[bytes | memoryview]  # a packed message, then the bytes that it announces
Answers = Generator[Answer, None, dict[str, Any] | None]  # returns what is known after the last frame


def main(parent: int, limits: dict[str, Any]) -> None:
    """Serve the requests on stdin, on what is stdout now; end with the process ``parent``."""
    sandbox.die_with_parent(parent)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # sent to all processes of a job; the parent decides
        signal.signal(signum, signal.SIG_IGN)
    output = open(os.dup(1), "wb")  # noqa: SIM115
    os.dup2(2, 1)  # whatever prints does not disturb the messages
    os.set_blocking(2, False)  # and is not held up: the parent reads it at the end
    output.write(pack_message({"ready": sandbox.enter_sandbox(limits["max_memory_mb"])}))
    try:
        output.flush()
        for request in sys.stdin.buffer:
            for answer in serve_request(parse_json(request), Limits(**limits)):
                output.writelines(answer)
                output.flush()
    except BrokenPipeError:  # the parent has ended or has given up this video
        return


def serve_request(request: dict[str, Any], limits: Limits) -> Iterator[Answer]:
    """Yield the messages that answer a request for one file."""
    last = dict[str, Any]()
    try:
        last["end"] = yield from _ANSWERS[request["what"]](request, limits)
    except VideoError as error:
        last["error"] = error_to_json(error)
    except MemoryError:
        last["error"] = error_to_json(sandbox.too_much_memory(limits.max_memory_mb))
    if sandbox.has_used_much_memory():  # this process serves no other file
        last["worn"] = True
    yield [pack_message(last)]


def _send_grid(request: dict[str, Any], limits: Limits) -> Answers:
    path, listed, part, most = request["path"], request["listed"], _part(request), request["max_frames"]
    with open_video(path, start_frame=part or request["start_frame"], listed=listed, limits=limits) as video:
        yield _describe(video)
        if part is not None and (count := frame_range(part, video.first_seconds)[1]) is not None:
            most = count if most is None else min(most, count)
        frames = islice(video, most)
        for _, group in groupby(frames, key=lambda frame: id(frame.pixels)):  # neighbours may show one picture
            pixels, seconds = next(group)
            count = 1 + sum(1 for _ in group)  # noqa: B031 (the rest of it)
            yield [pack_message({"first": round(seconds * GRID_FPS), "count": count}), pixels.data]
    return vars(video.facts)


def _send_source(request: dict[str, Any], limits: Limits) -> Answers:
    size, listed = request.get("size", "full"), request.get("listed", False)
    start, most, part = request["start_frame"], request.get("max_frames"), _part(request)
    with open_source(request["path"], listed=listed, limits=limits, size=size, start_frame=part or 0) as video:
        yield _describe(video)
        frames = islice(video.source_frames(start), most)
        for pixels, *times in frames if part is None else select_part(frames, part, video.first_seconds):
            yield [pack_message({"times": times}), np.ascontiguousarray(pixels).data]
    return vars(video.facts)


def _part(request: dict[str, Any]) -> Part | None:
    return None if request.get("part") is None else Part(*request["part"])


def _describe(video: Video | PictureFolder) -> Answer:
    names = ("size", "expected_num_frames", "start_frame", "start_seconds", "first_seconds", "pixel_aspect", "colours")
    return [pack_message({name: getattr(video, name) for name in names} | {"facts": vars(video.facts)})]


def _send_sound(request: dict[str, Any], limits: Limits) -> Answers:
    with open_packets(request["path"], limits=limits) as (streams, packets, _):
        first = list(islice(packets, SAMPLE_PACKETS))
        sample, not_copied = b"", list[str]()
        try:
            sample = _write_sample(streams, first) if streams else b""
        except (ValueError, av.FFmpegError):  # Matroska has no place for a codec: hardly any program plays it
            not_copied = [stream.codec_context.name for stream in streams]
        yield [pack_message({"sample_bytes": len(sample), "not_copied": not_copied}), sample]
        places = {stream.index: place for place, stream in enumerate(streams)}
        for packet in () if not_copied else chain(first, packets):
            content = _strip_adts(bytes(packet), packet.stream.codec_context.name)
            about = {"times": [packet.pts, packet.dts, packet.duration or 0], "time_base": packet.time_base}
            about |= {"stream": places[packet.stream.index], "num_bytes": len(content)}
            if len(content) <= MAX_PACKET_BYTES:
                yield [pack_message(about), content]
    return None


def _send_clip(request: dict[str, Any], limits: Limits) -> Answers:
    start, end = request["stretch"]
    try:
        with open_packets(request["path"], limits=limits, start=start, sound=request["sound"]) as opened:
            content, begins = _write_clip(opened, Fraction(start), Fraction(end), request["format"])
    except (ValueError, av.FFmpegError):  # the format has no place for a codec, packets lack their times, FLV no index
        content, begins = b"", None
    yield [pack_message({"begins": begins})]
    for at in range(0, len(content), MAX_PACKET_BYTES):
        piece = content[at : at + MAX_PACKET_BYTES]
        yield [pack_message({"num_bytes": len(piece)}), piece]
    return None


def _write_clip(opened: Packets, start: Fraction, end: Fraction, form: str) -> tuple[bytes, float]:
    """Return a file with the packets that ``[start, end)`` needs, and when its first picture is shown."""
    written, begins, pictures = io.BytesIO(), None, opened.streams[0].index
    with av.open(written, "w", format=form) as container:
        copies = {stream.index: container.add_stream_from_template(stream, opaque=True) for stream in opened.streams}
        container.start_encoding()
        for packet in opened.packets:
            is_picture = packet.stream.index == pictures
            dts, pts = packet.dts or 0, packet.pts or 0  # they are there
            seconds = dts * packet.time_base - opened.zero_seconds
            if begins is None and is_picture and packet.is_keyframe:
                begins = max(Fraction(0), pts * packet.time_base - opened.zero_seconds)
            if seconds >= end + 1:  # sound and pictures are not far from one another
                break
            if begins is None or seconds >= end or (not is_picture and seconds < begins):
                continue
            shift = round((opened.zero_seconds + begins) / packet.time_base)
            packet.pts, packet.dts = pts - shift, dts - shift
            packet.stream = copies[packet.stream.index]
            container.mux(packet)
    if begins is None or begins > start:
        raise ValueError("no picture before the stretch stands alone")
    return written.getvalue(), float(begins)


def _strip_adts(content: bytes, codec: str) -> bytes:
    """Return a packet of AAC without the header that transport streams put before it (ISO/IEC 13818-7, 6.2).

    FFmpeg's muxer of Matroska strips it too, but may spoil its own header then.
    """
    is_adts = codec == "aac" and len(content) > 9 and content[0] == 0xFF and content[1] & 0xF0 == 0xF0
    return content[7 if content[1] & 1 else 9 :] if is_adts else content


def _write_sample(streams: "Sequence[av.AudioStream]", packets: "Sequence[av.Packet[Any]]") -> bytes:
    """Return a Matroska file, which carries the parameters of codecs; raise ValueError or FFmpegError if it cannot."""
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


_ANSWERS = {"grid": _send_grid, "source": _send_source, "sound": _send_sound, "clip": _send_clip}
