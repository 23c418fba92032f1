"""A study's report from planted files: hand arithmetic of winners, differences and regret; rules that disagree."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.identity import content_hash
from harness.report.study.findings import breaches, rescue_sentence, selections, tuned_differences
from harness.report.study.page import write_study_report
from harness.report.study.study import Study, read_study
from harness.report.study.tables import edges, paid_table
from harness.storage import runs as store
from harness.storage.atomic import write_json
from harness.types import InputError

MEASURE = "delta_mean"  # no share: its intervals are Student's t alone, which a hand can check
SECOND = "cpo_smooth search 2"
SEEDS, FRESH, STEPS = (0, 1), (2, 3, 4, 5, 6, 7), (0, 5, 10)
SPACE = {"beta": {"low": 0.1, "high": 10.0, "log": True, "integer": False},
         "training.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True, "integer": False}}  # fmt: skip

# Score of an (arm, trial) by split at steps 5 and 10: each selection rule has another favourite in arm dpo.
DPO: dict[int, dict[str, tuple[float, float]]] = {
    0: {"validation_clean": (0.1, 0.9), "validation_observed": (0.1, 0.2), "test": (0.2, 0.8)},
    1: {"validation_clean": (0.95, 0.3), "validation_observed": (0.3, 0.4), "test": (0.85, 0.4)},
    2: {"validation_clean": (0.2, 0.6), "validation_observed": (0.9, 0.5), "test": (0.1, 0.5)},
}
RIVAL: dict[int, dict[str, tuple[float, float]]] = {
    n: dict.fromkeys(("validation_clean", "validation_observed", "test"), (0.4, 0.5 + n / 10)) for n in range(3)
}


def plant(
    folder: Path,
    gap: float = -0.3,
    fresh: tuple[int, ...] = FRESH,
    gold: float | None = None,
    again: float | None = None,
    kl: dict[str, float] | None = None,
    **about: Any,
) -> Path:
    """A study of dpo and <cpo_smooth>, three trials each; on fresh seeds dpo's winner is `gap` from its rival's.

    With `again` the rival is searched a second time, whose winner is that far from the first one's, in reward by as
    much; `kl` is each search's KL on fresh validation pairs.
    """
    rivals = ("cpo_smooth", SECOND) if again is not None else ("cpo_smooth",)
    folder.mkdir(exist_ok=True)
    runs: list[dict[str, Any]] = []
    scores: list[tuple[str, int, str, str, float]] = []
    trials = []
    for arm, table, winner in (("dpo", DPO, 0), *((rival, RIVAL, 2) for rival in rivals)):
        moved = again if arm == SECOND and again is not None else 0.0
        for number, splits in table.items():
            keys: dict[str, list[str]] = {"runs": [], "fresh": []}
            for role, seeds in (("runs", SEEDS), ("fresh", fresh if number == winner else ())):
                for seed in seeds:
                    key = content_hash([arm, number, seed])
                    keys[role].append(key)
                    runs.append({"run_key": key, "name": f"{arm} {number} {seed}", "config": config(arm, number, seed)})
                    paid = {} if gold is None else {"gold_reward": gold + moved + 0.01 * seed, "kl": 20.0 + seed}
                    if kl is not None and role == "fresh":
                        scores.append((key, 10, "validation_clean", "kl", kl[arm] + 0.1 * (seed % 2)))
                    commit(folder, runs[-1], {**paid, "reference_gold_reward": 0.5} if paid else None)
                    for split, values in splits.items():
                        for step, value in zip((5, 10), values, strict=True):
                            shift = (seed % 2) * 0.02 - 0.01
                            if role == "fresh":
                                value = 0.6 + moved + (gap if arm == "dpo" else 0.0)
                                shift = 0.01 * seed + (0.005 * (-1) ** seed if arm == "dpo" else 0.0)
                            scores.append((key, step, split, MEASURE, value + shift))
            trials.append({
                "arm": arm, "number": number, "params": {"beta": 0.1 * 4**number, "training.learning_rate": 1e-4},
                "state": "COMPLETE", "values": [splits["validation_clean"][1]], "constraints": [], "intermediate": [],
                "reason": "", "winner": number == winner, **keys,
            })  # fmt: skip
    trials.append({**trials[0], "number": 3, "state": "FAIL", "values": [], "winner": False, "runs": [], "fresh": [],
                   "reason": "seed 1 has no finite <delta>"})  # fmt: skip
    value = {
        "name": "planted", "question": "Does <tuning> rescue DPO?", "key": "k" * 64, "seeds": list(SEEDS),
        "fresh_seeds": list(FRESH), "round": 3, "sampler": {"kind": "tpe", "seed": 0}, "sampler_seeds": 1,
        "pruner": {"kind": "none"}, "budget": {},
        "targets": [{"measure": MEASURE, "direction": "maximize", "split": "validation_clean"}],
        "constraints": [], "report_split": "test", "observed": "",
        "arms": [{"label": a, "objective": a.partition(" ")[0], "fixed": {"name": a}, "space": SPACE}
                 for a in ("dpo", *rivals)],
        "importance": {"dpo": {"beta": 0.9, "training.learning_rate": 0.1}}, "trials": trials, **about,
    }  # fmt: skip
    write_json(folder / "study.json", value)
    write_json(folder / "plan.json", {"name": "planted", "question": "", "notes": [], "runs": runs})
    texts = ((0, "run_key"), (2, "split"), (3, "measure"))
    columns = {name: np.array([row[i] for row in scores], dtype=object) for i, name in texts}
    store.write_table(folder / "scores.parquet", {
        **columns,
        "step": np.array([row[1] for row in scores], np.int32),
        "value": np.array([row[4] for row in scores]),
        "items": np.full(len(scores), 100, np.int32),
    })  # fmt: skip
    return folder


def config(arm: str, number: int, seed: int) -> dict[str, Any]:
    return {
        "objective": {"name": arm, "hyperparameters": [["beta", 0.1 * 4**number]]},
        "corruption": {"kind": "uniform_flip", "rate": 0.3, "params": []},
        "training": {"steps": 10, "learning_rate": 1e-4}, "evaluation": {}, "seed": seed,
        "world": {"kind": "mythworld", "misaligned": 0.5, "labels": "hard"}, "data": None, "model": None,
        "device": "cpu",
    }  # fmt: skip


def commit(folder: Path, run: dict[str, Any], results: dict[str, Any] | None = None) -> None:
    place, _ = store.open_run(folder, run["run_key"], run["name"])
    costs = {"tokens": 1000, "seconds": 2.0}
    result = {
        "run_key": run["run_key"],
        "status": "done",
        "steps": 10,
        "results": results or {},
        "costs": costs,
        "t0_ms": 0,
    }
    store.commit(place, {**result, "config": run["config"], "name": run["name"]})


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return read_study(plant(tmp_path_factory.mktemp("planted")))


def test_the_tuned_difference_by_hand(study):
    """dpo minus its rival on six fresh seeds: -0.3 + 0.005 (-1)^seed, so mean -0.3 and sd 0.005 sqrt(6 / 5)."""
    [found] = tuned_differences(study)
    half = 2.5706 * 0.005 * math.sqrt(6 / 5) / math.sqrt(6)  # t of 5 degrees of freedom at 97.5 %
    assert (found.one, found.other, found.plain.n, found.word) == ("dpo", "cpo_smooth", 6, "worse")
    assert found.plain.mean == pytest.approx(-0.3)
    assert (found.plain.low, found.plain.high) == pytest.approx((-0.3 - half, -0.3 + half), abs=1e-6)
    assert found.p == pytest.approx(2 / 2**6)
    assert "does not rescue dpo" in rescue_sentence(study, [found])


@pytest.mark.parametrize(("gap", "word", "says"), [(0.3, "better", "even better"), (0.0, "no difference shown", "No")])
def test_the_answer_follows_the_numbers(tmp_path, gap, word, says):
    found = read_study(plant(tmp_path, gap))
    [difference] = tuned_differences(found)
    assert difference.word == word and says in rescue_sentence(found, [difference])


def test_missing_fresh_runs_are_never_put_in(tmp_path):
    [few] = tuned_differences(read_study(plant(tmp_path / "few", fresh=FRESH[:5])))
    assert (few.plain.n, few.word, few.p) == (5, "interval only", None)
    more = (*FRESH, 8, 9)
    [part] = tuned_differences(read_study(plant(tmp_path / "part", fresh_seeds=list(more))))
    assert (part.plain.n, part.word) == (6, "incomplete")


class Searched:
    """What `tuned_differences` reads of a study whose objectives were searched twice."""

    baseline, maximize, measure = "dpo", True, MEASURE

    def __init__(self) -> None:
        self.about = {"fresh_seeds": list(FRESH)}
        self.objectives = {name: (name, f"{name} search 2") for name in ("dpo", "cpo_smooth")}

    def by_search(self, objective):
        means, jitter = ((0.5, 0.7), 0.005) if objective == "dpo" else ((0.9, 0.9), 0.0)
        return {
            label: {seed: mean + 0.01 * seed + jitter * (-1) ** seed for seed in FRESH}
            for label, mean in zip(self.objectives[objective], means, strict=True)
        }


def test_intervals_hold_the_variation_between_searches():
    """Means of the searches .5 and .7 against twice .9: variance .02 / 2 = .01 with 1 + 1 degrees of freedom, which is
    nearly all there is."""
    [found] = tuned_differences(Searched())
    half = 4.3027 * 0.1  # t of 2 degrees of freedom at 97.5 %
    assert found.plain.mean == pytest.approx(-0.3) and found.p is None
    assert (found.plain.low, found.plain.high) == pytest.approx((-0.3 - half, -0.3 + half), abs=2e-3)
    assert found.word == "no difference shown"  # by the seeds alone it would be "worse"


def test_bounds_that_fresh_seeds_break_are_flagged(tmp_path):
    """On fresh seeds dpo's winner has mean .345, its rival's .645."""
    bound = {"measure": MEASURE, "split": "test", "at_most": 0.35, "at_least": None, "name": "delta <= 0.35"}
    found = read_study(plant(tmp_path / "bound", constraints=[bound]))
    assert [(b.arm, b.word) for b in breaches(found)] == [("dpo", "not shown to be kept"), ("cpo_smooth", "broken")]
    assert "Broken on fresh seeds: cpo_smooth delta <= 0.35: 0.645" in rescue_sentence(found, tuned_differences(found))
    page = write_study_report(found.folder).with_name("report.md").read_text(encoding="utf-8")
    assert "Bounds on fresh seeds" in page
    least = bound | {"at_most": None, "at_least": 0.3}
    assert {b.word for b in breaches(read_study(plant(tmp_path / "least", constraints=[least])))} == {"kept"}


def test_a_ranking_that_was_bought_is_called_so(tmp_path):
    """Fresh seeds 2 to 7: gold reward -1 + 0.01 seed has mean -0.955, KL 20 + seed has mean 24.5; the reference 0.5."""
    bought = read_study(plant(tmp_path / "bought", gold=-1.0))
    text = rescue_sentence(bought, tuned_differences(bought))
    assert "The ranking was bought" in text and "reference's 0.500" in text and "dpo −0.955 at a KL of 24.500" in text
    table = paid_table(bought)
    assert (
        table is not None
        and "kl at most 3" in table.note
        and [row[0].main for row in table.rows] == ["dpo", "cpo_smooth"]
    )
    fair = read_study(plant(tmp_path / "fair", gold=0.6))
    assert "bought" not in rescue_sentence(fair, tuned_differences(fair))


def test_without_gold_rewards_nothing_is_said_of_the_price(study):
    assert paid_table(study) is None and "bought" not in rescue_sentence(study, tuned_differences(study))


def test_a_winner_at_the_end_of_its_range_is_flagged(study):
    """dpo's winner has beta 0.1, the lower end of 0.1 to 10; its rival's 1.6 and both learning rates lie inside."""
    [edge], inside = edges(study, study.winner("dpo")), edges(study, study.winner("cpo_smooth"))
    assert edge == "beta at the lower end of its range" and inside == ()
    page = write_study_report(study.folder).with_name("report.md").read_text(encoding="utf-8")
    assert edge in page and "| inside |" in page and "figures/history.svg" in page


def test_each_selection_rule_pays_its_own_price(study):
    found = {s.rule: s for s in selections(study, "dpo")}
    best = 0.85  # trial 1, step 5, on test
    picks = {rule: (s.trial, s.step, round(s.test, 6), round(s.regret, 6)) for rule, s in found.items()}
    assert picks == {
        "clean validation, any checkpoint": (1, 5, 0.85, 0.0),
        "clean validation, last step": (0, 10, 0.8, round(best - 0.8, 6)),
        "noisy validation, any checkpoint": (2, 5, 0.1, round(best - 0.1, 6)),
        "noisy validation, last step": (2, 10, 0.5, round(best - 0.5, 6)),
    }


def test_the_report_is_whole_escaped_and_repeatable(study):
    page = write_study_report(study.folder)
    text = page.read_text(encoding="utf-8")
    assert (
        "Does &lt;tuning&gt; rescue DPO?" in text and "no finite &lt;delta&gt;" in text and text.count("<script") == 1
    )
    assert "unequal budgets of 3 and 4 trials of 2 seeds each" in text
    assert "The budgets are not equal" in text
    figures = sorted(path.stem for path in (page.parent / "figures").glob("*.svg"))
    assert figures == ["hero-winners", "history", "importance", "slices"], "too few trials for a contour, no front"
    first = {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()}
    write_study_report(study.folder)
    assert {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()} == first


def test_the_tables_hold_every_trial(study):
    write_study_report(study.folder)
    with (study.folder / "trials.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [(r["study"], r["trial"], r["state"]) for r in rows[:1]] == [("dpo", "0", "COMPLETE")]
    assert len(rows) == 7 and rows[-1]["state"] == "FAIL" and rows[-1][f"{MEASURE}.validation_clean"] == ""
    assert rows[0]["runs"] == "2" and float(rows[0]["tokens"]) == 2000
    with (study.folder / "report" / "tuned.csv").open(newline="") as handle:
        [tuned] = csv.DictReader(handle)
    assert (tuned["objective"], tuned["against"], tuned["verdict"]) == ("dpo", "cpo_smooth", "worse")
    assert float(tuned["difference"]) == pytest.approx(-0.3)


def test_no_study_no_report(tmp_path):
    with pytest.raises(InputError, match=r"no study[.]json here"):
        write_study_report(tmp_path)
