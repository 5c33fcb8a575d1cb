"""What was published: lists of labels, and models, file by file, where each lies, and what identifies its content.

Git blob ids and sizes are facts about DeepMind's files; the accuracies are the paper's (table 3, and its top-5 from the
repository's README), on Kinetics' held-out test set, in percent.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from vadis.errors import UsageError, WeightsError
from vadis.files import os_errors_as
from vadis.parsing import decode
from vadis.results import label_fault

MAX_LABELS_BYTES = 4 << 20  # Kinetics-600's list has 9,209
PUBLISHED_LISTS = {"kinetics400": 400, "kinetics600": 600, "imagenet": 1000}
"""The lists in this package, DeepMind's (``data/label_map*.txt``) and torchvision's, with their numbers of classes."""


@lru_cache
def published_labels(name: str) -> tuple[str, ...]:
    """Return a list of ``PUBLISHED_LISTS``."""
    return tuple((Path(__file__).parent / "labels" / f"{name}.txt").read_text(encoding="utf-8").splitlines())


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the labels in a text file, one in a line, UTF-8 or UTF-16; raise WeightsError if a line is not a label."""
    with os_errors_as(WeightsError, f"{path} cannot be read"), path.open("rb") as stream:
        content = stream.read(MAX_LABELS_BYTES + 1)
    if len(content) > MAX_LABELS_BYTES:
        message = f"{path} is too large for a list of labels (more than {MAX_LABELS_BYTES} bytes)"
        raise WeightsError(message, hint="name a text file with one label in a line")
    lines = decode(content).replace("\r\n", "\n").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if fault := label_fault(line):
            hint = "write one label in a line, in the order of the outputs, in UTF-8, and nothing else"
            raise WeightsError(f"line {number} of the label list {path} {fault}", hint)
    return tuple(lines)


HOST = "https://raw.githubusercontent.com"
DEEPMIND = "google-deepmind/kinetics-i3d/0667e889a5904b4dc122e0ded4c332f49f8df42c"
HASSONY2 = "hassony2/kinetics_i3d_pytorch/786fbae06a6fd5df419e1961cd32e32fbe8b396d"  # holds the same blobs
INDEX, DATA = "model.ckpt.index", "model.ckpt.data-00000-of-00001"
DEFAULT_MODEL = "i3d-kinetics400"


class RemoteFile(NamedTuple):
    """A file on the net, identified by its content."""

    local: str  # path under the cache's downloads folder
    urls: tuple[str, ...]  # the same content at each; tried in order
    git_blob: str = ""  # "" for a file outside git
    size: int | None = None  # bytes; None where it was not published (the blob id or SHA-256 covers it)
    sha256_prefix: str = ""  # of a file outside git: all that was published

    @property
    def identity(self) -> dict[str, str]:
        """The hash of its content that was published."""
        return {"git_blob": self.git_blob} if self.git_blob else {"sha256_prefix": self.sha256_prefix}


Accuracies = dict[str, tuple[float, float]]  # by stream, and "both": top-1 and top-5, in percent


@dataclass(frozen=True)
class PublishedModel:
    """One row of the catalog."""

    checkpoints: dict[str, tuple[RemoteFile, ...]]  # by stream; first what ``convert`` takes: an index, then the data
    labels: str  # a key of PUBLISHED_LISTS
    accuracy: Accuracies = field(default_factory=dict)
    tensor_hashes: dict[str, str] = field(default_factory=dict)  # by stream, of DeepMind's: ``load.tensor_hash``
    sample_outputs: str | None = None  # which of the published outputs on the sample are this model's
    licence: str = "Apache-2.0"
    source: str = f"https://github.com/{DEEPMIND.rsplit('/', 1)[0]}"

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """All files, in the order of their download."""
        return tuple(file for files in self.checkpoints.values() for file in files)

    @property
    def num_bytes(self) -> int:
        """The bytes to download, of files whose size was published."""
        return sum(file.size or 0 for file in self.files)

    def provenance(self, files: Iterable[RemoteFile]) -> dict[str, Any]:
        """Return what the card of a model made of ``files`` says about them."""
        named = [{"url": file.urls[0], **file.identity} for file in files]
        return {"source": self.source, "licence": self.licence, "files": named}


_BLOBS = """
rgb_imagenet       5ab1058b8f4f89a896c01f67c0a4c96a31548af7 10953 2958652e0c9c48a65010c0ebda5c9cfd4edc7c18 50818176
flow_imagenet      8217f9450d851d24782aaf1af01c5c3b35b81a35 10968 bf56831f663abc3de0d35f193030b73a3df7fb61 50730368
rgb_scratch        84dd4518e982d9ca6ce1ff02e95fca2e8cbb1f73 10953 fa7df95674dbf3579e7fccd954e51e706b4734c1 50818176
flow_scratch       193bc425100f3978c793da66bd9eb54baea8dc6a 10968 1d6a0b68f32544af11111342857e47e30d13afa9 50730368
rgb_scratch_kin600 d378d8f01215fe92a29cd170f040c284070e9cd5 19632 6392a74c3180e706cabada39d8f40a50a48642e5 103218112
"""  # DeepMind's checkpoints: git blob id and bytes of the index, then of the data file
_ROWS = {name: numbers for name, *numbers in map(str.split, _BLOBS.strip().splitlines())}


def _checkpoint(name: str) -> tuple[RemoteFile, ...]:
    files = []
    for file_name, blob, size in zip((INDEX, DATA), _ROWS[name][::2], _ROWS[name][1::2], strict=True):
        urls = [f"{HOST}/{DEEPMIND}/data/checkpoints/{name}/{file_name}"]
        if name in ("rgb_imagenet", "flow_imagenet"):
            urls.append(f"{HOST}/{HASSONY2}/model/tf_{name}/{file_name}")
        files.append(RemoteFile(f"{name}/{file_name}", tuple(urls), blob, int(size)))
    return tuple(files)


WEIGHTS: dict[str, PublishedModel] = {
    "i3d-kinetics400": PublishedModel(
        checkpoints={"rgb": _checkpoint("rgb_imagenet"), "flow": _checkpoint("flow_imagenet")},
        labels="kinetics400",
        accuracy={"rgb": (71.1, 89.3), "flow": (63.4, 84.9), "both": (74.2, 91.3)},
        tensor_hashes={
            "rgb": "3ec1ff48690c5162d635176732d6135d79788c6639c99ab2153a0623ee63e21e",
            "flow": "30c885edc201cdb24a5a9e3de5d0100baec4ca4369cb4c0edba680445fd67ecc",
        },
        sample_outputs="imagenet",
    ),
    "i3d-kinetics400-scratch": PublishedModel(
        checkpoints={"rgb": _checkpoint("rgb_scratch"), "flow": _checkpoint("flow_scratch")},
        labels="kinetics400",
        accuracy={"rgb": (68.4, 88.0), "flow": (61.5, 83.4), "both": (71.6, 90.0)},
        tensor_hashes={
            "rgb": "c2059b3e0d70bf4aae6b4ace2633c14eec0cd21f07f286da05201f19ed6c0e30",
            "flow": "d9d69fbf5992254bc160050355256f75bfc65e56bfef7b8629df71e52f1ed312",
        },
        sample_outputs="no_imagenet",
    ),
    "i3d-kinetics600": PublishedModel(
        checkpoints={"rgb": _checkpoint("rgb_scratch_kin600")},
        labels="kinetics600",
        tensor_hashes={"rgb": "c5a376909c7ee3049010da11082f4d5dc6691f474852b990a1719956ef2f49b1"},
    ),
    "inception-v1-imagenet": PublishedModel(  # torchvision's GoogLeNet: what the paper's networks start from
        checkpoints={
            "rgb": (
                RemoteFile(
                    "inception-v1-imagenet/googlenet-1378be20.pth",
                    ("https://download.pytorch.org/models/googlenet-1378be20.pth",),
                    sha256_prefix="1378be20",
                ),
            )
        },
        labels="imagenet",
        licence="BSD-3-Clause",
        source="https://github.com/pytorch/vision",
    ),
}
"""Every published model, by the name that ``--model`` takes."""


def provenance_of(contents: list[dict[str, str]]) -> dict[str, Any]:
    """Return where files come from, given as ``{"file": name, "git_blob": id}``; published ones are known by the id."""
    for published in WEIGHTS.values():
        known = {file.git_blob: file for file in published.files}
        if all(content["git_blob"] in known for content in contents):
            return published.provenance(known[content["git_blob"]] for content in contents)
    return {"converted_from": contents}


class ShippedModel(NamedTuple):
    """A model whose file lies in the package itself: nothing to download."""

    path: Path
    accuracy: Accuracies


_FOLDER = Path(__file__).with_name("shipped")
STAND_IN = "i3d-kinetics400-rgb"  # of the shipped models, where the default cannot be had: RGB, in 16-bit numbers
TAKE_STAND_IN = f"take {STAND_IN}, which comes with vadis"  # the hint there; a command says by which of its options

SHIPPED: dict[str, ShippedModel] = {
    STAND_IN: ShippedModel(
        _FOLDER / f"{STAND_IN}.safetensors", {"rgb": WEIGHTS["i3d-kinetics400-scratch"].accuracy["rgb"]}
    ),
    "camera-motion": ShippedModel(_FOLDER / "camera-motion.safetensors", {}),  # trained by vadis itself
}
"""The models that are there without a network, by the name that ``--model`` takes."""


def unknown_model(name: str) -> UsageError:
    """Return the error for a name that no model has; it suggests the nearest name."""
    names = [*WEIGHTS, *SHIPPED]
    close = difflib.get_close_matches(name.lower(), names, n=1)
    guess = f"did you mean {close[0]}? " if close else ""
    return UsageError(f"there is no model named {name!r}", hint=f"{guess}The models are {', '.join(names)}")


SAMPLE: dict[str, RemoteFile] = {
    stream: RemoteFile(f"sample/{name}", (f"{HOST}/{DEEPMIND}/data/{name}",), blob)
    for stream, name, blob in (
        ("rgb", "v_CricketShot_g04_c01_rgb.npy", "d756c5020a6e0fb56a99b210e32f5865da712bba"),
        ("flow", "v_CricketShot_g04_c01_flow.npy", "ee00e78e6f380caa5463de878d7c85ad7a01e668"),
    )
}
"""DeepMind's preprocessed sample video, (1, 79, 224, 224, C) in [-1, 1], by stream."""
