"""What README and docs say: every command is run, every name they point at exists, every link leads somewhere."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.make_model import make_model
from tests.synthetic import write_video

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NEEDS_A_CONNECTION = "vadis reproduce sample"  # only its message is tested here


def commands(page: Path, language: str, prompt: str = "") -> list[str]:
    """The lines of the page's fenced blocks of a language that begin with ``prompt``, without their comments."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith(prompt) and line.strip()]
    return [re.sub(r"\s{2,}#.*$", "", line.removeprefix(prompt)) for line in lines]


SHELL_COMMANDS = [(page.name, command) for page in PAGES for command in commands(page, "console", "$ ")]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages talk about: holiday.mp4, archive/, sample arrays, and a small model in the cache."""
    folder = tmp_path_factory.mktemp("docs")
    write_video(folder / "holiday.mp4", num_frames=70, seed=1)
    (folder / "archive" / "1999").mkdir(parents=True)
    write_video(folder / "archive" / "a.mp4", num_frames=20, seed=2)
    write_video(folder / "archive" / "1999" / "b.mp4", num_frames=20, seed=3)
    model = folder / "cache" / "models" / "i3d-kinetics400.safetensors"
    model.parent.mkdir(parents=True)
    make_model(model, width=1 / 16)
    make_model(folder / "mine.safetensors", width=1 / 16, classes=3)
    return folder


def run(command: str, sandbox: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "VADIS_CACHE": str(sandbox / "cache"),
        "VADIS_OFFLINE": "1",
    }
    return subprocess.run(
        command, shell=True, cwd=sandbox, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(("page", "command"), SHELL_COMMANDS)
def test_commands_do_what_the_page_says(page: str, command: str, sandbox: Path) -> None:
    done = run(command, sandbox)
    if command.startswith(NEEDS_A_CONNECTION):
        assert done.returncode == 1
        assert "https://" in done.stderr, "the message names what would be fetched"
    else:
        assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_the_python_of_the_readme_runs(sandbox: Path) -> None:
    (script,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    done = run(f"{shlex.quote(sys.executable)} -c {shlex.quote(script)}", sandbox)
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [["0.0", "2.56"], ["2.56", "2.8"]]


def test_the_readmes_two_set_up_commands_are_those_that_ci_runs() -> None:
    install, test = commands(ROOT / "README.md", "sh")
    assert install == "pip install . && vadis classify holiday.mp4"
    assert test.endswith("&& pytest")
    assert "'&& pytest$'" in (ROOT / ".ci" / "run").read_text()


def test_every_name_in_the_papers_table_is_where_the_page_says() -> None:
    text = (ROOT / "docs" / "paper.md").read_text()
    places = re.findall(r"`([\w/]+\.py)`: `(\w+)`", text)
    assert len(places) > 20
    for path, name in places:
        source = (ROOT / path).read_text()
        assert re.search(rf"^\s*(def |class )?{name}\b", source, re.MULTILINE), f"{name} is not in {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
