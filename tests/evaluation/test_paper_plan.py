"""The commands for missing cells: all there, each once, in an order in which they can be run."""

import shlex
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from tests.trained_run import begun, write_model, write_tested, write_trained
from vadis.evaluation.paper_plan import GFLOPS, SIZES, Job, estimate_run, find_runs, plan, videos_bytes
from vadis.evaluation.paper_tables import TABLES, Cell
from vadis.models import MODELS, STREAM_CHANNELS

ALL = {"rgb": 700, "flow": 800, "both": 900}


def planned(number: int, root: Path) -> list[Job]:
    return plan(TABLES[number], find_runs(root), root)


def commands(number: int, root: Path) -> list[str]:
    return [" ".join(job.command) for job in planned(number, root)]


def option(command: str, name: str) -> str | None:
    words = shlex.split(command)
    return words[words.index(name) + 1] if name in words else None


@pytest.mark.parametrize("number", TABLES)
def test_all_cells_are_filled_each_by_one_run_for_each_split(number: int, tmp_path: Path) -> None:
    filled = [cell for job in planned(number, tmp_path / "runs") for cell in job.fills]
    wanted = [cell for cell in TABLES[number].cells() for _ in cell.splits]
    assert sorted(filled) == sorted(wanted)


@pytest.mark.parametrize("number", TABLES)
def test_what_a_command_needs_is_made_before_it(number: int, tmp_path: Path) -> None:
    made: set[str] = set()
    for command in commands(number, tmp_path):
        words = shlex.split(command)
        if words[:3] == ["vadis", "weights", "download"]:
            made |= set(words[3:])
            continue
        start = {"imagenet": "inception-v1-imagenet", "scratch": None}
        begun = option(command, "--from")
        needed = [start.get(begun, begun), option(command, "--flow-store"), option(command, "--model")]
        assert {name for name in needed if name} <= made, command
        folder = option(command, "-o")
        assert folder is not None
        assert folder not in made, "a folder for each run"
        made |= {folder, f"{folder}/model.safetensors"}


@pytest.mark.parametrize("number", TABLES)
def test_the_command_line_takes_every_command(number: int, tmp_path: Path) -> None:
    """Options and values are those of the real commands; they stop at the dataset, which is not there."""
    from vadis.cli import app
    from vadis.errors import UsageError

    seen = set()
    for command in commands(number, tmp_path / "runs"):
        words = shlex.split(command)[1:]
        kind = tuple(word for word in words if "/" not in word and "imagenet" not in word)
        if words[0] == "weights" or kind in seen:
            continue
        seen.add(kind)
        outcome = CliRunner().invoke(app, words)
        assert isinstance(outcome.exception, UsageError), (command, outcome.output)
        assert any(name in str(outcome.exception) for name in ("ucf101", "hmdb51", "kinetics400")), command


def test_a_kinetics_model_comes_first_where_none_is_published(tmp_path: Path) -> None:
    kinetics = [" ".join(job.command) for job in planned(4, tmp_path) if job.dataset == "kinetics" and not job.fills]
    assert sum("--arch c3d" in command for command in kinetics) == 1
    assert not any("--arch i3d" in command for command in kinetics)


def test_a_finished_kinetics_model_is_used_where_it_lies(tmp_path: Path) -> None:
    run = write_trained(tmp_path / "mine" / "k", "c3d", "kinetics", {"rgb": 1})
    (run / "model.safetensors").write_bytes(b"a model")
    found = commands(4, tmp_path)
    assert not any("kinetics400/" in command and "c3d" in command for command in found)
    starts = {option(command, "--from") for command in found if "c3d" in command} - {None, "scratch"}
    assert starts == {str(run / "model.safetensors")}


def test_only_what_is_missing_is_planned(tmp_path: Path) -> None:
    for start in ("i3d-kinetics400", "i3d-kinetics400-scratch"):
        for dataset in ("ucf101", "hmdb51"):
            for split in (1, 2, 3):
                if (start, dataset, split) != ("i3d-kinetics400", "hmdb51", 3):
                    folder = tmp_path / f"{start}{dataset}{split}"
                    write_trained(folder, "i3d", dataset, ALL, split=split, start=begun(start))
    download, flow, last = commands(5, tmp_path)
    assert download == "vadis weights download i3d-kinetics400"
    assert flow == f"vadis flow hmdb51/ -o {tmp_path}/flow/hmdb51"
    assert option(last, "--split") == "3"
    write_trained(tmp_path / "last", "i3d", "hmdb51", ALL, split=3, start=begun("i3d-kinetics400"))
    assert commands(5, tmp_path) == []


def test_one_run_gives_all_columns_but_those_of_a_network_of_all_streams(tmp_path: Path) -> None:
    write_tested(tmp_path / "b", "i3d-kinetics400", "i3d", "kinetics", ALL)
    i3d = [command for command in commands(2, tmp_path) if "--arch i3d" in command and "ucf101" in command]
    assert [option(command, "--streams") for command in i3d] == [None]
    fused = [command for command in commands(2, tmp_path) if "--arch fused" in command and "ucf101" in command]
    assert {option(command, "--streams") for command in fused} == {"rgb", "flow", None}


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    write_trained(tmp_path / "c3d-ucf101-original", "c3d", "ucf101", {"rgb": 1}, is_tested=False)
    c3d = {option(command, "-o"): command for command in commands(2, tmp_path) if "--arch c3d" in command}
    assert c3d[f"{tmp_path}/c3d-ucf101-original"].endswith("--resume")
    assert not c3d[f"{tmp_path}/c3d-hmdb51-original"].endswith("--resume")


def test_a_folder_with_a_blank_in_its_name_is_quoted(tmp_path: Path) -> None:
    root = tmp_path / "my runs"
    run = write_trained(root / "k", "c3d", "kinetics", {"rgb": 1})
    (run / "model.safetensors").write_bytes(b"a model")
    found = [
        command
        for command in commands(4, root)
        if option(command, "--from") not in (None, "scratch") and "c3d" in command
    ]
    assert {option(command, "--from") for command in found} == {str(run / "model.safetensors")}
    assert all(
        option(
            command,
            "-o",
        ).startswith(str(root))
        for command in found
    )  # type: ignore[union-attr]


def test_models_in_the_cache_are_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VADIS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "cache" / "models" / "i3d-kinetics400.safetensors"
    path.parent.mkdir(parents=True)
    path.touch()
    assert commands(5, tmp_path)[0] == "vadis weights download i3d-kinetics400-scratch"


def test_the_videos_of_each_dataset_are_counted_once(tmp_path: Path) -> None:
    assert videos_bytes(planned(5, tmp_path)) == 6.9e9 + 2.1e9


def test_a_run_from_a_planned_model_is_recognised_when_it_is_finished(tmp_path: Path) -> None:
    """The names of the plan's folders do not matter: what was done there does."""
    before = write_trained(tmp_path / "any-name", "fused", "kinetics", {"both": 600}, imagenet=True)
    sha256 = write_model(before / "model.safetensors")
    start = begun("fused-kinetics-split1", "fused", sha256)
    write_trained(tmp_path / "other-name", "fused", "ucf101", {"both": 940}, mode="fixed", start=start)
    assert not any(
        "fused-ucf101-fixed-imagenet" in command or "fused-kinetics-imagenet" in command
        for command in commands(4, tmp_path)
    )


RGB, STREAMS = ("rgb",), ("rgb", "flow")
GIGA = 1e9


@pytest.mark.parametrize(("architecture", "streams"), GFLOPS)
def test_operations_are_those_of_the_networks(architecture: str, streams: tuple[str, ...]) -> None:
    """Counted on a network without memory."""
    row = MODELS[architecture]
    with torch.device("meta"):
        network = row.build(streams, 400, 1.0).eval()
    window = row.test_window or row.test_frames
    windows = (1, -(-row.test_frames // window))
    for frames, number, gflops in zip((row.window_frames, window), windows, GFLOPS[architecture, streams], strict=True):
        lengths = {stream: len(range(frames)[row.sampling[stream]]) for stream in streams}
        clips = [
            torch.empty(1, STREAM_CHANNELS[stream], length, row.crop, row.crop, device="meta")
            for stream, length in lengths.items()
        ]
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(*clips)
        assert gflops == pytest.approx(number * counter.get_total_flops() / GIGA, rel=1e-4)


def test_training_is_three_passes_for_every_clip_of_every_step() -> None:
    clip, video = GFLOPS["c3d", RGB]
    flops, num_bytes = estimate_run(Cell("c3d", "ucf101", "full", False, "rgb"))
    assert flops == pytest.approx(GIGA * (3 * clip * 16 * 15 * 5_000 + 3_783 * video))  # 16 GPUs of 15 clips (paper)
    assert num_bytes == 79e6 * 4 * 5  # the model, and two checkpoints with their momentum


def test_each_stream_of_a_late_fusion_has_a_recipe_of_its_own() -> None:
    """And streams that are trained as one have one run."""
    flops, _ = estimate_run(Cell("two-stream", "kinetics", "original", False, "both"))
    training, test = (sum(GFLOPS["two-stream", (stream,)][place] for stream in STREAMS) for place in (0, 1))
    assert flops == pytest.approx(GIGA * (3 * training * 384 * 110_000 + 40_000 * test))


def test_a_last_layer_costs_its_features() -> None:
    flops, num_bytes = estimate_run(Cell("i3d", "hmdb51", "fixed", True, "both"))
    assert flops == pytest.approx(5_100 * GIGA * sum(GFLOPS["i3d", (each,)][1] for each in STREAMS))
    assert num_bytes == 25e6 * 4


def test_a_test_of_a_published_model_leaves_no_model() -> None:
    assert estimate_run(Cell("i3d", "kinetics", "original", True, "both"))[1] == 0


def test_flow_is_what_its_page_says(tmp_path: Path) -> None:
    (ucf101,) = (job for job in planned(5, tmp_path) if job.title == "flow of UCF-101")
    assert ucf101.num_bytes == pytest.approx(12e9, rel=0.03)  # docs/flow-store.md
    assert ucf101.core_seconds / 3600 == pytest.approx(25, rel=0.02)


def test_splits_add_up_to_the_dataset() -> None:
    assert SIZES["ucf101"].train + SIZES["ucf101"].test == SIZES["ucf101"].videos
