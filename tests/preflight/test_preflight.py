"""Each fault that the preflight must name is put into sound data, and named with file, row, field and the fix."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from harness.cli import run as command
from harness.config.load import load_sweep
from harness.data.rows import TokenisedPair
from harness.objectives import OBJECTIVES
from harness.preflight.corruptions import corruption_facts
from harness.preflight.evidence import gather
from harness.preflight.labels import contradictions, duplicates, swapped_columns
from harness.preflight.reference import assumption, differing, policy_is_reference
from harness.preflight.registry import CHECKS, run_checks
from harness.preflight.row import Evidence, Finding, Reference
from harness.preflight.step_zero import closed_forms, loss_rounding
from harness.preflight.tokens import dropped_rows, end_of_sequence, few_pairs, truncation
from harness.sweep.estimates import DOCUMENT_BYTES, lane_bytes, run_bytes, step_shape
from harness.sweep.preflight import estimate, limits
from harness.types import DataSpec, LmEvalSpec, ModelSpec, ObjectiveSpec, PairLogps, RunSpec

WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu")
SPEC: dict[str, Any] = {
    "name": "real",
    "data": {"path": "pairs.jsonl", "max_length": 96, "max_prompt_length": 40},
    "model": {"kind": "tiny", "vocab_size": 300, "hidden_size": 16, "layers": 1, "sft_steps": 2, "sft_batch": 4},
    "objectives": [{"name": "dpo", "beta": 0.1}],
    "training": {"steps": 2, "batch_size": 4},
    "evaluation": {"checkpoints": 2, "heldout": 8, "probe": 8, "ood": 0, "samples": 0},
    "device": "cpu",
}
Row = dict[str, Any]


def sound(count: int = 60, **more: Any) -> list[Row]:
    """Pairs without a fault; the chosen response is the longer one in two of three."""
    rows = []
    for i in range(count):
        long, short = f" {WORDS[i % 12]} {WORDS[(i + 5) % 12]}", f" {WORDS[(i + 2) % 12]}"
        chosen, rejected = (long, short) if i % 3 else (short, long)
        rows.append({"prompt": f"Question {i}:", "chosen": chosen, "rejected": rejected, **more})
    return rows


def write(path: Path, rows: Sequence[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def the_run(tmp_path: Path, **data: Any) -> RunSpec:
    spec = {**SPEC, "data": {**SPEC["data"], **data}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    return load_sweep(tmp_path / "spec.yaml").runs[0]


def evidence(tmp_path: Path, rows: Sequence[Row], **data: Any) -> Evidence:
    write(tmp_path / "pairs.jsonl", rows)
    return gather(the_run(tmp_path, **data), 4)


def only(found: Sequence[Finding]) -> Finding:
    assert len(found) == 1, [finding.line for finding in found]
    return found[0]


def test_sound_data_has_nothing_to_say_but_what_cannot_be_told(tmp_path: Path) -> None:
    found = run_checks(evidence(tmp_path, sound(), heldout=0.6))
    assert [(finding.severity, finding.check) for finding in found] == [("note", "swapped_columns")]
    assert run_checks(evidence(tmp_path, sound(score_chosen=2, score_rejected=1), heldout=0.6)) == []


# --- corruptions ---


def damaged(tmp_path: Path, rows: Sequence[Row], *kinds: Row) -> Path:
    write(tmp_path / "pairs.jsonl", rows)
    spec = {**SPEC, "corruptions": list(kinds), "name": "damaged"}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    return tmp_path / "spec.yaml"


def test_a_corruption_on_rows_without_scores_is_refused_before_anything_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row | ({} if i % 4 == 1 else {"score_chosen": 2, "score_rejected": 1}) for i, row in enumerate(sound())]
    kinds = ({"kind": "none"}, {"kind": "bt_flip", "temperature": 1})
    path, out = str(damaged(tmp_path, rows, *kinds)), str(tmp_path / "runs")
    for words in (["plan", path, "--preflight", "--out", out], ["sweep", path, "--out", out, "--quiet"]):
        assert command(words) == 2
        said = capsys.readouterr()
        assert "gold_margin: corruption 'bt_flip' needs gold_margin; " in said.out + said.err
        assert "(rows 2, 6, 10," in said.out + said.err
    assert not (tmp_path / "runs" / "cache").exists()
    (run,) = (run for run in load_sweep(path).runs if run.corruption.kind == "bt_flip")
    kept = damaged(tmp_path, rows, {**kinds[1], "on_missing": "exclude"})
    assert corruption_facts(replace(gather(run, 4), corruptions=(load_sweep(kept).runs[0].corruption,))) == []
    scored = damaged(tmp_path, sound(score_chosen=2, score_rejected=1), kinds[1])
    assert corruption_facts(gather(load_sweep(scored).runs[0], 4, None, (run.corruption,))) == []


# --- labels ---


def test_swapped_columns_with_scores(tmp_path: Path) -> None:
    e = evidence(tmp_path, sound(score_chosen=1, score_rejected=2))
    finding = only(swapped_columns(e))
    assert finding.severity == "error" and finding.field == "score_rejected" and finding.count == 60
    assert finding.line.startswith(f"error: {tmp_path}/pairs.jsonl score_rejected: 60 of 60 pairs with scores (100.0%)")
    assert "(rows " in finding.line and finding.line.endswith("data.columns: {chosen: rejected, rejected: chosen}")
    mixed = [row | {"gold_margin": -1 if i % 5 == 0 else 1} for i, row in enumerate(sound())]
    assert only(swapped_columns(evidence(tmp_path, mixed))).severity == "warning"
    assert swapped_columns(evidence(tmp_path, sound(gold_margin=1))) == []


def test_without_scores_it_says_that_it_cannot_tell(tmp_path: Path) -> None:
    finding = only(swapped_columns(evidence(tmp_path, sound())))
    assert finding.severity == "note" and "cannot tell whether the columns are swapped: no scores" in finding.text


def swap(rows: Sequence[Row]) -> list[Row]:
    return [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]


def longer(count: int, start: int) -> list[Row]:
    return [
        {"prompt": f"Question {i}:", "chosen": f" {WORDS[i % 12]} and {WORDS[(i + 1) % 12]}", "rejected": " no"}
        for i in range(start, start + count)
    ]


def test_a_split_that_is_oriented_rightly_gives_the_swap_away(tmp_path: Path) -> None:
    write(tmp_path / "set/train.jsonl", swap(longer(60, 0)))
    write(tmp_path / "set/test.jsonl", longer(60, 100))
    options = {"path": "set", "split": "train", "heldout_split": "test"}
    finding = only(swapped_columns(gather(the_run(tmp_path, **options), 4)))
    assert finding.severity == "error" and "0% of the training pairs and 100% of test" in finding.text
    write(tmp_path / "set/train.jsonl", longer(60, 0))
    told = only(swapped_columns(gather(the_run(tmp_path, **options), 4)))
    assert told.severity == "note" and "cannot tell" in told.text


def test_the_same_pairs_in_the_other_order_in_another_split(tmp_path: Path) -> None:
    rows = sound(80)
    write(tmp_path / "set/train.jsonl", swap(rows))
    write(tmp_path / "set/test.jsonl", [*rows[:30], *sound(120)[90:]])
    e = gather(the_run(tmp_path, path="set", split="train", heldout_split="test"), 4)
    assert len(e.shared) == 30
    finding = next(one for one in swapped_columns(e) if "that test has too" in one.text)
    assert finding.severity == "error" and finding.text.startswith("30 of 30 pairs") and finding.rows[0] == 1


def test_the_references_signs_give_a_swap_away(tmp_path: Path) -> None:
    write(tmp_path / "set/train.jsonl", sound(80))
    write(tmp_path / "set/test.jsonl", sound(160)[80:])
    e = gather(the_run(tmp_path, path="set", split="train", heldout_split="test"), 4)
    pairs = (*e.text.train, *e.text.heldout)
    train = np.array([pair in e.text.train for pair in pairs])
    stored = np.where(train[:, None], [[-9.0, -5.0]], [[-5.0, -9.0]])
    e = replace(e, reference=Reference(pairs, stored, stored, np.full((len(pairs), 2), 5)))
    finding = only(swapped_columns(e))
    assert (
        finding.severity == "error" and "the reference gives the chosen response the higher log-prob in" in finding.text
    )


def test_duplicates_and_contradictions(tmp_path: Path) -> None:
    rows = sound()
    again = [*rows, {**rows[3], "chosen": rows[3]["chosen"] + " "}, *swap([rows[7]])]
    e = evidence(tmp_path, again)
    double, both = only(duplicates(e)), only(contradictions(e))
    assert double.severity == "warning" and double.count == 1 and set(double.rows) <= {4, 61}
    assert both.severity == "warning" and sorted(both.rows) == [8, 62] and both.field == "rejected"
    assert "appear in both orders" in both.line and f"{tmp_path}/pairs.jsonl" in both.line
    assert duplicates(evidence(tmp_path, rows)) == contradictions(evidence(tmp_path, rows)) == []


# --- tokens ---


def test_thirty_percent_truncation_is_named(tmp_path: Path) -> None:
    e = evidence(tmp_path, sound(200), heldout=0.1)
    number = round(0.3 * len(e.text.train))
    cut = {pair.id for pair in e.text.train[:number]}
    tokens = {i: replace_side(own, "chosen", own.chosen[:-1]) if i in cut else own for i, own in e.text.tokens.items()}
    finding = only(truncation(replace(e, text=replace(e.text, tokens=tokens))))
    share = number / len(e.text.train)
    assert finding.severity == "warning" and finding.count == number and finding.field == "chosen"
    assert f"{number} chosen ({share:.1%})" in finding.text and 0.29 < share < 0.31
    assert "raise data.max_length (now 96)" in finding.line


def replace_side(own: TokenisedPair, side: str, ids: np.ndarray) -> TokenisedPair:
    return replace(own, **{side: ids})


def test_real_cuts_and_vanished_responses_are_counted(tmp_path: Path) -> None:
    rows = sound(50)
    for i in range(10):
        rows[i] = {**rows[i], "chosen": f" {i} {' '.join(WORDS)} {' '.join(WORDS)}"}
    found = truncation(evidence(tmp_path, rows, max_response_length=20))
    assert [(one.field, one.severity) for one in found] == [("chosen", "warning")]
    long = [{**row, "prompt": " ".join(WORDS * 4) + row["prompt"]} for row in sound(50)]
    kinds = {one.field: one for one in truncation(evidence(tmp_path, long, max_prompt_length=24))}
    assert "50 of 50 prompts (100.0%) lose their beginning" in kinds["prompt"].text


def test_an_end_masked_as_padding_is_named(tmp_path: Path) -> None:
    """Code that masks every pad token, where pad is eos, leaves the last token of each response unscored."""
    e = evidence(tmp_path, sound())
    assert end_of_sequence(e) == []
    eos = e.text.words.eos
    side = np.where(e.rows.target == eos, 0, e.rows.side).astype(np.int8)
    found = end_of_sequence(replace(e, rows=replace(e.rows, side=side)))
    assert {(one.severity, one.field, one.count) for one in found} == {
        ("error", "chosen", len(e.text.train)), ("error", "rejected", len(e.text.train))
    }  # fmt: skip
    assert "masked and not scored" in found[0].line and "the pad token must differ from eos" in found[0].line


def test_responses_that_never_end_and_ends_within_are_named(tmp_path: Path) -> None:
    e = evidence(tmp_path, sound())
    eos = e.text.words.eos

    def changed(change: Callable[[TokenisedPair], TokenisedPair]) -> Evidence:
        from harness.data.rows import pack_rows

        tokens = {i: change(own) for i, own in e.text.tokens.items()}
        return replace(e, text=replace(e.text, tokens=tokens), rows=pack_rows([tokens[p.id] for p in e.text.train]))

    endless = only(end_of_sequence(changed(lambda own: replace_side(own, "rejected", own.rejected[:-1]))))
    assert (endless.severity, endless.field) == (
        "error",
        "rejected",
    ) and "do not end in end-of-sequence" in endless.text
    early = only(end_of_sequence(changed(lambda own: replace_side(own, "chosen", np.insert(own.chosen, 0, eos)))))
    assert (early.severity, early.field) == ("warning", "chosen") and "before their end" in early.text


def test_dropped_rows_and_few_pairs(tmp_path: Path) -> None:
    e = evidence(tmp_path, [*sound(20), *({"prompt": "p", "chosen": "", "rejected": "x"} for _ in range(5))])
    lost = only(dropped_rows(e))
    assert lost.severity == "warning" and lost.text.startswith("5 of 25 rows (20.0%)") and lost.rows[0] == 21
    small = few_pairs(replace(e, batch=64))
    assert ["fewer than a batch of 64" in small[0].text, "held-out pairs" in small[1].text] == [True, True]


# --- the reference ---


def reference(e: Evidence, live_off: float = 0.0) -> Reference:
    pairs = e.text.train[:10]
    lengths = np.array([[len(e.text.tokens[p.id].chosen), len(e.text.tokens[p.id].rejected)] for p in pairs])
    stored = -1.5 * lengths - np.arange(20.0).reshape(10, 2) % 7
    live = stored.copy()
    live[3, 1] += live_off
    return Reference(pairs, stored, live, lengths)


@pytest.mark.parametrize("off", [0.1, -5.0, np.nan])
def test_a_policy_that_is_not_the_reference(tmp_path: Path, off: float) -> None:
    e = evidence(tmp_path, sound())
    assert policy_is_reference(replace(e, reference=reference(e, 1e-4))) == []
    finding = only(policy_is_reference(replace(e, reference=reference(e, off))))
    assert finding.severity == "error" and finding.rows == (e.text.train[3].meta["row"],)
    assert f"{tmp_path}/pairs.jsonl:{finding.rows[0]} reference: " in finding.line


def test_tolerance_is_that_of_the_dtype(tmp_path: Path) -> None:
    e = evidence(tmp_path, sound())
    near = replace(reference(e, 0.05), dtype="bfloat16")
    assert differing(near, "x") == [] and len(differing(replace(near, dtype="float32"), "x")) == 1


def test_the_share_that_the_reference_orders_otherwise_is_called_a_proxy(tmp_path: Path) -> None:
    e = evidence(tmp_path, sound())
    at = reference(e)
    share = float((at.stored[:, 0] < at.stored[:, 1]).mean())
    finding = only(assumption(replace(e, reference=at)))
    assert finding.severity == "note" and f"in {share:.1%} of 10 training pairs" in finding.text
    assert "a proxy" in finding.text and "cannot say which" in finding.text


def test_every_closed_form_of_the_table_holds_and_a_wrong_loss_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = reference(evidence(tmp_path, sound()))
    names = [ObjectiveSpec(name, (("beta", 0.3),)) for name, row in OBJECTIVES.items() if "beta" in row.hyperparameters]
    assert len(names) > 10 and closed_forms(at, names, "x") == []
    wrong = replace(OBJECTIVES["dpo"], step0=lambda _hp, _pair: 0.5)
    monkeypatch.setitem(OBJECTIVES.built_in, "dpo", wrong)  # type: ignore[arg-type]
    finding = only(closed_forms(at, names, "x"))
    assert finding.severity == "error" and "objective 'dpo' has the loss 0.693147" in finding.text


@pytest.mark.parametrize(("name", "slope"), [("dpo", 2.0), ("dpop", 2.0 + 50.0), ("hinge", 4.0)])
def test_the_tolerance_follows_what_a_loss_makes_of_rounding(name: str, slope: float) -> None:
    """beta (2 + lam) / 2 nats a nat for dpop where a log-prob falls, of the policy and again of the reference."""
    side = torch.tensor([-20.0, -3.0], dtype=torch.float64)
    lengths = torch.tensor([5.0, 5.0], dtype=torch.float64)
    at = PairLogps(side, side, lengths, lengths)
    rounding = torch.full((2, 2), 1e-6, dtype=torch.float64)
    found = loss_rounding(OBJECTIVES[name], [("beta", 0.5)], at, rounding)
    assert found.tolist() == pytest.approx([0.5 * slope * 1e-6] * 2, rel=1e-3)


# --- what it takes ---


def test_estimates_follow_from_shapes() -> None:
    from harness.types import CorruptionSpec, EvaluationSpec, TrainingSpec

    data, model = DataSpec("p"), ModelSpec(vocab_size=300, hidden_size=16, layers=1, intermediate_size=32)
    run = RunSpec(
        ObjectiveSpec("dpo", (("beta", 0.1),)), CorruptionSpec(), TrainingSpec(steps=10, batch_size=4),
        EvaluationSpec(checkpoints=2, heldout=50, probe=50, ood=0, samples=0), 0, data=data, model=model,
    )  # fmt: skip
    total = estimate([run], {data: 30.0}, None, 10.0)
    assert total["tokens"] == 10 * 4 * 30 and total["seconds_a_run"] == 10.0
    assert total["disk"] == run_bytes(run) == 7_000 + 2 * (2_300 + 100 * 47)
    assert run_bytes(run, LmEvalSpec(tasks=("preference",))) - run_bytes(run) == 50 * DOCUMENT_BYTES
    assert total["memory_a_run"] == lane_bytes(step_shape(run))


def test_too_little_room_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    run = the_run_on(tmp_path)
    total = estimate([run], {run.data: 30.0}, LmEvalSpec(limit=5), 10.0)
    assert total["tokens"] > 0
    assert only(limits(total, tmp_path)).severity == "error"
    assert "1 kB are free under --out" in only(limits(total, tmp_path)).line


def the_run_on(tmp_path: Path) -> RunSpec:
    write(tmp_path / "pairs.jsonl", sound())
    return the_run(tmp_path)


# --- the verbs ---


def test_an_error_stops_the_sweep_before_anything_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "pairs.jsonl", sound(score_chosen=1, score_rejected=2))
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    assert command(["sweep", str(tmp_path / "spec.yaml"), "--out", str(tmp_path / "runs"), "--workers", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}/pairs.jsonl score_rejected: 60 of 60 pairs")
    assert not list((tmp_path / "runs").rglob("events.jsonl")) and not (tmp_path / "runs" / "cache").exists()
    (kept,) = (tmp_path / "runs").rglob("preflight.json")
    assert json.loads(kept.read_text())[0]["check"] == "swapped_columns"


def test_plan_preflight_prints_findings_and_estimates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "pairs.jsonl", [*sound(), *swap(sound(1))])
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    arguments = ["plan", str(tmp_path / "spec.yaml"), "--out", str(tmp_path / "runs"), "--preflight"]
    assert command([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["preflight"]
    assert {one["check"] for one in found["findings"]} >= {"contradictions", "swapped_columns", "reference"}
    assert set(found["estimate"]) >= {"tokens", "memory_a_run", "disk", "seconds", "tokens_a_run"}
    write(tmp_path / "pairs.jsonl", sound(score_chosen=1, score_rejected=2))
    assert command(arguments) == 2
    text = capsys.readouterr().out
    assert "error: " in text and "takes     about" in text


def test_the_table_names_each_check_once() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS) and all(check.about for check in CHECKS)
    assert torch.__version__  # the checks of labels and tokens run without it; this file does not
