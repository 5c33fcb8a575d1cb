"""What commands have in common before they start: the inputs found, the model loaded."""

import gc
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from vadis.cli.terminal import debug, download_progress, info, show, warn
from vadis.errors import UnreachableError

if TYPE_CHECKING:
    from vadis.models.card import Model
    from vadis.video.remote import FetchingDecoders
    from vadis.video.sources import Found

SCRATCH_GB_EACH = 4  # of the videos that are open at once: an evening's film


def find_inputs(inputs: list[str], from_file: str | None, null: bool, *, allow_remote: bool = False) -> "Found":
    """Return every input once, and say what was left out."""
    from vadis.video.sources import find_videos

    if allow_remote:
        from vadis.video.remote import expand_url
    found = find_videos(inputs, from_file=from_file, nul=null, remote=expand_url if allow_remote else None)
    if found.num_ignored:
        debug(f"{found.num_ignored} other entries of the folders are left out: hidden, or not a video by name")
    if found.num_duplicates:
        info(f"{found.num_duplicates} given more than once, taken once")
    return found


def fetching(
    allow_remote: bool, scratch_gb: float | None, jobs: int, device: str
) -> "AbstractContextManager[FetchingDecoders | None]":
    """Return what opens videos that have to be fetched, where that is allowed."""
    if not allow_remote:
        return nullcontext()
    from vadis.device import resolve_device
    from vadis.inference.prefetch import num_jobs
    from vadis.video.remote import FetchingDecoders

    places = num_jobs(jobs, resolve_device(device))
    return FetchingDecoders(int((scratch_gb or SCRATCH_GB_EACH * places) * 1e9), places)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Load PyTorch and more, a million objects that stay, without a search for garbage now (0.2 s) or later (0.5 s)."""
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def check_window(name: str | None, window: int | None, stride: int | None) -> None:
    """Raise UsageError for windows that the model cannot take, before it is loaded, where its file is here."""
    if window is None:
        return
    with _without_garbage_collection():
        from vadis.inference.predict import Sliding
        from vadis.weights.catalog import DEFAULT_MODEL
        from vadis.weights.load import card_here

    if card := card_here(name or DEFAULT_MODEL):
        Sliding(window=window, stride=stride).check(card)


def load_for_command(
    name: str | None,
    streams: str | None,
    device: str,
    offline: bool,
    *,
    option: str = "--model",
    announce: bool = True,
) -> "Model":
    """Return the model of this name or file, or the default, with the streams asked for; downloads show their progress.

    ``option`` is the command's own for a model, which the hint names where this one cannot be reached. ``announce``:
    say what was loaded, and where it computes.
    """
    with _without_garbage_collection():
        from vadis.weights import load
        from vadis.weights.catalog import DEFAULT_MODEL, STAND_IN, TAKE_STAND_IN

    try:
        with download_progress() as progress:
            model = load.load_model(
                name or DEFAULT_MODEL, device, offline=offline or None, progress=progress, notify=info
            )
    except UnreachableError as error:
        ours = f"`{option} {STAND_IN} --streams rgb` works without a network"
        raise UnreachableError(error.message, (error.hint or "").replace(TAKE_STAND_IN, ours)) from error
    if streams is not None:
        model = model.only(("rgb", "flow") if streams == "both" else (streams,))
    if announce:
        info(f"{show(model.card.name)}, {' and '.join(model.card.streams)}, on {model.device}")
    return model


def load_model_or_stand_in(
    name: str | None, streams: str | None, device: str, offline: bool, *, to_keep: bool
) -> "Model":
    """Return the model as ``load_for_command`` does, or one that comes with vadis where no host gives the default.

    Not where results are to be kept: what is in one file is of one model, today and tomorrow.
    """
    from vadis.weights.catalog import DEFAULT_MODEL, SHIPPED, STAND_IN, WEIGHTS

    try:
        return load_for_command(name, streams, device, offline)
    except UnreachableError as unreachable:
        if name is not None or to_keep or streams not in (None, "rgb"):
            raise
        ours, better = SHIPPED[STAND_IN].accuracy["rgb"].top1, WEIGHTS[DEFAULT_MODEL].accuracy["both"].top1
        warn(
            f"{unreachable.message}\nso {STAND_IN}, which comes with vadis, labels instead: by RGB alone, right for "
            f"{ours} % of Kinetics' test videos, not {better} %; `vadis weights download` gets {DEFAULT_MODEL}, "
            "or says how else to get it"
        )
        return load_for_command(STAND_IN, streams, device, offline)
