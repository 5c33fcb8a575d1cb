"""Where the videos of a list lie, whatever its paths are relative to: lists are made on one machine, used on another.

For each list and split one *base* is looked for: what to take away at the beginning of its paths and what to put there
instead, the same for all of them. The base that finds most videos is taken; two that find others are an error.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

from vadis.datasets.dataset import some
from vadis.datasets.lists import Listed
from vadis.datasets.scan import Tree, folder_of, split_of
from vadis.errors import UsageError
from vadis.results import printable
from vadis.video.sources import VIDEO_EXTENSIONS

MOST_BASES = 16  # that are tried on all rows, those first that fit most of 200 of them


class Base(NamedTuple):
    """What paths of a list begin with, and what they begin with below the root instead: "", or ending in "/"."""

    written: str = ""
    real: str = ""

    def applied(self, path: str) -> str | None:
        """Return the path below the root, or None for one that does not begin as written."""
        return self.real + path.removeprefix(self.written) if path.startswith(self.written) else None

    def exchanges_splits(self) -> bool:
        """Return whether one split's folder comes in the place of another's."""
        written, real = ({split_of(name) for name in path.split("/")} - {None} for path in self)
        return bool(written and real) and written.isdisjoint(real)


class VideoFinder:
    """Finds the videos of a tree by the paths in lists."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._videos = {tree.relative(path): path for path in tree.videos}
        self._by_stem: dict[str, list[str]] = {}  # without the ending, which lists leave out or state otherwise
        self._by_tail: dict[str, list[str]] = {}  # by the name, and by the name with its folder
        for video in self._videos:
            stem = _without_ending(video)
            self._by_stem.setdefault(stem, []).append(video)
            for tail in _tails(stem):
                self._by_tail.setdefault(tail, []).append(video)

    def find(self, path: str, rows: Sequence[Listed]) -> Iterator[Listed]:
        """Yield the rows of one split in the list at ``path``, with their files; paths that fit several are refused."""
        # A path is written with "/" between its parts, however Windows did it, and with nothing that is no part.
        written = [os.path.normpath(row.name if "/" in row.name else row.name.replace("\\", "/")) for row in rows]
        for row, file in zip(rows, self._find(path, written, rows[0]), strict=True):
            yield row._replace(file=file or self._elsewhere(path, row.name))

    def _find(self, path: str, written: Sequence[str], first: Listed) -> Sequence[str | None]:
        inside = self._tree.parts(folder_of(path)) if path.startswith(self._tree.root + os.sep) else ()
        root = os.path.join(os.path.abspath(self._tree.root), "")  # noqa: PTH100, PTH118
        natural = [Base(), Base(real="".join(f"{name}/" for name in inside)), Base(written=root)]
        if self._elsewhere(path, first.name) and not any(self._at(base.applied(written[0])) for base in natural):
            return [None] * len(written)
        bases = list(dict.fromkeys([*natural, *self._likely_bases(written[:: -(-len(written) // 200)])]))
        found = {base: [self._at(base.applied(each)) for each in written] for base in bases}
        ranks = {
            base: (
                files.count(None),
                0 if base in natural else 1 + base.written.count("/"),  # the more of a path is kept, the surer it is
                split_of(base.real.partition("/")[0]) != first.split,
            )
            for base, files in found.items()
        }
        best = min(ranks.values())
        by_name = [self._by_tail.get(_without_ending(each), []) for each in written]
        are_names = not any("/" in each for each in written) and max(map(len, by_name)) == 1
        if best[0] and are_names:  # in folders that the list does not tell
            return [self._videos[videos[0]] if videos else None for videos in by_name]
        tied = [base for base in bases if ranks[base] == best]
        if any(found[base] != found[tied[0]] for base in tied):
            places = [base.real or "the folder itself" for base in tied]
            message = f"the paths in {printable(path)} fit videos in several places: {some(places)}"
            raise UsageError(message, "remove one of them, or write the paths from the dataset's folder on")
        return found[tied[0]]

    def _likely_bases(self, written: Sequence[str]) -> list[Base]:
        """Return the bases that the names of files suggest, without those that exchange one split for another."""
        fits: Counter[Base] = Counter()
        for each in written:
            alike = next((self._by_tail[tail] for tail in _tails(_without_ending(each)) if tail in self._by_tail), [])
            fits.update(_base(each, video) for video in alike[: 4 * MOST_BASES])
        return [base for base, _ in fits.most_common(MOST_BASES) if not base.exchanges_splits()]

    def _at(self, relative: str | None) -> str | None:
        """Return the video at a path below the root, with this ending or another."""
        if relative is None:
            return None
        videos = [relative] if relative in self._videos else self._by_stem.get(_without_ending(relative), [])
        if len(videos) > 1:
            message = f"{printable(relative)} may be any of {some(videos)}"
            raise UsageError(message, "write the ending of the file into the list, or remove all but one")
        return self._videos[videos[0]] if videos else None

    def _elsewhere(self, path: str, written: str) -> str | None:
        """Return a file beyond the root, or with a name that no video has, by its path from the root or the list."""
        for folder in (self._tree.root, folder_of(path) or "."):
            place = os.path.normpath(os.path.join(folder, written))  # noqa: PTH118
            if os.path.isfile(place):  # noqa: PTH113 (unlike a Path, it takes names that cannot be)
                return place
        return None


def _base(written: str, real: str) -> Base:
    """Return what two paths begin with before the folders that they have in common at their ends."""
    parts, folders = written.split("/")[:-1], real.split("/")[:-1]
    pairs = zip(parts[::-1], folders[::-1], strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return Base(*("".join(f"{part}/" for part in each[: len(each) - common]) for each in (parts, folders)))


def _tails(path: str) -> list[str]:
    parts = path.split("/")
    return list(dict.fromkeys(("/".join(parts[-2:]), parts[-1])))


def _without_ending(path: str) -> str:
    """Return a path without the ending of a video, whatever the case of its letters."""
    ending = next((each for each in VIDEO_EXTENSIONS if path.lower().endswith(each)), "")
    return path[: len(path) - len(ending)]
