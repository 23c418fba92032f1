"""What evaluation stores of every pair: pulls against closed forms, CHES and gradients against plain transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.evaluation.probes import gradient_products
from harness.metrics import records as r
from harness.metrics import targets
from harness.metrics.distributions import sigmoid
from harness.metrics.gradients import gradient_columns
from harness.metrics.hidden_similarity import ches_columns
from harness.metrics.margin_columns import log_ratio_margin
from harness.models.architecture import skeleton
from harness.models.lane_model import build_lanes, parameter_shapes, unflatten
from harness.models.reference_logps import pair_keys, score_responses
from harness.objectives import OBJECTIVES
from harness.training.loop import start, train
from harness.types import PairLogps, TrainingSpec
from tests.objectives.cases import NAMES
from tests.training.worlds import ARCHITECTURE, CPU, corpus, lane, pack, world

STEPS = TrainingSpec(steps=3, batch_size=8, learning_rate=3e-3, warmup_steps=1)
CLOSED = [
    ("dpo", {"beta": 2.0}), ("ln_dpo", {"beta": 5.0}), ("hypo", {"beta": 2.0}), ("cpo_clip", {"beta": 2.5}),
    ("cpo_smooth", {"beta": 2.5}), ("cpo_smooth", {"beta": 2.0, "reduction": "sum"}), ("cpo_eq17", {"beta": 2.5}),
    ("ecpo_released", {"beta": 2.5}), ("simpo", {"beta": 2.5}), ("contrastive_cpo", {"beta": 0.5, "lam": 0.0}),
    ("rdpo_length", {"beta": 0.5}), ("cdpo", {"beta": 0.5, "eps": 0.2}), ("robust_dpo", {"beta": 0.5, "eps": 0.2}),
    ("hinge", {"beta": 0.2}), ("ipo", {"beta": 0.3}), ("cpo_dual", {"beta": 0.5}),
]  # fmt: skip


def last_records(names):
    lanes = [lane(str(i), name, given, training=STEPS, flip=0.2) for i, (name, given) in enumerate(names)]
    run = start(pack(lanes, checkpoints=(0, 3)), CPU)
    return lanes, [record for record in train(run) if record.step == 3]


def closed_form(objective, columns, hp):
    """-d loss / d delta (n,): beta sigmoid(-beta slack) for logistic margin losses, and four derivatives."""
    beta, eps = hp["beta"], hp.get("eps", 0.0)
    moved = log_ratio_margin(targets.in_reduction(objective, columns, hp))
    if objective == "hinge":
        return np.where(beta * moved < 1, float(beta), 0.0)
    if objective == "ipo":
        return 2 * (1 / (2 * beta) - moved)
    if objective == "cdpo":
        return beta * ((1 - eps) * sigmoid(-beta * moved) - eps * sigmoid(beta * moved))
    if objective == "robust_dpo":
        return beta * ((1 - eps) * sigmoid(-beta * moved) + eps * sigmoid(beta * moved)) / (1 - 2 * eps)
    return beta * sigmoid(-beta * targets.slack(objective, columns, hp))


def test_pulls_are_the_closed_forms():
    """The recorded pull at either side is -d loss / d delta, per token for token-mean objectives."""
    lanes, found = last_records(CLOSED)
    for one, record in zip(lanes, found, strict=True):
        hyperparameters = dict(one.objective.hyperparameters)
        expected = closed_form(one.objective.name, record.columns, hyperparameters)
        pulls = [record.columns[name].astype(float) for name in ("grad_w", "grad_l")]
        if targets.uses_token_means(one.objective.name, hyperparameters):
            pulls = [p * record.columns[n] for p, n in zip(pulls, ("chosen_len", "rejected_len"), strict=True)]
        for pull in pulls:
            assert pull == pytest.approx(expected, rel=2e-4, abs=1e-6), one.objective.name


READY = [
    name for name in NAMES if not OBJECTIVES[name].needs and OBJECTIVES[name].tier != "internal" and name != "mixture"
]


@pytest.mark.parametrize("name", READY)
def test_every_pull_is_a_slope_of_its_base_loss(name):
    """Central differences in float64 of each pair's own base_loss along each of its two log-probs."""
    row = OBJECTIVES[name]
    rng = np.random.default_rng(3)
    side = [torch.tensor(rng.normal(-9, 2, 8)) for _ in range(4)]
    lengths = [torch.tensor(rng.integers(3, 12, 8).astype(float)) for _ in range(2)]
    reference = PairLogps(side[2], side[3], *lengths)

    def base(chosen, rejected):
        return row.loss(PairLogps(chosen, rejected, *lengths), reference).base_loss

    leaves = [s.clone().requires_grad_() for s in side[:2]]
    pulls = torch.autograd.grad(base(*leaves).sum(), leaves, allow_unused=True)
    for number, pull in enumerate(pulls):
        step = [1e-5 * (number == i) for i in range(2)]
        up, down = (base(side[0] + sign * step[0], side[1] + sign * step[1]) for sign in (1, -1))
        slope = (up - down) / 2e-5
        found = torch.zeros(8) if pull is None else pull
        assert found.numpy() == pytest.approx(slope.numpy(), rel=1e-4, abs=1e-5), name


def test_ld_dpo_is_pulled_at_whole_responses():
    """A head token moves the head and the sum: the pull is beta sigmoid(-z) whatever weight the tail has."""
    _, found = last_records([("ld_dpo", {"beta": 0.5, "alpha": 0.0}), ("dpo", {"beta": 0.5})])
    start_pull = {record.run_key: record.columns for record in found}
    assert (start_pull["0"]["grad_w"] > 0).all() and (start_pull["0"]["grad_w"] < 0.5).all()
    margin = start_pull["0"]["chosen_reward"] - start_pull["0"]["rejected_reward"]
    assert start_pull["0"]["grad_w"] == pytest.approx(0.5 / (1 + np.exp(margin)), rel=1e-4)


def hidden_sums(seed, pair):
    """Sums of last hidden states of plain transformers, from the last prompt token to the last but one."""
    model = skeleton(ARCHITECTURE)
    values = unflatten(world(seed)[0], parameter_shapes(model))
    sums = []
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])
        for response in (pair.chosen, pair.rejected):
            ids = torch.tensor([[*pair.prompt, *response]])
            states = model(ids, output_hidden_states=True).hidden_states[-1][0]
            sums.append(states[len(pair.prompt) - 1 : -1].double().sum(0).numpy())
    return sums


def test_ches_against_a_plain_forward():
    weights, pairs, _ = world(0)
    table = score_responses(ARCHITECTURE, weights, pairs, CPU)
    products = table.hidden_products(*pair_keys(pairs[:8]))
    lengths = np.array([(len(p.chosen), len(p.rejected)) for p in pairs[:8]])
    columns = ches_columns(products, lengths)
    for i, pair in enumerate(pairs[:8]):
        w, l = hidden_sums(0, pair)  # noqa: E741 - the field's names
        n, m = lengths[i]
        rounding = 64 * np.finfo(np.float32).eps * (w @ w + l @ l)  # differences of products, each rounded
        assert columns["ches"][i] == pytest.approx(w @ l - w @ w, rel=0, abs=rounding)
        assert columns["ln_ches"][i] == pytest.approx(w @ l / (n * m) - w @ w / n**2, rel=0, abs=rounding)
        assert columns["ches_turned"][i] == pytest.approx(w @ l - l @ l, rel=0, abs=rounding)
        assert columns["ln_ches_turned"][i] == pytest.approx(w @ l / (n * m) - l @ l / m**2, rel=0, abs=rounding)
    with pytest.raises(KeyError):
        table.hidden_products([pair_keys(pairs)[0][0]], ["0" * 32])


def test_products_do_not_depend_on_what_is_scored_beside_them():
    weights, pairs, _ = world(0)
    whole, part = (
        score_responses(ARCHITECTURE, weights, pairs, CPU),
        score_responses(ARCHITECTURE, weights, pairs[:3], CPU),
    )
    assert whole.hidden_products(*pair_keys(pairs[:3])) == pytest.approx(
        part.hidden_products(*pair_keys(pairs[:3])), rel=1e-5
    )


def test_gradient_products_against_autograd_on_plain_modules():
    """Two lanes of different weights: each row is that of its own plain module, a flip exchanges the sides."""
    model = build_lanes(skeleton(ARCHITECTURE), [world(1)[0], world(0)[0]], CPU)
    index = torch.arange(3).expand(2, 3)
    flipped = torch.tensor([[False, False, False], [False, True, False]])
    found = gradient_products(model, corpus((0,)), index, flipped)
    for number, seed in enumerate((1, 0)):
        plain = skeleton(ARCHITECTURE)
        values = unflatten(world(seed)[0], parameter_shapes(plain))
        with torch.no_grad():
            for name, parameter in plain.named_parameters():
                parameter.copy_(values[name])
        for i, pair in enumerate(world(0)[1][:3]):
            sides = (pair.rejected, pair.chosen) if flipped[number, i] else (pair.chosen, pair.rejected)
            gradients = []
            for response in sides:
                ids = torch.tensor([[*pair.prompt, *response]])
                logps = plain(ids).logits.log_softmax(-1)[0, len(pair.prompt) - 1 : -1]
                total = logps.gather(-1, ids[0, len(pair.prompt) :, None]).sum()
                parts = torch.autograd.grad(total, list(plain.parameters()))
                gradients.append(torch.cat([part.reshape(-1) for part in parts]).double())
            w, l = gradients  # noqa: E741
            rounding = 1e-4 * float(w.norm() * l.norm())  # w @ l is a small sum of large terms
            assert found[number, i, 0].item() == pytest.approx(float(w @ l), rel=0, abs=rounding)
            assert found[number, i, 1:].tolist() == pytest.approx([float(w @ w), float(l @ l)], rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_tabular_identities_of_the_two_gradients(seed):
    """Logits as parameters: |g_w - g_l|^2 = 2, and on its own every pair moves both sides the right way."""
    p = np.random.default_rng(seed).dirichlet(np.ones(6))
    unit = np.eye(6)
    g_w, g_l = unit[0] - p, unit[1] - p
    logits = torch.tensor(np.log(p), requires_grad=True)
    for answer, expected in ((0, g_w), (1, g_l)):
        [own] = torch.autograd.grad(logits.log_softmax(0)[answer], logits)
        assert own.numpy() == pytest.approx(expected)
    assert g_w @ g_l == pytest.approx(p @ p - p[0] - p[1]) and g_w @ g_w == pytest.approx(1 - 2 * p[0] + p @ p)
    columns = gradient_columns([[g_w @ g_l, g_w @ g_w, g_l @ g_l]], [[0.3, 0.3]], [[1, 1]], per_token=False)
    assert columns["gain_rate"] == pytest.approx([0.3 * 2]) and columns["grad_norm_w"] == pytest.approx(
        [np.linalg.norm(g_w)]
    )
    assert columns["chosen_rises"].all() and columns["rejected_falls"].all()
    assert columns["grad_cos"] == pytest.approx([g_w @ g_l / np.linalg.norm(g_w) / np.linalg.norm(g_l)])


def test_gradients_per_token_and_without_any():
    per_token = gradient_columns([[6.0, 4.0, 36.0]], [[0.5 / 2, 0.5 / 4]], [[2, 4]], per_token=True)
    # u = g_w / 2, v = g_l / 4: <u, v> = .75, |u|^2 = 1, |v|^2 = 2.25, weight .5: rate .5 |u - v|^2 = .875
    assert per_token["gain_rate"] == pytest.approx([0.5 * (1 + 2.25 - 1.5)])
    assert per_token["chosen_rises"].tolist() == [True] and per_token["rejected_falls"].tolist() == [True]
    assert gradient_columns([[6.0, 4.0, 36.0]], [[0.5, 0.5]], [[2, 4]], per_token=False)["chosen_rises"].tolist() == [
        False
    ]
    still = gradient_columns([[0.0, 0.0, 1.0]], [[0.5, 0.5]], [[1, 1]], per_token=False)
    assert np.isnan(still["grad_cos"][0]) and still["gain_rate"][0] == 0.5


def test_turning_a_row_turns_its_fixed_columns():
    columns = ches_columns([[1.0, 4.0, 9.0]], [[2, 3]]) | {"grad_w": np.ones(1), "base_loss": np.ones(1)}
    turned = r.turned(columns, np.array([True]))
    assert turned["ches"] == columns["ches_turned"] and turned["ln_ches_turned"] == columns["ln_ches"]
    assert "grad_w" not in turned and "base_loss" not in turned
