"""Videos on their way to the networks: cropped clips with their flow, made ahead of who needs them.

    file → frames (in a child process; 25 fps, short side 256) → chunks → with their flow → cropped clips

One thread per video reads, computes flow and crops, and stops when a clip waits; so the next clip, and the beginnings
of the next videos, are made while the network works. Every stage is a generator over the one before it: no more than
``jobs`` videos are in memory, and each only in part. How large the parts are is a matter of the device: ``PACES``.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from vadis.device import NoMemoryError, cpu_count
from vadis.errors import UsageError, VideoError
from vadis.flow.video_flow import FirstFlow, with_flow
from vadis.inference.predict import Batches
from vadis.models import BOTH, Model
from vadis.preprocessing import centre_crop, shrinking
from vadis.video.isolated.pool import DecoderKilled, Decoders
from vadis.video.metadata import OpenVideo
from vadis.video.readahead import Prefetcher, prefetch
from vadis.video.windows import CHUNK_FRAMES, Clip, chunks, num_frames

WAITS_SECONDS = (0.1, 0.5, 2.0)  # before a video is tried again whose disk failed: network disks come back


class Pace(NamedTuple):
    """How much is made ahead, so that the device never waits and memory stays bounded."""

    chunk_frames: int
    clips_ahead: int  # that wait for the network, beside the one that is being made
    most_jobs: int  # by default


PACES = {
    "cpu": Pace(CHUNK_FRAMES, 1, 4),
    "cuda": Pace(128, 2, 16),  # a card is quicker than one processor decodes: some 200 MB for each of 16 videos
}

Item = TypeVar("Item")
Result = TypeVar("Result")
Way = Generator[None, None, Result]  # a video's, through the networks; it stops while its windows wait for other videos
Report = Callable[[str, int], None]  # the stage that begins, the frames that are newly through the network
Frames = NDArray[np.uint8]  # (T, H, W, 3)


class Prepared(Protocol):
    """A video whose clips are made ahead, in a thread of this process (``Preparation``) or elsewhere."""

    @property
    def path(self) -> str:
        """As it was given."""
        ...

    @property
    def video(self) -> OpenVideo:
        """What is known of it; nothing before the first clip."""
        ...

    @property
    def expected_num_frames(self) -> int | None:
        """How many frames its clips will have together, by the header, None where that does not say; see ``video``."""
        ...

    def clips(self, report: Report) -> tuple[tuple[str, ...], Iterator[Clip]]:
        """Its streams and its clips; see ``Preparation.clips``."""
        ...

    def close(self) -> None:
        """End what is still going on."""
        ...


class Preparation:
    """One video, from the moment at which it is begun until ``close``.

    Args:
        path: a local file.
        model: what its clips are for.
        decoders: what reads it.
        listed: as for ``open_video``.
        start_frame: on the 25 fps grid.
        max_frames: how many at most; the rest is not read.
        first: what may have its first flow by now.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: Model,
        decoders: Decoders,
        *,
        listed: bool = False,
        start_frame: int = 0,
        max_frames: int | None = None,
        first: FirstFlow | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self._model, self._first, self._part = model, first, (start_frame, max_frames)
        self._opened = decoders.open(path, listed=listed, start_frame=start_frame, max_frames=max_frames)
        self.video: OpenVideo = self._opened  # which says nothing before the first clip
        self._ahead = Prefetcher(self._made, pace(model.device).clips_ahead, self._opened.cancel)

    @property
    def expected_num_frames(self) -> int | None:
        """How many frames of the part that is wanted the header promises; None where it promises none."""
        (start, most), promised = self._part, self.video.expected_num_frames
        if promised is None or promised <= start:
            return None
        return promised - start if most is None else min(promised - start, most)

    def clips(self, report: Report) -> tuple[tuple[str, ...], Iterator[Clip]]:
        """The streams of this video, and chunk by chunk its frames (T, 224, 224, 3) and flow (T, 2, 224, 224), cropped.

        One frame has no flow, so a two-stream model sees it through RGB alone, if its streams have networks of their
        own.

        Raises:
            VideoError: the file cannot be read; ``too_short`` where that leaves nothing.
        """
        made = self._ahead.walk(lambda stage: report(stage, 0))
        first = next(made, None)
        streams = self._model.card.streams
        usable = tuple(stream for stream in streams if first and stream in first)
        if first is None or not usable or (usable != streams and BOTH in self._model.networks):
            raise VideoError("too_short", "the video has one frame, and optical flow needs two")
        return usable, told(first, made, report)

    def close(self) -> None:
        """End what is still going on."""
        self._ahead.close()

    def _made(self, ahead: Prefetcher[Clip]) -> Generator[Clip, None, None]:
        with self._opened as video:
            yield from _cropped((frame.pixels for frame in video), self._model, ahead, self._first)


def each_prepared(
    items: Iterable[Item],
    begin: Callable[[Item], Prepared],
    work: Callable[[Item, Prepared], Way[Result]],
    model: Model,
    *,
    jobs: int | None = None,
    batches: Batches | None = None,
    notify: Callable[[str], None],
) -> Iterator[tuple[Item, Result | VideoError]]:
    """Every item with what ``work`` made of its preparation, in order, or why it could not.

    Args:
        items: taken one by one, at most ``jobs`` ahead of what is given, and of those whose windows wait for others.
        begin: makes the preparation of an item.
        work: the networks' part. When it yields, it needs its preparation no more but for what is known of the video.
        model: leaves its device for the CPU where memory does not suffice and nobody asked for that device.
        jobs: see ``num_jobs``.
        batches: where windows wait; None: none do.
        notify: hears of it.
    """
    width, waiting = Width(num_jobs(jobs, model.device), notify), _Waiting[Item, Result]()
    for item, preparation in prefetch(begin, items, lambda: width.num):
        way = work(item, preparation)
        try:
            outcome = _outcome(way)
        except NoMemoryError as shortage:
            _leave_device(model, shortage, notify)
            preparation.close()
            way, outcome = _anew(begin, work, item)
        for seconds in WAITS_SECONDS:
            if not (isinstance(outcome, VideoError) and outcome.code == "io_error"):
                break
            preparation.close()
            time.sleep(seconds)
            way, outcome = _anew(begin, work, item)
        if isinstance(outcome, DecoderKilled):
            width.shrink()
        waiting.append((item, way, outcome))
        yield from waiting.done()
    if batches is not None and waiting:
        try:
            batches.run()
        except NoMemoryError as shortage:
            _leave_device(model, shortage, notify)
            batches.run()
    yield from waiting.done()


def _leave_device(model: Model, shortage: NoMemoryError, notify: Callable[[str], None]) -> None:
    """On the CPU from now on; raises ``shortage`` where that is where it is, or not wanted."""
    if not model.may_leave_device or model.device.type == "cpu":
        raise shortage
    notify(f"{shortage.message}: on the CPU from now on")
    model.to_cpu()


class _Waiting(deque[tuple[Item, Way[Result], Result | VideoError | None]]):
    """Videos in order, each with its way and its outcome, None while that waits for the windows of others."""

    def done(self) -> Iterator[tuple[Item, Result | VideoError]]:
        """Those from the first on that have an outcome by now."""
        while self:
            item, way, outcome = self[0]
            outcome = _outcome(way) if outcome is None else outcome
            if outcome is None:
                return
            self.popleft()
            yield item, outcome


class Width:
    """How many videos are read at once: half as many, whenever the system has killed a process that decoded one.

    Attributes:
        num: of videos, that at the network among them.
    """

    def __init__(self, num: int, notify: Callable[[str], None]) -> None:
        self.num, self._notify, self._was_told = num, notify, False

    def shrink(self) -> None:
        """To the half, rounded up, and no further than to one; told the first time."""
        if self.num > 1 and not self._was_told:
            self._was_told = True
            self._notify("a process that decodes was killed, as happens when memory is short: fewer videos at once now")
        self.num = (self.num + 1) // 2


def pace(device: torch.device) -> Pace:
    """The row of ``PACES`` for a device."""
    return PACES.get(device.type, PACES["cpu"])


def num_jobs(jobs: int | None, device: torch.device) -> int:
    """How many videos are read at once, that at the network among them.

    None and 0 mean one per processor, up to 4 where the processors do everything and to 16 for a GPU.

    Raises:
        UsageError: for less.
    """
    if not jobs:
        return min(pace(device).most_jobs, cpu_count())
    if jobs < 0:
        raise UsageError(f"jobs is 1 at least, got {jobs}", hint="0 takes what suits this machine")
    return jobs


def given_or_new(decoders: Decoders | None) -> AbstractContextManager[Decoders]:
    """Decoders that are somebody else's, or new ones that end with the context."""
    return Decoders() if decoders is None else nullcontext(decoders)


def _anew(
    begin: Callable[[Item], Prepared], work: Callable[[Item, Prepared], Way[Result]], item: Item
) -> tuple[Way[Result], Result | VideoError | None]:
    """The item once more, from its beginning."""
    preparation = begin(item)
    way = work(item, preparation)
    try:
        return way, _outcome(way)
    finally:
        preparation.close()


def _outcome(way: Way[Result]) -> Result | VideoError | None:
    """What a way leads to, as far as it can be gone; None where it waits for other videos."""
    try:
        next(way)
    except StopIteration as end:
        result: Result = end.value
        return result
    except VideoError as error:
        return error
    return None


def told(first: Clip, following: Iterator[Clip], report: Report) -> Iterator[Clip]:
    """The clips as they are, with the network's part told before and after each."""
    clip: Clip | None = first
    while clip is not None:
        report("network", 0)
        count = num_frames(clip)
        yield clip
        report("network", count)
        clip = next(following, None)


def _cropped(
    frames: Iterator[Frames], model: Model, ahead: Prefetcher[Clip], first: FirstFlow | None
) -> Iterator[Clip]:
    card, wanted = model.card, model.card.streams
    size = card.crop * shrinking(card.short_side)
    whole = chunks(frames, pace(model.device).chunk_frames)
    taken = _centres(whole, size) if card.crop_first else whole
    decoded = _noted(taken, ahead, after="flow" if "flow" in wanted else None)
    alone = ((chunk, None) for chunk in decoded)
    for chunk, flow in with_flow(decoded, model.device, ahead.check, first) if "flow" in wanted else alone:
        clip: Clip = {"rgb": centre_crop(chunk, "rgb", size)} if "rgb" in wanted else {}
        if flow is not None:
            clip["flow"] = centre_crop(flow, "flow", size)
        yield clip


def _centres(decoded: Iterator[Frames], size: int) -> Iterator[Frames]:
    """(T, H, W, 3) → (T, size, size, 3)."""
    for frames in decoded:
        yield centre_crop(frames, "rgb", size).astype(np.uint8, copy=False)


def _noted(decoded: Iterator[Frames], ahead: Prefetcher[Clip], after: str | None) -> Iterator[Frames]:
    """``decoded`` as it is, with the stage noted before and after every chunk."""
    ahead.note("decoding")
    for frames in decoded:
        if after is not None:
            ahead.note(after)
        yield frames
        ahead.note("decoding")
