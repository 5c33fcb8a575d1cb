"""``vadis doctor``: what is installed, what is missing, and what to do about it."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import typer

import vadis
from vadis.cli.terminal import settings, show, stdout_console
from vadis.device import cpu_count
from vadis.errors import VadisError
from vadis.formats import visible

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

EPILOG = """
**Examples**

`vadis doctor`

Everything there is to know, for a bug report:  `vadis -v doctor`

**Exit codes**: 0 `vadis classify` works; 1 something is missing that it needs.
"""

OK, NOTE, LESS, MISSING = "ok", "note", "less", "missing"  # LESS: it works, but not as it should
_STYLES = {OK: "green", NOTE: "yellow", LESS: "bold yellow", MISSING: "bold red"}

PACKAGES = {
    "torch": "torch",
    "av": "av",
    "numba": "numba",
    "numpy": "numpy",
    "platformdirs": "platformdirs",
    "safetensors": "safetensors",
}
"""What classify imports: module → the package that holds it."""

CODECS = {
    "H.264": ("h264",),
    "H.265": ("hevc",),
    "VP8": ("vp8",),
    "VP9": ("vp9",),
    "AV1": ("libdav1d", "libaom-av1"),  # FFmpeg's own "av1" works with a graphics card only
    "MPEG-4": ("mpeg4",),
    "MPEG-2": ("mpeg2video",),
    "MPEG-1": ("mpeg1video",),
    "H.263": ("h263",),
    "Windows Media": ("wmv3", "vc1"),
    "Motion JPEG": ("mjpeg",),
    "ProRes": ("prores",),
    "Theora": ("theora",),
    "GIF": ("gif",),
}
"""The codecs that videos come in, each with the decoders of which one will do."""

LARGEST_DIFFERENCE = 0.01
"""Of the largest logit, between GPU and CPU: TF32 makes some 0.001, a wrong convolution a tenth and more."""

_ANSWER_SECONDS = 4.0  # for a host of weights to answer; somebody waits
_LOW_SPACE_BYTES = 1e9  # a model needs 0.1 GB to be fetched and as much again to be converted


@dataclass(frozen=True)
class Finding:
    """One line of the report. ``remedy`` says what to do about anything that is not ``ok``."""

    state: str
    what: str
    detail: str
    remedy: str | None = None


def doctor() -> None:
    """Show what vadis runs on, what is missing, and how to get it."""
    console = stdout_console()
    console.print(
        f"vadis {vadis.__version__}, Python {platform.python_version()}, {platform.platform()}", soft_wrap=True
    )
    states = set()
    for title, examine in SECTIONS.items():
        findings = list(_examined(examine))
        if findings:
            console.print(f"\n{title}", style="bold")
        for finding in findings:
            if console.is_terminal:
                console.print(_wrapped(finding))
            else:
                console.print(_line(finding), soft_wrap=True)
            states.add(finding.state)
    verdict = "works, but not with all that it should have" if LESS in states else "has all it needs"
    verdict = "cannot work before that is mended" if MISSING in states else verdict
    console.print(f"\nvadis classify {verdict}")
    if MISSING in states:
        raise typer.Exit(1)


def packages() -> Iterator[Finding]:
    """What classify imports, and OpenCV, which only draws."""
    for name, distribution in PACKAGES.items():
        remedy = f"install it again: pip install --force-reinstall {distribution}"
        module = _imported(name)
        if isinstance(module, ModuleType):
            yield Finding(OK, name, _version(distribution, module) + _extra(name, module))
        else:
            yield Finding(MISSING, name, module, remedy)
    yield _opencv()


def devices() -> Iterator[Finding]:
    """Where networks can run."""
    torch = _imported("torch")
    threads = f", {torch.get_num_threads()} used by PyTorch" if isinstance(torch, ModuleType) else ""
    yield Finding(OK, "cpu", f"{platform.machine()}, {cpu_count()} processors for this process{threads}")
    if not isinstance(torch, ModuleType):
        return
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        yield Finding(NOTE, "cuda", f"no GPU can be used (this PyTorch is {built}); the CPU is used instead")
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        yield Finding(OK, f"cuda:{index}", f"{facts.name}, {facts.total_memory / 1e9:.0f} GB")
        yield _agreement(index)


def models() -> Iterator[Finding]:
    """The cache, which models are in it, and which of them the next ``vadis classify`` uses."""
    from vadis.weights.cache import cache_folder, model_path
    from vadis.weights.catalog import SHIPPED, WEIGHTS

    yield _cache_state(cache_folder())
    for name, published in WEIGHTS.items():
        path = model_path(name)
        if path.is_file():
            yield Finding(OK, name, f"{path.stat().st_size / 1e6:.0f} MB")
        else:
            fetch = f"vadis weights download {name}"
            size = f" ({published.num_bytes / 1e6:.0f} MB)" if published.num_bytes else ""
            yield Finding(NOTE, name, f"not here yet{size}; fetched when it is needed", f"or now: {fetch}")
    for name, shipped in SHIPPED.items():
        if shipped.path.is_file():
            yield Finding(OK, name, f"comes with vadis, {shipped.path.stat().st_size / 1e6:.0f} MB")
        else:
            yield Finding(MISSING, name, f"{show(shipped.path)} is not there", "install vadis again")
    yield _next_model()


def _next_model() -> Finding:
    """Which model labels where none is named: a cache that has no default model needs a host that gives it."""
    from vadis.weights.cache import is_file, model_path
    from vadis.weights.catalog import DEFAULT_MODEL, STAND_IN, WEIGHTS
    from vadis.weights.download import why_unreachable

    what = "the next classify"
    if is_file(model_path(DEFAULT_MODEL)):
        return Finding(OK, what, f"uses {DEFAULT_MODEL}")
    try:
        reason = why_unreachable(WEIGHTS[DEFAULT_MODEL].files, _ANSWER_SECONDS)
    except VadisError as error:
        reason = error.message
    if reason is None:
        return Finding(OK, what, f"fetches {DEFAULT_MODEL} and uses it")
    detail = f"uses {STAND_IN} (by RGB alone), because {DEFAULT_MODEL} cannot be had: {reason}"
    return Finding(LESS, what, detail, f"`vadis weights download {DEFAULT_MODEL}` says how else to get it")


def codecs() -> Iterator[Finding]:
    """Which kinds of video the bundled FFmpeg decodes."""
    av = _imported("av")
    if not isinstance(av, ModuleType):
        yield Finding(MISSING, "FFmpeg", "comes with the package av, which is missing")
        return
    here = [name for name, decoders in CODECS.items() if any(_decodes(av, decoder) for decoder in decoders)]
    yield Finding(OK if here else MISSING, "decoded", ", ".join(here) or "nothing")
    absent = [name for name in CODECS if name not in here]
    if absent:
        remedy = "pip install --force-reinstall av, or convert such videos to H.264 first"
        yield Finding(NOTE, "not decoded", ", ".join(absent), remedy)


def confinement() -> Iterator[Finding]:
    """Whether the processes that decode can give up what they should; vadis works without that too."""
    if not isinstance(_imported("av"), ModuleType):
        return
    from vadis.video.isolated.pool import Decoders

    try:
        with Decoders() as decoders:
            lacking = decoders.lacks()
    except VadisError as error:
        yield Finding(MISSING, "decoding", error.message, "videos are decoded in processes of their own")
        return
    if not lacking:
        yield Finding(OK, "decoding", "in processes that cannot write files, open connections or start programs")
        return
    remedy = "formats and protocols are restricted in any case; a container may need another seccomp profile"
    yield Finding(NOTE, "decoding", f"in processes of their own, but {'; '.join(lacking)}", remedy)


def surroundings() -> Iterator[Finding]:
    """What else can matter, for ``--verbose``."""
    if not settings.verbose:
        return
    yield Finding(OK, "python", show(sys.executable))
    yield Finding(OK, "vadis", show(Path(vadis.__file__).parent))
    for name in ("VADIS_CACHE", "VADIS_MIRROR"):
        if name in os.environ:
            yield Finding(OK, name, "is set")
    if os.environ.get("VADIS_OFFLINE"):
        yield Finding(OK, "VADIS_OFFLINE", "is set: nothing is fetched")
    av = _imported("av")
    if isinstance(av, ModuleType):
        libraries = (f"{name} {'.'.join(map(str, version))}" for name, version in av.library_versions.items())
        yield Finding(OK, "FFmpeg", ", ".join(libraries))
    numba = _imported("numba")
    if isinstance(numba, ModuleType):
        yield Finding(OK, "numba", f"{numba.config.NUMBA_NUM_THREADS} threads")


SECTIONS: dict[str, Callable[[], Iterator[Finding]]] = {
    "Packages": packages,
    "Devices": devices,
    "Models": models,
    "Video codecs": codecs,
    "Protection from files": confinement,
    "Surroundings": surroundings,
}


def _agreement(index: int) -> Finding:
    """Whether a GPU gives what the CPU gives, for one clip through a network that comes with vadis."""
    import torch

    from vadis.device import cudnn_version, resolve_device
    from vadis.models.i3d import I3D
    from vadis.models.i3d_inference import FoldedI3D
    from vadis.weights.catalog import STAND_IN
    from vadis.weights.load import load_model

    name = f"cuda:{index}"
    try:
        device = resolve_device(name)
        network = load_model(STAND_IN, "cpu", offline=True).networks["rgb"]
        assert isinstance(network, I3D)
        clip = torch.rand(1, 3, 32, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
        here, there = (FoldedI3D(network, torch.device(where))(clip).cpu() for where in ("cpu", name))
    except (VadisError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        return Finding(MISSING, name, f"cannot compute: {reason}", "--device cpu does without it")
    share = float((here - there).abs().max() / here.abs().max())
    detail = f"differs from the CPU by {share:.1e} of the largest logit (cuDNN {cudnn_version(device)})"
    if share < LARGEST_DIFFERENCE:  # else also where it is not a number
        return Finding(OK, name, detail)
    return Finding(MISSING, name, detail, "its results are wrong: update PyTorch and the driver, or take --device cpu")


def _examined(examine: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield what a section finds; where a package that it needs cannot be imported, that."""
    try:
        yield from examine()
    except ImportError as error:
        yield Finding(MISSING, "not examined", str(error), "install it again, as said above")


def _line(finding: Finding) -> "Text":
    from rich.text import Text

    line = Text.assemble(
        "  ", (f"{finding.state:<7}", _STYLES[finding.state]), f"  {finding.what}: {visible(finding.detail)}"
    )
    if finding.remedy:
        line.append(f"\n           {finding.remedy}")
    return line


def _wrapped(finding: Finding) -> "Table":
    """The same for a terminal: what does not fit goes on below where it began."""
    from rich.table import Table
    from rich.text import Text

    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_column(width=2 + 7)
    row.add_column(overflow="fold")
    said = f"{finding.what}: {visible(finding.detail)}" + (f"\n{finding.remedy}" if finding.remedy else "")
    row.add_row(Text.assemble("  ", (finding.state, _STYLES[finding.state])), Text(said))
    return row


def _imported(name: str) -> ModuleType | str:
    """The module, or in one line why it cannot be imported."""
    try:
        return import_module(name)
    except Exception as error:  # noqa: BLE001 (whatever a broken installation raises is what is reported here)
        return str(error).splitlines()[0] if str(error) else type(error).__name__


def _version(distribution: str, module: ModuleType) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return str(getattr(module, "__version__", "version unknown"))


def _extra(name: str, module: ModuleType) -> str:
    return f", with FFmpeg {module.ffmpeg_version_info}" if name == "av" else ""


def _opencv() -> Finding:
    from vadis.video.encoder import load_opencv

    try:
        module = load_opencv()
    except VadisError as error:
        return Finding(NOTE, "opencv", error.message, f"only needed for drawing; {error.hint}")
    return Finding(OK, "opencv", f"{_version('opencv-python', module)} (it draws; classify does without it)")


def _cache_state(folder: Path) -> Finding:
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    detail = f"{show(folder)}, {free / 1e9:.1f} GB free"
    if not os.access(there, os.W_OK):
        return Finding(NOTE, "cache", f"{detail}, cannot be written to", "set VADIS_CACHE to a folder that can")
    if free < _LOW_SPACE_BYTES:
        return Finding(NOTE, "cache", detail, "free some space, or set VADIS_CACHE to a folder on another disk")
    return Finding(OK, "cache", detail)


def _decodes(av: ModuleType, decoder: str) -> bool:
    try:
        av.codec.Codec(decoder, "r")
    except ValueError:  # UnknownCodecError
        return False
    return True
