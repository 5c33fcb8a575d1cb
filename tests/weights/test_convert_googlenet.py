"""The published ImageNet Inception-v1: its names, from the net to a model file, and what is refused."""

import hashlib
import io
from dataclasses import replace

import pytest
import torch

import vadis
from tests.googlenet import SHAPES, from_googlenet, narrow_entries
from tests.matching import containing
from tests.weights.conftest import WIDTH
from vadis.errors import WeightsError
from vadis.models.inception import Inception, from_imagenet
from vadis.weights import catalog
from vadis.weights.catalog import WEIGHTS, RemoteFile, published_labels
from vadis.weights.convert import convert, read_state_dict, state_key
from vadis.weights.model_file import load_model_file

NAME = "inception-v1-imagenet"


def torch_file(entries) -> bytes:
    buffer = io.BytesIO()
    torch.save(entries, buffer)
    return buffer.getvalue()


@pytest.fixture
def source(tmp_path):
    (tmp_path / "googlenet.pth").write_bytes(torch_file(narrow_entries(WIDTH)))
    return tmp_path / "googlenet.pth"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("conv1.conv.weight", "body.Conv2d_1a_7x7.conv.weight"),
        ("conv3.bn.running_var", "body.Conv2d_2c_3x3.norm.running_var"),
        ("inception3a.branch1.conv.weight", "body.Mixed_3b.Branch_0.Conv2d_0a_1x1.conv.weight"),
        ("inception4e.branch2.1.bn.weight", "body.Mixed_4f.Branch_1.Conv2d_0b_3x3.norm.weight"),
        ("inception5b.branch4.1.bn.bias", "body.Mixed_5c.Branch_3.Conv2d_0b_1x1.norm.bias"),
        ("fc.bias", "Logits.bias"),
        ("conv1.bn.num_batches_tracked", None),
        ("aux1.fc1.weight", None),
        ("aux2.conv.bn.running_mean", None),
        ("something.else", "something.else"),
        ("inception3a.branch9.conv.weight", "body.Mixed_3b.branch9.conv.weight"),
    ],
)
def test_names(theirs, ours):
    assert state_key(theirs) == ours


def test_every_published_tensor_goes_to_a_place_of_its_own():
    keys = [key for key in map(state_key, SHAPES) if key is not None]
    with torch.device("meta"):
        own = [key for key in Inception(1000).state_dict() if "num_batches" not in key]
    assert sorted(keys) == sorted(own)


def test_a_downloaded_file_becomes_a_model(source, tmp_path):
    out = tmp_path / "imagenet.safetensors"
    card = convert([source], out)
    model = load_model_file(out)
    assert model.card == card
    assert (card.architecture, card.streams, card.width) == ("two-stream", ("rgb",), WIDTH)
    assert (len(card.labels), card.labels[0], card.labels[-1]) == (1000, "tench", "toilet tissue")
    expected = from_googlenet(narrow_entries(WIDTH))
    found = model.networks["rgb"].state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_a_network_starts_from_the_model_file(source, tmp_path):
    convert([source], tmp_path / "imagenet.safetensors")
    imagenet = load_model_file(tmp_path / "imagenet.safetensors").networks["rgb"].state_dict()
    network = Inception(5, "flow", width=WIDTH)
    from_imagenet(network, imagenet)
    key = "body.Mixed_4d.Branch_1.Conv2d_0b_3x3.conv.weight"
    assert torch.equal(network.get_parameter(key), imagenet[key])


@pytest.mark.parametrize(
    ("damage", "fact"),
    [
        (
            lambda e: e.pop("inception4b.branch3.0.bn.weight"),
            "body.Mixed_4c.Branch_2.Conv2d_0a_1x1.norm.weight",
        ),
        (lambda e: e.update({"inception6a.x": torch.zeros(1)}), "inception6a.x"),
        (lambda e: e.update({"fc.weight": torch.zeros(1000, 3)}), (1000, 3)),
        (lambda e: e.pop("fc.bias"), "Logits.bias"),
        (lambda e: e.update({"conv1.conv.weight": torch.zeros(4, 5, 7, 7)}), 3),
    ],
)
def test_another_network_is_refused_with_the_difference(tmp_path, damage, fact):
    entries = narrow_entries(WIDTH)
    damage(entries)
    (tmp_path / "x.pth").write_bytes(torch_file(entries))
    with pytest.raises(WeightsError, match=containing(fact)):
        read_state_dict(tmp_path / "x.pth")


def test_other_classes_need_a_label_list(tmp_path):
    (tmp_path / "x.pth").write_bytes(torch_file(narrow_entries(WIDTH, classes=400)))
    with pytest.raises(vadis.errors.UsageError, match=containing(400)):
        convert([tmp_path / "x.pth"], tmp_path / "out.safetensors")


def test_the_published_file_in_the_catalog():
    (file,) = WEIGHTS[NAME].files
    assert file.urls == ("https://download.pytorch.org/models/googlenet-1378be20.pth",)
    assert file.identity == {"sha256_prefix": "1378be20"}
    assert len(set(published_labels("imagenet"))) == 1000


@pytest.fixture
def published(server, monkeypatch):
    """The catalog's row, but narrow and on the local server."""
    content = torch_file(narrow_entries(WIDTH))
    server.files["/models/googlenet.pth"] = content
    file = RemoteFile(
        f"{NAME}/googlenet.pth",
        ("https://published.invalid/models/googlenet.pth",),
        git_blob="",
        size=None,
        sha256_prefix=hashlib.sha256(content).hexdigest()[:8],
    )
    row = replace(WEIGHTS[NAME], checkpoints={"rgb": (file,)})
    monkeypatch.setitem(catalog.WEIGHTS, NAME, row)
    return row


def test_the_first_use_downloads_and_converts(published, server, cache):
    model = vadis.load_model(NAME, device="cpu")
    assert (model.card.name, model.card.labels) == (NAME, published_labels("imagenet"))
    assert model.card.provenance["files"] == [
        {"url": "https://published.invalid/models/googlenet.pth", "sha256_prefix": published.files[0].sha256_prefix}
    ]
    assert (cache / "models" / f"{NAME}.safetensors").is_file()
    server.stop()
    assert vadis.load_model(NAME, device="cpu", offline=True).sha256 == model.sha256


def test_a_file_with_another_hash_is_refused(published, server, cache):
    server.files["/models/googlenet.pth"] += b"\0"
    with pytest.raises(WeightsError, match=containing("googlenet.pth")):
        vadis.load_model(NAME, device="cpu")
    assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]
