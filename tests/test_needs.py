"""What tests need beyond the extra `test`: a reason to skip for a person, a failure in CI."""

import ast
from pathlib import Path

import pytest

from tests.needs import absent, require_modules

NOT_EVERYWHERE = {
    *("aiohttp", "boto3", "cv2", "flask", "fsspec", "gcp_storage_emulator", "gcsfs", "moto", "pandas", "playwright"),
    *("onnx", "onnxruntime", "openvino", "ray", "s3fs", "tensorboard", "yaml"),
}
"""Modules of the extra ``integration``, and the one that needs libraries of the system."""


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_what_is_absent_is_a_reason_to_skip_and_in_ci_a_failure(monkeypatch, ci, outcome) -> None:
    monkeypatch.setenv("CI", ci)
    require_modules("pytest")
    with pytest.raises(outcome, match="needs no_such_module"):
        require_modules("pytest", "no_such_module")
    with pytest.raises(outcome, match="needs a miracle"):
        absent("needs a miracle")


def test_no_test_module_needs_them_to_be_collected() -> None:
    imported = {
        (path.name, name.split(".")[0])
        for path in Path(__file__).parent.rglob("*.py")
        if path.parent.name != "benchmarks"
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert {name for _, name in imported} >= {"pytest", "av", "numpy"}
    assert not [each for each in imported if each[1] in NOT_EVERYWHERE]
