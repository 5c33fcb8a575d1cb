"""How long does a new last layer take once the features are there, and how good is it?

    python tests/benchmarks/fixed_speed.py [--streams rgb,flow] [--recipe ucf101-fixed] [--compare]

Features as ReLU and average pooling leave them, of 101 classes in groups of clips that are alike, as many as UCF-101's
first split has to learn from (9,537), are put into a feature store; then a whole run is timed: store → last layer →
all tensors of both networks, with log, validation and checkpoints. The floor is what no implementation of the same
recipe can do without: the multiply-adds of the last layer, forward and for the weights' gradient, at the rate of one
large matrix product on this machine in the same run; and the bytes of the features. ``--compare`` adds what a logistic
regression reaches on the same features, over a range of weight decays (minutes).
"""

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.machine import Options
from vadis.datasets.dataset import Dataset, Example
from vadis.device import cpu_count
from vadis.inference.features import Features
from vadis.models import Model, ModelCard, build_networks
from vadis.results import VideoResult
from vadis.training.distributed import Process
from vadis.training.linear_probe import FeatureStore, train_last_layer
from vadis.training.loop import Context
from vadis.training.plan import Plan
from vadis.training.recipes import find_recipe

CLASSES, CLIPS, TEST_CLIPS, CHANNELS = 101, 9_537, 3_783, 1024  # UCF-101, split 1
GROUPS = 18  # of a class, to learn from
RANK = 96  # directions in which clips differ
CPU = torch.device("cpu")


class Pretended:
    """Features of one stream: E[ReLU(N(mean, 1))] of means that differ by class, by group and by clip."""

    def __init__(self, seed: int, separation: float) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.base = -1.2 + 0.6 * self._normal(CHANNELS)
        self.mix = self._normal(RANK, CHANNELS) / math.sqrt(RANK)
        self.classes = separation * self._normal(CLASSES, RANK)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.random)

    def of(self, labels: Tensor, groups: Tensor) -> Tensor:
        """(N, channels) of clips with these classes and groups, each counted from 0."""
        by_group = 0.5 * self._normal(int(groups.max()) + 1, RANK)
        place = self.classes[labels] + by_group[groups] + 0.25 * self._normal(len(labels), RANK)
        mean = self.base + place @ self.mix + 0.05 * self._normal(len(labels), CHANNELS)
        return mean * torch.special.ndtr(mean) + torch.exp(-mean.square() / 2) / math.sqrt(2 * math.pi)


def laid_out(count: int) -> tuple[Tensor, Tensor, list[str]]:
    """Classes (N,), groups (N,) and file names of ``count`` clips."""
    numbers = torch.arange(count)
    labels, groups = numbers % CLASSES, numbers // CLASSES % GROUPS
    names = [
        f"/data/v_{label}_g{group:02}_c{number:05}.avi"
        for number, (label, group) in enumerate(zip(labels.tolist(), groups.tolist(), strict=True))
    ]
    return labels, labels * GROUPS + groups, names


def start_model(streams: tuple[str, ...]) -> Model:
    card = ModelCard("pretended", "i3d", streams, tuple(f"kinetics {number}" for number in range(400)))
    return Model(card, build_networks(card), CPU, "0" * 64)


def fill(store: FeatureStore, examples: tuple[Example, ...], features: Mapping[str, Tensor]) -> None:
    fsync, os.fsync = os.fsync, lambda descriptor: None  # once per video, it would take longer than all the rest
    for number, example in enumerate(examples):
        arrays = {stream: rows[number : number + 1].numpy() for stream, rows in features.items()}
        store.save(example, Features(arrays, np.zeros(1), VideoResult(example.path, "ok")))
    os.fsync = fsync


def matmul_rate() -> float:
    """FLOP/s of one large matrix product."""
    a, b = torch.rand(1536, 1536), torch.rand(1536, 1536)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - began)
    return 2 * 1536**3 / min(times)


def accuracy(weight: Tensor, bias: Tensor, x: Tensor, labels: Tensor) -> float:
    return float(((x @ weight.T + bias).argmax(1) == labels).float().mean())


def logistic_regression(x: Tensor, labels: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """The minimum of cross-entropy + decay / 2 · |w|², by L-BFGS."""
    weight, bias = torch.zeros(CLASSES, CHANNELS, requires_grad=True), torch.zeros(CLASSES, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(x @ weight.T + bias, labels) + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    return weight.detach(), bias.detach()


def measure(options: Options) -> dict[str, Any]:
    return run(("rgb", "flow"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", default="rgb,flow")
    parser.add_argument("--recipe", default="ucf101-fixed")
    parser.add_argument("--separation", type=float, default=0.28, help="between the classes' means")
    parser.add_argument("--compare", action="store_true")
    options = parser.parse_args()
    run(tuple(options.streams.split(",")), options.recipe, options.separation, is_compared=options.compare)


def run(
    streams: tuple[str, ...], recipe: str = "ucf101-fixed", separation: float = 0.28, *, is_compared: bool = False
) -> dict[str, Any]:
    torch.set_num_threads(cpu_count())
    labels, groups, names = laid_out(CLIPS)
    tested, test_groups, _ = laid_out(TEST_CLIPS)
    pretended = {stream: Pretended(seed, separation) for seed, stream in enumerate(streams)}
    features = {stream: source.of(labels, groups) for stream, source in pretended.items()}
    unseen = {stream: source.of(tested, test_groups) for stream, source in pretended.items()}
    classes = tuple(str(number) for number in range(CLASSES))
    examples = tuple(Example(name, str(label)) for name, label in zip(names, labels.tolist(), strict=True))
    data = Dataset("ucf101", "/data", classes, 1, {"train": examples})
    recipes = dict.fromkeys(streams, find_recipe(recipe))
    plan = Plan(data, recipes, start_model(streams), streams=streams, mode="fixed")
    with tempfile.TemporaryDirectory() as folder:
        fill(FeatureStore(Path(folder), plan), examples, features)
        found = report(plan, Path(folder), unseen, tested)
    if is_compared:
        compare(features, labels, unseen, tested)
    return found


def report(plan: Plan, folder: Path, unseen: Mapping[str, Tensor], tested: Tensor) -> dict[str, Any]:
    rate, shown = matmul_rate(), 0
    began, used = time.perf_counter(), time.process_time()
    store, found = FeatureStore(folder, plan), {}
    print(f"store opened {time.perf_counter() - began:5.2f} s")
    for stream in plan.streams:
        at = time.perf_counter()
        kept, trained = train_last_layer(stream, plan, folder, Context(Process(CPU)), store)
        found |= trained
        shown += kept.steps * plan.recipes[stream].batch_size
        print(f"{stream:5} {time.perf_counter() - at:5.2f} s, {kept.steps} steps")
    seconds, used = time.perf_counter() - began, time.process_time() - used
    print(f"all   {seconds:5.2f} s, {used:.2f} s of processors, with {torch.get_num_threads()} threads")
    operations, num_bytes = 2 * 2 * CHANNELS * CLASSES * shown, 4 * CHANNELS * CLIPS * len(plan.streams)
    print(
        f"floor {operations / rate:5.2f} s: {operations / 1e9:.0f} GFLOP at {rate / 1e9:.0f} GFLOP/s of a large product"
    )
    print(f"      and {num_bytes / 1e6:.0f} MB of features read once")
    for stream, tensors in found.items():
        prefix = "Logits.Conv3d_0c_1x1.conv."
        weight, bias = tensors[f"{prefix}weight"].flatten(1), tensors[f"{prefix}bias"]
        print(f"{stream}: {accuracy(weight, bias, unseen[stream], tested):.1%} of {len(tested):,} unseen clips")
    return {"seconds": seconds, "processor_seconds": used, "steps": kept.steps, "floor_seconds": operations / rate}


def compare(features: Mapping[str, Tensor], labels: Tensor, unseen: Mapping[str, Tensor], tested: Tensor) -> None:
    for stream, x in features.items():
        scale = x.square().mean().sqrt()
        for decay in (1e-4, 1e-3, 1e-2, 1e-1):
            weight, bias = logistic_regression(x / scale, labels, decay)
            right = accuracy(weight, bias, unseen[stream] / scale, tested)
            print(f"{stream}: logistic regression, decay {decay:g}: {right:.1%}")


if __name__ == "__main__":
    main()
