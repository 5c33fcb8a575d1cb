import pytest

from tests.matching import containing
from vadis.errors import WeightsError
from vadis.weights.catalog import MAX_LABELS_BYTES, PUBLISHED_LISTS, published_labels, read_labels


@pytest.mark.parametrize(("name", "count"), PUBLISHED_LISTS.items())
def test_published_lists_are_whole_and_sorted_as_published(name, count):
    labels = published_labels(name)
    assert len(labels) == len(set(labels)) == count
    ends = ("tench", "toilet tissue") if name == "imagenet" else ("abseiling", "zumba")
    assert (labels[0], labels[-1]) == ends


@pytest.mark.parametrize("content", [b"a b\nc\n", b"a b\nc", b"\xef\xbb\xbfa b\r\nc\r\n"])
def test_byte_order_mark_and_line_ends_do_not_matter(tmp_path, content):
    (tmp_path / "l.txt").write_bytes(content)
    assert read_labels(tmp_path / "l.txt") == ("a b", "c")


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (b"a\n\nb\n", "line 2"),
        (b"a\nb\x1b[2J\n", "line 2"),
        (b"a\rb\n", "line 1"),
        ("a\nb\u2028c\n".encode(), "line 2"),
        (b"a\nb\n\xff\n", "line 3"),
        (b"x" * 300, "line 1"),
        (b"", "line 1"),
        (b"x\n" * MAX_LABELS_BYTES, MAX_LABELS_BYTES),
    ],
)
def test_what_is_no_label_list_is_refused_with_the_line(tmp_path, content, fact):
    (tmp_path / "l.txt").write_bytes(content)
    with pytest.raises(WeightsError, match=containing(fact)):
        read_labels(tmp_path / "l.txt")


def test_a_missing_list_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=containing("none.txt")):
        read_labels(tmp_path / "none.txt")
