"""``python -m vadis``."""

from vadis.cli import main

main()
