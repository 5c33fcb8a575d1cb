"""torchvision's GoogLeNet, the published ImageNet Inception-v1 → a state dict of ``vadis.models.inception.Inception``.

The file is ``googlenet-1378be20.pth`` (see the catalog), a port of TensorFlow's weights: the widths, the 3×3 kernels in
the "5×5" branch and the epsilon are I3D's, and its first layer takes images in [-1, 1]. The two auxiliary classifiers
served training alone and are left out.
"""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

MARK = "inception3a.branch1.conv.weight"  # which no other known checkpoint has
IGNORED = re.compile(r"^aux[12]\.|\.num_batches_tracked$")
STEM = {"conv1": "Conv2d_1a_7x7", "conv2": "Conv2d_2b_1x1", "conv3": "Conv2d_2c_3x3"}
BLOCKS = {  # torchvision counts from a, TensorFlow from b, which leaves a to the pooling before
    "inception3a": "Mixed_3b",
    "inception3b": "Mixed_3c",
    "inception4a": "Mixed_4b",
    "inception4b": "Mixed_4c",
    "inception4c": "Mixed_4d",
    "inception4d": "Mixed_4e",
    "inception4e": "Mixed_4f",
    "inception5a": "Mixed_5b",
    "inception5b": "Mixed_5c",
}
BRANCHES = {
    "branch1": "Branch_0.Conv2d_0a_1x1",
    "branch2.0": "Branch_1.Conv2d_0a_1x1",
    "branch2.1": "Branch_1.Conv2d_0b_3x3",
    "branch3.0": "Branch_2.Conv2d_0a_1x1",
    "branch3.1": "Branch_2.Conv2d_0b_3x3",
    "branch4.1": "Branch_3.Conv2d_0b_1x1",  # branch4.0 is the pooling
}
LEAVES = {
    "conv.weight": "conv.weight",
    "bn.weight": "norm.weight",
    "bn.bias": "norm.bias",
    "bn.running_mean": "norm.running_mean",
    "bn.running_var": "norm.running_var",
}


def is_googlenet(names: Iterable[str]) -> bool:
    """Whether entries of these names are a GoogLeNet of torchvision's."""
    return MARK in set(names)


def from_googlenet(entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries under the names of ``Inception``; unknown ones keep theirs, and so are found by whoever checks."""
    state = {}
    for name, tensor in entries.items():
        key = from_googlenet_name(name)
        if key is not None:
            state[key] = tensor
    return state


def from_googlenet_name(name: str) -> str | None:
    """The state-dict key of an entry of torchvision's; None for what is not part of the network."""
    if IGNORED.search(name):
        return None
    if name in ("fc.weight", "fc.bias"):
        return name.replace("fc.", "Logits.")
    path, *leaf = name.rsplit(".", 2)
    unit, leaf_name = _unit(path), LEAVES.get(".".join(leaf))
    return f"body.{unit}.{leaf_name}" if unit and leaf_name else name


def _unit(path: str) -> str | None:
    """What a convolution of torchvision's is called here; None for one that is not known."""
    block, _, branch = path.partition(".")
    if not branch:
        return STEM.get(block)
    if block not in BLOCKS or branch not in BRANCHES:
        return None
    return f"{BLOCKS[block]}.{BRANCHES[branch]}"
