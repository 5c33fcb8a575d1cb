"""What is held out for validation: of every class, whole recordings, never all of a class."""

from fractions import Fraction

import pytest

from tests.matching import containing
from vadis.datasets import find_dataset
from vadis.datasets.dataset import Dataset, Example, hold_out, without_untrained
from vadis.errors import UsageError

SHARES = [Fraction(1, 20), Fraction(1, 5), Fraction(1, 2)]


def clips(*paths):
    """Examples whose class is the folder that they lie in."""
    return tuple(Example(f"/data/{path}", path.rpartition("/")[0]) for path in paths)


def ucf(label, groups, number=4):
    return [f"{label}/v_{label}_g{group:02}_c{clip:02}.avi" for group in range(groups) for clip in range(number)]


def hmdb(label, recordings, number=3):
    return [
        f"{label}/T{r}a_{label}_u_nm_np1_ba_goo_{clip}.avi" for r in "ABCDEFGHIJ"[:recordings] for clip in range(number)
    ]


def sizes(examples):
    labels = [each.label for each in examples]
    return {label: labels.count(label) for label in labels}


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("named", [ucf, hmdb])
def test_recordings_stay_whole_and_every_class_is_on_both_sides(named, share):
    examples = clips(*named("run", 10), *named("jump", 6, 5), *named("sit", 2, 7), *named("one", 2, 1))
    found = hold_out(examples, share, "/data")
    assert sorted([*found.train, *found.val], key=str) == sorted(examples, key=str)
    recordings = [{each.path.rstrip("0123456789.avi") for each in side} for side in (found.train, found.val)]
    assert not recordings[0] & recordings[1]
    assert sizes(found.train).keys() == sizes(found.val).keys() == {"run", "jump", "sit", "one"}
    assert found.notes == ()


def test_the_share_is_that_of_every_class():
    examples = clips(
        *(f"a/{n:03}.mp4" for n in range(100)), *(f"b/{n:03}.mp4" for n in range(50)), "c/1.mp4", "c/2.mp4"
    )
    assert sizes(hold_out(examples, Fraction(1, 5), "/data").val) == {"a": 20, "b": 10, "c": 1}


def test_a_class_of_one_recording_is_learnt_from_and_named():
    examples = clips(*ucf("run", 5), *ucf("jump", 1, 6), "sit/lone.mp4")
    found = hold_out(examples, Fraction(1, 5), "/data")
    assert sizes(found.val).keys() == {"run"}
    assert sizes(found.train) | {"run": 16} == {"run": 16, "jump": 6, "sit": 1}
    assert len(found.notes) == 1 and "jump" in found.notes[0] and "sit" in found.notes[0]


def test_a_recording_that_shows_two_classes_is_on_one_side():
    examples = clips(
        *(f"{label}/{who}_{n}.mp4" for label in ("run", "sit") for who in ("ann", "bob", "eve") for n in "12")
    )
    found = hold_out(examples, Fraction(1, 3), "/data")
    people = [{each.path[-9:-6] for each in side} for side in (found.train, found.val)]
    assert len(people[1]) == 1 and not people[0] & people[1]


def test_pieces_of_one_file_and_cuts_named_by_their_times_are_of_one_recording():
    parts = [Example(f"/data/{name}.mp4", "run", float(n), n + 1.0) for name in ("x", "y") for n in range(4)]
    cuts = clips(*(f"sit/{name}_00001{n}_00002{n}.mp4" for name in ("abc-def_12", "-a1bcd2efg_") for n in range(4)))
    found = hold_out([*parts, *cuts], Fraction(1, 4), "/data")
    for label in ("run", "sit"):
        sides = [{each.path[:12] for each in side if each.label == label} for side in (found.train, found.val)]
        assert all(sides) and not sides[0] & sides[1]


@pytest.mark.parametrize(
    "name",
    [
        *("{}", "{label}_{:02}", "{label}_video_{:02}", "clip-{label}-{}"),
        *("IMG_{:04}", "VID_20240102_1234{:02}", "VID-20240102-WA{:04}", "2024-01-02 10.11.{:02}"),
    ],
)
def test_a_number_that_is_all_there_is_to_a_name_counts_recordings(name):
    examples = clips(*(f"{label}/{name.format(n, label=label)}.mp4" for label in ("run", "sit") for n in range(10)))
    found = hold_out(examples, Fraction(1, 5), "/data")
    assert sizes(found.val) == {"run": 2, "sit": 2} and found.notes == ()


def test_names_that_tell_no_recordings_apart_are_divided_one_by_one_which_is_said():
    examples = clips(*(f"{label}/clip_{n}.mp4" for label in ("run", "sit") for n in range(10)))
    found = hold_out(examples, Fraction(1, 5), "/data")
    assert sizes(found.val) == {"run": 2, "sit": 2}
    assert len(found.notes) == 1 and "recording" in found.notes[0]


def test_the_choice_is_the_same_wherever_the_data_lie():
    names = [*ucf("run", 9), *ucf("sit", 9), *(f"jump/{n}.mp4" for n in range(9))]
    here = hold_out(clips(*names), Fraction(1, 5), "/data").val
    there = hold_out([Example(f"/b/{name}", name.rpartition("/")[0]) for name in names], Fraction(1, 5), "/b").val
    assert [each.path[6:] for each in here] == [each.path[3:] for each in there]


def test_a_class_whose_only_clip_was_for_validation_is_learnt_from(tree):
    """By a hash of each file, both clips of some of these classes were taken away from training."""
    dataset = find_dataset(tree(*(f"{label}/{name}.mp4" for label in "abcdefghijkl" for name in ("x", "y"))))
    assert {each.label for each in dataset.splits["train"]} == set(dataset.classes)


# Classes that nobody can learn


def of_classes(train, test):
    splits = {
        "train": clips(*(f"{label}/x.avi" for label in train)),
        "test": clips(*(f"{label}/y.avi" for label in test)),
    }
    return Dataset("ucf101", "/data", ("a", "b", "c"), 1, splits)


def test_classes_without_training_clips_are_left_out_by_name():
    found = without_untrained(of_classes("ac", "abc"))
    assert found.classes == ("a", "c")
    assert {each.label for each in found.splits["test"]} == {"a", "c"}
    assert any(": b" in note for note in found.notes)
    whole = of_classes("abc", "ab")
    assert without_untrained(whole) == whole


def test_one_class_is_too_few():
    with pytest.raises(UsageError, match=containing("a")):
        without_untrained(of_classes("a", "abc"))
