"""Text in the encodings that people's files have."""

import pytest

from vadis.parsing import decode, is_text, open_text

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_is_recognised(tmp_path, encoding):
    text = "walking a dog\r\nélan 日本\r\n"
    content = text.encode(encoding)
    assert decode(content) == text
    assert is_text(content) and is_text(content[:-1])
    (tmp_path / "a.txt").write_bytes(content)
    with open_text(tmp_path / "a.txt") as file:
        assert file.read() == text


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", bytes(range(256)), b"G\x40\0\x10" + bytes(184)])
def test_data_is_no_text(content):
    assert not is_text(content)


def test_other_bytes_are_kept_as_in_names_of_files():
    assert decode(b"caf\xe9\n").encode("utf-8", "surrogateescape") == b"caf\xe9\n"
