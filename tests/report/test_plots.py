"""Pictures: what they show, whatever the names; that they are whole files; that they leave no trace in Matplotlib."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from vadis.report import plots
from vadis.report.plots import plot_confusion, plot_curves, plot_per_class
from vadis.training.log import Saved, StepDone, Validated, open_log

ROOT = Path(__file__).parents[2]


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures that are made, in order, instead of files."""
    made: list[Figure] = []
    monkeypatch.setattr(plots, "save_png", lambda figure, path: made.append(figure))
    return made


def write_log(folder: Path, losses, rates=(0.1,), validate_every=0) -> Path:
    """A log as the training loop writes it."""
    folder.mkdir(parents=True)
    count = len(losses)
    with open_log(folder, 0, 0) as log:
        for step, loss in enumerate(losses, start=1):
            rate = rates[(step - 1) * len(rates) // count]
            log(StepDone(step, count, step / 7, loss, loss, 1 - step / 2 / count, rate, 2.0, 12.5, 60.0))
            if validate_every and step % validate_every == 0:
                log(Saved(step, "somewhere"))
                log(Validated(step, loss + 0.25, 0.5, rate, is_best=step < count))
    (folder / "log.jsonl").touch()  # one without a line is removed
    return folder / "log.jsonl"


def lines_of(axes) -> dict[str, np.ndarray]:
    """The lines in ``axes`` by label: (points, 2)."""
    return {line.get_label(): line.get_xydata() for line in axes.get_lines()}


def texts_of(axes) -> set[str]:
    return {text.get_text() for text in axes.texts}


def test_curves_show_what_the_loop_wrote(tmp_path, figures):
    losses = [4.0, 3.0, 2.5, 2.0, 1.5, 1.0]
    log = write_log(tmp_path / "rgb", losses, rates=(0.1, 0.01), validate_every=2)
    plot_curves({"rgb": log}, tmp_path / "curves.png")
    loss, accuracy, rate = figures[0].axes
    assert lines_of(loss)["training, each step"].tolist() == [[n, loss] for n, loss in enumerate(losses, 1)]
    assert lines_of(loss)["validation"].tolist() == [[2, 3.25], [4, 2.25], [6, 1.25]]
    assert lines_of(accuracy)["validation"].tolist() == [[2, 0.5], [4, 0.5], [6, 0.5]]
    assert loss.get_title(loc="left") == "rgb"
    assert loss.get_title(loc="right") == "best validation 50.0%, step 4"
    assert rate.get_yscale() == "log"
    assert rate.get_yticks().tolist() == [0.01, 0.1]
    assert [label.get_text() for label in rate.get_yticklabels()] == ["0.01", "0.1"]
    assert rate.get_lines()[0].get_xydata().tolist() == [[n, 0.1 if n < 4 else 0.01] for n in range(1, 7)]


def test_streams_stand_side_by_side_on_one_scale(tmp_path, figures):
    logs = {name: write_log(tmp_path / name, [loss] * 4) for name, loss in (("rgb", 1.0), ("flow", 3.0))}
    plot_curves(logs, tmp_path / "curves.png")
    axes = np.reshape(figures[0].axes, (3, 2))
    assert [each.get_title(loc="left") for each in axes[0]] == ["rgb", "flow"]
    assert axes[0, 0].get_ylim() == axes[0, 1].get_ylim()
    assert axes[0, 0].get_ylim()[1] > 3


def test_smoothing_does_not_lag(tmp_path, figures):
    losses = np.linspace(5, 1, 2_000)
    plot_curves({"rgb": write_log(tmp_path / "rgb", losses.tolist())}, tmp_path / "curves.png")
    smoothed = lines_of(figures[0].axes[0])["training, mean of 20 steps"]
    inside = slice(20, -20)
    expected = np.interp(smoothed[inside, 0], np.arange(1, 2_001), losses)
    assert smoothed[inside, 1] == pytest.approx(expected, abs=0.002)


def test_a_long_run_with_spikes_can_be_drawn(tmp_path):
    losses = np.random.default_rng(0).exponential(size=30_000).tolist()
    log = tmp_path / "log.jsonl"
    shown = {"event": "StepDone", "smoothed_accuracy": 0.5, "learning_rate": 0.1}
    log.write_text("".join(json.dumps({**shown, "step": n, "loss": loss}) + "\n" for n, loss in enumerate(losses, 1)))
    plot_curves({"rgb": log}, tmp_path / "curves.png")
    assert imread(tmp_path / "curves.png").shape[1] > 800


@pytest.mark.parametrize("torn", ['{"event": "StepDone", "st', "\x00\x00\x00", "[]\n", '"StepDone"\n', "\n"])
def test_what_is_no_whole_event_is_left_out(tmp_path, figures, torn):
    log = write_log(tmp_path / "rgb", [2.0, 1.0])
    with log.open("a") as file:
        file.write(torn)
    plot_curves({"rgb": log}, tmp_path / "curves.png")
    assert lines_of(figures[0].axes[0])["training, each step"].tolist() == [[1, 2.0], [2, 1.0]]


@pytest.mark.parametrize("losses", [[], [1.0], [float("nan")], [2.0, float("inf"), 1.0]])
def test_any_log_can_be_drawn(tmp_path, losses):
    plot_curves({"rgb": write_log(tmp_path / "rgb", losses)}, tmp_path / "curves.png")
    assert imread(tmp_path / "curves.png").shape[1] > 800


def test_a_log_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        plot_curves({"rgb": tmp_path / "log.jsonl"}, tmp_path / "curves.png")


def test_rows_of_the_matrix_are_shares(tmp_path, figures):
    plot_confusion(np.array([[3, 1, 0], [0, 0, 0], [1, 0, 7]]), ["a", "b", "c"], tmp_path / "x.png", "top\nbelow")
    matrix, _ = figures[0].axes
    image = matrix.get_images()[0].get_array()
    assert image[0].tolist() == [0.75, 0.25, 0]
    assert image[1].mask.all()
    assert texts_of(matrix) == {"below", "75", "25", "12", "88"}
    assert matrix.get_title(loc="left") == "top"
    assert [label.get_text() for label in matrix.get_yticklabels()] == ["a", "b", "c"]


def test_with_many_classes_the_worst_pairs_are_listed(tmp_path, figures):
    confusion = np.diag(np.full(30, 10))
    confusion[3, 4], confusion[7, 1] = 2, 5
    names = [f"class {number}" for number in range(30)]
    plot_confusion(confusion, names, tmp_path / "x.png", "title")
    lines = "most often confused\n5 of 15: class 7 → class 1\n2 of 12: class 3 → class 4"
    assert lines in texts_of(figures[0].axes[0])


@pytest.mark.parametrize(("classes", "named"), [(2, 2), (51, 51), (101, 101), (400, 134), (1000, 167)])
def test_a_matrix_grows_to_a_bound_and_names_keep_their_room(tmp_path, figures, classes, named):
    confusion = np.eye(classes, dtype=np.int64)
    plot_confusion(confusion, [f"class {number}" for number in range(classes)], tmp_path / "x.png", "title")
    (figure,) = figures
    assert 1.5 < figure.get_size_inches()[0] < 21.5
    labels = figure.axes[0].get_yticklabels()
    assert len(labels) == named
    pitch_points = figure.get_size_inches()[1] * 72 / classes * -(-classes // named)
    assert labels[0].get_fontsize() <= pitch_points


def test_classes_are_sorted_and_those_without_examples_come_last(tmp_path, figures):
    plot_per_class(np.array([0.5, np.nan, 1.0]), ["half", "none", "whole"], tmp_path / "x.png", "title")
    (axes,) = figures[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["whole", "half", "none"]
    assert [bar.get_width() for bar in axes.patches] == [1.0, 0.5, 0.0]
    assert texts_of(axes) == {"", "100%", "50%", "–", "mean 75.0%"}
    assert axes.get_title(loc="left") == "title"


@pytest.mark.slow
def test_bars_fill_up_to_four_columns(tmp_path, figures):
    for classes, columns in ((34, 1), (35, 2), (101, 3), (400, 4)):
        plot_per_class(np.linspace(0, 1, classes), [str(n) for n in range(classes)], tmp_path / "x.png", "title")
        axes = figures[-1].axes
        assert len(axes) == columns
        assert sum(len(each.patches) for each in axes) == classes


HOSTILE = ["costs $5 or $6", "$\\frac{$", "x_{1}^2", "<b>&amp;", "naïve Ελλάδα бег", "a" * 200, "\u202egpj.exe"]


def test_names_are_shown_as_they_are(tmp_path, figures):
    plot_confusion(np.eye(7, dtype=np.int64), HOSTILE, tmp_path / "x.png", "$title$")
    labels = [label.get_text() for label in figures[0].axes[0].get_yticklabels()]
    assert labels[:5] == HOSTILE[:5]
    assert labels[5:] == ["a" * 26 + "…" + "a" * 13, "\\u202egpj.exe"]
    assert not any(label.get_parse_math() for label in figures[0].axes[0].get_yticklabels())


def test_hostile_names_are_drawn(tmp_path):
    """To the last pixel, where a dollar sign would be read as TeX and a missing letter warned of."""
    names = [*HOSTILE, "\ue000 private", "\U000e0001", "\ud83d"]
    plot_confusion(np.eye(10, dtype=np.int64), names, tmp_path / "a.png", "$\n$\\frac{")
    plot_per_class(np.linspace(0, 1, 10), names, tmp_path / "b.png", "\ue000 $")
    assert imread(tmp_path / "a.png")[..., :3].std() > 0.1
    assert imread(tmp_path / "b.png")[..., :3].std() > 0.1


def test_a_letter_that_the_font_lacks_is_an_escape(tmp_path, figures):
    plot_per_class(np.array([1.0, 0.5]), ["打篮球", "Ελλάδα"], tmp_path / "x.png", "title")
    names = [label.get_text() for label in figures[0].axes[0].get_yticklabels()]
    assert names == ["\\u6253\\u7bee\\u7403", "Ελλάδα"]


def test_nothing_of_it_outlasts_the_picture(tmp_path, monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 33.0)
    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)
    before, level = matplotlib.rcParams.copy(), logging.getLogger("matplotlib").level
    plot_per_class(np.array([1.0]), ["one"], tmp_path / "x.png", "title")
    assert matplotlib.rcParams.copy() == before
    assert logging.getLogger("matplotlib").level == level
    assert imread(tmp_path / "x.png").shape[0] < 300


def test_the_same_picture_is_the_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        plot_confusion(np.array([[3, 1], [0, 2]]), ["a", "b"], tmp_path / name, "title")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_picture_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        plot_per_class(np.array([1.0]), ["one"], tmp_path / "file" / "x.png", "title")


@pytest.mark.slow
def test_a_home_that_cannot_be_written_is_no_matter(tmp_path):
    """And a ``matplotlibrc`` in the current folder changes nothing."""
    (tmp_path / "file").write_text("")
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    code = "import numpy as n, sys\nfrom pathlib import Path\nfrom vadis.report.plots import plot_per_class\n"
    code += "plot_per_class(n.array([1.0]), ['one'], Path('x.png'), 'title')\n"
    code += "assert 'matplotlib.pyplot' not in sys.modules"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "MPL"))}
    environment |= {"HOME": str(tmp_path / "file"), "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, env=environment, stderr=-1)
    assert (done.returncode, done.stderr) == (0, b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "matplotlibrc", "x.png"]
