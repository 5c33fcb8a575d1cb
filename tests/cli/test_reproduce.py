import json

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.make_model import make_model
from tests.matching import containing
from vadis.cli.reproduce import app
from vadis.errors import UsageError, WeightsError
from vadis.evaluation import sample as room
from vadis.evaluation.sample import Comparison


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small model of 400 classes, and preprocessed arrays of 9 frames."""
    folder = tmp_path_factory.mktemp("reproduce")
    make_model(folder / "m.safetensors", width=1 / 64)
    for stream, channels in (("rgb", 3), ("flow", 2)):
        values = np.random.default_rng(0).uniform(-1, 1, (1, 9, 224, 224, channels)).astype("f4")
        np.save(folder / f"{stream}.npy", values)
    return folder


def vadis(*arguments):
    return CliRunner().invoke(app, ["sample", *map(str, arguments)], catch_exceptions=False)


def test_all_logits_come_as_json(files):
    result = vadis(
        "--rgb", files / "rgb.npy", "--flow", files / "flow.npy", "--model", files / "m.safetensors", "--json"
    )
    assert result.exit_code == 0
    outcome = json.loads(result.stdout)
    streams = outcome["streams"]
    assert list(streams) == ["rgb", "flow", "both"]
    assert [len(stream["logits"]) for stream in streams.values()] == [400] * 3
    assert streams["both"]["logits"] == pytest.approx(
        np.add(streams["rgb"]["logits"], streams["flow"]["logits"]).tolist()
    )
    assert outcome["passed"] is None


def test_one_stream_is_shown_as_a_table_of_80_columns(files):
    result = vadis("--flow", files / "flow.npy", "--model", files / "m.safetensors")
    lines = result.stdout.splitlines()
    assert len([line for line in lines if line.startswith("  ")]) == 23  # head, norm, 20 classes, verdict
    assert all(len(line) <= 80 for line in lines[1:])
    assert "nothing is published" in result.stdout


@pytest.mark.parametrize(("shift", "code", "word"), [(0.0, 0, "PASS"), (1.0, 1, "FAIL")])
def test_the_verdict_is_the_exit_code(files, monkeypatch, shift, code, word):
    def against_itself(model, paths):
        found = room.run(model, {stream: room.read_array(path, stream, 9) for stream, path in paths.items()})
        results = {}
        for stream, ours in found.items():
            published = room.Outputs(ours.norm + shift * ours.norm, ours.top)
            results[stream] = room.compare(ours, published, model.card.labels)
            assert isinstance(results[stream], Comparison)
        return results

    monkeypatch.setattr(room, "reproduce", against_itself)
    result = vadis("--rgb", files / "rgb.npy", "--model", files / "m.safetensors")
    assert result.exit_code == code
    assert word in result.stdout


def test_a_stream_that_the_model_lacks_is_wrong_use(files, tmp_path):
    make_model(tmp_path / "rgb.safetensors", width=1 / 64, classes=3, streams=("rgb",))
    with pytest.raises(UsageError, match=containing("flow")):
        vadis("--flow", files / "flow.npy", "--model", tmp_path / "rgb.safetensors")


def test_the_sample_itself_is_wanted_without_arrays(files, tmp_path, monkeypatch):
    monkeypatch.setenv("VADIS_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=containing("v_CricketShot_g04_c01_rgb.npy")) as failure:
        vadis("--model", files / "m.safetensors", "--offline")
    assert '`rgb="FILE.npy"`' in failure.value.hint
