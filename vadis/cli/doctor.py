"""``vadis doctor``: what is installed, what is missing, and what to do about it."""

import os
import platform
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

import vadis
from vadis.cli.terminal import show, stdout_console
from vadis.device import cpu_count, cudnn_version, resolve_device
from vadis.errors import VadisError
from vadis.formats import visible
from vadis.weights.catalog import DEFAULT_MODEL, SHIPPED, STAND_IN, WEIGHTS

if TYPE_CHECKING:
    from rich.text import Text

EPILOG = """
`vadis doctor`

**Exit codes**: 0 `vadis classify` works; 1 something is missing that it needs.
"""

OK, NOTE, LESS, MISSING = "ok", "note", "less", "missing"  # LESS: it works, but not as it should
_STYLES = {OK: "green", NOTE: "yellow", LESS: "bold yellow", MISSING: "bold red"}

_CODECS = (
    "H.264=h264, H.265=hevc, VP8=vp8, VP9=vp9, AV1=libdav1d libaom-av1, MPEG-4=mpeg4, MPEG-2=mpeg2video, "
    "MPEG-1=mpeg1video, H.263=h263, Windows Media=wmv3 vc1, Motion JPEG=mjpeg, ProRes=prores, Theora=theora, GIF=gif"
)  # without FFmpeg's own "av1", which works with a graphics card only
CODECS = {name: decoders.split() for name, decoders in (codec.split("=") for codec in _CODECS.split(", "))}
"""The codecs that videos come in, each with the decoders of which one will do."""


class Finding(NamedTuple):
    """One line of the report. ``remedy`` says what to do about anything that is not ``ok``."""

    state: str
    what: str
    detail: str
    remedy: str = ""


def doctor() -> None:
    """Show what vadis runs on, what is missing, and how to get it."""
    console = stdout_console()
    system = f"Python {platform.python_version()}, {platform.platform()}"
    console.print(f"vadis {vadis.__version__}, {system}", soft_wrap=True)
    width = console.width if console.is_terminal else sys.maxsize
    states = set()
    for title, examine in SECTIONS.items():
        console.print(f"\n{title}", style="bold")
        findings = list[Finding]()
        try:
            findings.extend(examine())
        except ImportError as error:  # of a package that the section needs
            findings.append(Finding(MISSING, "not examined", _reason(error), "install it again, as said above"))
        for finding in findings:
            console.print(_text(finding, width), soft_wrap=True)
            states.add(finding.state)
    verdict = "works, but not with all that it should have" if LESS in states else "has all it needs"
    verdict = "cannot work before that is mended" if MISSING in states else verdict
    console.print(f"\nvadis classify {verdict}")
    if MISSING in states:
        raise typer.Exit(1)


def _text(finding: Finding, width: int) -> "Text":
    """Return a finding with its remedy below; what does not fit goes on below where it began."""
    from rich.text import Text

    indent = " " * 11
    wrapper = textwrap.TextWrapper(width, indent, indent, break_on_hyphens=False)
    said = filter(None, (f"{finding.what}: {visible(finding.detail)}", finding.remedy))
    lines = "\n".join(map(wrapper.fill, said))
    return Text.assemble("  ", (f"{finding.state:<7}", _STYLES[finding.state]), lines[9:])


def packages() -> Iterator[Finding]:
    """Yield what classify imports, and OpenCV, which only draws."""
    for name in ("torch", "av", "numba", "numpy", "platformdirs", "safetensors"):  # modules and packages alike
        try:
            module = import_module(name)
        except Exception as error:  # noqa: BLE001 (whatever a broken installation raises is what is reported here)
            yield Finding(MISSING, name, _reason(error), f"install it again: pip install --force-reinstall {name}")
        else:
            extra = f", with FFmpeg {module.ffmpeg_version_info}" if name == "av" else ""
            yield Finding(OK, name, f"{module.__version__}{extra}")
    from vadis.video.encoder import load_opencv

    try:
        yield Finding(OK, "opencv", f"{load_opencv().__version__} (it draws; classify does without it)")
    except VadisError as error:
        yield Finding(NOTE, "opencv", error.message, f"only needed for drawing; {error.hint}")


def devices() -> Iterator[Finding]:
    """Yield where networks can run."""
    yield Finding(OK, "cpu", f"{platform.machine()}, {cpu_count()} processors for this process")
    torch = import_module("torch")
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        yield Finding(NOTE, "cuda", f"no GPU can be used (this PyTorch is {built}); the CPU is used instead")
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        yield Finding(OK, f"cuda:{index}", f"{facts.name}, {facts.total_memory / 1e9:.0f} GB")
        yield _agreement(f"cuda:{index}")


def _agreement(name: str) -> Finding:
    """Return whether a GPU gives what the CPU gives, for one clip through a network that comes with vadis."""
    import torch

    from vadis.models.i3d import I3D
    from vadis.models.i3d_inference import FoldedI3D

    try:
        device = resolve_device(name)
        network = vadis.load_model(STAND_IN, "cpu", offline=True).networks["rgb"]
        assert isinstance(network, I3D)
        clip = torch.rand(1, 3, 32, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
        here, there = (FoldedI3D(network, torch.device(where))(clip).cpu() for where in ("cpu", name))
    except (VadisError, RuntimeError) as error:
        return Finding(MISSING, name, f"cannot compute: {_reason(error)}", "--device cpu does without it")
    share = float((here - there).abs().max() / here.abs().max())
    detail = f"differs from the CPU by {share:.1e} of the largest logit (cuDNN {cudnn_version(device)})"
    if share < 0.01:  # TF32 makes some 0.001; a wrong convolution a tenth and more, or NaN
        return Finding(OK, name, detail)
    return Finding(MISSING, name, detail, "its results are wrong: update PyTorch and the driver, or take --device cpu")


def models() -> Iterator[Finding]:
    """Yield the cache, which models are in it, and which of them the next ``vadis classify`` uses."""
    from vadis.weights.cache import cache_folder, is_file, model_path

    yield _cache_state(cache_folder())
    paths = {name: model_path(name) for name in WEIGHTS} | {name: shipped.path for name, shipped in SHIPPED.items()}
    for name, path in paths.items():
        if is_file(path):
            yield Finding(OK, name, f"{path.stat().st_size / 1e6:.0f} MB")
        elif name in SHIPPED:
            yield Finding(MISSING, name, f"{show(path)} is not there", "install vadis again")
        else:
            fetch = f"or now: vadis weights download {name}"
            yield Finding(NOTE, name, "not here yet; fetched when it is needed", fetch)
    yield _next_model()


def _cache_state(folder: Path) -> Finding:
    there = next(each for each in (folder, *folder.parents) if os.path.exists(each))  # noqa: PTH110 (Path's may raise)
    free = shutil.disk_usage(there).free
    detail = f"{show(folder)}, {free / 1e9:.1f} GB free"
    if not os.access(there, os.W_OK):
        return Finding(NOTE, "cache", f"{detail}, cannot be written to", "set VADIS_CACHE to a folder that can")
    if free < 1e9:  # a model needs 0.1 GB to be fetched and as much again to be converted
        return Finding(NOTE, "cache", detail, "free some space, or set VADIS_CACHE to a folder on another disk")
    return Finding(OK, "cache", detail)


def _next_model() -> Finding:
    """Return which model labels where none is named: a cache without the default model needs a host that gives it."""
    from vadis.weights.cache import is_file, model_path, why_unreachable

    what = "the next classify"
    if is_file(model_path(DEFAULT_MODEL)):
        return Finding(OK, what, f"uses {DEFAULT_MODEL}")
    try:
        reason = why_unreachable(WEIGHTS[DEFAULT_MODEL].files, 4.0)  # seconds: somebody waits
    except VadisError as error:
        reason = error.message
    if reason is None:
        return Finding(OK, what, f"fetches {DEFAULT_MODEL} and uses it")
    detail = f"uses {STAND_IN} (by RGB alone), because {DEFAULT_MODEL} cannot be had: {reason}"
    return Finding(LESS, what, detail, f"`vadis weights download {DEFAULT_MODEL}` says how else to get it")


def codecs() -> Iterator[Finding]:
    """Yield which kinds of video the bundled FFmpeg decodes."""
    available = import_module("av").codec.codecs_available
    here = [name for name, decoders in CODECS.items() if not available.isdisjoint(decoders)]
    yield Finding(OK if here else MISSING, "decoded", ", ".join(here) or "nothing")
    if absent := [name for name in CODECS if name not in here]:
        remedy = "pip install --force-reinstall av, or convert such videos to H.264 first"
        yield Finding(NOTE, "not decoded", ", ".join(absent), remedy)


def sandbox() -> Iterator[Finding]:
    """Yield whether the processes that decode can give up what they should; vadis works without that too."""
    from vadis.video.isolated.pool import Decoders

    try:
        with Decoders() as decoders:
            lacking = decoders.missing_restrictions()
    except VadisError as error:
        yield Finding(MISSING, "decoding", error.message, "videos are decoded in processes of their own")
        return
    if lacking:
        remedy = "formats and protocols are restricted in any case; a container may need another seccomp profile"
        yield Finding(NOTE, "decoding", f"in processes of their own, but {'; '.join(lacking)}", remedy)
    else:
        yield Finding(OK, "decoding", "in processes that cannot write files, open connections or start programs")


SECTIONS: dict[str, Callable[[], Iterator[Finding]]] = {
    "Packages": packages,
    "Devices": devices,
    "Models": models,
    "Video codecs": codecs,
    "Protection from files": sandbox,
}


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
