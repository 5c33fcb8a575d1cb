"""``vadis features``: pooled features over time, one .npz per video."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vadis.batch.journal import Summary
from vadis.cli import options
from vadis.cli.outputs import mirrored, new_folder, tree_root, writing
from vadis.cli.run import Run, find_inputs, load_for_command
from vadis.cli.terminal import show
from vadis.errors import UsageError, VideoError
from vadis.results import VideoResult

if TYPE_CHECKING:
    from vadis.inference.features import Features

EPILOG = """
**Examples**

1024 numbers per stream, every 0.32 s of every video:  `vadis features clips/ -o features/`

One set per separate window of 64 frames:  `vadis features clips/ -o windows/ --window 64`

An earlier layer, by DeepMind's name:  `vadis features holiday.mp4 -o early/ --layer Mixed_4f --streams rgb`
"""

_OUTPUT = "One .npz per video, in the same tree as the inputs."


def features(
    output: Annotated[Path, options.option(options.OUTPUT, _OUTPUT, "--output", "-o", metavar="DIR")],
    inputs: options.Inputs = None,
    from_file: options.FromFile = None,
    null: options.Null = False,
    model: options.ModelName = None,
    streams: options.Streams = None,
    layer: Annotated[str, options.option(options.MODEL, "DeepMind's endpoint, or Pooled.", metavar="NAME")] = "Pooled",
    flip: options.Flip = False,
    window: options.Window = None,
    stride: options.Stride = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    precision: options.Precision = "fp32",
    jobs: options.Jobs = 0,
    batch_size: options.BatchSize = 0,
    offline: options.Offline = False,
) -> None:
    """Keep what the network holds of videos over time, for models of your own; run again to go on where it stopped."""
    found = find_inputs(inputs or [], from_file, null)
    paths = [source.path for source in found if source.error is None]
    target_of = partial(mirrored, output, tree_root(inputs or [], paths), "npz")
    with new_folder(output):
        loaded = load_for_command(model, streams, device, offline, precision=precision)

        from vadis.inference.features import features_of_videos, settings_of
        from vadis.inference.predict import Sliding

        run, sliding = Run(found, Summary(len(found))), Sliding(window=window, stride=stride)
        look: dict[str, Any] = {"layer": layer, "sliding": sliding, "flip": flip}
        settings = settings_of(loaded, **look)
        missing = paths if overwrite else [path for path in paths if not _is_done(target_of(path), settings)]
        extracted = features_of_videos(
            missing, loaded, **look, batch_size=batch_size, jobs=jobs, listed=True, progress=run.report
        )
        saved = _saved(paths, set(missing), extracted, target_of, settings)
        run.complete(saved, lambda records, is_whole: deque(records, 0))


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
) -> Generator[VideoResult, None, None]:
    """Yield a record per video, once its features have been written, or were there already."""
    from vadis.inference.features import save_features

    for path in paths:
        if path not in missing:
            yield VideoResult(path, "skipped")
            continue
        _, found = next(extracted)
        if isinstance(found, VideoError):
            yield VideoResult(path, "error", error_code=found.code, error_message=found.in_full)
            continue
        with writing(show(target_of(path))):
            save_features(found, target_of(path), settings)
        yield found.record
