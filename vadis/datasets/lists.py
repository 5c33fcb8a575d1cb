"""Lists of videos and labels as people have them, and the lists of classes that say what numbers in them mean."""

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any

from vadis.datasets import scan
from vadis.datasets.dataset import ListRow, counted, shorten
from vadis.datasets.scan import SPLIT_NAMES, Tree, folder_of, name_of, split_of, stem_of
from vadis.errors import UsageError
from vadis.files import os_errors_as
from vadis.parsing import is_text, open_text, parse_json
from vadis.results import printable
from vadis.video.sources import VIDEO_EXTENSIONS

HEAD_LINES = 20  # lines of a file by which its form is known

Rows = Iterator[tuple[str, dict[str, str]]]  # the place and the cells of each line, by column


def is_list_text(path: str) -> bool:
    """Return whether a file can be read and begins as lines of text."""
    with suppress(OSError), open(path, "rb") as file:
        head = file.read(1 << 16)  # a table of features may have lines of megabytes
        return is_text(head) and 0 < max(map(len, head.splitlines()), default=0) < 4096
    return False


def read_lines(path: str) -> Iterator[tuple[str, str]]:
    """Yield the lines of a list that are not empty, each with its place, for messages: "a.txt, line 3,".

    Bytes that are not text are kept as surrogates, as in the names of files.
    """
    with os_errors_as(UsageError, f"the list {printable(path)} cannot be read"), open_text(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{printable(path)}, line {number},", line.strip(" \r\n")


def read_rows(path: str, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the lines as cells without blanks at their ends; those without any text are left out."""
    for place, line in read_lines(path):
        try:
            cells = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))]
        except csv.Error as error:
            raise UsageError(f"{place} cannot be read: {error}", "save the list as CSV again") from error
        if any(cells):
            yield place, cells


def read_table(path: str, is_header: Callable[[set[str]], bool]) -> Rows:
    """Yield the rows of a list with a header, which must all have as many cells; raise ValueError without a header."""
    for delimiter in ",\t; ":
        rows = read_rows(path, delimiter)
        columns = [name.lower() for name in next(rows, ("", []))[1]]
        if is_header(set(columns)):
            break
    else:
        raise ValueError
    for place, cells in rows:
        if len(cells) < len(columns) or any(cells[len(columns) :]):
            hint = printable(f"write all of {','.join(columns)}; a cell may be empty; quote one with a comma in it")
            raise UsageError(f"{place} has {len(cells)} cells instead of {len(columns)}", hint)
        yield place, dict(zip(columns, cells, strict=False))


# Videos and labels

PATH_COLUMNS = (  # those that name the video, the best first: of clip_name and clip_path the path counts
    *("path", "file_name", "filename", "file_path", "filepath", "video_path", "clip_path", "relative_path"),
    *("file", "video", "clip", "video_name", "clip_name", "filenames", "videos"),
)
LABEL_COLUMNS = (  # those that name the class, the best first: a name counts before a number
    *("label_name", "class_name", "label_text", "label_str", "label"),
    *("class", "category", "action", "tag", "target", "activity", "label_id", "class_id"),  # of two, any may be it
)
SPLIT_COLUMNS = ("split", "subset", "partition")  # the best first
_LESSER_SPLITS = {"set", "phase", "mode", "usage", "type", "dataset_split", "group", "fold"}  # if they hold splits
_OTHER_COLUMNS = {  # those of parts of videos, and of what a model said
    *("start", "end", "start_time", "end_time", "time_start", "time_end", "start_frame", "end_frame"),
    *("start_sec", "end_sec", "start_seconds", "end_seconds", "stop", "begin"),
    *("score", "confidence", "probability", "prediction", "predicted", "rank"),
}

# Of UCF-101 and HMDB-51: three splits in one folder.
_OFFICIAL = re.compile(r"(train|test)list0\d\.txt|classind\.txt|.+_test_split[123]\.txt")
_ENDING = "|".join(re.escape(each) for each in VIDEO_EXTENSIONS)
_LABELLED = rf"(?P<path>.+(?:{_ENDING}))[\"']?(?P<between>[\s,;]+)(?P<label>(?P<quoted>\"[^\"]*\"|'[^']*')|\S.*)"
_TWO_WORDS = rf"(?P<path>[^\s,;]*)[\s,;]+(?!\S*(?:{_ENDING})[\"']*$)(?P<label>[^\s,;]*)"
_PATH_ALONE = rf"(?P<path>(?:.*[\\/])?(?P<label>[^\\/]+)[\\/][^\\/]+(?:{_ENDING})[\"']*)"
_NUMBERS = re.compile(r"[+-]?\d+(?:[\s,;|]+[+-]?\d+)+")


def _has_columns(columns: Iterable[str]) -> bool:
    return not set(PATH_COLUMNS).isdisjoint(columns) and not set(LABEL_COLUMNS).isdisjoint(columns)


def lines_like(pattern: str, path: str) -> Rows:
    """Yield the lines by the groups of a pattern, without quotation marks."""
    for place, line in read_lines(path):
        match = re.fullmatch(pattern, line, re.IGNORECASE)
        if match is None:
            raise ValueError
        yield place, {name: cell.strip("\"' ") for name, cell in match.groupdict("").items()}


def _labelled_lines(path: str) -> Rows:
    for place, cells in lines_like(_LABELLED, path):
        if any(each in cells["label"] and each in cells["between"] for each in ",;\t") and not cells["quoted"]:
            message = f"{place} has more than a path and a label: {printable(cells['label'])}"
            raise UsageError(message, "write path and label; a label with commas goes between quotation marks")
        yield place, cells


def _json_lines(path: str) -> Rows:
    for place, line in read_lines(path):
        value = parse_json(line)
        pairs = value.items() if isinstance(value, dict) else ()
        cells = {str(key).lower(): str(each) for key, each in pairs if isinstance(each, str | int | float)}
        if not _has_columns(cells):
            raise ValueError
        yield place, cells


LIST_FORMS: dict[str, Callable[[str], Rows]] = {
    "jsonl": _json_lines,
    "header": partial(read_table, is_header=_has_columns),
    "line": _labelled_lines,
    "no ending": partial(lines_like, _TWO_WORDS),
    "path alone": partial(lines_like, _PATH_ALONE),
}
"""The forms of lists (docs/datasets.md) in the order in which they are tried; ValueError: a line is of another form."""
_NEED_SPLIT = {"no ending", "path alone"}  # only lists that are named after a split are of these forms


def first_form(path: str, forms: Mapping[str, Callable[[str], Rows]]) -> str | None:
    """Return the first form that the first lines of a list are of, or None; a list with a header may have no lines."""
    for name, rows in forms.items():
        with suppress(ValueError):
            if list(islice(rows(path), HEAD_LINES)) or name == "header":
                return name
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


def video_lists(tree: Tree) -> dict[str, str]:
    """Return the lists of videos in a tree: path → key of ``LIST_FORMS``; of each only the first lines are read."""
    # A list that was named itself is one in any case.
    is_alone = bool(tree.lists) and not tree.videos and (folder_of(tree.lists[0]) or ".") == tree.root
    paths = [path for path in tree.lists if not path.lower().endswith(".json")]
    paths = [path for path in paths if (is_alone or _may_be_list(tree, path)) and is_list_text(path)]
    return {path: form for path in paths if (form := _form_of(path)) is not None}


def unread_lists(tree: Tree, forms: Collection[str]) -> list[str]:
    """Return the lists that are named after a split, or "metadata", and that are of no form: paths below the root."""
    paths = [path for path in tree.lists if path not in forms and not _OFFICIAL.fullmatch(name_of(path).lower())]
    stems = {path: stem_of(path) for path in paths}
    return [tree.relative(path) for path in paths if stems[path].lower() == "metadata" or scan.split_words(stems[path])]


def is_named(tree: Tree, pattern: re.Pattern[str]) -> bool:
    """Return whether nearly all names fit ``pattern``, and nothing else says how the videos are to be divided."""
    named = sum(pattern.fullmatch(stem_of(path)) is not None for path in tree.videos)
    is_mostly = bool(tree.videos) and named >= 0.9 * len(tree.videos)
    return is_mostly and not tree.has_split_folders() and not video_lists(tree)


def _may_be_list(tree: Tree, path: str) -> bool:
    """Return whether a file lies and is called as lists of videos do; no file is opened but tables in the root."""
    name, stem = name_of(path).lower(), stem_of(path)
    # A table below the root, but in folders of splits, lists or containers, is rather somebody's notes.
    above = tree.parts(path)[:-1] if path.startswith(tree.root + os.sep) else ()
    is_metadata = stem.lower() == "metadata" and len(above) == 1
    if _OFFICIAL.fullmatch(name) or not (all(map(scan.is_usual_name, above)) or is_metadata):
        return False
    if scan.is_usual_name(stem) or scan.split_of_list(stem):
        return True
    is_table = not above and name.endswith((".csv", ".tsv")) and not is_class_list_name(path)
    return is_table and first_form(path, {"header": LIST_FORMS["header"]}) is not None


def _form_of(path: str) -> str | None:
    """Return the form of a list, or None; one that is named after a split, with lines unlike each other, is refused."""
    is_json, split = path.lower().endswith(".jsonl"), split_of(stem_of(path))
    names = [name for name in LIST_FORMS if is_json == (name == "jsonl") and (split or name not in _NEED_SPLIT)]
    name = first_form(path, {name: LIST_FORMS[name] for name in names})
    if name is None and split and not is_json:
        lines = list(islice(read_lines(path), HEAD_LINES))
        odd = [f"{place} {printable(line)}" for place, line in lines if not re.match(_LABELLED, line, re.IGNORECASE)]
        if 2 * len(odd) < len(lines):
            raise UsageError(f"{odd[0]}: not like the other lines", "write all lines alike")
    return name


def read_list(path: str, form: str, root: str) -> list[ListRow]:
    """Return all rows of a list in a dataset at ``root``; each has a path, one label, and one of the three splits.

    The splits are as the rows say, else as the names of the list, its folder, or the folders in paths say.
    """
    rows = [_row(place, cells) for place, cells in rows_alike(path, LIST_FORMS[form])]
    if not rows:
        raise UsageError(f"the list {printable(path)} names no video", "complete it, or remove it")
    folder, stem = folder_of(path), stem_of(path)
    of_list = scan.split_of_list(stem) or (split_of(name_of(folder)) if folder != root else None)
    by_folders = [filter(None, map(split_of, row.name.replace("\\", "/").split("/")[:-1])) for row in rows]
    splits = [row.split or of_list or next(names, None) for row, names in zip(rows, by_folders, strict=True)]
    if any(splits) and not all(splits):
        place = rows[splits.index(None)].place
        raise UsageError(f"{place} is in no split, and others of the list are", "give the list a column split")
    if not any(splits) and scan.split_words(stem):
        message = f"the name of {printable(path)} says more than one split, or one that is not known"
        raise UsageError(message, "name it train, val or test, or give it a column split")
    return [row._replace(split=split or "train") for row, split in zip(rows, splits, strict=True)]


def _row(place: str, cells: dict[str, str]) -> ListRow:
    """Return the row of one line; its split is "" where the line does not say it."""
    path, label, written = (
        next((cells[name] for name in names if name in cells), "")
        for names in (PATH_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS)
    )
    lesser = [cells[name] for name in cells if name in _LESSER_SPLITS and cells[name].lower() in SPLIT_NAMES]
    split = SPLIT_NAMES.get((written or "".join(lesser[:1])).lower(), "")
    labels, fault = [name for name in LABEL_COLUMNS if name in cells], ""
    if others := _OTHER_COLUMNS.intersection(cells):
        fault = (
            f"is of a part of a video, or what a model said ({counted(others, 'column')}: {shorten(sorted(others))})"
        )
    elif len(labels) > 1 and labels[0] in LABEL_COLUMNS[LABEL_COLUMNS.index("class") :]:
        fault = f"has the columns {shorten(labels)}: any may be the label"
    elif _NUMBERS.fullmatch(label):
        fault = f"has more than one number behind the path: {printable(label)}"
    elif not path or not label or (written and not split):
        fault = "is not a path, a label and train, val or test"
    if fault:
        hint = "write path, label and split of each whole video, such as clips/a.mp4,wave,train; move other tables away"
        raise UsageError(f"{place} {fault}", hint)
    return ListRow(path, label, split, place=place)


def is_video_name(path: str) -> bool:
    """Return whether a path in a list ends as videos do."""
    return path.lower().rstrip("\"'").endswith(VIDEO_EXTENSIONS)


# Class lists say which class a number in a list of videos means: classes.txt and its kin have one name in a line,
# counted from 0, or a number and a name in any order; JSON has a list of names, or names and numbers.

# classes.txt, label_map_k400.txt, class_ids.json
_CLASS_LIST_WORD = re.compile(r"class(es|names?|ids?|ind)?|labels?|label(maps?|names?|toid)|idtolabel|categor(y|ies)")
_NUMBER_FIRST = re.compile(r"(?P<number>\d+)[\s,;:]+(?P<name>\S.*)")
_NAME_FIRST = re.compile(r"(?P<name>.*\S)[\s,;:]+(?P<number>\d+)")
_HEADERS = {*LABEL_COLUMNS, "name", "names", "classes", "labels", "categories"}  # of names without numbers


def is_class_list_name(path: str) -> bool:
    """Return whether a file is named as lists of classes are, and not after a split."""
    words = set(re.findall(r"[a-z]+", stem_of(path).lower()))
    return any(map(_CLASS_LIST_WORD.fullmatch, words)) and words.isdisjoint(SPLIT_NAMES)


def find_class_list(tree: Tree) -> tuple[str, dict[int, str]]:
    """Return the path of a dataset's class list, for messages, and its names by number; "" and none without one.

    Two that contradict each other are refused.
    """
    place, known = "", dict[int, str]()
    for path in filter(is_class_list_name, (*tree.lists, *tree.beside)):
        pairs = _pairs_of_json(path) if path.lower().endswith((".json", ".jsonl")) else _pairs_of_text(path)
        names = {number: name.strip().strip('"').strip() for number, name in sorted(pairs)}  # Kinetics has quotes, too
        if not pairs or len(names) != len(pairs):  # many things of one number: rather a list of labels
            continue
        if twice := [name for name, number in Counter(names.values()).items() if number > 1]:
            message = f"the list of classes {printable(path)} names {counted(twice, 'class')} twice: {shorten(twice)}"
            raise UsageError(message, "write each class once")
        if known and names != known:
            message = f"two lists of classes contradict each other: {place} and {printable(path)}"
            raise UsageError(message, "remove the one that does not belong to these videos")
        place, known = place or printable(path), names
    return place, known


def _pairs_of_text(path: str) -> list[tuple[int, str]]:
    lines = [line for _, line in read_lines(path)]
    if len(lines) < 2 or any(is_video_name(cell) for line in lines for cell in re.split(r"[\s,;]+", line)):
        return []
    lines = lines[1:] if lines[0].lower() in _HEADERS else lines
    is_table = path.lower().endswith((".csv", ".tsv"))
    if is_table and any(len(cells) > 2 for _, cells in read_rows(path, "\t" if "\t" in lines[0] else ",")):
        return []
    for form in (_NUMBER_FIRST, _NAME_FIRST):
        matches = [form.fullmatch(line) for line in lines]
        has_header = matches[0] is None and re.search(r"[,;\t]", lines[0]) is not None
        numbered = [(int(match["number"]), match["name"]) for match in matches if match]
        is_clear = form is _NUMBER_FIRST or len({name for _, name in numbered}) == len(numbered)  # no "gesture 1"
        if numbered and len(numbered) == len(lines) - has_header and is_clear:
            return numbered
    return [] if is_table and any(re.search(r"[,;\t]", line) for line in lines) else list(enumerate(lines))


def _pairs_of_json(path: str) -> list[tuple[int, str]]:
    text = "".join(line for _, line in read_lines(path))
    with suppress(ValueError, AttributeError):
        value: Any = parse_json(text) if len(text) <= 4 << 20 else None  # a thousand names take some 30 KB
        value = value["id2label"] if isinstance(value, dict) and "id2label" in value else value
        pairs = list(enumerate(value) if isinstance(value, list) else value.items())
        if isinstance(value, dict) and not all(map(str.isdecimal, value)):  # names and numbers
            pairs = [(number, name) for name, number in pairs]
        if all(isinstance(name, str) and name.strip() for _, name in pairs):
            return [(int(str(number)), name) for number, name in pairs]
    return []
