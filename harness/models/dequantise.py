"""A GGUF file dequantised into a plain model folder: `python -m harness.models.dequantise FILE FOLDER`.

Four bits stay four bits: the weights are those that the quantised model computes with, in fp32.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from harness.model_files.folder import TOKENIZER
from harness.models.folder import quiet


def dequantise(file: Path, folder: Path) -> None:
    """Write weights, configuration and tokenizer of a GGUF file as transformers reads them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quiet()
    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    config = read.config
    if hasattr(config, "quantization_config"):  # transformers saves no model that says it is quantised
        del config.quantization_config
    plain = type(read)(config)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    _drop_foreign_tokens(folder / TOKENIZER, config.vocab_size)


def _drop_foreign_tokens(path: Path, rows: int) -> None:
    """Take out the tokens that the file does not have: transformers adds GPT-2's `<|endoftext|>` to every byte-level
    vocabulary, with an id that the embedding has no row for where the model has no such token."""
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["id"] < rows]
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    dequantise(Path(sys.argv[1]), Path(sys.argv[2]))
