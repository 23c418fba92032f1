"""What each section of a spec may hold: unknown keys and values out of range become errors here. Imports no torch.

The dataclasses of `types.py` are the single list of fields and defaults; the tables here add what is allowed. A list
in a section is an axis: each of its values is checked.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from harness.config.strict_yaml import Node, plain
from harness.text import suggestion
from harness.types import DataSpec, EvaluationSpec, ModelSpec, Parameter, PathModelSpec, TrainingSpec, WorldSpec

P = Parameter


def _int(low: float, high: float) -> Parameter:
    return P(None, "int", low, high)


def _above_zero(high: float) -> Parameter:
    return P(None, "float", 0, high, low_open=True)


_SHARE = P(None, "float", 0, 1)
_STEPS, _BATCH, _RATE = _int(1, 1_000_000), _int(1, 65_536), _above_zero(10)
_WIDTHS = {
    "hidden_size": _int(2, 16_384),
    "layers": _int(1, 256),
    "heads": _int(1, 256),
    "intermediate_size": _int(1, 65_536),
}
SECTIONS: dict[str, type[Any]] = {
    "world": WorldSpec,
    "data": DataSpec,
    "model": ModelSpec,
    "training": TrainingSpec,
    "evaluation": EvaluationSpec,
}
# What a section holds in its other form: `model` with a path.
VARIANTS: dict[str, type[Any]] = {"path_model": PathModelSpec}
# Allowed values by section and field; defaults are those of the dataclasses.
FIELDS: dict[str, dict[str, Parameter]] = {
    "world": {
        "kind": P(None, "choice", choices=("mythworld",)),
        "version": _int(1, 2),
        "misaligned": _SHARE,
        "labels": P(None, "choice", choices=("hard", "bradley_terry")),
        "pairs": _int(1, 10_000_000),
        "coverage": P(None, "float", 0, 1, low_open=True),
        "pretrain_steps": _int(0, 1_000_000),
        "pretrain_batch": _int(0, 65_536),
        "pretrain_learning_rate": _RATE,
        "sft_steps": _int(0, 1_000_000),
        "sft_batch": _int(0, 65_536),
        "sft_learning_rate": _RATE,
        **_WIDTHS,
    },
    "data": {
        "path": P(None, "text"),
        "format": P(None, "text"),  # one of `harness formats`, checked in `data_section.py`
        "sha256": P(None, "text"),
        "limit": _int(0, 1_000_000_000),
        "heldout": P(None, "float", 0, 1, low_open=True, high_open=True),
        "on_bad_row": P(None, "choice", choices=("drop", "error")),
        "max_length": _int(4, 1_000_000),
        "max_prompt_length": _int(0, 1_000_000),
        "max_response_length": _int(0, 1_000_000),
        "test": P(None, "float", 0, 1, high_open=True),
        "pairs": P(None, "choice", choices=("best_worst", "all", "adjacent")),
        "pairs_per_prompt": _int(0, 1_000_000),
        **dict.fromkeys(("hub", "revision", "split", "heldout_split", "columns", "slices", "plugin"), P(None, "text")),
    },
    "model": {
        "kind": P(None, "choice", choices=("tiny",)),
        "vocab_size": _int(260, 1_000_000),  # 256 bytes and the special tokens of a byte-level tokenizer
        **_WIDTHS,
        "sft_steps": _STEPS,
        "sft_batch": _BATCH,
        "sft_learning_rate": _RATE,
        "dtype": P(None, "choice", choices=("float32",)),
    },
    "path_model": {
        "kind": P(None, "choice", choices=("path",)),
        "path": P(None, "text"),
        "revision": P(None, "text"),
        "sha256": P(None, "text"),
        "lora": P(None, "table", doc="null or {rank, alpha, targets}"),
        "dtype": P(None, "choice", choices=("float32", "bfloat16")),
        "attention": P(None, "choice", choices=("sdpa", "eager")),
        "gradient_checkpointing": P(None, "bool"),
        "template": P(None, "choice", choices=("auto", "none")),
        "template_date": P(None, "text"),  # ISO, checked in `model_section.py`
        "template_arguments": P(None, "table", doc="a mapping such as {enable_thinking: false}"),
        "sft_steps": _int(0, 1_000_000),
        "sft_batch": _BATCH,
        "sft_learning_rate": _RATE,
        "reference": P(None, "text"),
        **dict.fromkeys(("reference_sha256", "reference_logps", "reference_logps_sha256"), P(None, "text")),
    },
    "training": {
        "steps": _STEPS,
        "epochs": P(None, "float", 0, 10_000),
        "batch_size": _BATCH,
        "learning_rate": _RATE,
        "warmup_steps": _int(0, 1_000_000),
        "final_lr_fraction": _SHARE,
        "max_grad_norm": _above_zero(1e9),
        "adam_beta1": P(None, "float", 0, 1, high_open=True),
        "adam_beta2": P(None, "float", 0, 1, high_open=True),
        "weight_decay": P(None, "float", 0, 10),
        "schedule": P(None, "choice", choices=("linear", "cosine", "constant")),
        "micro_batch": _int(0, 65_536),
        "mode": P(None, "choice", choices=("strict", "fast")),
        "shards": _int(1, 1024),
    },
    "evaluation": {
        "checkpoints": _int(2, 100),  # step 0 and the last are always measured
        "heldout": _int(1, 1_000_000),
        "probe": _int(1, 1_000_000),
        "ood": _int(0, 1_000_000),
        "samples": _int(0, 1_000_000),
        "answers": P(None, "table", doc="a mapping such as {length: 256, temperature: 0.7}"),
        "prompts": P(None, "table", doc="the path of a file with columns prompt and kind"),
        "prompts_sha256": P(None, "text"),
        "gradient_probe": _int(0, 100_000),
        "keep": P(None, "choice", choices=("final", "best", "none", "")),
    },
}


def expected(field: Parameter) -> str:
    """What a field accepts, in words, e.g. `an integer in [1, 100]`."""
    if field.kind == "choice":
        return "one of " + ", ".join(choice for choice in field.choices if choice)
    if field.kind == "text":
        return field.doc or "text"
    if field.kind == "bool":
        return "true or false"
    if field.kind == "table":
        return field.doc
    number = "an integer" if field.kind == "int" else "a number"
    return number if field.low is None and field.high is None else f"{number} in {field.interval()}"


def shown(value: Any) -> str:
    """A value as a message shows it: short, on one line, with a hint where YAML reads it as text."""
    text = "nothing" if value is None else repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    if not isinstance(value, str):
        return text
    if value.lower() in ("yes", "no", "on", "off", "y", "n"):
        return f"{text} (text in YAML 1.2: only true and false are booleans)"
    if re.fullmatch(r"[-+]?[0-9][-+0-9_:.eExXa-fA-F]*", value):
        return f"{text} (text, not a number: write it in decimal without quotes, leading zeros, colons or underscores)"
    return text


def read_value(field: Parameter, node: Node, path: str, problems: list[str]) -> Any:
    """The value of a node, a float where the field is one; None with a line in `problems` if it is not allowed."""
    value = plain(node)
    if isinstance(value, Mapping | list) or field.problem(value) is not None:
        near = suggestion(value, field.choices) if isinstance(value, str) and field.choices else ""
        problems.append(f"{node.where} {path}: {shown(value)}; expected {expected(field)}{near}")
        return None
    return float(value) if field.kind == "float" else value


def read_mapping(
    fields: Mapping[str, Parameter], node: Node, key: str, example: str, problems: list[str]
) -> dict[str, Any] | None:
    """The values of a small mapping, each checked against `fields`; None if it is not a mapping.

    A null value counts as not given. Appends one line per mistake to `problems`.
    """
    if not isinstance(node.value, dict):
        problems.append(f"{node.where} {key}: {shown(plain(node))} is not a mapping; expected e.g. `{example}`")
        return None
    values = {}
    for name, child in node.value.items():
        if name not in fields:
            problems.append(unknown_key(name, child, f"{key}.{name}", fields))
        elif fields[name].kind == "table" or child.value is not None:
            values[name] = (
                child if fields[name].kind == "table" else read_value(fields[name], child, f"{key}.{name}", problems)
            )
    return {name: value for name, value in values.items() if value is not None}


def unknown_key(name: str, node: Node, path: str, known: Iterable[str]) -> str:
    """The message for a key that is none of `known`."""
    known = tuple(known)
    return f"{node.where} {path}: unknown key; expected one of {', '.join(known)}{suggestion(name, known)}"


def section_axes(
    section: str, node: Node | None, problems: list[str], prefix: str = "", shown_as: str = ""
) -> dict[str, list[Any]]:
    """Field -> list of values for one section, defaults filled in, in the order of the dataclass.

    Messages call it `shown_as` where that is given. Appends to `problems` one line for each value that cannot be used;
    fields with a problem keep their default.
    """
    key, allowed = f"{prefix}{shown_as or section}", FIELDS[section]
    given: dict[str, Node] = {}
    if node is not None and isinstance(node.value, dict):
        given = node.value
    elif node is not None:
        problems.append(f"{node.where} {key}: {shown(plain(node))} is not a mapping; expected `field: value` lines")
    axes = {
        field.name: [field.default]
        for field in dataclasses.fields((SECTIONS | VARIANTS)[section])
        if allowed[field.name].kind != "table"  # read by the section's own module
    }
    for name, child in given.items():
        path, before = f"{key}.{name}", len(problems)
        if name not in axes:
            problems.append(unknown_key(name, child, path, allowed))
        elif child.value == ():
            want = expected(allowed[name])
            problems.append(f"{child.where} {path}: an empty list gives 0 runs; expected {want}, or a list of them")
        else:
            places = [(path, child)]
            if isinstance(child.value, tuple):
                places = [(f"{path}.{index}", one) for index, one in enumerate(child.value)]
            values = [read_value(allowed[name], one, place, problems) for place, one in places]
            if len(problems) == before:
                axes[name] = values
    return axes
