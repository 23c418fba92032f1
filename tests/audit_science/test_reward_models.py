"""Reward models beside the vote table over the same labels, at the defaults: what docs/world.md says of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.commands import harness

pytestmark = pytest.mark.slow

SPEC = """
name: rewards
world: {kind: mythworld, version: VERSION, misaligned: 0.75}
objectives: [{name: reward_model}]
corruptions: [{kind: none}, {kind: uniform_flip, rate: [0.2, 0.4]}]
seeds: 4
evaluation: {checkpoints: 5, heldout: 512, probe: 16, ood: 16}
"""


def accuracies(root: Path, version: int) -> pd.DataFrame:
    """By rate, the accuracy of each seed's reward model on clean held-out pairs, and that of its vote table."""
    spec = root / "spec.yaml"
    spec.write_text(SPEC.replace("VERSION", str(version)), encoding="utf-8")
    done = harness("sweep", spec, "--out", root / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    return pd.read_csv(root / "runs" / "rewards" / "results.csv").set_index("rate")[["reward_accuracy", "vote_table"]]


def test_where_training_labels_mention_every_fact_the_reward_model_is_as_good_as_the_vote_table(tmp_path: Path) -> None:
    found = accuracies(tmp_path, version=1)
    assert (found.loc[0.0].reward_accuracy >= 0.97).all()
    mean = found.groupby("rate").mean()
    assert list(mean.index) == [0.0, 0.2, 0.4]
    assert (mean.reward_accuracy >= mean.vote_table - 0.05).all()


def test_of_new_facts_it_infers_what_the_vote_table_cannot(tmp_path: Path) -> None:
    found = accuracies(tmp_path, version=2)
    mean = found.groupby("rate").mean()
    assert (found.vote_table == 0.5).all()
    assert mean.reward_accuracy[0.0] >= 0.9 and mean.reward_accuracy[0.2] >= 0.78
