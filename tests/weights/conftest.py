"""Small models of the real shape, and a catalog whose files lie on a local server."""

import hashlib
from dataclasses import replace

import pytest

from tests.misbehaving_server import MisbehavingServer
from tests.tf_bundle import i3d_variables, write_bundle
from vadis.weights import cache as cache_room
from vadis.weights import catalog
from vadis.weights.catalog import RemoteFile

WIDTH = 1 / 16  # of the paper's channel counts: 65 KB a stream but for the labels
HASTE = {
    "ANSWER_SECONDS": 1.0,
    "FIRST_ANSWER_SECONDS": 1.5,
    "STALL_SECONDS": 0.25,
    "PAUSES": (0.0, 0.01, 0.01, 0.01, 0.01),
}


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def remote_file(server: MisbehavingServer, local: str, content: bytes, *, sized: bool = True) -> RemoteFile:
    """A catalog row for ``content``, which the server now has."""
    server.files[f"/{local}"] = content
    return RemoteFile(local, (f"https://published.invalid/{local}",), blob_id(content), len(content) if sized else None)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of its own for every test, and no wish of the environment's."""
    monkeypatch.setenv("VADIS_CACHE", str(tmp_path / "cache"))
    for name in ("VADIS_OFFLINE", "VADIS_MIRROR", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in HASTE.items():
        monkeypatch.setattr(cache_room, name, value)
    return tmp_path / "cache"


@pytest.fixture
def server(monkeypatch):
    server = MisbehavingServer()
    monkeypatch.setenv("VADIS_MIRROR", server.url)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """TensorFlow checkpoints, by stream, with 400 classes."""
    folder = tmp_path_factory.mktemp("bundles")
    for stream in ("rgb", "flow"):
        write_bundle(folder / stream / "model.ckpt", i3d_variables(stream, 400, WIDTH))
    return {stream: folder / stream / "model.ckpt" for stream in ("rgb", "flow")}


@pytest.fixture
def published(server, bundles, monkeypatch):
    """``i3d-kinetics400`` of the catalog, but small and on the local server."""
    real = catalog.WEIGHTS["i3d-kinetics400"]
    checkpoints = {}
    for stream, prefix in bundles.items():
        names = (catalog.INDEX, catalog.DATA)
        contents = [(prefix.parent / name).read_bytes() for name in names]
        checkpoints[stream] = tuple(
            remote_file(server, f"{stream}_imagenet/{name}", content)
            for name, content in zip(names, contents, strict=True)
        )
    small = replace(real, checkpoints=checkpoints, tensor_hashes={})
    monkeypatch.setitem(catalog.WEIGHTS, "i3d-kinetics400", small)
    return small
