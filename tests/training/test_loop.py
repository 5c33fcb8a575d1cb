import json
import os
import re
import signal
from dataclasses import asdict
from itertools import count
from pathlib import Path
from threading import Event

import pytest
import torch
from torch import nn

from tests.matching import containing
from tests.training.stand_in import ALONE, RECIPE, ForgetfulNetwork, TinyClips, digest, run_tiny, tiny_network
from vadis.device import NoMemoryError
from vadis.errors import OutputLockedError, UsageError, VadisError
from vadis.files import locked
from vadis.training.checkpoint import CHECKPOINTS_NAME, TrainingProgress, load_newest
from vadis.training.distributed import has_abandoned_work
from vadis.training.loader import TrainingClip, permutation
from vadis.training.log import MemoryShort, Resumed, Saved, StepDone, Validated
from vadis.training.loop import Context, KeptState, StopRequested, Validation, stack_clips, validate_clips


def checkpoint_of(folder: Path):
    found = load_newest(folder / CHECKPOINTS_NAME)
    assert found is not None
    return found[0]


def everything(folder: Path) -> tuple:
    """All that the newest checkpoint holds, comparable bit by bit."""
    loaded = checkpoint_of(folder)
    return {key: value.numpy().tobytes() for key, value in loaded.tensors.items()}, loaded.state


def steps(events: list) -> list[StepDone]:
    return [event for event in events if isinstance(event, StepDone)]


class StopAt:
    """Asks to stop when it is asked for the ``number``-th time, and from then on."""

    def __init__(self, number: int) -> None:
        self.number, self.asked = number, 0

    def __call__(self) -> int:
        self.asked += 1
        return signal.SIGTERM if self.asked > self.number else 0


def test_it_learns(tmp_path):
    _, outcome, events = run_tiny(tmp_path, steps=50, learning_rate=0.2, validate_every=0, dropout=0.0)
    assert outcome.step == 50 and outcome.stopped_by == 0
    assert outcome.kept.validation.accuracy == 1.0
    assert steps(events)[-1].smoothed_loss < 0.8 * steps(events)[0].loss


def test_events_tell_how_far_it_is_and_the_log_has_them_all(tmp_path):
    _, _, events = run_tiny(tmp_path)
    assert [event.step for event in steps(events)] == list(range(1, 13))
    assert [event.step for event in events if isinstance(event, Validated)] == [5, 10, 12]
    last = steps(events)[-1]
    assert last.steps == 12 and last.epoch == 4.8 and last.seconds_left == 0 and last.clips_per_second > 0
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == [type(event).__name__ for event in events]
    assert lines[0]["loss"] == events[0].loss and lines[0]["time"] > 1.6e9


def test_what_the_first_pass_took_is_told_before_its_step_is_done(tmp_path):
    told = list[object]()
    run_tiny(tmp_path, first_pass=told.append, report=told.append)
    assert isinstance(told[0], float) and told[0] > 0
    assert not any(isinstance(each, float) for each in told[1:])


@pytest.mark.slow
def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path):
    """Stopped at every point where it can be: between steps, amid a step's micro-batches, amid a validation."""
    whole, short = tmp_path / "whole", {"steps": 6, "validate_every": 4}  # 10 clips, so steps 3 and 5 cross an epoch
    run_tiny(whole, **short)
    for number in count(0):
        folder, stop = tmp_path / str(number), StopAt(number)
        _, first, _ = run_tiny(folder, stop_requested=stop, **short)
        if not first.stopped_by:
            break
        assert first.stopped_by == signal.SIGTERM
        _, second, events = run_tiny(folder, network=tiny_network(seed=99), resume=True, **short)
        assert second.step == 6
        assert [event.step for event in steps(events)] == list(range(first.step + 1, 7))
        assert everything(folder) == everything(whole)
        numbers = [line["step"] for line in read_log(folder) if line["event"] == "StepDone"]
        assert numbers == list(range(1, 7))
    assert number == 6 * 3  # before each of two micro-batches, and before the exchange


def read_log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


class Blocked:
    """Blocks the forward pass of one step after its batch norm, as one long call of PyTorch does."""

    def __init__(self, number: int) -> None:
        self.number, self.passes, self.end, self.has_begun = number, 0, Event(), Event()

    def __call__(self, module: nn.Module, inputs: tuple) -> None:
        self.passes += 1
        if self.passes == self.number:
            self.has_begun.set()
            self.end.wait(60)

    def stop_requested(self) -> int:
        return signal.SIGTERM if self.has_begun.is_set() else 0


@pytest.mark.slow
@pytest.mark.parametrize(("number", "done"), [(1, 0), (6, 2)])
def test_a_stop_within_a_pass_is_heeded_before_the_pass_ends(tmp_path, number, done):
    """The checkpoint holds what was there before the step, although the pass has changed running averages since."""
    short = {"steps": 6, "validator": None}
    whole, _, _ = run_tiny(tmp_path / "whole", **short)
    network, block = tiny_network(), Blocked(number)
    network.head.register_forward_pre_hook(block)
    _, first, _ = run_tiny(tmp_path / "cut", network=network, stop_requested=block.stop_requested, **short)
    assert (first.step, first.stopped_by) == (done, signal.SIGTERM) and has_abandoned_work()
    block.end.set()
    again, _, _ = run_tiny(tmp_path / "cut", network=tiny_network(seed=9), resume=True, **short)
    assert digest(again) == digest(whole)


@pytest.mark.slow
def test_a_stop_within_a_pass_of_the_validation_is_heeded():
    network, block = tiny_network(), Blocked(2)
    network.head.register_forward_pre_hook(block)
    with pytest.raises(StopRequested):
        validate_clips(network, TinyClips(7), Context(ALONE, stop_requested=block.stop_requested), 3)
    block.end.set()


def test_a_run_may_be_lengthened_but_not_shortened(tmp_path):
    steps = {"schedule": "steps", "validator": None}
    whole, _, _ = run_tiny(tmp_path / "whole", steps=12, **steps)
    run_tiny(tmp_path / "run", steps=7, **steps)
    longer, outcome, events = run_tiny(tmp_path / "run", steps=12, resume=True, **steps)
    assert outcome.step == 12 and events[0].differences == ()
    assert digest(longer) == digest(whole)
    with pytest.raises(UsageError, match=containing("steps", 12, 7)):
        run_tiny(tmp_path / "run", steps=7, resume=True, **steps)


def test_a_stop_during_validation_is_a_stop(tmp_path):
    def validate(network):
        raise StopRequested(signal.SIGINT)

    _, outcome, events = run_tiny(tmp_path, validator=validate)
    assert (outcome.step, outcome.stopped_by) == (5, signal.SIGINT)
    assert isinstance(events[-1], Saved)
    assert validate_clips(tiny_network(), TinyClips(7), Context(ALONE), 6).loss > 0
    with pytest.raises(StopRequested):
        validate_clips(tiny_network(), TinyClips(7), Context(ALONE, stop_requested=lambda: signal.SIGINT), 6)


def test_a_killed_run_goes_on_from_its_last_checkpoint_and_the_log_forgets_the_rest(tmp_path):
    class PowerCutError(Exception):
        pass

    def report(event):
        if isinstance(event, StepDone) and event.step == 9:
            raise PowerCutError

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_tiny(whole)
    with pytest.raises(PowerCutError):
        run_tiny(cut, report=report)
    assert checkpoint_of(cut).step == 5 and read_log(cut)[-1]["step"] == 9
    with (cut / "log.jsonl").open("a") as log:
        log.write('{"event": "StepDone", "st')
    _, _, events = run_tiny(cut, resume=True)
    assert isinstance(events[0], Resumed) and events[0].step == 5
    assert everything(cut) == everything(whole)
    assert [line["step"] for line in read_log(cut) if line["event"] == "StepDone"] == list(range(1, 13))
    assert [line["step"] for line in read_log(cut) if line["event"] == "Validated"] == [5, 10, 12]


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    network, _, _ = run_tiny(tmp_path)
    again, outcome, events = run_tiny(tmp_path, network=tiny_network(seed=5), resume=True)
    assert outcome.step == 12 and [type(event) for event in events] == [Resumed]
    assert digest(again) == digest(network)


def test_resume_begins_where_there_is_nothing_yet(tmp_path):
    _, outcome, _ = run_tiny(tmp_path, resume=True)
    assert outcome.step == 12


def test_a_folder_with_a_run_in_it_is_refused(tmp_path):
    run_tiny(tmp_path, steps=1)
    with pytest.raises(UsageError, match=containing(tmp_path)):
        run_tiny(tmp_path, steps=1)


def test_two_runs_in_one_folder(tmp_path):
    with locked(tmp_path), pytest.raises(OutputLockedError, match=containing(os.getpid(), tmp_path)):
        run_tiny(tmp_path)
    run_tiny(tmp_path, steps=1)


def test_in_bf16_products_are_rounded_while_it_learns_and_nothing_else_is(tmp_path):
    network, seen = tiny_network(), {}
    network.conv.register_forward_hook(lambda module, args, y: seen.update({(module.training, y.dtype): True}))
    _, outcome, _ = run_tiny(tmp_path, network=network, precision="bf16")
    assert list(seen) == [(True, torch.bfloat16), (False, torch.float32)]
    assert outcome.step == 12
    tensors = checkpoint_of(tmp_path).tensors  # of network, momentum and the best
    assert {value.dtype for value in tensors.values() if value.is_floating_point()} == {torch.float32}
    exact, _, _ = run_tiny(tmp_path / "exact")
    for key, value in exact.state_dict().items():
        assert torch.allclose(network.state_dict()[key].float(), value.float(), atol=0.05), key
    assert digest(network) != digest(exact)


def test_a_run_in_bf16_goes_on_exactly(tmp_path):
    whole, _, _ = run_tiny(tmp_path / "whole", precision="bf16")
    run_tiny(tmp_path / "cut", precision="bf16", stop_requested=StopAt(20))
    again, _, events = run_tiny(tmp_path / "cut", network=tiny_network(seed=9), precision="bf16", resume=True)
    assert 0 < events[0].step < 12
    assert digest(again) == digest(whole)


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({"precision": "bf16"}, ("precision", "fp32", "bf16")),
        ({"learning_rate": 0.01}, ("learning_rate", 0.05, 0.01)),
        ({"data_sha256": "1" * 64}, ("clips",)),
    ],
)
def test_what_breaks_exactness_is_refused_unless_it_is_meant(tmp_path, change, known):
    run_tiny(tmp_path, stop_requested=StopAt(20))
    with pytest.raises(UsageError, match=containing(*known)) as refusal:
        run_tiny(tmp_path, resume=True, **change)
    assert "`allow_inexact=True`" in str(refusal.value.hint)
    _, outcome, events = run_tiny(tmp_path, resume=True, allow_inexact=True, **change)
    assert outcome.step == 12 and re.search(containing(*known), events[0].differences[0])


def test_another_number_of_threads_breaks_exactness(tmp_path):
    run_tiny(tmp_path, stop_requested=StopAt(20))
    torch.set_num_threads(2)
    with pytest.raises(UsageError, match=containing("threads", 1, 2)):
        run_tiny(tmp_path, resume=True)


def test_other_classes_or_another_network_are_never_gone_on_with(tmp_path):
    run_tiny(tmp_path, stop_requested=StopAt(20))
    with pytest.raises(UsageError, match=containing(tmp_path)):
        run_tiny(tmp_path, resume=True, allow_inexact=True, labels=("dark", "bright", "twinkling"))
    other = tiny_network()
    other.head = nn.Conv3d(5, 4, 1)
    with pytest.raises(UsageError, match=containing(2, "head.weight")):
        run_tiny(tmp_path, network=other, resume=True, allow_inexact=True)


class BrokenClips(TinyClips):
    """From its second epoch on, clip 7 is not a number."""

    def clip(self, epoch, index):
        (tensor,), label, name = super().clip(epoch, index)
        return (tensor * float("nan") if (epoch, index) == (1, 7) else tensor,), label, name


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_clips(tmp_path):
    network = tiny_network()
    with pytest.raises(VadisError, match=containing("loss", "clip-7.avi")) as stop:
        run_tiny(tmp_path, network=network, clips=BrokenClips(), checkpoint_seconds=0)
    assert stop.value.exit_code == 1
    assert all(value.isfinite().all() for value in network.parameters())
    loaded = checkpoint_of(tmp_path)
    assert f"step {loaded.step + 1} " in stop.value.message
    assert all(value.isfinite().all() for value in loaded.tensors.values())


def test_a_gradient_that_is_not_finite_stops_before_the_update(tmp_path):
    network = tiny_network()
    network.conv.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = digest(network)
    with pytest.raises(VadisError, match=containing("gradient", 1)):
        run_tiny(tmp_path, network=network)
    assert digest(network).split() == before.split() or all(v.isfinite().all() for v in network.state_dict().values())


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("micro_batch", [8, 4])
def test_when_memory_runs_out_the_pieces_get_smaller_and_the_batch_stays(tmp_path, where, micro_batch):
    recipe = {"batch_size": 8, "validate_every": 0}
    plain, _, _ = run_tiny(tmp_path / "plain", micro_batch=2, **recipe)
    short, outcome, events = run_tiny(
        tmp_path / "short", network=ForgetfulNetwork(where), micro_batch=micro_batch, validator=None, **recipe
    )
    told = [event for event in events if isinstance(event, MemoryShort)]
    assert [event.micro_batch for event in told] == ([4, 2] if micro_batch == 8 else [2])
    assert all(event.batch_size == 8 for event in told)
    assert outcome.step == 12 and digest(short) == digest(plain)
    assert checkpoint_of(tmp_path / "short").state["progress"]["micro_batch"] == 2


def test_memory_may_run_out_at_any_micro_batch(tmp_path):
    """Fragments, or somebody else on the device: the second piece of the second step is too large, once."""
    asked = count(1)
    network = tiny_network()
    network.register_forward_pre_hook(lambda module, args: _refuse_at(4, next(asked)))
    run_tiny(tmp_path / "short", network=network, validator=None)
    events = [line["event"] for line in read_log(tmp_path / "short")]
    assert events[:3] == ["StepDone", "MemoryShort", "StepDone"]
    smaller = tiny_network()
    run_tiny(tmp_path / "first", network=smaller, steps=1, validator=None)
    recipe = {"micro_batch": 1, "resume": True, "allow_inexact": True, "validator": None}
    run_tiny(tmp_path / "first", network=smaller, **recipe)
    assert digest(network) == digest(smaller)


def _refuse_at(number: int, asked: int) -> None:
    if asked == number:
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_when_memory_does_not_suffice_for_one_clip(tmp_path):
    with pytest.raises(VadisError, match="memory"):
        run_tiny(tmp_path, network=ForgetfulNetwork("forward", limit=0))


def test_when_memory_does_not_suffice_for_the_optimiser(tmp_path, monkeypatch):
    """Its own memory is taken in the first update, when nothing smaller can go through."""
    monkeypatch.setattr(torch.optim.SGD, "step", lambda *arguments, **options: _refuse_at(1, 1))
    with pytest.raises(NoMemoryError):
        run_tiny(tmp_path)


def test_other_errors_of_the_network_are_not_taken_for_a_lack_of_memory(tmp_path):
    with pytest.raises(RuntimeError, match="expected input"):
        run_tiny(tmp_path, network=nn.Conv3d(3, 3, 1))


def test_accumulated_micro_batches_give_the_gradient_of_the_whole_batch(tmp_path):
    """Without what sees the batch (batch norm) or chance (dropout), the size of the pieces does not matter."""
    found = []
    for size in (1, 3, 4):
        network = tiny_network()
        network.norm = nn.Identity()
        run_tiny(tmp_path / str(size), network=network, micro_batch=size, dropout=0.0)
        found.append(torch.cat([value.detach().flatten() for value in network.parameters()]))
    assert torch.allclose(found[0], found[1], atol=1e-6) and torch.allclose(found[0], found[2], atol=1e-6)


def test_a_network_that_needs_several_clips_at_once_never_gets_one(tmp_path):
    network = tiny_network()
    network.min_batch_size = 2
    with pytest.raises(UsageError, match=containing(2)):
        run_tiny(tmp_path / "one", network=network, batch_size=5, micro_batch=2)
    assert run_tiny(tmp_path / "two", network=network, batch_size=4, micro_batch=2, steps=1)[1].step == 1


def test_running_averages_move_once_per_step_towards_the_mean_of_the_micro_batches(tmp_path):
    network = tiny_network()
    run_tiny(tmp_path, network=network, steps=1, micro_batch=2, validator=None)
    reference, clips = tiny_network(), TinyClips()
    order = permutation(RECIPE.seed, 0, len(clips))[:4]
    means = []
    for pair in (order[:2], order[2:]):
        x = reference.conv(torch.stack([clips.clip(0, index)[0][0] for index in pair]))
        means.append(x.mean(dim=(0, 2, 3, 4)))
    expected = 0.9 * torch.zeros(5) + 0.1 * (means[0] + means[1]) / 2
    assert torch.allclose(network.norm.running_mean, expected, atol=1e-7)


def test_sgd_as_the_paper_has_it(tmp_path):
    """Two steps by hand: v ← 0.9 v + g; p ← p - rate · v."""
    network, gradients = tiny_network(), []
    network.head.bias.register_hook(lambda gradient: gradients.append(gradient.clone()))
    before = network.head.bias.detach().clone()
    run_tiny(tmp_path, network=network, steps=2, micro_batch=4, weight_decay=0.0, validator=None)
    first, second = gradients
    expected = before - 0.05 * first - 0.05 * (0.9 * first + second)
    assert torch.allclose(network.head.bias, expected, atol=1e-7)


def test_the_paper_s_rule_lowers_the_rate_and_ends_the_run(tmp_path):
    flat = {"validator": lambda network: Validation(loss=1.0, accuracy=0.5), "steps": 50, "validate_every": 2}
    _, outcome, events = run_tiny(tmp_path, **flat)
    rates = [event.learning_rate for event in steps(events)]
    assert rates == pytest.approx([0.05] * 4 + [0.005] * 2 + [0.0005] * 2)
    assert outcome.step == 8
    assert [event.is_best for event in events if isinstance(event, Validated)] == [True, False, False, False]


class Losses:
    """Validates by a list of losses, and remembers what the network was each time."""

    def __init__(self, *losses: float) -> None:
        self.losses, self.seen = list(losses), []

    def __call__(self, network: nn.Module) -> Validation:
        self.seen.append(digest(network))
        return Validation(self.losses[len(self.seen) - 1], 0.5)


UP_AND_DOWN = {"schedule": "steps", "steps": 12, "validate_every": 2}


def test_the_state_of_the_best_validation_is_kept(tmp_path):
    validate = Losses(1.0, 0.4, 0.9, 0.4, float("nan"), 0.6)
    network, outcome, events = run_tiny(tmp_path, validator=validate, **UP_AND_DOWN)
    assert digest(network) == validate.seen[1]
    assert outcome.kept == KeptState(4, 12, Validation(0.4, 0.5))
    assert [event.step for event in events if isinstance(event, Validated) and event.is_best] == [2, 4]


@pytest.mark.parametrize("number", [8, 13, 30])
def test_the_best_state_survives_an_interruption(tmp_path, number):
    """Stopped before and after the best validation, and asked again when all is done."""
    losses = (1.0, 0.4, 0.9, 0.5, 0.7, 0.6)
    whole, _, _ = run_tiny(tmp_path / "whole", validator=Losses(*losses), **UP_AND_DOWN)
    _, first, _ = run_tiny(tmp_path / "cut", validator=Losses(*losses), stop_requested=StopAt(number), **UP_AND_DOWN)
    assert first.stopped_by and first.kept is None
    rest = Losses(*losses[first.step // 2 :])
    for validate in (rest, Losses()):
        network, second, _ = run_tiny(
            tmp_path / "cut", network=tiny_network(seed=9), resume=True, validator=validate, **UP_AND_DOWN
        )
        assert second.kept.step == 4
        assert digest(network) == digest(whole)


def test_a_validation_on_other_clips_is_not_compared_with(tmp_path):
    run_tiny(tmp_path, validator=Losses(*[0.1] * 6), stop_requested=StopAt(13), **UP_AND_DOWN)
    other = Losses(9.0, 8.0, 7.0, 8.5, 8.6, 8.7)
    network, outcome, _ = run_tiny(
        tmp_path, resume=True, allow_inexact=True, data_sha256="1" * 64, validator=other, **UP_AND_DOWN
    )
    assert outcome.kept.validation.loss == min(other.losses[: len(other.seen)])
    assert digest(network) == other.seen[other.losses.index(outcome.kept.validation.loss)]


def test_without_a_validation_the_last_state_is_kept_and_called_so(tmp_path):
    _, outcome, _ = run_tiny(tmp_path, validator=None)
    assert outcome.kept == KeptState(12, 12, None)


def test_validation_sees_the_network_in_evaluation_mode_and_does_not_change_it(tmp_path):
    seen = []

    def validate(network):
        seen.append((network.training, digest(network)))
        result = validate_clips(network, TinyClips(7), Context(ALONE), 2)
        assert digest(network) == seen[-1][1]
        return result

    run_tiny(tmp_path, validator=validate)
    assert [training for training, _ in seen] == [False] * 3


def test_checkpoints_come_as_often_as_asked_for(tmp_path):
    _, _, events = run_tiny(tmp_path, checkpoint_seconds=0, steps=4)
    assert [event.step for event in events if isinstance(event, Saved)] == [1, 2, 3, 4, 4]
    _, _, events = run_tiny(tmp_path / "seldom", steps=4)
    assert [event.step for event in events if isinstance(event, Saved)] == [4, 4]


def test_a_batch_lies_as_networks_take_it_on_the_cpu():
    """One copy of each clip, whatever its own layout; anything but clips is stacked as it is."""
    rgb = [torch.randn(5, 6, 7, 3).permute(3, 0, 1, 2) for _ in range(2)]  # (C, T, H, W)
    flow = [torch.randn(5, 2, 6, 7).transpose(0, 1) for _ in range(2)]
    clips = [TrainingClip(i, (rgb[i], flow[i], torch.full((4,), float(i))), 1 - i, "") for i in range(2)]
    (pictures, motion, features), labels = stack_clips(clips, torch.device("cpu"))
    assert torch.equal(pictures, torch.stack(rgb)) and torch.equal(motion, torch.stack(flow))
    assert pictures.is_contiguous(memory_format=torch.channels_last_3d)
    assert motion.is_contiguous(memory_format=torch.channels_last_3d)
    assert features.tolist() == [[0.0] * 4, [1.0] * 4] and labels.tolist() == [1, 0]


def test_no_clips(tmp_path):
    with pytest.raises(UsageError):
        run_tiny(tmp_path, clips=TinyClips(0))


def test_the_number_of_threads_and_versions_are_on_record(tmp_path):
    run_tiny(tmp_path, steps=1)
    state = checkpoint_of(tmp_path).state
    assert state["made_with"]["threads"] == 1 and state["made_with"]["torch"] == torch.__version__
    assert state["made_with"]["seed"] == 3 and state["made_with"]["processes"] == 1
    assert set(state["progress"]) == set(asdict(TrainingProgress(micro_batch=1)))
