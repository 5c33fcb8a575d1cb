"""What a user reads when the disk refuses a file of the cache, or a model file."""

from pathlib import Path

from vadis.atomic import FULL_DISK
from vadis.errors import WeightsError


def write_error(path: Path, num_bytes: int | None, error: OSError) -> WeightsError:
    """What a user should read when ``path``, of ``num_bytes``, could not be written."""
    size = "" if num_bytes is None else f" ({num_bytes / 1e6:,.1f} MB)"
    if error.errno in FULL_DISK:
        return WeightsError(
            f"no space left to write {path}{size}",
            hint="free some space, or set VADIS_CACHE to a folder on another disk",
        )
    return WeightsError(
        f"{path}{size} cannot be written: {error.strerror}",
        hint="set VADIS_CACHE to a folder that can be written, if this is the cache",
    )
