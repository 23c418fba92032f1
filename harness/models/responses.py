"""Log-probs of responses at the cost of their tokens: a prompt is read once for all its responses, then each of them.

Prompts and responses are padded to widths of the ladder (`models/shapes.py`). A response is a row of its own behind the
cached prompt, so its numbers depend on its prompt, its tokens and these two widths: on a CPU no bit depends on what
else is scored, not on other responses to the prompt and not on other lanes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.models.generate import StaticCache, causal_mask, pad_prompts
from harness.models.lane_model import LaneModel
from harness.models.logps import picked_logps
from harness.models.shapes import rows_at_once, rung

Response = tuple[NDArray[np.int32], NDArray[np.int32]]  # token ids of a prompt and of a response to it
HELD = 2**30  # bytes of keys and values, at most, of prompts whose responses are read together
NOTHING = np.zeros(0, dtype=np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Per-token log-probs `(n,)` of a response, nats, and its summed hidden state `(d,)`, both float32."""

    logps: np.ndarray
    state: np.ndarray


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A prompt and the numbers of its responses among those of its lane."""

    ids: NDArray[np.int32]
    responses: list[int]


@torch.no_grad()
def score(model: LaneModel, lanes: Sequence[Sequence[Response]]) -> list[list[Scored]]:
    """What each lane says of its own responses, none of them and no prompt empty, in their order."""
    found: list[dict[int, Scored]] = [{} for _ in lanes]
    same = [_first(lane) for lane in lanes]
    device = model.flat.device
    for held, width in _held(model, lanes, same):
        cache, real = _read_prompts(model, held, width)
        wanted = [[(slot, n) for slot, one in enumerate(own) for n in one.responses] for own in held]
        for part, depth in _by_width(model, wanted, [[len(response) for _, response in lane] for lane in lanes]):
            given = [[(slot, *lanes[lane][n]) for slot, n in own] for lane, own in enumerate(part)]
            logps, states = _read_responses(model, cache, real, given, depth, device)
            for lane, own in enumerate(part):
                for (_, n), values, state in zip(own, logps[lane], states[lane], strict=False):
                    found[lane][n] = Scored(values[: len(lanes[lane][n][1])].copy(), state.copy())
    return [[own[n] for n in first] for own, first in zip(found, same, strict=True)]


def summed(values: Sequence[np.ndarray]) -> np.ndarray:
    """The sums `(n,)` float32 of log-probs of each response, none of them empty."""
    starts = np.cumsum([0, *map(len, values[:-1])])
    return np.add.reduceat(np.concatenate(values), starts, dtype=np.float64).astype(np.float32)


def _first(responses: Sequence[Response]) -> list[int]:
    """Where the same response to the same prompt stands first, response by response."""
    first: dict[tuple[bytes, bytes], int] = {}
    return [
        first.setdefault((prompt.tobytes(), response.tobytes()), n) for n, (prompt, response) in enumerate(responses)
    ]


def _held(
    model: LaneModel, lanes: Sequence[Sequence[Response]], same: Sequence[Sequence[int]]
) -> Iterator[tuple[list[list[_Prompt]], int]]:
    """Prompts of one width, lane by lane, as many as are cached together. Their last token is read with a response."""
    prompts: list[dict[bytes, _Prompt]] = [{} for _ in lanes]
    for own, lane, first in zip(prompts, lanes, same, strict=True):
        for number in sorted(set(first)):
            prompt = lane[number][0]
            own.setdefault(prompt.tobytes(), _Prompt(prompt, [])).responses.append(number)
    config = model.model.config
    token = 8 * model.lanes * model.layers * int(config.hidden_size)  # bytes of keys and values
    for width in sorted({rung(len(one.ids) - 1) for own in prompts for one in own.values()}):
        alike = [[one for one in own.values() if rung(len(one.ids) - 1) == width] for own in prompts]
        count = max(HELD // (token * width), 1)
        for start in range(0, max(map(len, alike)), count):
            yield [own[start : start + count] for own in alike], width


def _by_width(
    model: LaneModel, wanted: Sequence[Sequence[tuple[int, int]]], lengths: Sequence[Sequence[int]]
) -> Iterator[tuple[list[list[tuple[int, int]]], int]]:
    """The responses of each lane in chunks of one width."""
    widths = [[rung(own[n]) for _, n in lane] for lane, own in zip(wanted, lengths, strict=True)]
    for width in sorted({width for own in widths for width in own}):
        alike = [
            [one for one, own in zip(lane, of_lane, strict=True) if own == width]
            for lane, of_lane in zip(wanted, widths, strict=True)
        ]
        count = rows_at_once(model, width)
        for start in range(0, max(map(len, alike)), count):
            yield [own[start : start + count] for own in alike], width


def _read_prompts(model: LaneModel, held: Sequence[Sequence[_Prompt]], width: int) -> tuple[StaticCache, Tensor]:
    """Keys and values `(K * m, ...)` of all prompts but for their last tokens, and which are real `(K, m, P)`."""
    count, lanes = rows_at_once(model, width), model.lanes
    caches, masks = [], []
    for start in range(0, max(map(len, held)), count):
        rows = [[one.ids[:-1] for one in own[start : start + count]] for own in held]
        padded = [pad_prompts(own + [NOTHING] * (count - len(own)), width) for own in rows]
        ids, real = (torch.cat([one[part] for one in padded]).to(model.flat.device) for part in (0, 1))
        cache = StaticCache(model.layers, width)
        position = (real.long().cumsum(-1) - 1).clamp(min=0)
        model.decode(ids, causal_mask(real, width), model.places(position), cache)
        caches.append(cache)
        masks.append(real.view(lanes, count, width))
    whole = StaticCache(model.layers, width)
    whole.filled = caches[0].filled

    def joined(layer: int, part: int) -> Tensor:
        kept = [cache.stored[layer][part] for cache in caches]
        return torch.cat([one.view(lanes, count, *one.shape[1:]) for one in kept], 1).flatten(0, 1)

    whole.stored = [(joined(layer, 0), joined(layer, 1)) for layer in range(model.layers)]
    return whole, torch.cat(masks, 1)


def _read_responses(
    model: LaneModel,
    cache: StaticCache,
    real: Tensor,
    given: Sequence[Sequence[tuple[int, NDArray[np.int32], NDArray[np.int32]]]],
    width: int,
    device: torch.device,
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probs `(K, b, R)` and summed hidden states `(K, b, d)` of responses: (slot of the prompt, prompt, response).

    A row reads the prompt's last token and the response but for its last: those that predict something.
    """
    lanes, count = model.lanes, rows_at_once(model, width)
    ids, target = (np.zeros((lanes, count, width), np.int64) for _ in range(2))
    slot, start, length = (np.zeros((lanes, count), np.int64) for _ in range(3))
    for lane, of_lane in enumerate(given):
        for row, (place, prompt, response) in enumerate(of_lane):
            size = len(response)
            ids[lane, row, 0], ids[lane, row, 1:size] = prompt[-1], response[:-1]
            target[lane, row, :size] = response
            slot[lane, row], start[lane, row], length[lane, row] = place, len(prompt) - 1, size
    at, first, n = (torch.from_numpy(array).to(device) for array in (slot, start, length))
    rows = (at + torch.arange(lanes, device=device)[:, None] * real.shape[1]).flatten()
    step = torch.arange(width, device=device)
    position = first[..., None] + torch.minimum(step, (n[..., None] - 1).clamp(min=0))
    own = step[:, None] >= step
    visible = torch.cat([real.flatten(0, 1)[rows][:, None].expand(-1, width, -1), own.expand(len(rows), -1, -1)], -1)
    mask = torch.zeros(visible.shape, device=device).masked_fill_(~visible, float("-inf"))[:, None]
    tokens, wanted = (torch.from_numpy(array).to(device).flatten(0, 1) for array in (ids, target))
    hidden = model.decode(tokens, mask, model.places(position.flatten(0, 1)), cache.rows(rows, width))
    logps = picked_logps(model, hidden, wanted)
    states = torch.where((step < n.flatten()[:, None])[..., None], hidden.float(), 0.0).sum(1)
    return logps.view(lanes, count, width).cpu().numpy(), states.view(lanes, count, -1).cpu().numpy()
