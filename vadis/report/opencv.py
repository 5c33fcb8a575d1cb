"""Load OpenCV, which draws and does nothing else here: its desktop wheel needs libGL and libxcb, which servers lack."""

import sys
from types import ModuleType

from vadis.errors import VadisError


def opencv() -> ModuleType:
    """The module cv2.

    Raises:
        VadisError: where it cannot be loaded, with what to install.
    """
    path = list(sys.path)
    try:
        import cv2
    except Exception as error:  # whatever a broken installation raises
        # Where it fails, OpenCV's loader leaves its own folder in the path, which holds a `typing`, and a mark by which
        # it gives another reason the next time.
        sys.path[:] = path
        vars(sys).pop("OpenCV_LOADER", None)
        hint = (
            "install the system's libGL and libxcb (Debian, Ubuntu: apt-get install libgl1), or replace opencv-python "
            "by opencv-python-headless"
        )
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise VadisError(f"OpenCV, which draws into videos, cannot be loaded: {reason}", hint=hint) from error
    module: ModuleType = cv2
    return module
