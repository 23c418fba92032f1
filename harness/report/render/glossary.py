"""What the words of a page mean, for a reader who clicks on one."""

from __future__ import annotations

from collections.abc import Mapping

GLOSSARY: Mapping[str, str] = {
    "reference wrong": "The untrained model prefers the bad answer, here on that share of topics (the world's dial,"
    " misaligned). On your data: harness diagnose estimates it.",
    "stuck wrong": "A pair that training moved the right way and that the policy still ranks wrong. Reward accuracy"
    " counts it as right. The paper calls this the undesirable zone.",
    "Satisfied too early": "The loss is near its minimum while pairs are still misranked, so nothing pushes them"
    " further.",
    "Reversed": "The loss falls while the policy ranks fewer held-out pairs right.",
    "Memorised noise": "Wrongly labelled training pairs are ranked as their label says.",
    "reward accuracy": "Pairs whose margin grew against the reference. It says nothing of which answer is preferred.",
    "held-out pairs": "Pairs that no training saw, under their true labels.",
    "true reward": "What the world that made the data pays for an answer. Real data have no such thing.",
    "gold reward": "The score that a reward model gives an answer: the nearest that real data have to a true reward.",
    "KL": "How far the answers of the policy are from the reference's, in nats per answer.",
    "flips": "Training pairs whose chosen and rejected answers are swapped.",
    "corrected": "The interval is wider, so that all comparisons of the page together err in 5 % of sweeps.",
    "AUROC": "The probability that a wrong label is more suspect than a right one: 1 at best, .5 by chance.",
}
