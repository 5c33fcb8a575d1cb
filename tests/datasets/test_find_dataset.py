import dataclasses
import subprocess
import sys

import pytest

from tests.matching import containing
from vadis.datasets import DATASETS, Dataset, Example, find_dataset
from vadis.datasets.dataset import make_note
from vadis.errors import UsageError

UCF = [f"UCF-101/{label}/v_{label}_g{group:02}_c01.avi" for label in ("A", "B") for group in range(1, 26)]
HMDB = [f"hmdb51/{label}/x_{label}_f_cm_np1_ba_goo_{number}.avi" for label in ("run", "walk") for number in range(25)]
HMDB_LISTS = {f"{label}_test_split1.txt": f"x_{label}_f_cm_np1_ba_goo_0.avi 1" for label in ("run", "walk")}
KINETICS_LIST = {"val.csv": "label,youtube_id,time_start,time_end,split\nyoga,abcdefghijk,5,15,val\n"}


@pytest.mark.parametrize(
    ("names", "lists", "expected"),
    [
        (UCF, {}, "ucf101"),
        ([*UCF, "extra.mp4"], {}, "ucf101"),
        (HMDB, HMDB_LISTS, "hmdb51"),
        (["abcdefghijk_000005_000015.mp4"], KINETICS_LIST, "kinetics"),
        ([*UCF[:10], *HMDB], {}, "folder"),  # a mixture is somebody's own dataset
        ([name.replace("UCF-101", "train") for name in UCF], {}, "folder"),  # somebody's own splits
        (UCF, {"list.csv": f"path,label\n{UCF[0]},a\n{UCF[1]},b\n"}, "folder"),
        (["a/1.mp4", "b/1.mp4"], {}, "folder"),
        (["1.mp4", "2.mp4"], {"list.csv": "path,label\n1.mp4,a\n2.mp4,b\n"}, "folder"),
    ],
)
def test_what_lies_on_disk_decides(tree, names, lists, expected):
    assert find_dataset(tree(*names, lists=lists)).name == expected


def test_a_name_overrules_what_lies_on_disk(tree):
    root = tree(*(name.removeprefix("UCF-101/") for name in UCF))
    assert find_dataset(root).notes[0].startswith("the split follows from the groups")
    assert find_dataset(root, "folder").name == "folder"


def test_two_datasets_in_one_folder(tree):
    root = tree(*UCF, lists=HMDB_LISTS)
    with pytest.raises(UsageError, match=containing("ucf101", "hmdb51")) as caught:
        find_dataset(root)
    assert "`name`" in caught.value.hint
    assert find_dataset(root, "ucf101").name == "ucf101"


@pytest.mark.parametrize("names", [(), ("a/notes.md",), ("only/1.mp4", "only/2.mp4"), ("1.mp4",)])
def test_nothing_recognised_says_what_was_looked_for(tree, names):
    with pytest.raises(UsageError) as caught:
        find_dataset(tree(*names))
    for kind in DATASETS.values():
        assert kind.looked_for in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("name", "hint"), [("ucf-101", "ucf101"), ("imagenet", "kinetics")])
def test_unknown_names(tree, name, hint):
    with pytest.raises(UsageError, match=f"'{name}'") as caught:
        find_dataset(tree(), name)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "split"), [("ucf101", 0), ("ucf101", 4), ("hmdb51", 4), ("kinetics", 2), ("folder", 2)]
)
def test_splits_that_do_not_exist(tree, name, split):
    with pytest.raises(UsageError, match=containing(name, split)):
        find_dataset(tree(*UCF), name, split)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_shares_that_are_none(tree, share):
    with pytest.raises(UsageError, match=containing(0, 1, share)):
        find_dataset(tree(*UCF), allow_missing=share)


def test_a_split_that_is_needed_and_not_there(tree):
    with pytest.raises(UsageError, match=containing("ucf101", "val", "train, test")):
        find_dataset(tree(*UCF)).examples("val")


def test_everything_is_frozen(tree):
    dataset = find_dataset(tree(*UCF))
    for thing, name in ((dataset, "root"), (dataset.splits["test"][0], "label")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, name, "x")


def test_the_same_tree_gives_the_same_order(tree):
    root = tree(*UCF, *HMDB)
    first = find_dataset(root, "folder")
    assert first == find_dataset(root, "folder")
    assert [example.path for example in first.splits["train"]] == sorted(e.path for e in first.splits["train"])


def test_a_summary_is_text_for_a_terminal():
    notes = (*make_note("in no split", ["u\udcff", *map(str, range(6))], "file"), "what else there is")
    dataset = Dataset("ucf101", "/data", ("a", "b"), 2, {"train": (Example("/data/a", "a"),)}, notes)
    assert dataset.summary().splitlines() == [
        "ucf101, split 2, in /data",
        "  2 classes; examples: train 1",
        "  in no split: 7 files: u\\xff, 0, 1, 2, 3 and 2 more",
        "  what else there is",
    ]
    assert make_note("in no split", [], "file") == []


def test_listing_needs_neither_torch_nor_a_decoder():
    code = (
        "import sys, vadis.datasets; print([m for m in ('torch', 'av', 'cv2', 'numpy', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
