"""Tiny reward models with random weights, as transformers itself saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that adds `<bos>` to plain texts."""
    from tokenizers.processors import TemplateProcessing

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<pad>", "<bos>", "<eos>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    inner.train_from_iterator([], trainer)
    inner.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", padding_side="left"
    )
    made.chat_template = template
    return made


def save(
    folder: Path, seed: int = 0, template: str | None = TEMPLATE, kind: str = "llama", labels: int = 1, **config: Any
) -> Path:
    """A reward model's folder."""
    torch.manual_seed(seed)
    own: dict[str, Any] = {
        "vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 96, "num_labels": labels, "pad_token_id": 0, **config,
    }  # fmt: skip
    model: Any
    if kind == "llama":
        model = LlamaForSequenceClassification(LlamaConfig(bos_token_id=1, eos_token_id=2, **own))
    else:
        model = BertForSequenceClassification(BertConfig(**own))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)  # the usual start hardly tells texts apart
    model.save_pretrained(folder)
    tokenizer(template).save_pretrained(folder)
    return folder
