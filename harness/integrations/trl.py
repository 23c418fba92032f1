"""`GeometryCallback`: the margin geometry of a held-out probe, watched from inside TRL's preference trainers."""

from __future__ import annotations

import inspect
import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness.identity import content_hash
from harness.integrations.trl_trainers import (
    Examples,
    Row,
    family_of,
    objective_of,
    policy_of,
    reference_of,
    score,
    with_prompts,
)
from harness.metrics import METRICS
from harness.metrics.diagnosis import diagnose
from harness.metrics.divergence import ALPHA
from harness.metrics.margin_columns import TIE_TOL, chosen_log_ratio, per_token
from harness.metrics.records import Array, Columns, select
from harness.metrics.row import LENGTHS, LOGPS
from harness.objectives.foreign_logps import pair_losses
from harness.storage.logps_file import read_columns, write_columns
from harness.types import InputError, Split

__all__ = ["GeometryCallback"]

log = logging.getLogger(__name__)

MEASURES = (
    "ranking_accuracy", "ref_accuracy", "reward_accuracy", "undesirable_zone", "chosen_displacement",
    "rejected_displacement",
)  # fmt: skip
VERDICTS = ("premature_convergence", "reversal", "memorised_noise", "collapse")
COLLAPSED = -1.0  # nats a token that the chosen responses lost on average
BFLOAT16_TIE_TOL = 0.05
HELD_OUT, TRAINING = Split.HELDOUT, Split.TRAIN_OBSERVED
REFERENCE = ("reference_chosen", "reference_rejected", *LENGTHS)
NO_SLICE = {"prompt", "chosen", "rejected", "tools", "chat_template_kwargs", "id", "prompt_id", "gold_margin"}


@dataclass(frozen=True, slots=True)
class Probe:
    """A fixed set of pairs: the examples that score them, and the columns that never change (reference among them)."""

    pairs: Sequence[Examples]
    columns: dict[str, Array]


class GeometryCallback(TrainerCallback):  # type: ignore[misc]  # of a library without types
    """Logs `geometry/*` of held-out pairs through the trainer: before the first step, every `every` steps, at the end.

    `pairs`: rows as TRL reads them (`prompt`, `chosen`, `rejected`; texts or conversations; the prompt may stand in
    both responses instead), or a `datasets.Dataset`. `beta`: by default the trainer's own. `out`: a folder for
    `pairs.parquet`, or a file ending in `.parquet`. `stop_on`: which of `VERDICTS` end training.
    """

    def __init__(
        self,
        pairs: Iterable[Row],
        every: int = 50,
        beta: float | None = None,
        out: str | Path | None = None,
        stop_on: Iterable[str] = (),
    ) -> None:
        self.rows = list(pairs)
        self.every = every
        self.beta = beta
        self.stop_on = {stop_on} if isinstance(stop_on, str) else set(stop_on)
        self.out = None if out is None else Path(out)
        if self.out is not None and self.out.suffix != ".parquet":
            self.out /= "pairs.parquet"
        problems = [
            f"GeometryCallback: pair {number} has no '{name}'; every pair needs chosen and rejected"
            for number, row in enumerate(self.rows, 1)
            for name in ("chosen", "rejected")
            if name not in row
        ]
        if not self.rows:
            problems.append("GeometryCallback: no pairs; give held-out pairs")
        if every < 1:
            problems.append(f"GeometryCallback: every must be at least 1, got {every}")
        if unknown := sorted(self.stop_on - set(VERDICTS)):
            problems.append(f"GeometryCallback: stop_on knows {', '.join(VERDICTS)}, not {', '.join(unknown)}")
        if problems:
            raise InputError(*problems[:10])

    def on_train_begin(self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Score the reference once, and the policy as it starts."""
        self.trainer = _calling_trainer()
        self.objective = objective_of(self.trainer, self.beta)
        self.tie_tol = TIE_TOL if _in_float32(self.trainer) else BFLOAT16_TIE_TOL
        # Every evaluation asks the same question again: each gets its share of the error rate.
        self.alpha = ALPHA / max(1, math.ceil(state.max_steps / self.every))
        held_out = _held_out(self.trainer, self.rows)
        training = _training(self.trainer, len(held_out.pairs), held_out.columns)
        self._check_stops(training)
        # What the file holds of an interrupted run stays; what is trained again is measured again.
        self.tables = _earlier(self.out, state.global_step)
        if self.out is not None and state.global_step == 0 and state.is_world_process_zero:
            _keep_earlier(self.out)
        probes = {HELD_OUT: held_out} | ({TRAINING: training} if training else {})
        self.probes: dict[str, Probe] = {
            split: self._with_reference(split, probe, state) for split, probe in probes.items()
        }
        self._evaluate(state, control, self.probes)

    def on_step_end(self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Evaluate where it is time to, and at the last step: later, trackers have closed their runs."""
        last = control.should_training_stop or state.global_step >= state.max_steps
        if last or state.global_step % self.every == 0:
            everything = last or "memorised_noise" in self.stop_on
            self._evaluate(state, control, self.probes if everything else (HELD_OUT,))

    def on_epoch_end(self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Evaluate where training was ended after the step, by another callback."""
        if control.should_training_stop and (HELD_OUT, state.global_step) not in self.tables:
            self._evaluate(state, control, self.probes)

    def _check_stops(self, training: Probe | None) -> None:
        kind = type(self.trainer).__name__
        if self.objective is None and (wanted := self.stop_on - {"collapse"}):
            raise InputError(
                f"GeometryCallback: stop_on {', '.join(sorted(wanted))} needs a loss of single pairs, and {kind} with"
                " these settings minimises none that is known here; leave it out, or use one plain loss_type"
            )
        if training is None and "memorised_noise" in self.stop_on:
            raise InputError(
                f"GeometryCallback: stop_on memorised_noise needs training pairs to look at, and {kind}'s training set"
                " has none that can be picked out (unpaired or streamed); leave it out"
            )

    def _with_reference(self, split: str, probe: Probe, state: TrainerState) -> Probe:
        before = self.tables.get((split, 0))
        if before is not None and not np.array_equal(before["id"], probe.columns["id"]):
            raise InputError(f"GeometryCallback: {self.out} holds other pairs than these; give another `out`")
        with reference_of(self.trainer) as model:
            start = policy_of(self.trainer) if state.global_step == 0 else None
            if (scorer := start if model is None else model) is not None:
                columns = dict(zip(REFERENCE, score(self.trainer, scorer, probe.pairs).T, strict=True))
            elif before is not None:
                columns = {name: before[name] for name in REFERENCE}
            else:
                raise InputError(
                    f"GeometryCallback: training goes on at step {state.global_step}, and its reference, the policy at"
                    " step 0, is gone; give the `out` of the first attempt, which holds its log-probs"
                )
        return Probe(probe.pairs, probe.columns | columns | {name: columns[name].astype(np.int64) for name in LENGTHS})

    def _evaluate(self, state: TrainerState, control: TrainerControl, splits: Iterable[str]) -> None:
        step = state.global_step
        for split in splits:
            probe = self.probes[split]
            scores = score(self.trainer, policy_of(self.trainer), probe.pairs)
            n = len(probe.pairs)
            self.tables[split, step] = probe.columns | {
                "policy_chosen": scores[:, 0],
                "policy_rejected": scores[:, 1],
                "split": np.full(n, split, dtype=object),
                "step": np.full(n, step),
                "policy": np.full(n, Path(self.trainer.args.output_dir).name, dtype=object),
            }
        held_out = self.tables[HELD_OUT, step]
        points = {name: METRICS[name].compute(held_out, tie_tol=self.tie_tol) for name in MEASURES}
        if (TRAINING, step) in self.tables:
            training = self.tables[TRAINING, step]
            points["train_ranking_accuracy"] = METRICS["ranking_accuracy"].compute(training, tie_tol=self.tie_tol)
        verdicts = self._verdicts(step)
        points |= {name: float(holds) for name, holds in verdicts.items()}
        finite = {f"geometry/{name}": value for name, value in points.items() if math.isfinite(value)}
        if len(finite) < len(points):
            finite["geometry/nonfinite"] = float(len(points) - len(finite))
        # Not `self.trainer.log`: TRL's own also hands out, and forgets, what it has gathered for its next line, which
        # must still be due after this one.
        due = control.should_log
        Trainer.log(self.trainer, finite)
        control.should_log = due
        if self.out is not None and state.is_world_process_zero:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            write_columns(self.out, _joined(list(self.tables.values())), {})
        if stops := [name for name in VERDICTS if verdicts.get(name) and name in self.stop_on]:
            control.should_training_stop = True
            if state.is_world_process_zero:
                log.warning("GeometryCallback ends training at step %d: %s", step, ", ".join(stops))

    def _verdicts(self, step: int) -> dict[str, bool]:
        """Whether each verdict holds now against the first evaluation; without those that nothing is known of."""
        held_out = self.tables[HELD_OUT, step]
        finite = all(np.isfinite(held_out[name]).all() for name in LOGPS)
        found = {"collapse": not finite or bool(chosen_log_ratio(per_token(held_out)).mean() < COLLAPSED)}
        first = min(at for split, at in self.tables if split == HELD_OUT)
        if self.objective is None or not finite or first == step:
            return found
        ends = [(split, at) for split in self.probes for at in (first, step)]
        tables = [self._with_losses(split, self.tables[split, at]) for split, at in ends if (split, at) in self.tables]
        name, hyperparameters = self.objective
        seen = diagnose(_joined(tables), name, hyperparameters, self.tie_tol)
        if HELD_OUT in seen.premature:
            found["premature_convergence"] = seen.premature[HELD_OUT].last.fires()
        if HELD_OUT in seen.reversal:
            found["reversal"] = seen.reversal[HELD_OUT].fires(self.alpha)
        if HELD_OUT in seen.memorisation:
            found["memorised_noise"] = seen.memorisation[HELD_OUT].fires(self.alpha)
        return found

    def _with_losses(self, split: str, table: Columns) -> dict[str, Array]:
        assert self.objective is not None
        n = len(table["id"])
        # Nobody knows which training labels are wrong: any of them may be.
        labels = {"clean_label": np.ones(n, dtype=np.int64), "corrupted": np.full(n, split == TRAINING)}
        return {**table, **labels, **pair_losses(*self.objective, table)}


def _joined(tables: Sequence[Columns]) -> dict[str, Array]:
    """The rows of all tables, which have the columns of the first, one table after the other."""
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def _calling_trainer() -> Any:
    """The trainer whose event is being handled: callbacks are handed everything but the trainer."""
    frame = inspect.currentframe()
    while frame is not None:
        if isinstance(caller := frame.f_locals.get("self"), Trainer):
            return caller
        frame = frame.f_back
    raise InputError("GeometryCallback: no trainer is training; give it to one of TRL's trainers as a callback")


def _in_float32(trainer: Any) -> bool:
    return trainer.accelerator.mixed_precision == "no" and str(trainer.model.dtype) == "torch.float32"


def _held_out(trainer: Any, rows: Sequence[Row]) -> Probe:
    """The pairs of `rows` that the trainer's own tokenisation keeps."""
    rows = with_prompts(rows)
    found = family_of(trainer).tokenised(trainer, rows)
    if not found:
        raise InputError("GeometryCallback: no pair is left: each prompt alone fills max_length; raise max_length")
    if len(found) < len(rows):
        log.warning("GeometryCallback: %d of %d pairs left out: the prompt alone fills max_length",
                    len(rows) - len(found), len(rows))  # fmt: skip
    kept = [rows[i] for i in found]
    plain = [[row[name] for name in ("prompt", "chosen", "rejected")] for row in kept]
    slices = sorted(name for name in kept[0].keys() - NO_SLICE if isinstance(kept[0][name], str))
    columns = {
        "id": [str(row.get("id", content_hash(texts))) for row, texts in zip(kept, plain, strict=True)],
        "prompt_id": [
            str(row.get("prompt_id", content_hash(texts[0]))) for row, texts in zip(kept, plain, strict=True)
        ],
        **{name: [str(row[name]) for row in kept] for name in slices},
    }
    margins = [math.nan if row.get("gold_margin") is None else float(row["gold_margin"]) for row in kept]
    return _probe(list(found.values()), columns, np.array(margins))


def _training(trainer: Any, n: int, like: Columns) -> Probe | None:
    """`n` training pairs, evenly spread, with the columns of the held-out ones; None where there are none to pick."""
    example = family_of(trainer).example
    if example is None or not hasattr(trainer.train_dataset, "__len__"):
        return None
    total = len(trainer.train_dataset)
    places = range(0, total, max(1, total // n))[:n]
    rows = [trainer.train_dataset[place] for place in places]
    pairs = [example(row) for row in rows]
    slices = [name for name, values in like.items() if name not in ("id", "prompt_id") and values.dtype == object]
    columns = {
        "id": [content_hash(own) for own in pairs],
        "prompt_id": [content_hash(row.get("prompt_ids", row.get("prompt_input_ids"))) for row in rows],
        **{name: [""] * len(pairs) for name in slices},
    }
    return _probe(pairs, columns, np.full(len(pairs), math.nan))


def _probe(pairs: Sequence[Examples], texts: Mapping[str, Sequence[str]], margins: Array) -> Probe:
    """The probe with ids made unique: a pair that stands twice in a set is measured twice."""
    seen = Counter[str]()
    ids = []
    for name in texts["id"]:
        seen[name] += 1
        ids.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    columns = {name: np.array(values, dtype=object) for name, values in {**texts, "id": ids}.items()}
    return Probe(pairs, columns | {"gold_margin": margins})


def _keep_earlier(out: Path) -> None:
    """Rename the log of an earlier run by the time of its last evaluation: it cost a training run."""
    if out.exists():
        written = datetime.fromtimestamp(out.stat().st_mtime, UTC)
        kept = out.with_name(f"{out.stem}-{written:%Y%m%dT%H%M%S.%f}{out.suffix}")
        out.replace(kept)
        log.warning("GeometryCallback: %s was of an earlier run; it is now %s", out, kept.name)


def _earlier(out: Path | None, step: int) -> dict[tuple[str, int], dict[str, Array]]:
    """What `out` holds of evaluations before `step`, by split and step; nothing for a run that starts."""
    if out is None or step == 0 or not out.exists():
        return {}
    rows = read_columns(out)
    keys = sorted({(str(s), int(at)) for s, at in zip(rows["split"], rows["step"], strict=True) if at < step})
    return {key: select(rows, (rows["split"] == key[0]) & (rows["step"] == key[1])) for key in keys}
