import csv
import time
from pathlib import Path

import pytest

from tests.matching import containing
from vadis.datasets import find_dataset
from vadis.datasets.published import clip_lists
from vadis.datasets.scan import scan_tree
from vadis.errors import UsageError
from vadis.weights.catalog import published_labels

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
ROWS = "arm wrestling,-abcdefghi_,17,27,train,0\nyoga,ABCDEFGHIJK,0,10,train,0\nyoga,abcdefghijk,5,15,val,1\n"
FILES = ["arm wrestling/-abcdefghi__000017_000027.mp4", "yoga/ABCDEFGHIJK_000000_000010.mp4"]
VAL_FILE = "yoga/abcdefghijk_000005_000015.mp4"


def rows(facts):
    with (facts / "kinetics" / "kinetics400_val.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def file_name(row):
    return f"{row['youtube_id']}_{int(row['time_start']):06}_{int(row['time_end']):06}.mp4"


@pytest.fixture(scope="module")
def everything(facts, big_tree):
    return big_tree("kinetics", [f"{row['label'].replace(' ', '_')}/{file_name(row)}" for row in rows(facts)])


# The real list


@pytest.mark.slow
def test_all_rows_of_the_validation_list(everything, facts, with_lists):
    start = time.process_time()
    dataset = find_dataset(with_lists(everything, facts / "kinetics"), "kinetics")
    seconds = time.process_time() - start
    examples = dataset.splits["val"]
    assert len(examples) == 19_906
    assert [(example.label, Path(example.path).name) for example in examples] == [
        (row["label"], file_name(row)) for row in rows(facts)
    ]
    assert dataset.classes == published_labels("kinetics400")
    assert dataset.notes == ("299 clips without a label are left out",)  # kinetics400_test_head.csv
    assert seconds < 3  # of processor time, for 20,000 files and their list; measured: 0.2 s


def test_the_head_of_the_test_list_has_no_labels(facts, tree):
    text = (facts / "kinetics" / "kinetics400_test_head.csv").read_text()
    with pytest.raises(UsageError, match=containing("test.csv")):
        find_dataset(tree("a/b.mp4", lists={"test.csv": text}))


# Small trees


def test_labels_with_blanks_or_underscores_flat_or_in_split_folders(tree):
    for number, names in enumerate(
        (
            [*FILES, VAL_FILE],
            [name.replace(" ", "_") for name in [*FILES, VAL_FILE]],
            [name.split("/")[1] for name in [*FILES, VAL_FILE]],
            [f"k400/train/part_1/{name.split('/')[1]}" for name in [*FILES, VAL_FILE]],
            [*(f"train/{name}" for name in FILES), f"val/{VAL_FILE}"],
        )
    ):
        folder = f"{number}/"
        root = tree(*(folder + name for name in names), lists={f"{folder}all.csv": HEADER + ROWS}) / str(number)
        dataset = find_dataset(root)
        assert dataset.name == "kinetics"
        assert [example.label for example in dataset.splits["train"]] == ["arm wrestling", "yoga"]
        assert [example.path for example in dataset.splits["train"]] == [str(root / name) for name in names[:2]]
        assert [example.start_seconds for example in dataset.splits["val"]] == [None]
        assert dataset.notes == ("no example: 1 class: arm wrestling (val)",)


def test_an_uncut_file_gets_the_times(tree):
    root = tree(*FILES, "raw/abcdefghijk.mkv", lists={"all.csv": HEADER + ROWS})
    (example,) = find_dataset(root).splits["val"]
    assert (example.start_seconds, example.end_seconds) == (5.0, 15.0)
    assert example.path.endswith("raw/abcdefghijk.mkv")


def test_the_cut_clip_is_preferred_to_the_uncut_file(tree):
    root = tree(*FILES, VAL_FILE, "raw/abcdefghijk.mkv", lists={"all.csv": HEADER + ROWS})
    (example,) = find_dataset(root).splits["val"]
    assert example.path.endswith(VAL_FILE) and example.start_seconds is None
    assert not any("in no split" in note for note in find_dataset(root).notes)


def test_ids_that_differ_in_case_are_different_files(tree):
    root = tree(*FILES, "yoga/ABCDEFGHIJK_000005_000015.mp4", lists={"all.csv": HEADER + ROWS})
    dataset = find_dataset(root)
    assert "val" not in dataset.splits
    assert "in no split: 1 file: yoga/ABCDEFGHIJK_000005_000015.mp4" in dataset.notes


def test_the_split_is_in_the_name_of_the_list_where_it_has_no_such_column(tree):
    lists = {
        "annotations/kinetics400_train.csv": "label,youtube_id,time_start,time_end\nyoga,ABCDEFGHIJK,0,10\n",
        "annotations/validate.csv": "label,youtube_id,time_start,time_end\nyoga,abcdefghijk,5,15\n",
    }
    dataset = find_dataset(tree(*FILES, VAL_FILE, lists=lists))
    assert {split: len(examples) for split, examples in dataset.splits.items()} == {"train": 1, "val": 1}


def test_a_list_for_validation_called_validate(tree):
    root = tree(*FILES, VAL_FILE, lists={"all.csv": HEADER + ROWS.replace("val", "validate")})
    assert list(find_dataset(root).splits) == ["train", "val"]


def test_a_list_as_spreadsheets_write_it(tree):
    root = tree(*FILES, VAL_FILE, lists={"all.csv": "\ufeff" + (HEADER + ROWS).replace("\n", "\r\n") + "\r\n"})
    assert {split: len(each) for split, each in find_dataset(root).splits.items()} == {"train": 2, "val": 1}


def test_other_classes_than_the_published_are_sorted(tree):
    assert find_dataset(tree(*FILES, lists={"all.csv": HEADER + ROWS})).classes == ("arm wrestling", "yoga")


@pytest.mark.parametrize("name", ["kinetics400", "kinetics600"])
def test_published_classes_keep_the_order_of_the_published_models(tree, name):
    labels = [label.replace("'", "").upper() for label in reversed(published_labels(name))]
    text = "".join(f'"{label}",{number:011},0,10,val,0\n' for number, label in enumerate(labels))
    root = tree(*(f"{number:011}_000000_000010.mp4" for number in range(len(labels))), lists={"val.csv": HEADER + text})
    dataset = find_dataset(root)
    assert dataset.classes == published_labels(name)
    assert [example.label for example in dataset.splits["val"]] == list(reversed(dataset.classes))


def test_a_tenth_missing_is_an_error_and_less_is_told(tree):
    text = "".join(f"yoga,{number:011},0,10,val,0\n" for number in range(100))
    names = [f"yoga/{number:011}_000000_000010.mp4" for number in range(100)]
    root = tree(*names[10:], lists={"val.csv": HEADER + text})
    with pytest.raises(UsageError, match=containing(10, 100, "val", "10.0%")):
        find_dataset(root)
    tree(names[9])
    assert any(note.startswith("9 of the ") for note in find_dataset(root).notes)


def test_contradictions(tree):
    for line, fact in (
        ("arm wrestling,abcdefghijk,5,15,val,0\n", "(yoga, arm wrestling)"),
        ("yoga,abcdefghijk,5,15,train,0\n", "(train, val)"),
        ("yoga,abcdefghijk,5,15,holdout,0\n", "'holdout'"),
        ("yoga,abcdefghijk,five,15,val,0\n", "line 5"),
        ("yoga,abcdefghijk,15,5,val,0\n", "line 5"),
        ("yoga,abcdefghijk,nan,5,val,0\n", "line 5"),
        ("yoga,abcdefghijk\n", "line 5"),
    ):
        root = tree(*FILES, VAL_FILE, lists={"all.csv": HEADER + ROWS + line})
        with pytest.raises(UsageError, match=containing(fact)):
            find_dataset(root)


def test_two_clips_of_one_uncut_file_may_have_two_labels(tree):
    line = "arm wrestling,abcdefghijk,15,25,val,0\n"
    root = tree(*FILES, "abcdefghijk.mp4", lists={"all.csv": HEADER + ROWS + line})
    assert [(each.label, each.start_seconds) for each in find_dataset(root).splits["val"]] == [
        ("yoga", 5.0),
        ("arm wrestling", 15.0),
    ]


def test_a_clip_in_the_folder_of_another_class(tree):
    root = tree(*FILES, VAL_FILE.replace("yoga", "arm_wrestling"), lists={"all.csv": HEADER + ROWS})
    with pytest.raises(UsageError, match="arm_wrestling/abcdefghijk"):
        find_dataset(root)


def test_no_list(tree):
    with pytest.raises(UsageError, match="youtube_id") as caught:
        find_dataset(tree(*FILES), "kinetics")
    assert "github.com/cvdfoundation/kinetics-dataset" in caught.value.hint


def test_tables_of_something_else_are_no_lists(tree):
    assert not clip_lists(
        scan_tree(tree(lists={"a.csv": "name,score\nx,1\n", "b.csv": "", "c.csv": "\0\n", "d.csv": '"'}))
    )
    assert clip_lists(scan_tree(tree(lists={"e.csv": "\ufefflabel,youtube_id,time_start,time_end,split\n"})))
