"""What a CUDA device does in a second, and what that makes of video: ready to run where there is one.

    python -m tests.benchmarks gpu --video CLIP

Flow: pairs of frames of the clip per second, and the end-point error against the processor's flow. Network: clips of 64
frames per second, forward in float32 and in bfloat16 with the change in the logits, forward and backward in both.
Whole: hours of video per hour through ``vadis classify``, and the share of what decoding alone on these cores allows.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.benchmarks.end_to_end import clip_of_ten_seconds
from tests.benchmarks.machine import Options
from tests.benchmarks.tvl1_speed import moving_texture
from tests.benchmarks.watched import vadis, watch
from vadis.device import cpu_count
from vadis.flow import to_gray, tvl1
from vadis.models.folded import FoldedI3D
from vadis.models.i3d import I3D
from vadis.preparing import PACES
from vadis.training.validation import clip_losses
from vadis.video.isolation import Decoders

PAIRS, CLIPS, VIDEOS = 250, 8, 96
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


def gray_frames(video: Path | None) -> np.ndarray:
    """uint8 (PAIRS + 1, H, W) of a real clip, forth and back if it is short, or of a moving texture."""
    if video is None:
        frames = moving_texture(7)
    else:
        with Decoders() as decoders, decoders.open(video, max_frames=PAIRS + 1) as opened:
            frames = to_gray(np.stack([frame.pixels for frame in opened]))
    there_and_back = np.concatenate([frames, frames[-2:0:-1]])  # no jump where it begins anew
    return np.concatenate([there_and_back] * (PAIRS // len(there_and_back) + 1))[: PAIRS + 1]


def flow_rows(device: torch.device, video: Path | None) -> dict[str, str]:
    frames = gray_frames(video)
    found, expected = tvl1(frames[:33], device=device), tvl1(frames[:33])
    error = np.linalg.norm(found - expected, axis=1).mean()
    few = PACES["cuda"].chunk_frames
    rate = PAIRS / seconds(lambda: tvl1(frames, device=device), repeats=3)
    rate_of_few = few / seconds(lambda: tvl1(frames[: few + 1], device=device))
    size = f"{frames.shape[2]}×{frames.shape[1]}"
    return {
        f"TV-L1, {size}, {PAIRS} pairs": f"{rate:.0f} pairs/s",
        f"the same, {few} pairs at a time, as `classify` takes them": f"{rate_of_few:.0f} pairs/s",
        "share of its numbers that equal the processor's to the last bit": f"{(found == expected).mean():.1%}",
        "end-point error against the processor's": f"{error:.2g} px",
    }


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
    x, rows = (torch.rand(CLIPS, 3, 64, 224, 224) * 2 - 1).to(device, memory_format=torch.channels_last_3d), {}
    for name, precision in TYPES.items():

        def passes(precision: torch.dtype = precision) -> None:
            network.zero_grad(set_to_none=True)
            clip_losses(network, [x], labels, precision)[0].mean().backward()

        rows[f"forward and backward, {name}"] = f"{CLIPS / seconds(passes):.1f} clips/s"
    return rows


def whole_rows(options: Options) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        clip = clip_of_ten_seconds(Path(folder))
        archive = [Path(folder) / f"{number}.mp4" for number in range(VIDEOS)]
        for video in archive:
            shutil.copy(clip, video)
        decoded = VIDEOS * 10 / decoding_seconds(archive)
        command = vadis("classify", "--model", options.model, "--streams", "both", "--device", "cuda", "-f", "jsonl")
        startup = watch([*command, str(clip)]).seconds
        labelled = (VIDEOS - 1) * 10 / (watch([*command, *map(str, archive)]).seconds - startup)
    return {
        f"hours of video labelled per hour, both streams, {VIDEOS} videos of 10 s": f"{labelled:.0f}",
        f"hours of video decoded per hour by {cpu_count()} cores, and nothing else": f"{decoded:.0f}",
        "share of the decode limit": f"{labelled / decoded:.0%}",
    }


def decoding_seconds(videos: list[Path]) -> float:
    """How long it takes to decode ``videos`` as vadis does it, one on each core."""

    def decode(video: Path) -> int:
        with decoders.open(video) as opened:
            return sum(1 for _ in opened)

    with Decoders() as decoders, ThreadPoolExecutor(cpu_count()) as pool:
        list(pool.map(decode, videos[: cpu_count()]))  # the processes have begun
        start = time.perf_counter()
        list(pool.map(decode, videos))
        return time.perf_counter() - start


def measure(options: Options) -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {"skipped": "there was no CUDA device"}
    device = torch.device("cuda")
    rows = {**flow_rows(device, options.video), **network_rows(device), **training_rows(device), **whole_rows(options)}
    name, versions = torch.cuda.get_device_name(device), f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}"
    return {"device": f"{name}, {cpu_count()} cores; {versions}", "rows": rows}
