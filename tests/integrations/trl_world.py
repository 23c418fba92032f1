"""A tiny model, its tokenizer and preference pairs of an invented town, for TRL's trainers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

TRADES = ("baker", "ferryman", "glazier", "beekeeper", "clockmaker", "cooper")
PLACES = ("by the mill", "at the north gate", "on Heron Lane", "behind the chapel")
GOOD = ("is open until dusk", "charges three coins")
BAD = ("left long ago", "never answers anybody at all")
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def pairs(number: int, conversational: bool = False, start: int = 0) -> list[dict[str, Any]]:
    """Rows as TRL reads them; `conversational` ones have their prompt inside both responses."""
    rows = []
    for i in range(start, start + number):
        trade, place = TRADES[i % len(TRADES)], PLACES[i // len(TRADES) % len(PLACES)]
        prompt = f"Number {i}: where is the {trade} {place}?"
        answers = [f" The {trade} {ending[i % 2]} {'and more ' * (i % 3)}." for ending in (GOOD, BAD)]
        if conversational:
            turns = [
                [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}] for answer in answers
            ]
            rows.append({"chosen": turns[0], "rejected": turns[1]})
        else:
            rows.append({"prompt": prompt, "chosen": answers[0], "rejected": answers[1]})
    return rows


def save_model(folder: Path) -> Path:
    """A random Llama of one layer and a byte-level BPE tokenizer, as a folder that TRL loads a reference from."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    texts = [text for row in pairs(48) for text in row.values()]
    special = ["<pad>", "<bos>", "<eos>", "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    plain.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", chat_template=TEMPLATE
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0,
            initializer_range=0.3,
        )
    )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


SETTINGS = {
    "max_steps": 6, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "learning_rate": 3e-3,
    "logging_steps": 2, "eval_strategy": "steps", "eval_steps": 3, "save_strategy": "no", "report_to": [],
    "use_cpu": True, "disable_tqdm": True, "bf16": False, "fp16": False, "gradient_checkpointing": False, "seed": 1,
}  # fmt: skip


def trainer_of(
    kind: str,
    folder: Path,
    out: Path,
    callbacks: list[Any],
    train: list[dict[str, Any]],
    held_out: list[dict[str, Any]],
    peft: bool = False,
    **settings: Any,
) -> Any:
    """A trainer of TRL's over the model in `folder`; its evaluation set is `held_out`."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
        from trl.experimental.cpo import CPOConfig, CPOTrainer
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    config, trainer = {
        "dpo": (DPOConfig, DPOTrainer),
        "kto": (KTOConfig, KTOTrainer),
        "cpo": (CPOConfig, CPOTrainer),
        "orpo": (ORPOConfig, ORPOTrainer),
    }[kind]
    more: dict[str, Any] = {}
    if peft:
        from peft import LoraConfig

        more["peft_config"] = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    if kind == "kto":
        settings = {"train_sampling_strategy": "sequential"} | settings
    return trainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        args=config(output_dir=str(out), **(SETTINGS | settings)),
        train_dataset=Dataset.from_list(train),
        eval_dataset=Dataset.from_list(held_out),
        processing_class=AutoTokenizer.from_pretrained(folder),
        callbacks=callbacks,
        **more,
    )
