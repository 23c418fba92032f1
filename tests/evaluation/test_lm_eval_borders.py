"""The preference task scores the run's own tokens, also where one text of prompt and answer has others, or one is cut.

An evaluation that fails costs a line and the exit code, neither the report nor the other runs' evaluations.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cli import run as command
from harness.evaluation import lm_eval
from harness.storage.evaluations import read_evaluations, read_samples
from harness.storage.runs import read_table

PLACES = ("桥", "河", "山", "港", "站", "塔")
SPEC: dict[str, Any] = {
    "name": "borders",
    # Responses are cut; prompts end in a letter that merges with the answer's first, or in a line end.
    "data": {
        "path": "pairs.jsonl", "max_length": 40, "max_prompt_length": 30, "max_response_length": 4, "heldout": 0.4,
    },
    "model": {"kind": "tiny", "vocab_size": 300, "hidden_size": 16, "layers": 1, "sft_steps": 10, "sft_batch": 8},
    "objectives": [{"name": "dpo", "beta": [0.1, 1.0]}],
    "training": {"steps": 8, "batch_size": 8, "learning_rate": 0.01},
    "evaluation": {
        "checkpoints": 2, "heldout": 24, "probe": 8, "ood": 0, "samples": 0, "keep": "final",
        "lm_eval": {"tasks": ["preference"]},
    },
    "device": "cpu",
}  # fmt: skip


def rows() -> list[dict[str, str]]:
    found = []
    for i in range(60):
        here, there = PLACES[i % 6], PLACES[(i + 1 + i // 6) % 6]
        end = "\n" if i % 3 == 0 else ""
        asked = f"去{here}第{i}次走哪边请说走{end}"
        found.append({"prompt": asked, "chosen": f"哪边都行到{here}", "rejected": f"哪边{there}走哪边都行走哪边"})
    return found


def test_a_failed_evaluation_costs_a_line_and_the_ranking_is_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows()]
    (tmp_path / "pairs.jsonl").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC), encoding="utf-8")
    sweep = ["sweep", str(tmp_path / "spec.yaml"), "--out", str(tmp_path / "runs"), "--engine", "inline"]
    calls, evaluate = [], lm_eval.evaluate

    def fails_once(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise AssertionError("of the first run,\nnot of the reference")
        return evaluate(*arguments)

    monkeypatch.setattr(lm_eval, "evaluate", fails_once)
    assert command(sweep) == 1
    printed = capsys.readouterr().out.splitlines()
    folders = sorted(path.parent for path in (tmp_path / "runs" / "borders").glob("*/result.json"))
    (line,) = [line for line in printed if line.startswith("failed")]
    assert line.endswith(": not evaluated, AssertionError: of the first run, not of the reference")
    (name,) = {folder.name for folder in folders if not read_evaluations(folder)}
    assert len(folders) == 2 and name in line
    assert (tmp_path / "runs" / "borders" / "report" / "index.html").is_file()

    assert command(sweep) == 0
    (task,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("task")]
    apart = int(task.rpartition("(")[2].partition(" of ")[0])
    assert apart > 15, task
    for folder in folders:
        (found,) = read_evaluations(folder)
        table = read_table(folder / "examples.parquet")
        at = (table["step"] == 8) & (table["split"] == "eval_clean")
        columns = (table["id"][at], table["policy_chosen"][at], table["policy_rejected"][at])
        recorded = {name: (float(good), float(bad)) for name, good, bad in zip(*columns, strict=True)}
        samples = read_samples(folder, found)
        assert len(samples) == len(recorded) > 15
        for sample in samples:
            label = sample["doc"]["label"]
            scores = [float(response[0]) for response in sample["filtered_resps"]]
            good, bad = recorded[sample["doc"]["id"]]
            assert (scores[label], scores[1 - label]) == pytest.approx((good, bad), rel=1e-4)
            assert sample["acc"] == (good > bad)
        assert any("<eos>" not in text for sample in samples for text in sample["doc"]["choices"])  # cut ones
