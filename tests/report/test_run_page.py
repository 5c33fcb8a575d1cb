"""The page of a run: figures, pictures and recipes in one file, whatever the names; of a run at any stage."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.browser import Browser
from tests.matching import containing
from tests.report.test_plots import write_log
from tests.trained_run import write_trained
from vadis.errors import UsageError
from vadis.report.page import is_run, write_run_page
from vadis.report.plots import plot_confusion, plot_per_class

HOSTILE = "</td><script>document.title='owned'</script>"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A tested run of the two-stream network, with its pictures."""
    folder = write_trained(
        tmp_path / "run", "i3d", "folder", {"rgb": 700, "flow": 650, "both": 800}, changes={"steps": 7}
    )
    for name in ("rgb", "flow"):
        write_log(folder / name, [3.0, 2.0, 1.0])
    for name in ("rgb", "flow", "both"):
        plot_confusion(np.eye(3, dtype=np.int64), ["a", "b", "c"], folder / f"confusion-{name}.png", name)
        plot_per_class(np.array([1.0, 0.5, np.nan]), ["a", "b", "c"], folder / f"per-class-{name}.png", name)
    return folder


@pytest.mark.slow
@pytest.mark.integration("playwright")
def test_a_page_has_figures_curves_confusion_and_bars_of_every_network(run: Path, browser: Browser) -> None:
    write_run_page(run, run / "report.html", "my run")
    assert (run / "curves.png").is_file()
    browser.problems.clear()
    browser.requests.clear()
    browser.open(run / "report.html")
    assert browser.texts("h1") == ["my run"]
    assert browser.texts("section:first-of-type tbody tr:nth-child(3) > *")[:2] == ["both", "80.0%"]
    assert len(browser.texts("figure")) == 1 + 2 * 3
    assert browser.run("[...document.images].every((image) => image.naturalWidth > 300)")
    asked = dict(zip(browser.texts("th[scope=row]"), browser.texts("th[scope=row] + td"), strict=False))
    assert (asked["dataset, split"], asked["mirror"], asked["steps"]) == ("1", "yes", "7")
    assert browser.problems == [] and all(url.startswith(("file:", "data:")) for url in browser.requests)


@pytest.mark.slow
def test_the_page_says_which_state_the_model_file_holds(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    best = {"step": 1250, "steps": 5000, "validation": {"loss": 0.25, "accuracy": 0.5}}
    metrics["states"] = {"rgb": best, "flow": {"step": 700, "steps": 700, "validation": None}}
    (run / "metrics.json").write_text(json.dumps(metrics))
    write_run_page(run, run / "report.html", "t")
    page = (run / "report.html").read_text()
    assert "1,250 of 5,000" in page and "700 of 700" in page


def test_names_are_text_and_no_script_may_run(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["model"] = HOSTILE
    metrics["rgb"]["per_class"] = {HOSTILE: 0.5}
    (run / "metrics.json").write_text(json.dumps(metrics))
    write_run_page(run, run / "report.html", HOSTILE)
    page = (run / "report.html").read_text()
    assert "<script" not in page and "script-src 'none'" in page
    assert page.count("&lt;script&gt;") == 4


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["metrics.json", "run.json", "curves.png", "rgb/log.jsonl", "confusion-rgb.png"])
def test_a_run_at_any_stage_has_a_page(run: Path, missing: str) -> None:
    write_run_page(run, run / "report.html", "t")
    (run / missing).unlink()
    assert is_run(run)
    write_run_page(run, run / "report.html", "t")
    page = (run / "report.html").read_text()
    assert ("Not tested yet" in page) == (missing == "metrics.json")
    assert not re.search(r"\bNone\b", page)


@pytest.mark.slow
def test_what_is_no_run_and_what_is_damaged_is_told(tmp_path: Path, run: Path) -> None:
    assert not is_run(tmp_path)
    damaged = [("metrics.json", content) for content in ("{", "[" * 700 + "]" * 700, '{"rgb": {"per_class": [1]}}')]
    for name, content in (*damaged, ("run.json", '{"dataset": 3}')):
        before = (run / name).read_text()
        (run / name).write_text(content)
        with pytest.raises(UsageError, match=containing("metrics.json")):
            write_run_page(run, run / "report.html", "t")
        (run / name).write_text(before)
    assert not (run / "report.html").exists()
