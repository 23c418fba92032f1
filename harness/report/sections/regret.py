"""Selection regret: what a rule that sees noisy validation labels picks, beside the oracle's pick."""

from __future__ import annotations

from collections.abc import Sequence

from harness.metrics.selection import READINGS, Candidate, RuleResult, candidates_of, compare_rules
from harness.report.data.cells import Cell
from harness.report.data.conditions import Condition
from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Content, Field, Table, fields
from harness.report.render.text import DASH, quantity, shown, visible
from harness.report.sections.row import Section
from harness.types import InputError, Split

LACKING = "These records lack noisy validation labels, so only the oracle can choose. "
COLUMNS = ("step", "split", "id", "prompt_id", "policy_chosen", "policy_rejected", "validation_label")


def regret(data: ReportData) -> Content | None:
    """Every rule on the noisiest condition of the headline's setting, where noisy validation labels differ most."""
    condition = data.noisiest
    if condition is None:
        return None  # where labels are clean, what a practitioner sees is what the oracle sees
    candidates = _candidates(condition)
    pools = {"all objectives": condition.cells, visible(data.baseline): condition.by_objective.get(data.baseline, ())}
    rows = [row for name, cells in pools.items() for row in _rows(name, cells, candidates)]
    if not rows:
        return None
    lacks = "" if len(rows) > len(pools) else LACKING
    header = ("Chosen among", "Rule", "ranked right (test half)", "behind the oracle", "regret", "Picks by seed")
    note = (
        "Rules choose setting and checkpoint on one half of the held-out pairs and are scored on the other. Regret: the"
        " best test accuracy of any candidate minus that of the chosen one. The best is known in hindsight only, so"
        " compare rules with each other."
    )
    return Content(
        "What does choosing on noisy labels cost?",
        f"Under {condition.title}: " + "; ".join(f"{name}: {text}" for name, text in READINGS.items()) + ".",
        (Table(f"Selection rules, {condition.title}", header, tuple(rows), lacks + note, "stack"),),
    )


def _candidates(condition: Condition) -> dict[str, list[Candidate]]:
    """Checkpoints by run key, of the recorded runs of the condition."""
    candidates = {}
    for cell in condition.cells:
        for run, _ in cell.recorded:
            table = run.table("examples.parquet", COLUMNS)
            assert table is not None, "a recorded run has its records"
            held = (table["split"] == Split.HELDOUT) | (table["split"] == "test")
            candidates[run.key] = candidates_of({name: values[held] for name, values in table.items()}, cell.named)
    return candidates


def _rows(name: str, cells: Sequence[Cell], candidates: dict[str, list[Candidate]]) -> list[tuple[Field, ...]]:
    by_seed: dict[int, list[Candidate]] = {}
    for cell in cells:
        for run in cell.runs:
            by_seed.setdefault(run.seed, []).extend(candidates.get(run.key, ()))
    by_seed = {seed: several for seed, several in by_seed.items() if several}
    if not by_seed:
        return []
    shared = any(cell.shares_pairs for cell in cells)
    try:
        results = compare_rules(by_seed, shared=shared)
    except InputError:  # no noisy validation labels: the rules that need them are left out
        results = compare_rules(by_seed, ["oracle"], shared)
    return [_row(name, result) for result in results]


def _row(name: str, result: RuleResult) -> tuple[Field, ...]:
    behind = shown(result.behind) if result.rule != "oracle" else DASH
    return (*fields(name, result.rule, shown(result.test), behind, shown(result.regret)), _picks(result))


def _picks(result: RuleResult) -> Field:
    labels: Sequence[str] = [pick.label for pick in result.picks.values()]
    counts = sorted({(-labels.count(label), label) for label in labels})
    named = [f"{label} ({-count} of {quantity(len(labels), 'seed')})" for count, label in counts[:2]]
    steps = sorted({pick.step for pick in result.picks.values()})
    span = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
    return Field("; ".join(named) + ("; \u2026" if len(counts) > 2 else ""), span)


ROWS = (Section("regret", "Selection", regret),)
