"""Where the share of wrong labels is not known, nothing that is predicted from it has a likeliest value."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from harness.audit.asked import Asked
from harness.audit.audit import Audit, Evidence, audit, plain
from harness.audit.cards import cards
from harness.audit.page import build_page
from harness.report.sections.row import write_page
from tests.metrics.test_audit import drawn


def audited(skill: float, n: int) -> tuple[Audit, np.ndarray]:
    """The audit of n pairs with .3 of their labels wrong by evidence of this skill, and which labels are wrong."""
    margin, wrong = drawn(0.3, skill, n, seed=3)
    draw = np.random.default_rng(4)
    folds, planted = np.arange(n) % 5, draw.random(n) < 0.1
    flipped = np.where(planted, -1.0, 1.0) * margin
    evidence = Evidence(("head",), draw.normal(size=n), margin[None], folds, planted, flipped[None])
    no = np.zeros(n, dtype=bool)
    kinds = {"kind": np.array(["a", "b"] * (n // 2), dtype=object)}
    prompts = np.array([f"p{at}" for at in range(n)], dtype=object)
    lengths, meta = np.ones((2, n)), {"model": "tiny", "folds": 5}
    return audit(evidence, prompts, lengths, no, np.full(n, -1), no, kinds, (), meta), wrong


def write(found: Audit, folder: Path) -> str:
    """The page of an audit, as Markdown."""
    rows, ids = np.arange(found.pairs), [f"id{at}" for at in range(found.pairs)]
    made = cards(found, rows, Asked("set.jsonl", folder))
    write_page(folder, build_page(found, made, rows, ids, "set.jsonl"))
    return (folder / "report.md").read_text("utf-8").replace("\\", "").replace("\u00a0", " ")


@pytest.fixture(scope="module")
def unknown() -> tuple[Audit, np.ndarray]:
    found, wrong = audited(1.0, 600)
    assert found.advice.action == "cannot_audit" and found.fit.share.high - found.fit.share.low > 0.2
    return found, wrong


def test_predictions_are_intervals_that_hold_the_truth(unknown: tuple[Audit, np.ndarray]) -> None:
    found, wrong = unknown
    facts, order = plain(found), np.argsort(found.margin, kind="stable")
    for cut in facts["cuts"]:
        assert cut["precision"] is None and cut["recall"] is None
        assert cut["precision_interval"]["estimate"] is None
        truth = wrong[order[: cut["rows"]]].mean()
        assert cut["precision_interval"]["low"] <= truth <= cut["precision_interval"]["high"]
    for cut in facts["planted"]["cuts"]:
        assert cut["predicted_precision"] is None and cut["precision"]["estimate"] is not None
        assert cut["predicted_interval"]["low"] < cut["predicted_interval"]["high"]
    for one in facts["slices"]:
        assert one["estimated_share"] is None and one["share_interval"]["low"] < 0.3 < one["share_interval"]["high"]


def test_the_page_shows_intervals_alone(unknown: tuple[Audit, np.ndarray], tmp_path: Path) -> None:
    page = write(unknown[0], tmp_path)
    alone = r"\[[\d.]+, [\d.]+\] %"
    suspects = [line.split("|")[3].strip() for line in page.splitlines() if line.startswith("| row ")]
    assert len(suspects) == 30 and all(re.fullmatch(alone, one) for one in suspects)
    cuts = [line.split("|")[3:5] for line in page.splitlines() if re.match(r"\| [\d.]+ % \| \d+ \|", line)]
    assert len(cuts) == 6 and all(re.fullmatch(alone, one.strip()) for pair in cuts for one in pair)
    assert "no likeliest value" in page


def test_what_is_known_is_said(tmp_path: Path) -> None:
    found, wrong = audited(8.0, 4000)
    assert found.share_known
    order = np.argsort(found.margin, kind="stable")
    for cut in plain(found)["cuts"]:
        assert abs(cut["precision"] - wrong[order[: cut["rows"]]].mean()) < 0.1
    assert "no likeliest value" not in write(found, tmp_path)
