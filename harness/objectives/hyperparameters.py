"""Hyperparameters that several objectives share, each with its allowed range and its search range."""

from __future__ import annotations

from harness.types import Parameter

OURS = "chosen here"


def beta_range(default: float, low: float, high: float, doc: str, source: str) -> Parameter:
    """An inverse temperature: any positive number, searched over [low, high] on a log scale."""
    return Parameter(default, low=0, low_open=True, search=(low, high), prior="log", doc=doc, source=source)


_KL_STRENGTH = "KL strength, 1 / nats per sequence; larger: nearer the reference"
SUM_BETA = beta_range(0.1, 0.01, 0.5, _KL_STRENGTH, "0.1: arXiv 2305.18290, TRL; range chosen here")
MEAN_BETA = beta_range(
    2.0, 2, 10, "inverse temperature, 1 / nats per token; larger: the gradient fades at a smaller margin",
    "2, 2.5 and 10: SimPO's README and training_configs",
)  # fmt: skip
CONSTRAINED_BETA = beta_range(
    2.5, 0.1, 10, "KL strength, 1 / nats per token; larger: nearer the reference",
    "2.5: name of the released checkpoint and configs/cpo-demo.yaml of visitworld123/CPO; 0.1: its cpo/config.py",
)  # fmt: skip
EPS = Parameter(
    0.1, low=0, high=0.5, high_open=True, search=(0, 0.4), doc="flip rate that the loss assumes, not the true one",
    source="the source sets it to the data's flip rate; 0.1 chosen here",
)  # fmt: skip
RPO_ALPHA = Parameter(
    0.0, low=0, search=(0, 1), doc="weight of the token-mean NLL of the chosen response",
    source="off unless given, as in TRL; 1: arXiv 2404.19733",
)  # fmt: skip
LAM_NLL = Parameter(
    1.0, low=0, search=(0, 1), doc="weight of the token-mean NLL of the chosen response",
    source="arXiv 2401.08417; TRL's cpo_alpha",
)  # fmt: skip
GAMMA_RATIO = Parameter(
    0.5, low=0, search=(0, 1), doc="target margin, nats per token; the absolute one, `gamma`, is it times beta",
    source="0.5 to start from, 0 to 1 to search: SimPO's README",
)  # fmt: skip
QUADRATIC_BETA = beta_range(
    0.001, 0.0005, 0.1, "1/(2 beta) nats is the log-ratio each side is pulled to",
    "0.001: scripts/pipeline.sh of uclaml/SPPO, Mistral-7b-exp of Cal-DPO/Cal-DPO; 0.1: its Pythia-2.8b-exp",
)  # fmt: skip
