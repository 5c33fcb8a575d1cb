"""A vadis model file: one ``.safetensors`` file that holds everything needed to run a model.

Tensors, of float32 or float16, are named ``NETWORK.KEY``, as ``rgb.Conv3d_1a_7x7.conv.weight``. ``vadis_model`` in
the metadata is the model's card in JSON, with ``sha256``: the hash of the card and of all that follows the header.
"""

import copy
import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from vadis.errors import WeightsError
from vadis.files import os_errors_as, write_file
from vadis.flow.store import FLOW_BOUND
from vadis.models import FORMAT_VERSION, MODELS, Model, ModelCard, build_networks
from vadis.parsing import MAX_DEPTH, is_too_deep, parse_json
from vadis.results import label_fault
from vadis.video.timegrid import GRID_FPS

METADATA_KEY = "vadis_model"
MAX_MODEL_BYTES = 4 << 30  # the default model has 102 MB, the largest architecture of the paper (79 M) 316 MB
MAX_WIDTH = 16.0  # multiplier of the channel counts; refuses a card before its networks are laid out
MAX_THRESHOLD = 0.5  # below which more speaks against every label than for it

_AGAIN = "copy or download it again"
_REMAKE = "take it as vadis wrote it, or make it again from its checkpoints by vadis weights convert"


def save_model(path: Path, card: ModelCard, state_dicts: Mapping[str, Mapping[str, Tensor]]) -> str:
    """Write a model file whole, and return the SHA-256 in it; the same card and tensors always give the same bytes.

    Raise WeightsError if the card is not valid, the tensors are not those of its networks, or the disk refuses.
    """
    _validate_card(path, card.to_json())
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(state_dicts).items()}
    _check_tensors(path, card, expected_tensors(card), tensors)
    sha256 = _sha256(card, _split(safetensors.torch.save(tensors))[1])
    metadata = {METADATA_KEY: _canonical({**card.to_json(), "sha256": sha256})}
    with os_errors_as(WeightsError, f"{path} cannot be written"):
        write_file(path, safetensors.torch.save(tensors, metadata))
    return sha256


def save_fp16(model: Model, path: Path, card: ModelCard) -> str:
    """``save_model`` with numbers of 16 bits; raise WeightsError where one is too large for that."""
    states = {name: network.half().state_dict() for name, network in copy.deepcopy(model.networks).items()}
    for name, tensor in _tensors(states).items():
        if not torch.isfinite(tensor).all():
            message = f"{name} of {card.name} has numbers that are too large for 16 bits"
            raise WeightsError(message, hint="keep the model as it is")
    return save_model(path, card, states)


def load_model_file(path: Path, device: str | torch.device = "cpu") -> Model:
    """Return the model in a model file, in evaluation mode on ``device``.

    Raise WeightsError if the file is no vadis model file of a known version and architecture, is damaged, or its
    tensors are not exactly those that its card asks for.
    """
    with os_errors_as(WeightsError, f"{path} cannot be read"):
        if path.stat().st_size > MAX_MODEL_BYTES:
            message = f"{path} is too large for a model file (more than {MAX_MODEL_BYTES >> 30} GiB)"
            raise WeightsError(message, hint="vadis weights convert, finetune and train make model files")
        content = path.read_bytes()  # what is hashed is what is loaded, whatever happens to the file meanwhile
    card, sha256 = _parse_header(path, content)
    with ThreadPoolExecutor(1) as hasher:
        actual_sha256 = hasher.submit(_sha256, card, _split(content)[1])  # meanwhile this thread copies the tensors
        try:
            tensors = safetensors.torch.load(content)
        except (safetensors.SafetensorError, ValueError, KeyError) as error:
            raise _not_a_model_file(path) from error
        networks = _empty_networks(card)
    if sha256 != actual_sha256.result():
        raise WeightsError(f"{path} is damaged: the checksum in it does not agree with its content", _AGAIN)
    del content
    _check_tensors(path, card, _tensors({name: each.state_dict() for name, each in networks.items()}), tensors)
    for name, network in networks.items():
        keys = [key for key in network.state_dict() if f"{name}.{key}" in tensors]
        network.load_state_dict({key: tensors[f"{name}.{key}"].float() for key in keys}, strict=True, assign=True)
        network.eval().to(device)
    return Model(card, networks, torch.device(device), sha256)


def read_header(path: Path) -> tuple[ModelCard, str]:
    """Return the card and the SHA-256 in a model file, but no tensors; raise WeightsError as ``load_model_file``."""
    with os_errors_as(WeightsError, f"{path} cannot be read"), path.open("rb") as stream:
        head = stream.read(8)
        return _parse_header(path, head + stream.read(min(int.from_bytes(head, "little"), MAX_MODEL_BYTES)))


def _empty_networks(card: ModelCard) -> dict[str, nn.Module]:
    """Return the card's networks, laid out but not initialised: every tensor comes from a file."""
    with torch.device("meta"):
        return build_networks(card)


def _tensors(state_dicts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors of a model file by their names in it: all but the counters, which only training needs."""
    return {
        f"{name}.{key}": tensor
        for name, state in state_dicts.items()
        for key, tensor in state.items()
        if not key.endswith(".num_batches_tracked")
    }


def expected_tensors(card: ModelCard) -> dict[str, Tensor]:
    """Return the tensors that a model file with this card must have, without their values."""
    return _tensors({name: network.state_dict() for name, network in _empty_networks(card).items()})


def describe_difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """Describe which tensors are missing, unexpected or of another shape, the first five by name; None if none is."""
    wanted, there = ({key: str(tuple(value.shape)) for key, value in each.items()} for each in (expected, found))
    differences = [
        f"{key} is {there.get(key, 'missing')} instead of {wanted.get(key, 'missing')}"
        for key in dict.fromkeys([*wanted, *there])
        if wanted.get(key) != there.get(key)
    ]
    return f"{len(differences)} differ: {', '.join(differences[:5])}" if differences else None


def _not_a_model_file(path: Path) -> WeightsError:
    hint = "checkpoints become model files by `vadis weights convert FILE… -o OUT`; a web page about a file is none"
    return WeightsError(f"{path} is not a vadis model file, or is damaged", hint)


def _split(content: bytes) -> tuple[bytes, memoryview]:
    """Return the header (JSON text) of a safetensors file, and the tensors' bytes behind it."""
    end = 8 + int.from_bytes(content[:8], "little")
    return content[8:end], memoryview(content)[end:]


def _sha256(card: ModelCard, body: memoryview) -> str:
    digest = hashlib.sha256(_canonical(card.to_json()).encode("ascii"))
    digest.update(body)
    return digest.hexdigest()


def _canonical(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=True, allow_nan=False, sort_keys=True)


def _parse_header(path: Path, content: bytes) -> tuple[ModelCard, str]:
    """Return the card in the header of a safetensors file, and its SHA-256; ``content`` may end with the header."""
    try:
        header = parse_json(_split(content)[0])
        values = parse_json(header["__metadata__"][METADATA_KEY])
    except (ValueError, KeyError, TypeError) as error:
        raise _not_a_model_file(path) from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        message = f"{path} has the model file format {version!r}, this vadis reads format {FORMAT_VERSION}"
        raise WeightsError(message, hint="a newer vadis may read it")
    sha256 = str(values.pop("sha256", None))
    return _validate_card(path, values), sha256


def _validate_card(path: Path, values: dict[str, Any]) -> ModelCard:
    try:
        card = ModelCard.from_json(values)
        fault = _card_fault(card)
    except (TypeError, KeyError) as error:
        fault = f"fields are missing or unknown ({error})"
    if fault is not None:
        raise WeightsError(f"the card of {path} is not valid: {fault}", _REMAKE)
    return card


def _card_fault(card: ModelCard) -> str | None:
    row = MODELS.get(card.architecture) if isinstance(card.architecture, str) else None
    if row is None:
        return f"the architecture {card.architecture!r} is unknown (this vadis knows {', '.join(MODELS)})"
    for number, label in enumerate(card.labels, start=1):
        if fault := label_fault(label):
            return f"label {number} {fault}"
    if not isinstance(card.provenance, dict) or is_too_deep([card.provenance]):  # in the card, it is one level deeper
        return f"its provenance is not an object nested at most {MAX_DEPTH - 1} deep"
    try:
        _canonical(card.provenance)
    except (ValueError, TypeError):
        return "its provenance is not plain JSON"
    window, clear = card.test_window, card.threshold
    fixed = {"frame_rate": GRID_FPS, "flow_bound": FLOW_BOUND, "short_side": row.short_side, "crop": row.crop}
    is_valid = {
        "name": not label_fault(card.name),
        "streams": card.streams and card.streams == tuple(name for name in row.streams if name in card.streams),
        "labels": card.labels,
        "window_frames": type(card.window_frames) is int and card.window_frames >= 1,
        "width": type(card.width) in (int, float) and 0 < card.width <= MAX_WIDTH,
        "test_window": window is None or (type(window) is int and window >= row.min_frames and not row.test_window),
        "crop_first": type(card.crop_first) is bool,
        "threshold": clear is None or (type(clear) is float and 0 < clear <= MAX_THRESHOLD),
        **{name: repr(getattr(card, name)) == repr(only) for name, only in fixed.items()},
    }
    return next((f"{name} is {getattr(card, name)!r:.100}" for name, valid in is_valid.items() if not valid), None)


def _check_tensors(path: Path, card: ModelCard, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    if difference := describe_difference(expected, found):
        what = f"{MODELS[card.architecture].title} with {len(card.labels)} labels"
        raise WeightsError(f"the tensors in {path} are not those of {what}: {difference}", _REMAKE)
