"""How long does `vadis classify` take, and how much memory, from the command to the record?

    python tests/benchmarks/end_to_end.py MODEL.safetensors [--video CLIP] [--streams both] [--minutes 10] [--repeats 3]

Each run is a process of its own, as a user starts it. Without ``--video`` a clip of 10 s, 340×256 at 25 fps, is made:
a texture that drifts, with noise. With ``--minutes`` the same clip is played over and over into one longer file,
whose peak memory is compared with the short one's. A model of random parameters (tests/make_model.py) will do: it is
as fast as a real one.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))

from tests.synthetic import moving_texture, write_video  # noqa: E402


def drifting_noise(num_frames: int) -> np.ndarray:
    """uint8 (T, 256, 340, 3): a moving texture, and noise as a sensor makes it."""
    noise = np.random.default_rng(0).normal(scale=4, size=(256, 340, 3))
    frames = moving_texture(num_frames, (340, 256), seed=3)
    return np.stack(
        [np.clip(frame + np.roll(noise, 7 * i, 1), 0, 255).astype(np.uint8) for i, frame in enumerate(frames)]
    )


def play_over(source: Path, target: Path, times: int) -> Path:
    """The packets of ``source``, ``times`` over, in one file."""
    with av.open(str(target), "w") as out, av.open(str(source)) as probe:
        stream = out.add_stream_from_template(probe.streams.video[0])
        shift = 0
        for _ in range(times):
            with av.open(str(source)) as clip:
                packets = [packet for packet in clip.demux(video=0) if packet.pts is not None]
            step = packets[1].dts - packets[0].dts
            for packet in packets:
                packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                out.mux(packet)
            shift += step * len(packets)
    return target


def timed(arguments: list[str]) -> tuple[float, float]:
    """Wall seconds, and peak memory in MB, of one command."""
    start = time.perf_counter()
    process = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "vadis", "-q", *arguments],
        {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0o600)],
    )
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"vadis {' '.join(arguments)} failed with status {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def report(name: str, runs: list[tuple[float, float]]) -> float:
    """Prints a row, gives the peak in MB."""
    seconds, peak = statistics.median(wall for wall, _ in runs), max(memory for _, memory in runs)
    print(f"{name:28} median {seconds:7.1f} s   peak {peak:6.0f} MB", flush=True)
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--video", type=Path)
    parser.add_argument("--streams", default="both")
    parser.add_argument("--minutes", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} processors, streams: {options.streams}")
    with tempfile.TemporaryDirectory() as folder:
        clip = options.video or write_video(Path(folder) / "clip.mp4", frames=drifting_noise(250), size=(340, 256))
        arguments = ["classify", "--model", options.model, "--streams", options.streams, "-f", "jsonl"]
        timed([*arguments, str(clip)])  # warm-up: compiled kernels, page cache
        short = report(clip.name, [timed([*arguments, str(clip)]) for _ in range(options.repeats)])
        if options.minutes:
            long = play_over(clip, Path(folder) / "long.mp4", options.minutes * 6)
            peak = report(f"{options.minutes} minutes of it", [timed([*arguments, str(long)])])
            print(f"peak memory: {peak / short:.3f} of the 10 s clip's")


if __name__ == "__main__":
    main()
