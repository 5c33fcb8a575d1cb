"""What the networks said of each video, kept on the disk: a header with the settings, then a line for each answer."""

import contextlib
import errno
import fcntl
import json
import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vadis.batch.journal import PASSING_ERRORS
from vadis.datasets.dataset import Example, path_below
from vadis.errors import OutputLockedError, UsageError
from vadis.files import FULL_DISK
from vadis.parsing import parse_json
from vadis.results import printable

ANSWERS_NAME = "answers.jsonl"

Logits = NDArray[np.float32]  # (classes,)
Key = tuple[str, float | None]

FAILURES_OF_A_MOMENT = PASSING_ERRORS | {"decoder_crash", "timeout", "permission_denied", "too_large"}
"""Codes of errors that lie in the machine, its load or its limits; such a video is asked again."""


@dataclass(frozen=True)
class Answer:
    """What the networks said of one example: logits (classes,) by stream, or why there are none."""

    path: str
    label: str
    logits: dict[str, Logits]
    error: str | None = None
    start_seconds: float | None = None

    @property
    def key(self) -> Key:
        """What tells an example from the others: several can be parts of one file."""
        return printable(self.path), self.start_seconds

    @property
    def is_final(self) -> bool:
        """Whether asking again would give the same: a failure of a moment is not final."""
        return self.error is None or self.error.partition(":")[0] not in FAILURES_OF_A_MOMENT

    def to_json(self) -> dict[str, Any]:
        """One line of ``answers.jsonl``; logits keep 6 digits."""
        record: dict[str, Any] = {"path": printable(self.path), "label": self.label}
        if self.start_seconds is not None:
            record["start_seconds"] = self.start_seconds
        if self.error is not None:
            return record | {"error": self.error}
        return record | {"logits": {s: [float(f"{x:.6g}") for x in logits] for s, logits in self.logits.items()}}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Answer":
        """The answer that ``to_json`` gave; raises KeyError, TypeError, ValueError or AttributeError for all else."""
        logits = {s: np.array(values, np.float32) for s, values in record.get("logits", {}).items()}
        return cls(record["path"], record["label"], logits, record.get("error"), record.get("start_seconds"))


class AnswerFile:
    """Answers on the disk, line by line; a torn last line is cut off, so that its video is asked again.

    The file is locked as long as this object lives, or until ``close``.

    Args:
        path: appears at once, with its header.
        settings: what decides the answers; a file made with others is refused.
        root: the folder of the dataset; a video is known by its path below it, however that folder was named. None:
            by its path as it is.

    Raises:
        UsageError: for a file with other settings, with a damaged line, or that is no answer file, none of which is
            changed; and where there can be no file.
        OutputLockedError: where another process has it.
        OSError: where the disk is full.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], root: str | None = None) -> None:
        self.num_appended, self._root = 0, root
        self._path, self._settings = path, json.loads(json.dumps(settings))
        self._descriptor = _opened(path)
        self.close = weakref.finalize(self, os.close, self._descriptor)
        _lock(self._descriptor, path)
        self.answers = self._read()

    def append(self, found: Answer) -> Answer:
        """Write one answer, whole and to the disk; returns it as it will be read again.

        Raises:
            OSError: where the disk does not take it; the file is then as before.
        """
        record = replace(found, path=self._place(found.path)).to_json()
        self._write(record)
        kept = Answer.from_json(record)
        self.answers[kept.key] = kept
        self.num_appended += 1
        return kept

    def key(self, example: Example) -> Key:
        """Return what an example's answer is found by."""
        return printable(self._place(example.path)), example.start_seconds

    def known(self, example: Example) -> Answer | None:
        """Return the answer that is there for an example; None where it has to be asked for, perhaps again."""
        found = self.answers.get(self.key(example))
        return found if found is not None and found.is_final else None

    def _place(self, path: str) -> str:
        return path if self._root is None else path_below(path, self._root)

    def _read(self) -> dict[Key, Answer]:
        content = self._path.read_bytes()
        header = _line({"settings": self._settings})
        if content != header and header.startswith(content):  # new, or killed while it was begun
            os.ftruncate(self._descriptor, 0)
            self._write({"settings": self._settings})
            return {}
        settings, answers, whole = parsed(self._path, content)
        self._check(settings)
        if whole < len(content):
            os.ftruncate(self._descriptor, whole)
        return answers

    def _check(self, there: Mapping[str, Any]) -> None:
        if there != self._settings:
            names = dict.fromkeys((*self._settings, *there))
            other = [key for key in names if there.get(key) != self._settings.get(key)]
            said = "; ".join(_changed(key, there.get(key), self._settings.get(key)) for key in other)
            raise UsageError(f"{_shown(self._path)} was made with other settings: {said}", hint="choose another folder")

    def _write(self, record: Mapping[str, Any]) -> None:
        left, end = memoryview(_line(record)), os.lseek(self._descriptor, 0, os.SEEK_END)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
            os.fsync(self._descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, end)
            raise


def discard_of_other_model(path: Path, settings: Mapping[str, Any]) -> None:
    """Remove a file of answers that differ from these ``settings`` in the model file alone: it has been replaced.

    Raises:
        UsageError: as ``AnswerFile`` does.
        OSError: where the file cannot be removed.
    """
    if not path.exists():
        return
    there = parsed(path, path.read_bytes())[0]
    wanted = json.loads(json.dumps(settings))
    if {**there, "model_sha256": None} == {**wanted, "model_sha256": None} and there != wanted:
        path.unlink()


def parsed(path: Path, content: bytes) -> tuple[dict[str, Any], dict[Key, Answer], int]:
    """The settings of an answer file, its answers by their keys (of equal ones the last), and the bytes of whole lines.

    Raises:
        UsageError: for what is no answer file, and for a damaged line other than a torn last one.
    """
    whole = content.rfind(b"\n") + 1
    header, *lines = content[:whole].splitlines() or [b""]
    try:
        settings = parse_json(header)["settings"]
        num_classes = len(settings["classes"]) if "classes" in settings else None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{_shown(path)} is not a file of answers", hint="choose another folder") from error
    answers = (_answer(path, number, line, num_classes) for number, line in enumerate(lines, 2))
    return settings, {answer.key: answer for answer in answers}, whole


def _answer(path: Path, number: int, line: bytes, num_classes: int | None) -> Answer:
    try:
        found = Answer.from_json(parse_json(line))
        is_sound = all(_is_finite_row(row, num_classes) for row in found.logits.values())
    except (ValueError, KeyError, TypeError, AttributeError):
        is_sound = False
    if not is_sound:
        hint = "delete this line and evaluate again: its video is then asked once more"
        raise UsageError(f"{_shown(path)}, line {number}, is damaged", hint=hint)
    return found


def _is_finite_row(logits: Logits, length: int | None) -> bool:
    return logits.ndim == 1 and length in (None, len(logits)) and bool(np.isfinite(logits).all())


def _opened(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        raise UsageError(
            f"{_shown(path.parent)} cannot hold an evaluation: {error.strerror}", hint="choose another folder"
        ) from error


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise OutputLockedError(
                f"another vadis is evaluating into {_shown(path.parent)}", hint="wait for it, or choose another folder"
            ) from error
        # else a file system without locks: they are politeness, not correctness


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, allow_nan=False) + "\n").encode("ascii")


def _changed(key: str, before: object, now: object) -> str:
    if key == "classes":
        return f"{key} were others"
    return f"{key} was {_plain(before)}, is {_plain(now)}"


def _plain(value: object) -> str:
    return printable(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _shown(path: Path) -> str:
    return printable(str(path))
