"""Which measures may steer a study, and on which pairs: everything else is refused with its reason. Imports no torch.

Refused are a loss (another scale for every objective and beta), anything scaled by beta, measures of training pairs,
measures that no setting moves, and measures that the evaluation does not produce.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.data.corrupt import table as corruptions
from harness.measure.table import METRICS
from harness.names import suggestion
from harness.types import CorruptionSpec, EvaluationSpec, LmEvalSpec

DOWNSTREAM = "downstream"  # of a benchmark, which has documents of its own and no split
CLEAN, OBSERVED, OOD, TEST = SPLITS = ("validation_clean", "validation_observed", "ood", "test")
LOSSES = ("loss", "base_loss")
# Measures of the pairs or of the reference alone: no setting of a trial moves them.
CONSTANT = re.compile(r"(ln_)?(ref_accuracy|violation_proxy|delta_ref_.*)|reference_.*|vacuous_rate")


@dataclass(frozen=True, slots=True)
class Context:
    """What decides whether a measure exists and compares: searched or several scales, evaluation, data, labels."""

    one_scale: bool  # one objective whose own hyperparameters are all fixed
    evaluation: EvaluationSpec
    corruption: CorruptionSpec
    world: bool
    lm_eval: LmEvalSpec | None = None


def refusal(measure: str, split: str, context: Context) -> str:
    """Why `measure` on `split` cannot steer a study; the empty string where it can."""
    if benchmark(measure):
        return _benchmark_refusal(measure, context.lm_eval)
    if split == DOWNSTREAM:
        return f"split {split}: belongs to a benchmark, lm_eval/<task>/<metric>; expected one of {', '.join(SPLITS)}"
    name = measure.removeprefix("eval_")
    if name in LOSSES and not (measure in METRICS and context.one_scale):
        return (
            f"'{measure}' is a loss: every objective and every beta has its own scale, so trials cannot be compared "
            "by it; expected e.g. ranking_accuracy"
        )
    if measure.startswith(("train_", "rewards/", "logps/")):
        return f"'{measure}' is measured on training pairs or in training's units; expected a held-out measure"
    row = METRICS.get(measure)
    if row is None:
        near = suggestion(measure, METRICS)
        return f"unknown measure '{measure}'{near}; expected one of `harness list metrics`"
    if not row.beta_neutral and name not in LOSSES:
        return f"'{measure}' is scaled by beta, so trials of different beta cannot be compared by it"
    if CONSTANT.fullmatch(measure):
        return f"'{measure}' is the reference's or the pairs' own, the same for every trial: nothing to tune by"
    if not set(row.splits) & set("EDS"):
        return f"'{measure}' is measured on training pairs; expected a held-out measure"
    return _unproduced(measure, split, context)


def benchmark(measure: str) -> bool:
    """Whether a target is a number of lm-eval, `lm_eval/<task>/<metric>`."""
    return measure.startswith("lm_eval/")


def _benchmark_refusal(measure: str, asked: LmEvalSpec | None) -> str:
    parts = measure.split("/")
    if len(parts) != 3 or not all(parts):
        return f"'{measure}': expected lm_eval/<task>/<metric>, such as lm_eval/arc_easy/acc"
    task = parts[1]
    if task == "preference":
        return (
            f"'{measure}' is asked of held-out pairs, the report's test half among them; expected ranking_accuracy on "
            f"{CLEAN}, which is the same question"
        )
    if asked is None or not any(task == name or task.startswith(f"{name}_") for name in asked.tasks):
        return f"'{measure}' is not evaluated; expected `evaluation: {{lm_eval: {{tasks: [{task}]}}}}` beside it"
    if asked.runs != "all":
        return f"'{measure}' must be known for every trial; expected `runs: all` in evaluation.lm_eval"
    return ""


def _unproduced(measure: str, split: str, context: Context) -> str:
    row = METRICS[measure]
    wanted = {OOD: "D"}.get(split, "E")
    if "S" in row.splits and wanted not in row.splits:
        if context.evaluation.samples == 0:
            return f"'{measure}' needs free-running samples, and evaluation.samples is 0; the evaluation produces none"
        if measure == "gold_reward" and not context.world:
            return "'gold_reward' is known in the embedded world only; the evaluation does not produce it"
        if split == OBSERVED:
            return f"split {split}: '{measure}' is measured on samples, which carry no labels"
        return _ood_refusal(context) if split == OOD else ""
    if wanted not in row.splits:
        return f"split {split}: '{measure}' is not measured there"
    if split == OOD and _ood_refusal(context):
        return _ood_refusal(context)
    if "gold_margin" in row.needs and not context.world:
        return f"'{measure}' needs true rewards; the evaluation does not produce it on this data"
    produced = {"loss", "base_loss", "gold_margin", "chosen_len", "rejected_len"}
    lacking = [n for n in row.needs if not n.startswith(("policy_", "reference_")) and n not in produced]
    if lacking or "gamma" in row.settings:
        return f"'{measure}' needs {', '.join(lacking) or 'gamma'}, which the evaluation does not produce"
    return observed_refusal(measure, context.corruption) if split == OBSERVED else ""


def _ood_refusal(context: Context) -> str:
    if context.world and context.evaluation.ood:
        return ""
    return "split ood: the evaluation produces no such pairs (evaluation.ood is 0, or the data has no such split)"


def observed_refusal(measure: str, corruption: CorruptionSpec) -> str:
    """Why validation pairs cannot be labelled as the training pairs are; empty where they can.

    Simulated by the same kind on the validation half, which only makes sense where the kind relabels pairs.
    """
    if measure in LOSSES:
        return f"split {OBSERVED}: '{measure}' belongs to the orientation it was computed in"
    kinds: Sequence[tuple[str, tuple[tuple[str, object], ...]]] = [(corruption.kind, corruption.params)]
    if corruption.kind == corruptions.SEQUENCE:
        kinds = [(kind, params) for kind, _, params in dict(corruption.params)["steps"]]
    for kind, params in kinds:
        changes = corruptions.CORRUPTIONS[kind].changes_of(dict(params))
        if changes != "labels":
            return (
                f"split {OBSERVED}: '{kind}' changes {changes}, not labels, so no labels of validation pairs follow "
                f"from it; expected {CLEAN}"
            )
    return ""
