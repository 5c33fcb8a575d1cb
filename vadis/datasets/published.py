"""The datasets of the paper, by their official lists: UCF-101, HMDB-51 and Kinetics."""

import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from vadis.datasets import lists, scan
from vadis.datasets.dataset import Dataset, ListRow, Request, assemble, check_missing
from vadis.datasets.lists import Rows, read_lines
from vadis.datasets.scan import SPLIT_NAMES, Tree, class_key, name_of, stem_of
from vadis.errors import UsageError
from vadis.results import printable
from vadis.weights.catalog import PUBLISHED_LISTS, published_labels


def _stem_key(path: str) -> str:
    return stem_of(path).casefold()  # whatever the folder, ending and case


# UCF-101: Soomro, Zamir & Shah, "UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild",
# CRCV-TR-12-01, 2012. 13,320 files v_<Class>_g<group>_c<clip>.avi, three splits. The clips of a group come from one
# video, so that a group is never divided between training and test.

UCF101_CLASSES = 101
UCF101_FILES = 13_320
UCF101_COUNTS = {"train": (9_537, 9_586, 9_624), "test": (3_783, 3_734, 3_696)}  # lines of the official lists
UCF101_SOURCE = (
    "UCF101TrainTestSplits-RecognitionTask.zip from https://www.crcv.ucf.edu/data/UCF101.php, or where that fails from "
    "https://huggingface.co/datasets/MichiganNLP/ucf-101"
)
_TEST_GROUPS = {1: range(1, 8), 2: range(8, 15), 3: range(15, 22)}  # what the official lists follow, all 13,320 files
_SPELLINGS = {"HandStandPushups": "HandstandPushups"}  # in file names: in classInd.txt and the folders
_UCF101_NAME = re.compile(r"v_(?P<label>\w+)_g(?P<group>\d+)_c\d+", re.IGNORECASE)
_UCF101_HINT = f"take all lists from {UCF101_SOURCE}"


def is_ucf101(tree: Tree) -> bool:
    """Return whether the official lists are there, or nearly all videos have names of UCF-101 and no other splits."""
    names = (f"trainlist0{split}.txt" for split in _TEST_GROUPS)
    return bool(tree.lists_named(*names)) or lists.is_named(tree, _UCF101_NAME)


def read_ucf101(tree: Tree, request: Request) -> Dataset:
    """Return one split of UCF-101, from its official lists where both are there, else from the files' names."""
    paths = {split: tree.lists_named(f"{split}list0{request.split}.txt") for split in ("train", "test")}
    has_lists, notes = all(paths.values()), list[str]()
    lines, classes = _ucf101_lists(paths, tree) if has_lists else (_ucf101_names(tree, request), ())
    classes = classes or tuple(sorted({line.label for line in lines}, key=str.casefold))  # as in classInd.txt
    if not has_lists:
        notes.append("the split follows from the groups in the files' names: the official lists are not here")
        if len(classes) == UCF101_CLASSES:  # without all of them it may be a part, on purpose
            notes += check_missing("UCF-101", UCF101_FILES - len(lines), UCF101_FILES, request)
    return assemble(tree, request, "ucf101", classes, lines, _stem_key, notes=notes)


def _ucf101_lists(paths: dict[str, list[str]], tree: Tree) -> tuple[list[ListRow], tuple[str, ...]]:
    """Return the lines of both lists, and the classes of ``classInd.txt`` in its order, if it is there."""
    numbers: dict[str, str] = {}
    lines = list[ListRow]()
    for path in tree.lists_named("classind.txt")[:1]:
        for place, line in read_lines(path):
            number, _, label = line.partition(" ")
            if not number.isdecimal() or not label or number in numbers:
                raise UsageError(f"{place} is not a number and a class: {printable(line)}", _UCF101_HINT)
            numbers[number] = label.strip()
    for split, (path, *_) in paths.items():
        for place, line in read_lines(path):  # Class/v_Class_g01_c01.avi [number]
            name, number, *_ = *line.split(maxsplit=1), ""
            label, _, file = name.rpartition("/")
            is_known = label in numbers.values() and (not number or numbers.get(number) == label)
            if not label or (numbers and not is_known):
                message = f"{place} is not a file in the folder of its class as in classInd.txt: {printable(line)}"
                raise UsageError(message, _UCF101_HINT)
            lines.append(ListRow(name, label, split, file.rpartition(".")[0].casefold()))
    return lines, tuple(numbers.values())


def _ucf101_names(tree: Tree, request: Request) -> list[ListRow]:
    matches = {path: match for path in tree.videos if (match := _UCF101_NAME.fullmatch(stem_of(path)))}
    if not matches:
        message = f"no file under {printable(tree.root)} is named v_<Class>_g<group>_c<clip>, as in UCF-101"
        raise UsageError(message, f"add {UCF101_SOURCE}; or read class folders of your own as the dataset 'folder'")
    spellings: dict[str, str] = {}  # by the key of each class
    lines: dict[str, ListRow] = {}
    for path, match in matches.items():
        label = match["label"]
        label = spellings.setdefault(class_key(label), _SPELLINGS.get(label, label))
        split = "test" if int(match["group"]) in _TEST_GROUPS[request.split] else "train"
        lines[_stem_key(path)] = ListRow(match[0], label, split, _stem_key(path))
    return list(lines.values())


# HMDB-51: Kuehne, Jhuang, Garrote, Poggio & Serre, "HMDB: A large video database for human motion recognition", ICCV
# 2011. 6,766 files in 51 class folders, three splits of 70 training and 30 test clips for each class, which follow from
# nothing but their lists: <class>_test_split<N>.txt with lines "name.avi 0|1|2".

HMDB51_CLASSES = 51
HMDB51_COUNTS = {"train": (3_570,) * 3, "test": (1_530,) * 3}  # 70 and 30 files of each class
HMDB51_SOURCE = (
    "test_train_splits.rar from https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/, or "
    "where that fails test_train_splits.zip from https://huggingface.co/datasets/MichiganNLP/hmdb"
)
_HMDB51_LIST = re.compile(r"(?P<label>.+)_test_split(?P<split>[123])\.txt")
# Visible body parts, camera motion, number of people, viewpoint, quality, number: after the title and the class.
_HMDB51_NAME = re.compile(r".+_[fhul]_(cm|nm)_np\w+_(ba|fr|le|ri)_(bad|goo|med)_\d+")
_HMDB51_SPLITS = {"1": "train", "2": "test", "0": ""}


def is_hmdb51(tree: Tree) -> bool:
    """Return whether the official lists are there, or nearly all videos have names of HMDB-51 and no other splits."""
    return any(_HMDB51_LIST.fullmatch(name_of(path)) for path in tree.lists) or lists.is_named(tree, _HMDB51_NAME)


def read_hmdb51(tree: Tree, request: Request) -> Dataset:
    """Return one split of HMDB-51; classes in alphabetical order, as there is no official numbering."""
    matches = ((path, _HMDB51_LIST.fullmatch(name_of(path))) for path in reversed(tree.lists))
    paths = {match["label"]: path for path, match in matches if match and int(match["split"]) == request.split}
    if not paths:
        message = f"no <class>_test_split{request.split}.txt of HMDB-51 under {printable(tree.root)}"
        hint = f"unpack {HMDB51_SOURCE} in it, or name the folder of the lists; to divide the class folders without "
        raise UsageError(message, hint + "regard to them, read it as the dataset 'folder'")
    lines: list[ListRow] = []
    for label, path in sorted(paths.items()):
        for place, line in read_lines(path):
            name, *flags = line.rsplit(maxsplit=1)
            split = _HMDB51_SPLITS.get("".join(flags))
            if split is None:
                message = f"{place} is not a file and 0, 1 or 2: {printable(line)}"
                raise UsageError(message, f"take it from {HMDB51_SOURCE}")
            lines.append(ListRow(f"{label}/{name}", label, split, name.rpartition(".")[0].casefold()))
    part = f"{len(paths)} of the {HMDB51_CLASSES} classes of HMDB-51 have a list"
    notes = [part] if len(paths) != HMDB51_CLASSES else []
    return assemble(tree, request, "hmdb51", tuple(sorted(paths)), lines, _stem_key, notes=notes)


# Kinetics-400, -600 and -700: Kay et al., "The Kinetics Human Action Video Dataset", 2017; Carreira et al., "A Short
# Note about Kinetics-600", 2018. YouTube clips, of which everybody has a different part. A list has the columns label,
# youtube_id, time_start, time_end, split[, is_cc], times in seconds of the YouTube video; without that header the
# columns are these in this order; or it has the names of clips with their classes (CLIP_LISTS). A clip is a file
# <id>_<start>_<end> (six digits each) in whatever folder; a file <id> is the whole YouTube video, of which the clip is
# [time_start, time_end), or the clip itself, as its length tells (Example.span). A file in a folder replacement* counts
# before any other of the same clip.

KINETICS_SOURCE = (
    "train.csv, val.csv and test.csv from https://github.com/cvdfoundation/kinetics-dataset, or those in "
    "https://storage.googleapis.com/deepmind-media/Datasets/kinetics400.tar.gz (or kinetics600, kinetics700_2020)"
)
_KINETICS_HINT = f"take the line out, or the list from {KINETICS_SOURCE}"
_COLUMNS = {"youtube_id", "time_start", "time_end"}
_TIMES = r"(?P<youtube_id>[\w-]{11})[\s,;]+(?P<time_start>\d+(?:\.\d+)?)[\s,;]+(?P<time_end>\d+(?:\.\d+)?)"
_SPLIT = rf"(?:[\s,;]+(?P<split>{'|'.join(SPLIT_NAMES)}))?(?:[\s,;]+\d)?"  # and whether it is under CC
_NAME = r"(?P<youtube_id>[\w-]{11})_(?P<time_start>\d{1,6})_(?P<time_end>\d{1,6})"
_LABEL = r"(?P<label>\S.*?)"


def read_kinetics(tree: Tree, request: Request) -> Dataset:
    """Return the clips of all lists that are there, of splits that have lists, labels and files."""
    forms = clip_lists(tree)
    if not forms:
        message = "(looked for a CSV with the columns label, youtube_id, time_start, time_end)"
        hint = f"put {KINETICS_SOURCE} into it; folders of classes without lists are the dataset 'folder'"
        raise UsageError(f"no list of Kinetics under {printable(tree.root)} {message}", hint)
    rows = ((path, row) for path, form in forms.items() for row in lists.rows_alike(path, CLIP_LISTS[form]))
    clips = [_clip(path, *row) for path, row in rows]
    labels = {clip.label for clip in clips} - {""}
    if not labels:
        message = f"{printable(next(iter(forms)))} has no labels: it is the list of a held-out test set"
        raise UsageError(message, f"put lists with labels beside it: {KINETICS_SOURCE}")
    classes, spellings = _classes(labels)
    times = Counter(youtube_id for youtube_id, _ in {(clip.whole, clip.key) for clip in clips})
    only = {clip.whole: clip.key for clip in clips if times[clip.whole] == 1}
    lines = [clip._replace(label=spellings.get(clip.label, ""), is_only=clip.whole in only) for clip in clips]
    unused = [clip for clip in clips if not clip.split]
    notes = [f"{len(unused):,} clips without a label are left out"] if unused else []

    def key(path: str) -> str:
        """Return the name that a file has in the published lists; that of a replacement also by its video alone."""
        stem = stem_of(path)
        match = re.fullmatch(_NAME, stem)
        if scan.is_replacement(path) and stem[:11] in only:
            return only[stem[:11]]
        return f"{match[1]}_{int(match[2]):06d}_{int(match[3]):06d}" if match else stem

    return assemble(tree, request, "kinetics", classes, lines, key, notes=notes)


def clip_lists(tree: Tree) -> dict[str, str]:
    """Return the lists of clips in a tree: path → key of ``CLIP_LISTS``."""
    tables = [path for path in tree.lists if path.lower().endswith((".csv", ".tsv"))]
    tables += [path for path in tree.lists if path.lower().endswith(".txt") and _split_in(path)]
    return {path: form for path in tables if lists.is_list_text(path) and (form := lists.first_form(path, CLIP_LISTS))}


def _lines_like(pattern: str, path: str) -> Rows:
    for place, cells in lists.lines_like(pattern, path):
        is_of_split = _NAME not in pattern or _split_in(path)
        if cells["label"].isdecimal() or scan.is_no_class(cells["label"]) or not is_of_split:
            raise ValueError
        yield place, cells


CLIP_LISTS: dict[str, Callable[[str], Rows]] = {
    "header": partial(lists.read_table, is_header=_COLUMNS.issubset),
    "label, times": partial(_lines_like, rf"{_LABEL}[\s,;]+{_TIMES}{_SPLIT}"),  # abseiling,0wR5jVB-WPk,417,427,val
    "times, label": partial(_lines_like, rf"{_TIMES}[\s,;]+{_LABEL}{_SPLIT}"),
    "label/name": partial(_lines_like, rf"(?:.*/)?{_LABEL}/{_NAME}(?:\.\w+)?"),
    "name, label": partial(_lines_like, rf"(?:.*/)?{_NAME}(?:\.\w+)?[\s,;]+{_LABEL}"),
}
"""The forms of lists that are read, by name, in the order in which they are tried."""


def _clip(path: str, place: str, cells: dict[str, str]) -> ListRow:
    """Return one line of a list; it is of no split without a label, as in the lists of a held-out test set."""
    written = cells.get("split", "")
    split = SPLIT_NAMES.get(written.lower()) if written else _split_in(path)
    if split is None:
        hint = "correct it; the split of a list without such a column is in its name: train.csv, val.csv, test.csv"
        raise UsageError(f"{place} is of the split {printable(written)!r}: not train, val or test", hint)
    start = end = 0.0
    with suppress(ValueError):
        start, end = float(cells["time_start"]), float(cells["time_end"])
    if not cells["youtube_id"] or not 0 <= start < end < float("inf"):
        raise UsageError(f"{place} is not a clip: it needs an id, and a start before its end", _KINETICS_HINT)
    label, video = cells.get("label", ""), cells["youtube_id"]
    key = f"{video}_{int(start):06d}_{int(end):06d}"
    return ListRow(f"{label}/{key}.mp4", label, split if label else "", key, place, None, video, start, end)


def _split_in(path: str) -> str | None:
    """Return the split in the name of a list ("kinetics400_val": "val"), for lists without that column."""
    return scan.split_of_list(stem_of(path).lower().replace("holdout", ""))  # DeepMind's holdout_test of Kinetics-600


def _classes(labels: set[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the classes in the order of a published model's outputs, else of the alphabet; and each label's class."""
    classes: dict[str, str] = {}
    for label in sorted(labels):
        classes.setdefault(class_key(label), label)
    for name in PUBLISHED_LISTS:
        published = {class_key(label): label for label in published_labels(name)}
        if published.keys() == classes.keys():
            classes = published
    return tuple(classes.values()), {label: classes[class_key(label)] for label in labels}
