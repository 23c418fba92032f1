"""Forms beyond one file of pairs: folders, splits, mapped columns, unpaired completions, chat templates, the hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.config.load import load_sweep
from harness.data.chat import chat_renderer
from harness.data.files import RowError
from harness.data.pairs import content_sha256, read_pairs
from harness.data.splits import read_text
from harness.data.tokenize import model_vocabulary, tokenise
from harness.identity import run_key
from harness.types import DataSpec, InputError, ModelSpec, PreferencePair

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

DAY = "2024-07-26"


def rows(prompts: Sequence[str], **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": p, "chosen": f" yes {p}", "rejected": f" no {p}", **more} for p in prompts]


def jsonl(path: Path, values: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def parquet(path: Path, values: Sequence[Any]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(values)), path)
    return path


def refused(spec: DataSpec) -> str:
    with pytest.raises(InputError) as caught:
        read_pairs(spec)
    return " | ".join(caught.value.problems)


def small_tokenizer(template: str | None = TEMPLATE) -> Any:
    """A byte-level tokenizer with a chat template, as transformers knows it."""
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    from harness.data.tokenize import train_tokenizer

    own = train_tokenizer(["hello"], 300)
    own.encode_special_tokens = False
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=own, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>",
        additional_special_tokens=[AddedToken(t) for t in ("<|user|>", "<|assistant|>", "<|system|>")],
    )  # fmt: skip
    tokenizer.chat_template = template
    return tokenizer


# --- folders and splits ---


def test_a_folder_is_the_files_of_its_split_in_order(tmp_path: Path) -> None:
    parquet(tmp_path / "data/train-00001-of-00002.parquet", rows(["c"]))
    parquet(tmp_path / "data/train-00000-of-00002.parquet", rows(["a", "b"]))
    parquet(tmp_path / "data/test-00000-of-00001.parquet", rows(["d"]))
    (tmp_path / "train.py").write_text("raise SystemExit('a data set script was run')")
    table = read_pairs(DataSpec(path=str(tmp_path), split="train"))
    assert [(p.prompt, p.meta["row"]) for p in table.pairs] == [("a", 1), ("b", 2), ("c", 3)]
    assert "holds the splits test, train; name one as data.split" in refused(DataSpec(path=str(tmp_path)))
    assert "no split 'trian'; did you mean 'train'?; found" in refused(DataSpec(path=str(tmp_path), split="trian"))


def test_an_error_in_a_folder_names_file_row_and_field(tmp_path: Path) -> None:
    jsonl(tmp_path / "train-00000-of-00002.jsonl", rows(["a", "b"]))
    jsonl(tmp_path / "train-00001-of-00002.jsonl", [*rows(["c"]), {"prompt": "d", "chosen": " ", "rejected": "x"}])
    problem = refused(DataSpec(path=str(tmp_path), on_bad_row="error"))
    assert problem == f"{tmp_path}/train-00001-of-00002.jsonl:2: chosen: empty"


def test_the_hash_of_a_folder_follows_contents_and_names_alone(tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    for folder in (first, second):
        jsonl(folder / "train.jsonl", rows(["a"]))
    (second / "README.md").write_text("no data")
    assert content_sha256(first) == content_sha256(second)
    jsonl(second / "train.jsonl", rows(["b"]))
    assert content_sha256(first) != content_sha256(second)


def test_a_folder_without_data_says_what_it_expected(tmp_path: Path) -> None:
    (tmp_path / "data.arrow").write_bytes(b"x")
    assert "as .gz or .zst; Arrow files" in refused(DataSpec(str(tmp_path)))


def test_no_prompt_stands_in_two_splits(tmp_path: Path) -> None:
    jsonl(tmp_path / "train.jsonl", rows([f"question {i}" for i in range(20)]))
    held = [f"question {i}" for i in range(15, 25)]
    jsonl(tmp_path / "test.jsonl", [*rows(held), *rows(["QUESTION  3"])])
    text = read_text(DataSpec(str(tmp_path), split="train", heldout_split="test"), ModelSpec(vocab_size=300), 0)
    sides = [{pair.prompt for pair in side} for side in (text.train, text.heldout)]
    assert not sides[0] & sides[1] and sides[1] == {f"question {i}" for i in range(20, 25)} | {"QUESTION  3"}
    told = {note.kind: note.count for note in text.notes}
    assert told["shared_prompt"] == 5 and told["overlap"] == 1


@pytest.mark.parametrize("separate", [False, True])
def test_three_splits_share_no_prompt_and_lose_no_pair(tmp_path: Path, separate: bool) -> None:
    prompts = [f"question {i}" for i in range(60)]
    jsonl(tmp_path / "train.jsonl", [*rows(prompts), *rows(prompts[:20], other=1)])
    if separate:
        jsonl(tmp_path / "valid.jsonl", rows([f"other {i}" for i in range(10)]))
    options = {"split": "train", "heldout_split": "valid"} if separate else {"heldout": 0.25}
    text = read_text(DataSpec(str(tmp_path), test=0.25, **options), ModelSpec(vocab_size=300), 0)  # type: ignore[arg-type]
    sides = [{pair.prompt for pair in side} for side in (text.train, text.heldout, text.test)]
    assert all(sides) and not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert len(text.train) + len(text.heldout) + len(text.test) == (90 if separate else 80)
    assert 5 <= len(sides[2]) <= 25


def test_shares_that_leave_nothing_are_refused_and_an_unset_test_split_moves_no_key(tmp_path: Path) -> None:
    jsonl(tmp_path / "p.jsonl", rows(["a", "b"]))
    spec = "name: t\nobjectives: [{name: dpo, beta: 1}]\ndata: {path: p.jsonl, heldout: 0.5, test: X}\n"
    (tmp_path / "s.yaml").write_text(spec.replace("X", "0.5"))
    with pytest.raises(InputError, match=r"data\.test: 0\.5 beside heldout 0\.5 leaves nothing to train on"):
        load_sweep(tmp_path / "s.yaml")
    keys = []
    for text in (spec.replace(", test: X", ""), spec.replace("X", "0")):
        (tmp_path / "s.yaml").write_text(text)
        keys.append(run_key(load_sweep(tmp_path / "s.yaml").runs[0]))
    assert keys[0] == keys[1]


# --- columns ---


def test_columns_are_read_under_other_names_and_the_rest_is_named(tmp_path: Path) -> None:
    row = {"question": "q", "response_j": " good", "response_k": " bad", "chosen": "not this", "votes": 3}
    path = jsonl(tmp_path / "p.jsonl", [row])
    mapping = "chosen=response_j, prompt=question, rejected=response_k"
    table = read_pairs(DataSpec(str(path), columns=mapping))
    assert [(p.prompt, p.chosen, p.rejected) for p in table.pairs] == [("q", " good", " bad")]
    assert [note.text for note in table.notes] == ["columns votes are not used"]
    assert "has no column answer; found question, response_j, response_k, votes" in refused(
        DataSpec(str(path), columns="chosen=answer")
    )


def test_columns_of_a_spec_are_checked_and_equal_mappings_give_equal_keys(tmp_path: Path) -> None:
    jsonl(tmp_path / "p.jsonl", rows(["a", "b"]))
    spec = "name: t\nobjectives: [{name: dpo, beta: 1}]\ndata: {path: p.jsonl, columns: %s}\n"
    keys = []
    for text in ("{chosen: x, prompt: y}", "{prompt: y, chosen: x}", "'prompt=y, chosen=x'"):
        (tmp_path / "s.yaml").write_text(spec % text)
        loaded = load_sweep(tmp_path / "s.yaml")
        keys.append(loaded.runs[0].data)
    assert keys[0] is not None and keys[0].columns == "chosen=x, prompt=y" and keys == [keys[0]] * 3
    (tmp_path / "s.yaml").write_text(spec % "{chossen: x, prompt: 'a,b'}")
    with pytest.raises(InputError) as caught:
        load_sweep(tmp_path / "s.yaml")
    assert len(caught.value.problems) == 2
    assert "data.columns.chossen: unknown field" in caught.value.problems[0]


# --- UltraFeedback and unpaired rows ---


def test_ultrafeedback_rows_have_the_scores_as_gold_margin(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}]
    row = {
        "prompt": "Hi", "prompt_id": "1", "messages": [*turns, {"role": "assistant", "content": "A"}],
        "chosen": [*turns, {"role": "assistant", "content": "A"}],
        "rejected": [*turns, {"role": "assistant", "content": "B"}],
        "score_chosen": 8.5, "score_rejected": 6.0,
    }  # fmt: skip
    table = read_pairs(DataSpec(str(parquet(tmp_path / "p.parquet", [row]))))
    (pair,) = table.pairs
    assert (pair.chosen, pair.gold_margin) == (" A", 2.5)
    assert "columns messages, prompt_id are not used" in [note.text for note in table.notes]


def test_unpaired_completions_are_paired_per_prompt_and_the_rest_is_counted(tmp_path: Path) -> None:
    def one(prompt: str, completion: str, label: Any) -> dict[str, Any]:
        return {"prompt": prompt, "completion": completion, "label": label}

    values = [
        one("p", " good 1", True), one("p", " bad 1", False), one("q", " good", True), one("p", " good 2", True),
        one("p", " bad 2", False), one("p", " good 3", True), one("q", " odd", 1), one("r", " bad", False),
    ]  # fmt: skip
    table = read_pairs(DataSpec(str(jsonl(tmp_path / "p.jsonl", values))))
    assert [(p.chosen, p.rejected, p.meta["row"]) for p in table.pairs] == [
        (" good 1", " bad 1", 1), (" good 2", " bad 2", 4)
    ]  # fmt: skip
    assert table.pairs[0].source == "unpaired"
    told = {note.kind: (note.count, note.rows) for note in table.notes}
    assert told == {"unpaired": (3, (3, 6, 8)), "bad_label": (1, (7,))}


# --- chat templates ---


def test_a_chat_template_writes_prompt_and_answers_and_ends_them_once(tmp_path: Path) -> None:
    tokenizer = small_tokenizer()
    turns = [{"role": "user", "content": "Hi"}]
    row = {
        "prompt": turns,
        "chosen": [{"role": "assistant", "content": "A"}],
        "rejected": [{"role": "assistant", "content": "B"}],
    }
    table = read_pairs(DataSpec(str(jsonl(tmp_path / "p.jsonl", [row]))), chat_renderer(tokenizer, DAY))
    (pair,) = table.pairs
    assert (pair.prompt, pair.chosen, pair.rejected) == ("<|user|>Hi<eos>\n<|assistant|>", "A<eos>", "B<eos>")
    assert [note.text for note in table.notes] == ["1 conversations written by the model's chat template"]
    [tokens], _ = tokenise(model_vocabulary(tokenizer, templated=True), [pair], 64, 32)
    ids = tokenizer.convert_tokens_to_ids
    assert tokens.prompt[0] == ids("<|user|>") and tokens.prompt[-1] == ids("<|assistant|>")
    assert tokens.chosen.tolist() == [*tokenizer("A")["input_ids"], tokenizer.eos_token_id]


def test_plain_text_cannot_write_special_tokens() -> None:
    tokenizer = small_tokenizer()
    pair = PreferencePair("x", "a<eos>b", "c<eos>", "d")
    [tokens], _ = tokenise(model_vocabulary(tokenizer, templated=False), [pair], 64, 32)
    assert tokenizer.eos_token_id not in tokens.prompt
    assert tokens.chosen.tolist().count(tokenizer.eos_token_id) == 1 and tokens.chosen[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (None, "has no chat template"),
        ("{% for m in messages %}{{ messages|length }}{{ m.content }}{% endfor %}", "formats the prompt differently"),
        ("{{ raise_exception('no system turn') }}", "refuses these turns \\(no system turn\\)"),
    ],
)
def test_templates_that_cannot_write_a_pair_are_errors_of_the_row(template: str | None, why: str) -> None:
    with pytest.raises(RowError, match=why):
        chat_renderer(small_tokenizer(template), DAY)([{"role": "user", "content": "Hi"}], "A", "B")


# --- the hub ---


def test_a_hub_that_cannot_be_reached_is_one_line_with_the_way_round(tmp_path: Path, monkeypatch: Any) -> None:
    import huggingface_hub

    def down(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no route to host\nmore")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", down)
    (tmp_path / "s.yaml").write_text("name: t\nobjectives: [{name: dpo, beta: 1}]\ndata: {hub: org/set}\n")
    with pytest.raises(InputError) as caught:
        load_sweep(tmp_path / "s.yaml")
    (line,) = caught.value.problems
    assert line.startswith(f"{tmp_path}/s.yaml:3 data.hub: cannot get 'org/set' (ConnectionError: no route to host); ")
    assert "hf download org/set --repo-type dataset" in line and "data.path" in line


def test_hub_rows_come_at_the_commit_of_the_run_key(tmp_path: Path, monkeypatch: Any) -> None:
    import datasets

    asked: list[Any] = []

    def load(name: str, revision: str) -> Any:
        asked.append((name, revision))
        made = {side: datasets.Dataset.from_list(rows([side], votes=1)) for side in ("train", "test")}
        return datasets.DatasetDict(made)

    monkeypatch.setattr(datasets, "load_dataset", load)
    commit = "0123456789" * 4
    text = "name: t\nobjectives: [{name: dpo, beta: 1}]\ndata: {hub: org/set, revision: 'X', split: test}\n".replace(
        "X", commit
    )
    (tmp_path / "s.yaml").write_text(text)
    data = load_sweep(tmp_path / "s.yaml").runs[0].data
    assert data is not None and data.sha256 == commit and data.path == ""
    assert [pair.prompt for pair in read_pairs(data).pairs] == ["test"] and asked == [("org/set", commit)]
    with pytest.raises(InputError, match=r"has the splits train, test; name one as data\.split"):
        read_pairs(DataSpec(hub="org/set", sha256=commit))
