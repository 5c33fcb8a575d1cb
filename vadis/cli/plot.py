"""``vadis plot``: pictures of models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vadis.cli import options
from vadis.cli.outputs import check_file, writing
from vadis.cli.run import load_for_command
from vadis.cli.terminal import info, show
from vadis.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IMAGENET_MODEL = "inception-v1-imagenet"  # in the catalog

app = typer.Typer(help="Draw pictures of models.", no_args_is_help=True)


_MODEL = "A name that 'vadis weights list' shows, or a file."
_IMAGENET = f"The original's model file; by default {IMAGENET_MODEL}, if it is here."


@app.command()
def filters(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=_MODEL)],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.png", help="The picture.")],
    imagenet: Annotated[str | None, typer.Option(metavar="PATH", help=_IMAGENET)] = None,
    overwrite: options.Replace = False,
    offline: options.Offline = False,
    debug: options.Debug = False,
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
        plot_filters(found | _of_imagenet(imagenet, offline), output, f"First layer of {show(model)}")
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
