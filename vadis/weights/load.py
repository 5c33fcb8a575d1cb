"""A name or a path → a model, ready to run; and a model → the name under which it was published."""

import hashlib
import logging
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import nn

from vadis.device import resolve_device
from vadis.errors import UsageError, WeightsError
from vadis.files import write_atomic
from vadis.models import Model, check_precision
from vadis.models.card import EXACT
from vadis.weights import cache
from vadis.weights.cache import DownloadProgress, cache_errors, ensure_downloaded, is_offline
from vadis.weights.catalog import DEFAULT_MODEL, SHIPPED, TAKE_STAND_IN, WEIGHTS, published_labels, unknown_model
from vadis.weights.convert import convert
from vadis.weights.model_file import load_model_file
from vadis.weights.tf_checkpoint import crc32c

_log = logging.getLogger(__name__)


def load_model(
    name_or_path: str | Path = DEFAULT_MODEL,
    device: str | torch.device = "auto",
    *,
    streams: str | None = None,
    precision: str = EXACT,
    offline: bool | None = None,
    progress: DownloadProgress = lambda what, done, total: None,
) -> Model:
    """Return a published model by its name, or the model in a vadis model file, in evaluation mode.

    A published model is downloaded and converted the first time, and verified every time.

    Args:
        name_or_path: a key of ``WEIGHTS`` or ``SHIPPED`` in ``vadis.weights.catalog``, or the path of a model file.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, or a torch device.
        streams: "rgb", "flow" or "both"; by default all that the model has.
        precision: "fp32"; or "bf16", faster on some processors: logits move by up to 1 % of the largest.
        offline: open no connection; by default what ``VADIS_OFFLINE`` says.
        progress: called while downloading, with what it is, the bytes that are there and the bytes in all.

    Raise UsageError if there is neither a model nor a file of that name, or it lacks a stream, WeightsError if the
    parameters cannot be had, are damaged, or are not those of the model, DeviceError if the device cannot be used, or
    would be slower in bf16.
    """
    target = resolve_device(device) if isinstance(device, str) else device
    if name_or_path in WEIGHTS:
        offline = is_offline() if offline is None else offline
        model = _load_published(str(name_or_path), target, offline, progress)
    else:
        path = _file_of(name_or_path)
        if not path.exists():
            unknown = unknown_model(str(name_or_path))
            hint = f"{unknown.hint}; or give the path of a vadis model file"
            raise UsageError(f"{unknown.message}, nor a file of that name", hint)
        model = load_model_file(path, target)
    check_precision(precision, model.card.architecture, target)
    model.may_leave_device, model.precision = device == "auto", precision
    return model if streams is None else model.only(("rgb", "flow") if streams == "both" else (streams,))


def _file_of(name_or_path: str | Path) -> Path:
    if name_or_path in WEIGHTS:
        return cache.model_path(str(name_or_path))
    return SHIPPED[name_or_path].path if name_or_path in SHIPPED else Path(name_or_path)


def ensure_model(model: Model | str | os.PathLike[str]) -> Model:
    """Return ``model``, loaded first where it is a name or a path; raise UsageError for anything else."""
    if isinstance(model, Model):
        return model
    if isinstance(model, str | os.PathLike):
        return load_model(model if isinstance(model, str) else Path(model))
    message = f"a model is wanted, not an object of type {type(model).__name__}"
    raise UsageError(message, hint="vadis.load_model(name_or_path) gives one")


def verify_model(name: str) -> str:
    """Return the SHA-256 of a model that can be loaded by name; raise WeightsError if it is absent or another."""
    path = _file_of(name)
    if not cache.is_file(path):
        raise WeightsError(f"{name} is not in the cache ({path})", hint=f"`vadis weights download {name}` fetches it")
    model = load_model_file(path) if name in SHIPPED else _load_verified(name, path, torch.device("cpu"))
    return model.sha256 or ""


def _load_published(name: str, device: torch.device, offline: bool, progress: DownloadProgress) -> Model:
    path = cache.model_path(name)
    if cache.is_file(path):
        with suppress(WeightsError):  # damaged: see below
            return _load_verified(name, path, device)
    with cache.download_lock(name):
        if cache.is_file(path):
            try:
                return _load_verified(name, path, device)  # made by another process, meanwhile
            except WeightsError as damage:
                if not os.access(path, os.R_OK):
                    raise
                if offline:
                    hint = f"`vadis weights download {name}` makes it again, on line"
                    raise WeightsError(damage.message, hint=hint) from damage
                with cache_errors(path):
                    aside = cache.set_aside(path)
                _log.info("%s; it was renamed to %s, and the model is fetched again", damage.message, aside.name)
        _download_and_convert(name, path, offline, progress)
    return _load_verified(name, path, device)


def _download_and_convert(name: str, path: Path, offline: bool, progress: DownloadProgress) -> None:
    published, hint = WEIGHTS[name], f"{TAKE_STAND_IN}; or copy {path.name} from another machine's cache to {path}"
    ensure_downloaded(name, published.files, offline=offline, progress=progress, fallback_hint=hint)
    sources = [cache.download_path(files[0]) for files in published.checkpoints.values()]
    with cache_errors(path, published.num_bytes), write_atomic(path) as file:
        convert(sources, Path(file.name), name=name, provenance=published.provenance(published.files))
        load_model_file(Path(file.name))


def _load_verified(name: str, path: Path, device: torch.device) -> Model:
    model, published = load_model_file(path, device), WEIGHTS[name]
    if model.card.labels != published_labels(published.labels) or model.card.streams != tuple(published.checkpoints):
        hint = f"`vadis weights remove {name}`, then `vadis weights download {name}`"
        raise WeightsError(f"{path} is not {name} but another model ({model.card.name})", hint)
    return model


def available_models() -> tuple[str, ...]:
    """Return the names that ``load_model`` takes: published models first, then those that come with vadis."""
    return (*WEIGHTS, *SHIPPED)


# --- by its tensors, because a file can have any name, and a name any file -------------------------------------------


def published_name(model: Model) -> str | None:
    """Return the name of the published model whose networks, or some of them, these are; None for any other."""
    for name, row in WEIGHTS.items():
        has_streams = model.networks and model.networks.keys() <= row.tensor_hashes.keys()
        if not has_streams or model.card.labels != published_labels(row.labels):
            continue
        if all(tensor_hash(network) == row.tensor_hashes[stream] for stream, network in model.networks.items()):
            return name
    return None


def tensor_hash(network: nn.Module) -> str:
    """Return the hash of a network of DeepMind's architecture: of sorted lines ``key crc``, CRC-32C of a tensor."""
    lines = []
    for key, value in sorted(network.state_dict().items()):
        if key.endswith((".norm.weight", ".num_batches_tracked")):  # which DeepMind's networks do not have
            continue
        if key.endswith("conv.weight"):
            value = value.permute(2, 3, 4, 1, 0)  # (out, in, D, H, W) → (D, H, W, in, out)
        lines.append(f"{key} {crc32c(np.ascontiguousarray(value.cpu().numpy(), '<f4').tobytes()):08x}\n")
    return hashlib.sha256("".join(lines).encode("ascii")).hexdigest()
