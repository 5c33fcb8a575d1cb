"""The rules of the house, checked over the source: imports go one way, one door to FFmpeg, sizes, no heavy start."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import vadis
from vadis.cli import app

PACKAGE = Path(__file__).parents[1] / "vadis"
FILES = sorted(PACKAGE.rglob("*.py"))

ROOMS = (  # a package imports only those before it
    "errors",
    "device",
    "parsing",
    "results",
    "files",
    "video",
    "flow",
    "preprocessing",
    "models",
    "weights",
    "inference",
    "formats",
    "batch",
    "datasets",
    "training",
    "evaluation",
    "report",
    "cli",
)
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
NO_NAMES = {"utils", "util", "helpers", "common", "misc", "base"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(tree: ast.AST) -> set[str]:
    """Every module that a file imports anywhere in it, inside functions and TYPE_CHECKING too."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_before_it(path: Path) -> None:
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    assert room in ROOMS, f"{room} is not on the map"
    later = set(ROOMS[ROOMS.index(room) + 1 :])
    for name in imported_modules(ast.parse(path.read_text())):
        parts = name.split(".")
        assert parts[0] != "vadis" or len(parts) == 1 or parts[1] not in later, f"{room} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_sizes_and_names(path: Path) -> None:
    text = path.read_text()
    assert path.stem not in NO_NAMES
    assert text.count("\n") <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, node.name


def test_the_map_names_every_room_and_no_merge_was_left_half_done() -> None:
    """A conflict's markers within a docstring are nothing that Python or a linter would mind."""
    described = vadis.__doc__ or ""
    missing = [room for room in ROOMS if f" {room} " not in re.sub(r"[,\n]", " ", described)]
    assert missing == []
    root = PACKAGE.parent
    pages = [*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("tests/**/*.py"), *FILES]
    assert not [path for path in pages if re.search(r"^(<{7}|>{7}) ", path.read_text(encoding="utf-8"), re.MULTILINE)]


def attribute_calls(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def opens_to_write(call: ast.Call) -> bool:
    """``av.open(name, "w", …)``: written out, so that it can be seen here."""
    return len(call.args) > 1 and isinstance(call.args[1], ast.Constant) and call.args[1].value == "w"


def test_one_door_to_ffmpeg() -> None:
    """Files are read by one function. Writing is not the danger, but has its places too."""
    calls = [
        (str(path.relative_to(PACKAGE)), node)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "av.open"
    ]
    assert {path for path, call in calls if not opens_to_write(call)} == {"video/reader.py"}
    places = {"flow/store.py", "video/encoder.py"} | {
        "video/isolated/child.py",
        "video/cropping.py",
    }  # these to memory
    assert {path for path, call in calls if opens_to_write(call)} == places  # child and cropping write to memory
    assert not any("cv2.VideoCapture" in attribute_calls(path) for path in FILES)


def test_only_the_command_line_speaks_of_its_options() -> None:
    """The library names its arguments, in backticks, and the command line shows their options instead."""
    commands, options = [typer.main.get_command(app)], set[str]()
    while commands:
        command = commands.pop()
        options |= {name for each in command.params for name in each.opts if name.startswith("--")}
        commands += getattr(command, "commands", {}).values()
    named = re.compile(rf"(?<![\w-])({'|'.join(sorted(options, key=len, reverse=True))})(?![\w-])")
    prints_commands = {PACKAGE / "evaluation/reproduction.py"}
    cited = []
    for path in {path for path in FILES if room_of(path) != "cli"} - prints_commands:
        tree = ast.parse(path.read_text())
        docs = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in docs)
        cited += [(path.name, text.value) for text in texts if isinstance(text.value, str) and named.search(text.value)]
    assert cited == []


def test_one_door_to_json_and_toml() -> None:
    """Which limits how deep it is nested. Texts that were made in the same line may be parsed by others."""
    parsers = {"json.load", "json.loads", "tomllib.load", "tomllib.loads"}
    calls = [
        str(path.relative_to(PACKAGE))
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in parsers
        if not (node.args and ast.unparse(node.args[0]).startswith("json.dumps("))
    ]
    assert set(calls) == {"parsing.py"}


def test_one_door_to_pickles() -> None:
    doors = {str(path.relative_to(PACKAGE)) for path in FILES if "torch.load" in attribute_calls(path)}
    assert doors == {"weights/convert.py"}


@pytest.mark.parametrize("module", ["vadis", "vadis.cli"])
def test_heavy_packages_are_not_imported_at_the_start(module: str) -> None:
    heavy = ("torch", "numba", "av", "cv2", "numpy", "matplotlib", "tensorboard")
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
