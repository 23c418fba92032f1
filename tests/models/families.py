"""Small random models of every family, written to disk as transformers writes them, with a tokenizer of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

TEXTS = ("the cat sat on the mat", "a dog is not a cat, is it?", "yes! no. maybe so", "user: how are you today?")
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}
GROUPED = {**SIZE, "num_key_value_heads": 2, "tie_word_embeddings": False}
CONFIGS: dict[str, Any] = {
    "llama": lambda v: LlamaConfig(vocab_size=v, **GROUPED),
    "qwen2": lambda v: Qwen2Config(vocab_size=v, **{**GROUPED, "tie_word_embeddings": True}),
    "qwen3": lambda v: Qwen3Config(vocab_size=v, head_dim=16, **GROUPED),
    "gemma": lambda v: GemmaConfig(vocab_size=v, head_dim=16, **{**GROUPED, "tie_word_embeddings": True}),
    "mistral": lambda v: MistralConfig(vocab_size=v, sliding_window=None, **GROUPED),
    "gpt_neox": lambda v: GPTNeoXConfig(vocab_size=v, **SIZE),
    "gpt2": lambda v: GPT2Config(
        vocab_size=v, n_embd=32, n_layer=2, n_head=4, n_inner=48, n_positions=256, initializer_range=0.3
    ),
}

# Families that have to show at loading that they score rows as they should: caps, scales and windows of their own.
OTHERS: dict[str, Any] = {
    "gemma2": lambda v: Gemma2Config(vocab_size=v, head_dim=16, **{**GROUPED, "tie_word_embeddings": True}),
    "gemma3_text": lambda v: Gemma3TextConfig(vocab_size=v, head_dim=16, sliding_window=64, **GROUPED),
    "olmo2": lambda v: Olmo2Config(vocab_size=v, eos_token_id=2, **GROUPED),
    "phi3": lambda v: Phi3Config(vocab_size=v, pad_token_id=0, eos_token_id=2, **GROUPED),
    "cohere": lambda v: CohereConfig(vocab_size=v, eos_token_id=2, **{**GROUPED, "tie_word_embeddings": True}),
    "granite": lambda v: GraniteConfig(vocab_size=v, logits_scaling=3.0, **GROUPED),
}


def tokenizer(bos: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with `<bos>` before every text, `<eos>`, and a chat template."""
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "<bos>", "<eos>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    own.train_from_iterator(TEXTS, trainer)
    if bos:
        own.post_processor = processors.TemplateProcessing(
            single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 1)]
        )
    made = PreTrainedTokenizerFast(tokenizer_object=own, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")
    made.chat_template = TEMPLATE
    return made


def write(family: str, folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A random model of `family` with its tokenizer, in `folder`."""
    own = tokenizer()
    config = (CONFIGS | OTHERS)[family](len(own))
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 1, 2, 0
    for name, value in changes.items():
        setattr(config, name, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():  # norms and biases start at one and zero: make them mean something
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    own.save_pretrained(folder)
    return folder
