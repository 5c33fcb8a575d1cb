"""From the options of ``vadis finetune`` and ``vadis train`` to a tested model file, as the terminal shows it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vadis.cli import interrupts
from vadis.cli.accuracy import keep_metrics, part_to_test, report, table
from vadis.cli.chosen import load_quietly
from vadis.cli.evaluate import ask_all, tell_part
from vadis.cli.flow import fill
from vadis.cli.interrupts import Interrupted
from vadis.cli.live import training_progress
from vadis.cli.outputs import check_folder_name, explained
from vadis.cli.terminal import complain_of, say, settings, show, video_progress
from vadis.cli.training_options import IMAGENET, Asked
from vadis.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vadis.datasets import Dataset
    from vadis.flow.store import FlowStore
    from vadis.training.distributed import Process
    from vadis.training.finetuning import Plan
    from vadis.training.fixed import FeatureStore
    from vadis.training.log import Event
    from vadis.training.recipes import Recipe

    Networks = dict[str, dict[str, Tensor]]  # by name: tensors by key

IMAGENET_MODEL = "inception-v1-imagenet"  # in the catalog


def run(asked: Asked) -> None:
    """Train every network, write the model file, test it, and write it again with the metrics."""
    found = _find_data(asked)
    from vadis.training.distributed import joined
    from vadis.training.finetuning import begin, save

    with joined(asked.device) as process:
        settings.quiet |= not process.is_main
        say(found.summary())
        plan = _plan(asked, found)
        if process.is_main:
            begin(asked.output, plan, resume=asked.resume)
        train_all = _train_last_layers if plan.mode == "fixed" else _train_whole
        networks = train_all(plan, asked, process)
    if not process.is_main:
        return
    save(asked.output, plan, networks)
    _test(plan, asked, networks, process.device)


def _find_data(asked: Asked) -> "Dataset":
    """The dataset, after all that can be refused without it."""
    from vadis.datasets import find_dataset
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
    part = part_to_test(found)
    found.examples(part)
    tell_part(found, part)
    return found


def _made_here(asked: Asked) -> Path:
    """The folder of the videos that the recipe makes itself, all of them there."""
    from vadis.datasets import make_dataset
    from vadis.training.distributed import is_torchrun
    from vadis.training.finetuning import VIDEOS_NAME, refuse_foreign
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
    say(f"{recipe.dataset}: makes its videos in {show(root)}")
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


def _plan(asked: Asked, found: "Dataset") -> "Plan":
    """What is to be done, once the model to begin from is there."""
    from vadis.models import MODELS
    from vadis.training.finetuning import Plan

    chosen = None if asked.streams == "both" else asked.streams  # which a dataset may need or not
    start = None if asked.begins_anew else load_quietly(asked.start, chosen, "cpu", asked.offline)
    architecture = asked.architecture or "i3d"
    if start is not None:
        say(f"begins from {show(start.card.name)}")
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
    runs = row.networks(streams) if asked.mode == "fixed" else row.runs(streams)
    recipes = _recipes(asked, found, architecture, tuple(runs))
    imagenet = load_quietly(IMAGENET_MODEL, None, "cpu", asked.offline) if asked.start == IMAGENET else None
    width, mirror = asked.width or next(iter(recipes.values())).width, asked.mirror
    return Plan(found, recipes, start, architecture, streams, imagenet, width, mirror, asked.mode)


def _recipes(asked: Asked, found: "Dataset", architecture: str, runs: tuple[str, ...]) -> "dict[str, Recipe]":
    """The recipe of every training run, with what ``--set`` changes in it."""
    from vadis.training.recipe_file import chosen_recipes, default_recipe

    mode = "scratch" if asked.begins_anew else asked.mode
    defaults = {run: default_recipe(architecture, found.name, run, mode) for run in runs}
    return chosen_recipes(defaults, asked.recipe, _changes(asked))


def _changes(asked: Asked) -> dict[str, str]:
    """What ``--set`` says, by field."""
    changes = {}
    for change in asked.changes or ():
        key, equals, value = change.partition("=")
        if not equals:
            raise UsageError(f"--set {show(change)} does not say KEY=VALUE", hint="for example --set steps=500")
        changes[key.strip()] = value.strip()
    return changes


def _train_whole(plan: "Plan", asked: Asked, process: "Process") -> "Networks":
    """Train every network end to end, one run after the other."""
    from vadis.training.finetuning import train_run
    from vadis.training.loop import Settings

    store = _filled_store(asked, plan.dataset, process) if "flow" in plan.streams else None
    how = Settings(workers=asked.workers, resume=asked.resume, allow_inexact=asked.allow_inexact)
    networks: Networks = {}
    for name in plan.recipes:
        learnt, held_out = plan.splits(name)
        say(f"{name}: learns from {len(learnt):,} videos, {len(held_out):,} for validation, on {process.device}")
        with _watched(name, plan, asked, process) as watch:
            stop = interrupts.pending
            outcome, found = train_run(
                name, plan, asked.output, process, settings=how, store=store, report=watch, stop_requested=stop
            )
        if outcome.stopped_by:  # by a signal to another process
            raise Interrupted(outcome.stopped_by)
        networks |= found
    return networks


def _train_last_layers(plan: "Plan", asked: Asked, process: "Process") -> "Networks":
    """The features of every video once, then a new last layer for every network."""
    from vadis.training.fixed import open_store, train_last_layer
    from vadis.training.loop import Settings

    if process.world_size > 1:
        raise UsageError("--mode fixed runs in one process", hint="run it without torchrun; it takes seconds")
    store = open_store(asked.output, plan)
    _fill_features(plan, store, process)
    how = Settings(resume=asked.resume, allow_inexact=asked.allow_inexact)
    networks: Networks = {}
    for name in plan.recipes:
        with _watched(name, plan, asked, process) as watch:
            stop = interrupts.pending
            outcome, networks[name] = train_last_layer(
                name, plan, asked.output, process, store, settings=how, report=watch, stop_requested=stop
            )
        if outcome.stopped_by:
            raise Interrupted(outcome.stopped_by)
    return networks


@contextmanager
def _watched(name: str, plan: "Plan", asked: Asked, process: "Process") -> "Iterator[Callable[[Event], None]]":
    """Gives what takes a run's events: onto the terminal, into TensorBoard; the curves are drawn now and then.

    Signals wait in this block: the loop asks for them, and saves a checkpoint first.
    """
    from vadis.training.log import Validated

    with interrupts.deferred(), ExitStack() as stack:
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
                _draw_curves(plan, asked)

        yield watch
        if takers:
            _draw_curves(plan, asked)


def _draw_curves(plan: "Plan", asked: Asked) -> None:
    from vadis.report.plots import plot_curves
    from vadis.training.log import LOG_NAME

    logs = {name: asked.output / name / LOG_NAME for name in plan.recipes}
    plot_curves({name: log for name, log in logs.items() if log.exists()}, asked.output / "curves.png")


def _filled_store(asked: Asked, found: "Dataset", process: "Process") -> "FlowStore":
    """The flow store with the flow of every video to learn from."""
    from vadis.flow.filling import without_flow
    from vadis.flow.store import FlowStore
    from vadis.training.finetuning import STORE_NAME

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
    from vadis.training.fixed import compute_features, wanted_examples

    total = len(wanted_examples(plan))
    say(f"features of {total:,} videos, on {process.device}")
    with interrupts.deferred(), video_progress() as bars:
        bar = bars.add_task("features", total=total)
        computed = compute_features(plan, store, process.device)
        for _ in range(total):
            with interrupts.interruptible():
                example, error = next(computed)
            bars.update(bar, advance=1, description=show(example.path))
            if error is not None:
                complain_of(example.path, error.code, error.in_full)


def _test(plan: "Plan", asked: Asked, networks: "Networks", device: "torch.device") -> None:
    """Test the model file by the paper's test; the table on stdout, the metrics into the model file."""
    from vadis.evaluation import AnswerFile, settings_of
    from vadis.training.finetuning import MODEL_NAME, save
    from vadis.weights.model_file import load_model_file

    found, folder = plan.dataset, asked.output
    model = load_model_file(folder / MODEL_NAME, device)
    part = part_to_test(found)
    with explained(show(folder)):
        file = AnswerFile(folder / "answers.jsonl", settings_of(model, found.name, found.split, flip=False, part=part))
        with interrupts.deferred():
            answers = ask_all(found.examples(part), model, file, flip=False)
        metrics, summary = keep_metrics(answers, model, found, folder, part)
    save(folder, plan, networks, summary)
    say(f"the model is {show(folder / MODEL_NAME)}")
    report(table(metrics, _papers(plan, metrics)), summary["failed"])


def _papers(plan: "Plan", columns: "Iterable[str]") -> dict[str, float]:
    """The paper's top-1 in [0, 1] by column, where it has one for what was done."""
    from vadis.evaluation import paper_top1
    from vadis.training.finetuning import began_with_imagenet

    mode = plan.mode if plan.start else "original"
    imagenet = began_with_imagenet(plan)
    if imagenet is None:
        return {}
    found = {
        column: paper_top1(plan.card.architecture, plan.dataset.name, plan.dataset.split, mode, imagenet, column)
        for column in columns
    }
    return {column: share for column, share in found.items() if share is not None}
