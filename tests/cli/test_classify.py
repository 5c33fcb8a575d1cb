"""``vadis classify`` from what is typed to what is written, with the road itself replaced (see conftest)."""

import csv
import inspect
import io
import json
from pathlib import Path

import pytest

import vadis
from tests.fake_road import result
from vadis.cli.classify import choose_format
from vadis.errors import advice
from vadis.formats import FORMATS
from vadis.inference.predict import Sliding


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """A folder, and the working folder, with clips/a.mp4, clips/bad.mp4, clips/cut.mp4 and clips/deep/b.mkv."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "bad.mp4", "cut.mp4", "deep/b.mkv"):
        path = tmp_path / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not looked at")
    return tmp_path / "clips"


def paths_in(text):
    return [json.loads(line)["path"] for line in text.splitlines()]


def test_a_folder_gives_one_record_per_video_and_the_count_last(clips, road, run_vadis):
    ended = run_vadis("classify", "clips")
    assert ended.code == 3
    assert paths_in(ended.out) == ["clips/a.mp4", "clips/bad.mp4", "clips/cut.mp4", "clips/deep/b.mkv"]
    assert [line.split(", only")[0] for line in ended.err.splitlines()] == [
        "fake, rgb and flow, on cpu",
        "clips/bad.mp4: no frame can be decoded",
        f"hint: {advice('no_frames')}",
        "clips/cut.mp4: partial",
        "2 ok, 1 partial, 1 failed",
    ]


@pytest.mark.parametrize(
    ("words", "is_begun"),
    [
        (["clips/a.mp4"], True),
        (["clips/a.mp4", "--model", "i3d-kinetics400", "--streams", "flow"], True),
        (["clips/a.mp4", "--streams", "rgb"], False),
        (["clips/a.mp4", "--model", "camera-motion"], False),
        (["clips/a.mp4", "clips/cut.mp4"], False),
    ],
)
def test_the_flow_of_one_video_that_somebody_waits_for_is_begun_at_once(
    clips, road, run_vadis, words, is_begun, default_model
):
    run_vadis("classify", *words, "--device", "cpu")
    assert ("first" in road.options) == is_begun


def test_no_flow_is_begun_for_a_model_that_may_not_come(clips, road, run_vadis):
    run_vadis("classify", "clips/a.mp4", "--device", "cpu")
    assert "first" not in road.options


def test_a_gpu_computes_its_flow_itself(clips, road, run_vadis):
    run_vadis("classify", "clips/a.mp4", "--device", "cuda")
    assert "first" not in road.options


def test_all_labelled_is_0_and_a_partial_video_is_no_failure(clips, road, run_vadis):
    assert run_vadis("classify", "clips/a.mp4").code == 0
    ended = run_vadis("classify", "clips/cut.mp4")
    assert (ended.code, ended.err.splitlines()[-1]) == (0, "0 ok, 1 partial")


def test_the_same_missing_input_twice_stops_nothing(clips, road, run_vadis):
    ended = run_vadis("classify", "gone.mp4", "gone.mp4", "clips/a.mp4")
    assert (ended.code, paths_in(ended.out)) == (3, ["gone.mp4", "clips/a.mp4"])


def test_a_missing_input_among_others_is_a_record(clips, road, run_vadis):
    ended = run_vadis("classify", "gone.mp4", "clips/a.mp4")
    assert ended.code == 3
    first, second = map(json.loads, ended.out.splitlines())
    assert (first["path"], first["error"]["code"]) == ("gone.mp4", "not_found")
    assert (second["path"], second["status"]) == ("clips/a.mp4", "ok")
    assert ended.err.splitlines()[-1] == "1 ok, 1 failed"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["gone.mp4"], 2, "gone.mp4"),
        ([], 2, "no input"),
        (["https://example.org/a.mp4"], 2, "download it first"),
        (["empty"], 4, "no video"),
        (["clips", "-f", "docx"], 2, "docx"),
        (["clips", "--streams", "sound"], 2, "sound"),
        (["clips", "--segment", "0.1"], 2, "--segment"),
        (["clips", "--threshold", "1.5"], 2, "--threshold"),
        (["clips", "-k", "0"], 2, "--top-k"),
        (["clips", "--stride", "8"], 2, "--window"),
        (["clips", "-f", "srt"], 2, "--output-dir"),
        (["clips", "-o", "a.jsonl", "--output-dir", "out"], 2, "exclude"),
        (["clips", "-o", "nowhere/a.jsonl"], 2, "does not exist"),
        (["clips", "-o", "clips"], 2, "is a folder"),
        (["clips", "-o", "taken.json"], 2, "--overwrite"),
        (["clips", "--output-dir", "taken.json"], 2, "cannot be made"),
    ],
)
def test_wrong_use_is_said_before_a_model_is_loaded(clips, road, run_vadis, arguments, code, words):
    (clips.parent / "empty").mkdir()
    (clips.parent / "taken.json").write_text("mine")
    ended = run_vadis("classify", *arguments)
    assert ended.code == code
    assert words in ended.err
    assert ended.out == ""
    assert road.calls == []
    assert (clips.parent / "taken.json").read_text() == "mine"


def test_what_the_model_says_ends_the_run_without_an_output(clips, road, run_vadis):
    ended = run_vadis("classify", "clips", "-m", "nowhere", "-o", "out.jsonl")
    assert (ended.code, ended.err) == (1, "error: there is no network\nhint: look here\n")
    assert not (clips.parent / "out.jsonl").exists()
    assert run_vadis("classify", "clips", "-m", "nowhere", "--output-dir", "new/out").code == 1
    assert not (clips.parent / "new").exists()


def test_options_reach_the_library(clips, road, run_vadis):
    arguments = ["-m", "x.safetensors", "--device", "cuda:1", "--offline", "--streams", "flow", "--flip", "-k", "3"]
    run_vadis("classify", "clips/a.mp4", *arguments, "--window", "64", "--stride", "32", "--segment", "0.32")
    asked = road.options
    assert (asked["model"], asked["device"], asked["offline"]) == ("x.safetensors", "cuda:1", True)
    assert (asked["streams"], asked["flip"], asked["top_k"]) == (("flow",), True, 3)
    assert asked["sliding"] == Sliding(0.32, 64, 32)


def test_offline_is_left_to_the_environment_unless_given(clips, road, run_vadis):
    run_vadis("classify", "clips/a.mp4")
    assert road.options["offline"] is None


def test_defaults_are_those_of_the_library():
    from vadis.cli.classify import classify

    defaults = {name: parameter.default for name, parameter in inspect.signature(classify).parameters.items()}
    assert (defaults["segment"], defaults["window"], defaults["stride"]) == (
        None,
        None,
        None,
    )  # as the model's card says
    library = inspect.signature(vadis.classify).parameters
    assert (defaults["top_k"], defaults["flip"]) == (library["top_k"].default, library["flip"].default)


def test_threshold_leaves_labels_out(clips, road, run_vadis):
    record = json.loads(run_vadis("classify", "clips/a.mp4", "--threshold", "0.5").out)
    assert [label["label"] for label in record["labels"]] == ["arm wrestling"]
    assert [len(segment["labels"]) for segment in record["segments"]] == [1, 0]


def test_lists_come_from_a_file_or_stdin_also_with_nul(clips, road, run_vadis, monkeypatch):
    (clips / "new\nline.mp4").write_bytes(b"x")
    (clips / "list.txt").write_text("clips/a.mp4\nclips/deep/b.mkv\n")
    assert paths_in(run_vadis("classify", "--from-file", clips / "list.txt").out) == ["clips/a.mp4", "clips/deep/b.mkv"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"clips/new\nline.mp4\0clips/a.mp4\0")))
    assert paths_in(run_vadis("classify", "-0", "-").out) == ["clips/new\nline.mp4", "clips/a.mp4"]


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if not form.one_video])
def test_a_file_holds_what_stdout_would(clips, road, run_vadis, name):
    to_stdout = run_vadis("classify", "clips", "-f", name)
    to_file = run_vadis("classify", "clips", "-o", f"out.{name}")
    written = (clips.parent / f"out.{name}").read_text()
    records = written.partition("\n")[2] if name == "jsonl" else written  # a journal begins with its header
    assert records == to_stdout.out
    assert (to_file.out, to_file.code) == ("", 3)
    assert [path.name for path in clips.parent.iterdir() if path.name.endswith((".part", ".tmp"))] == []


def test_a_dash_is_stdout(clips, road, run_vadis):
    assert paths_in(run_vadis("classify", "clips/a.mp4", "-o", "-").out) == ["clips/a.mp4"]
    assert not (clips.parent / "-").exists()


def test_overwrite_replaces(clips, road, run_vadis):
    out = clips.parent / "out.csv"
    out.write_text("old")
    assert run_vadis("classify", "clips", "-o", out, "--overwrite").code == 3
    assert len(list(csv.DictReader(io.StringIO(out.read_text())))) == 7


def test_one_subtitle_file_per_video_in_the_tree_of_the_inputs(clips, road, run_vadis):
    ended = run_vadis("classify", "clips", "-f", "srt", "--output-dir", "out")
    out = clips.parent / "out"
    assert ended.code == 3
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert written == ["a.srt", "cut.srt", "deep/b.srt", "vadis-results.jsonl"]
    assert (out / "a.srt").read_text().startswith("1\n00:00:00,000 --> 00:00:02,560\narm wrestling (90%)\n")


def test_a_folder_with_documents_of_others_is_refused(clips, road, run_vadis):
    (clips.parent / "out" / "deep").mkdir(parents=True)
    for name in ("a.srt", "deep/b.srt"):
        (clips.parent / "out" / name).write_text("mine")
    ended = run_vadis("classify", "clips", "-f", "srt", "--output-dir", "out")
    assert ended.code == 2
    assert "out/a.srt" in ended.err and "--overwrite" in ended.err
    assert (clips.parent / "out" / "a.srt").read_text() == "mine"


def test_a_failed_video_has_its_record_in_the_tree_too(clips, road, run_vadis):
    run_vadis("classify", "clips", "--output-dir", "out")
    assert json.loads((clips.parent / "out" / "bad.mp4.jsonl").read_text())["status"] == "error"


def test_one_video_may_be_a_subtitle_on_stdout(clips, road, run_vadis):
    assert run_vadis("classify", "clips/a.mp4", "-f", "vtt").out.startswith("WEBVTT\n\n00:00:00.000")


def test_the_table_names_problems_itself(clips, road, run_vadis):
    ended = run_vadis("classify", "clips", "-f", "table")
    assert "not labelled: no frame can be decoded" in ended.out
    assert "no frame" not in ended.err
    assert ended.out.isprintable() is False  # several lines, but no escapes
    assert "\x1b" not in ended.out


def test_the_table_in_a_file_is_plain(clips, road, run_vadis):
    run_vadis("classify", "clips/a.mp4", "-f", "table", "-o", "out.txt")
    assert "AAAABBBB" in (clips.parent / "out.txt").read_text()


@pytest.mark.parametrize(
    ("name", "output", "expected"),
    [
        ("auto", "out.srt", "srt"),
        ("auto", "OUT.CSV", "csv"),
        ("auto", "out.ndjson", "jsonl"),
        ("auto", "out", "jsonl"),
        ("table", "out.txt", "table"),
        ("jsonl", "out.log", "jsonl"),
        ("auto", None, "jsonl"),
        ("vtt", "out.srt", "vtt"),
    ],
)
def test_auto_goes_by_the_extension(tmp_path, name, output, expected):
    assert choose_format(name, tmp_path / output if output else None, None).name == expected


def test_auto_is_a_table_on_a_terminal_only_without_another_place(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert choose_format("auto", None, None).name == "table"
    assert choose_format("auto", None, tmp_path).name == "jsonl"


def test_quiet_names_problems_only_and_verbose_names_all(clips, road, run_vadis):
    assert run_vadis("-q", "classify", "clips/a.mp4").err == ""
    assert [line.split(", only")[0] for line in run_vadis("-q", "classify", "clips").err.splitlines()] == [
        "clips/bad.mp4: no frame can be decoded",
        "clips/cut.mp4: partial",
        "2 ok, 1 partial, 1 failed",
    ]
    assert "clips/a.mp4: 5.1 s" in run_vadis("-v", "classify", "clips").err


def test_a_bug_ends_the_run_but_loses_no_record_and_shows_no_traceback(clips, road, run_vadis, monkeypatch):
    (clips / "bug.mp4").write_bytes(b"x")
    ended = run_vadis("classify", "clips", "-o", "out.json")
    assert ended.code == 1
    assert [record["path"] for record in json.loads((clips.parent / "out.incomplete.json").read_text())] == [
        "clips/a.mp4",
        "clips/bad.mp4",
    ]
    assert "Traceback" not in ended.err
    assert "RuntimeError: \\x1b[2Ja bug" in ended.err
    assert ended.err.splitlines()[-1] == "1 ok, 1 failed, 3 not done"
    for debugged in (
        run_vadis("--debug", "classify", "clips/bug.mp4"),
        run_vadis("classify", "--debug", "clips/bug.mp4"),
    ):
        assert "Traceback" in debugged.err
    monkeypatch.setenv("VADIS_DEBUG", "1")
    assert "Traceback" in run_vadis("classify", "clips/bug.mp4").err


def test_what_the_operating_system_refuses_is_no_bug(clips, road, run_vadis):
    (clips / "full.mp4").write_bytes(b"x")
    ended = run_vadis("classify", "clips/full.mp4")
    assert ended.code == 1
    assert "No space left on device (clips/full.mp4)" in ended.err


@pytest.mark.parametrize("arguments", [["-o", "/dev/full"], ["-f", "csv", "-o", "/dev/full"]])
def test_a_full_disk_ends_the_run_with_its_reason(clips, road, run_vadis, arguments):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    ended = run_vadis("classify", "clips", *arguments)
    assert ended.code == 1
    assert "/dev/full" in ended.err and "No space left on device" in ended.err
    assert ended.err.splitlines()[-1] == "0 ok, 4 not done"


def test_a_flow_stream_that_the_model_lacks_is_wrong_use(clips, road, run_vadis, monkeypatch):
    from tests.fake_road import FakeCard, FakeModel

    def load_model(*args, streams=None, **options):
        model = FakeModel(FakeCard(streams=("rgb",)))
        return model if streams is None else model.only(("rgb", "flow") if streams == "both" else (streams,))

    monkeypatch.setattr("vadis.weights.load.load_model", load_model)
    for streams in ("flow", "both"):
        ended = run_vadis("classify", "clips/a.mp4", "--streams", streams)
        assert (ended.code, "flow" in ended.err, ended.out) == (2, True, "")
    assert run_vadis("classify", "clips/a.mp4").code == 0


def test_the_fake_records_are_like_real_ones():
    assert set(result("a.mp4").to_json()) == set(vadis.VideoResult("a.mp4", "ok").to_json())


def test_a_part_goes_to_the_road_and_into_the_journal(clips, road, run_vadis):
    command = ("classify", "clips", "-o", "out.jsonl")
    assert run_vadis(*command, "--start", "0:01.5", "--end", "1:00:00").code == 3
    assert road.options["part"] == (1.5, 3600.0)
    assert run_vadis(*command, "--start", "1.5", "--end", "3600").code == 3
    for other, said in (((), "1.5"), (("--start", "1.5"), "3600.0"), (("--start", "2", "--end", "3600"), "1.5")):
        ended = run_vadis(*command, *other)
        assert ended.code == 2 and said in ended.err


@pytest.mark.parametrize(
    "times", [("--start", "soon"), ("--end", "-1"), ("--start", "2", "--end", "1"), ("--end", "0")]
)
def test_a_part_that_cannot_be_is_wrong_use(clips, road, run_vadis, times):
    ended = run_vadis("classify", "clips", *times)
    assert (ended.code, road.calls) == (2, []) and "Traceback" not in ended.err
