"""``vadis classify --ray``: the address, the folder of parts, and the road itself on a Ray of this machine."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_road import labelled
from tests.inference.test_ray import lines, model_file, needs_ray, videos_in
from tests.matching import containing
from tests.pages import ROOT, commands
from vadis.batch import LastResults
from vadis.inference.classify import ClassifyOptions, label_videos
from vadis.results import Part
from vadis.weights.load import load_model

__all__ = ["model_file"]


@needs_ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
@pytest.mark.parametrize("part", [None, Part(0.1, 1.0)])
def test_the_pages_commands_give_one_machines_records_byte_for_byte(tmp_path, model_file, run_vadis, monkeypatch, part):
    """And the same command goes on. It starts a Ray here instead of looking for a cluster.

    It has a process of its own: where Ray's client still waits for an answer when its cluster is gone, it ends the
    process by ``_Exit(1)`` a minute later.
    """
    classify, export = [line for line in commands(ROOT / "docs" / "scale.md", "sh") if "results/" in line]
    monkeypatch.chdir(tmp_path)
    videos_in(tmp_path / "archive", 3)
    paths = sorted(str(path) for path in Path("archive").iterdir())
    options = ClassifyOptions(load_model(str(model_file), "cpu"), part=part)
    here = lines(label_videos(paths, options, jobs=1, listed=True))
    times = ("--start", part.start, "--end", part.end) if part else ()
    words = (*shlex.split(classify.replace("--ray", "--ray local"))[1:], "--model", model_file, *times)
    command = [sys.executable, "-m", "vadis", *map(str, words)]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 3, ended.stderr
    (part,) = Path("results").iterdir()
    assert lines(LastResults([part])) == here
    before = part.read_bytes()
    again = run_vadis(*words)  # starts no Ray
    assert again.code == 3 and re.search(containing(len(paths)), again.err)
    assert part.read_bytes() == before
    assert run_vadis(*shlex.split(export.replace("part-*", part.stem))[1:]).code == 3  # as the records say
    assert lines(LastResults([Path("all.jsonl")])) == here


@pytest.fixture
def asked(tmp_path, monkeypatch, road) -> list[tuple[list[str], dict]]:
    """What the command asks of a cluster, which labels without looking; the current folder is ``tmp_path``."""
    monkeypatch.chdir(tmp_path)
    found: list[tuple[list[str], dict]] = []

    def classify_on_ray(paths, model, **options):
        found.append((paths, options))
        return labelled(paths)

    monkeypatch.setattr("vadis.inference.ray.classify_on_ray", classify_on_ray)
    return found


def test_the_address_may_be_left_out(tmp_path, run_vadis, asked):
    (tmp_path / "a.mp4").write_bytes(b"x")
    for words, address in (
        (("a.mp4", "--ray", "-o", "r1"), "auto"),
        (("--ray", "a.mp4", "-o", "r2"), "auto"),
        (("a.mp4", "-o", "r3", "--ray"), "auto"),
        (("--ray", "10.0.0.1:6379", "a.mp4", "-o", "r4"), "10.0.0.1:6379"),
        (("--ray=ray://head:10001", "a.mp4", "-o", "r5"), "ray://head:10001"),
    ):
        ended = run_vadis("classify", *words)
        assert ended.code == 0, ended.err
        assert (asked[-1][0], asked[-1][1]["address"]) == (["a.mp4"], address)
    assert run_vadis("classify", "a.mp4", "--ray").code == 2
    assert run_vadis("classify", "a.mp4", "--ray", "-o", "x", "--shard", "1/2").code == 2


@pytest.mark.integration("yaml")  # PyYAML comes with ray
def test_the_example_for_kubernetes_is_whole_and_its_command_runs(tmp_path, run_vadis, asked):
    """The folders that its volumes would hold are here; no operator has read it."""
    import yaml

    (text,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "scale.md").read_text(), re.MULTILINE | re.DOTALL)
    job = yaml.safe_load(text)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0" and workers["replicas"] > 1
    for group in (head, workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        claims = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == claims.keys()
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
    places = {mount["mountPath"] for mount in head["template"]["spec"]["containers"][0]["volumeMounts"]}
    program, *words = shlex.split(job["spec"]["entrypoint"])
    assert program == "vadis" and places == {f"/{word.split('/')[1]}" for word in words if word.startswith("/")}
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "a.mp4").write_bytes(b"x")
    ended = run_vadis(*(f"{tmp_path}{word}" if word.startswith("/") else word for word in words))
    assert ended.code == 0, ended.err
    assert [Path(path).name for path in asked[0][0]] == ["a.mp4"] and asked[0][1]["address"] == "auto"
    assert (tmp_path / "results" / "run1" / "part-00001.jsonl").is_file()
