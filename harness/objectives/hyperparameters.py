"""Hyperparameters that several objectives share, each with its allowed range and its search range."""

from __future__ import annotations

from harness.types import Parameter


def beta_range(default: float, low: float, high: float, doc: str) -> Parameter:
    """An inverse temperature: any positive number, searched over [low, high] on a log scale."""
    return Parameter(default, low=0, low_open=True, search=(low, high), prior="log", doc=doc)


SUM_BETA = beta_range(0.1, 0.01, 0.5, "KL strength, 1 / nats per sequence; larger: nearer the reference")
MEAN_BETA = beta_range(
    2.0, 2, 10, "inverse temperature, 1 / nats per token; larger: the gradient fades at a smaller margin"
)
CONSTRAINED_BETA = beta_range(2.5, 2, 10, "KL strength, 1 / nats per token; larger: nearer the reference")
EPS = Parameter(
    0.1, low=0, high=0.5, high_open=True, search=(0, 0.4), doc="flip rate that the loss assumes, not the true one"
)
RPO_ALPHA = Parameter(0.0, low=0, search=(0, 1), doc="weight of the token-mean NLL of the chosen response")
LAM_NLL = Parameter(1.0, low=0, search=(0, 1), doc="weight of the token-mean NLL of the chosen response")
SIMPO_GAMMA = Parameter(0.6, low=0, search=(0.6, 1.0), doc="target margin in units of beta x nats per token")
QUADRATIC_BETA = beta_range(0.001, 0.0005, 0.005, "1/(2 beta) nats is the log-ratio each side is pulled to")
