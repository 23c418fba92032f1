"""Every form in a planted file: right prompt, answers, margin, slices; rows of no use named; no wrong guess."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.data.formats.registry import FORMATS
from harness.data.pairs import PairTable, read_pairs
from harness.types import DataSpec, InputError

ASK, YES, NO = "Where is the key?", "In the drawer.", "Find it yourself."
TURN = f"\n\nHuman: {ASK}\n\nAssistant:"
SYSTEM = "\n\nSystem: Be brief."
Rows = Sequence[dict[str, Any]]


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


USER, GOOD, BAD = said("user", ASK), said("assistant", YES), said("assistant", NO)


def table(folder: Path, rows: Rows, name: str = "prefs.jsonl", **options: Any) -> PairTable:
    path = folder / name
    if name.endswith(".csv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif name.endswith(".parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_pairs(DataSpec(str(path), **options))


def told(read: PairTable) -> dict[str, tuple[int, tuple[int, ...]]]:
    return {note.kind: (note.count, note.rows) for note in read.notes}


def texts(read: PairTable) -> list[tuple[str, str, str, float | None]]:
    return [(p.prompt, p.chosen, p.rejected, p.gold_margin) for p in read.pairs]


# Rows of a form beyond the example in its registry row: form, rows, pairs as (prompt, chosen, rejected, margin).
Expected = Sequence[tuple[str, str, str, float | None]]
ONE = (TURN, f" {YES}", f" {NO}")
ANSWERS = {"chosen": YES, "rejected": NO}
PARTS = [{"type": "text", "text": ASK, "image": None, "mimeType": None}]
PLANTED: dict[str, tuple[str, Rows, Expected]] = {
    "LLaMA-Factory with a system turn and a call of a tool's answer": (
        "sharegpt",
        [
            {
                "conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": ASK}],
                "chosen": {"from": "gpt", "value": YES},
                "rejected": {"from": "gpt", "value": NO},
            }
        ],
        [(f"{SYSTEM}{TURN}", f" {YES}", f" {NO}", None)],
    ),
    "LLaMA-Factory with a system column": (
        "sharegpt",
        [{"conversations": [{"from": "human", "value": ASK}], "system": "Be brief.", "chosen": GOOD, "rejected": BAD}],
        [(f"{SYSTEM}{TURN}", f" {YES}", f" {NO}", None)],
    ),
    "alpaca with input, history and system": (
        "alpaca",
        [{"instruction": "Say", "input": "where", "system": "Be brief.", "history": [["Hi", "Hello"]], **ANSWERS}],
        [(f"{SYSTEM}\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Say\nwhere\n\nAssistant:", *ONE[1:], None)],
    ),
    "alpaca with an empty input": ("alpaca", [{"instruction": ASK, "input": "", **ANSWERS}], [(*ONE, None)]),
    "axolotl messages of several rounds": (
        "chat_template.default",
        [{"messages": [said("user", "Hi"), said("assistant", "Hello"), USER], "chosen": GOOD, "rejected": BAD}],
        [(f"\n\nHuman: Hi\n\nAssistant: Hello{TURN}", *ONE[1:], None)],
    ),
    "prompt_pairs": (
        "prompt_pairs",
        [{"system": "Be brief.", "prompt": ASK, **ANSWERS}],
        [(SYSTEM + TURN, *ONE[1:], None)],
    ),
    "ultra, whose turns repeat the prompt": (
        "ultra",
        [{"system": "Be brief.", "prompt": ASK, "chosen": [USER, GOOD], "rejected": [USER, BAD]}],
        [(SYSTEM + TURN, *ONE[1:], None)],
    ),
    "argilla's cleaned set with ratings": (
        "pairs",
        [
            {
                "prompt": ASK,
                "chosen": [USER, GOOD],
                "rejected": [USER, BAD],
                "chosen-rating": 4.5,
                "rejected-rating": 2.0,
            }
        ],
        [(*ONE, 2.5)],
    ),
    "argilla before it was cleaned": (
        "argilla",
        [
            {
                "instruction": ASK,
                "chosen_response": YES,
                "rejected_response": NO,
                "chosen_avg_rating": 5,
                "rejected_avg_rating": 1,
            }
        ],
        [(*ONE, 4.0)],
    ),
    "Orca pairs with an empty system": ("orca", [{"system": "", "question": ASK, **ANSWERS}], [(*ONE, None)]),
    "distilabel, rating in the order of generations": (
        "distilabel",
        [{"system": "", "input": ASK, **ANSWERS, "generations": [NO, YES], "rating": [3.0, 9.0], "status": "swapped"}],
        [(*ONE, 6.0)],
    ),
    "OpenAI": (
        "openai",
        [{"input": {"messages": [USER], "tools": []}, "preferred_output": [GOOD], "non_preferred_output": [BAD]}],
        [(*ONE, None)],
    ),
    "UltraFeedback without an overall score": (
        "ultrafeedback",
        [
            {
                "instruction": ASK,
                "completions": [
                    {"response": NO, "annotations": {"honesty": {"Rating": "2"}, "truth": {"Rating": "N/A"}}},
                    {"response": "Hm.", "fine-grained_score": 3.0},
                    {"response": YES, "overall_score": 4.5},
                ],
            }
        ],
        [(*ONE, 2.5)],
    ),
    "HelpSteer2, the second is better": (
        "helpsteer2",
        [{"prompt": ASK, "response_1": NO, "response_2": YES, "preference_strength": 3}],
        [(*ONE, 3.0)],
    ),
    "HelpSteer3, the first is better": (
        "helpsteer3",
        [{"context": [USER], "response1": YES, "response2": NO, "overall_preference": -1}],
        [(*ONE, 1.0)],
    ),
    "SafeRLHF by safety alone": (
        "safe_rlhf_safer",
        [{"prompt": ASK, "response_0": NO, "response_1": YES, "safer_response_id": 1}],
        [(*ONE, None)],
    ),
    "SHP, B is better": (
        "shp",
        [{"history": ASK, "human_ref_A": NO, "human_ref_B": YES, "labels": 0, "score_A": 4, "score_B": 10}],
        [(*ONE, 6.0)],
    ),
    "Arena 140k, content in parts": (
        "arena",
        [
            {
                "conversation_a": [said("user", PARTS), said("assistant", [{"type": "text", "text": YES}])],
                "conversation_b": [said("user", PARTS), said("assistant", [{"type": "text", "text": NO}])],
                "winner": "model_a",
            }
        ],
        [(*ONE, None)],
    ),
    "Arena 55k": (
        "arena_55k",
        [
            {
                "prompt": json.dumps([ASK]),
                "response_a": json.dumps([NO]),
                "response_b": json.dumps([YES]),
                "winner_model_a": 0,
                "winner_model_b": 1,
                "winner_tie": 0,
            }
        ],
        [(*ONE, None)],
    ),
    "WebGPT": (
        "webgpt",
        [{"question": {"full_text": ASK, "id": "1"}, "answer_0": NO, "answer_1": YES, "score_0": -1.0, "score_1": 1.0}],
        [(*ONE, 2.0)],
    ),
    "an article and its summaries": (
        "summaries",
        [
            {
                "info": {"post": None, "article": "A day."},
                "summaries": [{"text": "No."}, {"text": " Day. "}],
                "choice": 1,
            }
        ],
        [("ARTICLE: A day.\nTL;DR:", " Day.", " No.", None)],
    ),
    "TruthfulQA on the hub": (
        "truthfulqa",
        [{"question": ASK, "best_answer": YES, "correct_answers": ["Here.", YES], "incorrect_answers": [NO, "Gone."]}],
        [(*ONE, None)],
    ),
    "RewardBench 2": ("reward_bench_2", [{"prompt": ASK, "chosen": [YES], "rejected": [NO, "Gone."]}], [(*ONE, None)]),
    "KTO rows of LLaMA-Factory's ShareGPT form": (
        "kto",
        [
            {"conversations": [{"from": "human", "value": ASK}, {"from": "gpt", "value": NO}], "kto_tag": False},
            {"conversations": [{"from": "human", "value": ASK}, {"from": "gpt", "value": YES}], "kto_tag": True},
        ],
        [(*ONE, None)],
    ),
}


@pytest.mark.parametrize("case", PLANTED)
def test_planted_rows_give_their_pair(tmp_path: Path, case: str) -> None:
    form, rows, expected = PLANTED[case]
    read = table(tmp_path, rows)
    assert read.form == form and texts(read) == list(expected)
    assert read.pairs[0].source == form


EXAMPLES: dict[str, Expected] = {
    "pairs": [(ASK, f" {YES}", f" {NO}", None)],
    "unpaired": [(ASK, f" {YES}", f" {NO}", None)],
    "reward_bench": [(ASK, YES, "No.", None)],
    "ultra": [(SYSTEM + TURN, *ONE[1:], None)],
    "alpaca": [(f"\n\nHuman: Answer shortly.\n{ASK}\n\nAssistant:", *ONE[1:], None)],
    "orca": [(SYSTEM + TURN, *ONE[1:], None)],
    "distilabel": [(SYSTEM + TURN, *ONE[1:], 7.0)],
    "prompt_pairs": [(SYSTEM + TURN, *ONE[1:], None)],
    "argilla": [(*ONE, 2.5)],
    "helpsteer2": [(*ONE, 2.0)],
    "helpsteer3": [(*ONE, 3.0)],
    "shp": [(*ONE, 9.0)],
    "webgpt": [(*ONE, 1.0)],
    "summaries": [
        (
            "SUBREDDIT: r/keys\nTITLE: Lost\nPOST: My key is gone since Monday.\nTL;DR:",
            " Key gone.",
            " I like doors.",
            None,
        )
    ],
    "ultrafeedback": [(*ONE, 6.5)],
    "nectar": [(*ONE, 2.0)],
    "helpsteer": [(*ONE, 3.0)],
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_the_example_of_each_form_is_recognised_and_read(tmp_path: Path, name: str, kind: str) -> None:
    form = FORMATS[name]
    # The example of the safer form has both verdicts, as the files have, so it must be asked for.
    forced = {"format": name} if name == "safe_rlhf_safer" else {}
    read = table(tmp_path, form.example, f"p.{kind}", **forced)
    swapped = name == "safe_rlhf_safer"
    expected = [(ONE[0], ONE[2], ONE[1], None)] if swapped else EXAMPLES.get(name, [(*ONE, None)])
    assert read.form == name and texts(read) == list(expected)
    assert ("choice" in told(read)) == bool(form.note)
    assert not {n.text for n in read.notes if n.kind == "ignored_columns"} & {"columns prompt are not used"}


@pytest.mark.parametrize("name", FORMATS)
def test_a_form_that_is_named_is_taken_and_named_columns_are_asked_for(tmp_path: Path, name: str) -> None:
    form = FORMATS[name]
    assert table(tmp_path, form.example, format=name).form == name
    needed = next(iter(form.needs)).split("|")[0]
    without = [{n: v for n, v in row.items() if n != needed} for row in form.example]
    with pytest.raises(InputError) as caught:
        table(tmp_path, without, format=name)
    (line,) = caught.value.problems
    assert (
        f"{needed}" in line and f"missing; found {', '.join(sorted(without[0]))}; needed for {name}: {form.doc}" in line
    )


# --- CSV ---


@pytest.mark.parametrize(
    "name", ["pairs", "alpaca", "orca", "helpsteer2", "shp", "arena_55k", "truthfulqa_csv", "unpaired"]
)
def test_tables_are_read_as_json_lines_are(tmp_path: Path, name: str) -> None:
    rows = FORMATS[name].example
    (tmp_path / "a").mkdir()
    assert texts(table(tmp_path, rows, "p.csv")) == texts(table(tmp_path / "a", rows))
    (tmp_path / "b").mkdir()
    tabs = "\t".join(rows[0]) + "\n" + "".join("\t".join(map(str, row.values())) + "\n" for row in rows)
    if '"' not in tabs and "\n\n" not in tabs:
        (tmp_path / "b" / "p.tsv").write_text(tabs)
        assert texts(read_pairs(DataSpec(str(tmp_path / "b" / "p.tsv")))) == texts(table(tmp_path, rows, "p.csv"))


def test_cells_keep_their_text_and_messages_are_read(tmp_path: Path) -> None:
    rows = [
        {"prompt": "1", "chosen": "[1, 2]", "rejected": "007", "score_chosen": "2.5", "score_rejected": "1"},
        {"prompt": "a, \"b\"\nc", "chosen": "true", "rejected": "null", "score_chosen": "", "score_rejected": ""},
    ]  # fmt: skip
    assert texts(table(tmp_path, rows, "p.csv")) == [("1", "[1, 2]", "007", 1.5), ('a, "b"\nc', "true", "null", None)]
    turns = [{"prompt": ASK, "chosen": json.dumps([USER, GOOD]), "rejected": json.dumps([USER, BAD])}]
    assert texts(table(tmp_path, turns, "q.csv")) == [(*ONE, None)]


# --- rows of no use, under both policies ---

DROPPED: dict[str, tuple[str, dict[str, Any]]] = {
    "tie: arena": ("arena", {"winner": "tie"}),
    "both_bad: arena 33k": ("arena", {"winner": "tie (bothbad)"}),
    "both_bad: arena 140k": ("arena", {"winner": "both_bad"}),
    "tie: arena_55k": ("arena_55k", {"winner_model_a": 0, "winner_model_b": 0, "winner_tie": 1}),
    "bad_label: arena_55k": ("arena_55k", {"winner_model_a": 0, "winner_model_b": 0, "winner_tie": 0}),
    "empty: arena_55k": ("arena_55k", {"response_a": "[null]"}),
    "bad_label: arena": ("arena", {"winner": "Gemma"}),
    "diverged: arena": (
        "arena",
        {"conversation_a": [USER, BAD, USER, BAD], "conversation_b": [USER, GOOD, USER, GOOD]},
    ),
    "image: arena": ("arena", {"conversation_a": [said("user", [{"type": "image", "image": "x"}]), GOOD]}),
    "tie: helpsteer2": ("helpsteer2", {"preference_strength": 0}),
    "bad_number: helpsteer2": ("helpsteer2", {"preference_strength": "much"}),
    "tie: helpsteer3": ("helpsteer3", {"overall_preference": 0}),
    "bad_label: shp": ("shp", {"labels": 2}),
    "bad_label: safe_rlhf": ("safe_rlhf", {"better_response_id": -1}),
    "tie: webgpt": ("webgpt", {"score_0": 0.0, "score_1": 0.0}),
    "tie: distilabel": ("distilabel", {"status": "tie"}),
    "tie: ultrafeedback": ("ultrafeedback", {"completions": [{"response": x, "overall_score": 3} for x in (YES, NO)]}),
    "tie: nectar": ("nectar", {"answers": [{"answer": YES, "rank": 1.0}]}),
    "image: sharegpt": ("sharegpt", {"images": ["a.jpg"]}),
    "tool_call: sharegpt": (
        "sharegpt",
        {"chosen": {"from": "function_call", "value": '{"name": "f", "arguments": {}}'}},
    ),
    "turn_order: sharegpt": ("sharegpt", {"conversations": [{"from": "gpt", "value": "Hello"}]}),
    "tool_turn: chat_template.default": (
        "chat_template.default",
        {"messages": [USER, said("assistant", None) | {"tool_calls": [{"id": "1"}]}, said("tool", "drawer")]},
    ),
    "bad_label: kto": ("kto", {"label": 1}),
    "empty: summaries": ("summaries", {"info": {"post": ""}}),
    "wrong_type: ultrafeedback": ("ultrafeedback", {"completions": [{"response": 5, "overall_score": 1}]}),
}


@pytest.mark.parametrize("case", DROPPED)
def test_rows_of_no_use_are_counted_and_named(tmp_path: Path, case: str) -> None:
    kind, (name, change) = case.split(":")[0], DROPPED[case]
    good = list(FORMATS[name].example)
    rows = [*good, {**good[0], **change}, *good]
    read = table(tmp_path, rows)
    assert read.form == name and told(read)[kind] == (1, (len(good) + 1,)) and read.pairs
    if kind in ("tie", "both_bad"):
        assert table(tmp_path, rows, on_bad_row="error").pairs == read.pairs
    else:
        with pytest.raises(InputError, match=rf"prefs\.jsonl:{len(good) + 1}: "):
            table(tmp_path, rows, on_bad_row="error")


# --- several answers to a prompt ---


def ranks(*values: float) -> dict[str, Any]:
    return {"prompt": ASK, "answers": [{"answer": f"r{v:g}", "rank": v, "model": "m"} for v in values]}


@pytest.mark.parametrize(
    ("rule", "cap", "expected"),
    [
        ("best_worst", 0, ["1>4"]),
        ("adjacent", 0, ["1>2", "2>4"]),
        ("all", 0, ["1>4", "2>4", "1>2"]),
        ("all", 2, ["1>4", "2>4"]),
    ],
)
def test_several_answers_become_pairs_by_the_rule(tmp_path: Path, rule: str, cap: int, expected: list[str]) -> None:
    read = table(tmp_path, [ranks(4, 1, 2)], pairs=rule, pairs_per_prompt=cap)
    assert [f"{p.chosen[2:]}>{p.rejected[2:]}" for p in read.pairs] == expected
    assert [p.gold_margin for p in read.pairs] == [float(int(e[2]) - int(e[0])) for e in expected]
    assert told(read)["rule"] == (len(expected), ()) and ("over_cap" in told(read)) == (cap > 0)


def test_answers_of_one_grade_are_not_set_against_each_other(tmp_path: Path) -> None:
    read = table(tmp_path, [ranks(1, 1.5, 1.5, 1)], pairs="all")
    assert [(p.chosen, p.rejected) for p in read.pairs] == [(a, b) for a in (" r1", " r1") for b in (" r1.5", " r1.5")]
    assert len(table(tmp_path, [ranks(1, 1.5, 1.5, 1)], pairs="adjacent").pairs) == 1


def test_one_pair_of_no_use_costs_a_row_no_other(tmp_path: Path) -> None:
    row = ranks(1, 2, 3)
    row["answers"][1]["answer"] = "r3"
    read = table(tmp_path, [row], pairs="all")
    assert [(p.chosen, p.rejected) for p in read.pairs] == [(" r1", " r3"), (" r1", " r3")]
    assert told(read)["identical"] == (1, (1,))


def test_the_cap_counts_pairs_of_a_prompt_over_rows(tmp_path: Path) -> None:
    rows = [{"prompt": ASK, "chosen": f"{YES}{i}", "rejected": NO} for i in range(5)]
    read = table(tmp_path, [*rows, {**rows[0], "prompt": "Who?"}], pairs_per_prompt=2)
    assert [p.meta["row"] for p in read.pairs] == [1, 2, 6] and told(read)["over_cap"] == (3, (3, 4, 5))


def test_scored_answers_in_rows_of_their_own_are_grouped_by_prompt(tmp_path: Path) -> None:
    rows = [
        {"prompt": q, "response": f"r{score}", "helpfulness": score}
        for q, score in (("a", 1), ("b", 2), ("a", 4), ("c", 3), ("a", 2), ("c", 3))
    ]
    read = table(tmp_path, rows)
    assert [(p.chosen, p.rejected, p.gold_margin, p.meta["row"]) for p in read.pairs] == [(" r4", " r1", 3.0, 3)]
    assert told(read)["unpaired"] == (4, (2, 4, 5, 6))


# --- slices ---


@pytest.mark.parametrize(
    ("name", "more", "columns", "expected"),
    [
        ("helpsteer3", {}, "domain, language", {"domain": "general", "language": "english"}),
        ("reward_bench", {}, "subset", {"subset": "chat-easy"}),
        ("truthfulqa_csv", {}, "Category", {"Category": "Keys"}),
        ("ultrafeedback", {"source": "one"}, "source", {"source": "one"}),
        ("kto", {"part": 3}, "part", {"part": "3"}),
        ("pairs", {"lang": None}, "lang", {"lang": ""}),
    ],
)
def test_slices_stand_in_the_pair(
    tmp_path: Path, name: str, more: dict[str, Any], columns: str, expected: dict[str, str]
) -> None:
    rows = [row | more for row in FORMATS[name].example]
    for kind in ("jsonl", "parquet"):
        read = table(tmp_path, rows, f"p.{kind}", slices=columns)
        assert all(pair.meta["slices"] == expected for pair in read.pairs) and read.pairs
        assert not any(name in note.text for note in read.notes for name in expected if note.kind == "ignored_columns")


def test_a_slice_that_no_row_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.slices: .* has no column topic; found chosen, prompt, rejected"):
        table(tmp_path, FORMATS["pairs"].example, slices="topic")


# --- no wrong guess ---

TALK = [USER, GOOD]
# Rows that nobody can place with certainty -> what the message must name.
AMBIGUOUS: dict[str, tuple[dict[str, Any], Sequence[str]]] = {
    "input beside answers": ({"input": ASK, **ANSWERS}, ["prompt: input", "data.format: pairs"]),
    "context beside answers": ({"context": ASK, **ANSWERS}, ["prompt: context"]),
    "query beside answers": ({"query": ASK, **ANSWERS}, ["prompt: query"]),
    "history beside answers": ({"history": ASK, **ANSWERS}, ["prompt: history"]),
    "problem beside answers": ({"problem": ASK, **ANSWERS}, ["prompt: problem"]),
    "user beside answers": ({"user": ASK, **ANSWERS}, ["prompt: user"]),
    "text beside answers": ({"text": ASK, **ANSWERS}, ["prompt: text"]),
    "post beside answers": ({"post": ASK, **ANSWERS}, ["prompt: post"]),
    "two columns for the prompt": ({"context": "A house.", "query": ASK, **ANSWERS}, ["(query, context?)"]),
    "question and instruction": ({"question": ASK, "instruction": "Say.", **ANSWERS}, ["(question, instruction?)"]),
    "question and input": ({"question": ASK, "input": "x", **ANSWERS}, ["(question, input?)"]),
    "messages beside texts": ({"messages": [USER], **ANSWERS}, ["messages"]),
    "conversations beside texts": ({"conversations": [USER], **ANSWERS}, ["conversations"]),
    "answers alone as messages": ({"chosen": [GOOD], "rejected": [BAD]}, ["where the prompt stands"]),
    "question beside answers as messages": (
        {"question": ASK, "chosen": [GOOD], "rejected": [BAD]},
        ["prompt: question"],
    ),
    "instruction beside answers as messages": (
        {"instruction": ASK, "chosen": [GOOD], "rejected": [BAD]},
        ["instruction"],
    ),
    "single messages without turns": ({"chosen": GOOD, "rejected": BAD}, ["column conversations missing", "sharegpt"]),
    "prompt and single messages": ({"prompt": ASK, "chosen": GOOD, "rejected": BAD}, ["conversations missing"]),
    "two kinds of turns": (
        {"conversations": [USER], "messages": [USER], "chosen": GOOD, "rejected": BAD},
        ["sharegpt: ", "chat_template.default: "],
    ),
    "completions and answers of ranks": (
        {
            "prompt": ASK,
            "instruction": ASK,
            "completions": [{"response": YES}],
            "answers": [{"answer": YES, "rank": 1}],
        },
        ["ultrafeedback: ", "nectar: "],
    ),
    "two verdicts of two sets": (
        {
            "prompt": ASK,
            "response_0": YES,
            "response_1": NO,
            "better_response_id": 0,
            "response_2": "x",
            "preference_strength": 1,
        },
        ["helpsteer2: ", "safe_rlhf: "],
    ),
    "labels of two sets": (
        {"completion": YES, "messages": TALK, "label": True, "prompt": ASK},
        ["unpaired: ", "kto: "],
    ),
    "responses without a verdict": (
        {"prompt": ASK, "response_0": YES, "response_1": NO},
        ["column better_response_id"],
    ),
    "HelpSteer2 without a strength": (
        {"prompt": ASK, "response_1": YES, "response_2": NO},
        ["column preference_strength"],
    ),
    "HelpSteer3 without a verdict": (
        {"context": [USER], "response1": YES, "response2": NO},
        ["column overall_preference"],
    ),
    "a battle without a winner": ({"conversation_a": TALK, "conversation_b": TALK}, ["column winner missing", "arena"]),
    "a battle whose winner is a number": (
        {"conversation_a": TALK, "conversation_b": TALK, "winner": 1},
        ["winner: expected text, found number 1"],
    ),
    "a battle of texts": (
        {"prompt": ASK, "response_a": YES, "response_b": NO, "winner": "a"},
        ["columns", "missing; found"],
    ),
    "ranks as a list of texts": (
        {"prompt": ASK, "answers": [YES, NO]},
        ["answers: expected a list of objects with answer, rank"],
    ),
    "answers without ranks": ({"prompt": ASK, "answers": [{"answer": YES}]}, ["answers: expected a list of objects"]),
    "completions as texts": (
        {"instruction": ASK, "completions": [YES, NO]},
        ["completions: expected a list of objects"],
    ),
    "one answer without a label": ({"prompt": ASK, "completion": YES}, ["missing; found completion, prompt"]),
    "one response without a score": ({"prompt": ASK, "response": YES}, ["helpsteer", "column helpfulness missing"]),
    "turns without a label": ({"messages": TALK}, ["columns chosen, rejected missing; found messages"]),
    "chosen alone": ({"prompt": ASK, "chosen": YES}, ["column rejected missing"]),
    "right answers alone": ({"question": ASK, "correct_answers": [YES]}, ["column incorrect_answers missing"]),
    "numbers as answers": (
        {"prompt": ASK, "chosen": 1, "rejected": 2},
        ["chosen: expected text or a list of messages, found number 1"],
    ),
    "objects as answers": (
        {"prompt": ASK, "chosen": {"text": YES}, "rejected": {"text": NO}},
        ["chosen: expected text"],
    ),
    "summaries without a choice": (
        {"info": {"post": ASK}, "summaries": [{"text": YES}, {"text": NO}]},
        ["column choice missing"],
    ),
    "an output of fine-tuning": (
        {"instruction": ASK, "input": "", "output": YES},
        ["missing; found input, instruction, output"],
    ),
    "an OpenAI chat": (
        {"input": {"messages": [USER]}, "preferred_output": [GOOD]},
        ["column non_preferred_output missing"],
    ),
    "nothing known": ({"a": 1, "b": 2}, ["columns chosen, rejected missing; found a, b", "harness formats lists all"]),
    "a sentence and a class": ({"text": ASK, "label": 1}, ["columns chosen, rejected missing; found label, text"]),
}


def test_the_corpus_of_ambiguous_rows_is_large_enough() -> None:
    assert len(AMBIGUOUS) >= 40


@pytest.mark.parametrize("case", AMBIGUOUS)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_what_is_not_certain_is_asked_for_and_never_guessed(tmp_path: Path, case: str, kind: str) -> None:
    row, parts = AMBIGUOUS[case]
    with pytest.raises(InputError) as caught:
        table(tmp_path, [row, row], f"p.{kind}")
    (line,) = caught.value.problems
    for part in parts:
        assert part in line, line


def test_an_implicit_prompt_beside_a_column_that_holds_it_too_is_certain(tmp_path: Path) -> None:
    row = {"question": ASK, "chosen": f"{ASK} {YES}", "rejected": f"{ASK} {NO}"}
    read = table(tmp_path, [row])
    assert read.form == "pairs" and texts(read) == [(ASK, f" {YES}", f" {NO}", None)]


def test_a_system_column_that_nothing_reads_is_named_as_changing_the_meaning(tmp_path: Path) -> None:
    talk = FORMATS["hh"].example[0]
    read = table(tmp_path, [talk | {"system": "Be brief."}])
    text = "columns system are not used; system changes what a pair means"
    assert read.form == "hh" and text in [note.text for note in read.notes]
    plain = table(tmp_path, [FORMATS["pairs"].example[0] | {"system": ""}])
    assert plain.form == "pairs" and texts(plain) == [(ASK, f" {YES}", f" {NO}", None)]
