"""How a folder of videos is laid out, as far as that tells one dataset from another."""

import os
import re

from vadis.datasets.text import columns_of
from vadis.datasets.tree import Tree, folder_of, stem_of

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""How the three splits are called on disk and in lists."""

MOSTLY = 0.9  # share of the videos that are named as in a dataset, from which on a folder is taken for it


def parts_of(relative_path: str) -> list[str]:
    """The names in a path."""
    return relative_path.split(os.sep)  # noqa: PTH206 (as text: a Path for each file takes seconds)


def has_split_folders(tree: Tree) -> bool:
    """Whether class folders lie in ``train/``, ``val/`` or ``test/``; a class of that name has videos right in it."""
    parts = (parts_of(tree.relative(path)) for path in tree.videos)
    return any(len(each) > 2 and each[0].lower() in SPLIT_NAMES for each in parts)


def label_lists(tree: Tree) -> list[str]:
    """CSV lists of paths and labels in the root itself: a table deeper down is more likely somebody's notes."""
    tables = [path for path in tree.lists if path.lower().endswith(".csv") and (folder_of(path) or ".") == tree.root]
    return [path for path in tables if set(columns_of(path)) >= {"path", "label"}]


def is_named(tree: Tree, pattern: re.Pattern[str]) -> bool:
    """Whether nearly all names fit ``pattern``, and nothing else says how the videos are to be divided."""
    named = sum(pattern.fullmatch(stem_of(path)) is not None for path in tree.videos)
    is_mostly = bool(tree.videos) and named >= MOSTLY * len(tree.videos)
    return is_mostly and not has_split_folders(tree) and not label_lists(tree)
