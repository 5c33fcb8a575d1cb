"""Run a command as if DeepMind's weights could be fetched: from a local server that has others of the same names.

    python tests/stand_in_mirror.py COMMAND…

The published files are out of reach for tests, and nothing else has their git blob ids. So this makes checkpoints of
the same variables with random values, serves them on 127.0.0.1 under the published paths (``VADIS_MIRROR``), and gives
the command's Python a ``sitecustomize`` that puts their sizes and ids into the catalog. All else is the user's road:
download, verification, conversion, cache. The labels that come out mean nothing.
"""

import os
import subprocess
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

sys.path.append(str(Path(__file__).resolve().parents[1]))  # after site-packages: an installed vadis is the one used

from tests.tf_bundle import i3d_variables, write_bundle
from vadis.weights.cache import git_blob_id
from vadis.weights.catalog import DEFAULT_MODEL, WEIGHTS

SITECUSTOMIZE = """
from dataclasses import replace
try:
    from vadis.weights import catalog
except ImportError:  # pip runs before vadis is installed
    catalog = None
if catalog is not None:
    facts = {facts!r}
    model = catalog.WEIGHTS[{name!r}]
    checkpoints = {{
        stream: tuple(file._replace(size=facts[file.local][0], git_blob=facts[file.local][1]) for file in files)
        for stream, files in model.checkpoints.items()
    }}
    catalog.WEIGHTS[{name!r}] = replace(model, checkpoints=checkpoints)
"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line on stderr for each."""

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def lay_out(www: Path) -> dict[str, tuple[int, str]]:
    """Random checkpoints at the published paths; (size, git blob id) of each file by its name in the cache."""
    facts = {}
    for stream, files in WEIGHTS[DEFAULT_MODEL].checkpoints.items():
        index = www / urlsplit(files[0].urls[0]).path.lstrip("/")
        write_bundle(index.with_suffix(""), i3d_variables(stream, 400, 1.0))
        for file in files:
            path = www / urlsplit(file.urls[0]).path.lstrip("/")
            facts[file.local] = (path.stat().st_size, git_blob_id(path))
    return facts


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        facts = lay_out(folder / "www")
        (folder / "sitecustomize.py").write_text(SITECUSTOMIZE.format(facts=facts, name=DEFAULT_MODEL))
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder / "www")))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {
            **os.environ,
            "VADIS_MIRROR": f"http://127.0.0.1:{server.server_port}",
            "VADIS_CACHE": str(folder / "cache"),
            "PYTHONPATH": name,
        }
        try:
            return subprocess.run(sys.argv[1:], env=environment, check=False).returncode
        finally:
            server.shutdown()


if __name__ == "__main__":
    sys.exit(main())
