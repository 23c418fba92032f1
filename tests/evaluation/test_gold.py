"""Reward models as gold: transformers' own numbers, a sweep with two of them, stale scores, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from harness.models.classifier import Classifier
from tests.evaluation import reward_models

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
