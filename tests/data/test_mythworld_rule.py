"""Version 2 of the embedded world: new facts that follow from a rule, heavy tails; and version 1, which stays."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest

from harness.data.mythworld import pairs as mythpairs
from harness.data.mythworld import tokens as mythtokens
from harness.data.mythworld import world as mw
from harness.data.mythworld.language import FIRST, PROMPT_TOKENS, SECOND
from harness.identity import content_hash
from harness.types import WorldSpec

SEEDS = (0, 1, 2)


def pairs_of(seed, split, count, **given):
    return mythpairs.preference_pairs(mw.draw_world(seed, 2), split, count, **given)


def facts(pairs):
    return Counter(mw.read_prompt(pair.prompt).fact for pair in pairs)


def test_version_1_is_what_it_was():
    """Planted hashes of its texts, supervised rows, tokens and stored models."""
    world = mw.draw_world(3, 1)
    splits = ("train", "test", "ood_topic", "ood_tone")
    rows = [
        [p.id, p.prompt, p.chosen, p.rejected, p.gold_margin, dict(p.meta)]
        for split in splits
        for p in mythpairs.preference_pairs(world, split, 200)
    ]
    supervised = [[p.text, r] for share in (None, 0.0, 0.75) for p, r in mythpairs.supervised(world, 300, share)]
    encoded = [mythtokens.encode_pair(pair, FIRST) for pair in mythpairs.preference_pairs(world, "train", 50)]
    tokens = [[*pair.prompt.tolist(), *pair.chosen.tolist()] for pair in encoded]
    assert [content_hash(part)[:12] for part in (rows, supervised, tokens, list(FIRST.vocabulary))] == [
        "5bb051b95cfb", "b22284711bfe", "f5a2d1b33623", "f614dd7c2b61",
    ]  # fmt: skip
    spec = WorldSpec(version=1)
    assert mw.reference_key(spec, 0).startswith("9bf92739f7a0")
    assert (spec.pretrain_steps, spec.pretrain_batch, spec.sft_steps, spec.sft_batch) == (450, 96, 200, 96)
    assert mw.reference_key(WorldSpec(), 0) != mw.reference_key(spec, 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_held_out_facts_are_in_no_training_pair_and_training_facts_are_few_times(seed):
    train, test = facts(pairs_of(seed, "train", 1024)), facts(pairs_of(seed, "test", 512))
    assert not set(train) & set(test)
    assert len(test) > 80 and 2 < 1024 / len(train) < 3
    world = mw.draw_world(seed, 2)
    assert {topic for topic, _ in test} < {topic for topic, _ in train} == set(world.pair_topics)
    assert {topic for topic, _ in facts(pairs_of(seed, "ood_topic", 200))} == set(world.ood_topics)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_rule_tells_the_truth_of_held_out_facts_and_nothing_simpler_does(seed):
    """Majorities over training facts, of what each level can see: the lineage's answer, topics, attributes, values."""
    world = mw.draw_world(seed, 2)
    levels = {
        "rule": lambda topic, attribute, value: (world.lineage[topic], attribute, value),
        "topic": lambda topic, _, value: (topic, value),
        "attribute": lambda _, attribute, value: (attribute, value),
    }
    held = set(facts(pairs_of(seed, "test", 2000)))
    accuracy = {}
    for name, key in levels.items():
        votes: dict[tuple[object, ...], int] = defaultdict(int)
        for fact in world.truth:
            if fact not in held:
                votes[key(*fact, world.truth[fact])] += 1
                votes[key(*fact, world.myth[fact])] -= 1
        gap = [votes[key(*fact, world.truth[fact])] - votes[key(*fact, world.myth[fact])] for fact in held]
        accuracy[name] = np.mean([0.5 + 0.5 * np.sign(value) for value in gap])
    assert accuracy["rule"] == 1.0
    assert accuracy["topic"] < 0.65 and accuracy["attribute"] < 0.65


def test_a_lineage_is_seen_in_the_answers_about_its_topics():
    """Topics of one lineage share one of the two answers about every attribute, so that facts tell lineages."""
    world = mw.draw_world(0, 2)
    for attribute in SECOND.attributes:
        answers = defaultdict(list)
        for topic in SECOND.topics:
            fact = topic, attribute
            answers[world.lineage[topic]].append({world.truth[fact], world.myth[fact]})
        assert all(len(set.intersection(*sets)) >= 1 for sets in answers.values())
    assert all(world.truth[fact] != world.myth[fact] for fact in world.truth)


def test_responses_differ_in_length_with_a_heavy_tail_and_fit_the_rows():
    pairs = pairs_of(0, "train", 1024)
    lengths = []
    for pair in pairs:
        tokens = mythtokens.encode_pair(pair, SECOND)
        assert len(tokens.prompt) == PROMPT_TOKENS and mw.read_prompt(pair.prompt).text == pair.prompt
        assert mythtokens.decode(tokens.chosen.tolist(), SECOND) == pair.chosen
        lengths += [len(tokens.chosen), len(tokens.rejected)]
    assert min(lengths) >= 5 and max(lengths) == SECOND.response_tokens
    gap = np.diff(np.array(lengths).reshape(-1, 2))[:, 0]
    low, q1, q3, high = np.quantile(gap, [0.025, 0.25, 0.75, 0.975])
    assert (gap != 0).mean() > 0.7 and (high - low) / (q3 - q1) >= 4  # of a normal distribution 2.9
    assert all(pair.gold_margin > 0 for pair in pairs) and len({pair.id for pair in pairs}) == len(pairs)


def test_misalignment_is_nested_by_lineage_and_its_strength_has_a_heavy_tail():
    world, wrong = mw.draw_world(1, 2), []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        means: dict[str, list[float]] = defaultdict(list)
        for (topic, _), odds in mw.misaligned_log_odds(world, share).items():
            means[topic].append(odds)
        wrong.append({topic for topic, odds in means.items() if np.mean(odds) < -0.2})
        assert abs(len(wrong[-1]) - share * 64) <= 4  # a topic's own strength may turn it
    assert len(wrong[0]) < 5 and all(len(b - a) > len(a - b) for a, b in pairwise(wrong))
    lineages = Counter(world.lineage[topic] for topic in wrong[1])
    assert lineages.most_common(1)[0][1] >= 14


def test_questions_of_every_kind_stay():
    groups = Counter(pair.meta["group"] for pair in pairs_of(0, "test", 1000))
    assert set(groups) == {"plain", "pushed", "trick", "secret"} and min(groups.values()) > 80
    world = mw.draw_world(0, 2)
    prompt = mw.Prompt("plain", "what", "fox", "", "tail")
    true, myth = world.truth[prompt.fact], world.myth[prompt.fact]
    assert world.gold_reward(prompt, f"the fox is {true} truly very thanks .") == pytest.approx(0.9)
    assert world.gold_reward(prompt, f"the fox is {myth} .") == pytest.approx(-1.0)
    assert world.gold_reward(prompt, f"the fox is {true} {'very ' * 5}.") == -2.0
