"""Every family, packed: the numbers of plain transformers and peft on the same pairs, the bits of a lane alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from harness.data.rows import TokenisedPair, pack_rows
from harness.models import folder as folder_module
from harness.models import logps as picked
from harness.models.architecture import Architecture, skeleton
from harness.models.folder import Source, base_model, shell, start_weights
from harness.models.generate import Drawing, pad_prompts, sample, score_samples
from harness.models.lane_model import LaneModel, build_lanes, parameter_shapes, unflatten
from harness.models.logps import build_corpus, pair_logps, pair_logps_with
from harness.models.lora import peft_name
from harness.models.unpadded import rooms
from harness.types import InputError, LoraSpec
from tests.models.families import CONFIGS, OTHERS, write

CPU = torch.device("cpu")
LORA = LoraSpec(rank=4, alpha=8.0)
MODES = {"lora": LORA, "full": None}
EOS, VOCABULARY = 2, 300
RNG = np.random.default_rng(0)


def _response() -> np.ndarray:
    return np.append(RNG.integers(3, VOCABULARY - 20, RNG.integers(2, 9)), EOS).astype(np.int32)


PAIRS = [
    TokenisedPair(str(i), RNG.integers(3, 280, RNG.integers(3, 9)).astype(np.int32), _response(), _response())
    for i in range(6)
]
INDEX = torch.arange(len(PAIRS))[None]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """A random model of every family on disk."""
    root = tmp_path_factory.mktemp("families")
    return {family: str(write(family, root / family)) for family in CONFIGS}


@pytest.fixture(scope="module", params=[(family, mode) for family in CONFIGS for mode in MODES], ids="-".join)
def case(request, folders) -> tuple[Source, list[torch.Tensor]]:
    """A family's model with and without adapters, and the rows of two lanes that differ from it and each other."""
    family, mode = request.param
    source = Source(folders[family], family, lora=MODES[mode])
    rows = [start_weights(source, seed) for seed in (0, 1)]
    noise = [torch.randn(len(row), generator=torch.Generator().manual_seed(i)) for i, row in enumerate(rows)]
    return source, [row + 0.02 * extra for row, extra in zip(rows, noise, strict=True)]


def lanes(source: Source, rows: list[torch.Tensor]) -> LaneModel:
    return build_lanes(skeleton(Architecture(0, 32, 2, 4, 48, 0, source=source)), rows, CPU)


def plain(source: Source, row: torch.Tensor):
    """The same weights in transformers' own module, adapters through peft."""
    values = unflatten(row, parameter_shapes(shell(source)))
    model = copy.deepcopy(base_model(source))
    if source.lora is None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(values[name])
        return model
    import peft

    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", fan_in_fan_out="gpt2" in source.folder)
    model = peft.get_peft_model(model, config)
    loaded = peft.set_peft_model_state_dict(model, {peft_name(name): value for name, value in values.items()})
    assert not loaded.unexpected_keys and not [key for key in loaded.missing_keys if "lora" in key]
    return model.eval()


def by_transformers(model, pair: TokenisedPair, side: str) -> torch.Tensor:
    response = getattr(pair, side)
    ids = torch.tensor(np.concatenate([pair.prompt, response]).astype(np.int64))[None]
    logps = model(input_ids=ids).logits.float().log_softmax(-1)[0, len(pair.prompt) - 1 : -1]
    return logps.gather(-1, ids[0, len(pair.prompt) :, None]).sum()


def dpo(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    return -torch.nn.functional.logsigmoid(0.1 * (chosen - rejected)).mean()


def test_packed_rows_and_their_gradient_equal_transformers_and_peft(case):
    source, rows = case
    model = lanes(source, rows)
    scored = pair_logps(model, build_corpus([pack_rows(PAIRS)], None, CPU), INDEX.expand(2, -1))
    gradient = model.gradient(torch.stack([dpo(scored.chosen[k], scored.rejected[k]) for k in (0, 1)]).sum())
    for lane in (0, 1):
        theirs = plain(source, rows[lane])
        chosen = torch.stack([by_transformers(theirs, pair, "chosen") for pair in PAIRS])
        rejected = torch.stack([by_transformers(theirs, pair, "rejected") for pair in PAIRS])
        assert torch.allclose(scored.chosen[lane], chosen, rtol=1e-5, atol=0)
        assert torch.allclose(scored.rejected[lane], rejected, rtol=1e-5, atol=0)
        dpo(chosen, rejected).backward()
        grads = {name.replace(".default", ""): p.grad for name, p in theirs.named_parameters() if p.requires_grad}
        names = parameter_shapes(shell(source))
        wanted = [grads[name if source.lora is None else peft_name(name)] for name in names]
        expected = torch.cat([grad.reshape(-1) for grad in wanted])
        assert (gradient[lane, : len(expected)] - expected).norm() <= 1e-5 * expected.norm()


def test_a_lane_has_the_bits_of_the_lane_alone(case):
    source, rows = case
    corpus = build_corpus([pack_rows(PAIRS)], None, CPU)
    together = lanes(source, [rows[1], rows[0], rows[1]])
    alone = lanes(source, rows[:1])
    packed, single = (pair_logps(model, corpus, INDEX.expand(model.lanes, -1)) for model in (together, alone))
    assert torch.equal(packed.chosen[1], single.chosen[0]) and torch.equal(packed.chosen[0], packed.chosen[2])
    grads = [m.gradient((s.chosen - s.rejected).sum()) for m, s in ((together, packed), (alone, single))]
    assert torch.equal(grads[0][1], grads[1][0])


def test_only_predicting_positions_give_the_numbers_of_all(case):
    source, rows = case
    model = lanes(source, rows[:1])
    corpus = build_corpus([pack_rows(PAIRS)], None, CPU)
    from harness.models.logps import attention_mask

    given = (corpus.ids, attention_mask(corpus.segment), corpus.position)
    with torch.no_grad():
        some, everything = model.hidden_at(*given, corpus.source), model.hidden(*given)
    wanted = everything.gather(1, corpus.source[..., None].expand(-1, -1, everything.shape[-1]))
    assert torch.allclose(some, wanted, rtol=1e-5, atol=1e-5)


def test_greedy_samples_are_those_of_generate(case):
    source, rows = case
    model = lanes(source, rows)
    ids, real = pad_prompts([pair.prompt for pair in PAIRS], width=9)
    prompts, mask = ids.expand(2, -1, -1), real.expand(2, -1, -1)
    drawn = sample(model, prompts, mask, torch.full((2, len(PAIRS), 10), 0.5), eos=EOS, drawing=Drawing(0))
    again = score_samples(model, prompts, mask, drawn)
    assert (again - drawn.logps).abs().max() <= 1e-4
    for lane in (0, 1):
        given = {"input_ids": ids, "attention_mask": real.long(), "pad_token_id": 0, "eos_token_id": EOS}
        whole = plain(source, rows[lane]).generate(**given, max_new_tokens=10, do_sample=False)
        theirs = whole[:, ids.shape[1] :]
        assert torch.equal(drawn.tokens[lane][:, : theirs.shape[1]], theirs)


def test_recomputing_activations_changes_no_bit(case):
    source, rows = case
    corpus = build_corpus([pack_rows(PAIRS)], None, CPU)
    found = []
    for recompute in (False, True):
        own = Source(source.folder, source.sha256, lora=source.lora, gradient_checkpointing=recompute)
        model = lanes(own, rows)
        assert model.recomputes is recompute
        scored = pair_logps(model, corpus, INDEX.expand(2, -1))
        found.append(model.gradient((scored.chosen - scored.rejected).sum()))
        prompts, real = (value.expand(2, -1, -1) for value in pad_prompts([PAIRS[0].prompt], width=9))
        drawn = sample(model, prompts, real, torch.full((2, 1, 4), 0.5), eos=EOS)
        assert (score_samples(model, prompts, real, drawn) - drawn.logps).abs().max() <= 1e-4
    assert torch.equal(*found)


def test_the_real_tokens_alone_give_the_numbers_of_whole_rows(case):
    source, rows = case
    model = lanes(source, rows)
    corpus = build_corpus([pack_rows(PAIRS)], None, CPU)
    index = INDEX.expand(2, -1)
    lengths = corpus.chosen_len + corpus.rejected_len
    [room] = rooms(corpus.segment, lengths, index[None])
    found = [pair_logps_with(model, None, corpus, index, frozenset(), r)[0] for r in (None, room)]
    whole, tokens = ((pairs.chosen, model.gradient((pairs.chosen - pairs.rejected).sum())) for pairs in found)
    assert torch.allclose(whole[0], tokens[0], rtol=1e-5)
    assert (whole[1] - tokens[1]).norm() <= 1e-5 * whole[1].norm()


@pytest.mark.parametrize("family", CONFIGS)
def test_adapters_in_bfloat16_stay_near_float32(family, folders):
    scored = []
    for dtype in ("float32", "bfloat16"):
        source = Source(folders[family], family, dtype=dtype, lora=LORA)
        model = lanes(source, [start_weights(source, 0) + 0.01])
        assert model.flat.dtype == torch.float32 and model.model.dtype == source.stored
        own = pair_logps(model, build_corpus([pack_rows(PAIRS)], None, CPU), INDEX)
        assert own.chosen.dtype == torch.float32
        assert torch.isfinite(model.gradient(own.chosen.sum())).all()
        scored.append(own.chosen.detach())
    assert (scored[0] - scored[1]).abs().max() <= 0.05 * scored[0].abs().max()


def test_adapters_start_as_pefts_and_leave_the_model_as_it_was(folders):
    source = Source(folders["llama"], "llama", lora=LORA)
    rows = [start_weights(source, seed) for seed in (3, 3, 4)]
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])
    for name, value in unflatten(rows[0], parameter_shapes(shell(source))).items():
        if name.endswith("lora_B"):
            assert not value.any()
            continue
        bound = 1 / value.shape[1] ** 0.5  # kaiming_uniform_(a=sqrt(5)) is uniform in +-1 / sqrt(in)
        assert value.abs().max() <= bound and value.std() == pytest.approx(bound / 3**0.5, rel=0.15)
    corpus = build_corpus([pack_rows(PAIRS)], None, CPU)
    with torch.no_grad():
        scored = pair_logps(lanes(source, rows), corpus, INDEX.expand(3, -1))
        expected = torch.stack([by_transformers(base_model(source), pair, "chosen") for pair in PAIRS])
    assert torch.equal(scored.chosen[0], scored.chosen[2])
    assert torch.allclose(scored.chosen[0], expected, rtol=1e-5)


def test_adapters_share_one_base(folders):
    source = Source(folders["qwen2"], "qwen2", lora=LORA)
    packs = [lanes(source, [start_weights(source, seed)] * 2) for seed in (0, 1)]
    places = [pack.model.get_input_embeddings().weight.data_ptr() for pack in packs]
    assert places == [base_model(source).get_input_embeddings().weight.data_ptr()] * 2


def test_logits_in_parts_are_the_logits_at_once(case, monkeypatch):
    source, rows = case
    model = lanes(source, rows)
    corpus = build_corpus([pack_rows(PAIRS)], None, CPU)
    found = []
    for whole, part in ((picked.WHOLE, picked.PART), (1, 6 * VOCABULARY * 3)):
        monkeypatch.setattr(picked, "WHOLE", whole)
        monkeypatch.setattr(picked, "PART", part)
        scored = pair_logps(model, corpus, INDEX.expand(2, -1))
        found.append((scored.chosen.detach(), model.gradient((scored.chosen - scored.rejected).sum())))
    (once, at_once), (parts, in_parts) = found
    assert torch.allclose(once, parts, rtol=1e-5) and (at_once - in_parts).norm() <= 1e-5 * at_once.norm()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", OTHERS)
def test_other_families_show_at_loading_that_they_score_rows_alike(family, mode, tmp_path):
    folder = str(write(family, tmp_path / family))
    source = Source(folder, family, lora=MODES[mode], attention="eager" if family == "gemma2" else "sdpa")
    rows = [start_weights(source, seed) for seed in (0, 1)]
    rows = [row + 0.02 * torch.randn(len(row), generator=torch.Generator().manual_seed(7)) for row in rows]
    test_packed_rows_and_their_gradient_equal_transformers_and_peft((source, rows))
    test_a_lane_has_the_bits_of_the_lane_alone((source, rows))
    test_greedy_samples_are_those_of_generate((source, rows))


def test_a_model_that_scores_rows_otherwise_is_refused(folders, monkeypatch):
    source = Source(folders["llama"], "llama again")
    monkeypatch.setattr(folder_module, "TESTED", frozenset())
    base_model(source)  # it does score them alike
    monkeypatch.setattr(folder_module, "scaled_logits", lambda config, logits: 2 * logits)
    with pytest.raises(InputError, match="scores rows of two responses differently"):
        base_model(Source(folders["llama"], "llama once more"))


@pytest.mark.parametrize("damage", ["nan", "missing"])
def test_weights_that_cannot_be_used_are_refused_by_name(damage, tmp_path):
    from safetensors.torch import load_file, save_file

    path = write("llama", tmp_path / "model") / "model.safetensors"
    tensors = load_file(path)
    if damage == "nan":
        tensors["model.norm.weight"][0] = float("nan")
    else:
        del tensors["model.norm.weight"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(InputError) as caught:
        base_model(Source(str(tmp_path / "model"), damage))
    assert len(caught.value.problems) == 1 and "model.norm.weight" in caught.value.problems[0]
