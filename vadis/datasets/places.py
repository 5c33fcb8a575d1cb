"""Where the videos of a list lie, whatever its paths are relative to: lists are made on one machine, used on another.

For each list and split one *base* is looked for: what to take away at the beginning of its paths and what to put there
instead, the same for all of them. The base that finds most videos is taken; two that find others are an error.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import NamedTuple

from vadis.datasets.dataset import some
from vadis.datasets.lists import Row
from vadis.datasets.scan import Tree, folder_of, split_of
from vadis.errors import UsageError
from vadis.results import printable
from vadis.video.sources import VIDEO_EXTENSIONS

SAMPLED_ROWS = 200  # of a list, by which bases are looked for
MOST_BASES = 16  # that are tried on all rows, those first that fit most of the sampled ones


class Base(NamedTuple):
    """What paths of a list begin with, and what they begin with below the root instead; ("", "") leaves them alone."""

    written: str = ""
    real: str = ""

    def applied(self, path: str) -> str | None:
        """Return the path below the root, or None for one that does not begin as written."""
        start = self.written if self.written.endswith("/") or not self.written else self.written + "/"
        rest = path.removeprefix(start)
        return None if start and rest == path else f"{self.real}/{rest}" if self.real else rest


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

    def find(self, path: str, rows: Sequence[Row]) -> Iterable[tuple[Row, str | None]]:
        """Return each row of one split in the list at ``path`` and its file; paths that fit several are refused."""
        files = self._find(path, [_normal(row.path) for row in rows], rows[0])
        return [(row, file or self._elsewhere(path, row.path)) for row, file in zip(rows, files, strict=True)]

    def _find(self, path: str, written: Sequence[str], first: Row) -> Sequence[str | None]:
        natural, nowhere = self._natural_bases(path), [None] * len(written)
        if self._elsewhere(path, first.path) and not any(self._at(base.applied(written[0])) for base in natural):
            return nowhere
        bases = list(dict.fromkeys([*natural, *self._likely_bases(written[:: -(-len(written) // SAMPLED_ROWS)])]))
        found = {base: [self._at(base.applied(each)) for each in written] for base in bases}
        counts = {base: sum(each is not None for each in files) for base, files in found.items()}
        best = max(counts.values())
        by_name = self._by_name_alone(written)
        if by_name is not None and best < len(written):
            return by_name
        if best == 0:
            return nowhere
        tied = [base for base, count in counts.items() if count == best]
        fewest = min(base.written.count("/") for base in tied)  # the more of a path is kept, the surer it is
        tied = [base for base in tied if base in natural] or [b for b in tied if b.written.count("/") == fewest]
        tied = [base for base in tied if split_of(base.real.partition("/")[0]) == first.split] or tied
        files = found[tied[0]]
        if any(found[base] != files for base in tied):
            places = [base.real or "the folder itself" for base in tied]
            message = f"the paths in {printable(path)} fit videos in several places: {some(places)}"
            raise UsageError(message, "remove one of them, or write the paths from the dataset's folder on")
        return files

    def _by_name_alone(self, written: Sequence[str]) -> list[str | None] | None:
        """Return the videos by their names, where the list gives no more and each name is of one video; else None."""
        found = [self._by_tail.get(_without_ending(each), []) for each in written]
        if any("/" in each for each in written) or not any(found) or any(len(videos) > 1 for videos in found):
            return None
        return [self._exact[videos[0]] if videos else None for videos in found]

    def _natural_bases(self, path: str) -> list[Base]:
        """Return the bases of paths that are relative to the root or the folder of the list, or absolute here."""
        root, folder = self._tree.root, folder_of(path)
        inside = self._tree.relative(folder).replace(os.sep, "/") if folder.startswith(root + os.sep) else ""
        return [Base(), Base(real=inside), Base(written="/" + os.path.abspath(root).strip(os.sep))]  # noqa: PTH100

    def _likely_bases(self, written: Sequence[str]) -> list[Base]:
        """Return the bases that the names of files suggest."""
        fits: Counter[Base] = Counter()
        for each in written:
            alike = next((self._by_tail[tail] for tail in _tails(_without_ending(each)) if tail in self._by_tail), [])
            fits.update(_base(each.split("/")[:-1], video.split("/")[:-1]) for video in alike[: 4 * MOST_BASES])
        return [base for base, _ in fits.most_common(MOST_BASES) if not _contradicts_itself(base)]

    def _at(self, relative: str | None) -> str | None:
        """Return the video at a path below the root, with this ending or another."""
        if relative is None:
            return None
        others = [relative] if relative in self._exact else self._by_stem.get(_without_ending(relative), [])
        if len(others) > 1:
            message = f"{printable(relative)} may be any of {some(others)}"
            raise UsageError(message, "write the ending of the file into the list, or remove all but one")
        return self._exact[others[0]] if others else None

    def _elsewhere(self, path: str, written: str) -> str | None:
        """Return a file beyond the root, or with a name that no video has, by its path from the root or the list."""
        for folder in (self._tree.root, folder_of(path) or "."):
            place = os.path.normpath(os.path.join(folder, written))  # noqa: PTH118
            if os.path.isfile(place):  # noqa: PTH113 (unlike a Path, it takes names that cannot be)
                return place
        return None


def _base(written: Sequence[str], real: Sequence[str]) -> Base:
    """Return the base that remains where two paths have as many of their last folders in common as they have."""
    pairs = zip(reversed(written), reversed(real), strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    start = written[: len(written) - common]
    return Base("/".join(start) or "/" * len(start), "/".join(real[: len(real) - common]))


def _contradicts_itself(base: Base) -> bool:
    """Return whether a base puts one split's folder in the place of another's."""
    written, real = ({split_of(name) for name in path.split("/")} - {None} for path in base)
    return bool(written and real) and written.isdisjoint(real)


def _normal(path: str) -> str:
    """Return a path of a list with "/" between its parts, however Windows wrote it, and nothing that is no part."""
    return os.path.normpath(path if "/" in path else path.replace("\\", "/")).replace(os.sep, "/")


def _tails(path: str) -> list[str]:
    """Return the last two parts of a path, and the last alone."""
    parts = path.split("/")
    return list(dict.fromkeys(("/".join(parts[-2:]), parts[-1])))


def _without_ending(path: str) -> str:
    """Return a path without the ending of a video, whatever the case of its letters."""
    ending = next((each for each in VIDEO_EXTENSIONS if path.lower().endswith(each)), "")
    return path[: len(path) - len(ending)]
