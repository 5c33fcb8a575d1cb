"""``vadis fvd`` and ``vadis reproduce fvd`` on a real road: a small random model, small arrays and videos."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.make_model import make_model
from tests.synthetic import moving_texture, write_video
from vadis import frechet_distance, load_model
from vadis.evaluation import frechet


def arrays(count: int, seed: int) -> np.ndarray:
    return np.stack([moving_texture(10, (48, 32), seed=seed + number) for number in range(count)])


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "m.safetensors", width=1 / 64, classes=20)


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in with 6 real videos and 4 generated ones in arrays."""
    np.save(tmp_path / "real.npy", arrays(6, seed=1))
    np.save(tmp_path / "generated.npy", arrays(4, seed=50))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fvd(run_vadis, model):
    def run(*arguments, code=0):
        ended = run_vadis("fvd", *arguments, "-m", model, "--device", "cpu", "--jobs", 1)
        assert ended.code == code, ended.err
        return ended

    return run


def result(ended) -> dict:
    return json.loads(ended.out)


def test_the_distance_is_that_of_the_library_with_all_that_it_depends_on(fvd, sets, model):
    found = result(fvd("real.npy", "generated.npy", "--json"))
    loaded = load_model(model, "cpu")
    expected = frechet_distance(np.load("real.npy"), np.load("generated.npy"), loaded)
    assert found["fvd"] == pytest.approx(expected, rel=1e-6)
    low, high = found["interval_95"]
    assert low < found["fvd"] < high
    assert (found["real"]["n"], found["generated"]["n"]) == (6, 4)
    assert found["real"]["model_sha256"] == loaded.sha256
    assert {key: found["real"][key] for key in ("protocol", "frames", "resize", "start", "streams")} == {
        "protocol": "reference",
        "frames": "all",
        "resize": "tensorflow1",
        "start": "first frame",
        "streams": ["rgb"],
    }
    assert found["comparable"] is False and len(found["warnings"]) == 2  # too few videos, another network


def test_as_text_it_names_number_protocol_and_model(fvd, sets):
    ended = fvd("real.npy", "generated.npy", "--kernel", "--unbiased", "--protocol", "tats", "--clip-length", 9)
    first, *others = ended.out.splitlines()
    assert first.startswith("FVD ") and "interval" in first
    assert [line.split()[0] for line in others] == ["unbiased", "KVD", "real", "generated", "protocol", "model"]
    assert "6 videos of 9 frames" in ended.out and "tats" in ended.out


def test_neither_order_nor_kind_of_input_matters_and_a_set_is_nothing_from_itself(fvd, sets):
    np.save("reversed.npy", np.load("real.npy")[::-1])
    Path("videos").mkdir()
    for index, video in enumerate(np.load("generated.npy")):
        write_video(f"videos/{index}.avi", frames=video, codec="ffv1")
    quick = ("--bootstrap", 0, "--json")
    plain, other = result(fvd("real.npy", "generated.npy", *quick)), result(fvd("reversed.npy", "videos", *quick))
    assert other["fvd"] == pytest.approx(plain["fvd"], rel=1e-6)
    assert [other[side]["inputs_sha256"] for side in ("real", "generated")] == [
        plain[side]["inputs_sha256"] for side in ("real", "generated")
    ]
    assert abs(result(fvd("real.npy", "reversed.npy", *quick))["fvd"]) < 1e-6 * plain["fvd"]


def test_a_broken_file_is_a_record_and_exit_code_3_also_when_it_goes_on(fvd, sets):
    Path("videos").mkdir()
    for seed in (1, 2, 3):
        write_video(f"videos/{seed}.mp4", num_frames=10, size=(48, 32), seed=seed)
    Path("videos/broken.mp4").write_bytes(b"no video")
    Path("list.txt").write_text("".join(f"videos/{name}.mp4\n" for name in ("1", "2", "3", "broken")))
    first = fvd("real.npy", "videos", "-o", "run", "--json", code=3)
    assert "videos/broken.mp4" in first.err
    assert (result(first)["generated"]["n"], result(first)["generated"]["failed"]) == (3, 1)
    lines = Path("run/generated.jsonl").read_text().splitlines(keepends=True)
    records = [json.loads(line) for line in lines[1:]]
    assert [record["status"] for record in records] == ["ok", "ok", "ok", "error"]
    Path("run/generated.jsonl").write_text("".join(lines[:2]) + lines[2][:100])  # killed while it wrote a record
    again = fvd("real.npy", "videos", "-o", "run", "--json", code=3)
    assert "6 of them done before" in again.err and "1 of them done before" in again.err
    assert result(again)["fvd"] == pytest.approx(result(first)["fvd"], rel=1e-9)
    assert result(fvd("real.npy", "list.txt", "--json", code=3))["generated"]["n"] == 3
    refused = fvd("real.npy", "videos", "-o", "run", "--clip-length", 9, code=2)
    assert "frames" in refused.err and "run/real.jsonl" in refused.err


def test_saved_statistics_stand_for_their_videos_and_for_no_other_settings(fvd, sets):
    plain = result(fvd("real.npy", "generated.npy", "--json", "--bootstrap", 0))
    fvd("real.npy", "--save", "real.npz")
    saved = result(fvd("real.npz", "generated.npy", "--json", "--bootstrap", 2))
    assert saved["fvd"] == pytest.approx(plain["fvd"], rel=1e-9)
    assert saved["real"] == plain["real"] | {"given": "real.npz"}
    assert "frames" in fvd("real.npz", "generated.npy", "--clip-length", 9, code=2).err
    assert "protocol" in fvd("real.npz", "generated.npy", "--protocol", "tats", code=2).err
    fvd("real.npz", "generated.npy", "--kernel", code=2)
    fvd("real.npy", "--save", "real.npz", code=2)  # there already
    Path("real.npz").write_bytes(Path("real.npz").read_bytes()[:1000])
    fvd("real.npz", "generated.npy", code=2)


def test_each_class_by_the_name_of_its_folder(fvd, sets):
    for side, name, count in (("a", "one", 3), ("b", "one", 2), ("a", "two", 2), ("b", "two", 3), ("b", "three", 2)):
        Path(side, name).mkdir(parents=True)
        for number, video in enumerate(arrays(count, seed=10 * count)):
            np.save(Path(side, name, f"{number}.npy"), video)
    found = result(fvd("a", "b", "--per-class", "--json", "--bootstrap", 0))["per_class"]
    assert {name: (each["real"], each["generated"]) for name, each in found.items()} == {
        "one": (3, 2),
        "three": (0, 2),
        "two": (2, 3),
    }
    alone = result(fvd("a/one", "b/one", "--json", "--bootstrap", 0))["fvd"]
    assert found["one"]["fvd"] == pytest.approx(alone, rel=1e-9) and found["three"]["fvd"] is None
    fvd("real.npy", "b", "--per-class", code=2)


def test_what_cannot_be_is_refused_before_a_model_is_loaded(run_vadis, sets):
    assert run_vadis("fvd", "real.npy", "-m", "nowhere").code == 2
    assert run_vadis("fvd", "nothing", "generated.npy").code == 2
    assert run_vadis("fvd", "real.npy", "generated.npy", "--protocol", "other").code == 2
    Path("empty").mkdir()
    assert run_vadis("fvd", "empty", "generated.npy").code == 4


@pytest.mark.parametrize(("fewest", "count"), [(400, 1), (401, 1), (2047, 1), (2048, 0)])
def test_it_warns_of_few_videos(fewest, count):
    sides = {"real": {"n": 5000, "clip_frames": [16, 16]}, "generated": {"n": fewest, "clip_frames": [16, 16]}}
    found = list(frechet._warnings({**sides, "comparable": True, "weights": "32 bits"}))
    assert len(found) == count
    assert any("full rank" in each for each in found) == (fewest <= 400)
    assert len(list(frechet._warnings({**sides, "comparable": True, "weights": "16 bits"}))) == count + 1
    sides["real"]["clip_frames"] = [9, 16]
    assert len(list(frechet._warnings({**sides, "comparable": True, "weights": "32 bits"}))) == count + 1


def test_the_shipped_model_is_deepmind_s_in_16_bits():
    shipped = load_model("i3d-kinetics400-rgb", "cpu")
    assert frechet.weights_of(shipped) == (16, True)


def test_published_values_stand_beside_ours(run_vadis, monkeypatch, model):
    def sides():
        return iter(arrays(3, seed=1)), iter(arrays(3, seed=9))

    published = frechet.PublishedDistance("three videos", "somewhere", 1.25, 1e-5, sides, 6)
    monkeypatch.setattr(frechet, "PUBLISHED_DISTANCES", (published,))
    ended = run_vadis("reproduce", "fvd", "-m", model, "--device", "cpu", "--json")
    found = json.loads(ended.out)
    (row,) = found["values"]
    ours = frechet_distance(*sides(), load_model(model, "cpu"))
    assert (row["published"], row["within"], found["passed"]) == (1.25, False, None)
    assert row["ours"] == pytest.approx(ours, rel=1e-6)
    monkeypatch.setattr(frechet, "weights_of", lambda model: (32, True))
    assert run_vadis("reproduce", "fvd", "-m", model, "--device", "cpu").code == 1
    monkeypatch.setattr(frechet, "PUBLISHED_DISTANCES", (published._replace(value=ours),))
    ended = run_vadis("reproduce", "fvd", "-m", model, "--device", "cpu")
    assert (ended.code, ended.out.splitlines()[-1]) == (0, "PASS")


@pytest.mark.slow
def test_killed_by_force_it_goes_on(fvd, sets, model):
    np.save("real.npy", arrays(30, seed=1))
    arguments = ["fvd", "real.npy", "generated.npy", "-o", "run", "-m", str(model), "--device", "cpu", "--jobs", "1"]
    began = subprocess.Popen([sys.executable, "-m", "vadis", *arguments], stderr=subprocess.DEVNULL)
    journal = Path("run/real.jsonl")
    while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
        assert began.poll() is None
        time.sleep(0.01)
    os.kill(began.pid, signal.SIGKILL)
    began.wait()
    ended = fvd("real.npy", "generated.npy", "-o", "run", "--json", "--bootstrap", 0)
    assert "of them done before" in ended.err
    whole = fvd("real.npy", "generated.npy", "--json", "--bootstrap", 0)
    assert result(ended)["fvd"] == pytest.approx(result(whole)["fvd"], rel=1e-9)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("empty.npy", "generated.npy"), 4),
        (("real.npy", "--save", "real"), 2),
        (("real.npy", "generated.npy", "--per-class"), 2),
        (("saved.npz", "saved.npz", "--unbiased"), 2),
        (("pickled.npz", "generated.npy"), 2),
        (("flat.npz", "generated.npy"), 2),
    ],
)
def test_what_cannot_be_compared_is_said_before_anything_is_computed(fvd, sets, monkeypatch, words, code):
    np.save("empty.npy", np.zeros((0, 10, 32, 48, 3), np.uint8))
    Path("pickled.npz").write_bytes(pickle.dumps([1]))
    fvd("real.npy", "--save", "saved.npz")
    with np.load("saved.npz") as arrays:
        np.savez("flat.npz", **{**arrays, "settings": "[]"})
    monkeypatch.setattr("vadis.cli.fvd.load_fvd_model", lambda *_: pytest.fail("a model was loaded"))
    fvd(*words, code=code)


def test_a_record_of_a_run_that_was_damaged_is_named(fvd, sets):
    fvd("real.npy", "generated.npy", "-o", "run", "--json")
    journal = Path("run/generated.jsonl")
    journal.write_text(journal.read_text().replace('"row": "', '"row": "!', 1))
    assert "run/generated.jsonl" in fvd("real.npy", "generated.npy", "-o", "run", code=2).err


def test_changed_pictures_are_seen_again_and_broken_ones_cost_their_folder(fvd, sets):
    for name, video in zip("abcd", arrays(4, seed=7), strict=True):
        Path("frames", name).mkdir(parents=True)
        for number, frame in enumerate(video):
            Image.fromarray(frame).save(f"frames/{name}/{number}.png")
    quick = ("real.npy", "frames", "-o", "run", "--json", "--bootstrap", 0)
    before = result(fvd(*quick))
    Image.fromarray(255 - frame).save("frames/d/3.png")
    Path("frames/b/5.png").write_bytes(b"no picture")
    Image.new("I;16", (48, 32)).save("frames/c/5.png")
    after = fvd(*quick, code=3)
    assert (result(after)["generated"]["n"], result(after)["generated"]["failed"]) == (2, 2)
    assert result(after)["fvd"] != before["fvd"] and "1 of them done before" in after.err


def test_a_clip_that_memory_does_not_hold_is_refused_and_the_others_count(fvd, sets, monkeypatch):
    write_video("long.avi", num_frames=60, size=(48, 32))
    Path("list.txt").write_text("long.avi\nreal.npy\n")
    monkeypatch.setattr("vadis.evaluation.embedding.memory_bytes", lambda: 20 * 8e6 / 32)  # 20 frames of this model
    ended = fvd("list.txt", "generated.npy", "--json", code=3)
    assert "long.avi" in ended.err and (result(ended)["real"]["n"], result(ended)["real"]["failed"]) == (6, 1)
