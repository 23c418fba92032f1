"""Reading real preference files: forms, policies, counts, and the split by prompt."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.pairs import Note, PairTable, content_sha256, overlap, read_pairs, split
from harness.data.transcripts import split_texts, split_transcripts
from harness.identity import content_hash
from harness.types import DataSpec, InputError, PreferencePair

GOOD = {"prompt": "Why is the sky blue?", "chosen": " Scattering.", "rejected": " Paint."}
USER = {"role": "user", "content": "Hi"}
HH = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Joke?\n\nAssistant:"


def said(content: Any, role: str = "assistant") -> dict[str, Any]:
    return {"role": role, "content": content}


def write(path: Path, rows: Sequence[Any], name: str = "prefs.jsonl") -> str:
    """Rows as a file; bytes are lines as they stand."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    (path / name).write_bytes(b"\n".join(lines) + b"\n")
    return str(path / name)


def read(path: Path, rows: Sequence[Any], **options: Any) -> PairTable:
    return read_pairs(DataSpec(path=write(path, rows), **options))


def notes(table: PairTable) -> dict[str, tuple[int, tuple[int, ...]]]:
    return {note.kind: (note.count, note.rows) for note in table.notes}


def refused(path: Path, rows: Sequence[Any], **options: Any) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        read(path, rows, **options)
    return tuple(problem.replace(str(path), "DIR") for problem in caught.value.problems)


def pair(prompt: str, chosen: str = "c", rejected: str = "r") -> PreferencePair:
    row = {"prompt_id": content_hash(prompt), "row": 1}
    return PreferencePair(content_hash((prompt, chosen, rejected)), prompt, chosen, rejected, meta=row)


# --- forms ---


def test_plain_pair(tmp_path: Path) -> None:
    table = read(tmp_path, [GOOD | {"anything": 1}])
    assert table.rows == 1 and [note.text for note in table.notes] == ["columns anything are not used"]
    assert read(tmp_path, [GOOD]).notes == ()
    (only,) = table.pairs
    assert (only.prompt, only.chosen, only.rejected) == tuple(GOOD.values())
    assert only.id == content_hash(tuple(GOOD.values())) and only.gold_margin is None and only.source == "pairs"
    assert only.meta == {"prompt_id": content_hash(GOOD["prompt"]), "row": 1}


def test_implicit_prompt_of_plain_texts_keeps_words_whole(tmp_path: Path) -> None:
    table = read(tmp_path, [{"chosen": "Why blue? Scatter it.", "rejected": "Why blue? Scorn it."}])
    assert (table.pairs[0].prompt, table.pairs[0].chosen) == ("Why blue?", " Scatter it.")


def test_hh_transcripts_are_detected_and_split_at_the_last_assistant_turn(tmp_path: Path) -> None:
    table = read(tmp_path, [{"chosen": HH + " A good one.", "rejected": HH + " A bad one."}])
    (only,) = table.pairs
    assert (only.prompt, only.chosen, only.rejected, only.source) == (HH, " A good one.", " A bad one.", "hh")


HH_BAD = {
    "empty": {"chosen": HH + " ", "rejected": HH + " x"},
    "transcript": {"chosen": HH + " x\n\nHuman: bye", "rejected": HH + " y\n\nHuman: bye"},
    "diverged": {"chosen": HH + " x", "rejected": HH + " y\n\nHuman: more\n\nAssistant: z"},
    "diverged at equal length": {"chosen": HH + " x", "rejected": HH.replace("Joke", "Poem") + " y"},
    "identical": {"chosen": HH + " x", "rejected": HH + " x"},
}


@pytest.mark.parametrize("kind", HH_BAD)
def test_hh_rows_that_cannot_be_used(tmp_path: Path, kind: str) -> None:
    good = {"chosen": HH + " x", "rejected": HH + " y"}
    table = read(tmp_path, [good, HH_BAD[kind]], format="hh")
    assert len(table.pairs) == 1 and notes(table) == {kind.split()[0]: (1, (2,))}


CONVERSATIONS = {
    "prompt list": ([USER], [said("x")], [said("y")]),
    "prompt text": ("Hi", [said("x")], [said("y")]),
    "whole dialogues": (None, [USER, said("x")], [USER, said("y")]),
    "prompt text repeated in the turns": ("Hi", [USER, said("x")], [USER, said("y")]),
    "prompt list repeated in the turns": ([USER], [USER, said("x")], [USER, said("y")]),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversations_become_one_text(tmp_path: Path, name: str) -> None:
    fields = dict(zip(("prompt", "chosen", "rejected"), CONVERSATIONS[name], strict=True))
    table = read(tmp_path, [{k: v for k, v in fields.items() if v is not None}])
    (only,) = table.pairs
    assert (only.prompt, only.chosen, only.rejected) == ("\n\nHuman: Hi\n\nAssistant:", " x", " y")
    assert notes(table) == {"rendered": (1, ())}


def test_system_turn_and_earlier_turns_are_kept(tmp_path: Path) -> None:
    context = [said("Be kind.", "system"), USER, said("Hello."), said("Joke?", "user")]
    table = read(tmp_path, [{"prompt": "Hi", "chosen": [*context, said("x")], "rejected": [*context, said("y")]}])
    assert table.pairs[0].prompt == "\n\nSystem: Be kind." + HH


BAD_CONVERSATIONS = {
    "no role": ([USER], [{"content": "x"}], [said("y")], "chosen: message 0 needs role and content"),
    "content not text": ([USER], [said([{"text": "x"}])], [said("y")], "chosen: message 0: content is list, not text"),
    "unknown role": (
        [USER],
        [said("x", "narrator")],
        [said("y")],
        "chosen: message 0 has role 'narrator'; only system",
    ),
    "empty list": ([USER], [], [said("y")], "chosen: expected a list of {role, content}, got an empty list"),
    "role not hashable": ([USER], [said("x", [])], [said("y")], "chosen: message 0 has role []"),
}


# kind of fault -> a conversation that cannot be a pair: dropped and counted like any other row of no use
UNFIT_CONVERSATIONS = {
    "tool_call turn": ([USER], [said("x", "tool")], [said("y")], "chosen: the answer is a tool's turn"),
    "tool_call": ([USER], [said("") | {"tool_calls": [1]}], [said("y")], "chosen: the answer is a tool call"),
    "turn_order": ([USER], [said("x"), said("x")], [said("y")], "chosen: roles must alternate from user to a last"),
    "turn_order user": ([USER], [said("x"), USER], [said("y")], "chosen: roles must alternate"),
    "diverged": (None, [USER, said("x")], [said("Ho", "user"), said("y")], "rejected: its turns before the answer"),
    "prompt_differs": ("Ho", [USER, said("x")], [USER, said("y")], "prompt: the turns of chosen and rejected do"),
    "image": (
        [USER],
        [said([{"type": "image_url", "url": "x"}])],
        [said("y")],
        "chosen: message 0 has content of type",
    ),
    "tool_turn": (
        [USER, said("") | {"tool_calls": [1]}, said("4", "tool")],
        [said("x")],
        [said("y")],
        "prompt: a turn",
    ),
}


@pytest.mark.parametrize("name", UNFIT_CONVERSATIONS)
def test_conversations_of_no_use_are_dropped_and_counted_or_refused(tmp_path: Path, name: str) -> None:
    *values, message = UNFIT_CONVERSATIONS[name]
    fields = dict(zip(("prompt", "chosen", "rejected"), values, strict=True))
    good: dict[str, Any] = {"prompt": [USER], "chosen": [said("x")], "rejected": [said("y")]}
    if fields["prompt"] is None:
        good = {"chosen": [USER, said("x")], "rejected": [USER, said("y")]}
    rows = [good, {k: v for k, v in fields.items() if v is not None}, good]
    table = read(tmp_path, rows)
    assert len(table.pairs) == 2 and notes(table)[name.split()[0]] == (1, (2,))
    (problem,) = refused(tmp_path, rows, on_bad_row="error")
    assert problem.startswith(f"DIR/prefs.jsonl:2: {message}")


@pytest.mark.parametrize("name", BAD_CONVERSATIONS)
def test_malformed_conversations_are_errors_under_either_policy(tmp_path: Path, name: str) -> None:
    *values, message = BAD_CONVERSATIONS[name]
    fields = dict(zip(("prompt", "chosen", "rejected"), values, strict=True))
    good = {k: v for k, v in zip(fields, ([USER], [said("x")], [said("y")]), strict=True) if fields["prompt"]}
    good = good or {"chosen": [USER, said("x")], "rejected": [USER, said("y")]}
    (problem,) = refused(tmp_path, [good, {k: v for k, v in fields.items() if v is not None}])
    assert problem.startswith(f"DIR/prefs.jsonl:2: {message}")


def test_text_and_conversations_mixed_is_an_error(tmp_path: Path) -> None:
    mixed = {"prompt": [USER], "chosen": [said("x")], "rejected": [said("y")]}
    (problem,) = refused(tmp_path, [GOOD, mixed])
    assert problem == "DIR/prefs.jsonl:2: chosen: text and lists of messages are mixed (the first rows hold text)"


@settings(deadline=None, max_examples=200)
@given(st.text("ab \n"), st.text("ab \n"))
def test_split_texts_loses_nothing(chosen: str, rejected: str) -> None:
    from harness.data.files import RowError

    try:
        prompt, left, right = split_texts(chosen, rejected)
    except RowError as error:
        assert error.kind in ("identical", "no_prompt")
        return
    assert (prompt + left, prompt + right) == (chosen, rejected)
    assert prompt.strip() and left != right and left[0].isspace() and right[0].isspace()


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text("ab\n:", max_size=4), min_size=1, max_size=3), st.text("ab", min_size=1), st.text("ab"))
def test_split_transcripts_gives_back_the_dialogues(turns: list[str], chosen: str, rejected: str) -> None:
    context = "".join(f"\n\nHuman: {t}\n\nAssistant: {t}" for t in turns[:-1]) + f"\n\nHuman: {turns[-1]}\n\nAssistant:"
    assert split_transcripts(f"{context} {chosen}", f"{context} {rejected}") == (
        context,
        f" {chosen}",
        f" {rejected}",
    )


# --- policies ---

BAD_ROWS: dict[str, tuple[Any, str]] = {
    "bad_json": (b'{"prompt": "x", ', "not JSON ("),
    "bad_json list": (b"[1]", "expected one JSON object per line, got list"),
    "bad_json deep": (b"[" * 100_000, "not JSON ("),
    "not_utf8": (b'{"prompt": "\xff"}', "not UTF-8 at byte 12 of the line"),
    "missing_field": ({"prompt": "x", "chosen": "y"}, "rejected: missing"),
    "wrong_type": (GOOD | {"chosen": 3}, "chosen: expected text, got int"),
    "empty null": (GOOD | {"rejected": None}, "rejected: null"),
    "empty text": (GOOD | {"rejected": ""}, "rejected: empty"),
    "empty blank": (GOOD | {"prompt": " \n\t"}, "prompt: empty"),
    "identical": (GOOD | {"rejected": GOOD["chosen"]}, "rejected: equal to chosen"),
    "bad_text NUL": (GOOD | {"chosen": "é\0"}, "chosen: NUL at byte 2 of the text"),
    "bad_text surrogate": (
        b'{"prompt": "x", "chosen": "\\ud800", "rejected": "y"}',
        "chosen: lone surrogate at byte 0",
    ),
    "bad_number text": (GOOD | {"score_chosen": "8"}, "score_chosen: expected a finite number, got '8'"),
    "bad_number bool": (GOOD | {"gold_margin": True}, "gold_margin: expected a finite number, got True"),
    "bad_number nan": (b'{"prompt": "x", "chosen": "y", "rejected": "z", "gold_margin": NaN}', "gold_margin: expected"),
    "bad_number huge": (GOOD | {"score_rejected": 10**400}, "score_rejected: expected a finite number, got 1000"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_row_is_dropped_and_counted_or_refused(tmp_path: Path, name: str) -> None:
    bad, message = BAD_ROWS[name]
    table = read(tmp_path, [GOOD, bad, GOOD | {"prompt": "z"}])
    assert [p.meta["row"] for p in table.pairs] == [1, 3] and table.rows == 3
    assert notes(table) == {name.split()[0]: (1, (2,))}
    (problem,) = refused(tmp_path, [GOOD, bad], on_bad_row="error")
    assert problem.startswith(f"DIR/prefs.jsonl:2: {message}")


def test_bad_rows_are_named_once_a_fault_up_to_twenty_faults(tmp_path: Path) -> None:
    bad = [GOOD | {"chosen": ""}, *[GOOD | {"score_chosen": str(i)} for i in range(24)], GOOD | {"chosen": ""}]
    problems = refused(tmp_path, [GOOD, *bad], on_bad_row="error")
    assert problems[0] == "DIR/prefs.jsonl:2: chosen: empty; the same in 1 more row (27)"
    assert len(problems) == 21 and problems[19].startswith("DIR/prefs.jsonl:21: score_chosen: expected a finite")
    assert problems[20] == "DIR/prefs.jsonl: and 5 more kinds"


def test_note_text_counts_and_names_rows(tmp_path: Path) -> None:
    table = read(tmp_path, [GOOD, *[GOOD | {"rejected": GOOD["chosen"]}] * 12])
    assert [note.text for note in table.notes] == [
        "12 of 13 rows dropped, more than 1 %: chosen equals rejected (rows 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ...)"
    ]


def test_rows_beyond_one_megabyte_are_errors_under_either_policy(tmp_path: Path) -> None:
    problems = refused(tmp_path, [GOOD, GOOD | {"chosen": "x" * 3_000_000}, GOOD])
    assert problems == ("DIR/prefs.jsonl:2: longer than 1,000,000 bytes",)


def test_file_without_a_usable_pair(tmp_path: Path) -> None:
    assert refused(tmp_path, []) == ("DIR/prefs.jsonl: no usable pair in 0 rows",)
    (problem,) = refused(tmp_path, [b"{", GOOD | {"prompt": ""}])
    assert problem.startswith(
        "DIR/prefs.jsonl: no usable pair in 2 rows, read as pairs (1: not a JSON object, first DIR/prefs.jsonl:1: not"
    )
    assert "1: an empty prompt or response, first DIR/prefs.jsonl:2: prompt: empty); expected prompt, chosen" in problem


def test_an_object_over_several_lines_says_what_a_file_holds(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps({"data": [GOOD]}, indent=2))
    with pytest.raises(InputError, match=r"p\.json:1: not JSON .*; expected one JSON object a line, or one array of"):
        read_pairs(DataSpec(path=str(tmp_path / "p.json")))


def test_missing_columns_name_what_is_there_and_what_is_needed(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path, [{"prompt": "x", "completion": "y", "label": True}], format="pairs")
    assert problem.startswith("DIR/prefs.jsonl: columns chosen, rejected missing; found completion, label, prompt; ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "pair"}, "data.format: 'pair' is not a form that harness formats lists; did you mean 'pairs'?"),
        ({"on_bad_row": "skip"}, "data.on_bad_row: 'skip' is not drop or error"),
    ],
)
def test_unknown_options(tmp_path: Path, options: dict[str, str], message: str) -> None:
    assert refused(tmp_path, [GOOD], **options) == (message,)


def test_duplicates_conflicts_scores_and_marks_are_noted_and_kept(tmp_path: Path) -> None:
    swapped = GOOD | {"chosen": GOOD["rejected"], "rejected": GOOD["chosen"]}
    rows = [
        GOOD,
        GOOD,
        swapped,
        GOOD | {"prompt": "a\u202eb", "score_chosen": 1, "score_rejected": 3.5, "tools": []},
        GOOD | {"prompt": "p", "chosen": "p x", "rejected": "p y", "gold_margin": 2, "score_chosen": 0.5},
    ]
    table = read(tmp_path, rows)
    assert notes(table) == {
        "ignored_columns": (1, ()),
        "duplicate": (1, (2,)),
        "conflict": (3, (1, 2, 3)),
        "repeats_prompt": (1, (5,)),
        "control_characters": (1, (4,)),
        "scores": (1, (4,)),
        "negative_margin": (1, (4,)),
    }
    assert table.pairs[1].id == f"{table.pairs[0].id}-2" and len({p.id for p in table.pairs}) == 5
    assert [p.gold_margin for p in table.pairs] == [None, None, None, -2.5, 2.0]
    assert table.pairs[3].meta["score_rejected"] == 3.5 and table.pairs[4].meta["score_chosen"] == 0.5


# --- files ---


def test_gzip_parquet_byte_order_mark_and_blank_lines_read_alike(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [GOOD, GOOD | {"prompt": "z", "score_chosen": 2.0, "score_rejected": 1.0}]
    expected = read(tmp_path, rows)
    plain = (tmp_path / "prefs.jsonl").read_bytes()
    (tmp_path / "packed").write_bytes(gzip.compress(plain))  # told by content, not by its name
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbf" + plain.replace(b"\n", b"\r\n") + b"\r\n")
    pq.write_table(pa.Table.from_pylist([{"extra": 1, **row} for row in rows], pa_schema()), tmp_path / "table")
    for name in ("packed", "marked"):
        assert read_pairs(DataSpec(path=str(tmp_path / name))) == expected, name
    table = read_pairs(DataSpec(path=str(tmp_path / "table")))
    assert table.pairs == expected.pairs and set(table.notes) - set(expected.notes) == {
        Note("ignored_columns", 1, text="columns extra are not used")
    }


def pa_schema() -> Any:
    import pyarrow as pa

    text = {name: pa.string() for name in ("prompt", "chosen", "rejected")}
    return pa.schema({"extra": pa.int64(), **text, "score_chosen": pa.float64(), "score_rejected": pa.float64()})


def test_parquet_without_the_columns_and_of_conversations(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["x"], "label": [1]}), tmp_path / "other")
    with pytest.raises(InputError, match="columns chosen, rejected missing; found label, text"):
        read_pairs(DataSpec(path=str(tmp_path / "other")))
    row = {"prompt": [USER], "chosen": [said("x")], "rejected": [said("y")]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "chat")
    assert read_pairs(DataSpec(path=str(tmp_path / "chat"))).pairs[0].chosen == " x"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    noise = bytes((i * i * 7919 >> 3) % 251 for i in range(5000))  # does not shrink, so half of it is half the rows
    packed = gzip.compress(noise)
    cases = {
        "absent": None,
        "cut": packed[: len(packed) // 2],
        "flipped": packed[:40] + bytes([packed[40] ^ 255]) + packed[41:],
        "utf16": json.dumps(GOOD).encode("utf-16"),
        "parquet": b"PAR1 and then nothing of the kind",
    }
    for name, content in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=r"^data\.path: "):
            read_pairs(DataSpec(path=str(tmp_path / name)))
    with pytest.raises(InputError, match=r"^data\.path: .* holds no data file; expected \.parquet"):
        read_pairs(DataSpec(path=str(tmp_path)))


def test_content_hash_is_of_the_decompressed_bytes(tmp_path: Path) -> None:
    import hashlib

    path = write(tmp_path, [GOOD])
    plain = Path(path).read_bytes()
    for level in (1, 9):
        (tmp_path / f"{level}.gz").write_bytes(gzip.compress(plain, level))
        assert content_sha256(tmp_path / f"{level}.gz") == hashlib.sha256(plain).hexdigest() == content_sha256(path)


def test_limit_takes_the_first_rows(tmp_path: Path) -> None:
    rows = [GOOD | {"prompt": str(i)} for i in range(5)]
    table = read(tmp_path, rows, limit=3)
    assert [p.prompt for p in table.pairs] == ["0", "1", "2"] and table.rows == 3


def test_import_is_cheap() -> None:
    heavy = "{'torch', 'pandas', 'numpy', 'pyarrow', 'transformers', 'tokenizers', 'pydantic'}"
    code = f"import sys, harness.data.pairs; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- split ---

prompts = st.lists(st.text("abcde", max_size=3), min_size=2, max_size=40).filter(lambda many: len(set(many)) > 1)


@settings(deadline=None, max_examples=150)
@given(prompts, st.floats(0.01, 0.99), st.integers(0, 2**40), st.randoms(use_true_random=False))
def test_split_by_prompt(texts: list[str], share: float, seed: int, random: Any) -> None:
    pairs = [replace(pair(text), id=str(i)) for i, text in enumerate(texts)]
    train, heldout = split(pairs, share, seed)
    assert train and heldout and not {p.prompt for p in train} & {p.prompt for p in heldout}
    assert sorted(p.id for p in train + heldout) == sorted(p.id for p in pairs)
    assert [p.id for p in train] == sorted((p.id for p in train), key=int)
    again, _ = split(random.sample(pairs, len(pairs)), share, seed)
    assert {p.id for p in again} == {p.id for p in train}


def test_split_share_seed_and_stability() -> None:
    pairs = [pair(str(i)) for i in range(2000)]
    heldout = split(pairs, 0.2, 0)[1]
    assert 330 <= len(heldout) <= 470  # 400 +- 4 standard errors
    assert {p.id for p in split(pairs, 0.2, 1)[1]} != {p.id for p in heldout}
    assert {p.id for p in split(pairs, 0.1, 0)[1]} < {p.id for p in heldout}
    assert split(pairs[:1000], 0.2, 0)[1] == [p for p in heldout if p in pairs[:1000]]
    assert split(pairs, 0.0, 0) == (pairs, [])


def test_split_needs_two_prompts() -> None:
    with pytest.raises(InputError, match="at least two different prompts, the data has 1"):
        split([pair("a"), pair("a", "x")], 0.2, 0)


def test_overlap_counts_prompts_that_differ_in_case_and_space() -> None:
    assert overlap([pair("Hi  there")], [pair("hi there"), pair("bye")]).count == 1
    assert overlap([pair("a")], [pair("b")]).text.startswith("0 of 1 held-out pairs")
