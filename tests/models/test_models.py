"""Log-probs, the stored reference and the sampler against transformers' own module on the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.data.mythworld import tokens as mythtokens
from harness.data.rows import pack_rows, response_key
from harness.models.architecture import skeleton
from harness.models.generate import pad_prompts, sample, score_samples
from harness.models.lane_model import build_lanes, flatten, parameter_shapes, unflatten
from harness.models.logps import build_corpus, oriented, pair_logps, reference_logps
from harness.models.reference_logps import pair_keys, score_responses
from tests.training.worlds import ARCHITECTURE, CPU, corpus, world


def plain(seed: int):
    model = skeleton(ARCHITECTURE)
    values = unflatten(world(seed)[0], parameter_shapes(model))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])
    return model


def by_transformers(model, prompt, response) -> np.ndarray:
    ids = torch.tensor([[*prompt, *response]])
    with torch.no_grad():
        logps = model(ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
    return logps.gather(-1, ids[0, len(prompt) :, None])[:, 0].numpy()


def test_pair_rows_score_as_plain_sequences():
    model = build_lanes(skeleton(ARCHITECTURE), [world(0)[0], world(1)[0]], CPU)
    table = corpus((0, 1))
    index = torch.stack([torch.arange(16), torch.arange(64, 80)])
    with torch.no_grad():
        scored = pair_logps(model, table, index)
    for lane in (0, 1):
        theirs = plain(lane)
        for i, pair in enumerate(world(lane)[1][:16]):
            for side in ("chosen", "rejected"):
                expected = by_transformers(theirs, pair.prompt, getattr(pair, side)).sum()
                assert getattr(scored, side)[lane, i].item() == pytest.approx(expected, rel=1e-5)


def test_stored_reference_equals_the_policy_at_the_start():
    model = build_lanes(skeleton(ARCHITECTURE), [world(0)[0]], CPU)
    index = torch.arange(64)[None]
    with torch.no_grad():
        policy = pair_logps(model, corpus((0,)), index)
    stored = reference_logps(corpus((0,)), index)
    assert (policy.chosen - stored.chosen).abs().max() <= 1e-4
    assert (policy.rejected - stored.rejected).abs().max() <= 1e-4


def test_reference_does_not_depend_on_what_is_scored_beside_it():
    weights, pairs, _ = world(0)
    whole = score_responses(ARCHITECTURE, weights, pairs, CPU)
    backwards = score_responses(ARCHITECTURE, weights, pairs[::-1], CPU)
    assert whole.keys == backwards.keys and np.array_equal(whole.values, backwards.values)
    chosen, _ = pair_keys(pairs)
    with pytest.raises(KeyError):
        whole.sums([*chosen, "0" * 32])


def test_response_keys_tell_sequences_apart():
    a, b = np.array([1, 2], np.int32), np.array([3], np.int32)
    keys = {
        response_key(a, b), response_key(b, a), response_key(np.array([1], np.int32), np.array([2, 3], np.int32)),
        response_key(a, np.array([3, 2], np.int32)), response_key(a, np.zeros(0, np.int32)),
    }  # fmt: skip
    assert len(keys) == 5


def test_a_flip_swaps_sides_and_nothing_else():
    index = torch.arange(8)[None]
    stored = reference_logps(corpus((0,)), index)
    flipped = oriented(stored, torch.tensor([[True, False] * 4]))
    assert torch.equal(flipped.chosen[0, 0::2], stored.rejected[0, 0::2])
    assert torch.equal(flipped.chosen[0, 1::2], stored.chosen[0, 1::2])
    assert torch.equal(flipped.rejected_len[0, 0::2], stored.chosen_len[0, 0::2])


def test_weights_survive_the_pack():
    weights = world(0)[0]
    model = build_lanes(skeleton(ARCHITECTURE), [weights, world(1)[0]], CPU)
    assert torch.equal(model.weights(0), weights) and torch.equal(model.weights(1), world(1)[0])
    assert torch.equal(flatten(plain(0)), weights)


def test_gradient_equals_autograd_on_the_plain_module():
    pairs = world(0)[1][:8]
    model = build_lanes(skeleton(ARCHITECTURE), [world(1)[0], world(0)[0]], CPU)
    index = torch.stack([torch.arange(8), torch.arange(8)])
    ours = model.gradient(pair_logps(model, corpus((0,)), index).chosen.sum())[1]
    theirs = plain(0)
    total = torch.zeros(())
    for pair in pairs:
        ids = torch.tensor([[*pair.prompt, *pair.chosen]])
        logps = theirs(ids).logits.log_softmax(-1)[0, len(pair.prompt) - 1 : -1]
        total = total + logps.gather(-1, ids[0, len(pair.prompt) :, None]).sum()
    total.backward()
    expected = torch.cat([parameter.grad.reshape(-1) for parameter in theirs.parameters()])
    error = (ours[: len(expected)] - expected).norm() / expected.norm()
    assert error < 1e-5


def test_samples_carry_their_own_log_probs():
    weights = [world(0)[0], world(1)[0]]
    model = build_lanes(skeleton(ARCHITECTURE), weights, CPU)
    ids, real = pad_prompts([pair.prompt for pair in world(0)[1][:5]], width=11)
    prompts, mask = ids.expand(2, -1, -1), real.expand(2, -1, -1)
    uniforms = torch.rand(2, 5, 9, generator=torch.Generator().manual_seed(1))
    drawn = sample(model, prompts, mask, uniforms, eos=mythtokens.EOS)
    assert drawn.tokens.shape == (2, 5, 9)
    again = score_samples(model, prompts, mask, drawn)
    assert (again - drawn.logps).abs().max() <= 1e-4
    for lane in (0, 1):
        theirs = plain(lane)
        for i, pair in enumerate(world(0)[1][:5]):
            response = drawn.tokens[lane, i, : drawn.lengths[lane, i]].numpy()
            expected = by_transformers(theirs, pair.prompt, response).sum()
            assert drawn.logps[lane, i].item() == pytest.approx(expected, rel=1e-4)


def test_greedy_limit_equals_transformers_generate():
    """A uniform of 0 picks the first token; one close to where the argmax's mass lies picks the argmax."""
    weights = world(0)[0]
    model = build_lanes(skeleton(ARCHITECTURE), [weights * 8], CPU)  # sharp logits: sampling is all but greedy
    theirs = plain(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(8)
    prompt = world(0)[1][0].prompt
    ids, real = pad_prompts([prompt], width=8)
    drawn = sample(model, ids[None], real[None], torch.full((1, 1, 6), 0.5), eos=-1)
    out = theirs.generate(
        torch.tensor([prompt.tolist()]), max_new_tokens=6, min_new_tokens=6, do_sample=False, use_cache=True,
        attention_mask=torch.ones(1, 8, dtype=torch.int64),
    )  # fmt: skip
    assert drawn.tokens[0, 0].tolist() == out[0, 8:].tolist()


def test_sampling_follows_the_distribution():
    model = build_lanes(skeleton(ARCHITECTURE), [world(0)[0]], CPU)
    prompt = world(0)[1][0].prompt
    ids, real = pad_prompts([prompt] * 2048, width=8)
    uniforms = torch.rand(1, 2048, 1, generator=torch.Generator().manual_seed(0))
    drawn = sample(model, ids[None], real[None], uniforms, eos=-1)
    with torch.no_grad():
        expected = plain(0)(torch.tensor([prompt.tolist()])).logits[0, -1].softmax(-1)
    counts = torch.bincount(drawn.tokens.reshape(-1), minlength=len(expected)) / 2048
    assert (counts - expected).abs().max() < 0.04


def test_a_corpus_is_as_wide_as_its_widest_rows():
    narrow, wide = pack_rows(world(0)[1]), pack_rows(world(0)[1], tokens=40, responses=30)
    corpus = build_corpus([narrow, wide], None, CPU)
    half = len(narrow.ids)
    assert corpus.ids.shape == (2 * half, 40) and corpus.target.shape == (2 * half, 30)
    for name in ("ids", "segment", "position", "source", "target", "side", "chosen_len", "rejected_len"):
        values = getattr(corpus, name)
        assert torch.equal(values[:half], values[half:]), name
