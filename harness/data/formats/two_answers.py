"""Forms of two answers and a verdict: HelpSteer, SafeRLHF, SHP, LMSYS Arena, WebGPT, summaries of Reddit posts."""

from __future__ import annotations

import json
from typing import Any

from harness.data.formats.row import Format, Pair, Row, asked, better, get, number, text
from harness.data.raw_rows import RowError
from harness.data.transcripts import Turn, turns

BOTH_BAD = ("both_bad", "tie (bothbad)", "bothbad")


def helpsteer2(row: Row) -> Pair:
    """Two responses and a strength from -3 (the first is much better) to 3."""
    strength = number(row, "preference_strength")
    question = asked(text(row, "prompt"))
    return better(text(row, "response_1"), text(row, "response_2"), -strength, question, abs(strength))


def helpsteer3(row: Row) -> Pair:
    """Turns, two responses and a preference from -3 (the first is much better) to 3."""
    strength = number(row, "overall_preference")
    first, second = text(row, "response1"), text(row, "response2")
    context, *_ = turns(get(row, "context"), _said(first), _said(second))
    return better(first, second, -strength, context, abs(strength))


def _said(words: str) -> list[Turn]:
    return [{"role": "assistant", "content": words}]


def _by_id(row: Row, column: str) -> Pair:
    chosen = number(row, column)
    if chosen not in (0, 1):
        raise RowError("bad_label", column, f"expected 0 or 1, got {chosen:g}")
    question = asked(text(row, "prompt"))
    return better(text(row, "response_0"), text(row, "response_1"), 1 - 2 * chosen, question)


def safe_rlhf(row: Row) -> Pair:
    """Two responses; the more helpful one is chosen, safe or not."""
    return _by_id(row, "better_response_id")


def safe_rlhf_safer(row: Row) -> Pair:
    """Two responses; the safer one is chosen, helpful or not."""
    return _by_id(row, "safer_response_id")


def shp(row: Row) -> Pair:
    """A post and two comments; `labels` 1: A had more votes. The scores are the votes."""
    label = number(row, "labels")
    if label not in (0, 1):
        raise RowError("bad_label", "labels", f"expected 0 or 1, got {label:g}")
    votes = [number(row, name) if row.get(name) is not None else None for name in ("score_A", "score_B")]
    pair = better(text(row, "human_ref_A"), text(row, "human_ref_B"), 2 * label - 1, asked(text(row, "history")))
    return pair._replace(scores=(votes[0], votes[1]) if label else (votes[1], votes[0]))


def _verdict(winner: str) -> int:
    """1 where A won, -1 where B did. Raises RowError for a tie, for two bad answers and for any other word."""
    word = winner.strip().lower()
    if word in BOTH_BAD:
        raise RowError("both_bad", "winner", "both answers were judged bad")
    if word.startswith("tie"):
        raise RowError("tie", "winner", "no answer was preferred")
    found = {"model_a": 1, "a": 1, "model_b": -1, "b": -1}.get(word)
    if found is None:
        raise RowError("bad_label", "winner", f"expected model_a, model_b, tie or both_bad, got {repr(winner)[:40]}")
    return found


def _battle(side_a: Any, side_b: Any, verdict: int) -> Pair:
    context, first, second = turns(None, side_a, side_b)
    return better(first, second, verdict, context)


def arena(row: Row) -> Pair:
    """Two whole conversations and a winner. Those of several rounds differ early and cannot be a pair."""
    verdict = _verdict(text(row, "winner"))
    return _battle(get(row, "conversation_a"), get(row, "conversation_b"), verdict)


def arena_55k(row: Row) -> Pair:
    """Prompts and answers as JSON text, a list for the rounds each, and three columns for the outcome."""
    votes = {name: row.get(name) for name in ("winner_model_a", "winner_model_b", "winner_tie")}
    won = [name for name, value in votes.items() if value in (1, True)]
    if len(won) != 1:
        raise RowError("bad_label", "winner_model_a", "expected 1 in one of winner_model_a, winner_model_b, winner_tie")
    if won == ["winner_tie"]:
        raise RowError("tie", "winner_tie", "no answer was preferred")
    asks, first, second = (_rounds(row, name) for name in ("prompt", "response_a", "response_b"))
    sides = [
        [turn for ask, said in zip(asks, answers, strict=False) for turn in (*asked(ask), *_said(said))]
        for answers in (first, second)
    ]
    return _battle(sides[0], sides[1], 1 if won == ["winner_model_a"] else -1)


def _rounds(row: Row, name: str) -> list[str]:
    """A JSON list of texts, one a round."""
    given = get(row, name)
    try:
        said = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        said = [given]
    said = said if isinstance(said, list) else [given]
    if not said or not all(isinstance(one, str) for one in said):
        raise RowError("empty", name, "a round without text")
    return said


def webgpt(row: Row) -> Pair:
    """A question and two answers, each with a score from -1 to 1."""
    given = get(row, "question")
    question = text(given, "full_text") if isinstance(given, dict) else text(row, "question")
    scores = number(row, "score_0"), number(row, "score_1")
    pair = better(text(row, "answer_0"), text(row, "answer_1"), scores[0] - scores[1], asked(question))
    return pair._replace(scores=(max(scores), min(scores)))


def summaries(row: Row) -> Pair:
    """A post and two summaries; `choice` is the better one. The prompt is the text that the paper trained on."""
    info, both, choice = get(row, "info"), get(row, "summaries"), number(row, "choice")
    if choice not in (0, 1) or not isinstance(both, list) or len(both) != 2:
        raise RowError("bad_label", "choice", "expected two summaries and 0 or 1")
    heads = (("subreddit", "SUBREDDIT: r/"), ("title", "TITLE: "), ("post", "POST: "), ("article", "ARTICLE: "))
    lines = [f"{head}{info[name]}" for name, head in heads if isinstance(info.get(name), str) and info[name]]
    if not (info.get("post") or info.get("article")):
        raise RowError("empty", "info", "neither a post nor an article")
    # The paper's prompt ends in the cue without a space, and each summary begins with one.
    said = [f" {text(one, 'text').strip()}" for one in both]
    return better(said[0], said[1], 1 - 2 * choice, "\n".join([*lines, "TL;DR:"]))


_ASK, _YES, _NO = "Where is the key?", "In the drawer.", "Find it yourself."
_TALKS = {
    f"conversation_{side}": [{"role": "user", "content": _ASK}, {"role": "assistant", "content": answer}]
    for side, answer in (("a", _NO), ("b", _YES))
}
_SAFE = {"prompt": _ASK, "response_0": _YES, "response_1": _NO, "better_response_id": 0, "safer_response_id": 1}
_SAFE_NEEDS = {"prompt": "text", "response_0": "text", "response_1": "text"}
ROWS = (
    Format(
        "helpsteer2",
        "prompt, response_1, response_2, preference_strength from -3 (the first) to 3, which is the gold margin",
        {"prompt": "text", "response_1": "text", "response_2": "text", "preference_strength": "number"},
        helpsteer2,
        [{"prompt": _ASK, "response_1": _YES, "response_2": _NO, "preference_strength": -2}],
    ),
    Format(
        "helpsteer3",
        "context as messages, response1, response2, overall_preference from -3 (the first) to 3: the gold margin",
        {"context": "messages", "response1": "text", "response2": "text", "overall_preference": "number"},
        helpsteer3,
        [
            {
                "context": [{"role": "user", "content": _ASK}],
                "response1": _NO,
                "response2": _YES,
                "overall_preference": 3,
                "domain": "general",
                "language": "english",
            }
        ],
        slices=("domain", "language"),
    ),
    Format(
        "safe_rlhf",
        "prompt, response_0, response_1; better_response_id says which is chosen (PKU-SafeRLHF)",
        {**_SAFE_NEEDS, "better_response_id": "number"},
        safe_rlhf,
        [_SAFE],
        beats=("safe_rlhf_safer",),
        note="the more helpful response is chosen (better_response_id); data.format: safe_rlhf_safer takes the safer",
    ),
    Format(
        "safe_rlhf_safer",
        "prompt, response_0, response_1; safer_response_id says which is chosen (PKU-SafeRLHF)",
        {**_SAFE_NEEDS, "safer_response_id": "number"},
        safe_rlhf_safer,
        [_SAFE],
        note="the safer response is chosen (safer_response_id); data.format: safe_rlhf takes the more helpful",
    ),
    Format(
        "shp",
        "history, human_ref_A, human_ref_B, labels 1 where A is better; score_A and score_B are votes (SHP)",
        {"history": "text", "human_ref_A": "text", "human_ref_B": "text", "labels": "number"},
        shp,
        [{"history": _ASK, "human_ref_A": _NO, "human_ref_B": _YES, "labels": 0, "score_A": 3, "score_B": 12}],
        {"score_A": "number", "score_B": "number"},
        slices=("domain",),
    ),
    Format(
        "arena",
        "conversation_a, conversation_b as messages, winner (LMSYS Chatbot Arena 33k, 100k, 140k)",
        {"conversation_a": "messages", "conversation_b": "messages", "winner": "text"},
        arena,
        [{**_TALKS, "winner": "model_b", "language": "English"}],
        slices=("language",),
    ),
    Format(
        "arena_55k",
        "prompt, response_a, response_b as JSON text, winner_model_a, winner_model_b, winner_tie (LMSYS Arena 55k)",
        {
            "prompt": "text|texts",
            "response_a": "text|texts",
            "response_b": "text|texts",
            "winner_model_a": "number|flag",
            "winner_model_b": "number|flag",
            "winner_tie": "number|flag",
        },
        arena_55k,
        [
            {
                "prompt": json.dumps([_ASK]),
                "response_a": json.dumps([_YES]),
                "response_b": json.dumps([_NO]),
                "winner_model_a": 1,
                "winner_model_b": 0,
                "winner_tie": 0,
            }
        ],
    ),
    Format(
        "webgpt",
        "question.full_text, answer_0, answer_1, score_0, score_1 (WebGPT comparisons)",
        {
            "question": "object:full_text|text",
            "answer_0": "text",
            "answer_1": "text",
            "score_0": "number",
            "score_1": "number",
        },
        webgpt,
        [{"question": {"full_text": _ASK}, "answer_0": _NO, "answer_1": _YES, "score_0": -0.5, "score_1": 0.5}],
    ),
    Format(
        "summaries",
        "info.post or info.article, summaries, choice (OpenAI's summarize-from-feedback comparisons)",
        {"info": "object:post|object:article", "summaries": "objects:text", "choice": "number"},
        summaries,
        [
            {
                "info": {"subreddit": "keys", "title": "Lost", "post": "My key is gone since Monday."},
                "summaries": [{"text": "Key gone."}, {"text": "I like doors."}],
                "choice": 0,
            }
        ],
    ),
)
