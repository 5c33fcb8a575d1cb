"""``vadis plot``: pictures of models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vadis.cli import options
from vadis.cli.loading import load_for_command
from vadis.cli.outputs import check_file, writing
from vadis.cli.terminal import info, show
from vadis.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vadis.models.card import Model

IMAGENET_MODEL = "inception-v1-imagenet"  # in the catalog

app = typer.Typer(help="Draw pictures of models.", no_args_is_help=True)


@app.callback()
def plot() -> None:
    """Draw pictures of models."""


_MODEL = "A name that 'vadis weights list' shows, or a file."
_IMAGENET = f"The original's model file; by default {IMAGENET_MODEL}, if it is here."


@app.command()
def filters(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=_MODEL)],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.png", help="The picture.")],
    imagenet: Annotated[str | None, typer.Option(metavar="PATH", help=_IMAGENET)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", metavar="", help="Replace FILE if it exists.")] = False,
    offline: options.Offline = False,
    debug: options.Debug = False,
) -> None:
    """Draw the filters of I3D's first layer over time: figure 4 of the paper.

    The flow network's, the RGB network's, and those of the Inception-v1 that learnt ImageNet, if it is in the cache.
    """
    if output.suffix.lower() != ".png":
        raise UsageError(f"{show(output)} is no name of a PNG picture", hint="let it end with .png")
    check_file(output, overwrite)
    networks = _of_i3d(load_for_command(model, None, "cpu", offline, announce=False)) | _of_imagenet(imagenet, offline)
    from vadis.report.plots import plot_filters

    with writing(show(output)):
        plot_filters(networks, output, f"First layer of {show(model)}")
    typer.echo(show(output))


def _of_i3d(model: "Model") -> "dict[str, NDArray[np.float32]]":
    """By stream, the filters (64, C, 7, 7, 7)."""
    from vadis.models.i3d import ROWS

    if model.card.architecture != "i3d":
        message = f"{show(model.card.name)} is a model of {model.card.architecture}; only i3d has these filters"
        raise UsageError(message, hint="name an I3D model: `vadis weights list` shows the published ones")
    key = f"{ROWS[0].name}.conv.weight"
    return {stream: network.state_dict()[key].numpy() for stream, network in model.networks.items()}


def _of_imagenet(path: str | None, offline: bool) -> "dict[str, NDArray[np.float32]]":
    """The filters of the original, (64, 3, 1, 7, 7); nothing where it is neither given nor here, which is said."""
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
