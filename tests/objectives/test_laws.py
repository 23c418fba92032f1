"""Laws that hold for every row of the table, on drawn pairs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.objectives import OBJECTIVES
from harness.types import InputError, PairLogps
from tests.objectives.cases import EXTRA, NAMES, at, batch, needed, with_extras

COARSE = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
FIELDS = ("loss", "base_loss", "chosen_reward", "rejected_reward")
# Losses whose formula takes a token mean of a response, or its length.
LENGTHS = {"simpo", "alphapo", "orpo", "ln_dpo", "cpo_clip", "cpo_smooth", "ecpo_released", "cpo_eq17", "rdpo_length",
           "nll", "contrastive_cpo"}  # fmt: skip


def fresh(row, policy):
    """State with different values for different pairs and lanes."""
    state = row.initial_state(policy.chosen)
    return {key: value + 0.1 * torch.arange(value.numel()).reshape(value.shape) for key, value in state.items()}


def run(row, policy, reference, state=None, **given):
    return row.loss(policy, reference, state=state if row.state else None, **given)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(7,), (1, 1), (3, 5)])
def test_shape_and_state(name, shape):
    row = OBJECTIVES[name]
    policy, reference = batch(shape)
    out = run(row, policy, reference, fresh(row, policy))
    for field in FIELDS:
        assert getattr(out, field).shape == shape, field
    assert set(out.state or {}) == set(row.state)
    for key, kind in row.state.items():
        assert out.state[key].shape == (shape if kind.scope == "pair" else (*shape[:-1], 1))
        assert not out.state[key].requires_grad
    if row.family != "batch":
        assert torch.equal(out.loss, out.base_loss)
    else:
        assert torch.equal(out.loss, out.loss[..., :1].expand(shape))
    assert row.bounded_below is False or bool((out.loss >= 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_permuting_the_batch_permutes_the_output(name):
    row = OBJECTIVES[name]
    policy, reference = batch((2, 11), seed=1)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(0))
    state = fresh(row, policy)
    moved = {key: v[..., order] if row.state[key].scope == "pair" else v for key, v in state.items()}
    before = run(row, policy, reference, state)
    after = run(row, at(policy, (..., order)), at(reference, (..., order)), moved)
    for field in FIELDS:
        torch.testing.assert_close(getattr(after, field), getattr(before, field)[..., order], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_a_lane_does_not_see_its_neighbours(name, dtype):
    """loss(stack)[k] == loss(lane k), hyperparameters as (K, 1) columns: equal but for last bits of vectorised exp."""
    row = OBJECTIVES[name]
    policy, reference = batch((3, 8), seed=2, dtype=dtype)
    columns = {
        key: torch.tensor([[knob.default * f] for f in (1.0, 0.5, 0.9)], dtype=dtype)
        for key, knob in row.hyperparameters.items()
        if knob.kind == "float" and knob.default is not None
    }
    state = {key: value.to(dtype) for key, value in fresh(row, policy).items()}
    stacked = run(row, policy, reference, state, **columns)
    for k in range(3):
        lane = slice(k, k + 1)
        own = {key: value[lane] for key, value in columns.items()}
        single = run(row, at(policy, lane), at(reference, lane), {key: v[lane] for key, v in state.items()}, **own)
        ulps = 64 * torch.finfo(dtype).eps
        for field in FIELDS:
            torch.testing.assert_close(getattr(stacked, field)[lane], getattr(single, field), rtol=ulps, atol=ulps)
        for key in row.state:
            torch.testing.assert_close(stacked.state[key][lane], single.state[key], rtol=ulps, atol=ulps)


@pytest.mark.parametrize("name", NAMES)
def test_a_diverged_lane_leaves_the_others_alone(name):
    row = OBJECTIVES[name]
    policy, reference = batch((2, 8), seed=4)
    state = fresh(row, policy)
    clean = run(row, policy, reference, state).loss[1]
    broken = dataclasses.replace(policy, chosen=policy.chosen.clone())
    broken.chosen[0] = torch.nan
    assert torch.equal(run(row, broken, reference, state).loss[1], clean)


logp = st.floats(-1e4, 0, width=32) | st.sampled_from([-1e4, -1.0, 0.0])


@pytest.mark.parametrize("name", NAMES)
def test_finite_loss_and_gradient_for_any_log_probs(name):
    row = OBJECTIVES[name]

    @COARSE
    @given(
        st.lists(st.tuples(logp, logp, logp, logp, st.integers(1, 500), st.integers(1, 500)), min_size=1, max_size=6)
    )
    def check(rows):
        a, b, a0, b0, n, m = (torch.tensor(column, dtype=torch.float32) for column in zip(*rows, strict=True))
        policy, reference = with_extras(
            PairLogps(a.requires_grad_(), b.requires_grad_(), n, m), PairLogps(a0, b0, n, m)
        )
        out = row.loss(policy, reference)
        for field in FIELDS:
            assert bool(torch.isfinite(getattr(out, field)).all()), field
        grads = torch.autograd.grad(out.loss.sum(), [a, b], allow_unused=True)
        assert all(bool(torch.isfinite(g).all()) for g in grads if g is not None)

    check()


# What a row holds constant moves with the log-probs in a finite difference: these rows have a test of their own.
CONSTANTS = {"kto_pair", "beta_dpo", "tdpo2"}


@pytest.mark.parametrize("name", sorted(set(NAMES) - CONSTANTS))
def test_gradient_is_that_of_the_loss(name):
    row = OBJECTIVES[name]
    policy, reference = batch((2, 4), seed=6)
    state = fresh(row, policy)
    leaves = [policy.chosen.clone().requires_grad_(), policy.rejected.clone().requires_grad_()]
    kl = [policy.extra[key].clone().requires_grad_() for key in ("chosen_kl", "rejected_kl")]

    def total(chosen, rejected, *divergences):
        extra = {**policy.extra, **dict(zip(("chosen_kl", "rejected_kl"), divergences, strict=True))}
        moved = PairLogps(chosen, rejected, policy.chosen_len, policy.rejected_len, extra)
        return run(row, moved, reference, state).loss.sum()

    exact = torch.autograd.grad(total(*leaves, *kl), [*leaves, *kl], allow_unused=True)
    h = 1e-6
    for position, gradient in enumerate(exact):
        if position > 1 and not name.startswith("tdpo"):
            assert gradient is None
            continue
        base = [x.detach() for x in (*leaves, *kl)]
        for index in ((0, 0), (1, 2), (1, 3)):
            step = torch.zeros_like(base[position])
            step[index] = h
            high = total(*(x + step if i == position else x for i, x in enumerate(base)))
            low = total(*(x - step if i == position else x for i, x in enumerate(base)))
            numeric = ((high - low) / (2 * h)).item()
            got = 0.0 if gradient is None else gradient[index].item()
            assert got == pytest.approx(numeric, rel=2e-5, abs=1e-7), (position, index)


def test_what_a_row_holds_constant_has_no_gradient():
    policy, reference = batch((6,), seed=6)
    chosen, rejected = policy.chosen.clone().requires_grad_(), policy.rejected.clone().requires_grad_()
    moved = dataclasses.replace(policy, chosen=chosen, rejected=rejected)
    h_w, h_l = (chosen - reference.chosen).detach(), (rejected - reference.rejected).detach()
    zero_w, zero_l = h_w.mean().clamp(min=0), h_l.mean().clamp(min=0)
    got = torch.autograd.grad(OBJECTIVES["kto_pair"].loss(moved, reference, beta=0.1).loss.mean(), chosen)[0]
    s = torch.sigmoid(0.1 * (zero_l - h_w))
    torch.testing.assert_close(got, -0.1 * s * (1 - s) / 6)
    got = torch.autograd.grad(OBJECTIVES["kto_pair"].loss(moved, reference, beta=0.1).loss.mean(), rejected)[0]
    s = torch.sigmoid(0.1 * (h_l - zero_w))
    torch.testing.assert_close(got, 0.1 * s * (1 - s) / 6)
    # beta_dpo at rho 1: beta_B is a number.
    scale = 1 + 0.6 * (0.1 * (h_w - h_l)).mean()
    got = torch.autograd.grad(OBJECTIVES["beta_dpo"].loss(moved, reference, beta=0.1, rho=1.0).loss.mean(), chosen)[0]
    torch.testing.assert_close(got, -0.1 * scale * torch.sigmoid(-0.1 * scale * (h_w - h_l)) / 6)
    # tdpo2: the chosen side's KL pushes nothing, the rejected side's does; tdpo1 pushes both.
    kls = {key: policy.extra[key].clone().requires_grad_() for key in ("chosen_kl", "rejected_kl")}
    with_kl = dataclasses.replace(policy, extra={**policy.extra, **kls})
    for name, pushes in (("tdpo1", True), ("tdpo2", False)):
        loss = OBJECTIVES[name].loss(with_kl, reference).loss.sum()
        first, second = torch.autograd.grad(loss, list(kls.values()), allow_unused=True)
        assert (first is not None and bool((first != 0).all())) == pushes
        assert bool((second != 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_a_row_needs_exactly_what_it_declares(name):
    row = OBJECTIVES[name]
    policy, reference = batch((4,), seed=7)
    full = row.loss(policy, reference).loss
    enough = row.loss(needed(policy, row.needs), needed(reference, row.needs)).loss
    assert torch.equal(full, enough)
    for key in row.needs:
        rest = [other for other in EXTRA if other != key]
        with pytest.raises(InputError, match=rf"'{name}' needs extra\['{key}'\]"):
            row.loss(needed(policy, rest), needed(reference, rest))
    if row.needs_reference:
        with pytest.raises(InputError, match="needs the reference"):
            row.loss(policy, None)
        moved = dataclasses.replace(reference, chosen=reference.chosen - 1.3, rejected=reference.rejected - 9.0)
        assert not torch.equal(full, row.loss(policy, moved).loss)
    else:
        assert torch.equal(full, row.loss(policy, None).loss)


@pytest.mark.parametrize("name", NAMES)
def test_lengths_matter_exactly_where_they_should(name):
    row = OBJECTIVES[name]
    policy, reference = batch((4,), seed=8)
    longer = [
        dataclasses.replace(x, chosen_len=x.chosen_len + 5, rejected_len=x.rejected_len + 1)
        for x in (policy, reference)
    ]
    same = torch.equal(row.loss(policy, reference).loss, row.loss(*longer).loss)
    assert same == (name not in LENGTHS)


@pytest.mark.parametrize("name", NAMES)
def test_every_hyperparameter_is_read(name):
    """A knob that changes nothing would be a silent no-op."""
    row = OBJECTIVES[name]
    policy, reference = batch((12,), seed=9)
    state = fresh(row, policy)
    defaults = {key: knob.default for key, knob in row.hyperparameters.items()}
    plain = run(row, policy, reference, state, **defaults)
    recipe = ("steps", "batch_size", "learning_rate", "weight_decay") if name == "reward_model" else ()
    for key, knob in row.hyperparameters.items():
        if key in recipe:  # read by the trainer, not by the loss
            continue
        if knob.kind == "float":
            changed = 0.01 if knob.default is None else knob.default * 0.02 if knob.default else 0.25
        elif knob.kind == "choice":
            changed = knob.choices[-1]
        else:
            changed = (not knob.default) if knob.kind == "bool" else (("hinge", 2.0, ()),)
        out = run(row, policy, reference, state, **defaults | {key: changed})
        same = torch.equal(out.loss, plain.loss) and all(torch.equal(out.state[k], plain.state[k]) for k in row.state)
        assert not same, key


def test_an_unknown_hyperparameter_names_the_objective():
    policy, reference = batch((2,))
    with pytest.raises(InputError, match="objective 'dpo' has no hyperparameter 'eps'"):
        OBJECTIVES["dpo"].loss(policy, reference, eps=0.1)
    with pytest.raises(InputError, match="did you mean 'beta'"):
        OBJECTIVES["dpo"].loss(policy, reference, betta=0.1)
