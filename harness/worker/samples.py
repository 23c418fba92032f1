"""Free-running samples of a pack's runs at the end of training, beside what their references answer.

Runs of a replicate share prompts and random numbers, and so does the reference: its responses are drawn once a setting
and stand in the same row as the policy's, so every comparison with it is paired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from harness.evaluation.samples import LaneSamples, SamplePlan, sample_lanes, sample_reference
from harness.identity import stream_seed
from harness.inputs.encoded import EncodedInputs
from harness.inputs.run_inputs import RunInputs
from harness.models.lane_model import LaneModel
from harness.types import PreferencePair, RunSpec
from harness.worker.commit import known

OOD_SHARE = 4  # one prompt of another distribution for every so many of `evaluation.samples`


# How runs answer that are no model to sample from: (split, positions of its pairs) -> samples, lane by lane.
Answers = Callable[[str, Sequence[int]], list[LaneSamples]]


def sample_jobs(
    jobs: Sequence[tuple[RunSpec, EncodedInputs]], model: LaneModel, answers: Answers | None = None
) -> list[dict[str, np.ndarray]]:
    """The rows of `samples.parquet` for every lane of a pack; empty where the spec asks for no samples."""
    run, first = jobs[0][0], jobs[0][1].inputs
    tables: list[list[dict[str, np.ndarray]]] = [[] for _ in jobs]
    for split, count in (("eval_clean", run.evaluation.samples), ("ood", run.evaluation.samples // OOD_SHARE)):
        if not count or not first.evals.get(split):
            continue
        places = _places(len(first.evals[split]), split, count)
        pairs = [[prepared.inputs.evals[split][i] for i in places] for _, prepared in jobs]
        plans = [_plan(one, made.inputs, split, own) for (one, made), own in zip(jobs, pairs, strict=True)]
        if answers is None:
            weights = [prepared.inputs.weights for _, prepared in jobs]
            drawn = sample_lanes(first.architecture, model, weights, plans, first.eos, first.prompt_width, first.ladder)
        else:
            drawn = answers(split, places)
        for lane, ((_, prepared), own, plan) in enumerate(zip(jobs, pairs, plans, strict=True)):
            if split not in prepared.answers:
                prepared.answers[split] = _answers(prepared.inputs, own, plan, model.flat.device)
            table = {
                "prompt": np.array([pair.prompt for pair in own], dtype=object),
                "split": np.array([split] * len(own), dtype=object),
                **known(own, "row"),
                **_judged(prepared.inputs, own, drawn[lane]),
                "k1": drawn[lane].k1,
                "k3": drawn[lane].k3,
            }
            tables[lane].append(table | prepared.answers[split])
    return [{name: np.concatenate([part[name] for part in parts]) for name in parts[0]} for parts in tables if parts]


def _places(pairs: int, split: str, count: int) -> list[int]:
    """Of so many pairs the first `count`; of another distribution, whose kinds stand in blocks, evenly many."""
    if split == "eval_clean" or count >= pairs:
        return list(range(min(count, pairs)))
    return [i * pairs // count for i in range(count)]


def _plan(run: RunSpec, setting: RunInputs, split: str, pairs: Sequence[PreferencePair]) -> SamplePlan:
    names = () if split == "eval_clean" else (split,)
    rng = np.random.Generator(np.random.Philox(stream_seed(run.seed, "samples", *names)))
    return SamplePlan([setting.encode(p).prompt for p in pairs], rng.random((len(pairs), setting.max_new_tokens)))


def _answers(
    setting: RunInputs, pairs: Sequence[PreferencePair], plan: SamplePlan, device: torch.device
) -> dict[str, np.ndarray]:
    """The reference's own samples, judged, under `reference_<name>`."""
    drawn = sample_reference(
        setting.architecture, setting.weights, plan, setting.eos, setting.prompt_width, device, setting.ladder
    )
    return {f"reference_{name}": v for name, v in _judged(setting, pairs, drawn).items() if name != "group"}


def _judged(setting: RunInputs, pairs: Sequence[PreferencePair], samples: LaneSamples) -> dict[str, np.ndarray]:
    """What the setting's judge says of the responses, their lengths, ends and entropy; `(n,)` each."""
    judged = setting.judge([pair.prompt for pair in pairs], samples.responses)
    return {**judged, "length": samples.length, "ended": samples.ended, "entropy": samples.entropy}
