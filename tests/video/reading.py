"""Ways to read a video, and to change one, that the tests of this package share."""

from pathlib import Path

import av
import pytest

from tests.synthetic import read_number
from vadis.errors import VideoError
from vadis.video.reader import open_video


def read(path, **options):
    """The video, read to its end, and its grid frames."""
    with open_video(path, **options) as video:
        frames = list(video)
    return video, frames


def numbers(frames):
    return [read_number(frame.pixels) for frame in frames]


def refused(path, **options):
    with pytest.raises(VideoError) as error:
        read(path, **options)
    assert not str(path) or str(path) not in error.value.message  # the record has it
    return error.value.code


def remuxed(source, target, packets=lambda packet: packet, **options):
    """A copy of the packets of ``source`` in another file, as ``packets`` changes them (None leaves one out)."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            changed = None if packet.dts is None else packets(packet)
            if changed is not None:
                changed.stream = streams[changed.stream.index]
                new.mux(changed)
    return target


def delayed(source, target, seconds, **options):
    """A copy of the packets of ``source`` whose times are ``seconds`` later."""

    def later(packet):
        ticks = round(seconds / packet.time_base)
        packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
        return packet

    return remuxed(source, target, later, **{"avoid_negative_ts": "disabled", **options})


def joined(target, *parts):
    """One file after another, as ``cat`` joins them."""
    target.write_bytes(b"".join(Path(part).read_bytes() for part in parts))
    return target


class TransportPackets:
    """The packets of an MPEG transport stream, 188 bytes each, to leave some out or to change them."""

    VIDEO = 0x100  # the first stream of FFmpeg's muxer

    def __init__(self, path):
        data = Path(path).read_bytes()
        self.packets = [data[at : at + 188] for at in range(0, len(data), 188)]

    def of_video(self):
        """The indices of those that hold pictures."""
        return [i for i, each in enumerate(self.packets) if (each[1] & 0x1F) << 8 | each[2] == self.VIDEO]

    def begins_frame(self, i):
        return bool(self.packets[i][1] & 0x40)

    def scramble(self, first, last):
        """Make the pictures unreadable in a part of the packets, and mark them as scrambled."""
        for i in set(self.of_video()) & set(range(first, last)):
            packet = bytearray(self.packets[i])
            begin = 4 + (packet[4] + 1 if packet[3] & 0x20 else 0)
            packet[3] |= 0x80
            packet[begin:] = bytes(byte ^ 0xA5 for byte in packet[begin:])
            self.packets[i] = bytes(packet)

    def shift(self, i, ticks):
        """Move the times of the frame that begins with a packet by ``ticks`` of 1/90000 s."""
        packet = bytearray(self.packets[i])
        begin = 4 + (packet[4] + 1 if packet[3] & 0x20 else 0)  # of the header of the frame (ISO 13818-1, 2.4.3.6)
        for at in (begin + 9, begin + 14)[: (packet[begin + 7] >> 6).bit_count()]:
            a, b, c, d, e = packet[at : at + 5]  # 3, 8, 7, 8 and 7 bits, each part with a mark behind it
            time = (a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1
            time = (time + ticks) % 2**33
            packet[at : at + 5] = (
                *(a & 0xF1 | time >> 30 << 1, time >> 22 & 255, time >> 14 & 0xFE | 1),
                *(time >> 7 & 255, time << 1 & 0xFE | 1),
            )
        self.packets[i] = bytes(packet)

    def write(self, path, packets=None):
        path.write_bytes(b"".join(self.packets if packets is None else packets))
        return path
