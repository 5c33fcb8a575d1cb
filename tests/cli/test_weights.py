import re

import pytest
from typer.testing import CliRunner

from tests.make_model import make_model
from tests.matching import containing
from tests.tf_bundle import i3d_variables, write_bundle
from vadis.cli.weights import app
from vadis.errors import NothingToDoError, UnreachableError, UsageError, WeightsError
from vadis.weights import cache as cache_room
from vadis.weights import catalog
from vadis.weights.catalog import SHIPPED, WEIGHTS, ShippedModel
from vadis.weights.load import load_model
from vadis.weights.model_file import read_header

NAME = "i3d-kinetics400"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VADIS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def in_cache(cache):
    """A small model under the default name, as if fetched, with a checkpoint."""
    path = cache_room.model_path(NAME)
    path.parent.mkdir(parents=True)
    make_model(path, width=1 / 64, classes=400)
    checkpoint = cache / "downloads/rgb_imagenet/model.ckpt.index"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"x")
    return path


def vadis(*arguments):
    """Run a command; what it raises comes out, as ``vadis.cli.main`` would meet it."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def test_list_shows_every_model_in_80_columns(in_cache):
    lines = vadis("list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *WEIGHTS, *SHIPPED]
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].split()[1:] == ["rgb+flow", "400", "74.2", "91.3", "102", "MB", "yes"]
    assert lines[3].split()[1:] == ["rgb", "600", "–", "–", "103", "MB", "no"]
    assert lines[4].split()[1:] == ["rgb", "1000", "–", "–", "unknown", "no"]  # its size was not published


def test_path_is_where_the_model_lies_or_would_lie(cache):
    assert vadis("path").stdout.strip() == str(cache)
    result = vadis("path", NAME)
    assert result.stdout.strip() == str(cache / "models" / f"{NAME}.safetensors")
    assert f"`vadis weights download {NAME}`" in result.stderr
    with pytest.raises(UsageError, match="'x'"):
        vadis("path", "x")


def test_verify_prints_the_checksum(in_cache):
    assert vadis("verify").stdout == f"{load_model(in_cache, 'cpu').sha256}  {NAME}\n"


def test_verify_without_models_has_nothing_to_do():
    with pytest.raises(NothingToDoError):
        vadis("verify")
    with pytest.raises(WeightsError, match=NAME):
        vadis("verify", NAME)


def test_download_takes_what_is_there(in_cache, monkeypatch):
    monkeypatch.setenv("VADIS_OFFLINE", "1")
    assert vadis("download").stdout.strip() == str(in_cache)


def test_download_offline_says_what_is_missing(monkeypatch):
    monkeypatch.setenv("VADIS_OFFLINE", "1")
    with pytest.raises(UnreachableError, match="i3d-kinetics600") as failure:
        vadis("download", "i3d-kinetics600")
    assert "rgb_scratch_kin600/model.ckpt.index" in failure.value.hint


def test_remove_takes_the_model_and_its_checkpoints(in_cache, cache):
    result = vadis("remove", NAME)
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    assert re.search(containing(NAME, 2), result.stderr)


def test_convert_writes_a_model_file(tmp_path):
    write_bundle(tmp_path / "ckpt" / "model.ckpt", i3d_variables("flow", 3, 1 / 64))
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    out = tmp_path / "mine.safetensors"
    arguments = ("convert", tmp_path / "ckpt", "-o", out, "--label-list", tmp_path / "labels.txt")
    assert vadis(*arguments).stdout.strip() == str(out)
    assert (read_header(out)[0].name, read_header(out)[0].labels, read_header(out)[0].streams) == (
        "mine",
        ("a", "b", "c"),
        ("flow",),
    )
    with pytest.raises(UsageError, match=containing(out)):
        vadis(*arguments)
    vadis(*arguments, "--name", "other", "--overwrite")
    assert read_header(out)[0].name == "other"


def test_help_of_every_command_fits_and_exits_0():
    for command in ("list", "download", "path", "verify", "convert", "remove"):
        result = vadis(command, "--help")
        assert result.exit_code == 0 and "Usage" in result.stdout


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A small model, as if it came with vadis, written by ``to-fp16``."""
    made, path = make_model(tmp_path / "made.safetensors", width=1 / 64, classes=3), tmp_path / "a-model.safetensors"
    done = vadis("to-fp16", made, "-o", path, "--clear", "0.4")
    assert done.stdout.strip() == str(path) and "SHA-256" in done.stderr
    assert path.stat().st_size < made.stat().st_size
    monkeypatch.setitem(catalog.SHIPPED, "a-model", ShippedModel(path, {}))
    return path


def test_a_model_that_comes_with_vadis_needs_no_cache(shipped):
    assert vadis("list").stdout.splitlines()[-1].split() == ["a-model", "rgb+flow", "3", "–", "–", "0.1", "MB", "yes"]
    assert vadis("path", "a-model").stdout.strip() == str(shipped)
    card = load_model("a-model", "cpu").card
    assert card.threshold == 0.4
    assert vadis("verify", "a-model").stdout == f"{load_model(shipped, 'cpu').sha256}  a-model\n"
    for command in ("download", "remove"):
        with pytest.raises(UsageError, match="a-model"):
            vadis(command, "a-model")
    with pytest.raises(UsageError, match=containing(shipped)):
        vadis("to-fp16", shipped, "-o", shipped)


def test_a_model_that_came_damaged_is_told(shipped):
    content = bytearray(shipped.read_bytes())
    content[-1] ^= 1
    shipped.write_bytes(content)
    with pytest.raises(WeightsError):
        vadis("verify", "a-model")


def test_where_nothing_can_be_fetched_the_model_that_is_here_is_named():
    with pytest.raises(WeightsError) as failure:
        load_model(NAME, "cpu", offline=True)
    assert catalog.STAND_IN in failure.value.hint


def test_the_rgb_model_that_comes_with_vadis_is_a_row_with_its_own_accuracy():
    (line,) = (line for line in vadis("list").stdout.splitlines() if line.startswith("i3d-kinetics400-rgb "))
    assert line.split()[1:] == ["rgb", "400", "68.4", "88.0", "25", "MB", "yes"]
    card = read_header(SHIPPED["i3d-kinetics400-rgb"].path)[0]
    index, data = WEIGHTS["i3d-kinetics400-scratch"].checkpoints["rgb"]
    assert card.provenance["files"] == [{"url": file.urls[0], "git_blob": file.git_blob} for file in (index, data)]
    assert card.provenance["licence"] == "Apache-2.0"
