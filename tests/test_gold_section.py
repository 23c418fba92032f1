"""The spec's `evaluation.gold`: what it may say, whose it is, and that no run key depends on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.config.load import load_sweep
from harness.identity import run_key
from harness.sweep.gold import check_gold
from harness.types import InputError


def spec(tmp_path: Path, gold: Any, **more: Any) -> Path:
    rows = [json.dumps({"prompt": f"a{i}", "chosen": " b", "rejected": " c"}) for i in range(8)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    evaluation = {} if gold is None else {"gold": gold}
    value = {"name": "x", "data": {"path": "pairs.jsonl"}, "model": {"kind": "tiny"}, "objectives": [{"name": "dpo"}]}
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump({**value, "evaluation": evaluation, **more}), encoding="utf-8")
    return path


def test_run_keys_do_not_depend_on_it_and_paths_become_absolute(tmp_path: Path) -> None:
    plain = load_sweep(spec(tmp_path, None))
    asked = load_sweep(spec(tmp_path, {"reward_model": ["models/one", "org/name@v1"], "max_length": 512}))
    assert [run_key(run) for run in plain.runs] == [run_key(run) for run in asked.runs]
    assert asked.gold is not None and asked.gold.max_length == 512
    (tmp_path / "models" / "one").mkdir(parents=True)
    again = load_sweep(spec(tmp_path, {"reward_model": ["models/one", "org/name@v1"]}))
    assert again.gold is not None
    assert again.gold.reward_model == (str(tmp_path / "models" / "one"), "org/name@v1")
    resolved = tmp_path / "sweep.yaml"
    resolved.write_text(yaml.safe_dump(dict(again.resolved)), encoding="utf-8")
    assert load_sweep(resolved).gold == again.gold


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        ({}, "evaluation.gold.reward_model: nothing; expected the path of a folder, a hub id, or a list of these"),
        ({"reward_model": 3}, "evaluation.gold.reward_model: 3; expected"),
        ({"reward_model": ["a", "a"]}, "names a model twice"),
        ({"reward_model": "a", "batch": 3}, "evaluation.gold.batch: unknown key; expected one of reward_model"),
        ("models/one", "is not a mapping; expected e.g. `{reward_model: models/reward}`"),
    ],
)
def test_mistakes_are_one_line_each(tmp_path: Path, gold: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        load_sweep(spec(tmp_path, gold))
    assert len(error.value.problems) == 1 and message in error.value.problems[0]


def test_it_belongs_to_the_sweep_and_needs_models_before_anything_trains(tmp_path: Path) -> None:
    also = {"also": [{"evaluation": {"gold": {"reward_model": "a"}}}]}
    with pytest.raises(InputError, match="belongs to the sweep"):
        load_sweep(spec(tmp_path, None, **also))
    with pytest.raises(InputError, match="nowhere does not exist"):
        check_gold(load_sweep(spec(tmp_path, {"reward_model": "./nowhere"})))
    world = tmp_path / "world.yaml"
    world.write_text(
        "name: w\nworld: {kind: mythworld}\nobjectives: [{name: dpo}]\nevaluation: {gold: {reward_model: a}}\n",
        encoding="utf-8",
    )
    with pytest.raises(InputError, match="the embedded world knows the true reward"):
        check_gold(load_sweep(world))
