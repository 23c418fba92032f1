"""Studies as specs: what is searched, what may be aimed at, and every mistake named before torch is loaded."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness.config.search_space import Choice, Range
from harness.config.study import StudySpec, load_study
from harness.metrics.registry import METRICS
from harness.study.files import report_split
from harness.types import InputError

BASE = {
    "name": "s",
    "world": {"kind": "mythworld"},
    "objectives": [{"name": "dpo"}],
    "corruptions": [{"kind": "uniform_flip", "rate": 0.3}],
    "training": {"steps": 10},
    "seeds": 3,
    "trials": 4,
    "targets": [{"measure": "ranking_accuracy"}],
}
RATE = {"low": 1e-5, "high": 1e-2, "log": True}


def load(folder: Path, **changes: object) -> StudySpec:
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in {**BASE, **changes}.items() if v is not None}), encoding="utf-8")
    return load_study(path)


def target(measure: str, **more: object) -> dict[str, object]:
    return {"targets": [{"measure": measure, **more}]}


# (changes, the key the line names, fragments it holds): one mistake, one line.
MISTAKES: list[tuple[dict[str, object], str, list[str]]] = [
    ({"trials": 0}, "trials", ["0", "[1, 10000]"]),
    ({"trials": None}, "trials", ["missing"]),
    ({"trials": "many"}, "trials", ["'many'", "an integer"]),
    ({"round": 0}, "round", ["[1, 10000]"]),
    ({"trails": 3}, "trails", ["unknown key", "did you mean 'trials'?"]),
    ({"also": []}, "also", ["cannot be overridden"]),
    ({"fresh_seeds": [2, 3]}, "fresh_seeds", ["[2] already used by the search"]),
    ({"report": {"texts": "all"}}, "report.texts", ["'all'", "none, ids, short, full"]),
    ({"fresh_seeds": -1}, "fresh_seeds", ["-1", "a count"]),
    ({"fresh_seeds": [7, 7]}, "fresh_seeds", ["different"]),
    # the space
    ({"objectives": [{"name": "dpo", "beta": 2}]}, "objectives.0", ["nothing to search", "low: 0.05"]),
    ({"objectives": [{"name": "dpo", "beta": {"low": 0, "high": 1, "log": True}}]}, "objectives.0.beta",
     ["log range cannot reach 0", "log: false"]),
    ({"objectives": [{"name": "dpo", "beta": {"low": 2, "high": 2}}]}, "objectives.0.beta", ["is empty", "low < high"]),
    ({"objectives": [{"name": "dpo", "beta": {"low": 3, "high": 2}}]}, "objectives.0.beta", ["3 to 2 is empty"]),
    ({"objectives": [{"name": "dpo", "beta": {"low": 1}}]}, "objectives.0.beta.high", ["missing"]),
    ({"objectives": [{"name": "dpo", "beta": {"low": 1, "high": 2, "logg": True}}]}, "objectives.0.beta.logg",
     ["unknown key", "did you mean 'log'?"]),
    ({"objectives": [{"name": "dpo", "beta": {"low": 1, "high": "x"}}]}, "objectives.0.beta.high", ["'x'"]),
    ({"objectives": [{"name": "dpo", "beta": []}]}, "objectives.0.beta", ["empty list"]),
    ({"objectives": [{"name": "robust_dpo", "eps": {"low": 0.1, "high": 0.6}}]}, "objectives.0.eps.1",
     ["0.6", "[0, 0.5)"]),
    ({"objectives": [{"name": "simp"}]}, "objectives.0.name", ["did you mean 'simpo'?"]),
    ({"objectives": [{"name": ["dpo", "ipo"]}]}, "objectives.0.name", ["expected one name"]),
    ({"objectives": [{"name": "orpo", "gama": "search"}]}, "objectives.0.gama", ["no hyperparameter 'gama'"]),
    ({"objectives": [{"name": "dpo", "beta": 2}], "training": {"warmup_steps": "search"}}, "training.warmup_steps",
     ["no range is known"]),
    ({"training": {"learning_rate": {"low": 0, "high": 1, "log": True}}}, "training.learning_rate", ["log range"]),
    ({"training": {"learning_rate": {"low": 1, "high": 20}}}, "training.learning_rate.1", ["20", "(0, 10]"]),
    ({"search": {"tua": RATE}}, "search.tua", ["no objective here", "did you mean 'tau'?"]),
    ({"search": 5}, "search", ["not a mapping"]),
    ({"world": {"kind": "mythworld", "misaligned": [0, 0.5]}}, "world.misaligned", ["a study fixes it"]),
    ({"corruptions": [{"kind": "uniform_flip", "rate": [0.1, 0.3]}]}, "corruptions", ["a study fixes it"]),
    ({"objectives": [{"name": "ppo"}]}, "objectives.0.name", ["cannot be tuned in a study"]),
    ({"objectives": [{"name": "reward_model"}, {"name": "dpo"}]}, "objectives.0.name", ["cannot be tuned"]),
    # targets: each refusal has its reason
    ({"targets": None}, "targets", ["at least one", "ranking_accuracy"]),
    ({"targets": []}, "targets", ["at least one"]),
    ({"targets": [{"split": "test"}]}, "targets.0.measure", ["missing"]),
    ({"targets": ["ranking_accuracy"]}, "targets.0", ["not a mapping"]),
    (target("loss"), "targets.0.measure", ["a loss", "its own scale"]),
    (target("eval_loss", direction="minimize"), "targets.0.measure", ["a loss", "its own scale"]),
    (target("base_loss"), "targets.0.measure", ["a loss"]),
    (target("implicit_margin_mean"), "targets.0.measure", ["scaled by beta"]),
    (target("ece"), "targets.0.measure", ["scaled by beta"]),
    (target("violation_rate"), "targets.0.measure", ["scaled by beta"]),
    (target("train_loss_last"), "targets.0.measure", ["training"]),
    (target("rewards/accuracies"), "targets.0.measure", ["training"]),
    (target("memorised_flip_rate"), "targets.0.measure", ["training pairs"]),
    (target("clean_ranking_accuracy"), "targets.0.measure", ["training pairs"]),
    (target("lm_eval/task/acc"), "targets.0.measure", ["is not evaluated", "lm_eval: {tasks: [task]}"]),
    (target("frac_ref_below_gamma", direction="maximize"), "targets.0.measure", ["gamma", "does not produce"]),
    (target("ref_accuracy", direction="maximize"), "targets.0.measure", ["the same for every trial"]),
    (target("reference_gold_reward"), "targets.0.measure", ["the same for every trial"]),
    (target("vacuous_rate", direction="minimize"), "targets.0.measure", ["the same for every trial"]),
    (target("ranking_acuracy"), "targets.0.measure", ["unknown measure", "did you mean 'ranking_accuracy'?"]),
    (target("ranking_accuracy", direction="minimize"), "targets.0.direction", ["better up", "expected maximize"]),
    (target("ranking_accuracy", direction="sideways"), "targets.0.direction", ["'sideways'", "maximize, minimize, up"]),
    (target("kl"), "targets.0.direction", ["has no direction of its own"]),
    (target("ranking_accuracy", split="validation"), "targets.0.split", ["'validation'", "did you mean"]),
    (target("gold_reward", split="validation_observed"), "targets.0.split", ["carry no labels"]),
    ({**target("ranking_accuracy", split="ood"), "evaluation": {"ood": 0}}, "targets.0.split", ["produces no such"]),
    ({**target("gold_reward"), "evaluation": {"samples": 0}}, "targets.0.measure", ["samples is 0"]),
    ({**target("ranking_accuracy", split="validation_observed"), "corruptions": [{"kind": "truncate", "rate": 0.3}]},
     "targets.0.split", ["changes text", "validation_clean"]),
    ({**target("ranking_accuracy", split="validation_observed"), "corruptions": [{"kind": "ref_shift"}]},
     "targets.0.split", ["changes rows"]),
    ({"targets": [{"measure": "auc"}, {"measure": "auc"}]}, "targets", ["given twice"]),
    # constraints
    ({"constraints": [{"measure": "kl"}]}, "constraints.0", ["exactly one of at_most and at_least"]),
    ({"constraints": [{"measure": "kl", "at_most": 1, "at_least": 0}]}, "constraints.0", ["exactly one"]),
    ({"constraints": [{"measure": "loss", "at_most": 1}]}, "constraints.0.measure", ["a loss"]),
    ({"constraints": [{"measure": "kl", "at_mots": 1}]}, "constraints.0.at_mots", ["did you mean 'at_most'?"]),
    ({"constraints": {"measure": "kl", "at_most": 1}}, "constraints", ["not a list"]),
    # sampler, pruner, budget, storage
    ({"sampler": "annealing"}, "sampler.kind", ["'annealing'", "tpe"]),
    ({"sampler": {"kind": "tpe", "startup_trials": 0}}, "sampler.startup_trials", ["0", "[1, 10000]"]),
    ({"sampler": {"sed": 1}}, "sampler.sed", ["did you mean 'seed'?"]),
    ({"sampler": 3}, "sampler", ["not a mapping"]),
    ({"pruner": "median", "seeds": 1}, "pruner", ["at least 2 seeds"]),
    ({"pruner": "wilcoxon"}, "pruner", ["would never prune", "more seeds"]),
    ({"pruner": "median", "targets": [{"measure": "auc"}, {"measure": "gold_reward"}]}, "pruner", ["no order"]),
    ({"budget": {"tokens": 0}}, "budget.tokens", ["0", "an integer in (0, inf)"]),
    ({"budget": {"hours": 1}}, "budget.hours", ["unknown key"]),
    ({"storage": "journal.log"}, "storage", ["'journal.log'", "sqlite"]),
    ({"storage": "redis://here"}, "storage", ["redis"]),
    ({"storage": 5}, "storage", ["5"]),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "key", "fragments"), MISTAKES, ids=[f"{n}-{m[1]}" for n, m in enumerate(MISTAKES)])
def test_each_mistake_is_one_line_with_its_place(tmp_path, changes, key, fragments):
    with pytest.raises(InputError) as refused:
        load(tmp_path, **changes)
    assert len(refused.value.problems) == 1, refused.value.problems
    line = refused.value.problems[0]
    place, _, rest = line.partition(" ")
    assert place.startswith(str(tmp_path / "s.yaml")) and rest.startswith(f"{key}: "), line
    assert all(fragment in line for fragment in fragments), line


def test_all_mistakes_are_named_at_once(tmp_path):
    with pytest.raises(InputError) as refused:
        load(tmp_path, trials=0, sampler="x", constraints=[{"measure": "kl"}], **target("loss"))
    assert len(refused.value.problems) == 4


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [(target("loss"), "a loss"), ({"trials": 0}, "trials: 0"), ({"training": {"learning_rate": "x"}}, "'x'")],
)
def test_a_mistake_exits_2_without_torch_or_optuna_and_trains_nothing(tmp_path, changes, fragment):
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({**BASE, **changes}), encoding="utf-8")
    script = (
        "import sys; from harness.cli import run; code = run(['study', 's.yaml', '--out', 'runs']);"
        "assert not {'torch', 'optuna'} & set(sys.modules), 'imported too much'; sys.exit(code)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and fragment in done.stderr, done.stdout + done.stderr
    assert not (tmp_path / "runs").exists()


def test_mlflows_database_is_refused_as_storage(tmp_path, monkeypatch):
    from harness.cli import run

    out = tmp_path / "runs"
    foreign = tmp_path / "elsewhere.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("create table experiments (id)")
        connection.execute("create table runs (id)")
    connection.close()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://u:secret@host/mlflow")
    for url in (f"sqlite:///{out / 'mlflow.db'}", f"sqlite:///{foreign}", "postgresql://u:secret@host/mlflow"):
        path = tmp_path / "s.yaml"
        path.write_text(yaml.safe_dump({**BASE, "storage": url}), encoding="utf-8")
        assert run(["study", str(path), "--out", str(out)]) == 2
    assert not list(out.glob("*/*")) if out.exists() else True


def test_a_password_in_the_storage_is_refused_and_not_repeated(tmp_path):
    path = tmp_path / "s.yaml"
    url = "postgresql+psycopg2://u:hunter2@host/optuna"
    path.write_text(yaml.safe_dump({**BASE, "storage": url}), encoding="utf-8")
    with pytest.raises(InputError, match="PGPASSWORD") as refused:
        load_study(path)
    assert "hunter2" not in str(refused.value)


def test_a_sweep_spec_points_to_the_verb_and_a_sweeps_folder_is_left_alone(tmp_path, capsys):
    from harness.cli import run

    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(BASE), encoding="utf-8")
    assert run(["sweep", str(path)]) == 2 and "harness study" in capsys.readouterr().err
    (tmp_path / "runs" / "s").mkdir(parents=True)
    (tmp_path / "runs" / "s" / "plan.json").write_text("{}")
    assert run(["study", str(path), "--out", str(tmp_path / "runs")]) == 2
    assert "holds a sweep" in capsys.readouterr().err


def test_the_space_comes_from_entry_world_and_registry(tmp_path):
    spec = load(
        tmp_path,
        objectives=[
            {"name": "dpo"},
            {"name": "ipo", "beta": {"low": 0.01, "high": 1, "log": True}},
            {"name": "simpo", "gamma_ratio": "search"},
            {"name": "robust_dpo", "beta": 2, "eps": {"low": 0, "high": 0.4}},
            {"name": "cpo_smooth", "reduction": "sum", "gamma": [0.5, 1.0], "tau": 2, "alpha": 1},
            {"name": "orpo", "lam": "search"},
            {"name": "dpo", "beta": {"low": 1, "high": 2}},
        ],
        training={"steps": 10, "learning_rate": RATE, "batch_size": {"low": 8, "high": 32}},
    )
    spaces = {arm.label: dict(arm.space) for arm in spec.arms}
    training = {"training.learning_rate": Range(1e-5, 1e-2, True), "training.batch_size": Range(8, 32, False, True)}
    assert spaces["dpo"] == {"beta": Range(0.05, 10, True), **training}
    assert spaces["ipo"] == {"beta": Range(0.01, 1, True), **training}
    assert spaces["simpo"] == {"beta": Range(0.5, 20, True), "gamma_ratio": Range(0, 1), **training}
    assert spaces["robust_dpo"] == {"eps": Range(0, 0.4), **training}
    assert spaces["cpo_smooth"] == {"beta": Range(0.05, 10, True), "gamma": Choice((0.5, 1.0)), **training}
    assert spaces["orpo"] == {"lam": Range(0.05, 0.5, True), **training}
    assert spaces["dpo-2"] == {"beta": Range(1, 2, True), **training}
    run = spec.run(
        spec.arms[4], {"beta": 0.7, "gamma": 0.5, "training.learning_rate": 3e-4, "training.batch_size": 8}, 5
    )
    assert (run.seed, run.training.learning_rate, run.training.batch_size) == (5, 3e-4, 8)
    assert dict(run.objective.hyperparameters) == {
        "beta": 0.7, "gamma": 0.5, "tau": 2.0, "alpha": 1.0, "reduction": "sum", "rpo_alpha": 0.0,
    }  # fmt: skip


def test_search_gives_every_objective_the_same_range_unless_it_has_its_own(tmp_path):
    own = {"low": 1, "high": 2, "log": False}
    spec = load(tmp_path, objectives=[{"name": "dpo"}, {"name": "hinge", "beta": own}],
                search={"beta": {"low": 0.2, "high": 4, "log": True}, "learning_rate": "search"})  # fmt: skip
    assert [arm.space["beta"] for arm in spec.arms] == [Range(0.2, 4, True), Range(1, 2, False)]
    assert all(arm.space["training.learning_rate"] == Range(1e-5, 1e-2, True) for arm in spec.arms)


def test_the_resolved_study_loads_to_the_same_study(tmp_path):
    spec = load(
        tmp_path,
        objectives=[{"name": "dpo"}, {"name": "cpo_smooth", "reduction": "sum", "gamma": [0.5, 1.0]}],
        training={"steps": 10, "learning_rate": RATE},
        constraints=[{"measure": "kl", "at_most": 4.0}],
        sampler={"kind": "random", "seed": 3},
        pruner="median",
        budget={"tokens": 10_000},
    )
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(dict(spec.resolved), sort_keys=False), encoding="utf-8")
    loaded = load_study(again)
    assert loaded.key == spec.key and loaded.resolved == spec.resolved


def test_what_may_steer(tmp_path):
    """Every measure of the table either steers a study of several betas or is refused: none slips through untold."""
    accepted = {}
    for name, row in METRICS.items():
        for split in ("validation_clean", "validation_observed", "ood", "test"):
            direction = {"direction": "maximize"} if row.direction == "none" else {}
            try:
                load(tmp_path, **target(name, split=split, **direction))
                accepted.setdefault(name, set()).add(split)
            except InputError as error:
                assert len(error.problems) == 1
    assert accepted["ranking_accuracy"] == {"validation_clean", "validation_observed", "ood", "test"}
    assert accepted["gold_reward"] == accepted["kl"] == {"validation_clean", "ood", "test"}
    assert {"undesirable_zone", "chosen_displacement", "correct"} <= set(accepted)
    assert all(METRICS[name].beta_neutral for name in accepted)
    assert not accepted.keys() & {"loss", "base_loss", "implicit_margin_mean", "memorised_flip_rate", "ece"}


def test_a_loss_may_steer_where_it_has_one_scale(tmp_path):
    fixed = {"objectives": [{"name": "dpo", "beta": 2}], "training": {"steps": 10, "learning_rate": RATE}}
    spec = load(tmp_path, **fixed, **target("loss", direction="minimize"))
    assert spec.targets[0].measure == "loss"
    with pytest.raises(InputError, match="its own scale"):
        load(tmp_path, **{**fixed, "objectives": [{"name": "dpo"}]}, **target("loss", direction="minimize"))


def test_what_the_report_shows_of_texts_changes_no_trial(tmp_path):
    asked, plain = load(tmp_path, report={"texts": "none"}), load(tmp_path)
    assert (asked.report.texts, plain.report.texts) == ("none", "full") and asked.key == plain.key
    assert asked.resolved["report"] == {"texts": "none", "upload_texts": False}


def test_a_benchmark_may_be_aimed_at_where_it_is_evaluated(tmp_path):
    evaluation = {"keep": "final", "lm_eval": {"tasks": ["arc_easy"], "limit": 50}}
    goal = {"measure": "lm_eval/arc_easy/acc", "direction": "maximize"}
    spec = load(tmp_path, evaluation=evaluation, targets=[goal], constraints=[{"measure": "kl", "at_most": 3.0}])
    assert (spec.targets[0].measure, spec.targets[0].split) == ("lm_eval/arc_easy/acc", "downstream")
    assert spec.lm_eval is not None and spec.lm_eval.tasks == ("arc_easy",) and report_split(spec) == "downstream"
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(dict(spec.resolved), sort_keys=False), encoding="utf-8")
    assert load_study(again).lm_eval == spec.lm_eval and load_study(again).targets[0] == spec.targets[0]


@pytest.mark.parametrize(
    ("goal", "lm_eval", "why"),
    [
        ({"measure": "lm_eval/arc_easy/acc", "direction": "maximize"}, None, "is not evaluated"),
        ({"measure": "lm_eval/arc_easy/acc", "direction": "maximize"}, {"tasks": ["piqa"]}, "is not evaluated"),
        ({"measure": "lm_eval/arc_easy", "direction": "maximize"}, {"tasks": ["arc_easy"]}, "lm_eval/<task>/<metric>"),
        ({"measure": "lm_eval/arc_easy/acc"}, {"tasks": ["arc_easy"]}, "expected maximize or minimize"),
        ({"measure": "lm_eval/preference/acc", "direction": "maximize"}, {"tasks": ["preference"]}, "test half"),
        (
            {"measure": "lm_eval/arc_easy/acc", "direction": "maximize"},
            {"tasks": ["arc_easy"], "runs": "best"},
            "runs: all",
        ),
        (
            {"measure": "lm_eval/arc_easy/acc", "direction": "maximize", "split": "test"},
            {"tasks": ["arc_easy"]},
            "has no split",
        ),
    ],
)
def test_a_benchmark_that_cannot_steer_is_refused(tmp_path, goal, lm_eval, why):
    evaluation = {"keep": "final", **({"lm_eval": lm_eval} if lm_eval else {})}
    with pytest.raises(InputError, match=why) as error:
        load(tmp_path, evaluation=evaluation, targets=[goal])
    assert len(error.value.problems) == 1
