"""Folders of numbered pictures, read as the frames of a video."""

import os
import re
import stat
from collections.abc import Iterator
from fractions import Fraction

from vadis.errors import VideoError
from vadis.video.container import os_refusal
from vadis.video.metadata import Limits, Picture, SourceFrame, VideoFacts
from vadis.video.timegrid import GRID_FPS

PICTURE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")  # Pillow's names of these


def picture_names(folder: str) -> list[str]:
    """Return the pictures in a folder in natural order, 2.png before 10.png; raise OSError."""
    names = [name for name in os.listdir(folder) if name.lower().endswith(PICTURE_EXTENSIONS) and name[0] != "."]  # noqa: PTH208
    return sorted(names, key=lambda name: (_parts(name), name))


def _parts(name: str) -> list[str | int]:
    return [int(part) if at % 2 else part for at, part in enumerate(re.split(r"([0-9]+)", name))]  # text and numbers


class PictureFolder:
    """A folder of pictures, open for reading, once: what ``reader.Video`` has that ``source_frames`` belongs to.

    Files of pictures have no times: ``source_frames`` shows 25 per second.
    """

    expected_num_frames = start_seconds = colours = None
    first_seconds, pixel_aspect, start_frame = Fraction(0), Fraction(1), 0

    def __init__(self, folder: str, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        try:
            self._names = picture_names(folder)
        except OSError as error:
            raise os_refusal(error, what="the folder") from error
        if not self._names:
            raise VideoError("no_frames", "the folder holds no pictures")
        limits.check_length(num_frames=len(self._names))
        self._num_read = 0
        height, width = self._read(self._names[0]).shape[:2]
        self.size = width, height

    @property
    def facts(self) -> VideoFacts:
        """What is known by now."""
        count = len(self._names)
        return VideoFacts(None, self.size, 0, None, count, self._num_read, None, "ok", ())

    def source_frames(self, start: int = 0) -> Iterator[SourceFrame]:
        """Yield the pictures from number ``start`` on; raise VideoError for one that is no whole picture."""
        for number, name in enumerate(self._names[start:], start):
            pixels = self._read(name)
            if pixels.shape[1::-1] != self.size:
                raise VideoError("decode_failed", f"{name} has another size than the first picture")
            self._num_read += 1
            yield SourceFrame(pixels, Fraction(number, GRID_FPS), Fraction(1, GRID_FPS), None)

    def _read(self, name: str) -> Picture:
        import numpy as np
        from PIL import Image, UnidentifiedImageError

        path = os.path.join(self._folder, name)  # noqa: PTH118
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
                raise VideoError("not_a_regular_file", f"{name} is not a regular file")
            with Image.open(path, formats=_FORMATS) as image:
                self._limits.check_pixels(*image.size)
                if image.mode.startswith(("I", "F")):
                    raise VideoError("decode_failed", f"{name} has more than 8 bits per channel")
                return np.asarray(image.convert("RGB"))
        except UnidentifiedImageError as error:
            raise VideoError("decode_failed", f"{name} is not a picture that can be read") from error
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            if isinstance(error, OSError) and error.errno:
                raise os_refusal(error, what=name) from error
            raise VideoError("truncated_or_incomplete", f"{name} is cut short or damaged") from error
