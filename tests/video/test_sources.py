# Paths here are what was typed, byte for byte.
# ruff: noqa: PTH103, PTH120, PTH208, PTH211
import io
import os
import re
import sys
from types import SimpleNamespace

import pytest

from tests.matching import containing
from vadis.errors import NothingToDoError, UsageError, VideoError
from vadis.video.sources import VIDEO_EXTENSIONS, Source, find_videos, remote_scheme


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder, and a function that fills it with small files."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def make(*names):
        for name in names:
            os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
            with open(name, "wb") as file:
                file.write(b"\0\1\2 content")

    return make


def paths(*inputs, **options):
    return [source.path for source in find_videos(inputs, **options)]


def codes(*inputs, **options):
    return {source.path: source.error and source.error.code for source in find_videos(inputs, **options)}


def on_stdin(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))


# Files and folders


def test_inputs_keep_their_order(here):
    here("b.mp4", "a.mp4")
    assert paths("b.mp4", "a.mp4") == ["b.mp4", "a.mp4"]


def test_a_folder_is_walked_in_the_order_of_names(here):
    here("f/b.mp4", "f/a.MKV", "f/a/z.avi", "f/B.webm", "f/c/d/e.mov")
    assert paths("f") == ["f/B.webm", "f/a/z.avi", "f/a.MKV", "f/b.mp4", "f/c/d/e.mov"]
    assert paths("f/") == paths("f")
    assert paths("./f")[0] == "./f/B.webm"


def test_what_is_no_video_is_left_out_and_counted(here):
    here("f/a.mp4", "f/README.md", "f/.hidden.mp4", "f/.git/x.mp4", "f/mp4", "f/x.mp4.part")
    found = find_videos(["f"])
    assert [source.path for source in found] == ["f/a.mp4"]
    assert found.num_ignored == 5


def test_a_named_file_is_tried_whatever_its_name(here):
    here("holiday", ".hidden.mp4", "notes.txt")
    assert paths("holiday", ".hidden.mp4", "notes.txt") == ["holiday", ".hidden.mp4", "notes.txt"]


def test_sound_is_left_out_of_folders_and_tried_by_name(here):
    here("f/a.mp4", "f/a.mp3", "f/a.m4a", "f/a.wav")
    found = find_videos(["f"])
    assert [source.path for source in found] == ["f/a.mp4"]
    assert found.num_ignored == 3
    assert paths("f/a.mp3", "f/a.m4a") == ["f/a.mp3", "f/a.m4a"]


@pytest.mark.parametrize(
    ("name", "content", "is_taken"),
    [
        ("a.ts", b"import x from 'y'\nexport const a = 1\n", False),
        ("a.TS", b"// caf\xe9\r\n", False),  # Latin-1
        ("a.ts", "export {}".encode("utf-16"), False),
        ("de.ts", b"\xef\xbb\xbf<?xml version='1.0'?><!DOCTYPE TS>", False),
        ("a.mts", b"export {}\n", False),
        ("a.ts", (b"G\x40\0\x10" + bytes(184)) * 30, True),
        ("a.ts", b"\0\1\2 begins with damage", True),
        ("a.mts", (b"\0\0\0\0G\x40\0\x10" + bytes(184)) * 30, True),
        ("a.ts", b"", True),  # a recording of which nothing was written: its record says so
        ("a.ogg", b"OggS\0\2" + bytes(22) + b"\x01\x1e\x01vorbis" + bytes(30), False),
        ("a.ogg", b"OggS\0\2" + bytes(22) + b"\x01\x2a\x80theora" + bytes(30), True),
    ],
)
def test_a_folder_gives_what_is_a_video_where_other_files_share_its_extension(here, name, content, is_taken):
    here("f/z.mp4")
    with open(f"f/{name}", "wb") as file:
        file.write(content)
    assert paths("f") == ([f"f/{name}"] if is_taken else []) + ["f/z.mp4"]
    assert paths(f"f/{name}") == [f"f/{name}"], "by name it is tried in any case"


@pytest.mark.parametrize("extension", VIDEO_EXTENSIONS)
def test_extensions_in_any_case(here, extension):
    here(f"f/a{extension}", f"f/b{extension.upper()}")
    assert len(paths("f")) == 2


def test_each_file_once(here):
    here("f/a.mp4", "f/b.mp4")
    found = find_videos(["f/b.mp4", "f", "./f/../f/a.mp4", "f/b.mp4"])
    assert [source.path for source in found] == ["f/b.mp4", "f/a.mp4"]
    assert found.num_duplicates == 3


def test_equal_names_in_two_folders_are_two_videos(here):
    here("f/1/a.mp4", "f/2/a.mp4")
    assert len(paths("f")) == 2


def test_links_to_files_and_folders(here):
    here("pool/a.mp4", "set/own.mp4")
    os.symlink("../pool/a.mp4", "set/linked.mp4")
    os.symlink("../pool", "set/folder")
    assert paths("set") == ["set/folder/a.mp4", "set/linked.mp4", "set/own.mp4"]


def test_links_in_a_circle_end(here):
    here("f/g/a.mp4")
    os.symlink("..", "f/g/up")
    os.symlink("g", "f/again")
    os.symlink("itself.mp4", "f/itself.mp4")
    found = find_videos(["f"])
    assert [source.path for source in found] == ["f/again/a.mp4"]  # the first way to a folder
    assert found.num_ignored == 1


def test_folders_with_equal_inode_numbers_are_all_walked(here, monkeypatch):
    here("f/a/1.mp4", "f/b/2.mp4", "f/b/c/3.mp4")
    stat = os.stat

    def equal(path, *args, **options):
        found = list(stat(path, *args, **options))
        found[1:3] = [1, 1]
        return os.stat_result(found)

    monkeypatch.setattr(os, "stat", equal)
    assert paths("f") == ["f/a/1.mp4", "f/b/2.mp4", "f/b/c/3.mp4"]


def test_thousands_of_folders_deep(here, tmp_path):
    folder = "f/" + "d/" * 400
    here(folder + "a.mp4")
    assert paths("f") == [folder + "a.mp4"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_in_folders_are_ignored_and_refused_by_name(here):
    here("f/a.mp4")
    os.mkfifo("f/pipe.mp4")
    found = find_videos(["f"])
    assert [source.path for source in found] == ["f/a.mp4"]
    assert found.num_ignored == 1
    assert codes("f/a.mp4", "f/pipe.mp4") == {"f/a.mp4": None, "f/pipe.mp4": "not_a_regular_file"}


def test_an_empty_file_by_name(here):
    here("a.mp4")
    open("b.mp4", "w").close()
    assert codes("a.mp4", "b.mp4") == {"a.mp4": None, "b.mp4": "empty_file"}


def test_a_folder_that_cannot_be_listed_gives_one_record(here, monkeypatch):
    here("f/a.mp4", "f/closed/b.mp4", "f/z.mp4")
    scandir = os.scandir

    def refusing(path):
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert codes("f") == {"f/a.mp4": None, "f/closed": "permission_denied", "f/z.mp4": None}


# What is missing


def test_some_missing_become_records(here):
    here("a.mp4")
    assert codes("a.mp4", "b.mp4", "") == {"a.mp4": None, "b.mp4": "not_found", "": "not_found"}


@pytest.mark.parametrize("again", ["gone.mp4", "./gone.mp4", "gone*.mp4"])
def test_what_is_missing_more_than_once_does_not_stop_the_others(here, again):
    here("good.mp4")
    assert codes("gone.mp4", again, "good.mp4", again)["good.mp4"] is None
    with open("list", "w") as file:
        file.write(f"{again}\ngone.mp4\n")
    assert codes("gone.mp4", again, "good.mp4", from_file="list")["good.mp4"] is None
    with pytest.raises(UsageError) as error:
        find_videos(["gone.mp4", again], from_file="list")
    assert error.value.message.count("gone") == (1 if again.endswith("gone.mp4") else 2)


def test_all_missing_is_wrong_use(here):
    with pytest.raises(UsageError, match=containing("x.mp4", "y/z.mp4")):
        find_videos(["x.mp4", "y/z.mp4"])
    with pytest.raises(UsageError, match=containing(7)):
        find_videos([f"{i}.mp4" for i in range(12)])


def test_a_folder_without_videos_is_nothing_to_do(here):
    here("f/notes.txt", "g/notes.txt")
    with pytest.raises(NothingToDoError, match=containing("f", "g", ".mp4", ".mkv")):
        find_videos(["f", "g"])


def test_no_input_at_all(here):
    with pytest.raises(UsageError):
        find_videos([])


@pytest.mark.parametrize(
    "url", ["http://example.org/a.mp4", "https://x/y", "rtsp://cam/1", "file:///tmp/a.mp4", "s3://b/a.mp4"]
)
def test_urls(here, url):
    here("a.mp4")
    with pytest.raises(UsageError, match=containing(url)) as error:
        find_videos(["a.mp4", url])
    assert error.value.hint is not None and "`remote`" in error.value.hint


def test_urls_that_are_allowed_stand_for_what_the_store_says(here):
    here("a.mp4", "https:/x/b.mp4")

    def found_at(url: str) -> list[str]:
        if url == "s3://closed/":
            raise VideoError("permission_denied", "the folder may not be read")
        return [f"{url}1.mp4", f"{url}2.mp4"] if url.endswith("/") else [url]

    found = find_videos(["s3://b/", "a.mp4", "s3://b/2.mp4", "https://x/b.mp4", "s3://closed/"], remote=found_at)
    assert [each.path for each in found] == [
        *("s3://b/1.mp4", "s3://b/2.mp4", "a.mp4", "https://x/b.mp4", "s3://closed/")
    ]
    assert [remote_scheme(each.path) for each in found] == ["s3", "s3", None, None, "s3"]  # a folder named https:
    assert found[-1].error is not None and found.num_duplicates == 1


# Patterns


def test_patterns_are_expanded_where_no_such_file_exists(here):
    here("a1.mp4", "a2.mp4", "b.txt", "f/g/c.mp4")
    assert paths("a*.mp4") == ["a1.mp4", "a2.mp4"]
    assert paths("?1.mp4") == ["a1.mp4"]
    assert paths("*.txt") == ["b.txt"]  # named, in a way
    assert paths("**/*.mp4") == ["a1.mp4", "a2.mp4", "f/g/c.mp4"]
    assert paths("f*") == ["f/g/c.mp4"]


def test_a_file_of_that_very_name_comes_first(here):
    here("[1].mp4", "1.mp4", "a?.mp4", "ab.mp4")
    assert paths("[1].mp4", "a?.mp4") == ["[1].mp4", "a?.mp4"]


def test_a_pattern_without_matches_is_missing(here):
    here("a.mp4")
    assert codes("a.mp4", "*.mkv") == {"a.mp4": None, "*.mkv": "not_found"}


# Lists


def test_lists(here):
    here("a.mp4", "f/b.mp4", " c.mp4", "d*.mp4", "d1.mp4")
    with open("list.txt", "wb") as file:
        file.write(b"a.mp4\r\n\nf\n c.mp4\nd*.mp4\ngone.mp4")
    assert paths(from_file="list.txt") == ["a.mp4", "f/b.mp4", " c.mp4", "d*.mp4", "gone.mp4"]
    assert codes(from_file="list.txt")["gone.mp4"] == "not_found"


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("source", ["file", "stdin"])
def test_lists_as_windows_writes_them(here, monkeypatch, encoding, line_end, source):
    here("a.mp4", "\u00e9 b.mp4")
    content = line_end.join(["a.mp4", "\u00e9 b.mp4", ""]).encode(encoding)
    with open("list", "wb") as file:
        file.write(content)
    on_stdin(monkeypatch, content)
    found = find_videos(["-"]) if source == "stdin" else find_videos([], from_file="list")
    assert [(each.path, each.error) for each in found] == [("a.mp4", None), ("\u00e9 b.mp4", None)]


def test_names_in_lists_may_hold_any_bytes(here):
    names = [os.fsdecode(b"\xe9t\xe9.mp4"), "\x1b[2J.mp4", "FLV/a.mp4", "./a/free.mp4"]
    here(*names)
    with open("list", "w", errors="surrogateescape") as file:
        file.write("\n".join(names))
    assert codes(from_file="list") == dict.fromkeys(names)


CONTAINERS = {
    "mp4": b"\0\0\0\x20ftypisom\0\0\2\0",
    "mkv": b"\x1a\x45\xdf\xa3\x93\x42\x82\x88matroska",
    "avi": b"RIFF\x10\0\1\0AVI LIST",
    "ts": (b"G\x40\0\x10" + bytes(184)) * 30,
    "mpg": b"\0\0\1\xba\x44\0\4",
}


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("nul", [False, True])
def test_a_video_given_as_a_list_is_wrong_use(here, monkeypatch, kind, nul):
    here("a.mp4")
    content = CONTAINERS[kind] + bytes(range(256)) * 100
    with open("video", "wb") as file:
        file.write(content)
    with pytest.raises(UsageError) as error:
        find_videos(["a.mp4"], from_file="video", nul=nul)
    assert re.search(containing("video"), error.value.message)
    on_stdin(monkeypatch, content)
    with pytest.raises(UsageError):
        find_videos(["-", "a.mp4"], nul=nul)


@pytest.mark.parametrize("content", [b"a.mp4\0b.mp4\0", b"a.mp4\nb\0.mp4\n", b"PK\3\4\0\1\2" * 2000])
def test_a_list_with_nul_bytes_is_wrong_use(here, content):
    here("a.mp4")
    with open("list", "wb") as file:
        file.write(content)
    with pytest.raises(UsageError) as error:
        find_videos([], from_file="list")
    assert ("`nul=True`" in (error.value.hint or "")) == content.startswith(b"a.mp4")


def test_lists_with_nul_take_any_name(here):
    here("new\nline.mp4", "carriage\r.mp4")
    with open("list", "wb") as file:
        file.write(b"new\nline.mp4\0carriage\r.mp4\0")
    assert paths(from_file="list", nul=True) == ["new\nline.mp4", "carriage\r.mp4"]


def test_patterns_in_lists_are_names(here):
    here("a1.mp4")
    with open("list", "w") as file:
        file.write("a1.mp4\na*.mp4")
    assert codes(from_file="list") == {"a1.mp4": None, "a*.mp4": "not_found"}


def test_the_standard_input(here, monkeypatch):
    here("a.mp4", "b.mp4")
    on_stdin(monkeypatch, b"a.mp4\nb.mp4\n")
    assert paths("-") == ["a.mp4", "b.mp4"]
    on_stdin(monkeypatch, b"b.mp4\0a.mp4")
    assert paths(from_file="-", nul=True) == ["b.mp4", "a.mp4"]


def test_lists_and_inputs_add_up(here):
    here("a.mp4", "b.mp4")
    with open("list", "w") as file:
        file.write("b.mp4\na.mp4\n")
    found = find_videos(["a.mp4"], from_file="list")
    assert list(found) == [Source("a.mp4"), Source("b.mp4")]
    assert found.num_duplicates == 1


def test_a_list_that_is_not_there_or_empty(here, monkeypatch):
    with pytest.raises(UsageError, match=containing("nothing")):
        find_videos([], from_file="nothing")
    on_stdin(monkeypatch, b"\n\n")
    with pytest.raises(NothingToDoError):
        find_videos(["-"])


# Names


NAMES = [
    "-i.mp4",
    "a:b.mp4",
    "im%03d.mp4",
    "[red]x.mp4",
    "new\nline.mp4",
    "\x1b[2J.mp4",
    "\u202egnp.mp4",
    "🎬.mp4",
    "~.mp4",
    "$HOME.mp4",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_taken_as_they_are(here, name):
    here(name, f"f/{name}")
    assert paths(name, "f") == [name, f"f/{name}"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems only take UTF-8 names")
def test_names_that_are_not_utf8(here):
    name = os.fsdecode(b"\xff\xfe.mp4")
    here(name, f"f/{name}")
    assert [os.fsencode(path) for path in paths(name, "f")] == [b"\xff\xfe.mp4", b"f/\xff\xfe.mp4"]
    with pytest.raises(UsageError) as error:
        find_videos([os.fsdecode(b"\xff-missing.mp4")])
    assert re.search(containing(r"\xff-missing.mp4"), error.value.message)


def test_composed_and_decomposed_names_are_two(here):
    here("f/\u00e9.mp4", "f/e\u0301.mp4")
    assert len(paths("f")) == len(os.listdir("f"))  # a file system may take them for one


def test_found_is_a_sequence(here):
    here("a.mp4", "b.mp4")
    found = find_videos(["a.mp4", "b.mp4"])
    assert len(found) == 2
    assert found[0] == Source("a.mp4")
    assert found[-1:] == (Source("b.mp4"),)
