"""What the header of a file promises: which stream is the video, its rate and its length."""

from fractions import Fraction

import av
from av.stream import Disposition

from vadis.errors import VideoError
from vadis.video.container import is_cut_short
from vadis.video.metadata import MP4, Limits
from vadis.video.picture import container_crop
from vadis.video.timegrid import GRID_FPS, Clock, grid_length

_MICROSECOND = Fraction(1, 1_000_000)  # FFmpeg's unit for the times of a whole container
_DEFAULT_FPS = Fraction(25)  # where a file states no frame rate: what FFmpeg assumes of bare streams
_SLACK_SECONDS = Fraction(1, 2)  # by which a video without a count of frames may end before its header says,
_SLACK_SHARE = Fraction(5, 100)  # and the share of its duration that this may not exceed
_LARGEST_DELAY_SECONDS = Fraction(10)  # of a first frame where clocks may restart: a longer one is of another clock
_STILL_BRANDS = ("avif", "heic", "heix", "heim", "heis", "mif1")  # images in an MP4 container; sequences have others
_CLOCK_MAY_RESTART = 0x0200  # AVFMT_TS_DISCONT in FFmpeg's libavformat/avformat.h
_GAP_SLACK_SECONDS = Fraction(1)  # by which frames behind a gap may exceed the duration that a header states
_ENDS_STATED = ("matroska,webm", "asf")  # formats whose "duration" is when the last frame ends, by the file's clock
_DAY_SECONDS = 86_400  # a longer video has at least one byte for each second
_TRANSPORT_PACKET_BYTES = 188  # of which a frame takes at least one


class Header:
    """What the header of a file states of its video stream. All lengths are hints: what is decoded decides.

    Raises VideoError ``too_large`` for a picture beyond the limits.
    """

    def __init__(
        self, path: str, container: av.container.InputContainer, stream: av.VideoStream, limits: Limits
    ) -> None:
        limits.check_pixels(stream.codec_context.width, stream.codec_context.height)
        self.format_name = name = container.format.name
        self.sample_aspect_ratio = stream.sample_aspect_ratio  # width of a pixel by its height
        self.num_video_streams = len(_video_streams(container))
        self.is_sequential = name == "avi"  # frames at a constant rate, and no timestamps
        self.crop = container_crop(name, stream)
        self._clock_may_restart = bool(container.format.flags & _CLOCK_MAY_RESTART)
        self._is_cut_short = is_cut_short(path, name)
        self._time_base = stream.time_base or 1 / _DEFAULT_FPS  # seconds per tick of the timestamps
        rates = (rate for rate in (stream.average_rate, stream.guessed_rate) if rate)
        self.fps = next((rate for rate in rates if Fraction(1, 3600) <= rate <= 1000), None)
        self.interval = 1 / (self.fps or _DEFAULT_FPS)  # nominal seconds from frame to frame
        # Of all streams together: when the first begins, from where players count, and seconds until the last ends.
        self._start = None if container.start_time is None else container.start_time * _MICROSECOND
        self._file_duration = container.duration * _MICROSECOND if container.duration else None
        # Seconds from the first frame to the end of the last; and when that is, by the file's own clock.
        self.duration, self._end = self._extent(container, stream)
        self.num_frames: int | None = stream.frames or None  # coded ones
        if name == MP4 and self.num_frames:  # without those that an edit list leaves out
            self.num_frames = min(self.num_frames, len(stream.index_entries) or self.num_frames)
        if name == "gif":  # states nothing: FFmpeg counted what is there
            self.num_frames = None
        # What a file of this size can have. FFmpeg measures transport streams, maybe by two different clocks.
        is_measured, most_seconds = name == "mpegts", Fraction(max(_DAY_SECONDS, container.size))
        if is_measured:
            most_seconds = container.size * self.interval / _TRANSPORT_PACKET_BYTES
        if (self.num_frames or 0) > container.size:
            self.num_frames, most_seconds = None, Fraction(-1)
        can_last = (self.duration or 0) <= most_seconds
        self.ignores_length = not can_last and not is_measured
        if not can_last:
            self.duration = self._end = None

    @property
    def expected_num_frames(self) -> int | None:
        """How many grid frames the header promises, None where it does not."""
        return None if self.duration is None else grid_length(self.duration)

    def clock(self) -> Clock:
        """Return a clock for the times of this stream's frames."""
        latest = None if self.duration is None else self.duration + _GAP_SLACK_SECONDS
        # The length of MP4 follows from the very numbers that timestamps do; fragments state that of a part.
        if self._clock_may_restart or self.format_name == MP4:
            latest = None
        return Clock(self._time_base, self.interval, sequential=self.is_sequential, latest=latest)

    def ends_early(self, num_packets: int, end: Fraction | None, seconds: Fraction | None = None) -> bool:
        """Return whether the packets read, the last of which ends at ``end`` seconds, stop before the header's end.

        Where the header counts frames, one missing at the end is one too many. A header that states only a time may
        round it or mean its sound. The frames last ``seconds``: not until ``end`` where the clock started again.
        """
        if self.num_frames and num_packets >= self.num_frames:
            return False
        if self._is_cut_short or self._end is None or self.duration is None:
            return self._is_cut_short
        slack = self.interval / 2
        if not self.num_frames:
            slack = min(max(3 * slack, _SLACK_SECONDS), self.duration * _SLACK_SHARE)
        is_reached = end is not None and end >= self._end - slack
        return not is_reached and (seconds is None or seconds < self.duration - slack)

    def first_seconds(self, first: Fraction | None) -> Fraction:
        """Return when the first frame, at ``first`` seconds by the file's own clock, is shown after the file's start.

        Less than a frame of the grid, which is rounding or the silence before compressed sound, is 0. So is what cannot
        be: as long as the file, or a step after which a clock has restarted or belongs to another programme.
        """
        late = Fraction(0) if first is None or self._start is None else first - self._start
        limits = [self._file_duration, _LARGEST_DELAY_SECONDS if self._clock_may_restart else None]
        is_plausible = late >= Fraction(1, GRID_FPS) and all(limit is None or late < limit for limit in limits)
        return late if is_plausible else Fraction(0)

    def _extent(
        self, container: av.container.InputContainer, stream: av.VideoStream
    ) -> tuple[Fraction | None, Fraction | None]:
        """Return duration and end in seconds, of the stream or else of the container; None where neither states them.

        What is stated as duration may be the end, which contains the time before the first frame.
        """
        start, is_end = (stream.start_time or 0) * self._time_base, self.format_name in _ENDS_STATED
        if stream.duration is not None and stream.duration > 0:
            stated = stream.duration * self._time_base
            entries = stream.index_entries
            if self.format_name == MP4 and len(entries):  # the end, where an empty edit delays the video
                span = (entries[-1].timestamp - entries[0].timestamp) * self._time_base + self.interval
                is_end = abs(stated - start - span) < abs(stated - span)
        elif (self._file_duration or 0) > 0:
            stated = min(filter(None, (self._file_duration, _tagged_duration(stream))))
            start = start if is_end else self._start or Fraction(0)
        else:
            return None, None
        return (stated - start, stated) if is_end and stated > start else (stated, start + stated)


def _video_streams(container: av.container.InputContainer) -> list[av.VideoStream]:
    """Return the container's video streams without cover art and thumbnails."""
    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    return [stream for stream in container.streams.video if not stream.disposition & pictures]


def best_stream(path: str, container: av.container.InputContainer) -> av.VideoStream:
    """Return the stream that FFmpeg calls best, among those that can be decoded; raise VideoError if there is none."""
    streams = _video_streams(container)
    # PyAV gives no codec context where FFmpeg has no decoder; to touch such a stream's codec crashes.
    decodable = [stream for stream in streams if stream.codec_context is not None]
    if not decodable and is_cut_short(path, container.format.name):
        raise VideoError("truncated_or_incomplete", "the file is cut short before it says what video it holds")
    if not streams:
        raise VideoError("no_video_stream", "there is no video in this file, only sound, data or cover art")
    brand = container.metadata.get("major_brand")
    if brand in _STILL_BRANDS or all(stream.disposition & Disposition.still_image for stream in streams):
        raise VideoError("not_a_video", "this is an image, not a video")
    if not decodable:
        raise VideoError("unsupported_codec", "its video is in a codec that this build of FFmpeg cannot decode")
    best = container.streams.best("video")
    return next((stream for stream in decodable if stream is best), decodable[0])


def _tagged_duration(stream: av.VideoStream) -> Fraction | None:
    """Return what a tag of Matroska states of this stream alone (hours:minutes:seconds), None where there is none."""
    try:
        hours, minutes, seconds = map(Fraction, stream.metadata.get("DURATION", "").split(":"))
    except (ValueError, ZeroDivisionError):
        return None
    return max(hours * 3600 + minutes * 60 + seconds, Fraction(0))
