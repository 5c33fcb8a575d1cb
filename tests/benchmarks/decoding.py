"""What does it cost to decode in a process of its own?

    python tests/benchmarks/decoding.py [--video CLIP]

Reads a tiny video 300 times and a clip of 10 s (340×256, H.264; or ``--video``) 5 times, in this process and in a
child, in turns, three rounds. ``--files`` and ``--rounds`` take less.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))

from tests.synthetic import write_video  # noqa: E402
from vadis.video.isolated.pool import Decoders  # noqa: E402
from vadis.video.reader import open_video  # noqa: E402


def counted(opened: AbstractContextManager[Iterable[object]]) -> int:
    with opened as video:
        return sum(1 for _ in video)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", type=Path)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Decoders() as decoders:
        tiny = write_video(Path(folder) / "tiny.mp4", num_frames=8, size=(64, 48))
        clip = options.video or write_video(Path(folder) / "clip.mp4", num_frames=250, size=(340, 256), codec="libx264")
        began = time.perf_counter()
        counted(decoders.open(tiny))
        print(f"the first file, with the start of the process: {time.perf_counter() - began:.2f} s")
        ways = {"in this process": open_video, "in a child": decoders.open}
        for _ in range(options.rounds):
            for path, repeats in ((tiny, options.files), (clip, 5)):
                for name, way in ways.items():
                    began = time.perf_counter()
                    frames = sum(counted(way(path)) for _ in range(repeats))
                    seconds = time.perf_counter() - began
                    each, rate = seconds / repeats, frames / seconds
                    print(f"{path.name:10} {name:16} {each * 1000:7.1f} ms per file   {rate:6.0f} frames/s", flush=True)


if __name__ == "__main__":
    main()
