"""What loads what: light commands need no torch, the engine no tracker; and nothing may run code from files."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.tracking.sweeps import make_sweep

ROOT = Path(__file__).resolve().parents[1]
LIGHT = """
import sys
from harness.cli import run

def check(what):
    heavy = sorted({"torch", "transformers", "lm_eval", "peft", "accelerate"} & set(sys.modules))
    assert heavy == [], f"{what}: {heavy}"

spec, folder, out = sys.argv[1:]
for words, code in (
    (["--help"], 0),
    (["list", "objectives"], 0),
    (["plan", spec, "--set", "objectives.0.bet=1", "--out", out], 2),
    (["plan", spec, "--out", out], 0),
    (["status", folder], 1),
    (["report", folder], 0),
):
    found = run(words)
    assert found == code or words[0] == "status", (words, found)
    check(words)
import harness
assert len(harness.load(folder).runs) == 4
check("load")
"""
ENGINE = """
import importlib, pkgutil, sys
for name in ("mlflow", "optuna", "lm_eval", "datasets", "pydantic"):
    sys.modules[name] = None  # importing it raises
for name in ("objectives", "models", "training", "rlhf"):
    package = importlib.import_module(f"harness.{name}")
    modules = [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    assert modules, name
    for module in modules:
        importlib.import_module(module)
"""


def python(code: str, *arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_help_mistakes_plan_report_and_load_import_no_torch(tmp_path: Path) -> None:
    python(LIGHT, ROOT / "experiments" / "smoke.yaml", make_sweep(tmp_path), tmp_path / "elsewhere")


def test_the_engine_needs_no_tracker_study_or_spec_library() -> None:
    python(ENGINE)


@pytest.mark.parametrize("keyword", ["trust_remote_code", "allow_pickle", "weights_only"])
def test_no_call_lets_a_file_bring_code(keyword: str) -> None:
    """Ruff forbids the functions that do; these keywords would allow it in others."""
    safe = {"trust_remote_code": "False", "allow_pickle": "False", "weights_only": "True"}[keyword]
    for path in (ROOT / "harness").rglob("*.py"):
        for value in re.findall(rf"\b{keyword}=(\w+)", path.read_text("utf-8")):
            assert value == safe, f"{path}: {keyword}={value}"


def test_test_modules_have_names_of_their_own() -> None:
    """Without packages pytest knows a test module by its bare name: two of one name, and the second is not run."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert not [name for name, count in Counter(names).items() if count > 1]
