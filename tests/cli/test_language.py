"""The command line is one language: one spelling for one thing over all commands, and an example in every help."""

import re
import shlex
from collections import defaultdict
from collections.abc import Iterator

import pytest
import typer
from typer.core import TyperArgument

from vadis.cli import app

OTHER_WORDS = {
    "--model": {"weights", "checkpoint", "network", "net"},
    "--output": {"out", "dest", "destination", "target"},
    "--json": {"as-json", "format-json"},
    "--jobs": {"workers", "num-workers", "threads", "processes", "parallel"},
    "--overwrite": {"force", "replace", "yes", "clobber"},
    "--resume": {"continue", "restart", "go-on"},
    "--offline": {"no-network", "no-download", "local"},
    "--device": {"gpu", "cpu", "cuda", "accelerator"},
    "--from": {"init", "start-from", "pretrained"},
    "--quiet": {"silent"},
    "--verbose": {"loud"},
}
"""Spellings that would be a second one, by the first."""


def all_commands() -> Iterator[tuple[str, object]]:
    pending = [("", typer.main.get_command(app))]
    while pending:
        name, command = pending.pop()
        yield name, command
        pending += [(f"{name} {each}".strip(), below) for each, below in getattr(command, "commands", {}).items()]


COMMANDS = dict(all_commands())


def test_one_thing_has_one_spelling_and_one_spelling_means_one_thing() -> None:
    spellings, meanings, values, shorts = (defaultdict(set) for _ in range(4))
    for command in COMMANDS.values():
        for param in command.params:
            if isinstance(param, TyperArgument):
                continue
            (long,) = [word for word in param.opts if word.startswith("--")]
            short = [word for word in param.opts if word != long]
            assert len(short) <= 1, param.opts
            spellings[param.name].add(long)
            meanings[long].add(param.name)
            shorts[long].add(tuple(short))
            for each in short:
                meanings[each].add(param.name)
            if long != "--format":  # results have other formats than places
                values[long].add("a place" if param.metavar in ("FILE", "DIR", "DIR|FILE") else param.metavar or "")
    for found in (spellings, meanings, shorts, values):
        assert {name: each for name, each in found.items() if len(each) > 1} == {}


def test_no_option_is_another_word_for_one_that_there_is() -> None:
    there = {word for command in COMMANDS.values() for param in command.params for word in param.opts}
    assert set(OTHER_WORDS) <= there
    second = {f"--{word}" for words in OTHER_WORDS.values() for word in words}
    assert second & there == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_examples_that_can_be_parsed_and_no_noise(run_vadis, monkeypatch, name: str) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    text = run_vadis(*name.split(), "--help").out
    assert not re.search(r"<\w+|\[x?[<>]|\{|--help +-h|BOOLEAN", text.partition("Examples")[0])
    examples = [each for each in re.findall(r"`(vadis [^`]+)`", COMMANDS[name].epilog or "") if "…" not in each]
    assert examples
    for example in examples:
        words = re.split(r" [|>] ", example)[0]
        assert run_parser(shlex.split(words)[1:]), example


def run_parser(words: list[str]) -> bool:
    """Have the options of a command line read, without running it."""
    command = COMMANDS[""]
    words = [word for word in words if word not in ("-q", "-v", "--help")]
    while getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command.make_context("vadis", words) is not None


def test_the_name_of_a_video_is_answered_by_the_command_for_it(run_vadis, tmp_path) -> None:
    for word in ("holiday.mp4", tmp_path):
        ended = run_vadis(word)
        assert ended.code == 2 and f"vadis classify {word}" in ended.err
    assert "vadis classify" not in run_vadis("holiday").err


def test_numbers_out_of_bounds_are_refused(run_vadis) -> None:
    for words in (("--segment", "0.1"), ("--threshold", "1.5"), ("--threshold", "nan"), ("--jobs", "-1")):
        ended = run_vadis("classify", "a.mp4", *words)
        assert ended.code == 2 and words[0] in ended.err
