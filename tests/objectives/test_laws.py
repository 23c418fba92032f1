"""Laws that hold for every row of the table, on drawn pairs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.laws import Broken
from harness.laws import objectives as laws
from harness.laws.objectives import run, uneven_state
from harness.objectives import OBJECTIVES
from harness.objectives.terms import per_pair
from harness.types import InputError, PairLogps
from tests.objectives.cases import NAMES, batch

COARSE = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
# Losses whose formula takes a token mean of a response, or its length.
LENGTHS = {"simpo", "alphapo", "orpo", "ln_dpo", "cpo_clip", "cpo_smooth", "ecpo_released", "cpo_eq17", "rdpo_length",
           "nll", "contrastive_cpo"}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
def test_every_row_keeps_every_law(law, name):
    if law is laws.reads_every_hyperparameter and name == "reward_model":
        of_the_trainer = ("steps", "batch_size", "learning_rate", "weight_decay", "stop")
        law(OBJECTIVES[name], of_the_trainer)
    else:
        law(OBJECTIVES[name])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(7,), (1, 1)])
def test_shapes_of_a_batch_and_of_one_pair(name, shape):
    laws.shapes(OBJECTIVES[name], shape)


@pytest.mark.parametrize("name", NAMES)
def test_lanes_are_apart_in_single_precision(name):
    laws.lanes_are_apart(OBJECTIVES[name], torch.float32)


logp = st.floats(-1e4, 0, width=32) | st.sampled_from([-1e4, -1.0, 0.0])


@pytest.mark.parametrize("name", NAMES)
def test_finite_loss_and_gradient_for_any_log_probs(name):
    row = OBJECTIVES[name]

    @COARSE
    @given(
        st.lists(st.tuples(logp, logp, logp, logp, st.integers(1, 500), st.integers(1, 500)), min_size=1, max_size=6)
    )
    def check(rows):
        laws.finite_at(row, zip(*rows, strict=True))

    check()


# What a row holds constant moves with the log-probs in a finite difference: these rows have a test of their own.
CONSTANTS = {"kto_pair", "beta_dpo", "tdpo2"}


@pytest.mark.parametrize("name", sorted(set(NAMES) - CONSTANTS))
def test_gradient_is_that_of_the_loss(name):
    row = OBJECTIVES[name]
    policy, reference = batch((2, 4), seed=6)
    state = uneven_state(row, policy)
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
def test_lengths_matter_exactly_where_they_should(name):
    row = OBJECTIVES[name]
    policy, reference = batch((4,), seed=8)
    longer = [
        dataclasses.replace(x, chosen_len=x.chosen_len + 5, rejected_len=x.rejected_len + 1)
        for x in (policy, reference)
    ]
    same = torch.equal(row.loss(policy, reference).loss, row.loss(*longer).loss)
    assert same == (name not in LENGTHS)


def test_the_components_of_a_mixture_are_read():
    policy, reference = batch((12,), seed=9)
    row = OBJECTIVES["mixture"]
    first, second = (row.loss(policy, reference, mixture=((name, 2.0, ()),)).loss for name in ("dpo", "hinge"))
    assert not torch.equal(first, second)


def test_the_laws_find_what_they_are_for():
    """Rows that break one law each, and what is said of them."""

    def blind(policy, reference, beta, eps):
        return per_pair((policy.chosen - reference.chosen).relu(), (policy.chosen, policy.rejected))

    def leaky(policy, reference, beta, eps):
        mean = (policy.chosen - reference.chosen).mean()
        return per_pair((mean * beta) ** 2 + 0 * policy.chosen, (policy.chosen, policy.rejected))

    dpo = OBJECTIVES["robust_dpo"]
    for law, row, text in (
        (laws.reads_every_hyperparameter, dataclasses.replace(dpo, function=blind), "'beta' changes nothing"),
        (laws.lanes_are_apart, dataclasses.replace(dpo, function=leaky), "depends on other lanes"),
        (laws.divergence_stays_in_its_lane, dataclasses.replace(dpo, function=leaky), "changes its neighbour"),
        (laws.needs_what_it_declares, dataclasses.replace(dpo, needs_reference=False), None),
        (laws.starts_at_step_zero, dataclasses.replace(dpo, step0=lambda given, pair: 1.0), "step0 says 1"),
        (laws.states_itself, dataclasses.replace(dpo, breaks=""), "must not be empty"),
    ):
        with pytest.raises(Exception if text is None else Broken, match=text):
            law(row)


def test_an_unknown_hyperparameter_names_the_objective():
    policy, reference = batch((2,))
    with pytest.raises(InputError, match="objective 'dpo' has no hyperparameter 'eps'"):
        OBJECTIVES["dpo"].loss(policy, reference, eps=0.1)
    with pytest.raises(InputError, match="did you mean 'beta'"):
        OBJECTIVES["dpo"].loss(policy, reference, betta=0.1)
