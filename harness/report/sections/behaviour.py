"""What policies say when they speak freely: faults by type of question, and whether answers fall apart.

The embedded world knows which answers are right. Of answers to real prompts, whose truth nobody knows, length, end,
repetition and emptiness can be counted; each number stands beside the reference's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.identity import content_hash
from harness.metrics.records import Array, Bools, Columns, numbers, select
from harness.metrics.safety import agreed, complied, refused
from harness.metrics.samples import empty, repetitive
from harness.metrics.statistics import cell_estimate, t_interval
from harness.report.data.cells import Cell
from harness.report.data.report_data import ReportData
from harness.report.data.samples import FAULTS, REFERENCE, fault, faults_of, of_type, rate, row_of, split_of
from harness.report.render.blocks import Content, Field, Table, present
from harness.report.render.text import DASH, shown, visible
from harness.report.sections.row import Section
from harness.types import PromptKind, Split

ANSWERS = 6  # rows of the table of answers
SIDE_BY_SIDE = 4  # policies of a table of answers that nothing judges


@dataclass(frozen=True, slots=True)
class Rate:
    """A column of the table of rates: what it is of (`needs`, a column of the samples), its values, whether a share;
    `group` is the type of question it is limited to, empty for all."""

    title: str
    needs: str
    values: Callable[[Columns], Array] | None = None  # None: the column as it is
    share: bool = True
    group: str = ""


FAULT_RATES = tuple(Rate(name, column) for column, (name, _) in FAULTS.items())
QUALITY = (Rate("correct", "correct"), Rate("malformed", "malformed"), Rate("reward", "gold_reward", share=False))
SAFETY = (
    Rate("over-refusal", "response", lambda samples: refused(samples["response"]), group=PromptKind.BENIGN),
    Rate("harmful compliance", "response", complied, group=PromptKind.HARMFUL),
    Rate("sycophancy", "response", lambda samples: agreed(samples["response"]), group=PromptKind.OPINION),
)
FORM = (
    Rate("tokens", "length", lambda samples: numbers(samples, "length"), share=False),
    Rate("does not end", "ended", lambda samples: 1.0 - numbers(samples, "ended")),
    Rate("repeats itself", "response", lambda samples: repetitive(samples).astype(np.float64)),
    Rate("empty", "response", lambda samples: empty(samples).astype(np.float64)),
)


def behaviour(data: ReportData) -> Content | None:
    """Rates where the samples carry flags; answers side by side wherever there are samples."""
    cells = [cell for cell in data.sampled if any(run.key in data.samples for run in cell.runs)]
    if not cells:
        return None
    flagged = any(column in samples for samples in data.samples.values() for column in FAULTS)
    types = sorted({str(group) for samples in data.samples.values() for group in samples["group"]})
    return Content(
        "Do the answers get worse?",
        "Free-running samples at the end of training, prompts and random numbers shared by all policies and the"
        " reference. The ranking does not show these faults.",
        present(
            _faults(data, cells) if flagged else degeneration(data, cells),
            _safety(data, cells),
            _answers(data, cells, flagged),
        ),
        tuple(_by_type(data, cells, group) for group in types) if flagged and len(types) > 1 else (),
        "By question type",
    )


def _faults(data: ReportData, cells: Sequence[Cell]) -> Table:
    invited = [Rate(f"{name} ({group} questions)", c, group=group) for c, (name, group) in FAULTS.items()]
    return _judged(data, cells, (*invited, *QUALITY), f"Samples, {data.headline.title}")


def _by_type(data: ReportData, cells: Sequence[Cell], group: str) -> Table:
    correct, *rest = QUALITY
    columns = [Rate(r.title, r.needs, share=r.share, group=group) for r in (correct, *FAULT_RATES, *rest)]
    return _judged(data, cells, columns, f"{visible(group)} questions")


def _judged(data: ReportData, cells: Sequence[Cell], columns: Sequence[Rate], caption: str) -> Table:
    """A row of rates for the reference and for each cell, out-of-distribution prompts below."""

    def field(cell: Cell, column: Rate, prefix: str = "") -> Field:
        main, other = (_estimate(data, cell, column, prefix, split) for split in ("eval", "ood"))
        return Field(main or DASH, f"OOD {other}" if other else "")

    rows = [(data.head(cell), *(field(cell, column) for column in columns)) for cell in cells]
    if any(f"{REFERENCE}correct" in samples for samples in data.samples.values()):
        reference = (field(cells[0], column, REFERENCE) for column in columns)
        rows.insert(0, (Field("reference", "before training"), *reference))
    note = "Mean and 95 % interval over seeds; below, the same on out-of-distribution prompts where there are any."
    return Table(caption, ("Objective and beta", *(c.title for c in columns)), tuple(rows), note, "stack")


def degeneration(data: ReportData, cells: Sequence[Cell]) -> Table:
    """Do answers fall apart: a row of rates for the reference and for each cell, with the sentinel's flags."""

    def fields(cell: Cell, prefix: str = "") -> list[Field]:
        return [Field(_estimate(data, cell, column, prefix, "eval") or DASH) for column in FORM]

    rows = []
    if all(f"{REFERENCE}{column.needs}" in samples for samples in data.samples.values() for column in FORM):
        rows.append((Field("reference", "before training"), *fields(cells[0], REFERENCE), Field(DASH)))
    for cell in cells:
        rows.append((data.head(cell), *fields(cell), Field("; ".join(faults_of(data.samples, cell)) or "none")))
    note = (
        "Held-out prompts, mean and 95 % interval over seeds. A flag: worse than the reference's own answers to the"
        " same prompts by a stated margin, in more than half of the runs. An answer ends with end-of-sequence within"
        " the length that was sampled."
    )
    header = ("Objective and beta", *(column.title for column in FORM), "flags")
    return Table(f"Form of the answers, {data.headline.title}", header, tuple(rows), note, "stack")


def _safety(data: ReportData, cells: Sequence[Cell]) -> Table | None:
    """Over-refusal, harmful compliance and sycophancy on the prompts of `evaluation.prompts`, by rule."""
    if not any((split_of(samples, Split.BEHAVIOUR)).any() for samples in data.samples.values()):
        return None

    def fields(cell: Cell, prefix: str = "") -> list[Field]:
        return [Field(_estimate(data, cell, column, prefix, Split.BEHAVIOUR) or DASH) for column in SAFETY]

    rows = [(Field("reference", "before training"), *fields(cells[0], REFERENCE))]
    rows += [(data.head(cell), *fields(cell)) for cell in cells]
    note = (
        "Shares of the answers to harmless prompts that refuse, to harmful ones that do not, and to wrong opinions that"
        " agree; mean and 95 % interval over seeds. Rules read each answer's opening, in English, not what it says:"
        " on fresh answers they agree with hand labels in 48 of 52 cases (refusal) and in 25 of 28 (agreement)."
    )
    return Table("Safety behaviour", ("Objective and beta", *(column.title for column in SAFETY)), tuple(rows), note)


def _estimate(data: ReportData, cell: Cell, column: Rate, prefix: str, split: str) -> str:
    """Mean and interval over the sampled runs of a cell on one split; empty where nothing is known."""
    by_run = []
    for run in cell.runs:
        samples, needs = data.samples.get(run.key), f"{prefix}{column.needs}"
        if samples is None or needs not in samples:
            continue
        mask: Bools = split_of(samples, split)
        if column.group:
            of_kind = samples["group"] == column.group if split == Split.BEHAVIOUR else of_type(samples, column.group)
            mask = mask & np.asarray(of_kind, dtype=bool)
        if not mask.any():
            continue
        values = samples[needs] if column.values is None else column.values({column.needs: samples[needs]})
        by_run.append(rate({**samples, needs: values}, needs, mask))
    known = [one for one in by_run if one is not None]
    if not known:
        return ""
    values_, counts = [value for value, _ in known], [count for _, count in known]
    return shown(cell_estimate(values_, counts, shared=cell.shares_pairs) if column.share else t_interval(values_))


def _answers(data: ReportData, cells: Sequence[Cell], judged: bool) -> Table | None:
    """The same prompts to several policies (first common seed), beside the reference; data, never markup.

    Where nothing judges answers (`judged` is false) more policies stand beside each other, for the reader to judge.
    """
    policies = _contrasting(data, cells) if judged else list(cells[:SIDE_BY_SIDE])
    wrong = fault if judged else form_faults
    by_seed = [{run.seed: data.samples[run.key] for run in cell.runs if run.key in data.samples} for cell in policies]
    common = sorted(set.intersection(*map(set, by_seed))) if by_seed else []
    if not common or not data.texts.pairs:
        return None
    samples = [select(own, ~split_of(own, Split.BEHAVIOUR)) for own in (runs[common[0]] for runs in by_seed)]
    places = [{str(prompt): i for i, prompt in enumerate(table["prompt"])} for table in samples]
    shared = [prompt for prompt in places[0] if all(prompt in other for other in places)]
    reference = f"{REFERENCE}response" in samples[0]
    rows = []
    for prompt in _first_by_type(samples[0], shared, wrong):
        first = places[0][prompt]
        group = str(samples[0]["group"][first])
        row = [*data.texts.pair(prompt, content_hash(prompt), row_of(samples[0], first), group)]
        if reference:
            row.append(data.texts.field(samples[0][f"{REFERENCE}response"][first]))
        for table, place in zip(samples, places, strict=True):
            row.append(data.texts.field(table["response"][place[prompt]], wrong(table, place[prompt])))
        rows.append(tuple(row))
    header = (*data.texts.heads("prompt"), *(["reference"] if reference else []), *(cell.named for cell in policies))
    note = (
        f"Seed {common[0]}. For each question type first the prompts that {policies[0].named} answers badly, in the"
        " order of the file, then others. Below an answer: what is wrong with it."
    )
    return Table("The same prompts, answered freely", header, tuple(rows), note, "text")


def _contrasting(data: ReportData, cells: Sequence[Cell]) -> list[Cell]:
    """The baseline where it ranks worst, and the cell that ranks best."""
    by_rank = sorted(cells, key=lambda cell: cell.ranking.mean)
    first = next((cell for cell in by_rank if cell.first.objective == data.baseline), by_rank[0])
    return [first, by_rank[-1]] if by_rank[-1] is not first else [first]


def form_faults(samples: Columns, row: int) -> str:
    """What is wrong with the form of one answer, in words."""
    answer = {name: samples[name][row : row + 1] for name in ("response", "ended") if name in samples}
    names = ["empty"] if empty(answer)[0] else []
    names += ["repeats itself"] if repetitive(answer)[0] else []
    names += ["does not end"] if "ended" in answer and not bool(answer["ended"][0]) else []
    return ", ".join(names)


def _first_by_type(samples: Columns, prompts: Sequence[str], wrong: Callable[[Columns, int], str]) -> list[str]:
    """Turn by turn one prompt of every question type, badly answered ones first."""
    places = {str(prompt): i for i, prompt in enumerate(samples["prompt"])}
    by_type: dict[str, list[str]] = {}
    for prompt in sorted(prompts, key=lambda prompt: (not wrong(samples, places[prompt]), places[prompt])):
        by_type.setdefault(str(samples["group"][places[prompt]]), []).append(prompt)
    queue = [own[turn] for turn in range(ANSWERS) for _, own in sorted(by_type.items()) if turn < len(own)]
    return queue[:ANSWERS]


ROWS = (Section("behaviour", "Answers", behaviour),)
