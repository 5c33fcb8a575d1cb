"""How functions are compiled: by numba, without the GIL, kept on disk between processes."""

import functools
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs

from vadis.errors import UsageError

_threads = os.environ.get("NUMBA_NUM_THREADS", "1")
if not (_threads.isdecimal() and int(_threads)):  # of which numba would make a ValueError, or print a traceback
    raise UsageError(f"NUMBA_NUM_THREADS must be a positive number, not {_threads!r}", hint="unset it")

import numba  # noqa: E402

_log = logging.getLogger(__name__)


def cache_directory() -> Path:
    """Return where machine code is kept: below ``$NUMBA_CACHE_DIR``, or ``compiled`` in vadis's own cache."""
    vadis = Path(os.environ.get("VADIS_CACHE") or platformdirs.user_cache_path("vadis", appauthor=False))
    own = vadis.expanduser().absolute() / "compiled"
    # numba looks only at the file of the function it compiles, not at the ones it calls: the folder names all of them.
    sources = b"".join(source.read_bytes() for source in sorted(Path(__file__).parent.glob("*.py")))
    return Path(os.environ.get("NUMBA_CACHE_DIR") or own) / hashlib.sha256(sources).hexdigest()[:16]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` for Python, compiled at its first call and kept on disk, where that can be written."""
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(cache_directory())
    try:
        machine = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError as error:  # numba: "no locator available"
        _log.warning("compiled code cannot be kept for the next run: %s", error)
        machine = numba.njit(nogil=True, error_model="numpy")(function)
    finally:
        numba.config.CACHE_DIR = before

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        try:
            return machine(*args)
        except OSError as error:  # from keeping it (a full disk): machine code opens no files, and is there by now
            _log.warning("compiled code cannot be kept for the next run: %s", error)
            return machine(*args)

    return call


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` for use inside ``compiled`` functions only; part of their machine code."""
    return numba.njit(nogil=True, error_model="numpy")(function)  # type: ignore[no-any-return]
