"""A name or a path → a model, ready to run."""

import os
from contextlib import suppress
from pathlib import Path

import torch

from vadis.device import resolve_device
from vadis.errors import UsageError, WeightsError, what_next
from vadis.files import write_atomic, write_file
from vadis.models import Model, ModelCard
from vadis.weights import cache
from vadis.weights.cache import Notify, write_error
from vadis.weights.catalog import DEFAULT_MODEL, SHIPPED, TAKE_STAND_IN, WEIGHTS, unknown_model
from vadis.weights.convert import convert
from vadis.weights.download import Progress, is_offline, obtain
from vadis.weights.labels import published_labels
from vadis.weights.model_file import load_model_file, read_card


def load_model(
    name_or_path: str | Path = DEFAULT_MODEL,
    device: str | torch.device = "auto",
    *,
    offline: bool | None = None,
    progress: Progress | None = None,
    notify: Notify | None = None,
) -> Model:
    """A published model by its name, or the model in a vadis model file, in evaluation mode.

    A model that comes with vadis is loaded from the package. A published model is downloaded and converted the first
    time, and verified every time. The checkpoints it was made from stay in the cache's ``downloads`` folder, for the
    day the model file is damaged; they can be deleted.

    Args:
        name_or_path: a key of ``WEIGHTS`` or ``SHIPPED`` in ``vadis.weights.catalog``, or the path of a model file.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, or a torch device.
        offline: open no connection; by default what ``VADIS_OFFLINE`` says.
        progress: called while downloading, with what it is, the bytes that are there and the bytes in all.
        notify: called with sentences for the user (waiting for another process, fetching again, …).

    Raises:
        UsageError: if there is neither a model nor a file of that name.
        WeightsError: if the parameters cannot be had, or are damaged, or are not those of the model.
        DeviceError: if the device cannot be used.
    """
    target = resolve_device(device) if isinstance(device, str) else device
    model = _load(name_or_path, target, offline, progress, notify)
    model.may_leave_device = device == "auto"
    return model


def card_here(name_or_path: str) -> ModelCard | None:
    """Return the card of the model that ``load_model`` would load; None where its file is not here, or damaged."""
    if name_or_path in WEIGHTS:
        path = cache.model_path(name_or_path)
    else:
        path = SHIPPED[name_or_path].path if name_or_path in SHIPPED else Path(name_or_path)
    with suppress(WeightsError):
        return read_card(path)
    return None


def given_or_loaded(model: Model | str | os.PathLike[str]) -> Model:
    """Return ``model``, loaded first where it is a name or a path, as ``load_model`` takes them.

    Raises:
        UsageError: if it is neither, or as ``load_model`` does.
    """
    if isinstance(model, Model):
        return model
    if isinstance(model, str | os.PathLike):
        return load_model(model if isinstance(model, str) else Path(model))
    what = type(model).__name__
    raise UsageError(
        f"a model is wanted, not an object of type {what}", hint="vadis.load_model(name_or_path) gives one"
    )


def _load(
    name_or_path: str | os.PathLike[str],
    target: torch.device,
    offline: bool | None,
    progress: Progress | None,
    notify: Notify | None,
) -> Model:
    if isinstance(name_or_path, str) and name_or_path in WEIGHTS:
        return _load_published(name_or_path, target, offline, progress, notify)
    if isinstance(name_or_path, str) and name_or_path in SHIPPED:
        return load_model_file(SHIPPED[name_or_path].path, target)
    path = Path(name_or_path)
    if not path.exists():
        unknown = unknown_model(str(name_or_path))
        message = f"{unknown.message}, nor a file of that name"
        raise UsageError(message, hint=f"{unknown.hint}; or give the path of a vadis model file")
    return load_model_file(path, target)


def fetch_model(
    name: str, *, offline: bool | None = None, progress: Progress | None = None, notify: Notify | None = None
) -> Path:
    """The path of a published model's file in the cache, downloaded and converted if it is not there yet.

    Raises:
        UsageError: if there is no model of that name.
        WeightsError: if it cannot be had.
    """
    if name not in WEIGHTS:
        raise unknown_model(name)
    path = cache.model_path(name)
    if not cache.is_file(path):
        with cache.turn(name, notify or _silent):
            if not cache.is_file(path):
                _make(name, path, is_offline() if offline is None else offline, progress or _silent, notify or _silent)
    return path


def verify_model(name: str) -> str:
    """Read the file of a published model in the cache, or of one that comes with vadis, and return its SHA-256.

    Raises:
        WeightsError: if it is not there, damaged, or another model.
    """
    if name in SHIPPED:
        return load_model_file(SHIPPED[name].path).sha256 or ""
    path = cache.model_path(name)
    if not cache.is_file(path):
        raise WeightsError(f"{name} is not in the cache ({path})", hint=f"`vadis weights download {name}` fetches it")
    return _load_verified(name, path, torch.device("cpu")).sha256 or ""


def _load_published(
    name: str, device: torch.device, offline: bool | None, progress: Progress | None, notify: Notify | None
) -> Model:
    path = fetch_model(name, offline=offline, progress=progress, notify=notify)
    before = _identity(path)
    try:
        return _load_verified(name, path, device)
    except WeightsError as damage:
        if not os.access(path, os.R_OK):
            raise
        if is_offline() if offline is None else offline:
            hint = f"`vadis weights download {name}` makes it again, on line"
            raise WeightsError(damage.message, hint=hint) from damage
        with cache.turn(name, notify or _silent):
            if _identity(path) == before:  # no other process has replaced it
                _set_aside(path, damage, notify or _silent)
    path = fetch_model(name, offline=offline, progress=progress, notify=notify)
    return _load_verified(name, path, device)


def _make(name: str, path: Path, offline: bool, progress: Progress, notify: Notify) -> None:
    """Download, convert, verify; only then the model file gets its name, and its SHA-256 is put beside it."""
    published = WEIGHTS[name]
    obtain(
        name,
        published.files,
        offline=offline,
        progress=progress,
        notify=notify,
        otherwise=f"{TAKE_STAND_IN}; or copy {path.name} from another machine's cache to {path}",
    )
    provenance = published.provenance(published.files)
    sources = [cache.download_path(files[0]) for files in published.checkpoints.values()]
    try:
        with write_atomic(path) as file:
            convert(sources, Path(file.name), name=name, provenance=provenance)
            sha256 = load_model_file(Path(file.name)).sha256
        write_file(cache.stamp_path(path), f"{sha256}  {path.name}\n")
    except OSError as error:
        raise write_error(path, published.num_bytes, error) from error


def _load_verified(name: str, path: Path, device: torch.device) -> Model:
    """The model in the cache; it must be the one that its stamp (if there is one) and its name say."""
    model = load_model_file(path, device)
    try:
        stamp = cache.stamp_path(path).read_text(encoding="ascii", errors="replace").split()
    except FileNotFoundError:  # put there by hand
        stamp = []
    except OSError as error:
        message = f"{cache.stamp_path(path)} cannot be read: {error.strerror}"
        raise WeightsError(message, what_next(error.errno)) from error
    anew = f"`vadis weights remove {name}`, then `vadis weights download {name}`"
    if stamp and stamp[0] != model.sha256:
        raise WeightsError(f"{path} is damaged: its SHA-256 is no longer that of the file that was made", anew)
    published = WEIGHTS[name]
    if model.card.labels != published_labels(published.labels) or model.card.streams != tuple(published.checkpoints):
        raise WeightsError(f"{path} is not {name} but another model ({model.card.name})", anew)
    return model


def _set_aside(path: Path, damage: WeightsError, notify: Notify) -> None:
    try:
        aside = cache.set_aside(path)
        cache.stamp_path(path).unlink(missing_ok=True)
    except OSError as error:
        raise write_error(path, None, error) from error
    notify(f"{damage.message}; it was renamed to {aside.name}, and the model is fetched again")


def _identity(path: Path) -> tuple[int, int, int] | None:
    """What tells this file from one that replaced it."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _silent(*_: object) -> None:
    """Progress and notices that nobody asked for."""
