"""What 8 bits would give: OpenVINO's post-training quantisation of the RGB model, against itself in float32.

    python -m venv peer && peer/bin/pip install openvino nncf
    python -m tests.benchmarks.eight_bits --peer peer/bin/python CLIP…

The first 64 frames of each clip, looped where there are fewer, go through both; 17 clips calibrate the quantisation,
as far as there are so many. Shows the seconds of both in turn, how far logits move, and which first answers change.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

CALIBRATION, ROUNDS = 17, 7


def peer_side(folder: Path, threads: int) -> None:
    """In the environment of the peers: quantise the network in ``folder``, run both, and print what came out."""
    from network_peer import openvino, openvino_int8

    clips = [np.load(path) for path in sorted(folder.glob("*.npy"))]
    model = folder / "network.onnx"
    exact, version = openvino(model, threads)
    small, _ = openvino_int8(model, threads, clips[:CALIBRATION])
    seconds: dict[str, list[float]] = {"float32": [], "8 bits": []}
    for _ in range(ROUNDS):
        for name, network in (("float32", exact), ("8 bits", small)):
            began = time.perf_counter()
            network(clips[0])
            seconds[name].append(time.perf_counter() - began)
    for name, each in seconds.items():
        print(f"OpenVINO {version.split('-')[0]}, {name}: {np.median(each[1:]):.3f} s for 64 frames")
    moved, changed = [], 0
    for clip in clips:
        a, b = (network(clip).mean(axis=(0, 2)) for network in (exact, small))
        moved.append(abs(a - b).max() / abs(a).max())
        changed += int(a.argmax() != b.argmax())
    print(f"logits move by {np.median(moved):.1%} of the largest (median), {max(moved):.1%} at most; "
          f"{changed} of {len(clips)} first answers change")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--peer", required=True, help="the Python of the environment with OpenVINO and NNCF")
    options = parser.parse_args()

    import torch

    from tests.benchmarks.plain_network import plainly_written
    from vadis import load_model, read_frames
    from vadis.device import cpu_count
    from vadis.errors import VideoError
    from vadis.preprocessing import centre_crop, loop_clip, network_input

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, path in enumerate(options.clips):
            try:
                frames, _ = read_frames(path, max_frames=64)
            except VideoError as error:
                print(f"{path}: {error}", file=sys.stderr)
                continue
            x = network_input(loop_clip({"rgb": centre_crop(frames, "rgb", 224)}, 64)["rgb"], "rgb")
            np.save(folder / f"{number:03}.npy", x.contiguous().numpy())
        network = load_model("i3d-kinetics400-rgb", "cpu").module("rgb").eval()
        with plainly_written(), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(network, (x,), folder / "network.onnx", opset_version=17, dynamo=False)
        subprocess.run([options.peer, __file__, "--peer-side", str(folder), str(cpu_count())], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer-side"]:
        peer_side(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
