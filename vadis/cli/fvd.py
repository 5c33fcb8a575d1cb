"""``vadis fvd``: how far generated videos are from real ones, as papers on video generation measure it."""

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vadis.batch import Journal, changes
from vadis.cli import options
from vadis.cli.options import MODEL, OUTPUT, STREAM_CHOICES, choice, flag, option
from vadis.cli.outputs import Destination, check_file, new_folder, writing
from vadis.cli.run import SOME_FAILED, Run, find_inputs, load_for_command
from vadis.cli.terminal import info, num_videos, show, warn
from vadis.errors import NothingToDoError, UsageError
from vadis.formats import FORMATS
from vadis.parsing import is_text
from vadis.video.container import HEAD_BYTES, read_part
from vadis.video.sources import ARRAY_EXTENSIONS, VIDEO_EXTENSIONS
from vadis.weights.catalog import STAND_IN

if TYPE_CHECKING:
    from vadis.evaluation.embedding import Embedding
    from vadis.evaluation.frechet import VideoSet
    from vadis.models.card import Model

PROTOCOL_NAMES = ("reference", "stylegan-v", "tats", "common-metrics")

EPILOG = """
How far are generated videos from real ones?  `vadis fvd real/ generated/`

As the StyleGAN-V paper counts, to go on after an interruption:
`vadis fvd real/ generated/ --protocol stylegan-v -o run/`

The real side once, for many models:  `vadis fvd real/ --save real.npz`, then `vadis fvd real.npz generated/`

**Exit codes**: 0 every video counted; 1 could not go on; 2 wrong use; 3 finished, but some videos failed;
4 no video found; 5 another run writes this output; 130 and 143 interrupted.
"""

HOW = "What is compared"
_SET = "A folder, glob, list (.txt), array (.npy, .npz), or saved statistics."
_PROTOCOL = "Which frames, how they are resized, which covariance: as a paper has it."
_FRAMES = "Frames of each video, 9 at least; by default as the protocol has it."
_SEED = "For clips that begin anywhere, and for samples."
_STREAMS = "What is compared; flow and both take a two-stream model, and compare with no published number."
_MODEL = "A name or model file; by default DeepMind's RGB network, in full precision if it is here."
_OUTPUT = "Keep what each video gave in DIR; the same command then goes on where it stopped."
_SAVE = "Keep the statistics of REAL, to be given in its place."
_BOOTSTRAP = "Samples for the interval; 0: none."
_UNBIASED = "Also extrapolate to infinitely many videos."
_KERNEL = "Also the kernel video distance."
_PER_CLASS = "Also a distance for each class, a folder of the same name in REAL and GENERATED."


def fvd(
    real: Annotated[str, typer.Argument(metavar="REAL", help=_SET, show_default=False)],
    generated: Annotated[str | None, typer.Argument(metavar="GENERATED", help=_SET, show_default=False)] = None,
    protocol: Annotated[str, choice(HOW, _PROTOCOL, PROTOCOL_NAMES)] = "reference",
    clip_length: Annotated[int | None, option(HOW, _FRAMES, metavar="N", min=9)] = None,
    seed: Annotated[int, option(HOW, _SEED, metavar="N", min=0)] = 0,
    model: Annotated[str | None, option(MODEL, _MODEL, "--model", "-m", **options.OF_MODEL)] = None,
    streams: Annotated[str, choice(MODEL, _STREAMS, STREAM_CHOICES)] = "rgb",
    bootstrap: Annotated[int, option(HOW, _BOOTSTRAP, metavar="N", min=0)] = 100,
    unbiased: Annotated[bool, flag(HOW, _UNBIASED, "--unbiased")] = False,
    kernel: Annotated[bool, flag(HOW, _KERNEL, "--kernel")] = False,
    per_class: Annotated[bool, flag(HOW, _PER_CLASS, "--per-class")] = False,
    output: Annotated[Path | None, option(OUTPUT, _OUTPUT, "--output", "-o", metavar="DIR")] = None,
    save: Annotated[Path | None, option(OUTPUT, _SAVE, metavar="FILE")] = None,
    as_json: options.AsJson = False,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    jobs: options.Jobs = 0,
    offline: options.Offline = False,
) -> None:
    """How far are generated videos from real ones? The Fréchet video distance (FVD), exactly."""
    if generated is None and save is None:
        raise UsageError("GENERATED is missing", "name it, or keep the statistics of REAL with --save")
    if save is not None:
        check_file(save, overwrite, extensions=(".npz",))
        if not save.suffix:
            raise UsageError(f"{show(save)} would not be known again", f"let it end with .npz: {show(save)}.npz")
    from tempfile import TemporaryDirectory

    from vadis.evaluation import frechet
    from vadis.evaluation.embedding import PROTOCOLS, Embedding, check_model

    sets = [find_set(name, given) for name, given in (("real", real), ("generated", generated)) if given is not None]
    num_saved = sum(each.is_saved for each in sets)
    if ((kernel or per_class) and num_saved) or (unbiased and num_saved == 2):
        message = "saved statistics have no videos for --kernel and --per-class, nor two of them for --unbiased"
        raise UsageError(message, "give the videos themselves")
    for each in sets if per_class else ():
        for source in each.sources:
            frechet.class_of(each.given, source.path)  # which refuses a video that is in no folder of a class
    opened: AbstractContextManager[str | Path]
    opened = new_folder(output) if output else TemporaryDirectory(prefix="vadis-fvd-")
    with opened as folder:
        loaded = load_fvd_model(model, streams, device, offline)
        rules = PROTOCOLS[protocol]
        embedding = Embedding(check_model(loaded), protocol, clip_length or rules.frames, seed=seed)
        for each in sets:
            own = replace(embedding, random_start=rules.random_start and each.name == "real")
            embed(each, own, Path(folder), jobs, overwrite, resumable=output is not None)
        if save is not None:
            with writing(show(save)):
                frechet.save(save, sets[0])
            info(f"written: {show(save)}")
        if len(sets) == 2:
            result = frechet.compare(sets, embedding, bootstrap, unbiased, kernel, per_class)
            typer.echo(json.dumps(result, indent=1, allow_nan=False) if as_json else "\n".join(lines(result)))
            for warning in result["warnings"]:
                warn(warning)
    if any(each.failed for each in sets):
        raise typer.Exit(SOME_FAILED)


def load_fvd_model(name: str | None, streams: str, device: str, offline: bool) -> "Model":
    """Return the model of this name, or DeepMind's: in full precision where it is here, or has the streams wanted."""
    from vadis.evaluation.frechet import FULL_PRECISION
    from vadis.weights.cache import is_file, model_path

    full = streams != "rgb" or is_file(model_path(FULL_PRECISION))
    return load_for_command(name or (FULL_PRECISION if full else STAND_IN), streams, device, offline)


def find_set(name: str, given: str) -> "VideoSet":
    """Return the videos that an argument stands for, or the statistics in a file."""
    from vadis.evaluation.embedding import expand_array
    from vadis.evaluation.frechet import VideoSet, load_statistics

    is_there, extension = Path(given).is_file(), os.path.splitext(given)[1].lower()  # noqa: PTH122
    if is_there and extension == ".npz" and (saved := load_statistics(name, given)):
        return saved
    is_list = is_there and extension not in (*VIDEO_EXTENSIONS, *ARRAY_EXTENSIONS)
    is_list = is_list and is_text(read_part(given, 0, HEAD_BYTES))
    found = find_inputs([] if is_list else [given], given if is_list else None, False, arrays=True)
    videos = [video for source in found for video in expand_array(source)]
    if not videos:
        raise NothingToDoError(f"there is no video in {show(given)}", "an array is (N, T, H, W, 3), with N from 2 on")
    return VideoSet(name, given, videos)


def embed(
    videos: "VideoSet", embedding: "Embedding", folder: Path, jobs: int, overwrite: bool, resumable: bool
) -> None:
    """Fill in the rows of a set; raise UsageError where statistics were saved with other settings than these."""
    if videos.is_saved:
        if others := changes(videos.settings, embedding.settings):
            hint = "give the same options as then, or the videos"
            raise UsageError(f"{show(videos.given)} was saved with other settings: {others}", hint)
        return
    from vadis.evaluation.embedding import stamp_of

    info(f"{videos.name}: {num_videos(len(videos.sources))} in {show(videos.given)}")
    destination = Destination(folder / f"{videos.name}.jsonl", None, FORMATS["jsonl"], None, 0.0, overwrite, False)
    with destination.open([], [source.path for source in videos.sources]):
        run = Run(*destination.begin(embedding.settings, videos.sources, stamp_of), resumable=resumable)
        records = embedding.embed(run.paths(), jobs=jobs, progress=run.report)
        run.complete(records, destination.write)
        assert isinstance(destination.journal, Journal)
        videos.read_rows(destination.journal)
    videos.settings, videos.failed = embedding.settings, run.summary.statuses["error"]


def lines(result: dict[str, Any]) -> Iterator[str]:
    """Yield the result for people."""
    value = f"{result['fvd']:.4f}"
    if "interval_95" in result:
        low, high = result["interval_95"]
        value += f"   (95 % interval {low:.4f} to {high:.4f}, {result['bootstrap_samples']} bootstrap samples)"
    yield f"FVD        {value}"
    for key, title in (("fvd_unbiased", "unbiased"), ("kvd", "KVD")):
        if key in result:
            yield f"{title:<10} {result[key]:.4f}"
    for side in ("real", "generated"):
        about = result[side]
        least, most = about["clip_frames"]
        frames = f"{least}" if least == most else f"{least} to {most}"
        seen = f"{num_videos(about['n'])} of {frames} frames from {about['start']}"
        yield f"{side:<10} {seen}   {about['given']}   {about['inputs_sha256'][:12]}"
    about = result["generated"]
    rules = f"{about['protocol']}: resized by {about['resize']}, covariance over {result['covariance_over']}"
    yield f"protocol   {rules}   ({result['source']})"
    seen_by = f"{about['model']}, {' and '.join(about['streams'])}, weights of {result['weights']}"
    yield f"model      {seen_by}   {str(about['model_sha256'])[:12]}"
    for name, found in result.get("per_class", {}).items():
        value = "–" if found["fvd"] is None else f"{found['fvd']:.4f}"
        yield f"  {value:>12}  {name} ({found['real']:,} and {found['generated']:,} videos)"
