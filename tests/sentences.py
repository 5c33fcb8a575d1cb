"""Collect every sentence with which vadis refuses or warns: ``python -m tests.sentences`` rewrites the golden file.

Tests assert an error's class, code and facts. Its wording stands in ``golden/sentences.txt`` alone, without names of
files or lines, so that a change of words changes that file and nothing else, and moved code changes nothing.
"""

import ast
import errno
from collections.abc import Iterator
from pathlib import Path

from vadis.errors import VIDEO_ERROR_CODES, what_next

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden/sentences.txt"
NOTICES = {"info", "warn", "debug"}
"""The functions that print a sentence to standard error."""


def parsed_package() -> dict[Path, ast.Module]:
    """Return every file of the package → its syntax tree."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "vadis").rglob("*.py"))}


def error_classes(trees: list[ast.Module]) -> dict[str, bool]:
    """Return the names of VadisError and of all that inherit from it → whether each is a VideoError."""
    found = {"VadisError": False}
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for _ in classes:  # as deep as there can be
        for node in classes:
            for base in map(ast.unparse, node.bases):
                if base in found:
                    found[node.name] = found[base] or node.name == "VideoError"
    return found


def text_of(node: ast.expr) -> str:
    """Return the text of an expression, with ``{…}`` for what is known only when it runs."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    if isinstance(node, ast.IfExp):
        return f"[{text_of(node.body)}/{text_of(node.orelse)}]"
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.IfExp):
        return text_of(node.value)
    return "{…}"


def sentences_of(tree: ast.Module, classes: dict[str, bool]) -> Iterator[str]:
    """Generate a line for each error made, each notice printed and each message or hint assigned in a file."""
    kinds = {name: (name, is_video) for name, is_video in classes.items()}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.IfExp):  # kind = VadisError if … else UsageError
            either = (ast.unparse(node.value.body), ast.unparse(node.value.orelse))
            if classes.keys() >= set(either):
                kinds[ast.unparse(node.targets[0])] = ("/".join(either), any(classes[each] for each in either))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            texts = [text_of(each) for each in (*node.args, *(keyword.value for keyword in node.keywords))]
            if name in kinds:
                label, is_video = kinds[name]
                code = f" {texts.pop(0)}" if is_video and len(texts) > 1 else ""
                yield f"{label}{code}: {' | '.join(texts)}"
            elif name == "os_errors_as":
                yield f"{ast.unparse(node.args[0])}: {texts[1]}: {{…}} | {{…}}"
            elif name.split(".")[-1] in NOTICES:
                yield f"notice: {texts[0]}"
        elif isinstance(node, ast.Assign) and (name := ast.unparse(node.targets[0])) in ("message", "hint"):
            yield f"{name}: {text_of(node.value)}"


def sentences() -> str:
    """Return the content of the golden file: one line for each sentence, sorted."""
    trees = list(parsed_package().values())
    classes = error_classes(trees)
    lines = {
        line for tree in trees for line in sentences_of(tree, classes) if any(map(str.isalpha, line.split(": ")[1]))
    }
    lines |= {f"{code}: {each.meaning} | {each.what_next}" for code, each in VIDEO_ERROR_CODES.items()}
    system = {name: what_next(number, "{…}") for number, name in errno.errorcode.items()}
    lines |= {f"{name}: {hint}" for name, hint in system.items() if hint != what_next(None, "{…}")}
    lines.add(f"any other errno: {what_next(None, '{…}')}")
    return "".join(f"{line}\n" for line in sorted(line.replace("\n", "\\n") for line in lines))


if __name__ == "__main__":
    GOLDEN.write_text(sentences(), encoding="utf-8")
