"""A training run or an evaluation as one HTML page: figures, what was asked for, curves, confusion, bars by class.

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
    """Whether a folder is that of a training run or an evaluation."""
    return any((folder / name).is_file() for name in (RUN_NAME, METRICS_NAME)) or bool(_logs(folder))


def write_run_page(folder: Path, path: Path, title: str) -> None:
    """Write the page of the run in ``folder``; of a run that is still training, what there is by now.

    Raises:
        UsageError: where there is nothing to show, or a file of the run is damaged.
        OSError: where the page, or the picture of the curves, cannot be written.
    """
    run, metrics = _json(folder / RUN_NAME), _json(folder / METRICS_NAME)
    logs = _logs(folder)
    if logs:
        plot_curves(logs, folder / CURVES_NAME)
    page = "".join([head(title, read("colours.css", "run.css")), *_body(folder, title, run, metrics)])
    write_file(path, page + "</body>\n</html>\n")


def _body(folder: Path, title: str, run: Mapping[str, Any], metrics: Mapping[str, Any]) -> Iterator[str]:
    yield f"<header><h1>{_text(title)}</h1>\n"
    yield f'<p class="quiet">{_text(_headline(run, metrics))}</p></header>\n<main>\n'
    columns = {name: metrics[name] for name in NETWORKS if isinstance(metrics.get(name), dict)}
    if columns:
        rows = [
            [name, *(_percent(column.get(figure)) for figure in FIGURES), column.get("num_examples", "")]
            for name, column in columns.items()
        ]
        yield "<section><h2>How good it is</h2>\n" + _table(["", *FIGURES.values(), "videos"], rows)
        if metrics.get("failed"):
            yield f'<p class="warn">{_text(metrics["failed"])} videos could not be read, and count as wrong.</p>\n'
        yield from _states(metrics.get("states") or {})
        yield "</section>\n"
    elif run:
        yield '<p class="warn">Not tested yet.</p>\n'
    yield from _picture(folder / CURVES_NAME, "Curves", "Loss, accuracy and learning rate against steps")
    for name in columns:
        yield from _picture(folder / f"confusion-{name}.png", f"Confusion: {name}", f"Confusion matrix of {name}")
        yield from _picture(folder / f"per-class-{name}.png", f"By class: {name}", f"Accuracy of each class, {name}")
        yield _classes(name, columns[name].get("per_class", {}))
    if run:
        yield "<section><h2>What was asked for</h2>\n" + _settings(run) + "</section>\n"
    yield "</main>\n"


def _headline(run: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """The run in a line."""
    data = run.get("dataset") or {}
    dataset = metrics.get("dataset") or data.get("name")
    split = metrics.get("split") or data.get("split")
    parts = [
        run.get("architecture") or metrics.get("architecture"),
        dataset and f"{dataset}, split {split}",
        metrics.get("part") and f"tested on {metrics['part']}",
        metrics.get("model"),
    ]
    return "; ".join(str(part) for part in parts if part)


def _states(states: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Which state of each training run the model file holds."""
    for run, state in states.items():
        chosen = f"after step {state['step']:,} of {state['steps']:,}, "
        found = state.get("validation")
        why = f"which has the lowest validation loss, {found['loss']:.3f}" if found else "the last; none was validated"
        yield f"<p>{_text(f'{run}: the model file holds the state {chosen}{why}')}.</p>\n"


def _classes(name: str, per_class: Mapping[str, float | None]) -> str:
    """Accuracies by class as a table, for searching and copying."""
    known = sorted(per_class.items(), key=lambda pair: (-1.0 if pair[1] is None else -pair[1], pair[0]))
    rows = [[label, _percent(accuracy)] for label, accuracy in known if accuracy is not None]
    summary = f"<summary>{_text(name)}: all classes as a table</summary>"
    return f"<details>{summary}\n{_table(['class', 'right'], rows)}</details>\n"


def _settings(run: Mapping[str, Any]) -> str:
    """What was asked for, and the numbers of each network's recipe side by side."""
    start = run.get("from")
    about = {key: value for key, value in run.items() if key not in SHOWN_ELSEWHERE}
    about |= {"classes": len(run.get("labels", ()))}
    about |= {f"dataset, {key}": value for key, value in (run.get("dataset") or {}).items()}
    about |= {"from": start.get("model") if isinstance(start, dict) else "nothing"}
    tables = _table(["", ""], [[key, _shown(value)] for key, value in about.items()])
    recipes = {name: recipe for name, recipe in (run.get("recipes") or {}).items() if isinstance(recipe, dict)}
    if recipes:
        keys = list(dict.fromkeys(key for recipe in recipes.values() for key in recipe))
        rows = [[key, *(_shown(recipe.get(key)) for recipe in recipes.values())] for key in keys]
        tables += _table(["recipe", *recipes], rows)
    return tables


def _picture(path: Path, title: str, words: str) -> Iterator[str]:
    """A PNG within the page; nothing where there is none."""
    if not path.is_file():
        return
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    picture = f'<img alt="{_text(words)}" src="data:image/png;base64,{content}">'
    yield f"<section><h2>{_text(title)}</h2>\n<figure>{picture}</figure></section>\n"


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
    """An object from a file of the run; empty where there is none."""
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
    """A value as a person writes it."""
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, dict):
        return json.dumps(value)
    return {"None": "–", "True": "yes", "False": "no"}.get(str(value), str(value))


def _text(value: Any) -> str:
    """Any value as text in HTML."""
    return escape(visible(str(value)))
