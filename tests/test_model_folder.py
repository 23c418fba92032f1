"""What in a model's folder cannot be used is named in one line each, before anything runs and without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from harness.config.load import load_sweep
from harness.data.splits import data_facts, data_notes
from harness.identity import run_key
from harness.model_files.folder import folder_sha256, read_folder
from harness.types import InputError, LoraSpec
from tests.models.families import write

PAIRS = [{"prompt": f"how {i}", "chosen": "yes", "rejected": "no"} for i in range(8)]
SPEC = {
    "name": "folder",
    "data": {"path": "pairs.jsonl", "max_length": 32, "max_prompt_length": 16},
    "model": {"path": "model", "lora": {"rank": 4}},
    "objectives": [{"name": "dpo"}],
}


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A spec beside its pairs and a model's folder, all usable."""
    root = tmp_path_factory.mktemp("good")
    write("qwen2", root / "model")
    (root / "pairs.jsonl").write_text("\n".join(map(json.dumps, PAIRS)), encoding="utf-8")
    spec(root)
    return root


def spec(root: Path, **sections: dict) -> Path:
    value = {
        name: {**part, **sections.get(name, {})} if isinstance(part, dict) else part for name, part in SPEC.items()
    }
    (root / "spec.yaml").write_text(yaml.safe_dump(value), encoding="utf-8")
    return root / "spec.yaml"


@pytest.fixture
def folder(good, tmp_path) -> Path:
    """A copy of the usable folder, to be damaged."""
    shutil.copytree(good, tmp_path / "copy")
    return tmp_path / "copy"


def edit(name: str, **changes: object) -> Callable[[Path], None]:
    def apply(model: Path) -> None:
        path = model / name
        value = json.loads(path.read_text(encoding="utf-8"))
        for key, new in changes.items():
            value.pop(key, None) if new is None else value.update({key: new})
        path.write_text(json.dumps(value), encoding="utf-8")

    return apply


def pickled(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def cut(model: Path) -> None:
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[: len(data) // 2])


def shard_lost(model: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def no_end(model: Path) -> None:
    edit("tokenizer_config.json", eos_token=None)(model)
    edit("config.json", eos_token_id=None)(model)


def adapter(model: Path) -> None:
    (model / "config.json").rename(model / "adapter_config.json")


FAULTS = [
    (pickled, "pytorch_model.bin only, and loading them could run code"),
    (cut, "is cut or damaged"),
    (shard_lost, "lacks model-00002-of-00002.safetensors"),
    (lambda m: (m / "model.safetensors").unlink(), "has no .safetensors file"),
    (lambda m: (m / "tokenizer.json").unlink(), "has no tokenizer.json"),
    (lambda m: (m / "config.json").write_text("{", encoding="utf-8"), "cannot be read"),
    (adapter, "holds a peft adapter"),
    (lambda m: (m / "config.json").unlink(), "has no config.json"),
    (edit("config.json", auto_map={"AutoModelForCausalLM": "own.Model"}), "trust_remote_code"),
    (edit("tokenizer_config.json", auto_map={"AutoTokenizer": ["own.T", None]}), "trust_remote_code"),
    (edit("config.json", _attn_implementation_internal="org/kernel"), "_attn_implementation_internal"),
    (edit("config.json", vocab_size=100), "the embedding has 100 rows"),
    (no_end, "no end-of-sequence token"),
    (edit("config.json", max_position_embeddings=16), "the model has 16 positions"),
    (
        edit("config.json", sliding_window=8, use_sliding_window=True, layer_types=["sliding_attention"] * 2),
        "slides over 8",
    ),
    (
        edit("config.json", model_type="mistral", sliding_window=16, layer_types=None, use_sliding_window=None),
        "slides over 16",
    ),
]


@pytest.mark.parametrize("damage, words", FAULTS, ids=[words for _, words in FAULTS])
def test_an_unusable_folder_is_one_line(folder, damage, words):
    damage(folder / "model")
    with pytest.raises(InputError) as caught:
        load_sweep(folder / "spec.yaml")
    (line,) = caught.value.problems
    assert words in line and "\n" not in line and str(folder / "spec.yaml") in line


def test_several_faults_are_named_at_once(folder):
    pickled(folder / "model")
    edit("config.json", vocab_size=100)(folder / "model")
    with pytest.raises(InputError) as caught:
        load_sweep(folder / "spec.yaml")
    assert len(caught.value.problems) == 2


def test_bad_input_is_exit_code_2_without_torch(folder):
    pickled(folder / "model")
    code = (
        "import sys; from harness.cli import run; code = run(['plan', sys.argv[1]]); "
        "print(code, sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder / "spec.yaml")], capture_output=True, text=True)
    assert done.stdout.strip() == "2 []" and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_plan_names_the_model_without_torch(good):
    code = (
        "import sys; from harness.cli import run; code = run(['plan', sys.argv[1]]); "
        "print(code, sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(good / "spec.yaml")], capture_output=True, text=True)
    assert done.stdout.strip().endswith("0 []") and "8 usable pairs" in done.stdout, done.stdout + done.stderr


CHATS = [
    {
        "prompt": [{"role": "user", "content": f"how {i}"}],
        "chosen": [{"role": "assistant", "content": "<think>so</think>yes"}],
        "rejected": [{"role": "assistant", "content": "no"}],
    }
    for i in range(8)
]


def test_a_plan_writes_conversations_as_the_sweep_will(folder):
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, CHATS)), encoding="utf-8")
    template = (folder / "model" / "chat_template.jinja").read_text("utf-8")
    dated = "{{ strftime_now('%Y-%m-%d') }}" + template.replace("m['content']", "m['content'].split('</think>')[-1]")
    (folder / "model" / "chat_template.jinja").write_text(dated, encoding="utf-8")
    notes, pair = data_facts(load_sweep(folder / "spec.yaml").runs)
    assert "8 conversations written by the model's chat template" in notes
    assert "the chat template writes the date; on any day it is 2024-07-26 (model.template_date)" in notes
    assert sum("lose reasoning" in note for note in notes) == 1
    assert pair.prompt == "2024-07-26<|user|>how 0<eos><|assistant|>" and pair.chosen == "yes<eos>"
    assert pair.how == "as the chat template writes it, before the model's tokenizer, which --preflight opens"
    plain, pair = data_facts(load_sweep(spec(folder, model={"template": "none"})).runs)
    assert "8 conversations written as Human: and Assistant: turns" in plain and not any("date" in n for n in plain)
    assert pair.prompt == "\n\nHuman: how 0\n\nAssistant:"
    (folder / "model" / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match=r"has no chat template; set model\.template: none"):
        data_facts(load_sweep(spec(folder)).runs)


def test_the_date_of_the_template_is_in_the_key_and_must_be_one(folder):
    assert key(folder) == key(folder, model={"template_date": "2024-07-26"})
    assert key(folder) != key(folder, model={"template_date": "2025-01-02"})
    with pytest.raises(InputError, match=r"model\.template_date: 'today'; expected a date such as 2024-07-26"):
        key(folder, model={"template_date": "today"})


def test_template_arguments_are_part_of_the_run_and_an_axis(folder):
    def models(**changes):
        return load_sweep(spec(folder, model=changes)).runs

    [plain] = models()
    [off] = models(template_arguments={"enable_thinking": False, "a": [1]})
    assert off.model.template_arguments == '{"a":[1],"enable_thinking":false}'
    assert run_key(off) != run_key(plain)
    assert run_key(models(template_arguments={})[0]) == run_key(plain)
    both = load_sweep(spec(folder, model={"template_arguments": [{}, {"enable_thinking": False}]}))
    assert [run.model.template_arguments for run in both.runs] == ["", '{"enable_thinking":false}']
    (folder / "again.yaml").write_text(yaml.safe_dump(both.resolved), encoding="utf-8")
    assert load_sweep(folder / "again.yaml").runs == both.runs
    for bad, why in (
        ("no mapping", r"model\.template_arguments: 'no mapping'; expected a mapping such as"),
        ([["x"]], r"model\.template_arguments: \['x'\]; expected a mapping such as"),
        ({"messages": []}, r"model\.template_arguments: messages is set by the harness; leave it out"),
    ):
        with pytest.raises(InputError, match=why):
            models(template_arguments=bad)


def test_a_payload_beside_the_weights_is_never_run(folder, tmp_path):
    marker = tmp_path / "ran"
    (folder / "model" / "own.py").write_text(f"open({str(marker)!r}, 'w')\n", encoding="utf-8")
    edit("config.json", auto_map={"AutoModelForCausalLM": "own.Model"})(folder / "model")
    with pytest.raises(InputError):
        load_sweep(folder / "spec.yaml")
    assert not marker.exists()


@pytest.mark.parametrize("pad", [None, "<eos>"], ids=["no pad", "pad = eos"])
def test_padding_that_is_no_token_of_its_own_is_told_and_harmless(folder, pad):
    edit("tokenizer_config.json", pad_token=pad)(folder / "model")
    (note,) = read_folder(folder / "model").notes
    assert "pad token" in note and "masked by their lengths" in note
    assert note in data_notes(load_sweep(folder / "spec.yaml").runs)


def test_an_end_that_the_model_does_not_know_of_is_told(folder):
    edit("config.json", eos_token_id=1)(folder / "model")
    assert any("responses end with id 2" in note for note in read_folder(folder / "model").notes)


def key(root: Path, **sections: dict) -> str:
    return run_key(load_sweep(spec(root, **sections)).runs[0])


def test_keys_follow_the_content_and_nothing_else(folder, tmp_path):
    first = key(folder)
    (folder / "model" / "README.md").write_text("a card", encoding="utf-8")
    (folder / "model" / "config.json").touch()
    assert key(folder) == first
    shutil.move(folder, tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere"
    assert key(moved) == first
    assert key(moved, model={"gradient_checkpointing": True}) == first
    others = [
        key(moved, model={"lora": None}),
        key(moved, model={"lora": {"rank": 8}}),
        key(moved, model={"dtype": "bfloat16"}),
        key(moved, model={"sft_steps": 1}),
    ]
    before = folder_sha256(moved / "model")
    data = bytearray((moved / "model" / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (moved / "model" / "model.safetensors").write_bytes(bytes(data))
    assert folder_sha256(moved / "model") != before
    assert len({first, *others, key(moved)}) == 6


def test_the_resolved_spec_gives_the_same_runs(good, tmp_path):
    loaded = load_sweep(spec(good, model={"lora": [None, {"rank": [4, 8], "targets": ["q_proj", "v_proj"]}]}))
    assert [run.model.lora for run in loaded.runs] == [
        None,
        LoraSpec(4, 32.0, ("q_proj", "v_proj")),
        LoraSpec(8, 32.0, ("q_proj", "v_proj")),
    ]
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(dict(loaded.resolved)), encoding="utf-8")
    again = load_sweep(tmp_path / "again.yaml")
    assert [*map(run_key, again.runs)] == [*map(run_key, loaded.runs)]
    spec(good)


@pytest.mark.parametrize(
    "lora, words",
    [
        ({"rank": 0}, "expected an integer in [1, 4096]"),
        ({"rank": 2.5}, "expected an integer"),
        ({"alpha": -1}, "expected a number"),
        ({"targets": []}, "expected all-linear, or names"),
        ({"targets": ["q_prj"]}, "'q_prj' names no layer; expected all-linear, or some of down_proj"),
        ({"dropout": 0.1}, "unknown key; expected one of rank, alpha, targets"),
        (4, "expected null or {rank, alpha, targets}"),
    ],
)
def test_adapters_that_cannot_be_are_named(good, lora, words):
    with pytest.raises(InputError) as caught:
        load_sweep(spec(good, model={"lora": lora}))
    (line,) = caught.value.problems
    assert words in line and "model.lora" in line
    spec(good)


def test_a_changed_model_is_told_where_the_spec_names_its_hash(folder):
    with pytest.raises(InputError, match="it changed since the line was written"):
        load_sweep(spec(folder, model={"sha256": "0" * 64}))


def test_a_local_folder_has_no_revision(good):
    with pytest.raises(InputError, match="has no revision"):
        load_sweep(spec(good, model={"revision": "main"}))
    spec(good)


ROOT = Path(__file__).resolve().parents[1]


def test_the_hub_experiment_names_the_offline_route_and_takes_local_folders(good):
    spec = ROOT / "experiments" / "hub.yaml"
    with pytest.raises(InputError) as caught:
        load_sweep(spec)
    assert all("hf download" in line for line in caught.value.problems)
    local = [f"data.path={good / 'pairs.jsonl'}", f"model.path={good / 'model'}", "data.max_length=200"]
    nothing = [f"data.{name}=''" for name in ("hub", "split", "heldout_split")]
    lengths = ["data.max_prompt_length=100", "data.max_response_length=100"]
    runs = load_sweep(spec, [*local, *nothing, *lengths]).runs
    assert len(runs) == 18 and {run.model.lora for run in runs} == {LoraSpec(16, 32.0)}
