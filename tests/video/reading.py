"""Ways to read a video that the tests of this room share."""

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
