"""A finished run as a plain folder: a transformers model, or a peft adapter, with tokenizer and model card."""

from __future__ import annotations

import copy
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.data import mythtokens
from harness.data.tokens import SPECIALS as TEXT_SPECIALS
from harness.model_files.folder import CONFIG, INDEX, NAMES
from harness.models.card import model_card
from harness.models.folder import Source, base_model, quiet, source_of
from harness.models.load import Architecture, skeleton
from harness.models.lora import is_linear, target_names
from harness.models.weights import FILE, WeightsNote, load_weights_file
from harness.names import file_sha256
from harness.tracking.files import read_json
from harness.tracking.store import load_result
from harness.types import InputError, LoraSpec, PathModelSpec

ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"


def export_run(folder: Path, to: Path) -> None:
    """Write the kept weights of the run in `folder` to the new folder `to`, whole or not at all.

    A full model loads with `AutoModelForCausalLM.from_pretrained(to)`, an adapter with `peft.PeftModel`; the tokenizer
    lies beside either. Raises InputError where the run is unfinished or damaged, kept no weights, or its base model is
    not where it was, and where `to` holds something already.
    """
    result = load_result(folder) if folder.is_dir() else None
    if result is None:
        raise InputError(f"{folder}: no finished run; expected a run's folder, runs/SWEEP/RUN")
    path = folder / FILE
    if FILE not in result["files"]:
        raise InputError(f"{folder} kept no weights ({result['status']}); run the sweep with evaluation.keep: final")
    if not path.is_file() or file_sha256(path) != result["files"][FILE]:
        raise InputError(f"{path}: missing or damaged; run the sweep again")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"--to {to}: holds something already; expected a new folder")
    tensors, note = load_weights_file(path)
    to.parent.mkdir(parents=True, exist_ok=True)
    part = to.parent / f".{to.name}.{uuid.uuid4().hex[:8]}.tmp"
    part.mkdir()
    try:
        _write(result, tensors, note, part)
        pairs = read_json(folder / "provenance.json")["data"]
        (part / "README.md").write_text(model_card(result, note, pairs), encoding="utf-8")
        if to.exists():
            to.rmdir()
        part.rename(to)
    finally:
        shutil.rmtree(part, ignore_errors=True)  # gone already where all went well


def _write(result: Mapping[str, Any], tensors: Mapping[str, Tensor], note: WeightsNote, to: Path) -> None:
    config = result["config"]
    if config["world"] is not None or config["model"]["kind"] == "tiny":
        _write_tiny(config, tensors, note, to)
        return
    model = config["model"]
    lora = model["lora"] and LoraSpec(model["lora"]["rank"], model["lora"]["alpha"], tuple(model["lora"]["targets"]))
    spec = PathModelSpec(**{**model, "lora": lora or None})
    source = source_of(spec)
    if note.kind == "lora":
        _write_adapter(spec, source, tensors, to)
    else:
        base = copy.deepcopy(base_model(source))
        _save(base.to(next(iter(tensors.values())).dtype), tensors, to)
    for name in sorted(set(NAMES) - {CONFIG, INDEX}):
        if (Path(source.folder) / name).is_file():
            shutil.copyfile(Path(source.folder) / name, to / name)


def _save(model: Any, tensors: Mapping[str, Tensor], to: Path) -> None:
    """Put the tensors into an unmodified model and have transformers write it."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[name])
    model.config.use_cache = True
    quiet()
    model.save_pretrained(to)


def _write_tiny(config: Mapping[str, Any], tensors: Mapping[str, Tensor], note: WeightsNote, to: Path) -> None:
    """A decoder that the harness built, as a LlamaForCausalLM with the tokenizer it was trained with."""
    from transformers import PreTrainedTokenizerFast

    shape = config["world"] or config["model"]
    architecture = Architecture(
        vocab_size=len(mythtokens.VOCABULARY) if config["world"] else shape["vocab_size"],
        hidden_size=shape["hidden_size"],
        layers=shape["layers"],
        heads=shape["heads"],
        intermediate_size=shape["intermediate_size"],
        max_positions=64 if config["world"] else config["data"]["max_length"],
    )
    _save(skeleton(architecture), tensors, to)
    pad, bos, eos = mythtokens.SPECIALS[:3] if config["world"] else TEXT_SPECIALS
    made = PreTrainedTokenizerFast(
        tokenizer_object=_world_tokenizer() if config["world"] else _text_tokenizer(note.tokenizer),
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        model_max_length=architecture.max_positions,
    )
    made.save_pretrained(to)


def _world_tokenizer() -> Any:
    """The closed vocabulary of the embedded world, a word a token; a prompt is `<bos> ... <asst>`."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    # The world's own encoder knows no other words: an unknown one is read as padding.
    made = Tokenizer(models.WordLevel(dict(mythtokens.TOKEN), unk_token=mythtokens.SPECIALS[0]))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _with_start(made, *mythtokens.SPECIALS[1:2], mythtokens.TOKEN["<bos>"])


def _text_tokenizer(text: str) -> Any:
    from tokenizers import Tokenizer

    made = Tokenizer.from_str(text)
    return _with_start(made, TEXT_SPECIALS[1], made.token_to_id(TEXT_SPECIALS[1]))


def _with_start(tokenizer: Any, token: str, number: int | None) -> Any:
    """Every text begins as prompts did in training."""
    from tokenizers import processors

    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A $B", special_tokens=[(token, number)]
    )
    return tokenizer


def _write_adapter(spec: PathModelSpec, source: Source, tensors: Mapping[str, Tensor], to: Path) -> None:
    """An adapter as peft writes it, with the base model's place in its configuration."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    assert spec.lora is not None
    base = base_model(source)
    conv = any(is_linear(module) and not isinstance(module, torch.nn.Linear) for module in base.modules())
    LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=spec.path,
        revision=source.sha256.rpartition("@")[2] if "@" in source.sha256 else None,
        r=spec.lora.rank,
        lora_alpha=int(spec.lora.alpha) if spec.lora.alpha.is_integer() else spec.lora.alpha,  # type: ignore[arg-type]
        lora_dropout=0.0,
        bias="none",
        target_modules=_short_names(base, spec.lora),
        fan_in_fan_out=conv,
        inference_mode=True,
    ).save_pretrained(str(to))
    save_file(dict(tensors), to / ADAPTER, {"format": "pt"})


def _short_names(model: Any, lora: LoraSpec) -> list[str]:
    """The targets by their last names where these mean exactly the same modules, else in full."""
    names = target_names(model, lora)
    short = sorted({name.rpartition(".")[2] for name in names})
    return short if target_names(model, LoraSpec(targets=tuple(short))) == names else names
