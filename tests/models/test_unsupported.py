"""Models that no pack can train are one line at `plan`: quantised, multimodal, mixtures of experts, and their like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from harness.config.load import load_sweep
from harness.model_files.folder import read_folder
from harness.models.export import copy_tokenizer
from harness.models.folder import Source, base_model
from harness.models.lora import target_names
from harness.types import InputError, LoraSpec
from tests.models.families import CONFIGS, OTHERS, write

QUANTISED: dict[str, dict[str, Any]] = {
    "bitsandbytes": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    "gptq": {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
    "awq": {"quantization_config": {"quant_method": "awq", "bits": 4, "zero_point": True}},
    "compressed-tensors": {"quantization_config": {"quant_method": "compressed-tensors", "format": "int-quantized"}},
    "torchao": {"quantization_config": {"quant_method": "torchao", "quant_type": {"default": {}}}},
    "older": {"compression_config": {"format": "pack-quantized"}},
}
# model type, what its config.json has beside the usual, words of the refusal
AGAINST: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("mixtral", {"num_local_experts": 8, "num_experts_per_tok": 2}, "a mixture of experts (num_local_experts 8)"),
    ("qwen2_moe", {"num_experts": 60}, "a mixture of experts (num_experts 60)"),
    ("qwen3_moe", {"num_experts": 128}, "a mixture of experts"),
    ("deepseek_v3", {"n_routed_experts": 256, "n_shared_experts": 1}, "(n_routed_experts 256)"),
    ("dbrx", {"ffn_config": {"moe_num_experts": 16}}, "(moe_num_experts 16)"),
    ("mpt", {"hidden_size": None, "d_model": 64}, "read a token's place in the row"),
    ("bloom", {}, "read a token's place in the row"),
    ("falcon", {"alibi": True}, "read a token's place in the row"),
    ("gpt_neo", {"attention_types": [[["global", "local"], 6]], "window_size": 256}, "read a token's place in the row"),
    ("mamba", {"state_size": 16, "num_attention_heads": None}, "carry a state"),
    ("jamba", {"num_experts": 1}, "carry a state"),
    ("new_hybrid", {"layer_types": ["full_attention", "linear_attention"]}, "carry a state"),
    ("t5", {"is_encoder_decoder": True, "architectures": ["T5ForConditionalGeneration"]}, "no causal language model"),
    ("bert", {"architectures": ["BertForMaskedLM"]}, "BertForMaskedLM is no causal language model"),
    ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "is no causal language model"),
    (
        "gemma3",
        {"text_config": {"model_type": "gemma3_text"}, "vision_config": {}, "vocab_size": None},
        "is a multimodal model; expected its text model alone (gemma3_text)",
    ),
    ("llama", {"vocab_size": None}, "has no vocab_size"),
    ("llama", {"hidden_size": None}, "has no hidden_size or n_embd or d_model"),
    ("xglm", {}, "model.attention: xglm has no sdpa; expected eager"),
    ("gemma2", {}, "model.attention: gemma2 has no sdpa; expected eager"),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("unsupported")
    write("llama", root / "model")
    rows = [{"prompt": f"how {i}", "chosen": "yes", "rejected": "no"} for i in range(8)]
    (root / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def refused(root: Path, config: dict[str, Any], **section: Any) -> list[str]:
    """The problems of a spec on the model with another config.json."""
    path = root / "model" / "config.json"
    before = path.read_text()
    spec = {
        "name": "no",
        "data": {"path": "pairs.jsonl", "max_length": 32, "max_prompt_length": 16},
        "model": {"path": "model", **section},
        "objectives": [{"name": "dpo"}],
    }
    (root / "spec.yaml").write_text(yaml.safe_dump(spec))
    try:
        path.write_text(json.dumps({k: v for k, v in {**json.loads(before), **config}.items() if v is not None}))
        load_sweep(root / "spec.yaml")
    except InputError as error:
        return list(error.problems)
    finally:
        path.write_text(before)
    return []


@pytest.mark.parametrize("method", QUANTISED)
def test_quantised_weights_are_refused_with_the_way_out(model: Path, method: str) -> None:
    (line,) = refused(model, QUANTISED[method])
    key = next(iter(QUANTISED[method]))
    assert f"config.json has {key}" in line and "quantised weights cannot be trained" in line
    assert "dequantise" in line and (method == "older" or f"({method})" in line)


def test_a_note_of_quantisation_beside_the_config_counts_too(model: Path) -> None:
    note = model / "model" / "quantize_config.json"
    note.write_text('{"bits": 4}')
    try:
        (line,) = refused(model, {})
    finally:
        note.unlink()
    assert "has quantize_config.json: quantised weights" in line


@pytest.mark.parametrize(("kind", "config", "words"), AGAINST, ids=[f"{k}-{w[-24:]}" for k, _, w in AGAINST])
def test_what_no_pack_trains_is_one_line(model: Path, kind: str, config: dict[str, Any], words: str) -> None:
    architectures = {"architectures": [f"{kind.title()}ForCausalLM"]}
    (line,) = refused(model, {"model_type": kind, **architectures, **config})
    assert words in line and "\n" not in line and str(model / "spec.yaml") in line


@pytest.mark.parametrize("family", [*CONFIGS, *OTHERS])
def test_every_tested_family_is_let_through(tmp_path: Path, family: str) -> None:
    assert read_folder(write(family, tmp_path / "model")).config["model_type"] == family


def test_names_of_sizes_that_other_families_use_are_read(model: Path) -> None:
    sizes = {"hidden_size": None, "num_attention_heads": None, "num_hidden_layers": None}
    other = {"d_model": 32, "attention_heads": 4, "num_layers": 2, "model_type": "xglm"}
    assert refused(model, {**sizes, **other}, attention="eager") == []


def test_an_architecture_that_fails_on_the_rows_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Olmo2ForCausalLM

    folder = write("olmo2", tmp_path / "model")

    def fails(*_: Any, **__: Any) -> None:
        raise TypeError("forward() got an unexpected argument")

    monkeypatch.setattr(Olmo2ForCausalLM, "forward", fails)
    with pytest.raises(InputError, match="Olmo2ForCausalLM cannot score rows of two responses \\(TypeError: forward"):
        base_model(Source(str(folder), "olmo2 that fails"))


# --- adapters on the ends of a model ---


@pytest.mark.parametrize("family", ["qwen2", "llama"], ids=["tied", "apart"])
@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_adapters_on_the_ends_get_one_and_the_same_answer(tmp_path: Path, family: str, target: str) -> None:
    from transformers import AutoModelForCausalLM

    folder = write(family, tmp_path / "model")
    rows = [{"prompt": f"how {i}", "chosen": "yes", "rejected": "no"} for i in range(8)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    said = refused(tmp_path, {}, lora={"rank": 2, "targets": [target]})
    opened = AutoModelForCausalLM.from_pretrained(folder)
    if (family, target) == ("llama", "lm_head"):
        assert said == [] and target_names(opened, LoraSpec(targets=(target,))) == ["lm_head"]
        return
    (line,) = said
    why = "is one matrix with the embedding" if target == "lm_head" else "is an embedding"
    assert why in line and "expected all-linear, or some of down_proj" in line
    assert "embed_tokens" not in line.partition("expected")[2]
    with pytest.raises(InputError, match=why):
        target_names(opened, LoraSpec(targets=(target,)))
    assert torch.equal(opened.get_input_embeddings().weight, opened.get_output_embeddings().weight) is (
        family == "qwen2"
    )


# --- export ---


def test_the_tokenizer_keeps_all_its_templates(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = write("qwen2", tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = {"default": "plain", "tool_use": "with tools"}
    tokenizer.save_pretrained(folder)
    (tmp_path / "to").mkdir()
    copy_tokenizer(folder, tmp_path / "to")
    assert (tmp_path / "to/additional_chat_templates/tool_use.jinja").read_text() == "with tools"
    assert AutoTokenizer.from_pretrained(tmp_path / "to").chat_template == tokenizer.chat_template
