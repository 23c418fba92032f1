"""What a response is worth: by the lane's reward model, or by the world's own reward."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harness.rlhf.lanes import RlTraining
from harness.rlhf.rollouts import Responses, read, rewards


@torch.no_grad()
def score(run: RlTraining, responses: Responses, reference: Tensor, rows: Tensor) -> Tensor:
    """Raw rewards `(K, n)` of responses to the prompts of the pairs `rows` `(K, p)`.

    `reference` `(K, n, L)` are the responses' log-probs under the reference.
    """
    if run.scorer is None:
        return gold(run, responses, rows)
    if run.per_nat is None:
        return rewards(run.scorer, responses)
    return run.per_nat * (read(run.scorer, responses).logps - reference).sum(-1)


def gold(run: RlTraining, responses: Responses, rows: Tensor) -> Tensor:
    """The source's own reward `(K, n)`, NaN where it has none. It is judged on the host: the device waits."""
    tokens, lengths = responses.flat("tokens").cpu().numpy(), responses.flat("lengths").cpu().numpy()
    ids, real = (table[rows.repeat_interleave(responses.tokens.shape[2], 1)].cpu().numpy() for table in run.prompts)
    judged = []
    for lane, own in enumerate(run.rl_lanes):
        asked = [prompt[mask] for prompt, mask in zip(ids[lane], real[lane], strict=True)]
        judged.append(own.gold(asked, [row[:n] for row, n in zip(tokens[lane], lengths[lane], strict=True)]))
    return torch.from_numpy(np.stack(judged).astype(np.float32)).to(rows.device)
