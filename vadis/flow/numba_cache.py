"""How functions are compiled: by numba, without the GIL, kept on disk between processes.

numba takes half a second to import. So modules with functions for use inside compiled ones (``inlined``) are imported
where they are used, and the command line begins with it beforehand (``import_ahead``).
"""

import functools
import hashlib
import importlib
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import platformdirs

from vadis.errors import UsageError

_threads = os.environ.get("NUMBA_NUM_THREADS", "1")
if not (_threads.isdecimal() and int(_threads)):  # of which numba would make a ValueError, or print a traceback
    raise UsageError(f"NUMBA_NUM_THREADS must be a positive number, not {_threads!r}", hint="unset it")

OPTIONS = {"nogil": True, "error_model": "numpy"}  # for numba

_log = logging.getLogger(__name__)
_setting = threading.Lock()  # numba's folder is one for the process; it is read while a function is wrapped


def cache_directory() -> Path:
    """Return where machine code is kept: below ``$NUMBA_CACHE_DIR``, or ``compiled`` in vadis's own cache."""
    vadis = Path(os.environ.get("VADIS_CACHE") or platformdirs.user_cache_path("vadis", appauthor=False))
    own = vadis.expanduser().absolute() / "compiled"
    # numba looks only at the file of the function it compiles, not at the ones it calls: the folder names all of them.
    sources = b"".join(source.read_bytes() for source in sorted(Path(__file__).parent.glob("*.py")))
    return Path(os.environ.get("NUMBA_CACHE_DIR") or own) / hashlib.sha256(sources).hexdigest()[:16]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` for Python, compiled at its first call and kept on disk, where that can be written."""

    @functools.cache
    def machine() -> Any:
        import numba

        with _setting:
            before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(cache_directory())
            try:
                return numba.njit(cache=True, **OPTIONS)(function)
            except RuntimeError as error:  # numba: "no locator available"
                _log.warning("compiled code cannot be kept for the next run: %s", error)
                return numba.njit(**OPTIONS)(function)
            finally:
                numba.config.CACHE_DIR = before

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        try:
            return machine()(*args)
        except OSError as error:  # from keeping it (a full disk): machine code opens no files, and is there by now
            _log.warning("compiled code cannot be kept for the next run: %s", error)
            return machine()(*args)

    return call


def inlined(function: Callable[..., Any]) -> Any:
    """Return ``function`` for use inside ``compiled`` functions only; part of their machine code."""
    import numba

    return numba.njit(**OPTIONS)(function)


def import_ahead(*modules: str) -> None:
    """Import modules in a thread of their own, in which what they raise does not count: who needs them meets it."""

    def work() -> None:
        with suppress(Exception):
            for module in modules:
                importlib.import_module(module)

    threading.Thread(target=work, name="import", daemon=True).start()
