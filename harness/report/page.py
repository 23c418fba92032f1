"""`write_report`: tables, figures and one self-contained page, from the files of a sweep folder alone.

The bytes depend on those files only: no clock, locale, time zone, working directory or row order enters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.metrics.statistics import MIN_SEEDS
from harness.plugins import absent, installed, short
from harness.report.answer import answer
from harness.report.cards import cards
from harness.report.data.cells import Cell, axis_values, cells_csv
from harness.report.data.contrasts import contrasts_csv
from harness.report.data.dominance import matched_csv
from harness.report.data.frontier import points_csv
from harness.report.data.report_data import PER_EXAMPLE_RUNS, ReportData, read_report_data
from harness.report.data.slices import slices_csv
from harness.report.data.sweep import Run, Sweep, ordered
from harness.report.data.tables import write_results
from harness.report.heroes import heroes
from harness.report.render.jinja import render
from harness.report.render.text import percent, plain, quantity, visible
from harness.report.sections.prediction import prediction_csv
from harness.report.sections.registry import SECTIONS, page_sections
from harness.report.sections.row import Page, make_sections, write_page
from harness.report.texts import BANNER
from harness.storage.answer_file import write_answer
from harness.storage.atomic import read_json, write_atomic, write_json
from harness.storage.plan_file import PRIVATE
from harness.types import RunStatus

PLUGIN_SECTIONS = "plugins.json"  # in the report's folder: sections that plug-ins drew, with their plug-in
OPEN = ("cases", "heat", "verdict", "replicas")  # what decides; the rest is folded


def write_report(sweep_folder: Path, limit: int = PER_EXAMPLE_RUNS, texts: str = "", *, script: bool = True) -> Path:
    """Writes `results.csv`, `costs.csv` and `report/` (page, Markdown, figures and CSV tables).

    Returns the path of `report/index.html`. Works while runs or their records are missing (the page says which); above
    `limit` runs no per-example record is read. `texts`, one of `TEXTS`, stands for what the spec says of texts; quotes
    of `data` go to `report/private.html`. Without `script` the page has no script, and the same content. Raises
    InputError where there is no readable plan.
    """
    data = read_report_data(Path(sweep_folder), limit, texts)
    write_results(data.sweep)
    folder = data.sweep.folder / "report"
    folder.mkdir(exist_ok=True)
    write_atomic(folder / "cells.csv", cells_csv(data.cells, data.sweep.axes))
    write_atomic(folder / "contrasts.csv", contrasts_csv(data.arenas, data.baseline, data.sweep.axes))
    write_atomic(folder / "frontier.csv", points_csv(data.arenas, data.sweep.axes))
    write_atomic(folder / "matched.csv", matched_csv(data.arenas, data.baseline))
    if data.prediction is not None:
        write_atomic(folder / "prediction.csv", prediction_csv(data, data.prediction))
    if data.slices:
        write_atomic(folder / "slices.csv", slices_csv(data.slices))
    page = build_page(data)
    page = replace(page, warnings=(*page.warnings, *_lost_sections(folder, page)), script=script)
    write_answer(folder, {card.name: card.text for card in page.cards})
    _write_private(data, folder / PRIVATE)
    return write_page(folder, page)


def _lost_sections(folder: Path, page: Page[ReportData]) -> tuple[str, ...]:
    """A sentence for each section that an earlier report had from a plug-in that is gone; notes those of this one."""
    path = folder / PLUGIN_SECTIONS
    before: dict[str, str] = read_json(path) if path.is_file() else {}
    now = {row.short: SECTIONS.plugin(row.name) for row, _ in page.sections if SECTIONS.plugin(row.name)}
    lost = {name: plugin for name, plugin in before.items() if name not in now and not installed(plugin)}
    if now or before:
        write_json(path, now | lost)
    return tuple(
        f"section {visible(name)} came from plug-in {visible(short(plugin))}, which is not installed here: left out"
        for name, plugin in lost.items()
    )


def _write_private(data: ReportData, path: Path) -> None:
    """The sections that quote, on a page of their own; without any the file of an earlier report goes."""
    policy = data.texts.private
    page = None if policy is None else build_page(replace(data, texts=policy))
    quoting = () if page is None else tuple((row, content) for row, content in page.sections if content.quotes)
    if page is None or not quoting:
        path.unlink(missing_ok=True)
        return
    write_atomic(
        path,
        render(
            "index.html",
            replace(page, kind="quotes, private", private=True, script=False, sections=quoting, warnings=(BANNER,)),
        ),
    )


def build_page(data: ReportData) -> Page[ReportData]:
    """All texts of the page."""
    question, context = asked(visible(data.sweep.question))
    return Page(
        kind="sweep report",
        name=visible(data.sweep.name),
        question=question or "What does this sweep show?",
        context=context,
        answer=answer(data),
        cards=cards(data),
        heroes=heroes(data),
        open=OPEN,
        warnings=warnings(data),
        status=data.sweep.status_line,
        flags=flags(data.sweep, data.cells),
        axes=axes(data.sweep, data.cells),
        sections=make_sections(page_sections(), data),
        texts=data.texts.shown,
    )


def asked(text: str) -> tuple[str, str]:
    """A spec's question as far as its last question mark, which heads the page, and what it says after that."""
    question, mark, context = text.rpartition("? ")
    return (f"{question}?", context) if mark else (text, "")


def axes(sweep: Sweep, cells: Sequence[Cell]) -> tuple[tuple[str, str], ...]:
    """The axes of the sweep with their values, in canonical order."""
    runs = [cell.first for cell in cells]
    base = runs[0].objective if runs else ""
    betas = sorted({run.beta for run in runs if run.beta is not None})
    corruptions = {
        (r.corruption != "none", r.corruption, r.config["corruption"].get("rate") or 0.0, r.corruption_text)
        for r in runs
    }
    kinds = ["clean" if not dirty else visible(text) for dirty, _, _, text in sorted(corruptions)]
    out = [
        ("objectives", ", ".join(visible(name) for name in ordered({run.objective for run in runs}, base))),
        ("betas", ", ".join(map(plain, betas))),
        ("corruption", ", ".join(kinds)),
        ("reference wrong on", _dials(runs)),
        ("seeds", f"{len(sweep.seeds)}, paired"),
    ]
    for axis in sweep.axes:
        if axis == "corruption.steps":  # named step by step above
            continue
        values = {repr(v): v for cell in cells if (v := axis_values(cell, [axis])[axis]) is not None}
        out.append((axis, ", ".join(visible(values[k]) for k in sorted(values))))
    return tuple((name, values) for name, values in out if values)


def _dials(runs: Sequence[Run]) -> str:
    """`0 %, 75 % of topics`; empty on real data."""
    values = sorted({run.misaligned for run in runs if run.misaligned is not None})
    return f"{', '.join(map(percent, values))} of topics" if values else ""


def warnings(data: ReportData) -> tuple[str, ...]:
    """What makes a page say less than it should, in its first lines: nothing finished, records or gold missing."""
    done, total = data.sweep.count("done"), len(data.sweep.runs)
    out = []
    if not done:
        out.append(f"0 of {quantity(total, 'run')} finished ({data.sweep.counts()}): there is nothing to compare yet")
    out += data.problems
    out += absent(data.sweep.plugins)
    if done and not any(cell.estimate("gold_reward").n for cell in data.cells):
        real = all(cell.first.misaligned is None for cell in data.cells)
        why = "real data have no known true reward" if real else "no run measured it"
        out.append(f"no gold reward: {why}; answers are judged by ranking accuracy and KL alone")
    if judges := sorted({run.gold[0].name for run in data.sweep.runs if run.gold}):
        out.append(f"gold reward is the score of a reward model, {', '.join(judges)}: its errors are in it")
    return tuple(visible(text) for text in out)


def flags(sweep: Sweep, cells: Sequence[Cell]) -> tuple[str, ...]:
    """What a reader must know before any number: missing seeds, too few seeds."""
    out = []
    waiting = [cell for cell in cells if cell.waiting]
    if waiting:
        least = min(waiting, key=lambda cell: (cell.planned - cell.waiting) / cell.planned)
        out.append(
            f"incomplete: {quantity(len(waiting), 'cell')} of {len(cells)}; the least has"
            f" {least.planned - least.waiting} of {quantity(least.planned, 'seed')}"
        )
    lost = sweep.count(RunStatus.DIVERGED) + sweep.count(RunStatus.FAILED)
    if lost:
        out.append(f"{quantity(lost, 'run')} diverged or failed: counted as worst")
    if len(sweep.seeds) == 1:
        out.append("one seed: no intervals")
    elif len(sweep.seeds) < MIN_SEEDS:
        out.append(f"fewer than {MIN_SEEDS} seeds: intervals, no verdicts")
    return tuple(out)
