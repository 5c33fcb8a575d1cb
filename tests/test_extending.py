"""Each recipe of the page on extending does what the page says: the block is run, and what it adds is used."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import vadis
from tests.report.conftest import labelled
from tests.synthetic import write_video
from vadis.datasets import DATASETS, find_dataset
from vadis.formats import FORMATS
from vadis.models import MODELS, ModelCard, build_networks
from vadis.weights.model_file import save_model

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()


@pytest.fixture(autouse=True)
def tables_are_put_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    before = [(table, dict(table)) for table in (FORMATS, DATASETS, MODELS)]
    yield
    for table, rows in before:
        table.clear()
        table.update(rows)


def follow(title: str) -> None:
    """Run the code under a heading of the page."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    exec(compile(code, f"extending.md, {title}", "exec"), {"__name__": title})


def test_an_output_format() -> None:
    follow("An output format")
    result = labelled("a.mp4", [("archery", 0.9), ("two\ttabs", 0.7)])
    text = "".join(FORMATS["audacity"].write([result]))
    assert text == "0.000000\t2.000000\tarchery\n2.000000\t4.000000\ttwo\\ttabs\n"


def test_a_dataset() -> None:
    for name in ("train--run--1.mp4", "train--jump--2.mp4", "test--run--3.mp4"):
        write_video(name, num_frames=2)
    follow("A dataset")
    found = find_dataset(".")
    assert (found.name, found.classes) == ("named", ("jump", "run"))
    assert {part: len(examples) for part, examples in found.splits.items()} == {"train": 2, "test": 1}


def test_a_sixth_architecture(tmp_path: Path) -> None:
    follow("A sixth architecture")
    card = ModelCard("mine", "mean-of-frames", ("rgb",), ("one", "two"), width=1 / 16, window_frames=16)
    networks = {name: network.state_dict() for name, network in build_networks(card).items()}
    save_model(tmp_path / "mine.safetensors", card, networks)
    model = vadis.load_model(str(tmp_path / "mine.safetensors"), device="cpu")
    result = vadis.classify(write_video(tmp_path / "a.mp4", num_frames=40), model)
    assert {label.label for label in result.clip_score} == {"one", "two"}
    assert sum(label.score for label in result.clip_score) == pytest.approx(1)


def test_a_weights_file(tmp_path: Path) -> None:
    follow("A weights file")
    model = vadis.load_model("mine-made.safetensors", device="cpu")
    assert (model.card.name, model.card.labels) == ("mine", ("one", "two"))
