"""A vadis model file: one ``.safetensors`` file that holds everything needed to run a model.

Tensors are all float32, or all float16, of half the bytes (and float32 once they are loaded). They are named
``NETWORK.KEY``, for example ``rgb.Mixed_3b.Branch_1.Conv3d_0b_3x3.conv.weight``; a network that takes both streams is
called ``both``. The metadata has one entry, ``vadis_model``, whose JSON text is the model's card and ``sha256``, the
seal: the SHA-256 of the card and all that follows the header. The entry marks the format, and the card's
``format_version`` its version. A safetensors file cannot hold code, and its tensors cannot overlap; the seal tells a
damaged one.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from vadis.device import resolve_device
from vadis.errors import WeightsError, what_next
from vadis.files import write_atomic
from vadis.models import FORMAT_VERSION, MODELS, Model, ModelCard, build_networks
from vadis.parsing import MAX_DEPTH, is_too_deep, parse_json
from vadis.preprocessing import FLOW_BOUND
from vadis.video.timegrid import GRID_FPS
from vadis.weights.cache import write_error
from vadis.weights.labels import label_fault

METADATA_KEY = "vadis_model"
MAX_MODEL_BYTES = 4 << 30  # the default model has 102 MB, the largest architecture of the paper (79 M) 316 MB
LAST_BIASES = ("Logits.bias", "Logits.Conv3d_0c_1x1.conv.bias")  # keys of the last layers of all architectures
MAX_WIDTH = 16.0  # multiplier of the channel counts; refuses a card before its networks are laid out
MAX_THRESHOLD = 0.5  # below which more speaks against every label than for it
DIFFERENCES_SHOWN = 5  # names in a message

_AGAIN = "copy or download it again"
_REMAKE = "take it as vadis wrote it, or make it again from its checkpoints by vadis weights convert"

Shapes = Mapping[str, tuple[int, ...]]
StateDicts = Mapping[str, Mapping[str, Tensor]]  # by stream


def save_model(path: Path, card: ModelCard, state_dicts: StateDicts) -> str:
    """Write a model file and return its SHA-256, in hexadecimal.

    ``state_dicts`` has one state dict per stream of the card. The file appears under its name only when it is
    complete and on the disk; the same card and tensors always give the same bytes.

    Raises:
        WeightsError: if the card is not valid, the tensors are not those of its networks, or the file cannot be
            written.
    """
    fault = _card_fault(card.to_json())
    if fault is not None:
        raise WeightsError(f"the model for {path} is not valid: {fault}", "correct its ModelCard")
    found = {
        f"{stream}.{key}": tensor.detach().cpu().contiguous()
        for stream, tensors in state_dicts.items()
        for key, tensor in tensors.items()
        if not key.endswith(".num_batches_tracked")  # a counter of training, of no use to a model
    }
    _check_tensors(path, card, found)
    head, body = _with_card(safetensors.torch.save(found), card)
    try:
        with write_atomic(path) as stream:
            stream.write(head)
            stream.write(body)
    except OSError as error:
        raise write_error(path, len(head) + len(body), error) from error
    digest = hashlib.sha256(head)
    digest.update(body)
    return digest.hexdigest()


def halve(model: Model, path: Path, card: ModelCard) -> str:
    """Write a model with numbers of 16 bits, as ``card``; returns the file's SHA-256.

    Raises:
        WeightsError: where a number is too large for 16 bits, or as ``save_model`` does.
    """
    halved = {
        name: {key: value.half() if value.is_floating_point() else value for key, value in network.state_dict().items()}
        for name, network in model.networks.items()
    }
    for name, tensors in halved.items():
        for key, value in tensors.items():
            if value.dtype == torch.float16 and not torch.isfinite(value).all():
                message = f"{name}.{key} of {card.name} has numbers that are too large for 16 bits"
                raise WeightsError(message, hint="keep the model as it is")
    return save_model(path, card, halved)


def load_model_file(path: Path, device: str | torch.device = "cpu") -> Model:
    """The model in a model file, in evaluation mode on ``device``, with the SHA-256 of the bytes that were loaded.

    Raises:
        WeightsError: if the file is not a vadis model file of a known version and architecture, is damaged, or its
            tensors are not exactly those that its card asks for.
        DeviceError: if the device cannot be used.
    """
    target = resolve_device(device) if isinstance(device, str) else device
    content = _read(path)
    try:
        tensors = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise not_a_model_file(path, content) from error
    card, seal = _parse_card(path, content)
    if seal != _seal(card, _split(content)[1]):
        raise WeightsError(f"{path} is damaged: the checksum in it does not agree with its content", _AGAIN)
    sha256 = hashlib.sha256(content).hexdigest()
    del content
    _check_tensors(path, card, tensors)
    with torch.device("meta"):  # laid out, not initialised: every tensor comes from the file
        networks = build_networks(card)
    for stream, network in networks.items():
        own = {
            key.removeprefix(f"{stream}."): tensor.float()
            for key, tensor in tensors.items()
            if key.startswith(f"{stream}.")
        }
        network.load_state_dict(own, strict=True, assign=True)
        network.eval().to(target)
    return Model(card, networks, target, sha256)


def read_card(path: Path) -> ModelCard:
    """The card of a model file, without its tensors.

    Raises:
        WeightsError: if the file is not a vadis model file of a known version and architecture.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(8)
            length = int.from_bytes(head, "little")
            return _parse_card(path, head + stream.read(min(length, MAX_MODEL_BYTES)))[0]
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}", what_next(error.errno)) from error


def expected_shapes(card: ModelCard) -> dict[str, tuple[int, ...]]:
    """The tensors that a model file with this card must have, and their shapes."""
    with torch.device("meta"):
        networks = build_networks(card)
    return {
        f"{stream}.{key}": tuple(tensor.shape)
        for stream, network in networks.items()
        for key, tensor in network.state_dict().items()
        if not key.endswith(".num_batches_tracked")
    }


def describe_difference(expected: Shapes, found: Shapes) -> str | None:
    """What is missing, unexpected or of another shape, in one line with at most five names; None if nothing is."""
    missing = [key for key in expected if key not in found]
    unexpected = sorted(key for key in found if key not in expected)
    reshaped = [
        f"{key} {tuple(found[key])} instead of {expected[key]}"
        for key in expected
        if key in found and tuple(found[key]) != expected[key]
    ]
    parts, room = [], DIFFERENCES_SHOWN
    for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped)):
        if names:
            shown = ", ".join(names[:room])
            more = ", …" if len(names) > room else ""
            parts.append(f"{len(names)} {what}" + (f" ({shown}{more})" if shown else ""))
            room = max(0, room - len(names))
    return "; ".join(parts) or None


def not_a_model_file(path: Path, head: bytes) -> WeightsError:
    """The error for a file that is no safetensors file, by the bytes that it begins with."""
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return WeightsError(
            f"{path} is not a vadis model file: it contains objects that are not weights (a pickle)",
            hint="checkpoints of the PyTorch port of I3D become model files by `vadis weights convert FILE… -o OUT`",
        )
    if head[:512].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return WeightsError(f"{path} is not a vadis model file but a web page", hint="download the file itself")
    if not head:
        return WeightsError(f"{path} is not a vadis model file: it is empty", _AGAIN)
    return WeightsError(
        f"{path} is not a vadis model file, or it is damaged",
        hint="TensorFlow and PyTorch checkpoints become model files by `vadis weights convert FILE… -o OUT`",
    )


def _read(path: Path) -> bytes:
    """The whole file: what is hashed is what is loaded, whatever happens to the file meanwhile."""
    try:
        if path.stat().st_size > MAX_MODEL_BYTES:
            message = f"{path} is too large for a model file (more than {MAX_MODEL_BYTES >> 30} GiB)"
            raise WeightsError(message, hint="vadis weights convert, finetune and train make model files")
        return path.read_bytes()
    except OSError as error:
        message = f"the model file {path} cannot be read: {error.strerror}"
        raise WeightsError(message, what_next(error.errno)) from error


def _split(content: bytes) -> tuple[bytes, memoryview]:
    """The header (JSON text) of a safetensors file, and the tensors' bytes behind it."""
    end = 8 + int.from_bytes(content[:8], "little")
    return content[8:end], memoryview(content)[end:]


def _with_card(content: bytes, card: ModelCard) -> tuple[bytes, memoryview]:
    """A safetensors file without metadata as its new beginning, with the card, and its tensors' bytes."""
    header, body = _split(content)
    values = {**card.to_json(), "sha256": _seal(card, body)}
    text = json.dumps({"__metadata__": {METADATA_KEY: _canonical(values)}, **parse_json(header)}).encode("ascii")
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text, body


def _seal(card: ModelCard, body: memoryview) -> str:
    """The SHA-256 of a card and the tensors' bytes."""
    digest = hashlib.sha256(_canonical(card.to_json()).encode("ascii"))
    digest.update(body)
    return digest.hexdigest()


def _canonical(values: dict[str, Any]) -> str:
    """One JSON text for equal values."""
    return json.dumps(values, ensure_ascii=True, allow_nan=False, sort_keys=True)


def _parse_card(path: Path, content: bytes) -> tuple[ModelCard, object]:
    """The card in the header of a safetensors file, and its seal; ``content`` may end with the header."""
    try:
        header = parse_json(_split(content)[0])
        values = parse_json(header["__metadata__"][METADATA_KEY])
    except (ValueError, KeyError, TypeError) as error:
        raise not_a_model_file(path, content) from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise WeightsError(
            f"{path} has the model file format {version!r}, this vadis reads format {FORMAT_VERSION}",
            hint="a newer vadis may read it",
        )
    seal = values.pop("sha256", None)
    fault = _card_fault(values)
    if fault is not None:
        raise WeightsError(f"the card in {path} is not valid: {fault}", _REMAKE)
    return ModelCard.from_json(values), seal


def _card_fault(values: dict[str, Any]) -> str | None:
    """What is wrong with the JSON of a card, or None."""
    try:
        card = ModelCard.from_json(values)
    except (TypeError, KeyError) as error:
        return f"fields are missing or unknown ({error})"
    if not isinstance(card.name, str) or label_fault(card.name):
        return "its name is not one"
    if not isinstance(card.architecture, str) or card.architecture not in MODELS:
        return f"the architecture {card.architecture!r} is unknown (this vadis knows {', '.join(MODELS)})"
    known = MODELS[card.architecture].streams
    if card.streams not in _selections(known):
        return f"the streams {card.streams!r} are not of {known}"
    for number, label in enumerate(card.labels, start=1):
        if label_fault(label):
            return f"label {number} {label_fault(label)}"
    if not card.labels:
        return "it has no labels"
    faults = (_numbers_fault, _window_fault, _order_fault, _threshold_fault, _provenance_fault)
    return next(filter(None, (fault(card) for fault in faults)), None)


def _selections(streams: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Every choice of at least one stream, in their order."""
    return [chosen for size in range(1, len(streams) + 1) for chosen in itertools.combinations(streams, size)]


def _numbers_fault(card: ModelCard) -> str | None:
    for name in ("window_frames", "frame_rate", "short_side", "crop"):
        value = getattr(card, name)
        if type(value) is not int or value < 1:
            return f"{name} is {value!r}"
    architecture = MODELS[card.architecture]
    for name in ("short_side", "crop"):
        if getattr(card, name) != getattr(architecture, name):
            return f"{name} is {getattr(card, name)}, {card.architecture} has {getattr(architecture, name)}"
    for name, only in (("frame_rate", GRID_FPS), ("flow_bound", FLOW_BOUND)):
        if type(getattr(card, name)) is bool or getattr(card, name) != only:
            return f"{name} is {getattr(card, name)!r}, and vadis has {only:g} for all models"
    if type(card.width) not in (int, float) or not 0 < card.width <= MAX_WIDTH:
        return f"width is {card.width!r}"
    return None


def _window_fault(card: ModelCard) -> str | None:
    window, architecture = card.test_window, MODELS[card.architecture]
    if window is None or (type(window) is int and window >= architecture.min_frames and not architecture.test_window):
        return None
    return f"test_window is {window!r}"


def _order_fault(card: ModelCard) -> str | None:
    return None if type(card.crop_first) is bool else f"crop_first is {card.crop_first!r}"


def _threshold_fault(card: ModelCard) -> str | None:
    threshold, otherwise = card.threshold, card.otherwise
    if threshold is None and otherwise is None:
        return None
    if not isinstance(threshold, float) or not 0 < threshold <= MAX_THRESHOLD:
        return f"threshold is {threshold!r}"
    if not isinstance(otherwise, str) or label_fault(otherwise) or otherwise in card.labels:
        return f"otherwise is {otherwise!r}"
    return None


def _provenance_fault(card: ModelCard) -> str | None:
    if not isinstance(card.provenance, dict):
        return "its provenance is not an object"
    if is_too_deep([card.provenance]):  # in the card, it is one level deeper
        return f"its provenance is nested more than {MAX_DEPTH - 1} deep"
    try:
        _canonical(card.to_json())
    except (ValueError, TypeError):
        return "its provenance is not plain JSON"
    return None


def _check_tensors(path: Path, card: ModelCard, found: Mapping[str, Tensor]) -> None:
    """Raise WeightsError unless ``found`` is exactly what the card asks for."""
    for key, bias in found.items():
        name, _, own = key.partition(".")
        if own in LAST_BIASES and tuple(bias.shape) != (len(card.labels),):
            outputs = bias.shape[0] if bias.ndim else 0
            raise WeightsError(
                f"{path} has {outputs} outputs in its {name} network, its label list has {len(card.labels)}",
                _REMAKE,
            )
    difference = describe_difference(expected_shapes(card), {key: tuple(value.shape) for key, value in found.items()})
    if difference is not None:
        raise WeightsError(f"the tensors in {path} are not those of its architecture: {difference}", _REMAKE)
    kinds = sorted({str(value.dtype).removeprefix("torch.") for value in found.values()})
    if kinds not in (["float32"], ["float16"]):
        message = f"the tensors in {path} are {', '.join(kinds)}, not all float32, nor all float16"
        raise WeightsError(message, _REMAKE)
