"""Lists of videos and labels as people have them: with a header or without, separated by commas, blanks or tabs.

``LIST_FORMS`` is the table: one row for each form of line that is read, tried in its order. A list is of a form if all
its lines are. What a number means is written elsewhere (``classes``), where a video lies too (``places``).
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from vadis.datasets.classes import is_class_list_name
from vadis.datasets.dataset import some
from vadis.datasets.scan import (
    SPLIT_NAMES,
    Tree,
    columns_of,
    folder_of,
    has_split_folders,
    is_no_class,
    is_text,
    is_usual_name,
    name_of,
    parts_of,
    read_lines,
    read_rows,
    read_table,
    says_split,
    split_of,
    split_of_list,
    stem_of,
)
from vadis.errors import UsageError
from vadis.parsing import parse_json
from vadis.results import printable
from vadis.video.sources import VIDEO_EXTENSIONS

PATH_COLUMNS = (
    *("path", "file_name", "filename", "file_path", "filepath", "video_path", "clip_path", "relative_path"),
    *("file", "video", "clip", "video_name", "clip_name", "filenames", "videos"),
)
"""Columns that name the video, the best first: where there are ``clip_name`` and ``clip_path``, the path counts."""

LABEL_COLUMNS = (
    *("label_name", "class_name", "label_text", "label_str"),
    *("label", "class", "category", "action", "tag", "target", "activity", "label_id", "class_id"),
)
"""Columns that name the class, the best first: a name counts before a number."""

_LESSER_LABELS = frozenset({"class", "category", "action", "tag", "target", "activity"})

SPLIT_COLUMNS = ("split", "subset", "partition")
"""Columns that name the split, the best first; those after them do where their cells are splits."""

_LESSER_SPLITS = frozenset({"set", "phase", "mode", "usage", "type", "dataset_split", "group", "fold"})

PART_COLUMNS = frozenset(
    {
        *("start", "end", "start_time", "end_time", "time_start", "time_end", "start_frame", "end_frame"),
        *("start_sec", "end_sec", "start_seconds", "end_seconds", "stop", "begin"),
    }
)
"""Columns that bound a part of a video."""

SCORE_COLUMNS = frozenset({"score", "confidence", "probability", "prediction", "predicted", "rank"})
"""Columns of what a model said, which is no label."""

MOSTLY = 0.9  # share of the videos that are named as in a dataset, from which on a folder is taken for it
HEAD_LINES = 20  # lines of a file by which its form is known

# Of UCF-101 and HMDB-51: three splits in one folder.
_OFFICIAL = re.compile(r"(train|test)list0\d\.txt|classind\.txt|.+_test_split[123]\.txt")
_ENDING = "|".join(re.escape(each) for each in VIDEO_EXTENSIONS)
_PATH_AND_REST = re.compile(rf"(?P<path>.+(?:{_ENDING}))[\"']?\s+(?P<label>\S.*)", re.IGNORECASE)
_LABELLED = re.compile(rf".*(?:{_ENDING})[\"']?[\s,;]+\S", re.IGNORECASE)
_NUMBERS = re.compile(r"[+-]?\d+(?:[\s,;|]+[+-]?\d+)+")


@dataclass(frozen=True)
class Row:
    """One line of a list: where it stands, the path and the label as they are written, and the split, if it is said."""

    place: str
    path: str
    label: str
    split: str | None


@dataclass(frozen=True)
class ListForm:
    """One form of lists.

    Attributes:
        shape: a line of it.
        used_by: whose habit it is.
        rows: the lines of a list → (place, path, label, split as it is written or ""), as far as they are of this form;
            it ends with a ValueError at the first line that is not.
    """

    shape: str
    used_by: str
    rows: Callable[[str], Iterator[tuple[str, str, str, str]]]


def _with_header(path: str) -> Iterator[tuple[str, str, str, str]]:
    delimiter = next((each for each in ",\t; " if _has_columns(columns_of(path, each))), None)
    if delimiter is None:
        raise ValueError
    columns = columns_of(path, delimiter)
    _refuse_columns(path, columns)
    for place, cells in read_table(path, delimiter):
        yield place, *_cells(cells)


def _json_lines(path: str) -> Iterator[tuple[str, str, str, str]]:
    for place, line in read_lines(path):
        value = parse_json(line)
        if not isinstance(value, dict):
            raise ValueError
        cells = {str(key).lower(): str(each) for key, each in value.items() if isinstance(each, str | int | float)}
        if not _has_columns(cells):
            raise ValueError
        _refuse_columns(path, cells)
        yield place, *_cells(cells)


def _cells_between(delimiter: str) -> Callable[[str], Iterator[tuple[str, str, str, str]]]:
    def rows(path: str) -> Iterator[tuple[str, str, str, str]]:
        for place, cells in read_rows(path, delimiter):
            if len(cells) < 2 or not is_video_name(cells[0]):
                raise ValueError
            label = " ".join(cells[1:])
            if len(cells) > 2 and not _NUMBERS.fullmatch(label):
                hint = "path and label; a label with commas goes between quotation marks"
                raise UsageError(f"{place} has {len(cells)} cells instead of 2", hint)
            yield place, cells[0], label, ""

    return rows


def _blank_between(path: str) -> Iterator[tuple[str, str, str, str]]:
    for place, line in read_lines(path):
        match = _PATH_AND_REST.fullmatch(line)
        if match is None:
            raise ValueError
        yield place, match["path"].strip("\"'"), match["label"].strip("\"'"), ""


def _two_words(path: str) -> Iterator[tuple[str, str, str, str]]:
    """Without an ending of videos it takes a list that is named after a split to be sure that these are paths."""
    if split_of(stem_of(path)) is None:
        raise ValueError
    for place, line in read_lines(path):
        words = re.split(r"[\s,;]+", line)
        if len(words) != 2 or is_video_name(words[-1]):
            raise ValueError
        yield place, words[0], words[1], ""


def _path_alone(path: str) -> Iterator[tuple[str, str, str, str]]:
    if split_of(stem_of(path)) is None:
        raise ValueError
    for place, line in read_lines(path):
        folder, _, name = line.replace("\\", "/").strip("\"'").rpartition("/")
        label = folder.rpartition("/")[2]
        if not is_video_name(name) or not label:
            raise ValueError
        if is_no_class(label):
            message = f"{place} gives no label to {printable(line)}: it lies in no class folder"
            raise UsageError(message, "write the label behind the path")
        yield place, line.strip("\"'"), label, ""


LIST_FORMS = {
    "header": ListForm(
        "path,label[,split] (also file_name, video, video_path, clip_path; class, tag; tabs or semicolons)",
        "VideoFolder's metadata.csv, Kaggle's copies of UCF-101",
        _with_header,
    ),
    "jsonl": ListForm('{"file_name": "a.mp4", "label": "run"}', "VideoFolder's metadata.jsonl", _json_lines),
    "comma": ListForm("a.mp4,label", "PySlowFast with a separator of its own, UniFormer", _cells_between(",")),
    "tab": ListForm("a.mp4<tab>label", "", _cells_between("\t")),
    "semicolon": ListForm("a.mp4;label", "", _cells_between(";")),
    "blank": ListForm("<class>/a.mp4 12", "mmaction2, PySlowFast, TimeSformer, VideoMAE, V-JEPA", _blank_between),
    "no ending": ListForm("<class>/a 12, in a list that is named after a split", "TimeSformer", _two_words),
    "path alone": ListForm("<class>/a.mp4, in a list that is named after a split", "UCF-101's test lists", _path_alone),
}
"""The forms of lists that are read, by name, in the order in which they are tried."""


def video_lists(tree: Tree) -> dict[str, str]:
    """The lists of videos in a tree: path → key of ``LIST_FORMS``; no more of them is read than their first lines.

    They lie in the root itself, or below it in folders that are named after splits, lists or containers: a table
    elsewhere is rather somebody's notes. A list that was named itself is one in any case.
    """
    is_alone = bool(tree.lists) and not tree.videos and (folder_of(tree.lists[0]) or ".") == tree.root
    found = {}
    for path in tree.lists:
        if path.lower().endswith(".json") or not (is_alone or _may_be_list(tree, path)) or not is_text(path):
            continue
        form = form_of(path)
        if form is not None:
            found[path] = form
    return found


def unread_lists(tree: Tree, forms: Mapping[str, str]) -> list[str]:
    """The lists that are named after a split, or "metadata", and that are of no form: paths below the root."""
    names = (path for path in tree.lists if path not in forms and not _OFFICIAL.fullmatch(name_of(path).lower()))
    return [tree.relative(path) for path in names if says_split(stem_of(path)) or stem_of(path).lower() == "metadata"]


def form_of(path: str) -> str | None:
    """The key of ``LIST_FORMS`` for a file, by its first lines, or None if it is no list of videos.

    Raises:
        UsageError: for a list that is named after a split, with lines of videos and labels that are not all alike.
    """
    is_json = path.lower().endswith(".jsonl")
    for name, form in LIST_FORMS.items():
        if is_json != (name == "jsonl"):
            continue
        try:
            if list(islice(form.rows(path), HEAD_LINES)) or name == "header":
                return name
        except ValueError:
            continue
    if split_of(stem_of(path)) and not is_json:
        lines = list(islice(read_lines(path), HEAD_LINES))
        odd = [f"{place} {printable(line)}" for place, line in lines if not _LABELLED.match(line)]
        if 2 * len(odd) < len(lines):
            raise UsageError(f"{odd[0] if odd else lines[0][0]}: not like the other lines", "write all lines alike")
    return None


def read_list(path: str, form: str, root: str) -> list[Row]:
    """All rows of a list in a dataset at ``root``; each has a split.

    Raises:
        UsageError: a line of another form, without a path or label, with several labels, or of a split that is none.
    """
    rows: list[Row] = []
    try:
        for place, file, label, split in LIST_FORMS[form].rows(path):
            rows.append(_row(place, file, label, split))
    except ValueError as error:
        after = f"after {rows[-1].place.removesuffix(',')}" if rows else "at its beginning"
        message = f"{printable(path)} has a line {after} that is not like {LIST_FORMS[form].shape}"
        raise UsageError(message, "write all lines alike; labels with commas between quotation marks") from error
    if not rows:
        raise UsageError(f"the list {printable(path)} names no video", "complete it, or remove it")
    return _with_splits(path, rows, root)


def _with_splits(path: str, rows: list[Row], root: str) -> list[Row]:
    """Rows with their splits: as they say, else as the names of the list, its folder, or the folders in paths say."""
    folder = folder_of(path)
    own = split_of_list(stem_of(path)) or (split_of(name_of(folder)) if folder != root else None)
    if own is not None:
        return [row if row.split else Row(row.place, row.path, row.label, own) for row in rows]
    by_folder = [row.split or _split_in(row.path) for row in rows]
    if any(by_folder) and not all(by_folder):
        place = rows[by_folder.index(None)].place
        raise UsageError(f"{place} is in no split, and others of the list are", "give the list a column split")
    if not any(by_folder) and says_split(stem_of(path)):
        message = f"the name of {printable(path)} says more than one split, or one that is not known"
        raise UsageError(message, "name it train, val or test, or give it a column split")
    return [Row(row.place, row.path, row.label, split or "train") for row, split in zip(rows, by_folder, strict=True)]


def is_named(tree: Tree, pattern: re.Pattern[str]) -> bool:
    """Whether nearly all names fit ``pattern``, and nothing else says how the videos are to be divided."""
    named = sum(pattern.fullmatch(stem_of(path)) is not None for path in tree.videos)
    is_mostly = bool(tree.videos) and named >= MOSTLY * len(tree.videos)
    return is_mostly and not has_split_folders(tree) and not video_lists(tree)


def _may_be_list(tree: Tree, path: str) -> bool:
    """Whether a file lies and is called as lists of videos do; no file is opened but tables in the root itself."""
    if _OFFICIAL.fullmatch(name_of(path).lower()):
        return False
    stem = stem_of(path)
    above = parts_of(tree.relative(path))[:-1] if path.startswith(tree.root + os.sep) else []
    if above and not (all(map(is_usual_name, above)) or (stem.lower() == "metadata" and len(above) == 1)):
        return False
    if is_usual_name(stem) or split_of_list(stem) or (not above and path.lower().endswith(".jsonl")):
        return True
    is_table = not above and path.lower().endswith((".csv", ".tsv")) and not is_class_list_name(path)
    return is_table and any(_has_columns(columns_of(path, each)) for each in ",\t;")


def _row(place: str, path: str, label: str, written: str) -> Row:
    split = SPLIT_NAMES.get(written.lower()) if written else None
    if not path or not label or (written and split is None):
        hint = "such as clips/a.mp4,wave,train; without a column split, the name of the list says which it is"
        raise UsageError(f"{place} is not a path, a label and train, val or test", hint)
    if _NUMBERS.fullmatch(label):
        message = f"{place} has more than one number behind the path: {printable(label)}"
        hint = "vadis reads one label of each whole video: path and label, without starts, ends or numbers of frames"
        raise UsageError(message, hint)
    return Row(place, path, label, split)


def _split_in(path: str) -> str | None:
    """The split that the first folder in a path says that is named after one."""
    folders = path.replace("\\", "/").split("/")[:-1]
    return next((split for name in folders if (split := split_of(name))), None)


def _has_columns(columns: Iterable[str]) -> bool:
    names = set(columns)
    return not names.isdisjoint(PATH_COLUMNS) and not names.isdisjoint(LABEL_COLUMNS)


def _refuse_columns(path: str, columns: Iterable[str]) -> None:
    """Raises UsageError for a table whose other columns change what its lines mean."""
    names = set(columns)
    if scores := names & SCORE_COLUMNS:
        message = f"{printable(path)} holds what a model said (column {some(sorted(scores))}), and no labels"
        raise UsageError(message, "move it out of the dataset's folder")
    said = [name for name in LABEL_COLUMNS if name in names]
    if len(said) > 1 and said[0] in _LESSER_LABELS:
        raise UsageError(
            f"{printable(path)} has the columns {some(said)}: any may be the label", "call one of them label"
        )
    if parts := names & PART_COLUMNS:
        message = (
            f"{printable(path)} lists parts of videos (column {some(sorted(parts))}), which are not read from lists"
        )
        raise UsageError(message, "cut the videos into clips, or remove the columns if a video is its clip")


def _cells(cells: dict[str, str]) -> tuple[str, str, str]:
    """The path, the label and the split in one row of a table."""
    path = next(cells[name] for name in PATH_COLUMNS if name in cells)
    label = next(cells[name] for name in LABEL_COLUMNS if name in cells)
    lesser = (cell for name, cell in cells.items() if name in _LESSER_SPLITS and cell.lower() in SPLIT_NAMES)
    split = next((cells[name] for name in SPLIT_COLUMNS if name in cells), next(lesser, ""))
    return path, label, split


def is_video_name(path: str) -> bool:
    """Whether a path in a list ends as videos do."""
    return path.lower().rstrip("\"'").endswith(VIDEO_EXTENSIONS)
