"""What some tests need and not every machine has: they skip with the reason where it is absent, and in CI they fail."""

import os
from importlib.util import find_spec
from types import ModuleType
from typing import NoReturn

import pytest

from vadis.errors import VadisError
from vadis.video.encoder import load_opencv


def absent(reason: str) -> NoReturn:
    """Skip the test, or fail it in CI (``CI=true``), where whatever tests need has been installed."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true, but this test {reason}")
    pytest.skip(reason)


def require_modules(*names: str) -> None:
    """Require modules of the extra ``integration``, by their top-level names."""
    lacking = [name for name in names if find_spec(name) is None]
    if lacking:
        absent(f"needs {', '.join(lacking)} (pip install -e '.[integration]')")


def require_opencv() -> ModuleType:
    """Return the module cv2, or require it where it cannot be loaded, as on a server without libGL and libxcb."""
    try:
        return load_opencv()
    except VadisError as error:
        absent(f"needs OpenCV: {error.message} ({error.hint})")
