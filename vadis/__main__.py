"""The program: ``vadis``, and ``python -m vadis``."""

import signal


def main() -> None:
    """Load the command line and run it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while it is being loaded: an end without a traceback
    from vadis import cli

    cli.main()


if __name__ == "__main__":
    main()
