"""The tables of the page on performance are made of the measured figures alone."""

import importlib
import json
import re
from pathlib import Path

import pytest

from tests.benchmarks import journal
from tests.benchmarks.__main__ import MODULES
from tests.benchmarks.machine import Options
from tests.benchmarks.page import TABLES, filled, markdown

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "performance.md").read_text()
RESULTS = DOCS / "performance.json"
MACHINE = {"processor": "X", "family": "1.2", "cores": 2, "memory_gb": 24, **dict.fromkeys(("python", "torch"), "3")}


def some_results() -> dict:
    start = {"help_seconds": [0.3, 0.1, 0.2], "label_seconds": [5.0], "cold_seconds": 20.0}
    return {
        "machine": {**MACHINE, "numba": "1", "av": "1"},
        "benchmarks": {
            "start": {"busy_before": 1.5, "figures": start},
            "gpu": {"busy_before": 0, "figures": {"skipped": "no"}},
        },
    }


def test_tables_are_replaced_and_the_rest_of_the_page_stays() -> None:
    page = filled(PAGE, some_results())
    assert "| `vadis --help` | 0.20 s | 0.4 s |" in page
    assert "Not measured: no." in page
    assert "Other work was running" in page
    assert filled(page, some_results()) == page
    between = re.compile(r"<!-- (start|gpu|machine) -->.*?<!-- /\1 -->", re.DOTALL)
    assert between.sub("", page) == between.sub("", PAGE)


def test_a_table_is_markdown() -> None:
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


@pytest.mark.parametrize("name", ["machine", "floor", *MODULES])
def test_every_benchmark_has_its_place_in_the_page(name: str) -> None:
    assert PAGE.count(f"<!-- {name} -->\n") == PAGE.count(f"<!-- /{name} -->") == 1


@pytest.mark.parametrize("name", MODULES)
def test_every_benchmark_can_be_measured_and_shown(name: str) -> None:
    assert callable(importlib.import_module(f"tests.benchmarks.{MODULES[name]}").measure)
    assert name in TABLES


def test_the_page_says_what_was_measured() -> None:
    if not RESULTS.exists():
        pytest.skip("nothing has been measured by the one command yet")
    results = json.loads(RESULTS.read_text())
    assert filled(PAGE, results) == PAGE, "python -m tests.benchmarks --tables"
    for name in {"utilisation", "scale"} & results["benchmarks"].keys():
        assert (DOCS / f"{name}.png").stat().st_size < 60_000


def test_the_journal_s_figures_of_a_few_records(tmp_path: Path) -> None:
    """What the page about reliability has measured with 100,000; here is that it measures."""
    found = journal.measure(Options(tmp_path, tmp_path), count=1000)
    assert found["records"] == 1000
    assert min(found["write_us"], found["read_seconds"]) > 0
    assert "reading all of them" in TABLES["journal"](found)
