import json

import pytest

from tests.matching import containing
from vadis.batch import parts as parts_module
from vadis.batch.parts import open_parts
from vadis.batch.results_file import LastResults
from vadis.errors import OutputLockedError, UsageError
from vadis.results import VideoResult

SETTINGS, VERSIONS = {"top_k": 5}, {"vadis": "1"}


def failed(name: str, size: int = 1) -> VideoResult:
    return VideoResult(name, "error", size, "1.5", error_code="no_frames", error_message="none")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(parts_module, "PART_RECORDS", 3)


def write(folder, *results, overwrite=False) -> None:
    with open_parts(folder) as parts:
        parts.begin(SETTINGS, VERSIONS, overwrite=overwrite)
        for result in results:
            parts.append(result)
        parts.finish()


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_part_holds_so_many_records_and_the_next_run_goes_on_in_it(tmp_path):
    write(tmp_path, *(failed(f"{number}.mp4") for number in range(4)))
    assert names(tmp_path) == ["part-00001.jsonl", "part-00002.jsonl"]
    write(tmp_path, failed("4.mp4"), failed("5.mp4"), failed("6.mp4"))
    assert [len(path.read_text().splitlines()) for path in sorted(tmp_path.iterdir())] == [1 + 3, 1 + 3, 1 + 1]
    assert len(LastResults(sorted(tmp_path.iterdir())).paths) == 7
    headers = {path.read_text().splitlines()[0] for path in tmp_path.iterdir()}
    assert [json.loads(header)["run"]["settings"] for header in headers] == [SETTINGS]


def test_what_is_there_is_known_and_the_last_counts(tmp_path):
    write(tmp_path, *(failed(f"{number}.mp4") for number in range(3)), failed("0.mp4", size=2))
    with open_parts(tmp_path) as parts:
        assert parts.begin(SETTINGS, {"vadis": "2"}, overwrite=False) == VERSIONS
        assert parts.has("1.mp4") and not parts.has("9.mp4")
        assert parts.entry("0.mp4", (1, "1.5")) is None and parts.entry("0.mp4", (2, "1.5")) is not None
    last = {result.path: result.source_bytes for result in LastResults(sorted(tmp_path.iterdir()))}
    assert last == {"0.mp4": 2, "1.mp4": 1, "2.mp4": 1}


def test_a_torn_last_line_is_cut_off(tmp_path):
    write(tmp_path, failed("a.mp4"))
    with (tmp_path / "part-00001.jsonl").open("a") as file:
        file.write('{"schema": 1, "pa')
    write(tmp_path, failed("b.mp4"))
    assert LastResults([tmp_path / "part-00001.jsonl"]).paths == ("a.mp4", "b.mp4")


def test_other_settings_other_files_and_other_runs_are_refused(tmp_path):
    write(tmp_path, failed("a.mp4"))
    with open_parts(tmp_path) as parts:
        with pytest.raises(UsageError, match=containing("top_k", 5, 6)):
            parts.begin({"top_k": 6}, VERSIONS, overwrite=False)
        with pytest.raises(OutputLockedError), open_parts(tmp_path):
            pass
    write(tmp_path, failed("b.mp4"), overwrite=True)
    assert LastResults([tmp_path / "part-00001.jsonl"]).paths == ("b.mp4",)
    (tmp_path / "part-00001.jsonl").write_text("something else\n")
    with pytest.raises(UsageError, match=containing("part-00001.jsonl")):
        write(tmp_path, failed("c.mp4"))
