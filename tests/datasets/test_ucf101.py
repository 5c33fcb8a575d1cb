from pathlib import Path

import pytest

from tests.matching import containing
from vadis.datasets import DATASETS, find_dataset, published
from vadis.datasets.dataset import Request
from vadis.datasets.scan import Tree
from vadis.errors import UsageError

SPLITS = (1, 2, 3)


def official(facts, split):
    """The names of both lists, as they stand."""
    names = {}
    for part in ("train", "test"):
        lines = (facts / "ucf101" / f"{part}list0{split}.txt").read_text().splitlines()
        names[part] = [line.split()[0] for line in lines]
    return names


@pytest.fixture(scope="module")
def everything(facts, big_tree):
    names = official(facts, 1)
    return big_tree("ucf101", names["train"] + names["test"])


def listed(dataset):
    """The names of a dataset's files as the official lists write them."""
    return {
        split: [str(Path(example.path).relative_to(dataset.root)) for example in examples]
        for split, examples in dataset.splits.items()
    }


def names_of(*classes, groups=range(1, 26), clips=(1,)):
    return [f"{label}/v_{label}_g{group:02}_c{clip:02}.avi" for label in classes for group in groups for clip in clips]


# The real lists


@pytest.mark.parametrize("split", SPLITS)
def test_all_files_with_the_official_lists(everything, facts, split, with_lists):
    dataset = find_dataset(with_lists(everything, facts / "ucf101"), split=split)
    assert dataset.name == "ucf101" and dataset.split == split
    assert listed(dataset) == official(facts, split)
    assert {part: len(dataset.splits[part]) for part in dataset.splits} == {
        part: counts[split - 1] for part, counts in DATASETS["ucf101"].counts.items()
    }
    assert dataset.notes == ()


@pytest.mark.parametrize("split", SPLITS)
def test_all_files_without_lists_fall_into_the_same_splits(everything, facts, split):
    dataset = find_dataset(everything, split=split)
    found, expected = listed(dataset), official(facts, split)
    assert {part: sorted(names) for part, names in found.items()} == {
        part: sorted(names) for part, names in expected.items()
    }
    assert sum(map(len, found.values())) == published.UCF101_FILES
    assert len(dataset.notes) == 1


def test_classes_are_in_the_official_order_with_and_without_lists(everything, facts, with_lists):
    lines = (facts / "ucf101" / "classInd.txt").read_text().splitlines()
    official_classes = tuple(line.split()[1] for line in lines)
    assert len(official_classes) == published.UCF101_CLASSES
    assert find_dataset(with_lists(everything, facts / "ucf101")).classes == official_classes
    assert find_dataset(everything).classes == official_classes


def test_labels_are_the_folders_of_the_lists(everything, facts, with_lists):
    for root in (with_lists(everything, facts / "ucf101"), everything):
        dataset = find_dataset(root)
        assert all(Path(e.path).parent.name == e.label for examples in dataset.splits.values() for e in examples)
        assert all(e.start_seconds is None and e.end_seconds is None for e in dataset.splits["test"])


def test_the_real_lists_on_a_flat_folder_of_other_extensions(facts):
    names = official(facts, 1)
    videos = tuple("/ucf/" + name.split("/")[1].replace(".avi", ".mp4") for name in names["train"] + names["test"])
    lists = tuple(str(path) for path in (facts / "ucf101").iterdir())
    with_lists = published.read_ucf101(Tree("/ucf", videos, lists=lists), Request())
    without = published.read_ucf101(Tree("/ucf", videos), Request())
    assert len(with_lists.splits["train"]) == 9_537 and len(with_lists.splits["test"]) == 3_783
    assert with_lists.classes == without.classes
    assert {e.path: e.label for e in with_lists.splits["test"]} == {e.path: e.label for e in without.splits["test"]}


def test_the_summary_counts_the_examples(everything, facts, with_lists):
    dataset = find_dataset(with_lists(everything, facts / "ucf101"))
    assert "101 classes; examples: train 9,537, test 3,783" in dataset.summary()


# Small trees


LISTS = {
    "ucfTrainTestlist/classInd.txt": "1 Swim\r\n2 Archery\r\n",
    "ucfTrainTestlist/trainlist01.txt": "Swim/v_Swim_g08_c01.avi 1\r\nArchery/v_Archery_g08_c01.avi 2\r\n",
    "ucfTrainTestlist/testlist01.txt": "Swim/v_Swim_g01_c01.avi\r\nArchery/v_Archery_g01_c01.avi\r\n",
}
FILES = [
    *("UCF-101/Swim/v_Swim_g08_c01.avi", "UCF-101/Swim/v_Swim_g01_c01.avi"),
    *("UCF-101/Archery/v_Archery_g08_c01.avi", "UCF-101/Archery/v_Archery_g01_c01.avi"),
]


def test_lists_and_videos_in_the_usual_folders(tree):
    dataset = find_dataset(tree(*FILES, lists=LISTS))
    assert dataset.classes == ("Swim", "Archery")  # as in classInd.txt, not by the alphabet
    assert [example.label for example in dataset.splits["train"]] == ["Swim", "Archery"]
    assert [Path(example.path).name for example in dataset.splits["test"]] == [
        "v_Swim_g01_c01.avi",
        "v_Archery_g01_c01.avi",
    ]
    assert dataset.notes == ()


def test_half_of_the_official_lists_is_not_used(tree):
    lists = {name: text for name, text in LISTS.items() if "testlist" not in name}
    dataset = find_dataset(tree(*FILES, lists=lists))
    assert dataset.classes == ("Archery", "Swim")
    assert any("official lists are not here" in note for note in dataset.notes)


def test_names_match_whatever_their_case(tree):
    root = tree(*(name.replace("v_Swim", "v_sWIM") for name in FILES), lists=LISTS)
    assert find_dataset(root).notes == ()


def test_a_few_missing_files_are_in_the_summary(tree):
    names = names_of("Swim", "Archery", clips=range(1, 5))
    train = [f"{name} {1 if 'Swim' in name else 2}" for name in names if int(name[-10:-8]) > 7]
    test = [name for name in names if int(name[-10:-8]) <= 7]
    lists = {
        "classInd.txt": "1 Swim\n2 Archery",
        "trainlist01.txt": "\n".join(train),
        "testlist01.txt": "\n".join(test),
    }
    dataset = find_dataset(tree(*names[3:], lists=lists))
    assert f"3 of the 56 files of ucf101's test split are missing (5.4%): {', '.join(names[:3])}" in dataset.summary()


def test_a_tenth_missing_is_an_error_that_names_five(tree):
    train = [f"Swim/v_Swim_g{group:02}_c01.avi" for group in range(8, 26)]
    test = [f"Swim/v_Swim_g{group:02}_c{clip:02}.avi" for group in range(1, 8) for clip in range(1, 11)]
    lists = {"trainlist01.txt": "\n".join(train), "testlist01.txt": "\n".join(test)}
    root = tree(*train, *test[7:], lists=lists)
    with pytest.raises(UsageError, match=containing(7, 70, "test", "10.0%")) as caught:
        find_dataset(root)
    assert ", ".join(test[:5]) + " and 2 more" in caught.value.message
    assert any("(10.0%)" in note for note in find_dataset(root, allow_missing=0.11).notes)


def test_a_split_of_which_nothing_is_here_is_left_out(tree):
    root = tree(*(name for name in FILES if "g01" in name), lists=LISTS)
    dataset = find_dataset(root)
    assert list(dataset.splits) == ["test"]
    assert "the train split is left out: none of its 2 files is here" in dataset.notes
    with pytest.raises(UsageError, match=containing("train")):
        find_dataset(root, allow_missing=1.0).examples("train")


def test_no_file_at_all(tree):
    with pytest.raises(UsageError, match=containing(4, "ucf101")):
        find_dataset(tree(lists=LISTS))


def test_a_file_in_the_folder_of_another_class_has_two_labels(tree):
    for lists in ({}, LISTS):
        root = tree(*FILES[1:], "UCF-101/Archery/v_Swim_g08_c01.avi", lists=lists)
        with pytest.raises(UsageError, match=containing("Archery/v_Swim_g08_c01.avi", "Swim")):
            find_dataset(root)


def test_a_misspelt_folder_is_told_and_its_files_are_used(tree):
    for lists in ({}, LISTS):
        root = tree(*FILES[:3], "UCF-101/Archry/v_Archery_g01_c01.avi", lists=lists)
        dataset = find_dataset(root)
        assert "folder UCF-101/Archry: no such class; did you mean Archery?" in dataset.summary()
        assert len(dataset.splits["test"]) == 2


def test_an_empty_class_is_told(tree):
    root = tree(*FILES[:3], lists=LISTS)
    assert "no example: 1 class: Archery (test)" in find_dataset(root, allow_missing=0.9).notes


def test_files_beyond_the_lists_and_second_copies_are_told(tree):
    root = tree(*FILES, "UCF-101/Swim/v_Swim_g30_c01.avi", "1st copy/v_Swim_g01_c01.avi", lists=LISTS)
    dataset = find_dataset(root)
    assert "in no split: 1 file: UCF-101/Swim/v_Swim_g30_c01.avi" in dataset.notes
    assert "more than once, used once: 1 file: 1st copy/v_Swim_g01_c01.avi" in dataset.notes
    assert dataset.splits["test"][0].path.endswith("UCF-101/Swim/v_Swim_g01_c01.avi")


@pytest.mark.parametrize(
    ("name", "text", "fact"),
    [
        ("trainlist01.txt", "Swim/v_Swim_g01_c01.avi 1\n", "Swim/v_Swim_g01_c01.avi (train, test)"),
        ("trainlist01.txt", "Archery/v_Swim_g01_c01.avi 2\n", "Swim/v_Swim_g01_c01.avi (Archery, Swim)"),
        ("trainlist01.txt", "Swim/v_Swim_g08_c01.avi 2\n", "Swim/v_Swim_g08_c01.avi"),
        ("trainlist01.txt", "Swym/v_Swim_g08_c01.avi 1\n", "Swym"),
        ("trainlist01.txt", "\nv_Swim_g08_c01.avi 1\n", "trainlist01.txt, line 2"),
        ("classInd.txt", "1 Swim\n1 Archery\n", "classInd.txt, line 2"),
    ],
)
def test_lists_that_contradict_themselves(tree, name, text, fact):
    with pytest.raises(UsageError, match=containing(fact)):
        find_dataset(tree(*FILES, lists={**LISTS, f"ucfTrainTestlist/{name}": text}))


def test_a_line_that_comes_twice_counts_once(tree):
    name = "ucfTrainTestlist/testlist01.txt"
    dataset = find_dataset(tree(*FILES, lists={**LISTS, name: LISTS[name] * 2}))
    assert len(dataset.splits["test"]) == 2
    assert any(note.startswith("more than once, used once: 2 files") for note in dataset.notes)


# Without lists


@pytest.mark.parametrize(("split", "groups"), [(1, range(1, 8)), (2, range(8, 15)), (3, range(15, 22))])
def test_groups_decide_without_lists(tree, split, groups):
    dataset = find_dataset(tree(*names_of("Left", "Right")), split=split)
    assert {int(Path(example.path).name[-10:-8]) for example in dataset.splits["test"]} == set(groups)
    assert len(dataset.splits["test"]) + len(dataset.splits["train"]) == 50


def test_without_lists_and_folders_classes_are_spelt_and_sorted_as_in_the_official_list(tree):
    labels = ("HammerThrow", "Hammering", "HandStandPushups")
    dataset = find_dataset(tree(*(f"v_{label}_g01_c01.avi" for label in labels)))
    assert dataset.classes == ("Hammering", "HammerThrow", "HandstandPushups")


def test_without_lists_a_tenth_less_than_published_is_an_error():
    classes = [f"Class{number}" for number in range(published.UCF101_CLASSES)]
    tree = Tree("/ucf", tuple(f"/ucf/{name}" for name in names_of(*classes)))
    with pytest.raises(UsageError, match=containing("10,795", "13,320")):
        published.read_ucf101(tree, Request())
    dataset = published.read_ucf101(tree, Request(allow_missing=0.9))
    assert "10,795 of the 13,320 files of UCF-101 are missing" in dataset.summary()


def test_asked_for_where_nothing_has_such_a_name(tree):
    with pytest.raises(UsageError, match=containing("v_<Class>_g<group>_c<clip>")):
        find_dataset(tree("a/b.avi"), "ucf101")
