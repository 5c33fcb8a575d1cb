"""``vadis features``: pooled features over time, one .npz per video."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vadis.cli import options, outputs, signals
from vadis.cli.loading import check_window, find_inputs, load_for_command
from vadis.cli.run import Run
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
FeaturesDir = Annotated[Path, options.option(options.OUTPUT, _OUTPUT, "--output", "-o", metavar="DIR")]
_LAYER = "An endpoint of DeepMind's network, or Pooled."
Layer = Annotated[str, options.option(options.MODEL, _LAYER, metavar="NAME")]


def features(
    output: FeaturesDir,
    inputs: options.Inputs = None,
    from_file: options.FromFile = None,
    null: options.Null = False,
    model: options.ModelName = None,
    streams: options.Streams = None,
    layer: Layer = "Pooled",
    flip: options.Flip = False,
    window: options.Window = None,
    stride: options.Stride = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    jobs: options.Jobs = 0,
    batch_size: options.BatchSize = 0,
    offline: options.Offline = False,
    debug: options.Debug = False,
) -> None:
    """Keep what the network holds of videos over time, for models of your own; run again to go on where it stopped."""
    found = find_inputs(inputs or [], from_file, null)
    paths = [source.path for source in found if source.error is None]
    target_of = partial(outputs.mirrored, output, outputs.tree_root(inputs or [], paths), "npz")
    with outputs.new_folder(output):
        check_window(model, window, stride)
        loaded = load_for_command(model, streams, device, offline)

        from vadis.inference.features import features_of_videos, settings_of
        from vadis.inference.predict import Sliding

        run = Run(found, name_problems=True)
        sliding = Sliding(window=window, stride=stride)
        wanted = settings_of(loaded, layer, sliding, flip)
        look: dict[str, Any] = {
            "layer": layer,
            "sliding": sliding,
            "flip": flip,
            "jobs": jobs,
            "batch_size": batch_size,
        }
        extract = partial(features_of_videos, model=loaded, **look, listed=True, progress=run.report)
        with signals.deferred():
            for _ in run.records(_extracted(run.paths(), target_of, wanted, extract, overwrite)):
                pass
            run.finish()


def _extracted(
    paths: Iterable[str],
    target_of: Callable[[str], Path],
    wanted: dict[str, Any],
    extract: "Callable[[Iterable[str]], Iterator[tuple[str, Features | VideoError]]]",
    overwrite: bool,
) -> Iterator[VideoResult]:
    """Yield a record per video whose features have been written, or were there already."""
    from vadis.inference.features import save_features, saved_settings

    looked_at: deque[tuple[str, bool]] = deque()  # with: is it there? Without a record yet; extract looks ahead

    def lacking() -> Iterator[str]:
        for path in paths:
            there = None if overwrite else saved_settings(target_of(path))
            if there is not None and there != wanted:
                other = [key for key in wanted if there.get(key) != wanted[key]]
                difference = "; ".join(f"{key} was {there.get(key)}, is {wanted[key]}" for key in other)
                hint = "choose another folder, or add --overwrite"
                raise UsageError(f"{show(target_of(path))} has other settings: {difference}", hint)
            looked_at.append((path, there is not None))
            if there is None:
                yield path

    def there_already() -> Iterator[VideoResult]:
        while looked_at and looked_at[0][1]:
            yield VideoResult(looked_at.popleft()[0], "skipped")

    for path, found in extract(lacking()):
        yield from there_already()
        looked_at.popleft()
        if isinstance(found, VideoError):
            yield VideoResult(path, "error", error_code=found.code, error_message=found.in_full)
            continue
        target = target_of(path)
        with outputs.writing(show(target)):
            save_features(found, target, wanted)
        yield found.record
    yield from there_already()
