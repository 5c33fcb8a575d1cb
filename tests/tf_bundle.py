"""Writes TensorFlow V2 checkpoints, for tests: what ``vadis.weights.tf_checkpoint`` reads."""

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from vadis.models import STREAM_CHANNELS
from vadis.models.i3d import ROWS, Conv, Pool, scaled
from vadis.weights.tf_checkpoint import MASK_DELTA, crc32c

DTYPE_NUMBERS = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int8": 6, "int64": 9, "bool": 10, "float16": 19}
MAGIC = 0xDB4775248B80FB57
RESTART_INTERVAL = 16  # entries between two keys written in full


def write_bundle(prefix: Path, tensors: Mapping[str, np.ndarray], *, block_entries: int = 100) -> None:
    """Write ``prefix``.index and ``prefix``.data-00000-of-00001."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    entries = [(b"", header_message())]
    offset = 0
    with prefix.with_name(f"{prefix.name}.data-00000-of-00001").open("wb") as data:
        for name in sorted(tensors, key=str.encode):
            content = np.ascontiguousarray(tensors[name]).tobytes()
            data.write(content)
            entries.append((name.encode(), entry_message(tensors[name], offset, content)))
            offset += len(content)
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(entries, block_entries))


def table(entries: list[tuple[bytes, bytes]], block_entries: int = 100) -> bytes:
    """A LevelDB table of sorted entries."""
    content, handles = b"", []
    for first in range(0, len(entries), block_entries):
        chunk = entries[first : first + block_entries]
        content, handle = _append_block(content, block(chunk))
        handles.append((chunk[-1][0] + b"\xff", handle))
    content, meta = _append_block(content, block([]))
    content, index = _append_block(content, block(handles))
    return content + (meta + index).ljust(40, b"\0") + MAGIC.to_bytes(8, "little")


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """A block, its keys compressed by their common prefixes."""
    content, restarts, previous = b"", [], b""
    for number, (key, value) in enumerate(entries):
        if number % RESTART_INTERVAL == 0:
            restarts.append(len(content))
            previous = b""
        shared = 0
        while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
            shared += 1
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        previous = key
    restarts = restarts or [0]
    return content + b"".join(position.to_bytes(4, "little") for position in (*restarts, len(restarts)))


def _append_block(content: bytes, block_content: bytes, compression: int = 0) -> tuple[bytes, bytes]:
    body = block_content + bytes([compression])
    handle = varint(len(content)) + varint(len(block_content))
    return content + body + masked(crc32c(body)).to_bytes(4, "little"), handle


def masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + MASK_DELTA) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    octets = b""
    while value >= 0x80:
        octets += bytes([value & 0x7F | 0x80])
        value >>= 7
    return octets + bytes([value])


def header_message(num_shards: int = 1) -> bytes:
    return b"\x08" + varint(num_shards) + b"\x1a\x02\x08\x01"


def entry_message(value: np.ndarray, offset: int, content: bytes) -> bytes:
    dims = b"".join(b"\x12" + varint(len(dim)) + dim for dim in (b"\x08" + varint(size) for size in value.shape))
    message = b"\x08" + varint(DTYPE_NUMBERS[value.dtype.name]) + b"\x12" + varint(len(dims)) + dims
    message += b"\x20" + varint(offset) if offset else b""
    return message + b"\x28" + varint(len(content)) + b"\x35" + masked(crc32c(content)).to_bytes(4, "little")


def i3d_variables(stream: str, classes: int, width: float = 1.0, *, kinetics600: bool = False) -> dict[str, np.ndarray]:
    """Random variables of DeepMind's I3D, named and shaped as in their checkpoints.

    ``kinetics600`` follows rgb_scratch_kin600: no prefix, 5-D batch norm, momentum slots.
    """
    prefix = "" if kinetics600 else {"rgb": "RGB", "flow": "Flow"}[stream] + "/inception_i3d/"
    shapes = {}
    for unit, shape in _convolutions(STREAM_CHANNELS[stream], width):
        if unit == "Mixed_5b/Branch_2/Conv3d_0b_3x3":
            unit = "Mixed_5b/Branch_2/Conv3d_0a_3x3"
        shapes[f"{unit}/conv_3d/w"] = shape
        for leaf in ("beta", "moving_mean", "moving_variance"):
            shapes[f"{unit}/batch_norm/{leaf}"] = (1, 1, 1, 1, shape[-1]) if kinetics600 else shape[-1:]
    features = sum(scaled(channels, width) for channels in (384, 384, 128, 128))
    shapes["Logits/Conv3d_0c_1x1/conv_3d/w"] = (1, 1, 1, features, classes)
    shapes["Logits/Conv3d_0c_1x1/conv_3d/b"] = (classes,)
    variables = {prefix + name: draw(prefix + name, shape) for name, shape in shapes.items()}
    if kinetics600:
        trained = [name for name in variables if name.endswith(("/w", "/b", "/beta"))]
        variables |= {f"{name}/Momentum": np.zeros_like(variables[name]) for name in trained}
    return variables


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A value that depends on the name and shape alone, of a size that keeps activations finite."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    leaf = name.rsplit("/", 1)[1]
    if leaf == "w":
        return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))).astype("f4")
    if leaf == "moving_variance":
        return rng.uniform(0.5, 1.5, shape).astype("f4")
    return (rng.standard_normal(shape) * 0.1).astype("f4")


def _convolutions(channels: int, width: float) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Unit names and kernel shapes (D, H, W, in, out) of all but the last layer."""
    for row in ROWS:
        if isinstance(row, Conv):
            yield row.name, (*row.kernel, channels, scaled(row.channels, width))
            channels = scaled(row.channels, width)
        elif not isinstance(row, Pool):
            total = 0
            for index, branch in enumerate(row.branches()):
                inner = channels
                for unit in branch:
                    if isinstance(unit, Conv):
                        name = f"{row.name}/Branch_{index}/{unit.name}"
                        yield name, (*unit.kernel, inner, scaled(unit.channels, width))
                        inner = scaled(unit.channels, width)
                total += inner
            channels = total
