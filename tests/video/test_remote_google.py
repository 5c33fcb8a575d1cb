"""Videos behind ``gs://``, in a local server that speaks as Google's store does. The real one was never asked."""

import socket

import pytest

from tests.video.test_remote import clips, codes, labelled, model
from vadis.errors import VideoError
from vadis.inference.classify import classify_many
from vadis.video import remote
from vadis.video.remote import FetchingDecoders, expand_url

__all__ = ["clips", "model"]
pytestmark = [pytest.mark.integration("gcsfs", "gcp_storage_emulator"), pytest.mark.slow]


@pytest.fixture(scope="module")
def server():
    """A server on 127.0.0.1 that keeps all in memory."""
    from gcp_storage_emulator.server import create_server

    started = create_server("127.0.0.1", 0, in_memory=True)
    started.start()
    yield started
    started.stop()


@pytest.fixture
def store(server, clips, tmp_path, monkeypatch):
    """A bucket with the clips, where gcsfs looks for it; the scratch space is ``tmp_path/scratch``."""
    import gcsfs

    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server._api._httpd.server_address[1]}")
    gcsfs.GCSFileSystem.clear_instance_cache()
    server.wipe()
    filesystem = remote.filesystem_of("gs://clips/")
    filesystem.mkdir("clips")
    filesystem.put(f"{clips}/", "clips/", recursive=True)
    filesystem.invalidate_cache()
    yield
    gcsfs.GCSFileSystem.clear_instance_cache()


def test_a_folder_of_a_bucket_is_all_videos_below_it(store):
    names = ["gs://clips/1999/b.mp4", "gs://clips/a.mp4", "gs://clips/broken.mp4", "gs://clips/empty.mp4"]
    assert expand_url("gs://clips/") == names
    assert expand_url("gs://clips/1999/") == names[:1]
    with pytest.raises(VideoError) as error:
        expand_url("gs://nowhere/")
    assert error.value.code == "not_found"


def test_records_are_those_of_the_files_and_nothing_is_left(store, clips, model, tmp_path):
    names = ("1999/b.mp4", "a.mp4", "broken.mp4", "empty.mp4")
    here = [each.to_json() for each in classify_many([clips / name for name in names], model, jobs=1)]
    there = labelled([f"gs://clips/{name}" for name in names], model)
    for own, fetched in zip(here, there, strict=True):
        assert fetched.pop("path") == f"gs://clips/{own.pop('path').removeprefix(f'{clips}/')}"
        assert float(fetched.pop("source_mtime")) > 1.7e9 and own.pop("source_mtime")
        assert fetched == own
    assert list((tmp_path / "scratch").iterdir()) == []


def test_an_object_is_known_by_its_size_and_its_time(store, clips):
    with FetchingDecoders(10**9, 1) as decoders:
        found, again = (decoders.stamp("gs://clips/a.mp4") for _ in range(2))
    assert found.num_bytes == (clips / "a.mp4").stat().st_size
    assert found == again and found.mtime is not None


def test_what_cannot_be_had_is_a_record_and_the_others_go_on(store, model):
    found = labelled(["gs://clips/lost.mp4", "gs://nowhere/a.mp4", "gs://clips/a.mp4"], model)
    assert codes(found) == ["not_found", "not_found", "ok"]


def test_a_store_that_says_nothing_is_not_waited_for(store, model, monkeypatch):
    import gcsfs

    monkeypatch.setattr("vadis.inference.prefetch.RETRY_SECONDS", ())
    monkeypatch.setattr("vadis.video.remote.SILENT_SECONDS", 0.2)
    monkeypatch.setattr("gcsfs.retry.is_retriable", lambda error: False)  # once is enough here
    gcsfs.GCSFileSystem.clear_instance_cache()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert codes(labelled(["gs://clips/a.mp4"], model)) == ["io_error"]


def test_a_store_that_refuses(store, model, monkeypatch):
    """The stand-in knows no credentials, so the refusal is the client's own error."""
    from gcsfs.retry import HttpError

    def refuse(*arguments, **options):
        raise HttpError({"code": 403, "message": "no access"})

    monkeypatch.setattr("gcsfs.GCSFileSystem._call", refuse)
    assert codes(labelled(["gs://clips/a.mp4"], model)) == ["permission_denied"]
