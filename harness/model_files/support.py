"""Which models a pack can train, by what their config.json says: a line for each reason against one. No torch.

A row holds a prompt and two responses that must not see one another: by attention masks and given positions, which is
why layers that carry a state from token to token, or that count positions in the row themselves, cannot be used. What
these rules let through and no test covers has to score such a row rightly when it is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# Model types of transformers by what stands against them.
_STATE = "layers that carry a state from one response of a row into the next"
_PLACES = "layers that read a token's place in the row, where two responses stand behind one prompt"
_LAYERS = "layers that do not train in a pack"
_AGAINST = {
    **dict.fromkeys(
        (
            *("mamba", "mamba2", "falcon_mamba", "falcon_h1", "bamba", "jamba", "zamba", "zamba2", "nemotron_h"),
            *("granitemoehybrid", "recurrent_gemma", "rwkv", "xlstm", "qwen3_next", "qwen3_5_text", "olmo_hybrid"),
            *("bailing_hybrid", "kimi_linear", "minimax", "lfm2", "lfm3"),
        ),
        _STATE,
    ),
    **dict.fromkeys(("bloom", "mpt", "gpt_neo"), _PLACES),
    **dict.fromkeys(("diffllama", "hrm_text", "gpt_neox_japanese"), _LAYERS),
}
_CAUSAL = ("ForCausalLM", "LMHeadModel")
_ATTENTION = ("full_attention", "sliding_attention", "chunked_attention")
_PARTS = ("text_config", "vision_config", "audio_config")
# Dense families without torch's fused attention.
EAGER = ("gemma2", "vaultgemma", "granite_swa", "xglm", "gptj", "codegen")


def refusals(folder: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """Why a model cannot be trained here, one line each with the fix."""
    place, kind = f"{folder}/config.json", str(config.get("model_type", ""))
    yield from _quantised(folder, config, place)
    if parts := [name for name in _PARTS if isinstance(config.get(name), dict)]:
        text = config["text_config"].get("model_type") if "text_config" in parts else None
        fix = f"its text model alone ({text})" if text else "a model of text alone"
        yield f"{place} has {', '.join(parts)}: {kind} is a multimodal model; expected {fix}, saved as a causal one"
        return
    names = [str(name) for name in config.get("architectures") or ()]
    if config.get("is_encoder_decoder") or (names and not any(name.endswith(_CAUSAL) for name in names)):
        what = ", ".join(names) or kind
        yield f"{place}: {what} is no causal language model; expected one, such as Llama or Qwen ...ForCausalLM"
        return
    why = _AGAINST.get(kind)
    if why is None and config.get("alibi"):
        why = _PLACES
    if why is None and any(layer not in _ATTENTION for layer in config.get("layer_types") or ()):
        why = _STATE
    if experts := _experts(config):
        why = f"a mixture of experts ({experts}), whose routing no pack computes"
    if why:
        yield f"{place}: model type {kind} cannot be trained in a pack: it has {why}; expected a dense decoder"


def _quantised(folder: Path, config: Mapping[str, Any], place: str) -> Iterator[str]:
    """Weights in a few bits: bitsandbytes, GPTQ, AWQ, compressed-tensors, torchao and what comes after them."""
    for name in ("quantization_config", "compression_config"):
        if found := config.get(name):
            method = found.get("quant_method") if isinstance(found, dict) else None
            what, named = f"{place} has {name}", f" ({method})" if method else ""
            break
    else:
        beside = [name for name in ("quantize_config.json", "quant_config.json") if (folder / name).is_file()]
        if not beside:
            return
        what, named = f"{folder} has {beside[0]}", ""
    yield (
        f"{what}{named}: quantised weights cannot be trained; expected the model that it was made from, or the same "
        "one dequantised (model.dequantize(), then save_pretrained)"
    )


def _experts(config: Mapping[str, Any]) -> str:
    """The key that says of more than one expert, with its value; empty for a dense model."""
    nested = config.get("ffn_config")
    for key, value in {**(nested if isinstance(nested, dict) else {}), **config}.items():
        counts = "num" in key or key.startswith("n_")
        if "expert" in key and counts and "per_tok" not in key and isinstance(value, int) and value > 1:
            return f"{key} {value}"
    return ""
