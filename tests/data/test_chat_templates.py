"""Chat templates: the same texts as transformers writes, on any day, and whatever they lose or add is named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.data import chat_template
from harness.data.chat import chat_renderer, folder_renderer
from harness.data.pairs import PairTable, read_pairs
from harness.data.tokenize import model_vocabulary, tokenise
from harness.data.trl_tokens import dpo_tokens, trl_renderer
from harness.model_files.folder import read_folder
from harness.types import DataSpec, InputError, PreferencePair
from tests.data.test_forms import DAY, jsonl, small_tokenizer

EACH = "{% for m in messages %}<|{{ m.role }}|>BODY{{ eos_token }}\n{% endfor %}"
CUE = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
PLAIN = EACH.replace("BODY", "{{ m.content }}") + CUE
STRIPS = EACH.replace("BODY", "{{ m.content.split('</think>')[-1].strip() }}") + CUE
DATED = "{{ bos_token }}{{ strftime_now('%d %B %Y') }}\n" + PLAIN
# What templates of large families use of Jinja.
RICH = """{%- set ns = namespace(last=-1, seen=dict(a=1)) -%}
{%- for m in messages -%}
    {%- if m.role == 'system' %}{% continue %}{% endif %}
    {%- set ns.last = loop.index0 -%}
    {{- '<|' ~ m.role ~ '|>' }}
    {%- generation %}{{ m.content | trim }}{% endgeneration -%}
    {{ {'role': m.role, 'text': m.content} | tojson }} {{ ns.last }} {{ tools is none }} {{ ns.seen.a }}
    {%- if m.name is defined %}{{ m.name }}{% endif %}
    {{ eos_token }}
{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""


def talk(chosen: str, rejected: str, *context: tuple[str, str]) -> dict[str, Any]:
    turns = [{"role": role, "content": content} for role, content in context or (("user", "Where?"),)]
    sides = (("chosen", chosen), ("rejected", rejected))
    return {"prompt": turns} | {name: [{"role": "assistant", "content": text}] for name, text in sides}


def table(folder: Path, template: str, rows: Sequence[Any]) -> PairTable:
    render = chat_renderer(small_tokenizer(template), DAY)
    return read_pairs(DataSpec(str(jsonl(folder / "prefs.jsonl", rows))), render)


def said(read: PairTable) -> dict[str, str]:
    return {note.kind: note.text for note in read.notes if note.kind.startswith("template")}


@pytest.mark.parametrize("template", [PLAIN, STRIPS, RICH], ids=["plain", "strips", "rich"])
@pytest.mark.parametrize("cue", [True, False])
def test_a_template_writes_what_transformers_writes(template: str, cue: bool) -> None:
    tokenizer = small_tokenizer(template)
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": " <b>Où?</b> ", "name": None},
        {"role": "assistant", "content": "<think>so</think> There.", "name": "b"},
    ]
    own = chat_template.ChatTemplate(template, tokenizer.special_tokens_map, "<eos>", DAY)
    wanted = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=cue)
    assert own.write(turns, cue) == wanted and "There." in wanted


def test_the_date_is_that_of_the_spec_on_any_day() -> None:
    turns = [{"role": "user", "content": "Hi"}]
    one, other = (chat_renderer(small_tokenizer(DATED), day)(turns, "A", "B") for day in (DAY, "2025-01-02"))
    assert one.prompt == "<bos>26 July 2024\n<|user|>Hi<eos>\n<|assistant|>" and one.chosen == "A<eos>"
    assert other.prompt.startswith("<bos>02 January 2025\n")


def test_what_draws_at_random_is_refused() -> None:
    for drawn in ("{{ ['a', 'b'] | random }}", "{{ lipsum() }}"):
        with pytest.raises(Exception, match="refuses these turns \\(it draws at random"):
            chat_renderer(small_tokenizer(drawn + PLAIN), DAY)([{"role": "user", "content": "Hi"}], "A", "B")


@pytest.mark.parametrize("broken", ["{{ messages[0].content + 1 }}", "{% if %}", "{{ namespace(__class__=1) }}"])
def test_a_template_that_fails_is_a_row_in_one_line(tmp_path: Path, broken: str) -> None:
    with pytest.raises(InputError, match=r"prefs\.jsonl:1: prompt: the chat template refuses these turns") as caught:
        table(tmp_path, broken + PLAIN, [talk("Yes.", "No.")])
    assert len(caught.value.problems) == 1


def test_pairs_are_the_same_pairs_whatever_template_writes_them(tmp_path: Path) -> None:
    rows = [talk(f"Yes {i}.", f"No {i}.", ("user", f"Where {i}?")) for i in range(4)]
    plain = read_pairs(DataSpec(str(jsonl(tmp_path / "prefs.jsonl", rows))))
    for template in (PLAIN, DATED):
        read = table(tmp_path, template, rows)
        assert [pair.id for pair in read.pairs] == [pair.id for pair in plain.pairs]
        assert [pair.meta["prompt_id"] for pair in read.pairs] == [pair.meta["prompt_id"] for pair in plain.pairs]
        assert read.pairs[0].prompt != plain.pairs[0].prompt


def test_stripped_reasoning_is_named_with_counts(tmp_path: Path) -> None:
    rows = [talk("<think>a</think>\n\nYes.", "<think>b</think>\n\nNo."), talk("Yes.", "No.")]
    assert said(table(tmp_path, STRIPS, rows)) == {
        "template_reasoning": "1 pairs lose reasoning: the chat template leaves out what an answer has before </think> "
        "(row 1)"
    }
    assert said(table(tmp_path, PLAIN, rows)) == {}


def test_answers_that_differ_in_stripped_reasoning_are_not_called_equal(tmp_path: Path) -> None:
    rows = [talk("<think>a</think>Yes.", "<think>b</think>Yes."), talk("Yes.", "No.")]
    read = table(tmp_path, STRIPS, rows)
    assert len(read.pairs) == 1 and said(read)["template_alike"] == (
        "1 of 2 rows dropped: the chat template leaves out what tells chosen from rejected, such as their reasoning "
        "(row 1)"
    )
    assert len(table(tmp_path, PLAIN, rows).pairs) == 2


@pytest.mark.parametrize(
    ("template", "kind", "shown", "chosen"),
    [
        (PLAIN, "", "", "Yes.<eos>"),
        # Gemma's way: a turn ends in a token that is not the tokenizer's end of sequence.
        (PLAIN.replace("{{ eos_token }}", "<end>"), "", "", "Yes.<end>\n"),
        (PLAIN.replace(CUE, ""), "template_cue", "the cue '<|assistant|>'", "<|assistant|>Yes.<eos>"),
        (PLAIN.replace(CUE, "<|assistant|>"), "template_goes_on", "'\\n<|assistant|>'", "Yes.<eos>"),
        (
            PLAIN.replace("{{ eos_token }}", "<end>").replace(CUE, "<|assistant|>"),
            "template_goes_on",
            "'<end>\\n<|assistant|>'",
            "Yes.<end>\n<|assistant|>",
        ),
        # Cohere's way: turns end alike, but the prompt ends with the cue.
        (PLAIN.replace("{{ eos_token }}\n", "<end|>"), "", "", "Yes.<end|>"),
        (
            EACH.replace("BODY", "{% if m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}") + CUE,
            "template_lead",
            "'<think></think>'",
            "<think></think>Yes.<eos>",
        ),
        (
            EACH.replace("BODY", "{{ m.content[:3] if m.role == 'assistant' else m.content }}") + CUE,
            "template_answer",
            "1 pairs lose a part of an answer",
            "Yes<eos>",
        ),
        (
            PLAIN.replace("messages %}", "messages if m.role != 'system' %}"),
            "template_turn",
            "lose a turn",
            "Yes.<eos>",
        ),
    ],
)
def test_what_a_template_adds_or_loses_is_named(
    tmp_path: Path, template: str, kind: str, shown: str, chosen: str
) -> None:
    context = (("system", "Hi."), ("user", "Hm?")) if kind == "template_turn" else ()
    read = table(tmp_path, template, [talk("Yes.", "No.", *context)])
    notes = said(read)
    assert list(notes) == [kind] * bool(kind) and shown in notes.get(kind, "")
    assert read.pairs[0].chosen == chosen


def test_reasoning_that_the_cue_opens_is_not_lost(tmp_path: Path) -> None:
    template = PLAIN.replace("<|assistant|>{% endif %}", "<|assistant|><think>\n{% endif %}")
    read = table(tmp_path, template, [talk("<think>\na</think>Yes.", "<think>\nb</think>No.")])
    assert said(read) == {} and read.pairs[0].chosen == "a</think>Yes.<eos>"


def test_an_end_in_the_messages_of_one_side_alone_is_named(tmp_path: Path) -> None:
    rows = [talk("Yes.<|im_end|>", "No."), talk("Yes.", "No.")]
    notes = {note.kind: note.count for note in table(tmp_path, PLAIN, rows).notes}
    assert notes["end_in_chosen"] == 1 and notes["special_tokens"] == 1


@pytest.mark.parametrize("begins", [True, False])
def test_a_long_templated_prompt_keeps_the_beginning_token(begins: bool) -> None:
    tokenizer = small_tokenizer()
    words = model_vocabulary(tokenizer, templated=True)
    pair = PreferencePair("x", ("<bos>" if begins else "") + "a long prompt<|assistant|>", "yes<eos>", "no<eos>")
    whole = words.encode([pair.prompt])[0]
    [tokens], [cut] = tokenise(words, [pair], 64, 6)
    wanted = [tokenizer.bos_token_id, *whole[-5:]] if begins else whole[-6:]
    assert cut and tokens.prompt.tolist() == wanted
    [short], [cut] = tokenise(words, [pair], 64, len(whole))
    assert not cut and short.prompt.tolist() == whole


@pytest.mark.parametrize("form", ["file", "settings", "named"])
def test_a_folder_gives_its_template_without_a_tokenizer(tmp_path: Path, form: str) -> None:
    from transformers import AutoTokenizer

    from tests.models.families import write

    folder = write("qwen2", tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    if form == "file":
        (folder / "chat_template.jinja").write_text(DATED)
    else:
        several = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": DATED}]
        settings["chat_template"] = DATED if form == "settings" else several
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    pair = ([{"role": "user", "content": "Hi"}], "A", "B")
    own = folder_renderer(read_folder(folder), DAY)(*pair)
    assert own == chat_renderer(AutoTokenizer.from_pretrained(folder), DAY)(*pair)
    assert own.prompt == "<bos>26 July 2024\n<|user|>Hi<eos>\n<|assistant|>"


def test_templates_without_a_default_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no chat template; set model\.template: none"):
        table(tmp_path, {"tool_use": PLAIN}, [talk("Yes.", "No.")])  # type: ignore[arg-type]


# --- templates that write the prompt otherwise once an answer follows ---

# As reasoning models have them: the cue opens the reasoning, and a finished answer is written without it.
OPENS = EACH.replace("BODY", "{{ m.content.split('</think>')[-1] }}") + CUE.replace(
    "<|assistant|>", "<|assistant|><think>\n"
)
# The cue closes an empty reasoning where thinking is switched off.
SWITCH = EACH.replace("BODY", "{{ m.content }}") + CUE.replace(
    "<|assistant|>",
    "<|assistant|>{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}",
)
# Where one token of the whole spans the end of the common text, the prompt ends before that token.
MERGES = (
    "{% for m in messages %}<|{{ m.role }}|>{{ '\n\n' if m.role == 'assistant' else '\n' }}{{ m.content }}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{{ '\n' }}<think>{% endif %}"
)
TALK = [{"role": "user", "content": "Where is hello?"}]
ANSWERS = ("It is here.", "hello hello")


def in_common(tokenizer: Any, **arguments: Any) -> tuple[list[int], list[list[int]]]:
    """The ids of the prompt and of both conversations, by transformers; and how many ids all begin with."""
    own: dict[str, Any] = {"tokenize": True, "return_dict": False, **arguments}
    prompt = tokenizer.apply_chat_template(TALK, add_generation_prompt=True, **own)
    answers = ({"role": "assistant", "content": text} for text in ANSWERS)
    wholes = [tokenizer.apply_chat_template([*TALK, answer], **own) for answer in answers]
    count = 0
    while all(count < len(one) and one[count] == prompt[count] for one in (prompt, *wholes)):
        count += 1
    return prompt[:count], [whole[count:] for whole in wholes]


def merging_tokenizer(template: str) -> Any:
    """A tokenizer that has a token of two line ends."""
    from tokenizers import AddedToken

    tokenizer = small_tokenizer(template)
    tokenizer.add_tokens([AddedToken("\n\n", normalized=False)])
    return tokenizer


@pytest.mark.parametrize(
    ("template", "cut", "end"),
    [(OPENS, "<think>\n", "<|assistant|>"), (MERGES, "\n<think>", "<|assistant|>"), (SWITCH, None, "<|assistant|>")],
    ids=["opens", "merges", "prefix"],
)
def test_the_prompt_is_the_common_tokens_of_what_transformers_writes(template: str, cut: str | None, end: str) -> None:
    tokenizer = merging_tokenizer(template)
    own = chat_renderer(tokenizer, DAY)(TALK, *ANSWERS)
    assert own.prompt.endswith(end)
    assert [fault.shown for fault in own.faults if fault.kind == "template_prefix"] == ([] if cut is None else [cut])
    pair = PreferencePair("x", own.prompt, own.chosen, own.rejected)
    [tokens], _ = tokenise(model_vocabulary(tokenizer, templated=True), [pair], 200, 100)
    prompt, answers = in_common(tokenizer)
    assert tokens.prompt.tolist() == prompt
    for side, ids in zip((tokens.chosen, tokens.rejected), answers, strict=True):
        assert side.tolist() == ids[: len(side)]  # up to the end of the answer; the template goes on with a line end
        assert side[-1] == tokenizer.eos_token_id


def test_trl_tokens_have_the_same_prompt() -> None:
    for template in (OPENS, MERGES):
        tokenizer = merging_tokenizer(template)
        own = trl_renderer(tokenizer, DAY)(TALK, *ANSWERS)
        tokens = dpo_tokens(tokenizer, PreferencePair("x", own.prompt, own.chosen, own.rejected), True, 200)
        assert tokens is not None
        prompt, answers = in_common(tokenizer)
        assert tokens.prompt.tolist() == prompt
        assert [tokens.chosen.tolist(), tokens.rejected.tolist()] == answers


def test_arguments_of_a_template_are_those_of_transformers(tmp_path: Path) -> None:
    arguments = {"enable_thinking": False}
    tokenizer = small_tokenizer(SWITCH)
    own = chat_renderer(tokenizer, DAY, json.dumps(arguments))(TALK, *ANSWERS)
    asked = tokenizer.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True, **arguments)
    assert asked.endswith("<|assistant|><think></think>")
    # The template writes no empty reasoning before an answer, so the prompt ends before it.
    assert asked == own.prompt + "<think></think>"
    pair = PreferencePair("x", own.prompt, own.chosen, own.rejected)
    [tokens], _ = tokenise(model_vocabulary(tokenizer, templated=True), [pair], 200, 100)
    assert tokens.prompt.tolist() == in_common(tokenizer, **arguments)[0]
    # What the harness itself sets is no argument.
    taken = chat_renderer(tokenizer, DAY, json.dumps({"add_generation_prompt": False}))(TALK, *ANSWERS)
    assert taken == chat_renderer(tokenizer, DAY)(TALK, *ANSWERS)


def test_the_plan_reads_the_common_tokens_from_the_folder_and_names_what_they_leave_out(tmp_path: Path) -> None:
    from tests.models.families import write

    write("llama", tmp_path / "model")
    tokenizer = merging_tokenizer(MERGES)
    tokenizer.save_pretrained(tmp_path / "model")
    folder = read_folder(tmp_path / "model", weights=False)
    own = folder_renderer(folder, DAY)(TALK, *ANSWERS)
    assert own == chat_renderer(tokenizer, DAY)(TALK, *ANSWERS)
    assert said(table(tmp_path, OPENS, [talk("Yes.", "No."), talk("So.", "Not.")])) == {
        "template_prefix": "2 prompts end before '<think>\\n': the chat template writes that where an answer is asked "
        "for and otherwise once one follows, so the prompt is what both have in common (rows 1, 2)"
    }


def test_a_prompt_without_its_turns_is_still_refused() -> None:
    counts = "{% for m in messages %}{{ messages|length }}{{ m.content }}{% endfor %}"
    late = "<|user|>" + counts
    for template in (counts, late):
        with pytest.raises(Exception, match="formats the prompt differently once an answer follows"):
            chat_renderer(small_tokenizer(template), DAY)(TALK, *ANSWERS)
