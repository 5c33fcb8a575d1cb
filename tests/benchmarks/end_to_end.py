"""How long does `vadis classify` take, and how much memory, from the command to the record?

    python -m tests.benchmarks end_to_end

Each run is a process of its own, as a user starts it, on clips of 10 s, 340×256 at 25 fps, that are made: a texture
that drifts, with noise; and on a real one, where it is given. A model of random parameters is as fast as a real one.
"""

import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.benchmarks.machine import Options
from tests.benchmarks.watched import vadis, watch
from tests.synthetic import moving_texture, write_video

KINETICS = Fraction(5, 4)  # width of a pixel in the copies of Kinetics at 340×256, whose frames were 16:9


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


def clip_of_ten_seconds(folder: Path, pixel: Fraction | None = None) -> Path:
    return write_video(folder / "clip.mp4", frames=drifting_noise(250), sample_aspect_ratio=pixel)


def measure(options: Options, repeats: int = 3) -> dict[str, Any]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for video, pixel, streams in (
            ("10 s, 340×256, synthetic", None, "both"),
            ("the same", None, "rgb"),
            ("10 s, 340×256, shown and so computed at 425×256, as Kinetics' copies are", KINETICS, "both"),
        ):
            clip = clip_of_ten_seconds(Path(folder), pixel)
            rows.append({"video": video, **labelled(clip, options.model, streams, repeats)})
    if options.video:
        for streams in ("both", "rgb"):
            name = f"`{options.video.name}`, a real one"
            rows.append({"video": name, **labelled(options.video, options.model, streams, repeats)})
    return {"rows": rows}


def labelled(clip: Path, model: Path, streams: str, repeats: int) -> dict[str, Any]:
    command = vadis("classify", "--model", model, "--streams", streams, "-f", "jsonl", clip)
    watch(command)  # warm-up: compiled kernels, page cache
    runs = [watch(command) for _ in range(repeats)]
    return {"streams": streams, "seconds": [run.seconds for run in runs], "peak_mb": max(run.peak_mb for run in runs)}
