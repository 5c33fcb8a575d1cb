"""The road on Ray: the records of one machine, whatever is lost on the way.

The quick share (here and in tests/cli/test_ray.py) labels on a Ray of this machine. The whole: a cluster of two
machines, of which something is lost midway, an actor, a task, a machine, its voice: ``pytest -n 0 -m exhaustive
tests/inference/test_ray.py``, 40 s each.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import ModuleType

import pytest

from tests.benchmarks.watched import children
from tests.make_model import make_model
from tests.matching import containing
from tests.synthetic import write_video
from vadis.errors import VadisError
from vadis.inference.classify import ClassifyOptions, label_videos
from vadis.inference.ray import (
    NETWORK_CPUS,
    PREPARING_CPUS,
    _as_they_come,
    _explained,
    _has_too_few,
    _pool,
    classify_on_ray,
)
from vadis.weights.load import load_model

needs_ray = pytest.mark.integration("ray")
SILENT: list[int] = []  # processes that were stopped


@pytest.fixture(scope="module")
def model_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return make_model(folder / "m.safetensors", width=1 / 32, classes=3)


def videos_in(folder: Path, num: int) -> list[str]:
    folder.mkdir()
    for number in range(num):
        write_video(folder / f"{number:02}.mp4", num_frames=9 + 29 * (number % 5), seed=number)
    (folder / "00 broken.mp4").write_bytes(b"no video at all")
    os.link(folder / "01.mp4", os.fsencode(folder) + b"/not utf-8 \xff.mp4")
    return sorted(str(path) for path in folder.iterdir())


def lines(results) -> list[str]:
    return sorted(result.to_json_line() for result in results)


def test_processors_are_shared_between_networks_and_what_goes_before_them():
    assert _pool({"CPU": 1.0}, True) == (1, 2, 1)
    assert _pool({"CPU": 2.0}, True) == (1, 4, 2)
    assert _pool({"CPU": 64.0}, True) == (32, 4, 2)
    assert _pool({"CPU": 64.0, "GPU": 4.0}, True) == (4, 16, 0)
    assert _pool({"CPU": 64.0, "GPU": 4.0}, False) == (32, 4, 2)


def test_an_error_from_far_away_is_told_as_it_was():
    class RemoteError(Exception):
        cause = VadisError("no space left for fetched videos", "make room")

    told = _explained(RemoteError("Traceback …"))
    assert (told.message, told.hint) == ("no space left for fetched videos", "make room")
    assert "the last line" in _explained(RuntimeError("first\nthe last line")).message


def test_nothing_to_do_starts_nothing(monkeypatch):
    assert list(classify_on_ray([], None)) == []


class Whole:
    """What the tests of losses share: videos, a model of one stream, and the records of this process alone."""

    def __init__(self, folder: Path) -> None:
        path = make_model(folder / "m.safetensors", width=1 / 32, classes=3, streams=("rgb",))
        self.model = load_model(str(path), "cpu")
        self.paths = videos_in(folder / "clips", 12)
        self.records = lines(label_videos(self.paths, ClassifyOptions(self.model), jobs=1, listed=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Whole:
    return Whole(tmp_path_factory.mktemp("whole"))


SOON = {  # a machine that is silent is noticed after some 10 s, not after 7 minutes
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 5,
    "grpc_client_keepalive_time_ms": 3000,
    "grpc_client_keepalive_timeout_ms": 4000,
}


@pytest.fixture
def cluster(monkeypatch):
    """A head without processors and two machines with two each, all of them processes of this one."""
    from ray.cluster_utils import Cluster

    monkeypatch.setattr("vadis.inference.ray.VIDEOS_AT_ONCE", 2)  # so that both have something to do until the end
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": SOON})
    for _ in range(2):
        started.add_node(num_cpus=2)
    yield started
    while SILENT:  # they hear no other signal
        with suppress(OSError):
            os.kill(SILENT.pop(), signal.SIGKILL)
    started.shutdown()


def lose_an_actor(cluster) -> None:
    kill_one(b"MapWorker(MapBatches(_Labeller)).")  # at work: an idle one has no method behind its name


def lose_a_task(cluster) -> None:
    kill_one(b"_prepared")


def lose_a_machine(cluster) -> None:
    """Its processes are gone, and whoever spoke with it hears that at once."""
    cluster.remove_node(a_machine_of(cluster), allow_graceful=False)


def a_machine_of(cluster):
    return min(cluster.worker_nodes, key=lambda node: node.node_id)


def silence_a_machine(cluster) -> None:
    """It is there and says nothing, as one without power or network does."""
    raylet = a_machine_of(cluster).all_processes["raylet"][0].process.pid
    for pid in (raylet, *children(raylet)):
        os.kill(pid, signal.SIGSTOP)
        SILENT.append(pid)


@needs_ray
@pytest.mark.exhaustive
@pytest.mark.parametrize("lose", [lose_an_actor, lose_a_task, lose_a_machine, silence_a_machine])
@pytest.mark.filterwarnings("ignore")
def test_what_is_lost_is_done_again_and_nothing_twice(whole, cluster, lose):
    found = classify_on_ray(whole.paths, ClassifyOptions(whole.model), address=cluster.address)
    with closing(found):
        there = [next(found)]
        lose(cluster)
        there += list(found)
    assert lines(there) == whole.records


def kill_one(title: bytes) -> None:
    """End one of this process's Ray workers that is at this work, which it carries in its name."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for pid in children(os.getpid()):
            with suppress(OSError):
                if b"ray::" + title in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
                    return
    pytest.fail(f"no worker is at {title!r}")


def test_silence_ends_the_run_only_where_a_machine_is_missing():
    def rows():
        yield {"record": "a"}
        time.sleep(0.3)
        yield {"record": "b"}
        time.sleep(60)

    looks = iter([True, False, True])  # one look's silence, a machine that came back, a long video; then it is gone
    seen = _as_they_come(rows, lambda: next(looks, True), look_seconds=0.1, lost_seconds=0.5)
    assert [next(seen)["record"], next(seen)["record"]] == ["a", "b"]
    with pytest.raises(VadisError, match=containing("Ray")):
        next(seen)


def test_an_error_among_the_rows_is_raised_where_they_are_wanted():
    def rows():
        yield {"record": "a"}
        raise OSError("no more")

    seen = _as_they_come(rows, lambda: False)
    assert next(seen) == {"record": "a"}
    with pytest.raises(OSError, match="no more"):
        next(seen)
    assert list(_as_they_come(lambda: iter([]), lambda: False)) == []


class Cluster:
    def __init__(self, **resources: float) -> None:
        self.cluster_resources = lambda: resources


def test_a_cluster_has_too_few_places():
    assert not _has_too_few(Cluster(CPU=64.0, GPU=4.0), 4, True)
    assert _has_too_few(Cluster(CPU=64.0, GPU=3.0), 4, True)
    assert _has_too_few(Cluster(CPU=64.0), 4, True)
    assert not _has_too_few(Cluster(CPU=33.0), 32, False)  # half of them are gone
    assert _has_too_few(Cluster(CPU=16.0), 32, False)


@pytest.mark.parametrize("processors", [1, 2, 3, 8, 64, 256])
def test_a_machine_full_of_networks_has_room_for_one_of_their_tasks(processors):
    networks = int(processors / NETWORK_CPUS)
    assert processors - networks * NETWORK_CPUS >= PREPARING_CPUS


@pytest.fixture
def begin(monkeypatch, model_file):
    """Begin a run on a Ray whose ``init`` is the given function."""

    def begin_with(init: Callable[[], None]) -> None:
        fake = ModuleType("ray")
        fake.init = lambda *_, **__: init()
        monkeypatch.setitem(sys.modules, "ray", fake)
        monkeypatch.setitem(sys.modules, "ray.data", ModuleType("ray.data"))
        model = load_model(str(model_file), "cpu")
        next(classify_on_ray(["a"], ClassifyOptions(model), address="local"))

    return begin_with


def test_a_ray_that_does_not_start_here_is_no_bug(begin):
    def init():
        raise Exception("some lines\nThe current node timed out during startup.")

    with pytest.raises(VadisError, match="timed out during startup"):
        begin(init)


def test_sigterm_while_ray_starts_goes_to_the_handler_of_the_run(begin):
    received: list[int] = []

    def init():
        signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(signum))  # as ray.init does
        signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda signum, _: received.append(signum))
    try:
        with pytest.raises(SystemExit):
            begin(init)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_no_cluster_there(address, model_file):
    model = load_model(str(model_file), "cpu")
    with pytest.raises(VadisError, match=containing("Ray", address)):
        next(classify_on_ray(["a"], ClassifyOptions(model), address=address))
