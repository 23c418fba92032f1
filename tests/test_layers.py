"""Imports point one way, each library has one home, what must be torch-free is, nothing runs code from data; files and
functions are short, documented and used.

The rules stand in tests/layers.py and tests/shape.py. The last tests break each rule on purpose.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.layers import (
    BRINGS_TORCH,
    ENGINE,
    EXCEPTIONS,
    NOT_IN_ENGINE,
    ROOT,
    TORCH_FREE,
    direction_problems,
    home_problems,
    load_problems,
    matches,
    read_modules,
    unsafe_problems,
)
from tests.shape import KEPT, docstring_problems, length_problems, unused_problems

MODULES = read_modules()
DOCS = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))


def test_imports_point_one_way() -> None:
    assert direction_problems(MODULES, EXCEPTIONS) == []


def test_each_library_has_one_home() -> None:
    assert home_problems(MODULES) == []


def test_engine_needs_no_tracker_study_or_spec_library() -> None:
    assert load_problems(MODULES, ENGINE, NOT_IN_ENGINE) == []


def test_nothing_runs_code_from_data() -> None:
    assert unsafe_problems(MODULES) == []


def test_torch_free_modules_ask_for_no_torch() -> None:
    assert load_problems(MODULES, TORCH_FREE, BRINGS_TORCH) == []


def test_files_and_functions_are_short() -> None:
    assert length_problems(MODULES) == []


def test_public_names_have_docstrings() -> None:
    assert docstring_problems(MODULES) == []


def test_no_public_function_is_for_tests_alone() -> None:
    assert unused_problems(MODULES, DOCS, KEPT) == []


def test_rules_still_name_something() -> None:
    """A renamed module must take its rule along, or the rule holds nothing."""
    assert [pattern for pattern in TORCH_FREE if not any(matches(name, (pattern,)) for name in MODULES)] == []


def test_torch_free_modules_load_no_torch() -> None:
    """What the static check cannot see: a library that imports torch by itself."""
    names = [name for name in MODULES if matches(name, TORCH_FREE) and name != "harness.__main__"]
    script = "\n".join(
        ["import sys", *(f"import {name}\nassert 'torch' not in sys.modules, {name!r}" for name in names)]
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


# Each rule, broken on purpose.
SANE = {"harness": "", "harness.types": "", "harness.identity": "from harness.types import InputError"}


def test_direction_rule_catches() -> None:
    def problems(name: str, source: str, **more: str) -> list[str]:
        return direction_problems({**SANE, name: source, **more}, {})

    assert problems("harness.types", "from harness import names")
    assert problems("harness.types", "def f():\n    import harness.identity")
    assert problems("harness.types", "if TYPE_CHECKING:\n    from harness.identity import run_key")
    assert problems("harness.types", "from .names import run_key")
    assert problems("harness.data.pairs", "import harness.storage.runs")  # neighbours
    assert problems("harness.report.page", "from harness.tracking.views import serve")
    assert problems("harness.report.page", "from harness.config.load import load_sweep")
    assert problems("harness.shed", "")  # no layer
    assert not problems("harness.report.page", "from harness.storage.runs import load_result\nimport harness.identity")
    assert not problems("harness.metrics.registry", "from . import geometry", **{"harness.metrics.geometry": ""})
    assert direction_problems(SANE, {("harness.identity", "harness.cli"): "stale"})


def test_home_rule_catches() -> None:
    assert home_problems({"harness.sweep.run": "def f():\n    import mlflow.tracking"})
    assert home_problems({"harness.sweep.run": "import importlib\nimportlib.import_module('optuna')"})
    assert not home_problems({"harness.tracking.outbox": "from mlflow import MlflowClient"})


def test_load_rule_catches() -> None:
    chain = {
        "harness": "",
        "harness.identity": "from harness.a import b",
        "harness.a": "import torch",
        "harness.a.b": "",
    }
    assert load_problems(chain, ("harness.identity",), {"torch"}) == [
        "harness.identity: importing it imports torch, in harness.a"
    ]
    lazy = {**chain, "harness.a": "if TYPE_CHECKING:\n    import torch\ndef f():\n    import torch"}
    assert not load_problems(lazy, ("harness.identity",), {"torch"})
    assert load_problems(
        {"harness.x": "try:\n    import torch\nexcept ImportError:\n    torch = None"}, ("harness.x",), {"torch"}
    )


def test_unsafe_rule_catches() -> None:
    for line in (
        "import pickle",
        "eval(text)",
        "exec(text)",
        "torch.save(x, p)",
        "torch.load(p)",
        "np.load(p, allow_pickle=True)",
        "AutoModel.from_pretrained(p, trust_remote_code=True)",
        "AutoModel.from_pretrained(p, trust_remote_code=flag)",
        "frame.to_pickle(p)",
    ):
        assert unsafe_problems({"harness.x": line}), line
    for line in ("model.eval()", "np.load(p)", "torch.load(p, weights_only=True)", "f(p, trust_remote_code=False)"):
        assert not unsafe_problems({"harness.x": line}), line


def test_length_rule_catches() -> None:
    assert length_problems({"m": '"""One idea."""\n' + "x = 1\n" * 300})
    assert not length_problems({"m": '"""One idea."""\n' + "x = 1\n" * 299})
    assert not length_problems({"m": '"""A table.\n\nLong because a row is a line.\n"""\n' + "x = 1\n" * 300})
    assert length_problems({"m": "class A:\n    def f(self):\n" + "        x = 1\n" * 60})
    assert not length_problems({"m": "class A:\n    def f(self):\n" + "        x = 1\n" * 59})


def test_docstring_rule_catches() -> None:
    assert docstring_problems({"m": "x = 1"}) == ["m: no docstring"]
    source = '"""M."""\nclass A:\n    """A."""\n    def f(self): {}\n    def forward(self): pass\ndef _g(): pass'
    assert docstring_problems({"m": source.format("pass")}) == ["m.A.f: no docstring"]
    assert not docstring_problems({"m": source.format("'F.'")})


def test_unused_rule_catches() -> None:
    lonely = {"m": "def f():\n    pass"}
    assert unused_problems(lonely, "", {}) == ["m.f: only tests call it"]
    assert unused_problems(lonely, "it does f", {}) and not unused_problems(lonely, "call `m.f(x)`", {})
    assert not unused_problems(lonely, "", {"m.f": "a reason"})
    assert unused_problems({"m": "def f():\n    pass\nf()"}, "", {"m.f": "a reason"})  # no longer unused
    for use in ("from m import f as g", "import m\nm.f()", "row = 'm:f'", "row = M + 'f'", "row = f'{M}.x:f'"):
        assert not unused_problems({**lonely, "n": use}, "", {}), use
    assert unused_problems({**lonely, "n": "from m import f"}, "", {})
    assert unused_problems({**lonely, "n": '"""As f does."""'}, "", {})


def test_test_modules_have_names_of_their_own() -> None:
    """Without packages pytest knows a test module by its bare name: two of one name, and the second is not run."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert not [name for name, count in Counter(names).items() if count > 1]
