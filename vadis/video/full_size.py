"""What a new video is made of, from child processes: pictures of full size at the file's own times, and coded sound.

``open_source`` and ``open_sound`` give what those of ``reader`` give, and a file that crashes FFmpeg costs a child.
Coded sound is of use only with the parameters of its codec. Those travel as a small Matroska file (the *sample*) that
the child writes of the first packets; packets and their times come as messages, so that none is rounded.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import av
import numpy as np

from vadis.errors import UsageError
from vadis.video.colour import Colours
from vadis.video.isolated import protocol
from vadis.video.isolated.pool import ChildVideo, Decoders
from vadis.video.isolated.protocol import MAX_PACKET_BYTES, SAMPLE_PACKETS, Nonsense
from vadis.video.metadata import SourceFrame
from vadis.video.reader import Sound, streams_of_sample

MAX_SAMPLE_BYTES = SAMPLE_PACKETS * MAX_PACKET_BYTES + (1 << 20)


class SourceVideo(ChildVideo):
    """A video whose frames are those of the file; see ``reader.Video`` for the attributes."""

    start_seconds: Fraction | None
    first_seconds: Fraction
    pixel_aspect: Fraction
    colours: Colours | None

    def __enter__(self) -> "SourceVideo":
        super().__enter__()
        return self

    def _open(self) -> None:
        with self._watched() as child:
            child.ask(self._request)
            about = protocol.field(self._hear(child), "video")
            self.size = protocol.full_size(about, self._limits.max_pixels)
            self.facts = protocol.facts_from_json(protocol.field(about, "facts"))
            self.start_seconds = protocol.maybe_fraction(about, "start")
            self.first_seconds = protocol.fraction(protocol.field(about, "first"))
            self.colours = _colours(about)
            self.pixel_aspect = protocol.fraction(protocol.field(about, "pixel_aspect"))
            if self.pixel_aspect <= 0:
                raise Nonsense("pixel_aspect")
        self._patience.video_seconds = self.facts.duration_seconds or 0.0

    def source_frames(self) -> Iterator[SourceFrame]:
        """The frames of the file, once; raises VideoError as iterating over a ``ChildVideo`` does."""
        (width, height), before = self.size, Fraction(0)
        while not self._done:
            with self._watched() as child:
                told = self._hear(child)
                if "end" in told:
                    self.facts, self._done = protocol.facts_from_json(told["end"]), True
                    return
                seconds = protocol.fraction(protocol.field(told, "seconds"))
                duration = protocol.fraction(protocol.field(told, "duration"))
                zero = protocol.maybe_fraction(told, "zero")
                if not before <= seconds <= seconds + duration <= self._limits.max_seconds + 1:
                    raise Nonsense("a frame that cannot be next")
                pixels = np.empty((height, width, 3), np.uint8)
                child.read_into(pixels.data.cast("B"), self._patience)
            before = seconds
            self._patience.video_seconds = max(self._patience.video_seconds, float(seconds + duration))
            yield SourceFrame(pixels, seconds, duration, zero)


class SoundOfVideo(ChildVideo):
    """The sound of a file: ``streams``, as ``reader.Sound`` has them, and ``packets``."""

    streams: "tuple[av.AudioStream, ...]"

    def __enter__(self) -> "SoundOfVideo":
        super().__enter__()
        return self

    def _open(self) -> None:
        with self._watched() as child:
            child.ask(self._request)
            about = protocol.field(self._hear(child), "sound")
            names = protocol.field(about, "not_copied")
            if names:
                raise _cannot_be_copied(names)
            sample = bytearray(protocol.count(about, "sample_bytes", most=MAX_SAMPLE_BYTES))
            child.read_into(memoryview(sample), self._patience)
        self._patience.video_seconds = self._limits.max_seconds
        self.streams = streams_of_sample(bytes(sample)) if sample else ()

    def packets(self) -> "Iterator[av.Packet[Any]]":
        """The packets, once, in the order of the file."""
        while not self._done:
            with self._watched() as child:
                told = self._hear(child)
                if "end" in told:
                    self._done = True
                    return
                stream = protocol.count(told, "stream", most=len(self.streams) - 1)
                content = bytearray(protocol.count(told, "num_bytes", most=MAX_PACKET_BYTES))
                child.read_into(memoryview(content), self._patience)
                packet: av.Packet[Any] = av.Packet(bytes(content))
                packet.time_base = protocol.fraction(protocol.field(told, "time_base"))
                packet.pts, packet.dts = protocol.integer(told, "pts"), protocol.integer(told, "dts")
                packet.duration = protocol.count(told, "duration")
            packet.is_keyframe = True  # so is all sound that these containers hold
            packet.stream = self.streams[stream]
            yield packet


def open_source(decoders: Decoders, path: str | os.PathLike[str]) -> SourceVideo:
    """As ``reader.open_source``, decoded in a child of ``decoders``; a context manager."""
    return SourceVideo(decoders, _request(decoders, path, "source"), decoders.limits)


@contextmanager
def open_sound(decoders: Decoders, path: str | os.PathLike[str]) -> Iterator[Sound]:
    """As ``reader.open_sound``, read in a child of ``decoders``.

    Raises:
        UsageError: the sound is of a kind that cannot be copied.
    """
    with SoundOfVideo(decoders, _request(decoders, path, "sound"), decoders.limits) as sound:
        yield Sound(sound.streams, sound.packets())


def _request(decoders: Decoders, path: str | os.PathLike[str], what: str) -> dict[str, Any]:
    return decoders.request(path, what=what, listed=False, start_frame=0, max_frames=None)


def _colours(told: Any) -> Colours | None:
    """The three numbers of H.273 or None; raises Nonsense for all else."""
    given = protocol.field(told, "colours")
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != 3 or not all(type(n) is int and 0 <= n < 256 for n in given):
        raise Nonsense("colours")
    return Colours(*given)


def _cannot_be_copied(names: Any) -> UsageError:
    shown = ", ".join(name for name in names if isinstance(name, str) and name.isprintable())[:200]
    hint = "leave the sound out with `with_sound=False`: not even .mkv takes it"
    return UsageError(f"sound of the kind {shown} cannot be copied", hint)
