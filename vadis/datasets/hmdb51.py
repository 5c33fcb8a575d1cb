"""HMDB-51: 6,766 files in 51 class folders, three splits of 70 training and 30 test clips for each class.

Reference: Kuehne, Jhuang, Garrote, Poggio & Serre, "HMDB: A large video database for human motion recognition", ICCV
2011. The splits follow from nothing but their lists: ``<class>_test_split<N>.txt`` with lines ``name.avi 0|1|2``.
"""

import re

from vadis.datasets.checks import FileIndex, Listed, Lists, assemble
from vadis.datasets.dataset import Dataset, Request
from vadis.datasets.lists import is_named
from vadis.datasets.scan import Tree, name_of, read_lines, stem_of
from vadis.errors import UsageError
from vadis.results import printable

NUM_CLASSES = 51
COUNTS = {"train": (3_570,) * 3, "test": (1_530,) * 3}  # 70 and 30 files of each class
SOURCE = (
    "test_train_splits.rar from https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/, or "
    "where that fails test_train_splits.zip from https://huggingface.co/datasets/MichiganNLP/hmdb"
)

_LIST = re.compile(r"(?P<label>.+)_test_split(?P<split>[123])\.txt")
# Visible body parts, camera motion, number of people, viewpoint, quality, number: after the title and the class.
_NAME = re.compile(r".+_[fhul]_(cm|nm)_np\w+_(ba|fr|le|ri)_(bad|goo|med)_\d+")
_SPLITS = {"1": "train", "2": "test", "0": None}


def detect(tree: Tree) -> bool:
    """Whether the official lists are there, or nearly all videos have names of HMDB-51 and no other splits."""
    if any(_LIST.fullmatch(name_of(path)) for path in tree.lists):
        return True
    return is_named(tree, _NAME)


def read(tree: Tree, request: Request) -> Dataset:
    """One split of HMDB-51, from its official lists; classes in alphabetical order, as there is no official numbering.

    Raises:
        UsageError: as ``assemble`` does, and if the lists are not there or damaged.
    """
    paths = _lists_of(tree, request.split)
    splits: dict[str, list[Listed]] = {"train": [], "test": []}
    unused: set[str] = set()
    for label, path in sorted(paths.items()):
        for place, line in read_lines(path):
            name, *flags = line.rsplit(maxsplit=1)
            if len(flags) != 1 or flags[0] not in _SPLITS:
                raise UsageError(f"{place} is not a file and 0, 1 or 2: {printable(line)}", f"take it from {SOURCE}")
            key = name.rpartition(".")[0].casefold()
            if split := _SPLITS[flags[0]]:
                splits[split].append(Listed(f"{label}/{name}", label, key))
            else:
                unused.add(key)
    lists = Lists("hmdb51", tuple(sorted(paths)), splits, unused, _notes(len(paths)))
    return assemble(lists, tree, FileIndex(tree.videos, lambda path: stem_of(path).casefold()), request)


def _lists_of(tree: Tree, split: int) -> dict[str, str]:
    """Class → its list for one split."""
    matches = {path: _LIST.fullmatch(name_of(path)) for path in tree.lists}
    paths: dict[str, str] = {}
    for path, match in matches.items():
        if match and int(match["split"]) == split:
            paths.setdefault(match["label"], path)
    if not paths:
        raise UsageError(
            f"no split files of HMDB-51 under {printable(tree.root)} (looked for <class>_test_split{split}.txt)",
            f"unpack {SOURCE} in it, or name the folder of the lists; to divide the class folders "
            "without regard to them, read it as the dataset 'folder'",
        )
    return paths


def _notes(num_classes: int) -> tuple[str, ...]:
    if num_classes == NUM_CLASSES:
        return ()
    return (f"{num_classes} of the {NUM_CLASSES} classes of HMDB-51 have a list",)
