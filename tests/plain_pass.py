"""The plain network on a whole video at once: what vadis, in chunks, has to give."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vadis.flow.store import with_flow
from vadis.models import Model
from vadis.preprocessing import centre_crop, network_input
from vadis.video.reader import open_video

Arrays = dict[str, NDArray[np.float32]]  # by stream, (steps, channels)


def cropped_clip(path: Path, part: slice = slice(None)) -> dict[str, NDArray[np.generic]]:
    """Return all frames of a video, or a part of them, and their flow, cropped."""
    with open_video(path) as video:
        frames = np.stack([frame.pixels for frame in video][part])
    ((_, flow),) = with_flow([frames], torch.device("cpu"))
    arrays = {"rgb": frames, "flow": flow}
    return {stream: centre_crop(array, stream) for stream, array in arrays.items()}


def plain_outputs(clip: dict[str, NDArray[np.generic]], model: Model, layer: str = "Logits", **options: bool) -> Arrays:
    """Return what a layer of the training form gives for exactly these frames; under 64 of them are looped to 64."""
    count = len(next(iter(clip.values())))
    index = np.arange(max(count, model.card.window_frames)) % count
    found = {}
    for stream, network in model.networks.items():
        with torch.inference_mode():
            y = dict(network.endpoints(network_input(clip[stream][index], stream, **options)))[layer]
        y = y.mean(dim=(3, 4)) if y.ndim == 5 else y  # (B, channels, steps)
        found[stream] = y.mean(dim=0).T.numpy()
    return found


def relative_difference(found: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """Return the largest difference, as a part of the largest number that is expected."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@contextmanager
def without_training_form(model: Model) -> Iterator[None]:
    """While this lasts, only the inference form can be run."""
    networks = list(model.networks.values())
    for network in networks:
        network.forward = _refuse
    try:
        yield
    finally:
        for network in networks:
            del network.forward


def _refuse(*clips: torch.Tensor) -> torch.Tensor:
    raise AssertionError("the training form was run")
