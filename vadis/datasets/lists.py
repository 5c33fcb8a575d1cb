"""Lists of videos and labels as people have them: ``LIST_FORMS`` has one row for each form of line that is read.

A list is of a form if all its lines are. Where a video lies is found elsewhere (``places``).
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from vadis.datasets import scan
from vadis.datasets.dataset import counted, some
from vadis.datasets.scan import SPLIT_NAMES, Tree, folder_of, name_of, read_lines, split_of, stem_of
from vadis.errors import UsageError
from vadis.parsing import parse_json
from vadis.results import printable
from vadis.video.sources import VIDEO_EXTENSIONS

PATH_COLUMNS = (  # those that name the video, the best first: of clip_name and clip_path the path counts
    *("path", "file_name", "filename", "file_path", "filepath", "video_path", "clip_path", "relative_path"),
    *("file", "video", "clip", "video_name", "clip_name", "filenames", "videos"),
)
LABEL_COLUMNS = (  # those that name the class, the best first: a name counts before a number
    *("label_name", "class_name", "label_text", "label_str"),
    *("label", "class", "category", "action", "tag", "target", "activity", "label_id", "class_id"),
)
_LESSER_LABELS = {"class", "category", "action", "tag", "target", "activity"}
SPLIT_COLUMNS = ("split", "subset", "partition")  # the best first
_LESSER_SPLITS = {
    "set",
    "phase",
    "mode",
    "usage",
    "type",
    "dataset_split",
    "group",
    "fold",
}  # if their cells are splits
PART_COLUMNS = {  # those that bound a part of a video
    *("start", "end", "start_time", "end_time", "time_start", "time_end", "start_frame", "end_frame"),
    *("start_sec", "end_sec", "start_seconds", "end_seconds", "stop", "begin"),
}
# Of what a model said, which is no label.
SCORE_COLUMNS = {"score", "confidence", "probability", "prediction", "predicted", "rank"}

MOSTLY = 0.9  # share of the videos that are named as in a dataset, from which on a folder is taken for it
HEAD_LINES = 20  # lines of a file by which its form is known

# Of UCF-101 and HMDB-51: three splits in one folder.
_OFFICIAL = re.compile(r"(train|test)list0\d\.txt|classind\.txt|.+_test_split[123]\.txt")
_ENDING = "|".join(re.escape(each) for each in VIDEO_EXTENSIONS)
_LABELLED = rf"(?P<path>.+(?:{_ENDING}))[\"']?\s+(?P<label>\S.*)"
_TWO_WORDS = rf"(?P<path>[^\s,;]*)[\s,;]+(?!\S*(?:{_ENDING})[\"']*$)(?P<label>[^\s,;]*)"
_PATH_ALONE = rf"(?P<path>(?:.*[\\/])?(?P<label>[^\\/]+)[\\/][^\\/]+(?:{_ENDING})[\"']*)"
_LIKE_LABELLED = re.compile(rf".*(?:{_ENDING})[\"']?[\s,;]+\S", re.IGNORECASE)
_NUMBERS = re.compile(r"[+-]?\d+(?:[\s,;|]+[+-]?\d+)+")

Cells = dict[str, str]
Rows = Iterator[tuple[str, Cells]]  # each with its place


class Row(NamedTuple):
    """One line of a list: where it stands, the path and the label as they are written, and the split."""

    place: str
    path: str
    label: str
    split: str
    file: str | None = None  # that the path means, once it is found


class ListForm(NamedTuple):
    """One form of lists: a line of it, whose habit it is, and what reads a list."""

    shape: str
    used_by: str
    rows: Callable[[str], Rows]  # each line's place and its cells; a ValueError at the first line of another form


def _with_header(path: str) -> Rows:
    delimiter = next((each for each in ",\t; " if _has_columns(scan.columns_of(path, each))), None)
    if delimiter is None:
        raise ValueError
    _refuse_columns(path, scan.columns_of(path, delimiter))
    yield from scan.read_table(path, delimiter)


def _json_lines(path: str) -> Rows:
    for place, line in read_lines(path):
        value = parse_json(line)
        pairs = value.items() if isinstance(value, dict) else ()
        cells = {str(key).lower(): str(each) for key, each in pairs if isinstance(each, str | int | float)}
        if not _has_columns(cells):
            raise ValueError
        _refuse_columns(path, cells)
        yield place, cells


def _cells_between(delimiter: str) -> Callable[[str], Rows]:
    def rows(path: str) -> Rows:
        for place, cells in scan.read_rows(path, delimiter):
            if len(cells) < 2 or not is_video_name(cells[0]):
                raise ValueError
            if len(cells) > 2:
                message = f"{place} has {len(cells)} cells instead of 2: {printable(' '.join(cells[1:]))} as its label"
                raise UsageError(message, "write path and label; a label with commas goes between quotation marks")
            yield place, {"path": cells[0], "label": cells[1]}

    return rows


def _lines_like(pattern: str, needs_split: bool = False) -> Callable[[str], Rows]:
    """Read lines by a pattern; without a label behind, or the ending of a video, only in lists named after a split."""

    def rows(path: str) -> Rows:
        for place, line in read_lines(path):
            match = re.fullmatch(pattern, line, re.IGNORECASE)
            if match is None or (needs_split and split_of(stem_of(path)) is None):
                raise ValueError
            yield place, {name: cell.strip("\"'") for name, cell in match.groupdict().items()}

    return rows


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
    "blank": ListForm(
        "<class>/a.mp4 12", "mmaction2, PySlowFast, TimeSformer, VideoMAE, V-JEPA", _lines_like(_LABELLED)
    ),
    "no ending": ListForm(
        "<class>/a 12, in a list that is named after a split", "TimeSformer", _lines_like(_TWO_WORDS, needs_split=True)
    ),
    "path alone": ListForm(
        "<class>/a.mp4, in a list that is named after a split",
        "UCF-101's test lists",
        _lines_like(_PATH_ALONE, needs_split=True),
    ),
}
"""The forms of lists that are read, by name, in the order in which they are tried."""


def video_lists(tree: Tree) -> dict[str, str]:
    """Return the lists of videos in a tree: path → key of ``LIST_FORMS``; of each only the first lines are read."""
    # A list that was named itself is one in any case.
    is_alone = bool(tree.lists) and not tree.videos and (folder_of(tree.lists[0]) or ".") == tree.root
    paths = [path for path in tree.lists if not path.lower().endswith(".json")]
    forms = {
        path: form_of(path) for path in paths if (is_alone or _may_be_list(tree, path)) and scan.is_list_text(path)
    }
    return {path: form for path, form in forms.items() if form is not None}


def unread_lists(tree: Tree, forms: Collection[str]) -> list[str]:
    """Return the lists that are named after a split, or "metadata", and that are of no form: paths below the root."""
    paths = [path for path in tree.lists if path not in forms and not _OFFICIAL.fullmatch(name_of(path).lower())]
    stems = {path: stem_of(path) for path in paths}
    return [tree.relative(path) for path in paths if stems[path].lower() == "metadata" or scan.split_words(stems[path])]


def form_of(path: str) -> str | None:
    """Return the key of ``LIST_FORMS`` for a file, by its first lines, or None if it is no list of videos.

    A list that is named after a split, with lines of videos and labels that are not all alike, is refused.
    """
    is_json = path.lower().endswith(".jsonl")
    forms = {name: form.rows for name, form in LIST_FORMS.items() if is_json == (name == "jsonl")}
    name = first_form(path, forms)
    if name is None and split_of(stem_of(path)) and not is_json:
        lines = list(islice(read_lines(path), HEAD_LINES))
        odd = [f"{place} {printable(line)}" for place, line in lines if not _LIKE_LABELLED.match(line)]
        if 2 * len(odd) < len(lines):
            raise UsageError(f"{odd[0] if odd else lines[0][0]}: not like the other lines", "write all lines alike")
    return name


def first_form(path: str, forms: Mapping[str, Callable[[str], Rows]]) -> str | None:
    """Return the first form that the first lines of a list are of, or None; a list with a header may have no lines."""
    for name, rows in forms.items():
        try:
            if list(islice(rows(path), HEAD_LINES)) or name == "header":
                return name
        except ValueError:
            continue
    return None


def rows_alike(path: str, form: Callable[[str], Rows]) -> Rows:
    """Yield all rows of a list; one of another form is refused."""
    place = "line 0,"
    try:
        for place, cells in form(path):
            yield place, cells
    except ValueError as error:
        message = f"the line of {printable(path)} after {place.removesuffix(',')} is not like the first ones"
        raise UsageError(message, "write all lines alike; labels with commas between quotation marks") from error


def read_list(path: str, form: str, root: str) -> list[Row]:
    """Return all rows of a list in a dataset at ``root``; each has a path, one label, and one of the three splits."""
    rows = [_row(place, cells) for place, cells in rows_alike(path, LIST_FORMS[form].rows)]
    if not rows:
        raise UsageError(f"the list {printable(path)} names no video", "complete it, or remove it")
    return _with_splits(path, rows, root)


def _with_splits(path: str, rows: list[Row], root: str) -> list[Row]:
    """Return rows with splits: as they say, else as the names of the list, its folder, or the folders in paths say."""
    folder, stem = folder_of(path), stem_of(path)
    of_list = scan.split_of_list(stem) or (split_of(name_of(folder)) if folder != root else None)
    splits = [row.split or of_list or _split_in(row.path) for row in rows]
    if any(splits) and not all(splits):
        place = rows[splits.index(None)].place
        raise UsageError(f"{place} is in no split, and others of the list are", "give the list a column split")
    if not any(splits) and scan.split_words(stem):
        message = f"the name of {printable(path)} says more than one split, or one that is not known"
        raise UsageError(message, "name it train, val or test, or give it a column split")
    return [row._replace(split=split or "train") for row, split in zip(rows, splits, strict=True)]


def is_named(tree: Tree, pattern: re.Pattern[str]) -> bool:
    """Return whether nearly all names fit ``pattern``, and nothing else says how the videos are to be divided."""
    named = sum(pattern.fullmatch(stem_of(path)) is not None for path in tree.videos)
    is_mostly = bool(tree.videos) and named >= MOSTLY * len(tree.videos)
    return is_mostly and not tree.has_split_folders() and not video_lists(tree)


def _may_be_list(tree: Tree, path: str) -> bool:
    """Return whether a file lies and is called as lists of videos do; no file is opened but tables in the root."""
    if _OFFICIAL.fullmatch(name_of(path).lower()):
        return False
    stem = stem_of(path)
    # A table below the root, but in folders of splits, lists or containers, is rather somebody's notes.
    above = tree.parts(path)[:-1] if path.startswith(tree.root + os.sep) else ()
    if above and not (all(map(scan.is_usual_name, above)) or (stem.lower() == "metadata" and len(above) == 1)):
        return False
    if scan.is_usual_name(stem) or scan.split_of_list(stem) or (not above and path.lower().endswith(".jsonl")):
        return True
    is_table = not above and path.lower().endswith((".csv", ".tsv")) and not is_class_list_name(path)
    return is_table and any(_has_columns(scan.columns_of(path, each)) for each in ",\t;")


def _row(place: str, cells: Cells) -> Row:
    """Return the row of one line; its split is "" where the line does not say it."""
    path = next(cells[name] for name in PATH_COLUMNS if name in cells)
    label = next(cells[name] for name in LABEL_COLUMNS if name in cells)
    lesser = [cells[name] for name in cells if name in _LESSER_SPLITS and cells[name].lower() in SPLIT_NAMES]
    written = next((cells[name] for name in SPLIT_COLUMNS if name in cells), "".join(lesser[:1]))
    split = SPLIT_NAMES.get(written.lower(), "")
    if not path or not label or (written and not split):
        hint = "such as clips/a.mp4,wave,train; without a column split, the name of the list says which it is"
        raise UsageError(f"{place} is not a path, a label and train, val or test", hint)
    if _NUMBERS.fullmatch(label):
        message = f"{place} has more than one number behind the path: {printable(label)}"
        hint = "vadis reads one label of each whole video: path and label, without starts, ends or numbers of frames"
        raise UsageError(message, hint)
    return Row(place, path, label, split)


def _split_in(path: str) -> str | None:
    """Return the split that the first folder in a path says that is named after one."""
    return next(filter(None, map(split_of, path.replace("\\", "/").split("/")[:-1])), None)


def _has_columns(columns: Iterable[str]) -> bool:
    return not set(PATH_COLUMNS).isdisjoint(columns) and not set(LABEL_COLUMNS).isdisjoint(columns)


def _refuse_columns(path: str, columns: Collection[str]) -> None:
    """Refuse a table whose other columns change what its lines mean."""
    shown = printable(path)
    if scores := SCORE_COLUMNS.intersection(columns):
        message = f"{shown} holds what a model said (column {some(sorted(scores))}), and no labels"
        raise UsageError(message, "move it out of the dataset's folder")
    labels = [name for name in LABEL_COLUMNS if name in columns]
    if len(labels) > 1 and labels[0] in _LESSER_LABELS:
        raise UsageError(f"{shown} has the columns {some(labels)}: any may be the label", "call one of them label")
    if parts := PART_COLUMNS.intersection(columns):
        message = f"{shown} lists parts of videos (column {some(sorted(parts))}), which are not read from lists"
        raise UsageError(message, "cut the videos into clips, or remove the columns if a video is its clip")


def is_video_name(path: str) -> bool:
    """Return whether a path in a list ends as videos do."""
    return path.lower().rstrip("\"'").endswith(VIDEO_EXTENSIONS)


# Class lists say which class a number in a list of videos means: classes.txt and its kin have one name in a line,
# counted from 0, or a number and a name in any order; JSON has a list of names, or names and numbers.

CLASS_LIST_WORDS = {  # by which a list of classes is known: classes.txt, label_map_k400.txt, class_ids.json
    *("class", "classes", "classname", "classnames", "classind", "classid", "classids", "label", "labels"),
    *("labelmap", "labelmaps", "labelname", "labelnames", "category", "categories", "idtolabel", "labeltoid"),
}
MAX_JSON_LENGTH = 4 << 20  # a thousand names take some 30 KB
_NUMBER_FIRST = re.compile(r"(?P<number>\d+)[\s,;:]+(?P<name>\S.*)")
_NAME_FIRST = re.compile(r"(?P<name>.*\S)[\s,;:]+(?P<number>\d+)")
_HEADER_NUMBER = {"id", "index", "number", "class_id", "class_index", "label_id", "idx"}
_HEADER_NAME = {"name", "class", "class_name", "label", "label_name", "category"}
_HEADER_ALONE = _HEADER_NAME | {"names", "classes", "labels", "categories", "action"}


class ClassList(NamedTuple):
    """What numbers mean: ``names`` by number, in their order; ``path`` says where that is written."""

    path: str
    names: Mapping[int, str]


def is_class_list_name(path: str) -> bool:
    """Return whether a file is named as lists of classes are, and not after a split."""
    words = set(re.findall(r"[a-z]+", stem_of(path).lower()))
    return not words.isdisjoint(CLASS_LIST_WORDS) and words.isdisjoint(SPLIT_NAMES)


def find_class_list(tree: Tree) -> ClassList | None:
    """Return the class list of a dataset, or None; two that contradict each other are refused."""
    paths = filter(is_class_list_name, (*tree.lists, *tree.beside))
    found = [ClassList(path, names) for path in paths if (names := _read_class_list(path)) is not None]
    if others := [each.path for each in found if each.names != found[0].names]:
        message = f"two lists of classes contradict each other: {printable(found[0].path)} and {printable(others[0])}"
        raise UsageError(message, "remove the one that does not belong to these videos")
    return found[0] if found else None


def _read_class_list(path: str) -> dict[int, str] | None:
    """Return number → name, or None for a file that is no list of classes; one that names a class twice is refused."""
    pairs = _pairs_of_json(path) if path.lower().endswith(".json") else _pairs_of_text(path)
    names = {
        number: name.strip().strip('"').strip() for number, name in sorted(pairs)
    }  # Kinetics' JSON has quotes, too
    if not pairs or len(names) != len(pairs):  # many things of one number: rather a list of labels
        return None
    twice = [name for name, number in Counter(names.values()).items() if number > 1]
    if twice:
        message = f"the list of classes {printable(path)} names {counted(twice, 'class')} twice: {some(twice)}"
        raise UsageError(message, "write each class once")
    return names


def _pairs_of_text(path: str) -> list[tuple[int, str]]:
    """Return the numbers and names in a text; none where it is no list of classes."""
    lines = [line for _, line in read_lines(path)]
    if path.lower().endswith(".jsonl") or len(lines) < 2:
        return []
    if any(is_video_name(cell) for line in lines for cell in re.split(r"[\s,;]+", line)):
        return []
    heading = {cell.strip().lower() for cell in re.split(r"[,;\t]", lines[0])}
    has_header = len(heading) == 2 and bool(heading & _HEADER_NUMBER) and bool(heading & _HEADER_NAME)
    lines = lines[1:] if has_header or heading <= _HEADER_ALONE else lines
    is_table = path.lower().endswith((".csv", ".tsv"))
    if is_table and any(len(cells) > 2 for _, cells in scan.read_rows(path, "\t" if "\t" in lines[0] else ",")):
        return []
    for form in (_NUMBER_FIRST, _NAME_FIRST):
        matches = [form.fullmatch(line) for line in lines]
        numbered = [(int(match["number"]), match["name"]) for match in matches if match]
        is_clear = form is _NUMBER_FIRST or len({name for _, name in numbered}) == len(lines)  # no "gesture 1"
        if len(numbered) == len(lines) and is_clear:
            return numbered
    has_columns = is_table and any(re.search(r"[,;\t]", line) for line in lines)
    return [] if has_header or has_columns else list(enumerate(lines))


def _pairs_of_json(path: str) -> list[tuple[int, str]]:
    text = "".join(line for _, line in read_lines(path))
    try:
        value = parse_json(text) if len(text) <= MAX_JSON_LENGTH else None
    except ValueError:
        return []
    if isinstance(value, dict) and isinstance(value.get("id2label"), dict):
        value = value["id2label"]
    pairs = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    if isinstance(value, dict) and not all(key.isdecimal() for key in value):  # names and numbers
        pairs = [(number, name) for name, number in pairs]
    are_numbers = all(type(number) is int or str(number).isdecimal() for number, _ in pairs)
    are_names = all(isinstance(name, str) and name.strip() for _, name in pairs)
    return [(int(number), name) for number, name in pairs] if are_numbers and are_names else []
