"""UCF-101: 13,320 files ``v_<Class>_g<group>_c<clip>.avi``, three splits.

Reference: Soomro, Zamir & Shah, "UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild",
CRCV-TR-12-01, 2012. The clips of a group come from one video, so a group is never divided between training and test.
"""

import re
from collections.abc import Iterator

from vadis.datasets.checks import FileIndex, Listed, Lists, assemble, nearest, refuse_missing
from vadis.datasets.dataset import Dataset, Request, class_key
from vadis.datasets.lists import is_named
from vadis.datasets.scan import Tree, folder_of, name_of, read_lines, stem_of
from vadis.errors import UsageError
from vadis.results import printable

NUM_CLASSES = 101
NUM_FILES = 13_320
COUNTS = {"train": (9_537, 9_586, 9_624), "test": (3_783, 3_734, 3_696)}  # lines of trainlist0N.txt, testlist0N.txt
SOURCE = (
    "UCF101TrainTestSplits-RecognitionTask.zip from https://www.crcv.ucf.edu/data/UCF101.php, or where that fails from "
    "https://huggingface.co/datasets/MichiganNLP/ucf-101"
)
TEST_GROUPS = {1: range(1, 8), 2: range(8, 15), 3: range(15, 22)}  # what the official lists follow, all 13,320 files
SPELLINGS = {"HandStandPushups": "HandstandPushups"}  # in file names: in classInd.txt and the folders

_NAME = re.compile(r"v_(?P<label>\w+)_g(?P<group>\d+)_c\d+", re.IGNORECASE)
_AS_PUBLISHED = f"take all lists from {SOURCE}"


def detect(tree: Tree) -> bool:
    """Whether the official lists are there, or nearly all videos have names of UCF-101 and no other splits."""
    if tree.lists_named(*(f"trainlist0{split}.txt" for split in TEST_GROUPS)):
        return True
    return is_named(tree, _NAME)


def read(tree: Tree, request: Request) -> Dataset:
    """One split of UCF-101; from the official lists where both of the split are there, else from the files' names.

    Raises:
        UsageError: as ``assemble`` does, and for lists that are damaged or contradict ``classInd.txt``.
    """
    official = tree.lists_named(f"trainlist0{request.split}.txt"), tree.lists_named(f"testlist0{request.split}.txt")
    index = FileIndex(tree.videos, _key)
    if all(official):
        lists = _from_lists({"train": official[0][0], "test": official[1][0]}, tree)
    else:
        lists = _from_names(tree, request)
    return assemble(lists, tree, index, request)


def _key(path: str) -> str:
    return stem_of(path).casefold()


def _from_lists(paths: dict[str, str], tree: Tree) -> Lists:
    numbers = _numbered_classes(tree)
    lines = {split: list(_listed(path)) for split, path in paths.items()}
    labels = {listed.label for each in lines.values() for _, listed, _ in each}
    classes = tuple(numbers.values()) or tuple(sorted(labels, key=str.casefold))
    for each in lines.values():
        for place, listed, number in each:
            _check(place, listed, number, numbers, classes)
    return Lists("ucf101", classes, {split: [listed for _, listed, _ in each] for split, each in lines.items()})


def _numbered_classes(tree: Tree) -> dict[str, str]:
    """``classInd.txt``: number → class, in its order; empty if there is no such list."""
    numbers: dict[str, str] = {}
    for path in tree.lists_named("classind.txt")[:1]:
        for place, line in read_lines(path):
            number, _, label = line.partition(" ")
            if not number.isdecimal() or not label or number in numbers:
                raise UsageError(f"{place} is not a number and a class: {printable(line)}", _AS_PUBLISHED)
            numbers[number] = label.strip()
    return numbers


def _listed(path: str) -> Iterator[tuple[str, Listed, str]]:
    """The lines ``Class/v_Class_g01_c01.avi [number]``: where each stands, what it lists, the number or ""."""
    for place, line in read_lines(path):
        name, _, number = line.partition(" ")
        label, _, file = name.rpartition("/")
        if not label:
            raise UsageError(f"{place} is not a class and a file: {printable(line)}", _AS_PUBLISHED)
        yield place, Listed(name, label, file.rpartition(".")[0].casefold()), number.strip()


def _check(place: str, listed: Listed, number: str, numbers: dict[str, str], classes: tuple[str, ...]) -> None:
    if listed.label not in classes:
        meant = nearest(listed.label, classes)
        hint = f"did you mean {printable(meant)}?" if meant else _AS_PUBLISHED
        raise UsageError(f"{place} has the class {printable(listed.label)}, which classInd.txt lacks", hint)
    if number and numbers and numbers.get(number) != listed.label:
        message = f"{place} gives two labels to {printable(listed.name)}: class {number} is another"
        raise UsageError(message, _AS_PUBLISHED)


def _from_names(tree: Tree, request: Request) -> Lists:
    """Train and test by the groups in the names; classes as ``classInd.txt`` orders them: alphabetically, caseless."""
    matches = {_key(path): match for path in tree.videos if (match := _NAME.fullmatch(stem_of(path)))}
    if not matches:
        message = f"no file under {printable(tree.root)} is named v_<Class>_g<group>_c<clip>, as in UCF-101"
        raise UsageError(message, f"add {SOURCE}; or read class folders of your own as the dataset 'folder'")
    spellings = _spellings(tree)
    splits: dict[str, list[Listed]] = {"train": [], "test": []}
    for key, match in matches.items():
        label = spellings[class_key(match["label"])]
        is_test = int(match["group"]) in TEST_GROUPS[request.split]
        splits["test" if is_test else "train"].append(Listed(match[0], label, key))
    classes = tuple(sorted({listed.label for lines in splits.values() for listed in lines}, key=str.casefold))
    notes = ["the split follows from the groups in the files' names: the official lists are not here"]
    notes += _shortfall(len(classes), len(matches), request)
    return Lists("ucf101", classes, splits, notes=tuple(notes))


def _spellings(tree: Tree) -> dict[str, str]:
    """The key of each class in the files' names → the class, as its folder spells it where it has one."""
    spellings: dict[str, str] = {}
    for path in tree.videos:
        if match := _NAME.fullmatch(stem_of(path)):
            label, folder = match["label"], name_of(folder_of(path))
            own = class_key(label)
            if class_key(folder) == own:
                spellings[own] = folder
            else:
                spellings.setdefault(own, SPELLINGS.get(label, label))
    return spellings


def _shortfall(num_classes: int, num_files: int, request: Request) -> list[str]:
    """Without lists only the number of files tells that some are missing, and only where all classes are there."""
    if num_classes != NUM_CLASSES or num_files >= NUM_FILES:
        return []
    unnamed = ["(without the official lists their names are not known)"] * (NUM_FILES - num_files)
    refuse_missing("UCF-101", unnamed, NUM_FILES, request)
    return [f"{num_files:,} of the {NUM_FILES:,} files of UCF-101 are here"]
