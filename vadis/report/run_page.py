"""A training run or an evaluation as one HTML page: figures, settings, curves, confusion, bars by class.

The pictures are those that the run keeps as PNG; curves are drawn anew where there are logs. There is no script in it.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from vadis.errors import UsageError
from vadis.files import write_file
from vadis.formats import visible
from vadis.parsing import parse_json
from vadis.report.page import head, read
from vadis.report.plots import plot_curves

RUN_NAME, METRICS_NAME, LOG_NAME, CURVES_NAME = "run.json", "metrics.json", "log.jsonl", "curves.png"
NETWORKS = ("rgb", "flow", "both")  # the folders of a run, and the columns of a test
FIGURES = {"top1": "top-1", "top5": "top-5", "mean_class": "mean class"}
SHOWN_ELSEWHERE = {"labels", "recipes", "dataset", "from", "schema"}  # of run.json: shown otherwise, or not at all


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a training run or an evaluation."""
    return any((folder / name).is_file() for name in (RUN_NAME, METRICS_NAME)) or bool(_logs(folder))


def write_run_page(folder: Path, path: Path, title: str) -> None:
    """Write the page of the run in ``folder``; of a run that is still training, what there is by now.

    Raises:
        UsageError: where a file of the run is damaged.
        OSError: where the page, or the picture of the curves, cannot be written.
    """
    run, metrics = _json(folder / RUN_NAME), _json(folder / METRICS_NAME)
    if logs := _logs(folder):
        plot_curves(logs, folder / CURVES_NAME)
    page = "".join([head(title, read("colours.css", "run.css")), *_body(folder, title, run, metrics)])
    write_file(path, page + "</body>\n</html>\n")


def _body(folder: Path, title: str, run: Mapping[str, Any], metrics: Mapping[str, Any]) -> Iterator[str]:
    yield f"<header><h1>{_text(title)}</h1>\n"
    yield f'<p class="quiet">{_text(_headline(run, metrics))}</p></header>\n<main>\n'
    columns = {name: metrics[name] for name in NETWORKS if isinstance(metrics.get(name), dict)}
    if columns:
        yield "<section><h2>How good it is</h2>\n" + "".join(_results(columns, metrics)) + "</section>\n"
    elif run:
        yield '<p class="warn">Not tested yet.</p>\n'
    yield _picture(folder / CURVES_NAME, "Curves")
    for name, column in columns.items():
        yield _picture(folder / f"confusion-{name}.png", f"Confusion matrix: {name}")
        yield _picture(folder / f"per-class-{name}.png", f"Accuracy by class: {name}")
        known = [(label, share) for label, share in column.get("per_class", {}).items() if share is not None]
        rows = [[label, _percent(share)] for label, share in sorted(known, key=lambda pair: (-pair[1], pair[0]))]
        table = _table(["class", "right"], rows)
        yield f"<details><summary>{_text(name)}: all classes as a table</summary>\n{table}</details>\n"
    if run:
        yield "<section><h2>Settings</h2>\n" + _settings(run) + "</section>\n"
    yield "</main>\n"


def _headline(run: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Return the run in a line."""
    data = run.get("dataset") or {}
    dataset = metrics.get("dataset") or data.get("name")
    parts = [
        run.get("architecture") or metrics.get("architecture"),
        dataset and f"{dataset}, split {metrics.get('split') or data.get('split')}",
        metrics.get("part") and f"tested on {metrics['part']}",
        metrics.get("model"),
    ]
    return "; ".join(str(part) for part in parts if part)


def _results(columns: Mapping[str, Mapping[str, Any]], metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table of the test, and which state of each training run the model file holds."""
    rows = [
        [name, *(_percent(column.get(figure)) for figure in FIGURES), column.get("num_examples", "")]
        for name, column in columns.items()
    ]
    yield _table(["", *FIGURES.values(), "videos"], rows)
    if metrics.get("failed"):
        yield f'<p class="warn">{_text(metrics["failed"])} videos could not be read, and count as wrong.</p>\n'
    for run, state in (metrics.get("states") or {}).items():
        best = state.get("validation")
        why = f"which has the lowest validation loss, {best['loss']:.3f}" if best else "the last; none was validated"
        chosen = f"{run}: the model file holds the state after step {state['step']:,} of {state['steps']:,}, {why}."
        yield f"<p>{_text(chosen)}</p>\n"


def _settings(run: Mapping[str, Any]) -> str:
    """Return the settings as a table, and the numbers of each network's recipe side by side."""
    start = run.get("from")
    settings = {key: value for key, value in run.items() if key not in SHOWN_ELSEWHERE}
    settings |= {"classes": len(run.get("labels", ()))}
    settings |= {f"dataset, {key}": value for key, value in (run.get("dataset") or {}).items()}
    settings |= {"from": start.get("model") if isinstance(start, dict) else "nothing"}
    recipes = {name: recipe for name, recipe in (run.get("recipes") or {}).items() if isinstance(recipe, dict)}
    keys = dict.fromkeys(key for recipe in recipes.values() for key in recipe)
    rows = [[key, *(_shown(recipe.get(key)) for recipe in recipes.values())] for key in keys]
    about = _table(["", ""], [[key, _shown(value)] for key, value in settings.items()])
    return about + (_table(["recipe", *recipes], rows) if recipes else "")


def _picture(path: Path, title: str) -> str:
    """Return a section with a PNG; nothing where there is none."""
    if not path.is_file():
        return ""
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    picture = f'<img alt="{_text(title)}" src="data:image/png;base64,{content}">'
    return f"<section><h2>{_text(title)}</h2>\n<figure>{picture}</figure></section>\n"


def _table(heads: list[str], rows: list[list[Any]]) -> str:
    top = "".join(f'<th scope="col">{_text(name)}</th>' for name in heads) if any(heads) else ""
    lines = [
        f'<tr><th scope="row">{_text(first)}</th>{"".join(f"<td>{_text(cell)}</td>" for cell in rest)}</tr>\n'
        for first, *rest in rows
    ]
    return f'<div class="wide"><table>\n<thead><tr>{top}</tr></thead>\n<tbody>{"".join(lines)}</tbody></table></div>\n'


def _logs(folder: Path) -> dict[str, Path]:
    return {name: folder / name / LOG_NAME for name in NETWORKS if (folder / name / LOG_NAME).is_file()}


def _json(path: Path) -> Mapping[str, Any]:
    """Return an object from a file of the run; empty where there is none."""
    try:
        values = parse_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UsageError(f"{visible(str(path))} is damaged: no JSON", hint="run vadis evaluate again") from error
    return values if isinstance(values, dict) else {}


def _percent(share: Any) -> str:
    return f"{share:.1%}" if isinstance(share, int | float) else "–"


def _shown(value: Any) -> str:
    """Return a value as a person writes it."""
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, dict):
        return json.dumps(value)
    return {"None": "–", "True": "yes", "False": "no"}.get(str(value), str(value))


def _text(value: Any) -> str:
    """Return any value as text in HTML."""
    return escape(visible(str(value)))
