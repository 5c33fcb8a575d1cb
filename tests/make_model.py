"""Make a model file of random parameters, for tests and for trying vadis where the published ones cannot be fetched.

    python tests/make_model.py OUT.safetensors [--width W] [--classes N] [--streams rgb,flow]

The parameters go the way of the published ones: TensorFlow checkpoints with DeepMind's names, then
``vadis.weights.convert``. They depend on names and shapes alone, so every run gives the same file.
"""

import argparse
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # after site-packages, so that an installed vadis is the one used

from tests.tf_bundle import i3d_variables, write_bundle  # noqa: E402
from vadis.weights.convert import convert  # noqa: E402


def make_model(
    out: Path, *, width: float = 1.0, classes: int = 400, streams: tuple[str, ...] = ("rgb", "flow")
) -> Path:
    """Write a random model to ``out`` and return it; other than 400 or 600 classes are named "class 0", …"""
    out.write_bytes(_content(out.stem, width, classes, streams))
    return out


@lru_cache(maxsize=4)  # many tests in a row take the same one, and making it takes half a second
def _content(name: str, width: float, classes: int, streams: tuple[str, ...]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        prefixes = [Path(folder) / stream / "model.ckpt" for stream in streams]
        for stream, prefix in zip(streams, prefixes, strict=True):
            write_bundle(prefix, i3d_variables(stream, classes, width))
        labels = None
        if classes not in (400, 600):
            labels = Path(folder) / "labels.txt"
            labels.write_text("".join(f"class {number}\n" for number in range(classes)))
        out = Path(folder) / f"{name}.safetensors"
        convert(prefixes, out, labels=labels, provenance={"made_by": "tests/make_model.py, random parameters"})
        return out.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a model file of random parameters.")
    parser.add_argument("out", type=Path, metavar="OUT.safetensors")
    parser.add_argument("--width", type=float, default=1.0, help="multiplier of the channel counts, a multiple of 1/64")
    parser.add_argument("--classes", type=int, default=400)
    parser.add_argument("--streams", default="rgb,flow")
    options = parser.parse_args()
    print(
        make_model(options.out, width=options.width, classes=options.classes, streams=tuple(options.streams.split(",")))
    )


if __name__ == "__main__":
    main()
