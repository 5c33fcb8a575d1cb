"""What a fine-tuned network begins with, which videos are kept for validation, and what cannot be planned."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.make_model import make_model
from tests.matching import containing
from vadis.datasets.dataset import Dataset, Example
from vadis.errors import UsageError
from vadis.training.plan import LAST_LAYER, Plan, begin, list_sha256, new_networks
from vadis.training.recipes import RECIPES
from vadis.weights.load import load_model

CLASSES = ("Archery", "Bowling")
LAST_WEIGHT = f"{LAST_LAYER}Conv3d_0c_1x1.conv.weight"


def dataset(root: str = "/data", classes: tuple[str, ...] = CLASSES, groups: int = 25, **splits) -> Dataset:
    examples = tuple(
        Example(f"{root}/{label}/v_{label}_g{group:02}_c{clip:02}.avi", label)
        for label in classes
        for group in range(groups)
        for clip in (1, 2, 3)
    )
    return Dataset("folder", root, classes, 1, {"train": examples, **splits})


def plan(found: Dataset | None = None, start=None, width=1 / 64, **changes) -> Plan:
    recipe = replace(RECIPES["ucf101"], **changes)
    return Plan(found or dataset(), {"rgb": recipe, "flow": recipe}, start, width=width)


@pytest.fixture
def start(tmp_path: Path):
    return load_model(make_model(tmp_path / "start.safetensors", width=1 / 32, classes=5), "cpu")


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_everything_but_the_last_layer_is_the_models(start, stream):
    network = new_networks(plan(start=start), stream)[stream].state_dict()
    source = start.networks[stream].state_dict()
    copied = {key for key in network if not key.startswith(LAST_LAYER) and "num_batches" not in key}
    assert len(copied) == 285  # 57 convolutions, and four tensors of each batch norm
    assert all(torch.equal(network[key], source[key]) for key in copied)
    assert network[LAST_WEIGHT].shape[0] == len(CLASSES)
    assert not torch.equal(network[LAST_WEIGHT], source[LAST_WEIGHT][: len(CLASSES)])


def test_a_new_model_has_nothing_of_what_the_old_one_does_with_its_labels(start):
    """A card as camera-motion's: with a threshold, windows of its own, and flow made faster."""
    found = replace(start.card, threshold=0.4, crop_first=True, test_window=32, window_frames=32)
    old = replace(start, card=replace(found, provenance={"mirror": False}))
    card = plan(start=old).card
    assert (card.threshold, card.crop_first, card.test_window) == (None, False, None)
    assert card.window_frames == 64
    assert (card.architecture, card.width, card.labels) == (start.card.architecture, start.card.width, CLASSES)
    assert card.provenance["mirror"] is True
    assert plan(start=old, test_window=16).card.test_window == 16


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (3, 0, 4, 2, 1)])
def test_a_model_of_the_same_classes_keeps_its_last_layer(start, order):
    known = tuple(start.card.labels[number] for number in order)
    going_on = plan(dataset(classes=known), start)
    for run in ("rgb", "flow"):
        (network,) = new_networks(going_on, run).values()
        own, source = network.state_dict(), start.networks[run].state_dict()
        for key in (LAST_WEIGHT, LAST_WEIGHT.replace("weight", "bias")):
            assert torch.equal(own[key], source[key][list(order)])
    assert not plan(dataset(classes=known[1:]), start).keeps_last_layer


def test_classes_that_tell_left_from_right_are_not_mirrored_later(start):
    old = replace(start, card=replace(start.card, provenance={"mirror": False}))
    same = dataset(classes=start.card.labels)
    assert plan(same, old).card.provenance["mirror"] is False
    assert plan(same, start).card.provenance["mirror"] is True


def test_random_networks_depend_on_seed_and_stream_alone():
    last = LAST_WEIGHT
    torch.manual_seed(5)
    first = new_networks(plan(), "rgb")["rgb"].state_dict()[last]
    torch.manual_seed(6)
    assert torch.equal(first, new_networks(plan(), "rgb")["rgb"].state_dict()[last])
    assert not torch.equal(first, new_networks(plan(seed=1), "rgb")["rgb"].state_dict()[last])
    assert not torch.equal(first, new_networks(plan(), "flow")["flow"].state_dict()[last])


def test_whole_groups_are_kept_for_validation():
    train, val, _ = plan().division("rgb")
    assert sorted([*train, *val], key=lambda each: each.path) == sorted(
        dataset().splits["train"], key=lambda each: each.path
    )
    groups = {each.path[:-8] for each in val}
    assert len(val) == 3 * len(groups) == 6  # of 75 clips of each class in groups of three: 4, so one group
    assert not groups & {each.path[:-8] for each in train}
    assert {each.label for each in val} == {each.label for each in train} == set(CLASSES)


def test_nothing_is_kept_where_nothing_needs_it_or_there_is_a_split_for_it():
    everything = dataset().splits["train"]
    assert plan(schedule="steps").division("rgb") == (everything, (), ())
    val = (Example("/data/x.avi", "Archery"),)
    assert plan(dataset(val=val)).division("flow") == (everything, val, ())


@pytest.mark.parametrize(
    ("found", "changes", "fact"),
    [
        (dataset(classes=("a", "b\x07")), {}, "b\x07"),
        (dataset(classes=("a",), groups=1), {}, "validation"),
        (replace(dataset(), splits={"test": ()}), {}, "train"),
        (dataset(), {"clip_frames": 8}, 9),
    ],
)
def test_what_cannot_be_trained_is_said_at_once(found, changes, fact):
    with pytest.raises(UsageError, match=containing(fact)):
        plan(found, **changes)


def test_a_model_without_the_stream_is_refused(start):
    with pytest.raises(UsageError, match=containing("flow")):
        plan(start=start.only(("rgb",)))


def test_a_run_goes_on_only_as_it_was_asked_for(tmp_path):
    begin(tmp_path / "run", plan(), resume=False)
    begin(tmp_path / "run", plan(), resume=True)
    begin(tmp_path / "run", plan(), resume=False)  # nothing has been learnt yet: a full disk stopped it, for example
    (tmp_path / "run" / "rgb").mkdir()
    with pytest.raises(UsageError, match=containing(tmp_path / "run")):
        begin(tmp_path / "run", plan(), resume=False)
    with pytest.raises(UsageError, match="mirror"):
        begin(tmp_path / "run", plan(mirror=False), resume=True)


def test_a_refused_recipe_leaves_the_record_of_the_run_as_it_was(tmp_path):
    begin(tmp_path, plan(), resume=False)
    (tmp_path / "rgb").mkdir()
    record = tmp_path / "run.json"
    before = record.read_bytes()
    for changes in ({"learning_rate": 0.5}, {"steps": 3}):
        with pytest.raises(UsageError, match=containing(*changes)):
            begin(tmp_path, plan(**changes), resume=True)
        assert record.read_bytes() == before
    begin(tmp_path, plan(learning_rate=0.5), resume=True, allow_inexact=True)
    begin(tmp_path, plan(learning_rate=0.5, steps=9999), resume=True)
    assert b"9999" in record.read_bytes()


def test_a_folder_with_other_things_is_refused_but_a_flow_store_may_be_there(tmp_path):
    (tmp_path / "flow-store").mkdir()
    begin(tmp_path, plan(), resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=containing("thesis.tex")):
        begin(tmp_path / "other", plan(), resume=True)


def test_a_list_is_known_wherever_its_data_lie():
    here, there = dataset("/here"), dataset("/there")
    assert list_sha256(here, here.splits["train"]) == list_sha256(there, there.splits["train"])
    assert list_sha256(here, here.splits["train"][1:]) != list_sha256(here, here.splits["train"])
