"""List the private functions of vadis that are called once and hold three statements or fewer.

    python -m tests.small_functions

Such a function mostly hides a line that its caller could show. The list is for whoever tidies up; nothing fails by it.
"""

import ast
import collections
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "vadis"
MAX_STATEMENTS = 3


def count_statements(function: ast.FunctionDef) -> int:
    """Return the number of statements in a function, nested ones too, without its docstring."""
    nested = sum(isinstance(node, ast.stmt) for node in ast.walk(function)) - 1
    return nested - (ast.get_docstring(function) is not None)


def name_of(node: ast.AST) -> str | None:
    """Return the name that an expression ends in."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None


def small_functions() -> Iterator[tuple[str, int, str]]:
    """Yield file, line and name of each small private function that is named once outside its definition: in a call."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        named = collections.Counter(map(name_of, ast.walk(tree)))
        called = {name_of(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("_") or node.name.endswith("__"):
                continue
            if named[node.name] == 1 and node.name in called and count_statements(node) <= MAX_STATEMENTS:
                yield str(path.relative_to(PACKAGE)), node.lineno, node.name


if __name__ == "__main__":
    found = list(small_functions())
    for place, line, name in found:
        print(f"{place}:{line} {name}")
    print(len(found), "functions")
