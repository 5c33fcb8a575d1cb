"""From the options of ``vadis finetune`` and ``vadis train`` to a tested model file, as the terminal shows it."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vadis.cli import signals
from vadis.cli.evaluate import evaluate_model, part_to_test, report, table, warn_of_part
from vadis.cli.flow import fill
from vadis.cli.loading import load_model
from vadis.cli.outputs import check_folder_name
from vadis.cli.signals import Interrupted
from vadis.cli.terminal import clock, info, num_videos, settings, show, video_progress, warn_of
from vadis.cli.training_options import IMAGENET, Asked
from vadis.cli.training_progress import training_progress
from vadis.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vadis.datasets import Dataset
    from vadis.flow.store import FlowStore
    from vadis.training.distributed import Process
    from vadis.training.linear_probe import FeatureStore
    from vadis.training.log import Event
    from vadis.training.loop import Outcome
    from vadis.training.plan import Plan
    from vadis.training.recipes import Recipe
    from vadis.training.validation import KeptState

    Networks = dict[str, dict[str, Tensor]]  # by name: tensors by key
    States = dict[str, KeptState]  # by run

LONG_SECONDS = 600.0  # of a run on a CPU, from which on another mode is recommended
IMAGENET_MODEL = "inception-v1-imagenet"  # in the catalog


def run(asked: Asked) -> None:
    """Train every network, write the model file, test it, and write it again with the metrics."""
    found = _find_data(asked)
    from vadis.training.distributed import joined
    from vadis.training.plan import begin, save
    from vadis.training.state import import_optimizer

    with joined(asked.device) as process:
        settings.quiet |= not process.is_main
        info(found.summary())
        plan = _plan(asked, found, process.world_size)
        if process.is_main:
            begin(asked.output, plan, resume=asked.resume)
        import_optimizer()
        train_all = _train_last_layers if plan.mode == "fixed" else _train_whole
        networks, states = train_all(plan, asked, process)
    if not process.is_main:
        return
    save(asked.output, plan, networks, states)
    _test(plan, asked, networks, states, process.device)


def _find_data(asked: Asked) -> "Dataset":
    """The dataset, after all that can be refused without it."""
    from vadis.datasets import find_dataset
    from vadis.datasets.holdout import without_untrained
    from vadis.training.distributed import is_torchrun

    check_folder_name(asked.output)
    if not is_torchrun():
        from vadis.device import resolve_device

        resolve_device(asked.device)
    if asked.width is not None and not asked.begins_anew:
        raise UsageError("--width is for networks made anew; a model has its own", hint="add --from scratch")
    if asked.mode == "fixed" and asked.begins_anew:
        raise UsageError("--mode fixed needs a model whose features it can use", hint="name one with --from")
    if asked.tensorboard:
        from vadis.training.tensorboard import require_tensorboard

        require_tensorboard()
    data = asked.data or _made_here(asked)
    found = find_dataset(data, asked.dataset, asked.split, allow_missing=asked.allow_missing)
    found = without_untrained(found)
    part = part_to_test(found)
    if part not in found.splits:
        info(found.summary())  # which says why nothing could be held out
    found.examples(part)
    warn_of_part(found, part)
    return found


def _made_here(asked: Asked) -> Path:
    """The folder of the videos that the recipe makes itself, all of them there."""
    from vadis.datasets import make_dataset
    from vadis.training.distributed import is_torchrun
    from vadis.training.plan import VIDEOS_NAME, refuse_foreign
    from vadis.training.recipe_file import chosen_recipes, default_recipe

    default = default_recipe(asked.architecture or "i3d", "folder", "rgb", "scratch")
    recipe = chosen_recipes({"rgb": default, "flow": default}, asked.recipe, _changes(asked))["rgb"]
    if not recipe.dataset:
        raise UsageError("--data is missing", hint="name a dataset's folder, or take --recipe camera-motion")
    if is_torchrun():
        hint = "train it in one process; its networks are small"
        raise UsageError("videos are not made by several processes at once", hint=hint)
    refuse_foreign(asked.output)
    root = asked.output / VIDEOS_NAME
    info(f"{recipe.dataset}: makes its videos in {show(root)}")
    with video_progress() as bars:
        bar = bars.add_task("videos", total=None)
        make_dataset(
            recipe.dataset,
            root,
            recipe.videos,
            recipe.seed,
            lambda done, total: bars.update(bar, completed=done, total=total),
        )
    return root


def _plan(asked: Asked, found: "Dataset", num_processes: int) -> "Plan":
    """What is to be done, once the model to begin from is there."""
    from vadis.models import MODELS
    from vadis.training.plan import Plan

    option = "--init" if asked.architecture else "--from"
    chosen = None if asked.streams == "both" else asked.streams  # which a dataset may need or not
    start = (
        None
        if asked.begins_anew
        else load_model(asked.start, chosen, "cpu", asked.offline, option=option, announce=False)
    )
    architecture = asked.architecture or "i3d"
    if start is not None:
        if asked.architecture not in (None, start.card.architecture):
            raise UsageError(
                f"{show(asked.start)} is a model of {start.card.architecture}, not of {asked.architecture}",
                hint=f"leave --arch out, or name a model of {asked.architecture} by --from",
            )
        architecture = start.card.architecture
    row = MODELS[architecture]
    streams = row.streams if asked.streams == "both" else (asked.streams,)
    if not set(streams) <= set(row.streams):
        raise UsageError(f"{row.title} has no {streams[0]} stream", hint=f"it has {' and '.join(row.streams)}")
    runs = row.networks(streams) if asked.mode == "fixed" else row.training_groups(streams)
    recipes = _recipes(asked, found, architecture, tuple(runs), num_processes)
    from_imagenet = asked.start == IMAGENET
    imagenet = (
        load_model(IMAGENET_MODEL, None, "cpu", asked.offline, option=option, announce=False) if from_imagenet else None
    )
    width, mirror = asked.width or next(iter(recipes.values())).width, asked.mirror
    plan = Plan(found, recipes, start, architecture, streams, imagenet, width, mirror, asked.mode)
    if start is not None:
        kept = ", its last layer too: it has these classes" if plan.keeps_last_layer else ""
        info(f"begins from {show(start.card.name)}{kept}")
    return plan


def _recipes(
    asked: Asked, found: "Dataset", architecture: str, runs: tuple[str, ...], num_processes: int
) -> "dict[str, Recipe]":
    """The recipe of every training run, scaled to the dataset where it says so, with what ``--set`` changes in it."""
    from vadis.training.recipe_file import chosen_recipes, default_recipe

    mode = "scratch" if asked.begins_anew else asked.mode
    defaults = {run: default_recipe(architecture, found.name, run, mode) for run in runs}
    num_clips = len(found.examples("train"))
    return chosen_recipes(defaults, asked.recipe, _changes(asked), num_clips=num_clips, num_processes=num_processes)


def _changes(asked: Asked) -> dict[str, str]:
    """What ``--set`` says, by field."""
    changes = {}
    for change in asked.changes or ():
        key, equals, value = change.partition("=")
        if not equals:
            raise UsageError(f"--set {show(change)} does not say KEY=VALUE", hint="for example --set steps=500")
        changes[key.strip()] = value.strip()
    return changes


def _train_whole(plan: "Plan", asked: Asked, process: "Process") -> "tuple[Networks, States]":
    """Train every network end to end, one run after the other."""
    from vadis.training.checkpoint import checkpoints_in, list_checkpoints
    from vadis.training.loop import Settings
    from vadis.training.plan import train_run

    new = [name for name in plan.recipes if not list_checkpoints(checkpoints_in(asked.output / name))]
    for name in new if process.is_main else ():
        if "flow" not in plan.runs[name]:  # else it needs the flow first, which takes its time
            _tell_pace(name, plan, asked, process, None)
    store = _filled_store(asked, plan.dataset, process) if "flow" in plan.streams else None
    how = Settings(workers=asked.workers, resume=asked.resume, allow_inexact=asked.allow_inexact)
    networks: Networks = {}
    states: States = {}
    for name in plan.recipes:
        _tell_division(name, plan, process)
        if process.is_main and name in new and "flow" in plan.runs[name]:
            _tell_pace(name, plan, asked, process, store)
        with _watched(name, plan, asked, process) as watch:
            stop = signals.pending
            outcome, found = train_run(
                name, plan, asked.output, process, settings=how, store=store, report=watch, stop_requested=stop
            )
        states[name] = _kept(name, outcome)
        networks |= found
    return networks, states


def _tell_division(name: str, plan: "Plan", process: "Process") -> None:
    """Say what a run learns from, and what could not be held out for validation."""
    division = plan.division(name)
    counts = f"{len(division.train):,} videos, {len(division.val):,} for validation"
    info("\n  ".join([f"{name}: learns from {counts}, on {process.device}", *division.notes]))


def _tell_pace(name: str, plan: "Plan", asked: Asked, process: "Process", store: "FlowStore | None") -> None:
    """Say, before the first step of a run, what a step and all of them will take."""
    from vadis.training.probe import probe_run

    recipe, held_out = plan.recipes[name], plan.splits(name)[1]
    with signals.deferred():
        pace = probe_run(name, plan, process, store, signals.pending)
    if pace is None:
        return
    step = pace.step_seconds(recipe, process.world_size, asked.workers)
    whole = pace.run_seconds(recipe, len(held_out), process.world_size, asked.workers)
    early = ", less where the validation loss saturates" if recipe.schedule == "plateau" else ""
    info(
        f"{name}: about {clock(step) if step >= 10 else f'{step:.2g} s'} for a step of {recipe.batch_size} clips, "
        f"{clock(whole)} for {recipe.steps:,} steps{early}"
    )
    if process.device.type == "cpu" and plan.start is not None and whole >= LONG_SECONDS:
        num = num_videos(len(plan.dataset.examples("train")))
        info(f"on a CPU, --mode fixed is better: it looks at each of {num} once, and trains the last layer in seconds")


def _train_last_layers(plan: "Plan", asked: Asked, process: "Process") -> "tuple[Networks, States]":
    """The features of every video once, then a new last layer for every network."""
    from vadis.training.linear_probe import open_store, refuse_lost_classes, train_last_layer
    from vadis.training.loop import Settings

    if process.world_size > 1:
        raise UsageError("--mode fixed runs in one process", hint="run it without torchrun; it takes seconds")
    store = open_store(asked.output, plan)
    _fill_features(plan, store, process)
    refuse_lost_classes(plan, store)
    how = Settings(resume=asked.resume, allow_inexact=asked.allow_inexact)
    networks: Networks = {}
    states: States = {}
    for name in plan.recipes:
        _tell_division(name, plan, process)
        with _watched(name, plan, asked, process) as watch:
            stop = signals.pending
            outcome, networks[name] = train_last_layer(
                name, plan, asked.output, process, store, settings=how, report=watch, stop_requested=stop
            )
        states[name] = _kept(name, outcome)
    return networks, states


def _kept(run: str, outcome: "Outcome") -> "KeptState":
    """Say which state of a run is kept; raise Interrupted where it was stopped, perhaps by another process's signal."""
    if outcome.kept is None:
        raise Interrupted(outcome.stopped_by)
    info(f"{run}: kept is {outcome.kept}")
    return outcome.kept


@contextmanager
def _watched(name: str, plan: "Plan", asked: Asked, process: "Process") -> "Iterator[Callable[[Event], None]]":
    """Gives what takes a run's events: onto the terminal, into TensorBoard; the curves are drawn now and then.

    Signals wait in this block: the loop asks for them, and saves a checkpoint first.
    """
    from vadis.training.log import Validated
    from vadis.training.stopping import unless_stopped

    with signals.deferred(), ExitStack() as stack:
        takers: list[Callable[[Event], None]] = []
        if process.is_main:
            takers.append(stack.enter_context(training_progress(name)))
            if asked.tensorboard:
                from vadis.training.tensorboard import tensorboard_writer

                takers.append(stack.enter_context(tensorboard_writer(asked.output / name)))

        def watch(event: "Event") -> None:
            for take in takers:
                take(event)
            if takers and isinstance(event, Validated):
                unless_stopped(partial(_draw_curves, plan, asked), signals.pending)

        yield watch
        if takers and not signals.pending():
            unless_stopped(partial(_draw_curves, plan, asked), signals.pending)


def _draw_curves(plan: "Plan", asked: Asked) -> None:
    from vadis.report.plots import plot_curves
    from vadis.training.log import LOG_NAME

    logs = {name: asked.output / name / LOG_NAME for name in plan.recipes}
    plot_curves({name: log for name, log in logs.items() if log.exists()}, asked.output / "curves.png")


def _filled_store(asked: Asked, found: "Dataset", process: "Process") -> "FlowStore":
    """The flow store with the flow of every video to learn from."""
    from vadis.flow.build_store import without_flow
    from vadis.flow.store import FlowStore
    from vadis.training.plan import STORE_NAME

    root = asked.flow_store or asked.output / STORE_NAME
    store = FlowStore(root, create=True)
    wanted = [example.path for split in ("train", "val") for example in found.splits.get(split, ())]
    missing = without_flow(dict.fromkeys(wanted), store)
    if missing and process.world_size > 1:
        raise UsageError(
            f"the flow of {len(missing):,} videos is not in {show(root)}, and several processes wait for it",
            hint=f"compute it first: vadis flow --data {show(found.root)} -o {show(root)}",
        )
    if missing:
        fill(missing, store, process.device)
    return store


def _fill_features(plan: "Plan", store: "FeatureStore", process: "Process") -> None:
    """Compute the features that are missing, in a block where signals wait for the end of a video."""
    from vadis.training.linear_probe import compute_features, wanted_examples

    total = len(wanted_examples(plan))
    missing = sum(not store.has(example) for example in wanted_examples(plan))
    info(f"features of {total:,} videos, {missing:,} of them to be computed, on {process.device}")
    with signals.deferred(), video_progress() as bars:
        bar = bars.add_task("features", total=total)
        computed = compute_features(plan, store, process.device)
        for number in range(total):
            began = time.monotonic()
            with signals.interruptible():
                example, error = next(computed)
            bars.update(bar, advance=1, description=show(example.path))
            if error is not None:
                warn_of(example.path, error.code, error.in_full)
            elif number == 0 and missing == total > 1:
                info(f"about {clock((time.monotonic() - began) * total)} for all of them, by the first")


def _test(plan: "Plan", asked: Asked, networks: "Networks", states: "States", device: "torch.device") -> None:
    """Test the model file by the paper's test; the table on stdout, the metrics into the model file."""
    from vadis.training.plan import MODEL_NAME, save
    from vadis.weights.model_file import load_model_file

    found, folder = plan.dataset, asked.output
    model = load_model_file(folder / MODEL_NAME, device)
    told = {run: kept.to_json() for run, kept in states.items()}
    metrics, summary = evaluate_model(model, found, part_to_test(found), folder, go_on=False, states=told)
    save(folder, plan, networks, states, summary)
    info(f"the model is {show(folder / MODEL_NAME)}")
    report(table(metrics, _papers(plan, metrics)), summary["failed"])


def _papers(plan: "Plan", columns: "Iterable[str]") -> dict[str, float]:
    """The paper's top-1 in [0, 1] by column, where it has one for what was done."""
    from vadis.evaluation.paper_tables import Cell
    from vadis.evaluation.run_index import PUBLISHED

    mode = plan.mode if plan.start else "original"
    published = PUBLISHED.get(plan.published_start or "")
    imagenet = plan.imagenet is not None if plan.start is None else published
    if imagenet is None:
        return {}
    architecture, data, split = plan.card.architecture, plan.dataset.name, (plan.dataset.split,)
    found = {column: Cell(architecture, data, mode, imagenet, column, split).paper for column in columns}
    return {column: share for column, share in found.items() if share is not None}
