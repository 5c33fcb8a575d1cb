"""What a million hours of video take: measured figures times the length, nothing else.

    python -m tests.benchmarks.plan

The figures are those of docs/performance.json and, of the H200 and of decoding, of docs/performance.md. Prices are the
reader's: the table has hours and bytes.
"""

import json
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.page import markdown

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "performance.json"
HOURS = 1_000_000
FPS, CHUNK = 25, 64  # frames a second; of a clip in the network's figures
CORES_OF_FLEET, GPUS_OF_FLEET = 6400, 64
CORES = 2  # of the machine that was measured
H200_CLIPS = 289  # a second, float32, 8 at once, one stream
H200_PAIRS = (550, 363)  # a second: all at once, 32 at once
DECODED = 2090  # frames a second of a core, H.264, 340×256
SEGMENT_BYTES, SEGMENT_SECONDS = 259, 2.56  # with 5 labels, as in tests/benchmarks/journal.py
FEATURE_BYTES, FEATURE_SECONDS = 2 * 1024 * 4, 0.32


def processor_seconds(results: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Of cores, for a second of video: without what a process takes to begin, and with it, as in a clip of 10 s."""
    figures = {name: found["figures"] for name, found in results["benchmarks"].items()}
    both, rgb = (median(row["seconds"]) for row in figures["end_to_end"]["rows"][:2])
    short = median(figures["start"]["label_seconds"])  # 2 s, both streams
    chunks = median(figures["network"]["seconds"]["vadis, chunks of 32, as classify does it"])
    bare_rgb = CORES * chunks * FPS / CHUNK + FPS / DECODED
    return {"both": (CORES * (both - short) / 8, CORES * both / 10), "rgb": (bare_rgb, CORES * rgb / 10)}


def gpu_seconds() -> dict[str, tuple[float, float]]:
    """Of an H200 for a second of video, by the better and the worse of its figures."""
    network = FPS / CHUNK / H200_CLIPS
    least, most = (FPS / pairs + 2 * network for pairs in H200_PAIRS)
    return {"both": (least, most), "rgb": (network, network)}


def flow_on_processors(results: dict[str, Any]) -> float:
    """Core seconds for the flow of a second of video."""
    return CORES * FPS * median(results["benchmarks"]["tvl1"]["figures"]["seconds"]["vadis"])


def table(results: dict[str, Any]) -> str:
    """Hours of processors and GPUs, and days on fleets of them."""
    cpu, gpu, flow = processor_seconds(results), gpu_seconds(), flow_on_processors(results)
    network = 2 * gpu["rgb"][0]
    decode = FPS / DECODED
    plans = {
        "processors alone, both streams": (cpu["both"], None),
        "processors alone, RGB": (cpu["rgb"], None),
        "flow and network on H200s, both streams": ((decode, decode), gpu["both"]),
        "the same, RGB": ((decode, decode), gpu["rgb"]),
        "on Ray: flow on processors, network on H200s": ((flow + decode,) * 2, (network, network)),
    }
    rows = [
        [name, hours(of_cpu), hours(of_gpu), days(of_cpu, CORES_OF_FLEET), days(of_gpu, GPUS_OF_FLEET)]
        for name, (of_cpu, of_gpu) in plans.items()
    ]
    fleets = (f"days on {CORES_OF_FLEET:,} cores", f"days on {GPUS_OF_FLEET} GPUs")
    return markdown([f"{HOURS:,} hours of video", "core-hours", "GPU-hours", *fleets], rows)


def hours(seconds: tuple[float, float] | None) -> str:
    """Of devices for all of it, of seconds of them for one of video: the least, and the most."""
    return span([f"{float(f'{each * HOURS:.2g}'):,.0f}" for each in seconds or ()])


def days(seconds: tuple[float, float] | None, devices: int) -> str:
    return span([f"{each * HOURS / devices / 24:.2g}" for each in seconds or ()])


def span(ends: list[str]) -> str:
    return " to ".join(dict.fromkeys(ends))


def main() -> None:
    results = json.loads(RESULTS.read_text())
    print(table(results))
    print(f"records: {HOURS * 3600 / SEGMENT_SECONDS * SEGMENT_BYTES / 1e12:.2f} TB")
    print(f"features: {HOURS * 3600 / FEATURE_SECONDS * FEATURE_BYTES / 1e12:.0f} TB")


if __name__ == "__main__":
    main()
