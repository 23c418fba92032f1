"""Writes what the documentation says about the registries and the spec, from them: `python -m tests.readme`."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from harness.commands.listing import markdown, written
from harness.config.cells import world_defaults
from harness.config.lm_eval_section import EXPECTED
from harness.config.model_section import LORA
from harness.config.report_section import EXPECTED as REPORT
from harness.config.sections import FIELDS, SECTIONS, VARIANTS, expected
from harness.config.study_settings import Budget, Pruner, Sampler
from harness.config.study_targets import ConstraintModel, TargetModel
from harness.corruptions.registry import CORRUPTIONS
from harness.objectives.registry import OBJECTIVES
from harness.types import LmEvalSpec, LoraSpec, Parameter, ReportSpec

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
REFERENCE = ROOT / "docs" / "reference.md"
HEAD = """# Reference

Every key of a spec and every parameter of an objective or a corruption, with default and allowed values. Written by
`python -m tests.readme` from the code that checks specs; how they play together: [specs.md](specs.md). A list in place
of a value is an axis.
"""
# Keys of the top level: (default, accepts, meaning). The sections' own keys follow in their tables.
TOP: dict[str, tuple[str, str, str]] = {
    "name": ("required", "letters, digits, dots, dashes", "the folder under `runs/`, and the MLflow experiment"),
    "question": ("", "text", "what is asked; stands at the head of the report"),
    "world": ("", "a mapping, or left out", "the embedded world; this, or `data` with `model`"),
    "data": ("", "a mapping, or left out", "pairs of your own"),
    "model": ("", "a mapping, or left out", "what is trained on `data`"),
    "objectives": ("required", "a list of `{name, <parameters>}`", "what is compared; lists are axes"),
    "corruptions": ("[{kind: none}]", "a list of `{kind, rate, <parameters>}`", "which damage the training pairs take"),
    "seeds": ("1", "a count or a list", "5 means 0 to 4; more: narrower intervals; verdicts need 6"),
    "replica": ("1", "a count or a list", "repeats of a run in other orders of the same data, for A/A checks"),
    "training": ("", "a mapping", "how long and how fast every run learns"),
    "evaluation": ("", "a mapping", "how often and on how many pairs a run is measured"),
    "device": ("auto", "one of auto, cpu, cuda, cuda:N", "where runs train; auto: a GPU where there is one. No axis"),
    "report": ("", "a mapping", "what of prompts, responses and answers is shown and uploaded"),
    "also": ("[]", "a list of mappings", "further grids, each overriding whole keys of the main one"),
    "trials": ("", "an integer in [1, 10000]", "settings tried for each objective; makes the spec a study"),
    "fresh_seeds": ("10", "a count or a list", "study: seeds of the winners' re-run, none of `seeds`"),
    "targets": ("required", "a list of mappings", "study: what is optimised"),
    "constraints": ("[]", "a list of mappings", "study: bounds that a winner must keep"),
    "search": ("{}", "{parameter: range}", "study: one range for every objective that states none of its own"),
    "sampler": ("tpe", "a name or a mapping", "study: how trials are chosen"),
    "pruner": ("none", "a name or a mapping", "study: when a trial loses its remaining seeds"),
    "budget": ("{}", "a mapping", "study: what one objective's search may cost beside `trials`"),
    "round": ("5", "an integer in [1, 10000]", "study: trials asked together; smaller: learns more, slower"),
    "storage": ("", "a database URL", "study: where Optuna's copy of the trials goes; empty: `optuna.db` beside them"),
}  # fmt: skip
# Tables of keys: title, what holds the fields, what each accepts.
KINDS: dict[str, tuple[str, type[Any], Mapping[str, Parameter] | Mapping[str, str]]] = {
    **{name: (f"`{name}`", kind, FIELDS[name]) for name, kind in SECTIONS.items()},
    "path_model": ("`model` with a `path`", VARIANTS["path_model"], FIELDS["path_model"]),
    "lora": ("`model.lora`", LoraSpec, LORA),
    "lm_eval": ("`evaluation.lm_eval`", LmEvalSpec, EXPECTED),
    "report": ("`report`", ReportSpec, REPORT),
    "targets": ("`targets` of a study", TargetModel, TargetModel.expected),
    "constraints": ("`constraints` of a study", ConstraintModel, ConstraintModel.expected),
    "sampler": ("`sampler` of a study", Sampler, Sampler.expected),
    "pruner": ("`pruner` of a study", Pruner, Pruner.expected),
    "budget": ("`budget` of a study", Budget, Budget.expected),
}
WORLD = 'In the embedded world, whose answers are short, a parameter that is left out takes the value behind "world:".'


def rendered(text: str) -> str:
    """The README with its tables made anew."""
    for what in ("objectives", "corruptions"):
        pattern = rf"(<!-- {what}:[^\n]*-->\n).*?(<!-- /{what} -->)"
        text = re.sub(pattern, lambda m, what=what: f"{m[1]}{markdown(what)}\n{m[2]}", text, flags=re.DOTALL)
    return text


def reference() -> str:
    """docs/reference.md."""
    top = ([f"`{name}`", *cells] for name, cells in TOP.items())
    parts = [HEAD, f"## Top level\n\n{table(('key', 'default', 'accepts', 'meaning'), top)}\n"]
    for section, (title, kind, _) in KINDS.items():
        intro = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
        keys = table(("key", "default", "accepts", "meaning"), _keys(section))
        parts.append(f"## {title}\n\n{intro}\n\n{keys}\n")
    for title, rows, intro in (("Objectives", OBJECTIVES, f"{WORLD}\n\n"), ("Corruptions", CORRUPTIONS, "")):
        knobs = table(("name", "parameter", "default", "accepts", "meaning"), _knobs(rows))
        parts.append(f"## {title}\n\n{intro}{knobs}\n")
    return "\n".join(parts)


def meanings(kind: type[Any]) -> dict[str, str]:
    """What each field of a class means: the comment behind it, or the comment lines above it."""
    found, above = {}, []
    for line in inspect.getsource(kind).splitlines():
        if note := re.fullmatch(r"    # (.+)", line):
            above.append(note[1])
            continue
        if field := re.fullmatch(r"    (\w+): [^#]*?(?:  # (.+))?", line):
            found[field[1]] = " ".join([*above, *([field[2]] if field[2] else [])])
        above = []
    return found


def _keys(section: str) -> Iterator[Sequence[str]]:
    _, kind, accepted = KINDS[section]
    notes = meanings(kind)
    for name, default in _defaults(kind):
        if name in accepted:
            allowed = accepted[name]
            yield (
                f"`{name}`",
                _value(default),
                expected(allowed) if isinstance(allowed, Parameter) else allowed,
                notes[name],
            )


def _defaults(kind: type[Any]) -> Iterator[tuple[str, Any]]:
    if issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield name, dataclasses.MISSING if field.is_required() else field.default
    else:
        yield from ((field.name, field.default) for field in dataclasses.fields(kind))


def _knobs(rows: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for name, row in rows.items():
        if getattr(row, "tier", "") == "internal":
            continue
        parameters: dict[str, Parameter] = getattr(row, "hyperparameters", None) or getattr(row, "parameters", {})
        world = world_defaults(name, {}) if rows is OBJECTIVES else {}
        for key, parameter in parameters.items():
            accepted = "as said" if parameter.kind == "table" else expected(parameter)
            default = _value(parameter.default)
            if key in world and world[key] != parameter.default:
                default = f"{default}{' ' if default else ''}(world: {_value(world[key])})"
            yield f"`{name}`", f"`{key}`", default, accepted, parameter.doc


def _value(value: object) -> str:
    """A default as YAML writes it; nothing where there is none."""
    if value is dataclasses.MISSING:
        return "required"
    return "" if value in (None, "") else written(value)


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """Rows as a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    from tests import literature

    README.write_text(rendered(README.read_text(encoding="utf-8")), encoding="utf-8")
    REFERENCE.write_text(reference(), encoding="utf-8")
    literature.PAGE.write_text(literature.rendered(literature.PAGE.read_text(encoding="utf-8")), encoding="utf-8")
