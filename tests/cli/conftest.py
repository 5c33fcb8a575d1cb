"""The command line as tests run it: ``run_vadis`` in this process, with the road itself replaced by ``road``."""

import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.fake_road import FakeModel, labelled
from vadis import cli
from vadis.errors import WeightsError
from vadis.weights.cache import model_path
from vadis.weights.catalog import DEFAULT_MODEL


@dataclass(frozen=True)
class Ended:
    """What a run leaves behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_vadis(monkeypatch, capsys):
    """``run_vadis("classify", "a.mp4", …)`` as from a shell whose stdout and stderr are not terminals."""
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["vadis", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        return Ended(exit_.value.code or 0, *capsys.readouterr())

    yield run
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


@pytest.fixture
def default_model():
    """The file of the default model, as if it had been fetched."""
    path = model_path(DEFAULT_MODEL)
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(1000))
    return path


@dataclass
class Road:
    """The faked road: what was asked of it."""

    calls: list[str]
    options: dict[str, object]


@pytest.fixture
def road(monkeypatch) -> Iterator[Road]:
    """``label_videos`` answers by the names of the files (see tests/fake_road.py); models cost nothing."""
    asked = Road([], {})

    def load_model(name, device="auto", streams=None, **options):
        asked.calls.append("load_model")
        asked.options |= {"model": name, "device": device, **options}
        if name == "nowhere":
            raise WeightsError("there is no network", hint="look here")
        model = FakeModel()
        return model if streams is None else model.only(("rgb", "flow") if streams == "both" else (streams,))

    def label_videos(paths, options, **more):
        asked.calls.append("label_videos")
        fields = {name: value for name, value in vars(options).items() if name != "model"}
        asked.options |= {"streams": options.model.card.streams, **fields, **more}
        return labelled(paths, options.progress)

    monkeypatch.setattr("vadis.weights.load.load_model", load_model)
    monkeypatch.setattr("vadis.inference.classify.label_videos", label_videos)
    yield asked
