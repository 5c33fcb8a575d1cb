"""Where the videos of a list lie, whatever its paths are relative to.

Lists are made on one machine and used on another. So for each list and split one *base* is looked for: what to take
away at the beginning of its paths and what to put there instead, the same for all of them. The base that finds most
videos is taken; two that find as many, and other ones, are an error.
"""

import os
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from vadis.datasets.dataset import some
from vadis.datasets.lists import Row
from vadis.datasets.scan import Tree, folder_of, parts_of, split_of
from vadis.errors import UsageError
from vadis.results import printable
from vadis.video.sources import VIDEO_EXTENSIONS

SAMPLED_ROWS = 200  # of a list, by which bases are looked for
MOST_BASES = 16  # that are tried on all rows, those first that fit most of the sampled ones


class Base(NamedTuple):
    """What paths of a list begin with, and what they begin with below the root instead; ("", "") leaves them alone."""

    written: str
    real: str

    def applied(self, path: str) -> str | None:
        """The path below the root, or None for one that does not begin as written."""
        start = self.written if self.written.endswith("/") or not self.written else self.written + "/"
        if not path.startswith(start):
            return None
        rest = path[len(start) :]
        return f"{self.real}/{rest}" if self.real else rest


class VideoFinder:
    """Finds the videos of a tree by the paths in lists."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._exact = {tree.relative(path).replace(os.sep, "/"): path for path in tree.videos}
        self._by_stem: dict[str, list[str]] = {}  # without the ending, which lists leave out or state otherwise
        self._by_tail: dict[str, list[str]] = {}  # by the name, and by the name with its folder
        for relative in self._exact:
            stem = _without_ending(relative)
            self._by_stem.setdefault(stem, []).append(relative)
            for tail in _tails(stem):
                self._by_tail.setdefault(tail, []).append(relative)

    def find(self, path: str, rows: Sequence[Row]) -> list[str | None]:
        """The files that the rows of one split of the list at ``path`` mean, None for those that are not there.

        Raises:
            UsageError: where paths fit several files.
        """
        written = [_normal(row.path) for row in rows]
        bases = _natural(self._tree, path)
        is_outside = not any(self._at(base.applied(written[0])) for base in bases)
        if is_outside and self._elsewhere(path, rows[0].path):
            return [self._elsewhere(path, row.path) for row in rows]
        bases = self._bases(path, written[:: -(-len(written) // SAMPLED_ROWS)])
        found = [[self._at(base.applied(each)) for each in written] for base in bases]
        counts = [sum(each is not None for each in files) for files in found]
        best = max(counts, default=0)
        if (alone := self._by_name_alone(written)) is not None and best < len(rows):
            return alone
        if best == 0:
            return [self._elsewhere(path, row.path) for row in rows]
        tied = [(base, files) for base, files, count in zip(bases, found, counts, strict=True) if count == best]
        natural = [each for each in tied if each[0] in _natural(self._tree, path)]
        least = min(base.written.count("/") for base, _ in tied)  # the more of a path is kept, the surer it is
        tied = natural or [each for each in tied if each[0].written.count("/") == least]
        chosen = [each for each in tied if split_of(each[0].real.partition("/")[0]) == rows[0].split] or tied
        if any(files != chosen[0][1] for _, files in chosen[1:]):
            places = [base.real or "the folder itself" for base, _ in chosen]
            message = f"the paths in {printable(path)} fit videos in several places: {some(places)}"
            raise UsageError(message, "remove one of them, or write the paths from the dataset's folder on")
        return [file or self._elsewhere(path, row.path) for file, row in zip(chosen[0][1], rows, strict=True)]

    def _by_name_alone(self, written: Sequence[str]) -> list[str | None] | None:
        """The videos by their names, where the list gives no more and each name is of one video; else None."""
        if any("/" in each for each in written):
            return None
        found = [self._by_tail.get(_without_ending(each), []) for each in written]
        if not any(found) or any(len(videos) > 1 for videos in found):
            return None
        return [self._exact[videos[0]] if videos else None for videos in found]

    def _bases(self, path: str, written: Sequence[str]) -> list[Base]:
        """The bases to try: the root, the list's folder, then those that the names of files suggest."""
        fits: Counter[Base] = Counter()
        for each in written:
            alike = next((self._by_tail[tail] for tail in _tails(_without_ending(each)) if tail in self._by_tail), ())
            for relative in islice(alike, 4 * MOST_BASES):
                fits[_base(each.split("/")[:-1], relative.split("/")[:-1])] += 1
        likely = [base for base, _ in fits.most_common(MOST_BASES) if not _contradicts_itself(base)]
        return list(dict.fromkeys((*_natural(self._tree, path), *likely)))

    def _at(self, relative: str | None) -> str | None:
        """The video at a path below the root, with this ending or another."""
        if relative is None:
            return None
        if relative in self._exact:
            return self._exact[relative]
        others = self._by_stem.get(_without_ending(relative), ())
        if len(others) > 1:
            message = f"{printable(relative)} may be any of {some(others)}"
            raise UsageError(message, "write the ending of the file into the list, or remove all but one")
        return self._exact[others[0]] if others else None

    def _elsewhere(self, path: str, written: str) -> str | None:
        """A file beyond the root, or with a name that no video has; by its path from the root or the list's folder."""
        for folder in dict.fromkeys((self._tree.root, folder_of(path) or ".")):
            place = os.path.normpath(os.path.join(folder, written))  # noqa: PTH118
            if os.path.isfile(place):  # noqa: PTH113 (unlike a Path, it takes names that cannot be)
                return place
        return None


def _natural(tree: Tree, path: str) -> list[Base]:
    """Paths as they are, or relative to the folder of the list."""
    folder = folder_of(path)
    inside = tree.relative(folder) if folder.startswith(tree.root + os.sep) else ""
    absolute = os.path.abspath(tree.root).strip(os.sep)  # noqa: PTH100
    return [Base("", ""), Base("", "/".join(parts_of(inside))) if inside else Base("", ""), Base("/" + absolute, "")]


def _base(written: Sequence[str], real: Sequence[str]) -> Base:
    """The base that remains where two paths have as many of their last folders in common as they have."""
    common = 0
    while common < min(len(written), len(real)) and written[-1 - common] == real[-1 - common]:
        common += 1
    start = written[: len(written) - common]
    return Base("/".join(start) or ("/" if start else ""), "/".join(real[: len(real) - common]))


def _contradicts_itself(base: Base) -> bool:
    """Whether a base puts one split's folder in the place of another's."""
    written, real = ({split_of(name) for name in path.split("/")} - {None} for path in base)
    return bool(written and real) and written.isdisjoint(real)


def _normal(path: str) -> str:
    """A path of a list with "/" between its parts, however Windows wrote it, and nothing that is no part."""
    text = path.replace("\\", "/") if "/" not in path else path
    return os.path.normpath(text).replace(os.sep, "/")


def _tails(path: str) -> list[str]:
    """The last two parts of a path, and the last alone."""
    above, _, name = path.rpartition("/")
    return [f"{above.rpartition('/')[2]}/{name}", name] if above else [name]


def _without_ending(path: str) -> str:
    """A path without the ending of a video, whatever the case of its letters."""
    lower = path.lower()
    ending = next((each for each in VIDEO_EXTENSIONS if lower.endswith(each)), "")
    return path[: len(path) - len(ending)]
