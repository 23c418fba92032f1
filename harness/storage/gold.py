"""What reward models say of a finished run, in its folder: `gold.jsonl`, a journal, and `gold_scores.parquet`.

Written after a run's result is sealed, so the journal states the SHA-256 of the scores, and of the samples that they
are of: scores of other samples count for nothing. Single scores are kept by content, too, in a store that all runs of
one `--out` share. Imports no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.identity import file_sha256
from harness.storage.arrays import load_arrays, save_arrays
from harness.storage.atomic import write_atomic
from harness.storage.journal import JournalDamaged, encode, read_journal
from harness.storage.runs import read_table, write_table

GOLD, SCORES, SAMPLES = "gold.jsonl", "gold_scores.parquet", "samples.parquet"
PREFIX = "gold"
BLOCK = 256  # texts scored between two writes of the store
ANSWER, PAIR = "answer", "pair"
FINAL = ("gold_reward", "reference_gold_reward")  # of the first model: measures of the run as well


@dataclass(frozen=True, slots=True)
class Scored:
    """What one reward model says of one run. `name` is what columns are called by, `identity` its hash or id@commit.

    `metrics` over the sampled answers: `gold_reward`, `reference_gold_reward`, `win_rate` (share of answers above the
    reference's own, ties half); over the held-out pairs: `pair_accuracy` (share scored as labelled), `pair_margin`.
    `cut` of `texts` were longer than `max_length`. `samples` is the SHA-256 of the run's samples ("" without any).
    """

    name: str
    identity: str
    max_length: int
    device: str
    samples: str
    answers: int
    pairs: int
    texts: int
    cut: int
    metrics: Mapping[str, float]
    version: int  # of the code that writes and cuts texts


def write_gold(folder: Path, step: int, scored: Sequence[Scored], table: Mapping[str, np.ndarray]) -> None:
    """Replace what a folder holds. The journal is published last, so a crash leaves the earlier one.

    `table`: a row for each model and answer (`place` in the samples; `score`, the reference's own as `other`) or pair
    (`id`, `prompt_id`; `score` of chosen, `other` of rejected).
    """
    write_table(folder / SCORES, table)
    first = {f"final/{name}": scored[0].metrics[name] for name in FINAL if name in scored[0].metrics}
    records: list[dict[str, Any]] = [{"kind": "metrics", "step": step, **first}] if first else []
    for one in scored:
        values = {f"{PREFIX}/{one.name}/{name}": value for name, value in one.metrics.items()}
        records.append({"kind": "metrics", "step": step, **values})
        records.append({"kind": "gold", **asdict(one)})
    records.append({"kind": "gold_scores", "sha256": file_sha256(folder / SCORES)})
    write_atomic(folder / GOLD, b"".join(map(encode, records)))


def read_gold(folder: Path, samples: str) -> tuple[Scored, ...]:
    """What the models say, in the order asked for, of samples with this SHA-256. Raises JournalDamaged."""
    if not (folder / GOLD).exists():
        return ()
    records = (record for record in read_journal(folder / GOLD) if record["kind"] == "gold")
    found = (Scored(**{name: value for name, value in record.items() if name != "kind"}) for record in records)
    return tuple(one for one in found if one.samples == samples)


def read_scores(folder: Path) -> dict[str, np.ndarray]:
    """The table of `write_gold`. Raises OSError where it is absent or not as it was written."""
    if damage := damaged_gold(folder):
        raise OSError(f"{folder / SCORES}: {damage[0]}")
    return read_table(folder / SCORES)


def with_gold(folder: Path, samples: Mapping[str, np.ndarray], model: str) -> dict[str, np.ndarray]:
    """Samples of a folder with a reward model's scores for a true reward that is not known. Raises OSError."""
    scores, out = read_scores(folder), dict(samples)
    own = (scores["model"] == model) & (scores["kind"] == ANSWER)
    for name, values in zip(FINAL, (scores["score"][own], scores["other"][own]), strict=True):
        if name in out:
            out[name] = np.full(len(out[name]), np.nan)
            out[name][scores["place"][own]] = values
    return out


def damaged_gold(folder: Path) -> list[str]:
    """The files of a folder that are not as they were written, `<file>: what` each."""
    if not (folder / GOLD).exists():
        return []
    try:
        stated = [record["sha256"] for record in read_journal(folder / GOLD) if record["kind"] == "gold_scores"]
    except JournalDamaged:
        return [f"{GOLD}: damaged"]
    if not (folder / SCORES).exists():
        return [f"{SCORES}: missing"]
    return [] if stated == [file_sha256(folder / SCORES)] else [f"{SCORES}: does not match its checksum"]


class ScoreStore:
    """Scores by the hash of their text, of one model in one setting: `key` names both."""

    def __init__(self, cache: Path, key: str) -> None:
        self.path, self.key = cache / PREFIX / f"{key[:32]}.safetensors", key
        stored = load_arrays(self.path, key)
        self.known: dict[bytes, tuple[float, bool]] = {}
        if stored is not None:
            rows = zip(stored["digests"], stored["scores"].tolist(), stored["cut"].tolist(), strict=True)
            self.known = {digest.tobytes(): (score, bool(cut)) for digest, score, cut in rows}

    def of(
        self,
        texts: Sequence[str],
        score: Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]],
        told: Callable[[int, int], None],
    ) -> tuple[np.ndarray, int]:
        """The score of each text `(n,)`, and how many were cut; `score` is asked for those that are not stored yet.

        `told` is called before the first of them and after each block: how many are scored, of how many.
        """
        digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        missing = {d: text for d, text in zip(digests, texts, strict=True) if d not in self.known}
        todo = list(missing.items())
        if todo:
            told(0, len(todo))
        for start in range(0, len(todo), BLOCK):
            block = todo[start : start + BLOCK]
            values, cut = score([text for _, text in block])
            found = zip(block, values.tolist(), cut.tolist(), strict=True)
            self.known |= {digest: (value, was_cut) for (digest, _), value, was_cut in found}
            self._save()
            told(start + len(block), len(todo))
        both = [self.known[digest] for digest in digests]
        return np.array([value for value, _ in both], np.float64), sum(was_cut for _, was_cut in both)

    def _save(self) -> None:
        digests = np.frombuffer(b"".join(self.known), np.uint8).reshape(-1, 32)
        scores = np.array([score for score, _ in self.known.values()], np.float32)
        cut = np.array([was_cut for _, was_cut in self.known.values()], np.uint8)
        save_arrays(self.path, {"digests": digests, "scores": scores, "cut": cut}, {"key": self.key})
