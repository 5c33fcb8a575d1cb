"""The tables of docs/performance.md, made of the figures in docs/performance.json: nothing in them is written by hand.

In the page a table stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``.
"""

import re
from collections.abc import Callable
from statistics import median
from typing import Any

Figures = dict[str, Any]


def filled(text: str, results: dict[str, Any]) -> str:
    """The page with all tables as ``results`` (the JSON) gives them."""
    tables = {name: TABLES[name](found["figures"]) for name, found in results["benchmarks"].items()}
    tables["machine"] = machine(results)
    if {"tvl1", "network"} <= results["benchmarks"].keys():
        tables["floor"] = floor(*(results["benchmarks"][name]["figures"] for name in ("tvl1", "network")))
    for name, table in tables.items():
        text = re.sub(
            rf"<!-- {name} -->\n.*?<!-- /{name} -->",
            lambda _, name=name, table=table: f"<!-- {name} -->\n{table}\n<!-- /{name} -->",
            text,
            flags=re.DOTALL,
        )
    return text


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine(results: dict[str, Any]) -> str:
    found = results["machine"]
    busy = [part["busy_before"] for name, part in results["benchmarks"].items() if name != "gpu"]  # another machine
    text = (
        f"Machine: {found['cores']} cores of {found['processor']} (family {found['family']}), {found['memory_gb']} GB; "
        f"Python {found['python']}, PyTorch {found['torch']}, numba {found['numba']}, PyAV {found['av']}. "
        f"Processors that others kept busy just before each benchmark: {min(busy):.1f} to {max(busy):.1f}."
    )
    if max(busy) > found["cores"] / 4:
        text += " **Other work was running**: ratios hold, absolute times are too long."
    return text


def floor(flow: Figures, network: Figures) -> str:
    """Of labelling 10 s, from the floors of its parts."""
    of_pair, of_clip = max(flow["floor"].values()), network["floor_seconds"]
    rgb = 250 / 64 * of_clip
    return (
        f"Floor of 10 s of 340×256, of the floors above: {rgb:.1f} s for RGB, 250 / 64 clips of {of_clip:.3f} s; "
        f"{2 * rgb + 250 * of_pair:.1f} s for both streams, twice that and 250 pairs of {of_pair:.4f} s. "
        "Loading Python and PyTorch, decoding, warps and medians come on top."
    )


def tvl1(found: Figures) -> str:
    ours, theirs, ratios = found["seconds"]["vadis"], found["seconds"]["opencv"], found["ratios"]
    rows = [
        [f"OpenCV {found['opencv']}, `DualTVL1OpticalFlow`", f"{median(theirs):.3f}", ""],
        ["`vadis.tvl1`", f"{median(ours):.4f}", ", ".join(f"{ratio:.1f}" for ratio in ratios)],
        ["floor of the inner iterations: arithmetic", f"{found['floor']['arithmetic']:.4f}", ""],
        ["floor of the inner iterations: memory", f"{found['floor']['memory']:.4f}", ""],
    ]
    error = found["end_point_error"]
    text = f"End-point error: mean {error['mean']:.2g} px, 99 % {error['percentile_99']:.2g} px"
    text += f", most {error['most']:.2g} px."
    head = [f"{found['frames']}, {found['pairs']} pairs", "seconds per pair, median", "ratio by round"]
    return f"{markdown(head, rows)}\n\n{text}"


def network(found: Figures) -> str:
    times = found["seconds"]
    ours = list(times)[-1]
    rows = [
        [
            " ".join(filter(None, [name, found["versions"].get(name, "")])),
            f"{median(taken):.3f}",
            f"{min(taken):.3f}",
            f"{median(a / b for a, b in zip(taken, times[ours], strict=True)):.2f}",
            f"{found['difference'][name]:.1e}" if name in found["difference"] else "",
        ]
        for name, taken in times.items()
    ]
    rate = f"{found['gflop_per_second']:.0f} GFLOP/s of one large convolution alone"
    rows.append([f"floor: {found['gflop']:.0f} GFLOP at the {rate}", f"{found['floor_seconds']:.3f}", "", "", ""])
    head = ["64 frames of 224×224 RGB, fp32", "median s", "least s", "times ours", "largest difference of logits"]
    return markdown(head, rows)


def end_to_end(found: Figures) -> str:
    rows = [
        [row["video"], row["streams"], f"{median(row['seconds']):.1f} s", f"{row['peak_mb']:,.0f} MB"]
        for row in found["rows"]
    ]
    return markdown(["video", "streams", "time", "peak memory"], rows)


def utilisation(found: Figures) -> str:
    rows = [
        ["whole run", f"{found['seconds']:.1f} s", f"{found['in_use']:.0%}", f"{found['wanted']:.0%}"],
        [
            "once both cores had begun",
            f"{found['busy_seconds']:.1f} s",
            f"{found['busy']:.0%}",
            f"{found['busy_wanted']:.0%}",
        ],
    ]
    head = ["10 s clip, both streams", "time", "processors in use", "in use or waited for"]
    return f"{markdown(head, rows)}\n\n![Processors in use while a clip is labelled](utilisation.png)"


def start(found: Figures) -> str:
    rows = [["`vadis --help`", f"{median(found['help_seconds']):.2f} s", "0.4 s", ""]]
    for name, what, bar in (
        ("torch", "`python -c 'import torch'`", ""),
        ("rgb", "first label of a 2 s clip, RGB, warm caches", "3.0 s"),
        ("label", "first label of a 2 s clip, both streams, warm caches", "4.0 s"),
    ):
        if taken := found.get(f"{name}_seconds"):  # older figures lack some
            pairs = zip(taken, found.get("torch_seconds", ()), strict=False)
            times = [seconds / torch for seconds, torch in pairs]
            rows.append([what, f"{median(taken):.1f} s", bar, f"{median(times):.2f}" if times else ""])
    rows.append(["the same, nothing compiled yet", f"{found['cold_seconds']:.1f} s", "", ""])
    return markdown(["from the command to its end", "median", "at most", "times `import torch`"], rows)


def loading(found: Figures) -> str:
    return markdown(["64-frame clips per second and core", ""], [[name, f"{rate:.1f}"] for name, rate in found.items()])


def training(found: Figures) -> str:
    steps, clips = found["steps"], found["clips"]
    rows = [
        ["a step of 4 clips, 2 at a time", f"{median(steps['whole step']):.2f} s"],
        *[[f"of it {name}", f"{median(steps[name]):.2f} s"] for name in ("forward", "backward", "waiting for clips")],
        ["the loop's overhead: all that is neither of these", f"{found['overhead']:.1%}"],
        ["forward and backward against the network as one writes it first", f"{found['ratio']:.2f} times as fast"],
        ["clips per second, forward and backward alone", f"{clips / median(found['own_seconds']):.3f}"],
        [
            "floor: the convolutions' FLOPs at the rate of one large convolution",
            f"{clips / found['floor_seconds']:.3f}",
        ],
    ]
    if rounded := found.get("bf16_seconds"):  # where the processor multiplies it
        gain = median(exact / other for exact, other in zip(found["own_seconds"], rounded, strict=True))
        rows.append(["clips per second in bf16", f"{clips / median(rounded):.3f}"])
        rows.append(["forward and backward in bf16 against fp32", f"{gain:.2f} times as fast"])
    return markdown(["full-width I3D, RGB clips of 64 frames, fp32", ""], rows)


def fixed(found: Figures) -> str:
    rows = [
        [f"both streams, {found['steps']} steps each", f"{found['seconds']:.1f} s"],
        ["floor: the layer's FLOPs at the rate of a large product", f"{found['floor_seconds']:.1f} s"],
    ]
    return markdown(["`--mode fixed` on the features of 9,537 clips of 101 classes", ""], rows)


def journal(found: Figures) -> str:
    rows = [
        ["writing one", f"{found['write_us']:.0f} µs"],
        ["reading all of them to go on", f"{found['read_seconds']:.2f} s"],
        ["memory for what is known", f"{found['memory_mb']:.0f} MB"],
    ]
    return markdown([f"a results file of {found['records']:,} records", ""], rows)


def gpu(found: Figures) -> str:
    if "skipped" in found:
        return f"Not measured: {found['skipped']}."
    rows = [[name, value] for name, value in found["rows"].items()]
    return markdown([found["device"], ""], rows)


def scale(found: Figures) -> str:
    rows = [
        [f"{point['size']:g} {what}", f"{point['seconds']:.1f} s", f"{point['peak_mb']:,.0f} MB"]
        for what, points in (("s of video", found["lengths"]), ("files", found["files"]))
        for point in points
    ]
    table = markdown(["RGB, a sixteenth of the channels, 96×64", "time", "peak memory"], rows)
    return f"{table}\n\n![Time and memory against length and number of files](scale.png)"


def scale_out(found: Figures) -> str:
    (start, start_cores), (video, video_cores) = found["start"], found["video"]
    rows = [
        [
            f"{row['processes']}",
            f"{row['cores']:.1f}",
            f"{row['foretold']:.1f} s",
            f"{row['seconds']:.1f} s",
            f"{row['foretold'] / row['seconds'] - 1:+.0%}",
        ]
        for row in found["rows"]
    ]
    table = markdown(["processes", "cores that others left", "foretold", "measured", "error"], rows)
    alone = (
        f"one process alone: {start:.2f} s until it has begun ({start_cores:.2f} cores busy), "
        f"{video:.2f} s a video ({video_cores:.2f} cores busy)"
    )
    where = f"{found['cores']} cores of family {found['family']}"
    what = f"{found['videos']} videos of 2 s, RGB, a sixteenth of the channels, on {where}"
    return f"{table}\n\n{what}; {alone}."


def cores(found: Figures) -> str:
    rows = []
    for streams in ("rgb", "both"):
        runs = {name: run for name, run in found["runs"].items() if name.split()[0] == streams}
        alone = median(next(run["seconds"] for name, run in runs.items() if name.split()[1] == "1"))
        for name, run in runs.items():
            seconds = median(run["seconds"])
            rows.append([*name.split(), f"{seconds:.1f} s", f"{alone / seconds:.2f}", f"{run['peak_mb']:,.0f} MB"])
    head = [f"streams of {found['clips']} clips of {found['seconds_of_video']:g} s", "cores", "time"]
    return markdown([*head, "times as fast as one core", "peak memory"], rows)


TABLES: dict[str, Callable[[Figures], str]] = {
    function.__name__: function
    for function in (
        tvl1, network, end_to_end, utilisation, start, loading, training, fixed, journal, gpu, scale, scale_out,
        cores,
    )
}  # fmt: skip
"""The table of every benchmark, by its name."""
