"""Real runs diagnosed from their records: a healthy one, one stalled in the zone, one whose answers collapse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.metrics import METRICS
from harness.metrics.diagnosis import Diagnosis, diagnose
from harness.metrics.sentinel import watch
from harness.storage.runs import read_table
from tests.commands import harness
from tests.sweep.test_end_to_end import write

SPEC = {
    "name": "diagnosed",
    "question": "What happened to each?",
    "world": {"kind": "mythworld", "version": 1, "misaligned": [0, 0.75]},
    "objectives": [{"name": "dpo", "beta": [2, 5]}],
    "seeds": 1,
    "evaluation": {"gradient_probe": 4},
    "device": "cpu",
    "also": [
        {
            "world": {"kind": "mythworld", "version": 1, "misaligned": 0},
            "objectives": [{"name": "dpo", "beta": 0.5}],
            "training": {"learning_rate": 0.02},
        }
    ],
}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[tuple[float, float], tuple[Path, Diagnosis]]:
    """Folder and diagnosis by (misaligned, beta)."""
    root = tmp_path_factory.mktemp("diagnosed")
    done = harness("sweep", write(root, SPEC), "--out", root / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    out = {}
    for path in (root / "runs" / "diagnosed").glob("*/result.json"):
        config = json.loads(path.read_text())["config"]
        given = dict(config["objective"]["hyperparameters"])
        examples = read_table(path.parent / "examples.parquet")
        out[config["world"]["misaligned"], given["beta"]] = path.parent, diagnose(examples, "dpo", given)
    return out


def test_a_healthy_run_has_no_type_and_no_flag(found):
    for beta in (2.0, 5.0):
        folder, healthy = found[0, beta]
        answers = watch(read_table(folder / "samples.parquet"))
        assert healthy.types == () and answers.flags == ()
        assert len(answers.readings) > 50  # nothing was flagged, but everything was looked at


def test_the_stall_under_a_misaligned_reference_is_premature_convergence(found):
    _, stalled = found[0.75, 5.0]
    assert stalled.types == ("D1",)
    one = stalled.premature["eval_clean"]
    assert one.last.zone_low > 0.05 and one.starts is not None and 0 < one.starts < 200
    assert not any(reversal.event for reversal in stalled.reversal.values())


def test_a_run_that_destroys_its_answers_is_flagged_although_its_ranks_are_right(found):
    folder, _ = found[0, 0.5]
    examples = read_table(folder / "examples.parquet")
    last = {n: v[(examples["step"] == 200) & (examples["split"] == "eval_clean")] for n, v in examples.items()}
    assert METRICS["ranking_accuracy"].compute(last) > 0.95 and METRICS["mass_elsewhere"].compute(last) > 0.9
    answers = watch(read_table(folder / "samples.parquet"))
    assert {"gold_reward", "malformed", "length", "missing_eos"} <= set(answers.flags)
    collapsed = {(r.split, r.group) for r in answers.fired if r.rule == "malformed"}
    assert {("eval_clean", ""), ("eval_clean", "plain"), ("ood", "")} <= collapsed


def test_the_pull_of_a_checkpoint_is_tracked(found):
    folder, _ = found[0.75, 5.0]
    lines = [json.loads(line)["record"] for line in (folder / "events.jsonl").read_text().splitlines()]
    pulls = {r["step"]: r["geometry/pull"] for r in lines if "geometry/pull" in r}
    assert pulls[0] == pytest.approx(2.5, rel=1e-3) and pulls[200] < 0.25  # beta / 2, and below a tenth of it
