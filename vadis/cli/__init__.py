"""The command line: ``app`` assembles the commands, ``main`` runs them and turns every ending into an exit code.

What is heavy is imported where it is used, so that ``vadis --help`` answers at once.
"""

import logging
import os
import re
import sys
from typing import Annotated, Any, NoReturn

import typer

import vadis
from vadis.cli import classify, doctor, evaluate, features, flow, fvd, reproduce, results, signals, train, weights
from vadis.cli.options import App, Group
from vadis.cli.terminal import LogHandler, repair_standard_streams, report_error, settings, show
from vadis.errors import UsageError
from vadis.video.sources import VIDEO_EXTENSIONS

# Before PyTorch is loaded: threads that wait sleep. By default they spin, which takes the processor from whoever they
# wait for wherever others want it too; on a busy machine a training step took up to ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

logging.getLogger("vadis").addHandler(LogHandler())
logging.getLogger("vadis").setLevel(logging.INFO)

_GLOBAL_FLAGS = ("--quiet", "-q", "--verbose", "-v", "--debug")
_ADDRESS = re.compile(r"auto|local|ray://.*|[\w.-]+:\d+")  # of a Ray cluster


class Commands(Group):
    """All commands; global flags may stand anywhere, and ``--ray`` without an address: it takes one that follows."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        word = args[0]
        is_input = word.lower().endswith(VIDEO_EXTENSIONS) or os.path.exists(word)  # noqa: PTH110
        if word not in self.commands and is_input and not ctx.resilient_parsing:
            raise UsageError(f"{show(word)} is no command", hint=f"to label it: vadis classify {show(word)}")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        words = [word for word in args[:end] if word not in _GLOBAL_FLAGS]
        flags = [word for word in args[:end] if word in _GLOBAL_FLAGS]
        for at in reversed(range(len(words))):
            if words[at] == "--ray" and not _ADDRESS.fullmatch("".join(words[at + 1 : at + 2])):
                words.insert(at + 1, "auto")
        return super().parse_args(ctx, flags + words + args[end:])


EPILOG = """
Start with:  `vadis classify holiday.mp4`

What a command can do:  `vadis classify --help`

`-q` (say less) and `-v` (say more) may stand anywhere:  `vadis classify holiday.mp4 -q`
"""

app = App(
    cls=Commands,
    name="vadis",
    help="Find out what happens in your videos: two-stream I3D action recognition (Carreira & Zisserman, 2017).",
    epilog=EPILOG,
    pretty_exceptions_enable=False,  # report_error() decides what is shown
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add("classify", classify.EPILOG)(classify.classify)
app.add("find", results.FIND_EPILOG)(results.find)
app.add("cut", results.CUT_EPILOG)(results.cut)
app.add("export", results.EXPORT_EPILOG)(results.export)
app.add("report", results.REPORT_EPILOG)(results.report)
app.add("annotate", results.ANNOTATE_EPILOG)(results.annotate)
app.add("features", features.EPILOG)(features.features)
app.add("flow", flow.EPILOG)(flow.flow)
app.add("train", train.EPILOG)(train.train)
app.add("finetune", train.FINETUNE_EPILOG)(train.finetune)
app.add("evaluate", evaluate.EPILOG)(evaluate.evaluate)
app.add("fvd", fvd.EPILOG)(fvd.fvd)
app.add("labels", results.LABELS_EPILOG)(results.labels)
app.add_typer(weights.app, name="weights")
app.add_typer(reproduce.app, name="reproduce")
app.add_typer(reproduce.plot_app, name="plot")
app.add("doctor", doctor.EPILOG)(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"vadis {vadis.__version__}\n")
        raise typer.Exit()


_DEBUG = "Show the traceback when something fails."


@app.callback()
def set_up(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but what went wrong.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
    debug: Annotated[bool, typer.Option("--debug", envvar="VADIS_DEBUG", help=_DEBUG)] = False,
) -> None:
    """Take the global options, before the command starts."""
    if quiet and verbose:
        raise typer.BadParameter("--quiet and --verbose exclude each other")
    settings.quiet, settings.verbose, settings.debug = quiet, verbose, debug
    settings.advised.clear()


def main() -> None:
    """Run the command line and leave with its exit code (see ``vadis.errors``)."""
    signals.install()
    repair_standard_streams()
    try:
        app(prog_name="vadis")
    except BrokenPipeError:  # the reader has what it wanted, as with `| head`
        sys.exit(1)
    except SystemExit:
        raise
    except BaseException as raised:  # noqa: BLE001 (every ending has an exit code)
        _end(signals.cause(raised))
    finally:
        signals.finish()


def _end(error: BaseException) -> NoReturn:
    """Report what ended the run, and end the process; of torchrun's processes one reports an error that many meet."""
    if "LOCAL_RANK" in os.environ:
        from vadis.training.distributed import exit_now, report_once

        with signals.deferred():  # torchrun may ask this one to end because another has
            report_once(lambda: report_error(error))
            exit_now(getattr(error, "exit_code", 1))
    code = report_error(error)
    if distributed := sys.modules.get("vadis.training.distributed"):  # not imported for this
        distributed.exit_now(code)  # at once: a thread may be busy in PyTorch that nobody waits for any more
    sys.exit(code)
