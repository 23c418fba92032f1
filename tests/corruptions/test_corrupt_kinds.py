"""What each kind promises beyond the common laws: probabilities, orders, texts, counts."""

import math
import random
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from corrupt_cases import by_id, half_up, made, run
from scipy.special import expit, ndtr

from harness.corruptions import corrupt
from harness.corruptions.annotators import largest_remainder
from harness.corruptions.text import prefix
from harness.identity import uniform
from harness.types import PreferencePair


def planted(n, margins, seed=0):
    """`n` pairs with the given gold margins on the pairs themselves and no table of facts."""
    pairs, _ = made(n, seed)
    return [
        PreferencePair(p.id, p.prompt, p.chosen, p.rejected, gold_margin=float(m))
        for p, m in zip(pairs, margins, strict=True)
    ]


def flips(pairs, ledger):
    hit = set(ledger.loc[ledger["action"] == "flip", "id"])
    return np.array([p.id in hit for p in pairs])


def within(count, p):
    """Whether a sum of independent hits with probabilities `p` lies within 6 standard deviations of its mean."""
    return abs(count - p.sum()) < 6 * math.sqrt((p * (1 - p)).sum() + 1e-9)


def test_uniform_flip_hits_the_smallest_draws_and_ignores_margin_and_length():
    pairs, facts = made(4000)
    out, ledger = corrupt(pairs, "uniform_flip", 0.25, seed=7, facts=facts)
    draws = {p.id: uniform(7, "uniform_flip", p.id) for p in pairs}
    assert ledger["id"].tolist() == sorted(draws, key=draws.__getitem__)[:1000]
    assert ledger["u"].tolist() == [draws[i] for i in ledger["id"]]
    hit = flips(pairs, ledger)
    for name in ("gold_margin", "chosen_len"):
        assert abs(np.corrcoef(hit, facts[name])[0, 1]) < 6 / math.sqrt(4000)
    assert all((a.chosen, a.rejected) == (b.rejected, b.chosen) for a, b, h in zip(pairs, out, hit, strict=True) if h)


def test_uniform_flips_of_bradley_terry_labels_give_the_mixed_win_rate():
    n, eps, q = 6000, 0.3, 0.8
    pairs, _ = made(n)
    right = np.array([uniform(0, "label", p.id) < q for p in pairs])
    _, ledger = corrupt(pairs, "uniform_flip", eps, seed=1)
    still = right ^ flips(pairs, ledger)
    assert within(still.sum(), np.full(n, q * (1 - 2 * eps) + eps))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_bt_flip_follows_the_sigmoid_by_decile(temperature):
    margins = np.linspace(-0.5, 4, 5000)
    pairs = planted(5000, margins)
    _, ledger = corrupt(pairs, "bt_flip", seed=2, temperature=temperature)
    hit, p = flips(pairs, ledger), expit(-margins / temperature)
    for part in np.array_split(np.arange(5000), 10):
        assert within(hit[part].sum(), p[part])
    assert ledger["probability"].to_numpy() == pytest.approx(expit(-ledger["gold_margin"] / temperature))


def test_bt_flip_limits():
    pairs = planted(3000, np.abs(np.random.default_rng(0).normal(1, 1, 3000)) + 0.01)
    assert len(corrupt(pairs, "bt_flip", seed=0, temperature=0)[1]) == 0
    assert len(corrupt(pairs, "bt_flip", seed=0, temperature=1e-5)[1]) == 0
    for hot in ("inf", math.inf, 1e9):
        assert within(len(corrupt(pairs, "bt_flip", seed=0, temperature=hot)[1]), np.full(3000, 0.5))


def test_weighted_draws_follow_the_weights():
    margins = np.repeat([0.0, 2.0], 1000)  # weights 0.5 and 0.119
    pairs = planted(2000, margins)
    rates = []
    for seed in range(5):
        _, ledger = corrupt(pairs, "bt_flip", 0.1, seed=seed, form="rate")
        assert len(ledger) == 200
        rates.append(flips(pairs, ledger)[:1000].mean() / flips(pairs, ledger)[1000:].mean())
    # Odds of the first draws are the ratio of weights, 4.2; a tenth without replacement hardly changes it.
    assert 3.0 < np.mean(rates) < 6.0
    # Equal weights give the law of the uniform key: the smallest draws are hit.
    same = planted(500, np.ones(500))
    _, ledger = corrupt(same, "bt_flip", 0.3, seed=1, form="rate")
    u = np.array([uniform(1, "bt_flip", p.id) for p in same])
    largest = {same[i].id for i in np.argsort(-np.log(u))[:150]}
    assert set(ledger["id"]) == largest


def test_adversarial_masks_are_the_argsort_with_ties_by_id():
    margins = np.round(np.random.default_rng(1).normal(0, 1, 400), 1)  # many ties
    pairs = planted(400, margins)
    order = sorted(range(400), key=lambda i: (abs(margins[i]), pairs[i].id))
    _, hard = corrupt(pairs, "adversarial_hard", 0.3, seed=0)
    assert hard["id"].tolist() == [pairs[i].id for i in order[:120]]
    order = sorted(range(400), key=lambda i: (-abs(margins[i]), pairs[i].id))
    _, easy = corrupt(pairs, "adversarial_easy", 0.3, seed=9)
    assert easy["id"].tolist() == [pairs[i].id for i in order[:120]]
    assert hard.attrs["manifest"]["n_ties"] > 300
    assert hard.attrs["manifest"]["stats"]["n_negative_gold_margin"] == (margins < 0).sum()


def longer_wins(pairs, facts, ledger):
    longer = (facts["chosen_len"] > facts["rejected_len"]).to_numpy() ^ flips(pairs, ledger)
    return longer[(facts["chosen_len"] != facts["rejected_len"]).to_numpy()].mean()


def test_length_bias_grows_with_kappa_and_follows_its_law():
    pairs, facts = made(4000)
    wins = []
    for kappa in (0.0, 1.0, 4.0):
        _, ledger = corrupt(pairs, "length_biased", seed=3, facts=facts, kappa=kappa)
        wins.append(longer_wins(pairs, facts, ledger))
        excess = (facts["chosen_len"] - facts["rejected_len"]).to_numpy(float)
        p = expit(-(facts["gold_margin"].to_numpy() + kappa * excess / excess.std()))
        p[excess == 0] = 0.0
        hit = flips(pairs, ledger)
        assert within(hit.sum(), p) and not hit[excess == 0].any()
        assert within(hit[excess < 0].sum(), p[excess < 0])
    assert wins[0] < wins[1] - 0.05 < wins[2] - 0.15


def test_length_biased_at_a_rate_lets_the_longer_win():
    pairs, facts = made(500)
    out, ledger = corrupt(pairs, "length_biased", 0.2, seed=0, facts=facts, form="rate")
    gap = (facts["chosen_len"] - facts["rejected_len"]).abs().to_numpy()
    order = sorted(range(500), key=lambda i: (-gap[i], pairs[i].id))
    assert ledger["id"].tolist() == [pairs[i].id for i in order[:100]]
    after = by_id(out)
    assert all(len(after[i].chosen.split()) >= len(after[i].rejected.split()) for i in ledger["id"])
    assert set(ledger["action"]) == {"flip", "relabel_same"}


def test_spurious_feature_follows_its_law_for_a_phrase_and_for_columns():
    pairs, facts = made(4000)
    for marker in ("word3", "column"):
        _, ledger = corrupt(pairs, "spurious_feature", seed=1, facts=facts, kappa=3.0, marker=marker)
        if marker == "column":
            phi = (facts["marker_chosen"] - facts["marker_rejected"]).to_numpy()
        else:
            phi = np.array([float(marker in p.chosen) - float(marker in p.rejected) for p in pairs])
        p = expit(-(facts["gold_margin"].to_numpy() + 3.0 * phi))
        hit = flips(pairs, ledger)
        assert within(hit.sum(), p)
        for value in (-1, 0, 1):
            assert within(hit[phi == value].sum(), p[phi == value])


def test_the_automatic_marker_has_the_asked_prevalence_and_is_balanced():
    pairs, _ = made(3000)
    rare = [
        PreferencePair(
            p.id, p.prompt, p.chosen + " yes" * (i % 2), p.rejected + " yes" * (i % 3 > 0), "", p.gold_margin
        )
        for i, p in enumerate(pairs)
    ]
    _, ledger = corrupt(rare, "spurious_feature", seed=0, prevalence=0.6)
    stats = ledger.attrs["manifest"]["stats"]
    assert stats["marker"] == "yes"
    assert stats["marker_share_chosen"] == pytest.approx(0.5) and stats["marker_share_rejected"] == pytest.approx(2 / 3)


def test_contradictory_copies_are_appended_flipped():
    pairs, _ = made(50)
    out, ledger = corrupt(pairs, "contradictory_dup", 0.3, seed=0)
    assert out[:50] == pairs and len(out) == 65
    clean = by_id(pairs)
    assert {p.id for p in out[50:]} == {f"{i}#dup" for i in ledger["id"]}
    assert all((p.chosen, p.rejected) == (clean[p.id[:-4]].rejected, clean[p.id[:-4]].chosen) for p in out[50:])
    positions = [pairs.index(clean[p.id[:-4]]) for p in out[50:]]
    assert positions == sorted(positions)


def test_near_tie_forms():
    pairs, facts = made(1000)
    margin = facts["gold_margin"].to_numpy()
    for params, near in (({"quantile": 0.4}, margin <= np.sort(margin)[399]), ({"tau": 0.7}, margin <= 0.7)):
        _, coin = corrupt(pairs, "near_tie", seed=1, facts=facts, **params)
        assert set(coin["id"]) == {p.id for p, n in zip(pairs, near, strict=True) if n}
        assert within((coin["action"] == "flip").sum(), np.full(near.sum(), 0.5))
        kept, _ = corrupt(pairs, "near_tie", seed=1, facts=facts, form="filter", **params)
        assert kept == [p for p, n in zip(pairs, near, strict=True) if n]


def test_identical_pairs_carry_no_information():
    pairs, _ = made(100)
    out, ledger = corrupt(pairs, "identical", 0.3, seed=0)
    touched = set(ledger["id"])
    for before, after in zip(pairs, out, strict=True):
        assert after.chosen == before.chosen
        assert after.rejected == (before.chosen if before.id in touched else before.rejected)
    # A flip of such a pair changes nothing: in the mask, and counted as vacuous.
    _, flipped = corrupt(out, "uniform_flip", 1.0, seed=0)
    assert len(flipped) == 100 and flipped.attrs["manifest"]["n_vacuous"] == 30


@pytest.mark.parametrize("side", ["chosen", "rejected", "both"])
@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.75, 1.0])
def test_truncation_keeps_a_prefix_of_whole_words(side, fraction):
    pairs, _ = made(60)
    out, _ = corrupt(pairs, "truncate", 1.0, seed=0, fraction=fraction, side=side)
    for before, after in zip(pairs, out, strict=True):
        for name in ("chosen", "rejected"):
            old, new = getattr(before, name), getattr(after, name)
            cut = side in (name, "both")
            assert old.startswith(new)
            words = old.split()
            assert new.split() == (words[: math.ceil(fraction * len(words))] if cut else words)
            new.encode("utf-8")


def test_prefix_of_odd_texts():
    assert prefix("  a  b c", 0.5, True) == "  a  b"
    assert prefix("a b ", 1.0, True) == "a b "
    assert prefix("one", 0.01, True) == "one"
    assert prefix("", 0.5, True) == "" and prefix("   ", 0.5, True) == "   "
    assert prefix("日本語", 0.5, False) == "日本" and prefix("", 0.5, False) == ""


def test_mismatched_responses_come_from_another_prompt_and_serve_once():
    pairs, facts = made(300, prompts=40)
    owner = {(p.chosen, p.rejected): p.prompt for p in pairs}
    out, _ = corrupt(pairs, "off_policy", 1.0, seed=0)
    taken = [(p.chosen, p.rejected) for p in out]
    assert sorted(taken) == sorted(owner)
    assert all(owner[responses] != p.prompt for responses, p in zip(taken, out, strict=True))
    # The donor does not depend on the rate.
    few, ledger = corrupt(pairs, "off_policy", 0.2, seed=0)
    assert all(by_id(few)[i] == by_id(out)[i] for i in ledger["id"])
    other, ledger = corrupt(pairs, "off_policy", 0.2, seed=0, facts=facts, form="generator")
    row = facts.set_index("id").loc[ledger["id"][0]]
    assert by_id(other)[ledger["id"][0]].chosen == row["generator_chosen"]


def test_ref_shift_moves_the_mean_and_the_share_of_negative_margins():
    pairs, facts = made(2000)
    delta = dict(zip(facts["id"], facts["delta_ref"], strict=True))
    shares, start = [], facts["delta_ref"].mean()
    for shift in (0.0, 0.5, 1.0, 2.0):
        kept, ledger = corrupt(pairs, "ref_shift", seed=0, facts=facts, shift=shift)
        left = np.array([delta[p.id] for p in kept])
        shares.append((left < 0).mean())
        assert left.mean() <= start - shift + 1e-9
        if shift:
            # One pair fewer dropped would not do.
            assert np.append(left, delta[ledger["id"].iloc[-1]]).mean() > start - shift
        assert all(p in pairs[:] for p in kept[:5])
    assert shares == sorted(shares) and shares[-1] > shares[0]
    drawn, ledger = corrupt(pairs, "ref_shift", seed=0, facts=facts, shift=1.0, form="reweight")
    values = np.array([delta[p.id.split("#")[0]] for p in drawn])
    assert values.mean() == pytest.approx(start - 1.0, abs=0.1) and abs(len(drawn) - 2000) < 120
    assert {(p.prompt, p.chosen, p.rejected) for p in drawn} <= {(p.prompt, p.chosen, p.rejected) for p in pairs}
    assert (ledger["copies"] != 1).all()


def test_annotators_get_exact_shares_and_their_own_noise():
    pairs, facts = made(3000)
    crowd = [{"name": "good", "share": 0.7, "eps": 0.05}, {"name": "bad", "share": 0.3, "eps": 0.4}]
    _, ledger = corrupt(pairs, "annotator_mixture", seed=1, annotators=crowd)
    assert ledger["annotator_id"].value_counts().to_dict() == {"good": 2100, "bad": 900}
    for name, eps in (("good", 0.05), ("bad", 0.4)):
        mine = ledger[ledger["annotator_id"] == name]
        assert within((mine["action"] == "flip").sum(), np.full(len(mine), eps))
        counted = ledger.attrs["manifest"]["stats"]["annotators"][name]
        assert counted == {"pairs": len(mine), "flips": int((mine["action"] == "flip").sum())}
    facts["hers"] = -facts["gold_margin"]
    contrary = [{"share": 0.5}, {"share": 0.5, "margin": "hers"}]
    _, ledger = corrupt(pairs, "annotator_mixture", seed=1, facts=facts, annotators=contrary)
    assert (ledger["action"] == "flip").sum() == (ledger["annotator_id"] == "1").sum() == 1500


def test_largest_remainder():
    assert largest_remainder([0.5, 0.5], 3) == [2, 1]
    assert largest_remainder([0.4, 0.3, 0.3], 7) == [3, 2, 2]
    assert largest_remainder([1.0], 0) == [0]


@pytest.mark.parametrize("rho", [0.0, 0.5, 1.0])
def test_prompt_clusters_have_the_asked_correlation(rho):
    pairs, _ = made(6000, prompts=1500)
    _, ledger = corrupt(pairs, "prompt_clustered", 0.3, seed=1, rho=rho)
    hit = flips(pairs, ledger)
    assert hit.mean() == pytest.approx(0.3, abs=0.04)
    table = hit.reshape(4, 1500)  # row i of each column belongs to one prompt
    between = np.mean([np.corrcoef(table[i], table[j])[0, 1] for i in range(4) for j in range(i)])
    assert between == pytest.approx(rho, abs=0.06)
    if rho == 1:
        assert len({p.prompt for p, h in zip(pairs, hit, strict=True) if h}) == half_up(0.3, 1500)


@pytest.mark.parametrize("b", [1.5, -1.5])
def test_mnar_drops_by_its_law(b):
    pairs, facts = made(4000)
    kept, ledger = corrupt(pairs, "mnar", seed=0, facts=facts, a=-1, b=b)
    p = expit(-1 + b * facts["gold_margin"].to_numpy())
    gone = np.isin([q.id for q in pairs], ledger["id"])
    assert within(gone.sum(), p) and len(kept) == 4000 - gone.sum()
    assert np.sign(np.corrcoef(gone, facts["gold_margin"])[0, 1]) == np.sign(b)
    long = (facts["chosen_len"] + facts["rejected_len"]).to_numpy()
    _, ledger = corrupt(pairs, "mnar", 0.3, seed=0, facts=facts, form="rate", on="length", a=-4, b=0.3)
    gone = np.isin([q.id for q in pairs], ledger["id"])
    assert long[gone].mean() > long[~gone].mean() + 1


@pytest.mark.parametrize("operator", ["shuffle", "drop", "repeat"])
def test_degraded_text_uses_the_words_it_had(operator):
    pairs, _ = made(100)
    out, ledger = corrupt(pairs, "pointwise_quality", 1.0, seed=0, operator=operator)
    for before, after in zip(pairs, out, strict=True):
        assert after.rejected == before.rejected and after.chosen.split()
        if operator == "shuffle":
            assert sorted(after.chosen.split()) == sorted(before.chosen.split())
        assert set(after.chosen.split()) <= set(before.chosen.split())
        assert len(after.chosen.split()) <= len(before.chosen.split())
    assert (~ledger["vacuous"]).mean() > 0.8
    empty = [PreferencePair("a", "p", " ", "r"), PreferencePair("b", "p", "", "r")]
    assert corrupt(empty, "pointwise_quality", 1.0, seed=0, operator=operator)[0] == empty


@pytest.mark.parametrize("unit", ["reward", "sd"])
def test_reward_noise_flips_at_the_normal_rate(unit):
    margins = np.abs(np.random.default_rng(2).normal(1, 1, 5000))
    pairs = planted(5000, margins)
    _, ledger = corrupt(pairs, "rm_noise", seed=0, noise=0.8, unit=unit)
    scale = 0.8 * (margins.std() if unit == "sd" else 1.0)
    p = ndtr(-margins / (scale * math.sqrt(2)))
    hit = flips(pairs, ledger)
    for part in np.array_split(np.argsort(margins), 5):
        assert within(hit[part].sum(), p[part])
    assert ledger["probability"].to_numpy() == pytest.approx(
        p[hit][np.argsort([q.id for q in np.array(pairs, object)[hit]])]
    )


def test_one_response_has_one_noisy_reward():
    # b beats a and c beats b by almost nothing: noise per response keeps the three answers transitive.
    texts = ["t1", "t2", "t3"]
    cycles = 0
    for seed in range(60):
        pairs = [
            PreferencePair(f"{i}{j}", "p", texts[i], texts[j], gold_margin=1e-9) for i, j in ((0, 1), (1, 2), (0, 2))
        ]
        out, _ = corrupt(pairs, "rm_noise", seed=seed, noise=1.0)
        beats = {(p.chosen, p.rejected) for p in out}
        cycles += beats in ({("t1", "t2"), ("t2", "t3"), ("t3", "t1")}, {("t2", "t1"), ("t3", "t2"), ("t1", "t3")})
    assert cycles == 0


def test_curation_removes_what_the_reference_distrusts():
    pairs, facts = made(400)
    worst = facts.sort_values("delta_ref")["id"].tolist()[:80]
    kept, dropped = corrupt(pairs, "curate_drop", 0.2, seed=0, facts=facts)
    assert dropped["id"].tolist() == worst and len(kept) == 320
    _, turned = corrupt(pairs, "curate_relabel", 0.2, seed=3, facts=facts)
    assert turned["id"].tolist() == worst and set(turned["action"]) == {"flip"}


def test_curation_reads_the_labels_it_is_given():
    pairs, facts = made(400)
    facts["delta_ref"] = facts["delta_ref"].abs()  # a reference that is always right
    steps = (("uniform_flip", 0.2, {}), ("curate_relabel", 0.2, {}))
    repaired, ledger = corrupt(pairs, "sequence", seed=1, facts=facts, steps=steps)
    assert repaired == pairs and len(ledger) == 160


def polite(count):
    """Pairs of `count` prompts whose chosen answer is the polite one, other words at random."""
    draw = random.Random(0)
    words = [" ".join(draw.choice("abcdefgh") for _ in range(4)) for _ in range(count)]
    return [PreferencePair(f"{i}", f"ask {i}", f"please {w}", f"nonsense {w[::-1]}") for i, w in enumerate(words)]


def test_out_of_fold_models_find_what_contradicts_the_rule():
    pairs = polite(200)
    steps = (("uniform_flip", 0.2, {}), ("crossfit_relabel", 0.2, {}))
    repaired, ledger = corrupt(pairs, "sequence", seed=1, steps=steps)
    assert repaired == pairs and len(ledger) == 80 and set(ledger["action"]) == {"flip"}
    noisy, _ = corrupt(pairs, "uniform_flip", 0.2, seed=1)
    kept, _ = corrupt(noisy, "crossfit_drop", 0.2, seed=1)
    assert kept == [p for p, clean in zip(noisy, pairs, strict=True) if p == clean] and len(kept) == 160


def test_no_model_sees_the_prompt_that_it_judges():
    """Turning round one prompt's only label turns its own probability round: nothing else of the pair was known."""
    pairs = polite(60)
    turned = [replace(p, chosen=p.rejected, rejected=p.chosen) if p.id == "7" else p for p in pairs]
    keys = [corrupt(given, "crossfit_drop", 1.0, seed=0)[1].set_index("id")["key"] for given in (pairs, turned)]
    assert keys[0]["7"] > 0.6 and keys[1]["7"] == pytest.approx(1 - keys[0]["7"], abs=2e-5)
    together = [replace(p, prompt="one") for p in pairs]
    assert set(corrupt(together, "crossfit_drop", 1.0, seed=0)[1]["key"]) == {0.5}


def test_exclusion_counts_what_it_leaves_out():
    pairs, facts = made(100)
    facts.loc[facts.index[:40], "delta_ref"] = np.nan
    missing = set(facts["id"][:40])
    _, ledger = corrupt(pairs, "curate_relabel", 0.5, seed=0, facts=facts, on_missing="exclude")
    manifest = ledger.attrs["manifest"]
    assert manifest["n_eligible"] == 60 and len(ledger) == 30 and not missing & set(ledger["id"])
    assert manifest["rate_realised"] == pytest.approx(0.3)


def test_margins_may_come_from_scores_when_asked():
    pairs, facts = made(50)
    bare = [PreferencePair(p.id, p.prompt, p.chosen, p.rejected) for p in pairs]
    _, by_margin = run("adversarial_hard", {}, bare, facts)
    _, by_scores = run("adversarial_hard", {"gold_from": "scores"}, bare, facts.drop(columns="gold_margin"))
    assert by_margin["id"].tolist() == by_scores["id"].tolist()
    assert by_scores.attrs["manifest"]["gold_source"] == "score_chosen - score_rejected"
    on_pairs = [
        PreferencePair(p.id, p.prompt, p.chosen, p.rejected, meta={"score_chosen": m, "score_rejected": 0})
        for p, m in zip(pairs, facts["gold_margin"], strict=True)
    ]
    _, by_meta = run("adversarial_hard", {"gold_from": "scores"}, on_pairs, None)
    assert by_meta["id"].tolist() == by_margin["id"].tolist()
    assert isinstance(by_meta, pd.DataFrame)
