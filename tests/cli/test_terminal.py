"""What reaches a terminal: 200 nasty names on a pseudo-terminal, and not one control byte of theirs."""

import errno
import json
import os
import random
import re
import subprocess
import sys
import unicodedata

import pytest

from tests.pseudo_terminal import ROOT, on_a_terminal
from vadis.cli import terminal
from vadis.cli.signals import Interrupted
from vadis.errors import UsageError, VadisError, VideoError, WeightsError, advice
from vadis.inference.predict import Sliding
from vadis.models import ModelCard
from vadis.results import path_of
from vadis.video.sources import find_videos

PIECES = [
    *("\x1b[2J", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\", "\x07", "\x08", "\r", "\n", "\t", "\x7f"),
    *("\x9b31m", "\x85", "\u2028", "\u2029", "\u202e", "\u2066", "\u200b", "\u200d", "\ufeff", "\u00ad", "\U000e0041"),
    *("[red]", "[/red]", "[/foo]", "[link=http://x]", ":smile:", "%s", "{0}", "$(reboot)", "`id`", "\\", "'", '"', " "),
    *("é", "e\u0301", "東京", "👩\u200d🚀", "\udcff", "\udc80\udc9b", "-rf", "a:b", "x..", "ملف"),
]


def nasty_names(count, seed=0):
    """Different paths of up to eight pieces, all of them legal."""
    rng = random.Random(seed)
    names = {f"{''.join(rng.choices(PIECES, k=rng.randint(1, 8)))}{number}.mp4" for number in range(count)}
    assert len(names) == count
    return sorted(names, key=os.fsencode)


def own_controls(text):
    """``text`` without the escapes that a table and its progress bar need: colours, the cursor, line ends."""
    return re.sub(r"\x1b\[([0-9;]*m|\?25[lh]|[0-9]*[AK]|2K)|\r", "", text)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["table", "csv", "srt"])
def test_nasty_names_reach_a_terminal_harmlessly(tmp_path, form):
    names = nasty_names(200) if form == "table" else nasty_names(20, seed=1)
    for name in [*names, "bad[/foo]\x1b[2J.mp4"]:
        path = tmp_path / "clips" / name  # [/red] makes a folder
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not looked at")
    inputs = tmp_path / "clips" if form != "srt" else tmp_path / "clips" / names[0]
    text, code = on_a_terminal(sys.executable, "-m", "tests.fake_road", "classify", "-f", form, inputs)
    assert code in (0, 3), text
    assert "Traceback" not in text
    left = {c for c in own_controls(text) if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert left == set()
    assert "\x1b]" not in text and "\x1b[2J" not in text
    if form == "table":
        assert text.count("arm wrestling") == 200, "a line for each"
        assert "200 ok, 1 failed" in text
        assert "[link=http:/x]" in text


@pytest.mark.slow
def test_every_nasty_name_comes_back_byte_for_byte(tmp_path):
    names = nasty_names(200)
    for name in names:
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clips" / name).write_bytes(b"not looked at")
    out = tmp_path / "out.jsonl"
    text, code = on_a_terminal(sys.executable, "-m", "tests.fake_road", "classify", tmp_path / "clips", "-o", out)
    assert (code, "200 ok" in text, "Traceback" in text) == (0, True, False), text
    lines = out.read_bytes().splitlines()[1:]
    assert all(line.isascii() for line in lines)
    found = [os.fsencode(path_of(json.loads(line))) for line in lines]
    assert sorted(found) == sorted(os.fsencode(tmp_path / "clips" / name) for name in names)


@pytest.mark.slow
def test_a_table_and_colours_on_a_terminal_but_not_with_no_color(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"x")
    command = (sys.executable, "-m", "tests.fake_road", "classify", tmp_path / "a.mp4")
    assert re.search(r"\x1b\[[0-9;]*48;", on_a_terminal(*command)[0])
    monkeypatch.setenv("NO_COLOR", "1")
    plain = on_a_terminal(*command)[0]
    assert "AAAABBBB" in plain
    assert re.search(r"\x1b\[[0-9;]*(3[0-7]|4[0-8])", plain) is None


def test_messages_keep_their_lines_and_nothing_else(capsys):
    terminal.warn("two\nlines \x1b[2J [red]x[/red] :smile: \u202e \udcff")
    assert capsys.readouterr().err == "two\nlines \\x1b[2J [red]x[/red] :smile: \\u202e \\xff\n"


def test_long_messages_are_not_broken(capsys):
    terminal.warn("word " * 100)
    assert capsys.readouterr().err.count("\n") == 1


def test_what_to_do_next_is_said_once_for_each_kind_of_failure(capsys):
    terminal.settings.advised.clear()
    for path, code in (("a\x1b.mp4", "empty_file"), ("b.mp4", "empty_file"), ("c.mp4", "io_error"), ("d", "of_old")):
        terminal.warn_failed(path, code, "it fails")
    empty, failing = (advice(code) for code in ("empty_file", "io_error"))
    assert capsys.readouterr().err.splitlines() == [
        *("a\\x1b.mp4: it fails", f"hint: {empty}", "b.mp4: it fails", "c.mp4: it fails", f"hint: {failing}"),
        "d: it fails",
    ]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("m", "h"), 2),
        (WeightsError("m", "h"), 1),
        (VadisError("m", hint="h"), 1),
        (VideoError("io_error", "m"), 3),
        (Interrupted(2), 130),
        (KeyError("k"), 1),
        (MemoryError(), 1),
        (PermissionError(13, "Permission denied", "/x"), 1),
    ],
)
def test_every_ending_has_a_code_and_a_sentence(capsys, error, code):
    assert terminal.report_error(error) == code
    said = capsys.readouterr().err
    assert said and "Traceback" not in said
    assert "hint: " in said or isinstance(error, Interrupted)


def test_clock():
    assert [terminal.clock(s) for s in (0, 7.4, 59.6, 760, 3723)] == ["0:00", "0:07", "1:00", "12:40", "1:02:03"]


def test_downloads_are_drawn_on_a_terminal_only(capsys):
    with terminal.download_progress() as report:
        report("i3d", 10, None)
        report("i3d", 20, 100)
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_a_terminal_of_the_locale_c_gets_escapes_instead_of_an_error(tmp_path):
    """As cron and slim containers run it: no UTF-8 anywhere."""
    (tmp_path / "bad\u6771\u4eac.mp4").write_bytes(b"x")
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii",
    }
    for form in ("jsonl", "csv", "table"):
        command = [sys.executable, "-m", "tests.fake_road", "classify", "-f", form, tmp_path]
        done = subprocess.run(command, capture_output=True, env=environment, check=False, cwd=ROOT)
        assert (done.returncode, b"Traceback" in done.stderr) == (3, False), done.stderr
        assert (done.stdout + done.stderr).isascii()


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", ">&- <&-"])
def test_a_closed_stdout_is_refused_where_it_is_wanted(tmp_path, closed):
    (tmp_path / "a.mp4").write_bytes(b"not looked at")
    program = f"{sys.executable} -m tests.fake_road"
    for command in (f"classify {tmp_path}/a.mp4", "--version", "--help"):
        done = subprocess.run(f"{program} {command} {closed}", shell=True, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1
        if "2>" not in closed:
            assert "Traceback" not in done.stderr and "bug" not in done.stderr and "ignored" not in done.stderr
            assert os.strerror(errno.EBADF) in done.stderr and "hint" in done.stderr
    command = f"{program} classify {tmp_path}/a.mp4 -o {tmp_path}/out.jsonl {closed}"
    assert subprocess.run(command, shell=True, cwd=ROOT, capture_output=True).returncode == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError("libx.so: cannot allocate memory in static TLS block"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("can't start new thread"),
    ],
)
def test_memory_that_runs_out_anywhere_is_no_bug(capsys, error):
    assert terminal.report_error(error) == 1
    said = capsys.readouterr().err
    assert "not enough memory" in said and "ulimit -v" in said and "bug" not in said


CARD = ModelCard("m", "i3d", ("rgb",), ("a", "b"))


def test_arguments_of_python_are_shown_as_options(capsys):
    """The library speaks of its arguments, which commands do not have."""
    calls = (
        (lambda: Sliding(window=3).check(CARD), "--window"),
        (lambda: Sliding(segment_seconds=0.1).check(CARD), "--segment"),
        (lambda: Sliding(stride=3).check(CARD), "--window 64, --stride 16"),
        (lambda: find_videos([]), "--from-file"),
    )
    for call, option in calls:
        with pytest.raises(VadisError) as raised:
            call()
        assert "--" not in f"{raised.value.message} {raised.value.hint}"
        terminal.report_error(raised.value)
        shown = capsys.readouterr().err
        assert option in shown and "`" not in shown


@pytest.mark.parametrize(
    ("named", "shown"),
    [
        ("go on with `resume=True`", "go on with --resume"),
        ("leave it out with `with_sound=False`", "leave it out with --no-sound"),
        ("go on by `allow_inexact=True`", "go on by --allow-inexact-resume"),
        ('give `address="local"`', "give --ray local"),
        ("name one with `name`", "name one with --dataset"),
        ("or use `schedule=steps`", "or use --set schedule=steps"),
        ("give `shard=$ID/N`", "give --shard $ID/N"),
    ],
)
def test_arguments_that_are_flags_or_have_another_name(capsys, named, shown):
    terminal.report_error(VadisError("it cannot be", hint=named))
    assert capsys.readouterr().err == f"error: it cannot be\nhint: {shown}\n"


def test_commands_in_hints_are_shown_as_they_are(capsys):
    terminal.report_error(VadisError("it is not there", "`vadis weights download` fetches it"))
    assert "`vadis weights download`" in capsys.readouterr().err


def test_other_errors_stay_bugs(capsys):
    terminal.report_error(RuntimeError("shape mismatch"))
    terminal.report_error(ImportError("cannot import name x"))
    assert capsys.readouterr().err.count("--debug") == 2
