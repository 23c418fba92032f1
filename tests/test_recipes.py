"""docs/adding.md performed as it stands: its code blocks are put into a copy of the package, which then runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.sweep.test_end_to_end import TINY

ROOT = Path(__file__).parents[1]
DOC = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n# (harness/[\w/]+\.py)(?:, ([^\n]*))?\n(.*?)```", DOC, re.DOTALL)
NEW = {"objective": "squared_hinge", "corruption": "long_prompt_flip", "metric": "near_tie_rate", "section": "counted"}


def put(text: str, where: str, block: str) -> str:
    """The source of a file with a block of the recipe put where the recipe says."""
    if not where:
        return block
    if where == "above ROWS":
        return text.replace("\nROWS = (", f"\n{block}\n\nROWS = (")
    if where == "at the end":
        return f"{text}\n\n{block}"
    if where == "among the imports":
        first = re.search(r"^from harness", text, re.MULTILINE)
        assert first is not None
        return text[: first.start()] + block + text[first.start() :]
    name = where.removeprefix("inside ")
    begin = re.search(rf"^{name}\b[^\n]*= \(\n", text, re.MULTILINE)
    assert begin is not None, name
    return text[: begin.end()] + block + text[begin.end() :]


def changed(root: Path) -> Path:
    """A copy of the package under `root` with every recipe of the page performed."""
    shutil.copytree(ROOT / "harness", root / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    for file, where, block in BLOCKS:
        path = root / file
        path.write_text(put(path.read_text("utf-8") if where else "", where, block), encoding="utf-8")
    return root


def harness(root: Path, *arguments: object) -> str:
    """What a command of the changed package prints."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", *map(str, arguments)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return changed(tmp_path_factory.mktemp("recipes"))


@pytest.fixture(scope="module")
def swept(product: Path) -> Path:
    spec = {
        **TINY,
        "name": "recipes",
        "world": {**TINY["world"], "misaligned": 0.5},
        "objectives": [{"name": "dpo", "beta": 1}, {"name": NEW["objective"], "beta": 1}],
        "corruptions": [{"kind": "none"}, {"kind": NEW["corruption"], "rate": 0.3}],
        "seeds": 1,
    }
    path = product / "recipes.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    harness(product, "sweep", path, "--out", product / "runs", "--engine", "inline")
    return product / "runs" / "recipes"


def test_an_objective_a_corruption_and_a_measure_touch_one_file() -> None:
    places: dict[str, set[str]] = {}
    for title, body in re.findall(r"^## (An? [^\n]+)\n(.*?)(?=^## |\Z)", DOC, re.DOTALL | re.MULTILINE):
        places[title] = {file for file, _, _ in BLOCKS if f"# {file}" in body}
    assert {title: len(files) for title, files in places.items() if files} == {
        "An objective": 1,
        "A corruption": 1,
        "A measure": 1,
        "A section of the report": 2,
    }


@pytest.mark.parametrize(
    ("what", "name"), [("objectives", "objective"), ("corruptions", "corruption"), ("metrics", "metric")]
)
def test_the_listing_has_it(product: Path, what: str, name: str) -> None:
    assert NEW[name] in {row["name"] for row in json.loads(harness(product, "list", what, "--json"))}


def test_the_sweep_trains_it_and_tables_have_it(swept: Path) -> None:
    results = pd.read_csv(swept / "results.csv")
    assert set(results.status) == {"done"} and len(results) == 4
    assert set(results.objective) == {"dpo", NEW["objective"]} and NEW["corruption"] in set(results.corruption)
    own = results[(results.objective == NEW["objective"]) & (results.corruption == "none")]
    assert own.train_loss_first.item() == pytest.approx(1.0) and own.train_loss_last.item() < 1.0


def test_the_report_shows_it(swept: Path) -> None:
    page = (swept / "report" / "report.md").read_text(encoding="utf-8")
    assert NEW["objective"] in page and "4 runs in 4 cells" in page
    assert NEW["objective"] in set(pd.read_csv(swept / "report" / "cells.csv").objective)


def test_a_notebook_measures_it(product: Path, swept: Path) -> None:
    script = (
        f"from harness import load; print(load({str(swept)!r}).measure({NEW['metric']!r}).value.between(0, 1).all())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=product, env={**os.environ, "PYTHONPATH": str(product)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.strip() == "True", done.stderr


def test_a_study_searches_it(product: Path) -> None:
    study = {
        "name": "hunt",
        "world": {"kind": "mythworld"},
        "objectives": [{"name": NEW["objective"], "beta": "search"}],
        "trials": 2,
        "seeds": 1,
        "fresh_seeds": 2,
        "targets": [{"measure": NEW["metric"], "direction": "minimize", "split": "validation_clean"}],
    }
    path = product / "hunt.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    script = (
        "from harness.config.study import load_study; import sys;"
        "print(*[axis for arm in load_study(sys.argv[1]).arms for axis in arm.space])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path], cwd=product, env={**os.environ, "PYTHONPATH": str(product)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "beta" in done.stdout, done.stderr
