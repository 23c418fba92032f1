"""The cards that head a comparison: planted changes of order are named, few seeds and missing rivals cannot tell."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.report.compare.cards import cards
from harness.report.compare.differences import Differences
from harness.report.compare.page import build_page, differences_csv
from harness.report.compare.page import plain as as_json
from harness.report.compare.sentences import spoken, titles
from harness.report.render.blocks import Card
from harness.report.sections.row import write_page
from harness.types import RunSpec
from tests.report.test_compare import compared, flat, level, planted, runs_of


def headed(found: Differences) -> dict[str, Card]:
    made = cards(found)
    assert [card.name for card in made] == ["use", "breaks", "sure", "next"]
    return {card.name: card for card in made}


def test_an_order_that_is_reversed_is_named_with_both_sides() -> None:
    rng = np.random.default_rng(0)
    found = compared(level("small", runs_of(), flat, rng), level("large", runs_of(hidden=128), planted, rng, 500_000))
    made = headed(found)
    assert made["use"].title == "No: reversed in 1 of 2 cells"
    assert made["use"].lines[0].startswith("The order of objectives against dpo")
    sides = made["use"].lines[1]
    assert sides.startswith("cpo_smooth at beta 5 against dpo at beta 5 (") and "20\u00a0% flips" in sides
    small, large = sides.partition("): ")[2].split("), ")
    assert small.startswith("+") and "(small" in small and large.startswith("\u2212") and "(large" in large
    assert made["breaks"].title == "Ranking accuracy of cpo_smooth at beta 5: \u221219.7\u00a0points"
    assert "the largest shown difference in ranking accuracy; 2 of 16" in made["breaks"].lines[0]
    assert made["breaks"].lines[1].startswith("dpo at beta 5 (")
    assert "pairs stuck wrong shrinks" in made["breaks"].lines[1]
    assert made["sure"].title == "8 seeds, paired" and "corrected for 18 comparisons" in made["sure"].lines[0]
    assert "could stay hidden" in made["sure"].lines[1] and "world.hidden_size" in made["sure"].lines[2]
    assert made["next"].title == "Choose in each sweep anew" and "What small recommends" in made["next"].lines[0]


def test_what_moved_most_is_of_one_measure_and_ranking_comes_first() -> None:
    """Gold reward moves by .6 on its own scale, ranking accuracy by 20 points."""

    def paid(run: RunSpec) -> dict[str, float]:
        return planted(run) | {"gold_reward": 0.9}

    rng = np.random.default_rng(0)
    found = compared(level("a", runs_of(), flat, rng), level("b", runs_of(hidden=128), paid, rng, 500_000))
    measures = [one.measure for one in found.shown]
    assert measures[0] == "ranking_accuracy" and measures.count("gold_reward") == 4
    assert measures == sorted(measures, key=measures.index), "measure by measure"
    sizes = [abs(one.verdict.plain.mean) for one in found.shown if one.measure == "gold_reward"]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 0.5
    made = headed(found)
    assert made["breaks"].title.startswith("Ranking accuracy of cpo_smooth at beta 5: ")
    assert "the largest shown difference in ranking accuracy; 6 of 16" in made["breaks"].lines[0]


def test_files_keep_the_names_of_conditions_that_pages_say_in_words() -> None:
    rng = np.random.default_rng(0)
    found = compared(level("a", runs_of(), flat, rng), level("b", runs_of(hidden=128), flat, rng))
    assert [title.rpartition(", ")[2] for title in titles(found).values()] == ["clean labels", "uniform_flip 0.2"]
    assert [title.rpartition(", ")[2] for title in spoken(found).values()] == ["clean labels", "20\u00a0% flips"]
    assert b"uniform_flip 0.2" in differences_csv(found) and b"flips" not in differences_csv(found)


def test_an_order_that_holds_is_carried_over() -> None:
    rng = np.random.default_rng(1)
    made = headed(compared(level("a", runs_of(), flat, rng), level("b", runs_of(hidden=128), flat, rng, 500_000)))
    assert made["use"].title == "Yes, in 2 of 2 cells" and len(made["use"].lines) == 1
    assert made["breaks"].title == "Nothing is shown to"
    assert made["breaks"].lines[0].startswith("No difference between a and b is shown in 16 comparisons")
    assert made["next"].title == "Carry the choice over"
    assert made["next"].command == "harness compare runs/one runs/two runs/three --out comparison"


def test_few_seeds_cannot_tell_and_more_are_the_next_step() -> None:
    rng = np.random.default_rng(2)
    few = runs_of(range(3))
    made = headed(compared(level("a", few, flat, rng), level("b", few, planted, rng)))
    assert made["use"].title == "Cannot be told" and "fewer than 6 seeds" in made["use"].lines[0]
    assert made["breaks"].title == "Nothing is shown to"
    assert made["sure"].title == "3 seeds: intervals, no verdicts"
    assert made["next"].title == "More seeds" and made["next"].command == "harness sweep mine.yaml --set seeds=6"


def test_without_a_rival_there_is_no_order() -> None:
    rng = np.random.default_rng(3)
    alone = [run for run in runs_of() if run.objective.name == "dpo"]
    made = headed(compared(level("a", alone, flat, rng), level("b", alone, flat, rng)))
    assert made["use"].title == "Cannot be told"
    assert made["use"].lines == ("No other objective stands beside dpo in matching cells.",)


def test_cells_that_nothing_was_measured_of_cannot_be_compared() -> None:
    rng = np.random.default_rng(4)
    measured = level("a", runs_of(), flat, rng)
    waiting = level("b", runs_of(), flat, rng)
    runs = tuple(replace(run, result=None) for run in waiting.sweep.runs)
    made = headed(compared(measured, replace(waiting, sweep=replace(waiting.sweep, runs=runs))))
    assert made["breaks"].title == "Cannot be told" and made["sure"].title == "Nothing is compared"
    assert made["next"].title == "More seeds"


def test_seeds_that_differ_are_not_paired_and_cells_without_counterpart_are_counted() -> None:
    rng = np.random.default_rng(5)
    wide = runs_of(dials=(0.0, 0.75))
    made = headed(compared(level("wide", wide, flat, rng), level("narrow", runs_of(range(20, 28)), flat, rng)))
    assert made["sure"].title == "8 seeds, none of 16 comparisons paired"
    assert "4 cells of wide have no counterpart." in made["sure"].lines


def test_page_markdown_and_json_say_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    found = compared(level("<b>a</b>", runs_of(), flat, rng), level("b", runs_of(hidden=128), planted, rng))
    html = write_page(tmp_path, build_page(found)).read_text("utf-8")
    text = (tmp_path / "report.md").read_text("utf-8").replace("\\", "")
    assert html.index('class="card use"') < html.index('id="figure-side-by-side"') < html.index('<section id="order">')
    assert html.count('id="figure-side-by-side"') == 1 and "<b>a" not in html
    said = json.loads(json.dumps(as_json(found), allow_nan=False))["cards"]
    for card in cards(found):
        assert card.title in text and said[card.name].startswith(card.title.replace("\u00a0", " ").rstrip("."))
