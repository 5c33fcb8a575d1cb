"""``vadis cut``: clips of the stretches that results name, and what is refused."""

from dataclasses import replace
from fractions import Fraction

import pytest

from tests.fake_road import result
from tests.synthetic import write_video
from vadis.formats import FORMATS
from vadis.results import Piece


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    for name in ("a.mp4", "deep/a.mp4"):
        write_video(name, num_frames=50)
    pieces = tuple(
        Piece(start, start + 0.5, label, 0.9) for start, label in ((0, "yoga"), (0.5, "run/jump"), (1, "yoga"))
    )
    records = [replace(result(name), timeline=pieces) for name in ("a.mp4", "deep/a.mp4", "gone.mp4")]
    (tmp_path / "results.jsonl").write_text("".join(FORMATS["jsonl"].write(records)))
    return tmp_path / "results.jsonl"


def test_each_stretch_is_a_file_whose_name_says_where_from(results, run_vadis):
    ended = run_vadis("cut", results, "--label", "run*", "-o", "clips")
    assert ended.code == 3 and "gone.mp4" in ended.err and "2 clips" in ended.err
    assert ended.out.splitlines() == [
        "clips/a.mp4.0m00.5s-0m01.0s.run_jump.mp4",
        "clips/deep/a.mp4.0m00.5s-0m01.0s.run_jump.mp4",
    ]
    assert all((results.parent / name).stat().st_size for name in ended.out.splitlines())
    assert run_vadis("cut", results, "--label", "run*", "-o", "clips").code == 2, "the clips are there"
    assert run_vadis("cut", results, "--label", "run*", "-o", "clips", "--overwrite").code == 3


def test_a_name_tells_hours(results, run_vadis):
    write_video("long.mp4", num_frames=40, fps=Fraction(1, 100), codec="mpeg4")
    record = replace(result("long.mp4"), timeline=(Piece(3600.0, 3660.5, "yoga", 0.9),), segments=())
    results.write_text("".join(FORMATS["jsonl"].write([record])))
    ended = run_vadis("cut", results, "--label", "yoga", "--exact", "-o", "clips")
    assert ended.out == "clips/long.mp4.1h00m00.0s-1h01m00.5s.yoga.mp4\n"


def test_stretches_that_meet_by_their_padding_are_one(results, run_vadis):
    ended = run_vadis("cut", results, "--label", "yoga", "--padding", 0.25, "--exact", "-o", "clips")
    names = [name for name in ended.out.splitlines() if "deep" not in name]
    assert names == ["clips/a.mp4.0m00.0s-0m01.8s.yoga.mp4"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--label", "nothing"), 4),
        (("--label", "yoga", "--model", "camera-motion"), 2),
        (("--label", "yoga", "--padding", "-1"), 2),
        ((), 2),
    ],
)
def test_wrong_use_is_said_and_leaves_no_folder(results, run_vadis, words, code):
    assert run_vadis("cut", results, "-o", "clips", *words).code == code
    assert not (results.parent / "clips").exists()


def test_a_video_is_labelled_first(results, run_vadis, monkeypatch):
    labelled = replace(result("a.mp4"), timeline=(Piece(0.0, 1.0, "yoga", 0.9),))
    monkeypatch.setattr("vadis.cli.results.label_one", lambda *_, **how: labelled)
    assert run_vadis("cut", "a.mp4", "--label", "yoga", "-o", "clips").out.count("\n") == 1


def test_padding_ends_with_the_video_not_with_the_last_stretch_that_is_told(results, run_vadis):
    told = replace(result("a.mp4"), timeline=(Piece(0.5, 1.0, "yoga", 0.9),))  # of 5.12 s, by ``--labels yoga``
    results.write_text("".join(FORMATS["jsonl"].write([told])))
    ended = run_vadis("cut", results, "--label", "yoga", "--padding", 0.5, "--exact", "-o", "clips")
    assert ended.out == "clips/a.mp4.0m00.0s-0m01.5s.yoga.mp4\n"


def test_labels_of_any_letters_and_length_make_names_of_their_own(results, run_vadis):
    alike = tuple(
        Piece(start, start + 1, label, 0.9) for start, label in ((0, "é" * 190 + "/1"), (1, "é" * 190 + "/2"))
    )
    results.write_text("".join(FORMATS["jsonl"].write([replace(result("a.mp4"), timeline=alike)])))
    ended = run_vadis("cut", results, "--label", "é*", "--padding", 9, "-o", "clips")
    assert ended.code == 0, ended.err
    names = ended.out.splitlines()
    assert len(set(names)) == 2 and all((results.parent / name).stat().st_size for name in names)


def test_videos_are_found_beside_the_results_from_any_folder(results, run_vadis, monkeypatch):
    (results.parent / "elsewhere").mkdir()
    results.rename(results.with_suffix(".ndjson"))
    monkeypatch.chdir("elsewhere")
    ended = run_vadis("cut", results.with_suffix(".ndjson"), "--label", "run*", "-o", "clips")
    assert ended.code == 3 and "gone.mp4" in ended.err and "2 clips" in ended.err
