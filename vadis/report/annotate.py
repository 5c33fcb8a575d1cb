"""A video with its labels drawn in: every frame of the source at its own time, upright, and its sound."""

from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

from vadis.report.overlay import Overlay
from vadis.report.video_file import video_file
from vadis.results import VideoResult
from vadis.video.facts import VideoFacts


def annotate(
    video: str,
    result: VideoResult,
    path: Path,
    *,
    with_sound: bool = True,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> VideoFacts:
    """Write ``video`` with what ``result`` says drawn in to ``path``; returns what is known of it now that all is read.

    Args:
        video: the file that the result is of.
        result: with segments.
        path: with an extension of ``vadis.report.video_file.CONTAINERS``.
        with_sound: copy the sound, bit by bit.
        progress: called after each frame with how many are done, and how many the header declares.

    Raises:
        VideoError: where the video cannot be read.
        UsageError: for sound that this kind of file cannot hold.
        VadisError: where OpenCV or an encoder is missing, or the disk does not take it.
    """
    from vadis.video.full_size import open_sound, open_source
    from vadis.video.isolation import Decoders

    done = 0
    with ExitStack() as stack:
        decoders = stack.enter_context(Decoders())
        source = stack.enter_context(open_source(decoders, video))
        sound = stack.enter_context(open_sound(decoders, video)) if with_sound else None
        overlay, facts = Overlay(result, source.size), source.facts
        first, copied = source.first_seconds, sound if sound and sound.streams else None
        with video_file(
            path,
            source.size,
            facts.source_fps,
            pixel_aspect=source.pixel_aspect,
            colours=source.colours,
            sound=copied,
            zero_seconds=(source.start_seconds or Fraction(0)) - first,
        ) as write:
            for frame in source.source_frames():
                seconds = first + frame.seconds
                zero = None if frame.zero_seconds is None else frame.zero_seconds - first
                write(overlay.draw(frame.pixels, seconds), seconds, frame.duration_seconds, zero)
                done += 1
                progress(done, facts.frames_declared)
    return source.facts
