"""cuda or cpu: what is asked for, what is there."""

import os
import platform
from resource import RUSAGE_SELF, getrusage

import pytest
import torch

from tests.matching import containing
from vadis import device
from vadis.device import FIRST_RIGHT_CUDNN, cpu_count, cudnn_version, resolve_device
from vadis.errors import DeviceError, UsageError


@pytest.fixture
def without_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_auto_takes_the_cpu_where_there_is_nothing_else(without_cuda):
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_of_the_cpu_is_used_again_without_the_system(without_cuda):
    resolve_device("cpu")
    before = getrusage(RUSAGE_SELF).ru_minflt
    for _ in range(40):
        torch.ones(20 << 20)  # 80 MB: 20,480 pages
    # Without it all 40 would fault. Now and then a small block takes the end of what was freed: that is then too short.
    assert getrusage(RUSAGE_SELF).ru_minflt - before < 20 * 20480


def test_cuda_by_name_is_never_replaced(without_cuda):
    with pytest.raises(DeviceError, match=containing("CUDA")) as refused:
        resolve_device("cuda")
    assert (refused.value.exit_code, "`device`" in refused.value.hint) == (1, True)


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: FIRST_RIGHT_CUDNN)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(DeviceError, match=containing(2, "CUDA")):
        resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:one", "cpu:0", ""])
def test_other_words_are_wrong_use(without_cuda, name):
    if name == "cuda:":
        with pytest.raises(DeviceError):
            resolve_device(name)
        return
    with pytest.raises(UsageError, match=containing(repr(name))):
        resolve_device(name)


def test_at_least_one_processor():
    assert cpu_count() >= 1


@pytest.mark.parametrize(
    ("place", "files", "expected"),
    [
        ("0::/app", {"app/cpu.max": "150000 100000"}, 2),
        ("0::/app", {"app/cpu.max": "max 100000", "cpu.max": "100000 100000"}, 1),
        ("0::/app/inner", {"app/cpu.max": "300000 100000", "app/inner/cpu.max": "max 100000"}, 3),
        ("0::/../../elsewhere", {"cpu.max": "20000 100000"}, 1),
        ("0::/seen/from/outside", {"cpu.max": "200000 100000"}, 2),  # a container
        ("1:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "250000", "cpu/a/cpu.cfs_period_us": "100000"}, 3),
        (
            "4:cpu,cpuacct:/docker/1",
            {"cpu,cpuacct/cpu.cfs_quota_us": "50000", "cpu,cpuacct/cpu.cfs_period_us": "50000"},
            1,
        ),
        ("4:cpuacct,cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("3:cpuset:/a", {"cpuset/a/cpu.max": "100000 100000"}, 8),
        ("0::/app", {"app/cpu.max": "max 100000"}, 8),
        ("0::/app", {"app/cpu.max": "1600000 100000"}, 8),
        ("0::/app", {"app/cpu.max": "nonsense"}, 8),
    ],
)
def test_a_quota_counts_as_fewer_processors(tmp_path, monkeypatch, place, files, expected):
    (tmp_path / "self").write_text(f"9:name=systemd:/\n{place}\n")
    for name, content in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(f"{content}\n")
    monkeypatch.setattr(device, "PROCESS_CGROUPS", tmp_path / "self")
    monkeypatch.setattr(device, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert cpu_count() == expected


def test_without_cgroups_the_affinity_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "PROCESS_CGROUPS", tmp_path / "nothing")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2}, raising=False)
    assert cpu_count() == 3


@pytest.mark.parametrize(("variable", "expected"), [(None, 1), ("2", 2)])
def test_pytorch_computes_with_as_many_threads(monkeypatch, variable, expected):
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    monkeypatch.setattr(device, "cpu_count", lambda: 1)
    try:
        torch.set_num_threads(2)
        resolve_device("cpu")
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("number", "shown", "is_right"), [(91002, "9.10.2", False), (91600, "9.16.0", True)])
def test_a_cudnn_that_is_wrong_in_tf32_computes_without(monkeypatch, number, shown, is_right):
    before = torch.backends.cudnn.allow_tf32
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: number)
    try:
        torch.backends.cudnn.allow_tf32 = True
        found = resolve_device("cuda:0")
        assert torch.backends.cudnn.allow_tf32 is is_right
        assert cudnn_version(found) == shown and cudnn_version(torch.device("cpu")) is None
    finally:
        torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 3 << 30),
        ({"unified/app/memory.max": "max"}, 3 << 30),
        ({"app/memory.max": "1000000000"}, 10**9),
        ({"app/memory.max": "max", "memory.max": "2000000000"}, 2 * 10**9),
        ({"memory/old/memory.limit_in_bytes": "500000000"}, 5 * 10**8),
        ({"cpu/app/memory.max": "1000"}, 3 << 30),
    ],
)
def test_memory_is_what_the_system_has_left_and_the_cgroups_allow(tmp_path, monkeypatch, files, expected):
    (tmp_path / "self").write_text("0::/app\n4:memory:/old\n5:cpu:/app\n")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:  3145728 kB\n")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(device, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(device, "PROCESS_CGROUPS", tmp_path / "self")
    monkeypatch.setattr(device, "CGROUPS", tmp_path)
    assert device.memory_bytes() == expected


def test_memory_that_is_not_known_is_no_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "MEMORY", tmp_path / "not there")
    monkeypatch.setattr(device, "PROCESS_CGROUPS", tmp_path / "not there")
    assert device.memory_bytes() == float("inf")
