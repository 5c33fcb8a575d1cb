"""Training clips that are held out for validation, where a dataset has no split for it; and classes without any."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

from vadis.datasets.dataset import Dataset, Example, class_key, counted, note_of, path_below, some
from vadis.datasets.scan import is_generic_folder, stem_of
from vadis.errors import UsageError
from vadis.results import printable

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
    single = _groups(examples, [path_below(each.path, root) for each in examples])
    is_vague = all(map(str.isalpha, groups)) and max(num_groups.values(), default=0) < 2  # one word each: clip_01
    if is_vague and len(single) > len(groups):
        groups = single
        notes.append(
            "the names of the files do not tell recordings apart: validation takes single clips, and pieces of one "
            "recording may be on both sides; folders train/ and val/ settle it"
        )
    chosen = _choose(groups, share)
    train, val = (tuple(each for each in examples if (each in chosen) == is_val) for is_val in (False, True))
    without = sorted({each.label for each in train} - {each.label for each in val})
    notes += note_of("no clip for validation, because all are of one recording", without, "class")
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
        message = f"only {classes} has training clips here: {some(trained)}"
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
