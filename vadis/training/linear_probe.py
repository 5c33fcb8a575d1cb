"""Train only the last layer, in seconds: the features of every video are computed once (paper, table 4: "Fixed").

They are what the last layer sees of a video in the paper's test, averaged over time, in RUN/features/ab/ab….npz. That
layer is linear, so of their mean it makes the mean of the logits. Each network learns apart, in RUN/rgb/ or RUN/flow/.
"""

import hashlib
import json
import logging
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vadis.datasets import Example
from vadis.datasets.dataset import counted, map_examples, path_below, shorten
from vadis.errors import VadisError, VideoError
from vadis.files import locked, os_errors_as
from vadis.inference.classify import record_fields
from vadis.inference.features import Features, save_features, saved_settings, settings_of
from vadis.inference.predict import WHOLE_VIDEO, predict
from vadis.inference.prefetch import PendingVideo
from vadis.models import MODELS, Model
from vadis.models.card import EXACT
from vadis.models.i3d import I3D
from vadis.models.i3d_inference import FEATURES
from vadis.results import VideoResult, printable
from vadis.training.loader import Loaded, refuse_many_broken
from vadis.training.log import RESUME
from vadis.training.loop import Context, KeptState, Trainer, validate_clips
from vadis.training.plan import Networks, Plan, list_sha256, new_networks, tensors_of

FOLDER_NAME = "features"

FeatureRow = NDArray[np.float32]  # (channels,) of a video

_log = logging.getLogger(__name__)


class FeatureStore:
    """The features of the run in ``folder``, whose model is ``plan.start``, for the streams that are to be trained.

    A video is known by its path below the dataset's folder and its seconds; one of another model is done again.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self._root = folder / FOLDER_NAME, plan.dataset.root
        model = model_to_probe(plan, torch.device("cpu"))
        self.settings = {
            **settings_of(model),
            "frames": MODELS[model.card.architecture].test_frames,
            "window_frames": model.card.window_frames,
            "test_window": model.card.test_window,
            "snapshots": MODELS[model.card.architecture].snapshots,
        }
        self._networks = tuple(model.networks)
        self._loaded: dict[Path, dict[str, FeatureRow]] = {}

    def features(self, example: Example) -> dict[str, FeatureRow] | None:
        """Return the features of this example, (channels,) by network; None where they are to be computed."""
        path = self._path(example)
        if path not in self._loaded and saved_settings(path) == self.settings:
            with suppress(OSError, ValueError, LookupError, zipfile.BadZipFile), np.load(path) as arrays:
                self._loaded[path] = {name: arrays[name][0] for name in self._networks}
        return self._loaded.get(path)

    def save(self, example: Example, features: Features) -> None:
        """Write the features of one example; raise VadisError where the disk refuses."""
        path = self._path(example)
        with os_errors_as(VadisError, f"{printable(str(path))} cannot be written", RESUME):
            save_features(features, path, self.settings)

    def _path(self, example: Example) -> Path:
        place = printable(path_below(example.path, self._root))
        text = json.dumps([place, example.start_seconds, example.end_seconds])
        name = hashlib.sha256(text.encode("ascii")).hexdigest()
        return self.folder / name[:2] / f"{name}.npz"  # writing a file lists its folder


def last_layer(network: nn.Module) -> nn.Conv3d | nn.Linear:
    """Return what makes logits of features: a linear layer; in I3D's case written as a 1×1×1 convolution."""
    layer = network.get_submodule("Logits.Conv3d_0c_1x1.conv" if isinstance(network, I3D) else "Logits")
    assert isinstance(layer, nn.Conv3d | nn.Linear)
    return layer


def examples_to_probe(plan: Plan) -> tuple[Example, ...]:
    """Return the examples whose features are needed: for training, and for validation."""
    return (*plan.dataset.examples("train"), *plan.dataset.splits.get("val", ()))


def model_to_probe(plan: Plan, device: torch.device) -> Model:
    """Return the model to begin from, to be used on ``device`` as the model to be will use its networks."""
    assert plan.start is not None
    start = plan.start.only(plan.streams)
    card = replace(plan.card, name=start.card.name, labels=start.card.labels)
    return Model(card, start.networks, device, start.sha256, precision=plan.first_recipe.precision)


def compute_features(
    plan: Plan, store: FeatureStore, device: torch.device
) -> Iterator[tuple[Example, VideoError | None]]:
    """Compute what is missing in ``store``, and yield each of ``examples_to_probe``, with the error where there is one.

    What has been yielded is on the disk, and the next call goes on. Raise OutputLockedError where another process is at
    it, VadisError where more than 1 % of the videos (and more than one) are broken, or the disk refuses.
    """
    model, examples = model_to_probe(plan, device), examples_to_probe(plan)
    missing = dict.fromkeys(example for example in examples if store.features(example) is None)
    broken: list[tuple[str, str]] = []
    with os_errors_as(VadisError, f"{printable(str(store.folder))} cannot be made", RESUME):
        store.folder.mkdir(parents=True, exist_ok=True)
    with locked(store.folder), closing(map_examples(missing, model, partial(_mean_features, model))) as computed:
        for example in examples:
            _, found = next(computed) if example in missing else (example, None)
            if isinstance(found, VideoError):
                broken.append((example.path, found.code))
                _log.warning("%s: %s; it is left out", printable(example.path), found)
                refuse_many_broken(broken, len(examples), found)
            elif found is not None:
                store.save(example, found)
            yield example, found if isinstance(found, VideoError) else None


def _mean_features(model: Model, video: PendingVideo) -> Features:
    """Return what comes just before the last layer, averaged into one step."""
    snapshots = MODELS[model.card.architecture].snapshots
    times, steps = zip(*predict(video, model, layer=FEATURES, snapshots=snapshots), strict=True)
    arrays = {name: np.mean([step[name] for step in steps], axis=0)[None] for name in steps[0]}
    if len(arrays) < len(model.networks):
        raise VideoError("too_short", "the video has one frame, and optical flow needs two")
    if not all(np.isfinite(rows).all() for rows in arrays.values()):
        raise VideoError("not_finite", "the network gave a feature that is not a number")
    seconds = video.facts.first_seconds + float(sum(times) / len(times))
    return Features(arrays, np.array([seconds]), VideoResult(**record_fields(video, model, WHOLE_VIDEO)))


class LastLayer(nn.Module):
    """Dropout and the last layer of a network. Parameters are the network's own, not copies."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.dropout, self.layer = nn.Dropout(), last_layer(network)  # how much is dropped, the recipe says

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, channels) → logits (B, classes, 1): one step in time."""
        weight = self.layer.weight.flatten(1)  # (classes, channels)
        return functional.linear(self.dropout(x), weight, self.layer.bias).unsqueeze(2)


class FeatureClips(list[Loaded]):
    """A ``ClipDataset`` of features (channels,), the class and the video of each; every epoch shows the same ones."""

    def clip(self, epoch: int, index: int) -> Loaded:
        return self[index]


def train_last_layer(
    name: str, plan: Plan, folder: Path, context: Context, store: FeatureStore
) -> tuple[KeptState, Networks]:
    """Train the last layer of one network in ``folder/name``, or take it from there; as ``train_run``.

    The features in ``store`` are divided by their root mean square over the training videos, so that a learning rate
    means the same for every model; the trained weights take the divisor in.
    """
    recipe = replace(plan.recipes[name], precision=EXACT)  # another is that of the features: the layer itself is quick
    division, classes = plan.division(name), plan.dataset.classes
    examples = examples_to_probe(plan)
    features = {example: arrays[name] for example in examples if (arrays := store.features(example))}
    train, val = ([example for example in part if example in features] for part in (division.train, division.val))
    if lost := sorted({each.label for each in division.train} - {each.label for each in train}):
        message = f"no training video can be read of {counted(lost, 'class')}: {shorten(lost)}"
        raise VadisError(message, hint="repair their videos, or take the classes out")
    scale = float(np.sqrt(np.mean([np.square(features[example]) for example in train])))
    network = new_networks(plan, name)[name]
    weight = last_layer(network).weight
    if plan.keeps_last_layer:
        with torch.no_grad():  # it was learnt on features as they are
            weight.mul_(scale)

    numbers = {label: number for number, label in enumerate(classes)}

    def clips_of(part: Sequence[Example]) -> FeatureClips:
        rows = ((torch.from_numpy(features[example] / scale), example) for example in part)
        return FeatureClips(((row,), numbers[example.label], example.path) for row, example in rows)

    context = replace(context, workers=0)
    validate = partial(validate_clips, clips=clips_of(val), context=context, batch_size=recipe.micro_batch)
    validator, sha256 = validate if val else None, list_sha256(plan.dataset, (*train, *val))
    layer, clips = LastLayer(network), clips_of(train)
    kept = Trainer(layer, clips, validator, recipe, folder / name, classes, sha256, context).train()
    with torch.no_grad():
        weight.div_(scale)
    return kept, tensors_of({name: network})
