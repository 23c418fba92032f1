"""Responses behind a prompt that is read once: transformers' numbers, and no bit of what is scored beside them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.data.rows import TokenisedPair
from harness.models import responses as own
from harness.models.architecture import Architecture, skeleton
from harness.models.folder import Source, start_weights
from harness.models.lane_model import LaneModel, build_lanes
from harness.models.reference_logps import response_key, score_responses
from harness.models.responses import Response, score
from harness.models.shapes import rows_at_once
from harness.types import LoraSpec
from tests.models.families import CONFIGS, OTHERS, write
from tests.models.test_families import by_transformers, plain

CPU = torch.device("cpu")
LORA = LoraSpec(rank=4, alpha=8.0)


def texts(count: int = 12, seed: int = 0) -> list[Response]:
    """Responses of 1 to 40 tokens, two or three to a prompt of 1 to 50."""
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(3, 280, n).astype(np.int32) for n in (1, 2, 9, 10, 17, 50)]
    lengths = [1, 40, *rng.integers(2, 30, count)]
    return [(prompts[i % len(prompts)], rng.integers(3, 280, n).astype(np.int32)) for i, n in enumerate(lengths)]


def model_of(family: str, folder, lora: LoraSpec | None, lanes: int) -> tuple[Source, list[torch.Tensor], LaneModel]:
    attention = "eager" if family == "gemma2" else "sdpa"
    source = Source(str(write(family, folder / family)), family, lora=lora, attention=attention)
    rows = [start_weights(source, seed) for seed in range(lanes)]
    rows = [row + 0.02 * torch.randn(len(row), generator=torch.Generator().manual_seed(7)) for row in rows]
    return source, rows, build_lanes(skeleton(Architecture(0, 32, 2, 4, 48, 0, source=source)), rows, CPU)


@pytest.mark.parametrize("family", [*CONFIGS, *OTHERS])
@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
def test_log_probs_are_those_of_transformers(family, lora, tmp_path):
    source, rows, model = model_of(family, tmp_path, lora, 2)
    wanted = texts()
    for lane, scored in enumerate(score(model, [wanted, wanted[::-1]])):
        theirs = plain(source, rows[lane])
        for (prompt, response), found in zip(wanted[:: 1 - 2 * lane], scored, strict=True):
            assert len(found.logps) == len(response)
            pair = TokenisedPair("", prompt, response, response)
            with torch.no_grad():
                expected = by_transformers(theirs, pair, "chosen").item()
            assert found.logps.sum() == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def made(request, tmp_path_factory) -> tuple[Source, list[torch.Tensor], LaneModel]:
    return model_of(request.param, tmp_path_factory.mktemp("responses"), LORA, 3)


def equal(one: own.Scored, other: own.Scored) -> bool:
    return np.array_equal(one.logps, other.logps) and np.array_equal(one.state, other.state)


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_no_bit_depends_on_what_is_scored_beside(made, rows, monkeypatch):
    """Whatever the number of rows a forward: other order, a subset, other responses to a prompt, other lanes."""
    _, weights, model = made
    monkeypatch.setattr(own, "rows_at_once", lambda *_: rows)
    wanted, foreign = texts(), texts(20, seed=1)
    alone = build_lanes(skeleton(Architecture(0, 32, 2, 4, 48, 0, source=made[0])), weights[1:2], CPU)
    [whole] = score(alone, [wanted])
    [backwards] = score(alone, [wanted[::-1]])
    [some] = score(alone, [wanted[2::3]])
    _, beside, _ = score(model, [foreign, wanted, []])
    [mixed] = score(alone, [foreign + wanted])
    monkeypatch.setattr(own, "HELD", 1)  # one prompt at a time
    [single] = score(alone, [wanted])
    for other in (backwards[::-1], beside, mixed[len(foreign) :], single):
        assert all(map(equal, whole, other))
    assert all(map(equal, whole[2::3], some))


def test_a_stored_value_depends_on_its_row_alone(made):
    source, weights, _ = made
    architecture = Architecture(0, 32, 2, 4, 48, 0, source=source)
    wanted = texts()
    pairs = [TokenisedPair(str(i), *wanted[i], wanted[i + 6][1]) for i in range(6)]
    whole = score_responses(architecture, weights[0], pairs, CPU, ladder=True)
    some = score_responses(architecture, weights[0], pairs[4:1:-1], CPU, ladder=True)
    keys = [response_key(*one) for pair in pairs[2:5] for one in ((pair.prompt, pair.chosen),)]
    assert np.array_equal(whole.sums(keys), some.sums(keys))
    one_width = score_responses(architecture, weights[0], pairs, CPU)
    assert whole.keys == one_width.keys and np.array_equal(whole.pairs, one_width.pairs)
    assert np.allclose(whole.values, one_width.values, rtol=1e-4, atol=1e-5)
    assert np.allclose(whole.products, one_width.products, rtol=1e-4)


def test_large_models_read_few_rows_at_once(made, monkeypatch):
    model = made[2]
    assert rows_at_once(model, 16) == 64
    monkeypatch.setitem(model.__dict__, "frozen", 134_515_008)
    assert [rows_at_once(model, width) for width in (8, 64, 96, 256, 512)] == [16, 2, 1, 1, 1]
