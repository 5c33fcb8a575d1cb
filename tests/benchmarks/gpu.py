"""What a CUDA device does in a second, and what that makes of video: ready to run where there is one.

    python -m tests.benchmarks gpu

Flow: pairs of 340×256 frames per second, and the end-point error against the processor's flow. Network: clips of 64
frames per second, forward in float32 and in bfloat16 with the change in the logits, forward and backward in both.
Whole: hours of video per hour through ``vadis classify``, and the share of what decoding alone on these cores allows.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.benchmarks.end_to_end import clip_of_ten_seconds, play_over
from tests.benchmarks.machine import Options
from tests.benchmarks.tvl1_speed import moving_texture
from tests.benchmarks.watched import vadis, watch
from vadis.device import cpu_count
from vadis.flow import tvl1
from vadis.models.folded import FoldedI3D
from vadis.models.i3d import I3D
from vadis.training.validation import clip_losses
from vadis.video.reader import open_video

PAIRS, CLIPS, MINUTES = 250, 8, 10
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """The shortest of several runs, each to its end on the device."""
    work()
    best = float("inf")
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def flow_rows(device: torch.device) -> dict[str, str]:
    pairs = moving_texture(8)  # (8, 2, H, W)
    frames = np.concatenate([pairs[:, 0]] * (PAIRS // 8 + 1))[: PAIRS + 1]
    found, expected = tvl1(frames[:9], device=device), tvl1(frames[:9])
    error = np.linalg.norm(found - expected, axis=1).mean()
    rate = PAIRS / seconds(lambda: tvl1(frames, device=device), repeats=3)
    return {"TV-L1, 340×256": f"{rate:.0f} pairs/s", "end-point error against the processor's": f"{error:.2g} px"}


def network_rows(device: torch.device) -> dict[str, str]:
    torch.manual_seed(0)
    network, x = I3D(400).eval(), (torch.rand(CLIPS, 3, 64, 224, 224) * 2 - 1).to(device)
    rows, logits = {}, {}
    for name, precision in TYPES.items():
        form = FoldedI3D(network, device, precision)
        logits[name] = form(x)
        rows[f"I3D forward, {name}"] = f"{CLIPS / seconds(lambda form=form: form(x)):.1f} clips/s"
    change = ((logits["bf16"] - logits["fp32"]).abs().max() / logits["fp32"].abs().max()).item()
    return {**rows, "change of the logits by bf16": f"{change:.1%} of the largest"}


def training_rows(device: torch.device) -> dict[str, str]:
    network, labels = I3D(400).to(device).train(), torch.zeros(CLIPS, dtype=torch.long, device=device)
    x, rows = (torch.rand(CLIPS, 3, 64, 224, 224) * 2 - 1).to(device), {}
    for name, precision in TYPES.items():

        def passes(precision: torch.dtype = precision) -> None:
            network.zero_grad(set_to_none=True)
            clip_losses(network, [x], labels, precision)[0].mean().backward()

        rows[f"forward and backward, {name}"] = f"{CLIPS / seconds(passes):.1f} clips/s"
    return rows


def whole_rows(options: Options) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        clip = clip_of_ten_seconds(Path(folder))
        long = play_over(clip, Path(folder) / "long.mp4", MINUTES * 6)
        start = time.perf_counter()
        with open_video(clip) as video:
            frames = sum(1 for _ in video)
        decoded = frames / 25 / (time.perf_counter() - start) * cpu_count()
        command = vadis("classify", "--model", options.model, "--streams", "both", "--device", "cuda", "-f", "jsonl")
        startup = watch([*command, str(clip)]).seconds
        labelled = (MINUTES * 60 - 10) / (watch([*command, str(long)]).seconds - startup)
    return {
        "hours of video labelled per hour, both streams": f"{labelled:.1f}",
        f"share of the decode limit of {cpu_count()} cores": f"{labelled / decoded:.0%}",
    }


def measure(options: Options) -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {"skipped": "there was no CUDA device"}
    device = torch.device("cuda")
    rows = {**flow_rows(device), **network_rows(device), **training_rows(device), **whole_rows(options)}
    return {"device": torch.cuda.get_device_name(device), "rows": rows}
