"""Which pairs a run keeps the texts of, on planted margins."""

from __future__ import annotations

import numpy as np

from harness.types import PreferencePair
from harness.worker.commit import WORST_PAIRS, worst_pairs


def rows(split: str, step: int, margins: list[float], labels: list[int]) -> dict[str, np.ndarray]:
    n = len(margins)
    return {
        "step": np.full(n, step),
        "split": np.array([split] * n, dtype=object),
        "id": np.array([f"{split}{i:02d}" for i in range(n)], dtype=object),
        "policy_chosen": np.array(margins, np.float32),
        "policy_rejected": np.zeros(n, np.float32),
        "clean_label": np.array(labels),
    }


def test_lowest_margins_held_out_and_strongest_wrong_labels_in_training() -> None:
    held = [float(i) for i in range(12)]
    held[3], held[5] = -9.0, np.nan
    parts = [
        rows("eval_clean", 0, held[::-1], [1] * 12),  # an earlier step must not matter
        rows("eval_clean", 7, held, [1] * 12),
        rows("train_observed", 7, [5.0, 9.0, -2.0, 8.0], [1, 1, -1, -1]),
    ]
    table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    known = {
        split: {f"{split}{i:02d}": PreferencePair(f"{split}{i:02d}", f"p{i}", f"c{i}", f"r{i}") for i in range(12)}
        for split in ("eval_clean", "train_observed")
    }
    found = worst_pairs(table, known)
    of = {split: found["prompt"][found["split"] == split].tolist() for split in known}
    assert of["eval_clean"] == ["p3", "p0", "p1", "p2", "p4", "p6", "p7", "p8"] and len(of["eval_clean"]) == WORST_PAIRS
    assert of["train_observed"] == ["p3", "p2"], "only wrong labels, the one followed most strongly first"
    assert found["chosen"][0] == "c3" and found["rejected"][0] == "r3"


def test_a_diverged_run_keeps_none() -> None:
    found = worst_pairs(rows("eval_clean", 3, [np.nan] * 4, [1] * 4), {"eval_clean": {}})
    assert {name: values.size for name, values in found.items()} == dict.fromkeys(found, 0)


def test_a_pair_of_a_file_keeps_its_row_number() -> None:
    table = rows("eval_clean", 3, [-1.0, -2.0], [1, 1])
    pairs = {f"eval_clean0{i}": PreferencePair(f"eval_clean0{i}", "p", "c", "r", meta={"row": 10 + i}) for i in (0, 1)}
    assert worst_pairs(table, {"eval_clean": pairs})["row"].tolist() == [11, 10]
    del pairs["eval_clean00"].meta["row"]  # type: ignore[attr-defined]
    assert "row" not in worst_pairs(table, {"eval_clean": pairs})
