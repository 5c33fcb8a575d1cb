"""What every dataset becomes, and how: lines of lists and files → ``Example`` → ``Dataset``, with notes on the way."""

import difflib
import hashlib
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from vadis.datasets.scan import SPLITS, Tree, class_key, folder_of, is_generic_folder, is_replacement, name_of, stem_of
from vadis.errors import UsageError, VideoError
from vadis.results import printable

if TYPE_CHECKING:
    from vadis.inference.prefetch import PendingVideo
    from vadis.models import Model
    from vadis.video.isolated.pool import Decoders

T = TypeVar("T")

ALLOWED_MISSING = 0.1  # a tenth of a split's files missing changes its accuracy by more than papers argue about


@dataclass(frozen=True, slots=True)
class Example:
    """A video, or the part ``[start_seconds, end_seconds)`` of one, with its class."""

    path: str
    label: str
    start_seconds: float | None = None  # None: the file is the clip
    end_seconds: float | None = None
    may_be_trimmed: bool = False  # the file may also be nothing but the clip, which only its length tells; see span

    def span(self, seconds: float | None) -> tuple[float, float | None]:
        """Return where the example begins and ends in its file of ``seconds``; None: unknown, or at the file's end.

        A file that may be trimmed is the clip where it ends before the clip would begin, and where its length is nearer
        to the clip's than to what a whole video would need at least: a whole video is never shorter than its parts.
        """
        start, end = self.start_seconds or 0.0, self.end_seconds
        if not self.may_be_trimmed or seconds is None or end is None:
            return start, end
        is_trimmed = seconds <= start or abs(seconds - (end - start)) <= end - seconds
        return (0.0, None) if is_trimmed else (start, end)


class ListRow(NamedTuple):
    """A line of a list: the file as it is written, its class and split, and the key by which the file is found."""

    name: str
    label: str
    split: str  # "" where the line does not say it
    key: str = ""
    place: str = ""  # of the line
    file: str | None = None  # that a path means, once it is found
    whole: str = ""  # the key of a longer file that may lie in its place: the clip is [start, end) in it
    start_seconds: float = 0.0
    end_seconds: float = 0.0
    is_only: bool = True  # no other clip is listed of the longer file, so that may be this clip alone


class Request(NamedTuple):
    """Which split of a dataset is wanted (from 1), and how complete it must be; see ``find_dataset``."""

    split: int = 1
    allow_missing: float = ALLOWED_MISSING


@dataclass(frozen=True)
class Dataset:
    """The examples of one split of a dataset."""

    name: str  # a key of DATASETS
    root: str  # the folder it was read from
    classes: tuple[str, ...]  # in the order of a model's outputs
    split: int  # the number of the official split
    splits: Mapping[str, tuple[Example, ...]]  # "train", "val", "test", those that there are; in a stable order
    notes: tuple[str, ...] = ()  # what to know before hours are spent on it: files that are missing or in no split, …

    def examples(self, split: str) -> tuple[Example, ...]:
        """Return the examples of "train", "val" or "test"; a split that is not on disk is an error."""
        if split not in self.splits:
            message = f"{self.name} in {printable(self.root)} has no {split} split (it has {', '.join(self.splits)})"
            raise UsageError(message, f"add its videos: in a folder {split}/, or with lists that name them")
        return self.splits[split]

    def summary(self) -> str:
        """Return text for the terminal: what there is, then the notes, one in a line."""
        sizes = ", ".join(f"{split} {len(examples):,}" for split, examples in self.splits.items())
        head = f"{self.name}, split {self.split}, in {printable(self.root)}"
        return "\n  ".join([head, f"{len(self.classes):,} classes; examples: {sizes}", *self.notes])


def path_below(path: str, root: str) -> str:
    """Return ``path`` as seen from the folder of its dataset: the same wherever that lies, and however it is named."""
    return os.path.relpath(path, root)


def shorten(names: Iterable[str], most: int = 5) -> str:
    """Return the first few of ``names`` as text, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - most:,} more" if len(every) > most else ""
    return ", ".join(map(printable, every[:most])) + more


def counted(things: Collection[object], noun: str) -> str:
    """Return "1 file", "1,200 files", "2 classes"."""
    plural = "" if len(things) == 1 else "es" if noun.endswith("s") else "s"
    return f"{len(things):,} {noun}{plural}"


def make_note(what: str, names: Collection[str], noun: str) -> list[str]:
    """Return a note such as "missing: 2 files: a, b"; none where there are no names."""
    return [f"{what}: {counted(names, noun)}: {shorten(names)}"] if names else []


# Lists against files: which file each line means, and what is wrong with the lists, the files or the folders


def assemble(
    tree: Tree,
    request: Request,
    name: str,  # a key of DATASETS
    classes: tuple[str, ...],  # in the order of a model's outputs
    lines: Sequence[ListRow],  # of all splits; "" for those that the lists know and that no split uses
    key: Callable[[str], str],  # a path → what its file is found by
    *,
    files: Iterable[str] | None = None,  # by default the tree's videos
    notes: Iterable[str] = (),
    are_folders_classes: bool = True,  # whether a folder with the name of a class holds that class
) -> Dataset:
    """Return the dataset that lists describe, as far as it is on disk.

    Two labels for one file, a file in two splits or in the folder of another class, and too many missing are refused.
    """
    kept, repeated = _without_repetitions(line for line in lines if line.split)
    paths: dict[str, list[str]] = {}
    for path in tree.videos if files is None else files:
        paths.setdefault(key(path), []).append(path)
    found: dict[str, list[Example]] = {split: [] for split in SPLITS}
    missing: dict[str, list[str]] = {split: [] for split in SPLITS}
    copies: dict[str, None] = {}  # an ordered set
    for line in kept:
        candidates = _best_first(paths.get(line.key) or paths.get(line.whole) or [], line.label)
        copies.update(dict.fromkeys(candidates[1:]))
        if candidates:
            part = () if line.key in paths else (line.start_seconds, line.end_seconds, line.is_only)
            found[line.split].append(Example(candidates[0], line.label, *part))
        else:
            missing[line.split].append(line.name)
    splits = {split: tuple(examples) for split, examples in found.items() if examples}
    if not splits:
        nowhere = f"is under {printable(tree.root)}: {shorten(line.name for line in kept)}"
        message = f"none of the {len(kept):,} files that {name} lists {nowhere}"
        raise UsageError(message, "name the folder that holds the videos")
    all_notes = list(notes)
    for split, names in missing.items():
        if split in splits:
            total = len(names) + len(found[split])
            all_notes += check_missing(f"{name}'s {split} split", len(names), total, request, names)
        elif names:  # on purpose: no reason to stop
            all_notes.append(f"the {split} split is left out: none of its {counted(names, 'file')} is here")
    known = {key for line in lines for key in (line.key, line.whole)}
    of_no_split = [tree.relative(path) for key, each in paths.items() if key not in known for path in each]
    all_notes += make_note("in no split", of_no_split, "file")
    all_notes += make_note("more than once, used once", (*repeated, *map(tree.relative, copies)), "file")
    if are_folders_classes:
        all_notes += _check_folders(classes, tree, splits)
    return Dataset(name, tree.root, classes, request.split, splits, (*all_notes, *tree.unreadable))


def _best_first(paths: list[str], label: str) -> list[str]:
    """Return copies of one file: first one that replaces a broken one, then that in the folder of the class."""
    if len(paths) < 2:
        return paths
    own = class_key(label)
    return sorted(paths, key=lambda path: (not is_replacement(path), class_key(name_of(folder_of(path))) != own))


def _without_repetitions(lines: Iterable[ListRow]) -> tuple[list[ListRow], list[str]]:
    """Return the lines without those that say the same again, and the names of these; refuse contradictions."""
    first: dict[str, ListRow] = {}
    repeated, wrong = list[str](), list[str]()
    for line in sorted(lines, key=lambda line: SPLITS.index(line.split)):
        other = first.setdefault(line.key, line)
        if other.label != line.label:
            wrong.append(f"{line.name} ({other.label}, {line.label})")
        elif other.split != line.split:
            wrong.append(f"{line.name} ({other.split}, {line.split})")
        elif other is not line:
            repeated.append(line.name)
    if wrong:
        message = f"the lists give two labels or two splits to {counted(wrong, 'file')}: {shorten(wrong)}"
        raise UsageError(message, "take out the lines that are wrong; a test on what was learnt proves nothing")
    return list(first.values()), repeated


def check_missing(place: str, number: int, total: int, request: Request, names: Collection[str] = ()) -> list[str]:
    """Return a note on missing files, if any; refuse so many that a result would not be what it says."""
    if not number:
        return []
    message = f"{number:,} of the {total:,} files of {place} are missing ({number / total:.1%})"
    message += f": {shorten(names)}" if names else ""
    if number / total >= request.allow_missing:
        hint = "complete the dataset, or accept results that cannot be compared with others' by raising the share of "
        raise UsageError(message, f"{hint}files that may be missing (now {request.allow_missing:g})")
    return [message]


def _check_folders(classes: Iterable[str], tree: Tree, splits: Mapping[str, Iterable[Example]]) -> list[str]:
    """Refuse files in the folder of another class; return notes on folders that lie beside those of classes."""
    by_key = {class_key(label): label for label in classes}
    folders = {each: by_key.get(class_key(name_of(each))) for each in tree.video_folders() if each != tree.root}
    wrong = [
        f"{tree.relative(example.path)} (listed as {example.label})"
        for examples in splits.values()
        for example in examples
        if (folders.get(folder_of(example.path)) or example.label) != example.label
    ]
    if wrong:
        message = f"{counted(wrong, 'file')} with two labels, in the folder of another class: {shorten(wrong)}"
        raise UsageError(message, "move each file to the folder of its class")
    beside = {folder_of(folder) for folder, label in folders.items() if label is not None}
    strange = [folder for folder, label in folders.items() if label is None and folder_of(folder) in beside]
    return [f"folder {tree.relative(each)}: no such class{did_you_mean(name_of(each), classes)}" for each in strange]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return "; did you mean NAME?" for the one of ``names`` that ``name`` is most like; "" if it is like none."""
    by_key = {class_key(each): each for each in names}
    close = difflib.get_close_matches(class_key(name), by_key, n=1, cutoff=0.75)  # "Archry", "Archery": 0.92
    return f"; did you mean {printable(by_key[close[0]])}?" if close else ""


# Training clips that are held out for validation, where a dataset has no split for it; and classes without any
#
# A recording is held out as a whole: its pieces look alike, and a network that learnt one of them knows the others.
# What is one recording, only the names of the files say: names that differ in nothing but a trailing number are its
# pieces (v_Archery_g08_c03 of UCF-101, …_goo_0 of HMDB-51), unless that number is all there is to a name beside that of
# the class (wave/wave_01, wave/wave_video_01), or a camera gave it (IMG_0001).
_CUT_TIMES = re.compile(r"_\d{6}_\d{6}$")  # of Kinetics, in seconds: <id>_000010_000020
_TRAILING_NUMBER = re.compile(r"[\W_]*\d+[\W_]*$")
_CAMERA_NAME = re.compile(
    r"(img|imag|mvi|mov|vid|dsc|dscn|dscf|sam|pxl|dji|p)[-_]?\d{4,}"  # four digits or more: the DCF standard
    r"|(img|vid|pxl)[-_]\d{8}[-_](wa)?\d{4,}",  # a date and a time, or a number of that day
    re.IGNORECASE,
)


class Division(NamedTuple):
    """Training examples divided in two, in their order."""

    train: tuple[Example, ...]
    val: tuple[Example, ...]
    notes: tuple[str, ...]  # what could not be divided, and why


def hold_out(examples: Sequence[Example], share: Fraction, root: str) -> Division:
    """Hold out about ``share`` of the clips of every class, whole recordings only, and never the last one of a class.

    The choice depends on the examples' paths below ``root`` and on nothing else.
    """
    groups, notes = _groups(examples, [recording(each, root) for each in examples]), list[str]()
    num_groups = Counter(label for group in groups.values() for label in {each.label for each in group})
    is_vague = all(map(str.isalpha, groups)) and max(num_groups.values(), default=0) < 2  # one word each: clip_01
    single = _groups(examples, [path_below(each.path, root) for each in examples]) if is_vague else {}
    if len(single) > len(groups):
        groups = single
        notes.append(
            "the names of the files do not tell recordings apart: validation takes single clips, and pieces of one "
            "recording may be on both sides; folders train/ and val/ settle it"
        )
    chosen = _choose(groups, share)
    train, val = (tuple(each for each in examples if (each in chosen) == is_val) for is_val in (False, True))
    without = sorted({each.label for each in train} - {each.label for each in val})
    notes += make_note("no clip for validation, because all are of one recording", without, "class")
    return Division(train, val, tuple(notes))


def recording(example: Example, root: str) -> str:
    """Return a name for the recording that a clip is a piece of, by the name of its file."""
    stem = stem_of(example.path)
    name = _CUT_TIMES.sub("", stem)
    name = _TRAILING_NUMBER.sub("", stem) if name == stem else name
    rest = class_key(name).replace(class_key(example.label), "", 1)  # of "wave_video": "video"
    says_class_alone = rest != class_key(name) and (not rest or is_generic_folder(rest))
    has_name = any(map(str.isalpha, name)) and not _CAMERA_NAME.fullmatch(stem)
    if not has_name or (name != stem and says_class_alone):
        return path_below(example.path, root)
    return name.casefold()


def without_untrained(dataset: Dataset) -> Dataset:
    """Return the dataset without classes that have no training clip: a network cannot learn them.

    Their validation and test clips go with them: a test would only count them as wrong. Two classes must be left.
    """
    trained = {example.label for example in dataset.examples("train")}
    lost = [label for label in dataset.classes if label not in trained]
    if lost and len(trained) < 2:
        classes = f"{counted(trained, 'class')} of {len(dataset.classes):,}"
        message = f"only {classes} has training clips here: {shorten(trained)}"
        raise UsageError(message, hint="complete the dataset: two classes are needed, at least")
    kept = {split: tuple(each for each in every if each.label in trained) for split, every in dataset.splits.items()}
    note = f"left out, because no training clip of them is here: {counted(lost, 'class')}: {printable(', '.join(lost))}"
    return replace(
        dataset,
        classes=tuple(label for label in dataset.classes if label in trained),
        splits={split: examples for split, examples in kept.items() if examples},
        notes=(*dataset.notes, *([note] if lost else [])),
    )


def _groups(examples: Iterable[Example], names: Iterable[str]) -> dict[str, list[Example]]:
    """Return the examples by recording, in an order drawn by the recordings' names."""
    groups: dict[str, list[Example]] = {}
    for example, name in zip(examples, names, strict=True):
        groups.setdefault(name, []).append(example)
    return dict(sorted(groups.items(), key=lambda group: hashlib.sha256(os.fsencode(group[0])).digest()))


def _choose(groups: Mapping[str, Sequence[Example]], share: Fraction) -> set[Example]:
    """Return the examples of recordings that fit into what each class wants; for lack of any, of the smallest."""
    counts = {name: Counter(each.label for each in group) for name, group in groups.items()}
    total = Counter(each.label for group in groups.values() for each in group)
    limits = {label: min(max(1, round(share * number)), number - 1) for label, number in total.items()}
    held: Counter[str] = Counter()
    chosen: set[Example] = set()
    by_size = sorted(counts.items(), key=lambda each: each[1].total())
    for name, count in counts.items():
        if all(held[label] + number <= limits[label] for label, number in count.items()):
            chosen.update(groups[name])
            held += count
    for name, count in by_size:
        lacks = any(held[label] == 0 for label in count)
        if lacks and all(held[label] + number < total[label] for label, number in count.items()):
            chosen.update(groups[name])
            held += count
    return chosen


# What the networks make of examples


def map_examples(
    examples: Iterable[Example],
    model: "Model",
    work: "Callable[[PendingVideo], T]",
    jobs: int | None = None,
    *,
    whole: bool = False,
) -> Generator[tuple[Example, T | VideoError], None, None]:
    """Yield what ``work`` makes of each example, in order, or why it fails.

    It gets the part that the paper's test sees, or with ``whole`` all of it. ``jobs`` as for ``classify_many``.
    """
    from vadis.inference.prefetch import LocalVideo, map_videos
    from vadis.models import MODELS
    from vadis.video.isolated.pool import Decoders

    rate, most = model.card.frame_rate, None if whole else MODELS[model.card.architecture].test_frames

    def begin(example: Example) -> LocalVideo:
        start, end = example.span(_duration(example.path, decoders) if example.may_be_trimmed else None)
        first = round(start * rate)
        limits = [most, None if end is None else max(1, round(end * rate) - first)]
        count = min((each for each in limits if each is not None), default=None)
        return LocalVideo(example.path, model, decoders, listed=True, start_frame=first, max_frames=count)

    with Decoders() as decoders:
        for example, _, outcome in map_videos(examples, begin, work, model, jobs=jobs):
            yield example, outcome


def _duration(path: str, decoders: "Decoders") -> float | None:
    """Return the seconds of a file, by its header or else by its frames; None where it cannot be read."""
    with suppress(VideoError):
        for max_frames in (0, None):
            with decoders.open(path, listed=True, max_frames=max_frames) as video:
                deque(video, maxlen=0)
                if video.facts.duration_seconds is not None:
                    return video.facts.duration_seconds
    return None
