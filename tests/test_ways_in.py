"""The Dockerfile, whose steps ``.ci/fresh-machine docker`` runs, and CITATION.cff."""

import re

from tests.pages import ROOT
from vadis.parsing import parse_toml

PROJECT = parse_toml((ROOT / "pyproject.toml").read_text())
STEPS = [line.split(maxsplit=1) for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]


def test_the_container_runs_as_nobody_special_and_keeps_what_it_fetched():
    words = dict(STEPS)
    assert words["FROM"].endswith("-slim")
    assert words["USER"] == "vadis" and words["VOLUME"] in words["ENV"].split("VADIS_CACHE=")
    assert words["ENTRYPOINT"] == '["vadis"]'
    assert any("useradd" in rest and "--owner vadis /cache" in rest for word, rest in STEPS if word == "RUN")


def test_every_step_of_it_is_one_that_the_script_knows():
    script = (ROOT / ".ci" / "fresh-machine").read_text()
    done = set(re.findall(r"^            (ARG|COPY|RUN)\) ", script, re.MULTILINE))
    assert {word for word, _ in STEPS} - done == {"FROM", "ENV", "VOLUME", "WORKDIR", "USER", "ENTRYPOINT", "CMD"}


def test_what_the_build_needs_is_in_the_context():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert kept == {"pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"], *wheel}


def test_the_citation_has_what_its_format_requires_and_the_paper():
    text = (ROOT / "CITATION.cff").read_text()
    values = dict(re.findall(r"^([a-z-]+):(?: *)(.*)$", text, re.MULTILINE))
    assert {"cff-version", "message", "title", "authors"} <= values.keys()
    assert (values["cff-version"], values["type"]) == ("1.2.0", "software")
    assert values["license"] == PROJECT["project"]["license"]
    assert re.search(r"^authors:\n  - (name|family-names): \S", text, re.MULTILINE)
    assert "doi: 10.1109/CVPR.2017.502" in text and "\t" not in text
