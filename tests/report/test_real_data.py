"""Sections of sweeps on real pairs: what was read and cut, benchmarks against the reference, how answers are made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.identity import run_key
from harness.metrics.statistics import assumed_level, joint_interval
from harness.report.data.report_data import ReportData, read_report_data
from harness.report.page import write_report
from harness.report.render.blocks import Content, Lines, Table
from harness.report.render.text import DASH
from harness.report.sections.behaviour import degeneration, form_faults
from harness.report.sections.benchmarks import benchmarks, change_of
from harness.report.sections.dataset import by_count, dataset
from harness.storage.evaluations import Change, Evaluated, write_evaluations
from tests.report.fixture import grid, write_sweep

NOTES = (
    "1500 rows read, 5 dropped, 1495 usable pairs",
    "seed 0: 1219 pairs to train on, 276 held out by prompt",
    "seed 0: 277 chosen responses cut, their start is kept (rows 2, 5, ...)",
    "seed 1: 1203 pairs to train on, 292 held out by prompt",
    "seed 1: 301 chosen responses cut, their start is kept (rows 1, 3, ...)",
)
RUNS = grid(("dpo", "ipo"), betas=1, dials=None, rates=(0.0,), seeds=2)
SETTINGS: dict[str, Any] = {
    "version": "1", "library": "0.4.13", "limit": None, "num_fewshot": 0, "higher_is_better": {"acc": True},
    "config_hash": "c" * 64, "data_hash": "d" * 64, "weights": "w",
}  # fmt: skip


def evaluated(task: str, acc: float, reference: float, both: float, n: int = 100) -> Evaluated:
    change = {"acc": Change(acc - reference, acc - reference - 0.05, acc - reference + 0.05, reference, both)}
    return Evaluated(task=task, n=n, metrics={"acc": acc, "ties": 0.0}, change=change, **SETTINGS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two objectives, two seeds: dpo gains much in preference and loses in a benchmark, ipo moves nothing."""
    made = write_sweep(tmp_path / "real", RUNS, notes=NOTES)
    plan = json.loads((made / "plan.json").read_text())
    names = {entry["run_key"]: entry["config"]["objective"]["name"] for entry in plan["runs"]}
    for run in RUNS:
        own = next(path for path in made.iterdir() if path.name[:8] == run_key(run)[:8])
        gained = names[run_key(run)] == "dpo"
        step = 0.005 * run.seed  # seeds differ a little, so that intervals have a width
        rows = [
            (evaluated("arc_easy", 0.4 - step if gained else 0.6, 0.6, 0.38 if gained else 0.6), []),
            (evaluated("preference", 0.9 - step if gained else 0.5, 0.5, 0.48 if gained else 0.5), []),
        ]
        write_evaluations(own, 200, rows)
    return made


@pytest.fixture
def m(folder: Path) -> ReportData:
    return read_report_data(folder)


def tables(section: Content | None) -> dict[str, Table]:
    assert section is not None
    return {block.caption: block for block in (*section.blocks, *section.more) if isinstance(block, Table)}


def lines(section: Content | None) -> list[str]:
    assert section is not None
    return [line for block in (*section.blocks, *section.more) if isinstance(block, Lines) for line in block.lines]


def test_gain_and_cost_are_paired_and_only_told_where_the_interval_leaves_out_zero(m: ReportData) -> None:
    section = benchmarks(m)
    found = tables(section)
    assert list(found)[:2] == ["preference: the run's own held-out pairs", "arc_easy: lm-eval 0.4.13"]
    rows = {row[0].main.split(" ")[0]: row for row in found["arc_easy: lm-eval 0.4.13"].rows}
    items = assumed_level({0: 0.4, 1: 0.395}, {0: 0.6, 1: 0.6}, [100, 100], True, {0: 0.38, 1: 0.38})
    expected = joint_interval([-0.2, -0.205], items)
    assert rows["dpo"][1].main == "0.398" and rows["dpo"][2].sub == "over seeds"
    assert f"{expected.low:.3f}".lstrip("-") in rows["dpo"][2].main
    assert expected.high < 0
    told = lines(section)
    assert "preference: of 2 settings, 1 went up, 1 show no change (the interval holds 0)." in told
    assert "arc_easy: of 2 settings, 1 went down, 1 show no change (the interval holds 0)." in told
    assert not [line for line in told if "No other benchmark" in line]


def test_a_single_seed_has_an_interval_over_documents_and_two_have_one_over_seeds() -> None:
    one = evaluated("preference", 0.6, 0.5, 0.45)
    alone, of = change_of({0: one}, "acc")
    assert (alone.mean, alone.low, alone.high, of) == (
        one.change["acc"].mean,
        *(pytest.approx(v) for v in (0.05, 0.15)),
        "documents",
    )
    both, of = change_of({0: one, 1: one}, "acc")
    items = assumed_level({0: 0.6, 1: 0.6}, {0: 0.5, 1: 0.5}, [100, 100], True, {0: 0.45, 1: 0.45})
    expected = joint_interval([0.1, 0.1], items)
    assert (both.n, both.low, both.high, of) == (2, pytest.approx(expected.low), pytest.approx(expected.high), "seeds")


def test_a_lone_preference_task_says_what_is_not_known(folder: Path) -> None:
    for path in folder.glob("*/lm_eval.jsonl"):
        path.unlink()
        write_evaluations(path.parent, 200, [(evaluated("preference", 0.5, 0.5, 0.5), [])])
    told = lines(benchmarks(read_report_data(folder)))
    assert any("No other benchmark was run, so what alignment costs elsewhere is not known" in line for line in told)


def test_damaged_results_are_named_and_none_means_no_section(folder: Path) -> None:
    paths = sorted(folder.glob("*/lm_eval.jsonl"))
    text = paths[0].read_bytes().replace(b"arc_easy", b"arc_hard", 1)
    paths[0].write_bytes(text)
    assert any(
        "cannot be read; `harness verify` names them" in line for line in lines(benchmarks(read_report_data(folder)))
    )
    for path in paths:
        path.unlink()
    assert benchmarks(read_report_data(folder)) is None


def test_data_facts_stand_near_the_top(folder: Path) -> None:
    finding = {
        "severity": "warning", "check": "truncation", "text": "of 9 training pairs, 3 lose their end",
        "place": "/secret/place/pairs.jsonl", "rows": [2], "field": "chosen", "fix": "raise data.max_length",
    }  # fmt: skip
    (folder / "preflight.json").write_text(json.dumps([finding]))
    m = read_report_data(folder)
    section = dataset(m)
    rows = {row[0].main: row[1].main for row in tables(section)["n, seeds and detectable difference"].rows}
    assert rows["rows"] == NOTES[0] and rows["seeds"] == "2, paired"
    assert rows["training pairs"] == "1203 to 1219 pairs to train on, 276 to 292 held out by prompt (2 seeds)"
    assert rows["held-out pairs measured (n per seed)"] == "64"
    assert any(name.startswith("minimum detectable difference, power .8") for name in rows)
    assert "277 to 301 chosen responses cut, their start is kept (2 seeds)" in lines(section)
    assert "warning: chosen: of 9 training pairs, 3 lose their end; raise data.max_length" in lines(section)
    page = write_report(folder).read_text(encoding="utf-8")
    assert "/secret/place" not in page
    assert page.index('id="data"') < page.index('id="pairs"')


def test_worlds_have_no_data_section(tmp_path: Path) -> None:
    assert dataset(read_report_data(write_sweep(tmp_path / "world", grid(("dpo",), betas=1, seeds=2)))) is None


def test_notes_of_seeds_are_joined_and_others_left() -> None:
    notes = ["plain note (rows 1, 2)", "seed 4: 3 prompts cut"]
    assert by_count(notes) == ["plain note (rows 1, 2)", "3 prompts cut (1 seed)"]


def test_answers_that_are_made_badly_are_named_one_by_one() -> None:
    samples = {
        "response": np.array(["", "a b a b a b a b", "fine answer", "cut off"], dtype=object),
        "ended": np.array([True, True, True, False]),
    }
    assert [form_faults(samples, row) for row in range(4)] == ["empty", "repeats itself", "", "does not end"]


def test_rates_of_answers_stand_beside_the_references(m: ReportData) -> None:
    cells = [cell for cell in m.sampled if any(run.key in m.samples for run in cell.runs)]
    assert cells
    found = degeneration(m, cells)
    assert found.header == ("Objective and beta", "tokens", "does not end", "repeats itself", "empty", "flags")
    by_name = {row[0].main: row for row in found.rows}
    cell = cells[0]
    lengths = []
    for run in cell.runs:
        own = m.samples[run.key]
        lengths.append(float(np.mean(own["length"][own["split"] == "eval_clean"])))
    assert by_name[cell.named][1].main.startswith(f"{np.mean(lengths):.3f}")
    assert by_name[cell.named][2].main == DASH  # these samples do not say whether they ended
