"""All benchmarks by one command, their figures as JSON, and the tables of docs/performance.md made of it.

    python -m venv peer && peer/bin/pip install openvino nncf onnxruntime opencv-contrib-python-headless
    python -m tests.benchmarks --peer peer/bin/python --video CLIP

Some 15 minutes on two cores; NAME… takes only these benchmarks, ``--skip NAME,…`` leaves some out, and what is not
measured stays in the JSON as it is. Each runs in a process of its own. ``--tables`` measures nothing and only writes
the tables anew.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks import page

DOCS = Path(__file__).resolve().parents[2] / "docs"
MODULES = {
    "tvl1": "tvl1_speed",
    "network": "network_speed",
    "end_to_end": "end_to_end",
    "utilisation": "utilisation",
    "start": "startup",
    "loading": "loading",
    "training": "training_speed",
    "fixed": "fixed_speed",
    "journal": "journal",
    "gpu": "gpu",
    "scale": "scale",
    "scale_out": "scale_out",
    "cores": "cores",
}


def measure_alone(name: str, options: argparse.Namespace) -> None:
    """One benchmark in this process; its figures go to ``--output``."""
    from tests.benchmarks.machine import Options

    module = importlib.import_module(f"tests.benchmarks.{MODULES[name]}")
    given = Options(options.model, options.plots, options.peer, options.video)
    options.output.write_text(json.dumps(module.measure(given)))


def measured(name: str, options: argparse.Namespace, model: Path) -> dict[str, Any]:
    """One benchmark in a process of its own: its figures, and how many processors others kept busy just before."""
    from tests.benchmarks.machine import cores_busy

    busy, began = cores_busy(), time.time()
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "figures.json"
        arguments = [name, "--alone", "--model", str(model), "--plots", str(options.plots), "-o", str(result)]
        for key in ("peer", "video"):
            if getattr(options, key) is not None:
                arguments += [f"--{key}", str(getattr(options, key))]
        compiled = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # as pip leaves what it installs
        subprocess.run([sys.executable, "-m", "tests.benchmarks", *arguments], check=True, env=compiled)
        figures = json.loads(result.read_text())
    seconds = round(time.time() - began)
    command = f"python -m tests.benchmarks {name}"
    return {"command": command, "busy_before": round(busy, 2), "took_seconds": seconds, "figures": figures}


def measure_all(names: list[str], options: argparse.Namespace) -> None:
    from tests.benchmarks.machine import facts
    from tests.make_model import make_model

    results = json.loads(options.output.read_text()) if options.output.exists() else {"benchmarks": {}}
    results["machine"] = facts()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or make_model(Path(folder) / "random.safetensors")
        for name in names:
            found = measured(name, options, model)
            print(f"\n{name}: {found['took_seconds']} s, processors busy before {found['busy_before']}\n")
            print(page.TABLES[name](found["figures"]), flush=True)
            if "skipped" not in found["figures"] or name not in results["benchmarks"]:
                results["benchmarks"][name] = found  # what another machine had measured stays otherwise
            options.output.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODULES)}")
    parser.add_argument("--skip", default="", metavar="NAME,…")
    parser.add_argument("--peer", help="the Python that has OpenVINO, ONNX Runtime and opencv-contrib-python-headless")
    parser.add_argument("--video", type=Path, help="a real clip for the flow; otherwise a moving texture")
    parser.add_argument("--model", type=Path, help="instead of one of random parameters")
    parser.add_argument("-o", "--output", type=Path, default=DOCS / "performance.json")
    parser.add_argument("--page", type=Path, default=DOCS / "performance.md", help="whose tables are written anew")
    parser.add_argument("--plots", type=Path, default=DOCS)
    parser.add_argument("--tables", action="store_true", help="measure nothing")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = {*options.names, *filter(None, options.skip.split(","))} - set(MODULES)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    if options.alone:
        measure_alone(options.names[0], options)
        return
    if not options.tables:
        wanted = [name for name in options.names or MODULES if name not in options.skip.split(",")]
        measure_all(wanted, options)
    if options.page.exists():
        options.page.write_text(page.filled(options.page.read_text(), json.loads(options.output.read_text())))


if __name__ == "__main__":
    main()
