"""``vadis doctor``: what it finds, what it says about what it does not find, and its exit code."""

import importlib
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from tests.misbehaving_server import MisbehavingServer
from tests.pseudo_terminal import on_a_terminal
from vadis.cli import doctor
from vadis.errors import VadisError
from vadis.models import i3d_inference
from vadis.video.encoder import load_opencv
from vadis.weights.cache import model_path
from vadis.weights.catalog import DEFAULT_MODEL, STAND_IN, WEIGHTS


@pytest.fixture
def without(monkeypatch):
    """``without("av", "reason")``: importing that module fails."""
    refused = {}
    real = importlib.import_module

    def import_module(name, *rest):
        if name in refused:
            raise ImportError(refused[name])
        return real(name, *rest)

    monkeypatch.setattr(doctor, "import_module", import_module)
    return refused.__setitem__


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No test asks the weights' host whether it is there."""
    monkeypatch.setenv("VADIS_OFFLINE", "1")


def about_the_next_classify(ended):
    (line,) = (line for line in ended.out.splitlines() if "the next classify:" in line)
    return line


@pytest.mark.slow
@pytest.mark.parametrize("name", ["numpy", "platformdirs"])
def test_without_a_package_that_its_own_code_needs_it_says_so_and_goes_on(name, tmp_path):
    program = f"import sys; sys.modules[{name!r}] = None; from vadis.cli import main; main()"
    environment = {**os.environ, "VADIS_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", program, "doctor"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"missing  {name}: " in done.stdout and "bug" not in done.stderr


@pytest.fixture
def unloadable_opencv(monkeypatch, tmp_path):
    """OpenCV where the system lacks libxcb: its loader leaves its own folder, with a ``typing``, in the path."""
    package = tmp_path / "slim" / "cv2"
    (package / "typing").mkdir(parents=True)
    missing = "libxcb.so.1: cannot open shared object file: No such file or directory"
    loader = [
        "import os, sys",
        "if hasattr(sys, 'OpenCV_LOADER'): raise ImportError('recursion')",
        "sys.OpenCV_LOADER = True",
        "sys.path.insert(1, os.path.dirname(__file__))",
        f"raise ImportError({missing!r})",
    ]
    (package / "__init__.py").write_text("\n".join(loader))
    (package / "typing" / "__init__.py").write_text("import cv2\n")
    monkeypatch.setattr(sys, "path", [str(package.parent), *sys.path])
    for name in [name for name in sys.modules if name.split(".")[0] == "cv2"]:
        monkeypatch.delitem(sys.modules, name)


def test_a_whole_installation_is_0(run_vadis, default_model):
    ended = run_vadis("doctor")
    assert about_the_next_classify(ended).split()[0] == "ok"
    assert (ended.code, ended.err) == (0, "")
    for word in ("torch", "with FFmpeg", "numba", "safetensors", "opencv", "cpu", "H.264", "AV1", "i3d-kinetics400"):
        assert word in ended.out
    assert "missing" not in ended.out


@pytest.mark.parametrize("mirror", ["http://127.0.0.1:1", "not an address", None])
def test_a_machine_that_reaches_no_weights_is_not_called_complete(run_vadis, monkeypatch, mirror):
    if mirror is not None:
        monkeypatch.delenv("VADIS_OFFLINE")
        monkeypatch.setenv("VADIS_MIRROR", mirror)
    ended = run_vadis("doctor")
    assert ended.code == 0  # classify works there
    line = about_the_next_classify(ended)
    assert line.split()[0] == "less" and STAND_IN in line and DEFAULT_MODEL in line


def test_a_machine_that_reaches_the_weights_is_complete(run_vadis, monkeypatch):
    server = MisbehavingServer()
    monkeypatch.delenv("VADIS_OFFLINE")
    monkeypatch.setenv("VADIS_MIRROR", server.url)
    first = WEIGHTS[DEFAULT_MODEL].files[0].urls[0].split("/", 3)[3]
    server.files[f"/{first}"] = b"an index"
    ended = run_vadis("doctor")
    server.stop()
    assert about_the_next_classify(ended).split()[0] == "ok"


def test_a_missing_package_is_1_with_its_remedy(run_vadis, without):
    without("av", "libsomething.so.1: cannot open shared object file\nand more")
    ended = run_vadis("doctor")
    assert ended.code == 1
    assert "missing  av: libsomething.so.1: cannot open shared object file\n" in ended.out
    assert "pip install --force-reinstall av" in ended.out


def test_opencv_without_its_libraries_is_no_failure_but_a_note(run_vadis, unloadable_opencv, default_model):
    """As in a slim root: classify does without it, and the processes that decode start all the same."""
    ended = run_vadis("doctor")
    assert ended.code == 0
    assert re.search(r"note +opencv: .*libxcb\.so\.1", ended.out)
    assert "apt-get install libgl1" in ended.out
    assert re.search(r"(ok|note) +decoding: in processes", ended.out)
    assert not [entry for entry in sys.path if entry.endswith("cv2")]


def test_what_draws_says_what_to_install(unloadable_opencv):
    for _ in range(2):  # and says so again
        with pytest.raises(VadisError, match=re.escape("libxcb.so.1")) as error:
            load_opencv()
        assert "apt-get install libgl1" in (error.value.hint or "")


def test_absent_codecs_are_named(run_vadis, monkeypatch):
    monkeypatch.setitem(doctor.CODECS, "Smell-O-Vision", ("smell",))
    ended = run_vadis("doctor")
    assert ended.code == 0
    assert "not decoded: Smell-O-Vision" in ended.out


def test_models_in_the_cache_are_told_from_those_that_are_not(run_vadis):
    path = model_path("i3d-kinetics600")
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(3_000_000))
    text = run_vadis("doctor").out
    assert "ok       i3d-kinetics600: 3 MB" in text
    assert "vadis weights download i3d-kinetics400-scratch" in text
    assert str(path.parents[1]) in text


def test_a_cache_that_cannot_be_written_is_noted(run_vadis, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written to" in run_vadis("doctor").out


def test_a_cache_that_cannot_be_there_is_no_failure(run_vadis, monkeypatch, tmp_path):
    monkeypatch.setenv("VADIS_CACHE", str(tmp_path / ("x" * 300)))  # longer than a name may be
    ended = run_vadis("doctor")
    assert (ended.code, ended.err) == (0, "") and STAND_IN in ended.out


@pytest.mark.slow
def test_on_a_terminal_long_lines_go_on_below_where_they_began():
    shown, _ = on_a_terminal(sys.executable, "-m", "vadis", "doctor", columns=60)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in shown.splitlines()]
    (first,) = (number for number, line in enumerate(lines) if "decoded: H.264" in line)
    assert re.match(r" {11}\w", lines[first + 1])
    assert max(len(line) for line in lines[1:]) <= 60


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "state"), [(1.0001, "ok"), (1.2, "missing"), (float("nan"), "missing")])
def test_a_gpu_is_held_against_the_cpu(monkeypatch, factor, state):
    class Folded(i3d_inference.FoldedI3D):
        """On a card, the CPU's numbers times ``factor``."""

        def __init__(self, network, device):
            super().__init__(network, torch.device("cpu"))
            self.factor = factor if device.type == "cuda" else 1

        def __call__(self, *clips, **options):
            return super().__call__(*clips, **options) * self.factor

    card = SimpleNamespace(name="a card", total_memory=8e9)
    monkeypatch.setattr(i3d_inference, "FoldedI3D", Folded)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91600)
    findings = [finding for finding in doctor.devices() if finding.what == "cuda:0"]
    assert [finding.state for finding in findings] == ["ok", state]
    assert "9.16.0" in findings[1].detail
