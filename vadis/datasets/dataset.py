"""What every dataset becomes: ``Example`` → ``Dataset``, with notes on what was found on the way."""

import os
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from vadis.errors import UsageError, VideoError
from vadis.results import printable

if TYPE_CHECKING:
    from vadis.video.isolated.pool import Decoders

MOST_NAMED = 5  # files or classes named in one message or line
ALLOWED_MISSING = 0.1  # a tenth of a split's files missing changes its accuracy by more than papers argue about


@dataclass(frozen=True, slots=True)
class Example:
    """A video, or the part ``[start_seconds, end_seconds)`` of one, with its class."""

    path: str
    label: str
    start_seconds: float | None = None  # None: the file is the clip
    end_seconds: float | None = None
    may_be_trimmed: bool = False  # the file may also be nothing but the clip, which only its length tells; see span

    def span(self, seconds: float | None) -> tuple[float, float | None]:
        """Return where the example begins and ends in its file of ``seconds``; None: unknown, or at the file's end.

        A file that may be trimmed is the clip where it ends before the clip would begin, and where its length is nearer
        to the clip's than to what a whole video would need at least: a whole video is never shorter than its parts.
        """
        start, end = self.start_seconds or 0.0, self.end_seconds
        if not self.may_be_trimmed or seconds is None or end is None:
            return start, end
        is_trimmed = seconds <= start or abs(seconds - (end - start)) <= end - seconds
        return (0.0, None) if is_trimmed else (start, end)


class Request(NamedTuple):
    """Which split of a dataset is wanted (from 1), and how complete it must be; see ``find_dataset``."""

    split: int = 1
    allow_missing: float = ALLOWED_MISSING


@dataclass(frozen=True)
class Dataset:
    """The examples of one split of a dataset."""

    name: str  # a key of DATASETS
    root: str  # the folder it was read from
    classes: tuple[str, ...]  # in the order of a model's outputs
    split: int  # the number of the official split
    splits: Mapping[str, tuple[Example, ...]]  # "train", "val", "test", those that there are; in a stable order
    notes: tuple[str, ...] = ()  # what to know before hours are spent on it: files that are missing or in no split, …

    def examples(self, split: str) -> tuple[Example, ...]:
        """Return the examples of "train", "val" or "test"; a split that is not on disk is an error."""
        if split not in self.splits:
            message = f"{self.name} in {printable(self.root)} has no {split} split (it has {', '.join(self.splits)})"
            raise UsageError(message, f"add its videos: in a folder {split}/, or with lists that name them")
        return self.splits[split]

    def summary(self) -> str:
        """Return text for the terminal: what there is, then the notes, one in a line."""
        sizes = ", ".join(f"{split} {len(examples):,}" for split, examples in self.splits.items())
        head = f"{self.name}, split {self.split}, in {printable(self.root)}"
        return "\n  ".join([head, f"{len(self.classes):,} classes; examples: {sizes}", *self.notes])


def path_below(path: str, root: str) -> str:
    """Return ``path`` as seen from the folder of its dataset: the same wherever that lies, and however it is named."""
    return os.path.relpath(path, root)


def some(names: Iterable[str], most: int = MOST_NAMED) -> str:
    """Return the first few of ``names`` as text, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - most:,} more" if len(every) > most else ""
    return ", ".join(map(printable, every[:most])) + more


def counted(things: Collection[object], noun: str) -> str:
    """Return "1 file", "1,200 files", "2 classes"."""
    plural = "" if len(things) == 1 else "es" if noun.endswith("s") else "s"
    return f"{len(things):,} {noun}{plural}"


def note_of(what: str, names: Collection[str], noun: str) -> list[str]:
    """Return a note such as "missing: 2 files: a, b"; none where there are no names."""
    return [f"{what}: {counted(names, noun)}: {some(names)}"] if names else []


def class_key(name: str) -> str:
    """Return what is the same in all spellings of a class on disk: its letters and digits, without case."""
    return "".join(filter(str.isalnum, name.casefold()))


def tested_part(example: Example, decoders: "Decoders", frame_rate: int, max_frames: int) -> tuple[int, int]:
    """Return the first frame of an example in its file, and how many are tested from there on, at most ``max_frames``.

    Only where the file may be a clip that is cut already is its length read before.
    """
    start, end = example.span(_duration(example.path, decoders) if example.may_be_trimmed else None)
    first = round(start * frame_rate)
    return first, max_frames if end is None else min(max_frames, max(1, round(end * frame_rate) - first))


def _duration(path: str, decoders: "Decoders") -> float | None:
    """Return the seconds of a file, by its header or else by its frames; None where it cannot be read."""
    with suppress(VideoError):
        for max_frames in (0, None):
            with decoders.open(path, listed=True, max_frames=max_frames) as video:
                deque(video, maxlen=0)
                if video.facts.duration_seconds is not None:
                    return video.facts.duration_seconds
    return None
