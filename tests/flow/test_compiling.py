"""Machine code is kept where it can be written, and its absence is said."""

import errno
import logging

import numpy as np
from numba.core.caching import IndexDataCacheFile

from vadis.flow import compiling
from vadis.flow.compiling import cache_directory, compiled


def double(x):
    return 2 * x


def test_cache_lies_in_vadis_own(monkeypatch, tmp_path):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("VADIS_CACHE", str(tmp_path))
    function = compiled(double)
    assert function(21) == 42
    assert list((tmp_path / "compiled").rglob("*.nbi"))


def test_numba_cache_dir_is_respected(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert cache_directory().parent == tmp_path


def test_changed_source_gets_a_new_folder(monkeypatch, tmp_path):
    (tmp_path / "a.py").write_text("one")
    monkeypatch.setattr(compiling, "__file__", str(tmp_path / "a.py"))
    before = cache_directory()
    (tmp_path / "a.py").write_text("two")
    assert cache_directory() != before


def test_works_without_a_cache(caplog):
    """numba finds no place for a function that lies in no file; as with a home that cannot be written."""
    names = {}
    exec(compile("def triple(x):\n    return 3 * x\n", "<nowhere>", "exec"), names)
    with caplog.at_level(logging.WARNING):
        assert compiled(names["triple"])(np.float32(2)) == 6
    assert "cannot be kept" in caplog.text


def test_full_disk(monkeypatch, tmp_path, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("VADIS_CACHE", str(tmp_path))
    monkeypatch.setattr(IndexDataCacheFile, "save", full)
    with caplog.at_level(logging.WARNING):
        assert compiled(double)(21) == 42
    assert "No space left" in caplog.text
