"""Adapters and full models of one base, swapped in on one loaded model: each run's choices score as its records say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.storage.evaluations import read_evaluations, read_samples
from harness.storage.runs import read_table
from tests.commands import harness
from tests.models.families import write

WORDS = ("the", "cat", "sat", "on", "a", "mat", "dog", "is", "not", "yes", "no", "maybe", "user", "today")
STEPS = 12
SPEC: dict[str, Any] = {
    "name": "path",
    "data": {"path": "pairs.jsonl", "max_length": 60, "max_prompt_length": 30, "heldout": 0.3},
    "model": {"path": "model", "lora": [{"rank": 4, "alpha": 8}, None]},
    "objectives": [{"name": "dpo", "beta": [0.1, 1]}],
    "training": {"steps": STEPS, "batch_size": 8, "learning_rate": 0.02, "warmup_steps": 0},
    "evaluation": {
        "checkpoints": 2, "heldout": 12, "probe": 8, "ood": 0, "samples": 0, "lm_eval": {"tasks": ["preference"]}
    },
    "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("path")
    write("llama", root / "model")
    rows = []
    for i in range(50):
        words = [WORDS[(i * 5 + k * 3) % len(WORDS)] for k in range(4 + i % 3)]
        row = {"prompt": " ".join(words), "chosen": f" {words[0]} yes", "rejected": f" {words[1]} {words[2]} no"}
        rows.append(json.dumps(row))
    (root / "pairs.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (root / "spec.yaml").write_text(yaml.safe_dump(SPEC), encoding="utf-8")
    done = harness("sweep", root / "spec.yaml", "--out", root / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "runs" / "path"


def scores(folder: Path) -> dict[str, tuple[float, float]]:
    """(chosen, rejected) by pair, as lm-eval scored them."""
    (found,) = read_evaluations(folder)
    out = {}
    for sample in read_samples(folder, found):
        label = sample["doc"]["label"]
        both = [float(response[0]) for response in sample["filtered_resps"]]
        out[sample["doc"]["id"]] = (both[label], both[1 - label])
    return out


def recorded(folder: Path, step: int, prefix: str) -> dict[str, tuple[float, float]]:
    table = read_table(folder / "examples.parquet")
    rows = (table["step"] == step) & (table["split"] == "eval_clean")
    columns = (table["id"][rows], table[f"{prefix}_chosen"][rows], table[f"{prefix}_rejected"][rows])
    return {name: (float(one), float(other)) for name, one, other in zip(*columns, strict=True)}


def same(found: dict[str, tuple[float, float]], expected: dict[str, tuple[float, float]]) -> bool:
    assert found.keys() == expected.keys()
    return all(found[name] == pytest.approx(expected[name], rel=1e-4) for name in found)


def test_every_run_scores_as_it_was_recorded_and_none_as_another(swept: Path) -> None:
    folders = sorted(path.parent for path in swept.glob("*/result.json"))
    assert len(folders) == 4 and sum("lora-r4" in folder.name for folder in folders) == 2
    for folder in folders:
        assert same(scores(folder), recorded(folder, STEPS, "policy")), folder.name
        others = [other for other in folders if other is not folder]
        assert not any(same(scores(folder), recorded(other, STEPS, "policy")) for other in others)


def test_the_reference_is_the_base_under_adapters_and_under_full_training(swept: Path) -> None:
    references = sorted((swept / "references").iterdir())
    assert len(references) == 2  # adapters and all parameters start from models of their own recipe
    folder = next(path.parent for path in swept.glob("*/result.json"))
    for reference in references:
        assert same(scores(reference), recorded(folder, 0, "reference"))
