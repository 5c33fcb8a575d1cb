"""What commands have in common before they start."""

import re
import subprocess
import sys

import pytest
import torch

from tests.make_model import make_model
from tests.synthetic import write_video
from vadis.cli.run import open_remote

LOADED = """
import gc, sys
from vadis.cli.run import load_for_command
from vadis.errors import UsageError
try:
    load_for_command(sys.argv[1], "both", "cpu", offline=True)
except UsageError:
    print("none")
print(gc.isenabled(), gc.get_freeze_count())
"""


@pytest.mark.slow
@pytest.mark.parametrize("is_there", [True, False])
def test_no_search_for_garbage_among_modules_that_stay(tmp_path, is_there):
    path = tmp_path / "model.safetensors"
    if is_there:
        make_model(path, width=0.125)
    command = [sys.executable, "-c", LOADED, str(path)]
    *said, found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert said == ([] if is_there else ["none"])
    collects, frozen = found.split()
    assert collects == "True"
    assert int(frozen) > 100_000


@pytest.mark.parametrize(
    ("device", "jobs", "scratch_gb", "places", "share_gb"),
    [("cuda", 0, None, 16, 4), ("cpu", 0, None, 128, 4), ("cuda", 2, None, 2, 4), ("cuda", 0, 16, 16, 1)],
)
def test_fetched_videos_have_the_jobs_of_their_device(monkeypatch, device, jobs, scratch_gb, places, share_gb):
    monkeypatch.setattr("vadis.cli.run.resolve_device", torch.device)
    monkeypatch.setattr("vadis.inference.prefetch.cpu_count", lambda: 64)
    monkeypatch.setattr("vadis.inference.prefetch.memory_bytes", lambda: 1e12)
    with open_remote(True, scratch_gb, jobs, device) as decoders:
        assert decoders is not None
        assert (decoders.places, decoders.share_bytes) == (places, share_gb * 10**9)


COMMANDS = {
    "features": ("clips/train/b/1.mp4", "-o", "out"),
    "annotate": ("clips/train/b/1.mp4", "-o", "out.mp4"),
    "evaluate": ("--data", "clips", "-o", "out"),
    "finetune": ("--data", "clips", "-o", "out"),
    "train": ("--data", "clips", "-o", "out", "--from", "i3d-kinetics400"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_without_the_default_every_command_names_an_option_of_its_own_that_works(
    run_vadis, tmp_path, monkeypatch, command
):
    monkeypatch.chdir(tmp_path)
    for name in ("train/a/1", "train/a/2", "train/b/1", "train/b/2", "test/a/3", "test/b/3"):
        path = tmp_path / "clips" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, num_frames=2)
    ended = run_vadis(command, *COMMANDS[command], "--offline")
    assert (ended.code, ended.out) == (1, ""), ended.err
    hint = re.search(r"`(--[a-z]+) i3d-kinetics400-rgb (--[a-z]+) rgb`", ended.err)
    assert hint is not None, ended.err
    assert ended.err.count("i3d-kinetics400-rgb") == 1, "said once"
    described = run_vadis(command, "--help").out
    assert all(option in described for option in hint.groups())


@pytest.mark.parametrize("streams", ["flow", "both"])
def test_a_model_without_flow_does_not_stand_in_where_flow_is_asked_for(run_vadis, tmp_path, streams):
    write_video(tmp_path / "a.mp4", num_frames=2)
    ended = run_vadis("classify", tmp_path / "a.mp4", "--offline", "--streams", streams)
    assert (ended.code, ended.out) == (1, ""), ended.err
    assert "instead" not in ended.err and "--model i3d-kinetics400-rgb" in ended.err
