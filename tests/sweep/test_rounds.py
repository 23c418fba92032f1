"""Seeds in rounds: who gets more seeds; stopped and resumed, the sweep is the undisturbed one; what a spec may say."""

from __future__ import annotations

import hashlib
import json
import signal

import numpy as np
import pytest
import yaml
from rich.console import Console

from harness.config.load import load_sweep
from harness.config.study import load_study
from harness.identity import canonical_json, plain, run_key
from harness.report.data.report_data import read_contrasts
from harness.report.data.sweep import read_sweep
from harness.signals import Interrupted
from harness.storage.verify import verify
from harness.sweep import run as sweep_run
from harness.sweep.plan import describe, render
from harness.sweep.rounds import rounds
from harness.sweep.run import SweepOptions, run_sweep
from harness.types import InputError

SPEC = {
    "name": "rounds",
    "world": {
        "kind": "mythworld", "misaligned": 0.5, "pairs": 64,
        "pretrain_steps": 6, "pretrain_batch": 8, "sft_steps": 3, "sft_batch": 8,
    },
    "objectives": [{"name": name, "beta": [0.5, 1, 2]} for name in ("dpo", "hypo", "cdpo", "hinge")],
    "corruptions": [{"kind": "none"}, {"kind": "uniform_flip", "rate": 0.4}],
    "seeds": {"min": 4, "max": 12, "stop": "settled"},
    "training": {"steps": 4, "batch_size": 8},
    "evaluation": {"checkpoints": 2, "heldout": 32, "probe": 16, "ood": 8, "samples": 8},
    "device": "cpu",
}  # fmt: skip
QUIET = Console(quiet=True)


def load(folder, **changes):
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({**SPEC, **changes}), encoding="utf-8")
    return load_sweep(path)


def write_result(folder, run, ranking_accuracy, kl):
    key = run_key(run)
    where = folder / f"{key[:8]}-x"
    where.mkdir(parents=True, exist_ok=True)
    results = {"ranking_accuracy": ranking_accuracy, "kl": kl}
    value = {"run_key": key, "status": "done", "steps": 4, "results": results, "costs": {}, "config": plain(run),
             "name": "x", "files": {}, "t0_ms": 0}  # fmt: skip
    value["sha256"] = hashlib.sha256(canonical_json(value).encode()).hexdigest()
    (where / "result.json").write_text(json.dumps(value), encoding="utf-8")


def measured(folder, spec, lead):
    """A folder with every run's result: accuracy best at beta 1, `lead` by objective in sd (.02) of a difference."""
    for run in spec.runs:
        noise = np.random.default_rng([run.seed, len(run.objective.name), ord(run.objective.name[1])]).normal(0, 0.014)
        peak = 0.05 * abs(np.log(run.objective.beta))
        flips = 0.1 * (run.corruption.kind != "none")
        accuracy = 0.7 - peak - flips + 0.02 * lead[run.objective.name] + noise
        write_result(folder, run, float(accuracy), 1 / run.objective.beta)


def seeds_by_arm(runs):
    found = {}
    for planned in runs:
        found.setdefault((planned.run.objective.name, planned.run.corruption.kind), set()).add(planned.run.seed)
    assert all(seeds == set(range(len(seeds))) for seeds in found.values())
    return {arm: len(seeds) for arm, seeds in found.items()}


def test_a_clear_arm_and_a_hopeless_one_stop_early_and_the_baseline_stays_for_the_others(tmp_path):
    spec = load(tmp_path, objectives=SPEC["objectives"][:3], corruptions=[{"kind": "none"}])
    folder = tmp_path / "rounds"
    measured(folder, spec, {"dpo": 0, "hypo": 12, "cdpo": 1.1})
    drawn = [seeds_by_arm(runs) for runs in rounds(spec, folder)]
    assert [arms["hypo", "none"] for arms in drawn] == [4, 6, 6, 6, 6][: len(drawn)]  # shown at once
    assert drawn[-1]["cdpo", "none"] == drawn[-1]["dpo", "none"] == spec.rounds.looks[len(drawn) - 1] > 6
    assert list(rounds(spec, folder))[-1] == list(rounds(spec, folder))[-1]

    nothing = load(tmp_path, name="nothing", objectives=SPEC["objectives"][:2], corruptions=[{"kind": "none"}])
    measured(tmp_path / "nothing", nothing, {"dpo": 0, "hypo": 0})
    assert seeds_by_arm(list(rounds(nothing, tmp_path / "nothing"))[-1])["hypo", "none"] < 12


def test_an_objective_with_nothing_to_compare_runs_all_its_seeds(tmp_path):
    spec = load(tmp_path, objectives=[{"name": "hypo", "beta": [0.5, 1]}], corruptions=[{"kind": "none"}])
    measured(tmp_path / "rounds", spec, {"hypo": 0})
    assert [len(runs) for runs in rounds(spec, tmp_path / "rounds")] == [8, 12, 16, 20, 24]


def test_reward_models_come_with_the_seeds_that_learn_from_them(tmp_path):
    learners = [{"name": "ppo", "beta": [0.5, 1]}, {"name": "dpo", "beta": [0.5, 1]}]
    spec = load(tmp_path, objectives=learners, corruptions=[{"kind": "none"}])
    first = next(rounds(spec, tmp_path / "rounds"))
    names = [planned.run.objective.name for planned in first]
    assert names.count("reward_model") == 4 and names.count("ppo") == names.count("dpo") == 8


def test_contrasts_of_a_stopped_arm_are_complete_and_spend_its_looks_error(tmp_path):
    spec = load(tmp_path, objectives=SPEC["objectives"][:3], corruptions=[{"kind": "none"}])
    folder = tmp_path / "rounds"
    measured(folder, spec, {"dpo": 0, "hypo": 12, "cdpo": 1.1})
    runs = list(rounds(spec, folder))[-1]
    entries = [{"run_key": one.key, "name": one.name, "config": plain(one.run)} for one in runs]
    plan = {"name": "rounds", "notes": [], "runs": entries, "seed_rounds": plain(spec.rounds)}
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    contrasts = read_contrasts(read_sweep(folder))
    clear = next(c for c in contrasts if c.objective == "hypo" and c.on == "best")
    assert (clear.word, clear.n, clear.p) == ("better", 6, None)
    plan.pop("seed_rounds")
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    fixed = next(c for c in read_contrasts(read_sweep(folder)) if c.objective == "hypo" and c.on == "best")
    width, usual = (c.corrected.high - c.corrected.low for c in (clear, fixed))
    assert width > 2 * usual


def files(folder):
    """All that may not differ between two sweeps: tables, the plan, and the records of every run."""
    kept = {}
    for path in sorted(folder.rglob("*")):
        if path.name in ("results.csv", "sweep.yaml", "contrasts.csv", "cells.csv") or path.suffix == ".parquet":
            kept[str(path.relative_to(folder))] = path.read_bytes()
    plan = json.loads((folder / "plan.json").read_text())
    return kept | {"plan": [run["run_key"] for run in plan["runs"]]}


def test_stopped_in_every_round_and_resumed_it_is_the_undisturbed_sweep(tmp_path, monkeypatch):
    small = {
        "objectives": [{"name": "dpo", "beta": [0.5, 1]}, {"name": "cdpo", "beta": [0.5, 1]}],
        "corruptions": [{"kind": "none"}],
        "seeds": {"min": 2, "max": 8, "stop": "settled"},
    }
    spec = load(tmp_path, **small)
    options = SweepOptions("inline", 1e9, track=False)
    assert run_sweep(spec, tmp_path / "calm", 1, QUIET, options) == 0
    calm = files(tmp_path / "calm" / "rounds")
    assert verify(tmp_path / "calm" / "rounds") == []
    page = (tmp_path / "calm" / "rounds" / "report" / "report.md").read_text(encoding="utf-8")
    assert "Who stopped early?" in page and "of 8" in page

    whole, stops = sweep_run.run_packs, []

    def broken(folder, total, runs, *rest):
        """Trains three runs of every round, then a signal comes."""
        if len(stops) < 3:
            stops.append(total)
            whole(folder, total, runs[:3], *rest)
            raise Interrupted(signal.SIGINT)
        return whole(folder, total, runs, *rest)

    monkeypatch.setattr(sweep_run, "run_packs", broken)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run_sweep(spec, tmp_path / "broken", 1, QUIET, options)
    assert run_sweep(spec, tmp_path / "broken", 1, QUIET, options) == 0
    assert stops[0] == 8 and files(tmp_path / "broken" / "rounds") == calm
    # Run again, nothing is trained and the plan stays that of the last round.
    monkeypatch.setattr(sweep_run, "run_packs", lambda *_: pytest.fail("nothing is missing"))
    assert run_sweep(spec, tmp_path / "broken", 1, QUIET, options) == 0
    assert files(tmp_path / "broken" / "rounds") == calm


def test_the_plan_shows_the_fewest_and_the_most_runs(tmp_path):
    plan = describe(load(tmp_path), tmp_path / "runs")
    assert plan["rounds"]["looks"] == [4, 6, 8, 10, 12] and plan["rounds"]["runs"] == [96, 288]
    assert 0 < plan["rounds"]["wall_seconds"][0] < plan["rounds"]["wall_seconds"][1] == plan["wall_seconds"]
    assert "96 to 288 runs" in render(plan)


def test_rounds_change_no_key_and_stand_in_the_resolved_spec(tmp_path):
    spec = load(tmp_path, also=[{"training": {"steps": 5, "batch_size": 8}}])
    assert spec.runs == load(tmp_path, seeds=12, also=[{"training": {"steps": 5, "batch_size": 8}}]).runs
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(dict(spec.resolved)), encoding="utf-8")
    loaded = load_sweep(again)
    assert (loaded.runs, loaded.rounds, loaded.resolved) == (spec.runs, spec.rounds, spec.resolved)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": {"min": 4, "max": 12}}, ["seeds.stop: missing", "stop: settled"]),
        ({"seeds": {"min": 4, "max": 4, "stop": "settled"}}, ["seeds.max: 4 is no more than min 4"]),
        ({"seeds": {"min": 1, "max": 4, "stop": "settled"}}, ["seeds.min: 1", "[2, 1000]"]),
        ({"seeds": {"min": 4, "max": 12, "stop": "never"}}, ["seeds.stop: 'never'", "settled"]),
        ({"also": [{"seeds": 3}]}, ["also.0.seeds", "whole sweep's"]),
    ],
)
def test_mistakes_are_named(tmp_path, changes, words):
    with pytest.raises(InputError) as error:
        load(tmp_path, **changes)
    (line,) = error.value.problems
    assert all(word in line for word in words), line


def test_a_study_has_no_rounds(tmp_path):
    path = tmp_path / "study.yaml"
    study = {**SPEC, "corruptions": [{"kind": "none"}], "objectives": [{"name": "dpo"}], "trials": 2,
             "targets": [{"measure": "ranking_accuracy"}]}  # fmt: skip
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    with pytest.raises(InputError, match="rounds belong to a sweep"):
        load_study(path)
