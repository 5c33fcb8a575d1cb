"""A name or a path → a model, ready to run; and a model → the name under which it was published."""

import hashlib
import os
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vadis.device import resolve_device
from vadis.errors import UsageError, WeightsError
from vadis.files import write_atomic
from vadis.models import Model, ModelCard
from vadis.weights import cache
from vadis.weights.cache import Notify, cache_errors
from vadis.weights.catalog import DEFAULT_MODEL, SHIPPED, TAKE_STAND_IN, WEIGHTS, TensorSums, unknown_model
from vadis.weights.convert import convert
from vadis.weights.download import DownloadProgress, ensure_downloaded, is_offline
from vadis.weights.labels import published_labels
from vadis.weights.model_file import load_model_file, read_header
from vadis.weights.tf_checkpoint import crc32c


def load_model(
    name_or_path: str | Path = DEFAULT_MODEL,
    device: str | torch.device = "auto",
    *,
    offline: bool | None = None,
    progress: DownloadProgress | None = None,
    notify: Notify | None = None,
) -> Model:
    """Return a published model by its name, or the model in a vadis model file, in evaluation mode.

    A published model is downloaded and converted the first time, and verified every time. The checkpoints it was made
    from stay in the cache's ``downloads`` folder, for the day the model file is damaged; they can be deleted.

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
    if isinstance(name_or_path, str) and name_or_path in WEIGHTS:
        model = _load_published(name_or_path, target, offline, progress, notify)
    elif isinstance(name_or_path, str) and name_or_path in SHIPPED:
        model = load_model_file(SHIPPED[name_or_path].path, target)
    else:
        path = Path(name_or_path)
        if not path.exists():
            unknown = unknown_model(str(name_or_path))
            hint = f"{unknown.hint}; or give the path of a vadis model file"
            raise UsageError(f"{unknown.message}, nor a file of that name", hint)
        model = load_model_file(path, target)
    model.may_leave_device = device == "auto"
    return model


def card_here(name_or_path: str) -> ModelCard | None:
    """Return the card of the model that ``load_model`` would load; None where its file is not here, or damaged."""
    if name_or_path in WEIGHTS:
        path = cache.model_path(name_or_path)
    else:
        path = SHIPPED[name_or_path].path if name_or_path in SHIPPED else Path(name_or_path)
    with suppress(WeightsError):
        return read_header(path)[0]
    return None


def given_or_loaded(model: Model | str | os.PathLike[str]) -> Model:
    """Return ``model``, loaded first where it is a name or a path; raise UsageError for anything else."""
    if isinstance(model, Model):
        return model
    if isinstance(model, str | os.PathLike):
        return load_model(model if isinstance(model, str) else Path(model))
    message = f"a model is wanted, not an object of type {type(model).__name__}"
    raise UsageError(message, hint="vadis.load_model(name_or_path) gives one")


def fetch_model(
    name: str, *, offline: bool | None = None, progress: DownloadProgress | None = None, notify: Notify | None = None
) -> Path:
    """Return the path of a published model's file in the cache, downloaded and converted if it is not there yet."""
    if name not in WEIGHTS:
        raise unknown_model(name)
    path = cache.model_path(name)
    if not cache.is_file(path):
        with cache.download_lock(name, notify or _silent):
            if not cache.is_file(path):
                _make(name, path, is_offline() if offline is None else offline, progress or _silent, notify or _silent)
    return path


def verify_model(name: str) -> str:
    """Return the SHA-256 of a published model in the cache, or of one that comes with vadis.

    Raise WeightsError if it is not there, damaged, or another model.
    """
    if name in SHIPPED:
        return load_model_file(SHIPPED[name].path).sha256 or ""
    path = cache.model_path(name)
    if not cache.is_file(path):
        raise WeightsError(f"{name} is not in the cache ({path})", hint=f"`vadis weights download {name}` fetches it")
    return _load_verified(name, path, torch.device("cpu")).sha256 or ""


def _load_published(
    name: str, device: torch.device, offline: bool | None, progress: DownloadProgress | None, notify: Notify | None
) -> Model:
    fetch = partial(fetch_model, name, offline=offline, progress=progress, notify=notify)
    path = fetch()
    before = _identity(path)
    try:
        return _load_verified(name, path, device)
    except WeightsError as damage:
        if not os.access(path, os.R_OK):
            raise
        if is_offline() if offline is None else offline:
            hint = f"`vadis weights download {name}` makes it again, on line"
            raise WeightsError(damage.message, hint=hint) from damage
        notify = notify or _silent
        with cache.download_lock(name, notify):
            if _identity(path) == before:  # no other process has replaced it
                with cache_errors(path):
                    aside = cache.set_aside(path)
                notify(f"{damage.message}; it was renamed to {aside.name}, and the model is fetched again")
    return _load_verified(name, fetch(), device)


def _make(name: str, path: Path, offline: bool, progress: DownloadProgress, notify: Notify) -> None:
    """Download, convert, verify; only then the model file gets its name."""
    published = WEIGHTS[name]
    hint = f"{TAKE_STAND_IN}; or copy {path.name} from another machine's cache to {path}"
    ensure_downloaded(name, published.files, offline=offline, progress=progress, notify=notify, fallback_hint=hint)
    sources = [cache.download_path(files[0]) for files in published.checkpoints.values()]
    with cache_errors(path, published.num_bytes), write_atomic(path) as file:
        convert(sources, Path(file.name), name=name, provenance=published.provenance(published.files))
        load_model_file(Path(file.name))


def _load_verified(name: str, path: Path, device: torch.device) -> Model:
    """Return the model in the cache; it must be the one that its name says."""
    model, published = load_model_file(path, device), WEIGHTS[name]
    if model.card.labels != published_labels(published.labels) or model.card.streams != tuple(published.checkpoints):
        hint = f"`vadis weights remove {name}`, then `vadis weights download {name}`"
        raise WeightsError(f"{path} is not {name} but another model ({model.card.name})", hint)
    return model


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Return what tells this file from one that replaced it."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _silent(*_: object) -> None:
    """Ignore progress and notices."""


def available_models() -> tuple[str, ...]:
    """Return the names that ``load_model`` takes: published models first, then those that come with vadis."""
    return (*WEIGHTS, *SHIPPED)


# --- by its tensors, because a file can have any name, and a name any file -------------------------------------------

LAST_BIAS = "Logits.Conv3d_0c_1x1.conv.bias"  # by it nearly every other model is told apart at once
NOT_PUBLISHED = (".norm.weight", ".num_batches_tracked")  # endings of what DeepMind's networks do not have


def published_name(model: Model) -> str | None:
    """Return the name of the published model whose networks, or some of them, these are; None for any other."""
    networks = model.networks.items()
    for name, row in WEIGHTS.items() if networks else ():
        has_streams = model.networks.keys() <= row.tensor_sums.keys()
        if not has_streams or model.card.labels != published_labels(row.labels):
            continue
        if all(_is_published(network, row.tensor_sums[stream]) for stream, network in networks):
            return name
    return None


def tensor_sums(network: nn.Module) -> TensorSums:
    """Return the sums of a network of DeepMind's architecture, as the catalog has them.

    DeepMind's checkpoints hold the CRC-32C of every tensor; hashed are lines ``key crc`` in the order of the keys.
    """
    state = {key: value for key, value in network.state_dict().items() if not key.endswith(NOT_PUBLISHED)}
    sums = {key: _crc(key, value) for key, value in state.items()}
    text = "".join(f"{key} {sums[key]:08x}\n" for key in sorted(sums))
    return TensorSums(sums[LAST_BIAS], hashlib.sha256(text.encode("ascii")).hexdigest())


def _is_published(network: nn.Module, sums: TensorSums) -> bool:
    bias = network.state_dict().get(LAST_BIAS)
    return bias is not None and _crc(LAST_BIAS, bias) == sums.last_bias and tensor_sums(network) == sums


def _crc(key: str, value: Tensor) -> int:
    """Return the CRC-32C of a tensor as it lies in DeepMind's checkpoints."""
    value = value.detach().cpu()
    if key.endswith("conv.weight"):
        value = value.permute(2, 3, 4, 1, 0)  # (out, in, D, H, W) → (D, H, W, in, out)
    return crc32c(np.ascontiguousarray(value.numpy(), "<f4").tobytes())
