"""Fine-tuning in seconds: the features of every video once, then the last layer alone (paper, table 4: "Fixed").

    RUN/features/settings.json   whose features these are; any others are refused
    RUN/features/records.bin     one record per video, see ``FeatureStore``
    RUN/rgb/, RUN/flow/          a training run each, as for all other training

A video's features are what the last layer sees of it in the paper's test (for I3D: first 250 frames, centre crop,
whole), averaged over the steps in time. That layer is linear, so of their mean it makes the mean of the logits: it
learns from what it will be tested on (of the architectures that average probabilities, from something very near). No
random crops, no mirror images: the features never change. Each network learns apart.
"""

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import floor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vadis.datasets import Example
from vadis.datasets.dataset import counted, path_below, some, tested_part
from vadis.errors import UsageError, VadisError, VideoError, what_next
from vadis.files import write_file
from vadis.inference.predict import Progress, predict
from vadis.inference.prefetch import LocalVideo, PendingVideo, map_videos
from vadis.models import MODELS, Model
from vadis.models.i3d import I3D
from vadis.models.i3d_inference import FEATURES
from vadis.parsing import parse_json
from vadis.results import printable
from vadis.training.checkpoint import locked
from vadis.training.distributed import Process
from vadis.training.loader import BROKEN_ALLOWED, MOST_NAMED
from vadis.training.log import RESUME, Event
from vadis.training.loop import Outcome, Settings, train
from vadis.training.plan import Plan, list_sha256, new_networks, tensors_of
from vadis.training.validation import Validation, never, validate_clips
from vadis.video.isolated.pool import Decoders

FOLDER_NAME, SETTINGS_NAME, RECORDS_NAME = "features", "settings.json", "records.bin"
KEY_BYTES, CRC_BYTES = 32, 4

Features = NDArray[np.float32]  # (channels,), or (N, channels) of N videos

_log = logging.getLogger(__name__)


class FeatureStore:
    """Features on the disk, a record per video: key, (channels,) float32 of every network, CRC-32; little-endian.

    A video is known by its path below the dataset's folder and its seconds. A torn last record, or a damaged one,
    counts as not there: its video is done again.

    Args:
        folder: made if need be.
        root: the folder of the dataset.
        model: whose features; with the streams that are wanted.

    Raises:
        UsageError: where the folder holds features of another model, other streams, or anything else.
    """

    def __init__(self, folder: Path, root: str, model: Model) -> None:
        self.folder, self._root, self._path = folder, root, folder / RECORDS_NAME
        channels = {name: last_layer(network).weight.shape[1] for name, network in model.networks.items()}
        rows = [(stream, "<f4", (size,)) for stream, size in channels.items()]
        self._type = np.dtype([("key", "u1", (KEY_BYTES,)), *rows, ("crc", "<u4")])
        self._streams = tuple(channels)
        self._settings: dict[str, object] = {
            "schema": 1,
            "model": model.card.name,
            "model_sha256": model.sha256,
            "channels": channels,  # by network
            "layer": FEATURES,
            "frames": MODELS[model.card.architecture].test_frames,
            "window_frames": model.card.window_frames,
            "test_window": model.card.test_window,
        }
        self._refuse_others()
        self.reload()

    def reload(self) -> None:
        """Look again at what is there; raises VadisError where it cannot be read."""
        self._numbers: dict[bytes, int] = {}  # key → number of its record
        self._count = 0
        if not self._path.exists():
            return
        try:
            with self._path.open("rb") as file:
                while len(record := file.read(self._type.itemsize)) == self._type.itemsize:
                    if zlib.crc32(record[:-CRC_BYTES]) == int.from_bytes(record[-CRC_BYTES:], "little"):
                        self._numbers[record[:KEY_BYTES]] = self._count
                    self._count += 1
        except OSError as error:
            message = f"{self._path} cannot be read: {error.strerror}"
            raise VadisError(message, hint=what_next(error.errno)) from error

    def has(self, example: Example) -> bool:
        """Whether the features of this example are there."""
        return self._key(example) in self._numbers

    def append(self, example: Example, features: Mapping[str, Features]) -> None:
        """Write the features (channels,) of one example by stream; they are on the disk when this returns.

        Raises:
            VadisError: where the disk does not take them.
        """
        record = np.zeros((), self._type)
        record["key"] = np.frombuffer(self._key(example), np.uint8)
        for stream in self._streams:
            record[stream] = features[stream]
        record["crc"] = zlib.crc32(record.tobytes()[:-CRC_BYTES])
        try:
            with self._path.open("ab") as file:
                file.truncate(self._count * self._type.itemsize)  # what a killed process left of its last record
                file.write(record.tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            message = f"{self._path} cannot be written: {error.strerror}"
            raise VadisError(message, hint=what_next(error.errno, again=RESUME)) from error
        self._numbers[self._key(example)] = self._count
        self._count += 1

    def rows(self, stream: str, examples: Sequence[Example]) -> Features:
        """The features of ``examples``, all of which are there: float32 (N, channels)."""
        if not examples:
            return np.empty((0, *self._type[stream].shape), np.float32)
        records = np.memmap(self._path, self._type, "r", shape=(self._count,))
        return np.asarray(records[stream][[self._numbers[self._key(example)] for example in examples]], np.float32)

    def _key(self, example: Example) -> bytes:
        place = printable(path_below(example.path, self._root))
        text = json.dumps([place, example.start_seconds, example.end_seconds])
        return hashlib.sha256(text.encode("ascii")).digest()

    def _refuse_others(self) -> None:
        """Write the settings into a new folder; raise UsageError where others are there."""
        path, wanted, name = self.folder / SETTINGS_NAME, self._settings, printable(str(self.folder))
        try:
            if not path.exists():
                if self.folder.exists() and any(self.folder.iterdir()):
                    raise UsageError(f"{name} holds something else than features", hint="choose another folder")
                write_file(path, json.dumps(wanted, indent=1) + "\n")
                return
            there = parse_json(path.read_bytes())
        except OSError as error:
            message = f"{name} cannot hold features: {error.strerror}"
            raise UsageError(message, hint=what_next(error.errno)) from error
        except ValueError as error:
            raise UsageError(f"{printable(str(path))} is damaged", hint="choose another folder") from error
        if there != wanted:
            found = there if isinstance(there, dict) else {}
            said = "; ".join(f"{k} was {found.get(k)}, is {wanted[k]}" for k in wanted if found.get(k) != wanted[k])
            raise UsageError(f"{name} holds features made otherwise: {said}", hint="choose another folder")


def last_layer(network: nn.Module) -> nn.Conv3d | nn.Linear:
    """What makes logits of a network's features: a linear layer; in I3D's case written as a 1×1×1 convolution."""
    layer = network.get_submodule("Logits.Conv3d_0c_1x1.conv" if isinstance(network, I3D) else "Logits")
    assert isinstance(layer, nn.Conv3d | nn.Linear)
    return layer


def open_store(folder: Path, plan: Plan) -> FeatureStore:
    """The features of the run in ``folder``, whose model is ``plan.start``, for the streams that are to be trained.

    Raises:
        UsageError: as ``FeatureStore``; or where training begins from no model.
    """
    return FeatureStore(folder / FOLDER_NAME, plan.dataset.root, _start(plan, torch.device("cpu")))


def wanted_examples(plan: Plan) -> tuple[Example, ...]:
    """The examples whose features are needed: to learn from, and for validation."""
    return (*plan.dataset.examples("train"), *plan.dataset.splits.get("val", ()))


def _start(plan: Plan, device: torch.device) -> Model:
    """The networks of the model to begin from, to be used on ``device`` as the model to be will use them."""
    if plan.start is None:
        raise UsageError("without a model there are no features to learn from", hint="name one with `start`")
    start = plan.start.only(plan.streams)
    card = replace(plan.card, name=start.card.name, labels=start.card.labels)
    return Model(card, start.networks, device, start.sha256)


def compute_features(
    plan: Plan, store: FeatureStore, device: torch.device, *, progress: Callable[[Progress], None] | None = None
) -> Iterator[tuple[Example, VideoError | None]]:
    """Compute what is missing, and give each of ``wanted_examples`` when its features are there, with the error where
    they cannot be had.

    Between two of them it may be left for good: what has been given is on the disk, and the next call goes on.

    Args:
        store: from ``open_store``.
        device: where the networks, and the flow, are computed.
        progress: as for ``classify``.

    Raises:
        OutputLockedError: where another process is at it.
        VadisError: more than 1 % of the videos (and more than one) are broken, or the disk does not take it.
    """
    model, examples = _start(plan, device), wanted_examples(plan)
    broken: list[tuple[Example, VideoError]] = []
    with locked(store.folder), Decoders() as decoders:
        store.reload()
        for example in examples:
            failure = None
            if not store.has(example):
                try:
                    store.append(example, _tested(example, model, decoders, progress))
                except VideoError as error:
                    failure = error
                    broken.append((example, error))
                    _log.warning("%s: %s; it is left out", printable(example.path), error)
                    _refuse_many(broken, len(examples))
            yield example, failure


def _tested(
    example: Example, model: Model, decoders: Decoders, progress: Callable[[Progress], None] | None
) -> dict[str, Features]:
    """What the paper's test sees of one example, just before the last layer: by network (channels,)."""
    rate, frames = model.card.frame_rate, MODELS[model.card.architecture].test_frames
    start, frames = tested_part(example, decoders, rate, frames)

    def mean(video: PendingVideo) -> dict[str, Features]:
        steps = [outputs for _, outputs in predict(video, model, layer=FEATURES, progress=progress)]
        return {name: np.mean([step[name] for step in steps], axis=0) for name in steps[0]}

    part = partial(LocalVideo, decoders=decoders, listed=True, start_frame=start, max_frames=frames)
    ((_, _, found),) = map_videos([example.path], partial(part, model=model), mean, model, jobs=1)
    if isinstance(found, VideoError):
        raise found
    if len(found) < len(model.networks):
        raise VideoError("too_short", "the video has one frame, and optical flow needs two")
    if not all(np.isfinite(row).all() for row in found.values()):
        raise VideoError("not_finite", "the network gave a feature that is not a number")
    return found


def allowed_broken(num_examples: int) -> int:
    """How many videos may be left out: 1 %, as in other training, and one however few there are."""
    return max(1, floor(BROKEN_ALLOWED * num_examples))


def _refuse_many(broken: Sequence[tuple[Example, VideoError]], num_examples: int) -> None:
    if len(broken) <= allowed_broken(num_examples):
        return
    named = [f"{printable(example.path)} ({error.code})" for example, error in broken]
    raise VadisError(
        f"{len(broken):,} of {num_examples:,} videos cannot be read: {', '.join(named[-MOST_NAMED:])}",
        hint=broken[-1][1].own_hint or "repair or remove them; up to 1 % are left out",
    )


class LastLayer(nn.Module):
    """Dropout and the last layer of a network. Parameters are the network's own, not copies."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.dropout, self.layer = nn.Dropout(), last_layer(network)  # how much is dropped, the recipe says

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, channels) → logits (B, classes, 1): one step in time."""
        weight = self.layer.weight.flatten(1)  # (classes, channels)
        return functional.linear(self.dropout(x), weight, self.layer.bias).unsqueeze(2)


class FeatureClips:
    """Features for ``vadis.training.sampler``: every epoch shows the same ones.

    Args:
        features: (N, channels).
        examples: whose they are.
        classes: the class names in the order of the network's outputs.
    """

    def __init__(self, features: Tensor, examples: Sequence[Example], classes: Sequence[str]) -> None:
        numbers = {name: number for number, name in enumerate(classes)}
        rows = features.unbind()  # (channels,) each: taking one from a tuple costs less than from a tensor
        self._clips = [((row,), numbers[each.label], each.path) for row, each in zip(rows, examples, strict=True)]

    def __len__(self) -> int:
        return len(self._clips)

    def clip(self, epoch: int, index: int) -> tuple[tuple[Tensor, ...], int, str]:
        """Features float32 (channels,), the number of the class, and the video."""
        return self._clips[index]


def train_last_layer(
    name: str,
    plan: Plan,
    folder: Path,
    process: Process,
    store: FeatureStore,
    *,
    settings: Settings,
    report: Callable[[Event], None] = lambda event: None,
    stop_requested: Callable[[], int] = never,
) -> tuple[Outcome, dict[str, Tensor]]:
    """Train the last layer of one network in ``folder/name``; or take it from there, where it has been trained.

    Features are divided by their root mean square over the training videos, so that a learning rate means the same for
    every model; the trained weights take the divisor in.

    Args:
        store: with the features of all videos that can be read.
        settings: there is nothing for workers to load, so they are not started.

    Returns:
        How the run ended, and all tensors of the network on the CPU: ``plan.start``'s, with the new last layer.

    Raises:
        VadisError: where features are missing; else as ``train`` does.
    """
    recipe, classes = plan.recipes[name], plan.dataset.classes
    _refuse_gaps(plan, store)
    learnt, held_out = ([example for example in part if store.has(example)] for part in plan.splits(name))
    features = torch.from_numpy(store.rows(name, learnt))  # (N, channels)
    scale = float(features.square().mean().sqrt())
    network = new_networks(plan, name)[name]
    if plan.keeps_last_layer:
        with torch.no_grad():  # it was learnt on features as they are
            last_layer(network).weight.mul_(scale)
    validation = FeatureClips(torch.from_numpy(store.rows(name, held_out)) / scale, held_out, classes)

    def validate(layer: nn.Module) -> Validation:
        size = recipe.micro_batch
        return validate_clips(layer, validation, process, batch_size=size, stop_requested=stop_requested)

    outcome = train(
        LastLayer(network),
        FeatureClips(features / scale, learnt, classes),
        recipe,
        folder / name,
        labels=classes,
        data_sha256=list_sha256(plan.dataset, (*learnt, *held_out)),
        process=process,
        validate=validate if held_out else None,
        settings=replace(settings, workers=0),
        report=report,
        stop_requested=stop_requested,
    )
    with torch.no_grad():
        last_layer(network).weight.div_(scale)
    return outcome, tensors_of(network)


def refuse_lost_classes(plan: Plan, store: FeatureStore) -> None:
    """Raise VadisError where there is no training video with features of a class: nobody could learn it."""
    for run in plan.recipes:
        learnt = plan.splits(run)[0]
        lost = sorted({each.label for each in learnt} - {each.label for each in learnt if store.has(each)})
        if lost:
            message = f"no training video can be read of {counted(lost, 'class')}: {some(lost)}"
            raise VadisError(message, hint="repair their videos, or take the classes out")


def _refuse_gaps(plan: Plan, store: FeatureStore) -> None:
    """Raise VadisError where more videos have no features than can be broken."""
    wanted = wanted_examples(plan)
    missing = sum(not store.has(example) for example in wanted)
    if missing > allowed_broken(len(wanted)):
        message = f"the features of {missing:,} of {len(wanted):,} videos are not in {store.folder}"
        raise VadisError(message, hint="going on with `resume=True` computes them")
