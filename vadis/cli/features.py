"""``vadis features``: what the network holds over time, in the layouts that other programs read."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vadis.batch import Summary, changes
from vadis.cli import options
from vadis.cli.options import MODEL, OUTPUT, TIME, choice, flag, offer, option
from vadis.cli.outputs import mirror_path, new_folder, tree_root, writing
from vadis.cli.run import Run, find_inputs, load_for_command
from vadis.cli.terminal import show
from vadis.errors import UsageError, VideoError
from vadis.results import VideoResult, part_of

if TYPE_CHECKING:
    from vadis.inference.features import Features, Layout

EPILOG = """
1024 numbers per stream, every 0.32 s of every video:  `vadis features clips/ -o features/`

One set per separate window of 64 frames:  `vadis features clips/ -o windows/ --window 64`

An earlier layer, by DeepMind's name:  `vadis features holiday.mp4 -o early/ --layer Mixed_4f --streams rgb`

As ActionFormer reads them:  `vadis features clips/ -o i3d_features/ --preset actionformer`
"""


_WINDOWS = {"whole_windows": True, "fps": "native", "format_name": "npy"}
PRESETS: dict[str, dict[str, Any]] = {
    "actionformer": _WINDOWS | {"streams": "both", "window": 16, "stride": 4, "join": True},
    "video-features": _WINDOWS | {"streams": "both", "window": 64, "stride": 64},
    "anomaly": _WINDOWS | {"streams": "rgb", "window": 16, "stride": 16, "crops": "10", "join": True},
    "whole-video": {"streams": "rgb", "format_name": "npy", "join": True},
}
"""What a program reads, by the parameters of ``features``; docs/command-line.md says where that is written."""


def _take_preset(context: typer.Context, name: str | None) -> str | None:
    """Make a preset the defaults of all other options, which are read after it."""
    if name is not None and name not in PRESETS:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(PRESETS)}")
    context.default_map = PRESETS.get(name or "")
    return name


def _check_rate(name: str) -> str:
    if name != "native" and not (name.isdecimal() and 1 <= int(name) <= 240):
        raise typer.BadParameter(f"{name!r} is no number from 1 to 240, and not native")
    return name


_OUTPUT = "The files of each video, in the same tree as the inputs."
_PRESET = "All that follows as a program reads it; options of their own go before it."
_WHOLE = "Leave out the frames behind the last whole window; else a last window ends with the video."
_FPS = "Frames per second; native: every frame of the file."
_RESIZE = "Frames with a short side of 256 pixels, or whole frames as 224×224."
_CROPS = "Views of each frame, kept apart: the centre; three along the longer side; corners and centre, mirrored too."
_FORM = "One .npz with times and record, or arrays alone, and the rest beside them as JSON."
_JOIN = "RGB and flow as one array, one after the other along the channels."

_NAMES = {"metavar": "|".join(PRESETS), "autocompletion": offer(lambda: PRESETS)}
PresetName = Annotated[str | None, option(OUTPUT, _PRESET, "--preset", **_NAMES, callback=_take_preset, is_eager=True)]


def features(
    output: Annotated[Path, option(OUTPUT, _OUTPUT, "--output", "-o", metavar="DIR")],
    inputs: options.Inputs = None,
    from_file: options.FromFile = None,
    null: options.Null = False,
    model: options.ModelName = None,
    streams: options.Streams = None,
    layer: Annotated[str, option(MODEL, "DeepMind's endpoint, or Pooled.", "--layer", metavar="NAME")] = "Pooled",
    flip: options.Flip = False,
    preset: PresetName = None,
    window: options.Window = None,
    stride: options.Stride = None,
    start: options.Start = None,
    end: options.End = None,
    whole_windows: Annotated[bool, flag(TIME, _WHOLE, "--whole-windows")] = False,
    fps: Annotated[str, option(TIME, _FPS, "--fps", metavar="N|native", callback=_check_rate)] = "25",
    resize: Annotated[str, choice(MODEL, _RESIZE, ("short256", "square224"), "--resize")] = "short256",
    crops: Annotated[str, choice(MODEL, _CROPS, ("1", "3", "10"), "--crops")] = "1",
    format_name: Annotated[str, choice(OUTPUT, _FORM, ("npz", "npy"), "--format", "-f")] = "npz",
    join: Annotated[bool, flag(OUTPUT, _JOIN, "--join")] = False,
    dtype: Annotated[str, choice(OUTPUT, "The numbers.", ("float32", "float16"), "--dtype")] = "float32",
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    precision: options.Precision = "fp32",
    jobs: options.Jobs = 0,
    batch_size: options.BatchSize = 0,
    offline: options.Offline = False,
) -> None:
    """Keep what the network holds of videos over time, for models of your own; run again to go on where it stopped."""
    part = part_of(start, end)
    found = find_inputs(inputs or [], from_file, null)
    paths = [source.path for source in found if source.error is None]
    targets = _targets(paths, output, tree_root(inputs or [], paths), format_name)
    with new_folder(output):
        loaded = load_for_command(model, streams, device, offline, precision=precision)

        from vadis.inference.features import Layout, Look, features_of_videos, settings_of
        from vadis.inference.predict import Sliding
        from vadis.inference.prefetch import Sampling

        layout, summary = Layout(format_name, join, dtype), Summary(len(found))
        sampling = Sampling(None if fps == "native" else int(fps), resize, int(crops))
        look = Look(layer, Sliding(window=window, stride=stride, regular=whole_windows), flip, sampling, part)
        settings = settings_of(loaded, look, layout)
        done = {path for path, target in targets.items() if not overwrite and _is_done(target, settings)}
        summary.statuses["skipped"] = len(done)
        run = Run([source for source in found if source.path not in done], summary)
        how: dict[str, Any] = {"batch_size": batch_size, "jobs": jobs, "listed": True, "progress": run.report}
        outcomes = features_of_videos(run.paths(), loaded, look, **how)
        raise typer.Exit(run.complete(_save(path, each, targets[path], settings, layout) for path, each in outcomes))


def _targets(paths: list[str], output: Path, root: str, form: str) -> dict[str, Path]:
    """Return the place of each video's .npz, or of the JSON beside its .npy, which has no name's extension.

    Raise UsageError where two videos would have one.
    """
    stems = {path: path if form == "npz" else os.path.splitext(path)[0] for path in paths}  # noqa: PTH122
    targets = {path: mirror_path(output, root, form.replace("npy", "json"), stem) for path, stem in stems.items()}
    taken: dict[Path, str] = {}
    for path, target in targets.items():
        if (other := taken.setdefault(target, path)) != path:
            hint = "keep them as .npz, whose names have the extension, or in folders of their own"
            raise UsageError(f"{show(path)} and {show(other)} differ in their extension alone", hint)
    return targets


def _is_done(target: Path, settings: dict[str, Any]) -> bool:
    """Return whether features are there already; raise UsageError for those of other settings."""
    from vadis.inference.features import saved_settings

    there = saved_settings(target)
    if there is not None and there != settings:
        hint = "choose another folder, or add --overwrite"
        raise UsageError(f"{show(target)} has other settings: {changes(there, settings)}", hint)
    return there is not None


def _save(
    path: str, outcome: "Features | VideoError", target: Path, settings: dict[str, Any], layout: "Layout"
) -> VideoResult:
    """Write the features of a video, and return its record; an error gives the record of a failed video."""
    from vadis.inference.features import save_features

    try:
        if isinstance(outcome, VideoError):
            raise outcome
        with writing(show(target)):
            save_features(outcome, target, settings, layout)
    except VideoError as error:
        return VideoResult(path, "error", error_code=error.code, error_message=error.in_full)
    return outcome.record
