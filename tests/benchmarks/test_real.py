"""`nox -s bench -- --real` on a tiny model: what it counts, what it concludes, and the whole command beside TRL."""

from __future__ import annotations

import json
import random
import shutil

import numpy as np
import pytest

from harness.data.rows import TokenisedPair
from harness.data.tokenize import file_tokenizer
from harness.objectives.registry import resolve
from tests.benchmarks import real, real_job
from tests.benchmarks.real_case import Size, Work, read, sweep_of, work_of
from tests.models.families import write

WORDS = tuple("the cat sat on a mat dog is not yes no maybe so user how are you today it".split())  # noqa: SIM905


def pair(prompt: int, chosen: int, rejected: int, first: int = 3) -> TokenisedPair:
    ids = (np.arange(first, first + n, dtype=np.int32) for n in (prompt, chosen, rejected))
    return TokenisedPair("", *ids)


def test_work_counts_tokens_that_carry_information():
    work = Work(layers=100, head=10, adapters=1)
    assert work.forward(7, 5) == 2 * (101 * 7 + 10 * 5)
    # 4 + 3 + 2 tokens, 5 of them predicted: forward and the gradient of activations, then that of adapters alone.
    assert work.training([pair(4, 3, 2)]) == 2 * 2 * (101 * 9 + 10 * 5) + 2 * 1 * 9
    # A second pair with the same prompt and chosen response adds its other response only.
    assert work.scoring([pair(4, 3, 2), pair(4, 3, 6)]) == work.forward(4 + 3 + 2 + 6, 3 + 2 + 6)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder, draw = tmp_path_factory.mktemp("real"), random.Random(0)

    def words(least: int, most: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(least, most)))

    rows = [{"prompt": words(3, 5), "chosen": words(2, 6) + " yes", "rejected": words(2, 6) + " no"} for _ in range(60)]
    (folder / "towns.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    write("llama", folder / "model")
    return folder


def test_the_six_runs_and_those_that_trl_has(place, tmp_path):
    sweep = sweep_of(tmp_path, place / "model", place / "towns.jsonl", Size(3, 4, 6, 4, 60))
    losses = [real_job.trl_loss(run.objective) for run in sweep.runs]
    assert [loss and loss["loss_type"] for loss in losses] == ["sigmoid"] * 3 + [None, "ipo", "robust"]
    assert [loss["beta"] for loss in losses[:3]] == [0.1, 0.5, 2]
    assert losses[-1]["label_smoothing"] == dict(resolve("robust_dpo", {}).hyperparameters)["eps"]
    pairs = read(sweep.runs[0])
    assert (len(pairs.batches), len(pairs.measured), len(pairs.probe)) == (12, 6 + 8, 8)
    assert not {one.id for one in pairs.heldout} & {one.id for one in pairs.batches}
    texts = file_tokenizer(place / "model" / "tokenizer.json")
    assert texts.decode(pairs.heldout[0].prompt.tolist(), skip_special_tokens=False).endswith("<|assistant|>")
    work = work_of(pairs.architecture, len(pairs.case(1).weights))
    attention, mlp = 2 * 32 * 32 + 2 * 32 * 16, 3 * 32 * 48
    assert work.layers == 2 * (attention + mlp) and work.head == 32 * pairs.architecture.vocab_size


def found() -> dict:
    step = {"pairs": "towns", "batch": 4, "least": 1.0, "most": 1.0, "rounds": 1, "parity_rel": 0.0, "moved_rel": 0.1}
    profile = {"seconds": {"forward": 30.0, "head": 5.0, "sampling": 20.0}, "tracking_seconds": 10.0}
    return {
        "machine": {"gemm_gflops": 100.0},
        "steps": [{**step, "arm": real.OURS, "seconds": 1.0, "against_tuned": 3.5, "share_of_gemm": 0.5}],
        "phases": [
            {"phase": "reference", "each": 0.05, "count": 8, "seconds": 0.4},
            {"phase": "evaluation", "each": 0.5, "count": 8, "seconds": 4.0},
            {"phase": "answers", "each": 1.0, "count": 32, "seconds": 32.0},
        ],
        "job": {
            "harness": {"runs": 6, "wall": 60.0, "cpu": 100.0, "flops": 70e11, "profile": profile},
            "trl": {"runs": 5, "wall": 200.0, "cpu": 200.0},
        },
    }


def test_goals_say_what_is_met():
    rows = real.goals(found())
    met = [row["met"] for row in rows]
    assert met == [True, True, False, False, False, True, True]
    # Per run: TRL trains five of the six. 200 / 5 against 100 / 6 CPU-s, 200 / 5 against 60 / 6 s.
    assert [row["measured"] for row in rows[4:6]] == pytest.approx([2.4, 4.0])
    assert rows[6]["measured"] == pytest.approx(0.7)


def test_shares_of_a_job_add_up():
    shares = real.job_shares(found()["job"]["harness"])
    assert shares == pytest.approx({"forward": 0.3, "sampling": 0.2, "tracking": 0.1, real.BESIDE_PACKS: 0.4})


def test_a_job_shorter_than_a_round_is_refused(place, capsys):
    with pytest.raises(SystemExit):
        real.parsed(["--model", str(place), "--pairs", "a", "--steps", "1", "--other-steps", "1"])
    assert "--steps must be at least --round-steps and --other-steps" in capsys.readouterr().err


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_the_whole_command(place, tmp_path):
    size = {"rounds": 2, "round-steps": 3, "batch": 4, "max-length": 60, "steps": 3, "heldout": 6, "answers": 4}
    given = [word for name, value in size.items() for word in (f"--{name}", str(value))]
    shutil.copy(place / "towns.jsonl", tmp_path / "again.jsonl")
    pairs = [str(place / "towns.jsonl"), str(tmp_path / "again.jsonl")]
    real.main([*given, "--model", str(place / "model"), "--pairs", *pairs, "--out", str(tmp_path)])
    made, page = json.loads((tmp_path / "real.json").read_text()), (tmp_path / "real.md").read_text()
    assert [row["arm"] for row in made["steps"]] == [real.OURS, real.DEFAULT, real.TUNED] * 2
    assert [row["rounds"] for row in made["steps"]] == [2] * 3 + [1] * 3
    for row in made["steps"]:
        assert row["parity_rel"] <= 1e-5 < row["moved_rel"] and row["seconds"] > 0
    assert [row["phase"] for row in made["phases"]] == ["reference", "evaluation", "answers"]
    job = made["job"]
    assert (job["harness"]["runs"], job["trl"]["runs"]) == (6, 5)
    assert min(job["trl"]["seconds"].values()) > 0 and job["harness"]["flops"] > 0
    missed = {row["phase"] for row in made["goals"] if not row["met"]}
    assert "job" in missed  # six tiny runs are start-up alone
    assert {*missed, "matrix products"} == set(made["obstacles"])
    assert str(place) not in page + json.dumps(made) and "cat" not in page
    assert "| **no** |" in page and real.BESIDE_PACKS in page
