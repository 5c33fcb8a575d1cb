"""Answers on the disk: torn, damaged, foreign, locked, on a full disk."""

import json
import multiprocessing
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.matching import containing
from vadis.errors import OutputLockedError, UsageError
from vadis.evaluation.predictions import Answer, AnswerFile, discard_of_other_model

SETTINGS = {"model": "a", "split": 1, "classes": ["run", "jump", "sit"]}


def said(number: int, start: float | None = None) -> Answer:
    return Answer(f"{number}.mp4", "run", {"rgb": np.array([number, 0.5, 1 / 3], np.float32)}, None, start)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with three answers, closed."""
    file = AnswerFile(tmp_path / "answers.jsonl", SETTINGS)
    for number in range(3):
        file.append(said(number))
    file.close()
    return tmp_path / "answers.jsonl"


def reopened(path: Path, settings: dict[str, object] = SETTINGS) -> dict[str, Answer]:
    file = AnswerFile(path, settings)
    file.close()
    return {answer.path: answer for answer in file.answers.values()}


def test_what_append_gives_is_what_is_read_again(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "answers.jsonl", SETTINGS)
    kept = file.append(said(1))
    file.close()
    again = reopened(tmp_path / "answers.jsonl")["1.mp4"]
    assert kept.logits["rgb"].tobytes() == again.logits["rgb"].tobytes()
    np.testing.assert_allclose(again.logits["rgb"], said(1).logits["rgb"], rtol=1e-5)


def test_a_file_cut_anywhere_loses_one_answer_at_most(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        found = reopened(path)
        assert len(found) == max(0, whole[:length].count(b"\n") - 1)
        kept = path.read_bytes()
        assert whole.startswith(kept)
        assert kept.endswith(b"\n")


def test_a_foreign_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    for content in (
        b"notes without an end of line",
        b"[1]\n",
        b'{"settings": 3}\n{}\n',
        b"[" * 700 + b"]" * 700 + b"\n",
        b"\n",
        b"\xff\x00\n",
    ):
        other = tmp_path / "other.jsonl"
        other.write_bytes(content)
        with pytest.raises(UsageError, match=containing("other.jsonl")):
            AnswerFile(other, SETTINGS)
        assert other.read_bytes() == content


@pytest.mark.parametrize(
    "line",
    [
        b"\x00\x00\x00",
        b"[]",
        b'{"path": "x"}',
        b"[" * 700 + b"]" * 700,
        b'{"path": "x", "label": "run", "logits": 5}',
        b'{"path": "x", "label": "run", "logits": {"rgb": [1, 2]}}',
        b'{"path": "x", "label": "run", "logits": {"rgb": [1, 2, NaN]}}',
    ],
)
def test_a_damaged_line_is_named_and_nothing_is_changed(path: Path, line: bytes) -> None:
    header, first, *others = path.read_bytes().splitlines()
    content = b"\n".join([header, first, line, *others, b""])
    path.write_bytes(content)
    with pytest.raises(UsageError, match=containing("line 3")):
        AnswerFile(path, SETTINGS)
    assert path.read_bytes() == content


def test_answers_of_other_settings_are_refused(path: Path) -> None:
    with pytest.raises(UsageError, match=containing("split", 1, 2)):
        AnswerFile(path, {**SETTINGS, "split": 2})
    with pytest.raises(UsageError, match=containing("part", "None", "val")):
        AnswerFile(path, {**SETTINGS, "part": "val"})
    with pytest.raises(UsageError, match=containing("model", "a", "None")):
        AnswerFile(path, {key: value for key, value in SETTINGS.items() if key != "model"})
    with pytest.raises(UsageError, match=containing("classes")):
        AnswerFile(path, {**SETTINGS, "classes": ["x", "y", "z"]})


def test_answers_of_a_model_that_was_replaced_are_discarded_and_no_others(path: Path) -> None:
    for other in ({**SETTINGS, "split": 2, "model_sha256": "1"}, SETTINGS):
        discard_of_other_model(path, other)
        assert len(reopened(path)) == 3
    discard_of_other_model(path, {**SETTINGS, "model_sha256": "1"})
    assert not path.exists()
    discard_of_other_model(path, SETTINGS)


def test_parts_of_one_file_are_kept_apart(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "answers.jsonl", SETTINGS)
    file.append(said(1, start=0.0))
    file.append(said(1, start=10.0))
    assert len(file.answers) == 2


def test_of_one_video_the_last_answer_counts(path: Path) -> None:
    with path.open("a") as file:
        file.write(json.dumps(Answer("1.mp4", "run", {}, "io_error: again").to_json()) + "\n")
    assert reopened(path)["1.mp4"].error == "io_error: again"


def _open_elsewhere(path: Path, ended: "multiprocessing.Queue[str]") -> None:
    try:
        AnswerFile(path, SETTINGS)
        ended.put("opened")
    except OutputLockedError as error:
        ended.put(error.message)


def test_another_process_is_kept_out_until_this_one_is_done(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ended = context.Queue()
    file = AnswerFile(path, SETTINGS)
    for _ in range(2):
        other = context.Process(target=_open_elsewhere, args=(path, ended))
        other.start()
        said_there = ended.get(timeout=20)
        other.join()
        if file is not None:
            assert str(path.parent) in said_there
            file.append(said(7))
        else:
            assert said_there == "opened"
        file = None  # which lets go of it


@contextmanager
def nearly_full(path: Path) -> Iterator[None]:
    """No file may be 20 bytes longer than ``path`` is. Not a fixture, whose limit pytest's own log would meet."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_leaves_the_file_as_it_was(path: Path) -> None:
    content = path.read_bytes()
    file = AnswerFile(path, SETTINGS)
    with nearly_full(path), pytest.raises(OSError, match="File too large"):
        file.append(said(9))
    assert path.read_bytes() == content
    assert "9.mp4" not in {answer.path for answer in file.answers.values()}


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=containing(tmp_path)):
        AnswerFile(tmp_path / "file" / "answers.jsonl", SETTINGS)
    (tmp_path / "answers.jsonl").mkdir()
    with pytest.raises(UsageError, match=containing(tmp_path)):
        AnswerFile(tmp_path / "answers.jsonl", SETTINGS)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "answers.jsonl", SETTINGS)
    kept = file.append(Answer("a\udcff.mp4", "run", {}, "empty_file: no bytes"))
    assert kept.key in file.answers
    assert kept.path == "a\\xff.mp4"
