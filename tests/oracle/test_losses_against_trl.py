"""Every objective that TRL has, against TRL's own loss code on the same log-probs: value and gradient.

TRL's methods are called on crafted token log-probs in place of a model's, so nothing of their arithmetic is copied.
Where the two are meant to part, the difference itself is asserted.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from harness.objectives import OBJECTIVES, resolve
from harness.types import InputError, PairLogps

pytestmark = pytest.mark.oracle

PAIRS, TOKENS = 7, 12


@dataclass(frozen=True)
class Batch:
    """Token log-probs of both models, chosen rows above rejected rows: `(2 PAIRS, TOKENS)`, zero beyond `lengths`."""

    policy: Tensor
    reference: Tensor
    lengths: Tensor
    collision: Tensor  # log sum_v pi(v)^2 a token
    mismatched: Tensor  # (2, PAIRS): policy and reference log-probs of mismatched responses

    @property
    def mask(self) -> Tensor:
        return torch.arange(TOKENS) < self.lengths[:, None]


def crafted(seed: int, dtype: torch.dtype = torch.float64, lengths: int | None = None) -> Batch:
    source = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=source, dtype=torch.float64).to(dtype)

    counts = torch.randint(1, TOKENS + 1, (2 * PAIRS,), generator=source)
    if lengths is not None:
        counts = torch.full_like(counts, lengths)
    mask = torch.arange(TOKENS) < counts[:, None]
    policy, reference, collision = (-(0.05 + scale * draw(2 * PAIRS, TOKENS)) * mask for scale in (2.0, 2.0, 1.0))
    mismatched = -8 * draw(2, PAIRS) + torch.tensor([[1.5], [0.0]], dtype=dtype)
    return Batch(policy.requires_grad_(), reference, counts, collision, mismatched)


def logps(batch: Batch, tokens: Tensor, mismatched: Tensor, needs: tuple[str, ...]) -> PairLogps:
    """The log-probs as the harness hands them to an objective, with what its row needs."""
    counts = batch.lengths.view(2, PAIRS)
    shorter = counts.amin(0).repeat(2)[:, None]
    weights = ((tokens - batch.collision) * batch.mask).sum(1) / batch.lengths
    known = {"mismatched": mismatched}
    for name, values in (
        ("head", (tokens * (torch.arange(TOKENS) < shorter)).sum(1)),
        ("log_weight", weights),
    ):
        known[f"chosen_{name}"], known[f"rejected_{name}"] = values.view(2, PAIRS)
    sums = tokens.sum(1).view(2, PAIRS)
    return PairLogps(sums[0], sums[1], counts[0], counts[1], {key: known[key] for key in needs})


def ours(name: str, batch: Batch, **hyperparameters: object):
    row = OBJECTIVES[name]
    policy = logps(batch, batch.policy, batch.mismatched[0], row.needs)
    return row.loss(policy, logps(batch, batch.reference, batch.mismatched[1], row.needs), **hyperparameters)


class Tokens(torch.nn.Module):
    """A model whose forward pass is a table of token log-probs."""

    is_gradient_checkpointing = False

    def __init__(self, tokens: Tensor, collision: Tensor) -> None:
        super().__init__()
        self.outputs = SimpleNamespace(
            log_probs=tokens,
            log_sum_sq_probs=collision,
            entropy=torch.zeros_like(tokens),
            mean_logits=torch.zeros_like(tokens),
            is_top1=torch.zeros_like(tokens, dtype=torch.bool),
        )

    def forward(self, **_: object) -> SimpleNamespace:
        return self.outputs


def trainer(batch: Batch, **settings: object) -> SimpleNamespace:
    """What TRL's loss methods read of their trainer, on one process."""
    gather = SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)
    model = Tokens(batch.policy, batch.collision).eval()
    usual = {
        "model": model,
        "ref_model": Tokens(batch.reference, batch.collision),
        "accelerator": gather,
        "_metrics": {"eval": defaultdict(list)},
        "_total_train_tokens": 0,
        "args": SimpleNamespace(gradient_checkpointing_kwargs=None, discopop_tau=settings.pop("discopop_tau", 0.05)),
        "precompute_ref_logps": False,
        "aux_loss_enabled": False,
        "ld_alpha": None,
        "label_smoothing": 0.0,
        "f_divergence_type": "reverse_kl",
        "f_alpha_divergence_coef": 0.5,
        "use_weighting": False,
        "loss_weights": [1.0],
    }
    return SimpleNamespace(**(usual | settings))


def trl_dpo(batch: Batch, loss_type: str | list[str], **settings: object) -> tuple[Tensor, dict[str, float]]:
    """`DPOTrainer`'s loss of the batch, and the metrics that it would log."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.trainer.dpo_trainer import DPOTrainer
    types = [loss_type] if isinstance(loss_type, str) else loss_type
    self = trainer(batch, loss_types=types, **settings)
    mask = torch.cat([torch.zeros(2 * PAIRS, 1, dtype=torch.long), batch.mask.long()], dim=1)
    inputs = {"input_ids": mask, "attention_mask": torch.ones_like(mask), "completion_mask": mask}
    loss = DPOTrainer._compute_loss(self, self.model, inputs, False)
    return loss, {name: values[-1] for name, values in self._metrics["eval"].items() if name != "num_tokens"}


def same(mine: Tensor, theirs: Tensor, batch: Batch, tolerance: float = 1e-11) -> None:
    """Equal values, and equal gradients for every token."""
    torch.testing.assert_close(mine.detach(), theirs.detach(), rtol=tolerance, atol=tolerance, check_dtype=False)
    # Padding is no token: whether a sum runs over its zeros is of no account.
    one, other = (torch.autograd.grad(value, batch.policy)[0] * batch.mask for value in (mine, theirs))
    assert other.abs().max() > 0
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


DPO_CASES = [
    ("dpo", {"beta": 0.1}, "sigmoid", {}),
    ("dpo", {"beta": 2.0}, "sigmoid", {}),
    ("robust_dpo", {"beta": 0.3, "eps": 0.2}, "robust", {"label_smoothing": 0.2}),
    ("ipo", {"beta": 0.5, "length_average": True}, "ipo", {}),
    ("hinge", {"beta": 0.3}, "hinge", {}),
    ("nca", {"beta": 0.1}, "nca_pair", {}),
    ("bco", {"beta": 0.2}, "bco_pair", {}),
    ("sppo", {"beta": 0.05}, "sppo_hard", {}),
    ("aot", {"beta": 0.3, "eps": 0.0}, "aot", {}),
    ("aot", {"beta": 0.3, "eps": 0.1}, "aot", {"label_smoothing": 0.1}),
    ("aot_unpaired", {"beta": 0.3, "eps": 0.1}, "aot_unpaired", {"label_smoothing": 0.1}),
    ("apo_zero", {"beta": 0.2}, "apo_zero", {}),
    ("apo_down", {"beta": 0.2}, "apo_down", {}),
    ("discopop", {"beta": 0.1, "tau": 0.05}, "discopop", {}),
    ("discopop", {"beta": 0.1, "tau": 0.5}, "discopop", {"discopop_tau": 0.5}),
    ("ln_dpo", {"beta": 5.0}, "sigmoid_norm", {}),
    ("fdpo_forward_kl", {"beta": 0.1}, "sigmoid", {"f_divergence_type": "forward_kl"}),
    ("fdpo_js", {"beta": 0.1}, "sigmoid", {"f_divergence_type": "js_divergence"}),
    ("wpo", {"beta": 0.1}, "sigmoid", {"use_weighting": True}),
    ("ld_dpo", {"beta": 0.1, "alpha": 0.3}, "sigmoid", {"ld_alpha": 0.3}),
    ("ld_dpo", {"beta": 0.1, "alpha": 0.0}, "sigmoid", {"ld_alpha": 0.0}),
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("name", "hyperparameters", "loss_type", "settings"), DPO_CASES)
def test_value_and_gradient_of_dpo_trainer(name, hyperparameters, loss_type, settings, seed):
    batch = crafted(seed)
    theirs, _ = trl_dpo(batch, loss_type, beta=hyperparameters["beta"], **settings)
    same(ours(name, batch, **hyperparameters).loss.mean(), theirs, batch)


@pytest.mark.parametrize("eps", [1e-3, 0.2])
def test_exo(eps):
    batch = crafted(2)
    theirs, _ = trl_dpo(batch, "exo_pair", beta=0.3, label_smoothing=eps)
    # TRL holds its label smoothing as a float32 tensor.
    same(ours("exo", batch, beta=0.3, eps=eps).loss.mean(), theirs, batch, tolerance=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.8])
def test_alpha_divergence_has_the_complementary_coefficient(alpha):
    batch = crafted(3, torch.float32)
    mine = ours("fdpo_alpha", batch, beta=0.1, alpha=alpha).loss.mean()
    theirs, _ = trl_dpo(
        batch, "sigmoid", beta=0.1, f_divergence_type="alpha_divergence", f_alpha_divergence_coef=1 - alpha
    )
    same(mine, theirs, batch, tolerance=2e-5)
    literal, _ = trl_dpo(
        batch, "sigmoid", beta=0.1, f_divergence_type="alpha_divergence", f_alpha_divergence_coef=alpha
    )
    assert (abs(float(literal.detach() - mine.detach())) > 1e-3) == (alpha != 0.5)


def test_alpha_divergence_of_trl_knows_no_float64():
    batch = crafted(3)
    with pytest.raises(KeyError):
        trl_dpo(batch, "sigmoid", beta=0.1, f_divergence_type="alpha_divergence")
    assert torch.isfinite(ours("fdpo_alpha", batch, beta=0.1, alpha=0.5).loss).all()


def test_a_mixture_is_trls_list_of_weighted_losses():
    batch = crafted(4)
    components = [{"name": "dpo", "weight": 0.8}, {"name": "nca", "weight": 0.3}, {"name": "hinge", "weight": 0.1}]
    spec = resolve("mixture", {"mixture": components, "beta": 0.2})
    mine = OBJECTIVES["mixture"].loss(
        logps(batch, batch.policy, batch.mismatched[0], ()),
        logps(batch, batch.reference, batch.mismatched[1], ()),
        **dict(spec.hyperparameters),
    )
    theirs, _ = trl_dpo(batch, ["sigmoid", "nca_pair", "hinge"], loss_weights=[0.8, 0.3, 0.1], beta=0.2)
    same(mine.loss.mean(), theirs, batch)


def test_label_smoothing_of_sigmoid_is_dead_in_trl_while_cdpo_smooths():
    batch = crafted(5)
    plain, _ = trl_dpo(batch, "sigmoid", beta=0.5)
    smoothed, _ = trl_dpo(batch, "sigmoid", beta=0.5, label_smoothing=0.2)
    assert smoothed == plain
    same(ours("cdpo", batch, beta=0.5, eps=0.0).loss.mean(), plain, batch)
    assert abs(float((ours("cdpo", batch, beta=0.5, eps=0.2).loss.mean() - plain).detach())) > 1e-3
    with pytest.raises(InputError, match="eps"):
        ours("dpo", batch, beta=0.5, eps=0.2)


def test_ipo_of_trl_is_the_length_averaged_one_and_it_logs_summed_rewards():
    batch = crafted(6)
    theirs, logged = trl_dpo(batch, "ipo", beta=0.5)
    summed = ours("ipo", batch, beta=0.5, length_average=False)
    averaged = ours("ipo", batch, beta=0.5, length_average=True)
    assert abs(float((summed.loss.mean() - theirs).detach())) > 1
    margin = (averaged.chosen_reward - averaged.rejected_reward).mean()
    assert abs(float(margin.detach()) - logged["rewards/margins"]) > 0.1  # TRL logs what it does not optimise
    margin = (summed.chosen_reward - summed.rejected_reward).mean()
    assert float(margin.detach()) == pytest.approx(logged["rewards/margins"], rel=1e-12)


def test_rewards_and_accuracies_are_trls():
    batch = crafted(7)
    _, logged = trl_dpo(batch, "sigmoid", beta=0.3)
    mine = ours("dpo", batch, beta=0.3)
    assert float(mine.chosen_reward.mean()) == pytest.approx(logged["rewards/chosen"], rel=1e-12)
    assert float(mine.rejected_reward.mean()) == pytest.approx(logged["rewards/rejected"], rel=1e-12)
    accuracy = (mine.chosen_reward > mine.rejected_reward).double().mean()
    assert float(accuracy) == pytest.approx(logged["rewards/accuracies"], abs=1e-6)


def test_bco_moves_its_shift_where_trls_pair_form_has_none():
    batch = crafted(8)
    first = ours("bco", batch, beta=0.5)
    row = OBJECTIVES["bco"]
    policy, reference = (
        logps(batch, batch.policy, batch.mismatched[0], ()),
        logps(batch, batch.reference, batch.mismatched[1], ()),
    )
    second = row.loss(policy, reference, state=first.state, beta=0.5)
    theirs, _ = trl_dpo(batch, "bco_pair", beta=0.5)
    same(first.loss.mean(), theirs, batch)
    assert abs(float((second.loss.mean() - theirs).detach())) > 1e-4


def test_likelihood_is_a_mean_over_sequences_where_trls_is_over_tokens():
    level = crafted(9, lengths=5)
    theirs, _ = trl_dpo(level, "sft", beta=0.1)
    same(ours("nll", level).loss.mean(), theirs, level)
    ragged = crafted(9)
    theirs, _ = trl_dpo(ragged, "sft", beta=0.1)
    mine = ours("nll", ragged).loss
    assert abs(float((mine.mean() - theirs).detach())) > 1e-3
    tokens = ragged.lengths[:PAIRS]
    torch.testing.assert_close((mine * tokens).sum() / tokens.sum(), theirs)


def test_where_trl_overflows_the_harness_stays_finite():
    batch = crafted(10, torch.float32)
    far = Batch(
        (batch.policy.detach() * 40).requires_grad_(), batch.reference, batch.lengths, batch.collision, batch.mismatched
    )
    for name, loss_type, settings in (
        ("discopop", "discopop", {}),
        ("fdpo_forward_kl", "sigmoid", {"f_divergence_type": "forward_kl"}),
    ):
        theirs, _ = trl_dpo(far, loss_type, beta=1.0, **settings)
        assert not torch.isfinite(theirs)
        assert torch.isfinite(ours(name, far, beta=1.0).loss).all()
    broken, _ = trl_dpo(batch, "robust", beta=0.1, label_smoothing=0.5)
    assert not torch.isfinite(broken)
    for name, eps in (("robust_dpo", 0.5), ("exo", 0.0)):
        with pytest.raises(InputError, match="eps"):
            resolve(name, {"eps": eps})


def trl_cpo(batch: Batch, averaged: bool, **settings: object) -> Tensor:
    """`CPOTrainer`'s loss of the batch with its NLL term, which is a mean over the batch's chosen tokens."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.experimental.cpo.cpo_trainer import CPOTrainer
    usual: dict[str, object] = {"loss_type": "sigmoid", "alpha": 0.0, "simpo_gamma": 0.5, "cpo_alpha": 1.0}
    self = trainer(batch, **(usual | settings))
    counts = batch.lengths if averaged else torch.ones_like(batch.lengths)
    chosen, rejected = (batch.policy.sum(1) / counts).view(2, PAIRS)
    nll = -batch.policy[:PAIRS].sum() / batch.lengths[:PAIRS].sum()
    self.concatenated_forward = lambda model, inputs: (chosen, rejected, torch.zeros(1), torch.zeros(1), nll)
    self.cpo_loss = lambda *args: CPOTrainer.cpo_loss(self, *args)
    loss, _ = CPOTrainer.get_batch_loss_metrics(self, None, {}, "eval")
    return loss


def test_contrastive_cpo():
    level = crafted(11, lengths=6)
    same(ours("contrastive_cpo", level, beta=0.1, lam=1.0).loss.mean(), trl_cpo(level, False, beta=0.1), level)
    ragged = crafted(11)
    none = ours("contrastive_cpo", ragged, beta=0.1, lam=0.0).loss.mean()
    same(none, trl_cpo(ragged, False, beta=0.1, cpo_alpha=0.0), ragged)
    # Ragged batches: ours is the mean of token means, TRL's the mean over all tokens of the batch.
    mine = ours("contrastive_cpo", ragged, beta=0.1, lam=1.0).loss.mean()
    assert abs(float((mine - trl_cpo(ragged, False, beta=0.1)).detach())) > 1e-3


def test_simpo_and_alphapo_are_cpo_losses_without_the_likelihood_term():
    batch = crafted(12)
    mine = ours("simpo", batch, beta=2.0, gamma=1.0).loss.mean()
    settings = {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.0}
    same(mine, trl_cpo(batch, True, cpo_alpha=0.0, **settings), batch)
    usual = trl_cpo(batch, True, **settings)  # TRL's default weight of the term is 1
    assert float((usual - mine).detach()) > 0.1
    mine = ours("alphapo", batch, beta=2.0, gamma=1.0, alpha=0.25).loss.mean()
    same(mine, trl_cpo(batch, True, cpo_alpha=0.0, alpha=0.25, **settings), batch)


def test_orpo_odds_ratio_and_its_likelihood_over_the_response_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.experimental.orpo.orpo_trainer import ORPOTrainer
    batch = crafted(13, torch.float32)
    self = trainer(batch, beta=0.1)
    means = (batch.policy.sum(1) / batch.lengths).view(2, PAIRS)
    losses, chosen, rejected, *_ = ORPOTrainer.odds_ratio_loss(self, means[0], means[1])
    mine = ours("orpo", batch, lam=0.1)
    likelihood = ours("nll", batch).loss.mean()
    same(mine.loss.mean(), likelihood - losses.mean(), batch, tolerance=1e-5)
    torch.testing.assert_close(mine.chosen_reward.detach(), chosen)
    torch.testing.assert_close(mine.rejected_reward.detach(), rejected)


@pytest.mark.parametrize("drift", [0.0, 40.0])
def test_kto(drift):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.trainer.kto_trainer import KTOTrainer
    batch = crafted(14)
    shifted = batch.mismatched + torch.tensor([[drift - 20], [0.0]])
    batch = Batch(batch.policy, batch.reference, batch.lengths, batch.collision, shifted)
    self = trainer(batch, loss_type="kto", beta=0.1, calculate_KL=True, desirable_weight=1.2, undesirable_weight=0.7)
    estimates = {id(self.model): shifted[0], id(self.ref_model): shifted[1]}
    self._compute_kl_logps = lambda model, _: estimates[id(model)]
    mask = torch.cat([torch.zeros(2 * PAIRS, 1, dtype=torch.long), batch.mask.long()], dim=1)
    labels = torch.tensor([True] * PAIRS + [False] * PAIRS)
    inputs = {"input_ids": mask, "attention_mask": torch.ones_like(mask), "completion_mask": mask, "label": labels}
    theirs = KTOTrainer._compute_loss(self, self.model, inputs, False)
    assert (self._metrics["eval"]["kl"][0] > 0) == (drift > 0)  # both sides of the clamp at 0 are met
    mine = ours("kto", batch, beta=0.1, desirable_weight=1.2, undesirable_weight=0.7)
    same(mine.loss.mean(), theirs, batch)


def test_apo_zero_of_unpaired_kto_is_half_of_the_paired_one():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.trainer.kto_trainer import KTOTrainer
    batch = crafted(15)
    self = trainer(
        batch, loss_type="apo_zero_unpaired", beta=0.1, calculate_KL=False, desirable_weight=1.0, undesirable_weight=1.0
    )
    self._compute_kl_logps = lambda *_: None
    mask = torch.cat([torch.zeros(2 * PAIRS, 1, dtype=torch.long), batch.mask.long()], dim=1)
    labels = torch.tensor([True] * PAIRS + [False] * PAIRS)
    inputs = {"input_ids": mask, "attention_mask": torch.ones_like(mask), "completion_mask": mask, "label": labels}
    theirs = KTOTrainer._compute_loss(self, self.model, inputs, False)
    same(ours("apo_zero", batch, beta=0.1).loss.mean() / 2, theirs, batch)
