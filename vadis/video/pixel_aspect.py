"""The shape of pixels where it changes on the way."""

from fractions import Fraction
from typing import Any

import av


class PixelAspect:
    """Follows a sample aspect ratio that changes within a stream, where its container states none that differs.

    PyAV's frames do not tell theirs, so one that is not that of the header is noted in their ``opaque``.
    """

    def __init__(self, stream: av.VideoStream) -> None:
        self._context = stream.codec_context
        self._first = self._read = self._shown = self._context.sample_aspect_ratio
        self._since: int | None = None  # timestamp of the packet that changed it; frames before it may still come
        self._is_followed = stream.sample_aspect_ratio == self._first

    def after(self, packet: "av.Packet[Any] | None") -> None:
        """Look at what the decoder says after this packet."""
        if self._is_followed and self._context.sample_aspect_ratio != self._read:
            self._read = self._context.sample_aspect_ratio
            self._since = None if packet is None else packet.pts

    def note(self, frame: av.VideoFrame) -> None:
        """Note in the next frame what is known of it."""
        if frame.pts is None or self._since is None or frame.pts >= self._since:
            self._shown = self._read
        if self._shown != self._first:
            width, height = (self._shown or Fraction(1)).as_integer_ratio()
            frame.opaque = Fraction(width, height)  # a new object for each: PyAV forgets one that two frames share
