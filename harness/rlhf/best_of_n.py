"""Best-of-n: draw n responses of the reference, keep the one with the highest reward. Nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from harness.data.rows import CHOSEN, REJECTED
from harness.evaluation.heldout import evaluate
from harness.evaluation.samples import LaneSamples
from harness.models.logps import pair_rewards
from harness.rlhf.lanes import RlTraining
from harness.rlhf.rollouts import Responses, roll_out
from harness.rlhf.scoring import score
from harness.types import InputError, Record, Split


def best_of_n_distribution(reference: Tensor, rewards: Tensor, n: int) -> Tensor:
    """The distribution `(..., m)` of the best of n samples of `reference` `(..., m)`, probabilities that sum to 1.

    A reward level is reached with F^n - F-^n, where F = P_ref(r <= level) and F- = P_ref(r < level); within it the
    reference decides (Beirami et al., arXiv 2401.01879).
    """
    below = (rewards[..., None, :] < rewards[..., :, None]).to(reference.dtype)
    level = (rewards[..., None, :] == rewards[..., :, None]).to(reference.dtype)
    strictly = (below * reference[..., None, :]).sum(-1)
    mass = (level * reference[..., None, :]).sum(-1)
    reached = (strictly + mass).clamp(max=1.0).pow(n) - strictly.pow(n)
    return torch.where(mass > 0, reached * reference / torch.where(mass > 0, mass, 1.0), 0.0)


def kl_bound(n: int) -> float:
    """log n - (n - 1)/n, nats: KL(best-of-n || reference) is at most this, and reaches it as atoms vanish."""
    return math.log(n) - (n - 1) / n


def _groups(rewards: Tensor, n: int) -> Tensor:
    if n < 1 or rewards.shape[-1] % n:
        raise InputError(f"best_of_n: n = {n} must be at least 1 and divide the {rewards.shape[-1]} responses")
    return rewards.reshape(*rewards.shape[:-1], -1, n)


def select(rewards: Tensor, n: int) -> Tensor:
    """Positions `(K, prompts)` in 0 .. prompts x n - 1 of the best of every prompt's n samples `(K, prompts x n)`.

    The first of tied samples is taken: samples are exchangeable, so ties are split as the reference splits them.
    """
    groups = _groups(rewards, n)
    best = (groups == groups.amax(-1, keepdim=True)).to(torch.int8).argmax(-1)
    return best + n * torch.arange(groups.shape[-2], device=rewards.device)


def shares(rewards: Tensor, n: int) -> Tensor:
    """Weights `(K, prompts x n)` that sum to 1 a prompt: 1 / number of tied best samples for each of them, else 0.

    For means over what best-of-n would return: the average of `select` over the order of the samples.
    """
    groups = _groups(rewards, n)
    best = (groups == groups.amax(-1, keepdim=True)).to(rewards.dtype)
    return (best / best.sum(-1, keepdim=True)).reshape(rewards.shape)


# Constants, so that a lane's numbers depend neither on its neighbours nor on how many are asked for.
ROW = 4  # responses a row of a rollout
CHUNK = 64  # rows, or pairs, a lane and forward
TIE = 1e-4  # rewards that differ by less are one level: the same response scored twice differs by rounding


def log_density_ratio(below: Tensor, level: Tensor, n: int) -> Tensor:
    """log((F^n - F-^n) / (F - F-)) for F- = `below` > 0, F = `below` + `level`; n F^(n - 1) where the level vanishes.

    As log sum_i F^i F-^(n - 1 - i), i = 0 .. n - 1, which loses no digits where the level is small.
    """
    high, low = (below + level).clamp(max=1.0).log(), below.log()
    power = torch.arange(n, dtype=below.dtype, device=below.device)
    return (high[..., None] * power + low[..., None] * (n - 1 - power)).logsumexp(-1)


def answer_divergence(below: np.ndarray, samples: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """k1 and k3 `(m,)` of KL(best-of-n || reference), nats, for answers with `below` of `samples` rewards below theirs.

    The F of an answer is Beta(n, 1) before it is ranked and Beta(below + n, samples - below + 1) after, so both are
    posterior means: of log n + (n - 1) log F, and with its inverse exponential. Over answers their means are the bound
    log n - (n - 1)/n exactly, as they should be where no response has an atom; else they are that much too high.
    """
    c = torch.from_numpy(below.astype(np.float64))
    level = math.log(n)
    k1 = level + (n - 1) * (torch.digamma(c + n) - torch.digamma(torch.tensor(samples + n + 1.0, dtype=c.dtype)))
    inverse = torch.lgamma(c + 1) - torch.lgamma(c + n) + math.lgamma(samples + n + 1) - math.lgamma(samples + 2)
    return k1.numpy(), ((inverse - level).expm1() + k1).numpy()


@dataclass(eq=False)
class BestOfN:
    """A pack of best-of-n runs with one n. `rewards[lane]`: sorted rewards of reference samples by prompt tokens."""

    run: RlTraining
    n: int
    rewards: list[dict[bytes, np.ndarray]]

    def records(self) -> Iterator[Record]:
        """The one checkpoint there is, step 0: estimated log-probs, and as rewards those that rank the samples."""
        run = self.run
        self._estimate()
        scored = self._pair_rewards()
        number = {lane.key: i for i, lane in enumerate(run.pack.lanes)}
        places = [0] * len(run.rl_lanes)
        for record in evaluate(run.pack, run.model, None, (), 0):
            lane, count = number[record.run_key], len(record.ids)
            columns, rows = dict(record.columns), slice(places[lane], places[lane] + count)
            scalars = {} if places[lane] else {"rlhf/kl_bound": kl_bound(self.n)}
            places[lane] = rows.stop
            keys = self._keys(lane)[rows]
            for side, rewards in zip(("chosen", "rejected"), scored, strict=True):
                own = rewards[lane, rows]
                ratio = self._log_ratio(lane, keys, own, columns[f"reference_{side}"])
                columns[f"policy_{side}"] = (columns[f"policy_{side}"] + ratio).astype(np.float32)
                columns[f"{side}_reward"] = own.astype(np.float32)
            yield replace(record, columns=columns, scalars=scalars)

    def answers(self, split: str, places: Sequence[int]) -> list[LaneSamples]:
        """What best-of-n answers to the prompts of pairs `places` of a split, with estimated log-ratios.

        Its next-token entropy is not known (NaN).
        """
        parts = [next(part.rows for part in lane.evals if part.split == split) for lane in self.run.pack.lanes]
        rows = torch.stack([part[torch.tensor(places)] for part in parts]).to(self.run.model.flat.device)
        found: list[list[tuple[np.ndarray, bool, float]]] = [[] for _ in self.run.rl_lanes]
        for responses, rewards, width in self._draw(rows, self.n, 3 if split == Split.HELDOUT else 4):
            best = select(rewards.flatten(1), self.n).view(rewards.shape[:2]) % self.n
            for lane, own in enumerate(found):
                own += _picked(responses, rewards, best, lane, width)
        return [self._answer(lane, rows[lane], own) for lane, own in enumerate(found)]

    def _answer(self, lane: int, rows: Tensor, found: list[tuple[np.ndarray, bool, float]]) -> LaneSamples:
        keys = [self._key(int(row)) for row in rows]
        samples = np.stack([self.rewards[lane][key] for key in keys])
        wanted = np.array([[one[2]] for one in found])
        below = (samples < wanted - TIE).sum(1) + (np.abs(samples - wanted) <= TIE).sum(1) / 2
        k1, k3 = answer_divergence(below, samples.shape[1], self.n)
        return LaneSamples(
            responses=tuple(one[0] for one in found),
            k1=k1.astype(np.float32),
            k3=k3.astype(np.float32),
            length=np.array([len(one[0]) for one in found], np.int32),
            ended=np.array([one[1] for one in found]),
            entropy=np.full(len(found), np.nan, np.float32),
        )

    def _key(self, row: int) -> bytes:
        ids, real = self.run.prompts
        return ids[row][real[row]].cpu().numpy().tobytes()

    def _keys(self, lane: int) -> list[bytes]:
        """The prompts of a lane's evaluation rows, in order."""
        return [self._key(int(row)) for part in self.run.pack.lanes[lane].evals for row in part.rows]

    def _estimate(self) -> None:
        """Sample the reference for every prompt of the evaluation sets, each distinct one once."""
        distinct: list[list[int]] = []
        for own in self.run.pack.lanes:
            first: dict[bytes, int] = {}
            for row in (int(row) for part in own.evals for row in part.rows):
                first.setdefault(self._key(row), row)
            distinct.append(list(first.values()))
        longest = max(map(len, distinct))
        rows = torch.tensor([part + part[:1] * (longest - len(part)) for part in distinct])
        count = int(dict(self.run.pack.lanes[0].objective.hyperparameters)["estimate"])
        place = 0
        for _, rewards, width in self._draw(rows.to(self.run.model.flat.device), count, 2):
            values = np.sort(rewards[:, :width].double().cpu().numpy(), axis=-1)
            for lane, part in enumerate(distinct):
                for row, own in zip(part[place : place + width], values[lane], strict=False):
                    self.rewards[lane][self._key(row)] = own
            place += width

    def _draw(self, rows: Tensor, count: int, purpose: int) -> Iterator[tuple[Responses, Tensor, int]]:
        """`count` samples of the reference to the prompts of the corpus rows `rows` `(K, U)`, a chunk at a time.

        Yields the responses, their rewards `(K, U', count)`, and how many of the U' prompts are not filling.
        """
        run, times = self.run, -(-count // ROW)
        width = max(CHUNK // times, 1)
        streams = [np.random.Generator(np.random.Philox([own.seed, purpose])) for own in run.rl_lanes]
        for start in range(0, rows.shape[1], width):
            part = rows[:, start : start + width]
            real = part.shape[1]
            part = torch.cat([part, part[:, -1:].expand(-1, width - real)], 1).repeat_interleave(times, 1)
            size = (part.shape[1] * ROW, run.sampling.depth)
            uniforms = np.stack([stream.random(size, dtype=np.float32) for stream in streams])
            prompts, mask = (table[part] for table in run.prompts)
            drawn = torch.from_numpy(uniforms).to(part.device)
            responses = roll_out(run.reference, prompts, mask, drawn, k=ROW, eos=run.sampling.eos)
            run.generated += real * times * ROW * run.sampling.depth
            run.asked += real * times
            rewards = score(run, responses, responses.flat("logps"), part)  # the reference's own samples
            yield responses, rewards.view(len(run.rl_lanes), width, -1)[..., :count], real

    @torch.no_grad()
    def _pair_rewards(self) -> tuple[np.ndarray, np.ndarray]:
        """The rewards `(K, n)` of the chosen and of the rejected responses of all evaluation rows, as labelled."""
        run, corpus = self.run, self.run.pack.corpus
        rows = [torch.cat([part.rows for part in lane.evals]) for lane in run.pack.lanes]
        flipped = [torch.cat([part.flipped for part in lane.evals]).numpy() for lane in run.pack.lanes]
        width = -(-max(map(len, rows)) // CHUNK) * CHUNK
        index = torch.stack([torch.cat([part, part[:1].expand(width - len(part))]) for part in rows])
        if run.scorer is not None:
            chunks = torch.split(index.to(corpus.ids.device), CHUNK, 1)
            parts = [pair_rewards(run.scorer, corpus, chunk, run.per_nat) for chunk in chunks]
            sides = [torch.cat([getattr(p, side) for p in parts], 1).cpu().numpy() for side in ("chosen", "rejected")]
        else:
            sides = [
                np.stack([self._gold(lane, index[lane], side) for lane in range(len(rows))])
                for side in (CHOSEN, REJECTED)
            ]
        turned = np.stack([np.pad(part, (0, width - len(part))) for part in flipped])
        return np.where(turned, sides[1], sides[0]), np.where(turned, sides[0], sides[1])

    def _gold(self, lane: int, rows: Tensor, side: int) -> np.ndarray:
        corpus = self.run.pack.corpus
        ids, segment = (getattr(corpus, name)[rows.to(corpus.ids.device)].cpu().numpy() for name in ("ids", "segment"))
        texts = [[row[mask == part] for row, mask in zip(ids, segment, strict=True)] for part in (0, side)]
        return self.run.rl_lanes[lane].gold(texts[0], texts[1])

    def _log_ratio(self, lane: int, keys: list[bytes], rewards: np.ndarray, logps: np.ndarray) -> np.ndarray:
        """Estimated log pi_bon - log pi_ref `(n,)` of responses with these rewards and reference log-probs (nats)."""
        samples = np.stack([self.rewards[lane][key] for key in keys])
        wanted = rewards.astype(np.float64)[:, None]
        total = samples.shape[1] + 1
        below = ((samples < wanted - TIE).sum(1) + 0.5) / total
        level = np.maximum((np.abs(samples - wanted) <= TIE).sum(1) / total, np.exp(logps.astype(np.float64)))
        return log_density_ratio(torch.from_numpy(below), torch.from_numpy(level), self.n).numpy()


def start(run: RlTraining) -> BestOfN:
    """Best-of-n on a pack whose lanes share n."""
    return BestOfN(run, int(dict(run.pack.lanes[0].objective.hyperparameters)["n"]), [{} for _ in run.rl_lanes])


def _picked(
    responses: Responses, rewards: Tensor, best: Tensor, lane: int, width: int
) -> list[tuple[np.ndarray, bool, float]]:
    """(tokens, ended, reward) of the best response of each of the first `width` prompts."""
    shape = (rewards.shape[1], -1)
    lengths, ended = (getattr(responses, name)[lane].reshape(shape).cpu().numpy() for name in ("lengths", "ended"))
    tokens = responses.tokens[lane].reshape(*shape, responses.tokens.shape[-1]).cpu().numpy()
    own = rewards[lane].cpu().numpy()
    at = best[lane].cpu().numpy()
    return [(tokens[i, j, : lengths[i, j]], bool(ended[i, j]), float(own[i, j])) for i, j in enumerate(at[:width])]
