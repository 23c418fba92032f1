"""What spoils a set in silence: prompts in writing without spaces, special tokens, tools, early divergence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.chat import Render, Rendered, chat_renderer
from harness.data.pairs import PairTable, read_pairs
from harness.data.raw_rows import RowError
from harness.data.transcripts import Turn, split_texts
from harness.types import DataSpec


def table(folder: Path, rows: Sequence[Any], render: Render | None = None) -> PairTable:
    path = folder / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_pairs(DataSpec(str(path)), render)


def said(read: PairTable, kind: str) -> str:
    return next((note.text for note in read.notes if note.kind == kind), "")


# --- prompts that both answers begin with ---

IMPLICIT = {
    "Chinese": ("问：钥匙在哪里？答：", "在抽屉里。", "自己找。"),
    "Chinese behind a word": ("Q1 钥匙在哪里？答：", "在抽屉里。", "自己找。"),
    "Chinese, a number differs": ("编号是", "10。", "12。"),
    "Japanese": ("鍵はどこですか。", "引き出しの中です。", "自分で探して。"),
    "Thai": ("กุญแจอยู่ที่ไหน", "ในลิ้นชัก", "หาเอง"),
    "Latin before Chinese": ("Key ABC", "在抽屉里。", "自己找。"),
    "Chinese behind a space": ("Answer:", " 在抽屉里。", " 自己找。"),
    "one answer begins the other": ("钥匙在哪", "里？在抽屉", "里"),
    "English": ("Where is the key?", " In the drawer.", " Inside, find it."),
    "English without a space": ("Where is", " the-key?In", " the-key?Out"),
    "Korean, which writes spaces": ("열쇠는 어디에", " 있어요? 서랍.", " 있어서요."),
}


@pytest.mark.parametrize("name", IMPLICIT)
def test_the_implicit_prompt_is_cut_between_words_of_its_writing(name: str) -> None:
    prompt, chosen, rejected = IMPLICIT[name]
    assert split_texts(prompt + chosen, prompt + rejected) == (prompt, chosen, rejected)


def test_a_thai_vowel_is_not_torn_from_its_letter() -> None:
    prompt, chosen, _ = split_texts("กุญแจกี", "กุญแจกู")
    assert prompt == "กุญแจ" and chosen == "กี"


@settings(deadline=None, max_examples=200)
@given(st.text("ab 。钥匙กิ"), st.text("ab 。钥匙กิ"))
def test_nothing_of_either_text_is_lost(chosen: str, rejected: str) -> None:
    try:
        prompt, good, bad = split_texts(chosen, rejected)
    except RowError as error:
        assert error.kind in ("identical", "no_prompt")
        return
    assert (prompt + good, prompt + bad) == (chosen, rejected) and prompt.strip()


# --- special tokens written out ---


def pair(
    i: int, chosen: str = " In the drawer.", rejected: str = " Find it.", prompt: str = "Where?"
) -> dict[str, str]:
    return {"prompt": f"{prompt} {i}", "chosen": chosen, "rejected": rejected}


def test_an_end_token_on_one_side_is_named_with_counts(tmp_path: Path) -> None:
    rows = [
        *(pair(i, " In the drawer.<|im_end|>\n") for i in range(3)),
        pair(3, " Here.</s>", " No.</s>"),
        pair(4, "x", "y<eos>"),
    ]
    read = table(tmp_path, rows)
    assert said(read, "special_tokens").startswith("5 pairs have special tokens written out (<|im_end|> in 3, ")
    assert said(read, "end_in_chosen").startswith("3 pairs end in a special token in chosen alone")
    one = said(read, "end_in_rejected")
    assert one.startswith("1 pairs end in a special token in rejected alone") and one.endswith("take it off (row 5)")


@pytest.mark.parametrize(
    "prompt",
    [
        "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n",
        "<s>[INST] Where? [/INST]",
        "<|start_header_id|>user<|end_header_id|>\n\nWhere?<|eot_id|>",
        "<start_of_turn>user\nWhere?<end_of_turn>\n",
        "<｜User｜>Where?<｜Assistant｜>",
        "<extra_id_1>User\nWhere?",
    ],
)
def test_rows_that_a_template_has_written_already_are_named(tmp_path: Path, prompt: str) -> None:
    assert said(table(tmp_path, [pair(i, prompt=prompt) for i in range(2)]), "special_tokens").startswith(
        "2 pairs have"
    )


def test_angle_brackets_of_plain_text_and_code_are_no_special_tokens(tmp_path: Path) -> None:
    text = "if a <b and c> d: x = [1] # <div> <strong> <|> List[int] <- a|b"
    assert not table(tmp_path, [pair(1, text, " no")]).notes


def written(context: Sequence[Turn], chosen: str, rejected: str) -> Rendered:
    """A template that writes roles and contents, but only of user and assistant."""
    turns = [turn for turn in context if turn["role"] in ("user", "assistant")]
    prompt = "".join(f"<|{t['role']}|>{t['content']}" for t in turns) + "<|assistant|>"
    return Rendered(prompt, chosen, rejected)


def talk(content: str, *between: dict[str, Any]) -> dict[str, Any]:
    start = [{"role": "user", "content": content}, *between]
    return {
        "prompt": start,
        "chosen": [{"role": "assistant", "content": "Here."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    }


def test_special_tokens_in_messages_are_named_where_a_template_writes_them(tmp_path: Path) -> None:
    read = table(tmp_path, [talk("Where?"), talk("Where?<|im_end|>")], written)
    assert said(read, "special_tokens").startswith(
        "1 pairs have special tokens written out in their messages (<|im_end|> in 1)"
    )
    assert said(table(tmp_path, [talk("Where?")], written), "special_tokens") == ""


# --- tools ---

DAY = "2024-07-26"
CALL = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "look"}}]}
FOUND = {"role": "tool", "content": "drawer 3", "tool_call_id": "1"}
TOOL_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}()"
    "{% endfor %}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def test_turns_of_tools_are_kept_where_the_template_writes_them(tmp_path: Path) -> None:
    from tests.data.test_forms import small_tokenizer

    rows = [talk("Where?"), talk("Where?", CALL, FOUND)]
    read = table(tmp_path, rows, chat_renderer(small_tokenizer(TOOL_TEMPLATE), DAY))
    assert read.pairs[1].prompt == "<|user|>Where?<eos><|assistant|>look()<eos><|tool|>drawer 3<eos><|assistant|>"
    for render in (None, written):
        dropped = table(tmp_path, rows, render)
        assert len(dropped.pairs) == 1 and said(dropped, "tool_turn").startswith(
            "1 of 2 rows dropped: the prompt has turns"
        )


def test_a_template_that_refuses_turns_of_tools_drops_these_rows_alone(tmp_path: Path) -> None:
    from tests.data.test_forms import small_tokenizer

    refusing = (
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}{% endfor %}"
    )
    rows = [talk("Where?"), talk("Where?", CALL, FOUND)]
    read = table(tmp_path, rows, chat_renderer(small_tokenizer(refusing + TOOL_TEMPLATE), DAY))
    assert len(read.pairs) == 1 and "tool_turn" in {note.kind for note in read.notes}


def test_sharegpt_calls_become_calls(tmp_path: Path) -> None:
    from tests.data.test_forms import small_tokenizer

    row = {
        "conversations": [
            {"from": "human", "value": "Where?"},
            {"from": "function_call", "value": '{"name": "look", "arguments": {}}'},
            {"from": "observation", "value": "drawer 3"},
        ],
        "chosen": {"from": "gpt", "value": "Here."},
        "rejected": {"from": "gpt", "value": "No."},
    }
    read = table(tmp_path, [row], chat_renderer(small_tokenizer(TOOL_TEMPLATE), DAY))
    assert read.pairs[0].prompt == "<|user|>Where?<eos><|assistant|>look()<eos><|tool|>drawer 3<eos><|assistant|>"


# --- dialogues that differ early ---


def test_a_few_dialogues_that_differ_early_are_dropped_and_counted(tmp_path: Path) -> None:
    def dialogue(*contents: str) -> list[dict[str, str]]:
        return [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]

    good = [{"chosen": dialogue(f"q{i}", "yes"), "rejected": dialogue(f"q{i}", "no")} for i in range(20)]
    early = {"chosen": dialogue("q", "a", "more", "yes"), "rejected": dialogue("q", "b", "more", "no")}
    read = table(tmp_path, [*good, early, early])
    assert len(read.pairs) == 20
    assert said(read, "diverged") == (
        "2 of 22 rows dropped: the two dialogues differ before their last assistant turn (rows 21, 22)"
    )
