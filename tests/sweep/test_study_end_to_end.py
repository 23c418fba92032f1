"""A real study from one command to report, storage and tracking; killed and repeated, nothing differs."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from harness.config.study import load_study
from harness.identity import run_key
from harness.storage.verify import verify
from harness.study.scores import Scorer
from harness.study.trials import Ledger
from harness.tracking.rows import read_plan
from harness.tracking.views import views
from tests.commands import harness
from tests.sweep.study_fake import stored

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "name": "tiny",
    "question": "Does tuning <beta> rescue DPO?",
    "world": {
        "kind": "mythworld", "misaligned": 0.5, "pairs": 64,
        "pretrain_steps": 10, "pretrain_batch": 8, "sft_steps": 5, "sft_batch": 8,
    },
    "objectives": [{"name": "dpo"}, {"name": "cpo_smooth", "reduction": "sum", "gamma": 1, "tau": 2, "alpha": 1}],
    "corruptions": [{"kind": "uniform_flip", "rate": 0.3}],
    "training": {"steps": 6, "batch_size": 8, "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
    "evaluation": {"checkpoints": 3, "heldout": 64, "probe": 16, "ood": 16, "samples": 16},
    "seeds": 2, "fresh_seeds": 2, "trials": 4, "round": 2,
    "targets": [{"measure": "ranking_accuracy"}],
    "constraints": [{"measure": "kl", "at_most": 50}],
    "sampler": {"startup_trials": 2},
    "device": "cpu",
}  # fmt: skip


def command(folder: Path) -> list[str]:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(TINY), encoding="utf-8")
    return ["study", str(path), "--out", str(folder / "runs")]


def files(study: Path) -> dict[str, bytes]:
    """What must not depend on how often the command was killed."""
    names = ("results.csv", "trials.jsonl", "study.json", "report/tuned.csv", "report/selection.csv")
    return {name: (study / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def studied(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    # As a user starts it. Each round starts its workers anew: one costs half of two.
    words = [sys.executable, "-m", "harness", *command(root), "--workers", "1"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "runs" / "tiny"


def test_every_trial_is_told_and_every_file_is_whole(studied):
    about = json.loads((studied / "study.json").read_text())
    assert [trial["state"] for trial in about["trials"]] == ["COMPLETE"] * 8
    assert verify(studied) == []
    with (studied / "results.csv").open(newline="") as handle:
        results = list(csv.DictReader(handle))
    assert len(results) == 2 * 4 * 2 + 2 * 2 and {row["status"] for row in results} == {"done"}
    assert {row["seed"] for row in results} == {"0", "1", "2", "3"}
    held = stored(f"sqlite:///{studied / 'optuna.db'}")
    assert {name: len(trials) for name, trials in held.items()} == {"tiny.dpo": 4, "tiny.cpo_smooth": 4}
    for trial in about["trials"]:
        assert held[f"tiny.{trial['arm']}"][trial["number"]] == ("COMPLETE", tuple(trial["values"]))


def test_trials_score_what_their_records_say(studied):
    spec = load_study(studied.parent.parent / "study.yaml")
    scorer = Scorer(studied, ["ranking_accuracy", "kl"], ["validation_clean"])
    for trial in Ledger(studied, spec.key).of("dpo"):
        runs = [spec.run(spec.arms[0], trial.params, seed) for seed in spec.seeds]
        values = [scorer.last(run_key(run), run.objective.beta, "ranking_accuracy", "validation_clean") for run in runs]
        assert trial.values[0] == pytest.approx(sum(values) / 2)
        bounds = [scorer.last(run_key(run), run.objective.beta, "kl", "validation_clean") for run in runs]
        limit = sum(bounds) / 2 + 6.313751514675 * abs(bounds[0] - bounds[1]) / 2  # one-sided 95 %, t with one df
        assert trial.constraints[0] == pytest.approx(limit - 50)


def test_tracking_has_each_run_once_with_its_trial(studied):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{studied.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id], "tags.`harness.kind` = 'run'")
    assert len(runs) == 20
    tags = [run.data.tags for run in runs]
    assert {(t["optuna.study"], t["optuna.trial"]) for t in tags} == {
        (f"tiny.{arm}", str(number)) for arm in ("dpo", "cpo_smooth") for number in range(4)
    }
    assert {t["optuna.state"] for t in tags} == {"COMPLETE"} and {run.info.status for run in runs} == {"FINISHED"}
    assert sorted(t["harness.role"] for t in tags) == ["fresh"] * 4 + ["search"] * 16
    names = [view.name for view in views(read_plan(studied))]
    assert names == [
        "Sweep comparison: complete trials",
        "By objective: winners on fresh seeds",
        "Geometry: winners on fresh seeds",
        "tiny.dpo",
        "tiny.cpo_smooth",
    ]
    assert "mlflow.sharedViewState.comparison" in experiment.tags


def test_the_report_stands_alone_and_escapes(studied):
    page = (studied / "report" / "index.html").read_text()
    assert "Does tuning &lt;beta&gt; rescue DPO?" in page and page.count("<script") == 1
    assert "Tuned dpo minus tuned cpo_smooth" in page and "equal budgets of 4 trials of 2 seeds each" in page
    for words in ("Selection regret", "noisy validation, last step", "Which setting matters", "Budgets"):
        assert words in page
    before = (studied / "report" / "index.html").read_bytes()
    done = harness("report", studied)
    assert done.returncode == 0 and (studied / "report" / "index.html").read_bytes() == before


def test_repeating_the_command_trains_nothing(studied):
    before = {path: path.stat().st_mtime_ns for path in studied.glob("*/result.json")}
    kept = files(studied)
    done = harness(*command(studied.parent.parent))
    assert done.returncode == 0 and "8 trials already done" in done.stdout
    quiet = harness(*command(studied.parent.parent), "--quiet")
    ends = ["results", "report", "storage", "tracking", "Use:", "Breaks:"]
    assert (quiet.returncode, [line.split()[0] for line in quiet.stdout.splitlines()]) == (0, ends)
    assert {path: path.stat().st_mtime_ns for path in studied.glob("*/result.json")} == before
    assert files(studied) == kept


@pytest.mark.slow
def test_killed_and_repeated_the_study_is_the_same(studied, tmp_path):
    moments, program = random.Random(3), [sys.executable, "-m", "harness", *command(tmp_path)]
    for _ in range(3):
        process = subprocess.Popen(program, stdout=subprocess.DEVNULL, start_new_session=True, cwd=ROOT)
        time.sleep(moments.uniform(6.0, 25.0))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    again = tmp_path / "runs" / "tiny"
    assert files(again) == files(studied)
    assert stored(f"sqlite:///{again / 'optuna.db'}") == stored(f"sqlite:///{studied / 'optuna.db'}")
    assert verify(again) == []
