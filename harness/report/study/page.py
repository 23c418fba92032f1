"""`write_study_report`: tables, figures and one self-contained page of a study, from the files of its folder alone."""

from __future__ import annotations

from pathlib import Path

from harness.identity import content_hash
from harness.plugins import absent
from harness.report.data.conditions import dial
from harness.report.data.tables import write_results
from harness.report.render.blocks import Content, Lines, present
from harness.report.render.text import quantity, visible
from harness.report.sections.row import Page, Section, make_sections, write_page
from harness.report.study.cards import cards
from harness.report.study.figures import pictures
from harness.report.study.findings import rescue_sentence, tuned_differences
from harness.report.study.heroes import heroes
from harness.report.study.study import Study, read_study
from harness.report.study.tables import (
    best_table,
    bounds_table,
    cost_table,
    difference_table,
    paid_table,
    regret_table,
    selection_csv,
    trials_csv,
    tuned_csv,
    winners_table,
)
from harness.storage.answer_file import write_answer
from harness.storage.atomic import write_atomic

OPEN = ("winners",)  # what decides; the rest is folded


def write_study_report(folder: Path, *, script: bool = True) -> Path:
    """Writes `results.csv`, `costs.csv`, `trials.csv` and `report/` (page, figures, CSV tables); the page's path.

    The bytes depend on the folder's files only. Without `script` the page has no script at all. Raises InputError where
    it holds no study.
    """
    study = read_study(Path(folder))
    write_results(study.sweep)
    differences = tuned_differences(study)
    place = study.folder / "report"
    place.mkdir(exist_ok=True)
    write_atomic(study.folder / "trials.csv", trials_csv(study))
    write_atomic(place / "tuned.csv", tuned_csv(study, differences))
    write_atomic(place / "selection.csv", selection_csv(study))
    page = Page(
        kind="study report",
        name=visible(study.about["name"]),
        question=visible(study.about["question"]) or "Which settings are best?",
        answer=(rescue_sentence(study, differences),),
        cards=cards(study, differences),
        heroes=heroes(study, differences),
        open=OPEN,
        folded="In full sentences",
        status=status(study),
        script=script,
        sections=make_sections(SECTIONS, study),
        texts="none",
        warnings=tuple(map(visible, absent([*study.sweep.plugins, *study.about.get("plugins", {}).items()]))),
    )
    write_answer(place, {card.name: card.text for card in page.cards})
    return write_page(place, page)


def status(study: Study) -> str:
    """Trials by outcome, runs, seeds."""
    states = [trial.state for trial in study.trials]
    named = (("COMPLETE", "complete"), ("PRUNED", "pruned"), ("FAIL", "failed"), ("RUNNING", "not finished"))
    counts = ", ".join(f"{states.count(state)} {word}" for state, word in named if states.count(state))
    seeds, fresh = len(study.about["seeds"]), len(study.about["fresh_seeds"])
    beyond = sum(trial.complete and not trial.feasible for trial in study.trials)
    counts += f", {beyond} of them beyond a bound" if beyond else ""
    return f"{quantity(len(states), 'trial')} ({counts}) of {seeds} seeds each; winners on {fresh} fresh seeds."


def winners(study: Study) -> Content:
    """The winners, compared on fresh seeds, and what they paid."""
    compared = difference_table(study, tuned_differences(study))
    tables = present(winners_table(study), compared, paid_table(study), bounds_table(study))
    return Content("Tuned objectives on fresh seeds", "", tables)


def search(study: Study) -> Content:
    """The figures of the search and its best trials."""
    return Content("How the search went", "", present(pictures(study), best_table(study)))


def selection(study: Study) -> Content | None:
    """What each rule of selection would have cost."""
    table = regret_table(study)
    return None if table is None else Content("What selecting by noisy labels costs", "", (table,))


def costs(study: Study) -> Content:
    """Budgets."""
    return Content("What it cost", "", (cost_table(study),))


def methods(study: Study) -> Content:
    """How to read the numbers."""
    about = study.about
    targets = "; ".join(f"{t['direction']} {t['measure']} on {t['split']}" for t in about["targets"])
    bounds = "; ".join(bound["name"] for bound in about["constraints"])
    sampler, pruner = about["sampler"], about["pruner"]
    world = study.sweep.runs[0]
    setting = [f"corruption {world.corruption_text}"]
    setting += [] if world.misaligned is None else [dial(world.misaligned)]
    setting.append(f"{world.planned_steps} steps")
    lines = (
        f"Target: {targets}{f', under {bounds}' if bounds else ''}. A trial's score is the mean over its "
        f"{len(about['seeds'])} seeds; without a finite value on every seed it fails, and nothing takes its place.",
        f"Search: {sampler['kind']}, seed {sampler['seed']}, {about['round']} trials of each objective asked at once; "
        f"pruner: {pruner['kind']}. Each objective has {quantity(about['sampler_seeds'], 'search', 'searches')}"
        " of its own, all with the same budget.",
        "Held-out pairs are cut in two by a hash of their prompt: validation steers the search, test is reported; no "
        "prompt is in both. Fresh seeds draw another world, other pairs, labels and order.",
        "Intervals over fresh seeds are Student's t, for shares never narrower than the pairs of one seed allow; "
        "differences are paired by seed, and corrected over all comparisons with the baseline. "
        + (
            "An objective is the mean of its searches' winners, and its intervals hold the variation between searches."
            if about["sampler_seeds"] > 1
            else "With one search per objective they leave out the variation between searches."
        ),
        f"Fixed in every run: {visible(', '.join(setting))}.",
    )
    return Content("How to read the numbers", "", (Lines(lines),))


def provenance(study: Study) -> Content:
    """What the page was drawn from."""
    keys = sorted(run.key for run in study.sweep.runs)
    outcomes = [[t.arm, t.number, t.state, list(t.values)] for t in study.trials]
    lines = (
        f"Study {str(study.about['key'])[:16]}; {quantity(len(keys), 'run key')}, digest {content_hash(keys)[:16]}; "
        f"trials and outcomes {content_hash(outcomes)[:16]}.",
        "Texts of pairs and answers: none (not shown here).",
        "Beside this page: trials.csv, results.csv, costs.csv, tuned.csv, selection.csv; optuna.db holds the same "
        "trials for Optuna's own tools. Every run's folder holds its journal, records, provenance and result.",
    )
    return Content("Provenance", "", (Lines(lines),))


SECTIONS: tuple[Section[Study], ...] = (
    Section("winners", "Winners", winners),
    Section("search", "Search", search),
    Section("selection", "Selection", selection),
    Section("costs", "Cost", costs),
    Section("methods", "Methods", methods),
    Section("provenance", "Provenance", provenance),
)
