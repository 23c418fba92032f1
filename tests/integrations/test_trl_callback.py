"""`GeometryCallback` inside TRL's trainers: the trainer's own numbers, its training untouched, stops, processes."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.integrations.trl_world import pairs, save_model, trainer_of

# TRL and transformers warn of their own deprecations.
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parents[2]
HELD_OUT = 8
NAMES = (
    "ranking_accuracy", "undesirable_zone", "chosen_displacement", "rejected_displacement", "reward_accuracy",
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def callback(*args, **settings):
    from harness.integrations.trl import GeometryCallback

    return GeometryCallback(*args, **settings)


def train(kind: str, model: Path, out: Path, conversational: bool = False, watch: dict | None = None, **settings):
    """A trained trainer and the rows of the callback's file."""
    from harness.storage.logps_file import read_columns

    held_out = pairs(HELD_OUT, conversational, start=24)
    watcher = callback(held_out, **({"every": 3, "out": out} | (watch or {})))
    trainer = trainer_of(kind, model, out / "trainer", [watcher], pairs(24, conversational), held_out, **settings)
    trainer.train()
    return trainer, read_columns(watcher.out), watcher


def logged(trainer, name: str) -> dict[int, float]:
    return {line["step"]: line[name] for line in trainer.state.log_history if name in line}


def at(rows, step: int, split: str = "eval_clean"):
    from harness.metrics.records import where

    return where(rows, step, split)


CASES = {
    "dpo": ("dpo", {}),
    "dpo conversational": ("dpo", {"conversational": True}),
    "dpo accumulated": ("dpo", {"gradient_accumulation_steps": 3}),
    "dpo adapter": ("dpo", {"peft": True}),
    "dpo truncated": ("dpo", {"max_length": 24}),
    "dpo precomputed": ("dpo", {"precompute_ref_log_probs": True}),
    "kto": ("kto", {}),
    "kto conversational adapter": ("kto", {"conversational": True, "peft": True}),
    "cpo": ("cpo", {}),
    "cpo conversational adapter": ("cpo", {"conversational": True, "peft": True}),
    "simpo": ("cpo", {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.0}),
    "orpo": ("orpo", {}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_file_holds_what_the_trainer_logged(case: str, model: Path, tmp_path: Path) -> None:
    kind, settings = CASES[case]
    trainer, rows, _ = train(kind, model, tmp_path, **settings)
    beta = trainer.beta
    # CPOTrainer's simpo and ORPOTrainer log token means, and rewards of them without a reference.
    means, free = case in ("simpo", "orpo"), kind in ("cpo", "orpo")
    for step in (3, 6):
        now = at(rows, step)
        assert len(now["id"]) == HELD_OUT == len(set(now["id"]))
        sides = {}
        for side in ("chosen", "rejected"):
            policy, reference = now[f"policy_{side}"], now[f"reference_{side}"]
            scale = now[f"{side}_len"] if means else 1.0
            sides[side] = beta * (policy / scale if free else policy - reference)
            expected = {"logps": (policy / scale).mean(), "rewards": sides[side].mean()}
            for name, value in expected.items():
                theirs = logged(trainer, f"eval_{name}/{side}")[step]
                # A log-ratio is a difference of sums: it is as exact as they are.
                size = abs(value) if name == "logps" or free else beta * np.abs(policy).mean()
                assert math.isclose(theirs, value, abs_tol=1e-5 * size), (name, side, theirs, value)
        margin = sides["chosen"] - sides["rejected"]
        if kind != "kto":  # whose evaluation batches hold one side
            theirs = logged(trainer, "eval_rewards/margins")[step]
            assert math.isclose(
                theirs, margin.mean(), rel_tol=1e-5, abs_tol=1e-5 * beta * np.abs(now["policy_chosen"]).mean()
            )
            assert logged(trainer, "eval_rewards/accuracies")[step] == (margin > 0).mean()
    # Training moved the policy: an equality of zeros would show nothing.
    assert np.abs(at(rows, 6)["policy_chosen"] - at(rows, 6)["reference_chosen"]).max() > 0.01


@pytest.mark.parametrize("case", ["dpo adapter", "kto", "simpo"])
def test_what_is_logged_follows_from_the_file(case: str, model: Path, tmp_path: Path) -> None:
    from harness.metrics import METRICS

    kind, settings = CASES[case]
    trainer, rows, _ = train(kind, model, tmp_path, **settings, watch={"every": 2})
    for name in NAMES:
        points = logged(trainer, f"geometry/{name}")
        assert list(points) == [0, 2, 4, 6]
        for step, value in points.items():
            assert value == METRICS[name].compute(at(rows, step)), (name, step)
    assert set(rows) == {
        "id", "prompt_id", "policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected", "chosen_len",
        "rejected_len", "gold_margin", "split", "step", "policy",
    }  # fmt: skip
    # The reference is the start: here nothing has moved yet.
    assert np.abs(at(rows, 0)["policy_chosen"] - at(rows, 0)["reference_chosen"]).max() < 1e-4


LOSSES = {
    "sigmoid": {}, "robust": {"label_smoothing": 0.2}, "exo_pair": {"label_smoothing": 0.01}, "hinge": {}, "ipo": {},
    "nca_pair": {}, "sppo_hard": {}, "apo_zero": {}, "apo_down": {}, "discopop": {}, "sigmoid_norm": {},
}  # fmt: skip


def test_losses_behind_the_verdicts_are_the_trainers_own(model: Path, tmp_path: Path) -> None:
    """One trained policy, TRL's evaluation loss of each loss type against ours from the callback's file."""
    from harness.integrations.trl_trainers import objective_of
    from harness.objectives.foreign_logps import pair_losses

    trainer, rows, _ = train("dpo", model, tmp_path)
    for name, settings in LOSSES.items():
        trainer.loss_types = [name]
        for key, value in settings.items():
            setattr(trainer, key, value)
        ours = pair_losses(*objective_of(trainer, None), at(rows, 6))["base_loss"].mean()
        assert math.isclose(trainer.evaluate()["eval_loss"], ours, rel_tol=1e-5), name
    trainer.loss_types = ["sigmoid", "sft"]
    assert objective_of(trainer, None) is None


@pytest.mark.parametrize(("loss_type", "alpha"), [("simpo", 0.0), ("simpo", 0.3)])
def test_reference_free_losses_too(loss_type: str, alpha: float, model: Path, tmp_path: Path) -> None:
    from harness.integrations.trl_trainers import objective_of
    from harness.objectives.foreign_logps import pair_losses

    trainer, rows, _ = train("cpo", model, tmp_path, loss_type=loss_type, cpo_alpha=0.0, alpha=alpha, beta=2.0)
    ours = pair_losses(*objective_of(trainer, None), at(rows, 6))["base_loss"].mean()
    assert math.isclose(logged(trainer, "eval_loss")[6], ours, rel_tol=1e-5)


def test_training_is_the_same_with_and_without_it(model: Path, tmp_path: Path) -> None:
    def lines(trainer):
        return [
            {k: v for k, v in line.items() if "runtime" not in k and "per_second" not in k}
            for line in trainer.state.log_history
            if not any(name.startswith("geometry/") for name in line)
        ]

    with_it, _, _ = train("dpo", model, tmp_path / "with", watch={"every": 1})
    without = trainer_of("dpo", model, tmp_path / "without", [], pairs(24), pairs(HELD_OUT, start=24))
    without.train()
    assert lines(with_it) == lines(without)
    for mine, theirs in zip(with_it.model.parameters(), without.model.parameters(), strict=True):
        assert (mine == theirs).all()
    assert with_it.model.training == without.model.training


def test_a_run_that_goes_on_keeps_the_start_as_reference(model: Path, tmp_path: Path) -> None:
    from harness.types import InputError

    saving = {"save_strategy": "steps", "save_steps": 4, "watch": {"every": 2}}
    _, whole, _ = train("orpo", model, tmp_path, **saving)
    held_out, folder = pairs(HELD_OUT, start=24), tmp_path / "trainer"
    again = trainer_of(
        "orpo", model, folder, [callback(held_out, every=2, out=tmp_path)], pairs(24), held_out, **saving_only(saving)
    )
    again.train(resume_from_checkpoint=str(folder / "checkpoint-4"))
    from harness.storage.logps_file import read_columns

    resumed = read_columns(tmp_path / "pairs.parquet")
    assert sorted(set(resumed["step"])) == [0, 2, 4, 6]
    for step in (2, 4, 6):
        for name in ("reference_chosen", "policy_chosen"):
            np.testing.assert_allclose(at(resumed, step)[name], at(whole, step)[name], rtol=1e-5)
    lost = trainer_of("orpo", model, folder, [callback(held_out)], pairs(24), held_out, **saving_only(saving))
    with pytest.raises(InputError, match="give the `out` of the first attempt"):
        lost.train(resume_from_checkpoint=str(folder / "checkpoint-4"))


def test_the_log_of_an_earlier_run_is_kept(model: Path, tmp_path: Path) -> None:
    from harness.storage.logps_file import read_columns

    train("dpo", model, tmp_path, max_steps=1)
    before = (tmp_path / "pairs.parquet").read_bytes()
    train("dpo", model, tmp_path, max_steps=2)
    assert sorted(set(read_columns(tmp_path / "pairs.parquet")["step"])) == [0, 2]
    [kept] = tmp_path.glob("pairs-*.parquet")
    assert kept.read_bytes() == before


def saving_only(settings: dict) -> dict:
    return {name: value for name, value in settings.items() if name != "watch"}


def test_it_ends_training_on_a_verdict_asked_for(model: Path, tmp_path: Path) -> None:
    wild = {"learning_rate": 0.5, "max_steps": 20, "warmup_steps": 0}
    trainer, rows, _ = train("dpo", model, tmp_path / "asked", watch={"every": 2, "stop_on": {"collapse"}}, **wild)
    last = trainer.state.global_step
    assert last < 20 and logged(trainer, "geometry/collapse")[last] == 1.0
    assert set(rows["step"]) == set(range(0, last + 1, 2))
    trainer, _, _ = train("dpo", model, tmp_path / "unasked", watch={"every": 2, "stop_on": {"reversal"}}, **wild)
    assert trainer.state.global_step == 20 and 1.0 in logged(trainer, "geometry/collapse").values()


def planted(watcher, before: tuple, now: tuple, training: tuple | None = None, n: int = 40) -> dict[str, bool]:
    """Verdicts of a watcher over tables of `n` pairs: (delta_ref, delta at step 0), (.., delta now)."""
    from harness.integrations.trl import Probe

    def table(delta: np.ndarray, reference: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "id": np.arange(n).astype(str), "prompt_id": np.arange(n).astype(str), "step": None, "split": None,
            "policy_chosen": -20 + delta / 2, "policy_rejected": -20 - delta / 2,
            "reference_chosen": -20 + reference / 2, "reference_rejected": -20 - reference / 2,
            "chosen_len": np.full(n, 10), "rejected_len": np.full(n, 10),
        }  # fmt: skip

    splits = {"eval_clean": (before, now)} | ({"train_observed": training} if training else {})
    watcher.tables, watcher.probes = {}, {split: Probe([], {}) for split in splits}
    watcher.tie_tol, watcher.alpha, watcher.objective = 1e-4, 0.01, ("dpo", {"beta": 1.0})
    for split, (start, end) in splits.items():
        for step, delta in ((0, start), (5, end)):
            rows = table(np.array(delta), np.array(start))
            rows |= {"step": np.full(n, step), "split": np.full(n, split, dtype=object)}
            watcher.tables[split, step] = rows
    return watcher._verdicts(5)


def test_each_verdict_is_found_where_it_was_planted() -> None:
    watcher = callback(pairs(1))
    right, wrong = [1.0] * 40, [-4.0] * 40
    assert planted(watcher, right, [3.0] * 40) == {
        "collapse": False, "premature_convergence": False, "reversal": False,
    }  # fmt: skip
    # The loss of each pair is nearly spent while a quarter stays misranked.
    spent = planted(watcher, [1.0] * 30 + wrong[:10], [6.0] * 30 + [-0.5] * 10)
    assert spent["premature_convergence"] and not spent["reversal"]
    # Most pairs gain much, twelve of forty turn wrong: loss and accuracy fall together.
    turned = planted(watcher, [0.1] * 40, [0.1 + 9.0] * 28 + [-0.05] * 12)
    assert turned["reversal"] and not turned["collapse"]
    learned = planted(watcher, right, [-0.5] * 12 + [1.0] * 28, (([-1.0] * 40), [4.0] * 40))
    assert learned["memorised_noise"]
    assert not planted(watcher, right, [1.5] * 40, ([-1.0] * 40, [4.0] * 40))["memorised_noise"]


def test_rows_keep_what_they_are_known_by(model: Path, tmp_path: Path) -> None:
    from harness.identity import content_hash
    from harness.storage.logps_file import read_columns

    held_out = [{**row, "gold_margin": 0.5 + i, "source": "town"} for i, row in enumerate(pairs(2))]
    held_out += [held_out[0], {**pairs(3)[2], "id": "mine", "prompt_id": "p", "gold_margin": None, "source": "x"}]
    watcher = callback(held_out, out=tmp_path / "scores.parquet")
    trainer = trainer_of("dpo", model, tmp_path / "run-7", [watcher], pairs(12), pairs(4), max_steps=1)
    trainer.train()
    now = at(read_columns(tmp_path / "scores.parquet"), 1)
    first = held_out[0]
    whole = content_hash([first["prompt"], first["chosen"], first["rejected"]])
    assert now["id"].tolist() == [whole, now["id"][1], f"{whole}-2", "mine"]
    assert now["prompt_id"].tolist()[::3] == [content_hash(first["prompt"]), "p"]
    assert now["gold_margin"].tolist()[:3] == [0.5, 1.5, 0.5] and math.isnan(now["gold_margin"][3])
    assert now["source"].tolist() == ["town"] * 3 + ["x"] and set(now["policy"]) == {"run-7"}


def test_mistakes_are_named(model: Path, tmp_path: Path) -> None:
    from harness.types import InputError

    for settings, message in (
        ({"pairs": []}, "no pairs"),
        ({"pairs": [{"prompt": "a", "chosen": "b"}]}, "pair 1 has no 'rejected'"),
        ({"pairs": pairs(1), "every": 0}, "every must be at least 1"),
        ({"pairs": pairs(1), "stop_on": {"boredom"}}, "not boredom"),
    ):
        with pytest.raises(InputError, match=message):
            callback(**settings)
    for kind, settings, watch, message in (
        ("dpo", {"max_length": 4}, {}, "no pair is left"),
        ("kto", {}, {"stop_on": {"memorised_noise"}}, "unpaired"),
        ("dpo", {"loss_type": ["sigmoid", "sft"]}, {"stop_on": {"reversal"}}, "needs a loss of single pairs"),
    ):
        watcher = callback(pairs(2), **watch)
        max_length = settings.pop("max_length", None)
        trainer = trainer_of(kind, model, tmp_path, [watcher], pairs(12), pairs(4), **settings)
        if max_length:
            trainer.args.max_length = max_length
        with pytest.raises(InputError, match=message):
            trainer.train()


def test_two_processes_measure_what_one_does(model: Path, tmp_path: Path) -> None:
    from harness.storage.logps_file import read_columns

    script = Path(__file__).with_name("trl_processes.py")
    for processes, size in ((1, 4), (2, 2)):  # the same four pairs a step
        (out := tmp_path / str(processes)).mkdir()
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        words = [sys.executable, *launch, str(script), str(model), str(out), str(size)]
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (read_columns(tmp_path / str(n) / "pairs.parquet") for n in (1, 2))
    assert one["id"].tolist() == two["id"].tolist() and one["step"].tolist() == two["step"].tolist()
    for name in ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected"):
        np.testing.assert_allclose(one[name], two[name], rtol=1e-4)
    points = [json.loads((tmp_path / f"2/points-{rank}-of-2.json").read_text()) for rank in (0, 1)]
    assert points[0] == points[1] and [line["step"] for line in points[0]] == [0, 2, 4, 6]


def test_the_example_of_the_page_works(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's snippet, on the CPU and without a tracker, over a small model and pairs of the town."""
    page = (ROOT / "docs" / "trl-callback.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine").symlink_to(model)
    for name, start, number in (("train", 0, 24), ("held_out", 24, 8)):
        lines = [json.dumps(row) for row in pairs(number, start=start)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    shared = 'report_to="mlflow"'
    assert shared in snippet
    snippet = snippet.replace(shared, 'report_to="none", use_cpu=True, bf16=False')
    scope: dict = {}
    exec(compile(snippet, "docs/trl-callback.md", "exec"), scope)
    assert [name for line in scope["trainer"].state.log_history for name in line if name == "geometry/ranking_accuracy"]
    assert (tmp_path / "watched" / "pairs.parquet").exists()
    documented = set(re.findall(r"`(geometry/\w+)`", page))
    written = {name for line in scope["trainer"].state.log_history for name in line if name.startswith("geometry/")}
    assert written | {"geometry/memorised_noise", "geometry/nonfinite"} == documented


def test_trackers_get_every_point(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    trainer, _, _ = train("dpo", model, tmp_path, report_to=["mlflow"])
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([found.experiment_id for found in client.search_experiments()])
    for name in NAMES:
        points = {p.step: p.value for p in client.get_metric_history(run.info.run_id, f"geometry/{name}")}
        assert points == logged(trainer, f"geometry/{name}") and list(points) == [0, 3, 6]


def test_it_loads_nothing_that_trl_lacks() -> None:
    code = (
        "import sys, harness.integrations.trl\n"
        "names = {'mlflow', 'typer', 'optuna', 'lm_eval', 'matplotlib', 'harness.config', 'harness.data'}\n"
        "assert not names & set(sys.modules), names & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
