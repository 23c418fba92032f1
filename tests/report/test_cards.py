"""The cards that head a page: what they recommend is what the results say, and a terminal says the same."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.corruptions.registry import resolve
from harness.metrics.statistics import Estimate
from harness.report.cards import cards
from harness.report.data.conditions import noise
from harness.report.data.headline import Failure
from harness.report.data.recommendation import Arm, Choice
from harness.report.data.report_data import ReportData, read_report_data
from harness.report.heroes import _kl_axis, _survival_finding, _value, heroes
from harness.report.page import asked, write_report
from harness.report.render.blocks import Card
from harness.report.render.figures import draw
from harness.report.render.text import percent, percents
from harness.report.sections.damage import damages
from harness.storage.answer_file import answer_lines, read_answer
from harness.types import CorruptionSpec, RunSpec
from tests.report.fixture import grid, write_sweep


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = grid(objectives=("dpo", "robust_dpo", "cpo_smooth"), betas=2, seeds=6, items=48)
    folder = write_sweep(tmp_path_factory.mktemp("cards") / "s", runs, samples=False)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def data(folder: Path) -> ReportData:
    return read_report_data(folder)


@pytest.fixture(scope="module")
def found(data: ReportData) -> dict[str, Card]:
    return {card.name: card for card in cards(data)}


def means(folder: Path, dial: float) -> pd.Series:
    results = pd.read_csv(folder / "results.csv").query(f"misaligned == {dial}")
    return results.groupby(["rate", "objective", "beta"])["ranking_accuracy"].mean()


def test_the_first_card_names_the_best_setting_with_its_numbers(folder: Path, found: dict[str, Card]) -> None:
    best = means(folder, 0.75)[0.0]
    objective, beta = best.idxmax()
    assert found["use"].title.startswith(f"{objective}, beta"), "the best mean leads its set"
    lead = " ".join(found["use"].lines)
    assert percent(best.max()) in lead.replace("ranks ", "") or f"ranks {100 * best.max():.1f}" in lead
    assert "with the reference wrong on 75\u00a0% of topics (6 seeds)" in lead and "right with clean labels" in lead
    assert f"{beta:g}" in found["use"].title


def test_the_baseline_and_the_runner_up_are_tested_alike(data: ReportData, found: dict[str, Card]) -> None:
    recommended = data.recommendation
    assert recommended is not None and recommended.runner_up is not None
    assert "cpo_smooth ahead of dpo: " in found["sure"].title
    for rival in ("dpo", recommended.runner_up):
        leads = recommended.leads_over(rival)
        assert {lead.family for lead in leads} == {5}, "six settings make five comparisons"
        assert any(f" against {rival} at beta" in line for line in found["sure"].lines)
        widest = max(leads, key=lambda lead: lead.interval.low)
        assert widest.shown == (widest.interval.low > 0)
        assert any(percents(widest.interval, "\u00a0points") in line for line in found["sure"].lines)
    assert recommended.leads_over(recommended.lead.first.objective) == ()


def test_a_runner_up_is_named_whoever_leads_the_first_case(data: ReportData) -> None:
    recommended = data.recommendation
    assert recommended is not None
    band = recommended.bands[0]
    pick = recommended.pick(band.arenas[0])
    objectives = {arm[0] for arm in (*pick.arms, *pick.beaten)}
    for arm in (*pick.arms, *pick.beaten):
        cell = band.arenas[0].cell(*arm)
        assert cell is not None
        choice = replace(band.choices[0], arms=(arm,), lead=cell)
        led = replace(recommended, bands=(replace(band, choices=(choice,)),))
        assert led.runner_up in objectives - {arm[0]}


def test_an_objective_with_a_setting_in_the_set_is_not_called_shown_worse(data: ReportData) -> None:
    """Of two betas of dpo the one with the better mean is shown worse and the other is not: the latter is compared."""
    recommended = data.recommendation
    assert recommended is not None
    pick = recommended.picks[0]
    theirs = [arm for arm in (*pick.arms, *pick.beaten) if arm[0] == "dpo"]
    own = pick.arms[0]
    assert own[0] != "dpo" and len(theirs) == 2
    for kept in theirs:
        beaten = {arm: own for arm in theirs if arm != kept}
        planted = replace(recommended, picks=(replace(pick, arms=(own, kept), beaten=beaten), *recommended.picks[1:]))
        over = planted.leads_over("dpo")[0].over
        assert over is recommended.arenas[0].cell(*kept)


def test_what_decides_fairness_and_the_good_news_are_said(folder: Path, found: dict[str, Card]) -> None:
    assert "robust_dpo is told a flip rate of 10\u00a0%, whatever the true one." in found["sure"].lines
    right = means(folder, 0.0)[0.0]
    said = any("stay with dpo" in line for line in found["next"].lines)
    assert said == (right.min() >= 0.95)
    assert found["next"].command == "harness init mine.yaml --data prefs.jsonl.gz"


def test_what_breaks_is_the_baseline_where_it_looks_well(folder: Path, found: dict[str, Card]) -> None:
    assert found["breaks"].title.startswith("dpo at beta ")
    assert "of held-out pairs right" in found["breaks"].lines[0] and "training loss falls" in found["breaks"].lines[0]


def test_a_recommended_setting_that_breaks_is_called_so(data: ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "It is a recommended setting itself: of what was tried none is shown to do better."
    assert data.recommendation is not None
    band = data.recommendation.bands[0]
    found = [arena.cell(*arm) for arena in band.arenas for arm in band.arms]
    arms = {cell.first.arm for cell in found if cell is not None}
    for cell in data.headline.cells:
        failure = Failure(data.headline, cell, falls=False)
        monkeypatch.setitem(data.__dict__, "failure", failure)
        card = next(one for one in cards(data) if one.name == "breaks")
        assert (said in card.lines) == (cell.first.arm in arms)


def test_the_terminal_says_what_the_page_says(folder: Path, found: dict[str, Card]) -> None:
    kept = json.loads((folder / "report" / "answer.json").read_text())
    assert set(kept) == {"use", "breaks", "sure", "next"} and kept["use"].startswith(found["use"].title)
    use, breaks = answer_lines(folder / "report")
    assert use.startswith("Use: ") and breaks.startswith("Breaks: dpo at beta ") and "\u00a0" not in use + breaks
    shown = CliRunner().invoke(app, ["status", str(folder)]).output
    assert use in shown and breaks in shown
    assert read_answer(folder / "nothing") == {}


def test_one_setting_alone_is_no_recommendation(tmp_path: Path) -> None:
    runs = grid(objectives=("dpo",), betas=1, dials=(0.75,), rates=(0.0,), seeds=2)
    use = cards(read_report_data(write_sweep(tmp_path / "one", runs)))[0]
    assert use.title.startswith("dpo at beta") and "Nothing else was finished to compare it with." in use.lines


def test_a_title_calls_no_difference_what_intervals_do_not(tmp_path: Path) -> None:
    """Twins under two names: the same draws, so that neither holds out better at either end."""
    runs = grid(objectives=("dpo", "robust_dpo"), betas=1, dials=(0.75,), rates=(0.0, 0.4), seeds=3, items=48)
    picture = heroes(read_report_data(write_sweep(tmp_path / "twins", runs, samples=False)))[0]
    assert picture.title.startswith("No objective holds out better: ") and "with 40\u00a0% flips" in picture.title
    runs = grid(objectives=("dpo", "cpo_smooth"), betas=2, dials=(0.75,), rates=(0.0, 0.2), seeds=6, items=48)
    picture = heroes(read_report_data(write_sweep(tmp_path / "apart", runs, samples=False)))[0]
    assert picture.title.startswith("cpo_smooth holds out best")


def test_the_recommended_setting_is_in_the_figure_where_its_answers_decide(data: ReportData) -> None:
    """By true reward another beta than the one that ranks most pairs right over the rates may be recommended."""
    recommended = data.recommendation
    assert recommended is not None and recommended.measure == "ranking_accuracy", "without samples ranking decides"
    picture = heroes(data)[0]
    lead = recommended.lead.named.encode()
    assert lead in picture.svg
    assert (b"recommended" in picture.svg) == ("Dashed: the recommended setting." in picture.caption)


def test_a_title_names_nobody_ahead_where_only_the_clean_end_shows_a_difference() -> None:
    """With flips .54 and .53 lie within each other's intervals; on clean labels .83 and .66 are apart."""

    def cell(mean: float) -> SimpleNamespace:
        return SimpleNamespace(ranking=SimpleNamespace(mean=mean, low=mean - 0.04))

    ends = [
        SimpleNamespace(
            first=SimpleNamespace(corruption=kind), cells=(SimpleNamespace(rate=rate),), clean=not rate, rate=rate
        )
        for kind, rate in (("none", None), ("uniform_flip", 0.4))
    ]
    lines = {
        "cpo_smooth": [(ends[0], cell(0.83)), (ends[1], cell(0.54))],
        "ppo": [(ends[0], cell(0.66)), (ends[1], cell(0.53))],
    }
    title = _survival_finding(lines, ends)  # type: ignore[arg-type]
    assert title.startswith("cpo_smooth ranks 83") and "ppo 66" in title and "none is ahead (53" in title
    lines["ppo"][1] = (ends[1], cell(0.4))
    assert "holds out best" in _survival_finding(lines, ends)  # type: ignore[arg-type]


def test_a_far_kl_has_a_logarithmic_axis_with_plain_numbers() -> None:
    def paint(_: object, axes: Any) -> None:
        axes[0, 0].plot([0.3, 31.0], [0.5, 0.6])
        _kl_axis(axes[0, 0], 31.0)

    svg = draw(1, 1, (4, 3), paint).decode()
    assert "mathdefault" not in svg and all(f">{tick}<" in svg for tick in ("1", "10", "30"))


CASES = ("none", "uniform_flip", "label_drop", "near_tie", "mnar")


def kinds_of_damage(seeds: int = 6) -> list[RunSpec]:
    """dpo and ipo at two betas on clean labels, under four kinds of damage at one rate each, and with one cleaned."""
    base = grid(("dpo", "ipo"), dials=(0.75,), rates=(0.0,), seeds=seeds, items=32)
    flip = {"kind": "uniform_flip", "rate": 0.2}
    specs = [CorruptionSpec() if kind == "none" else CorruptionSpec(kind, 0.2) for kind in CASES]
    specs.append(resolve({"sequence": [flip, {"kind": "curate_relabel", "rate": 0.2}]}))
    return [replace(run, corruption=spec) for spec in specs for run in base]


def rewards(run: RunSpec) -> dict[str, float]:
    """dpo at beta 5 answers best everywhere but under mnar, where ipo at .5 does; all worse than the untrained model;
    ipo at .1 is as good as dpo at 5 under three of the six."""
    name, beta, kind = run.objective.name, run.objective.beta, run.corruption.kind
    wobble = 0.01 * ((7 * run.seed + 3 * int(beta or 0)) % 5)
    good = {("dpo", 5.0): 0.5, ("ipo", 0.1): 0.5 if kind in ("none", "uniform_flip", "sequence") else 0.2}
    value = good.get((name, float(beta or 0)), 0.1)
    if kind == "mnar":
        value = 0.9 if (name, beta) == ("ipo", 0.5) else 0.1
    right = {"sequence": 0.6, "mnar": 0.5, "none": 0.9}.get(kind, 0.7) + (0.05 if name == "ipo" else 0.0)
    return {
        "gold_reward": value + wobble,
        "kl": 1.0,
        "malformed": 0.1,
        "ranking_accuracy": right + wobble,
        "reward_accuracy": right,
        "reference_gold_reward": 0.7 + wobble / 2,
    }


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    runs = kinds_of_damage()
    return read_report_data(
        write_sweep(tmp_path_factory.mktemp("kinds") / "s", runs, samples=False, planted=rewards), limit=0
    )


def arms_of(choices: Iterable[Choice]) -> set[Arm]:
    return {arm for choice in choices for arm in choice.arms}


def test_a_setting_is_recommended_in_the_cases_that_the_table_lists_it_for(kinds: ReportData) -> None:
    found = kinds.recommendation
    assert found is not None and found.measure == "gold_reward"
    first, *later = found.bands
    assert len(first.arenas) == 5 and [len(band.arenas) for band in later] == [1] and not first.ordered
    by_arena = {id(case.arena): arms_of(case.choices) for case in kinds.cases}
    for band in found.bands:
        assert all(arms_of(band.choices) <= by_arena[id(arena)] for arena in band.arenas)
    assert all(not arms_of(first.choices) & by_arena[id(arena)] for arena in first.others)
    ipo = next(
        arm for case in kinds.cases for arm in arms_of(case.choices) if arm[0] == "ipo" and arm not in first.arms
    )
    assert any(ipo not in arms for arms in by_arena.values()), "what some cases alone allow is not recommended for all"


def test_kinds_of_corruption_are_counted_and_not_a_range(kinds: ReportData) -> None:
    use = cards(kinds)[0]
    text = use.text.replace("\u00a0", " ")
    assert "In 5 of 6 cases, not with 20 % mnar" in text and "Expect 20 % mnar? ipo" in text
    assert "lean labels to" not in text and use.title.endswith("dpo, beta 5")


def test_cleaned_labels_are_no_kind_of_damage(kinds: ReportData) -> None:
    labels = {damage.label for damage in damages(kinds.families)}
    assert len(labels) == 4 and not any("curate" in label for label in labels)
    breaks = next(card for card in cards(kinds) if card.name == "breaks")
    assert breaks.title.startswith("For dpo the costliest damage is mnar") and "points" in breaks.text
    assert any("curate_relabel 0.2 \u221210" in line for line in cards(kinds)[0].lines), "what cleaning is worth"


def test_answers_worse_than_the_untrained_model_are_said(kinds: ReportData, tmp_path: Path) -> None:
    use = cards(kinds)[0]
    assert use.title.startswith("Every setting's answers are worse than the untrained model's; best of them: ")
    line = next(line for line in use.lines if "before training" in line)
    assert kinds.recommendation is not None
    arena = kinds.recommendation.bands[0].arenas[0]
    assert line.startswith("dpo at beta 5 answers worse than the untrained model: true reward 0.5")
    assert "(below it in 5 of 5 cases)" in line and arena.first.clean

    def better(run: RunSpec) -> dict[str, float]:
        return {**rewards(run), "reference_gold_reward": 0.0}

    runs = [run for run in kinds_of_damage() if run.corruption.kind == "none"]
    use = cards(read_report_data(write_sweep(tmp_path / "better", runs, samples=False, planted=better), limit=0))[0]
    assert "untrained" not in use.text


def test_cards_say_by_what_they_judge(kinds: ReportData) -> None:
    found = {card.name: card for card in cards(kinds)}
    assert found["use"].label == "Use, judged by true reward of answers"
    assert found["breaks"].label == "What breaks, judged by ranking of held-out pairs"
    title = found["sure"].title.replace("\u00a0", " ")
    assert title.startswith("By true reward, dpo ahead of ipo: shown with 20 % label_drop and 20 % near_tie only. ")
    assert "By ranking, ipo better than dpo, at the same KL" in title
    assert found["next"].title.endswith("with clean labels")
    assert any(line.startswith("By ranking dpo at beta 5 is not the choice: ") for line in found["use"].lines)


def test_a_recommended_setting_that_ranks_badly_is_said_on_both_cards(
    kinds: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommended = kinds.recommendation
    assert recommended is not None
    failure = Failure(recommended.bands[0].arenas[0].first, recommended.lead, falls=False)
    monkeypatch.setitem(kinds.__dict__, "failure", failure)
    found = {card.name: card for card in cards(kinds)}
    said = "dpo at beta 5 is among these although it breaks the ranking: 9"
    assert any(line.startswith(said) and "by ipo at beta" in line for line in found["use"].lines)
    assert "By true reward of its answers it is among the recommended settings." in found["breaks"].lines


def test_few_seeds_show_nothing(tmp_path: Path) -> None:
    """Below the seeds of a verdict an interval above 0 is called so."""
    folder = write_sweep(tmp_path / "few", kinds_of_damage(3), samples=False, planted=rewards)
    sure = next(card for card in cards(read_report_data(folder, limit=0)) if card.name == "sure")
    assert sure.title == "No verdict: 3 seeds" and "interval above 0." in sure.text and "shown" not in sure.text


def test_figures_speak_of_the_recommended_setting(kinds: ReportData) -> None:
    by_case, frontier = heroes(kinds)
    title = by_case.title.replace("\u00a0", " ")
    assert title.startswith("dpo at beta 5 (recommended): 9") and "right with clean labels, " in title
    assert all(noise(condition).replace("\u00a0", " ").encode() in by_case.svg for condition in kinds.conditions)
    assert "dpo at beta 5" in frontier.title
    assert _value(Estimate(3, -0.1, -0.2, 0.0), gold=True) == "\u22120.10", "a true minus, as on the cards"


def test_what_was_trained_otherwise_is_named_or_left_out(tmp_path: Path) -> None:
    """With two learning rates the frontier is drawn at the recommended one, and a setting of the other is named so."""

    def planted(run: RunSpec) -> dict[str, float]:
        slow = run.training.learning_rate < runs[0].training.learning_rate
        return {**rewards(run), "gold_reward": 0.1 + 0.01 * run.seed if slow else rewards(run)["gold_reward"]}

    runs = [run for run in kinds_of_damage() if run.corruption.kind == "none"]
    lower = runs[0].training.learning_rate / 2
    slow = [replace(run, training=replace(run.training, learning_rate=lower)) for run in runs]
    folder = write_sweep(tmp_path / "rates", [*runs, *slow], samples=False, planted=planted)
    data = read_report_data(folder, limit=0)
    names = [data.arena.named(cell) for cell in data.arena.cells]
    assert len(set(names)) == len(names) == 8 and all("(learning rate " in name for name in names)
    frontier = heroes(data)[1]
    rate = f"learning rate {runs[0].training.learning_rate:g}"
    assert rate in frontier.caption and frontier.svg.count(b"at KL 1") == 4


def test_the_question_heads_the_page_without_what_follows_it() -> None:
    assert asked("Does it help? By theory only so far.") == ("Does it help?", "By theory only so far.")
    assert asked("It is so. Which is best?") == ("It is so. Which is best?", "")
    assert asked("A statement.") == ("A statement.", "")
