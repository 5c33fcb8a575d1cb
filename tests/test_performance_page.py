"""The page on performance says what was measured: its tables are those that the JSON gives."""

import json
from pathlib import Path

from tests.benchmarks.__main__ import MODULES
from tests.benchmarks.page import TABLES, filled

DOCS = Path(__file__).parents[1] / "docs"


def results() -> dict:
    return json.loads((DOCS / "performance.json").read_text())


def test_the_tables_are_those_of_the_json() -> None:
    page = (DOCS / "performance.md").read_text()
    assert filled(page, results()) == page, "python -m tests.benchmarks --tables writes them anew"


def test_every_benchmark_has_a_table_in_the_page() -> None:
    page = (DOCS / "performance.md").read_text()
    assert set(TABLES) == set(MODULES)
    for name in ("machine", *results()["benchmarks"]):
        assert f"<!-- {name} -->\n" in page and f"<!-- /{name} -->" in page
    assert set(results()["benchmarks"]) == set(MODULES)


def test_pictures_are_small() -> None:
    for name in ("utilisation.png", "scale.png"):
        assert (DOCS / name).stat().st_size < 60_000
        assert f"]({name})" in (DOCS / "performance.md").read_text()
