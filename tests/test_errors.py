"""What to do next: every error says it, by a hint of its own, by the code of a video or by what the system refuses."""

import ast
import errno
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sentences import GOLDEN, error_classes, parsed_package, sentences
from vadis.errors import VIDEO_ERROR_CODES, VideoError, advice, what_next
from vadis.inference.classify import record_of
from vadis.video.isolated.process import error_from_json, error_to_json
from vadis.video.sources import Stamp

ROOT = Path(__file__).parents[1]
TREES = parsed_package()


def may_be_none(tree: ast.AST, hint: ast.expr) -> bool:
    """Whether the hint is None on a way that is written out: here, or where its variable is given a value."""
    values = [hint]
    if isinstance(hint, ast.Name):
        values += [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == hint.id
        ]
    ways = [
        way for value in values for way in ([value.body, value.orelse] if isinstance(value, ast.IfExp) else [value])
    ]
    return any(isinstance(way, ast.Constant) and not way.value for way in ways)


def made_without_hint(tree: ast.AST, classes: dict[str, bool]) -> Iterator[ast.Call]:
    """The errors made in a file that say nothing of what to do next."""
    names = dict(classes)
    for node in ast.walk(tree):  # kind = VadisError if … else UsageError
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.IfExp):
            kinds = {ast.unparse(node.value.body), ast.unparse(node.value.orelse)}
            if kinds <= classes.keys():
                names[ast.unparse(node.targets[0])] = all(classes[kind] for kind in kinds)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and names.get(ast.unparse(node.func)) is False:
            hints = [*node.args[1:2], *(each.value for each in node.keywords if each.arg == "hint")]
            if len(hints) != 1 or may_be_none(tree, hints[0]):
                yield node


def test_every_error_says_what_to_do_next() -> None:
    """A VideoError may leave it to its code. There are no exceptions: an error caught on the way has a hint too."""
    classes = error_classes(list(TREES.values()))
    assert classes["VideoError"] and classes["DecoderKilled"] and not classes["DamagedCheckpointError"]
    assert [
        f"{path.relative_to(ROOT)}, line {call.lineno}"
        for path, tree in TREES.items()
        for call in made_without_hint(tree, classes)
    ] == []


@pytest.mark.parametrize(
    "source",
    [
        "raise UsageError('a')",
        "raise UsageError('a', None)",
        "raise UsageError('a', hint='b' if c else None)",
        "hint = 'b' if c else None\nraise UsageError('a', hint)",
        "return WeightsError('a', hint='')",
        "raise UsageError(*a)",
        "kind = VadisError if a else UsageError\nraise kind('a')",
    ],
)
def test_the_walk_finds_what_lacks_a_hint(source: str) -> None:
    classes = {"VadisError": False, "UsageError": False, "WeightsError": False, "VideoError": True}
    assert len(list(made_without_hint(ast.parse(source), classes))) == 1
    assert not list(made_without_hint(ast.parse("raise UsageError('a', 'b')\nraise VideoError('c', 'a')"), classes))


@pytest.mark.slow
def test_the_sentences_are_those_of_the_golden_file() -> None:
    assert GOLDEN.read_text(encoding="utf-8") == sentences(), "`python -m tests.sentences` writes the file anew"


def test_a_video_error_without_a_hint_has_that_of_its_code() -> None:
    error, own = VideoError("too_large", "a"), VideoError("too_large", "a", "b")
    assert (error.hint, error.own_hint, error.in_full) == (VIDEO_ERROR_CODES["too_large"].what_next, None, "a")
    assert (own.hint, own.own_hint, own.in_full) == ("b", "b", "a (b)")
    for each in (error, own):
        again = error_from_json(error_to_json(each))
        assert (again.hint, again.own_hint) == (each.hint, each.own_hint)
        assert record_of("a.mp4", Stamp(None, None), each).error_message == each.in_full


def test_the_page_has_the_table_of_codes() -> None:
    page = (ROOT / "docs/command-line.md").read_text()
    section = page[page.index("### Error codes") : page.index("### Flags")]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", re.sub(r"\[(\w+)\]\(#\w+\)", r"\1", section), re.MULTILINE)
    assert rows == [(code, each.meaning, advice(code)) for code, each in VIDEO_ERROR_CODES.items()]


def test_what_the_system_refuses_says_what_to_do_next() -> None:
    assert what_next(errno.ENOSPC) == "make room on that disk, then give the same command again"
    assert what_next(errno.ENOSPC, again="go on") == "make room on that disk, then go on"
    assert "ls -ld" in what_next(errno.EACCES) and "ulimit -n" in what_next(errno.EMFILE)
    texts = {what_next(number) for number in (None, 0, -5, *errno.errorcode)}
    assert what_next(None) in texts and not any("{" in text for text in texts)


def test_hints_are_short_and_not_sentences() -> None:
    """One line of a terminal, after "hint: ", that goes on in small letters and ends without a full stop."""
    hints = [advice(code) for code in VIDEO_ERROR_CODES]
    hints += [what_next(number) for number in errno.errorcode]
    assert [hint for hint in hints if len(hint) > 110 or hint[0].isupper() or hint.endswith(".")] == []
