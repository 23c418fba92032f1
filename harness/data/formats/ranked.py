"""Forms of several graded answers to one prompt: UltraFeedback, Nectar, RewardBench 2, TruthfulQA, HelpSteer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from harness.data.formats.row import (
    Format,
    Graded,
    Pair,
    Ranked,
    Row,
    as_number,
    asked,
    before_answer,
    get,
    number,
    text,
)
from harness.data.raw_rows import RowError
from harness.data.transcripts import from_transcript

# Which pairs `data.pairs` makes of several answers.
RULES = {
    "best_worst": "the first of the best grade against the first of the worst",
    "all": "every two answers of different grades, the widest difference first",
    "adjacent": "the first of each grade against the first of the next lower one",
}


def ranked_pairs(ranked: Ranked, rule: str) -> Iterator[Pair]:
    """The pairs of graded answers by a rule of `RULES`. Raises RowError `tie` where none is better than another."""
    order = sorted(ranked.answers, key=lambda answer: -answer[1])  # answers of one grade stay in their order
    leaders = [answer for at, answer in enumerate(order) if at == 0 or answer[1] < order[at - 1][1]]
    if len(leaders) < 2:
        raise RowError("tie", "", "no answer is better than another" if order else "no answers")
    if rule == "best_worst":
        chosen = [(leaders[0], leaders[-1])]
    elif rule == "adjacent":
        chosen = list(pairwise(leaders))
    else:
        both = [(a, b) for at, a in enumerate(order) for b in order[at + 1 :] if a[1] > b[1]]
        chosen = sorted(both, key=lambda two: two[1][1] - two[0][1])
    for good, bad in chosen:
        scores = (good[1], bad[1]) if ranked.scores else (None, None)
        yield Pair(ranked.prompt, good[0], bad[0], good[1] - bad[1] if ranked.margins else None, scores)


def ultrafeedback(row: Row) -> Ranked:
    """An instruction and its completions with the overall score of each; without one its mean rating counts."""
    answers = []
    for at, one in enumerate(_objects(row, "completions")):
        place = f"completions[{at}]"
        score = one["overall_score"] if one.get("overall_score") is not None else one.get("fine-grained_score")
        answers.append((_text_at(one, "response", place), as_number(_mean(one) if score is None else score, place)))
    return Ranked(asked(text(row, "instruction")), answers, scores=True)


def _mean(completion: Row) -> Any:
    """The mean rating of a completion's annotations, None where there is none."""
    found = [str(a.get("Rating")) for a in (completion.get("annotations") or {}).values() if isinstance(a, dict)]
    ratings = [float(rating) for rating in found if rating.replace(".", "", 1).isdigit()]
    return sum(ratings) / len(ratings) if ratings else None


def nectar(row: Row) -> Ranked:
    """A dialogue that ends in the cue to answer, and answers by rank, 1 the best."""
    answers = [
        (_text_at(one, "answer", f"answers[{at}]"), -as_number(one.get("rank"), f"answers[{at}].rank"))
        for at, one in enumerate(_objects(row, "answers"))
    ]
    return Ranked(before_answer("prompt", from_transcript(text(row, "prompt"))), answers)


def _objects(row: Row, name: str) -> Sequence[Row]:
    value = get(row, name)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise RowError("wrong_type", name, "expected a list of objects")
    return value


def _text_at(one: Row, name: str, place: str) -> str:
    if not isinstance(one.get(name), str):
        raise RowError("wrong_type", place, f"expected text as {name}")
    return str(one[name])


def _right_and_wrong(question: str, right: Sequence[str], wrong: Sequence[str]) -> Ranked:
    answers = [*((one, 1.0) for one in right), *((one, 0.0) for one in wrong)]
    return Ranked(asked(question), answers, margins=False)


def reward_bench_2(row: Row) -> Ranked:
    """A prompt with lists of right and of wrong answers."""
    for name in ("chosen", "rejected"):
        if not all(isinstance(one, str) for one in get(row, name)):
            raise RowError("wrong_type", name, "expected a list of texts")
    return _right_and_wrong(text(row, "prompt"), get(row, "chosen"), get(row, "rejected"))


def _listed(value: Any, first: Any = None) -> list[str]:
    """Answers from a list or from one text with semicolons, `first` before all others."""
    parts = value if isinstance(value, list) else str(value or "").split(";")
    known = [first] if isinstance(first, str) and first.strip() else []
    return list(dict.fromkeys(part.strip() for part in [*known, *parts] if isinstance(part, str) and part.strip()))


def truthfulqa(row: Row) -> Ranked:
    """A question with true and false answers; the best true one comes first."""
    right = _listed(get(row, "correct_answers"), row.get("best_answer"))
    return _right_and_wrong(text(row, "question"), right, _listed(get(row, "incorrect_answers")))


def truthfulqa_csv(row: Row) -> Ranked:
    """The CSV of TruthfulQA, whose answers are split by semicolons."""
    right = _listed(get(row, "Correct Answers"), row.get("Best Answer"))
    wrong = _listed(get(row, "Incorrect Answers"), row.get("Best Incorrect Answer"))
    return _right_and_wrong(text(row, "Question"), right, wrong)


def truthfulqa_mc(row: Row) -> Ranked:
    """The multiple-choice form of TruthfulQA: choices with labels 1 and 0."""
    targets = get(row, "mc2_targets|mc1_targets")
    choices, labels = targets.get("choices") or [], targets.get("labels") or []
    right = [choice for choice, label in zip(choices, labels, strict=False) if label]
    wrong = [choice for choice, label in zip(choices, labels, strict=False) if not label]
    return _right_and_wrong(text(row, "question"), right, wrong)


def helpsteer(row: Row) -> Graded:
    """One response with its ratings; those to the same prompt are set against each other by helpfulness."""
    return Graded(asked(text(row, "prompt")), text(row, "response"), number(row, "helpfulness"))


_ASK, _YES, _NO = "Where is the key?", "In the drawer.", "Find it yourself."
ROWS = (
    Format(
        "ultrafeedback",
        "instruction, completions with response and overall_score (UltraFeedback before it was made into pairs)",
        {"instruction": "text", "completions": "objects:response"},
        ultrafeedback,
        [
            {
                "instruction": _ASK,
                "source": "invented",
                "completions": [{"response": _NO, "overall_score": 2.0}, {"response": _YES, "overall_score": 8.5}],
            }
        ],
        slices=("source",),
        ranked=True,
        many=True,
    ),
    Format(
        "nectar",
        "prompt, answers with answer and rank, 1 the best; the gold margin is the difference of ranks (Nectar)",
        {"prompt": "text", "answers": "objects:answer,rank"},
        nectar,
        [
            {
                "prompt": f"\n\nHuman: {_ASK}\n\nAssistant: ",
                "answers": [
                    {"answer": _NO, "rank": 3.0},
                    {"answer": _YES, "rank": 1.0},
                    {"answer": "Look.", "rank": 2.0},
                ],
            }
        ],
        slices=("source",),
        ranked=True,
        many=True,
    ),
    Format(
        "reward_bench_2",
        "prompt, chosen and rejected as lists of texts (RewardBench 2)",
        {"prompt": "text", "chosen": "texts", "rejected": "texts"},
        reward_bench_2,
        [{"prompt": _ASK, "chosen": [_YES], "rejected": [_NO, "What key?"], "subset": "Focus"}],
        slices=("subset",),
        ranked=True,
        many=True,
    ),
    Format(
        "truthfulqa",
        "question, correct_answers, incorrect_answers as lists, best_answer first (TruthfulQA, generation)",
        {"question": "text", "correct_answers": "texts", "incorrect_answers": "texts"},
        truthfulqa,
        [
            {
                "question": _ASK,
                "best_answer": _YES,
                "category": "Keys",
                "correct_answers": ["Not here.", _YES],
                "incorrect_answers": [_NO],
            }
        ],
        {"best_answer": "text"},
        slices=("category", "type"),
        ranked=True,
        many=True,
    ),
    Format(
        "truthfulqa_mc",
        "question, mc1_targets or mc2_targets with choices and labels (TruthfulQA, multiple choice)",
        {"question": "text", "mc2_targets|mc1_targets": "object:choices,labels"},
        truthfulqa_mc,
        [{"question": _ASK, "mc2_targets": {"choices": [_YES, _NO], "labels": [1, 0]}}],
        ranked=True,
        many=True,
    ),
    Format(
        "truthfulqa_csv",
        "Question, Best Answer, Correct Answers, Incorrect Answers, split by semicolons (TruthfulQA.csv)",
        {"Question": "text", "Correct Answers": "text", "Incorrect Answers": "text"},
        truthfulqa_csv,
        [
            {
                "Question": _ASK,
                "Best Answer": _YES,
                "Correct Answers": f"Not here.; {_YES}",
                "Incorrect Answers": f"{_NO}; There is no key.",
                "Category": "Keys",
            }
        ],
        {"Best Answer": "text", "Best Incorrect Answer": "text"},
        slices=("Category", "Type"),
        ranked=True,
        many=True,
    ),
    Format(
        "helpsteer",
        "prompt, response, helpfulness, one answer a row; answers to a prompt are paired by it (HelpSteer)",
        {"prompt": "text", "response": "text", "helpfulness": "number"},
        helpsteer,
        [
            {"prompt": _ASK, "response": _NO, "helpfulness": 1, "correctness": 2},
            {"prompt": _ASK, "response": _YES, "helpfulness": 4, "correctness": 4},
        ],
        ranked=True,
        many=True,
    ),
)
