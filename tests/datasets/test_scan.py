import os

import pytest

from tests.matching import containing
from vadis.datasets.scan import MAX_LIST_DEPTH, scan_tree
from vadis.errors import UsageError

NUM_FOLDERS = 40
NUM_FILES = 2_000


def relative(tree, paths):
    return [tree.relative(path) for path in paths]


def test_videos_folders_and_lists(tree):
    found = scan_tree(tree("b/1.MP4", "a/2.avi", "a/notes.txt", "a/sound.mp3", ".hidden/3.mp4", "a/.4.mp4", "list.CSV"))
    assert relative(found, found.videos) == ["a/2.avi", "b/1.MP4"]
    assert relative(found, found.folders) == ["a", "b"]
    assert relative(found, found.lists) == ["list.CSV", "a/notes.txt"]  # the highest first


def test_lists_deep_below_are_not_the_datasets(tree):
    names = ["/".join(["x"] * depth + ["a.txt"]) for depth in range(MAX_LIST_DEPTH + 2)]
    found = scan_tree(tree(*names))
    assert relative(found, found.lists) == names[:-1]


def test_a_trailing_slash_changes_nothing(tree):
    root = tree("a/1.mp4")
    assert scan_tree(f"{root}/") == scan_tree(root)


def test_links_are_followed_once(tree, tmp_path):
    root = tree("a/1.mp4")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "2.mp4").touch()
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "again").symlink_to(root)
    (root / "a" / "3.mp4").symlink_to(tmp_path / "gone.mp4")
    found = scan_tree(root)
    assert relative(found, found.videos) == ["a/1.mp4", "a/3.mp4", "b/2.mp4"]


def test_folders_of_one_inode_number_are_all_walked(tree, monkeypatch):
    """As some network file systems and FUSE give it."""
    root, real = tree("a/1.mp4", "b/2.mp4"), os.stat

    def same(path, *arguments, **options):
        status = real(path, *arguments, **options)
        return os.stat_result((status.st_mode, 1, 1, *status[3:]))

    monkeypatch.setattr(os, "stat", same)
    found = scan_tree(root)
    assert relative(found, found.videos) == ["a/1.mp4", "b/2.mp4"]


def test_what_is_no_folder(tree, tmp_path):
    with pytest.raises(UsageError, match=containing(tmp_path / "nothing")):
        scan_tree(tmp_path / "nothing")
    with pytest.raises(UsageError, match=containing("1.mp4")):
        scan_tree(tree("1.mp4") / "1.mp4")


def test_a_folder_that_cannot_be_listed_is_told(tree, monkeypatch):
    root, real = tree("a/1.mp4", "b/2.mp4"), os.scandir

    def refuse_b(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse_b)
    found = scan_tree(root)
    assert relative(found, found.videos) == ["a/1.mp4"]
    assert found.unreadable == (f"{root}/b cannot be listed: Permission denied",)

    monkeypatch.setattr(os, "scandir", lambda path: refuse_b("/b"))
    with pytest.raises(UsageError, match="Permission denied"):
        scan_tree(root)


def test_each_folder_is_listed_once_and_no_file_is_asked(tree, monkeypatch):
    names = [f"class {index % NUM_FOLDERS}/{index:011}_000000_000010.mp4" for index in range(NUM_FILES)]
    root = tree(*names)
    calls = {"scandir": 0, "stat": 0}
    for name in calls:
        real = getattr(os, name)

        def counting(*arguments, name=name, real=real, **options):
            calls[name] += 1
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, counting)
    found = scan_tree(root)
    assert len(found.videos) == NUM_FILES
    assert calls["scandir"] == NUM_FOLDERS + 1
    assert calls["stat"] <= 2 * (NUM_FOLDERS + 1) + 5  # Path.is_dir() of the root counts too
