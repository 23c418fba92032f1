"""The cards and figures that head a study's page: what they recommend keeps the bounds, and its numbers are by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from harness.report.render.blocks import Card
from harness.report.study.cards import DIGITS, cards, kept, named
from harness.report.study.findings import breaches, distance, pick_among, tuned_differences
from harness.report.study.heroes import heroes
from harness.report.study.page import write_study_report
from harness.report.study.study import Study, StudyTrial, read_study
from harness.report.study.tables import shown_params
from harness.storage.answer_file import answer_lines
from tests.report.test_study_page import FRESH, MEASURE, SECOND, plant


def headed(folder: Path, **planted: Any) -> tuple[Study, dict[str, Card]]:
    study = read_study(plant(folder, **planted))
    return study, {card.name: card for card in cards(study, tuned_differences(study))}


def test_the_first_card_names_the_tuned_objective_that_is_shown_best_with_its_settings(tmp_path: Path) -> None:
    """On fresh seeds 2 to 7 the rival's winner (trial 2, beta 0.1 x 4^2) has mean 0.6 + 0.01 x 4.5, dpo's 0.3 less."""
    study, found = headed(tmp_path, gold=0.6)
    assert found["use"].title == "cpo_smooth, beta 1.6, learning rate 0.0001"
    assert (
        "has delta mean 0.645" in found["use"].lines[0] and "true reward of its answers 0.645" in found["use"].lines[0]
    )
    assert "6 fresh seeds, 30\u00a0% flips, reference wrong on 50\u00a0% of topics" in found["use"].lines[0]
    assert pick_among(study, ("dpo", "cpo_smooth")).beaten.keys() == {"dpo"}
    assert found["sure"].title == "Tuning does not rescue dpo: worse than tuned cpo_smooth"
    assert found["sure"].lines[0].startswith("Tuned dpo against cpo_smooth: \u22120.300 [")
    assert "dpo: beta at the lower end of its range" in found["next"].lines[0]


def test_objectives_that_are_not_told_apart_stand_together(tmp_path: Path) -> None:
    _, found = headed(tmp_path, gap=0.0)
    assert "one of 2 tuned objectives not told apart" in found["use"].title
    assert any(line.startswith("Not told apart: ") for line in found["use"].lines)
    assert "not told apart from" in found["sure"].title and "could stay hidden" in found["sure"].lines[0]


def test_what_breaks_a_bound_on_fresh_seeds_is_not_recommended(tmp_path: Path) -> None:
    """The rival ranks better with mean .645, but the bound was .5: dpo with .345 keeps it."""
    bound = {"measure": MEASURE, "split": "test", "at_most": 0.5, "at_least": None, "name": "delta <= 0.5"}
    _, found = headed(tmp_path / "one", constraints=[bound])
    assert found["use"].title.startswith("dpo, beta 0.1")
    assert any(line.startswith("cpo_smooth has") and line.endswith("beyond a bound.") for line in found["use"].lines)
    assert found["breaks"].title == "1 of 2 winners breaks the bound, delta mean at most 0.5 on test pairs"
    assert (
        found["breaks"]
        .lines[0]
        .startswith("Beyond delta mean at most 0.5 on test pairs, on fresh seeds: cpo_smooth, 0.6")
    )
    assert any(
        line.startswith("Its bound, delta mean at most 0.5 on test pairs, is kept: 0.345")
        for line in found["use"].lines
    )
    _, none = headed(tmp_path / "none", constraints=[bound | {"at_most": 0.1, "name": "delta <= 0.1"}])
    assert none["use"].title.startswith("Nothing keeps its bounds; best of what breaks them: cpo_smooth")


def test_an_objective_whose_searches_break_a_bound_now_and_then_is_kept_and_flagged(tmp_path: Path) -> None:
    """Three searches each: of the rival's winners one breaks the bound; two of three would be too many."""
    bound = {"measure": MEASURE, "split": "test", "at_most": 0.5, "at_least": None, "name": "delta <= 0.5"}
    study, _ = headed(tmp_path, constraints=[bound])
    labels = ("cpo_smooth", "cpo_smooth search 2", "cpo_smooth search 3")
    broken = [breach for breach in breaches(study) if breach.word == "broken"]

    class Thrice:  # of a study only what these two functions read
        objectives = MappingProxyType({"dpo": ("dpo",), "cpo_smooth": labels})
        by_search = study.by_search
        winner = staticmethod(str)  # every search has one

    assert named(Thrice(), "cpo_smooth", broken) == 1  # type: ignore[arg-type]  # the first search's winner breaks it
    assert named(Thrice(), "dpo", broken) == 0  # type: ignore[arg-type]
    assert kept(Thrice(), broken) == ("dpo", "cpo_smooth")  # type: ignore[arg-type]
    again = [*broken, replace(broken[0], arm="cpo_smooth search 2")]
    assert kept(Thrice(), again) == ("dpo",)  # type: ignore[arg-type]


KL_BOUND = {"measure": "kl", "split": "validation_clean", "at_most": 3.0, "at_least": None, "name": "kl <= 3"}


def searched_twice(folder: Path, **planted: Any) -> tuple[Study, dict[str, Card]]:
    """The first search of the rival is .06 better than the second, and alone breaks the bound on KL."""
    kl = {"dpo": 1.0, "cpo_smooth": 4.0, SECOND: 2.0}
    return headed(folder, again=-0.06, kl=kl, constraints=[KL_BOUND], sampler_seeds=2, **planted)


def test_the_first_card_prints_the_numbers_of_the_search_whose_settings_it_names(tmp_path: Path) -> None:
    study, found = searched_twice(tmp_path, gold=0.6)
    use = found["use"]
    assert use.title == "cpo_smooth, beta 1.6, learning rate 0.0001 (search 2 of 2)"
    assert use.lines[0].startswith("It has delta mean 0.585 [") and "reward of its answers 0.585 [" in use.lines[0]
    assert "(before training 0.500), KL 2.1 nats" in use.lines[0], "on the pairs of the bound, not 24.5 of results.csv"
    assert use.lines[1].startswith("Its bound, KL at most 3 on validation pairs, is kept: 2.050 [")
    assert use.lines[2].startswith("On average its 2 searches have delta mean 0.615 [")
    assert use.lines[2].endswith("; the winner of search 1 of 2 breaks a bound.")
    assert "(average of its" not in use.lines[0] and "cpo_smooth search 1 of 2, 4.050" in found["breaks"].text
    assert distance(study, "cpo_smooth").mean == pytest.approx(4.05), "what the card says is what is drawn"


def test_a_bound_that_is_not_shown_to_be_kept_is_said_on_the_first_card(tmp_path: Path) -> None:
    kl = {"dpo": 1.0, "cpo_smooth": 2.93}
    _, found = headed(tmp_path, kl=kl, constraints=[KL_BOUND])
    assert (
        found["use"].lines[1].startswith("Its bound, KL at most 3 on validation pairs, is not shown to be kept: 2.980")
    )


def test_the_first_card_says_by_what_it_chose_and_who_is_worth_most(tmp_path: Path) -> None:
    _, found = searched_twice(tmp_path / "two", gold=0.6)
    chosen = "Chosen by delta mean, the study's target, within the bounds; by true reward, as sweeps choose,"
    assert found["use"].lines[-1] == f"{chosen} dpo stands highest (0.645)."
    _, alone = headed(tmp_path / "one", gold=0.6)
    assert alone["use"].lines[-1].endswith("; by true reward, as sweeps choose, it stands highest, too.")


def test_cards_round_settings_and_tables_do_not() -> None:
    trial = StudyTrial("a", 0, {"beta": 0.36979, "n": 128, "tau": 123.4, "kind": "sum"}, "COMPLETE", (), (), "", True,
                       (), ())  # fmt: skip
    assert shown_params(trial, DIGITS) == "beta 0.37, n 128, tau 120, kind sum"
    assert shown_params(trial) == "beta 0.36979, n 128, tau 123.4, kind sum"


@pytest.mark.parametrize(
    ("gap", "title"),
    [
        (-0.3, "Tuned cpo_smooth has 0.300 [0.294,\u00a00.306] more delta mean than tuned dpo"),
        (0.3, "Tuned dpo has 0.300 [0.294,\u00a00.306] more delta mean than tuned cpo_smooth"),
        (0.0, "Tuned dpo is not told apart from tuned cpo_smooth: "),
    ],
)
def test_the_figure_states_the_comparison_that_was_tested(tmp_path: Path, gap: float, title: str) -> None:
    study = read_study(plant(tmp_path, gap=gap))
    winners, *_ = heroes(study, tuned_differences(study))
    assert winners.title.startswith(title)


def test_every_mark_is_named_and_the_title_counts_those_beyond_the_bound(tmp_path: Path) -> None:
    study, _ = searched_twice(tmp_path, gold=0.6)
    _, worth = heroes(study, tuned_differences(study))
    svg = worth.svg.decode()
    assert worth.title.endswith("; beyond the bound of 3: 1 of 3 winners")
    assert "KL is over the pairs it is on (validation clean), as on the cards" in worth.caption
    for text in ("cpo_smooth search 1 of 2: true reward 0.645 [", "cpo_smooth search 2 of 2: true reward 0.585 ["):
        assert text in svg
    assert svg.count(">2</text>") == 2, "a tick and the rival's other search"
    assert ">cpo_smooth search 1</text>" in svg


def test_worse_answers_than_before_training_are_what_breaks(tmp_path: Path) -> None:
    _, found = headed(tmp_path, gold=-1.0)
    assert found["breaks"].title == "The delta mean was bought with worse answers in 2 of 2 winners"
    assert found["breaks"].lines[0].startswith("Worse than the untrained model's true reward of 0.500: dpo, ")


def test_without_fresh_runs_there_is_one_card(tmp_path: Path) -> None:
    _, found = headed(tmp_path, fresh=())
    assert list(found) == ["use"] and found["use"].title == "Nothing to use yet"


@pytest.mark.parametrize("gold", [None, 0.6])
def test_the_page_leads_with_cards_and_figures_and_the_terminal_says_them(tmp_path: Path, gold: float | None) -> None:
    folder = plant(tmp_path / "s", gold=gold)
    page = write_study_report(folder).read_text(encoding="utf-8")
    assert (
        page.index('class="card use"') < page.index('id="figure-hero-winners"') < page.index('<section id="winners">')
    )
    assert ('id="figure-hero-worth"' in page) == (gold is not None), "KL is known with gold rewards alone here"
    assert f"{len(FRESH)} fresh seeds" in page
    use, breaks = answer_lines(folder / "report")
    assert use.startswith("Use: cpo_smooth, beta 1.6") and breaks.startswith("Breaks: ")
    assert set(json.loads((folder / "report" / "answer.json").read_text())) == {"use", "breaks", "sure", "next"}
