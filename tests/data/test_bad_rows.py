"""Preference data that cannot be used, through the verbs: exit 2, a line for each problem, nothing trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cli import run as command

GOOD = [{"prompt": f"Question {i}?", "chosen": f" yes {i}", "rejected": f" no {i}"} for i in range(30)]
SPEC: dict[str, Any] = {
    "name": "bad",
    "objectives": [{"name": "dpo", "beta": 0.1}],
    "model": {"kind": "tiny", "vocab_size": 300, "hidden_size": 16, "layers": 1, "sft_steps": 1, "sft_batch": 2},
    "training": {"steps": 1, "batch_size": 2},
    "evaluation": {"checkpoints": 2, "heldout": 4, "probe": 4, "ood": 0, "samples": 0},
    "device": "cpu",
}
USER, SAID = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "x"}
Lines = Sequence[Any]


def turn(chosen: Any, rejected: Any = (SAID,), prompt: Any = (USER,)) -> dict[str, Any]:
    return {"prompt": list(prompt), "chosen": chosen, "rejected": list(rejected)}


ANSWERS = [({"role": "user", "content": f"Q{i}"}, {"role": "assistant", "content": f"A{i}"}) for i in range(8)]
TALK = [turn([answer], prompt=[question]) for question, answer in ANSWERS]
TOOL, NO_TEXT = {"role": "tool", "content": "x"}, {"role": "assistant", "content": ["x"]}
STOP = {"on_bad_row": "error"}
# name -> (rows, bytes as they stand; options of data; what the lines must hold, one each)
CASES: dict[str, tuple[Lines, dict[str, Any], Sequence[str]]] = {
    "missing column": ([{"prompt": "a", "chosen": "b"}], {}, ["p.jsonl: column rejected missing; found chosen,"]),
    "no row": ([], {}, ["p.jsonl: no usable pair in 0 rows"]),
    "one row": (GOOD[:1], {}, ["data.heldout: 0.2 needs at least two different prompts, the data has 1"]),
    "null, empty and blank fields by policy": (
        [*GOOD, {**GOOD[0], "chosen": None}, {**GOOD[0], "prompt": ""}, {**GOOD[0], "rejected": " \t"}],
        STOP,
        ["p.jsonl:31: chosen: null", "p.jsonl:32: prompt: empty", "p.jsonl:33: rejected: empty"],
    ),
    "equal responses by policy": (
        [*GOOD, {**GOOD[0], "rejected": GOOD[0]["chosen"]}], STOP, ["p.jsonl:31: rejected: equal"]
    ),
    "row over a megabyte": ([*GOOD, {**GOOD[0], "chosen": "x" * 1_000_001}], {}, ["p.jsonl:31: longer than 1,000,000"]),
    "not UTF-8 by policy": (
        [*GOOD, b'{"prompt": "a\xff"}'], STOP, ["p.jsonl:31: not UTF-8 at byte 13 of the line"]
    ),
    "lone surrogate and NUL by policy": (
        [*GOOD, b'{"prompt": "a", "chosen": "b\\ud800", "rejected": "c"}', {**GOOD[0], "chosen": "b\0"}],
        STOP,
        ["p.jsonl:31: chosen: lone surrogate at byte 1", "p.jsonl:32: chosen: NUL at byte 1"],
    ),
    "not JSON by policy": ([*GOOD, b"{", b"[1]"], STOP, ["p.jsonl:31: not JSON", "p.jsonl:32: expected one"]),
    "no role": ([*TALK, turn([{"content": "x"}])], {}, ["p.jsonl:9: chosen: message 0 needs role and content"]),
    "wrong order": ([*TALK, turn([USER, USER])], STOP, ["p.jsonl:9: chosen: roles must alternate"]),
    "different prompts": (
        [*TALK, turn([USER, SAID], [{"role": "user", "content": "Ho"}, SAID], prompt=[USER])],
        STOP,
        ["p.jsonl:9: prompt: the turns of chosen and rejected do not begin with the prompt"],
    ),
    "content no text": ([*TALK, turn([NO_TEXT])], {}, ["p.jsonl:9: chosen: message 0: content"]),
    "tool turn": ([*TALK, turn([TOOL])], STOP, ["p.jsonl:9: chosen: the answer is a tool's turn"]),
    "text and turns mixed": ([*GOOD, TALK[0]], {}, ["p.jsonl:31: chosen: text and lists of messages are mixed"]),
    "score no number by policy": (
        [*GOOD, {**GOOD[0], "score_chosen": "9"}], STOP, ["p.jsonl:31: score_chosen: expected a finite"]
    ),
    "label no boolean by policy": (
        [*({"prompt": "q", "completion": c, "label": v} for c, v in ((" a", True), (" b", False), (" c", "yes")))],
        STOP,
        ["p.jsonl:3: label: expected true or false, got 'yes'"],
    ),
    "no partner at all": (
        [{"prompt": f"q{i}", "completion": " a", "label": True} for i in range(4)], {}, ["p.jsonl: no usable pair in"]
    ),
    "responses that vanish by policy": (
        [*GOOD, {"prompt": "w " * 60, "chosen": " a", "rejected": " b"}],
        {"on_bad_row": "error", "max_length": 24, "max_prompt_length": 23, "max_response_length": 1},
        ["p.jsonl:31: chosen, rejected: responses equal once cut"],
    ),
    "swapped scores": (
        [{**row, "score_chosen": 1, "score_rejected": 2} for row in GOOD], {}, ["error: ", "30 of 30 pairs"]
    ),
    "a column that is not there": (GOOD, {"columns": {"chosen": "answer"}}, ["data.columns: ", "has no column answer"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_is_refused_with_a_line_and_nothing_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    rows, options, expected = CASES[name]
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    (tmp_path / "p.jsonl").write_bytes(b"\n".join([*lines, b""]))
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({**SPEC, "data": {"path": "p.jsonl", **options}}))
    assert command(["sweep", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "runs"), "--workers", "1"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said and not [line for line in said if "Traceback" in line]
    for part in expected:
        assert any(part in line for line in said), (part, said)
    assert not list((tmp_path / "runs").rglob("result.json")) and not list((tmp_path / "runs").rglob("events.jsonl"))
