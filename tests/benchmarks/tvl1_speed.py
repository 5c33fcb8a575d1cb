"""How fast ``vadis.tvl1`` is, beside OpenCV's TV-L1 and beside what the processor could do at most.

    python -m tests.benchmarks tvl1 --peer peer/bin/python --video CLIP

Only figures from one run compare: the two take turns, each with all processors. OpenCV has its own environment (its
contrib wheel must not be installed beside opencv-python) and gets and gives arrays in files.

The floor is counted, not estimated: ``OPERATIONS`` floating-point operations and ``BYTES`` moved per pixel and inner
iteration (warps, medians and pyramid are left out), times the iterations that these pairs took, over the rate of
independent multiply-adds of vectors in registers (an addition and a multiplication count as one each, as the
equations' roundings forbid to fuse them) and over the rate of copying memory in the second-level cache.
"""

import subprocess
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numba
import numpy as np

from tests.benchmarks.machine import Options
from vadis.device import cpu_count
from vadis.flow import to_gray, tvl1
from vadis.flow.filters import level_shapes
from vadis.flow.simd import LANES, broadcast, fma, reduce_add
from vadis.flow.tvl1_cpu import flow_of_pair, working_memory

HEIGHT, WIDTH = 256, 340

# u: rho 4, squared gradient 3, bound 1, quotient 1, the choice among three 5, divergence 6, new u 8, change 6.
# p, for each component: differences 2, length 26 (sum of squares 3, what rounding lost of it 7, root by estimate 7,
# from below and from above 8, whether they differ 1), norm 2, steps and quotients 6.
OPERATIONS = 34 + 2 * 36
BYTES = 4 * (9 + 7)  # u, p, gradient and residual are read; u, p and the squared change are written


def frames_of_video(path: Path, num_pairs: int) -> np.ndarray:
    """uint8 (P + 1, H, W): the frames in the middle of the video, as a chunk of it."""
    with av.open(str(path)) as container:
        frames = [frame.reformat(WIDTH, HEIGHT, "rgb24").to_ndarray() for frame in container.decode(video=0)]
    start = (len(frames) - num_pairs) // 2
    return to_gray(np.stack(frames[start : start + num_pairs + 1]))


def moving_texture(num_pairs: int) -> np.ndarray:
    """uint8 (P + 1, H, W): a smooth random texture that moves faster and faster, with a little noise."""
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft2(rng.standard_normal((HEIGHT, WIDTH)))
    fy, fx = np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None]
    spectrum *= np.exp(-((fx**2 + fy**2) / 0.02))
    places = 0.2 * np.arange(num_pairs + 1) ** 2
    turns = [np.exp(-2j * np.pi * (fx * (place - 2.3) + fy * 0.7 * place)) for place in places]
    images = np.stack([np.fft.irfft2(spectrum * turn, s=(HEIGHT, WIDTH)) for turn in turns])
    images = (images - images.min()) / np.ptp(images) * 235 + 10 + rng.normal(0, 1.5, images.shape)
    return images.clip(0, 255).astype(np.uint8)


def run_peer(python: str, frames: np.ndarray) -> tuple[np.ndarray, float, str]:
    """OpenCV's flow (P, 2, H, W), its seconds per pair and its version."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "frames.npz"), Path(folder, "flow.npz")
        np.savez(source, frames=np.stack([frames[:-1], frames[1:]], axis=1))
        subprocess.run([python, str(Path(__file__).with_name("tvl1_opencv.py")), str(source), str(target)], check=True)
        result = np.load(target)
        return result["flow"].transpose(0, 3, 1, 2), float(result["seconds"].mean()), str(result["opencv"])


def run_ours(frames: np.ndarray) -> tuple[np.ndarray, float]:
    """Our flow (P, 2, H, W) and seconds per pair."""
    start = time.perf_counter()
    flow = tvl1(frames)
    return flow, (time.perf_counter() - start) / len(flow)


def iterated_pixels(frames: np.ndarray) -> float:
    """Pixels that went through an inner iteration, per pair."""
    shapes, flow = np.array(level_shapes(HEIGHT, WIDTH)), np.empty((2, HEIGHT, WIDTH), np.float32)
    memory = working_memory(HEIGHT, WIDTH)
    return float(np.mean([flow_of_pair(*pair, shapes, memory, flow) for pair in pairwise(frames)]))


@numba.njit
def _multiply_adds(rounds: int) -> float:
    """``rounds`` times eight independent vectors through a multiply-add."""
    factor = broadcast(np.float32(0.999))
    a, b, c, d = factor, factor, factor, factor
    e, f, g, h = factor, factor, factor, factor
    for _ in range(rounds):
        a, b, c, d = fma(a, factor, a), fma(b, factor, b), fma(c, factor, c), fma(d, factor, d)
        e, f, g, h = fma(e, factor, e), fma(f, factor, f), fma(g, factor, g), fma(h, factor, h)
    return reduce_add(a + b + c + d + e + f + g + h)


def best_seconds(work: object, times: int = 7) -> float:
    """The shortest of several runs."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        work()  # type: ignore[operator]
        best = min(best, time.perf_counter() - start)
    return best


def operations_per_second() -> float:
    """Vector operations of one processor, counted in float32 numbers."""
    rounds = 1_000_000
    _multiply_adds(1)
    return rounds * 8 * LANES / best_seconds(lambda: _multiply_adds(rounds))


def bytes_per_second() -> float:
    """Read and written by one processor, copying 0.5 MB: what fits in a second-level cache."""
    source = np.ones(1 << 16, np.float32)
    target = np.empty_like(source)
    return 2 * source.nbytes * 100 / best_seconds(lambda: [np.copyto(target, source) for _ in range(100)])


def measure(options: Options, pairs: int = 24, rounds: int = 3) -> dict[str, Any]:
    peer, video = options.peer_python(), options.video
    frames = frames_of_video(video, pairs) if video else moving_texture(pairs)
    tvl1(frames[:2])  # compiles, or loads what is kept
    seconds: dict[str, list[float]] = {"vadis": [], "opencv": []}
    for _ in range(rounds):
        expected, theirs, version = run_peer(peer, frames)
        flow, ours = run_ours(frames)
        seconds["opencv"].append(theirs)
        seconds["vadis"].append(ours)
    errors = np.linalg.norm(flow - expected, axis=1)
    pixels = iterated_pixels(frames)
    return {
        "frames": f"{video.name if video else 'moving texture'}, {WIDTH}×{HEIGHT}",
        "pairs": pairs,
        "opencv": version,
        "seconds": seconds,
        "ratios": [theirs / ours for theirs, ours in zip(seconds["opencv"], seconds["vadis"], strict=True)],
        "end_point_error": {
            "mean": float(errors.mean()),
            "percentile_99": float(np.percentile(errors, 99)),
            "most": float(errors.max()),
        },
        "full_size_iterations": pixels / (HEIGHT * WIDTH),
        "floor": {
            "arithmetic": pixels * OPERATIONS / operations_per_second() / cpu_count(),
            "memory": pixels * BYTES / bytes_per_second() / cpu_count(),
        },
    }
