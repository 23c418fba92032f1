"""The log-probs of finished runs as a log-prob file: held-out pairs and the training probe, at every evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.config.load import load_sweep
from harness.corruptions.registry import CORRUPTIONS
from harness.data.rows import token_key
from harness.identity import run_key
from harness.inputs.mythworld import mythworld_inputs
from harness.inputs.text import text_inputs
from harness.storage.logps_file import LENGTHS, POLICY, REFERENCE, write_logps
from harness.storage.runs import load_result, read_table, run_folders
from harness.types import InputError, RunSpec

SPLITS = {"train_observed": "train", "eval_clean": "heldout"}
COPIED = ("id", "prompt_id", *POLICY, *REFERENCE, *LENGTHS, "gold_margin", "step", "group")


def export_logps(folder: Path, out: Path) -> int:
    """Write the records of a run, or of all finished runs of a sweep, to `out`; returns the number of rows.

    Every pair has the `tokens` it was scored on, but those whose text a corruption changed. Raises InputError where no
    run is finished, where the data is not where it was, and where runs scored one pair on different tokens.
    """
    alone = (folder / "result.json").is_file()
    folders = [folder] if alone else list(run_folders(folder).values())
    results = [(one, load_result(one)) for one in folders]
    done = [(one, result) for one, result in results if result is not None and result["status"] == "done"]
    if not done:
        raise InputError(f"{folder}: no finished run; expected the folder of a sweep or of a run")
    specs = {run_key(run): run for run in load_sweep((folder.parent if alone else folder) / "sweep.yaml").runs}
    keys: dict[Any, Mapping[str, str]] = {}
    columns: dict[str, list[Any]] = {}
    betas = set()
    for place, result in done:
        spec = specs.get(result["run_key"])
        if spec is None:
            raise InputError(f"{place}: is no run of the sweep.yaml beside it; run the sweep again")
        betas.add(spec.objective.beta)
        source = (spec.seed, spec.world, spec.data, spec.model)
        if source not in keys:
            keys[source] = _token_keys(spec)
        for name, values in _rows(place, spec, keys[source]).items():
            columns.setdefault(name, []).extend(values)
    beta = betas.pop() if len(betas) == 1 else None
    try:
        write_logps(out, columns, {} if beta is None else {"beta": beta})
    except InputError as error:
        alike = "export runs of one seed on their own" if len(done) > 1 else "this run cannot be exported"
        raise InputError(*error.problems, alike) from None
    return len(columns["id"])


def _token_keys(run: RunSpec) -> dict[str, str]:
    """`token_key` of every clean pair of a run's source, by id; no model is loaded."""
    make: Callable[[RunSpec, torch.Tensor], Any] = mythworld_inputs if run.world is not None else text_inputs
    inputs = make(run, torch.zeros(0))
    pairs = [pair for part in (inputs.train, *inputs.evals.values()) for pair in part]
    encoded = [inputs.encode(pair) for pair in pairs]
    return {pair.id: token_key(one.prompt, one.chosen, one.rejected) for pair, one in zip(pairs, encoded, strict=True)}


def _rows(folder: Path, run: RunSpec, keys: Mapping[str, str]) -> dict[str, list[Any]]:
    table = read_table(folder / "examples.parquet")
    kept = np.isin(table["split"], list(SPLITS))
    found: dict[str, list[Any]] = {name: table[name][kept].tolist() for name in COPIED if name in table}
    found["split"] = [SPLITS[split] for split in table["split"][kept]]
    found["policy"] = [folder.name] * int(kept.sum())
    relabels = run.corruption.kind in CORRUPTIONS and CORRUPTIONS[run.corruption.kind].changes == "labels"
    known = ~table["corrupted"][kept] | relabels  # else the text may be another
    facts = zip(found["id"], table["clean_label"][kept], known, strict=True)
    found["tokens"] = [_oriented(keys.get(name, ""), label) if same else "" for name, label, same in facts]
    return found


def _oriented(key: str, label: int) -> str:
    """The key of a pair as it was labelled."""
    return key if label > 0 else key[32:] + key[:32]
