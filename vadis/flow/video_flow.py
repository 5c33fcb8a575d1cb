"""The flow of a whole video, chunk by chunk, in step with its frames."""

import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vadis.device import BatchLimit, run_in_batches
from vadis.errors import VadisError
from vadis.flow import to_gray, tvl1
from vadis.flow.numba_cache import cache_directory
from vadis.results import Part
from vadis.video.isolated.pool import Decoders
from vadis.video.readahead import CHUNK_FRAMES, Prefetcher, chunks

if TYPE_CHECKING:
    import torch

Frames = NDArray[np.uint8]  # (T, H, W, 3)


class FirstFlow:
    """The flow of the first chunk of ``path``, a listed input, or of a part, computed while the networks are loaded.

    That saves a quarter of the time until a short video has its labels. The video is opened and read once more by who
    labels it, and gets this flow only where its frames are the very ones.
    """

    def __init__(self, path: str, decoders: Decoders, part: Part | None = None) -> None:
        # A chunk has CHUNK_FRAMES flows: the last one leads to the first frame of the next chunk.
        self._opened = decoders.open(path, listed=True, max_frames=CHUNK_FRAMES + 1, part=part)
        self._check: Callable[[], None] = lambda: None
        self._ahead = Prefetcher(self._compute, 2, self._opened.cancel)

    def __enter__(self) -> "FirstFlow":
        return self

    def __exit__(self, *exception: object) -> None:
        self._ahead.close()

    def of(self, gray: NDArray[np.uint8], check: Callable[[], None]) -> NDArray[np.float32] | None:
        """Wait for the flow (N - 1, 2, H, W) of these grey frames (N, H, W); None, and given up, if it is of others.

        To be called once. ``check`` is that of ``tvl1`` from now on: what it raises is raised here.
        """
        self._check = check
        results = self._ahead.walk()
        with suppress(VadisError, MemoryError):  # who labels the video meets the same, and reports it
            own = next(results, None)
            if own is not None and np.array_equal(own, gray):
                return next(results, None)
            self._ahead.close()
        return None

    def _compute(self, ahead: Prefetcher[NDArray[Any]]) -> Generator[NDArray[Any], None, None]:
        def check() -> None:
            ahead.check()
            self._check()

        if not cache_directory().is_dir():  # compiling takes ten seconds, and cannot be stopped
            return
        with self._opened as video:
            frames = next(chunks((frame.pixels for frame in video), CHUNK_FRAMES + 1), None)  # (N, H, W, 3)
        if frames is not None and len(frames) > 1:
            gray = to_gray(frames)
            yield gray
            yield tvl1(gray, check=check)


def with_flow(
    chunks: Iterable[Frames],
    device: "torch.device",
    check: Callable[[], None] = lambda: None,
    first: FirstFlow | None = None,
) -> Iterator[tuple[Frames, NDArray[np.float32] | None]]:
    """Yield every chunk of frames (T, H, W, 3) with its flow (T, 2, H, W), pixels per frame, from frame i to i + 1.

    A chunk waits for the first frame of the next one; the last flow of the video repeats the one before it. A video of
    one frame has no flow: None. ``check`` is that of ``tvl1``; what ``first`` has is not computed again.
    """
    limit = BatchLimit(sys.maxsize, "pairs of frames", is_logged=True)  # less where memory is short

    def flow_of(frames: Frames) -> NDArray[np.float32]:
        nonlocal first
        gray, given, first = to_gray(frames), first, None
        ready = given.of(gray, check) if given is not None and device.type == "cpu" else None
        if ready is not None:
            return ready

        def part(start: int, stop: int) -> NDArray[np.float32]:
            return tvl1(gray[start : stop + 1], device=device, check=check)

        return np.concatenate(list(run_in_batches(part, len(gray) - 1, limit, device)))

    frames: Frames | None = None
    flow = None
    for following in chunks:
        if frames is not None:
            flow = flow_of(np.concatenate([frames, following[:1]]))  # (T, 2, H, W)
            yield frames, flow
        frames = following
    if frames is not None and len(frames) > 1:
        flow = flow_of(frames)  # (T - 1, 2, H, W)
        yield frames, np.concatenate([flow, flow[-1:]])  # (T, 2, H, W)
    elif frames is not None:
        yield frames, None if flow is None else flow[-1:]
