"""JSON and TOML from files: parsed, or refused with a ValueError, at the same depth on every Python; times."""

import json
import sys

import pytest

from vadis.parsing import MAX_DEPTH, is_too_deep, parse_json, parse_seconds, parse_toml

DEPTHS = (MAX_DEPTH + 1, 700, 100_000)  # 700: Python 3.13 parses it, 3.11 does not from everywhere


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + closing * depth


@pytest.mark.parametrize("encode", [str, str.encode])
def test_what_is_deep_enough_for_anybody_is_parsed(encode) -> None:
    for text in (
        "3",
        '"[[{"',
        nested(MAX_DEPTH),
        nested(MAX_DEPTH // 2, '[{"a": 1, "b": ', "}]").replace(": }", ": 2}"),
    ):
        assert parse_json(encode(text)) == json.loads(text)
    wide = json.dumps([{"a": [[number]]} for number in range(1000)])
    assert parse_json(encode(wide)) == json.loads(wide)


@pytest.mark.parametrize("depth", DEPTHS)
def test_what_is_deeper_is_no_json(depth: int) -> None:
    for text in (nested(depth), '{"a":' * depth + "1" + "}" * depth, f'[{{"a": 1}}, {nested(depth - 1)}]'):
        with pytest.raises(ValueError, match=str(MAX_DEPTH)):
            parse_json(text.encode())


def test_the_limit_does_not_depend_on_the_recursion_limit() -> None:
    before = sys.getrecursionlimit()
    try:
        for limit in (before, 50_000):
            sys.setrecursionlimit(limit)
            with pytest.raises(ValueError, match=str(MAX_DEPTH)):
                parse_json(nested(900))
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.parametrize("depth", DEPTHS)
def test_toml_has_the_same_limit(depth: int) -> None:
    assert parse_toml(f"a = {nested(MAX_DEPTH - 1)}")["a"]
    with pytest.raises(ValueError, match=str(MAX_DEPTH)):
        parse_toml(f"a = {nested(depth)}")
    with pytest.raises(ValueError, match="Invalid value"):
        parse_toml("a = ")


def test_a_value_is_as_deep_as_its_deepest_part() -> None:
    value: list[object] = []
    for _ in range(MAX_DEPTH - 1):
        value = [1, value, {}]
    assert not is_too_deep(value)
    assert is_too_deep({"a": value})
    assert not is_too_deep(3)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), (".5", 0.5), ("12.25", 12.25), ("1:30", 90), ("1:5", 65), ("90:00.5", 5400.5), ("1:02:03.5", 3723.5)],
)
def test_times_are_seconds_or_minutes_or_hours(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1:60", "1:60:00", "1:2:3:4", "1::2", "nan", "inf", "1e3", "a", "9" * 400])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time"):
        parse_seconds(text)
