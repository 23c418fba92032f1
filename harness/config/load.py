"""A YAML file to a `SweepSpec` with its runs: a list is an axis, every problem of the file is named at once.

Order of runs: the main grid, then each `also:` entry in turn. Within a grid, outermost first: fields of `world` (or
`data`, `model`), `training`, `evaluation` in the order of their dataclasses; corruptions; objectives; their
hyperparameters in the order written; seeds; replicas. Of equal runs (one run key) the first stays. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.config.gold_section import take_gold
from harness.config.grid import Block, read_block
from harness.config.lm_eval_section import take_lm_eval
from harness.config.overrides import apply_overrides
from harness.config.report_section import KEY as REPORT
from harness.config.report_section import read_report
from harness.config.resolved import resolved_spec
from harness.config.schema import shown
from harness.config.strict_yaml import Node, plain, read_yaml
from harness.identity import plain as as_data
from harness.identity import run_key
from harness.model_files.folder import LLAMA_LAYOUT
from harness.model_files.location import model_folder
from harness.objectives.budget import budget, family
from harness.text import suggestion
from harness.types import (
    AnswersSpec,
    GoldSpec,
    InputError,
    LmEvalSpec,
    PathModelSpec,
    ReportSpec,
    RunSpec,
    SeedRounds,
)

MAX_RUNS = 10_000

CELL_KEYS = ("world", "data", "model", "objectives", "corruptions", "seeds", "replica")
GRID_KEYS = (*CELL_KEYS, "training", "evaluation", "device")
TOP_KEYS = ("name", "question", *GRID_KEYS, REPORT, "also")
STUDY_KEYS = (
    *("trials", "fresh_seeds", "targets", "constraints", "search", "sampler", "sampler_seeds", "pruner", "budget"),
    *("round", "storage"),
)
RESERVED = ("cache", "mlartifacts", "mlflow.db")  # what else stands under --out
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class SweepSpec:
    """One sweep, fully resolved. `runs` are in spec order, with different run keys.

    `resolved` is the plain mapping of `sweep.yaml`: loading it again gives the same runs. `notes` are sentences for
    the plan and the report. `path` is the file the spec came from.
    """

    name: str
    question: str
    runs: tuple[RunSpec, ...]
    resolved: Mapping[str, Any]
    notes: tuple[str, ...]
    path: Path
    lm_eval: LmEvalSpec | None = None
    report: ReportSpec = field(default_factory=ReportSpec)
    rounds: SeedRounds | None = None  # where seeds come in rounds; `runs` has those of all rounds
    gold: GoldSpec | None = None


def load_sweep(path: Path | str, overrides: Iterable[str] = (), max_runs: int | None = None) -> SweepSpec:
    """The sweep of a YAML file, `key=value` overrides put in first.

    `max_runs` bounds the grid before equal runs are merged; without it the bound is 10,000. Raises InputError with
    every problem found, one line each: `file:line key: problem; expected ...; did you mean ...`.
    """
    path = Path(path)
    root, problems = read_yaml(path)
    root, more = apply_overrides(root, overrides)
    problems += more
    if not isinstance(root.value, dict):
        raise InputError(*problems, f"{path}: {shown(plain(root))} is not a mapping; expected `name: ...` lines")
    keys = root.value
    problems += unknown(keys, TOP_KEYS, "")
    name, question = texts(keys, path, problems)
    main, lm_eval = take_lm_eval({key: keys[key] for key in GRID_KEYS if key in keys}, "", path.parent, problems)
    main, gold = take_gold(main, "", path.parent, problems)
    blocks: list[Block] = []
    hashes: dict[Path, str] = {}
    for own, prefix, where in [(main, "", str(path)), *_also(keys.get("also"), problems)]:
        if prefix:
            own = take_lm_eval(own, prefix, path.parent, problems)[0]
            own = take_gold(own, prefix, path.parent, problems)[0]
        merged = _override(main, own) if prefix else main
        if prefix and "seeds" in own and (blocks[0].rounds or isinstance(own["seeds"].value, dict)):
            problems.append(f"{own['seeds'].where} {prefix}seeds: seeds in rounds are the whole sweep's; leave it out")
        prefixes = dict.fromkeys(own, prefix)
        block, found = read_block(merged, prefixes, where, path.parent, hashes)
        blocks.append(block)
        problems += found
    report = read_report(keys, any(not block.world for block in blocks), problems)
    if (count := sum(block.count() for block in blocks)) > (MAX_RUNS if max_runs is None else max_runs):
        problems.append(_too_many(path, count, max_runs))
    if problems:
        raise InputError(*dict.fromkeys(problems))
    runs, notes = _merge(blocks, path)
    resolved = resolved_spec(name, question, blocks)
    if lm_eval is not None:
        resolved["evaluation"] = {**resolved["evaluation"], "lm_eval": as_data(lm_eval)}
    if gold is not None:
        resolved["evaluation"] = {**resolved["evaluation"], "gold": as_data(gold)}
    resolved[REPORT] = as_data(report)
    return SweepSpec(name, question, runs, resolved, notes, path, lm_eval, report, blocks[0].rounds, gold)


def unknown(keys: Mapping[str, Node], known: Iterable[str], prefix: str) -> list[str]:
    """One line for each key that is none of `known`."""
    known = tuple(known)
    lines = []
    for key in keys:
        if key in known:
            continue
        if key in STUDY_KEYS:
            what = "belongs to a study; run this file with `harness study`, or leave the key out"
        elif key in TOP_KEYS:
            what = f"cannot be overridden here; expected one of {', '.join(known)}"
        else:
            what = f"unknown key; expected one of {', '.join(known)}{suggestion(key, known)}"
        lines.append(f"{keys[key].where} {prefix}{key}: {what}")
    return lines


def texts(keys: Mapping[str, Node], path: Path, problems: list[str]) -> tuple[str, str]:
    """`name`, which becomes a folder, and the optional `question`."""
    name, question = keys.get("name", Node(None, str(path))), keys.get("question", Node("", str(path)))
    wanted = "expected 1 to 64 of the characters A-Z a-z 0-9 . _ -, the first a letter or digit"
    if "name" not in keys:
        problems.append(f"{path} name: missing; {wanted}")
    elif not isinstance(name.value, str) or not NAME.fullmatch(name.value):
        problems.append(f"{name.where} name: {shown(plain(name))}; {wanted}")
    elif name.value.lower() in RESERVED:
        problems.append(f"{name.where} name: '{name.value}' is kept for the harness's own files; {wanted}")
    if not isinstance(question.value, str):
        problems.append(f"{question.where} question: {shown(plain(question))}; expected text")
    return str(name.value), str(question.value).strip()


def _also(node: Node | None, problems: list[str]) -> list[tuple[dict[str, Node], str, str]]:
    """Each entry of `also:` as (its keys, its prefix, its place)."""
    if node is None:
        return []
    if not isinstance(node.value, tuple):
        problems.append(f"{node.where} also: {shown(plain(node))} is not a list; expected `- training: ...` entries")
        return []
    found = []
    for index, child in enumerate(node.value):
        prefix = f"also.{index}."
        if not isinstance(child.value, dict) or not child.value:
            problems.append(f"{child.where} also.{index}: {shown(plain(child))}; expected top-level keys to override")
            continue
        problems += unknown(child.value, GRID_KEYS, prefix)
        found.append(({key: child.value[key] for key in GRID_KEYS if key in child.value}, prefix, child.where))
    return found


def _override(main: Mapping[str, Node], own: Mapping[str, Node]) -> dict[str, Node]:
    """The main grid with whole keys replaced; a `world` puts out `data` and `model`, and the other way round."""
    out = dict(main)
    if "world" in own and "data" not in own:
        out.pop("data", None)
        out.pop("model", None)
    if "data" in own and "world" not in own:
        out.pop("world", None)
    return {key: {**out, **own}[key] for key in GRID_KEYS if key in out or key in own}


def _too_many(path: Path, count: int, max_runs: int | None) -> str:
    limit = f"more than --max-runs {max_runs}" if max_runs is not None else f"more than {MAX_RUNS}"
    return f"{path}: the grid has {count} runs, {limit}; expected a smaller grid, or --max-runs {count}"


def _merge(blocks: Iterable[Block], path: Path) -> tuple[tuple[RunSpec, ...], tuple[str, ...]]:
    """The runs of all blocks in order, equal ones merged and counted. Raises InputError for unusable combinations.

    A reward model that RL runs learn from is a run of its own; where the spec does not list it, it stands before the
    first run that needs it.
    """
    runs: dict[str, RunSpec] = {}
    total = 0
    for block in blocks:
        for run in block.runs():
            total += 1
            if run.reward_model is not None and (key := run_key(reward_run(run))) not in runs:
                runs[key] = reward_run(run)
                total += 1
            runs.setdefault(run_key(run), run)
    problems = dict.fromkeys(f"{path}: {line}" for run in runs.values() for line in run_problems(run))
    if problems:
        raise InputError(*problems)
    merged = total - len(runs)
    note = f"{merged} of {total} runs equal an earlier one and are merged (rate 0 is the clean set, whatever the kind)"
    return tuple(runs.values()), (note,) if merged else ()


def reward_run(run: RunSpec) -> RunSpec:
    """The run that trains the reward model of an RL run: the same source, corruption, seed and training settings."""
    assert run.reward_model is not None
    return replace(run, objective=run.reward_model, reward_model=None)


def shards_problems(run: RunSpec) -> list[str]:
    """What a run in several processes cannot do."""
    key, name = f"training.shards: {run.training.shards}", run.objective.name
    if run.training.shards == 1:
        return []
    if (kind := family(run.objective)) in ("rl", "reward"):
        what = "an RLHF run" if kind == "rl" else "a reward model"
        return [f"{key}, but '{name}' is {what}, which trains in one process; expected 1 for it (see `also:`)"]
    refused = {
        f"needs training.mode: strict, not {run.training.mode}": run.training.mode != "strict",
        "keeps no weights but the last; expected evaluation.keep: final or none": run.evaluation.keep == "best",
        "has no gradient probes; expected evaluation.gradient_probe: 0": run.evaluation.gradient_probe > 0,
        f"needs a GPU for each process, device: {run.device} names one; expected device: cuda": ":" in run.device,
    }
    if isinstance(run.model, PathModelSpec):
        layout = model_folder(run.model.path, run.model.sha256).config.get("model_type", "an unnamed one")
        families = ", ".join(sorted(LLAMA_LAYOUT))
        refused[f"needs a decoder laid out like Llama's ({families}), not {layout}"] = layout not in LLAMA_LAYOUT
    return [f"{key} {why}" for why, holds in refused.items() if holds]


def run_problems(run: RunSpec) -> list[str]:
    """What only shows in the combination of sections."""
    own = dict(run.objective.hyperparameters)
    if run.world is None and own.get("reward") == "gold":
        name = run.objective.name
        return [
            f"objective '{name}': reward: gold is the embedded world's; data has none of its own, use reward: model"
        ]
    if run.objective.name == "best_of_n" and (run.evaluation.prompts or run.evaluation.answers != AnswersSpec()):
        return [
            "objective 'best_of_n': answers in its own way; put it under `also:` without evaluation.answers or .prompts"
        ]
    if lines := shards_problems(run):
        return lines
    batch = budget(run.objective, run.training).batch_size
    if run.world is None or batch <= run.world.pairs:
        return []
    knob = {"rl": "prompts", "reward": "batch_size"}.get(family(run.objective))
    what = f"objective '{run.objective.name}': {knob}" if knob else "training.batch_size"
    return [
        f"{what} {batch} is more than world.pairs {run.world.pairs}; expected a batch no larger than the training set"
    ]
