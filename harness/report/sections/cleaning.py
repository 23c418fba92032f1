"""What cleaning is worth: noisy labels, what curation makes of them, and another objective on them as they are."""

from __future__ import annotations

from collections.abc import Sequence

from harness.identity import canonical_json
from harness.metrics.statistics import Estimate, paired_difference
from harness.report.data.cells import RANKING, Cell, measured
from harness.report.data.conditions import Condition, Family
from harness.report.data.report_data import ReportData
from harness.report.data.sweep import Run
from harness.report.render.blocks import Content, Field, Table, estimated
from harness.report.render.text import percents, quantity
from harness.report.sections.row import Section

# Kinds that clean; at the end of a sequence they act on what its other steps left.
CURATION = ("curate_drop", "curate_relabel", "crossfit_drop", "crossfit_relabel")


def cleaning(data: ReportData) -> Content | None:
    """A table per setting; None where no condition is another one cleaned."""
    tables = [table for family in data.families if (table := _table(data, family)) is not None]
    if not tables:
        return None
    return Content(
        "Does cleaning help?",
        "Ranking accuracy on clean held-out pairs. Each objective stands at its best setting with and without cleaning,"
        " chosen on these same numbers; differences are paired by seed. The last rows of a group say what another"
        " objective on the labels as they are is worth, and clean labels.",
        tuple(tables),
    )


def cleaned(family: Family, noisy: Condition) -> list[Condition]:
    """The conditions of the family that are `noisy` with a curation arm behind it."""
    before = canonical_json(_steps(noisy.first))
    return [
        other
        for other in family.conditions
        if (steps := _steps(other.first))[:-1] and steps[-1][0] in CURATION and canonical_json(steps[:-1]) == before
    ]


def _steps(run: Run) -> list[list[object]]:
    """Kind, rate and parameters of every step of the run's corruption; none for the clean set."""
    spec = run.config["corruption"]
    if run.corruption == "sequence":
        return [list(step) for step in dict(spec["params"])["steps"]]
    return [] if run.corruption == "none" else [[spec["kind"], spec.get("rate"), spec.get("params") or []]]


def _best(cells: Sequence[Cell]) -> Cell | None:
    found = measured(cells)
    return max(found, key=lambda cell: cell.ranking.mean) if found else None


def _gain(cell: Cell, other: Cell) -> Estimate:
    return paired_difference(cell.values(RANKING), other.values(RANKING))


def _table(data: ReportData, family: Family) -> Table | None:
    rows: list[tuple[Field, ...]] = []
    for noisy in family.conditions:
        arms = [] if noisy.clean else cleaned(family, noisy)
        if not arms:
            continue
        for name, cells in noisy.by_objective.items():
            own = _best(cells)
            if own is None:
                continue
            rows.append((data.head(own, noisy.damage), Field("as labelled"), _accuracy(own), Field("")))
            for arm in arms:
                rows += _row(data, arm, arm.by_objective.get(name, ()), own, arm.damage.rpartition(" + ")[2])
            others = [cell for other, cells in noisy.by_objective.items() if other != name for cell in cells]
            rows += _row(data, noisy, others, own, "another objective, as labelled")
            if family.clean is not None:
                rows += _row(data, family.clean, family.clean.by_objective.get(name, ()), own, "clean labels")
    if not rows:
        return None
    head = ("Objective, labels", "what is done", "ranking accuracy", "gain over the labels as they are")
    note = "Gains of the best of several settings are a little too good: the best was chosen by its own accuracy."
    return Table(f"Cleaning{f': {family.title}' if family.title else ''}", head, tuple(rows), note)


def _row(
    data: ReportData, condition: Condition, cells: Sequence[Cell], own: Cell, what: str
) -> list[tuple[Field, ...]]:
    best = _best(cells)
    if best is None:
        return []
    return [(data.head(best, condition.damage), Field(what), _accuracy(best), estimated(_gain(best, own)))]


def _accuracy(cell: Cell) -> Field:
    return Field(percents(cell.ranking), quantity(cell.ranking.n, "seed"))


ROWS = (Section("cleaning", "Cleaning", cleaning),)
