"""``vadis reproduce`` and ``vadis plot``: published numbers beside ours, commands for those missing, and figure 4."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vadis.cli import options
from vadis.cli.fvd import load_fvd_model
from vadis.cli.options import MODEL, NAME_OR_FILE, OUTPUT, VIDEOS, App, choice, flag, option
from vadis.cli.outputs import check_file, writing
from vadis.cli.run import load_for_command
from vadis.cli.terminal import download_progress, info, show, video_progress, warn
from vadis.errors import UsageError
from vadis.formats import visible

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vadis.evaluation.paper_plan import Job, RunIndex
    from vadis.evaluation.paper_tables import Cell, Table

DEFAULT_TFLOPS = 10.0  # what a GPU is taken to sustain; a guess in the middle of what there is, so it is always named
FIGURE_WIDTH = 5  # of a figure: 98.0, and a blank or REMARK before it
MISSING, NO_FIGURE, REMARK = "·", "–", "*"
IMAGENET_MODEL = "inception-v1-imagenet"  # in the catalog

app = App(
    help="Hold models against published numbers.", epilog="Is this the published model?  `vadis reproduce sample`"
)
plot_app = App(
    help="Draw pictures of models.",
    epilog="Figure 4 of the paper:  `vadis plot filters i3d-kinetics400 -o filters.png`",
)


_RGB_HELP = "An .npy: preprocessed frames (1, T, 224, 224, 3) in [-1, 1] instead of the sample."
_FLOW_HELP = "An .npy: preprocessed flow (1, T, 224, 224, 2) in [-1, 1] instead of the sample."


@app.add("sample", "Is this the published model?  `vadis reproduce sample --model i3d-kinetics400-rgb`")
def sample(
    model: options.ModelName = None,
    rgb: Annotated[Path | None, option(VIDEOS, _RGB_HELP, metavar="FILE")] = None,
    flow: Annotated[Path | None, option(VIDEOS, _FLOW_HELP, metavar="FILE")] = None,
    as_json: options.AsJson = False,
    device: options.Device = "auto",
    offline: options.Offline = False,
) -> None:
    """Run DeepMind's published sample through a model, and show its logits beside the published ones.

    Exit code 1 if they differ. With --rgb and --flow, any preprocessed arrays; there is nothing published to
    compare those with, unless they are the sample's.
    """
    from vadis.evaluation.sample import fetch_sample, reproduce_sample
    from vadis.weights.cache import is_offline

    loaded = load_for_command(model, None, device, offline, announce=False)
    paths = {stream: path for stream, path in (("rgb", rgb), ("flow", flow)) if path is not None}
    if not paths:
        offline = offline or is_offline()
        with download_progress() as progress:
            paths = fetch_sample(loaded.card.streams, offline=offline, progress=progress)
    outcome = reproduce_sample(loaded, paths)
    titles = {stream: f"{stream}: {show(paths.get(stream, 'the sum of both'))}" for stream in outcome["streams"]}
    each = (_comparison(values, titles[stream]) for stream, values in outcome["streams"].items())
    _print_outcome(outcome, as_json, chain.from_iterable(each))


def _print_outcome(outcome: Mapping[str, Any], as_json: bool, lines: Iterable[str]) -> None:
    """Print the outcome of a comparison, and exit with code 1 if it failed."""
    typer.echo(json.dumps(outcome, indent=1, allow_nan=False) if as_json else "\n".join(lines))
    if outcome["passed"] is False:
        raise typer.Exit(1)


def _comparison(values: Mapping[str, Any], title: str) -> Iterator[str]:
    def line(name: str, ours: str, published: str) -> str:
        return f"  {name:<30} {ours:>19}   {published:>19}"

    def logit(of: Mapping[str, Any] | None) -> str:  # with the digits that DeepMind prints
        return f"{of['probability']:.5g} {of['logit']:8.4f}" if of else NO_FIGURE

    published = values["published"] or {"top": []}
    theirs = {each["label"]: each for each in published["top"]}
    yield title
    yield line("", "vadis", "published")
    yield line("norm of the logits", f"{values['norm']:.6f}", f"{published['norm']:.6f}" if theirs else NO_FIGURE)
    for each in values["top"]:
        yield line(visible(each["label"])[:30], logit(each), logit(theirs.get(each["label"])))
    verdict = "nothing is published for this model and input"
    if theirs:
        verdict = f"{'PASS' if values['passed'] else 'FAIL'}: largest difference {values['largest_error']:.6f}"
    yield f"  {verdict}\n"


_FVD_MODEL = "By default as for vadis fvd."


@app.add("fvd", "Does vadis compute the published distances?  `vadis reproduce fvd`")
def fvd(
    model: Annotated[str | None, option(MODEL, _FVD_MODEL, "--model", "-m", **options.OF_MODEL)] = None,
    as_json: options.AsJson = False,
    device: options.Device = "auto",
    offline: options.Offline = False,
) -> None:
    """Compute Fréchet video distances that were published for the TensorFlow code, and show them beside ours.

    Exit code 1 if they differ. Some minutes on a processor: 272 videos.
    """
    from vadis.evaluation.frechet import PUBLISHED_DISTANCES, reproduce

    loaded = load_fvd_model(model, "rgb", device, offline)
    with video_progress() as bars:
        bar = bars.add_task("videos", total=sum(each.num_videos for each in PUBLISHED_DISTANCES))
        outcome = reproduce(loaded, lambda: bars.advance(bar))
    other = "nothing is published for weights of 16 bits, or of another model"
    rows = (
        f"{row['input']} ({row['source']})\n"
        f"  published {row['published']:.8f}   vadis {row['ours']:.8f}   {row['difference']:+.8f}"
        for row in outcome["values"]
    )
    _print_outcome(outcome, as_json, [*rows, {True: "PASS", False: "FAIL", None: other}[outcome["passed"]]])


_RUNS_HELP = "Where finished runs are looked for, and new ones are to lie."
_DRY_RUN_HELP = "Only the commands, with the disk and the GPU-hours that they take."
_TFLOPS_HELP = "For --dry-run: 10¹² operations per second that one GPU sustains."


@app.add("table", "What is there of table 5, and what it takes:  `vadis reproduce table 5 --runs runs/ --dry-run`")
def table(
    number: Annotated[int, typer.Argument(metavar="2|3|4|5", min=2, max=5, help="The table's number in the paper.")],
    runs: Annotated[Path, option(VIDEOS, _RUNS_HELP, metavar="DIR")],
    dry_run: Annotated[bool, flag(OUTPUT, _DRY_RUN_HELP, "--dry-run")] = False,
    tflops: Annotated[float, option(OUTPUT, _TFLOPS_HELP, metavar="T", min=0.001)] = DEFAULT_TFLOPS,
) -> None:
    """Show a table of the paper with our results beside each number, and the commands for what is missing.

    Results are those of finished runs of train, finetune and evaluate anywhere below DIR. The commands stand in an
    order in which they can be run; put your folders for ucf101/, hmdb51/ and kinetics400/.
    """
    from vadis.evaluation.paper_plan import find_runs, plan
    from vadis.evaluation.paper_tables import TABLES

    wanted, index = TABLES[number], find_runs(runs)
    for note in index.notes:
        warn(note)
    if not index.runs:
        info(f"there are no finished runs in {show(runs)} yet")
    if not dry_run:
        typer.echo("\n".join([f"Table {number}. {wanted.title}", *_lines(wanted, index), ""]))
    missing = sum(index.figure(cell) is None for cell in wanted.cells())
    typer.echo(f"# table {number}: {missing} of {len(wanted.cells())} numbers are missing")
    if jobs := plan(wanted, index, runs):
        typer.echo("\n".join(_script(jobs, tflops if dry_run else None)))


def _lines(wanted: "Table", index: "RunIndex") -> Iterator[str]:
    footnotes: dict[str, None] = {}
    titles = max(len(row.title) for row in wanted.rows)
    width = 1 + max(FIGURE_WIDTH, *(len(column) for columns in wanted.groups.values() for column in columns))

    def line(title: str, which: str, texts: Iterable[str]) -> str:
        return f"{title:<{titles}}{which:>6}{''.join(f'{text:>{width}}' for text in texts)}"

    heads = (f"{title:^{width * len(columns)}}" for title, columns in wanted.groups.items())
    yield f"{'':{titles + 6}}{''.join(heads)}".rstrip()
    yield line("", "", chain.from_iterable(wanted.groups.values()))
    for row in wanted.rows:
        yield line(row.title, "paper", row.printed.split())
        yield line("", "ours", [_ours(cell, index, footnotes) for cell in row.cells])
    yield f"\n{NO_FIGURE} the paper has no figure    {MISSING} no finished run yet"
    yield from (f"{REMARK} {visible(note)}" for note in footnotes)


def _ours(cell: "Cell", index: "RunIndex", footnotes: dict[str, None]) -> str:
    """Return our figure as it is shown; what there is to say of it goes into ``footnotes``, each once."""
    value, notes = index.figure(cell), list[str]()
    for newest, *older in filter(None, (index.runs_of(cell, split) for split in cell.splits)):
        notes += [f"{newest.folder}: {remark}" for remark in newest.remarks]
        if older:
            some = ", ".join(str(run.folder) for run in older[:3]) + (", …" if len(older) > 3 else "")
            notes.append(f"{newest.folder} is the newest of {1 + len(older)} runs; also {some}")
    missing = index.splits_missing(cell)
    if 0 < len(missing) < len(cell.splits):
        data = f"{cell.dataset}, {'ImageNet+' if cell.imagenet else ''}Kinetics"
        notes = [f"{data}: there is no run yet of split {', '.join(map(str, missing))}"]
    footnotes |= dict.fromkeys(notes)
    none = MISSING if cell.paper is not None else NO_FIGURE
    return REMARK * bool(notes) + (none if value is None else f"{value:.1%}"[:-1])


def _script(jobs: "list[Job]", tflops: float | None) -> Iterator[str]:
    """Yield the jobs as a script: comments, and commands that a shell takes as they are."""
    from vadis.evaluation.paper_plan import videos_bytes

    def costs(flops: float, core_seconds: float, num_bytes: float) -> str:
        hours = [(flops / (tflops or 1) / 1e12, "GPU-hours"), (core_seconds, "core-hours")]
        return ", ".join([f"{s / 3600:,.1f} {unit}" for s, unit in hours if s] + [f"{num_bytes / 1e9:,.1f} GB"])

    for number, job in enumerate(jobs, 1):
        fills = f", {len(job.fills)} number{'s' * (len(job.fills) > 1)}" if job.fills else ""
        taken = f", {costs(job.flops, job.core_seconds, job.num_bytes)}" if tflops else ""
        yield f"\n# {number}. {visible(job.title)}{fills}{taken}"
        line = " ".join(job.command)
        yield visible(line) if len(line) <= 78 else " \\\n    ".join(map(visible, job.command))
    yield "\n# on N GPUs: torchrun --standalone --nproc-per-node N -m vadis … (not fixed)"
    if tflops:
        num_bytes = videos_bytes(jobs) + sum(job.num_bytes for job in jobs)
        whole = costs(sum(job.flops for job in jobs), sum(job.core_seconds for job in jobs), num_bytes)
        yield f"# in all: {whole} with the videos"
        yield f"# if a GPU sustains {tflops:g} TFLOP/s (--tflops)"
    else:
        yield "# --dry-run says what time and disk space they take"


@app.add("fields", "Figure 3 of the paper:  `vadis reproduce fields`")
def fields() -> None:
    """Show of how many frames and pixels each layer of I3D sees something: figure 3 of the paper."""
    from vadis.evaluation.paper_tables import FIGURE_3
    from vadis.models.i3d import receptive_field
    from vadis.models.i3d_inference import LAYERS
    from vadis.video.timegrid import GRID_FPS

    typer.echo(f"{'':18}{'frames':>8}{'seconds':>9}{'pixels':>10}   paper (time,x,y)")
    for layer in LAYERS:
        frames, height, width = receptive_field(layer)
        paper = ",".join(map(str, FIGURE_3.get(layer, ())))
        typer.echo(f"{layer:18}{frames:8}{frames / GRID_FPS:9.2f}{f'{width}×{height}':>10}   {paper}".rstrip())
    typer.echo("the paper's last two are those of four blocks between MaxPool3d_4a and MaxPool3d_5a; there are five")


_SCALE = "What has one scale of colours: each network, or each filter, which shows the faint ones too."
_IMAGENET = f"The original; by default {IMAGENET_MODEL}, if it is here."


@plot_app.add("filters", "Figure 4 of the paper:  `vadis plot filters i3d-kinetics400 -o filters.png`")
def filters(
    model: options.ModelArgument,
    output: Annotated[Path, option(OUTPUT, "The picture, a .png.", "--output", "-o", metavar="FILE")],
    imagenet: Annotated[str | None, option(MODEL, _IMAGENET, metavar=NAME_OR_FILE)] = None,
    scale: Annotated[str, choice(OUTPUT, _SCALE, ("network", "filter"))] = "network",
    overwrite: options.Replace = False,
    offline: options.Offline = False,
) -> None:
    """Draw the filters of I3D's first layer over time: figure 4 of the paper.

    The flow network's, the RGB network's, and those of the Inception-v1 that learnt ImageNet, if it is in the cache.
    """
    check_file(output, overwrite, extensions=(".png",))
    loaded = load_for_command(model, None, "cpu", offline, announce=False)
    from vadis.models.i3d import ROWS
    from vadis.report.plots import plot_filters

    if loaded.card.architecture != "i3d":
        message = f"{show(loaded.card.name)} is a model of {loaded.card.architecture}; only i3d has these filters"
        raise UsageError(message, hint="name an I3D model: `vadis weights list` shows the published ones")
    key = f"{ROWS[0].name}.conv.weight"  # (64, C, 7, 7, 7)
    found = {stream: network.state_dict()[key].numpy() for stream, network in loaded.networks.items()}
    with writing(show(output)):
        networks, title = found | _of_imagenet(imagenet, offline), f"First layer of {show(model)}"
        plot_filters(networks, output, title, per_filter=scale == "filter")
    typer.echo(show(output))


def _of_imagenet(path: str | None, offline: bool) -> "dict[str, NDArray[np.float32]]":
    """Return the filters of the original, (64, 3, 1, 7, 7); nothing where it is neither given nor here."""
    from vadis.models.inception import imagenet_body
    from vadis.weights.cache import is_file, model_path

    if path is None and not is_file(model_path(IMAGENET_MODEL)):
        info(f"without the original's filters: `vadis weights download {IMAGENET_MODEL}` fetches them")
        return {}
    original = load_for_command(path or IMAGENET_MODEL, None, "cpu", offline, announce=False)
    try:
        body = imagenet_body(original.networks["rgb"].state_dict())
    except (KeyError, ValueError) as error:
        hint = f"leave --imagenet out, or give the file of {IMAGENET_MODEL}"
        raise UsageError(f"{show(original.card.name)} is no Inception-v1 for RGB", hint) from error
    (kernel,) = (value for key, value in body.items() if key.startswith("Conv2d_1a") and key.endswith("conv.weight"))
    return {"imagenet": kernel.unsqueeze(2).numpy()}
