"""`harness corrupt --spec`: every training set of a sweep as files, the pairs and labels that its runs train on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from harness.config.load import SweepSpec
from harness.corruptions.apply import Corrupted, apply
from harness.corruptions.registry import needs
from harness.data.export_pairs import Source, Written, check_output, corrupted_by, read_source, write_set
from harness.data.pairs import PairTable
from harness.data.rows import pack_rows
from harness.identity import content_hash, plain
from harness.inputs.encoded import EncodedInputs, EncodedPairs, encode_inputs, open_inputs
from harness.inputs.mythworld import mythworld_inputs
from harness.inputs.reference_cache import scorer
from harness.inputs.reference_models import build_models, builds
from harness.inputs.run_inputs import RunInputs
from harness.inputs.text import text_inputs
from harness.run_names import set_names
from harness.text import slug
from harness.types import EvaluationSpec, InputError, ObjectiveSpec, PreferencePair, RunSpec, TrainingSpec, WorldSpec
from harness.worker.datasets import corrupt_training_pairs, labelled_training_pairs
from harness.worker.prepare import pick_device

Say = Callable[[str], None]


def export_sets(sweep: SweepSpec, out: Path, cache: Path, ending: str, force: bool, say: Say) -> list[Written]:
    """Write the training set of each source, corruption and seed of the sweep into the folder `out`.

    `cache` is the sweep's: a kind that asks the reference has it built there where it is missing. Raises InputError
    before anything is written for files that exist (unless `force`), and for a set that cannot be made before any of
    its source.
    """
    runs = _distinct(sweep.runs)
    paths = _paths(runs, out, ending)
    for run in runs:
        check_output(run.data.path if run.data is not None else "", paths[run], force)
    sources: dict[RunSpec, list[RunSpec]] = defaultdict(list)
    for run in runs:
        sources[replace(run, corruption=runs[0].corruption)].append(run)
    written = []
    for members in sources.values():
        encoded = _encoded(members, cache, say)
        source, shown = _source(members[0], encoded.inputs, sweep.name)
        sets = [_written_as(_corrupted(encoded, run), encoded.inputs, shown, run.corruption.kind) for run in members]
        for run, done in zip(members, sets, strict=True):
            kind = run.corruption.kind
            what = "as the source labels them" if kind == "none" else corrupted_by(kind)
            written.append(write_set(source, done, paths[run], f"the training pairs of seed {run.seed}, {what}"))
            say(str(written[-1]))
    return written


def _distinct(runs: Iterable[RunSpec]) -> tuple[RunSpec, ...]:
    """A run for each training set, everything that the set does not depend on at its default."""
    return tuple(
        {
            RunSpec(
                ObjectiveSpec("dpo"), run.corruption, TrainingSpec(), EvaluationSpec(), run.seed,
                world=_world(run), data=run.data, model=run.model, device=run.device,
            ): None
            for run in runs
        }
    )  # fmt: skip


def _world(run: RunSpec) -> WorldSpec | None:
    world = run.world
    if world is None or "delta_ref" in needs(run.corruption):
        return world
    return WorldSpec(version=world.version, labels=world.labels, pairs=world.pairs, coverage=world.coverage)


def _paths(runs: Sequence[RunSpec], out: Path, ending: str) -> dict[RunSpec, Path]:
    """The file of each set; long names and those that differ in punctuation alone get a part of a hash."""
    names = set_names(runs)
    short = [slug(name) for name in names]
    return {
        run: out / (f"{one if short.count(one) == 1 and len(one) < 64 else f'{one[:48]}-{_digits(run)}'}{ending}")
        for run, one in zip(runs, short, strict=True)
    }


def _digits(run: RunSpec) -> str:
    return content_hash(plain(run))[:8]


def _encoded(runs: Sequence[RunSpec], cache: Path, say: Say) -> EncodedInputs:
    """The inputs of runs of one source, with their reference where a corruption asks it, else without scores."""
    first, device = runs[0], pick_device(runs[0].device)
    if any("delta_ref" in needs(run.corruption) for run in runs):
        for stage in builds([first]):
            say(f"{stage[0].stage} model of seed {first.seed}")
            build_models(cache, stage, device)
        return encode_inputs(open_inputs(first, cache), scorer(cache, device))
    nothing = torch.zeros(0)
    inputs = mythworld_inputs(first, nothing) if first.world is not None else text_inputs(first, nothing)
    rows = pack_rows([inputs.encode(pair) for pair in inputs.train], tokens=inputs.tokens, responses=inputs.responses)
    unscored = np.full((2, len(inputs.train)), np.nan, np.float32)
    return EncodedInputs(inputs, EncodedPairs(rows, (unscored[0], unscored[1])), {})


def _source(run: RunSpec, inputs: RunInputs, sweep: str) -> tuple[Source, Sequence[PreferencePair]]:
    """Where the pairs come from, and the training pairs as they stand there."""
    if run.data is not None:
        source = read_source(run.data)
        by_id = {pair.id: pair for pair in source.table.pairs}
        return source, [by_id[pair.id] for pair in inputs.train]
    numbered = tuple(
        replace(pair, meta={**pair.meta, "row": row}) for row, pair in enumerate(labelled_training_pairs(inputs), 1)
    )
    return Source(f"{inputs.name}, sweep {sweep}", PairTable(numbered, (), len(numbered))), numbered


def _corrupted(encoded: EncodedInputs, run: RunSpec) -> Corrupted:
    if run.corruption.kind == "none":
        return apply(labelled_training_pairs(encoded.inputs), "none", None, 0, None, {})
    return corrupt_training_pairs(encoded, run.corruption, run.seed)[0]


def _written_as(done: Corrupted, inputs: RunInputs, shown: Sequence[PreferencePair], kind: str) -> Corrupted:
    """The corrupted set with prompts and answers as the source has them, without the model's chat template."""
    trained, pairs = labelled_training_pairs(inputs), []
    for pair, i, label, changed in zip(
        done.pairs, done.origin.tolist(), done.label.tolist(), done.changed.tolist(), strict=True
    ):
        own, was = shown[i], trained[i]
        if changed and (own.chosen, own.rejected) != (was.chosen, was.rejected):
            raise InputError(
                f"corruption '{kind}' replaces texts that the model's chat template has written; write this set with "
                "--data and --kind, where it acts on the messages"
            )
        chosen, rejected = (pair.chosen, pair.rejected) if changed else (own.chosen, own.rejected)[::label]
        pairs.append(replace(own, id=pair.id, chosen=chosen, rejected=rejected))
    return replace(done, pairs=tuple(pairs))
