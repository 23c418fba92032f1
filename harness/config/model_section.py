"""The `model:` section where it has a `path`: a folder, a GGUF file or a hub id, and the hash that enters run keys.

Imports no torch, so `harness plan` computes every key.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from harness.config.overrides import SOURCE
from harness.config.schema import FIELDS, expected, section_axes, shown
from harness.config.strict_yaml import Node, plain
from harness.identity import canonical_json, file_sha256
from harness.model_files.folder import (
    HEADS,
    ModelFolder,
    end_problem,
    length_problems,
    linear_names,
    vocabulary_problems,
)
from harness.model_files.location import local_folder, locate, model_folder
from harness.model_files.support import EAGER
from harness.storage.logps_file import read_reference
from harness.text import suggestion
from harness.types import InputError, LoraSpec, Parameter

FIX = "expected a model's folder, e.g. `--set model.path=models/qwen`, a .gguf file, or a hub id such as org/name"
ALL = "all-linear"
TAKEN = {"messages", "tools", "documents", "add_generation_prompt"}  # variables of a chat template that are no setting
# A path and the field that holds its content hash.
HASHES = {"path": "sha256", "reference": "reference_sha256", "reference_logps": "reference_logps_sha256"}
Find = Callable[[str, Path], tuple[str, str]]  # (path as written, folder it is meant from) -> absolute path, hash
LORA = {
    "rank": Parameter(None, "int", 1, 4096),
    "alpha": Parameter(None, "float", 0, 1e6, low_open=True),
    "targets": Parameter(None, "table", doc="all-linear, or names"),
}


def is_path_model(node: Node | None) -> bool:
    """Whether a `model:` section names a model from a path rather than one that the sweep builds."""
    return node is not None and isinstance(node.value, dict) and ("path" in node.value or _kind(node) == "path")


def _kind(node: Node) -> Any:
    assert isinstance(node.value, dict)
    return plain(node.value["kind"]) if "kind" in node.value else None


def path_model_axes(
    node: Node, prefix: str, base: Path, hashes: dict[Path, str], problems: list[str]
) -> dict[str, list[Any]]:
    """The axes of a model from a path: paths absolute, `sha256` the hash of each, `lora` as values.

    A relative path is meant from `base` in the spec file and from the working folder in `--set`. What a folder cannot
    be used for is said here, before anything runs. Appends to `problems`.
    """
    assert isinstance(node.value, dict)
    key = f"{prefix}model"
    rest = {name: child for name, child in node.value.items() if name not in ("lora", "template_arguments")}
    axes = section_axes("path_model", Node(rest, node.where), problems, prefix, shown_as="model")
    axes["lora"] = _lora_axis(node.value.get("lora"), key, problems) if "lora" in node.value else [None]
    axes["template_arguments"] = _argument_axis(node.value.get("template_arguments"), key, problems)
    for text in axes["template_date"]:
        try:
            date.fromisoformat(str(text))
        except ValueError:
            where = node.value["template_date"].where
            problems.append(f"{where} {key}.template_date: {text!r}; expected a date such as 2024-07-26")
    if not axes["path"] or "" in axes["path"]:
        problems.append(f"{node.value.get('path', node).where} {key}.path: no model given; {FIX}")
        return axes
    if len(axes["revision"]) > 1:
        problems.append(f"{node.where} {key}.revision: cannot be an axis; put the other model under `also:`")
        return axes
    before = len(problems)
    revision = axes["revision"][0]
    finders: dict[str, Find] = {
        "path": lambda text, folder: locate(text, revision, folder, hashes),
        "reference": lambda text, folder: locate(text, "", folder, hashes),
        "reference_logps": _logps_file,
    }
    for field, find in finders.items():
        _locate(axes, field, find, node, prefix, base, problems)
    if len(problems) == before:
        kinds = {
            str(folder.config.get("model_type")) for folder in (*models_of(axes, "path"), *models_of(axes, "reference"))
        }
        if "sdpa" in axes["attention"] and (plain_only := sorted(kinds & set(EAGER))):
            where = node.value.get("attention", node).where
            problems.append(f"{where} {key}.attention: {', '.join(plain_only)} has no sdpa; expected eager")
        problems += _target_problems(axes, f"{node.value.get('lora', node).where} {key}.lora.targets")
        where = f"{node.value.get('reference', node).where} {key}.reference"
        for folder, other in itertools.product(models_of(axes, "path"), models_of(axes, "reference")):
            problems += [f"{where}: {line}" for line in vocabulary_problems(folder, other)]
    return axes


def _locate(
    axes: dict[str, list[Any]],
    field: str,
    find: Find,
    node: Node,
    prefix: str,
    base: Path,
    problems: list[str],
) -> None:
    """Make the paths of an axis absolute and fill in their hashes; "" stays as it is. Appends to `problems`."""
    assert isinstance(node.value, dict)
    place, of, key = node.value.get(field, node), HASHES[field], f"{prefix}model"
    found = []
    for text in axes[field]:
        try:
            folder = Path.cwd() if place.where == SOURCE else base
            found.append(find(text, folder) if text else ("", ""))
        except InputError as error:
            problems += [f"{place.where} {key}.{field}: {line}" for line in error.problems]
    if len(found) < len(axes[field]):
        return
    identities = [identity for _, identity in found]
    if of in node.value and axes[of] != identities:
        problems.append(
            f"{node.value[of].where} {key}.{of}: the content hash of {field} is {', '.join(identities)}; it changed "
            "since the line was written; expected the same content, or no such line"
        )
    axes[field], axes[of] = [path for path, _ in found], identities


def _logps_file(text: str, base: Path) -> tuple[str, str]:
    """The absolute path of a log-prob file, and its content hash. Raises InputError where it holds no reference."""
    path = (base / Path(text).expanduser()).resolve()
    read_reference(path)
    return str(path), file_sha256(path)


def models_of(axes: Mapping[str, list[Any]], field: str) -> list[ModelFolder]:
    """What the files of an axis's models say, of those that were found."""
    pairs = zip(axes[field], axes[HASHES[field]], strict=False)
    return [model_folder(path, identity) for path, identity in pairs if identity]


def _target_problems(axes: dict[str, list[Any]], place: str) -> list[str]:
    """Targets that name nothing in a local folder's weights; a hub's are not here yet, and are checked on loading."""
    lines = []
    wanted = [target for lora in axes["lora"] if lora is not None for target in lora.targets if target != ALL]
    places = zip(axes["path"], axes["sha256"], strict=False) if wanted else ()
    for folder in (
        local_folder(path, identity, weights=False) for path, identity in places if Path(path).is_absolute()
    ):
        names = linear_names(folder)
        known = sorted({name.rpartition(".")[2] for name in names})
        tied = not any(name in HEADS for name in known)
        for target in dict.fromkeys(wanted):
            if why := end_problem(target, tied):
                lines.append(f"{place}: {why}; expected {ALL}, or some of {', '.join(known)}")
            elif not any(name == target or name.endswith(f".{target}") for name in names):
                near = suggestion(target, known)
                lines.append(f"{place}: '{target}' names no layer; expected {ALL}, or some of {', '.join(known)}{near}")
    return lines


def fit_problems(axes: dict[str, list[Any]], data: dict[str, list[Any]], where: str) -> list[str]:
    """Lengths that the data may ask for and the model cannot give."""
    folders = [*models_of(axes, "path"), *models_of(axes, "reference")]
    lengths = itertools.product(folders, data["max_length"])
    return [f"{where} data.max_length: {text}" for pair in lengths for text in length_problems(*pair)]


def _argument_axis(node: Node | None, key: str, problems: list[str]) -> list[str]:
    """The values of `template_arguments` as JSON: a mapping, its JSON, or a list of such; "" without any."""
    if node is None:
        return [""]
    found = []
    for entry in node.value if isinstance(node.value, tuple) else (node,):
        value = plain(entry)
        try:
            given = json.loads(value) if isinstance(value, str) and value else value or {}
        except ValueError:
            given = None
        if not isinstance(given, dict):
            wanted = FIELDS["path_model"]["template_arguments"].doc
            problems.append(f"{entry.where} {key}.template_arguments: {shown(value)}; expected {wanted}")
        elif taken := sorted(given.keys() & TAKEN):
            problems.append(f"{entry.where} {key}.template_arguments: {taken[0]} is set by the harness; leave it out")
        else:
            found.append(canonical_json(given) if given else "")
    return found or [""]


def _lora_axis(node: Node | None, key: str, problems: list[str]) -> list[LoraSpec | None]:
    """The values of `lora`: null, a mapping whose `rank` and `alpha` may be lists, or a list of such."""
    if node is None:
        return [None]
    entries = node.value if isinstance(node.value, tuple) else (node,)
    found: list[LoraSpec | None] = []
    for entry in entries:
        if entry.value is None:
            found.append(None)
        elif isinstance(entry.value, dict):
            found += _loras(entry, f"{key}.lora", problems)
        else:
            problems.append(
                f"{entry.where} {key}.lora: {shown(plain(entry))}; expected null or {{rank, alpha, targets}}"
            )
    return found or [None]


def _loras(node: Node, key: str, problems: list[str]) -> list[LoraSpec]:
    assert isinstance(node.value, dict)
    defaults, values = LoraSpec(), {}
    for name in [name for name in node.value if name not in LORA]:
        problems.append(f"{node.value[name].where} {key}.{name}: unknown key; expected one of {', '.join(LORA)}")
    for field in dataclasses.fields(LoraSpec):
        child = node.value.get(field.name)
        given = getattr(defaults, field.name) if child is None else plain(child)
        if field.name == "targets":
            given = (
                [tuple([given] if isinstance(given, str) else given)] if isinstance(given, str | list | tuple) else [()]
            )
        options = given if isinstance(given, list) else [given]
        bad = [option for option in options if not _usable(field.name, option)]
        if (bad or not options) and child is not None:
            problems.append(
                f"{child.where} {key}.{field.name}: {shown(plain(child))}; expected {expected(LORA[field.name])}"
            )
            return []
        values[field.name] = options
    return [
        LoraSpec(int(rank), float(alpha), targets)
        for rank, alpha, targets in itertools.product(values["rank"], values["alpha"], values["targets"])
    ]


def _usable(name: str, value: Any) -> bool:
    if name == "targets":
        return bool(value) and all(isinstance(target, str) and target for target in value)
    return LORA[name].problem(value) is None
