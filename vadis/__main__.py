"""The program: ``vadis``, and ``python -m vadis``."""

import os
import signal
import sys


def main() -> None:
    """Load the command line, run it, and end the process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while it is being loaded: an end without a traceback
    from vadis import cli

    try:
        cli.main()
    except SystemExit as ending:
        if isinstance(ending.code, int):
            _leave(ending.code)
        raise


def _leave(code: int) -> None:
    """End a process that has PyTorch at once, for to take that down again takes a tenth of a second.

    Everything has been closed by now. Ray and processes that train together have an end of their own, and one whose
    output cannot be written ends as Python does it.
    """
    if "torch" not in sys.modules or sys.modules.keys() & {"ray", "vadis.training.distributed"}:
        return
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return
    os._exit(code)


if __name__ == "__main__":
    main()
