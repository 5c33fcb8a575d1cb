"""The table for people: what it says, how wide it is, and what it does without colour, Unicode or a short video."""

import io
import re
from dataclasses import replace
from fractions import Fraction
from itertools import groupby

import pytest
from rich.cells import cell_len
from rich.console import Console

from vadis.cli.terminal import file_console
from vadis.cli.timeline import MAX_STRETCHES, lines, table
from vadis.errors import advice
from vadis.results import NO_CLEAR_LABEL, Label, Part, Piece, Segment, VideoResult


def video(leaders, segment_seconds=2.56, **changes):
    """A video of equal steps in each of which one of ``leaders`` holds; None: no label is clear."""
    timeline, steps = [], enumerate(leaders)
    for leader, run in groupby(steps, key=lambda step: step[1]):
        numbers = [number for number, _ in run]
        start, end = numbers[0] * segment_seconds, (numbers[-1] + 1) * segment_seconds
        timeline.append(Piece(start, end, leader or NO_CLEAR_LABEL, 0.9))
    values = {
        "status": "ok",
        "duration_seconds": segment_seconds * len(leaders),
        "source_fps": Fraction(30000, 1001),
        "source_size": (340, 256),
        "labels": (Label("arm wrestling", 0.61), Label("hurling", 0.22), Label("waving", 0.001)),
        "timeline": tuple(timeline),
    }
    return VideoResult("clips/a.mp4", **{**values, **changes})


def drawn(*results, console=None, **options):
    return "".join(table(results, console or file_console(), **options))


def terminal(width=80, **options):
    return Console(
        file=io.StringIO(), force_terminal=True, width=width, markup=False, emoji=False, highlight=False, **options
    )


def test_a_short_video_reads_like_this():
    leaders = ["arm wrestling"] * 4 + ["hurling"] * 3 + ["riding a bike"]
    assert drawn(video(leaders)).splitlines() == [
        "clips/a.mp4",
        "20.5 s, 340×256, 29.97 fps",
        "",
        "   A   arm wrestling                        61 %  ████████████▎",
        "   B   hurling                              22 %  ████▍",
        "",
        "       " + "A" * 36 + "B" * 27 + "C" * 9,
        "       0:00              0:05             0:10              0:15",
        "       C riding a bike",
        "",
        "  0:00–0:10   A   arm wrestling                        90 %",
        "  0:10–0:18   B   hurling                              90 %",
        "  0:18–0:20   C   riding a bike                        90 %",
        "",
    ]


def test_the_strip_of_a_part_is_of_the_part_alone():
    pieces = (Piece(3600.0, 3605.0, "arm wrestling", 0.9), Piece(3605.0, 3610.0, "hurling", 0.8))
    found = drawn(video([], timeline=pieces, duration_seconds=10.0, part=Part(3600.0, 3610.0))).splitlines()
    assert "from 1:00:00 to 1:00:10" in found[1]
    assert found[6].strip() == "A" * 36 + "B" * 36
    assert found[7].split() == ["1:00:00", "1:00:02", "1:00:04", "1:00:06", "1:00:08"]
    line = "".join(lines([video([], timeline=pieces, labels=(Label("hurling", 0.5),), part=Part(3600.0))], terminal()))
    assert "▁▁▁▁▁█████" in line


@pytest.mark.parametrize("width", [40, 80, 140, 200])
def test_nothing_but_names_is_wider_than_the_terminal(width):
    text = drawn(
        video(["arm wrestling", "hurling", "riding a bike"] * 9), console=Console(file=io.StringIO(), width=width)
    )
    longest = max(cell_len(line) for line in text.splitlines())
    assert longest <= max(width, 72)


def test_without_colour_every_block_carries_its_letter():
    plain = drawn(video(["arm wrestling", "hurling"]), console=terminal(no_color=True))
    assert re.search("A{36}B{36}", plain)
    assert "\x1b[48" not in plain


def test_with_colour_one_letter_of_a_block_is_seen():
    coloured = drawn(video(["arm wrestling", "hurling"]), console=terminal(color_system="truecolor"))
    ink, same = "\x1b[38;2;255;255;255;48;2;0;114;178m", "\x1b[38;2;0;114;178;48;2;0;114;178m"
    assert f"{ink}A\x1b[0m{same}{'A' * 35}\x1b[0m" in coloured


def test_an_ascii_terminal_gets_ascii():
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"), width=80)
    text = drawn(video(["arm wrestling", "hurling"]), console=console)
    assert text.isascii()
    assert "####" in text


def test_an_hour_is_binned_and_its_list_limited_to_the_longest():
    stretches = [name for i in range(70) for name in [["arm wrestling", "hurling"][i % 2]] * (20 if i % 5 else 21)]
    lines = drawn(video(stretches)).splitlines()
    listed = [line for line in lines if re.match(r" +[\d:]+–[\d:]+ ", line)]
    assert len(listed) == MAX_STRETCHES
    assert [line.split("–")[0] for line in listed] == sorted((line.split("–")[0] for line in listed), key=seconds)
    assert "  and 58 shorter; -v shows them all" in lines
    assert "and 58 shorter" not in drawn(video(stretches), all_stretches=True)


def seconds(clock):
    total = 0
    for part in clock.strip().split(":"):
        total = 60 * total + int(part)
    return total


def test_time_under_no_label_stays_empty():
    text = drawn(video(["arm wrestling", None, "arm wrestling", None]))
    assert "A" * 18 + "." * 18 + "A" * 18 + "." * 18 in text
    assert [line.split()[1:] for line in text.splitlines() if "–" in line and "no clear" in line] == [
        ["no", "clear", "label"]
    ] * 2
    assert text.count("%") == 4


def test_no_clear_label_is_a_headline_without_a_percentage():
    lines = drawn(video([None], labels=(Label(NO_CLEAR_LABEL, 1.0), Label("waving", 0.1)))).splitlines()
    assert lines[3].strip() == "no clear label"
    assert "10 %" in lines[4]


def test_short_stretches_show_tenths():
    assert "0:00.3–0:00.6   B   hurling" in drawn(video(["arm wrestling", "hurling"], segment_seconds=0.32))


def test_one_label_throughout_needs_no_timeline():
    assert "–" not in drawn(video(["arm wrestling"]))


def test_more_labels_than_letters_still_draw():
    names = [f"label {number}" for number in range(40)]
    text = drawn(video([name for name in names for _ in range(2)]))
    assert "ZZ" in text and "**" in text


def test_wide_and_long_labels_keep_the_columns():
    labels = (Label("腕相撲", 0.5), Label("x" * 90, 0.25))
    lines = [line for line in drawn(video(["腕相撲"], labels=labels)).splitlines() if "%" in line]
    assert len({cell_len(line[: line.index("%")]) for line in lines}) == 1


def test_what_is_out_of_the_ordinary_is_said_in_words():
    text = drawn(
        video(
            ["hurling"],
            status="partial",
            frames_decoded=120,
            frames_declared=250,
            flags=("ends_early", "rotated", "new_flag"),
        )
    )
    assert re.search(r"^partial: .*\b120\b.*\b250\b", text, re.MULTILINE)
    assert text.count("note: ") == 3
    assert "note: new flag" in text
    assert "partial: " in drawn(video(["hurling"], status="partial"))


def test_a_failed_video_says_why_and_threshold_says_so():
    failed = VideoResult("[red]b\x1b[2J.mp4", "error", error_code="empty_file", error_message="the file is empty")
    hint = advice("empty_file")
    assert drawn(failed) == f"[red]b\\x1b[2J.mp4\nnot labelled: the file is empty\nhint: {hint}\n\n"
    assert "no label is above the threshold" in drawn(video([None, None], labels=()))


def test_the_model_is_named_and_a_single_frame_has_a_length():
    text = drawn(video(["waving"], segment_seconds=0.04, model="i3d-kinetics400-rgb"))
    assert text.splitlines()[1] == "0.04 s, 340×256, 29.97 fps, labelled by i3d-kinetics400-rgb"


def test_a_folder_has_a_line_for_each_video():
    films = [
        video(["arm wrestling"] * 5 + [None] * 5),
        replace(video(["arm wrestling"]), path="a" * 90 + "/b.mp4"),
        VideoResult("c.mp4", "error", error_code="no_frames", error_message="no frame can be decoded"),
    ]
    for width in (80, 140):
        text = "".join(lines(films, terminal(width, color_system=None)))
        first, second, third = text.splitlines()
        assert first.split()[:5] == ["clips/a.mp4", "0:26", "arm", "wrestling", "61"] and first.endswith("█████▁▁▁▁▁")
        assert "/b.mp4" in second and len(second) <= width
        assert "not labelled" in third
    long = video(["a"], labels=(Label("catching or throwing softball", 0.5),))
    assert "catching or throwing softball" in "".join(lines([long], terminal(140, color_system=None)))


def test_letters_come_in_the_order_of_time():
    text = drawn(video(["riding a bike", "hurling", "arm wrestling", "arm wrestling"]))
    assert [text.splitlines()[line].split()[0] for line in (3, 4)] == ["C", "B"]


def test_a_label_that_holds_for_a_part_is_shown_with_its_time():
    part = video(["hurling"] * 8, segments=(Segment(0, 20.48, ()),), timeline=(Piece(10.24, 15.36, "hurling", 0.9),))
    assert "." * 36 + "A" * 18 + "." * 18 in drawn(part)
    assert "0:10–0:15   A   hurling" in drawn(part)
