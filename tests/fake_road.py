"""The road without its weight, for tests of the command line: files are "labelled" by their names, at once.

A name that holds ``bad`` fails, ``cut`` is partial, ``slow`` takes a minute, ``full`` meets a full disk, ``bug`` meets
a bug, ``lost`` a disk that has gone. FAKE_SECONDS is how long a video takes. As a program this is ``vadis`` itself,
started in no time: ``python -m tests.fake_road classify …``.
"""

import errno
import os
import sys
import time
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import vadis
from vadis import cli
from vadis.errors import UsageError
from vadis.results import Label, Piece, Segment, VideoResult
from vadis.video.sources import stamp

SECONDS = float(os.environ.get("FAKE_SECONDS", "0"))  # of a video, in 15 steps


@dataclass(frozen=True)
class FakeCard:
    """The fields of a model card that the command line reads."""

    name: str = "fake"
    architecture: str = "i3d"
    test_window: None = None
    streams: tuple[str, ...] = ("rgb", "flow")
    segment_seconds: float = 2.56


@dataclass(frozen=True)
class FakeModel:
    """What the command line asks of a model."""

    card: FakeCard = FakeCard()
    device: str = "cpu"
    sha256: str = "fa" * 32

    @property
    def settings(self):
        return {"model": self.card.name, "model_sha256": self.sha256, "streams": list(self.card.streams)}

    def check_flip(self, flip):
        pass

    def only(self, streams):
        if lacking := set(streams) - set(self.card.streams):
            raise UsageError(f"the model has no {lacking.pop()} stream")
        return replace(self, card=replace(self.card, streams=streams))


@dataclass(frozen=True)
class Progress:
    """The fields of ``vadis.inference.predict.Progress``."""

    path: str
    stage: str
    frames_done: int
    frames_total: int | None


@dataclass(frozen=True)
class FakeSliding:
    """The settings of ``vadis.inference.predict.Sliding``."""

    segment_seconds: float
    window: int | None
    stride: int | None

    def to_json(self):
        return {"mode": "whole", "segment_seconds": self.segment_seconds}


@dataclass(frozen=True)
class FakeOptions:
    """The fields of ``vadis.inference.classify.ClassifyOptions``."""

    model: FakeModel
    sliding: FakeSliding
    top_k: int
    flip: bool
    batch_size: int
    progress: object = None
    labels: str | None = None
    part: None = None

    @classmethod
    def of(cls, model, segment, window, stride, **others):
        return cls(model, FakeSliding(segment or model.card.segment_seconds, window, stride), **others)

    @property
    def settings(self):
        return {**self.model.settings, "sliding": self.sliding.to_json()}


def labelled(paths, progress=None):
    """One record per path."""
    for path in paths:
        found = stamp(path)
        for done in range(0, 250, 50):
            for stage in ("decoding", "flow", "network"):
                if progress:
                    progress(Progress(path, stage, done, 250))
                time.sleep(4.0 if "slow" in path else SECONDS / 15)
        yield replace(result(path), source_bytes=found.num_bytes, source_mtime=found.mtime)


def result(path):
    """The record of one path, by its name."""
    if "bug" in path:
        raise RuntimeError("\x1b[2Ja bug")
    if "full" in path:
        raise OSError(errno.ENOSPC, "No space left on device", path)
    if "bad" in path:
        return VideoResult(path, "error", error_code="no_frames", error_message="no frame can be decoded")
    if "lost" in path:
        return VideoResult(path, "error", error_code="io_error", error_message="Input/output error")
    halves = ((0.0, 2.56, "arm wrestling", 0.9), (2.56, 5.12, "hurling", 0.4))
    return VideoResult(
        path,
        "partial" if "cut" in path else "ok",
        duration_seconds=5.12,
        source_fps=Fraction(25),
        source_size=(340, 256),
        num_frames=128,
        frames_decoded=128,
        frames_declared=200 if "cut" in path else 128,
        model="fake",
        streams=("rgb", "flow"),
        sliding={"mode": "whole", "segment_seconds": 2.56},
        labels=(Label("arm wrestling", 0.61, 0.9, 2.56), Label("hurling", 0.05, 0.4, 2.56)),
        timeline=tuple(Piece(*half) for half in halves),
        segments=tuple(Segment(start, end, (Label(name, score),)) for start, end, name, score in halves),
    )


def _stand_in(name, **attributes):
    module = ModuleType(name)
    module.__dict__.update(attributes)
    sys.modules[name] = module


def main():
    """``vadis`` with stand-ins for the rooms that import PyTorch."""
    rooms = Path(vadis.__file__).parent
    _stand_in("vadis.weights", __path__=[str(rooms / "weights")])
    _stand_in("vadis.weights.load", load_model=lambda name, device="auto", **options: FakeModel())
    _stand_in("vadis.flow", __path__=[])
    _stand_in("vadis.flow.numba_cache", import_ahead=lambda *modules: None)
    _stand_in("vadis.inference.predict", Progress=Progress, Sliding=FakeSliding)
    _stand_in(
        "vadis.inference.classify",
        FLAGS={},
        ClassifyOptions=FakeOptions,
        label_videos=lambda paths, options, **more: labelled(paths, options.progress),
    )
    cli.main()


if __name__ == "__main__":
    main()
