"""Models from a path through the whole pipe: spec, plan, packed training, kept weights, export, plain reload."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from harness.config.load import load_sweep
from harness.corruptions.registry import resolve as resolve_corruption
from harness.identity import canonical_json, file_sha256, run_key
from harness.inputs import reference_cache
from harness.inputs.encoded import encode_inputs
from harness.inputs.reference_cache import scorer
from harness.inputs.reference_models import build_models, builds, start_weights
from harness.inputs.text import text_inputs
from harness.models.architecture import path_architecture
from harness.models.export import export_run
from harness.models.reference_logps import pair_keys, score_responses
from harness.models.weights import load_weights_file, weight_tensors
from harness.run_names import planned_runs
from harness.storage.atomic import read_json
from harness.storage.runs import find_run, read_table
from harness.storage.verify import verify
from harness.sweep.packing import plan_packs
from harness.sweep.rerun import run_of
from harness.training.optim import learning_rate
from harness.types import InputError, RunStatus
from harness.worker import saved_weights
from harness.worker.datasets import training_set
from harness.worker.lanes import build_lane
from harness.worker.prepare import Worker
from harness.worker.protocol import RunDone, WorkerConfig
from harness.worker.train_pack import train_pack
from tests.models.families import CONFIGS, write

CPU = torch.device("cpu")
WORDS = tuple("the cat sat on a mat dog is not yes no maybe so user how are you today it".split())  # noqa: SIM905
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


def sweep(folder: Path, model: Path, data: Path, /, **sections):
    spec = {**SPEC, "data": {**SPEC["data"], "path": str(data / "plain.jsonl")}}
    spec["model"] = {**SPEC["model"], "path": str(model)}
    for name, changes in sections.items():
        spec[name] = {**spec[name], **changes} if isinstance(changes, dict) else changes
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return load_sweep(folder / "spec.yaml")


def trained(loaded, out: Path) -> dict[str, Path]:
    """Train every run in this process, as a worker does; run key -> folder."""
    folder, runs = out / loaded.name, planned_runs(loaded.runs)
    folder.mkdir(parents=True, exist_ok=True)
    for stage in builds(loaded.runs):
        build_models(out / "cache", stage, CPU)
    worker = Worker(WorkerConfig(out / "cache", folder, "cpu"), CPU)
    for task in plan_packs(runs, workers=1):
        done = [event for event in train_pack(task, worker) if isinstance(event, RunDone)]
        assert [event.status for event in done] == [RunStatus.DONE] * len(task.runs)
    return {planned.key: find_run(folder, planned.key) for planned in runs}


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


@pytest.fixture(scope="session")
def qwen(tmp_path_factory) -> Path:
    return write("qwen2", tmp_path_factory.mktemp("qwen") / "model")


def prepared_run(run, cache: Path):
    """A run's inputs, encoded as a worker encodes them."""
    inputs = text_inputs(run, start_weights(cache, run))
    return encode_inputs(inputs, scorer(cache, CPU))


def logp(model, prompt: np.ndarray, response: np.ndarray) -> torch.Tensor:
    ids = torch.tensor(np.concatenate([prompt, response]).astype(np.int64))[None]
    logps = model(input_ids=ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
    return logps.gather(-1, ids[0, len(prompt) :, None]).sum()


@pytest.mark.parametrize("lora", [{"rank": 4}, None], ids=["lora", "full"])
def test_training_is_that_of_peft_and_adamw_on_the_same_batches(lora, qwen, data, tmp_path):
    """Three steps of DPO written out, over peft's or transformers' module and `torch.optim.AdamW`."""
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from transformers import AutoModelForCausalLM

    loaded = sweep(tmp_path, qwen, data, objectives=[{"name": "dpo", "beta": 0.5}], model={"lora": lora})
    [run] = loaded.runs
    made = prepared_run(run, tmp_path)
    lane, _ = build_lane("key", run, made, training_set(made, run.corruption, run.seed, scorer(tmp_path, CPU)), 0, 0)
    model = AutoModelForCausalLM.from_pretrained(qwen)
    if lora:
        model = get_peft_model(model, LoraConfig(r=4, lora_alpha=32, target_modules="all-linear"))
        set_peft_model_state_dict(model, weight_tensors(made.inputs.architecture, made.inputs.weights))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trainable, betas=(0.9, 0.99), weight_decay=0.0)
    pairs = [made.inputs.encode(pair) for pair in made.inputs.train]
    gap = made.pairs.reference[0] - made.pairs.reference[1]
    for step, batch in enumerate(lane.batches.tolist()):
        sides = [[logp(model, pairs[i].prompt, side) for side in (pairs[i].chosen, pairs[i].rejected)] for i in batch]
        gains = [chosen - rejected for chosen, rejected in sides]
        margins = torch.stack(gains) - torch.from_numpy(gap[batch])
        optimiser.zero_grad()
        (-torch.nn.functional.logsigmoid(0.5 * margins)).mean().backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimiser.param_groups[0]["lr"] = learning_rate(step, run.training)
        optimiser.step()
    [folder] = trained(loaded, tmp_path / "runs").values()
    table = read_table(folder / "examples.parquet")
    last = (table["step"] == 3) & (table["split"] == "eval_clean")
    heldout = {pair.id: made.inputs.encode(pair) for pair in made.inputs.evals["eval_clean"]}
    for name, expected in zip(table["id"][last], table["policy_chosen"][last], strict=True):
        with torch.no_grad():
            assert logp(model, heldout[name].prompt, heldout[name].chosen).item() == pytest.approx(expected, rel=1e-5)


def test_the_reference_scores_what_runs_read_and_adds_to_its_table(qwen, data, tmp_path, monkeypatch):
    scored: list[str] = []

    def counted(architecture, weights, pairs, *rest):
        scored.extend(pair.id for pair in pairs)
        return score_responses(architecture, weights, pairs, *rest)

    monkeypatch.setattr(reference_cache, "score_responses", counted)
    [run, _] = sweep(tmp_path, qwen, data, objectives=[{"name": "dpo", "beta": 0.5}]).runs
    score = scorer(tmp_path, CPU)
    for steps in (2, 2, 4):
        before, made = set(scored), prepared_run(run, tmp_path)
        longer = replace(run, training=replace(run.training, steps=steps))
        clean = training_set(made, run.corruption, run.seed, score)
        lane, columns = build_lane("key", longer, made, clean, 0, 0)
        read = {*lane.batches.flatten().tolist(), *(row for part in lane.evals for row in part.rows.tolist())}
        known = np.flatnonzero(~np.isnan(made.pairs.reference[0]))
        assert set(known) == read and len(read) < len(clean.ids) + len(made.evals["eval_clean"])
        assert np.isfinite(columns["ches"]).all()
        assert len(scored) == len(set(scored))  # no pair twice, whoever asks
        assert bool(set(scored) - before) == (steps != 2 or not before)
    whole = score_responses(made.inputs.architecture, made.inputs.weights, made.pairs.tokenised, CPU, True)
    chosen, rejected = pair_keys([made.pairs.tokenised[row] for row in known])
    assert np.array_equal(made.pairs.reference[0][known], whole.sums(chosen))
    assert np.array_equal(made.pairs.products[known], whole.hidden_products(chosen, rejected))
    hard = resolve_corruption({"kind": "curate_relabel", "rate": 0.2})
    assert training_set(made, hard, run.seed, score).corrupted.any()  # reads the margins of all training pairs
    assert np.isfinite(made.pairs.reference[0]).all()


def test_lanes_of_a_pack_are_the_runs_alone(qwen, data, tmp_path):
    loaded = sweep(tmp_path, qwen, data, seeds=2)
    together = trained(loaded, tmp_path / "together")
    for run in loaded.runs:
        alone = trained(replace(loaded, runs=(run,)), tmp_path / "alone")[run_key(run)]
        ours, theirs = (read_table(path / "examples.parquet") for path in (together[run_key(run)], alone))
        assert all(np.array_equal(ours[n], theirs[n], equal_nan=ours[n].dtype.kind == "f") for n in ours)
        assert file_sha256(alone / "weights.safetensors") == file_sha256(together[run_key(run)] / "weights.safetensors")


def test_a_stored_config_is_its_run_again(qwen, data, tmp_path):
    for run in sweep(tmp_path, qwen, data).runs:
        assert run_of(json.loads(canonical_json(run))) == run


def test_seeds_that_share_a_model_share_its_reference(qwen, data, tmp_path):
    loaded = sweep(tmp_path, qwen, data, seeds=2, model={"lora": {"rank": 4}}, objectives=[{"name": "dpo", "beta": 1}])
    first, second = (prepared_run(run, tmp_path) for run in loaded.runs)
    assert not torch.equal(first.inputs.weights, second.inputs.weights)
    assert first.inputs.reference_sha256 == second.inputs.reference_sha256
    packs = plan_packs(planned_runs(loaded.runs), workers=1)
    assert [len(pack.runs) for pack in packs] == [1, 1]  # batches of two seeds differ in width


def test_conversations_go_through_the_chat_template(qwen, data, tmp_path):
    from transformers import AutoTokenizer

    loaded = sweep(tmp_path, qwen, data, data={**SPEC["data"], "path": str(data / "chat.jsonl")})
    inputs = text_inputs(loaded.runs[0], torch.zeros(0))
    tokenizer, pair = AutoTokenizer.from_pretrained(qwen), inputs.train[0]
    tokens = inputs.encode(pair)
    written = tokenizer.decode([*tokens.prompt, *tokens.chosen])
    turns = [{"role": "user", "content": pair.prompt.split("|>")[1].split("<eos>")[0]}]
    assert written.startswith(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    assert written.count("<eos>") == 2 and tokens.chosen[-1] == tokenizer.eos_token_id
    assert tokens.prompt[0] != tokenizer.bos_token_id  # the template writes none, so none is added


def test_sft_comes_first_and_is_the_reference(qwen, data, tmp_path):
    loaded = sweep(
        tmp_path, qwen, data, model={"sft_steps": 4, "sft_batch": 4, "sft_learning_rate": 5e-3, "lora": {"rank": 4}}
    )
    folder = next(iter(trained(loaded, tmp_path / "runs").values()))
    table = read_table(folder / "examples.parquet")
    first = (table["step"] == 0) & (table["split"] == "eval_clean")
    assert np.abs(table["policy_chosen"] - table["reference_chosen"])[first].max() <= 1e-4
    plain = prepared_run(replace(loaded.runs[0], model=replace(loaded.runs[0].model, sft_steps=0)), tmp_path)
    rows = plain.evals["eval_clean"]
    plain.pairs.score_rows(rows)
    assert table["reference_chosen"][first].mean() > plain.pairs.reference[0][rows.start : rows.stop].mean() + 1


def test_objectives_with_a_live_reference_and_rl_run_on_a_path(qwen, data, tmp_path):
    rl = [{"name": name, "iterations": 2, "prompts": 4, "reward": "model"} for name in ("ppo", "rloo")]
    loaded = sweep(
        tmp_path, qwen, data, objectives=[{"name": "kto"}, {"name": "tdpo1"}, *rl], model={"lora": {"rank": 2}}
    )
    folders = trained(loaded, tmp_path / "runs")
    for run in loaded.runs:  # the reward model of the RL runs among them, which keeps no language model
        kept = (folders[run_key(run)] / "weights.safetensors").exists()
        assert kept is (run.objective.name != "reward_model")


def test_the_best_checkpoint_is_kept_by_its_rule(qwen, data, tmp_path):
    loaded = sweep(tmp_path, qwen, data, evaluation={"keep": "best"}, training={"learning_rate": 5e-2})
    for run, folder in zip(loaded.runs, trained(loaded, tmp_path / "runs").values(), strict=True):
        table = read_table(folder / "examples.parquet")
        held = table["split"] == "eval_clean"
        right = {
            step: (table["policy_chosen"] > table["policy_rejected"])[held & (table["step"] == step)].mean()
            for step in sorted(set(table["step"].tolist()))
        }
        tensors, note = load_weights_file(folder / "weights.safetensors")
        assert (note.rule, note.step) == ("best", max(right, key=lambda step: (right[step], -step)))
        assert note.kind == ("full" if run.model.lora is None else "lora") and tensors


def test_bfloat16_trains_fp32_weights_and_exports_near_what_it_measured(qwen, data, tmp_path):
    loaded = sweep(tmp_path, qwen, data, model={"dtype": "bfloat16"}, objectives=[{"name": "dpo", "beta": 1}])
    for run, folder in zip(loaded.runs, trained(loaded, tmp_path / "runs").values(), strict=True):
        table = read_table(folder / "examples.parquet")
        first = (table["step"] == 0) & (table["split"] == "eval_clean")
        assert np.abs(table["policy_chosen"] - table["reference_chosen"])[first].max() <= 0.5
        assert read_json(folder / "provenance.json")["machine"]["tie_tol"] == 0.05
        tensors, _ = load_weights_file(folder / "weights.safetensors")
        wanted = torch.bfloat16 if run.model.lora is None else torch.float32
        assert {tensor.dtype for tensor in tensors.values()} == {wanted}


def test_a_hub_id_is_its_commit_and_its_cached_snapshot(qwen, data, tmp_path, monkeypatch):
    from huggingface_hub import constants

    commit, cache = "a" * 40, tmp_path / "hub"
    own = cache / "models--org--name"
    shutil.copytree(qwen, own / "snapshots" / commit)
    (own / "refs").mkdir()
    (own / "refs" / "main").write_text(commit, encoding="utf-8")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    loaded = sweep(
        tmp_path, Path("org/name"), data, objectives=[{"name": "dpo", "beta": 1}], model={"path": "org/name"}
    )
    assert {(run.model.path, run.model.sha256) for run in loaded.runs} == {("org/name", f"org/name@{commit}")}
    folders = trained(loaded, tmp_path / "runs")
    export_run(folders[run_key(loaded.runs[0])], tmp_path / "out")
    config = read_json(tmp_path / "out" / "adapter_config.json")
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/name", commit)
    with pytest.raises(InputError, match="hf download org/other"):
        sweep(tmp_path, Path("org/other"), data, model={"path": "org/other"})


def test_whole_models_beyond_the_cap_are_kept_only_by_name(qwen, data, tmp_path, monkeypatch):
    loaded = sweep(tmp_path, qwen, data)
    adapters, whole = (next(r for r in loaded.runs if (r.model.lora is None) is full) for full in (False, True))
    monkeypatch.setattr(saved_weights, "FULL_BYTES", 1000)
    rules = {run.model.lora is None: saved_weights.rule(run, path_architecture(run.model)) for run in (adapters, whole)}
    assert rules == {False: "final", True: "none"}
    asked = replace(whole, evaluation=replace(whole.evaluation, keep="final"))
    assert saved_weights.rule(asked, path_architecture(asked.model)) == "final"


def test_a_tiny_text_model_exports_with_the_tokenizer_of_its_seed(data, tmp_path):
    tiny = {"kind": "tiny", "vocab_size": 300, "hidden_size": 16, "layers": 1, "sft_steps": 3, "sft_batch": 4}
    spec = {**SPEC, "data": {**SPEC["data"], "path": str(data / "plain.jsonl")}, "model": tiny, "seeds": 2}
    spec["data"] |= {"max_length": 64, "max_prompt_length": 32}
    spec["evaluation"] = {**SPEC["evaluation"], "keep": "final"}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    loaded = load_sweep(tmp_path / "spec.yaml")
    folders = trained(loaded, tmp_path / "runs")
    rows = {(r["prompt"], r["chosen"]): r for r in map(json.loads, (data / "plain.jsonl").read_text().splitlines())}
    for run in loaded.runs[::2]:
        folder = folders[run_key(run)]
        export_run(folder, to := tmp_path / run_key(run)[:8])
        own, tokenizer = reloaded(to, to)
        table = read_table(folder / "examples.parquet")
        last = (table["step"] == 3) & (table["split"] == "eval_clean")
        by_id = pair_texts(loaded, run, rows)
        inputs = text_inputs(run, torch.zeros(0))
        pair, checked = inputs.evals["eval_clean"][0], 0
        assert tokenizer(pair.prompt)["input_ids"][-5:] == inputs.encode(pair).prompt.tolist()[-5:]
        for name, expected in zip(table["id"][last], table["policy_chosen"][last], strict=True):
            row = by_id[name]
            # A response that was cut has no end; the plain route above always writes one. A cut prompt lost its start.
            tokens = inputs.encode(next(p for p in inputs.evals["eval_clean"] if p.id == name))
            if tokens.chosen[-1] == inputs.eos and tokens.prompt.tolist() == tokenizer(row["prompt"])["input_ids"]:
                assert plain_logp(own, tokenizer, row["prompt"], row["chosen"]) == pytest.approx(expected, rel=1e-5)
                checked += 1
        assert checked > 2


@pytest.mark.parametrize("kind", ["identical", "off_policy"])
@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_texts_that_a_corruption_makes_longer_widen_the_rows(tmp_path, kind, objective):
    """A chosen response that is the longest by far, on both sides or behind another prompt; a long prompt as well."""
    rows = [{"prompt": f"q{i} what", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(20)]
    rows[0]["chosen"] = "a long answer " * 6
    rows[1]["prompt"] = "a long question " * 6
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tiny = {"kind": "tiny", "vocab_size": 300, "hidden_size": 16, "layers": 1, "sft_steps": 3, "sft_batch": 4}
    spec = SPEC | {"model": tiny, "objectives": [{"name": objective}], "corruptions": [{"kind": kind, "rate": 1.0}]}
    spec |= {"data": {"path": str(tmp_path / "p.jsonl"), "max_length": 128}}
    spec["evaluation"] = {"checkpoints": 2, "heldout": 4, "probe": 4, "samples": 0}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    for folder in trained(load_sweep(tmp_path / "spec.yaml"), tmp_path / "out").values():
        assert (folder / "result.json").exists()
