"""What a million hours of video take: measured figures times the length, nothing else.

    python -m tests.benchmarks.plan

The figures are those of docs/performance.json; the constants here are in the text of docs/performance.md.
Prices are the reader's: the table has hours and bytes.
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
NOISY_PAIRS = 428  # a second, on an H200, of a clip whose pairs hardly come to rest
RGB_RUN = 16 / (96 * 10)  # seconds of an H200 for one of video, the start of the program included
DECODED = 2090  # frames a second of a core, H.264, 340×256, one video after another
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


def gpu_seconds(results: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Of an H200 for a second of video. Both streams: whole videos, and by parts where the pictures are noisy.

    RGB: by the network alone, and whole videos.
    """
    rows = results["benchmarks"]["gpu"]["figures"]["rows"]
    network = FPS / CHUNK / number(rows, "I3D forward, fp32")
    whole = 1 / number(rows, "hours of video labelled per hour, both streams")
    return {"both": (whole, FPS / NOISY_PAIRS + 2 * network), "rgb": (network, RGB_RUN)}


def decoding_seconds(results: dict[str, Any]) -> tuple[float, float]:
    """Of cores for a second of video: one video after another, and 16 cores at once with all that belongs to it."""
    rows = results["benchmarks"]["gpu"]["figures"]["rows"]
    return FPS / DECODED, 16 / number(rows, "hours of video decoded per hour by 16 cores")


def number(rows: dict[str, str], beginning: str) -> float:
    """The number of the one row of the table on GPUs whose name begins so."""
    (value,) = (value for name, value in rows.items() if name.startswith(beginning))
    return float(value.split()[0])


def flow_on_processors(results: dict[str, Any]) -> float:
    """Core seconds for the flow of a second of video."""
    return CORES * FPS * median(results["benchmarks"]["tvl1"]["figures"]["seconds"]["vadis"])


def table(results: dict[str, Any]) -> str:
    """Hours of processors and GPUs, and days on fleets of them."""
    cpu, gpu, flow = processor_seconds(results), gpu_seconds(results), flow_on_processors(results)
    network = 2 * gpu["rgb"][0]
    decode = decoding_seconds(results)
    plans = {
        "processors alone, both streams": (cpu["both"], None),
        "processors alone, RGB": (cpu["rgb"], None),
        "flow and network on H200s, both streams": (decode, gpu["both"]),
        "the same, RGB": (decode, gpu["rgb"]),
        "on Ray: flow on processors, network on H200s": ((flow + decode[0], flow + decode[1]), (network, network)),
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
