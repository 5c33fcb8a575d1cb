"""TensorBoard reads back what the loop told, once each, also of a run that was interrupted."""

import sys
from pathlib import Path

import pytest

from tests.matching import containing
from vadis.errors import UsageError, VadisError
from vadis.training.log import (
    Event,
    Resumed,
    Saved,
    StepDone,
    Validated,
    open_log,
    require_tensorboard,
    tensorboard_writer,
)

pytestmark = pytest.mark.integration("tensorboard")


def step_done(step: int, loss: float) -> StepDone:
    return StepDone(step, 9, step / 2, loss, loss, 0.5, 0.125, 2.0, 16.0, 30.0)


def validated(step: int, loss: float) -> Validated:
    return Validated(step, loss, 0.75, 0.125, is_best=True)


def run(folder: Path, events: list[Event], step: int = 0, validated_at: int = 0) -> None:
    """As the training loop does: into the log, then to whoever watches."""
    folder.mkdir(exist_ok=True)
    with open_log(folder, step, validated_at) as log, tensorboard_writer(folder) as report:
        for event in events:
            log(event)
            report(event)


def scalars(folder: Path, name: str) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows, by tag: (step, value)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder / "tensorboard" / name), size_guidance={"scalars": 0}).Reload()
    return {tag: [(each.step, each.value) for each in board.Scalars(tag)] for tag in board.Tags()["scalars"]}


def test_everything_of_a_step_and_a_validation(tmp_path):
    run(tmp_path / "rgb", [step_done(1, 4.0), step_done(2, 3.0), Saved(2, "x"), validated(2, 3.5)])
    assert scalars(tmp_path / "rgb", "training") == {
        "loss": [(1, 4.0), (2, 3.0)],
        "accuracy": [(1, 0.5), (2, 0.5)],
        "learning rate": [(1, 0.125), (2, 0.125)],
        "gradient norm": [(1, 2.0), (2, 2.0)],
        "clips per second": [(1, 16.0), (2, 16.0)],
    }
    assert scalars(tmp_path / "rgb", "validation") == {"loss": [(2, 3.5)], "accuracy": [(2, 0.75)]}


@pytest.mark.parametrize("was_validated", [False, True])
def test_a_run_that_goes_on_has_no_point_twice_and_loses_none(tmp_path, was_validated):
    """It goes on after step 2, whose validation the checkpoint knows of, or not: then it is done again."""
    folder = tmp_path / "rgb"
    run(folder, [step_done(1, 4.0), step_done(2, 3.0), validated(2, 3.5), step_done(3, 2.0), validated(3, 2.5)])
    again = [] if was_validated else [validated(2, 3.5)]
    events = [Resumed(2, "x", (), ()), *again, step_done(3, 1.75), validated(3, 2.25), step_done(4, 1.0)]
    run(folder, events, step=2, validated_at=2 if was_validated else 0)
    assert scalars(folder, "training")["loss"] == [(1, 4.0), (2, 3.0), (3, 1.75), (4, 1.0)]
    assert scalars(folder, "validation")["loss"] == [(2, 3.5), (3, 2.25)]


def test_a_run_that_begins_again_forgets_the_first_try(tmp_path):
    """Interrupted before the first checkpoint: there is nothing to go on from."""
    run(tmp_path / "rgb", [step_done(1, 4.0), step_done(2, 3.0)])
    run(tmp_path / "rgb", [step_done(1, 5.0)])
    assert scalars(tmp_path / "rgb", "training")["loss"] == [(1, 5.0)]


def test_an_interruption_leaves_whole_files(tmp_path):
    with pytest.raises(KeyboardInterrupt), tensorboard_writer(tmp_path) as report:
        report(step_done(1, 4.0))
        raise KeyboardInterrupt
    assert scalars(tmp_path, "training")["loss"] == [(1, 4.0)]


def test_a_run_that_tells_nothing_writes_nothing(tmp_path):
    with tensorboard_writer(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("vadis.training.log.find_spec", lambda name: None)
    for attempt in (require_tensorboard, tensorboard_writer(tmp_path).__enter__):
        with pytest.raises(UsageError) as caught:
            attempt()
        assert caught.value.hint == "pip install 'vadis[tensorboard]'"


def test_asking_for_the_package_imports_nothing():
    before = set(sys.modules)
    require_tensorboard()
    assert not {name for name in set(sys.modules) - before if name.startswith(("torch", "tensorboard"))}


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "tensorboard").write_text("")
    with pytest.raises(VadisError, match=containing(tmp_path / "tensorboard")), tensorboard_writer(tmp_path) as report:
        report(step_done(1, 4.0))
