"""What a CUDA device does in a second, and what that makes of video: ready to run where there is one.

    python -m tests.benchmarks gpu --video CLIP

Flow: pairs of frames of the clip per second, and the end-point error against the processor's flow. Network: clips of 64
frames per second, forward in float32 and in bfloat16 with the change in the logits, forward and backward in both.
Loading: training clips that the processors make meanwhile. Whole: hours of video per hour through ``vadis classify``,
with the windows of one video and of several in a pass, and the share of what decoding alone on these cores allows.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tests.benchmarks.end_to_end import clip_of_ten_seconds
from tests.benchmarks.loading import made
from tests.benchmarks.machine import Options
from tests.benchmarks.tvl1_speed import moving_texture
from tests.benchmarks.watched import vadis, watch
from vadis.datasets import Example
from vadis.device import cpu_count
from vadis.flow import to_gray, tvl1
from vadis.inference.prefetch import chunk_frames
from vadis.models.i3d import I3D
from vadis.models.i3d_inference import FoldedI3D
from vadis.training.loader import CLIP_FRAMES, CLIPS_AHEAD, VideoClips, stream_clips
from vadis.training.loop import clip_losses
from vadis.training.recipes import RECIPES
from vadis.video.isolated.pool import Decoders

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Sizes(NamedTuple):
    """How much is measured; the tests, on a processor, take less."""

    pairs: int = 250
    clips: int = 8  # at a time
    frames: int = CLIP_FRAMES
    width: float = 1.0  # multiplier of the channels
    loaded: int = 25  # clips per core
    videos: int = 96
    repeats: int = 5  # of which the shortest counts


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The shortest of several runs, each to its end on the device."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    work()
    best = float("inf")
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        work()
        wait()
        best = min(best, time.perf_counter() - start)
    return best


def gray_frames(video: Path | None, pairs: int) -> np.ndarray:
    """uint8 (``pairs`` + 1, H, W) of a real clip, forth and back if it is short, or of a moving texture."""
    if video is None:
        frames = moving_texture(7)
    else:
        with Decoders() as decoders, decoders.open(video, max_frames=pairs + 1) as opened:
            frames = to_gray(np.stack([frame.pixels for frame in opened]))
    there_and_back = np.concatenate([frames, frames[-2:0:-1]])  # no jump where it begins anew
    return np.concatenate([there_and_back] * (pairs // len(there_and_back) + 1))[: pairs + 1]


def flow_rows(device: torch.device, video: Path | None, sizes: Sizes) -> dict[str, str]:
    frames = gray_frames(video, sizes.pairs)
    found, expected = tvl1(frames[:33], device=device), tvl1(frames[:33])
    error = np.linalg.norm(found - expected, axis=1).mean()
    few = min(chunk_frames(torch.device("cuda")), sizes.pairs)
    rate = sizes.pairs / seconds(lambda: tvl1(frames, device=device), min(3, sizes.repeats))
    rate_of_few = few / seconds(lambda: tvl1(frames[: few + 1], device=device), sizes.repeats)
    size = f"{frames.shape[2]}×{frames.shape[1]}"
    return {
        f"TV-L1, {size}, {sizes.pairs} pairs": f"{rate:.0f} pairs/s",
        f"the same, {few} pairs at a time, as `classify` takes them": f"{rate_of_few:.0f} pairs/s",
        "share of its numbers that equal the processor's to the last bit": f"{(found == expected).mean():.1%}",
        "end-point error against the processor's": f"{error:.2g} px",
    }


def random_clips(device: torch.device, sizes: Sizes) -> torch.Tensor:
    """(B, 3, T, 224, 224) in [-1, 1]."""
    return (torch.rand(sizes.clips, 3, sizes.frames, 224, 224) * 2 - 1).to(device, memory_format=torch.channels_last_3d)


def network_rows(device: torch.device, sizes: Sizes) -> dict[str, str]:
    torch.manual_seed(0)
    network, x = I3D(400, width=sizes.width).eval(), random_clips(device, sizes).contiguous()
    rows, logits = {}, {}
    for name, precision in TYPES.items():
        form = FoldedI3D(network, device, precision)
        logits[name] = form(x)
        rate = sizes.clips / seconds(lambda form=form: form(x), sizes.repeats)
        rows[f"I3D forward, {name}"] = f"{rate:.1f} clips/s"
    change = ((logits["bf16"] - logits["fp32"]).abs().max() / logits["fp32"].abs().max()).item()
    return {**rows, "change of the logits by bf16": f"{change:.1%} of the largest"}


def training_rows(device: torch.device, sizes: Sizes) -> dict[str, str]:
    network = I3D(400, width=sizes.width).to(device).train()
    x, labels = random_clips(device, sizes), torch.zeros(sizes.clips, dtype=torch.long, device=device)
    rates, rows = {}, {}
    for name, precision in TYPES.items():

        def passes(precision: torch.dtype = precision) -> None:
            network.zero_grad(set_to_none=True)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision is torch.bfloat16):
                losses, _ = clip_losses(network, [x], labels)
            losses.mean().backward()

        rates[name] = sizes.clips / seconds(passes, sizes.repeats)
        rows[f"forward and backward, {name}"] = f"{rates[name]:.1f} clips/s"
    loaded = loading_rate(cpu_count(), sizes.loaded, pin_memory=device.type == "cuda")
    rows[f"training clips (RGB) that {cpu_count()} cores load"] = f"{loaded:.1f} clips/s"
    return {**rows, "clips loaded for each that goes forward and backward, fp32": f"{loaded / rates['fp32']:.2f}"}


def loading_rate(workers: int, clips_each: int, *, pin_memory: bool) -> float:
    """Clips per second that reach the training process, once all workers are at work."""
    with tempfile.TemporaryDirectory() as folder:
        clips = VideoClips([Example(str(made(Path(folder))), "a")], ["a"], ("rgb",), RECIPES["ucf101"], train=True)
        order = ((position, position, 0) for position in count())  # another part and crop of it in every epoch
        with closing(stream_clips(clips, order, workers, pin_memory=pin_memory)) as loaded:
            for _ in islice(loaded, 2 * CLIPS_AHEAD * workers):  # what was made ahead is gone
                pass
            start = time.perf_counter()
            for _ in islice(loaded, clips_each * workers):
                pass
            return clips_each * workers / (time.perf_counter() - start)


WAYS = {
    "both streams": ("--streams", "both"),
    "RGB alone": ("--streams", "rgb"),
    "RGB in windows of 64, one in a pass": ("--streams", "rgb", "--window", "64", "--batch-size", "1"),
    "RGB in windows of 64, eight in a pass": ("--streams", "rgb", "--window", "64", "--batch-size", "8"),
}


def whole_rows(device: torch.device, options: Options, sizes: Sizes) -> dict[str, str]:
    """Hours of video per hour, the start of the program left out."""
    with tempfile.TemporaryDirectory() as folder:
        clip = clip_of_ten_seconds(Path(folder))
        archive = [Path(folder) / f"{number}.mp4" for number in range(sizes.videos)]
        for video in archive:
            shutil.copy(clip, video)
        decoded = sizes.videos * 10 / decoding_seconds(archive)
        rows = {f"hours of video decoded per hour by {cpu_count()} cores, and nothing else": f"{decoded:.0f}"}
        for name, how in WAYS.items():
            command = vadis("classify", "--model", options.model, "--device", device.type, "-f", "jsonl", *how)
            startup = watch([*command, str(clip)]).seconds
            labelled = (sizes.videos - 1) * 10 / (watch([*command, *map(str, archive)]).seconds - startup)
            value = f"{labelled:.0f} ({labelled / decoded:.0%} of decoding alone)"
            rows[f"hours of video labelled per hour, {name}, {sizes.videos} videos of 10 s"] = value
    return rows


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


def all_rows(device: torch.device, options: Options, sizes: Sizes) -> dict[str, str]:
    return {
        **flow_rows(device, options.video, sizes),
        **network_rows(device, sizes),
        **training_rows(device, sizes),
        **whole_rows(device, options, sizes),
    }


def measure(options: Options) -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {"skipped": "there was no CUDA device"}
    device = torch.device("cuda")
    name, versions = torch.cuda.get_device_name(device), f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}"
    return {"device": f"{name}, {cpu_count()} cores; {versions}", "rows": all_rows(device, options, Sizes())}
