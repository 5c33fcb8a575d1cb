"""Machine code is kept where it can be written, its absence is said, and numba is imported to compile alone."""

import errno
import logging
import os
import subprocess
import sys

import numpy as np
import pytest

from vadis.flow import numba_cache
from vadis.flow.numba_cache import cache_directory, compiled


def double(x):
    return 2 * x


def add_up(numbers, rows, pair):
    total = len(rows) + pair[0][1]
    for number in numbers:
        total += number
    return total


def grow(x):
    return np.zeros(x).size


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("VADIS_CACHE", str(tmp_path))
    return tmp_path / "compiled"


def test_cache_lies_in_vadis_own(own_cache):
    assert compiled(double)(21) == 42
    assert [path.name.partition("-")[0] for path in own_cache.rglob("*.o")] == [f"{__name__}.double"]


def test_arrays_and_tuples_of_them(own_cache):
    arrays = np.arange(4), np.zeros((3, 5), np.uint8), (np.array([7, 8]), np.ones(2, np.float32))
    assert compiled(add_up)(*arrays) == 6 + 3 + 8
    with pytest.raises(TypeError, match="order"):
        compiled(add_up)(np.arange(8)[::2], *arrays[1:])


@pytest.mark.parametrize("kept", [b"", b"not machine code", None])
def test_what_was_kept_is_loaded_if_it_is_whole(own_cache, monkeypatch, kept):
    compiled(double)(1)
    (place,) = own_cache.rglob("*.o")
    whole, calls = place.read_bytes(), []
    if kept is not None:
        place.write_bytes(whole[:40] + kept)
    monkeypatch.setattr(numba_cache, "_compile", lambda *of: calls.append(of) or whole[32:])
    assert compiled(double)(4) == 8
    assert len(calls) == (kept is not None)
    assert place.read_bytes() == whole


def test_a_function_that_needs_numbas_library_is_refused(own_cache):
    with pytest.raises(TypeError, match="calls"):
        compiled(grow)(3)


PROGRAM = """
import sys
import numpy as np
from vadis.flow import to_gray, tvl1
gray = to_gray(np.random.default_rng(0).integers(0, 255, (2, 20, 24, 3), dtype=np.uint8))
print(abs(tvl1(gray)).sum(), *(name in sys.modules for name in ("numba", "torch")))
"""


@pytest.mark.slow
def test_flow_needs_neither_numba_nor_pytorch_once_it_is_compiled(own_cache):
    first, second = (subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True) for _ in range(2))
    assert (first.stderr, second.stderr) == ("", "")
    assert first.stdout.split()[1:] == ["True", "False"]
    assert second.stdout.split() == [first.stdout.split()[0], "False", "False"]


def test_numba_cache_dir_is_respected(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert cache_directory().parent == tmp_path


def test_changed_source_gets_a_new_folder(monkeypatch, tmp_path):
    (tmp_path / "a.py").write_text("one")
    monkeypatch.setattr(numba_cache, "__file__", str(tmp_path / "a.py"))
    before = cache_directory()
    (tmp_path / "a.py").write_text("two")
    assert cache_directory() != before


def test_works_without_a_cache(own_cache, caplog):
    """As with a home that cannot be written; and of a function that lies in no file."""
    own_cache.write_text("a file where the folder would be")
    names = {}
    exec(compile("def triple(x):\n    return 3 * x\n", "<nowhere>", "exec"), names)
    with caplog.at_level(logging.WARNING):
        assert compiled(names["triple"])(2) == 6
    assert "cannot be kept" in caplog.text


def test_full_disk(own_cache, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(numba_cache, "write_file", full)
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
