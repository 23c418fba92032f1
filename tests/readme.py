"""Generates docs/reference.md and the tables of docs/literature.md: `python -m tests.readme`."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.commands.listing import markdown, written
from harness.config.answers_section import ANSWERS
from harness.config.cells import world_defaults
from harness.config.gold_section import GOLD
from harness.config.lm_eval_section import LM_EVAL
from harness.config.model_section import LORA
from harness.config.report_section import REPORT
from harness.config.schema import FIELDS, SECTIONS, VARIANTS, expected
from harness.config.study_settings import SETTINGS, Budget, Pruner, Sampler
from harness.config.study_targets import CONSTRAINT, TARGET, Constraint, Target
from harness.corruptions.registry import CORRUPTIONS
from harness.objectives.registry import OBJECTIVES
from harness.types import AnswersSpec, GoldSpec, LmEvalSpec, LoraSpec, Parameter, ReportSpec

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
REFERENCE = ROOT / "docs" / "reference.md"
HEAD = """# Reference

Every key of a spec, every [objective](#objectives) and every [corruption](#corruptions), with parameters, defaults and
allowed values. `python -m tests.readme` generates this page from the code that checks specs. How specs work:
[specs.md](specs.md). Wherever a value is allowed, a list of values makes an axis.
"""
OBJECTIVES_HEAD = """Family: what one term of the loss depends on: a pair, a batch, tokens, or samples that the policy
generates (`rl`); `sum` and `mean` say whether log-probs are summed or averaged over tokens. In the descriptions,
z = beta * ((log p(chosen) - log p(rejected)) - the same difference under the reference).

`constrained_cpo` is an alias of `cpo_smooth`. A bare `cpo` is refused, because two methods have that name.
"""
PRESETS_HEAD = """`{name: cpo_smooth, preset: paper}` takes the values of a published configuration; keys beside it
win, and a list of presets is an axis. The resolved spec and the run key hold the values alone: presets with equal
values are one run. `paper` is the article, `released` the authors' code, `trl` TRL's defaults; other names are models
or data sets of the authors. What a preset leaves out has the default above, not that of the embedded world.
"""
CORRUPTIONS_HEAD = """Rate `fixed`: the spec sets `rate`; `derived`: the rate follows from the parameters. Needs:
the facts that each pair must have. To apply several kinds one after another, write
`{sequence: [{kind: ...}, {kind: ...}]}`.
"""
# Keys of the top level: (default, accepts, meaning). The sections' own keys follow in their tables.
TOP: dict[str, tuple[str, str, str]] = {
    "name": ("required", "letters, digits, dots, dashes", "the folder under `runs/`, and the MLflow experiment"),
    "question": ("", "text", "the question; printed at the top of the report"),
    "world": ("", "a mapping, or left out", "the embedded world; instead of `data` and `model`"),
    "data": ("", "a mapping, or left out", "pairs of your own"),
    "model": ("", "a mapping, or left out", "the model that is trained on `data`"),
    "objectives": ("required", "a list of `{name, <parameters>}`", "what is compared; lists are axes"),
    "corruptions": ("[{kind: none}]", "a list of `{kind, rate, <parameters>}`", "how the training pairs are corrupted"),
    "seeds": ("1", "a count, a list, or `{min, max, stop: settled}`",
              "5 means 0 to 4; more: narrower intervals; verdicts need 6; with min and max in rounds"),
    "replica": ("1", "a count or a list", "repeats of a run in other orders of the same data, for A/A checks"),
    "training": ("", "a mapping", "how long and how fast every run learns"),
    "evaluation": ("", "a mapping", "how often and on how many pairs a run is measured"),
    "device": ("auto", "one of auto, cpu, cuda, cuda:N", "where runs train; auto: a GPU if there is one; not an axis"),
    "report": ("", "a mapping", "what the report shows of prompts, responses and samples, and what is uploaded"),
    "also": ("[]", "a list of mappings", "further grids, each overriding whole keys of the main one"),
    "trials": ("", "an integer in [1, 10000]", "settings tried for each objective; makes the spec a study"),
    "fresh_seeds": ("10", "a count or a list", "study: seeds for re-running the winners; none of `seeds`"),
    "targets": ("required", "a list of mappings", "study: what is optimised"),
    "constraints": ("[]", "a list of mappings", "study: bounds that a winner must not violate"),
    "search": ("{}", "{parameter: range}", "study: ranges for objectives that set none"),
    "sampler": ("tpe", "a name or a mapping", "study: how trials are chosen"),
    "sampler_seeds": ("1", "an integer in [1, 10000]", "study: searches per objective; intervals hold their variation"),
    "pruner": ("none", "a name or a mapping", "study: when a trial loses its remaining seeds"),
    "budget": ("{}", "a mapping", "study: further limits on the search of one objective"),
    "round": ("5", "an integer in [1, 10000]", "study: trials drawn together; smaller: learns more per trial, slower"),
    "storage": ("", "a database URL", "study: where Optuna's copy of the trials goes; empty: `optuna.db` beside them"),
}  # fmt: skip
# Tables of keys: title, what holds the fields, what each accepts.
KINDS: dict[str, tuple[str, type[Any], Mapping[str, Parameter]]] = {
    **{name: (f"`{name}`", kind, FIELDS[name]) for name, kind in SECTIONS.items()},
    "path_model": ("`model` with a `path`", VARIANTS["path_model"], FIELDS["path_model"]),
    "lora": ("`model.lora`", LoraSpec, LORA),
    "answers": ("`evaluation.answers`", AnswersSpec, ANSWERS),
    "lm_eval": ("`evaluation.lm_eval`", LmEvalSpec, LM_EVAL),
    "gold": ("`evaluation.gold`", GoldSpec, GOLD),
    "report": ("`report`", ReportSpec, REPORT),
    "targets": ("`targets` of a study", Target, TARGET),
    "constraints": ("`constraints` of a study", Constraint, CONSTRAINT),
    "sampler": ("`sampler` of a study", Sampler, SETTINGS[Sampler]),
    "pruner": ("`pruner` of a study", Pruner, SETTINGS[Pruner]),
    "budget": ("`budget` of a study", Budget, SETTINGS[Budget]),
}
WORLD = 'Answers in the embedded world are short, so there an omitted parameter takes the value after "world:".'


def reference() -> str:
    """docs/reference.md."""
    top = ([f"`{name}`", *cells] for name, cells in TOP.items())
    parts = [HEAD, f"## Top level\n\n{table(('key', 'default', 'accepts', 'meaning'), top)}\n"]
    for section, (title, kind, _) in KINDS.items():
        intro = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
        keys = table(("key", "default", "accepts", "meaning"), _keys(section))
        parts.append(f"## {title}\n\n{intro}\n\n{keys}\n")
    for what, rows, head, note in (
        ("objectives", OBJECTIVES, OBJECTIVES_HEAD, f"{WORLD} Brackets: where default and range come from.\n\n"),
        ("corruptions", CORRUPTIONS, CORRUPTIONS_HEAD, ""),
    ):
        parameters = table(("name", "parameter", "default", "accepts", "meaning"), _parameters(rows))
        parts.append(f"## {what.capitalize()}\n\n{head}\n{markdown(what)}\n")
        parts.append(f"### Parameters of {what}\n\n{note}{parameters}\n")
        if what == "objectives":
            presets = table(("name", "preset", "values", "source"), _presets())
            parts.append(f"### Presets\n\n{PRESETS_HEAD}\n{presets}\n")
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
                expected(allowed),
                notes[name],
            )


def _defaults(kind: type[Any]) -> Iterator[tuple[str, Any]]:
    yield from ((field.name, field.default) for field in dataclasses.fields(kind))


def _parameters(rows: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for name, row in rows.items():
        if getattr(row, "tier", "") == "internal":
            continue
        parameters: dict[str, Parameter] = getattr(row, "hyperparameters", None) or getattr(row, "parameters", {})
        world = world_defaults(name, {}) if rows is OBJECTIVES else {}
        for key, parameter in parameters.items():
            accepted = "see meaning" if parameter.kind == "table" else expected(parameter)
            default = _value(parameter.default)
            if key in world and world[key] != parameter.default:
                default = f"{default}{' ' if default else ''}(world: {_value(world[key])})"
            source = f" ({parameter.source})" if parameter.source else ""
            yield f"`{name}`", f"`{key}`", default, accepted, f"{parameter.doc}{source}"


def _presets() -> Iterator[Sequence[str]]:
    for name, row in OBJECTIVES.items():
        for preset, values in row.presets.items():
            text = ", ".join(f"{key}: {_value(value)}" for key, value in values.values.items())
            yield f"`{name}`", f"`{preset}`", text or "the defaults", values.source


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

    REFERENCE.write_text(reference(), encoding="utf-8")
    literature.PAGE.write_text(literature.rendered(literature.PAGE.read_text(encoding="utf-8")), encoding="utf-8")
