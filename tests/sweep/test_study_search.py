"""The search on a known surface: it finds the peak, asks the same trials whatever happened, and survives kills."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from harness.config.study import StudySpec, load_study
from harness.config.study_settings import Budget, Pruner, Sampler
from harness.metrics.statistics import t_interval
from harness.study.files import FRESH, SEARCH, all_runs, fresh_runs, trial_runs
from harness.study.optuna_adapter import ask, importance, project, study_name
from harness.study.search import Bench, search
from harness.study.storage import storage_url, write_storage
from harness.study.trials import COMPLETE, FAIL, LEDGER, PRUNED, Ledger, Trial, front, winners
from tests.sweep.study_fake import bench, play, stored, surface

ROOT = Path(__file__).resolve().parents[2]
SPEC = {
    "name": "known",
    "world": {"kind": "mythworld"},
    "objectives": [{"name": "dpo"}, {"name": "orpo", "lam": "search"}],
    "corruptions": [{"kind": "uniform_flip", "rate": 0.3}],
    "training": {"steps": 10, "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}},
    "seeds": 2,
    "fresh_seeds": 10,
    "trials": 12,
    "round": 4,
    "targets": [{"measure": "ranking_accuracy"}],
}


def study(folder: Path, **changes: object) -> StudySpec:
    path = folder / "study.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({**SPEC, **changes}), encoding="utf-8")
    return load_study(path)


def params(ledger: Ledger, arm: str) -> list[dict[str, object]]:
    return [dict(trial.params) for trial in ledger.of(arm)]


def test_the_search_finds_the_peak_and_the_fresh_interval_covers_it(tmp_path):
    spec = study(tmp_path, objectives=[{"name": "dpo"}], trials=40, seeds=3, round=5)
    ledger = play(spec, tmp_path)
    [best] = winners(ledger.of("dpo"), ["maximize"])
    true = surface(float(best.params["beta"]), float(best.params["training.learning_rate"]))
    assert true > 0.77, "near the peak of 0.8: the worst corner of the space scores under 0.7"
    values = [bench(tmp_path / "known").value(item, spec.targets[0]) for item in fresh_runs(spec, ledger)]
    assert len(values) == 10
    found = t_interval(values, 0.999)  # the draw follows from the run keys: 95 % of them hold the truth at 95 %
    assert found.low <= true <= found.high
    assert best.values[0] > found.mean, "the search score of the best of 40 is lucky: the winner's curse is shown"
    shares = importance(spec, spec.arms[0], ledger.finished("dpo"))
    assert set(shares) == {"beta", "training.learning_rate"} and sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("together", [3, 7])
def test_asking_k_at_a_time_asks_the_same(tmp_path, together):
    random_one = study(tmp_path, sampler="random", round=1)
    alone = play(random_one, tmp_path / "one")
    packed = play(replace(random_one, round=together), tmp_path / "many")
    assert all(params(alone, arm) == params(packed, arm) for arm in ("dpo", "orpo"))
    tpe = study(tmp_path, sampler={"kind": "tpe", "startup_trials": 6}, round=1)
    alone, packed = play(tpe, tmp_path / "tpe one"), play(replace(tpe, round=together), tmp_path / "tpe many")
    for arm in ("dpo", "orpo"):
        assert params(alone, arm)[:6] == params(packed, arm)[:6]
    assert params(alone, "dpo") != params(packed, "dpo"), "after start-up what is known when asking differs"


def test_the_same_study_asks_the_same_trials_and_another_seed_others(tmp_path):
    spec = study(tmp_path)
    first, second = play(spec, tmp_path / "a"), play(spec, tmp_path / "b")
    assert params(first, "dpo") == params(second, "dpo") and first.of("dpo") == second.of("dpo")
    other = play(replace(spec, sampler=Sampler(seed=1)), tmp_path / "c")
    assert params(other, "dpo") != params(first, "dpo")
    assert all(0.05 <= float(p["beta"]) <= 10 for p in params(first, "dpo"))  # type: ignore[arg-type]


def test_a_trial_without_its_target_fails_and_nothing_takes_its_place(tmp_path):
    spec = study(tmp_path)
    folder = tmp_path / "known"
    folder.mkdir()
    ledger = Ledger(folder, spec.key)
    arm = spec.arms[0]
    third = ask(spec, arm, (), 3)[2]
    [lost] = trial_runs(spec, [third], [1], SEARCH)
    search(spec, ledger, bench(folder, broken=[lost.key]))
    failed = ledger.of("dpo")[2]
    assert (failed.state, failed.values) == (FAIL, ())
    assert failed.reason == "seed 1 has no finite ranking_accuracy on validation_clean"
    assert Counter(trial.state for trial in ledger.of("dpo")) == {COMPLETE: 11, FAIL: 1}
    project(spec, arm, ledger.of("dpo"), storage_url(spec, folder))
    assert stored(storage_url(spec, folder))[study_name(spec, arm)][2] == ("FAIL", ())


def test_the_storage_is_rebuilt_from_the_ledger_and_stale_trials_are_reaped(tmp_path):
    import optuna

    spec = study(tmp_path)
    ledger = play(spec, tmp_path)
    folder, url = tmp_path / "known", storage_url(spec, tmp_path / "known")
    whole = stored(url)
    assert {name: len(trials) for name, trials in whole.items()} == {"known.dpo": 12, "known.orpo": 12}
    stale = optuna.load_study(study_name="known.dpo", storage=url)
    stale.ask()
    assert write_storage(spec, ledger, folder) == "" and stored(url) == whole
    (folder / "optuna.db").unlink()
    assert write_storage(spec, ledger, folder) == "" and stored(url) == whole
    (folder / "optuna.db").write_bytes(b"torn" * 1000)
    assert write_storage(spec, ledger, folder) == "" and stored(url) == whole
    assert list(folder.glob("optuna.db.corrupt-*"))


def test_a_lost_ledger_costs_no_training(tmp_path):
    spec = study(tmp_path)
    before = play(spec, tmp_path)
    folder = tmp_path / "known"
    trained = (folder / "trained.log").read_text()
    for damage in (
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes().replace(b"dpo", b"dpp")),
    ):
        damage(folder / LEDGER)
        after = play(spec, tmp_path)
        assert after.arms == before.arms
        assert (folder / "trained.log").read_text() == trained


def test_more_trials_go_on_and_another_space_starts_anew(tmp_path):
    spec = study(tmp_path)
    before = play(spec, tmp_path)
    longer = play(replace(spec, trials=16), tmp_path)
    assert longer.of("dpo")[:12] == before.of("dpo") and len(longer.of("dpo")) == 16
    narrow = study(tmp_path, objectives=[{"name": "dpo", "beta": {"low": 1, "high": 2}}])
    assert narrow.key != spec.key
    anew = play(narrow, tmp_path)
    assert len(anew.of("dpo")) == 12 and all(1 <= float(t.params["beta"]) <= 2 for t in anew.of("dpo"))
    assert (tmp_path / "known" / f"{LEDGER}.{spec.key[:8]}").exists()


@pytest.mark.parametrize(
    ("pruner", "seeds"),
    [(Pruner(kind="median", startup_trials=4), 3), (Pruner(kind="hyperband"), 3), (Pruner(kind="wilcoxon", p=0.2), 6)],
)
def test_pruned_trials_keep_their_first_seeds_and_lose_the_rest(tmp_path, pruner, seeds):
    spec = replace(study(tmp_path, seeds=seeds, trials=20), pruner=pruner)
    ledger = play(spec, tmp_path)
    states = Counter(trial.state for trial in ledger.of("dpo"))
    assert states[PRUNED] >= 1 and states[COMPLETE] >= 4 and sum(states.values()) == 20
    saved = 0
    for trial in ledger.of("dpo"):
        keys = [item.key for item in trial_runs(spec, [trial], spec.seeds, SEARCH)]
        there = [bool(list((tmp_path / "known").glob(f"{key[:8]}-*/result.json"))) for key in keys]
        count = len(trial.intermediate) if trial.state == PRUNED else seeds
        assert there == [True] * count + [False] * (seeds - count)
        saved += seeds - count
        assert trial.state != PRUNED or trial.reason.startswith(pruner.kind)
    assert saved > 0
    again = play(spec, tmp_path / "again")
    assert again.of("dpo") == ledger.of("dpo")
    assert write_storage(spec, ledger, tmp_path / "known") == ""


def test_a_budget_ends_every_arm_alike(tmp_path):
    spec = study(tmp_path, trials=100, round=3)
    ledger = play(replace(spec, budget=Budget(tokens=1100)), tmp_path)  # a trial costs 2 runs of 100 tokens
    assert [len(ledger.of(arm)) for arm in ("dpo", "orpo")] == [6, 6]
    ledger = play(replace(spec, budget=Budget(runs=13)), tmp_path / "runs")
    assert [len(ledger.of(arm)) for arm in ("dpo", "orpo")] == [9, 9]


def test_a_front_holds_what_nothing_beats():
    def trial(number: int, one: float, two: float, excess: float = -1.0, state: str = COMPLETE) -> Trial:
        return Trial("dpo", number, {}, state, (one, two), (excess,))

    trials = [trial(0, 1, 1), trial(1, 2, 0.5), trial(2, 1, 2), trial(3, 0.5, 0.4), trial(4, 9, 0, excess=0.1)]
    ahead = front(trials, ["maximize", "minimize"])
    assert [t.number for t in ahead] == [1, 3]
    assert [t.number for t in winners(trials, ["maximize", "minimize"])] == [1, 3]
    assert [t.number for t in front([trial(0, 1, 0), trial(1, 1, 0), trial(2, 7, 0, 1.0)], ["maximize"])] == [0]


def test_several_targets_and_bounds_reach_optuna(tmp_path):
    targets = [{"measure": "ranking_accuracy"}, {"measure": "undesirable_zone"}]
    spec = study(tmp_path, targets=targets, constraints=[{"measure": "kl", "at_most": 0.8}])
    ledger = play(spec, tmp_path)
    assert all(len(t.values) == 2 and len(t.constraints) == 1 for t in ledger.of("dpo"))
    assert any(t.feasible for t in ledger.of("dpo")) != all(t.feasible for t in ledger.of("dpo"))
    assert len(stored(storage_url(spec, tmp_path / "known"))["known.dpo"]) == 12


def test_a_bound_is_on_the_limit_over_seeds_and_not_on_their_mean(tmp_path):
    """Seeds 2, 3 and 4 have mean 3 and the one-sided limit 3 + 2.92 / sqrt(3) = 4.686 (t of 2 degrees of freedom)."""
    bounds = [{"measure": "kl", "at_most": 4}, {"measure": "kl", "at_least": 2}]
    spec = study(tmp_path, objectives=[{"name": "dpo"}], seeds=3, trials=1, constraints=bounds)
    values = Bench(lambda _: None, lambda item, _: 2.0 + item.run.seed, lambda _: {})
    (tmp_path / "known").mkdir()
    ledger = Ledger(tmp_path / "known", spec.key)
    search(spec, ledger, values)
    (trial,) = ledger.of("dpo")
    assert trial.constraints == pytest.approx((0.686, 0.686), abs=1e-3) and not trial.feasible


def test_each_search_of_an_objective_has_draws_and_a_budget_of_its_own(tmp_path):
    spec = study(tmp_path, objectives=[{"name": "dpo"}], sampler_seeds=3)
    labels = [arm.label for arm in spec.arms]
    assert labels == ["dpo", "dpo search 2", "dpo search 3"] and {arm.objective for arm in spec.arms} == {"dpo"}
    ledger = play(spec, tmp_path)
    drawn = [params(ledger, label) for label in labels]
    assert [len(one) for one in drawn] == [12] * 3 and drawn[0] != drawn[1] != drawn[2]
    single = play(study(tmp_path / "one", objectives=[{"name": "dpo"}]), tmp_path / "one")
    assert params(single, "dpo") == drawn[0]  # the first search is the one it always was
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(dict(spec.resolved)), encoding="utf-8")
    loaded = load_study(again)
    assert [arm.label for arm in loaded.arms] == labels and loaded.key == spec.key


def begun_runs(log: Path) -> int:
    """How many runs a study has begun, by its log."""
    return len(log.read_text().split()) if log.exists() else 0


def test_killed_at_random_moments_it_ends_with_exactly_its_budget(tmp_path):
    spec = study(tmp_path)
    calm = play(spec, tmp_path / "calm")
    command = [
        sys.executable,
        "-m",
        "tests.sweep.study_fake",
        str(tmp_path / "study.yaml"),
        str(tmp_path / "out"),
        "0.02",
    ]
    moments, kills, trained = random.Random(5), 5, tmp_path / "out" / "known" / "trained.log"
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True, cwd=ROOT)
        until = begun_runs(trained) + moments.randint(1, 4)
        while process.poll() is None and begun_runs(trained) < until:
            time.sleep(moments.uniform(0.001, 0.02))
        assert process.poll() is None, "the study ended before the kill"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "out" / "known"
    ledger = Ledger(folder, spec.key)
    assert ledger.arms == calm.arms, "what was killed in between leaves no trace in the trials"
    held = stored(storage_url(spec, folder))
    assert {name: len(trials) for name, trials in held.items()} == {"known.dpo": 12, "known.orpo": 12}
    assert all(state == "COMPLETE" for trials in held.values() for state, _ in trials)
    runs = {item.key for item in all_runs(spec, ledger)}
    assert len(list(folder.glob("*/result.json"))) == len(runs) == len({p.name[:8] for p in folder.glob("*-*/")})
    begun = Counter((folder / "trained.log").read_text().split())
    assert set(begun) == runs and sum(n - 1 for n in begun.values()) <= kills, "at most the run in hand is made again"
    assert {item.role for item in all_runs(spec, ledger)} == {SEARCH, FRESH}
