"""Videos in a local server that speaks as S3 does, and on a web server: fetched, labelled, and nothing left behind."""

import json
import os
import re
import shlex
import ssl
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.make_model import make_model
from tests.matching import containing
from tests.pages import ROOT, commands
from tests.synthetic import write_video
from vadis.errors import UsageError, VadisError, VideoError
from vadis.inference.classify import ClassifyOptions, classify_many, label_videos
from vadis.video import remote
from vadis.video.isolated.pool import Decoders
from vadis.video.remote import FetchingDecoders, expand_url, store_refusal
from vadis.weights.load import load_model

pytestmark = pytest.mark.integration("moto", "flask", "flask_cors", "s3fs", "aiohttp")


@pytest.fixture(scope="module")
def server():
    """A server that speaks as S3 does, on 127.0.0.1."""
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_S3_CUSTOM_ENDPOINTS", "")
        started = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        started.start()
        yield started
        started.stop()


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    (folder / "1999").mkdir()
    write_video(folder / "a.mp4", num_frames=12, seed=1)
    write_video(folder / "1999" / "b.mp4", num_frames=9, seed=2)
    (folder / "broken.mp4").write_bytes(b"not a video" * 30)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / ".hidden.mp4").write_bytes(b"x")
    (folder / "notes.txt").write_bytes(b"x")
    return folder


@pytest.fixture
def store(server, clips, tmp_path, monkeypatch):
    """A bucket with the clips, and the surroundings in which it is found; the scratch space is ``tmp_path/scratch``."""
    import s3fs

    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    post(f"{endpoint}/moto-api/reset")
    s3fs.S3FileSystem.clear_instance_cache()
    filesystem = remote.filesystem_of("s3://clips/")
    filesystem.mkdir("clips")
    filesystem.put(f"{clips}/", "clips/", recursive=True)
    filesystem.invalidate_cache()
    yield endpoint
    s3fs.S3FileSystem.clear_instance_cache()


def post(url: str, data: bytes = b"") -> None:
    urlopen(Request(url, data, {"Content-Type": "text/plain"})).close()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = make_model(tmp_path_factory.mktemp("model") / "m.safetensors", width=1 / 32, classes=3, streams=("rgb",))
    return load_model(str(path), "cpu")


def labelled(paths, model, scratch_bytes=10**9, jobs=2):
    with FetchingDecoders(scratch_bytes, jobs) as decoders:
        records = label_videos(paths, ClassifyOptions(model), jobs=jobs, decoders=decoders, listed=True)
        return [each.to_json() for each in records]


def codes(records) -> list[str]:
    return [record.get("error", {"code": record["status"]})["code"] for record in records]


def test_a_folder_of_a_bucket_is_all_videos_below_it(store):
    names = ["s3://clips/1999/b.mp4", "s3://clips/a.mp4", "s3://clips/broken.mp4", "s3://clips/empty.mp4"]
    assert expand_url("s3://clips/") == names
    assert expand_url("s3://clips/1999/") == names[:1]
    assert expand_url("s3://clips/any.bin") == ["s3://clips/any.bin"]


def test_records_are_those_of_the_files_and_nothing_is_left(store, clips, model, tmp_path):
    names = ("1999/b.mp4", "a.mp4", "broken.mp4", "empty.mp4")
    here = [each.to_json() for each in classify_many([clips / name for name in names], model, jobs=1)]
    there = labelled([f"s3://clips/{name}" for name in names], model)
    for own, fetched in zip(here, there, strict=True):
        assert fetched.pop("path") == f"s3://clips/{Path(own.pop('path')).relative_to(clips)}"
        assert fetched["source_bytes"] == own["source_bytes"]
        assert float(fetched.pop("source_mtime")) > 1.7e9 and own.pop("source_mtime")
        assert fetched == own
    assert codes(there) == ["ok", "ok", "not_a_video", "empty_file"]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_cannot_be_had_is_a_record_and_the_others_go_on(store, model):
    found = labelled(["s3://clips/lost.mp4", "s3://nowhere/a.mp4", "s3://clips/a.mp4"], model)
    assert codes(found) == ["not_found", "not_found", "ok"]
    size = found[-1]["source_bytes"]
    found = labelled(["s3://clips/1999/b.mp4", "s3://clips/a.mp4"], model, scratch_bytes=2 * size - 1)
    assert codes(found) == ["ok", "too_large"]


def test_wrong_credentials(store, model, monkeypatch):
    import s3fs

    post(f"{store}/moto-api/reset-auth", b"0")
    try:
        assert codes(labelled(["s3://clips/a.mp4"], model)) == ["permission_denied"]
    finally:
        post(f"{store}/moto-api/reset-auth", b"Infinity")
    s3fs.S3FileSystem.clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert codes(labelled(["s3://clips/a.mp4"], model)) == ["permission_denied"]
    with pytest.raises(VideoError) as error:
        expand_url("s3://clips/")
    assert error.value.code == "permission_denied"


def test_a_server_that_is_gone(store, model, monkeypatch):
    import s3fs

    monkeypatch.setattr("vadis.inference.prefetch.RETRY_SECONDS", ())
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    (found,) = labelled(["s3://clips/a.mp4"], model)
    assert codes([found]) == ["io_error"] and "source_bytes" not in found


def test_the_scratch_space_of_a_killed_process_goes_with_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "vadis-scratch-left").mkdir()
    (tmp_path / "vadis-scratch-left" / "00000001.mp4").write_bytes(b"x")
    living = FetchingDecoders(10**9, 1)
    assert [each.name for each in tmp_path.iterdir() if "left" in each.name] == []
    with FetchingDecoders(10**9, 1):
        assert len([each for each in tmp_path.iterdir() if each.is_dir()]) == 2
    living.close()
    assert list(tmp_path.iterdir()) == []


def test_what_the_errors_of_stores_mean():
    class AnsweredError(Exception):
        def __init__(self, status: int) -> None:
            super().__init__(f"status {status}")
            self.status = status

    meant = {404: "not_found", 403: "permission_denied", 401: "permission_denied", 503: "io_error"}
    assert {status: store_refusal(AnsweredError(status)).code for status in meant} == meant
    assert "TimeoutError" in store_refusal(TimeoutError()).message


def test_only_stores_that_are_known(monkeypatch):
    with pytest.raises(UsageError, match=containing("ftp://example.org/a.mp4")):
        expand_url("ftp://example.org/a.mp4")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(VadisError, match=containing("s3://")) as error:
        expand_url("s3://b/a.mp4")
    assert error.value.hint == "pip install 'vadis[remote]'"


def test_a_local_file_is_opened_as_ever(clips, model, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = str(clips / "a.mp4")
    with FetchingDecoders(10**9, 1) as fetching, Decoders() as decoders:
        assert fetching.stamp(path) == decoders.stamp(path)
    assert codes(labelled([str(clips / "a.mp4")], model)) == ["ok"]


@pytest.fixture
def web(clips, tmp_path):
    """The clips on an https server, and the certificate by which it is trusted."""
    key, certificate = certificate_in(tmp_path)
    handler = partial(QuietHandler, directory=str(clips))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"https://localhost:{server.server_address[1]}", certificate
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        pass


def certificate_in(folder: Path) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(secret)
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(encoding))
    return folder / "key.pem", folder / "certificate.pem"


@pytest.mark.slow
def test_https_from_the_command_to_the_record_and_the_same_command_again(web, tmp_path):
    """In a process of its own, which reads at its start whom it trusts."""
    url, certificate = web
    model = make_model(tmp_path / "m.safetensors", width=1 / 32, classes=3, streams=("rgb",))
    command = [sys.executable, "-m", "vadis", "classify", f"{url}/a.mp4", f"{url}/lost.mp4", "--model", str(model)]
    command += ["--device", "cpu", "-o", str(tmp_path / "out.jsonl")]
    environment = {**os.environ, "SSL_CERT_FILE": str(certificate), "TMPDIR": str(tmp_path)}
    run = partial(subprocess.run, env=environment, capture_output=True, text=True, timeout=120)
    refused = run(command)
    assert refused.returncode == 2 and "--allow-remote" in refused.stderr, refused.stderr
    done = run([*command, "--allow-remote"])
    assert done.returncode == 3, done.stderr
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()[1:]]
    assert codes(records) == ["ok", "not_found"] and records[0]["path"] == f"{url}/a.mp4"
    again = run([*command, "--allow-remote"])
    assert re.search(r"\b1\b", again.stderr.splitlines()[-1]), again.stderr
    assert list(tmp_path.glob("vadis-scratch-*")) == []


@pytest.mark.slow
def test_the_command_of_the_page_about_stores(store, web, tmp_path):
    """The bucket and the server are those of this machine."""
    (command,) = [line for line in commands(ROOT / "docs" / "scale.md", "sh") if line.startswith("vadis classify s3:")]
    url, certificate = web
    here = command.replace("s3://archive/", "s3://clips/").replace("https://example.org/holiday.mp4", f"{url}/a.mp4")
    model = make_model(tmp_path / "m.safetensors", width=1 / 32, classes=3, streams=("rgb",))
    program = [sys.executable, "-m", *shlex.split(here), "--model", str(model), "--device", "cpu"]
    environment = {**os.environ, "SSL_CERT_FILE": str(certificate), "TMPDIR": str(tmp_path)}
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (tmp_path / "tags.jsonl").read_text().splitlines()[1:]]
    assert [record["path"] for record in records] == ["s3://clips/1999/b.mp4", f"{url}/a.mp4"]
