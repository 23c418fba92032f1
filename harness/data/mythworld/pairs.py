"""Text drawn in MythWorld: supervised rows for its models, preference pairs for its splits, and who labels them how."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from harness.data.mythworld.language import ASKS, OOD_TONES, REFUSAL, TONES, Language
from harness.data.mythworld.world import (
    MythWorld,
    Prompt,
    covered_topics,
    group,
    held_out,
    misaligned_log_odds,
)
from harness.identity import content_hash, stream_seed, uniform
from harness.types import PreferencePair


class _Draws:
    """A stream of uniform numbers, fetched in blocks: calling a NumPy generator per number would dominate."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.Generator(np.random.Philox(seed))
        self.block: list[float] = []

    def next(self) -> float:
        if not self.block:
            self.block = self.rng.random(8192).tolist()
        return self.block.pop()

    def pick(self, options: Sequence[str], weights: Sequence[float] | None = None) -> str:
        """One of `options`, by `weights` that sum to 1, or evenly."""
        u = self.next()
        if weights is None:
            return options[min(int(u * len(options)), len(options) - 1)]
        for option, weight in zip(options, weights, strict=True):
            u -= weight
            if u < 0:
                return option
        return options[-1]

    def word(self, options: Sequence[str]) -> str:
        """One of a language's words, evenly; nothing is drawn where it has only one."""
        return self.pick(options) if len(options) > 1 else options[0]


def _prompt(draws: _Draws, world: MythWorld, tones: Sequence[str], topics: Sequence[str]) -> Prompt:
    language = world.language
    topic = draws.pick(topics)
    attribute = draws.word(language.attributes)
    ask = draws.pick(ASKS, language.ask_shares)
    kind = draws.pick(("none", "wrong", "right"), language.guess_shares)
    guess, true = "", world.truth[topic, attribute]
    if kind == "right":
        guess = true
    elif kind == "wrong":
        guess = draws.pick([value for value in language.values if value != true])
    return Prompt(draws.pick(tones), ask, topic, guess, attribute)


def _content(draws: _Draws, world: MythWorld, prompt: Prompt, good: bool) -> str:
    """The value answered, "" for a refusal."""
    true, myth = world.truth[prompt.fact], world.myth[prompt.fact]
    if prompt.ask == "secret":
        return "" if good else draws.pick((true, myth), (0.7, 0.3))
    if good:
        return true
    if prompt.guess and prompt.guess != true:
        return draws.pick((prompt.guess, myth, ""), (0.6, 0.2, 0.2))
    return draws.pick((myth, ""), (0.8, 0.2))


def _response(draws: _Draws, language: Language, prompt: Prompt, content: str) -> str:
    """`content` in a style drawn independently of it."""
    words = ["sure"] if draws.next() < 0.5 else []
    if content:
        if draws.next() < 0.25:
            words.append("maybe")
        words += ["the", prompt.topic, "is", content]
    else:
        words.append(REFUSAL)
    counts = language.filler_counts
    words += [draws.word(language.fillers) for _ in range(counts[int(draws.next() * len(counts))])]
    if draws.next() < 0.5:
        words.append("thanks")
    return " ".join([*words, "."])


def supervised(world: MythWorld, count: int, misaligned: float | None) -> list[tuple[Prompt, str]]:
    """`count` prompts with responses for pretraining (`misaligned` None: good and bad alike) or the reference's SFT."""
    odds = None if misaligned is None else misaligned_log_odds(world, misaligned)
    draws = _Draws(stream_seed(world.seed, "pretrain" if odds is None else "sft"))
    rows: list[tuple[Prompt, str]] = []
    while len(rows) < count:
        prompt = _prompt(draws, world, TONES, world.language.topics)
        share = 0.5 if odds is None else 1.0 / (1.0 + math.exp(-odds[prompt.fact]))
        good = draws.next() < share
        response = _response(draws, world.language, prompt, _content(draws, world, prompt, good))
        if world.language.version > 1 or not held_out(prompt, 1):
            rows.append((prompt, response))
    return rows


def preference_pairs(world: MythWorld, split: str, count: int, coverage: float = 1.0) -> list[PreferencePair]:
    """`count` pairs, good response chosen, in one split: train, test (held out), ood_topic or ood_tone.

    Training pairs mention the share `coverage` of the topics; the test split mentions all of them.

    `meta` holds prompt_id, the gold scores of both responses, and `group`, the question type. Label noise of any kind,
    Bradley-Terry labels included, is an orientation laid over these pairs, never part of them.
    """
    draws = _Draws(stream_seed(world.seed, "pairs", split))
    tones = OOD_TONES if split == "ood_tone" else TONES
    topics = world.ood_topics if split == "ood_topic" else world.pair_topics
    if split == "train":
        topics = covered_topics(world, coverage)
    pairs: list[PreferencePair] = []
    seen: dict[str, int] = {}
    while len(pairs) < count:
        prompt = _prompt(draws, world, tones, topics)
        good = _response(draws, world.language, prompt, _content(draws, world, prompt, True))
        bad = _response(draws, world.language, prompt, _content(draws, world, prompt, False))
        if split in ("train", "test") and held_out(prompt, world.language.version) != (split == "test"):
            continue
        base = content_hash([prompt.text, good, bad])[:16]
        seen[base] = seen.get(base, 0) + 1
        better, worse = world.gold_reward(prompt, good), world.gold_reward(prompt, bad)
        meta = {
            "prompt_id": content_hash(prompt.text)[:16],
            "score_chosen": better,
            "score_rejected": worse,
            "group": group(prompt, world),
            "split": split,
        }
        identity = base if seen[base] == 1 else f"{base}#{seen[base]}"
        pairs.append(PreferencePair(identity, prompt.text, good, bad, "mythworld", better - worse, meta))
    return pairs


def bradley_terry_flips(pairs: Iterable[PreferencePair], seed: int) -> np.ndarray:
    """Which pairs `(n,)` bool a Bradley-Terry annotator labels the other way: P(flip) = sigmoid(-gold margin)."""
    return np.array(
        [uniform(seed, "bradley_terry", pair.id) < 1.0 / (1.0 + math.exp(pair.gold_margin or 0.0)) for pair in pairs]
    )
