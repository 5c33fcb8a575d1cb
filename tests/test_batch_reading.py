"""Results read back: every field, from journals, plain jsonl and json, the last record of each input."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_road import result
from tests.matching import containing
from tests.test_batch_journal import stamped, written
from vadis.batch import LastResults, read_results, results_in
from vadis.errors import UsageError
from vadis.formats import FORMATS
from vadis.results import VideoResult


@pytest.mark.parametrize("name", ["a.mp4", "bad.mp4", "cut.mp4"])
def test_a_record_comes_back_as_it_was(name):
    assert VideoResult.from_json(stamped(name).to_json()) == stamped(name)


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_anything_else_is_a_value_error(values):
    with pytest.raises(ValueError):
        VideoResult.from_json(values)


@pytest.mark.parametrize("name", ["jsonl", "json"])
def test_both_formats_are_read(tmp_path, name):
    given = [result("a.mp4"), result("bad.mp4"), result("cut.mp4")]
    path = tmp_path / f"out.{name}"
    path.write_text("".join(FORMATS[name].write(given)))
    assert list(results_in(path)) == given


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("name", ["jsonl", "json"])
def test_results_that_a_shell_has_written_in_its_own_encoding(tmp_path, name, encoding):
    given = [result("a.mp4"), result("bad.mp4")]
    path = tmp_path / f"out.{name}"
    path.write_bytes("".join(FORMATS[name].write(given)).replace("\n", "\r\n").encode(encoding))
    assert list(results_in(path)) == given


def test_of_several_records_the_last_counts_across_files(tmp_path):
    first = written(tmp_path / "1.jsonl", stamped("a.mp4"), stamped("b.mp4"))
    second = written(tmp_path / "2.jsonl", stamped("b.mp4", size=9), stamped("c.mp4"))
    found = LastResults([first, second])
    assert found.paths == ("a.mp4", "b.mp4", "c.mp4")
    assert [(each.path, each.source_bytes) for each in found] == [("a.mp4", 3), ("b.mp4", 9), ("c.mp4", 3)]
    assert list(found) == list(found)


def test_a_torn_last_line_is_left_out_and_told(tmp_path, caplog):
    path = written(tmp_path / "out.jsonl", stamped("a.mp4"), stamped("b.mp4"))
    path.write_bytes(path.read_bytes()[:-9])
    found = LastResults([path])
    assert [each.path for each in found] == ["a.mp4"] == list(found.paths)
    assert len(caplog.messages) == 1 and "out.jsonl" in caplog.text


DEEP = "[" * 700 + "]" * 700  # Python 3.13 parses it, 3.11 only where nothing has called much


@pytest.mark.parametrize(
    "content",
    ["a letter\n", '{"path": "a.mp4"}\n', "[1, 2]", "[1", '"text"\n', "[]x", DEEP, f'{{"path": {DEEP}}}\n'],
)
def test_what_holds_no_records_is_refused(tmp_path, content):
    (tmp_path / "out.jsonl").write_text(content)
    with pytest.raises(UsageError, match=containing("out.jsonl")):
        LastResults([tmp_path / "out.jsonl"])
    with pytest.raises(UsageError, match=containing("gone.jsonl")):
        LastResults([tmp_path / "gone.jsonl"])


def test_a_record_by_another_program_is_read_all_the_same(tmp_path):
    values = stamped("a.mp4").to_json()
    (tmp_path / "out.jsonl").write_text("\n" + json.dumps(values, indent=None, sort_keys=True) + "\n\n")
    assert list(LastResults([tmp_path / "out.jsonl"])) == [stamped("a.mp4")]


def test_results_come_back_as_objects_from_files_and_folders(tmp_path, caplog):
    (tmp_path / "parts").mkdir()
    written(tmp_path / "parts" / "1.jsonl", stamped("a.mp4"), stamped("bad.mp4"))
    written(tmp_path / "parts" / "2.jsonl", stamped("cut.mp4"))
    more = tmp_path / "more.json"
    more.write_text("".join(FORMATS["json"].write([result("b.mp4")])))
    assert read_results(more) == [result("b.mp4")]
    found = [stamped("a.mp4"), stamped("bad.mp4"), stamped("cut.mp4"), result("b.mp4")]
    assert read_results(tmp_path / "parts", str(more)) == found
    part = tmp_path / "parts" / "2.jsonl"
    part.write_bytes(part.read_bytes()[:-9])
    assert read_results(tmp_path / "parts") == found[:2]
    assert [record.name for record in caplog.records] == ["vadis.batch"]


@pytest.mark.parametrize("name", ["", "gone.jsonl"])
def test_a_place_without_results_is_wrong_use(tmp_path, name):
    with pytest.raises(UsageError, match=containing(str(tmp_path / name))):
        read_results(tmp_path / name)


@pytest.mark.integration("pandas")
def test_a_table_of_several_videos_has_their_paths(tmp_path):
    import pandas

    path = written(tmp_path / "out.jsonl", stamped("a.mp4"), stamped("cut.mp4"), stamped("bad.mp4"))
    table = pandas.concat({each.path: each.to_pandas() for each in read_results(path)}, names=["path"])
    assert list(table.loc["cut.mp4"].columns) == ["start", "end", "rank", "label", "score"]
    assert list(table.reset_index("path")["path"]) == ["a.mp4"] * 2 + ["cut.mp4"] * 2


def test_what_can_be_read_once_alone_is_refused_rather_than_found_empty(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    content = "".join(FORMATS["jsonl"].write([result("a.mp4")]))
    pipe = os.open(tmp_path / "pipe", os.O_RDWR)  # of one who both reads and writes nobody waits for the other
    try:
        os.write(pipe, content.encode())
        with pytest.raises(UsageError, match=containing("pipe")):
            LastResults([tmp_path / "pipe"])
    finally:
        os.close(pipe)
    with pytest.raises(UsageError):
        read_results("-")
