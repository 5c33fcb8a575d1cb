"""How the source is laid out: imports go one way, sizes, the only callers of dangerous functions, no heavy start."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import vadis
from vadis.cli import app

PACKAGE = Path(__file__).parents[1] / "vadis"
TREES = {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}

# A package or module imports only those before it.
PACKAGES = ["errors", "device", "parsing", "results", "files", "video", "flow", "preprocessing", "models", "weights"]
PACKAGES += ["inference", "formats", "batch", "datasets", "training", "evaluation", "report", "cli"]
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
NO_NAMES = {"utils", "util", "helpers", "common", "misc", "base"}


def package_of(name: str) -> str:
    return Path(name).parts[0].removesuffix(".py")


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Yield every module that a file imports anywhere in it, inside functions and TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import hides where a name comes from"
            yield from (str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names))


def calls_of(*functions: str) -> Iterator[tuple[str, ast.Call]]:
    """Yield every call of these functions, as they are written, with the file it is in."""
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in functions:
                yield name, node


def test_imports_go_one_way_and_the_package_lists_its_parts() -> None:
    for name, tree in TREES.items():
        package = package_of(name)
        if package not in ("__init__", "__main__"):
            later = PACKAGES[PACKAGES.index(package) + 1 :]
            imported = (module.split(".")[1] for module in imported_modules(tree) if module.startswith("vadis."))
            assert not set(imported) & set(later), name
    assert set(PACKAGES) <= set(re.findall(r"\w+", vadis.__doc__ or ""))


def test_sizes_and_names() -> None:
    too_long = [name for name in TREES if (PACKAGE / name).read_text().count("\n") > MAX_FILE_LINES]
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION_LINES:
                too_long.append(f"{name}: {node.name}")
    assert too_long == []
    assert not [name for name in TREES if Path(name).stem in NO_NAMES]


def test_no_merge_was_left_half_done() -> None:
    """A conflict's markers within a docstring are nothing that Python or a linter would mind."""
    root = PACKAGE.parent
    pages = [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("tests/**/*.py"), *PACKAGE.rglob("*.py")]
    assert not [path for path in pages if re.search(r"^(<{7}|>{7}) ", path.read_text(encoding="utf-8"), re.MULTILINE)]


def test_ffmpeg_opens_files_in_one_place() -> None:
    """``open_video`` alone reads; ``av.open(name, "w", …)`` is written out, so that it can be seen here."""
    calls = [(name, [ast.unparse(each) for each in call.args[1:2]]) for name, call in calls_of("av.open")]
    assert {name for name, mode in calls if mode != ["'w'"]} == {"video/reader.py"}
    assert not list(calls_of("cv2.VideoCapture"))


def test_json_and_toml_are_parsed_in_one_place() -> None:
    """Which limits how deep they are nested. Texts that were made in the same line may be parsed by others."""
    parsers = ("json.load", "json.loads", "tomllib.load", "tomllib.loads")
    harmless = {call.func for _, call in calls_of(*parsers) if ast.unparse(call.args[0]).startswith("json.dumps(")}
    named = ((name, node) for name, tree in TREES.items() for node in ast.walk(tree) if node not in harmless)
    assert {name for name, node in named if isinstance(node, ast.Attribute) and ast.unparse(node) in parsers} == {
        "parsing.py"
    }


def test_pickles_are_loaded_in_one_place() -> None:
    assert {name for name, _ in calls_of("torch.load")} == {"weights/convert.py"}


def test_only_the_command_line_speaks_of_its_options() -> None:
    """The library names its arguments, in backticks, and the command line shows their options instead."""
    commands, options = [typer.main.get_command(app)], set[str]()
    while commands:
        command = commands.pop()
        options |= {name for each in command.params for name in each.opts if name.startswith("--")}
        commands += getattr(command, "commands", {}).values()
    named = re.compile(rf"(?<![\w-])({'|'.join(sorted(options, key=len, reverse=True))})(?![\w-])")
    cited = []
    for name, tree in TREES.items():
        if package_of(name) == "cli" or name == "evaluation/paper_plan.py":  # which prints commands
            continue
        docs = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in docs)
        cited += [f"{name}: {text}" for text in texts if isinstance(text, str) and named.search(text)]
    assert cited == []


@pytest.mark.parametrize("module", ["vadis", "vadis.cli"])
def test_heavy_packages_are_not_imported_at_the_start(module: str) -> None:
    heavy = ("torch", "numba", "av", "cv2", "numpy", "matplotlib", "tensorboard")
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
