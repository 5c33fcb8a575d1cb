"""``vadis finetune`` on real clips of UCF-101 and HMDB-51, arranged as a folder dataset, with a narrow network."""

import json
import shutil
from pathlib import Path

import pytest

from tests.make_model import make_model

CLIPS = {  # by what is done in them
    "archery": ["6arrowswithin30seconds_shoot_bow_f_nm_np1_fr_med_3.avi"],
    "baseball": ["v_BaseballPitch_g01_c01.avi"],
    "golf": ["Golf_Tips_-_Hit_The_Driver_300+_Yards!!!_golf_f_nm_np1_fr_med_0.avi"],
    "waving": ["SchoolRulesHowTheyHelpUs_wave_f_nm_np1_ba_med_0.avi"],
}


@pytest.mark.slow
@pytest.mark.usefixtures("quick_tvl1")
def test_real_clips_become_a_model_that_classifies_them(run_vadis, tmp_path, shared, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_model(Path("start.safetensors"), width=1 / 64, classes=3)
    for part in ("train", "test"):  # the same clips: what is shown here is the road, not the result
        for label, names in CLIPS.items():
            Path("data", part, label).mkdir(parents=True)
            for name in names:
                shutil.copy(shared / "videos" / "action" / name, Path("data", part, label, name))
    numbers = ("steps=2", "batch_size=4", "micro_batch=2", "clip_frames=16", "schedule=steps")
    ended = run_vadis(
        *("finetune", "--data", "data", "--from", "start.safetensors", "-o", "run", "--device", "cpu"),
        *(word for number in numbers for word in ("--set", number)),
    )
    assert ended.code == 0, ended.err
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["both"]["num_examples"] == sum(map(len, CLIPS.values()))
    done = run_vadis("classify", "data/test", "-m", "run/model.safetensors", "--streams", "rgb", "-f", "jsonl")
    records = [json.loads(line) for line in done.out.splitlines()]
    assert [record["status"] for record in records] == ["ok"] * metrics["both"]["num_examples"]
    assert {label["label"] for record in records for label in record["labels"]} == set(CLIPS)
