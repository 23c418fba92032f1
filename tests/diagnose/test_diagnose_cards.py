"""The cards that head a diagnosis, on planted log-probs: each verdict's words, the worst slice, what cannot be told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.diagnose.cards import cards, facts
from harness.diagnose.diagnosis import Diagnosis
from harness.diagnose.page import build_page
from harness.diagnose.verdict import KINDS
from harness.report.render.blocks import Card
from harness.report.sections.row import write_page
from tests.diagnose.planted_logps import PAIRS, columns, diagnosed, joined, margins
from tests.diagnose.test_verdicts import noisy, rescued


def headed(found: Diagnosis) -> dict[str, Card]:
    made = cards(found)
    assert [card.name for card in made] == ["use", "sure", "breaks", "next"]
    return {card.name: card for card in made}


def stuck(**more: Any) -> dict[str, Any]:
    """60 % of the pairs are misranked before and after, and all improved."""
    return columns(margins(0.6), np.full(PAIRS, 1.5), **more)


def test_a_policy_that_is_stuck_is_said_to_be_with_its_interval_and_what_to_do() -> None:
    made = headed(diagnosed(stuck(), beta=5.0))
    assert made["use"].title == "Satisfied too early"
    assert "60 % of the pairs were misranked" in made["use"].lines[0] and "lower beta" not in made["use"].text
    assert made["sure"].title.startswith("40\u00a0% [3") and made["sure"].title.endswith("; the reference 40\u00a0%")
    assert made["sure"].lines[0].startswith("A change of 0\u00a0points [")
    assert made["sure"].lines[0].endswith("in 360 pairs of 120 prompts.")
    assert made["sure"].lines[1].startswith("A trainer's chart shows 100\u00a0% as reward accuracy: ")
    pulls = "and the loss pulls on them with 0.1 % of its strength at the start. At beta 5 it stops too early."
    assert pulls in made["use"].lines[0]
    assert made["breaks"].title == "Cannot be told" and "give --slices" in made["breaks"].lines[0]
    assert made["next"].title.startswith("Lower beta, start from a reference")
    assert made["next"].command == "harness init mine.yaml --data prefs.jsonl.gz"
    assert made["next"].lines[0] == "Its free answers are not looked at here: read some of them."


def test_a_healthy_policy_needs_nothing() -> None:
    reference = margins(0.4)
    made = headed(diagnosed(columns(reference, rescued(reference, 0.95))))
    assert made["use"].title == "Healthy" and made["sure"].title.startswith("98.1\u00a0% [")
    assert made["sure"].lines[0].startswith("A change of +38.1\u00a0points [")
    assert made["next"].title == "Nothing on these pairs" and made["next"].command == ""


def test_wrong_labels_that_were_learned_are_looked_for() -> None:
    made = headed(diagnosed(noisy(0.9)))
    assert made["use"].title == "Memorised noise" and "wrong training labels" in made["use"].lines[0]
    assert made["next"].title.startswith("Relabel or drop these pairs")
    assert made["next"].command == "harness audit --data train.jsonl --out audit"


def test_a_fall_since_a_checkpoint_names_it() -> None:
    reference = margins(0.5)
    good, worse = rescued(reference, 1.0), rescued(reference, 0.6)
    rows = joined(*(columns(reference, gain, step=step) for step, gain in ((10, good), (20, good), (30, worse))))
    made = headed(diagnosed(rows))
    assert made["use"].title == "Reversed" and made["use"].lines[1] == "At step 30, the last of 3 checkpoints."
    assert made["sure"].lines[-1] == "At step 10 it ranked 20 points more of the pairs right."
    assert made["next"].title == "Take the checkpoint of step 10, and stop there next time"


def test_an_earlier_checkpoint_is_said_to_rank_so_many_right() -> None:
    reference = margins(0.5)
    halves = (rescued(reference, share) for share in (0.1, 0.6))
    rows = joined(*(columns(reference, gain, step=step) for step, gain in zip((10, 20), halves, strict=True)))
    line = headed(diagnosed(rows))["sure"].lines[-1]
    assert re.fullmatch("At step 10 it ranked 5[0-9.]*\u00a0% right\\.", line), line


def test_kinds_of_pairs_that_do_not_differ_are_not_named() -> None:
    kind = ["ab"[i // 3 % 2] for i in range(PAIRS)]
    made = headed(diagnosed(stuck() | {"kind": kind}, beta=5.0))
    assert made["breaks"].title == "No kind is shown to be"
    assert (
        made["breaks"].lines[0].startswith("Lowest: the slice kind = ")
        and "not told apart from the others" in made["breaks"].lines[0]
    )


def test_the_slice_that_training_left_behind_is_named() -> None:
    """Training turns every wrong pair but those of one kind, a third of the pairs."""
    reference = margins(0.6)
    kind = np.where(np.arange(PAIRS) % 9 < 3, "<i>hard</i>", "easy")
    gain = np.where((kind == "easy") & (reference < 0), 5.0 - reference, 1.5)
    made = headed(diagnosed(columns(reference, gain) | {"kind": kind.tolist()}))
    assert made["breaks"].title.startswith("The slice kind = <i>hard</i>: ") and made["breaks"].title.endswith(
        " ranked right"
    )
    [first, _] = made["breaks"].lines
    assert first.startswith("120 pairs of 40 prompts. Training changed them by 0 points, the others by +")


@pytest.mark.parametrize("beta", [None, 0.1])
def test_without_a_beta_the_next_step_is_to_give_it(beta: float | None) -> None:
    made = headed(diagnosed(columns(margins(0.4), np.full(PAIRS, 0.5)), beta))
    assert made["use"].title == "Inconclusive"
    assert (made["next"].title == "Give --beta") == (beta is None)
    assert made["next"].command == ("harness diagnose --logps pairs.parquet --beta 0.1" if beta is None else "")


def test_what_cannot_be_told_is_said() -> None:
    rows = {name: values for name, values in columns(margins(0.3), np.ones(PAIRS)).items() if "reference" not in name}
    alone = headed(diagnosed(rows))
    assert "reference" not in alone["sure"].title and "What training changed cannot be told" in alone["sure"].lines[0]
    assert alone["next"].title == "Give --reference the model that training started from"
    one = headed(diagnosed(columns([1.0, 2.0], [1.0, 1.0])))
    assert one["sure"].title == "100\u00a0% of held-out pairs; the reference 100\u00a0%"
    assert one["sure"].lines[0] == "Of one prompt no interval can be given."
    assert one["breaks"].title == "Cannot be told"
    assert one["next"].title == "Add prompts"


def several(count: int = 3) -> Diagnosis:
    """One policy that is stuck, alone or between two that are healthy."""
    reference = margins(0.6)
    fine = columns(reference, rescued(reference, 0.95), policy="fine", step=9)
    wrong, other = stuck(policy="<b>stuck</b>", step=7), fine | {"policy": ["other"] * PAIRS}
    return diagnosed(joined(*((fine, wrong, other) if count > 1 else (wrong,))), beta=5.0)


def test_of_several_policies_the_cards_speak_of_the_gravest() -> None:
    made = headed(several())
    assert made["use"].title == "Satisfied too early: <b>stuck</b>, step 7"
    assert made["use"].lines[-1] == (
        "The gravest of 3 policies, of which all cards speak; fine, step 9: healthy; other, step 9: healthy."
    )
    assert made["sure"].title.startswith("40\u00a0% [")


@pytest.mark.parametrize("count", [1, 3])
def test_page_markdown_and_json_say_the_same(tmp_path: Path, count: int) -> None:
    found = several(count)
    html = write_page(tmp_path, build_page(found, "<u>pairs</u>")).read_text("utf-8")
    text = (tmp_path / "report.md").read_text("utf-8").replace("\\", "")
    assert html.index('class="card use"') < html.index('id="figure-margins"') < html.index('<section id="measures">')
    assert ('id="figure-all-margins"' in html) == (count > 1), "the figure above shows the policy of the cards"
    assert "<b>stuck" not in html and "<u>pairs" not in html and "<script" not in html
    said = json.loads(json.dumps(facts(found)))
    assert said["policies"][count // 2]["verdict"]["advice"].startswith("lower beta")
    for card in cards(found):
        assert card.title in text and said["cards"][card.name].startswith(card.title.replace("\u00a0", " ").rstrip("."))


def test_every_kind_has_a_word_and_the_gravest_comes_first() -> None:
    assert next(iter(KINDS)) == "memorised_noise" and list(KINDS)[-2:] == ["inconclusive", "healthy"]
