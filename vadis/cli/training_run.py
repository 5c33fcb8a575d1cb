"""From the options of ``vadis train`` to a tested model file, as the terminal shows it."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress
from rich.text import Text

from vadis.cli import signals, terminal
from vadis.cli.evaluate import choose_part, evaluate_model, report, table, write_evaluation
from vadis.cli.flow import fill
from vadis.cli.outputs import check_folder_name
from vadis.cli.run import load_for_command
from vadis.cli.signals import Interrupted
from vadis.cli.terminal import clock, debug, info, show, warn, warn_failed
from vadis.cli.train import TrainOptions
from vadis.datasets import Dataset, find_dataset
from vadis.datasets.dataset import without_untrained
from vadis.device import resolve_device
from vadis.errors import UsageError
from vadis.evaluation.paper_plan import IMAGENET_MODEL, PUBLISHED
from vadis.evaluation.paper_tables import Cell
from vadis.flow.store import FlowStore, videos_without_flow
from vadis.models import MODELS, check_precision
from vadis.models.card import EXACT
from vadis.training import log
from vadis.training import plan as training
from vadis.training.distributed import Process, is_torchrun, join_group, run_unless_stopped
from vadis.training.linear_probe import FeatureStore, compute_features, examples_to_probe, train_last_layer
from vadis.training.loop import Context, StopRequested
from vadis.training.plan import Networks, Plan, States
from vadis.training.recipes import choose_recipes, default_recipe
from vadis.video.sources import Source
from vadis.weights.model_file import load_model_file

SCRATCH, IMAGENET = "scratch", "imagenet"  # beginnings that are no model of videos
QUIET_SECONDS = 10.0  # between lines where there is no terminal


def run(options: TrainOptions) -> None:
    """Train every network, write the model file, test it, and write it again with the metrics."""
    import torch

    dataset = _find_data(options)
    part = choose_part(dataset)
    with join_group(options.device) as process:
        terminal.settings.quiet |= not process.is_main
        info(dataset.summary())
        plan = _plan(options, dataset, process)
        if process.is_main:
            training.begin(options.output, plan, resume=options.resume, allow_inexact=options.allow_inexact)
        # PyTorch imports what its first optimiser needs: seconds in which a signal would have to wait, later.
        torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        networks, states = _train(plan, options, process)
    if not process.is_main:
        return
    training.save(options.output, plan, networks, states)
    model = load_model_file(options.output / training.MODEL_NAME, process.device)
    kept = {run: asdict(state) for run, state in states.items()}
    evaluation = evaluate_model(model, dataset, part, options.output, go_on=False)
    training.save(options.output, plan, networks, states, write_evaluation(evaluation, options.output, states=kept))
    info(f"the model is {show(options.output / training.MODEL_NAME)}")
    report(table(evaluation.figures, _paper_top1(plan, evaluation.columns)), evaluation.num_failed)


def _find_data(options: TrainOptions) -> Dataset:
    """Return the dataset, after all that can be refused without it."""
    check_folder_name(options.output)
    if not is_torchrun():
        check_precision(options.precision, options.arch or "i3d", resolve_device(options.device))
    begins_anew = options.from_model in (SCRATCH, IMAGENET)
    if options.width is not None and not begins_anew:
        raise UsageError("--width is for networks made anew; a model has its own", hint="add --from scratch")
    if options.mode == "fixed" and begins_anew:
        raise UsageError("--mode fixed needs a model whose features it can use", hint="name one with --from")
    if options.tensorboard:
        log.require_tensorboard()
    data = options.data or _make_data(options)
    dataset = without_untrained(find_dataset(data, options.dataset, options.split, allow_missing=options.allow_missing))
    if not {"test", "val"} & dataset.splits.keys():
        info(dataset.summary())  # which says why nothing could be held out
    return dataset


def _make_data(options: TrainOptions) -> Path:
    """Return the folder of the videos that the recipe makes itself, all of them there."""
    from vadis.datasets.camera import NAME, write_dataset

    default = default_recipe(options.arch or "i3d", "folder", "rgb", "scratch")
    recipe = choose_recipes({"rgb": default, "flow": default}, options.recipe, _changes(options))["rgb"]
    if recipe.dataset != NAME:
        raise UsageError("--data is missing", hint="name a dataset's folder, or take --recipe camera-motion")
    if is_torchrun():
        hint = "train it in one process; its networks are small"
        raise UsageError("videos are not made by several processes at once", hint=hint)
    training.refuse_foreign(options.output)
    root = options.output / training.VIDEOS_NAME
    info(f"{recipe.dataset}: makes its videos in {show(root)}")
    with terminal.frame_progress("videos") as report_progress:
        write_dataset(root, recipe.videos, recipe.seed, report_progress)
    return root


def _plan(options: TrainOptions, dataset: Dataset, process: Process) -> Plan:
    begins_anew = options.from_model in (SCRATCH, IMAGENET)
    load = partial(load_for_command, device="cpu", offline=options.offline, option="--from", announce=False)
    start = None if begins_anew else load(options.from_model, None if options.streams == "both" else options.streams)
    architecture = start.card.architecture if start else options.arch or "i3d"
    if options.arch not in (None, architecture):
        hint = f"leave --arch out, or name a model of {options.arch} by --from"
        raise UsageError(f"{show(options.from_model)} is a model of {architecture}, not of {options.arch}", hint)
    row = MODELS[architecture]
    streams = row.streams if options.streams == "both" else (options.streams,)
    if not set(streams) <= set(row.streams):
        raise UsageError(f"{row.title} has no {streams[0]} stream", hint=f"it has {' and '.join(row.streams)}")
    runs = row.networks(streams) if options.mode == "fixed" else row.training_groups(streams)
    mode = "scratch" if begins_anew else options.mode
    defaults = {run: default_recipe(architecture, dataset.name, run, mode) for run in runs}
    sizes = {"num_clips": len(dataset.examples("train")), "num_processes": process.world_size}
    recipes = choose_recipes(defaults, options.recipe, _changes(options), **sizes)
    for recipe in recipes.values():
        check_precision(recipe.precision, architecture, process.device)
    imagenet = load(IMAGENET_MODEL, None) if options.from_model == IMAGENET else None
    width = options.width or next(iter(recipes.values())).width
    plan = Plan(dataset, recipes, start, architecture, streams, imagenet, width, options.mirror, options.mode)
    if start is not None:
        kept = ", its last layer too: it has these classes" if plan.keeps_last_layer else ""
        info(f"begins from {show(start.card.name)}{kept}")
    return plan


def _changes(options: TrainOptions) -> dict[str, str]:
    changes = {} if options.precision == EXACT else {"precision": options.precision}
    for change in options.changes or ():
        key, equals, value = change.partition("=")
        if not equals:
            raise UsageError(f"--set {show(change)} does not say KEY=VALUE", hint="for example --set steps=500")
        changes[key.strip()] = value.strip()
    return changes


def _train(plan: Plan, options: TrainOptions, process: Process) -> tuple[Networks, States]:
    resume, inexact = options.resume, options.allow_inexact
    context = Context(process, options.jobs, resume=resume, allow_inexact=inexact, stop_requested=signals.pending)
    if plan.mode == "fixed":
        work: Callable[..., Any] = partial(train_last_layer, store=_compute_features(plan, options.output, process))
    else:
        store = _fill_flow_store(options, plan.dataset, process) if "flow" in plan.streams else None
        work = partial(training.train_run, store=store)
    networks, states = Networks(), States()
    for run in plan.recipes:
        division = plan.division(run)
        counts = f"{len(division.train):,} videos, {len(division.val):,} for validation"
        precision = EXACT if plan.mode == "fixed" else plan.recipes[run].precision
        info("\n  ".join([f"{run}: learns from {counts}, on {process.device}, in {precision}", *division.notes]))
        if plan.mode == "full" and process.device.type == "cpu":  # elsewhere a step is soon done
            context = replace(context, first_pass=partial(_print_estimate, run, plan, process))
        try:
            with _watch_run(run, plan, options, process) as watch:
                states[run], trained = work(run, plan, options.output, replace(context, report=watch))
        except StopRequested as stop:  # perhaps by another process's signal
            raise Interrupted(*stop.args) from None
        info(f"{run}: kept is {states[run]}")
        networks |= trained
    return networks, states


def _print_estimate(run: str, plan: Plan, process: Process, clip_seconds: float) -> None:
    """Print how long a run will take, estimated from the seconds of one forward and backward pass per clip."""
    recipe, num_val = plan.recipes[run], len(plan.division(run).val)
    step = recipe.batch_size / process.world_size * clip_seconds
    validations = 1 + (recipe.steps // recipe.validate_every if recipe.validate_every else 0)
    whole = recipe.steps * step + validations * num_val / process.world_size * clip_seconds / 3  # a third is forward
    early = ", less where the validation loss saturates" if recipe.schedule == "plateau" else ""
    one = clock(step) if step >= 10 else f"{step:.2g} s"
    every = f"{clock(whole)} for {recipe.steps:,} steps{early}"
    info(f"{run}: about {one} for a step of {recipe.batch_size} clips, {every}")
    if plan.start is not None and whole >= 600:
        num = terminal.num_videos(len(plan.dataset.examples("train")))
        info(f"on a CPU, --mode fixed is better: it looks at each of {num} once, and trains the last layer in seconds")


@contextmanager
def _watch_run(run: str, plan: Plan, options: TrainOptions, process: Process) -> Iterator[Callable[[log.Event], None]]:
    """Yield a function that sends a run's events to the terminal and TensorBoard, and redraws the curves.

    Signals wait in this block: the loop asks for them, and saves a checkpoint first.
    """

    def draw_curves() -> None:
        from vadis.report.plots import plot_curves

        logs = {run: options.output / run / log.LOG_NAME for run in plan.recipes}
        plot_curves({run: path for run, path in logs.items() if path.exists()}, options.output / "curves.png")

    with signals.deferred(), ExitStack() as stack:
        if not process.is_main:
            yield lambda event: None
            return
        watchers = [stack.enter_context(training_progress(run))]
        if options.tensorboard:
            watchers.append(stack.enter_context(log.tensorboard_writer(options.output / run)))

        def watch(event: log.Event) -> None:
            for each in watchers:
                each(event)
            if isinstance(event, log.Validated):
                run_unless_stopped(draw_curves, signals.pending)

        yield watch
        if not signals.pending():
            run_unless_stopped(draw_curves, signals.pending)


def _fill_flow_store(options: TrainOptions, dataset: Dataset, process: Process) -> FlowStore:
    """Return the flow store, with the flow of every video for training and validation."""
    root = options.flow_store or options.output / training.STORE_NAME
    store = FlowStore(root, create=True)
    wanted = [example.path for split in ("train", "val") for example in dataset.splits.get(split, ())]
    wanted = list(dict.fromkeys(wanted))
    if (missing := videos_without_flow(wanted, store)) and process.world_size > 1:
        message = f"the flow of {len(missing):,} videos is not in {show(root)}, and several processes wait for it"
        raise UsageError(message, hint=f"compute it first: vadis flow --data {show(dataset.root)} -o {show(root)}")
    if missing:
        fill(list(map(Source, missing)), store, process.device)
    return store


def _compute_features(plan: Plan, folder: Path, process: Process) -> FeatureStore:
    """Return the features of every video; a signal is heard at the end of each."""
    if process.world_size > 1:
        raise UsageError("--mode fixed runs in one process", hint="run it without torchrun; it takes seconds")
    store, examples = FeatureStore(folder, plan), examples_to_probe(plan)
    missing = sum(store.features(example) is None for example in examples)
    where = f"{process.device}, in {plan.first_recipe.precision}"
    info(f"features of {len(examples):,} videos, {missing:,} of them to be computed, on {where}")
    with signals.deferred(), terminal.video_progress() as bars:
        bar = bars.add_task("features", total=len(examples))
        computed = compute_features(plan, store, process.device)
        for _ in examples:
            with signals.interruptible():
                example, error = next(computed)
            bars.update(bar, advance=1, description=show(example.path))
            if error is not None:
                warn_failed(example.path, error.code, error.in_full)
    return store


def _paper_top1(plan: Plan, columns: Iterable[str]) -> dict[str, str]:
    """Return the paper's top-1 by column, where it has one for what was done."""
    imagenet = plan.imagenet is not None if plan.start is None else PUBLISHED.get(plan.published_start or "")
    if imagenet is None:
        return {}
    row = Cell(plan.card.architecture, plan.dataset.name, plan.mode if plan.start else "original", imagenet, "")
    cells = {name: row._replace(column=name, splits=(plan.dataset.split,)) for name in columns}
    return {name: f"{cell.paper:.1%}" for name, cell in cells.items() if cell.paper is not None}


@contextmanager
def training_progress(run: str) -> Iterator[Callable[[log.Event], None]]:
    """Yield a function that takes the events of the training loop, and shows them on stderr.

    Two lines change on a terminal; elsewhere comes a line now and then. Every validation stays, and how far it came.
    """
    console = terminal.stderr_console()
    is_drawn = console.is_terminal and not console.is_dumb_terminal and not terminal.settings.quiet
    bars = Progress("{task.description}", BarColumn(None), "{task.fields[left]}", console=console, expand=True)
    bar, figures = bars.add_task(run, total=None, left="the first step"), Text(style="dim", overflow="ellipsis")
    began, shown, last = time.monotonic(), -math.inf, list[log.StepDone]()

    def report(event: log.Event) -> None:
        nonlocal shown
        if isinstance(event, log.StepDone):
            last[:] = [event]
            count, left = f"{event.step:,}/{event.steps:,}", f"{clock(event.seconds_left)} left"
            figures.plain = "  ".join(_figures(event))
            bars.update(bar, total=event.steps, completed=event.step, left=f"{count}  {left}")
            if not is_drawn and time.monotonic() - shown >= QUIET_SECONDS:
                shown = time.monotonic()
                info(f"{run} step {count}  {figures.plain}  {left}")
        elif isinstance(event, log.Validated):
            what = f"validation loss {event.loss:.3f}, accuracy {event.accuracy:.1%}"
            info(f"{run} after step {event.step:,}: {what}{', the best so far' if event.is_best else ''}")
        elif isinstance(event, log.Saved):
            debug(f"{run} after step {event.step:,}: checkpoint in {show(event.path)}")
        elif isinstance(event, log.Resumed):
            info(f"{run}: goes on after step {event.step:,}")
            for path in event.damaged:
                warn(f"{run}: the checkpoint {show(path)} is damaged, and was passed over")
        elif isinstance(event, log.MemoryShort):
            clips = f"{event.micro_batch} clips at a time from here on, not {event.micro_batch_before}"
            warn(f"{run}: memory ran out; {clips}; still {event.batch_size} to a step")

    live = Live(Group(bars, figures), console=console, transient=True, refresh_per_second=5)
    try:
        with live if is_drawn else nullcontext():
            yield report
    finally:
        for step in last:
            loss, accuracy, *_ = _figures(step)
            seconds = clock(time.monotonic() - began)
            info(f"{run}: {step.step:,} of {step.steps:,} steps done after {seconds}, {loss}, {accuracy}")


def _figures(event: log.StepDone) -> list[str]:
    loss, accuracy = f"loss {event.smoothed_loss:.3f}", f"accuracy {event.smoothed_accuracy:.1%}"
    return [loss, accuracy, f"rate {event.learning_rate:.2g}", f"{event.clips_per_second:.1f} clips/s"]
