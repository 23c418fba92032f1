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

from harness.data.mythworld.language import LANGUAGES, SPECIALS, Language
from harness.data.tokenize import SPECIALS as TEXT_SPECIALS
from harness.identity import file_sha256
from harness.model_files.folder import CONFIG, INDEX, MORE_TEMPLATES, NAMES
from harness.models.architecture import Architecture, skeleton
from harness.models.folder import Source, base_model, quiet, source_of
from harness.models.lora import is_linear, target_names
from harness.models.weights import FILE, WeightsNote, load_weights_file
from harness.storage.atomic import read_json
from harness.storage.runs import load_result
from harness.types import InputError, LoraSpec, PathModelSpec

# Measures of `results.csv` that say something of the model itself, with what they mean.
MEASURES = {
    "reward_accuracy": "held-out pairs whose chosen response gained more against the reference",
    "ranking_accuracy": "held-out pairs whose chosen response has the higher log-prob",
    "undesirable_zone": "held-out pairs whose chosen response lost log-prob and is not ranked first",
    "chosen_displacement": "change of the chosen response's log-prob, nats",
    "rejected_displacement": "change of the rejected response's log-prob, nats",
    "kl": "estimated divergence from the reference on free-running samples, nats per response",
    "gold_reward": "true reward of free-running samples (embedded world only)",
    "ood_ranking_accuracy": "the ranking on pairs of another distribution",
}


def model_card(result: Mapping[str, Any], note: WeightsNote, pairs: Mapping[str, Any]) -> str:
    """The card as Markdown with the hub's front matter, from a run's `result.json` and its provenance of `pairs`."""
    config = result["config"]
    objective, corruption, training = config["objective"], config["corruption"], config["training"]
    rate = "" if corruption["rate"] is None else f" {corruption['rate']:g}"
    rows = [
        ("objective", objective["name"]),
        *((name, value) for name, value in objective["hyperparameters"]),
        ("corruption", f"{corruption['kind']}{rate}"),
        ("seed", config["seed"]),
        *training.items(),
        ("weights", f"{note.kind}, {note.rule}, after step {note.step} of {result['steps']}"),
        ("status", result["status"]),
        ("run key", result["run_key"]),
    ]
    return "\n".join(
        [
            *_front(config, note),
            f"# {result['name'].partition('-')[2]}",
            "",
            "One run of a sweep of preference objectives, trained to compare recipes under stated noise.",
            "",
            "## Recipe",
            "",
            *_table(rows),
            "",
            "## Model and data",
            "",
            *_table([*_sources(config), ("training pairs", pairs["pairs"]), ("their SHA-256", pairs["sha256"])]),
            "",
            "## Measures",
            "",
            *_table([(f"{name}: {text}", _number(result["results"].get(name))) for name, text in MEASURES.items()]),
            "",
            "On clean held-out pairs of the same source. One run says nothing of the spread over seeds: that stands in",
            "the sweep's report.",
            "",
            "## Limits",
            "",
            *_limits(config, note),
            "",
        ]
    )


def _front(config: Mapping[str, Any], note: WeightsNote) -> list[str]:
    model = config["model"] or {}
    own = [f"base_model: {model['path']!r}"] if model.get("path") else []
    library = "peft" if note.kind == "lora" else "transformers"
    tags = ["tags:", *(f"- {tag}" for tag in ("preference-harness", config["objective"]["name"]))]
    return ["---", f"library_name: {library}", *own, "pipeline_tag: text-generation", *tags, "---", ""]


def _sources(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    if config["world"] is not None:
        world = config["world"]
        return [("world", world["kind"]), ("misaligned", world["misaligned"]), ("labels", world["labels"])]
    data, model = config["data"], config["model"]
    rows = [("data SHA-256", data["sha256"]), ("data format", data["format"] or "detected")]
    rows += [(name, data[name]) for name in ("max_length", "max_prompt_length")]
    if model["kind"] == "tiny":
        return [*rows, ("model", "a small Llama trained on the chosen responses of the data itself")]
    return [*rows, ("base model", model["path"]), ("base model's hash", model["sha256"]), ("dtype", model["dtype"])]


def _limits(config: Mapping[str, Any], note: WeightsNote) -> list[str]:
    lines = ["- Prompts and responses were tokenised each on its own and longer ones cut at the lengths above."]
    if config["corruption"]["kind"] != "none":
        lines.append("- The training labels were damaged on purpose; the model learned from them.")
    if note.rule == "best":
        lines.append("- The checkpoint was chosen on the pairs it is measured on, which flatters the measures.")
    if config["world"] is not None or config["model"]["kind"] == "tiny":
        lines.append("- Far too small to be of use outside the comparison.")
    return [*lines, "- Nothing was done for safety beyond what the data and the base model hold."]


def _number(value: Any) -> str:
    return "not measured" if value is None else f"{value:.4g}"


def _table(rows: list[tuple[str, Any]]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows)]


def _cell(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return "".join(c for c in text if c.isprintable()).replace("|", "\\|").replace("<", "&lt;")


ADAPTER_CONFIG = "adapter_config.json"


def open_exported(folder: Path, device: torch.device) -> tuple[Any, Any]:
    """The model of an exported folder, on `device`, with its tokenizer; an adapter stands on its base model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    own: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(folder, **own)
    if (folder / ADAPTER_CONFIG).is_file():
        from peft import AutoPeftModelForCausalLM

        model = AutoPeftModelForCausalLM.from_pretrained(folder, **own)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype="auto", **own)
    return model.eval().to(device), tokenizer


@torch.no_grad()
def put_weights(model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Put a run's tensors, under the names of its weights file, into an opened model of the same base.

    Raises RuntimeError where a tensor has no place in the model, so that no run is taken for another.
    """
    if hasattr(model, "peft_config"):
        from peft import set_peft_model_state_dict

        found: Any = set_peft_model_state_dict(model, dict(tensors))
        if found.unexpected_keys:
            raise RuntimeError(f"adapter tensors without a place: {', '.join(sorted(found.unexpected_keys)[:3])}")
        return
    places = dict(model.named_parameters())
    if lost := sorted(set(places) ^ set(tensors)):
        raise RuntimeError(f"tensors without a place or places without a tensor: {', '.join(lost[:3])}")
    for name, tensor in tensors.items():
        places[name].copy_(tensor)


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
    copy_tokenizer(Path(source.folder), to)


def copy_tokenizer(model: Path, to: Path) -> None:
    """Put the tokenizer of a model's folder, with all its chat templates, into the folder `to`."""
    for name in sorted(set(NAMES) - {CONFIG, INDEX}):
        if (model / name).is_file():
            shutil.copyfile(model / name, to / name)
    if (model / MORE_TEMPLATES).is_dir():
        shutil.copytree(model / MORE_TEMPLATES, to / MORE_TEMPLATES)


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
    language = LANGUAGES[shape["version"]] if config["world"] else None
    architecture = Architecture(
        vocab_size=len(language.vocabulary) if language else shape["vocab_size"],
        hidden_size=shape["hidden_size"],
        layers=shape["layers"],
        heads=shape["heads"],
        intermediate_size=shape["intermediate_size"],
        max_positions=64 if config["world"] else config["data"]["max_length"],
    )
    _save(skeleton(architecture), tensors, to)
    pad, bos, eos = SPECIALS[:3] if language else TEXT_SPECIALS
    made = PreTrainedTokenizerFast(
        tokenizer_object=_world_tokenizer(language) if language else _text_tokenizer(note.tokenizer),
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        model_max_length=architecture.max_positions,
    )
    made.save_pretrained(to)


def _world_tokenizer(language: Language) -> Any:
    """The closed vocabulary of the embedded world, a word a token; a prompt is `<bos> ... <asst>`."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    # The world's own encoder knows no other words: an unknown one is read as padding.
    made = Tokenizer(models.WordLevel(dict(language.token), unk_token=SPECIALS[0]))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _with_start(made, *SPECIALS[1:2], language.token["<bos>"])


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
