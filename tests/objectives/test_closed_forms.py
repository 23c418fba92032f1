"""Closed-form minimisers: what each objective converges to in a world small enough to solve by hand.

A pair is its log-ratio delta alone, moved by gradient descent on the objective's own loss. `share` is the probability
that a label is right, the population average of both labels is what is minimised. One token a response, so that sums
and token means coincide and every formula can be read on either.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from harness.objectives import OBJECTIVES
from harness.types import PairLogps

Loss = Callable[[Tensor], Tensor]
# Reference log-probs of a pair: their mean, far enough below 0 for every delta that is met here.
LEVEL = -12.0


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def logit(p: Tensor | float) -> Tensor:
    return torch.logit(torch.as_tensor(p, dtype=torch.float64))


def pairs(delta: Tensor, level: float = LEVEL) -> PairLogps:
    """Pairs `(B,)` with chosen - rejected = delta and the given mean log-prob, one token each."""
    ones = torch.ones_like(delta)
    return PairLogps(level + delta / 2, level - delta / 2, ones, ones)


def swapped(logps: PairLogps) -> PairLogps:
    return PairLogps(logps.rejected, logps.chosen, logps.rejected_len, logps.chosen_len)


def loss_of(name: str, delta: Tensor, delta_ref: Tensor, level: float = LEVEL, **hyperparameters: object) -> Tensor:
    return OBJECTIVES[name].loss(pairs(delta, level), pairs(delta_ref, level), **hyperparameters).base_loss


def observed(name: str, delta_ref: Tensor, share: Tensor, level: float = LEVEL, **hyperparameters: object) -> Loss:
    """The population loss of labels as a training run sees them: a wrong label swaps the pair, reference and all."""
    row = OBJECTIVES[name]

    def loss(delta: Tensor) -> Tensor:
        policy, reference = pairs(delta, level), pairs(delta_ref, level)
        right = row.loss(policy, reference, **hyperparameters).loss
        wrong = row.loss(swapped(policy), swapped(reference), **hyperparameters).loss
        return share * right + (1 - share) * wrong

    return loss


def opposite(value: Tensor) -> Tensor:
    """ell(-u) of the value ell(u), for a loss whose margin stays tied to the true order: ell(-u) = ell(u) + u."""
    return value - torch.log(torch.expm1(value))


def fixed(name: str, delta_ref: Tensor, share: Tensor, **hyperparameters: object) -> Loss:
    """The population loss with the margin of the true order under both labels: the theory's own setting."""

    def loss(delta: Tensor) -> Tensor:
        right = loss_of(name, delta, delta_ref, **hyperparameters)
        return share * right + (1 - share) * opposite(right)

    return loss


def descend(loss: Loss, start: Tensor, rate: float, steps: int = 2000) -> Tensor:
    """Gradient descent on the sum over pairs until nothing moves; fails where it has not settled."""
    delta = start.clone()
    for _ in range(steps):
        point = delta.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(point).sum(), point)
        delta = delta - rate * slope
        if float(slope.abs().max()) < 1e-11:
            return delta
    raise AssertionError(f"no minimum after {steps} steps: slope {slope.tolist()}")


RATES = tensor(0.0, 0.1, 0.2, 0.3, 0.4)  # flip rates of the data in every row of the table below
SHARES = sigmoid(1.0) * (1 - 2 * RATES) + RATES
TABLE = {
    # delta_ref = -4, true reward gap 1, beta = .5: where the population minimiser lies at each flip rate.
    ("dpo",): (-2, -2.4477, -2.8611, -3.2520, -3.6292),
    ("robust_dpo", 0.2): (0.0832, -1.1249, -2.0, -2.7263, -3.3789),
    ("cdpo", 0.1): (-2.4477, -2.7806, -3.0977, -3.4041, -3.7037),
    ("ipo",): (-3.5379, -3.6303, -3.7227, -3.8152, -3.9076),
    ("hypo",): (1.2951, 0.6519, 0.0104, -0.6435, -1.3152),
}


@pytest.mark.parametrize("case", TABLE)
def test_minimisers_under_uniform_flips(case):
    name, *eps = case
    hyperparameters = {"beta": 0.5} | ({"eps": eps[0]} if eps else {})
    start = torch.full_like(SHARES, -4.0)
    rate = 0.4 if name == "ipo" else 8.0
    found = descend(observed(name, start, SHARES, **hyperparameters), start, rate)
    torch.testing.assert_close(found, tensor(*TABLE[case]), rtol=0, atol=6e-5)


def test_robust_dpo_with_the_datas_own_rate_finds_the_clean_minimiser():
    for rate, share in zip(RATES.tolist(), SHARES, strict=True):
        start = tensor(-4.0)
        found = descend(observed("robust_dpo", start, share, beta=0.5, eps=rate), start, rate=2.0)
        assert float(found) == pytest.approx(-2.0, abs=1e-8)


def test_hypo_with_its_margin_tied_to_the_true_order():
    start = torch.full_like(SHARES, -4.0)
    found = descend(fixed("hypo", start, SHARES, beta=0.5), start, rate=8.0)
    torch.testing.assert_close(found, tensor(2.0, 1.5523, 1.1389, 0.7480, 0.3708), rtol=0, atol=6e-5)


def test_hinge_stops_at_its_corner_whatever_the_share():
    grid = torch.linspace(-6, 3, 9001, dtype=torch.float64)
    for share in SHARES:
        values = observed("hinge", torch.full_like(grid, -4.0), share, beta=0.5)(grid)
        assert float(grid[values.argmin()]) == pytest.approx(-2.0, abs=1e-3)  # delta_ref + 1/beta


WIDE_SHARES = tensor(0.55, 0.7, 0.85, 0.95)
WIDE_REFERENCES = tensor(-4.0, -1.0, 0.5, 2.0)
CLOSED = {
    "dpo": (0.7, {}, lambda q: logit(q) / 0.7),
    "ln_dpo": (0.7, {}, lambda q: logit(q) / 0.7),
    "cdpo": (0.7, {"eps": 0.15}, lambda q: logit(q * 0.7 + 0.15) / 0.7),
    "robust_dpo": (0.7, {"eps": 0.04}, lambda q: logit((q - 0.04) / 0.92) / 0.7),
    "ipo": (0.7, {}, lambda q: (2 * q - 1) / 1.4),
    "exo": (0.7, {"eps": 0.1}, lambda q: (2 * q - 1) * logit(0.9) / 0.7),
}


@pytest.mark.parametrize("name", CLOSED)
def test_minimisers_of_losses_without_a_margin(name):
    beta, more, gap = CLOSED[name]
    reference = WIDE_REFERENCES.repeat_interleave(4)
    share = WIDE_SHARES.repeat(4)
    rate = 0.4 if name == "ipo" else 4.0
    found = descend(observed(name, reference, share, beta=beta, **more), reference, rate)
    torch.testing.assert_close(found, reference + gap(share), rtol=0, atol=1e-8)


def test_contrastive_cpo_forgets_the_reference():
    share = WIDE_SHARES
    found = descend(observed("contrastive_cpo", WIDE_REFERENCES, share, beta=0.7, lam=0.0), WIDE_REFERENCES, 8.0)
    torch.testing.assert_close(found, logit(share) / 0.7, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("name", "eps"), [("cdpo", 0.1), ("exo", 0.1)])
def test_hard_labels_have_a_finite_target_only_where_the_loss_smooths_them(name, eps):
    certain = torch.ones_like(WIDE_REFERENCES)
    found = descend(observed(name, WIDE_REFERENCES, certain, beta=0.5, eps=eps), WIDE_REFERENCES, 4.0)
    torch.testing.assert_close(found, WIDE_REFERENCES + logit(1 - eps) / 0.5, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["dpo", "robust_dpo", "hypo", "simpo", "sympo", "contrastive_cpo"])
def test_hard_labels_push_without_end(name):
    more = {"lam": 0.0} if name == "contrastive_cpo" else {}
    delta = torch.linspace(-5, 20, 50, dtype=torch.float64, requires_grad=True)
    loss = loss_of(name, delta, torch.full_like(delta, -4.0), beta=0.5, **more)
    (slope,) = torch.autograd.grad(loss.sum(), delta)
    assert (slope < 0).all()


def test_sppo_and_cal_dpo_set_each_side_and_nca_only_the_chosen_one():
    share = tensor(1.0, 0.8, 0.6)
    reference = pairs(torch.zeros_like(share))

    def minimum(name: str, beta: float, rate: float, steps: int) -> Tensor:
        row, sides = OBJECTIVES[name], torch.zeros(2, 3, dtype=torch.float64)
        for _ in range(steps):
            point = sides.clone().requires_grad_()
            policy = PairLogps(LEVEL + point[0], LEVEL + point[1], reference.chosen_len, reference.rejected_len)
            right = row.loss(policy, reference, beta=beta).loss
            wrong = row.loss(swapped(policy), swapped(reference), beta=beta).loss
            (slope,) = torch.autograd.grad((share * right + (1 - share) * wrong).sum(), point)
            sides = sides - rate * slope
        return sides

    sides = minimum("sppo", 0.5, 0.3, 100)
    torch.testing.assert_close(sides[0] - sides[1], (2 * share - 1) / 0.5, rtol=0, atol=1e-9)
    torch.testing.assert_close(sides[0], (share - 0.5) / 0.5, rtol=0, atol=1e-9)
    # cal_dpo: the quadratic part gives sppo's shifts; its logistic term, worth at most 1, moves each by at most 1/2.
    moved = minimum("cal_dpo", 0.5, 0.3, 400) - sides
    assert float(moved.abs().max()) < 0.5 and float(moved[0, 0]) > 1e-3
    sides = minimum("nca", 0.5, 4.0, 400)
    assert float(sides[0, 0]) == pytest.approx(math.log(2) / 0.5, abs=1e-8)
    assert float(sides[1, 0]) < -6  # hard labels push the rejected side down for ever


MARGINS: dict[str, tuple[float, dict[str, object], Callable[[Tensor], Tensor]]] = {
    # name: (beta, hyperparameters, the target T as a function of delta_ref)
    "hypo": (0.5, {}, lambda d: d.clamp(min=0)),
    "cpo_clip": (0.5, {}, lambda d: d.clamp(min=0)),
    "cpo_smooth": (
        0.5,
        {"gamma": 0.4, "tau": 2.0, "alpha": 1.0},
        lambda d: d + torch.nn.functional.softplus(2 * (0.4 - d)) / 2,
    ),
    "simpo": (0.5, {"gamma": 0.3}, lambda d: torch.full_like(d, 0.6)),
    # One token a side with log-probs -1.5 +- d/2; the margin is symmetric under a swap.
    "cpo_eq17": (0.5, {"gamma": 0.05}, lambda d: d + 0.05 * (torch.exp(1.5 - d / 2) + torch.exp(1.5 + d / 2)) / 0.5),
    "ecpo_released": (0.5, {"gamma": 0.05}, lambda d: d + 0.05 * (1 / (d / 2 - 1.5) + 1 / (-d / 2 - 1.5)) / 0.5),
}
SMALL_REFERENCES = tensor(-2.0, -0.5, 0.0, 1.5)


@pytest.mark.parametrize("name", MARGINS)
def test_margin_losses_have_the_stated_target(name):
    beta, more, target = MARGINS[name]
    delta = torch.linspace(-2, 2, 4, dtype=torch.float64)
    loss = loss_of(name, delta, SMALL_REFERENCES, level=-1.5, beta=beta, **more)
    recovered = delta + torch.log(torch.expm1(loss)) / beta  # loss = ell(beta (delta - T))
    torch.testing.assert_close(recovered, target(SMALL_REFERENCES), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", MARGINS)
def test_margin_losses_on_fixed_and_on_observed_orientation(name):
    beta, more, target = MARGINS[name]
    reference, share = SMALL_REFERENCES.repeat_interleave(4), tensor(0.5, 0.6, 0.75, 0.9).repeat(4)
    plus, minus = target(reference), target(-reference)
    a = (1 - share) * torch.exp(-beta * plus)
    b = 2 * share - 1
    c = share * torch.exp(-beta * minus)
    expected = torch.log((b + torch.sqrt(b**2 + 4 * a * c)) / (2 * a)) / beta
    loss = observed(name, reference, share, level=-1.5, beta=beta, **more)
    torch.testing.assert_close(descend(loss, reference, 8.0), expected, rtol=0, atol=1e-8)
    even = share == 0.5
    torch.testing.assert_close(expected[even], ((plus - minus) / 2)[even])

    def tied(delta: Tensor) -> Tensor:
        right = loss_of(name, delta, reference, level=-1.5, beta=beta, **more)
        return share * right + (1 - share) * opposite(right)

    torch.testing.assert_close(descend(tied, reference, 8.0), plus + logit(share) / beta, rtol=0, atol=1e-8)


def test_hypo_needs_more_than_a_majority_of_right_labels():
    reference = tensor(-4.0, -1.0, -0.2)
    needed = 2 / (3 + torch.exp(0.5 * reference))
    for shift, right in ((0.01, True), (-0.01, False)):
        found = descend(observed("hypo", reference, needed + shift, beta=0.5), reference, rate=8.0)
        assert ((found > 0) == right).all()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_targets_of_the_smooth_margin(reduction):
    """How T moves with delta_ref, for alpha of 1, below 1 and above 1."""

    def target(reference: Tensor, alpha: float) -> Tensor:
        # delta is set to a place where the loss keeps its digits; T does not depend on it.
        hyperparameters = {"beta": 1.0, "gamma": 0.5, "tau": 2.0, "alpha": alpha, "reduction": reduction}
        delta = reference.clone()
        loss = loss_of("cpo_smooth", delta, reference, **hyperparameters)
        return delta + torch.log(torch.expm1(loss))

    reference = torch.linspace(-4, 4, 81, dtype=torch.float64, requires_grad=True)
    one = target(reference, 1.0)
    floor = torch.maximum(reference, tensor(0.5)).detach()
    assert (one >= floor - 1e-9).all() and (target(reference, 0.25) >= floor - 1e-9).all()
    (slope,) = torch.autograd.grad(one.sum(), reference)
    torch.testing.assert_close(slope, torch.sigmoid(2 * (reference.detach() - 0.5)), rtol=0, atol=1e-7)
    far = tensor(-40.0)
    assert float(target(far, 0.5)) == pytest.approx(0.5 / 0.5 - -40.0 * (1 / 0.5 - 1), abs=1e-6)
    low, high = target(tensor(-4.0, 4.0), 0.25).tolist()
    assert low > high  # alpha < 1: the pairs the reference ranks most wrong get the largest targets
    assert float(target(tensor(-4.0), 2.0)) < 0  # alpha > 1: no guarantee left
    margin = target(tensor(30.0), 0.25) - 30
    assert float(margin.abs()) < 1e-9  # a right reference: dpo


def test_the_smooth_margin_sharpens_to_the_clipped_one():
    delta, reference = tensor(-2.0, -0.3, 0.1, 3.0), tensor(-3.0, -0.5, 0.4, 2.0)
    for reduction, limit in (("mean", "cpo_clip"), ("sum", "hypo")):
        settings = {"gamma": 0.0, "tau": 1e6, "alpha": 1.0, "reduction": reduction}
        sharp = loss_of("cpo_smooth", delta, reference, beta=0.8, **settings)
        torch.testing.assert_close(sharp, loss_of(limit, delta, reference, beta=0.8), rtol=0, atol=1e-6)


# --- a violated pair: delta_ref = -4, true gap 1, beta = .5, so the optimum of RLHF itself ranks it wrong (-2) --------

POPULATION = {
    0: (0.693147, -4), 1: (0.680217, -3.884471), 5: (0.642336, -3.490033), 10: (0.615426, -3.118974),
    25: (0.588380, -2.492346), 50: (0.582649, -2.134032), 100: (0.582206, -2.010625), 200: (0.582203, -2.000069),
    500: (0.582203, -2.0), 2000: (0.582203, -2.0),
}  # fmt: skip
HARD = {
    0: (0.693147, -4), 1: (0.680725, -3.95), 5: (0.634046, -3.756169), 10: (0.581906, -3.527151),
    25: (0.458936, -2.918769), 50: (0.328611, -2.111840), 100: (0.199967, -0.984091), 200: (0.106956, 0.362774),
    500: (0.042687, 2.264869), 2000: (0.010306, 5.139655),
}  # fmt: skip


def course(name: str, share: float, rate: float, steps: int) -> list[tuple[float, float]]:
    """(loss, delta) before each update and after the last."""
    reference = tensor(-4.0)
    loss, delta, seen = observed(name, reference, tensor(share), beta=0.5), reference, []
    for _ in range(steps + 1):
        point = delta.clone().requires_grad_()
        value = loss(point)
        (slope,) = torch.autograd.grad(value.sum(), point)
        seen.append((float(value.detach()), float(delta)))
        delta = delta - rate * slope
    return seen


@pytest.mark.parametrize(("share", "rate", "expected"), [(sigmoid(1.0), 1.0, POPULATION), (1.0, 0.2, HARD)])
def test_the_course_of_descent_on_a_violated_pair(share, rate, expected):
    seen = course("dpo", share, rate, max(expected))
    for step, (loss, delta) in expected.items():
        assert seen[step] == pytest.approx((loss, delta), abs=1e-6), step
    # The reference is beaten from the first step on, while the ranking stays wrong (population) or turns late (hard).
    assert all(delta > -4 for _, delta in seen[1:])
    right = [step for step, (_, delta) in enumerate(seen) if delta > 0]
    assert right[:1] == ([168] if share == 1.0 else [])
    if right:  # the loss below which the pair is ranked right: log1p(exp(beta delta_ref)), far below log 2
        assert seen[167][0] > math.log1p(math.exp(-2)) > seen[168][0]


def test_a_target_at_zero_turns_the_pair_three_times_as_soon():
    assert next(step for step, (_, delta) in enumerate(course("hypo", 1.0, 0.2, 100)) if delta > 0) == 58


def test_larger_beta_ranks_more_pairs_wrong_at_the_optimum():
    reference = tensor(-4.0, -1.5, -0.4, 0.8)
    share = torch.full_like(reference, sigmoid(1.0))
    wrong = {}
    for beta in (0.1, 0.2, 0.3, 0.5, 0.8, 2.0, 5.0):
        found = descend(observed("dpo", reference, share, beta=beta), reference, rate=2 / beta**2)
        assert (found > reference).all()
        wrong[beta] = float((found < 0).double().mean())
    assert list(wrong.values()) == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75]


def test_dpo_tends_to_a_hinge_at_the_references_margin():
    delta, reference = torch.linspace(-3, 3, 13, dtype=torch.float64), torch.full((13,), -1.0, dtype=torch.float64)
    for beta in (0.5, 5.0, 500.0):
        excess = loss_of("dpo", delta, reference, beta=beta) / beta - (reference - delta).clamp(min=0)
        assert (excess >= 0).all() and float(excess.max()) <= math.log(2) / beta + 1e-12


# --- three responses, population Bradley-Terry labels: DPO, the policy gradient and the closed form are one ----------

REWARDS = tensor(1.0, 0.0, -0.5)
REFERENCE = tensor(0.5, 0.3, 0.2)
ORDER = ((0, 1), (0, 2), (1, 2))
OPTIMUM = tensor(0.90816953, 0.07374443, 0.01808604)


def three_pairs(probabilities: Tensor) -> PairLogps:
    logs = probabilities.log()
    chosen, rejected = (torch.stack([logs[pair[side]] for pair in ORDER]) for side in (0, 1))
    return PairLogps(chosen, rejected, torch.ones(3), torch.ones(3))


def test_dpo_on_population_labels_is_the_rlhf_optimum():
    share = torch.stack([torch.sigmoid(REWARDS[w] - REWARDS[loser]) for w, loser in ORDER])
    row = OBJECTIVES["dpo"]

    def population(logits: Tensor) -> Tensor:
        policy, reference = three_pairs(logits.softmax(0)), three_pairs(REFERENCE)
        right = row.loss(policy, reference, beta=0.5).loss
        wrong = row.loss(swapped(policy), swapped(reference), beta=0.5).loss
        return (share * right + (1 - share) * wrong).mean()

    def minus_return(logits: Tensor) -> Tensor:
        policy = logits.softmax(0)
        return -(policy * (REWARDS - 0.5 * (policy.log() - REFERENCE.log()))).sum()

    trained = descend(population, REFERENCE.log(), rate=8.0).softmax(0)
    rewarded = descend(minus_return, REFERENCE.log(), rate=4.0).softmax(0)
    torch.testing.assert_close(trained, OPTIMUM, rtol=0, atol=1e-8)
    torch.testing.assert_close(rewarded, trained, rtol=0, atol=1e-9)
    assert float(-minus_return(trained.log())) == pytest.approx(0.7015885139667837, abs=1e-12)
    assert float((trained * REWARDS).sum()) == pytest.approx(0.8991265123, abs=1e-9)
    assert float((trained * (trained / REFERENCE).log()).sum()) == pytest.approx(0.3950759968, abs=1e-9)
    assert float(population(trained.log())) == pytest.approx(0.5733673304, abs=1e-10)
    deltas = three_pairs(trained)
    expected = tensor(2.5108256238, 3.9162907319, 1.4054651081)
    torch.testing.assert_close(deltas.chosen - deltas.rejected, expected, rtol=0, atol=1e-8)


# --- the constrained optimum by multipliers -------------------------------------------------------------------------


def dual_descent(reference: Tensor, share: Tensor, beta: float, margin: float, eta: float) -> tuple[Tensor, Tensor]:
    """(delta, multiplier) where gradient steps on delta and the objective's own multiplier steps have both settled."""
    row, delta = OBJECTIVES["cpo_dual"], reference.clone()
    state = {"multiplier": torch.zeros_like(reference)}
    for _ in range(3000):
        point = delta.clone().requires_grad_()
        out = row.loss(pairs(point), pairs(reference), state=state, beta=beta, margin=margin, eta=eta)
        loss = share * out.loss + (1 - share) * opposite(out.loss)
        (slope,) = torch.autograd.grad(loss.sum(), point)
        moved = max(float(slope.abs().max()), float((out.state["multiplier"] - state["multiplier"]).abs().max()))
        delta, state = delta - 2 / beta**2 * slope, {"multiplier": out.state["multiplier"].detach()}
        if moved < 1e-12:
            return delta, state["multiplier"]
    raise AssertionError("the multipliers did not settle")


def test_multipliers_settle_at_the_constrained_optimum():
    delta, multiplier = dual_descent(tensor(-4.0), tensor(sigmoid(1.0)), beta=0.5, margin=0.0, eta=0.1)
    assert float(multiplier) == pytest.approx(1.0, abs=1e-8)
    assert float(delta) == pytest.approx(0.0, abs=1e-8)
    reference, share = tensor(-4.0, -1.0, 0.0, 2.0).repeat_interleave(3), tensor(0.55, 0.75, 0.9).repeat(4)
    delta, multiplier = dual_descent(reference, share, beta=0.5, margin=0.7, eta=0.05)
    wanted = (0.5 * (0.7 - reference) - logit(share)).clamp(min=0)
    assert (wanted == 0).any() and (wanted > 0).any()
    torch.testing.assert_close(multiplier, wanted, rtol=0, atol=1e-8)
    torch.testing.assert_close(delta, (reference + logit(share) / 0.5).clamp(min=0.7), rtol=0, atol=1e-8)


def test_exact_rlhf_under_the_linear_constraint_has_half_that_multiplier():
    """max E r - beta KL + lam (pi_w - e^m pi_l): 0.5 here, (1 + e^m) times smaller than the loss's multiplier of 1."""
    reference, reward, beta = torch.log_softmax(tensor(-4.0, 0.0), 0), tensor(1.0, 0.0), 0.5
    multiplier = torch.zeros((), dtype=torch.float64)
    for _ in range(400):
        shaped = reward + multiplier * tensor(1.0, -1.0)
        policy = torch.softmax(reference + shaped / beta, 0)  # the maximiser for this multiplier
        multiplier = (multiplier - 0.3 * (policy[0] - policy[1])).clamp(min=0)
    assert float(multiplier) == pytest.approx(0.5, abs=1e-9)
    assert float(policy[0] - policy[1]) == pytest.approx(0.0, abs=1e-9)
    _, of_loss = dual_descent(tensor(-4.0), tensor(sigmoid(1.0)), beta=beta, margin=0.0, eta=0.1)
    assert float(of_loss) == pytest.approx(2 * float(multiplier), abs=1e-8)


@pytest.mark.parametrize(("eta", "settles"), [(0.9, True), (1.1, False)])
def test_the_dual_step_has_to_stay_below_twice_beta(eta, settles):
    """delta is put at its inner optimum before each visit; beta is 0.5 and the multiplier's fixed point 1."""
    reference, row = tensor(-4.0), OBJECTIVES["cpo_dual"]
    state = {"multiplier": tensor(0.999)}
    for _ in range(200):
        best = reference + (1.0 + state["multiplier"]) / 0.5
        out = row.loss(pairs(best), pairs(reference), state=state, beta=0.5, margin=0.0, eta=eta)
        state = {"multiplier": out.state["multiplier"]}
    distance = abs(float(state["multiplier"]) - 1)
    assert distance < 1e-9 if settles else distance > 0.05
