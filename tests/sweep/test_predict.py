"""`harness plan --predict`: written before the runs, kept once they exist, shown beside, refused where it fails."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from harness import api
from harness.cli import run
from harness.config.load import load_sweep
from harness.identity import run_key
from harness.sweep import progress
from harness.sweep.predict import why_not
from harness.types import InputError

SPEC = {
    "name": "ahead",
    "world": {
        "kind": "mythworld", "version": 1, "misaligned": 0.75, "pairs": 128,
        "pretrain_steps": 60, "pretrain_batch": 32, "sft_steps": 40, "sft_batch": 32,
    },
    "objectives": [{"name": "dpo", "beta": [0.1, 5]}, {"name": "kto", "beta": 2}],
    "corruptions": [
        {"kind": "none"}, {"kind": "uniform_flip", "rate": 0.4}, {"kind": "adversarial_hard", "rate": 0.2},
        {"kind": "length_biased"},
    ],
    "seeds": 2,
    "training": {"steps": 30, "batch_size": 8, "learning_rate": 5e-4},
    "evaluation": {"checkpoints": 2, "heldout": 64, "probe": 16, "ood": 0, "samples": 0},
    "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def ahead(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, api.Plan]:
    """The spec, the folder that it runs in, and the plan with its prediction, made before any run."""
    root = tmp_path_factory.mktemp("ahead")
    spec = root / "spec.yaml"
    spec.write_text(yaml.safe_dump(SPEC), encoding="utf-8")
    return spec, root / "runs", api.plan(spec, out=root / "runs", predict=True)


def test_it_is_written_before_the_runs_and_says_what_it_does_not_predict(ahead):
    _, out, plan = ahead
    folder = out / "ahead"
    content = json.loads((folder / "prediction.json").read_text())
    assert not list(folder.glob("*/result.json"))
    assert content["finished_before"] == 0
    rows = pd.DataFrame(content["predictions"])
    assert plan.facts["predictions"] == content["predictions"]
    assert set(rows.run_key) == set(plan.run_keys)
    said = rows[rows.ranking_accuracy.notna()]
    assert ((said.low <= said.ranking_accuracy) & (said.ranking_accuracy <= said.high)).all()
    assert set(said.objective) == {"dpo"}
    assert set(said.corruption) == {"none", "uniform_flip"}
    refused = rows[rows.ranking_accuracy.isna()]
    assert refused[["low", "high"]].isna().all(axis=None)
    assert refused.reason.str.len().min() > 0
    assert "known to fail" in refused[refused.objective == "dpo"].reason.iloc[0]
    assert "predicted 8 of 24 runs" in plan.text
    small = said[(said.beta == 0.1) & (said.corruption == "none")].ranking_accuracy.mean()
    assert small > said[(said.beta == 5) & (said.corruption == "uniform_flip")].ranking_accuracy.mean() + 0.05
    assert len(pd.read_csv(folder / "prediction.csv")) == 24
    assert {pilot["seed"] for pilot in content["pilots"]} == {0, 1}


def on_pairs(folder: Path) -> Path:
    """A spec on pairs of one's own, in a folder of this machine."""
    rows = [
        {"prompt": f"say {n}", "chosen": f"please {n} of {n % 7}", "rejected": f"no {n} of {n % 5}"} for n in range(60)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    spec = {name: value for name, value in SPEC.items() if name != "world"} | {
        "data": {"path": str(folder / "pairs.jsonl"), "max_length": 40},
        "model": {
            "vocab_size": 300,
            "hidden_size": 16,
            "layers": 1,
            "heads": 2,
            "intermediate_size": 16,
            "sft_steps": 5,
        },
        "objectives": [{"name": "dpo", "beta": [0.1, 5]}],
        "corruptions": [{"kind": "none"}, {"kind": "adversarial_hard", "rate": 0.2}],
        "evaluation": {"checkpoints": 2, "heldout": 10, "probe": 8, "samples": 0},
    }
    (folder / "own.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return folder / "own.yaml"


def test_pilots_show_their_progress_and_leave_no_place_of_this_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.0)
    words = ["plan", str(on_pairs(tmp_path)), "--out", str(tmp_path / "runs"), "--predict"]
    assert run(words) == 0
    said = capsys.readouterr()
    assert "training references: 1 of 2 models" in said.err
    assert re.search(r"pack 0 \(1 run\) step 5 of 25", said.err)
    assert re.search(r"1 of 2 pilots, .* left", said.err)
    assert "simulating the runs: " in said.err and "simulating" not in said.out
    files = [tmp_path / "runs" / "ahead" / f"prediction.{ending}" for ending in ("json", "csv")]
    assert not [file for file in files if str(tmp_path) in file.read_text()]
    content = json.loads(files[0].read_text())
    assert content["pilots"][0]["setting"]["data"]["sha256"]
    assert {row["run_key"] for row in content["predictions"]} == {run_key(one) for one in load_sweep(words[1]).runs}
    for option in ("--quiet", "--json"):
        assert run([*words, option]) == 0
        assert capsys.readouterr().err == ""


def test_the_report_shows_it_beside_the_runs_and_later_predictions_change_nothing(ahead):
    spec, out, plan = ahead
    folder = out / "ahead"
    before = (folder / "prediction.json").read_bytes()
    only = {"corruptions": [{"kind": "none"}], "seeds": 2, "objectives": [{"name": "dpo", "beta": [0.1, 5]}]}
    assert api.sweep(spec, out=out, overrides=only, engine="inline", quiet=True).ok
    assert (folder / "prediction.json").read_bytes() == before
    table = pd.read_csv(folder / "report" / "prediction.csv")
    assert list(table.beta) == [0.1, 5]
    results = pd.read_csv(folder / "results.csv")
    for _, row in table.iterrows():
        runs = results[results.beta == row.beta]
        said = [one for one in plan.facts["predictions"] if one["run_key"] in set(runs.run_key)]
        assert row.measured == pytest.approx(runs.ranking_accuracy.mean())
        assert row.predicted == pytest.approx(sum(one["ranking_accuracy"] for one in said) / 2)
    page = (folder / "report" / "report.md").read_text()
    assert "Was it predicted?" in page
    assert "No run of the sweep had ended by then" in page
    assert (folder / "report" / "figures" / "prediction.svg").is_file()
    again = api.plan(spec, out=out, predict=True)
    assert (folder / "prediction.json").read_bytes() == before
    assert again.facts["predictions"] == plan.facts["predictions"]

    # Another question under the same name: the prediction of the runs that have ended stays.
    with pytest.raises(InputError, match=r"prediction.json: predicts runs that have ended, none of them in this spec"):
        api.plan(spec, out=out, predict=True, overrides={"objectives": [{"name": "dpo", "beta": 3}]}, quiet=True)
    assert (folder / "prediction.json").read_bytes() == before

    (folder / "prediction.json").unlink()
    late = api.plan(spec, out=out, predict=True)
    assert "after 4 of them had ended" in late.text
    page = api.report(folder).page.with_name("report.md").read_text()
    assert "it is no prediction of those" in page


def test_a_file_that_is_no_prediction_is_named(ahead, tmp_path):
    spec, _, _ = ahead
    folder = tmp_path / "runs" / "ahead"
    folder.mkdir(parents=True)
    (folder / "prediction.json").write_text("{}")
    with pytest.raises(InputError, match=r"prediction.json: not a prediction; remove it"):
        api.plan(spec, out=tmp_path / "runs", predict=True)


@pytest.mark.parametrize(
    ("objective", "corruption", "said"),
    [
        ({"name": "cpo_dual"}, {"kind": "none"}, "single pairs"),
        ({"name": "ppo", "reward": "gold"}, {"kind": "none"}, "single pairs"),
        ({"name": "dpo"}, {"kind": "truncate", "fraction": 0.5, "rate": 0.5}, "more than labels"),
        ({"name": "dpo"}, {"kind": "adversarial_easy", "rate": 0.1}, "known to fail"),
        ({"name": "dpo"}, {"kind": "prompt_clustered", "rate": 0.1}, "known to fail"),
        ({"name": "cpo_smooth"}, {"kind": "uniform_flip", "rate": 0.4}, ""),
    ],
)
def test_where_it_does_not_apply(tmp_path, objective, corruption, said):
    spec = tmp_path / "spec.yaml"
    given = {"name": "one", "world": SPEC["world"], "objectives": [objective], "corruptions": [corruption]}
    spec.write_text(yaml.safe_dump(given), encoding="utf-8")
    reason = why_not(load_sweep(spec).runs[-1])
    assert said in reason
    assert bool(said) == bool(reason)


def test_new_facts_are_not_predicted_where_labels_are_mostly_noise(tmp_path):
    spec = tmp_path / "spec.yaml"
    flips = {"kind": "uniform_flip", "rate": [0.2, 0.3]}
    given = {"name": "two", "world": {"kind": "mythworld"}, "objectives": [{"name": "dpo"}], "corruptions": [flips]}
    spec.write_text(yaml.safe_dump(given), encoding="utf-8")
    few, many = (why_not(run) for run in load_sweep(spec).runs)
    assert few == "" and "version 2 of the world, where the model is known to fail" in many
