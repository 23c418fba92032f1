"""Whatever is wrong in a spec: one line a problem with its place and key, nothing else, exit code 2."""

import os
import re
from pathlib import Path

import pytest

from harness.cli import run
from harness.config.load import load_sweep
from harness.types import InputError

BASE = "name: t\nworld: {kind: mythworld}\nobjectives:\n  - {name: dpo, beta: 1}\n"
WORLD, OBJECTIVE = "world: {kind: mythworld}", "{name: dpo, beta: 1}"
PAIR = '{"prompt": "a", "chosen": "b", "rejected": "c"}\n'
DATA = BASE.replace(WORLD, "data: {path: p.jsonl}")


def world(fields):
    return BASE.replace(WORLD, f"world: {fields}")


def objective(entry):
    return BASE.replace(OBJECTIVE, entry)


def more(text):
    return f"{BASE}{text}\n"


def data(fields):
    return DATA.replace("{path: p.jsonl}", fields)


# (spec, the key that the line must name, fragments that it must hold). Each gives exactly one problem.
ONE_PROBLEM = [
    # the top level
    (BASE.replace("name: t\n", ""), "name", ["missing"]),
    (BASE.replace("name: t", "name: 2024"), "name", ["2024"]),
    (BASE.replace("name: t", "name: ../up"), "name", ["'../up'"]),
    (BASE.replace("name: t", "name: .hidden"), "name", ["first a letter"]),
    (BASE.replace("name: t", f"name: {'x' * 65}"), "name", ["1 to 64"]),
    (BASE.replace("name: t", "name: cache"), "name", ["harness's own files"]),
    (data("{path: [p.jsonl, absent.jsonl]}"), "data.path", ["no such file"]),
    (BASE.replace("name: t", "name: [a]"), "name", ["['a']"]),
    (BASE.replace("name: t", "name: 'a b'"), "name", ["'a b'"]),
    (BASE.replace("name: t", "name:"), "name", ["nothing"]),
    (more("question: 7"), "question", ["expected text"]),
    (more("question: [a]"), "question", ["expected text"]),
    (more("objetives: []"), "objetives", ["unknown key", "did you mean 'objectives'?"]),
    (more("seed: 3"), "seed", ["unknown key", "did you mean 'seeds'?"]),
    (more("trials: 20"), "trials", ["study", "harness study"]),
    (more("targets: []"), "targets", ["harness study"]),
    (more("<<: {seeds: 2}"), "<<", ["unknown key"]),
    (BASE.replace(f"{WORLD}\n", ""), "world", ["missing"]),
    (more("data: {path: p.jsonl}"), "data", ["beside world", "one of the two"]),
    (more("model: {kind: tiny}"), "model", ["goes with data"]),
    # the device is no axis
    (more("device: gpu"), "device", ["'gpu'", "cuda:N"]),
    (more("device: [cpu, cuda]"), "device", ["not an axis"]),
    (more("device: cuda:x"), "device", ["'cuda:x'"]),
    (more("device: 0"), "device", ["expected one of auto"]),
    # the world
    (world("mythworld"), "world", ["not a mapping"]),
    (world("{kind: narnia}"), "world.kind", ["'narnia'", "mythworld"]),
    (world("{misalinged: 0.5}"), "world.misalinged", ["did you mean 'misaligned'?"]),
    (world("{misaligned: 1.5}"), "world.misaligned", ["1.5", "[0, 1]"]),
    (world("{misaligned: -0.1}"), "world.misaligned", ["[0, 1]"]),
    (world("{misaligned: .nan}"), "world.misaligned", ["nan"]),
    (world("{misaligned: .inf}"), "world.misaligned", ["inf"]),
    (world("{misaligned: true}"), "world.misaligned", ["True", "a number in [0, 1]"]),
    (world("{misaligned: half}"), "world.misaligned", ["'half'"]),
    (world("{misaligned: []}"), "world.misaligned", ["0 runs"]),
    (world("{misaligned: [0, 2]}"), "world.misaligned.1", ["2", "[0, 1]"]),
    (world("{misaligned: [[0.5]]}"), "world.misaligned.0", ["[0.5]"]),
    (world("{misaligned: {a: 1}}"), "world.misaligned", ["{'a': 1}"]),
    (world("{misaligned: }"), "world.misaligned", ["nothing"]),
    (world("{misaligned: 1_0}"), "world.misaligned", ["'1_0'", "underscores"]),
    (world("{labels: soft}"), "world.labels", ["hard, bradley_terry"]),
    (world("{labels: bradley-terry}"), "world.labels", ["did you mean 'bradley_terry'?"]),
    (world("{labels: [hard, no]}"), "world.labels.1", ["only true and false are booleans"]),
    (world("{pairs: 0}"), "world.pairs", ["[1,"]),
    (world("{pairs: 1e3}"), "world.pairs", ["1000.0", "an integer"]),
    (world("{pairs: '1024'}"), "world.pairs", ["'1024'", "without quotes"]),
    (world("{pairs: 012}"), "world.pairs", ["'012'", "leading zeros"]),
    (world("{pairs: 12:30}"), "world.pairs", ["'12:30'", "colons"]),
    (world("{pairs: 99999999999999999999}"), "world.pairs", ["an integer in"]),
    (world("{pretrain_steps: -1}"), "world.pretrain_steps", ["[0,"]),
    (world("{sft_learning_rate: 0}"), "world.sft_learning_rate", ["(0, 10]"]),
    (world("{hidden_size: 63}"), "world.hidden_size", ["63 over 2 heads", "multiple"]),
    (world("{heads: 3}"), "world.hidden_size", ["64 over 3 heads"]),
    # training and evaluation
    (more("training: 5"), "training", ["not a mapping"]),
    (more("training: {stepz: 5}"), "training.stepz", ["did you mean 'steps'?"]),
    (more("training: {steps: 0}"), "training.steps", ["0", "[1,"]),
    (more("training: {steps: -5}"), "training.steps", ["-5"]),
    (more("training: {steps: 10.0}"), "training.steps", ["10.0", "an integer"]),
    (more("training: {steps: true}"), "training.steps", ["True"]),
    (more("training: {steps: no}"), "training.steps", ["'no'", "only true and false are booleans"]),
    (more("training: {steps: off}"), "training.steps", ["'off'"]),
    (more("training: {steps: []}"), "training.steps", ["0 runs"]),
    (more("training: {batch_size: 0}"), "training.batch_size", ["[1,"]),
    (more("training: {learning_rate: 0}"), "training.learning_rate", ["(0, 10]"]),
    (more("training: {learning_rate: -1e-3}"), "training.learning_rate", ["-0.001"]),
    (more("training: {learning_rate: '1e-3'}"), "training.learning_rate", ["'1e-3'", "without quotes"]),
    (more("training: {learning_rate: .nan}"), "training.learning_rate", ["nan"]),
    (more("training: {learning_rate: [1e-3, .inf]}"), "training.learning_rate.1", ["inf"]),
    (more("training: {warmup_steps: -1}"), "training.warmup_steps", ["[0,"]),
    (more("training: {final_lr_fraction: 2}"), "training.final_lr_fraction", ["[0, 1]"]),
    (more("training: {max_grad_norm: 0}"), "training.max_grad_norm", ["(0,"]),
    (more("training: {adam_beta1: 1}"), "training.adam_beta1", ["[0, 1)"]),
    (more("training: {adam_beta2: 1.0}"), "training.adam_beta2", ["[0, 1)"]),
    (more("training: {weight_decay: -1}"), "training.weight_decay", ["[0, 10]"]),
    (more("evaluation: {checkpoints: 1}"), "evaluation.checkpoints", ["[2, 100]"]),
    (more("evaluation: {heldout: 0}"), "evaluation.heldout", ["[1,"]),
    (more("evaluation: {ood: -1}"), "evaluation.ood", ["[0,"]),
    (more("evaluation: {samples: 1.5}"), "evaluation.samples", ["1.5"]),
    (more("evaluation: {probes: 5}"), "evaluation.probes", ["did you mean 'probe'?"]),
    # seeds
    (more("seeds: 0"), "seeds", ["0", "a count from 1"]),
    (more("seeds: -1"), "seeds", ["-1"]),
    (more("seeds: []"), "seeds", ["0 runs"]),
    (more("seeds: true"), "seeds", ["True"]),
    (more("seeds: 2.0"), "seeds", ["2.0"]),
    (more("seeds: three"), "seeds", ["'three'"]),
    (more("seeds: {min: 4, max: 8, stop: settled, a: 1}"), "seeds.a", ["unknown key"]),
    (more("seeds: [0, 1, 0]"), "seeds.2", ["given twice"]),
    (more("seeds: [0, -2]"), "seeds.1", ["-2"]),
    (more("seeds: [4294967297]"), "seeds.0", ["4294967297"]),
    (more("seeds: [false]"), "seeds.0", ["False"]),
    (more("seeds: [0, [1]]"), "seeds.1", ["[1]"]),
    # objectives
    ("name: t\nworld: {}\n", "objectives", ["missing"]),
    (f"name: t\n{WORLD}\nobjectives: []\n", "objectives", ["0 runs"]),
    (f"name: t\n{WORLD}\nobjectives: dpo\n", "objectives", ["not a list"]),
    (f"name: t\n{WORLD}\nobjectives: {{name: dpo}}\n", "objectives", ["not a list"]),
    (objective("dpo"), "objectives.0", ["not a mapping", "{name: ...}"]),
    (objective("{beta: 1}"), "objectives.0", ["name: dpo"]),
    (objective("{name: 5}"), "objectives.0.name", ["5"]),
    (objective("{name: dpp}"), "objectives.0.name", ["dpp", "did you mean 'dpo'?"]),
    (objective("{name: zzzzzz}"), "objectives.0.name", ["zzzzzz"]),
    (objective("{name: cpo}"), "objectives.0.name", ["ambiguous", "contrastive_cpo", "constrained_cpo"]),
    (objective("{name: rdpo}"), "objectives.0.name", ["robust_dpo"]),
    (objective("{name: nll}"), "objectives.0.name", ["build references only"]),
    (objective("{name: [dpo, dpp]}"), "objectives.0.name.1", ["dpp"]),
    (objective("{name: []}"), "objectives.0.name", ["0 runs"]),
    (objective("{name: dpo, beta: 0}"), "objectives.0.beta", ["beta", "0"]),
    (objective("{name: dpo, beta: -1}"), "objectives.0.beta", ["-1"]),
    (objective("{name: dpo, beta: .nan}"), "objectives.0.beta", ["nan"]),
    (objective("{name: dpo, beta: .inf}"), "objectives.0.beta", ["inf"]),
    (objective("{name: dpo, beta: 1e9}"), "objectives.0.beta", ["1000000000"]),
    (objective("{name: dpo, beta: true}"), "objectives.0.beta", ["True"]),
    (objective("{name: dpo, beta: high}"), "objectives.0.beta", ["'high'"]),
    (objective("{name: dpo, beta: []}"), "objectives.0.beta", ["0 runs"]),
    (objective("{name: dpo, beta: [1, 0]}"), "objectives.0.beta.1", ["0"]),
    (objective("{name: dpo, beta: {low: 1}}"), "objectives.0.beta", ["low"]),
    (objective("{name: dpo, gamma: 1}"), "objectives.0.gamma", ["dpo", "gamma"]),
    (objective("{name: dpo, eps: 0.1}"), "objectives.0.eps", ["dpo", "eps"]),
    (objective("{name: robust_dpo, epps: 0.1}"), "objectives.0.epps", ["robust_dpo", "epps"]),
    (objective("{name: robust_dpo, eps: 0.5}"), "objectives.0.eps", ["0.5"]),
    (objective("{name: robust_dpo, eps: [0.1, 0.6]}"), "objectives.0.eps.1", ["0.6"]),
    (objective("{name: cpo_smooth, reduction: max}"), "objectives.0.reduction", ["max"]),
    (objective("{name: ipo, length_average: 1}"), "objectives.0.length_average", ["1"]),
    (objective("{name: ipo, length_average: yes}"), "objectives.0.length_average", ["'yes'"]),
    # corruptions
    (more("corruptions: []"), "corruptions", ["0 runs"]),
    (more("corruptions: none"), "corruptions", ["not a list"]),
    (more("corruptions: [none]"), "corruptions.0", ["not a mapping", "{kind: ...}"]),
    (more("corruptions: [{rate: 0.1}]"), "corruptions.0", ["kind"]),
    (more("corruptions: [{kind: uniform_flop, rate: 0.1}]"), "corruptions.0.kind", ["did you mean 'uniform_flip'?"]),
    (more("corruptions: [{kind: uniform_flip}]"), "corruptions.0.kind", ["rate"]),
    (more("corruptions: [{kind: uniform_flip, rate: 1.5}]"), "corruptions.0.rate", ["1.5", "[0, 1]"]),
    (more("corruptions: [{kind: uniform_flip, rate: -0.1}]"), "corruptions.0.rate", ["-0.1"]),
    (more("corruptions: [{kind: uniform_flip, rate: .nan}]"), "corruptions.0.rate", ["nan"]),
    (more("corruptions: [{kind: uniform_flip, rate: true}]"), "corruptions.0.rate", ["True"]),
    (more("corruptions: [{kind: uniform_flip, rate: []}]"), "corruptions.0.rate", ["0 runs"]),
    (more("corruptions: [{kind: uniform_flip, rate: [0.1, 2]}]"), "corruptions.0.rate.1", ["2"]),
    (more("corruptions: [{kind: none, rate: 0.3}]"), "corruptions.0.rate", ["rate"]),
    (more("corruptions: [{kind: uniform_flip, rate: 0.1, kappa: 2}]"), "corruptions.0.kappa", ["kappa"]),
    (more("corruptions: [{kind: bt_flip, rate: 0.2}]"), "corruptions.0.rate", ["temperature"]),
    (more("corruptions: [{kind: bt_flip, temperature: -1}]"), "corruptions.0.temperature", ["-1"]),
    (more("corruptions: [{kind: rm_noise, rate: 0.2}]"), "corruptions.0.rate", ["noise"]),
    (more("corruptions: [{sequence: []}]"), "corruptions.0.sequence", ["0 runs"]),
    (more("corruptions: [{sequence: [{kind: nope}]}]"), "corruptions.0.sequence", ["nope"]),
    (more("corruptions: [{sequence: {kind: none}}]"), "corruptions.0.sequence", ["list"]),
    # further cells
    (more("also: {seeds: 2}"), "also", ["not a list"]),
    (more("also: [5]"), "also.0", ["5"]),
    (more("also: [{}]"), "also.0", ["override"]),
    (more("also: [{name: u}]"), "also.0.name", ["cannot be overridden"]),
    (more("also: [{question: u}]"), "also.0.question", ["cannot be overridden"]),
    (more("also: [{also: []}]"), "also.0.also", ["cannot be overridden"]),
    (more("also: [{seedz: 2}]"), "also.0.seedz", ["did you mean 'seeds'?"]),
    (more("also: [{training: {steps: 0}}]"), "also.0.training.steps", ["[1,"]),
    (more("also: [{seeds: 2}, {objectives: [{name: dpo, beta: 0}]}]"), "also.1.objectives.0.beta", ["0"]),
    (more("also: [{data: {path: p.jsonl}, world: {}}]"), "also.0.data", ["beside world"]),
    # real data
    (data("{path: absent.jsonl}"), "data.path", ["no such file", "--set data.path="]),
    (data("{path: }"), "data.path", ["no data file given", "--set data.path=prefs.jsonl.gz"]),
    (data("{path: ''}"), "data.path", ["no data file given"]),
    (data("{}"), "data.path", ["no data file given"]),
    (data("{path: .}"), "data.path", ["bad.jsonl.gz is a damaged gzip file"]),
    (data("{path: 7}"), "data.path", ["expected text"]),
    (data("{path: bad.jsonl.gz}"), "data.path", ["bad.jsonl.gz"]),
    (data("{path: p.jsonl, format: csv}"), "data.format", ["'csv'", "a form that `harness formats` lists"]),
    (data("{path: p.jsonl, heldout: 0}"), "data.heldout", ["(0, 1)"]),
    (data("{path: p.jsonl, heldout: 1}"), "data.heldout", ["(0, 1)"]),
    (data("{path: p.jsonl, on_bad_row: keep}"), "data.on_bad_row", ["drop, error"]),
    (data("{path: p.jsonl, limit: -1}"), "data.limit", ["[0,"]),
    (data("{path: p.jsonl, max_prompt_length: 300}"), "data.max_prompt_length", ["300", "< 256"]),
    (data("{path: p.jsonl, sha256: 00}"), "data.sha256", ["content hash"]),
    (data("{path: p.jsonl, hub: org/set}"), "data.hub", ["given beside path"]),
    (data("{path: p.jsonl, split: train}"), "data.split", ["names files of a folder"]),
    (data("{path: p.jsonl, columns: {chossen: a}}"), "data.columns.chossen", ["did you mean 'chosen'"]),
    (data("{path: p.jsonl, columns: {chosen: 7}}"), "data.columns.chosen", ["expected a column name"]),
    (DATA + "model: {path: gpt2}\n", "model.path", ["no such folder", "expected a model's folder"]),
    (DATA + "model: {path: ''}\n", "model.path", ["no model given", "a hub id such as org/name"]),
    (DATA + "model: {kind: path}\n", "model.path", ["no model given"]),
    (DATA + "model: {path: org/name}\n", "model.path", ["not in the cache", "hf download org/name", "HF_HUB_OFFLINE"]),
    (DATA + "model: {lora: {rank: 4}}\n", "model.lora", ["unknown key", "expected one of kind"]),
    (DATA + "model: {kind: big}\n", "model.kind", ["'big'", "tiny"]),
    (DATA + "model: {vocab_size: 100}\n", "model.vocab_size", ["[260,"]),
    (DATA + "model: {dtype: float64}\n", "model.dtype", ["float32"]),
    (DATA + "model: {heads: 64}\n", "model.hidden_size", ["64 over 64 heads"]),
    # YAML itself
    (more("seeds: 1\nseeds: 2"), "seeds", ["duplicate key", "first on line 5"]),
    (world("{pairs: 512, pairs: 1024}"), "world.pairs", ["duplicate key"]),
    (more("training: {steps: !!python/object:os.system 5}"), "training.steps", ["tag", "refused"]),
    (more("training: {steps: !ENV 5}"), "training.steps", ["tag"]),
    (more("training: {1: 5}"), "training", ["no text"]),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "p.jsonl").write_text(PAIR, encoding="utf-8")
    (tmp_path / "bad.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00rubbish")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(text, *overrides):
    Path("spec.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        load_sweep("spec.yaml", overrides)
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "key", "fragments"), ONE_PROBLEM, ids=[f"{i}-{case[1]}" for i, case in enumerate(ONE_PROBLEM)]
)
def test_one_problem_one_line(folder, text, key, fragments):
    (line,) = problems(text)
    assert re.match(rf"spec\.yaml(:\d+)? {re.escape(key)}: ", line), line
    assert "\n" not in line
    for fragment in fragments:
        assert fragment in line


def test_the_base_of_the_cases_is_good(folder):
    Path("spec.yaml").write_text(BASE)
    assert len(load_sweep("spec.yaml").runs) == 1
    Path("spec.yaml").write_text(DATA)
    assert len(load_sweep("spec.yaml").runs) == 1


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (b"", ["not a mapping"]),
        (b"- a\n", ["not a mapping"]),
        (b"hello\n", ["not a mapping"]),
        (b"\xef\xbb\xbf" + BASE.encode(), ["byte-order mark (BOM)", "UTF-8"]),
        (BASE.encode("utf-16"), ["UTF-16"]),
        (BASE.encode("utf-16-le"), ["UTF-16"]),
        (BASE.replace("\n", "\r\n").encode(), ["spec.yaml:1", "CRLF"]),
        (BASE.encode() + b"training:\n\tsteps: 5\n", ["spec.yaml:6", "tab"]),
        (BASE.encode() + b"question: caf\xe9\n", ["not UTF-8", "byte"]),
        (BASE.encode() + b"question: a\x00b\n", ["NUL"]),
        (BASE.encode() + b"question: a\x07b\n", ["not valid YAML"]),
        (BASE.encode() + b"#" * 5_000_000, ["5 MB"]),
        (b"a: {b: [1, 2}\n", ["spec.yaml:1", "not valid YAML"]),
        (b"a: b: c\n", ["not valid YAML"]),
        (b"a: 'open\n", ["not valid YAML"]),
        (b"a: 1\n---\na: 2\n", ["second document"]),
        (b"a: *nowhere\n", ["alias '*nowhere'"]),
        (b"a: &x [*x]\n", ["alias '*x'"]),
        (b"seeds: " + b"9" * 5000, ["a number of 5000 characters"]),
        (b"[" * 20_000, ["nested deeper"]),
        (b"a: " + b"[" * 100 + b"]" * 100, ["nested deeper"]),
        (b"a: [" + b"1," * 60_000 + b"]\n", ["more than 50000 values"]),
        (
            b"a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
            + b"".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n".encode() for i in range(1, 12)),
            ["more than 50000 values, aliases expanded"],
        ),
    ],
)
def test_files_that_cannot_be_read(folder, content, fragments):
    lines = problems(content)
    assert len(lines) == 1, lines
    for fragment in ["spec.yaml", *fragments]:
        assert fragment in lines[0]


@pytest.mark.parametrize(
    ("path", "fragment"),
    [("absent.yaml", "no such file"), (".", "is a directory"), ("a" * 300, "cannot be read"), ("\0", "spec") ],
)  # fmt: skip
def test_paths_that_are_no_file(folder, path, fragment):
    with pytest.raises(InputError) as caught:
        load_sweep(path)
    assert len(caught.value.problems) == 1
    if path != "\0":
        assert fragment in caught.value.problems[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_no_permission(folder):
    Path("spec.yaml").write_text(BASE)
    Path("spec.yaml").chmod(0)
    with pytest.raises(InputError, match="no permission"):
        load_sweep("spec.yaml")


@pytest.mark.parametrize(
    ("override", "key", "fragments"),
    [
        ("training.steps", "'training.steps'", ["expected key=value"]),
        ("=5", "'=5'", ["expected key=value"]),
        ("a..b=5", "'a..b=5'", ["expected key=value"]),
        ("training.steps=0", "training.steps", ["[1,"]),
        ("training.stepz=5", "training.stepz", ["did you mean 'steps'?"]),
        ("objectives.1.beta=5", "objectives.1.beta", ["not an index of a list of 1"]),
        ("objectives.first.beta=5", "objectives.first.beta", ["'first' is not an index"]),
        ("objectives.-1.beta=5", "objectives.-1.beta", ["'-1' is not an index"]),
        ("name.first=5", "name.first", ["inside the plain value"]),
        ("seeds=[0, 0]", "seeds.1", ["given twice"]),
        ("seeds=[1", "seeds", ["not valid YAML"]),
        ("seeds=", "seeds", ["nothing"]),
        ("objectives.0.beta=0", "objectives.0.beta", ["0"]),
        ("device=tpu", "device", ["'tpu'"]),
        ("training.steps=!!int 5", "training.steps", ["tag"]),
    ],
)
def test_overrides_name_themselves(folder, override, key, fragments):
    (line,) = problems(BASE, override)
    assert line.startswith(f"--set {key}: "), line
    for fragment in fragments:
        assert fragment in line


def test_the_same_override_twice(folder):
    assert problems(BASE, "seeds=1", "seeds=2") == ("--set seeds: given twice; keep one",)


def test_all_problems_at_once_with_their_lines(folder):
    text = """\
name: a/b
world:
  misaligned: 2
  pares: 5
objectives:
  - name: dpo
    beta: [1, -1]
  - {name: dop}
corruptions:
  - {kind: uniform_flip, rate: 7}
seeds: -1
training: {steps: 0}
also:
  - {device: abacus}
"""
    lines = problems(text)
    places = [line.split(": ")[0] for line in lines]
    assert sorted(places) == sorted([
        "spec.yaml:1 name",
        "spec.yaml:3 world.misaligned",
        "spec.yaml:4 world.pares",
        "spec.yaml:7 objectives.0.beta.1",
        "spec.yaml:8 objectives.1.name",
        "spec.yaml:10 corruptions.0.rate",
        "spec.yaml:11 seeds",
        "spec.yaml:12 training.steps",
        "spec.yaml:14 also.0.device",
    ])  # fmt: skip


def test_combinations_that_cannot_be_used(folder):
    (line,) = problems(world("{pairs: [8, 32]}"))
    assert "training.batch_size 16 is more than world.pairs 8" in line


def test_the_command_prints_the_lines_and_exits_2(folder, capsys):
    Path("spec.yaml").write_text("name: t\nworld: {misaligned: 2}\nobjectives: [{name: dpp}]\n")
    for verb in ("plan", "sweep"):
        assert run([verb, "spec.yaml"]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert [line.split(": ")[0] for line in err.splitlines()] == [
            "spec.yaml:2 world.misaligned",
            "spec.yaml:3 objectives.0.name",
        ]
    assert not Path("runs").exists()


def test_control_characters_from_a_spec_are_shown_escaped(folder, capsys):
    Path("spec.yaml").write_text(BASE + '"bad\\nkey\\u202e\\e[31m": 1\n')
    assert run(["plan", "spec.yaml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert r"bad\nkey\u202e\x1b[31m" in line
