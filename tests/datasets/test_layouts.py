"""Every layout that is read, or refused, made of empty files; the page on datasets has the tables of the code."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.matching import containing
from vadis.datasets import DATASETS, find_dataset
from vadis.datasets.lists import LIST_FORMS
from vadis.datasets.scan import PACKED
from vadis.errors import UsageError

K400 = [
    f"{label}/{name}.mp4" for label in ("abseiling", "arm_wrestling") for name in (f"{label[:2]}1", f"{label[:2]}2")
]
PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"
CLASSES, TWO = "classes.txt", "abseiling\narm_wrestling\n"


def under(folder, names):
    return [f"{folder}/{name}" for name in names]


def lines(names, number=None, separator=" "):
    """One line for each name: the path, and its class by number or by name."""
    labels = sorted({name.rpartition("/")[0].rpartition("/")[2] for name in names})
    return "".join(
        f"{name}{separator}{labels.index(label) + number if number is not None else label}\n"
        for name in names
        for label in [name.rpartition("/")[0].rpartition("/")[2]]
    )


def shown(dataset):
    """Split → path below the root → label, the validation part that is made of training put back."""
    splits = {
        split: {str(Path(each.path).relative_to(dataset.root)): each.label for each in examples}
        for split, examples in dataset.splits.items()
    }
    if any("are for validation" in note for note in dataset.notes):
        splits["train"] = splits.get("train", {}) | splits.pop("val", {})
    return splits


def by_folder(names):
    return {name: name.rpartition("/")[0].rpartition("/")[2] for name in names}


TRAIN, VAL, TEST = under("train", K400), under("val", K400), under("test", K400)
PATTERN = [("train", TRAIN), ("val", VAL)]
FLAT = [name.rpartition("/")[2] for name in K400]
EXPECTED = {"train": by_folder(TRAIN), "val": by_folder(VAL)}
BARE = {"train": by_folder(K400)}


FOLDERS = {
    "split/class": ([*TRAIN, *VAL, *TEST], {**EXPECTED, "test": by_folder(TEST)}),
    "mmaction2": (
        [*under("videos_train", K400), *under("videos_val", K400)],
        {"train": by_folder(under("videos_train", K400)), "val": by_folder(under("videos_val", K400))},
    ),
    "non-local": (
        [*under("train_256", K400), *under("val_256", K400)],
        {"train": by_folder(under("train_256", K400)), "val": by_folder(under("val_256", K400))},
    ),
    "capitals": (
        [*under("Train", K400), *under("VAL", K400), *under("Testing", K400)],
        {
            "train": by_folder(under("Train", K400)),
            "val": by_folder(under("VAL", K400)),
            "test": by_folder(under("Testing", K400)),
        },
    ),
    "words written as one": (
        [*under("TrainingData", K400), *under("ValidationSet", K400), *under("testing_videos", K400)],
        {
            "train": by_folder(under("TrainingData", K400)),
            "val": by_folder(under("ValidationSet", K400)),
            "test": by_folder(under("testing_videos", K400)),
        },
    ),
    "below a folder of any name": (
        [*under("k400/train", K400), *under("k400/val", K400)],
        {"train": by_folder(under("k400/train", K400)), "val": by_folder(under("k400/val", K400))},
    ),
    "below containers": ([*under("data/videos/train", K400)], {"train": by_folder(under("data/videos/train", K400))}),
    "class": (K400, BARE),
    "class below a container": (under("videos", K400), {"train": by_folder(under("videos", K400))}),
    "groups in classes": (
        ["a/g01/1.mp4", "a/g02/2.mp4", "b/g03/1.mp4"],
        {
            "train": {
                f"{label}/{name}": label for label, name in (("a", "g01/1.mp4"), ("a", "g02/2.mp4"), ("b", "g03/1.mp4"))
            }
        },
    ),
    "train without a test": (TRAIN, {"train": by_folder(TRAIN)}),
    "training and dev": (
        [*under("training", K400), *under("dev", K400), *under("evaluation", K400)],
        {
            "train": by_folder(under("training", K400)),
            "val": by_folder(under("dev", K400)),
            "test": by_folder(under("evaluation", K400)),
        },
    ),
    "classes with words of splits in them": (
        ["train wreck/1.mp4", "test tube/2.mp4", "training dog/3.mp4"],
        {
            "train": {
                "train wreck/1.mp4": "train wreck",
                "test tube/2.mp4": "test tube",
                "training dog/3.mp4": "training dog",
            }
        },
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders(tree, name):
    names, expected = FOLDERS[name]
    assert shown(find_dataset(tree(*names))) == expected


AMBIGUOUS = {
    "splits in classes": [f"{label}/{split}/1.mp4" for label in "ab" for split in ("train", "test")],
    "videos right in split folders": ["train/1.mp4", "train/2.mp4", "val/3.mp4"],
    "a split folder beside class folders": [*K400, "test/1.mp4"],
    "two folders of one split": [*TRAIN, *under("train_256", K400), *VAL],
    "two datasets": [*under("a/train", K400), *under("b/train", K400)],
    "one class too deep": [*under("session1", K400), *under("session2", K400)],
    "one class too deep, in splits": [*under("train/part1", K400), *under("train/part2", K400)],
    "splits with a name before them": ["sthv2_train/1.mp4", "sthv2_train/2.mp4", "sthv2_val/3.mp4"],
    "splits with a name behind them": ["train_v2/a/1.mp4", "train_v2/b/2.mp4", "val_v2/a/3.mp4"],
    "a split that is none of the three": [*under("trainval", K400), *under("holdout", K400)],
    "a container among classes": [*under("videos", K400), "extras/1.mp4"],
    "classes with splits, and some without": ["a/train/1.mp4", "a/test/2.mp4", "b/1.mp4", "c/train/1.mp4"],
    "splits deep in classes": ["a/x/train/1.mp4", "a/x/test/2.mp4", "b/y/train/1.mp4", "b/y/test/2.mp4"],
    "splits in splits": ["train/a/test/1.mp4", "train/b/train/2.mp4"],
    "one folder": ["mine/run/1.mp4", "mine/walk/1.mp4"],
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused(tree, name):
    with pytest.raises(UsageError) as caught:
        find_dataset(tree(*AMBIGUOUS[name]), "folder")
    assert caught.value.hint


CSV = "path,label\n" + lines(K400, separator=",")
LISTS = {
    "header": (K400, {"list.csv": CSV}, BARE),
    "header with quotes, blanks and Windows' line ends": (
        ["a b/1, 2.mp4", "c/3.mp4"],
        {"list.csv": '\ufeff"path", "label"\r\n"a b/1, 2.mp4", "wave, both hands"\r\n\r\nc\\3.mp4,run\r\n'},
        {"train": {"a b/1, 2.mp4": "wave, both hands", "c/3.mp4": "run"}},
    ),
    "metadata.csv in the split's folder": (
        [*under("train", FLAT), *under("test", FLAT)],
        {
            f"{split}/metadata.csv": "file_name,label\n" + "".join(f"{name},{name[:2]}\n" for name in FLAT)
            for split in ("train", "test")
        },
        {split: {f"{split}/{name}": name[:2] for name in FLAT} for split in ("train", "test")},
    ),
    "metadata.csv above the split folders": (
        [*under("train", FLAT), *under("validation", FLAT)],
        {
            "metadata.csv": "file_name,label\n"
            + "".join(f"{split}/{name},{name[:2]}\n" for split in ("train", "validation") for name in FLAT)
        },
        {
            "train": {f"train/{name}": name[:2] for name in FLAT},
            "val": {f"validation/{name}": name[:2] for name in FLAT},
        },
    ),
    "jsonl": (
        FLAT,
        {"metadata.jsonl": "".join(f'{{"file_name": "{name}", "label": "{name[:2]}", "fps": 25}}\n' for name in FLAT)},
        {"train": {name: name[:2] for name in FLAT}},
    ),
    "jsonl in the split's folder": (
        [*under("train", FLAT), *under("test", FLAT)],
        {
            f"{split}/metadata.jsonl": "".join(f'{{"file_name": "{name}", "label": "{name[:2]}"}}\n' for name in FLAT)
            for split in ("train", "test")
        },
        {split: {f"{split}/{name}": name[:2] for name in FLAT} for split in ("train", "test")},
    ),
    "Kaggle's UCF-101": (
        [*TRAIN, *TEST],
        {
            f"{split}.csv": "clip_name,clip_path,label\n"
            + "".join(f"{name[:-4].rpartition('/')[2]},/{split}/{name},{name.partition('/')[0]}\n" for name in K400)
            for split in ("train", "test")
        },
        {"train": by_folder(TRAIN), "test": by_folder(TEST)},
    ),
    "Keras' video_name and tag": (
        [*under("train", FLAT), *under("test", FLAT)],
        {
            f"{split}.csv": "video_name,tag\n" + "".join(f"{name},{name[:2]}\n" for name in FLAT)
            for split in ("train", "test")
        },
        {split: {f"{split}/{name}": name[:2] for name in FLAT} for split in ("train", "test")},
    ),
    "line with a comma": (K400, {"train.csv": lines(K400, separator=",")}, BARE),
    "line with a comma and quotes": (
        ["a b/1, 2.mp4", "c/3.mp4"],
        {"train.csv": '"a b/1, 2.mp4", "wave, both hands"\n"c/3.mp4",run\n'},
        {"train": {"a b/1, 2.mp4": "wave, both hands", "c/3.mp4": "run"}},
    ),
    "line with a tab": (K400, {"train.tsv": lines(K400, separator="\t")}, BARE),
    "line with a semicolon": (K400, {"train.txt": lines(K400, separator=";")}, BARE),
    "line with blanks, two of them, names with blanks": (
        ["my clips/a b.mp4", "my clips/c.mp4"],
        {"train.csv": "my clips/a b.mp4  arm wrestling\nmy clips/c.mp4  run\n"},
        {"train": {"my clips/a b.mp4": "arm wrestling", "my clips/c.mp4": "run"}},
    ),
    "mmaction2, numbers, a class list": (
        [*under("videos_train", K400), *under("videos_val", K400)],
        {
            "kinetics400_train_list_videos.txt": lines(K400, 0),
            "kinetics400_val_list_videos.txt": lines(K400, 0),
            "label_map_k400.txt": "abseiling\narm wrestling\n",
        },
        {
            split: {f"videos_{split}/{name}": name.partition("/")[0].replace("_", " ") for name in K400}
            for split in ("train", "val")
        },
    ),
    "PySlowFast, absolute paths of another machine": (
        [*TRAIN, *VAL],
        {
            "train.csv": lines(under("/mnt/ssd/k400/train", K400), 0),
            "val.csv": lines(under("/mnt/ssd/k400/val", K400), 0),
            "kinetics_classnames.json": '{"\\"abseiling\\"": 0, "arm_wrestling": 1}',
        },
        EXPECTED,
    ),
    "absolute paths of another machine, in a folder of another name": (
        under("videos", FLAT),
        {"train.csv": "".join(f"/mnt/ssd/20bn/{name} {name[:2]}\n" for name in FLAT)},
        {"train": {f"videos/{name}": name[:2] for name in FLAT}},
    ),
    "deeper, in folders that say nothing else": (
        under("data/train", FLAT),
        {"data/train/metadata.csv": "file_name,label\n" + "".join(f"{name},{name[:2]}\n" for name in FLAT)},
        {"train": {f"data/train/{name}": name[:2] for name in FLAT}},
    ),
    "Something-Something's class list": (
        under("videos", FLAT),
        {
            "train.csv": "".join(f"{name} {index % 2}\n" for index, name in enumerate(FLAT)),
            "annotations/something-something-v2-labels.json": '{"Pushing it": "0", "Pulling it, hard": "1"}',
        },
        {"train": {f"videos/{name}": ("Pushing it", "Pulling it, hard")[i % 2] for i, name in enumerate(FLAT)}},
    ),
    "in a folder of annotations, relative to a folder of videos": (
        under("videos", K400),
        {"annotations/train.txt": lines(K400, 1), "annotations/classInd.txt": "1 abseiling\r\n2 arm_wrestling\r\n"},
        {"train": by_folder(under("videos", K400))},
    ),
    "no ending": (
        K400,
        {"train.csv": lines([name[:-4] for name in K400], 0), "classes.csv": "id,name\n0,abseiling\n1,arm_wrestling\n"},
        BARE,
    ),
    "another ending": (K400, {"train.txt": lines([name.replace(".mp4", ".avi") for name in K400])}, BARE),
    "path alone": ([*K400, "x/9.mp4"], {"trainlist.txt": "".join(f"{name}\n" for name in K400)}, BARE),
    "the same list for validation and test": (
        [*TRAIN, *VAL],
        {"train.csv": lines(TRAIN), "val.csv": lines(VAL), "test.csv": lines(VAL)},
        EXPECTED,
    ),
    "names alone, of videos in class folders": (
        under("all", K400),
        {"train.csv": "file,class\n" + "".join(f"{name.rpartition('/')[2]},{name[:3]}\n" for name in K400)},
        {"train": {f"all/{name}": name[:3] for name in K400}},
    ),
    "splits in names with other words": (
        K400,
        {"sthv2_train.txt": lines(K400[::2]), "sthv2_val.txt": lines(K400[1::2])},
        {"train": by_folder(K400[::2]), "val": by_folder(K400[1::2])},
    ),
    "splits in names of tables with other words": (
        K400,
        {
            f"{split}_final.csv": "path,label\n" + lines(names, separator=",")
            for split, names in (("train", K400[::2]), ("test", K400[1::2]))
        },
        {"train": by_folder(K400[::2]), "test": by_folder(K400[1::2])},
    ),
    "a duplicate line": (K400, {"train.txt": lines([*K400, K400[0]])}, BARE),
    "UTF-16": (K400, {"list.csv": CSV}, BARE),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists(tree, name):
    names, lists, expected = LISTS[name]
    root = tree(*names, lists=lists)
    if name == "UTF-16":
        (root / "list.csv").write_bytes(lists["list.csv"].encode("utf-16"))
    assert shown(find_dataset(root)) == expected


def test_files_of_equal_names_in_many_classes_on_another_machine(tree):
    names = [f"videos/train/c{label:03}/{number:04}.mp4" for label in range(100) for number in range(2)]
    absolute = [name.replace("videos/train/", "D:\\k400\\").replace("/", "\\") for name in names]
    text = "".join(f"{written}\t{name.split('/')[2]}\n" for written, name in zip(absolute, names, strict=True))
    assert shown(find_dataset(tree(*names, lists={"train.txt": text}))) == {"train": by_folder(names)}


def test_a_missing_video_is_not_found_in_the_folder_of_another_split_or_class(tree):
    lists = {f"{split}.csv": lines(under(f"/mnt/ssd/k400/{split}", K400)) for split in ("train", "val")}
    dataset = find_dataset(tree(*TRAIN, *VAL[1:], "val/zumba/ab1.mp4", lists=lists), allow_missing=1.0)
    assert shown(dataset) == {"train": by_folder(TRAIN), "val": by_folder(VAL[1:])}


def test_results_of_classify_are_no_list(tree):
    text = '{"path": "a.mp4", "labels": [{"label": "x"}]}\n{"path":"b.mp4","labels":[{"label":"x"}]}\n'
    assert shown(find_dataset(tree(*K400, lists={"results.jsonl": text, "train.jsonl": text}))) == BARE


def test_a_column_that_holds_splits(tree):
    text = "path,label,set\n" + "".join(f"{name},{name[:3]},{('train', 'TEST')['2' in name]}\n" for name in K400)
    assert {split: len(each) for split, each in shown(find_dataset(tree(*K400, lists={"a.csv": text}))).items()} == {
        "train": 2,
        "test": 2,
    }


@pytest.mark.parametrize("is_absolute", [True, False])
def test_paths_that_lead_out_of_the_folder_mean_the_files_there(tree, tmp_path, is_absolute):
    outside = [tmp_path / "full" / name for name in K400]
    for path in outside:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    text = lines([str(path) if is_absolute else f"../full/{path.relative_to(tmp_path / 'full')}" for path in outside])
    dataset = find_dataset(tree(*K400, lists={"train.txt": text}))
    paths = {each.path for examples in dataset.splits.values() for each in examples}
    assert paths == set(map(str, outside))


CLASS_LISTS = {
    "names": ("classes.txt", "run\nwalk\n"),
    "a heading": ("classes.csv", "name\nrun\nwalk\n"),
    "numbers before": ("label_map.txt", "0 run\n1 walk\n"),
    "numbers behind": ("labels.txt", "run 0\nwalk 1\n"),
    "any order": ("classes.tsv", "1\twalk\n0\trun\n"),
    "a table": ("class_names.csv", "class_id;class_name\r\n1;walk\r\n0;run\r\n"),
    "quotes": ("categories.txt", '"run"\n"walk"\n'),
    "JSON": ("classes.json", '["run", "walk"]'),
    "JSON, id2label": ("config_labels.json", '{"id2label": {"0": "run", "1": "walk"}, "x": 3}'),
}


@pytest.mark.parametrize("name", CLASS_LISTS)
def test_class_lists(tree, name):
    path, content = CLASS_LISTS[name]
    root = tree("v/1.mp4", "v/2.mp4", lists={path: content, "train.txt": "v/1.mp4 0\nv/2.mp4 1\n"})
    assert shown(find_dataset(root)) == {"train": {"v/1.mp4": "run", "v/2.mp4": "walk"}}
    assert find_dataset(root / "train.txt").classes == ("run", "walk")


def test_names_that_end_in_numbers(tree):
    lists = {"classes.txt": "gesture 1\ngesture 2\n", "train.txt": "v/1.mp4 0\nv/2.mp4 1\n"}
    assert find_dataset(tree("v/1.mp4", "v/2.mp4", lists=lists)).classes == ("gesture 1", "gesture 2")


def test_classes_of_a_list_that_differ_only_in_spelling_are_told(tree):
    text = "".join(f"{name} {name[:3]}\n" for name in K400) + "x.mp4 ABS\n"
    notes = find_dataset(tree(*K400, "x.mp4", lists={"train.txt": text})).notes
    assert any("ABS and abs" in note or "abs and ABS" in note for note in notes)


def test_one_name_in_two_splits(tree):
    root = tree("train/run/clip.mp4", "train/walk/other.mp4", "test/walk/mine.mp4", "val/run/clip.mp4")
    assert any("run/clip.mp4" in note for note in find_dataset(root).notes)


@pytest.mark.parametrize("content", ["", "path\n1.mp4\n", "whatever\n"])
def test_a_list_that_is_not_read_is_told(tree, content):
    dataset = find_dataset(tree(*TRAIN, lists={"test.csv": content}))
    assert shown(dataset) == {"train": by_folder(TRAIN)}
    assert any("test.csv" in note for note in dataset.notes)


REFUSED_LISTS = {
    "numbers that nothing explains": (["v/1.mp4", "v/2.mp4"], {"train.txt": "v/1.mp4 0\nv/2.mp4 1\n"}, "line 1"),
    "numbers with a header": (["1.mp4", "2.mp4"], {"list.csv": "path,label\n1.mp4,0\n2.mp4,1\n"}, "line 2"),
    "a number beyond the class list": (
        K400,
        {"train.txt": lines(K400, 1), CLASSES: "abseiling\narm_wrestling\n"},
        "class 2",
    ),
    "numbers that count otherwise": (
        [*K400, "zumba/1.mp4"],
        {"train.txt": lines([*K400, "zumba/1.mp4"], 0), CLASSES: "0 arm_wrestling\n1 zumba\n2 abseiling\n"},
        ".mp4 (",
    ),
    "no label": (K400, {"train.txt": "".join(f"{name} -1\n" for name in K400)}, "line 1"),
    "a start and an end": (K400, {"train.txt": "".join(f"{name} 0 100 3\n" for name in K400)}, "0 100 3"),
    "several labels": (K400, {"train.csv": "".join(f"{name},1,3\n" for name in K400)}, "1,3"),
    "a comma in a label": (K400, {"train.csv": "".join(f"{name},wave, both\n" for name in K400)}, "wave, both"),
    "columns of times": (K400, {"list.csv": "path,start,end,label\n" + f"{K400[0]},0,1,a\n"}, "list.csv"),
    "what a model said": (
        K400,
        {"results.csv": "path,start,end,rank,label,score\n" + f"{K400[0]},0,1,1,a,0.5\n"},
        "score",
    ),
    "two columns that may be the label": (
        K400,
        {"list.csv": "path,category,action\n" + f"{K400[0]},a,b\n"},
        "category",
    ),
    "a name that the class list lacks": (
        K400,
        {"train.txt": lines(K400), CLASSES: "abseiling\narm wrestlin\n"},
        "arm_wrestling",
    ),
    "two class lists": (
        K400,
        {
            "train.txt": lines(K400, 0),
            CLASSES: "abseiling\narm_wrestling\n",
            "labels.txt": "arm_wrestling\nabseiling\n",
        },
        "labels.txt",
    ),
    "labels named as splits": (
        K400,
        {"list.csv": "path,label\n" + "".join(f"{name},test\n" for name in K400)},
        "test",
    ),
    "one video in two splits": (K400, {"train.txt": lines(K400), "val.txt": lines(K400[:1])}, "(train, val)"),
    "videos in several places": (
        [*under("a", K400), *under("b", K400)],
        {"train.txt": lines(K400)},
        "train.txt",
    ),
    "two endings": (["x/1.mp4", "x/1.avi", "y/2.mp4"], {"train.txt": "x/1 a\ny/2 b\n"}, "x/1.avi"),
    "a list of more than one split": (K400, {"train_val.txt": lines(K400)}, "train_val.txt"),
    "a table of more than one split": (
        K400,
        {"mine_trainval.csv": "path,label\n" + lines(K400, separator=",")},
        "mine_trainval.csv",
    ),
    "a comment": (K400, {"train.txt": "# mine\n" + lines(K400)}, "line 1"),
    "columns that nobody knows": (K400, {"train.csv": "vid,cls\n" + lines(K400, separator=",")}, "line 1"),
    "a header and no more": (K400, {"train.csv": "path,label\n"}, "train.csv"),
    "names that cannot be": (K400, {"train.txt": f"{'x' * 300}.mp4 run\n{'y' * 300}.mp4 walk\n"}, "2"),
    "none of the files": (K400, {"train.txt": lines(["q/no.mp4", "r/not.mp4"])}, "2"),
    "a list of frames": (
        ["abseiling/1.mp4", "zumba/2.mp4"],
        {"train.txt": "abseiling/1.mp4 300 0\nzumba/2.mp4 250 1\n"},
        "train.txt",
    ),
}


@pytest.mark.parametrize("name", REFUSED_LISTS)
def test_lists_that_cannot_be_read_for_sure_are_refused(tree, name):
    names, lists, fact = REFUSED_LISTS[name]
    with pytest.raises(UsageError, match=containing(fact)) as caught:
        find_dataset(tree(*names, lists=lists))
    assert caught.value.hint


def test_captions_beside_videos_are_not_opened(tree, monkeypatch):
    names = [f"train/{label}/{number}.mp4" for label in "ab" for number in range(20)]
    root = tree(*names, lists={name.replace(".mp4", ".txt"): "train 1\n" for name in names})
    opened = []

    def noting(path, *arguments, **options):
        opened.append(path)
        return open(path, *arguments, **options)

    monkeypatch.setattr("vadis.datasets.lists.open", noting, raising=False)
    assert shown(find_dataset(root)) == {"train": by_folder(names)}
    assert opened == []


# Kinetics

CLIP, OTHER = "0wR5jVB-WPk_000417_000427", "--6bJUbfpnQ_000017_000027"
KINETICS_LISTS = {
    "CVDF": {"annotations/train.csv": "label,youtube_id,time_start,time_end,split\na b,0wR5jVB-WPk,417,427,train\n"},
    "CVDF's text": {"train.txt": "label,youtube_id,time_start,time_end,split\na b,0wR5jVB-WPk,417,427,train\n"},
    "tabs": {"train.tsv": "label\tyoutube_id\ttime_start\ttime_end\na b\t0wR5jVB-WPk\t417\t427\n"},
    "no header": {"annotations/train.txt": '"a b",0wR5jVB-WPk,417,427,train\r\n'},
    "blanks": {"k600_train.txt": "0wR5jVB-WPk 417 427 a b\n"},
    "blanks and the split": {"train.txt": "a b\t0wR5jVB-WPk\t417.0\t427.0\ttrain\t1\n"},
    "class and clip": {"train.txt": f"a b/{CLIP}.mp4\n"},
    "clip and class": {"k600_train.txt": f"{CLIP}.mp4 a b\n"},
    "clip, comma, class": {"train.txt": f"{CLIP},a b\n"},
}


@pytest.mark.parametrize("name", KINETICS_LISTS)
@pytest.mark.parametrize("file", [f"train/{CLIP}.mp4", f"train/a b/{CLIP}.mkv", "a_b/0wR5jVB-WPk_417_427.mp4"])
def test_lists_of_kinetics(tree, name, file):
    dataset = find_dataset(tree(file, lists=KINETICS_LISTS[name]))
    assert (dataset.name, shown(dataset)) == ("kinetics", {"train": {file: "a b"}})


@pytest.mark.parametrize(
    ("name", "splits"),
    [("k400-val2.csv", ["val"]), ("kinetics_600_holdout_test.csv", ["test"]), ("kinetics_train_val.csv", None)],
)
def test_the_split_in_the_name_of_a_list_of_kinetics(tree, name, splits):
    root = tree(f"{CLIP}.mp4", lists={name: "label,youtube_id,time_start,time_end\na b,0wR5jVB-WPk,417,427\n"})
    if splits is not None:
        assert list(find_dataset(root).splits) == splits
        return
    with pytest.raises(UsageError, match=containing(name)):
        find_dataset(root)


def test_a_damaged_line_far_down_in_a_list_of_kinetics(tree):
    text = "".join(f"a b,{number:011},0,10,train\n" for number in range(100)) + "a b\n"
    with pytest.raises(UsageError, match=containing("train.txt")):
        find_dataset(tree(f"{7:011}_000000_000010.mp4", lists={"train.txt": text}))


@pytest.mark.parametrize("replaced", [f"{CLIP}.mp4", "0wR5jVB-WPk.mp4", "0wR5jVB-WPk_000000_000010.mp4"])
def test_replacements_of_kinetics_win(tree, replaced):
    place = f"replacement/replacement_for_corrupted_k400/{replaced}"
    names = [f"aaa/{CLIP}.mp4", place, f"videos/train/a b/{CLIP}.mp4"]
    dataset = find_dataset(tree(*names, lists=KINETICS_LISTS["CVDF"]))
    assert shown(dataset) == {"train": {place: "a b"}}
    assert dataset.splits["train"][0].start_seconds is None
    assert f"more than once, used once: 2 files: {names[2]}, {names[0]}" in dataset.notes


def test_a_file_named_by_its_id_may_be_trimmed_only_if_one_clip_of_it_is_listed(tree):
    text = "label,youtube_id,time_start,time_end,split\nx,0wR5jVB-WPk,417,427,train\ny,--6bJUbfpnQ,17,27,train\n"
    names = ["0wR5jVB-WPk.mp4", "--6bJUbfpnQ.mp4"]
    one, other = find_dataset(tree(*names, lists={"train.csv": text})).splits["train"]
    assert one.may_be_trimmed and other.may_be_trimmed
    more = text + "x,--6bJUbfpnQ,40,50,train\n"
    assert [each.may_be_trimmed for each in find_dataset(tree(lists={"train.csv": more})).splits["train"]] == [
        True,
        False,
        False,
    ]


# What has to be unpacked first

PACKED_FILES = {
    "rar": ["brush_hair.rar", "cartwheel.rar"],
    "zip": ["UCF-101.zip"],
    "parquet": ["data/train-00000-of-00008.parquet"],
    "class archive": ["k600/train/abseiling.tar.gz"],
    "shards": ["train-000000.tar", "train-000001.tar"],
    "tar": ["k400_targz/train/part_0.tar.gz"],
    "frames": [
        "run/clip1/img_00001.jpg",
        "run/clip1/img_00002.jpg",
        "run/clip1/flow_x_00001.jpg",
        "walk/clip2/img_00001.jpg",
    ],
    "other": ["all.hdf5"],
}


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("dataset", [None, "hmdb51", "folder"])
def test_packed_videos_are_named_with_what_unpacks_them(tree, name, dataset):
    root = tree(*PACKED_FILES[name])
    with pytest.raises(UsageError) as caught:
        find_dataset(root, dataset)
    assert PACKED_FILES[name][0] in caught.value.message
    assert ("unpack" in caught.value.hint) == bool(PACKED[name][1])


def test_archives_beside_videos_are_told(tree):
    root = tree("run/1.mp4", "walk/2.mp4", "jump.rar", "run/preview.jpg")
    assert any("jump.rar" in note for note in find_dataset(root).notes)


def hint_after_failure(root):
    with pytest.raises(UsageError) as caught:
        find_dataset(root)
    return caught.value.hint.partition("unpack them: ")[2].partition("; again")[0]


def test_the_commands_unpack(tree, tmp_path):
    """Those of which the programs are part of any system."""
    root = tree("source/a/1.mp4")
    (root / "train").mkdir()
    for label in ("abseiling", "air drumming"):
        subprocess.run(["tar", "-czf", root / "train" / f"{label}.tar.gz", "1.mp4"], cwd=root / "source/a", check=True)
    shutil.rmtree(root / "source")
    subprocess.run(["sh", "-c", hint_after_failure(root)], check=True)
    assert find_dataset(root).classes == ("abseiling", "air drumming")

    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(2):
        for ending, content in ((".mp4", ""), (".cls", str(number))):
            (tmp_path / f"{number:04}{ending}").write_text(content)
        names = [f"{number:04}.mp4", f"{number:04}.cls"]
        subprocess.run(["tar", "-cf", shards / f"train-{number:06}.tar", *names], cwd=tmp_path, check=True)
    subprocess.run(["sh", "-c", hint_after_failure(shards)], check=True)
    (shards / "classes.txt").write_text("one\ntwo\n")
    assert shown(find_dataset(shards)) == {"train": {"train/0000.mp4": "one", "train/0001.mp4": "two"}}


@pytest.mark.parametrize("table", [LIST_FORMS, PACKED], ids=["lists", "packed"])
def test_the_page_has_a_row_for_each_of_the_tables(table):
    assert all(f"\n| {name} | `" in PAGE.read_text() for name in table)


def test_the_page_has_every_dataset():
    text = PAGE.read_text()
    assert all(f"| `{name}` | {kind.summary} |" in text for name, kind in DATASETS.items())


def test_every_row_of_the_tables_is_made_here():
    assert set(PACKED) == set(PACKED_FILES)
    assert all(any(name in title for title in LISTS) for name in LIST_FORMS)
