"""``vadis features``: what the network holds over time, in the layouts that other programs read."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from vadis.batch.journal import Summary
from vadis.cli import options
from vadis.cli.options import MODEL, OUTPUT, TIME, choice, flag, option
from vadis.cli.outputs import mirrored, new_folder, tree_root, writing
from vadis.cli.run import Run, find_inputs, load_for_command
from vadis.cli.terminal import show
from vadis.errors import UsageError, VideoError
from vadis.results import VideoResult

if TYPE_CHECKING:
    from vadis.inference.features import Features, Layout

EPILOG = """
1024 numbers per stream, every 0.32 s of every video:  `vadis features clips/ -o features/`

One set per separate window of 64 frames:  `vadis features clips/ -o windows/ --window 64`

An earlier layer, by DeepMind's name:  `vadis features holiday.mp4 -o early/ --layer Mixed_4f --streams rgb`

As ActionFormer reads them:  `vadis features clips/ -o i3d_features/ --preset actionformer`
"""


class Preset(NamedTuple):
    """What a program reads, by the names of the options; docs/command-line.md says where that is written."""

    streams: str | None = None
    window: int | None = None
    stride: int | None = None
    whole_windows: bool = False
    fps: str = "25"
    resize: str = "short256"
    crops: str = "1"
    form: str = "npz"
    join: bool = False
    dtype: str = "float32"


_MOST_FPS = 240
NO_PRESET = Preset()
PRESETS = {
    "actionformer": Preset("both", 16, 4, True, "native", form="npy", join=True),
    "video-features": Preset("both", 64, 64, True, "native", form="npy"),
    "anomaly": Preset("rgb", 16, 16, True, "native", crops="10", form="npy", join=True),
    "whole-video": Preset("rgb", form="npy", join=True),
}

_OUTPUT = "The files of each video, in the same tree as the inputs."
_PRESET = "All that follows as a program reads it; options of their own go before it."
_WHOLE = "Leave out the frames behind the last whole window; else a last window ends with the video."
_FPS = "Frames per second; native: every frame of the file."
_RESIZE = "Frames with a short side of 256 pixels, or whole frames as 224×224."
_CROPS = "Views of each frame, kept apart: the centre; three along the longer side; corners and centre, mirrored too."
_FORM = "One .npz with times and record, or arrays alone, and the rest beside them as JSON."
_JOIN = "RGB and flow as one array, one after the other along the channels."

FormatName = Annotated[str | None, choice(OUTPUT, _FORM, ("npz", "npy"), "--format", "-f", show_default="npz")]


def features(
    output: Annotated[Path, option(OUTPUT, _OUTPUT, "--output", "-o", metavar="DIR")],
    inputs: options.Inputs = None,
    from_file: options.FromFile = None,
    null: options.Null = False,
    model: options.ModelName = None,
    streams: options.Streams = None,
    layer: Annotated[str, option(MODEL, "DeepMind's endpoint, or Pooled.", "--layer", metavar="NAME")] = "Pooled",
    flip: options.Flip = False,
    preset: Annotated[str | None, choice(OUTPUT, _PRESET, tuple(PRESETS), "--preset")] = None,
    window: options.Window = None,
    stride: options.Stride = None,
    whole_windows: Annotated[bool, flag(TIME, _WHOLE, "--whole-windows")] = False,
    fps: Annotated[str | None, option(TIME, _FPS, "--fps", metavar="N|native", show_default="25")] = None,
    resize: Annotated[
        str | None, choice(MODEL, _RESIZE, ("short256", "square224"), "--resize", show_default="short256")
    ] = None,
    crops: Annotated[str | None, choice(MODEL, _CROPS, ("1", "3", "10"), "--crops", show_default="1")] = None,
    format_name: FormatName = None,
    join: Annotated[bool, flag(OUTPUT, _JOIN, "--join")] = False,
    dtype: Annotated[
        str | None, choice(OUTPUT, "The numbers.", ("float32", "float16"), "--dtype", show_default="float32")
    ] = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    precision: options.Precision = "fp32",
    jobs: options.Jobs = 0,
    batch_size: options.BatchSize = 0,
    offline: options.Offline = False,
) -> None:
    """Keep what the network holds of videos over time, for models of your own; run again to go on where it stopped."""
    how = (whole_windows, fps or "", resize or "", crops or "", format_name or "", join, dtype or "")
    own = Preset(streams, window, stride, *how)
    chosen = _chosen(preset, own)
    found = find_inputs(inputs or [], from_file, null)
    paths = [source.path for source in found if source.error is None]
    target_of = _targets(output, tree_root(inputs or [], paths), chosen.form)
    _check_names(paths, target_of)
    with new_folder(output):
        loaded = load_for_command(model, chosen.streams, device, offline, precision=precision)

        from vadis.inference.features import Layout, features_of_videos, settings_of
        from vadis.inference.predict import Sliding
        from vadis.inference.prefetch import Sampling

        run = Run(found, Summary(len(found)))
        look: dict[str, Any] = {"layer": layer, "flip": flip}
        look["sliding"] = Sliding(window=chosen.window, stride=chosen.stride, regular=chosen.whole_windows)
        rate = None if chosen.fps == "native" else int(chosen.fps)
        look["sampling"] = Sampling(rate, chosen.resize, int(chosen.crops))
        layout = Layout(chosen.form, chosen.join, chosen.dtype)
        settings = settings_of(loaded, **look, layout=layout)
        missing = paths if overwrite else [path for path in paths if not _is_done(target_of(path), settings)]
        extracted = features_of_videos(
            missing, loaded, **look, batch_size=batch_size, jobs=jobs, listed=True, progress=run.report
        )
        saved = _saved(paths, set(missing), extracted, target_of, settings, layout)
        run.complete(saved, lambda records, is_whole: deque(records, 0))


def _chosen(preset: str | None, own: Preset) -> Preset:
    """Return a preset, or what is so by default, with the options that were given; raise UsageError for no rate."""
    base = PRESETS[preset] if preset else NO_PRESET
    chosen = base._replace(**{name: value for name, value in own._asdict().items() if value})
    if chosen.fps != "native" and not (chosen.fps.isdecimal() and 1 <= int(chosen.fps) <= _MOST_FPS):
        message = f"--fps is a number from 1 to {_MOST_FPS}, or native, not {chosen.fps!r}"
        raise UsageError(message, "leave it out for 25")
    return chosen


def _targets(output: Path, root: str, form: str) -> Callable[[str], Path]:
    """Return what gives the place of a video's .npz, or of the JSON beside its .npy, which has no name's extension."""
    if form == "npz":
        return partial(mirrored, output, root, "npz")
    return lambda path: mirrored(output, root, "json", os.path.splitext(path)[0])  # noqa: PTH122 (keeps any bytes)


def _check_names(paths: list[str], target_of: Callable[[str], Path]) -> None:
    """Raise UsageError where two videos would have one file."""
    taken: dict[Path, str] = {}
    for path in paths:
        other = taken.setdefault(target_of(path), path)
        if other != path:
            hint = "keep them as .npz, whose names have the extension, or in folders of their own"
            raise UsageError(f"{show(path)} and {show(other)} differ in their extension alone", hint)


def _is_done(target: Path, settings: dict[str, Any]) -> bool:
    """Return whether features are there already; raise UsageError for those of other settings."""
    from vadis.inference.features import saved_settings

    there = saved_settings(target)
    if there is not None and there != settings:
        other = {key: value for key, value in settings.items() if there.get(key) != value}
        difference = "; ".join(f"{key} was {there.get(key)}, is {value}" for key, value in other.items())
        hint = "choose another folder, or add --overwrite"
        raise UsageError(f"{show(target)} has other settings: {difference}", hint)
    return there is not None


def _saved(
    paths: list[str],
    missing: set[str],
    extracted: "Iterator[tuple[str, Features | VideoError]]",
    target_of: Callable[[str], Path],
    settings: dict[str, Any],
    layout: "Layout",
) -> Generator[VideoResult, None, None]:
    """Yield a record per video, once its features have been written, or were there already."""
    from vadis.inference.features import save_features

    for path in paths:
        if path not in missing:
            yield VideoResult(path, "skipped")
            continue
        _, found = next(extracted)
        try:
            if isinstance(found, VideoError):
                raise found
            with writing(show(target_of(path))):
                save_features(found, target_of(path), settings, layout)
        except VideoError as error:
            yield VideoResult(path, "error", error_code=error.code, error_message=error.in_full)
        else:
            yield found.record
