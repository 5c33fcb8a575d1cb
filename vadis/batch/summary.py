"""What a run came to: how many records of each status and error code, hours of video, speed."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from vadis.batch.journal import Entry
from vadis.results import SCHEMA, VideoResult

_STATUS_WORDS = {"ok": "ok", "partial": "partial", "skipped": "skipped", "error": "failed"}
_SPEED_FROM_SECONDS = 10.0  # a shorter run says nothing of the speed of a long one


@dataclass
class Summary:
    """Counts of the records of a run, and of those that an earlier run had left, out of ``num_inputs``.

    Attributes:
        statuses, errors: records by status, and of failed ones by error code.
        num_before: of them, how many were there already.
        video_seconds, video_seconds_before: length of the videos that were labelled in this run, and before.
    """

    num_inputs: int
    statuses: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    num_before: int = 0
    video_seconds: float = 0.0
    video_seconds_before: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @property
    def num_left(self) -> int:
        """Inputs without a record."""
        return self.num_inputs - self.statuses.total()

    def add(self, record: VideoResult | Entry) -> None:
        """Count a record of this run, or the entry of one that was there before."""
        self.statuses[record.status] += 1
        if record.error_code is not None:
            self.errors[record.error_code] += 1
        if isinstance(record, Entry):
            self.num_before += 1
            self.video_seconds_before += record.duration_seconds or 0.0
        else:
            self.video_seconds += record.duration_seconds or 0.0

    def line(self) -> str:
        """Return the whole in one line."""
        counts = {word: self.statuses[status] for status, word in _STATUS_WORDS.items()} | {"not done": self.num_left}
        parts = [", ".join(f"{count:,} {word}" for word, count in counts.items() if count or word == "ok")]
        seconds = time.monotonic() - self.began
        if self.num_before:
            parts.append(f"{self.num_before:,} of them done before")
        if self.video_seconds and seconds >= _SPEED_FROM_SECONDS:
            speed = self.video_seconds / seconds
            parts.append(f"{_length(self.video_seconds)} of video at {speed:.1f} times the speed of playing")
        return "; ".join(parts)

    def to_json(self, exit_code: int) -> dict[str, Any]:
        """Return the whole as plain JSON values."""
        seconds = time.monotonic() - self.began
        return {
            "schema": SCHEMA,
            "inputs": self.num_inputs,
            "records": {status: self.statuses[status] for status in _STATUS_WORDS},
            "errors": dict(sorted(self.errors.items())),
            "done_before": self.num_before,
            "not_done": self.num_left,
            "video_hours": round((self.video_seconds + self.video_seconds_before) / 3600, 6),
            "video_hours_in_this_run": round(self.video_seconds / 3600, 6),
            "elapsed_seconds": round(seconds, 3),
            "times_playing_speed": round(self.video_seconds / seconds, 3) if seconds else 0.0,
            "exit_code": exit_code,
        }


def _length(seconds: float) -> str:
    """A length in the unit that suits it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:,.1f} h"
