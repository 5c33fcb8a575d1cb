"""The journal: what is written stays, what is torn is done again, and nothing foreign is touched."""

import json
import os
import subprocess
import sys

import pytest

from tests.fake_road import result
from tests.matching import containing
from vadis.batch import Entry, open_journal
from vadis.errors import OutputLockedError, UsageError, VadisError
from vadis.results import SCHEMA, VideoResult

SETTINGS = {"model": "fake", "top_k": 5}
VERSIONS = {"vadis": "0.1.0"}


def stamped(path, size=3, mtime="1700000000.000000001"):
    return VideoResult(**{**result(path).__dict__, "source_bytes": size, "source_mtime": mtime})


def written(path, *results, settings=SETTINGS, overwrite=False):
    """A run that appends ``results`` to the journal and is complete."""
    with open_journal(path, overwrite=overwrite) as journal:
        journal.begin(settings, VERSIONS)
        for each in results:
            journal.append(each)
        journal.finish()
    return path


def remembered(path):
    """What a run finds in the journal: a record's path and its entry."""
    with open_journal(path) as journal:
        return list(journal.entries.items())


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_header_then_a_record_per_line(tmp_path):
    path = written(tmp_path / "out.jsonl", stamped("a.mp4"), stamped("bad.mp4"))
    header, first, second = lines(path)
    assert header == {"schema": SCHEMA, "run": {"settings": SETTINGS, "versions": VERSIONS}}
    assert [first["path"], second["path"]] == ["a.mp4", "bad.mp4"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.jsonl"], "no lock is left"


@pytest.mark.parametrize(
    "name", ["a.mp4", "bad.mp4", "cut.mp4", 'q"\\\n\u202e.mp4', os.fsdecode(b"\xff\x00"[:1]) + ".mp4"]
)
def test_entries_are_what_the_records_say_whether_read_fast_or_slowly(tmp_path, name):
    path = written(tmp_path / "out.jsonl", stamped(name))
    ((found, fast),) = remembered(path)
    record = json.loads(path.read_bytes().splitlines()[1])
    path.write_text("\n".join(json.dumps(line, separators=(",", ":")) for line in lines(path)) + "\n")
    ((again, slow),) = remembered(path)
    assert found == again == name
    code = record["error"]["code"] if record["status"] == "error" else None
    entry = Entry(3, "1700000000.000000001", record["status"], code, record.get("duration_seconds"))
    assert fast._replace(start=0) == slow._replace(start=0) == entry


def test_other_settings_are_refused_with_the_difference(tmp_path):
    path = written(tmp_path / "out.jsonl", stamped("a.mp4"))
    before = path.read_bytes()
    with pytest.raises(UsageError, match=containing("top_k", 5, 3, "flip", "None", "True")):
        written(path, settings={"model": "fake", "top_k": 3, "flip": True})
    assert path.read_bytes() == before
    written(path, settings={"model": "other"}, overwrite=True)
    assert lines(path) == [{"schema": SCHEMA, "run": {"settings": {"model": "other"}, "versions": VERSIONS}}]


@pytest.mark.slow
def test_a_cut_at_any_byte_costs_at_most_the_record_it_hits(tmp_path):
    path = written(tmp_path / "out.jsonl", *(stamped(f"{number}.mp4") for number in range(3)))
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with open_journal(path) as journal:
            journal.begin(SETTINGS, VERSIONS)
            kept = list(journal.entries)
            assert len(kept) == max(0, whole[:cut].count(b"\n") - 1)
            for number in range(len(kept), 3):
                journal.append(stamped(f"{number}.mp4"))
        assert path.read_bytes() == whole


def test_lines_that_a_power_cut_left_as_zeros_are_done_again(tmp_path):
    path = written(tmp_path / "out.jsonl", *(stamped(f"{number}.mp4") for number in range(3)))
    whole = path.read_bytes().splitlines(keepends=True)
    damaged = whole[2][:40] + bytes(len(whole[2]) - 41) + b"\n"
    path.write_bytes(b"".join([*whole[:2], damaged, whole[3]]))
    with open_journal(path) as journal:
        journal.begin(SETTINGS, VERSIONS)
        assert journal.num_damaged == 1
        assert "1.mp4" not in journal.entries
        journal.append(stamped("1.mp4"))
        journal.finish()
    assert sorted(path.read_bytes().splitlines(keepends=True)) == sorted(whole)


def test_the_last_record_of_an_input_takes_the_place_of_its_first(tmp_path):
    path = written(tmp_path / "out.jsonl", *(stamped(f"{number}.mp4") for number in range(3)))
    with open_journal(path) as journal:
        journal.begin(SETTINGS, VERSIONS)
        journal.append(stamped("0.mp4", size=9))
        assert [line["source_bytes"] for line in lines(path)[1:] if line["path"] == "0.mp4"] == [3, 9]
        assert [found.source_bytes for found in journal.results({"0.mp4"})] == [9]
        journal.finish()
        assert [found.source_bytes for found in journal.results({"0.mp4", "1.mp4", "2.mp4"})] == [9, 3, 3]
    found = [(line["path"], line["source_bytes"]) for line in lines(path)[1:]]
    assert found == [("0.mp4", 9), ("1.mp4", 3), ("2.mp4", 3)]


@pytest.mark.parametrize("fault", [b"nan, nothing", b"[" * 700 + b"]" * 700])
def test_a_record_that_is_damaged_behind_its_beginning_is_told(tmp_path, fault):
    path = written(tmp_path / "out.jsonl", stamped("a.mp4"))
    content = path.read_bytes()
    path.write_bytes(content[:-2] + b', "more": ' + fault + b"}\n")
    with open_journal(path) as journal:
        journal.begin(SETTINGS, VERSIONS)
        assert journal.entries["a.mp4"].status == "ok"
        with pytest.raises(UsageError, match=containing("out.jsonl")):
            list(journal.results({"a.mp4"}))


FOREIGN = ["mine\n", '{"path": "a.mp4"}\n', "a letter without an end", '{"schema": 3}', '{"schema": 1, "run": {}}\n']


@pytest.mark.parametrize("content", FOREIGN)
def test_a_file_of_others_is_refused_and_stays(tmp_path, content):
    path = tmp_path / "out.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match=containing("out.jsonl")), open_journal(path):
        pass
    assert path.read_text() == content


def test_a_run_that_never_began_leaves_no_file(tmp_path):
    with open_journal(tmp_path / "out.jsonl"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out.jsonl").symlink_to(tmp_path / "disk" / "real.jsonl")
    for size in (3, 9):
        written(tmp_path / "out.jsonl", stamped("a.mp4", size=size))
    assert (tmp_path / "out.jsonl").is_symlink()
    assert [line["source_bytes"] for line in lines(tmp_path / "disk" / "real.jsonl")[1:]] == [9]


def test_a_results_file_that_was_removed_ends_the_run(tmp_path):
    path = tmp_path / "out.jsonl"
    with open_journal(path) as journal:
        journal.begin(SETTINGS, VERSIONS)
        path.unlink()
        with pytest.raises(VadisError, match=containing("out.jsonl")):
            journal.append(stamped("a.mp4"))


HOLDER = """
import sys, time
from pathlib import Path
from vadis.batch import open_journal
with open_journal(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_runs_never_write_one_file_and_a_killed_one_holds_nothing(tmp_path):
    path = tmp_path / "out.jsonl"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(OutputLockedError, match=containing(holder.pid)), open_journal(path):
        pass
    holder.kill()
    holder.wait()
    assert (tmp_path / "out.jsonl.lock").exists(), "it had no time to remove its lock"
    written(path, stamped("a.mp4"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.jsonl"]
    holder.stdout.close()


def test_results_are_read_again_from_where_they_are_once_others_are_taken_out(tmp_path):
    path = written(tmp_path / "out.jsonl", stamped("a.mp4"), stamped("b.mp4"))
    with open_journal(path) as journal:
        journal.begin(SETTINGS, VERSIONS)
        journal.append(stamped("a.mp4", size=9))
        journal.finish()
        assert list(journal.results({"a.mp4", "b.mp4"})) == [stamped("a.mp4", size=9), stamped("b.mp4")]
