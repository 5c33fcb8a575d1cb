"""A vadis model file: one ``.safetensors`` file that holds everything needed to run a model.

Tensors are all float32, or all float16, of half the bytes (and float32 once they are loaded). They are named
``NETWORK.KEY``, for example ``rgb.Mixed_3b.Branch_1.Conv3d_0b_3x3.conv.weight``; a network that takes both streams is
called ``both``. The metadata has one entry, ``vadis_model``, which marks the format. Its JSON text is the model's card,
with the ``format_version``, and ``sha256``: the hash of the card and of all that follows the header. It tells a damaged
file, and identifies the model. A safetensors file cannot hold code, and its tensors cannot overlap.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from vadis.device import resolve_device
from vadis.errors import WeightsError
from vadis.files import os_errors_as, write_atomic
from vadis.flow.store import FLOW_BOUND
from vadis.models import FORMAT_VERSION, MODELS, Model, ModelCard, build_networks
from vadis.parsing import MAX_DEPTH, is_too_deep, parse_json
from vadis.video.timegrid import GRID_FPS
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
StateDicts = Mapping[str, Mapping[str, Tensor]]  # by network


def save_model(path: Path, card: ModelCard, state_dicts: StateDicts) -> str:
    """Write a model file and return the SHA-256 in it, in hexadecimal.

    The file appears under its name only when it is complete and on the disk; the same card and tensors always give the
    same bytes.

    Raises:
        WeightsError: if the card is not valid, the tensors are not those of its networks, or the file cannot be
            written.
    """
    fault = _card_fault(card.to_json())
    if fault is not None:
        raise WeightsError(f"the model for {path} is not valid: {fault}", "correct its ModelCard")
    tensors = {
        f"{name}.{key}": tensor.detach().cpu().contiguous()
        for name, state in state_dicts.items()
        for key, tensor in state.items()
        if not key.endswith(".num_batches_tracked")  # a counter of training, of no use to a model
    }
    _check_tensors(path, card, shapes_of(card), tensors)
    header, body = _split(safetensors.torch.save(tensors))
    sha256 = _sha256(card, body)
    metadata = {METADATA_KEY: _canonical({**card.to_json(), "sha256": sha256})}
    text = json.dumps({"__metadata__": metadata, **parse_json(header)}).encode("ascii")
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
    with os_errors_as(WeightsError, f"{path} cannot be written"), write_atomic(path) as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.write(body)
    return sha256


def save_fp16(model: Model, path: Path, card: ModelCard) -> str:
    """``save_model`` with numbers of 16 bits; raise WeightsError where one is too large for that."""
    states: dict[str, dict[str, Tensor]] = {}
    for name, network in model.networks.items():
        states[name] = {}
        for key, value in network.state_dict().items():
            rounded = states[name][key] = value.half() if value.is_floating_point() else value
            if rounded.dtype == torch.float16 and not torch.isfinite(rounded).all():
                message = f"{name}.{key} of {card.name} has numbers that are too large for 16 bits"
                raise WeightsError(message, hint="keep the model as it is")
    return save_model(path, card, states)


def load_model_file(path: Path, device: str | torch.device = "cpu") -> Model:
    """Return the model in a model file, in evaluation mode on ``device``.

    Raises:
        WeightsError: if the file is not a vadis model file of a known version and architecture, is damaged, or its
            tensors are not exactly those that its card asks for.
        DeviceError: if the device cannot be used.
    """
    target = resolve_device(device) if isinstance(device, str) else device
    with os_errors_as(WeightsError, f"{path} cannot be read"):
        if path.stat().st_size > MAX_MODEL_BYTES:
            message = f"{path} is too large for a model file (more than {MAX_MODEL_BYTES >> 30} GiB)"
            raise WeightsError(message, hint="vadis weights convert, finetune and train make model files")
        content = path.read_bytes()  # what is hashed is what is loaded, whatever happens to the file meanwhile
    try:
        tensors = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise not_a_model_file(path, content) from error
    card, sha256 = _parse_card(path, content)
    if sha256 != _sha256(card, _split(content)[1]):
        raise WeightsError(f"{path} is damaged: the checksum in it does not agree with its content", _AGAIN)
    del content
    networks = _empty_networks(card)
    _check_tensors(path, card, _shapes(networks), tensors)
    for name, network in networks.items():
        keys = [key for key in network.state_dict() if not key.endswith(".num_batches_tracked")]
        network.load_state_dict({key: tensors[f"{name}.{key}"].float() for key in keys}, strict=True, assign=True)
        network.eval().to(target)
    return Model(card, networks, target, sha256)


def read_card(path: Path) -> ModelCard:
    """Return the card of a model file, without its tensors; raise WeightsError as ``load_model_file`` does."""
    return _read_header(path)[0]


def read_sha256(path: Path) -> str:
    """Return the SHA-256 in a model file, without reading its tensors; raise WeightsError as ``load_model_file``."""
    return str(_read_header(path)[1])


def _read_header(path: Path) -> tuple[ModelCard, object]:
    with os_errors_as(WeightsError, f"{path} cannot be read"), path.open("rb") as stream:
        head = stream.read(8)
        return _parse_card(path, head + stream.read(min(int.from_bytes(head, "little"), MAX_MODEL_BYTES)))


def _empty_networks(card: ModelCard) -> dict[str, nn.Module]:
    """Return the card's networks, laid out but not initialised: every tensor comes from a file."""
    with torch.device("meta"):
        return build_networks(card)


def _shapes(networks: Mapping[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.{key}": tuple(tensor.shape)
        for name, network in networks.items()
        for key, tensor in network.state_dict().items()
        if not key.endswith(".num_batches_tracked")
    }


def shapes_of(card: ModelCard) -> dict[str, tuple[int, ...]]:
    """Return the tensors that a model file with this card must have, and their shapes."""
    return _shapes(_empty_networks(card))


def describe_difference(expected: Shapes, found: Shapes) -> str | None:
    """Describe what is missing, unexpected or of another shape, with at most five names; None if nothing is."""
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
    """Return the error for a file that is no safetensors file, by the bytes that it begins with."""
    what, hint = f"{path} is not a vadis model file", "become model files by `vadis weights convert FILE… -o OUT`"
    if head.startswith((b"PK\x03\x04", b"\x80")):
        hint = f"checkpoints of the PyTorch port of I3D {hint}"
        return WeightsError(f"{what}: it contains objects that are not weights (a pickle)", hint)
    if head[:512].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return WeightsError(f"{what} but a web page", hint="download the file itself")
    if not head:
        return WeightsError(f"{what}: it is empty", _AGAIN)
    return WeightsError(f"{what}, or it is damaged", hint=f"TensorFlow and PyTorch checkpoints {hint}")


def _split(content: bytes) -> tuple[bytes, memoryview]:
    """Return the header (JSON text) of a safetensors file, and the tensors' bytes behind it."""
    end = 8 + int.from_bytes(content[:8], "little")
    return content[8:end], memoryview(content)[end:]


def _sha256(card: ModelCard, body: memoryview) -> str:
    digest = hashlib.sha256(_canonical(card.to_json()).encode("ascii"))
    digest.update(body)
    return digest.hexdigest()


def _canonical(values: dict[str, Any]) -> str:
    """Return one JSON text for equal values."""
    return json.dumps(values, ensure_ascii=True, allow_nan=False, sort_keys=True)


def _parse_card(path: Path, content: bytes) -> tuple[ModelCard, str]:
    """Return the card in the header of a safetensors file, and its SHA-256; ``content`` may end with the header."""
    try:
        header = parse_json(_split(content)[0])
        values = parse_json(header["__metadata__"][METADATA_KEY])
    except (ValueError, KeyError, TypeError) as error:
        raise not_a_model_file(path, content) from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        message = f"{path} has the model file format {version!r}, this vadis reads format {FORMAT_VERSION}"
        raise WeightsError(message, hint="a newer vadis may read it")
    sha256 = str(values.pop("sha256", None))
    fault = _card_fault(values)
    if fault is not None:
        raise WeightsError(f"the card in {path} is not valid: {fault}", _REMAKE)
    return ModelCard.from_json(values), sha256


def _card_fault(values: dict[str, Any]) -> str | None:
    """Return what is wrong with the JSON of a card, or None."""
    try:
        return next(_card_faults(ModelCard.from_json(values)), None)
    except (TypeError, KeyError) as error:
        return f"fields are missing or unknown ({error})"


def _card_faults(card: ModelCard) -> Iterator[str]:
    """Yield what is wrong with a card; each check relies on those before, so only the first fault counts."""
    if label_fault(card.name):
        yield "its name is not one"
    if not isinstance(card.architecture, str) or card.architecture not in MODELS:
        yield f"the architecture {card.architecture!r} is unknown (this vadis knows {', '.join(MODELS)})"
    row = MODELS[card.architecture]
    selections = itertools.chain(*(itertools.combinations(row.streams, n + 1) for n in range(len(row.streams))))
    if card.streams not in selections:
        yield f"the streams {card.streams!r} are not of {row.streams}"
    yield from (f"label {n} {fault}" for n, label in enumerate(card.labels, start=1) if (fault := label_fault(label)))
    if not card.labels:
        yield "it has no labels"
    if type(card.window_frames) is not int or card.window_frames < 1:
        yield f"window_frames is {card.window_frames!r}"
    fixed = {"frame_rate": GRID_FPS, "flow_bound": FLOW_BOUND, "short_side": row.short_side, "crop": row.crop}
    for name, only in fixed.items():
        if type(value := getattr(card, name)) is not type(only) or value != only:
            yield f"{name} is {value!r}, and {card.architecture} has {only:g}"
    if type(card.width) not in (int, float) or not 0 < card.width <= MAX_WIDTH:
        yield f"width is {card.width!r}"
    window = card.test_window
    if window is not None and (type(window) is not int or window < row.min_frames or row.test_window):
        yield f"test_window is {window!r}"
    if type(card.crop_first) is not bool:
        yield f"crop_first is {card.crop_first!r}"
    if card.threshold is not None or card.otherwise is not None:
        if not isinstance(card.threshold, float) or not 0 < card.threshold <= MAX_THRESHOLD:
            yield f"threshold is {card.threshold!r}"
        if label_fault(card.otherwise) or card.otherwise in card.labels:
            yield f"otherwise is {card.otherwise!r}"
    if not isinstance(card.provenance, dict):
        yield "its provenance is not an object"
    if is_too_deep([card.provenance]):  # in the card, it is one level deeper
        yield f"its provenance is nested more than {MAX_DEPTH - 1} deep"
    try:
        _canonical(card.to_json())
    except (ValueError, TypeError):
        yield "its provenance is not plain JSON"


def _check_tensors(path: Path, card: ModelCard, expected: Shapes, found: Mapping[str, Tensor]) -> None:
    """Raise WeightsError unless ``found`` is exactly what the card asks for."""
    for key, bias in found.items():
        name, _, own = key.partition(".")
        if own in LAST_BIASES and tuple(bias.shape) != (len(card.labels),):
            outputs = bias.shape[0] if bias.ndim else 0
            message = f"{path} has {outputs} outputs in its {name} network, its label list has {len(card.labels)}"
            raise WeightsError(message, _REMAKE)
    difference = describe_difference(expected, {key: tuple(value.shape) for key, value in found.items()})
    if difference is not None:
        raise WeightsError(f"the tensors in {path} are not those of its architecture: {difference}", _REMAKE)
    kinds = sorted({str(value.dtype).removeprefix("torch.") for value in found.values()})
    if kinds not in (["float32"], ["float16"]):
        message = f"the tensors in {path} are {', '.join(kinds)}, not all float32, nor all float16"
        raise WeightsError(message, _REMAKE)
