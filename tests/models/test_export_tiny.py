"""A run of the embedded world, exported and read back by plain transformers, says what its records say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from harness.data.mythworld import pairs as mythpairs
from harness.data.mythworld import world as mythworld
from harness.data.mythworld.language import FIRST
from harness.models.export import export_run
from harness.storage.runs import read_table
from harness.storage.verify import verify
from harness.types import InputError
from tests.commands import harness

SPEC = {
    "name": "kept",
    "world": {"kind": "mythworld", "version": 1, "pairs": 64, "pretrain_steps": 20, "sft_steps": 10},
    "objectives": [{"name": "dpo", "beta": 0.5}],
    "training": {"steps": 6, "batch_size": 8},
    "evaluation": {"checkpoints": 3, "heldout": 16, "probe": 16, "ood": 8, "samples": 0, "keep": ["final", "none"]},
    "device": "cpu",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """The folders of a run that keeps its weights, and of one that does not."""
    root = tmp_path_factory.mktemp("kept")
    (root / "spec.yaml").write_text(yaml.safe_dump(SPEC), encoding="utf-8")
    done = harness("sweep", root / "spec.yaml", "--out", root / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {path.parent for path in (root / "runs" / "kept").glob("*/result.json")}
    return {"final" if (path / "weights.safetensors").exists() else "none": path for path in found}


@pytest.fixture(scope="module")
def exported(runs, tmp_path_factory) -> Path:
    to = tmp_path_factory.mktemp("out") / "model"
    export_run(runs["final"], to)
    return to


def test_plain_transformers_gives_the_recorded_log_probs(runs, exported):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(exported), AutoTokenizer.from_pretrained(exported)
    world = mythworld.draw_world(0, 1)
    pairs = {pair.id: pair for pair in mythpairs.preference_pairs(world, "test", 16)}
    table = read_table(runs["final"] / "examples.parquet")
    last = (table["step"] == 6) & (table["split"] == "eval_clean")
    assert last.sum() == 16
    for name, expected in zip(table["id"][last], table["policy_chosen"][last], strict=True):
        prompt = tokenizer(f"{pairs[name].prompt} <asst>")["input_ids"]
        whole = torch.tensor([tokenizer(f"{pairs[name].prompt} <asst> {pairs[name].chosen} <eos>")["input_ids"]])
        with torch.no_grad():
            logps = model(whole).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
        total = logps.gather(-1, whole[0, len(prompt) :, None]).sum().item()
        assert total == pytest.approx(expected, rel=1e-5)


def test_the_tokenizer_writes_what_the_world_writes(exported):
    from transformers import AutoTokenizer

    from harness.data.mythworld import tokens as mythtokens

    tokenizer = AutoTokenizer.from_pretrained(exported)
    pair = mythpairs.preference_pairs(mythworld.draw_world(0, 1), "test", 1)[0]
    assert tokenizer(f"{pair.prompt} <asst>")["input_ids"] == mythtokens.encode_prompt(pair.prompt, FIRST).tolist()
    assert tokenizer.eos_token_id == mythtokens.EOS


def test_the_card_names_recipe_data_measures_and_limits(runs, exported):
    card = (exported / "README.md").read_text(encoding="utf-8")
    for part in ("| objective | dpo |", "| beta | 0.5 |", "their SHA-256", "ranking_accuracy", "## Limits"):
        assert part in card
    assert not verify(runs["final"])


def test_what_cannot_be_exported_is_refused_in_one_line(runs, exported, tmp_path):
    for folder, to, words in (
        (runs["none"], tmp_path / "a", "evaluation.keep: final"),
        (tmp_path, tmp_path / "b", "no finished run"),
        (runs["final"], exported, "holds something already"),
    ):
        with pytest.raises(InputError) as caught:
            export_run(folder, to)
        assert len(caught.value.problems) == 1 and words in caught.value.problems[0]
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_damaged_weights_are_never_exported(runs, tmp_path):
    import shutil

    copy = tmp_path / runs["final"].name
    shutil.copytree(runs["final"], copy)
    data = bytearray((copy / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "weights.safetensors").write_bytes(bytes(data))
    with pytest.raises(InputError, match="damaged"):
        export_run(copy, tmp_path / "out")


def test_keeping_weights_changes_no_number(runs):
    tables = [read_table(runs[rule] / "examples.parquet") for rule in ("final", "none")]
    for name in tables[0]:
        same = np.array_equal(tables[0][name], tables[1][name], equal_nan=tables[0][name].dtype.kind == "f")
        assert same, name
