"""OpenVINO and ONNX Runtime, as processes of another environment that run the same network when they are asked to.

python -m venv peer && peer/bin/pip install openvino nncf onnxruntime opencv-contrib-python-headless
"""

import subprocess
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.benchmarks.plain_network import plainly_written
from vadis.device import multiplies_bfloat16
from vadis.models.i3d import I3D

RUNTIMES = {"openvino": "OpenVINO", "openvino-int8": "OpenVINO, int8", "onnxruntime": "ONNX Runtime"}
ROUNDED = {"openvino-bf16": "OpenVINO, bf16"}  # where the processor multiplies bfloat16


class Peer:
    """One runtime at work: call it to let it run the network once."""

    def __init__(self, python: str, runtime: str, folder: Path, threads: int) -> None:
        script, logits = Path(__file__).with_name("network_peer.py"), folder / f"{runtime}.npy"
        files = [str(folder / "network.onnx"), str(folder / "clip.npy"), str(logits)]
        command = [python, str(script), runtime, *files, str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.version = self._process.stdout.readline().strip()
        if not self.version:
            raise SystemExit(f"{runtime} did not start in {python}")
        self.name, self.logits = {**RUNTIMES, **ROUNDED}[runtime], np.load(logits)  # (1, classes, steps)

    def __call__(self) -> None:
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._process.stdout.readline()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def peers(python: str, network: I3D, x: Tensor, folder: Path, threads: int) -> Iterator[list[Peer]]:
    """All runtimes with ``network``, its weights and the clip ``x``."""
    np.save(folder / "clip.npy", x.numpy())
    with plainly_written(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (x,), folder / "network.onnx", opset_version=17, dynamo=False)
    with ExitStack() as stack:
        names = (*RUNTIMES, *(ROUNDED if multiplies_bfloat16() else ()))
        started = [Peer(python, runtime, folder, threads) for runtime in names]
        for peer in started:
            stack.callback(peer.close)
        yield started
