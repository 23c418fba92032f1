"""Worlds with a handful of responses, where every expectation can be enumerated and every optimum written down.

`Flat`: a response is one token out of m, the policy a table of logits (P, m). `Tree`: five responses of one or two
tokens, so that token rewards, values and discounting matter. float64 throughout; K lanes stand in front.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.rlhf.algorithms import Rollout

REWARDS = torch.tensor([[1.0, 0.0, -0.5]], dtype=torch.float64)
REFERENCE = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
OPTIMUM = torch.tensor([[0.90816953, 0.07374443, 0.01808604]], dtype=torch.float64)  # beta = .5


def optimum(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """pi* = pi_ref exp(r / beta) / Z, `(..., m)`."""
    return (reference.log() + rewards / beta).softmax(-1)


def objective(policy: Tensor, reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """J = E r - beta KL(policy || reference), `(...)`."""
    return (policy * (rewards - beta * (policy / reference).log())).sum(-1)


def distance(p: Tensor, q: Tensor) -> float:
    """The largest total variation distance over prompts and lanes."""
    return float(0.5 * (p - q).abs().sum(-1).max())


@dataclass(frozen=True)
class Flat:
    """P prompts with m one-token responses: `reference` and `rewards` are `(P, m)`."""

    reference: Tensor
    rewards: Tensor

    def rollout(self, logits: Tensor, k: int, draw: torch.Generator) -> tuple[Rollout, Tensor]:
        """k samples of every prompt for lanes `logits` `(K, P, m)`, and the responses drawn `(K, P, k)`."""
        chosen = torch.multinomial(logits.detach().softmax(-1).flatten(0, 1), k, replacement=True, generator=draw)
        chosen = chosen.reshape(*logits.shape[:2], k)
        return self.of(logits, chosen), chosen

    def of(self, logits: Tensor, chosen: Tensor) -> Rollout:
        """The rollout of given responses `(K, P, k)`."""
        old = self.logps(logits.detach(), chosen)
        reference = self.logps(self.reference.log().expand_as(logits), chosen)
        scores = self.rewards.expand_as(logits).gather(-1, chosen).flatten(1)
        return Rollout(old, reference, torch.ones_like(old, dtype=torch.bool), scores, chosen.shape[-1])

    @staticmethod
    def logps(logits: Tensor, chosen: Tensor) -> Tensor:
        """Token log-probs `(K, P k, 1)`, with gradient."""
        return logits.log_softmax(-1).gather(-1, chosen).flatten(1)[..., None]


def several_prompts() -> Flat:
    """Four prompts with five responses each, references and rewards unlike."""
    draw = torch.Generator().manual_seed(5)
    reference = torch.rand(4, 5, generator=draw, dtype=torch.float64) + 0.2
    rewards = torch.randn(4, 5, generator=draw, dtype=torch.float64)
    return Flat(reference / reference.sum(-1, keepdim=True), rewards)


@dataclass(frozen=True)
class Tree:
    """Five responses: a first token 0 ends at once, 1 and 2 are each followed by one of two tokens.

    Logits `(K, 7)`: three for the first token, two after token 1, two after token 2. `rewards` `(5,)` in the order
    0, 10, 11, 20, 21.
    """

    rewards: Tensor
    reference: Tensor  # logits (7,)

    @staticmethod
    def tokens(logits: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probs `(K, 5, 2)` of the tokens of every response, and the mask `(5, 2)`."""
        first, after = logits[..., :3].log_softmax(-1), logits[..., 3:].unflatten(-1, (2, 2)).log_softmax(-1)
        none = torch.zeros_like(first[..., 0])
        rows = [torch.stack([first[..., 0], none], -1)]
        rows += [torch.stack([first[..., 1 + a], after[..., a, b]], -1) for a in (0, 1) for b in (0, 1)]
        mask = torch.tensor([[True, False], *[[True, True]] * 4])
        return torch.stack(rows, -2), mask

    def distribution(self, logits: Tensor) -> Tensor:
        """Probabilities `(K, 5)` of the responses."""
        logps, mask = self.tokens(logits)
        return torch.where(mask, logps, 0.0).sum(-1).exp()
