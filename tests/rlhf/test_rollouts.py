"""Rollouts: what is sampled, how it is scored as shared rows, and that both say the same as a plain forward pass."""

from __future__ import annotations

import pytest
import torch

from harness.data.mythworld import tokens as mythtokens
from harness.models.architecture import skeleton
from harness.models.generate import Drawing, pad_prompts, sample
from harness.models.lane_model import build_lanes
from harness.rlhf.rollouts import prompt_table, read, rewards, roll_out
from harness.rlhf.scoring import score
from tests.models.test_models import by_transformers, plain
from tests.rlhf.packs import rl_lane, training
from tests.training.worlds import ARCHITECTURE, CPU, corpus, world

K, P, DEPTH, WIDTH = 4, 6, 9, 11


@pytest.fixture(scope="module")
def drawn():
    """Two lanes, six prompts of different length (padded on the left), four responses each."""
    model = build_lanes(skeleton(ARCHITECTURE), [world(0)[0], world(1)[0]], CPU)
    prompts = [pair.prompt[: 4 + i] for i, pair in enumerate(world(0)[1][:P])]
    ids, real = pad_prompts(prompts, WIDTH)
    uniforms = torch.rand(2, P * K, DEPTH, generator=torch.Generator().manual_seed(1))
    responses = roll_out(model, ids.expand(2, -1, -1), real.expand(2, -1, -1), uniforms, k=K, eos=mythtokens.EOS)
    return model, prompts, responses


def test_log_probs_kept_from_sampling_equal_a_forward_pass(drawn):
    model, prompts, responses = drawn
    again = read(model, responses).logps
    kept = responses.flat("logps")
    assert torch.allclose(again, kept, rtol=1e-5, atol=1e-5)
    for lane in (0, 1):
        theirs = plain(lane)
        for p, prompt in enumerate(prompts):
            for j in range(K):
                response = responses.tokens[lane, p, j, : responses.lengths[lane, p, j]].numpy()
                expected = by_transformers(theirs, prompt, response)
                mine = kept[lane, p * K + j]
                assert mine[: len(response)].tolist() == pytest.approx(expected.tolist(), rel=1e-5, abs=1e-5)
                assert not mine[len(response) :].any()


def test_a_prompt_read_once_gives_what_a_prompt_a_response_gives(drawn):
    model, prompts, responses = drawn
    ids, real = pad_prompts([prompt for prompt in prompts for _ in range(K)], WIDTH)
    uniforms = torch.rand(2, P * K, DEPTH, generator=torch.Generator().manual_seed(1))
    one = sample(model, ids.expand(2, -1, -1), real.expand(2, -1, -1), uniforms, eos=mythtokens.EOS)
    assert torch.equal(one.tokens, responses.flat("tokens"))
    assert torch.allclose(one.token_logps, responses.flat("logps"), rtol=1e-5, atol=1e-5)


def test_greedy_sampling_is_transformers_generate():
    model = build_lanes(skeleton(ARCHITECTURE), [world(0)[0], world(1)[0]], CPU)
    prompts = [pair.prompt for pair in world(0)[1][:5]]
    ids, real = pad_prompts(prompts, WIDTH)
    nothing = torch.zeros(2, 5, DEPTH)
    out = sample(model, ids.expand(2, -1, -1), real.expand(2, -1, -1), nothing, eos=mythtokens.EOS, drawing=Drawing(0))
    for lane in (0, 1):
        theirs = plain(lane)
        expected = theirs.generate(
            ids, attention_mask=real.long(), max_new_tokens=DEPTH, do_sample=False, eos_token_id=mythtokens.EOS,
            pad_token_id=0,
        )  # fmt: skip
        tokens = torch.nn.functional.pad(expected[:, WIDTH:], (0, DEPTH - (expected.shape[1] - WIDTH)))
        assert torch.equal(out.tokens[lane], tokens)


def test_a_reward_is_read_at_the_last_token(drawn):
    _, prompts, responses = drawn
    weights = rl_lane("a", "rloo", {}).reward
    scorer = build_lanes(skeleton(_with_head()), [weights, 2 * weights], CPU)
    scores = rewards(scorer, responses)
    assert scores.shape == (2, P * K)
    base, head = plain(0), weights[-ARCHITECTURE.hidden_size :]
    for p, prompt in enumerate(prompts):
        for j in range(K):
            response = responses.tokens[0, p, j, : responses.lengths[0, p, j]]
            row = torch.cat([torch.tensor(prompt.tolist()), response])[None]
            with torch.no_grad():
                hidden = base.model(row).last_hidden_state[0, -1]
            assert scores[0, p * K + j].item() == pytest.approx((hidden @ head).item(), rel=1e-4, abs=1e-5)


def test_an_implicit_reward_is_the_price_of_the_log_ratio_to_the_reference():
    """Of what the references themselves drew: what sampling kept and what a forward pass reads are one reference."""
    prices = (0.5, 0.1)
    lanes = [rl_lane(str(n), "rloo", {}, n, per_nat=price) for n, price in enumerate(prices)]
    state = training(lanes)
    rows = torch.stack([own.lane.batches[0] for own in lanes])
    asked, real = (table[rows] for table in state.prompts)
    uniforms = torch.rand(2, rows.shape[1] * 2, DEPTH, generator=torch.Generator().manual_seed(2))
    responses = roll_out(state.reference, asked, real, uniforms, k=2, eos=mythtokens.EOS)
    kept = score(state, responses, responses.flat("logps"), rows)
    torch.testing.assert_close(kept, score(state, responses, read(state.reference, responses).logps, rows))
    for lane, price in enumerate(prices):
        mine, other = plain(lane), plain(1 - lane)
        for p in range(rows.shape[1]):
            response = responses.tokens[lane, p, 0, : responses.lengths[lane, p, 0]].numpy()
            prompt = asked[lane, p][real[lane, p]].numpy()
            ratio = by_transformers(other, prompt, response).sum() - by_transformers(mine, prompt, response).sum()
            assert kept[lane, 2 * p].item() == pytest.approx(price * ratio.item(), rel=1e-3, abs=1e-4)


def test_prompts_come_out_of_pair_rows():
    ids, real = prompt_table(corpus((0,)), 10)
    for row, pair in enumerate(world(0)[1][:8]):
        assert ids[row][real[row]].tolist() == pair.prompt.tolist()
        assert not real[row, : 10 - len(pair.prompt)].any()


def test_a_response_that_never_ends_is_whole_and_marked():
    model = build_lanes(skeleton(ARCHITECTURE), [world(0)[0]], CPU)
    ids, real = pad_prompts([world(0)[1][0].prompt], 8)
    out = roll_out(model, ids[None], real[None], torch.full((1, 2, 5), 0.5), k=2, eos=-1)
    assert not out.ended.any() and (out.lengths == 5).all() and out.real.all()


def test_a_response_may_be_its_end_alone():
    """An empty answer is end-of-sequence: one token with a log-prob, scored like any other."""
    model = build_lanes(skeleton(ARCHITECTURE), [world(0)[0]], CPU)
    ids, real = pad_prompts([world(0)[1][0].prompt], 8)
    first = roll_out(model, ids[None], real[None], torch.full((1, 2, 5), 0.5), k=2, eos=-1).tokens[0, 0, 0, 0].item()
    out = roll_out(model, ids[None], real[None], torch.full((1, 2, 5), 0.5), k=2, eos=first)
    assert (out.lengths == 1).all() and out.ended.all() and (out.logps[..., 0] < 0).all()
    assert (out.logps[..., 1:] == 0).all() and torch.isfinite(read(model, out).logps).all()


def _with_head():
    from dataclasses import replace

    return replace(ARCHITECTURE, score=True)
