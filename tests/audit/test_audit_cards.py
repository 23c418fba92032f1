"""The cards that head an audit's page, on planted evidence; what cannot be told is said."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.audit.asked import Asked
from harness.audit.audit import Audit, Evidence, audit, first_sentence
from harness.audit.cards import cards
from harness.audit.page import build_page
from harness.metrics.statistics import Estimate
from harness.metrics.suspicion import Advice
from harness.report.render.blocks import Card, stated
from harness.report.sections.row import write_page

PAIRS = 600


def audited(wrong: float, strength: float, kind: str = "") -> Audit:
    """Labels of which a share is wrong, and evidence that points to the truth with `strength` +- 1.

    A third of the pairs are of `kind`, all wrong ones among them.
    """
    draw = np.random.default_rng(0)
    planted = np.arange(PAIRS) % 10 == 9
    place = draw.permutation(PAIRS)
    false = place < wrong * PAIRS
    slices = {"kind": np.where(place < PAIRS / 3, kind, "old").astype(object)} if kind else {}
    margins = np.where(false, -1.0, 1.0) * draw.normal(strength, 1.0, (2, PAIRS))
    flipped = np.where(planted, -1.0, 1.0)
    evidence = Evidence(("one", "two"), draw.normal(0, 1, PAIRS), margins, np.arange(PAIRS) % 5, planted,
                        margins * flipped)  # fmt: skip
    prompts = np.array([f"q{i // 2}" for i in range(PAIRS)], dtype=object)
    nothing = np.zeros(PAIRS, dtype=bool)
    return audit(
        evidence, prompts, np.full((2, PAIRS), 9.0), np.arange(PAIRS) < 4, np.full(PAIRS, -1), nothing, slices,
        (), {"model": "tiny", "folds": 5},
    )  # fmt: skip


def headed(found: Audit, asked: Asked | None = None) -> dict[str, Card]:
    made = cards(found, np.arange(1, PAIRS + 1), asked or Asked("/somewhere/my pairs.jsonl", Path("audit")))
    assert [card.name for card in made] == ["use", "breaks", "sure", "next"]
    return {card.name: card for card in made}


def test_wrong_labels_that_are_found_are_counted_listed_and_cleaned() -> None:
    """120 of 600 labels are wrong."""
    found = audited(0.2, 4.0)
    made = headed(found)
    assert found.advice.action == "drop" and 60 <= found.advice.rows <= 120
    assert made["use"].title == f"The {found.advice.rows} most suspect of 600"
    assert made["use"].lines[0].startswith("Their labels are more likely wrong than right: 100\u00a0% of them are")
    first = ", ".join(map(str, np.argsort(found.margin)[:3] + 1))
    assert made["use"].lines[1].endswith(f"audit.parquet with their suspicion; the most suspect: rows {first}.")
    assert made["use"].lines[2] == "4 pairs stand in the set with both labels."
    assert made["breaks"].title == "20\u00a0% [10,\u00a023] of 600"
    assert made["breaks"].lines[0].startswith("That is 60 to 138 labels")
    assert made["sure"].title.startswith("AUROC 1.00 [0.7") and made["sure"].title.endswith("on planted errors")
    assert made["sure"].lines[0].startswith("60 labels were turned round")
    assert made["sure"].lines[1].startswith("Of the 10\u00a0% most suspect rows ")
    assert made["next"].title == f"Drop these {found.advice.rows} rows, and compare training with and without"
    assert "not shown to gain" in made["next"].lines[0] and "--advice takes" in made["next"].lines[1]
    assert made["next"].command == (
        "harness audit --data 'my pairs.jsonl' --out audit --force --write cleaned.jsonl --advice"
    )
    assert headed(replace(found, advice=Advice("relabel", 90)))["next"].title.startswith("Relabel these 90 rows, and")


def exactly(value: float) -> Estimate:
    return Estimate(60, value, max(0.0, value - 0.1), min(1.0, value + 0.1))


def test_the_card_quotes_the_cut_of_the_advice_and_the_one_that_falls_most_short() -> None:
    """At 10 % of the rows, what is advised, the prediction holds; at 2 % it is 30 points too high."""
    found = audited(0.2, 4.0)
    cuts = ((0.02, exactly(0.7), exactly(1.0), 0.1), (0.05, exactly(0.9), exactly(1.0), 0.3),
            (0.1, exactly(0.95), exactly(1.0), 0.6), (0.2, exactly(0.8), exactly(0.7), 0.9))  # fmt: skip
    found = replace(found, planted=replace(found.planted, cuts=cuts), advice=Advice("drop", 60))
    _, near, worst, _ = headed(found)["sure"].lines
    assert near == (
        "Of the 10\u00a0% most suspect rows 95\u00a0% [85,\u00a0100] were wrong then, 100\u00a0% were predicted."
    )
    assert worst == (
        "Furthest below the prediction: of the 2\u00a0% most suspect rows 70\u00a0% [60,\u00a080] were wrong then,"
        " 100\u00a0% were predicted."
    )
    kind = replace(found, planted=replace(found.planted, cuts=cuts[2:]))
    assert len(headed(kind)["sure"].lines) == 3, "no other cut falls further short"


def test_counts_that_stand_beside_each_other_are_told_apart() -> None:
    found = audited(0.2, 4.0)
    against = np.zeros(PAIRS, dtype=bool)
    against[np.argsort(found.margin)[[0, 1, 2, PAIRS - 1]]] = True
    found = replace(found, scores_against=against)
    line = "4 labels contradict the set's own scores, which the audit does not use; 3 of them are among the"
    assert any(text.startswith(f"{line} {found.advice.rows} rows.") for text in headed(found)["breaks"].lines)
    made = cards(found, np.arange(PAIRS), Asked("p.jsonl", Path("audit")))
    [figure] = build_page(found, made, np.arange(PAIRS), ["id"] * PAIRS, "p.jsonl").heroes
    assert f"the advice is about the {found.advice.rows} where it is strong enough" in figure.caption
    assert str(int((found.margin < 0).sum())) in figure.title


def test_the_sentence_has_one_sign_a_share() -> None:
    assert re.search(r": 20 % \[[0-9.]+, [0-9.]+\] of the 600 labels", first_sentence(audited(0.2, 4.0)))


def test_a_clean_set_is_left_as_it_is() -> None:
    found = audited(0.0, 4.0)
    made = headed(found)
    assert found.advice.action == "none"
    assert made["use"].title == "None in particular" and made["breaks"].title.startswith("0\u00a0% [0,\u00a0")
    assert made["next"].title == "Do nothing: train on it as it is"
    assert made["next"].command == "harness init mine.yaml --data 'my pairs.jsonl'"
    assert "errors that follow a rule are not seen" in made["sure"].lines[-1]


def test_evidence_that_finds_no_planted_error_can_tell_nothing() -> None:
    found = audited(0.2, 0.0)
    made = headed(found)
    assert found.advice.action == "cannot_audit" and not found.finds
    assert made["use"].title == "None: the order may be chance" and "estimated" not in made["use"].text
    assert made["breaks"].title == "Cannot be told" and "no share can be believed" in made["breaks"].lines[0]
    assert made["sure"].title.startswith("Not sure: AUROC 0.") and "were wrong then" not in made["sure"].text
    assert made["next"].title == "Use a stronger model, or more pairs"
    assert made["next"].command == "harness audit --data 'my pairs.jsonl' --out audit --force --model base"


def test_evidence_that_orders_labels_but_cannot_count_them_says_both() -> None:
    found = audited(0.2, 0.5)
    made = headed(found)
    assert found.advice.action == "cannot_audit" and found.finds
    assert made["use"].title == "The most suspect, by hand"
    assert made["use"].lines[0].startswith("The order finds wrong labels; it does not say where they end.")
    assert made["breaks"].title == "Cannot be told"
    assert made["breaks"].lines[0].startswith("Anywhere from 0\u00a0% to 25\u00a0%: the evidence is too weak")
    assert made["next"].lines[0] == "Until then, read the first rows by hand."


def test_a_stronger_reading_of_the_same_model_is_the_next_step() -> None:
    blind = audited(0.2, 0.0)
    heads = Asked("org/pairs", Path("/tmp/x/audit"), model="org/small", steps=0, slices=("kind",), limit=600, folds=3)
    command = "harness audit --data org/pairs --out audit --force --model org/small --steps 200 --slices kind"
    assert headed(blind, heads)["next"].command == f"{command} --limit 600 --folds 3"
    trained = Asked("org/pairs", Path("audit"), model="org/small")
    assert headed(blind, trained)["next"].command == ""


def test_the_slice_whose_labels_are_contradicted_most_is_named() -> None:
    made = headed(audited(0.2, 4.0, "<b>new</b>"))
    [line] = [line for line in made["breaks"].lines if line.startswith("Contradicted most often")]
    assert line.startswith("Contradicted most often: <b>new</b> (kind), 60\u00a0% [") and line.endswith("of 200 pairs.")


def test_page_markdown_and_json_say_the_same(tmp_path: Path) -> None:
    found = audited(0.2, 4.0, "<b>new</b>")
    made = cards(found, np.arange(PAIRS), Asked("p.jsonl", tmp_path))
    page = write_page(tmp_path, build_page(found, made, np.arange(PAIRS), ["id"] * PAIRS, "<i>p.jsonl</i>"))
    html, text = page.read_text("utf-8"), (tmp_path / "report.md").read_text("utf-8")
    assert html.index('class="card use"') < html.index('id="figure-margins"') < html.index('<section id="cuts">')
    assert html.count('id="figure-margins"') == 1 and "<script" not in html
    assert "<b>new" not in html and "&lt;b&gt;new" in html and "<i>p" not in html
    for card in made:
        assert card.title.replace("[", "\\[").replace("]", "\\]") in text, card.title
    said = json.loads(json.dumps(stated(made)))
    assert said["next"].endswith("--write cleaned.jsonl --advice") and "\u00a0" not in "".join(said.values())


@pytest.mark.parametrize(("path", "shown"), [("sub/p.jsonl", "sub/p.jsonl"), ("/home/me/p.jsonl", "p.jsonl")])
def test_the_command_names_no_place_of_the_machine(path: str, shown: str) -> None:
    assert f"--data {shown} --out" in Asked(path, Path("audit")).again()
