"""What cleaning is worth: noisy labels, what curation makes of them, and another objective on them as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.identity import canonical_json
from harness.metrics.statistics import MIN_SEEDS, Estimate, paired_difference
from harness.report.data.cells import RANKING, Cell, measured
from harness.report.data.conditions import CURATION, Condition, Family, noise, steps_of
from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Content, Field, Table, estimated
from harness.report.render.text import percents, quantity, visible
from harness.report.sections.row import Section


@dataclass(frozen=True, eq=False)
class Gain:
    """What one cell ranks right more than `own`, an objective's best on the `noisy` labels as they are. `kind`: `own`,
    `cleaned`, `other` objective or `clean` labels; `done` says in words what was done to the labels."""

    noisy: Condition
    objective: str
    own: Cell
    kind: str
    done: str
    condition: Condition
    cell: Cell

    @property
    def gain(self) -> Estimate:
        """Difference in ranking accuracy, paired by seed."""
        return paired_difference(self.cell.values(RANKING), self.own.values(RANKING))


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
    before = canonical_json(steps_of(noisy.first))
    return [
        other
        for other in family.conditions
        if (steps := steps_of(other.first))[:-1] and steps[-1][0] in CURATION and canonical_json(steps[:-1]) == before
    ]


def _best(cells: Sequence[Cell]) -> Cell | None:
    found = measured(cells)
    return max(found, key=lambda cell: cell.ranking.mean) if found else None


def gains(family: Family) -> list[Gain]:
    """By noisy condition that was cleaned and by objective: as labelled, each cleaning, another objective, clean."""
    out: list[Gain] = []
    for noisy in family.conditions:
        arms = [] if noisy.clean else cleaned(family, noisy)
        for name, cells in noisy.by_objective.items() if arms else ():
            own = _best(cells)
            if own is None:
                continue
            others = [cell for other, several in noisy.by_objective.items() if other != name for cell in several]
            found = [
                ("own", "as labelled", noisy, cells),
                *(("cleaned", k.damage.rpartition(" + ")[2], k, k.by_objective.get(name, ())) for k in arms),
                ("other", "another objective, as labelled", noisy, others),
                *([("clean", "clean labels", c, c.by_objective.get(name, ()))] if (c := family.clean) else []),
            ]
            for kind, done, condition, several in found:
                if (best := _best(several)) is not None:
                    out.append(Gain(noisy, name, own, kind, done, condition, best))
    return out


def cleaning_finding(data: ReportData) -> tuple[str, str] | None:
    """What cleaning is worth to the baseline (else the first objective) under the first noise that was cleaned, beside
    another objective: in a few words, and with every value. None where nothing was cleaned."""
    every = gains(data.family)
    names = [one.objective for one in every]
    if not names:
        return None
    name = data.baseline if data.baseline in names else names[0]
    noisy = next(one.noisy for one in every if one.objective == name)
    mine = [one for one in every if one.objective == name and one.noisy is noisy]
    tried = sorted((one for one in mine if one.kind == "cleaned"), key=lambda one: -one.gain.mean)
    if not tried:
        return None
    seeds = min(one.gain.n for one in tried)
    better = [one.done for one in tried if one.gain.low > 0]
    how = "is shown" if seeds >= MIN_SEEDS else "is likely"
    found = f"a gain from {' and '.join(better)} {how}" if better else "no gain from cleaning is shown"
    parts = [f"{one.done} {_points(one.gain)}" for one in tried]
    parts += [f"instead {one.cell.named} {_points(one.gain)}" for one in mine if one.kind == "other"]
    return found, (
        f"Cleaning {noise(noisy)} for {visible(name)}, in points of pairs ranked right over the labels as they are:"
        f" {'; '.join(parts)} ({quantity(seeds, 'seed')}, paired)."
    )


def _points(gain: Estimate) -> str:
    return f"{'+' if gain.mean > 0 else ''}{percents(gain, '')}"


def _table(data: ReportData, family: Family) -> Table | None:
    rows = tuple(_row(data, one) for one in gains(family))
    if not rows:
        return None
    head = ("Objective, labels", "what is done", "ranking accuracy", "gain over the labels as they are")
    note = "Gains of the best of several settings are a little too good: the best was chosen by its own accuracy."
    return Table(f"Cleaning{f': {family.title}' if family.title else ''}", head, rows, note)


def _row(data: ReportData, one: Gain) -> tuple[Field, ...]:
    gain = Field("") if one.kind == "own" else estimated(one.gain)
    return (data.head(one.cell, one.condition.damage), Field(one.done), _accuracy(one.cell), gain)


def _accuracy(cell: Cell) -> Field:
    return Field(percents(cell.ranking), quantity(cell.ranking.n, "seed"))


ROWS = (Section("cleaning", "Cleaning", cleaning),)
