"""The flow of a video's first frames, computed while PyTorch is imported and the networks are loaded.

That is a second and a half in which Python keeps one processor busy and the others would be idle: a quarter of the time
until a short video has its labels. Nothing here needs PyTorch. The video is opened and read once more by who labels it,
and gets this flow only where its frames are the very ones; a wrong guess costs a processor a second or two.
"""

from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vadis.errors import VadisError
from vadis.flow import to_gray, tvl1
from vadis.flow.compiling import cache_directory
from vadis.video.ahead import Ahead
from vadis.video.isolation import Decoders
from vadis.video.windows import CHUNK_FRAMES, chunks


class FirstFlow:
    """The flow of the first chunk of ``path``, from now on; a context manager, whose end gives it up.

    Where TV-L1 has yet to be compiled, nothing is computed: that takes ten seconds, and cannot be stopped.

    Args:
        path: a local file, listed as an input.
        decoders: what reads it.
    """

    def __init__(self, path: str, decoders: Decoders) -> None:
        # A chunk has CHUNK_FRAMES flows: the last one leads to the first frame of the next chunk.
        self._opened = decoders.open(path, listed=True, max_frames=CHUNK_FRAMES + 1)
        self._check: Callable[[], None] = lambda: None
        self._ahead = Ahead(self._made, 2, self._opened.cancel)

    def __enter__(self) -> "FirstFlow":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ahead.close()

    def of(self, gray: NDArray[np.uint8], check: Callable[[], None]) -> NDArray[np.float32] | None:
        """The flow (N - 1, 2, H, W) of these grey frames (N, H, W), waited for; None, and given up, if of others.

        To be asked once. ``check`` is that of ``tvl1`` from now on: what it raises is raised here.
        """
        self._check = check
        made = self._ahead.walk()
        try:
            own = next(made, None)
            if own is not None and np.array_equal(own, gray):
                return next(made, None)
            self._ahead.close()
        except (VadisError, MemoryError):  # who labels the video meets the same, and tells it
            pass
        return None

    def _made(self, ahead: Ahead[NDArray[Any]]) -> Generator[NDArray[Any], None, None]:
        """The frames in grey, then their flow."""
        if not cache_directory().is_dir():
            return
        with self._opened as video:
            frames = next(chunks((frame.pixels for frame in video), CHUNK_FRAMES + 1), None)  # (N, H, W, 3)
        if frames is not None and len(frames) > 1:
            gray = to_gray(frames)
            yield gray
            yield tvl1(gray, check=lambda: self._go_on(ahead))

    def _go_on(self, ahead: Ahead[NDArray[Any]]) -> None:
        ahead.check()
        self._check()
