"""What reward models say: of the answers beside the reference's own, of the labels, and of one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from harness.metrics.statistics import Estimate, clustered_interval, t_interval
from harness.report.data.cells import Cell
from harness.report.data.report_data import ReportData
from harness.report.data.sweep import Run
from harness.report.render.blocks import Content, Field, Lines, Table, estimated, fields, present
from harness.report.render.text import quantity, shown, visible
from harness.report.sections.row import Section
from harness.storage.gold import ANSWER, PAIR, Scored, read_scores

Scores = Mapping[str, np.ndarray]


def gold(data: ReportData) -> Content | None:
    """One row per setting with its gold reward from every model, then how far each model agrees with the labels."""
    scored = [run for run in data.sweep.runs if run.done and run.gold]
    damaged = [run.key[:8] for run in data.sweep.runs if run.gold is None]
    tables: list[Scores] = []
    for run in scored:
        try:
            assert run.folder is not None
            tables.append(read_scores(run.folder))
        except OSError:
            damaged.append(run.key[:8])
    lost = f"gold scores of {quantity(len(damaged), 'run')} cannot be read ({', '.join(damaged[:3])}); `harness verify`"
    lines = [f"{lost} names them"] if damaged else []
    if not tables:
        return Content("What do reward models say?", "", (Lines(tuple(lines)),)) if lines else None
    names = list(dict.fromkeys(one.name for run in scored for one in run.gold or ()))
    lines += _cut(scored)
    return Content(
        "What do reward models say?",
        f"Gold reward on this page is the score of {visible(names[0])}. A reward model is a judge with errors of its"
        " own: what it favours may rise while answers get no better.",
        present(_answers(data, names), _labels(tables, names), _disagreement(tables, names), Lines(tuple(lines))),
        (_made_of(scored, names),),
        "Models and hashes",
    )


def _said(cell: Cell, name: str) -> dict[int, Scored]:
    """What a model says of a cell, by seed."""
    return {run.seed: one for run in cell.runs if run.done for one in run.gold or () if one.name == name}


def _answers(data: ReportData, names: Sequence[str]) -> Table | None:
    rows = []
    for condition in data.conditions:
        for cell in condition.cells:
            row = [data.head(cell, condition.title)]
            for name in names:
                said = [one.metrics for one in _said(cell, name).values() if one.answers]
                reference = t_interval([m["reference_gold_reward"] for m in said])
                change = t_interval([m["gold_reward"] - m["reference_gold_reward"] for m in said])
                row += [
                    estimated(t_interval([m["gold_reward"] for m in said])),
                    estimated(change, f"reference {shown(_mean(reference))}" if reference.n else ""),
                    estimated(t_interval([m["win_rate"] for m in said])),
                ]
            if any(one.answers for name in names for one in _said(cell, name).values()):
                rows.append(tuple(row))
    heads = [f"{visible(name)}{what}" for name in names for what in ("", ", change", ", above the reference's")]
    note = (
        "Answers to held-out prompts, scored beside what the reference answers to the same prompts with the same random"
        " numbers; ties count half. Intervals are over seeds. Scores of different models have no common unit."
    )
    return Table("Gold reward of answers", ("Objective and beta", *heads), tuple(rows), note, "stack") if rows else None


def _mean(value: Estimate) -> Estimate:
    return Estimate(1, value.mean, float("nan"), float("nan"))


def _of(tables: Sequence[Scores], name: str, kind: str) -> Iterator[Scores]:
    """A model's rows of a kind, run by run."""
    for table in tables:
        mine = (table["model"] == name) & (table["kind"] == kind)
        yield {column: values[mine] for column, values in table.items()}


def _pairs(tables: Sequence[Scores], name: str) -> dict[str, tuple[float, str]]:
    """Every held-out pair once, by id: its gold margin and its prompt."""
    found: dict[str, tuple[float, str]] = {}
    for part in _of(tables, name, PAIR):
        margins = (part["score"] - part["other"]).tolist()
        found |= zip(part["id"].tolist(), zip(margins, part["prompt_id"].tolist(), strict=True), strict=True)
    return found


def _labels(tables: Sequence[Scores], names: Sequence[str]) -> Table:
    rows = []
    for name in names:
        pairs = list(_pairs(tables, name).values())
        right = np.array([margin > 0 for margin, _ in pairs], dtype=np.float64)
        agreed = clustered_interval(right, np.array([prompt for _, prompt in pairs]), share=True)
        mean = float(np.mean([margin for margin, _ in pairs]))
        rows.append((Field(visible(name)), estimated(agreed), *fields(f"{mean:.3g}", str(len(pairs)))))
    header = ("Reward model", "scores chosen higher", "mean gold margin", "held-out pairs")
    note = (
        "The data's own labels. One half is chance: such a model cannot tell these answers apart, and neither can its"
        " gold reward. Intervals count prompts."
    )
    return Table("Does the reward model agree with the labels?", header, tuple(rows), note)


def _disagreement(tables: Sequence[Scores], names: Sequence[str]) -> Table | None:
    """How often two models prefer different sides: of held-out pairs, and of an answer and the reference's own."""
    rows = []
    for one, other in combinations(names, 2):
        pairs = _pairs(tables, one), _pairs(tables, other)
        shared = [name for name in pairs[0] if name in pairs[1]]
        apart = np.array([(pairs[0][name][0] > 0) != (pairs[1][name][0] > 0) for name in shared], dtype=np.float64)
        clusters = np.array([pairs[0][name][1] for name in shared])
        sides = [np.concatenate([p["score"] > p["other"] for p in _of(tables, name, ANSWER)]) for name in (one, other)]
        answers = shown(Estimate(1, float(np.mean(sides[0] != sides[1])), float("nan"), float("nan")))
        rows.append(
            (
                Field(f"{visible(one)} and {visible(other)}"),
                estimated(clustered_interval(apart, clusters, share=True)),
                Field(answers if len(sides[0]) else "-", quantity(len(sides[0]), "answer")),
            )
        )
    header = ("Reward models", "disagree on held-out pairs", "disagree on policy or reference")
    note = (
        "Share of cases in which the two score different sides higher. What they disagree on is not settled by either."
    )
    return Table("Do the reward models agree?", header, tuple(rows), note) if rows else None


def _cut(scored: Sequence[Run]) -> list[str]:
    """A sentence for each model that could not read whole texts."""
    cut: dict[str, list[int]] = {}
    for run in scored:
        for one in run.gold or ():
            cut.setdefault(one.name, [0, 0])
            cut[one.name][0] += one.cut
            cut[one.name][1] += one.texts
    return [
        f"{visible(name)}: {n} of {total} texts are longer than it reads; their end is scored."
        for name, (n, total) in cut.items()
        if n
    ]


def _made_of(scored: Sequence[Run], names: Sequence[str]) -> Table:
    first = {one.name: one for run in scored for one in run.gold or ()}
    rows = [
        fields(
            visible(name), visible(first[name].identity[:80]), str(first[name].max_length or "all"), first[name].device
        )
        for name in names
    ]
    return Table("Reward models", ("Name", "identity", "max_length", "scored on"), tuple(rows))


ROWS = (Section("gold", "Gold", gold),)
