"""YAML to runs: axes, order, merging, defaults, overrides, the resolved form, names, and the plan."""

import dataclasses
import gzip
import json
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import yaml

from harness.config.load import load_sweep
from harness.config.schema import FIELDS, SECTIONS, VARIANTS
from harness.config.strict_yaml import parse_yaml, plain
from harness.data.mythworld.world import reference_key
from harness.identity import content_hash, recipe_version, run_key, run_stream, stream_seed
from harness.identity import plain as plain_data
from harness.run_names import readable_name, readable_names
from harness.sweep.detectable import detectable, detectable_lines
from harness.sweep.estimates import measured_under, train_flops
from harness.sweep.packing import pack_key
from harness.sweep.plan import describe, render
from harness.types import CorruptionSpec, InputError

ROOT = Path(__file__).parents[1]
BASE = "name: t\nworld: {kind: mythworld}\nobjectives:\n  - {name: dpo, beta: 1}\n"


def load(tmp_path, text, *overrides, **options):
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    return load_sweep(path, overrides, **options)


def brief(run):
    return (run.world.misaligned, run.corruption.rate, run.objective.name, run.objective.beta, run.seed)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("-1.5e+2", -150.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("0", 0),
        ("-7", -7),
        ("+7", 7),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("off", "off"),
        ("y", "y"),
        ("012", "012"),
        ("00.5", "00.5"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("2026-01-01", "2026-01-01"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("=", "="),
        ("e5", "e5"),
        ("[1, {a: 2.0}]", [1, {"a": 2.0}]),
    ],
)
def test_yaml_scalars_are_yaml_1_2_core(text, value):
    got = plain(parse_yaml(text, "x")[0])
    assert got == value and type(got) is type(value)


def test_aliases_hold_the_same_value_and_their_own_line():
    node, problems = parse_yaml("a: &x [1, 2]\nb: *x\n", "f")
    assert plain(node) == {"a": [1, 2], "b": [1, 2]} and not problems
    assert node.value["b"].where == "f:2"


def test_every_dataclass_field_has_a_range_and_its_default_is_allowed():
    for section, kind in (SECTIONS | VARIANTS).items():
        assert set(FIELDS[section]) == {field.name for field in dataclasses.fields(kind)}
        for field in dataclasses.fields(kind):
            allowed = FIELDS[section][field.name]
            if allowed.kind != "text":
                assert allowed.problem(field.default) is None, (section, field.name)


def test_order_is_world_corruption_objective_hyperparameters_seed(tmp_path):
    sweep = load(
        tmp_path,
        """
name: t
world: {misaligned: [0, 0.5]}
objectives: [{name: dpo, beta: [1, 2]}, {name: hypo, beta: 3}]
corruptions: [{kind: none}, {kind: uniform_flip, rate: 0.2}]
seeds: [7, 3]
""",
    )
    expected = [
        (phi, rate, name, beta, seed)
        for phi in (0.0, 0.5)
        for rate in (None, 0.2)
        for name, beta in (("dpo", 1.0), ("dpo", 2.0), ("hypo", 3.0))
        for seed in (7, 3)
    ]
    assert [brief(run) for run in sweep.runs] == expected


def test_a_list_is_an_axis_in_training_and_hyperparameters(tmp_path):
    text = BASE.replace("{name: dpo, beta: 1}", "{name: robust_dpo, beta: [1, 2], eps: [0.1, 0.2, 0.3]}")
    sweep = load(tmp_path, text + "training: {learning_rate: [1e-4, 1e-3], steps: 50}\n")
    cells = [(r.training.learning_rate, r.objective.beta, dict(r.objective.hyperparameters)["eps"]) for r in sweep.runs]
    assert cells == [(lr, b, e) for lr in (1e-4, 1e-3) for b in (1.0, 2.0) for e in (0.1, 0.2, 0.3)]
    assert {run.training.steps for run in sweep.runs} == {50}


def test_a_list_of_names_is_an_axis(tmp_path):
    sweep = load(tmp_path, BASE.replace("{name: dpo, beta: 1}", "{name: [dpo, hypo], beta: [1, 2]}"))
    assert [(r.objective.name, r.objective.beta) for r in sweep.runs] == [
        ("dpo", 1.0), ("dpo", 2.0), ("hypo", 1.0), ("hypo", 2.0),
    ]  # fmt: skip


@pytest.mark.parametrize(("seeds", "expected"), [("3", [0, 1, 2]), ("[5, 0]", [5, 0]), ("[9]", [9])])
def test_seeds(tmp_path, seeds, expected):
    assert [run.seed for run in load(tmp_path, f"{BASE}seeds: {seeds}\n").runs] == expected


def test_without_seeds_and_corruptions_there_is_one_clean_run(tmp_path):
    (run,) = load(tmp_path, BASE).runs
    assert run.seed == 0 and run.corruption == CorruptionSpec() and run.device == "auto"


def test_equal_runs_are_merged_and_counted(tmp_path):
    corruptions = "corruptions: [{kind: none}, {kind: uniform_flip, rate: [0, 0.1]}]\nseeds: 2\n"
    sweep = load(tmp_path, BASE + corruptions)
    assert [(r.corruption.rate, r.seed) for r in sweep.runs] == [(None, 0), (None, 1), (0.1, 0), (0.1, 1)]
    assert sweep.notes == (
        "2 of 6 runs equal an earlier one and are merged (rate 0 is the clean set, whatever the kind)",
    )
    assert len({run_key(run) for run in sweep.runs}) == 4


def test_whole_numbers_and_floats_are_one_run(tmp_path):
    text = BASE.replace("beta: 1", "beta: [1, 1.0]") + "training: {learning_rate: [1, 1.0]}\n"
    sweep = load(tmp_path, text.replace("kind: mythworld", "misaligned: [1, 1.0]"))
    assert len(sweep.runs) == 1


def test_also_overrides_whole_keys_and_comes_last(tmp_path):
    also = """
training: {steps: 30, batch_size: 8}
seeds: 2
also:
  - world: {misaligned: 0.25}
    training: {steps: 40}
  - objectives: [{name: ipo, beta: 0.5}]
    seeds: [4]
"""
    runs = load(tmp_path, BASE + also).runs
    assert [(r.objective.name, r.world.misaligned, r.training.steps, r.training.batch_size, r.seed) for r in runs] == [
        ("dpo", 0.75, 30, 8, 0),
        ("dpo", 0.75, 30, 8, 1),
        ("dpo", 0.25, 40, 16, 0),
        ("dpo", 0.25, 40, 16, 1),
        ("ipo", 0.75, 30, 8, 4),
    ]


def test_world_defaults_only_where_the_spec_gives_none(tmp_path):
    text = "name: t\nworld: {kind: mythworld}\nobjectives:\n"
    names = ("dpo", "ipo", "robust_dpo", "hypo", "cpo_smooth")
    sweep = load(tmp_path, text + "".join(f"  - {{name: {name}}}\n" for name in names))
    assert [run.objective.beta for run in sweep.runs] == [2.0, 0.1, 2.0, 2.0, 2.0]
    smooth = dict(sweep.runs[-1].objective.hyperparameters)
    assert (smooth["reduction"], smooth["gamma"], smooth["tau"], smooth["alpha"]) == ("sum", 1.0, 2.0, 1.0)
    given = load(tmp_path, text + "  - {name: dpo, beta: 0.3}\n  - {name: cpo_smooth, reduction: mean}\n").runs
    from harness.objectives.registry import OBJECTIVES

    registry = {name: parameter.default for name, parameter in OBJECTIVES["cpo_smooth"].hyperparameters.items()}
    assert given[0].objective.beta == 0.3
    assert dict(given[1].objective.hyperparameters) == registry | {"reduction": "mean"}


def test_real_data_takes_the_registry_defaults(tmp_path):
    from harness.objectives.registry import OBJECTIVES

    (tmp_path / "p.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n', encoding="utf-8")
    (run,) = load(tmp_path, "name: t\ndata: {path: p.jsonl}\nmodel: {kind: tiny}\nobjectives: [{name: dpo}]\n").runs
    assert run.objective.beta == OBJECTIVES["dpo"].hyperparameters["beta"].default
    assert run.world is None and run.model is not None


def test_the_prompt_has_half_of_the_length_unless_said(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "q", "chosen": "a", "rejected": "b"}\n', encoding="utf-8")
    text = "name: t\ndata: {path: p.jsonl, max_length: [128, 256, 512]}\nobjectives: [{name: dpo}]\n"
    loaded = load(tmp_path, text)
    assert [run.data.max_prompt_length for run in loaded.runs] == [64, 128, 256]
    given = load(tmp_path, text.replace("512]", "512], max_prompt_length: 100"))
    assert [run.data.max_prompt_length for run in given.runs] == [100] * 3


def test_data_path_is_meant_from_the_spec_file_and_from_the_working_folder_for_set(tmp_path, monkeypatch):
    rows = '{"prompt": "a", "chosen": "b", "rejected": "c"}\n'
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    for folder in ("here", "there"):
        (tmp_path / folder / "p.jsonl").write_text(rows.replace("a", folder), encoding="utf-8")
    monkeypatch.chdir(tmp_path / "there")
    text = "name: t\ndata: {path: p.jsonl}\nobjectives: [{name: dpo}]\n"
    (from_file,) = load(tmp_path / "here", text).runs
    (from_set,) = load(tmp_path / "here", text, "data.path=p.jsonl").runs
    assert Path(from_file.data.path) == tmp_path / "here" / "p.jsonl"
    assert Path(from_set.data.path) == tmp_path / "there" / "p.jsonl"
    assert from_file.data.sha256 != from_set.data.sha256
    assert run_key(from_file) != run_key(from_set)


def test_run_keys_follow_the_content_not_the_path_or_the_packing(tmp_path):
    rows = b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n'
    (tmp_path / "p.jsonl").write_bytes(rows)
    (tmp_path / "q.jsonl.gz").write_bytes(gzip.compress(rows))
    text = "name: t\ndata: {path: p.jsonl}\nobjectives: [{name: dpo}]\n"
    plain_file, packed = load(tmp_path, text).runs[0], load(tmp_path, text.replace("p.jsonl", "q.jsonl.gz")).runs[0]
    assert run_key(plain_file) == run_key(packed)
    (tmp_path / "p.jsonl").write_bytes(rows.replace(b"c", b"d"))
    assert run_key(load(tmp_path, text).runs[0]) != run_key(packed)


def test_texts_of_a_report_belong_to_the_sweep(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n', encoding="utf-8")
    on_data = "name: t\ndata: {path: p.jsonl}\nobjectives: [{name: dpo}]\n"
    world = "name: t\nworld: {kind: mythworld}\nobjectives: [{name: dpo}]\n"
    both = f"{on_data}also: [{{world: {{kind: mythworld}}}}]\n"
    found = [load(tmp_path, text).report.texts for text in (on_data, both, world)]
    assert found == ["ids", "ids", "full"], "one run on data makes a sweep's texts private"
    asked = load(tmp_path, on_data, "report.texts=none", "report.upload_texts=true")
    assert asked.resolved["report"] == {"texts": "none", "upload_texts": True}
    assert list(map(run_key, asked.runs)) == list(map(run_key, load(tmp_path, on_data).runs))
    again = yaml.safe_dump({**asked.resolved, "data": {"path": "p.jsonl"}}, sort_keys=False)
    assert load(tmp_path, again).report == asked.report


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("report: {texts: all}", "report.texts: 'all'; expected one of none, ids, short, full"),
        ("report: {texts: [ids, full]}", "expected one of none, ids, short, full"),
        ("report: {text: ids}", "report.text: unknown key; expected one of texts, upload_texts; did you mean 'texts'?"),
        ("report: {upload_texts: some}", "report.upload_texts: 'some'; expected true or false"),
        ("report: ids", "report: 'ids' is not a mapping; expected e.g. `{texts: ids}`"),
        ("also: [{report: {texts: ids}}]", "also.0.report: cannot be overridden here"),
    ],
)
def test_mistakes_in_the_report_block(tmp_path, text, told):
    with pytest.raises(InputError) as error:
        load(tmp_path, f"name: t\nworld: {{kind: mythworld}}\nobjectives: [{{name: dpo}}]\n{text}\n")
    assert any(told in line for line in error.value.problems), error.value.problems


def test_overrides(tmp_path):
    text = BASE + "also:\n  - {seeds: [8]}\n"
    runs = load(tmp_path, text, "objectives.0.beta=[3, 4]", "training.steps=9", "also.0.seeds=[5]", "device=cpu").runs
    assert [(r.objective.beta, r.seed) for r in runs] == [(3.0, 0), (4.0, 0), (3.0, 5), (4.0, 5)]
    assert {(r.training.steps, r.device) for r in runs} == {(9, "cpu")}


def test_a_run_key_is_the_hash_of_the_resolved_settings_without_the_device(tmp_path):
    run = load(tmp_path, BASE).runs[0]
    config = plain_data(run)
    del config["device"]
    assert run_key(run) == content_hash({"recipe": recipe_version(run), **config})
    assert run_key(load(tmp_path, BASE, "evaluation.gradient_probe=8").runs[0]) != run_key(run)


def test_device_does_not_enter_run_keys(tmp_path):
    assert run_key(load(tmp_path, BASE, "device=cpu").runs[0]) == run_key(load(tmp_path, BASE, "device=cuda").runs[0])


def test_sequences_multiply_out_and_are_no_axis(tmp_path):
    steps = "{sequence: [{kind: uniform_flip, rate: [0.1, 0.2]}, {kind: identical, rate: 0.1}]}"
    sweep = load(tmp_path, f"{BASE}corruptions:\n  - {steps}\n")
    rates = [[step[1] for step in dict(run.corruption.params)["steps"]] for run in sweep.runs]
    assert rates == [[0.1, 0.1], [0.2, 0.1]]
    assert len(set(readable_names(sweep.runs))) == 2


@pytest.mark.parametrize("name", ["quick", "smoke"])
def test_the_resolved_spec_gives_the_same_runs(tmp_path, name):
    sweep = load_sweep(ROOT / "experiments" / f"{name}.yaml")
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep.resolved, sort_keys=False), encoding="utf-8")
    again = load_sweep(tmp_path / "sweep.yaml")
    assert [run_key(run) for run in again.runs] == [run_key(run) for run in sweep.runs]
    assert again.resolved == sweep.resolved


def test_the_resolved_spec_of_real_data_and_sequences(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n', encoding="utf-8")
    text = """
name: t
data: {path: p.jsonl}
objectives: [{name: dpo, beta: [0.1, 0.2]}]
corruptions: [{sequence: [{kind: uniform_flip, rate: [0.1, 0.2]}, {kind: identical, rate: 0.1}]}]
also: [{world: {misaligned: 0.5}}]
"""
    sweep = load(tmp_path, text)
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "sweep.yaml"
    target.write_text(yaml.safe_dump(sweep.resolved, sort_keys=False), encoding="utf-8")
    assert [run_key(run) for run in load_sweep(target).runs] == [run_key(run) for run in sweep.runs]
    assert len(sweep.runs) == 8 and [run.world is None for run in sweep.runs] == [True] * 4 + [False] * 4


def test_experiments(tmp_path):
    quick = load_sweep(ROOT / "experiments" / "quick.yaml")
    assert len(quick.runs) == 480
    assert len({run.objective.name for run in quick.runs}) == 3
    assert sum(run.training.steps == 100 for run in quick.runs) == 60
    assert len(load_sweep(ROOT / "experiments" / "smoke.yaml").runs) == 5
    rlhf = load_sweep(ROOT / "experiments" / "rlhf.yaml").runs
    assert len(rlhf) == 432 and sum(run.objective.name == "reward_model" for run in rlhf) == 24  # 2 dials x 2 sets x 6
    given = [f"data.path={tmp_path / 'p.jsonl'}"]
    (tmp_path / "p.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n', encoding="utf-8")
    named = 0
    for path in sorted((ROOT / "experiments").glob("*.yaml")):
        head = " ".join(line[2:] for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# "))
        count = re.search(r"(\d+) runs", head)
        if count and path.stem not in ("hub", "study"):  # which need a model, and are no sweep
            named += 1
            assert len(load_sweep(path, given if path.stem == "real" else []).runs) == int(count[1]), path.name
    assert named >= 9
    assert len(load_sweep(ROOT / "experiments" / "real.yaml", given).runs) >= 12
    with pytest.raises(InputError, match=r"--set data.path=prefs.jsonl.gz"):
        load_sweep(ROOT / "experiments" / "real.yaml")


@pytest.mark.parametrize("axis", ["seeds: 1000000000", "seeds: 100000000\ntraining: {steps: [1,2,3,4,5,6,7,8,9,10]}"])
def test_a_huge_grid_is_counted_not_made(tmp_path, axis):
    tracemalloc.start()
    with pytest.raises(InputError, match=r"1000000000 runs, more than 10000; .*--max-runs 1000000000"):
        load(tmp_path, f"{BASE}{axis}\n")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000  # a list of the seeds alone would take 8 GB


def test_max_runs(tmp_path):
    assert len(load(tmp_path, f"{BASE}seeds: 10001\n", max_runs=10001).runs) == 10001
    with pytest.raises(InputError, match="the grid has 3 runs, more than --max-runs 2"):
        load(tmp_path, f"{BASE}seeds: 3\n", max_runs=2)


def test_readable_names(tmp_path):
    corrupted = "corruptions: [{kind: uniform_flip, rate: 0.2}]\n"
    (run,) = load(tmp_path, BASE.replace("beta: 1", "beta: 2") + corrupted).runs
    assert readable_name(run) == "dpo b=2 flip=0.2 refwrong=0.75 s0"
    bt = BASE.replace("{kind: mythworld}", "{labels: bradley_terry, misaligned: 0}")
    assert readable_name(load(tmp_path, bt).runs[0]) == "dpo b=1 refwrong=0 bradley_terry s0"
    eps = BASE.replace("{name: dpo, beta: 1}", "{name: robust_dpo, beta: 1, eps: 0.3}")
    assert readable_name(load(tmp_path, eps).runs[0]) == "robust_dpo b=1 eps=0.3 refwrong=0.75 s0"
    twins = load(tmp_path, BASE + "training: {steps: [10, 20]}\n").runs
    assert readable_names(twins) == ("dpo b=1 refwrong=0.75 steps=10 s0", "dpo b=1 refwrong=0.75 steps=20 s0")


def test_names_of_the_quick_sweep_differ():
    runs = load_sweep(ROOT / "experiments" / "quick.yaml").runs
    assert len(set(readable_names(runs))) == len(runs)


def test_plan(tmp_path):
    sweep = load_sweep(ROOT / "experiments" / "quick.yaml")
    plan = describe(sweep, tmp_path / "runs")
    assert (plan["runs"], plan["done"], plan["to_do"]) == (480, 0, 480)
    assert plan["axes"]["seed"] == list(range(6)) and plan["axes"]["rate"] == [0.1, 0.2, 0.3, 0.4]
    assert plan["models_to_build"] == {"pretraining": 6, "reference": 12}
    assert plan["seconds"]["pretraining"] == 42.0
    assert plan["run_keys"] == [run_key(run) for run in sweep.runs]
    assert json.loads(json.dumps(plan)) == plan
    text = render(plan)
    assert "480 (0 done, 480 to do)" in text and plan["first"].startswith(run_key(sweep.runs[0])[:8])


def test_plan_takes_measured_costs(tmp_path):
    folder = tmp_path / "runs" / "earlier"
    folder.mkdir(parents=True)
    sweep = load_sweep(ROOT / "experiments" / "smoke.yaml")
    own = train_flops(sweep.runs[0])
    rows = [("a", 2.0, own), ("b", "", own), ("c", 4.0, own), ("d", 18.0, 2 * own), ("e", 1.0, 1000 * own)]
    lines = ["run_key,seconds,flops", *(",".join(map(str, row)) for row in rows)]
    (folder / "costs.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    measured = measured_under(tmp_path / "runs")
    assert measured.seconds(own) == pytest.approx(4.0)  # of 2, 4 and 9; a run of 1000 times the size says nothing
    assert measured.seconds(2 * own) == pytest.approx(8.0) and measured.seconds(1e6 * own) is None
    plan = describe(sweep, tmp_path / "runs")
    assert plan["seconds"]["runs"] == pytest.approx(20.0)
    assert "4 s, the median of earlier runs of its size" in plan["cost_basis"]


def test_plan_knows_what_is_done(tmp_path, monkeypatch):
    from harness.storage import runs

    def read(folder):
        path = folder / "result.json"
        return json.loads(path.read_text()) if path.exists() else None

    monkeypatch.setattr(runs, "load_result", read)
    sweep = load_sweep(ROOT / "experiments" / "smoke.yaml")
    for run, status in zip(sweep.runs, ("done", "diverged", "failed", None), strict=False):
        folder = tmp_path / "smoke" / f"{run_key(run)[:8]}-x"
        folder.mkdir(parents=True)
        if status:
            (folder / "result.json").write_text(json.dumps({"run_key": run_key(run), "status": status}))
    stranger = tmp_path / "smoke" / "00000000-of-an-earlier-spec"
    stranger.mkdir()
    (stranger / "result.json").write_text(json.dumps({"run_key": "0" * 64, "status": "done"}))
    plan = describe(sweep, tmp_path)
    assert (plan["done"], plan["to_do"]) == (2, 3)


def test_loading_and_planning_import_no_heavy_library():
    code = (
        "import sys; from pathlib import Path;"
        "from harness.config.load import load_sweep; from harness.sweep.plan import *;"
        "describe(load_sweep('experiments/quick.yaml'), Path('no-such-runs'));"
        "print(sorted({'torch', 'mlflow', 'pandas', 'transformers', 'optuna'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_plan_says_what_the_sweep_could_find(tmp_path):
    """5 rivals at the same KL and at their best over 10 seeds: 10 comparisons, 1.48 sd of the paired difference; in
    points where earlier runs tell the sd. The number of betas and of learning rates makes no more comparisons."""
    objectives = "objectives:\n  - {name: dpo, beta: [1, 2]}\n  - {name: [ipo, hinge, cdpo, exo, ln_dpo], beta: 0.1}\n"
    text = BASE.partition("objectives")[0] + objectives + "corruptions: [{kind: none}]\n"
    text += "training: {steps: 20, learning_rate: [1e-4, 2e-4]}\n"
    sweep = load(tmp_path, text + "seeds: 10\n")
    plan = describe(sweep, tmp_path / "runs")
    found = plan["detectable"]
    assert (found["comparisons"], found["baseline"], found["sd"]) == (10, "dpo", None)
    assert found["rows"] == [{"seeds": 10, "contrasts": 10, "sd_units": pytest.approx(1.48, abs=0.005), "points": None}]
    assert found["item_points"] is None, "every seed of the embedded world has pairs of its own"
    shared = detectable([dataclasses.replace(run, world=None) for run in sweep.runs], tmp_path, "t")
    assert shared["item_points"] == pytest.approx(100 * (2.807034 + 0.841621) ** 2 / 256, abs=0.01)
    assert "shared held-out pairs (256) need 5.2 points" in detectable_lines(shared)[1]
    assert "1.48 sd of the paired difference" in render(plan) and json.loads(json.dumps(plan)) == plan
    folder = tmp_path / "runs" / "t"
    folder.mkdir(parents=True)
    rows = ["status,objective,beta,corruption,rate,seed,ranking_accuracy"]
    rows += [f"done,dpo,1.0,none,0.0,{seed},0.5" for seed in range(4)]
    rows += [f"done,ipo,0.1,none,0.0,{seed},{value}" for seed, value in enumerate((0.5, 0.52, 0.54, 0.56))]
    rows += ["diverged,ipo,0.1,none,0.0,4,", "done,ipo,0.2,none,0.0,0,0.9"]  # neither has a spread
    (folder / "results.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    found = describe(sweep, tmp_path / "runs")["detectable"]
    assert found["sd"] == pytest.approx(0.0258199, abs=1e-6) and found["rows"][0]["points"] == pytest.approx(
        3.8, abs=0.05
    )


def test_plan_of_one_objective_or_one_seed_finds_nothing(tmp_path):
    alone = describe(load(tmp_path, f"{BASE}seeds: 10\n"), tmp_path / "runs")
    assert alone["detectable"]["comparisons"] == 0 and "no two objectives share a condition" in render(alone)
    text = BASE.replace("name: dpo, beta: 1", "name: [dpo, hinge], beta: 1")
    one = describe(load(tmp_path, text), tmp_path / "runs")
    assert one["detectable"]["rows"] == [{"seeds": 1, "contrasts": 2, "sd_units": None, "points": None}]
    assert "one seed gives no interval" in render(one)


def test_replica_is_the_innermost_axis_and_leaves_every_other_key_alone(tmp_path):
    """Stored runs are replica 0: their keys were made before the field existed."""
    alone = load(tmp_path, f"{BASE}seeds: 2\n").runs
    repeated = load(tmp_path, f"{BASE}seeds: 2\nreplica: 3\n")
    assert [(run.seed, run.replica) for run in repeated.runs] == [(s, r) for s in (0, 1) for r in (0, 1, 2)]
    assert [run_key(run) for run in repeated.runs if run.replica == 0] == [run_key(run) for run in alone]
    assert len({run_key(run) for run in repeated.runs}) == 6
    assert repeated.resolved["replica"] == [0, 1, 2] and "replica" not in load(tmp_path, BASE).resolved
    assert [run.replica for run in load(tmp_path, f"{BASE}replica: [7, 2]\n").runs] == [7, 2]
    assert describe(repeated, tmp_path)["axes"]["replica"] == [0, 1, 2]
    with pytest.raises(InputError, match="replica 2 is given twice"):
        load(tmp_path, f"{BASE}replica: [2, 2]\n")


def test_a_replica_changes_the_order_stream_and_nothing_else(tmp_path):
    first, second = load(tmp_path, f"{BASE}replica: 2\n").runs
    assert run_stream(first, "order") == stream_seed(first.seed, "order") != run_stream(second, "order")
    assert reference_key(first.world, first.seed) == reference_key(second.world, second.seed)
    assert pack_key(first) == pack_key(second)


def test_presets_stand_in_the_resolved_spec_as_values(tmp_path):
    entries = [
        {"name": "cpo_smooth", "beta": [1, 2], "preset": ["paper", "released"]},
        {"name": "cpo_smooth", "beta": 2, "gamma": 0.5, "tau": 2, "alpha": 1, "reduction": "mean"},  # `released`
        {"name": "simpo", "beta": [2, 10], "gamma": 1},
    ]
    spec = load(tmp_path, yaml.safe_dump({"name": "t", "world": {"kind": "mythworld"}, "objectives": entries}))
    assert len(spec.runs) == 6 and "1 of 7 runs equal" in spec.notes[0]
    found = [dict(run.objective.hyperparameters) for run in spec.runs]
    assert [(hp["beta"], hp["alpha"]) for hp in found[:4]] == [(1, 0.25), (2, 0.25), (1, 1), (2, 1)]
    assert {hp["reduction"] for hp in found[:4]} == {"mean"}  # not the world's sums
    assert [hp["gamma_ratio"] for hp in found[4:]] == [0.5, 0.1]
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(dict(spec.resolved)), encoding="utf-8")
    assert load_sweep(again).runs == spec.runs and "preset" not in again.read_text(encoding="utf-8")
