"""Which published model a model is, by its tensors: a file can have any name, and a name any file.

DeepMind's checkpoints hold the CRC-32C of every tensor. The catalog has of each network that of the last bias, by which
nearly every other model is told apart at once, and the SHA-256 of all of them, as lines ``key crc`` in their order.
"""

import hashlib

import numpy as np
from torch import Tensor, nn

from vadis.models import Model
from vadis.weights.catalog import WEIGHTS, TensorSums
from vadis.weights.labels import published_labels
from vadis.weights.tf_checkpoint import crc32c

LAST_BIAS = "Logits.Conv3d_0c_1x1.conv.bias"
NOT_PUBLISHED = (".norm.weight", ".num_batches_tracked")  # endings of what DeepMind's networks do not have


def published_name(model: Model) -> str | None:
    """Return the name of the published model whose networks, or some of them, these are; None for any other."""
    for name, row in WEIGHTS.items():
        sums = row.tensor_sums
        if not model.networks or not model.networks.keys() <= sums.keys():
            continue
        has_labels = model.card.labels == published_labels(row.labels)
        if has_labels and all(_is_published(network, sums[stream]) for stream, network in model.networks.items()):
            return name
    return None


def tensor_sums(network: nn.Module) -> TensorSums:
    """Return the sums of a network of DeepMind's architecture, as the catalog has them."""
    state = {key: value for key, value in network.state_dict().items() if not key.endswith(NOT_PUBLISHED)}
    sums = {key: _crc(key, value) for key, value in state.items()}
    text = "".join(f"{key} {sums[key]:08x}\n" for key in sorted(sums))
    return TensorSums(sums[LAST_BIAS], hashlib.sha256(text.encode("ascii")).hexdigest())


def _is_published(network: nn.Module, sums: TensorSums) -> bool:
    bias = network.state_dict().get(LAST_BIAS)
    return bias is not None and _crc(LAST_BIAS, bias) == sums.last_bias and tensor_sums(network) == sums


def _crc(key: str, value: Tensor) -> int:
    """Return the CRC-32C of a tensor as it lies in DeepMind's checkpoints."""
    value = value.detach().cpu()
    if key.endswith("conv.weight"):
        value = value.permute(2, 3, 4, 1, 0)  # (out, in, D, H, W) → (D, H, W, in, out)
    return crc32c(np.ascontiguousarray(value.numpy(), "<f4").tobytes())
