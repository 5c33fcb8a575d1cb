"""The road on Ray: the records of one machine, whatever is lost on the way.

The quick share (here and in tests/cli/test_ray.py) labels on a Ray of this machine. The whole, which does not pass
yet, a cluster of two workers of which one is killed midway: ``pytest -n 0 -m exhaustive tests/test_cluster.py``.
"""

import os
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.make_model import make_model
from tests.synthetic import write_video
from vadis.cluster import _explained, _pool, classify_on_ray
from vadis.errors import VadisError
from vadis.inference import Sliding, classify_many
from vadis.weights.load import load_model

needs_ray = pytest.mark.skipif("not __import__('importlib').util.find_spec('ray')", reason="needs ray[data]")
SAID: list[str] = []


@pytest.fixture(scope="module")
def model_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return make_model(folder / "m.safetensors", width=1 / 32, classes=3)


def videos_in(folder: Path, num: int) -> list[str]:
    folder.mkdir()
    for number in range(num):
        write_video(folder / f"{number:02}.mp4", num_frames=9 + 13 * (number % 5), seed=number)
    (folder / "00 broken.mp4").write_bytes(b"no video at all")
    os.link(folder / "01.mp4", os.fsencode(folder) + b"/not utf-8 \xff.mp4")
    return sorted(str(path) for path in folder.iterdir())


def lines(results) -> list[str]:
    return sorted(result.to_json_line() for result in results)


def test_processors_are_shared_between_networks_and_what_goes_before_them():
    assert _pool({"CPU": 2.0}, True) == (1, 2, False)
    assert _pool({"CPU": 64.0}, True) == (32, 2, False)
    assert _pool({"CPU": 64.0, "GPU": 4.0}, True) == (4, 16, True)
    assert _pool({"CPU": 64.0, "GPU": 4.0}, False) == (32, 2, False)


def test_an_error_from_far_away_is_told_as_it_was():
    class RemoteError(Exception):
        cause = VadisError("no space left for fetched videos", "make room")

    told = _explained(RemoteError("Traceback …"))
    assert (told.message, told.hint) == ("no space left for fetched videos", "make room")
    assert "cannot go on: the last line" in _explained(RuntimeError("first\nthe last line")).message


def test_nothing_to_do_starts_nothing(monkeypatch):
    assert list(classify_on_ray([], None, sliding=Sliding(), notify=SAID.append)) == []


@needs_ray
@pytest.mark.exhaustive
@pytest.mark.parametrize("what", ["node", "actor", "task"])
@pytest.mark.filterwarnings("ignore")
def test_what_is_lost_is_done_again_and_nothing_twice(tmp_path, model_file, what):
    from ray.cluster_utils import Cluster

    paths, model = videos_in(tmp_path / "clips", 40), load_model(str(model_file), "cpu")
    here = lines(classify_many(paths, model, jobs=1, listed=True))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
    try:
        found = classify_on_ray(paths, model, address=cluster.address, sliding=Sliding(), notify=SAID.append)
        with closing(found):
            there = [next(found) for _ in range(5)]
            if what == "node":
                cluster.remove_node(nodes[0], allow_graceful=False)
            else:
                kill_one(b"MapWorker" if what == "actor" else b"_prepared")
            there += list(found)
    finally:
        cluster.shutdown()
    assert lines(there) == here


def kill_one(title: bytes) -> None:
    """End one of Ray's workers at this work, which it carries in its name."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if b"ray::" in (name := (place / "cmdline").read_bytes()) and title in name:
                    os.kill(int(place.name), signal.SIGKILL)
                    return
            except OSError:
                continue
    pytest.fail(f"no worker is at {title!r}")


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_no_cluster_there(address, model_file):
    model = load_model(str(model_file), "cpu")
    with pytest.raises(VadisError, match=f"there is no Ray cluster at {address}"):
        next(classify_on_ray(["a"], model, address=address, sliding=Sliding(), notify=print))
