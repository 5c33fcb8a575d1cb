"""Machine code is kept where it can be written, and its absence is said."""

import errno
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
from numba.core.caching import IndexDataCacheFile

from vadis.flow import numba_cache
from vadis.flow.numba_cache import cache_directory, compiled


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
    monkeypatch.setattr(numba_cache, "__file__", str(tmp_path / "a.py"))
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


@pytest.mark.parametrize("value", ["0", "abc", "-1", ""])
def test_a_number_of_threads_that_cannot_be_is_wrong_use(value):
    program = (
        "import sys\ntry:\n    import vadis.flow.numba_cache\n"
        "except Exception as error: print(type(error).__name__, error)\nelse: print('imported')"
    )
    environment = {**os.environ, "NUMBA_NUM_THREADS": value}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.startswith("UsageError") and "NUMBA_NUM_THREADS" in done.stdout
