import re
from pathlib import Path

import pytest

from tests.matching import containing
from vadis.datasets import DATASETS, find_dataset, published
from vadis.errors import UsageError

NAME = "{}_{}_h_nm_np1_fr_med_{}.avi"  # title, class, number


def official(facts, split):
    """{"1": train, "2": test, "0": unused} → names as ``class/file``, and the classes."""
    names, classes = {"0": [], "1": [], "2": []}, []
    for path in sorted((facts / "hmdb51" / "testTrainMulti_7030_splits").glob(f"*_test_split{split}.txt")):
        label = path.name.removesuffix(f"_test_split{split}.txt")
        classes.append(label)
        for line in path.read_text().splitlines():
            name, flag = line.split()
            names[flag].append(f"{label}/{name}")
    return names, classes


@pytest.fixture(scope="module")
def everything(facts, big_tree):
    names, _ = official(facts, 1)
    return big_tree("hmdb51", [name for part in names.values() for name in part])


def listed(dataset):
    return {
        split: sorted(str(Path(example.path).relative_to(dataset.root)) for example in examples)
        for split, examples in dataset.splits.items()
    }


def split_files(**classes):
    """``walk="120"`` → the list of a class with three files: train, test, unused."""
    return {
        f"testTrainMulti_7030_splits/{label}_test_split1.txt": "".join(
            f"{NAME.format('A', label, number)} {flag} \n" for number, flag in enumerate(flags)
        )
        for label, flags in classes.items()
    }


def files(**classes):
    return [f"{label}/{NAME.format('A', label, n)}" for label, flags in classes.items() for n in range(len(flags))]


# The real lists


@pytest.mark.parametrize("split", (1, 2, 3))
def test_all_files_in_the_official_splits(everything, facts, split, with_lists):
    dataset = find_dataset(with_lists(everything, facts / "hmdb51"), split=split)
    names, classes = official(facts, split)
    assert dataset.name == "hmdb51"
    assert listed(dataset) == {"train": sorted(names["1"]), "test": sorted(names["2"])}
    assert len(dataset.splits["train"]) == 3_570 == DATASETS["hmdb51"].counts["train"][split - 1]
    assert len(dataset.splits["test"]) == 1_530 == DATASETS["hmdb51"].counts["test"][split - 1]
    assert dataset.classes == tuple(sorted(classes)) and len(classes) == published.HMDB51_CLASSES
    assert all(Path(example.path).parent.name == example.label for example in dataset.splits["train"])
    assert dataset.notes == ()  # the 1,666 unused files are not "in no split" by mistake


def test_the_real_names_are_recognised_but_tell_no_split(everything):
    with pytest.raises(UsageError, match="HMDB-51") as caught:
        find_dataset(everything)
    assert re.search(containing("test_train_splits.rar", "https://"), caught.value.hint)


# Small trees


CLASSES = {"walk": "120", "sword_exercise": "1112"}


def test_lists_beside_the_class_folders(tree):
    dataset = find_dataset(tree(*files(**CLASSES), lists=split_files(**CLASSES)))
    assert dataset.classes == ("sword_exercise", "walk")
    assert [example.label for example in dataset.splits["train"]] == ["sword_exercise"] * 3 + ["walk"]
    assert dataset.notes == ("2 of the 51 classes of HMDB-51 have a list",)


@pytest.mark.parametrize(
    "name", ["(HQ)_Rock_Climbing!_#1.avi", "a & b; c~d@e+f[1].avi", "#2_Gum_chew.avi", "two  blanks .avi", "é_ü.avi"]
)
@pytest.mark.parametrize("end", [" 1 \r\n", " 1\n", "  1", "\t1 \n"])
def test_awkward_names_and_line_ends(tree, name, end):
    root = tree(f"climb/{name}", lists={"climb_test_split1.txt": name + end})
    (example,) = find_dataset(root).splits["train"]
    assert example.path == str(root / "climb" / name)


def test_folders_one_deeper_as_some_archives_have_them(tree):
    deeper = [f"videos/{name.split('/')[0]}/{name}" for name in files(**CLASSES)]
    assert not any("missing" in note for note in find_dataset(tree(*deeper, lists=split_files(**CLASSES))).notes)


def test_another_split_than_the_lists_have(tree):
    with pytest.raises(UsageError, match=containing("_test_split2.txt")):
        find_dataset(tree(*files(**CLASSES), lists=split_files(**CLASSES)), split=2)


@pytest.mark.parametrize("line", ["a.avi", "a.avi 3", "1", "a.avi x"])
def test_damaged_lines_are_told_with_their_place(tree, line):
    root = tree("walk/a.avi", lists={"walk_test_split1.txt": f"b.avi 1\n{line}\n"})
    with pytest.raises(UsageError, match=containing("walk_test_split1.txt, line 2")):
        find_dataset(root)


def test_a_file_in_the_lists_of_two_classes(tree):
    lists = {"walk_test_split1.txt": "a.avi 1", "run_test_split1.txt": "a.avi 1"}
    with pytest.raises(UsageError, match=containing("walk/a.avi (run, walk)")):
        find_dataset(tree("walk/a.avi", lists=lists))


def test_a_misspelt_folder(tree):
    root = tree(*(name.replace("walk/", "wlak/") for name in files(**CLASSES)), lists=split_files(**CLASSES))
    dataset = find_dataset(root)
    assert "folder wlak: no such class; did you mean walk?" in dataset.notes
    assert not any("missing" in note for note in dataset.notes)


def test_a_class_folder_of_another_spelling_is_no_problem(tree):
    root = tree(*(name.replace("sword_exercise/", "Sword Exercise/") for name in files(**CLASSES)))
    tree(lists=split_files(**CLASSES))
    assert not any("no such class" in note for note in find_dataset(root).notes)
