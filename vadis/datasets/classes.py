"""Class lists: which class a number in a list of videos means.

``classes.txt`` and its kin have one name in a line, counted from 0, or a number and a name in any order; JSON has a
list of names, or names and numbers. All class lists of a dataset must say the same.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vadis.datasets.dataset import counted, some
from vadis.datasets.scan import SPLIT_NAMES, Tree, read_lines, read_rows, stem_of
from vadis.errors import UsageError, what_next
from vadis.parsing import parse_json
from vadis.results import printable
from vadis.video.sources import VIDEO_EXTENSIONS

NAME_WORDS = frozenset(
    {
        *("class", "classes", "classname", "classnames", "classind", "classid", "classids", "label", "labels"),
        *("labelmap", "labelmaps", "labelname", "labelnames", "category", "categories", "idtolabel", "labeltoid"),
    }
)
"""Words by which a list of classes is known: classes.txt, label_map_k400.txt, classInd.txt, class_ids.json."""

MAX_JSON_BYTES = 4 << 20  # a thousand names take some 30 KB

_NUMBER_FIRST = re.compile(r"(?P<number>\d+)[\s,;:]+(?P<name>\S.*)")
_NAME_FIRST = re.compile(r"(?P<name>.*\S)[\s,;:]+(?P<number>\d+)")
_HEADER_NUMBER = {"id", "index", "number", "class_id", "class_index", "label_id", "idx"}
_HEADER_NAME = {"name", "class", "class_name", "label", "label_name", "category"}
_HEADER_ALONE = _HEADER_NAME | {"names", "classes", "labels", "categories", "action"}


@dataclass(frozen=True)
class ClassList:
    """What numbers mean: ``names`` by number; ``path`` says where that is written."""

    path: str
    names: Mapping[int, str]


def is_class_list_name(path: str) -> bool:
    """Whether a file is named as lists of classes are, and not after a split."""
    words = set(re.findall(r"[a-z]+", stem_of(path).lower()))
    return bool(words & NAME_WORDS) and not words & SPLIT_NAMES.keys()


def find_class_list(tree: Tree) -> ClassList | None:
    """The class list of a dataset, or None.

    Raises:
        UsageError: for two class lists that contradict each other, or one that names a class twice.
    """
    found: ClassList | None = None
    for path in (*tree.lists, *tree.beside):
        names = _read(path) if is_class_list_name(path) else None
        if names is None:
            continue
        if found is not None and found.names != names:
            message = f"two lists of classes contradict each other: {printable(found.path)} and {printable(path)}"
            raise UsageError(message, "remove the one that does not belong to these videos")
        found = found or ClassList(path, names)
    return found


def _read(path: str) -> dict[int, str] | None:
    """Number → name, or None for a file that is no list of classes."""
    pairs = _pairs_of_json(path) if path.lower().endswith(".json") else _pairs_of_text(path)
    if not pairs:
        return None
    names = dict(pairs)
    if len(names) != len(pairs):  # many things of one number: rather a list of labels
        return None
    twice = [name for name, number in Counter(names.values()).items() if number > 1]
    if twice:
        message = f"the list of classes {printable(path)} names {counted(twice, 'class')} twice: {some(twice)}"
        raise UsageError(message, "write each class once")
    return names


def _pairs_of_text(path: str) -> list[tuple[int, str]] | None:
    if path.lower().endswith(".jsonl"):
        return None
    lines = [line for _, line in read_lines(path)]
    if len(lines) < 2 or any(_names_video(line) for line in lines):
        return None
    heading = {cell.strip().lower() for cell in re.split(r"[,;\t]", lines[0])}
    has_header = len(heading) == 2 and bool(heading & _HEADER_NUMBER) and bool(heading & _HEADER_NAME)
    lines = lines[1:] if has_header or heading <= _HEADER_ALONE else lines
    is_table = path.lower().endswith((".csv", ".tsv"))
    if is_table and any(len(cells) > 2 for _, cells in read_rows(path, "\t" if "\t" in lines[0] else ",")):
        return None
    for form in (_NUMBER_FIRST, _NAME_FIRST):
        matches = [form.fullmatch(line) for line in lines]
        numbered = [(int(match["number"]), _unquoted(match["name"])) for match in matches if match]
        is_clear = form is _NUMBER_FIRST or len({name for _, name in numbered}) == len(lines)  # no "gesture 1"
        if numbered and len(numbered) == len(lines) and is_clear:
            return numbered
    is_table = is_table and any(re.search(r"[,;\t]", line) for line in lines)
    return None if has_header or is_table else [(number, _unquoted(line)) for number, line in enumerate(lines)]


def _pairs_of_json(path: str) -> list[tuple[int, str]] | None:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
        value = parse_json(content) if len(content) <= MAX_JSON_BYTES else None
    except OSError as error:
        message = f"the list {printable(path)} cannot be read: {error.strerror}"
        raise UsageError(message, what_next(error.errno)) from error
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict) and isinstance(value.get("id2label"), dict):
        value = value["id2label"]
    if isinstance(value, list):
        return [(number, _unquoted(name)) for number, name in enumerate(value)] if _are_texts(value) else None
    if not isinstance(value, dict):
        return None
    if all(key.isdecimal() for key in value) and _are_texts(value.values()):
        return [(int(key), _unquoted(name)) for key, name in value.items()]
    if all(type(number) is int or (isinstance(number, str) and number.isdecimal()) for number in value.values()):
        return [(int(number), _unquoted(name)) for name, number in value.items()]
    return None


def _are_texts(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) and value.strip() for value in values)


def _unquoted(name: str) -> str:
    """A name without the quotation marks around it, of which published lists have some in their names' text."""
    return name.strip().strip('"').strip()


def _names_video(line: str) -> bool:
    return any(cell.lower().endswith(VIDEO_EXTENSIONS) for cell in re.split(r"[\s,;]+", line))
