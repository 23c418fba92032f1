"""Free-running samples of a pack's runs at the end of training, beside those of their references.

Runs of a replicate share prompts and random numbers, and so does the reference: its responses are drawn once per
inputs and are in the same row as the policy's, so every comparison with it is paired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from harness.evaluation.samples import LaneSamples, SamplePlan, sample_lanes, sample_reference
from harness.identity import stream_seed
from harness.inputs.run_inputs import RunInputs
from harness.models.generate import Drawing
from harness.models.lane_model import LaneModel
from harness.types import PreferencePair, RunSpec, Split
from harness.worker.commit import PackRun, meta_columns

OOD_SHARE = 4  # one prompt of another distribution for every so many of `evaluation.samples`

# How runs answer that are not sampled from a trained model: (split, positions of its pairs) -> samples, lane by lane.
Answers = Callable[[str, Sequence[int]], list[LaneSamples]]


def sample_runs(
    runs: Sequence[PackRun], model: LaneModel, answers: Answers | None = None
) -> list[dict[str, np.ndarray]]:
    """The rows of `samples.parquet` for every run of a pack; empty where the spec asks for no samples."""
    evaluation, first = runs[0].run.evaluation, runs[0].encoded.inputs
    tables: list[list[dict[str, np.ndarray]]] = [[] for _ in runs]
    samples = evaluation.samples
    counts = {Split.HELDOUT: samples, Split.OOD: samples // OOD_SHARE, Split.BEHAVIOUR: len(first.prompts)}
    for split, count in counts.items():
        if not count or not _asked(first, split):
            continue
        places = np.repeat(_places(len(_asked(first, split)), split, count), evaluation.answers.per_prompt).tolist()
        pairs = [[_asked(run.encoded.inputs, split)[i] for i in places] for run in runs]
        plans = [_plan(run.run, run.encoded.inputs, split, asked) for run, asked in zip(runs, pairs, strict=True)]
        if answers is None:
            references = [run.encoded.inputs.reference for run in runs]
            width, drawing = first.prompt_width, _drawing(runs[0].run, first)
            drawn = sample_lanes(references, model, plans, first.eos, width, first.ladder, drawing)
        else:
            drawn = answers(split, places)
        for lane, (run, asked, plan) in enumerate(zip(runs, pairs, plans, strict=True)):
            encoded = run.encoded
            if split not in encoded.answers:
                drawing = _drawing(run.run, encoded.inputs)
                encoded.answers[split] = _answers(encoded.inputs, asked, plan, model.flat.device, drawing)
            table = {
                "prompt": np.array([pair.prompt for pair in asked], dtype=object),
                "split": np.array([split] * len(asked), dtype=object),
                **meta_columns(asked, "row"),
                **_judged(encoded.inputs, asked, drawn[lane]),
                **(meta_columns(asked, "group") if split == Split.BEHAVIOUR else {}),
                "k1": drawn[lane].k1,
                "k3": drawn[lane].k3,
            }
            if evaluation.answers.per_prompt > 1:
                table["answer"] = np.arange(len(asked)) % evaluation.answers.per_prompt
            tables[lane].append(table | encoded.answers[split])
    return [{name: np.concatenate([part[name] for part in parts]) for name in parts[0]} for parts in tables if parts]


def _asked(inputs: RunInputs, split: Split) -> Sequence[PreferencePair]:
    """The prompts of a split, as pairs."""
    return inputs.prompts if split == Split.BEHAVIOUR else inputs.evals.get(split, ())


def _places(pairs: int, split: str, count: int) -> list[int]:
    """Positions of the sampled prompts: the first `count`; of `ood`, whose kinds are in blocks, evenly spaced."""
    if split == Split.HELDOUT or count >= pairs:
        return list(range(min(count, pairs)))
    return [i * pairs // count for i in range(count)]


def _plan(run: RunSpec, inputs: RunInputs, split: str, pairs: Sequence[PreferencePair]) -> SamplePlan:
    names = () if split == Split.HELDOUT else (split,)
    rng = np.random.Generator(np.random.Philox(stream_seed(run.seed, "samples", *names)))
    depth = run.evaluation.answers.length or inputs.max_new_tokens
    return SamplePlan([inputs.encode(p).prompt for p in pairs], rng.random((len(pairs), depth)))


def _drawing(run: RunSpec, inputs: RunInputs) -> Drawing:
    answers = run.evaluation.answers
    return Drawing(answers.temperature, answers.top_p, inputs.stop)


def _answers(
    inputs: RunInputs, pairs: Sequence[PreferencePair], plan: SamplePlan, device: torch.device, drawing: Drawing
) -> dict[str, np.ndarray]:
    """The reference's own samples, judged, under `reference_<name>`."""
    drawn = sample_reference(inputs.reference, plan, inputs.eos, inputs.prompt_width, device, inputs.ladder, drawing)
    return {f"reference_{name}": v for name, v in _judged(inputs, pairs, drawn).items() if name != "group"}


def _judged(inputs: RunInputs, pairs: Sequence[PreferencePair], samples: LaneSamples) -> dict[str, np.ndarray]:
    """What the judge of the inputs says of the responses, their lengths, ends and entropy; `(n,)` each."""
    judged = inputs.judge([pair.prompt for pair in pairs], samples.responses)
    return {**judged, "length": samples.length, "ended": samples.ended, "entropy": samples.entropy}
