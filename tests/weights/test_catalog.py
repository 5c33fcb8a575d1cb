import json
from pathlib import Path

import pytest

from tests.weights.conftest import blob_id
from vadis.models import STREAM_CHANNELS
from vadis.weights.catalog import DEFAULT_MODEL, PUBLISHED_LISTS, SAMPLE, WEIGHTS

SHARED = Path(__file__).parents[2].parent / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared, with the published facts, is not here")
DEEPMINDS = {name: model for name, model in WEIGHTS.items() if name.startswith("i3d-")}  # the other is tested by itself
FILES = [file for model in DEEPMINDS.values() for file in model.files] + list(SAMPLE.values())


@pytest.mark.parametrize("model", DEEPMINDS.values(), ids=DEEPMINDS)
def test_rows_are_whole(model):
    assert model.checkpoints.keys() <= STREAM_CHANNELS.keys()
    assert model.labels in PUBLISHED_LISTS
    assert model.licence == "Apache-2.0"
    assert model.source == "https://github.com/google-deepmind/kinetics-i3d"
    for index, data in model.checkpoints.values():
        assert index.local.endswith(".index") and data.local.endswith(".data-00000-of-00001")
    if len(model.checkpoints) == 2:
        assert model.accuracy.keys() == {"rgb", "flow", "both"}


def test_every_file_has_its_own_place_and_comes_over_https():
    files = [file for model in WEIGHTS.values() for file in model.files] + list(SAMPLE.values())
    assert len({file.local for file in files}) == len(files)
    assert all(url.startswith("https://") for file in files for url in file.urls)
    assert all(len(file.git_blob) == 40 for file in FILES)
    assert all(any(file.identity.values()) for file in files)


def test_the_default_model_has_a_second_address_for_every_file():
    assert all(len(file.urls) == 2 for file in WEIGHTS[DEFAULT_MODEL].files)


@needs_shared
@pytest.mark.parametrize("file", [file for file in FILES if file.local.endswith(".index")], ids=lambda file: file.local)
def test_index_files_are_the_published_ones(file):
    content = (SHARED / "facts/deepmind" / file.local.replace("/", ".")).read_bytes()
    assert (file.size, file.git_blob) == (len(content), blob_id(content))


@needs_shared
def test_data_files_and_sample_are_the_published_ones():
    table = json.loads((SHARED / "facts/weights_table.json").read_text())
    facts = {row["path"]: row for row in table["files"] if row.get("repo") == "google-deepmind/kinetics-i3d"}
    for file in FILES:
        if not file.local.endswith(".index"):
            owner, repo, commit, path = file.urls[0].removeprefix("https://raw.githubusercontent.com/").split("/", 3)
            assert (f"{owner}/{repo}", commit) == ("google-deepmind/kinetics-i3d", table["pins"]["deepmind"])
            assert facts[path]["git_blob"] == file.git_blob
            assert facts[path].get("size_required_by_index") == file.size


@needs_shared
def test_accuracies_are_those_of_the_paper():
    paper = json.loads((SHARED / "facts/paper_tables.json").read_text())["table3"]
    top1, top5 = paper["Two-Stream I3D"], paper["Two-Stream I3D top-5"]
    for name, first in (("i3d-kinetics400-scratch", 0), ("i3d-kinetics400", 3)):
        for offset, stream in enumerate(("rgb", "flow", "both")):
            accuracy = WEIGHTS[name].accuracy[stream]
            assert accuracy == (top1[first + offset], top5[first + offset])


@needs_shared
@pytest.mark.parametrize("name", ["kinetics400", "kinetics600"])
def test_label_lists_are_the_published_ones(name):
    from vadis.weights.catalog import published_labels

    assert published_labels(name) == tuple((SHARED / f"facts/kinetics/{name}_labels.txt").read_text().splitlines())
