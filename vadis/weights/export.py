"""A model → a file that other programs run: an ONNX graph, or an exported program of PyTorch.

clips in [-1, 1]: rgb (B, 3, T, 224, 224), flow (B, 2, T, 224, 224)
    → logits (B, classes, T / 8 - 1), added over the streams; rgb_features, flow_features (B, 1024, T / 8 - 1)
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vadis.errors import UsageError, VadisError
from vadis.files import write_atomic
from vadis.models import STREAM_CHANNELS, Model
from vadis.models.i3d import FRAME_SIZE, HEAD_POOL, I3D, MIN_FRAMES, ROWS

METADATA_KEY = "vadis"  # of the card, as JSON, in the metadata of ONNX; a file of that name in PyTorch's archive
STEP = 8  # frames; clips of any number of such steps are padded alike, so that one graph takes all of them
_LAST_ROW = ROWS[-1].name


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
            pooled = functional.avg_pool3d(outputs[_LAST_ROW], HEAD_POOL, stride=1)  # (B, 1024, steps, 1, 1)
            features.append(pooled.mean(dim=(3, 4)))
        return torch.stack(logits).sum(dim=0), *features


def export(model: Model, kind: str, path: Path, frames: int | None = None) -> None:
    """Write ``model`` to ``path`` as one of ``KINDS``, whole, with its card.

    ``frames`` is the length of its clips; None: any multiple of 8 from 16 on. Raise UsageError for a model other than
    I3D or fewer than 9 frames, VadisError where a package is missing.
    """
    if model.card.architecture != "i3d":
        message = f"{model.card.name} is no I3D, and other architectures cannot be exported"
        raise UsageError(message, "`model.module(…)` is the network as PyTorch knows it")
    if frames is not None and frames < MIN_FRAMES:
        raise UsageError(
            f"I3D takes clips of {MIN_FRAMES} frames or more, not of {frames}", "the models learnt from 64"
        )
    if kind == "onnx" and (lacking := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]):
        raise VadisError(f"without {' and '.join(lacking)} no ONNX file can be written", "pip install onnx onnxscript")
    with _quiet():
        content = KINDS[kind](_program(model, frames), model, frames)
    with write_atomic(path) as file:
        file.write(content)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what PyTorch's exporters tell of their own parts."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _program(model: Model, frames: int | None) -> torch.export.ExportedProgram:
    example = 2, 2 * STEP if frames is None else frames  # clips and frames of which the graph is traced
    shapes = [(example[0], STREAM_CHANNELS[stream], example[1], FRAME_SIZE, FRAME_SIZE) for stream in model.networks]
    batch, steps = torch.export.Dim("batch"), torch.export.Dim("eighths", min=2)
    dynamic: dict[int, Any] = {0: batch, 2: STEP * steps} if frames is None else {0: batch}
    clips = tuple(torch.zeros(shape) for shape in shapes)
    with torch.no_grad():
        return torch.export.export(
            _Networks(model), clips, dynamic_shapes=(tuple(dynamic for _ in clips),), strict=False
        )


def _card(model: Model) -> str:
    return json.dumps({**model.card.to_json(), "sha256": model.sha256})


def _onnx(program: torch.export.ExportedProgram, model: Model, frames: int | None) -> bytes:
    outputs = ["logits", *(f"{stream}_features" for stream in model.networks)]
    graph = torch.onnx.export(program, input_names=list(model.networks), output_names=outputs, verbose=False)
    assert graph is not None
    graph.model.metadata_props[METADATA_KEY] = _card(model)
    proto = graph.model_proto
    if frames is None:  # lengths in time are written down as of the clip that was traced
        del proto.graph.value_info[:]
        for values, name in ((proto.graph.input, "frames"), (proto.graph.output, "steps")):
            for value in values:
                value.type.tensor_type.shape.dim[2].dim_param = name
    content: bytes = proto.SerializeToString()
    return content


def _torch_export(program: torch.export.ExportedProgram, model: Model, frames: int | None) -> bytes:
    content = BytesIO()
    torch.export.save(program, content, extra_files={METADATA_KEY: _card(model)})
    return content.getvalue()


KINDS: dict[str, Callable[[torch.export.ExportedProgram, Model, int | None], bytes]] = {
    "onnx": _onnx,
    "torch-export": _torch_export,
}
