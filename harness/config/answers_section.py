"""The `evaluation:` section: its own fields, `answers` and the file of `prompts`. Imports no torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.config.model_section import models_of
from harness.config.overrides import absolute
from harness.config.schema import expected, section_axes, shown, unknown_key
from harness.config.strict_yaml import Node, plain
from harness.identity import file_sha256
from harness.model_files.folder import length_problems
from harness.types import AnswersSpec, InputError, Parameter

KEY, PROMPTS, HASH = "answers", "prompts", "prompts_sha256"
ANSWERS = {
    "length": Parameter(None, "int", 0, 1_000_000),
    "temperature": Parameter(None, "float", 0, 100),
    "top_p": Parameter(None, "float", 0, 1, low_open=True),
    "per_prompt": Parameter(None, "int", 1, 10_000),
    "stop": Parameter(None, "table", doc="a text, or a list of texts"),
}


def evaluation_axes(
    node: Node | None, prefix: str, world: bool, base: Path, problems: list[str]
) -> dict[str, list[Any]]:
    """The axes of `evaluation`, `answers` as values. Appends to `problems` one line for each value that cannot be used.

    `answers` is a mapping whose fields but `stop` may be lists, or a list of such mappings. `prompts` becomes absolute,
    meant from `base` in the spec file and from the working folder in `--set`, and `prompts_sha256` its content hash.
    """
    given = node.value if node is not None and isinstance(node.value, dict) else {}
    block, prompts = given.get(KEY), given.get(PROMPTS)
    if node is not None and given:
        node = Node({name: child for name, child in given.items() if name not in (KEY, PROMPTS)}, node.where)
    axes = section_axes("evaluation", node, problems, prefix)
    axes[KEY], axes[PROMPTS] = [AnswersSpec()], [""]
    if prompts is not None and prompts.value:
        key = f"{prefix}evaluation.{PROMPTS}"
        path, identity = _prompts(prompts, key, world, base, problems)
        if any(axes[HASH]) and axes[HASH] != [identity]:
            problems.append(
                f"{given[HASH].where} {key}_sha256: the file's content hash is {identity}; it changed since"
            )
        axes[PROMPTS], axes[HASH] = [path], [identity]
    if block is not None and block.value is not None:
        entries = block.value if isinstance(block.value, tuple) else (block,)
        before = len(problems)
        found = [one for entry in entries for one in _read(entry, f"{prefix}evaluation.{KEY}", world, problems)]
        if not entries:
            problems.append(f"{block.where} {prefix}evaluation.{KEY}: an empty list gives 0 runs; expected a mapping")
        if len(problems) == before:
            axes[KEY] = found
    return axes


def _prompts(node: Node, key: str, world: bool, base: Path, problems: list[str]) -> tuple[str, str]:
    """The absolute path of the prompts, every row of which was checked, and its content hash."""
    from harness.data.prompts import read_prompts  # loaded only by specs that name a file

    if world or not isinstance(node.value, str):
        wanted = "goes with data; the embedded world asks its own questions" if world else "expected the path of a file"
        problems.append(f"{node.where} {key}: {shown(plain(node))}; {wanted}")
        return "", ""
    path = absolute(node.value, node, base)
    try:
        read_prompts(path)
    except InputError as error:
        problems += [f"{node.where} {key}: {line.removeprefix('data.path: ')}" for line in error.problems]
        return "", ""
    return str(path), file_sha256(path)


def _read(node: Node, key: str, world: bool, problems: list[str]) -> Iterator[AnswersSpec]:
    if not isinstance(node.value, dict):
        problems.append(f"{node.where} {key}: {shown(plain(node))}; expected a mapping, e.g. `{{length: 256}}`")
        return
    values: dict[str, list[Any]] = {}
    for name, child in node.value.items():
        path, given = f"{key}.{name}", plain(child)
        options = given if isinstance(given, list) else [given]
        if name not in ANSWERS:
            problems.append(unknown_key(name, child, path, ANSWERS))
        elif world and name in ("length", "stop") and any(options):
            problems.append(f"{child.where} {path}: the embedded world's answers end by themselves; leave it out")
        elif name == "stop":
            if not all(isinstance(text, str) and text for text in options):
                problems.append(f"{child.where} {path}: {shown(given)}; expected {expected(ANSWERS[name])}")
            values[name] = [tuple(options)]
        elif not options or any(ANSWERS[name].problem(option) for option in options):
            problems.append(f"{child.where} {path}: {shown(given)}; expected {expected(ANSWERS[name])}")
        else:
            values[name] = [float(option) if ANSWERS[name].kind == "float" else option for option in options]
    for cell in itertools.product(*values.values()):
        answers = AnswersSpec(**dict(zip(values, cell, strict=True)))
        if answers.temperature == 0 and answers.per_prompt > 1:
            where = node.value["per_prompt"].where
            problems.append(f"{where} {key}.per_prompt: at temperature 0 all answers are the same; expected 1")
        yield answers


def length_lines(
    sections: Mapping[str, Mapping[str, list[Any]]], node: Node | None, prefix: str, where: str
) -> Iterator[str]:
    """Answers that a model from a path has no positions for."""
    data, model, answers = (sections.get(name, {}) for name in ("data", "model", "evaluation"))
    place = node.value[KEY].where if node is not None and isinstance(node.value, dict) and KEY in node.value else where
    if "path" not in model:
        return
    models = [*models_of(model, "path"), *models_of(model, "reference")]
    prompts = data.get("max_prompt_length", []), data.get("max_length", [])
    for own, prompt, total, asked in itertools.product(models, *prompts, answers[KEY]):
        if asked.length:
            for text in length_problems(own, (prompt or total // 2) + asked.length):
                yield f"{place} {prefix}evaluation.{KEY}.length: prompt and answer have up to {text}"
