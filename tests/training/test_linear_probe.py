"""Features once, then the last layer: what is kept of each video, going on after a kill, and what is learnt."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.bfloat16 import emulated_bfloat16
from tests.make_model import make_model
from tests.matching import containing
from tests.synthetic import write_video
from tests.training.stand_in import ALONE
from vadis.datasets.dataset import Dataset, Example
from vadis.errors import OutputLockedError, VadisError
from vadis.evaluation.metrics import predict_all
from vadis.inference.features import Features, saved_settings
from vadis.models import Model, build_networks
from vadis.results import VideoResult
from vadis.training.checkpoint import CHECKPOINTS_NAME, load_newest
from vadis.training.linear_probe import (
    FeatureStore,
    compute_features,
    examples_to_probe,
    train_last_layer,
)
from vadis.training.loop import Context, StopRequested
from vadis.training.plan import MODEL_NAME, Plan, save
from vadis.training.recipes import RECIPES
from vadis.weights.model_file import load_model_file

pytestmark = pytest.mark.usefixtures("quick_tvl1")

CPU = torch.device("cpu")
CHANNELS = 64  # of the pooled features, at width 1/16
QUICK = replace(RECIPES["ucf101-fixed"], steps=40, batch_size=32, micro_batch=32, validate_every=10)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model_file(make_model(tmp_path_factory.mktemp("model") / "start.safetensors", width=1 / 16, classes=5))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of class "a", one of class "b"; the last has two parts."""
    root = tmp_path_factory.mktemp("videos")
    for number in range(4):
        write_video(root / f"{number}.mp4", num_frames=24, seed=number)
    return root


def plan_of(
    examples: list[Example],
    start: Model | None,
    root: str = "/data",
    streams: tuple[str, ...] = ("rgb",),
    classes: tuple[str, ...] = ("a", "b"),
    **changes,
) -> Plan:
    data = Dataset("folder", root, classes, 1, {"train": tuple(examples)})
    recipe = replace(QUICK, schedule="steps", **changes)
    return Plan(data, dict.fromkeys(streams, recipe), start, streams=streams, mode="fixed")


def examples_in(root: Path, count: int = 4) -> list[Example]:
    return [Example(str(root / f"{number}.mp4"), "a" if number < 3 else "b") for number in range(count)]


def put(store: FeatureStore, example: Example, rows: Mapping[str, np.ndarray]) -> None:
    """Keep (channels,) by network as the features of an example."""
    arrays = {name: row[None] for name, row in rows.items()}
    store.save(example, Features(arrays, np.zeros(1), VideoResult(example.path, "ok")))


def rows_of(store: FeatureStore, name: str, examples: Sequence[Example]) -> np.ndarray:
    return np.stack([store.features(example)[name] for example in examples])


@pytest.mark.slow
def test_the_features_are_what_the_papers_test_sees(start: Model, tmp_path: Path) -> None:
    """On two streams, in a part of a file, past the 250th frame: the last layer makes the test's logits of them."""
    write_video(tmp_path / "long.mp4", num_frames=290, seed=1)
    write_video(tmp_path / "short.mp4", num_frames=20, seed=2)
    rgb = start.only(("rgb",))
    cases = [
        (rgb, Example(str(tmp_path / "long.mp4"), "a", 1.0)),
        (rgb, Example(str(tmp_path / "long.mp4"), "a", 2.0, 3.5)),
        (start, Example(str(tmp_path / "short.mp4"), "b")),
    ]
    for number, (model, example) in enumerate(cases):
        plan = plan_of([example], start, str(tmp_path), model.card.streams)
        store = FeatureStore(tmp_path / str(number), plan)
        assert [error for _, error in compute_features(plan, store, CPU)] == [None]
        expected = next(predict_all([example], model)).logits
        for stream in model.card.streams:
            last = start.networks[stream].get_submodule("Logits.Conv3d_0c_1x1.conv")
            features = torch.from_numpy(rows_of(store, stream, [example])).view(1, -1, 1, 1, 1)
            logits = last(features).detach().flatten().numpy()
            np.testing.assert_allclose(logits, expected[stream], atol=1e-5 * np.abs(expected[stream]).max())


@pytest.mark.slow
@pytest.mark.parametrize("done", [0, 2, 4])
def test_it_goes_on_after_each_video(start: Model, videos: Path, tmp_path: Path, done: int) -> None:
    plan = plan_of(examples_in(videos), start, str(videos))
    given = compute_features(plan, FeatureStore(tmp_path, plan), CPU)
    for _ in range(done):
        next(given)
    given.close()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "features").glob("*/*")}
    assert len(before) == done
    store = FeatureStore(tmp_path, plan)
    assert [store.features(example) is not None for example in examples_to_probe(plan)] == [
        number < done for number in range(4)
    ]
    assert [example for example, _ in compute_features(plan, store, CPU)] == list(examples_to_probe(plan))
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "features").glob("*/*")}
    assert len(after) == 4 and after.items() >= before.items()


def test_a_features_file_is_as_vadis_features_writes_it(start: Model, videos: Path, tmp_path: Path) -> None:
    plan = plan_of(examples_in(videos, 1), start, str(videos))
    assert len(list(compute_features(plan, FeatureStore(tmp_path, plan), CPU))) == 1
    (path,) = (tmp_path / "features").glob("*/*.npz")
    assert saved_settings(path) == FeatureStore(tmp_path, plan).settings
    with np.load(path) as arrays:
        assert (arrays["rgb"].shape, arrays["seconds"].shape) == ((1, CHANNELS), (1,))
        assert 0 < arrays["seconds"][0] < 24 / 25
        assert json.loads(str(arrays["record"]))["num_frames"] == 24


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"", bytes.swapcase])
def test_damaged_features_are_computed_again(start: Model, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    examples = [Example(f"/data/{number}.mp4", "a") for number in range(2)]
    plan = plan_of(examples, start)
    store = FeatureStore(tmp_path, plan)
    put(store, examples[0], {"rgb": np.ones(CHANNELS, np.float32)})
    (path,) = (tmp_path / "features").glob("*/*.npz")
    path.write_bytes(damage(path.read_bytes()))
    put(store, examples[1], {"rgb": np.ones(CHANNELS, np.float32)})
    store = FeatureStore(tmp_path, plan)
    assert [store.features(example) is not None for example in examples] == [False, True]
    put(store, examples[0], {"rgb": np.full(CHANNELS, 2, np.float32)})
    assert rows_of(FeatureStore(tmp_path, plan), "rgb", examples)[:, 0].tolist() == [2, 1]


def test_features_are_found_again_where_the_data_have_moved(start: Model, tmp_path: Path) -> None:
    here, part = Example("/here/a/x.mp4", "a"), Example("/here/a/x.mp4", "a", 2.0, 4.0)
    store = FeatureStore(tmp_path, plan_of([here, part], start, "/here"))
    put(store, here, {"rgb": np.ones(CHANNELS, np.float32)})
    there = [replace(example, path="/there/a/x.mp4") for example in (here, part)]
    store = FeatureStore(tmp_path, plan_of(there, start, "/there"))
    assert [store.features(example) is not None for example in there] == [True, False]


def test_features_of_another_model_or_other_streams_are_not_taken(start: Model, tmp_path: Path) -> None:
    example = Example("/data/x.mp4", "a")
    plan = plan_of([example], start)
    put(FeatureStore(tmp_path, plan), example, {"rgb": np.ones(CHANNELS, np.float32)})
    assert FeatureStore(tmp_path, plan).features(example) is not None
    other = replace(start, sha256="0" * 64)
    assert FeatureStore(tmp_path, replace(plan, start=other)).features(example) is None
    assert FeatureStore(tmp_path, plan_of([example], start, streams=("rgb", "flow"))).features(example) is None


def test_in_bf16_features_are_others_and_the_layer_learns_in_fp32(start: Model, videos: Path, tmp_path: Path) -> None:
    examples = examples_in(videos)
    exact = plan_of(examples, start, str(videos), steps=3)
    rounded = plan_of(examples, start, str(videos), steps=3, precision="bf16")
    with emulated_bfloat16():
        assert all(error is None for _, error in compute_features(rounded, FeatureStore(tmp_path, rounded), CPU))
    store = FeatureStore(tmp_path, rounded)
    rows = rows_of(store, "rgb", examples)
    train_last_layer("rgb", rounded, tmp_path, Context(ALONE), store)
    found = load_newest(tmp_path / "rgb" / CHECKPOINTS_NAME)
    assert found is not None and found[0].state["made_with"]["precision"] == "fp32"
    assert FeatureStore(tmp_path, exact).features(examples[0]) is None
    assert all(error is None for _, error in compute_features(exact, FeatureStore(tmp_path, exact), CPU))
    plain = rows_of(FeatureStore(tmp_path, exact), "rgb", examples)
    assert 0 < np.abs(rows - plain).max() < 0.02 * plain.max()


def test_one_broken_video_is_left_out_and_named(start: Model, videos: Path, tmp_path: Path, caplog) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"")
    examples = [*examples_in(videos)[3:], Example(str(tmp_path / "broken.mp4"), "b")]
    plan = plan_of(examples, start, str(tmp_path), steps=2)
    store = FeatureStore(tmp_path, plan)
    found = [(Path(example.path).name, error and error.code) for example, error in compute_features(plan, store, CPU)]
    assert found == [("3.mp4", None), ("broken.mp4", "empty_file")]
    assert "broken.mp4" in caplog.text
    kept, _ = train_last_layer("rgb", plan, tmp_path, Context(ALONE), store)
    assert kept.steps == 2


def test_a_class_without_features_is_not_trained(start: Model, tmp_path: Path) -> None:
    examples = [Example(f"/data/{number}.mp4", "a" if number else "b") for number in range(100)]
    plan = plan_of(examples, start)
    store = FeatureStore(tmp_path, plan)
    for example in examples[1:]:
        put(store, example, {"rgb": np.ones(CHANNELS, np.float32)})
    with pytest.raises(VadisError, match=containing(1, "b")):
        train_last_layer("rgb", plan, tmp_path, Context(ALONE), store)


def test_more_than_one_in_a_hundred_stops_with_the_list(start: Model, tmp_path: Path) -> None:
    examples = [Example(str(tmp_path / f"{number}.mp4"), "a") for number in range(3)]
    for example in examples:
        Path(example.path).write_bytes(b"")
    plan = plan_of(examples, start, str(tmp_path))
    given = compute_features(plan, FeatureStore(tmp_path, plan), CPU)
    next(given)
    with pytest.raises(VadisError, match=containing(2, 3, "0.mp4 (empty_file)", "1.mp4")):
        next(given)


def test_a_single_frame_has_no_flow_and_is_left_out_of_both_streams(start: Model, tmp_path: Path) -> None:
    example = Example(str(write_video(tmp_path / "one.mp4", num_frames=1)), "a")
    plan = plan_of([example], start, str(tmp_path), ("rgb", "flow"))
    ((_, error),) = compute_features(plan, FeatureStore(tmp_path, plan), CPU)
    assert error is not None and error.code == "too_short"


def test_two_processes_do_not_write_at_once(start: Model, videos: Path, tmp_path: Path) -> None:
    plan = plan_of(examples_in(videos), start, str(videos))
    store = FeatureStore(tmp_path, plan)
    given = compute_features(plan, store, CPU)
    next(given)
    with pytest.raises(OutputLockedError):
        next(compute_features(plan, FeatureStore(tmp_path, plan), CPU))
    given.close()


def separable(store: FeatureStore, plan: Plan, seed: int = 0, *, scale: float = 1.0) -> None:
    """Features as ReLU and average pooling leave them: never negative, class means and noise about a common mean."""
    random = np.random.default_rng(seed)
    centres = {label: random.exponential(0.1, CHANNELS) for label in plan.dataset.classes}
    common = random.exponential(0.1, CHANNELS)
    for example in examples_to_probe(plan):
        rows = {
            stream: scale * np.maximum(common + centres[example.label] + random.normal(0, 0.05, CHANNELS), 0)
            for stream in plan.streams
        }
        put(store, example, {stream: row.astype(np.float32) for stream, row in rows.items()})


def learnable(start: Model, streams: tuple[str, ...] = ("rgb",), **changes) -> Plan:
    classes = tuple(f"class {number}" for number in range(8))
    examples = [
        Example(f"/data/{label}/v_g{number // 3:02}_c{number % 3}.avi", label)
        for label in classes
        for number in range(24)
    ]
    data = Dataset("folder", "/data", classes, 1, {"train": tuple(examples)})
    return Plan(data, dict.fromkeys(streams, replace(QUICK, **changes)), start, streams=streams, mode="fixed")


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_it_learns_the_classes_at_any_scale_of_the_features(start: Model, tmp_path: Path, scale: float) -> None:
    plan = learnable(start)
    store = FeatureStore(tmp_path, plan)
    separable(store, plan, scale=scale)
    kept, trained = train_last_layer("rgb", plan, tmp_path, Context(ALONE), store)
    assert kept.validation.accuracy == 1
    # The tensors that come back take the features as the network gives them, not as they were scaled for learning.
    prefix = "Logits.Conv3d_0c_1x1.conv."
    weight, bias = trained["rgb"][f"{prefix}weight"].flatten(1), trained["rgb"][f"{prefix}bias"]
    examples = plan.dataset.splits["train"]
    logits = torch.from_numpy(rows_of(store, "rgb", examples)) @ weight.T + bias
    right = [
        plan.dataset.classes[number] == example.label
        for number, example in zip(logits.argmax(1), examples, strict=True)
    ]
    assert np.mean(right) > 0.98
    loss = torch.nn.functional.cross_entropy(
        logits, torch.tensor([plan.dataset.classes.index(e.label) for e in examples])
    )
    assert loss < 0.5


def test_a_last_layer_of_the_same_classes_is_gone_on_with(start: Model, tmp_path: Path) -> None:
    """At a rate of nearly nothing it comes out as it went in, whatever the scale of the features."""
    examples = [Example(f"/data/{label}/{n}.mp4", label) for label in start.card.labels for n in range(4)]
    plan = plan_of(examples, start, classes=start.card.labels, steps=1, learning_rate=1e-12)
    store = FeatureStore(tmp_path, plan)
    separable(store, plan, scale=50.0)
    _, trained = train_last_layer("rgb", plan, tmp_path, Context(ALONE), store)
    for key in ("weight", "bias"):
        key = f"Logits.Conv3d_0c_1x1.conv.{key}"
        torch.testing.assert_close(trained["rgb"][key], start.networks["rgb"].state_dict()[key], rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_features_are_made_as_the_new_model_will_make_them(start: Model, tmp_path: Path) -> None:
    """Not cropped before their flow is computed, nor in windows, as the model to begin from does."""
    example = Example(str(write_video(tmp_path / "a.mp4", num_frames=70, size=(128, 64), seed=3)), "a")
    old = replace(start, card=replace(start.card, crop_first=True, test_window=32, window_frames=32))
    rows = []
    for number, model in enumerate((start, old)):
        plan = plan_of([example], model, str(tmp_path), ("rgb", "flow"))
        store = FeatureStore(tmp_path / str(number), plan)
        assert [error for _, error in compute_features(plan, store, CPU)] == [None]
        rows.append([rows_of(store, stream, [example]) for stream in ("rgb", "flow")])
    np.testing.assert_array_equal(rows[0], rows[1])


def test_only_the_last_layer_changes_and_the_model_file_takes_it(start: Model, tmp_path: Path) -> None:
    plan = learnable(start, ("rgb", "flow"), steps=2)
    store = FeatureStore(tmp_path, plan)
    separable(store, plan)
    networks, states = {}, {}
    for stream in plan.streams:
        states[stream], trained = train_last_layer(stream, plan, tmp_path, Context(ALONE), store)
        networks |= trained
    for stream, tensors in networks.items():
        assert {key: tuple(value.shape) for key, value in tensors.items()} == {
            key: tuple(value.shape) for key, value in build_networks(plan.card)[stream].state_dict().items()
        }
        before = start.networks[stream].state_dict()
        changed = {
            key for key in tensors if key.endswith("num_batches_tracked") or not torch.equal(tensors[key], before[key])
        }
        assert {key for key in changed if not key.endswith("tracked")} == {
            "Logits.Conv3d_0c_1x1.conv.weight",
            "Logits.Conv3d_0c_1x1.conv.bias",
        }
    save(tmp_path, plan, networks, states)
    model = load_model_file(tmp_path / MODEL_NAME)
    assert (model.card.streams, model.card.labels) == (("rgb", "flow"), plan.dataset.classes)
    assert model.card.provenance["recipes"]["flow"]["steps"] == 2
    assert model.card.provenance["states"]["flow"]["step"] == 2


@pytest.mark.slow
def test_an_interrupted_run_goes_on_bit_by_bit(start: Model, tmp_path: Path) -> None:
    def trained(folder: Path, stops_after: int = 10**9, **settings) -> dict:
        plan = learnable(start)
        store = FeatureStore(folder, plan)
        if store.features(examples_to_probe(plan)[0]) is None:
            separable(store, plan)
        asked = iter(range(10**9))
        context = Context(ALONE, stop_requested=lambda: 15 * (next(asked) > stops_after), **settings)
        return train_last_layer("rgb", plan, folder, context, store)[1]["rgb"]

    whole = trained(tmp_path / "whole")
    with pytest.raises(StopRequested, match="15"):
        trained(tmp_path / "cut", stops_after=30)
    gone_on = trained(tmp_path / "cut", resume=True)
    assert all(torch.equal(value, gone_on[key]) for key, value in whole.items())


def test_workers_are_not_started_for_what_is_in_memory(
    start: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = learnable(start, steps=2)
    store = FeatureStore(tmp_path, plan)
    separable(store, plan)

    class WithoutWorkers(DataLoader):
        def __init__(self, *arguments, num_workers, **options) -> None:
            assert num_workers == 0
            super().__init__(*arguments, **options)

    monkeypatch.setattr("vadis.training.loader.DataLoader", WithoutWorkers)
    train_last_layer("rgb", plan, tmp_path, Context(ALONE, workers=2), store)
    assert json.loads((tmp_path / "rgb" / "log.jsonl").read_text().splitlines()[0])["event"] == "StepDone"
