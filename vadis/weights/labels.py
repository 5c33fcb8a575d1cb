"""Label lists: the names of a model's classes, in the order of its outputs."""

import unicodedata
from functools import lru_cache
from pathlib import Path

from vadis.errors import WeightsError
from vadis.files import os_errors_as
from vadis.parsing import decode

MAX_LABELS_BYTES = 4 << 20  # Kinetics-600's list has 9,209
MAX_LABEL_LENGTH = 200  # characters
PUBLISHED_LISTS = {"kinetics400": 400, "kinetics600": 600, "imagenet": 1000}
"""The lists in this package, DeepMind's (``data/label_map*.txt``) and torchvision's, with their numbers of classes."""


@lru_cache
def published_labels(name: str) -> tuple[str, ...]:
    """Return a list of ``PUBLISHED_LISTS``."""
    return tuple((Path(__file__).parent / "labels" / f"{name}.txt").read_text(encoding="utf-8").splitlines())


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the labels in a text file, one in a line, UTF-8 or UTF-16; raise WeightsError if a line is not a label."""
    with os_errors_as(WeightsError, f"{path} cannot be read"), path.open("rb") as stream:
        content = stream.read(MAX_LABELS_BYTES + 1)
    if len(content) > MAX_LABELS_BYTES:
        message = f"{path} is too large for a list of labels (more than {MAX_LABELS_BYTES} bytes)"
        raise WeightsError(message, hint="name a text file with one label in a line")
    lines = decode(content).replace("\r\n", "\n").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if fault := label_fault(line):
            hint = "write one label in a line, in the order of the outputs, in UTF-8, and nothing else"
            raise WeightsError(f"line {number} of the label list {path} {fault}", hint)
    return tuple(lines)


def label_fault(label: object) -> str | None:
    """Return what keeps ``label`` from being one ("is empty", …), or None if it is one."""
    if not isinstance(label, str):
        return "is not text"
    if not label.strip():
        return "is empty"
    if len(label) > MAX_LABEL_LENGTH:
        return f"has more than {MAX_LABEL_LENGTH} characters"
    # Cc: control characters; Cs: surrogates, which bytes become that are no text; Zl, Zp: line and paragraph separators
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in label):
        return "has a control character, or is not UTF-8"
    return None
