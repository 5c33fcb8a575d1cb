"""``vadis plot filters``: the picture, and what it says where something is missing."""

from pathlib import Path

import pytest

from tests.make_model import make_model
from vadis.models import ModelCard, build_networks
from vadis.report import plots
from vadis.weights.model_file import save_model

WIDTH = 1 / 16  # four filters


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VADIS_OFFLINE", "1")
    return make_model(Path("model.safetensors"), width=WIDTH, classes=3)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, ...]]:
    """The shapes of the filters that were drawn, by network."""
    shapes: dict[str, tuple[int, ...]] = {}
    drawn = plots.plot_filters

    def plot_filters(networks, path, title, **how):
        shapes.update({name: weights.shape for name, weights in networks.items()})
        drawn(networks, path, title, **how)

    monkeypatch.setattr(plots, "plot_filters", plot_filters)
    return shapes


def write_original(path: Path) -> Path:
    """An Inception-v1 as the catalog's, narrow."""
    card = ModelCard("inception-v1-imagenet", "two-stream", ("rgb",), ("a", "b"), width=WIDTH)
    save_model(path, card, {name: network.state_dict() for name, network in build_networks(card).items()})
    return path


def test_both_networks_are_drawn_and_the_original_is_told_to_be_missing(run_vadis, model, asked):
    ended = run_vadis("plot", "filters", model, "-o", "filters.png")
    assert (ended.code, ended.out) == (0, "filters.png\n")
    assert "`vadis weights download inception-v1-imagenet`" in ended.err
    assert asked == {"rgb": (4, 3, 7, 7, 7), "flow": (4, 2, 7, 7, 7)}
    assert Path("filters.png").read_bytes().startswith(b"\x89PNG")


def test_the_original_is_taken_from_a_file(run_vadis, model, asked):
    original = write_original(Path("original.safetensors"))
    ended = run_vadis("plot", "filters", model, "-o", "filters.png", "--imagenet", original)
    assert (ended.code, ended.err) == (0, "")
    assert asked["imagenet"] == (4, 3, 1, 7, 7)


def test_a_scale_for_each_filter_is_another_picture(run_vadis, model):
    for scale in ("network", "filter"):
        assert run_vadis("plot", "filters", model, "-o", f"{scale}.png", "--scale", scale).code == 0
    assert Path("network.png").read_bytes() != Path("filter.png").read_bytes()


def test_receptive_fields_are_shown_beside_the_papers(run_vadis):
    ended = run_vadis("reproduce", "fields")
    assert ended.code == 0
    rows = {line.split()[0]: line.split()[1:] for line in ended.out.splitlines()[1:-1]}
    assert rows["MaxPool3d_4a_3x3"] == ["23", "0.92", "75×75", "23,75,75"]
    assert rows["Pooled"] == ["107", "4.28", "571×571", "99,539,539"]


def test_a_picture_that_is_there_is_not_replaced_unless_asked(run_vadis, model):
    Path("filters.png").write_text("mine")
    refused = run_vadis("plot", "filters", model, "-o", "filters.png")
    assert refused.code == 2
    assert Path("filters.png").read_text() == "mine"
    assert run_vadis("plot", "filters", model, "-o", "filters.png", "--overwrite").code == 0


def test_a_model_of_another_kind_has_no_such_filters(run_vadis, model):
    original = write_original(Path("original.safetensors"))
    ended = run_vadis("plot", "filters", original, "-o", "filters.png")
    assert ended.code == 2
    assert "i3d" in ended.err
    ended = run_vadis("plot", "filters", model, "-o", "filters.png", "--imagenet", model)
    assert ended.code == 2
    assert "Inception-v1" in ended.err


@pytest.mark.parametrize(
    ("name", "output", "code"),
    [("model.safetensors", "a.jpg", 2), ("none", "a.png", 2), ("model.safetensors", "no/a.png", 2)],
)
def test_what_cannot_be_is_said(run_vadis, model, name, output, code):
    ended = run_vadis("plot", "filters", name, "-o", output)
    assert ended.code == code
    assert "Traceback" not in ended.err
    assert "bug" not in ended.err
