"""``vadis doctor``: what it finds, what it says about what it does not find, and its exit code."""

import importlib
import os
import re
import sys
from types import SimpleNamespace

import pytest
import torch

from tests.pseudo_terminal import on_a_terminal
from vadis.cli import doctor
from vadis.models import folded


@pytest.fixture
def without(monkeypatch):
    """``without("cv2", "reason")``: importing that module fails."""
    refused = {}
    real = importlib.import_module

    def import_module(name, *rest):
        if name in refused:
            raise ImportError(refused[name])
        return real(name, *rest)

    monkeypatch.setattr(doctor, "import_module", import_module)
    return refused.__setitem__


def test_a_whole_installation_is_0(run_vadis):
    ended = run_vadis("doctor")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[-1] == "vadis classify has all it needs"
    for word in ("torch", "with FFmpeg", "numba", "safetensors", "opencv", "cpu", "H.264", "AV1", "i3d-kinetics400"):
        assert word in ended.out
    assert "missing" not in ended.out


def test_a_missing_package_is_1_with_its_remedy(run_vadis, without):
    without("av", "libsomething.so.1: cannot open shared object file\nand more")
    ended = run_vadis("doctor")
    assert ended.code == 1
    assert "missing  av: libsomething.so.1: cannot open shared object file\n" in ended.out
    assert "pip install --force-reinstall av" in ended.out
    assert ended.out.splitlines()[-1] == "vadis classify cannot work before that is mended"


def test_opencv_without_libgl_is_no_failure_but_a_note(run_vadis, without):
    without("cv2", "libGL.so.1: cannot open shared object file: No such file or directory")
    ended = run_vadis("doctor")
    assert ended.code == 0
    assert "note     opencv: libGL.so.1" in ended.out
    assert "apt-get install libgl1" in ended.out


def test_absent_codecs_are_named(run_vadis, monkeypatch):
    monkeypatch.setitem(doctor.CODECS, "Smell-O-Vision", ("smell",))
    ended = run_vadis("doctor")
    assert ended.code == 0
    assert "not decoded: Smell-O-Vision" in ended.out


def test_models_in_the_cache_are_told_from_those_that_are_not(run_vadis):
    from vadis.weights.cache import model_path

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


def test_verbose_tells_the_surroundings_but_no_secrets(run_vadis, monkeypatch):
    monkeypatch.setenv("VADIS_MIRROR", "http://user:secret@mirror")
    monkeypatch.setenv("VADIS_OFFLINE", "1")
    text = run_vadis("-v", "doctor").out
    assert "libavcodec" in text and "VADIS_MIRROR: is set" in text and "VADIS_OFFLINE" in text
    assert "secret" not in text
    assert "libavcodec" not in run_vadis("doctor").out


def test_on_a_terminal_long_lines_go_on_below_where_they_began():
    shown, _ = on_a_terminal(sys.executable, "-m", "vadis", "doctor", columns=60)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in shown.splitlines()]
    (first,) = (number for number, line in enumerate(lines) if "decoded: H.264" in line)
    assert re.match(r" {11}\w", lines[first + 1])
    assert max(len(line) for line in lines[1:]) <= 60


@pytest.mark.parametrize(("factor", "state"), [(1.0001, "ok"), (1.2, "missing"), (float("nan"), "missing")])
def test_a_gpu_is_held_against_the_cpu(monkeypatch, factor, state):
    class Folded(folded.FoldedI3D):
        """On a card, the CPU's numbers times ``factor``."""

        def __init__(self, network, device):
            super().__init__(network, torch.device("cpu"))
            self.factor = factor if device.type == "cuda" else 1

        def __call__(self, *clips, **options):
            return super().__call__(*clips, **options) * self.factor

    card = SimpleNamespace(name="a card", total_memory=8e9)
    monkeypatch.setattr(folded, "FoldedI3D", Folded)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91600)
    findings = [finding for finding in doctor.devices() if finding.what == "cuda:0"]
    assert [finding.state for finding in findings] == ["ok", state]
    assert "9.16.0" in findings[1].detail
