"""What ``import vadis`` gives: exactly ``__all__``, and nothing heavy before it is used."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import vadis

ROOT = Path(__file__).parents[1]


def test_all_is_exactly_what_is_visible_and_sorted():
    public = {name: getattr(vadis, name) for name in vadis.__all__}
    visible = {
        name for name, value in vars(vadis).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert visible <= set(public)
    assert dir(vadis) == sorted(vadis.__all__) == vadis.__all__
    assert all(value is not None for value in public.values())


def test_names_come_from_the_rooms_they_are_said_to_live_in():
    from vadis import errors, flow, results
    from vadis.inference import classify
    from vadis.weights import load

    assert vadis.classify is classify.classify and vadis.classify_many is classify.classify_many
    assert vadis.VideoResult is results.VideoResult and vadis.VadisError is errors.VadisError
    assert vadis.load_model is load.load_model and vadis.tvl1 is flow.tvl1


def test_any_other_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'clasify'"):
        _ = vadis.clasify


def test_importing_vadis_imports_no_room():
    program = "import sys, vadis; print([name for name in sys.modules if name.startswith('vadis.')])"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
