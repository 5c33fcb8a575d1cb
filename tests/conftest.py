"""What all tests share: where the project's own reference material lies, and what the markers mean."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before PyTorch is loaded
if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Compiled flow kernels are kept between runs of the tests; a fresh compilation takes some 10 s.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "compiled"))

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[2] / "shared"  # clips and facts beside the checkout; not part of the repository


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real clips and published facts; a test that needs it skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder shared/ beside the checkout (real clips, published facts)")
    return SHARED


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads or fills the user's cache, or reaches for the network by mistake."""
    monkeypatch.setenv("VADIS_CACHE", str(tmp_path / "vadis-cache"))
    for name in ("VADIS_MIRROR", "VADIS_OFFLINE", "VADIS_DEBUG"):
        monkeypatch.delenv(name, raising=False)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """``cuda``: skipped without a GPU, unless VADIS_REQUIRE_CUDA=1 says that there must be one."""
    if item.get_closest_marker("cuda") is None:
        return
    import torch

    if torch.cuda.is_available():
        return
    if os.environ.get("VADIS_REQUIRE_CUDA") == "1":
        pytest.fail("VADIS_REQUIRE_CUDA=1, but no CUDA device can be used")
    pytest.skip("needs a CUDA device")
