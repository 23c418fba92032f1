"""What policies say when they speak freely: over-refusal, sycophancy, harmful compliance, by type, also on OOD."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.identity import content_hash
from harness.metrics.records import Bools, Columns
from harness.metrics.statistics import cell_estimate, t_interval
from harness.report.data.cells import Cell
from harness.report.data.context import Material
from harness.report.data.samples import FAULTS, REFERENCE, fault, of_type, rate, row_of, split_of
from harness.report.render.blocks import Field, Section, Table, given
from harness.report.render.text import DASH, shown, visible
from harness.report.sections.degeneration import degeneration, faults_in

ANSWERS = 6  # rows of the table of answers
SIDE_BY_SIDE = 4  # policies of a table of answers that nothing judges
Mask = Callable[[Columns], Bools]


def behaviour(m: Material) -> Section | None:
    """Rates where the samples carry flags; answers side by side wherever there are samples."""
    cells = [cell for cell in m.sampled if any(run.key in m.samples for run in cell.runs)]
    if not cells:
        return None
    flagged = any(column in own for own in m.samples.values() for column in FAULTS)
    types = sorted({str(group) for own in m.samples.values() for group in own["group"]})
    more = [_by_type(m, cells, group) for group in types] if flagged and len(types) > 1 else []
    return Section(
        "Do the answers get worse?",
        "Free-running samples at the end of training, prompts and random numbers shared by all policies and the"
        " reference. The ranking does not show these faults.",
        given(_rates(m, cells) if flagged else degeneration(m, cells), _answers(m, cells, flagged)),
        tuple(more),
        "By question type",
    )


def _rates(m: Material, cells: Sequence[Cell]) -> Table:
    columns: list[tuple[str, str, Callable[[str], Mask], bool]] = [
        (f"{name} ({group} questions)", column, _typed(group), True) for column, (name, group) in FAULTS.items()
    ]
    columns += [("correct", "correct", _all, True), ("malformed", "malformed", _all, True)]
    columns += [("gold reward", "gold_reward", _all, False)]
    return _table(m, cells, columns, f"Samples, {m.headline.title}")


def _by_type(m: Material, cells: Sequence[Cell], group: str) -> Table:
    names = [("correct", "correct", True), *((name, column, True) for column, (name, _) in FAULTS.items())]
    names += [("malformed", "malformed", True), ("gold reward", "gold_reward", False)]
    columns = [(name, column, _typed(group), share) for name, column, share in names]
    return _table(m, cells, columns, f"{visible(group)} questions")


def _typed(group: str) -> Callable[[str], Mask]:
    return lambda split: lambda samples: split_of(samples, split) & of_type(samples, group)


def _all(split: str) -> Mask:
    return lambda samples: split_of(samples, split)


def _table(
    m: Material, cells: Sequence[Cell], columns: Sequence[tuple[str, str, Callable[[str], Mask], bool]], caption: str
) -> Table:
    rows = []
    if any(f"{REFERENCE}correct" in own for own in m.samples.values()):
        head = Field("reference", "before training")
        rows.append((head, *(_field(m, cells[0], REFERENCE + c, mask, share) for _, c, mask, share in columns)))
    for cell in cells:
        head = Field(cell.named, mark=m.looks[cell.first.objective].colour)
        rows.append((head, *(_field(m, cell, column, mask, share) for _, column, mask, share in columns)))
    note = "Mean and 95 % interval over seeds; below, the same on out-of-distribution prompts where there are any."
    return Table(caption, ("Objective and beta", *(name for name, *_ in columns)), tuple(rows), note, "stack")


def _field(m: Material, cell: Cell, column: str, mask: Callable[[str], Mask], share: bool) -> Field:
    main, other = (_estimate(m, cell, column, mask(split), share) for split in ("eval", "ood"))
    return Field(main or DASH, f"OOD {other}" if other else "")


def _estimate(m: Material, cell: Cell, column: str, mask: Mask, share: bool) -> str:
    samples = [m.samples[run.key] for run in cell.runs if run.key in m.samples]
    found = [one for own in samples if (one := rate(own, column, mask(own))) is not None]
    if not found:
        return ""
    values, counts = [value for value, _ in found], [count for _, count in found]
    return shown(cell_estimate(values, counts, share=True) if share else t_interval(values))


def _answers(m: Material, cells: Sequence[Cell], judged: bool) -> Table | None:
    """The same prompts to several policies (first common seed), beside the reference; data, never markup.

    Where nothing judges answers (`judged` is false) more policies stand beside each other, for the reader to judge.
    """
    picked = _contrasting(m, cells) if judged else list(cells[:SIDE_BY_SIDE])
    wrong = fault if judged else _made_badly
    seeds = [{run.seed: m.samples[run.key] for run in cell.runs if run.key in m.samples} for cell in picked]
    common = sorted(set.intersection(*map(set, seeds))) if seeds else []
    if not common or not m.texts.pairs:
        return None
    samples = [own[common[0]] for own in seeds]
    places = [{str(prompt): i for i, prompt in enumerate(own["prompt"])} for own in samples]
    prompts = _chosen(samples[0], [p for p in places[0] if all(p in other for other in places)], wrong)
    reference = f"{REFERENCE}response" in samples[0]
    rows = []
    for prompt in prompts:
        first = places[0][prompt]
        row = [*m.texts.pair(prompt, content_hash(prompt), row_of(samples[0], first), str(samples[0]["group"][first]))]
        if reference:
            row.append(m.texts.field(samples[0][f"{REFERENCE}response"][first]))
        for own, place in zip(samples, places, strict=True):
            row.append(m.texts.field(own["response"][place[prompt]], wrong(own, place[prompt])))
        rows.append(tuple(row))
    header = (*m.texts.heads("prompt"), *(["reference"] if reference else []), *(cell.named for cell in picked))
    note = (
        f"Seed {common[0]}. Per question type the first prompts, in the order of the file, that {picked[0].named}"
        " answers badly, then any; what is wrong with an answer stands below it."
    )
    return Table("The same prompts, answered freely", header, tuple(rows), note, "text")


def _contrasting(m: Material, cells: Sequence[Cell]) -> list[Cell]:
    """The baseline where it ranks worst, and the cell that ranks best."""
    by_rank = sorted(cells, key=lambda cell: cell.estimate("ranking_accuracy").mean)
    own = [cell for cell in by_rank if cell.first.objective == m.baseline]
    first = own[0] if own else by_rank[0]
    return [first, by_rank[-1]] if by_rank[-1] is not first else [first]


def _made_badly(samples: Columns, row: int) -> str:
    return ", ".join(faults_in(samples, row))


def _chosen(samples: Columns, prompts: Sequence[str], wrong: Callable[[Columns, int], str]) -> list[str]:
    places = {str(prompt): i for i, prompt in enumerate(samples["prompt"])}
    ranked = sorted(prompts, key=lambda prompt: (not wrong(samples, places[prompt]), places[prompt]))
    by_type: dict[str, list[str]] = {}
    for prompt in ranked:
        by_type.setdefault(str(samples["group"][places[prompt]]), []).append(prompt)
    queue: list[str] = []
    for turn in range(ANSWERS):
        queue += [own[turn] for _, own in sorted(by_type.items()) if turn < len(own)]
    return queue[:ANSWERS]
