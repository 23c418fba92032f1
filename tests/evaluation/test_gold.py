"""Reward models as gold: transformers' own numbers, finished runs with two of them, stale scores, what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from harness.cli import run as command
from harness.data.conversations import read_conversations
from harness.identity import canonical_json
from harness.models.classifier import Classifier
from harness.report.data.sweep import read_sweep
from harness.report.page import write_report
from harness.run_names import planned_runs
from harness.storage import gold as stored
from harness.storage.gold import GOLD, SCORES, read_scores
from harness.storage.verify import verify
from harness.sweep import gold
from harness.sweep.gold import score_runs
from harness.types import GoldSpec, RunSpec
from tests.evaluation import reward_models
from tests.report.fixture import grid, write_sweep

TURNS = [
    [{"role": "user", "content": "Name a colour"}],
    [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}, {"role": "user", "content": "Why"}],
]
ANSWERS = ["red", "a rather long answer, of many words", " spaced "]


def by_transformers(folder: Path, texts: list[str], special: bool) -> list[float]:
    """One text at a time, without padding."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        encoded = [tokenizer(text, add_special_tokens=special, return_tensors="pt") for text in texts]
        return [float(model(**one).logits[0, 0]) for one in encoded]


@pytest.mark.parametrize("kind", ["llama", "bert"])
@pytest.mark.parametrize("padded", [True, False])
def test_scores_of_conversations_are_those_of_transformers(tmp_path: Path, kind: str, padded: bool) -> None:
    more: dict[str, Any] = {} if padded else {"pad_token_id": None}
    folder = reward_models.save(tmp_path / "reward", kind=kind, **more)
    model = Classifier(folder, torch.device("cpu"), batch_size=4)
    asked = [(turns, answer) for turns in TURNS for answer in ANSWERS]
    texts = [model.text(turns, answer) for turns, answer in asked]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    whole = [[*turns, {"role": "assistant", "content": answer.strip()}] for turns, answer in asked]
    assert texts == [tokenizer.apply_chat_template(turns, tokenize=False) for turns in whole]
    scores, cut = model.scores(texts)
    assert scores.std() > 0.01 and not cut.any()
    assert scores == pytest.approx(by_transformers(folder, texts, special=False), abs=1e-5)


def test_text_prompts_are_user_turns_and_without_a_template_prompt_and_answer(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    model = Classifier(reward_models.save(tmp_path / "chat"), cpu, 4)
    assert model.text("Say hi", " hi") == "<bos><|user|>Say hi<eos><|assistant|>hi<eos>"
    assert model.text("\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:", " d").count("<|user|>") == 2
    bare = Classifier(reward_models.save(tmp_path / "bare", template=None), cpu, 4)
    assert bare.text("Say hi:", " hi") == "Say hi: hi"
    assert bare.text(TURNS[0], "red") == "\n\nHuman: Name a colour\n\nAssistant: red"
    assert bare.scores(["Say hi: hi"])[0] == pytest.approx(
        by_transformers(tmp_path / "bare", ["Say hi: hi"], special=True), abs=1e-5
    )


def test_of_a_longer_text_the_end_is_scored(tmp_path: Path) -> None:
    folder = reward_models.save(tmp_path / "reward", template=None)
    model = Classifier(folder, torch.device("cpu"), 4, max_length=8)
    scores, cut = model.scores(["x" * 20 + "ABCDEFG", "y" * 9 + "ABCDEFG", "short"])
    assert scores[0] == scores[1] != scores[2] and cut.tolist() == [True, True, False]
    assert scores[:1] == pytest.approx(by_transformers(folder, ["ABCDEFG"], special=True), abs=1e-5)


WORDS = ["red", "green", "blue", "round", "square", "small", "large"]


def write_pairs(path: Path, count: int = 64) -> None:
    """Conversations whose chosen answer repeats the prompt's words."""
    rows = []
    for i in range(count):
        words = " ".join(WORDS[(i * 3 + k) % len(WORDS)] for k in range(2 + i % 3))
        answers = {"chosen": f"{words}.", "rejected": f"no {i % 7}."}
        row = {name: [{"role": "assistant", "content": text}] for name, text in answers.items()}
        rows.append(json.dumps({"prompt": [{"role": "user", "content": f"Say {i}: {words}"}], **row}))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def finished(root: Path, answer: str = "is red") -> tuple[Path, list[RunSpec]]:
    """A sweep of two finished runs on 64 conversations, as training leaves them; each answers in a way of its own."""
    write_pairs(root / "pairs.jsonl")
    runs = grid(("dpo",), betas=2, dials=None, rates=(0.0,), seeds=1)
    runs = [replace(run, data=replace(run.data, path=str(root / "pairs.jsonl"), format="pairs")) for run in runs]
    folder = write_sweep(root / "runs" / "real", runs)
    ids = list(read_conversations(runs[0].data).pairs)
    for number, path in enumerate(sorted(folder.glob("*/result.json"))):
        examples = pq.read_table(path.parent / "examples.parquet").to_pydict()
        held = [i for i, split in enumerate(examples["split"]) if split == "eval_clean"]
        for place, i in enumerate(held):
            examples["id"][i] = ids[place % len(ids)]
        pq.write_table(pa.table(examples), path.parent / "examples.parquet", write_page_checksum=True)
        (path.parent / "worst.parquet").unlink()  # of pairs that the data has not
        write_samples(path.parent, f"{answer} {number}")
    return folder, runs


def write_samples(folder: Path, answer: str) -> None:
    """Samples of a run without a known reward, sealed in its result."""
    samples = pq.read_table(folder / "samples.parquet").to_pydict()
    n = len(samples["row"])
    samples |= {name: [float("nan")] * n for name in ("gold_reward", "reference_gold_reward")}
    samples |= {"response": [f"{answer} {i}" for i in range(n)], "reference_response": [f"was {i}" for i in range(n)]}
    pq.write_table(pa.table(samples), folder / "samples.parquet", write_page_checksum=True)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    del result["sha256"]
    result["results"]["gold_reward"] = None
    result["files"] = {"samples.parquet": hashlib.sha256((folder / "samples.parquet").read_bytes()).hexdigest()}
    result["sha256"] = hashlib.sha256(canonical_json(result).encode()).hexdigest()
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def score(folder: Path, runs: Sequence[RunSpec], *models: Path, **more: int) -> list[str]:
    """Score the runs; the lines that were said."""
    said: list[str] = []
    asked = GoldSpec(tuple(map(str, models)), **more)
    assert score_runs(folder, planned_runs(runs), asked, said.append) == []
    return said


def test_runs_get_gold_reward_margins_and_a_report(tmp_path: Path) -> None:
    folder, runs = finished(tmp_path)
    models = [reward_models.save(tmp_path / "one", seed=1), reward_models.save(tmp_path / "two", 2, template=None)]
    said = score(folder, runs, *models)
    assert len(said) == 2 and "one scores" in said[0] and "two scores" in said[0]
    sweep = read_sweep(folder)
    own = Classifier(models[0], torch.device("cpu"), 8)
    rows = read_conversations(runs[0].data)
    for run in sweep.runs:
        assert run.folder is not None and run.gold is not None
        assert [one.name for one in run.gold] == ["one", "two"]
        samples, table = run.table("samples.parquet"), read_scores(run.folder)
        assert samples is not None
        texts = [
            own.text(rows.by_row[row], text) for row, text in zip(samples["row"], samples["response"], strict=True)
        ]
        expected, _ = own.scores(texts)
        assert samples["gold_reward"] == pytest.approx(expected, abs=1e-5)
        assert run.measured("gold_reward") == pytest.approx(expected.mean(), abs=1e-5)
        pair = (table["model"] == "one") & (table["kind"] == "pair")
        chosen = [own.text(rows.turns.prompt(rows.pairs[name]), rows.pairs[name].chosen) for name in table["id"][pair]]
        assert table["score"][pair] == pytest.approx(own.scores(chosen)[0], abs=1e-5)
        right = np.mean(table["score"][pair] > table["other"][pair])
        assert run.gold[0].metrics["pair_accuracy"] == pytest.approx(right)
    write_report(folder)
    page = (folder / "report" / "report.md").read_text(encoding="utf-8")
    assert "What do reward models say?" in page and "one and two" in page and "no gold reward" not in page
    assert "gold_reward" in (folder / "results.csv").read_text(encoding="utf-8").partition("\n")[0]
    points = (folder / "report" / "frontier.csv").read_text(encoding="utf-8").splitlines()
    place = points[0].split(",").index("gold_reward")
    assert all(float(line.split(",")[place]) == pytest.approx(run.measured("gold_reward"))
               for line, run in zip(points[1:], sweep.runs, strict=True))  # fmt: skip


def test_only_what_changed_is_scored_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, runs = finished(tmp_path)
    model = reward_models.save(tmp_path / "one", seed=1)
    asked: list[int] = []
    scores = Classifier.scores
    monkeypatch.setattr(Classifier, "scores", lambda self, texts: asked.append(len(texts)) or scores(self, texts))
    score(folder, runs, model)
    both = sum(asked)
    # Held-out pairs and the reference's answers are the same in both runs, and scored once.
    assert both == 2 * 64 + 32 + 2 * 32
    assert score(folder, runs, model) == [] and sum(asked) == both
    one, other = (path.parent for path in sorted(folder.glob("*/result.json")))
    kept = (other / GOLD).read_bytes()
    write_samples(one, "anew")
    (stale,) = (run for run in read_sweep(folder).runs if run.key[:8] == one.name[:8])
    assert stale.measured("gold_reward") is None
    assert len(score(folder, runs, model)) == 1
    assert sum(asked) == both + 32 and (other / GOLD).read_bytes() == kept
    reward_models.save(tmp_path / "one", seed=5)  # other weights under the same name
    assert len(score(folder, runs, model)) == 2 and sum(asked) == both + 32 + both


def test_another_model_takes_the_place_of_the_first_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, runs = finished(tmp_path)
    one, two = (reward_models.save(tmp_path / name, seed) for seed, name in enumerate(("one", "two"), 1))
    score(folder, runs, one)
    assert score(folder, runs, two)[0].startswith("gold     in place of one, whose scores stay in the cache;")
    monkeypatch.setattr(Classifier, "scores", None)  # both are there: nothing is scored
    said = score(folder, runs, one, two)
    assert len(said) == 2 and "one scores" in said[0] and "two scores" in said[0]


def test_damaged_scores_are_named_and_written_again(tmp_path: Path) -> None:
    folder, runs = finished(tmp_path)
    model = reward_models.save(tmp_path / "one", seed=1)
    score(folder, runs, model)
    run = next(folder.glob(f"*/{SCORES}")).parent
    (run / SCORES).write_bytes(b"x")
    assert any(SCORES in line for line in verify(run))
    with pytest.raises(OSError, match="checksum"):
        read_scores(run)
    assert len(score(folder, runs, model)) == 1 and read_scores(run)["score"].size


def test_models_that_cannot_be_used_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = reward_models.save(tmp_path / "two", labels=2)
    (tmp_path / "empty").mkdir()
    write_pairs(tmp_path / "pairs.jsonl")
    for model, text in (
        (two, "2 labels; expected a reward model with one logit"),
        (tmp_path / "empty", "has no config.json"),
        (tmp_path / "nowhere", "does not exist"),
    ):
        arguments = ["gold", "--data", str(tmp_path / "pairs.jsonl"), "--reward-model", str(model)]
        assert command([*arguments, "--out", str(tmp_path / "scored.jsonl")]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and text in lines[0]


def test_a_file_of_pairs_gets_gold_margins(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.jsonl", 12)
    model = reward_models.save(tmp_path / "one", seed=1)
    out = tmp_path / "scored.jsonl"
    arguments = ["gold", "--data", str(tmp_path / "pairs.jsonl"), "--reward-model", str(model), "--device", "cpu"]
    assert command([*arguments, "--cache", str(tmp_path / "cache"), "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    own = Classifier(model, torch.device("cpu"), 8)
    for row in rows:
        both = own.scores([own.text(row["prompt"], row[side][0]["content"]) for side in ("chosen", "rejected")])[0]
        assert [row["score_chosen"], row["score_rejected"]] == pytest.approx(both.tolist(), abs=1e-5)
        assert row["gold_margin"] == pytest.approx(row["score_chosen"] - row["score_rejected"])
    noisy = ["--kind", "adversarial_easy", "--rate", "0.2", "--out", str(tmp_path / "noisy.jsonl")]
    assert command(["corrupt", "--data", str(out), *noisy]) == 0


def test_an_interrupted_scoring_of_a_file_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pairs(tmp_path / "pairs.jsonl", 12)
    model = reward_models.save(tmp_path / "one", seed=1)
    whole, given = Classifier.scores, ["--data", str(tmp_path / "pairs.jsonl"), "--device", "cpu"]
    given += ["--reward-model", str(model), "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "scored.jsonl")]
    asked: list[int] = []

    def scores(self: Classifier, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        if asked == [5]:
            asked.append(0)
            raise KeyboardInterrupt
        asked.append(len(texts))
        return whole(self, texts)

    monkeypatch.setattr(Classifier, "scores", scores)
    monkeypatch.setattr(stored, "BLOCK", 5)
    monkeypatch.setattr(gold, "SAID", 0.0)
    assert command(["gold", *given]) == 130
    assert not (tmp_path / "scored.jsonl").exists()
    capsys.readouterr()
    assert command(["gold", *given]) == 0
    out, err = capsys.readouterr()
    texts = sum(asked)
    assert asked[0] == 5 and sum(asked[2:]) == texts - 5  # each text once
    lines = err.splitlines()
    assert f"gold     one: 5 of {texts - 5} texts, about 0 s left" in lines and "scored.jsonl" in out
    assert command(["gold", *given, "--force"]) == 0 and sum(asked) == texts
