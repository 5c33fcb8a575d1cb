from pathlib import Path

import pytest

from tests.matching import containing
from vadis.datasets import find_dataset
from vadis.errors import UsageError


def shown(dataset):
    """Split → (path below the root, label)."""
    return {
        split: [(str(Path(example.path).relative_to(dataset.root)), example.label) for example in examples]
        for split, examples in dataset.splits.items()
    }


def many(*classes, number=200):
    return [f"{label}/{index:04}.mp4" for label in classes for index in range(number)]


# Class folders


def test_split_folders(tree):
    dataset = find_dataset(tree("train/b/1.mp4", "train/a/x/2.MKV", "val/a/1.mp4", "val/b/3.avi", "test/b/4.webm"))
    assert dataset.name == "folder" and dataset.classes == ("a", "b")
    assert shown(dataset) == {
        "train": [("train/a/x/2.MKV", "a"), ("train/b/1.mp4", "b")],
        "val": [("val/a/1.mp4", "a"), ("val/b/3.avi", "b")],
        "test": [("test/b/4.webm", "b")],
    }
    assert "no example: 1 class: a (test)" in dataset.notes


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_names_of_the_validation_folder(tree, name):
    assert list(find_dataset(tree("train/a/1.mp4", "train/b/1.mp4", f"{name}/a/1.mp4")).splits) == ["train", "val"]


def test_only_a_validation_folder(tree):
    assert list(find_dataset(tree("val/a/1.mp4", "val/b/1.mp4")).splits) == ["val"]


def test_without_a_validation_split_a_share_of_each_class_is_taken(tree):
    dataset = find_dataset(tree(*many("a", number=500), *many("b", number=50), "c/1.mp4", "c/2.mp4"))
    labels = [example.label for example in dataset.splits["val"]]
    assert {label: labels.count(label) for label in "abc"} == {"a": 100, "b": 10, "c": 1}
    assert len(dataset.splits["train"]) == 552 - len(labels)
    assert "20% of each class's training clips" in dataset.summary()


def test_what_cannot_be_divided_is_told(tree):
    dataset = find_dataset(tree(*many("a", "b"), "c/take_1.mp4", "c/take_2.mp4"))
    assert {example.label for example in dataset.splits["train"]} == {"a", "b", "c"}
    assert {example.label for example in dataset.splits["val"]} == {"a", "b"}
    assert "no example: 1 class: c (val)" in dataset.notes
    assert any("recording" in note and note.endswith(": c") for note in dataset.notes)


def test_the_share_is_the_same_when_the_folder_moves(tree):
    root = tree(*many("a", "b"))
    before = shown(find_dataset(root))
    assert shown(find_dataset(root.rename(root.parent / "moved"))) == before


def test_a_test_folder_is_never_used_for_validation(tree):
    dataset = find_dataset(tree(*(f"train/{name}" for name in many("a", "b")), "test/a/1.mp4"))
    assert list(dataset.splits) == ["train", "val", "test"]
    assert shown(dataset)["test"] == [("test/a/1.mp4", "a")]
    assert all("/train/" in example.path for example in dataset.splits["val"])


def test_a_class_that_is_tested_and_not_trained_is_an_error(tree):
    root = tree("train/handstand/1.mp4", "train/swim/1.mp4", "val/handstnd/1.mp4")
    with pytest.raises(UsageError, match=containing("val", "handstnd")) as caught:
        find_dataset(root)
    assert "handstand" in caught.value.hint


def test_an_empty_class_folder_is_told_and_is_no_class(tree):
    root = tree(*many("a", "b"), "c/readme.md")
    dataset = find_dataset(root)
    assert dataset.classes == ("a", "b")
    assert "no video: 1 class: c" in dataset.notes


def test_folders_that_differ_only_in_spelling_are_told(tree):
    dataset = find_dataset(tree(*many("Arm Wrestling", "arm_wrestling", "swim")))
    assert any("Arm Wrestling and arm_wrestling" in note for note in dataset.notes)


def test_videos_in_no_class_folder_are_told(tree):
    assert "in no split: 1 file: loose.mp4" in find_dataset(tree(*many("a", "b"), "loose.mp4")).notes
    root = tree("train/a/1.mp4", "train/b/1.mp4", "train/loose.mp4")
    assert any(note.startswith("in no split: 402 files: ") for note in find_dataset(root, "folder").notes)


def test_no_class_is_called_as_a_split(tree):
    with pytest.raises(UsageError, match="train/"):
        find_dataset(tree(*many("train", "plane")))


def test_one_class_folder_is_too_few(tree):
    root = tree(*(f"mine/{name}" for name in many("a", "b")))
    with pytest.raises(UsageError, match=containing(1)) as caught:
        find_dataset(root, "folder")
    assert f"try {root}/mine" in caught.value.hint
    with pytest.raises(UsageError, match=containing(0)):
        find_dataset(root / "mine" / "a", "folder")


def test_names_that_are_not_utf_8(tree):
    root = tree(*many("a", "b\udcff"))
    dataset = find_dataset(root)
    assert dataset.classes == ("a", "b\udcff")
    dataset.summary().encode()


# Lists


def test_a_list_in_the_folder(tree):
    text = "path,label,split\nx/1.mp4,jump,train\n./x/2.mp4,run,train\nx/../x/3.mp4,run,val\n"
    dataset = find_dataset(tree("x/1.mp4", "x/2.mp4", "x/3.mp4", "x/4.mp4", lists={"list.csv": text}))
    assert dataset.name == "folder" and dataset.classes == ("jump", "run")
    assert shown(dataset) == {"train": [("x/1.mp4", "jump"), ("x/2.mp4", "run")], "val": [("x/3.mp4", "run")]}
    assert "in no split: 1 file: x/4.mp4" in dataset.notes


def test_a_list_alone_with_files_anywhere(tree, tmp_path, monkeypatch):
    outside = tmp_path / "outside"  # also a name that no video has
    outside.touch()
    root = tree("x/1.mp4", lists={"list.csv": f"path,label,split\nx/1.mp4,jump,val\n{outside},run,val\n"})
    dataset = find_dataset(root / "list.csv")
    assert [(example.path, example.label) for example in dataset.splits["val"]] == [
        (str(root / "x/1.mp4"), "jump"),
        (str(outside), "run"),
    ]
    monkeypatch.chdir(root)
    assert [example.path for example in find_dataset("list.csv").splits["val"]] == ["x/1.mp4", str(outside)]


def test_lists_named_after_their_splits(tree):
    lists = {"train.csv": "path,label\n1.mp4,a\n2.mp4,b\n", "val.csv": "label,path\na,3.mp4\n"}
    assert shown(find_dataset(tree("1.mp4", "2.mp4", "3.mp4", lists=lists))) == {
        "train": [("1.mp4", "a"), ("2.mp4", "b")],
        "val": [("3.mp4", "a")],
    }


def test_a_list_without_splits_is_shared_out(tree):
    names = many("a", "b")
    text = "path,label\n" + "".join(f"{name},{name[0]}\n" for name in names)
    dataset = find_dataset(tree(*names, lists={"list.csv": text}))
    assert len(dataset.splits["val"]) == 80


@pytest.mark.parametrize(
    ("line", "fact"),
    [
        ("1.mp4,b,train", "1.mp4 (a, b)"),
        ("./1.mp4,a,val", "1.mp4 (train, val)"),
        ("3.mp4,a,train", "33.3%"),
        ("1.mp4,c,val", "1.mp4 (a, c)"),
        ("2.mp4,,val", "line 4"),
        ("2.mp4,a,holdout", "line 4"),
        ("2.mp4", "line 4"),
    ],
)
def test_lists_that_would_falsify_a_result(tree, line, fact):
    text = f"path,label,split\n1.mp4,a,train\n2.mp4,b,train\n{line}\n"
    with pytest.raises(UsageError, match=containing(fact)):
        find_dataset(tree("1.mp4", "2.mp4", lists={"list.csv": text}))


def test_a_list_with_a_class_that_is_only_tested(tree):
    text = "path,label,split\n1.mp4,jump,train\n2.mp4,run,train\n3.mp4,runn,test\n"
    with pytest.raises(UsageError, match=containing("test", "runn")):
        find_dataset(tree("1.mp4", "2.mp4", "3.mp4", lists={"list.csv": text}))
