"""Samples of prompts of many lengths: none depends on its neighbours, and sampling ends when all have ended."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.evaluation.samples import LaneSamples, SamplePlan, sample_lanes, sample_reference
from harness.models.architecture import Architecture, Frozen, skeleton
from harness.models.folder import Source, start_weights
from harness.models.generate import Drawing, pad_prompts, sample
from harness.models.lane_model import LaneModel, build_lanes
from harness.types import LoraSpec
from tests.models.families import write

CPU = torch.device("cpu")
EOS, DEPTH, WIDTH = 2, 12, 64


@pytest.fixture(scope="module")
def architecture(tmp_path_factory) -> Architecture:
    folder = str(write("qwen2", tmp_path_factory.mktemp("samples") / "model"))
    return Architecture(0, 32, 2, 4, 48, 0, source=Source(folder, "samples", lora=LoraSpec(rank=4)))


def plan(seed: int, count: int = 9) -> SamplePlan:
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(3, 280, n).astype(np.int32) for n in rng.integers(1, 60, count)]
    return SamplePlan(prompts, rng.random((count, DEPTH)))


def part(whole: SamplePlan, rows: list[int]) -> SamplePlan:
    return SamplePlan([whole.prompts[i] for i in rows], whole.uniforms[rows])


def drawn(architecture: Architecture, plans: list[SamplePlan], seeds: list[int]) -> list[LaneSamples]:
    references = {seed: start_weights(architecture.source, seed) for seed in seeds}
    rows = [references[seed] + 0.05 * torch.cos(torch.arange(len(references[seed])) + seed) for seed in seeds]
    model = build_lanes(skeleton(architecture), rows, CPU)
    own = [Frozen(architecture, references[seed]) for seed in seeds]
    return sample_lanes(own, model, plans, EOS, WIDTH, ladder=True)


def assert_equal(one: LaneSamples, other: LaneSamples, rows: list[int] | slice = slice(None)) -> None:
    chosen = range(len(one.responses))[rows] if isinstance(rows, slice) else rows
    for a, b in zip((one.responses[i] for i in chosen), other.responses, strict=True):
        assert np.array_equal(a, b)
    for name in ("k1", "k3", "length", "ended", "entropy"):
        assert np.array_equal(getattr(one, name)[rows], getattr(other, name))


def test_a_sample_does_not_depend_on_its_neighbours(architecture):
    plans = [plan(0), plan(1), plan(0)]
    together = drawn(architecture, plans, [0, 1, 2])
    for lane, seed in enumerate((0, 1, 2)):
        [alone] = drawn(architecture, [plans[lane]], [seed])
        assert_equal(together[lane], alone)
        rows = [7, 0, 3]
        [some] = drawn(architecture, [part(plans[lane], rows)], [seed])
        assert_equal(alone, some, rows)
    assert np.abs(together[0].k1).max() > 1e-3


def test_widths_change_samples_by_rounding_alone(architecture):
    reference, own = Frozen(architecture, start_weights(architecture.source, 0)), plan(3)
    one, other = (sample_reference(reference, own, EOS, WIDTH, CPU, ladder) for ladder in (False, True))
    assert all(map(np.array_equal, one.responses, other.responses))
    assert np.allclose(one.entropy, other.entropy, rtol=1e-4)


def test_sampling_ends_when_every_response_has_ended(architecture, monkeypatch):
    model = build_lanes(skeleton(architecture), [start_weights(architecture.source, 0)], CPU)
    ids, real = (value[None] for value in pad_prompts(plan(0).prompts[:2], WIDTH))
    uniforms = torch.full((1, 2, DEPTH), 0.5)
    free = sample(model, ids, real, uniforms, eos=-1, drawing=Drawing(0))
    calls: list[int] = []
    decode = LaneModel.decode
    monkeypatch.setattr(LaneModel, "decode", lambda self, *rest: calls.append(1) or decode(self, *rest))
    eos = int(free.tokens[0, 0, 2])
    short = sample(model, ids[:, :1], real[:, :1], uniforms[:, :1], eos=eos, drawing=Drawing(0))
    first = free.tokens[0, 0].tolist().index(eos) + 1
    assert short.lengths.item() == first == len(calls)
    assert short.tokens.shape == (1, 1, DEPTH) and not short.tokens[0, 0, first:].any()
    assert torch.equal(short.token_logps[0, 0, :first], free.token_logps[0, 0, :first])
    assert not short.token_logps[0, 0, first:].any()
