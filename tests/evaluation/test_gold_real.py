"""`experiments/real.yaml` with a reward model that transformers saved: the frontier of gold reward against KL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from transformers import AutoTokenizer

from harness.config.load import load_sweep
from harness.data.conversations import read_conversations
from tests.commands import harness
from tests.evaluation import reward_models
from tests.evaluation.test_gold import by_transformers, write_pairs

pytestmark = pytest.mark.slow
SMALL = {
    "training.steps": 10, "training.learning_rate": 2e-3, "training.batch_size": 8, "model.sft_steps": 60,
    "model.vocab_size": 300, "model.hidden_size": 16, "model.layers": 1, "model.intermediate_size": 32,
    "evaluation.checkpoints": 2, "evaluation.heldout": 16, "evaluation.probe": 16, "evaluation.samples": 12,
    "evaluation.lm_eval": "null", "seeds": 2, "device": "cpu",
}  # fmt: skip


def test_the_frontier_of_gold_reward_is_drawn_for_real_pairs(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.jsonl", 96)
    model = reward_models.save(tmp_path / "reward", seed=2, max_position_embeddings=512)
    values = {**SMALL, "data.path": tmp_path / "pairs.jsonl", "evaluation.gold.reward_model": model}
    words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    done = harness("sweep", "experiments/real.yaml", *words, "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs" / "real"
    results = pd.read_csv(folder / "results.csv")
    assert len(results) == 16 and set(results.status) == {"done"}
    assert np.isfinite(results.gold_reward).all() and np.isfinite(results.kl).all() and (results.kl > 0).all()
    frontier = pd.read_csv(folder / "report" / "frontier.csv")
    points, expected = (table[["kl", "gold_reward"]].sort_values("kl").to_numpy() for table in (frontier, results))
    assert points.shape == (16, 2) and points == pytest.approx(expected)
    page = (folder / "report" / "index.html").read_text("utf-8")
    assert "gold reward of samples" in page and "What do reward models say?" in page
    # What stands in the tables is transformers' own forward of what the policies answered to the turns of the data.
    data = load_sweep(folder / "sweep.yaml").runs[0].data
    assert data is not None
    turns = read_conversations(data).by_row
    template = AutoTokenizer.from_pretrained(model).apply_chat_template
    for path in sorted(folder.glob("*/samples.parquet"))[:3]:
        table = pd.read_parquet(path)
        scores = pd.read_parquet(path.parent / "gold_scores.parquet")
        answers = scores[scores.kind == "answer"].sort_values("place").score
        texts = [
            template([*turns[row], {"role": "assistant", "content": answer.strip()}], tokenize=False)
            for row, answer in zip(table.row, table.response, strict=True)
        ]
        assert answers.tolist() == pytest.approx(by_transformers(model, texts, special=False), abs=1e-5)
