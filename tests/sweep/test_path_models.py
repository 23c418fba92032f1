"""Models from a path through the whole pipe: spec, plan, packed training, kept weights, export, plain reload."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from harness.models.export import export_run
from harness.names import run_key
from harness.spec import load_sweep
from harness.sweep.packs import plan_packs
from harness.sweep.stages import build_models, builds
from harness.sweep.work import Workshop, work
from harness.tracking.store import find_run, read_json, read_table, verify
from harness.types import InputError
from tests.models.families import CONFIGS, write

CPU = torch.device("cpu")
WORDS = "the cat sat on a mat dog is not yes no maybe so user how are you today it".split()
SPEC = {
    "name": "path",
    "data": {"path": "plain.jsonl", "max_length": 40, "max_prompt_length": 24},
    "model": {"path": "model", "lora": [{"rank": 4, "alpha": 8}, None]},
    "objectives": [{"name": "dpo", "beta": [0.1, 1]}],
    "training": {"steps": 3, "batch_size": 4, "learning_rate": 2e-3, "warmup_steps": 0},
    "evaluation": {"checkpoints": 3, "heldout": 12, "probe": 8, "samples": 4},
    "device": "cpu",
}


def texts(draw: random.Random, least: int, most: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(draw.randint(least, most)))


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """The same pairs as plain text and as conversations."""
    folder, draw = tmp_path_factory.mktemp("data"), random.Random(0)
    rows = [(texts(draw, 3, 5), texts(draw, 2, 6) + " yes", texts(draw, 2, 6) + " no") for _ in range(50)]
    plain = [{"prompt": p, "chosen": a, "rejected": b} for p, a, b in rows]
    turns = [
        {k: [{"role": "user" if k == "prompt" else "assistant", "content": v}] for k, v in r.items()} for r in plain
    ]
    for name, table in (("plain", plain), ("chat", turns)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, table)) + "\n", encoding="utf-8")
    return folder


def sweep(folder: Path, model: Path, data: Path, **sections: dict):
    spec = {**SPEC, "data": {**SPEC["data"], "path": str(data / "plain.jsonl")}}
    spec["model"] = {**SPEC["model"], "path": str(model)}
    for name, changes in sections.items():
        spec[name] = {**spec[name], **changes} if isinstance(changes, dict) else changes
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return load_sweep(folder / "spec.yaml")


def trained(loaded, out: Path) -> dict[str, Path]:
    """Train every run in this process, as a worker does; run key -> folder."""
    folder, names = out / loaded.name, {run_key(run): f"run {i}" for i, run in enumerate(loaded.runs)}
    folder.mkdir(parents=True, exist_ok=True)
    for stage in builds(loaded.runs):
        build_models(out / "cache", stage, CPU)
    shop = Workshop(out / "cache", folder, CPU, names)
    for task in plan_packs(loaded.runs, workers=1):
        assert [message.status for message in work(task, shop) if message.kind == "done"] == ["done"] * len(task.runs)
    return {key: find_run(folder, key) for key in names}


def reloaded(folder: Path, base: Path):
    """An exported folder as plain transformers and peft load it, with its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if (folder / "adapter_config.json").exists():
        from peft import PeftModel

        assert read_json(folder / "adapter_config.json")["base_model_name_or_path"] == str(base)
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval(), tokenizer
    return AutoModelForCausalLM.from_pretrained(folder).eval(), tokenizer


def plain_logp(model, tokenizer, prompt: str, response: str) -> float:
    head = tokenizer(prompt)["input_ids"]
    whole = torch.tensor([[*head, *tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]])
    with torch.no_grad():
        logps = model(input_ids=whole).logits.log_softmax(-1)[0, len(head) - 1 : -1]
    return logps.gather(-1, whole[0, len(head) :, None]).sum().item()


@pytest.mark.parametrize("family", CONFIGS)
def test_each_family_trains_packed_exports_and_reloads_with_equal_log_probs(family, data, tmp_path):
    model = write(family, tmp_path / "model")
    loaded = sweep(tmp_path, model, data)
    folders = trained(loaded, tmp_path / "runs")
    rows = {(r["prompt"], r["chosen"]): r for r in map(json.loads, (data / "plain.jsonl").read_text().splitlines())}
    for run in loaded.runs:
        folder = folders[run_key(run)]
        assert not verify(folder) and len(list(folder.iterdir())) <= 10
        export_run(folder, to := tmp_path / f"out-{run_key(run)[:8]}")
        own, tokenizer = reloaded(to, model)
        table = read_table(folder / "examples.parquet")
        last = (table["step"] == 3) & (table["split"] == "eval_clean")
        first = (table["step"] == 0) & (table["split"] == "eval_clean")
        assert not np.allclose(table["policy_chosen"][last], table["policy_chosen"][first], rtol=1e-4)
        assert np.abs(table["policy_chosen"] - table["reference_chosen"])[first].max() <= 1e-4
        worst = read_table(folder / "worst.parquet")
        assert len(worst["id"]) and last.sum() > 4
        by_id = pair_texts(loaded, run, rows)
        for name, expected in zip(table["id"][last], table["policy_chosen"][last], strict=True):
            row = by_id[name]
            assert plain_logp(own, tokenizer, row["prompt"], row["chosen"]) == pytest.approx(expected, rel=1e-5)


def pair_texts(loaded, run, rows) -> dict[str, dict]:
    from harness.data.pairs import read_pairs

    return {pair.id: rows[pair.prompt, pair.chosen] for pair in read_pairs(run.data).pairs}
