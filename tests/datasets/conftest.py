"""Trees of empty files: what lies on disk, as the datasets' lists name it."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.conftest import SHARED

FACTS = SHARED / "facts"


def fill(root: Path, names: Iterable[str]) -> Path:
    """An empty file under ``root`` for each name, its folders made once."""
    made: set[str] = set()
    for name in names:
        folder = name.rpartition("/")[0]
        if folder not in made:
            (root / folder).mkdir(parents=True, exist_ok=True)
            made.add(folder)
        os.close(os.open(f"{root}/{name}", os.O_CREAT | os.O_WRONLY))  # a Path for each takes longer than the file
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """``tree("a/b.avi", lists={"a.txt": "content"})`` → a folder that holds them."""

    def make(*names: str, lists: dict[str, str] | None = None) -> Path:
        root = fill(tmp_path / "data", names)
        root.mkdir(exist_ok=True)
        for name, content in (lists or {}).items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode())
        return root

    return make


@pytest.fixture
def with_lists(tmp_path: Path) -> Callable[[Path, Path], Path]:
    """``with_lists(root, lists)`` → a folder that holds, as links, what both hold."""

    def make(root: Path, lists: Path) -> Path:
        folder = tmp_path / "linked"
        folder.mkdir(exist_ok=True)
        for path in (*root.iterdir(), lists):
            link = folder / path.name
            if not link.is_symlink():
                link.symlink_to(path)
        return folder

    return make


@pytest.fixture(scope="session")
def facts() -> Path:
    """The official lists; a test that needs them skips where they are absent."""
    if not FACTS.is_dir():
        pytest.skip("needs the official lists in shared/facts beside the checkout")
    return FACTS


@pytest.fixture(scope="session")
def big_tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, Iterable[str]], Path]]:
    """Like ``tree`` for the thousands of files of a whole dataset, shared by all tests and removed after them."""
    top = tmp_path_factory.mktemp("datasets")
    yield lambda name, names: fill(top / name, names)
    shutil.rmtree(top)
