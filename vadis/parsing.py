"""Parse JSON and TOML that come from a file, with one limit on nesting.

How deep Python's own parsers go depends on its version, on the recursion limit and on how deep the caller is.
"""

import json
import sys
from collections.abc import Callable
from itertools import chain
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_DEPTH = 64
"""Levels of objects and lists. What vadis writes has up to 8; every Python parses, compares and copies this many."""


def parse_json(content: str | bytes, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """Return the value of a JSON text.

    Args:
        content: the text, or its bytes in UTF-8.
        parse_constant: what is called for NaN and the infinities, which JSON does not have; by default they are taken.

    Raises:
        ValueError: where it is no JSON, or nested more than ``MAX_DEPTH`` deep.
    """
    opening = content.count("[") + content.count("{") if isinstance(content, str) else sum(map(content.count, b"[{"))
    if opening <= MAX_DEPTH:  # most texts: those need no look at every value
        return json.loads(content, parse_constant=parse_constant)
    return _limited(lambda: json.loads(content, parse_constant=parse_constant))


def parse_toml(content: str) -> dict[str, Any]:
    """Return the table of a TOML text.

    Raises:
        ValueError: where it is no TOML, or nested more than ``MAX_DEPTH`` deep.
    """
    table: dict[str, Any] = _limited(lambda: tomllib.loads(content))
    return table


def _limited(parse: Callable[[], Any]) -> Any:
    try:
        value = parse()
    except RecursionError:
        value = None
    else:
        if not is_too_deep(value):
            return value
    raise ValueError(f"nested more than {MAX_DEPTH} deep")


def is_too_deep(value: Any) -> bool:
    """Return whether a parsed value, of plain dicts and lists, is nested more than ``MAX_DEPTH`` deep."""
    level: list[Any] = [[value]]
    for _ in range(MAX_DEPTH + 1):
        values = chain.from_iterable(each.values() if type(each) is dict else each for each in level)
        level = [each for each in values if type(each) is dict or type(each) is list]
        if not level:
            return False
    return True
