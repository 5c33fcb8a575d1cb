"""Separate windows through the networks, several in one pass, of one video or of several.

    windows (vadis.sliding) → ``Batches`` → the outputs of each, in the tray of its video

A GPU takes several windows in hardly more time than one, and short videos have few: so there the last windows of a
video wait for the first of the next. On the CPU that gains nothing (tests/benchmarks/batching.py), and the last bits of
an output may follow from how many share its pass; so there each video goes by itself, and its record does not depend on
its neighbours.
"""

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vadis.errors import UsageError
from vadis.memory import Portion, in_portions
from vadis.models import MODELS, Model, inference_form
from vadis.streams import network_input, shrinking
from vadis.video.windows import Clip

AT_ONCE = {"cpu": 1, "cuda": 8}  # windows in a pass, where nobody says how many

Rows = dict[str, NDArray[np.float32]]  # by network, (channels,)


@dataclass
class Tray:
    """What the networks say of one video's windows, in order: ``answered`` holds (first frame, outputs).

    ``streams`` are those of this video; ``layer`` and ``flip`` are what is wanted of ``model``, alike for all videos.
    """

    model: Model  # as a whole: it may leave its device while windows wait, and a part taken before would not know
    streams: tuple[str, ...]
    layer: str
    flip: bool
    notify: Callable[[str], None]
    waiting: int = 0  # windows without an answer
    answered: deque[tuple[int, Rows]] = field(default_factory=deque)


@dataclass(frozen=True)
class _Window:
    tray: Tray
    start: int
    clip: Clip


class Batches:
    """Gathers windows until as many are there as go through in one pass.

    Args:
        size: of a pass; 0 takes what suits the device. Where memory runs out, fewer go through.
        device: of the networks.
        across: windows of several videos share a pass; None: on a GPU.

    Raises:
        UsageError: for a size that cannot be.
    """

    def __init__(self, size: int, device: torch.device, *, across: bool | None = None) -> None:
        if size < 0:
            raise UsageError(f"batch_size is 1 at least, got {size}", hint="0 takes what suits this machine")
        self._size = size or AT_ONCE.get(device.type, AT_ONCE["cpu"])
        self._gathered: list[_Window] = []
        self.across = device.type == "cuda" if across is None else across

    def put(self, tray: Tray, start: int, clip: Clip) -> None:
        """Add a window (T, …) that begins with frame ``start``; all go through when there are enough.

        Raises:
            NoMemoryError: memory does not suffice for one at a time. None is lost: ``run`` tries again.
        """
        if self._gathered and self._gathered[0].clip.keys() != clip.keys():
            self.run()  # a video of one frame has no flow
        self._gathered.append(_Window(tray, start, clip))
        tray.waiting += 1
        if len(self._gathered) >= self._size:
            self.run()

    def run(self) -> None:
        """All that are gathered through the networks; raises NoMemoryError as ``put`` does."""
        if not self._gathered:
            return
        clips, tray = [window.clip for window in self._gathered], self._gathered[0].tray
        model = tray.model.only(tray.streams)
        portion = model.portions.setdefault("windows", Portion(sys.maxsize, "windows"))

        def seen(start: int, stop: int) -> list[Rows]:
            return of_windows(clips[start:stop], model, tray.layer, tray.flip)

        parts = list(in_portions(seen, len(clips), portion, model.device, tray.notify))
        for window, rows in zip(self._gathered, (rows for part in parts for rows in part), strict=True):
            window.tray.answered.append((window.start, rows))
            window.tray.waiting -= 1
        self._gathered.clear()

    def withdraw(self, tray: Tray) -> None:
        """Forget what of a video is still waiting."""
        self._gathered = [window for window in self._gathered if window.tray is not tray]


def of_windows(windows: list[Clip], model: Model, layer: str, flip: bool) -> list[Rows]:
    """What the networks say of windows of one length, in one pass."""
    architecture, forms = MODELS[model.card.architecture], inference_form(model)
    shrink = shrinking(model.card.short_side)
    inputs = {
        stream: torch.cat(
            [
                network_input(clip[stream][architecture.sampling[stream]], stream, flip=flip, shrink=shrink)
                for clip in windows
            ]
        )
        for stream in windows[0]
    }
    found: list[Rows] = [{} for _ in windows]
    for name, streams in architecture.networks(model.card.streams).items():
        y = forms[name](*(inputs[stream] for stream in streams), layer=layer)  # (N or 2 N, channels, steps)
        for rows, x in zip(found, y.chunk(len(windows)), strict=True):
            rows[name] = steps_of(x).mean(axis=0)
    return found


def steps_of(x: Tensor) -> NDArray[np.float32]:
    """(B, channels, steps), averaged over a clip and its mirror image → (steps, channels)."""
    steps: NDArray[np.float32] = x.mean(dim=0).T.cpu().numpy()
    return steps
