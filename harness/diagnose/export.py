"""The log-probs of finished runs as a log-prob file: held-out pairs and the training probe, at every evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.config.load import load_sweep
from harness.corruptions.registry import CORRUPTIONS
from harness.data.rows import token_key
from harness.identity import run_key
from harness.inputs.encoded import EncodedInputs, EncodedPairs, encode_inputs, open_inputs
from harness.inputs.mythworld import mythworld_inputs
from harness.inputs.reference_cache import scorer
from harness.inputs.text import text_inputs
from harness.storage.logps_file import HIDDEN, LENGTHS, POLICY, REFERENCE, write_logps
from harness.storage.runs import load_result, read_table, run_folders
from harness.types import InputError, PreferencePair, RunSpec
from harness.worker.datasets import TrainingSet, training_set
from harness.worker.lanes import build_lane, prompt_id
from harness.worker.prepare import pick_device
from harness.worker.trainers import as_trained

SPLITS = {"train_observed": "train", "eval_clean": "heldout"}
COPIED = ("id", "prompt_id", *POLICY, *REFERENCE, *LENGTHS, "gold_margin", "step", "group")


def export_logps(folder: Path, out: Path) -> int:
    """Write the records of a run, or of all finished runs of a sweep, to `out`; returns the number of rows.

    Every pair has the `tokens` it was scored on, but those whose text a corruption changed. Raises InputError where no
    run is finished, where the data is not where it was, and where runs scored one pair on different tokens.
    """
    keys: dict[Any, Mapping[str, str]] = {}
    columns: dict[str, list[Any]] = {}
    betas = set()
    done = _finished(folder)
    for place, spec in done:
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


def _finished(folder: Path) -> list[tuple[Path, RunSpec]]:
    """The finished runs of a sweep's folder, or the run of a run's folder. Raises InputError where there is none."""
    alone = (folder / "result.json").is_file()
    folders = [folder] if alone else list(run_folders(folder).values())
    results = [(one, load_result(one)) for one in folders]
    done = [(one, result) for one, result in results if result is not None and result["status"] == "done"]
    if not done:
        raise InputError(f"{folder}: no finished run; expected the folder of a sweep or of a run")
    specs = {run_key(run): run for run in load_sweep((folder.parent if alone else folder) / "sweep.yaml").runs}
    if lost := [place for place, result in done if result["run_key"] not in specs]:
        raise InputError(f"{lost[0]}: is no run of the sweep.yaml beside it; run the sweep again")
    return [(place, specs[result["run_key"]]) for place, result in done]


def export_reference(folder: Path, out: Path, say: Callable[[str], None]) -> int:
    """Write the reference's log-probs of every pair that finished runs trained on or were measured on to `out`.

    They come from the cache; what is gone from there is scored again. Every pair has its `tokens`, so a sweep takes the
    file as `model.reference_logps`. The policy of the rows is the reference itself. Returns the number of rows.
    Raises InputError where the runs have several references.
    """
    done = _finished(folder)
    alone = (folder / "result.json").is_file()
    cache = (folder.parent if alone else folder).parent / "cache"
    encoded: dict[Any, EncodedInputs] = {}
    rows: dict[str, dict[str, Any]] = {}
    for number, (place, run) in enumerate(done, 1):
        score = scorer(cache, pick_device(run.device))
        source = (run.seed, run.world, run.data, run.model, run.evaluation)
        if source not in encoded:
            encoded[source] = encode_inputs(open_inputs(run, cache), score)
        own = encoded[source]
        if len({one.inputs.reference_sha256 for one in encoded.values()}) > 1:
            raise InputError(f"{folder}: the runs have several references; export the runs of one on their own")
        data = training_set(own, run.corruption, run.seed, score)
        build_lane(place.name, as_trained(run), own, data, 0, 0)  # has every row scored that the run needs
        for pairs, made in ((own.pairs, _clean_pairs(own)), (data.extra, _changed_pairs(data))):
            for row in _reference_rows(pairs, made) if pairs is not None else ():
                rows.setdefault(row["tokens"], row)
        say(f"{number} of {len(done)} runs: {len(rows)} pairs")
    columns = {name: [row[name] for row in rows.values()] for name in next(iter(rows.values()))}
    dtype = done[0][1].model.dtype if done[0][1].model is not None else "float32"
    write_logps(out, columns, {"dtype": dtype, "reference": next(iter(encoded.values())).inputs.reference_sha256})
    return len(rows)


def _clean_pairs(encoded: EncodedInputs) -> list[tuple[str, PreferencePair]]:
    """Split and pair of each row of the inputs' pairs."""
    inputs = encoded.inputs
    return [(split, pair) for split, part in (("train", inputs.train), *inputs.evals.items()) for pair in part]


def _changed_pairs(data: TrainingSet) -> list[tuple[str, PreferencePair]]:
    """Split and pair of each row of a training set's extra pairs."""
    return [("train", pair) for pair, changed in zip(data.pairs, data.changed, strict=True) if changed]


def _reference_rows(pairs: EncodedPairs, made: Sequence[tuple[str, PreferencePair]]) -> Iterator[dict[str, Any]]:
    """A row for each pair that the reference has scored."""
    for at, ((split, pair), one) in enumerate(zip(made, pairs.tokenised, strict=True)):
        logps = [float(side[at]) for side in pairs.reference]
        if not np.isfinite(logps).all():
            continue
        key = token_key(one.prompt, one.chosen, one.rejected)
        yield {
            "id": f"{pair.id}-{key[:4]}{key[32:36]}",  # a corruption leaves a pair its id where it changes a text
            "prompt_id": prompt_id(pair),
            **dict(zip((*POLICY, *REFERENCE), (*logps, *logps), strict=True)),
            **dict(zip(LENGTHS, (len(one.chosen), len(one.rejected)), strict=True)),
            "gold_margin": pair.gold_margin,
            "split": SPLITS.get(split, split),
            "step": 0,
            "policy": "reference",
            "tokens": key,
            **dict(zip(HIDDEN, map(float, pairs.products[at]), strict=True)),
        }


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
