"""The embedded world end to end: one command to results, report and tracking; killed and repeated, nothing differs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from harness.storage.journal import read_journal
from harness.storage.runs import read_table
from harness.storage.verify import verify
from tests.commands import harness

TINY = {
    "name": "tiny",
    "question": "Does it run?",
    "world": {
        "kind": "mythworld", "version": 1, "misaligned": [0, 0.75], "pairs": 64,
        "pretrain_steps": 20, "pretrain_batch": 16, "sft_steps": 10, "sft_batch": 16,
    },
    "objectives": [{"name": "dpo", "beta": [0.5, 5]}, {"name": "ipo", "beta": 0.1}],
    "corruptions": [{"kind": "none"}, {"kind": "uniform_flip", "rate": 0.4}],
    "seeds": 2,
    "training": {"steps": 8, "batch_size": 8},
    "evaluation": {"checkpoints": 3, "heldout": 32, "probe": 32, "ood": 16, "samples": 16, "gradient_probe": 3},
    "device": "cpu",
}  # fmt: skip


def write(folder: Path, spec: dict) -> Path:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    """The sweep's folder after one undisturbed command."""
    root = tmp_path_factory.mktemp("undisturbed")
    done = harness("sweep", write(root, TINY), "--out", root / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "runs" / "tiny"


def test_every_run_is_done_and_every_file_is_whole(swept):
    results = pd.read_csv(swept / "results.csv")
    assert len(results) == 24 and set(results.status) == {"done"}
    assert results.run_key.is_unique and results.ranking_accuracy.between(0, 1).all()
    assert verify(swept) == []
    for result in swept.glob("*/result.json"):
        assert len(list(result.parent.iterdir())) <= 10
        assert result.parent.name.startswith(json.loads(result.read_text())["run_key"][:8])


def test_provenance_names_the_commit_and_the_data(swept):
    root = Path(__file__).resolve().parents[2]
    for path in swept.glob("*/provenance.json"):
        stated = json.loads(path.read_text())
        assert bool(stated["code"]["commit"]) == (root / ".git").exists()
        assert stated["run_key"][:8] == path.parent.name[:8] and stated["data"]["pairs"] == 64


def test_results_follow_from_the_records(swept):
    results = pd.read_csv(swept / "results.csv").set_index("run_key")
    for path in swept.glob("*/result.json"):
        row = results.loc[json.loads(path.read_text())["run_key"]]
        examples = pd.DataFrame(read_table(path.parent / "examples.parquet"))
        last = examples[(examples.step == examples.step.max()) & (examples.split == "eval_clean")]
        delta = last.policy_chosen - last.policy_rejected
        assert row.ranking_accuracy == pytest.approx((delta > 0).mean(), abs=1e-12)
        gain = delta - (last.reference_chosen - last.reference_rejected)
        assert row.undesirable_zone == pytest.approx(((delta < 0) & (gain > 1e-4)).mean(), abs=1e-12)
        first = examples[(examples.step == 0) & (examples.split == "train_observed")]
        assert row.train_loss_first == pytest.approx(first.loss.mean(), rel=1e-5)


def test_samples_stand_beside_the_references_own(swept):
    """One row a prompt with both answers; the reference's are the same in every run of a replicate and dial."""
    results = pd.read_csv(swept / "results.csv").set_index("run_key")
    answers: dict[tuple[float, int], list[pd.DataFrame]] = {}
    for path in swept.glob("*/samples.parquet"):
        row = results.loc[json.loads((path.parent / "result.json").read_text())["run_key"]]
        table = pd.DataFrame(read_table(path))
        assert table.split.value_counts().to_dict() == {"eval_clean": 16, "ood": 4}
        own = table[[name for name in table if str(name).startswith("reference_")]]
        answers.setdefault((row.misaligned, row.seed), []).append(own)
        evaluation = table[table.split == "eval_clean"]
        assert row.reference_gold_reward == pytest.approx(evaluation.reference_gold_reward.mean())
        assert row.entropy == pytest.approx(evaluation.entropy.mean()) and (table.entropy > 0).all()
        assert row.ood_gold_reward == pytest.approx(table[table.split == "ood"].gold_reward.mean())
        assert (table.hedged == table.response.str.split().map(lambda words: "maybe" in words)).all()
    assert len(answers) == 4
    assert all(own[0].equals(other) for own in answers.values() for other in own[1:])
    assert not answers[0.0, 0][0].equals(answers[0.75, 0][0])


def test_the_gradient_probe_is_stored_for_both_ends(swept):
    for path in swept.glob("*/probes.parquet"):
        probes, examples = pd.DataFrame(read_table(path)), pd.DataFrame(read_table(path.parent / "examples.parquet"))
        assert probes.groupby("step").id.apply(list).map(len).to_dict() == {0: 3, 8: 3}
        observed = examples[(examples.split == "train_observed") & (examples.step == 0)]
        assert probes[probes.step == 0].id.tolist() == observed.id.tolist()[:3]
        assert probes.grad_cos.between(-1, 1).all() and (probes[["grad_norm_w", "grad_norm_l"]] > 0).all().all()
    assert len(list(swept.glob("*/probes.parquet"))) == 24


def test_a_flip_turns_records_and_nothing_else(swept):
    results = pd.read_csv(swept / "results.csv")
    flipped = results[(results.corruption == "uniform_flip")].run_key
    for key in flipped[:4]:
        [folder] = swept.glob(f"{key[:8]}-*")
        examples = pd.DataFrame(read_table(folder / "examples.parquet"))
        probe = examples[(examples.step == 0) & (examples.split == "train_observed")]
        assert probe.corrupted.any() and (probe.corrupted == (probe.clean_label == -1)).all()
        assert (probe.gold_margin[probe.corrupted] < 0).all() and (probe.gold_margin[~probe.corrupted] > 0).all()
        assert not examples[examples.split != "train_observed"].corrupted.any()
        assert len(read_table(folder / "ledger.parquet")["id"]) == round(0.4 * 64 + 1e-9)


def test_seeds_pair_the_comparison(swept):
    """Objective and beta never move data, flips or order: step-0 records of a replicate are the same."""
    results = pd.read_csv(swept / "results.csv")
    cell = results[(results.corruption == "uniform_flip") & (results.misaligned == 0.75) & (results.seed == 1)]
    columns = []
    for key in cell.run_key:
        [folder] = swept.glob(f"{key[:8]}-*")
        examples = pd.DataFrame(read_table(folder / "examples.parquet"))
        columns.append(examples[examples.step == 0][["id", "split", "policy_chosen", "clean_label"]])
    assert len(columns) == 3
    assert all(columns[0].equals(other) for other in columns[1:])
    seeds = results.drop_duplicates("seed").ranking_accuracy
    assert seeds.nunique() > 1


def test_repeating_the_command_does_nothing_again(swept):
    before = {path: path.stat().st_mtime_ns for path in swept.glob("*/result.json")}
    done = harness("sweep", swept.parent.parent / "spec.yaml", "--out", swept.parent)
    assert done.returncode == 0 and "24 already done" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in swept.glob("*/result.json")} == before


def test_a_changed_spec_covers_exactly_its_own_runs(swept, tmp_path):
    import shutil

    shutil.copytree(swept.parent, tmp_path / "runs")
    spec = write(tmp_path, {**TINY, "objectives": [{"name": "dpo", "beta": [0.5, 2]}]})
    done = harness("sweep", spec, "--out", tmp_path / "runs")
    assert done.returncode == 0 and "8 already done" in done.stdout, done.stdout + done.stderr
    results = pd.read_csv(tmp_path / "runs" / "tiny" / "results.csv")
    assert len(results) == 16 and set(results.objective) == {"dpo"} and set(results.beta) == {0.5, 2.0}


def test_the_journal_holds_every_metric_point(swept):
    for path in swept.glob("*/events.jsonl"):
        records = read_journal(path)
        steps = [record["step"] for record in records if record["kind"] == "metrics"]
        assert records[0]["kind"] == "start" and records[-1]["kind"] == "end"
        assert {0, 8} <= set(steps)


def test_killed_at_its_first_result_and_repeated_the_results_are_identical(swept, tmp_path):
    """As a program with a worker process, killed with it; `nox -s faults` kills at every other moment."""
    spec, again = write(tmp_path, TINY), tmp_path / "runs" / "tiny"
    command = [sys.executable, "-m", "harness", "sweep", str(spec), "--out", str(tmp_path / "runs"), "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and not list(again.glob("*/result.json")):
        time.sleep(0.02)
    assert process.poll() is None, "it ended before the kill"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (again / "results.csv").read_bytes() == (swept / "results.csv").read_bytes()
    assert verify(again) == []


def test_damaged_caches_are_noticed_and_made_again(swept, tmp_path):
    """A flipped bit in every stored model and reference: found, set aside, rebuilt, the same numbers."""
    import shutil

    shutil.copytree(swept.parent, tmp_path / "runs")
    folder = tmp_path / "runs" / "tiny"
    for kind in ("models", "reference"):
        for victim in (tmp_path / "runs" / "cache" / kind).glob("*.safetensors"):
            data = bytearray(victim.read_bytes())
            data[-100] ^= 1
            victim.write_bytes(data)
    for result in sorted(folder.glob("*/result.json"))[::6]:
        result.unlink()
    done = harness("sweep", write(tmp_path, TINY), "--out", tmp_path / "runs")
    assert done.returncode == 0 and "20 already done" in done.stdout, done.stdout + done.stderr
    assert list((tmp_path / "runs" / "cache" / "models").glob("*.corrupt-*"))
    assert (folder / "results.csv").read_bytes() == (swept / "results.csv").read_bytes()


def test_a_broken_result_is_noticed_and_made_again(swept, tmp_path):
    import shutil

    shutil.copytree(swept.parent, tmp_path / "runs")
    folder = tmp_path / "runs" / "tiny"
    victim = sorted(folder.glob("*/result.json"))[3]
    text = victim.read_bytes()
    victim.write_bytes(text.replace(b'"status": "done"', b'"status": "dome"'))
    done = harness("sweep", write(tmp_path, TINY), "--out", tmp_path / "runs")
    assert done.returncode == 0 and "23 already done" in done.stdout, done.stdout + done.stderr
    assert (folder / "results.csv").read_bytes() == (swept / "results.csv").read_bytes()
