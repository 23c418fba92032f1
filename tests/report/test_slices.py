"""Slices of a sweep: a category whose training labels were turned round is named, and no other."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from harness.metrics.slices import corrected, slice_tests
from harness.storage.journal import read_journal
from tests.commands import harness

CATEGORIES = ["arts", "birds", "chess", "drums", "earth", "fire"]
SPEC: dict[str, Any] = {
    "name": "sliced",
    "data": {
        "path": "pairs",
        "split": "train",
        "heldout_split": "test",
        "max_length": 24,
        "max_prompt_length": 12,
        "slices": ["category"],
    },
    "model": {"kind": "tiny", "vocab_size": 300, "hidden_size": 32, "layers": 1, "sft_steps": 5, "sft_batch": 16},
    "objectives": [{"name": "dpo", "beta": 0.5}],
    "seeds": 2,
    "training": {"steps": 60, "batch_size": 32, "learning_rate": 0.01},
    "evaluation": {"checkpoints": 2, "heldout": 180, "probe": 32, "ood": 0, "samples": 0},
    "device": "cpu",
}  # fmt: skip


def write(path: Path, numbers: range, turned: str = "") -> None:
    """A pair a number of every category; those of `turned` have their answers exchanged."""
    rows = []
    for category in CATEGORIES:
        for i in numbers:
            answers = [" yes.", " no."] if category != turned else [" no.", " yes."]
            texts = {"prompt": f"{category} {i}?", "chosen": answers[0], "rejected": answers[1]}
            rows.append(texts | {"category": category})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("swept")
    (root / "pairs").mkdir()
    write(root / "pairs" / "train.jsonl", range(10, 70), "chess")
    write(root / "pairs" / "test.jsonl", range(70, 100))
    (root / "spec.yaml").write_text(yaml.safe_dump(SPEC), encoding="utf-8")
    done = harness("sweep", root / "spec.yaml", "--out", root / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "runs" / "sliced"


def test_the_turned_category_is_named_and_no_other(swept: Path) -> None:
    with (swept / "report" / "slices.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["value"] for row in rows] == CATEGORIES
    assert [row["value"] for row in rows if row["shown"]] == ["chess"], rows
    page = (swept / "report" / "report.md").read_text(encoding="utf-8")
    assert "Where does it hurt?" in page and "chess (category): shown in 1 of 1 setting" in page


def test_slices_are_metrics_of_the_journal(swept: Path) -> None:
    for folder in (path.parent for path in swept.glob("*/result.json")):
        final = [one for one in read_journal(folder / "events.jsonl") if "final/ranking_accuracy" in one]
        shares = {name: value for name, value in final[-1].items() if name.startswith("final/slice/category/")}
        assert set(shares) == {f"final/slice/category/{category}" for category in CATEGORIES}
        assert np.mean(list(shares.values())) == pytest.approx(final[-1]["final/ranking_accuracy"])


def test_alike_slices_are_named_seldom() -> None:
    """Six alike slices of 30 pairs, 400 draws: any of them named in at most 6 %; one 30 points behind is found."""
    draw = np.random.default_rng(0)
    columns = {"category": np.repeat(np.array(CATEGORIES, dtype=object), 30)}
    prompts = np.array([str(i) for i in range(180)], dtype=object)

    def names(behind: float) -> set[str]:
        p = np.where(columns["category"] == "fire", 0.4 - behind, 0.4)
        change = (draw.random(180) < p).astype(float) - (draw.random(180) < 0.1)
        tests = slice_tests(columns, columns, change, prompts)
        return {t.value for t, p in zip(tests, corrected(tests), strict=True) if t.shows(*p)}

    assert np.mean([bool(names(0.0)) for _ in range(400)]) <= 0.06
    assert np.mean(["fire" in names(0.4) for _ in range(100)]) > 0.7
