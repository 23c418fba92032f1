"""The ledger on disk, sequences, missing facts, odd ids, and draws that are frozen for good."""

import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from corrupt_cases import CASES, NAMES, by_id, made, masked_ids, replay, run

from harness.corruptions import CORRUPTIONS, corrupt
from harness.corruptions.apply import apply, apply_spec
from harness.corruptions.ledger import COLUMNS, read_ledger, row_hash, set_hash, write_ledger
from harness.corruptions.registry import needs, resolve
from harness.identity import content_hash, uniform
from harness.types import CorruptionSpec, InputError, PreferencePair

# Frozen: a change of any of these changes every corrupted set, and needs a new key version and recipe.
GOLDEN = {
    (0, "uniform_flip", "a"): 0.26059316176569636,
    (0, "uniform_flip", "b"): 0.08439512250556247,
    (1, "uniform_flip", "a"): 0.16505868646569855,
    (0, "bt_flip", "a"): 0.44539650431189204,
    (2**40, "annotator_mixture:assign", "für 日本"): 0.8626128606439302,
}


@pytest.mark.parametrize("triple", GOLDEN)
def test_draws_are_frozen(triple):
    assert uniform(*triple) == GOLDEN[triple]


def test_a_corrupted_set_is_frozen():
    pairs = [
        PreferencePair(f"pair-{i}", f"p{i % 5}", f"good {i} x", f"bad {i}", gold_margin=1.0 + i) for i in range(20)
    ]
    hashes = {
        kind: corrupt(pairs, kind, 0.3, seed=1)[1].attrs["manifest"]["after_hash"][:12]
        for kind in ("uniform_flip", "contradictory_dup", "off_policy", "pointwise_quality", "prompt_clustered")
    }
    assert hashes == {
        "uniform_flip": "1057d31a0a1a",
        "contradictory_dup": "df290931e598",
        "off_policy": "990bb6faceb5",
        "pointwise_quality": "db12bbe18805",
        "prompt_clustered": "9f88f37af48c",
    }


def test_the_row_hash_is_the_content_hash():
    pair = PreferencePair("x", 'pro"mpt\n', "für 日本 \ud800", "\x00")
    assert row_hash(pair) == content_hash([pair.prompt, pair.chosen, pair.rejected])


def test_other_processes_and_hash_seeds_give_the_same_bytes():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from corrupt_cases import CASES, made, run\n"
        "pairs, facts = made(60)\n"
        "for kind, params in CASES:\n"
        "    m = run(kind, params, pairs, facts, 0.3, 3)[1].attrs['manifest']\n"
        "    print(kind, m['after_hash'], m['mask_hash'])\n"
    )
    outputs = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, os.path.dirname(__file__)],  # noqa: PTH120
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        outputs.add(done.stdout)
    pairs, facts = made(60)
    manifests = [run(kind, params, pairs, facts, 0.3, 3)[1].attrs["manifest"] for kind, params in CASES]
    here = "".join(
        f"{kind} {m['after_hash']} {m['mask_hash']}\n" for (kind, _), m in zip(CASES, manifests, strict=True)
    )
    assert outputs == {here}


@pytest.mark.parametrize(("kind", "params"), CASES, ids=NAMES)
def test_ledgers_survive_the_disk(kind, params, tmp_path):
    pairs, facts = made(40)
    out, ledger = run(kind, params, pairs, facts)
    assert list(ledger.columns) == list(COLUMNS)
    write_ledger(ledger, tmp_path / "ledger.parquet")
    back = read_ledger(tmp_path / "ledger.parquet")
    pd.testing.assert_frame_equal(back, ledger)
    assert back.attrs == ledger.attrs
    assert replay(pairs, back) == out
    # Any Parquet reader finds the columns, and the manifest as JSON.
    table = pq.read_table(tmp_path / "ledger.parquet")
    assert json.loads(table.schema.metadata[b"harness.manifest"])["kind"] == kind


def test_a_file_without_a_manifest_is_refused(tmp_path):
    pairs, _ = made(5)
    _, ledger = corrupt(pairs, "uniform_flip", 0.4, seed=0)
    ledger.attrs = {}
    ledger.to_parquet(tmp_path / "bare.parquet")
    with pytest.raises(InputError, match="no corruption manifest"):
        read_ledger(tmp_path / "bare.parquet")


def test_sequences_replay_and_keep_a_record_of_every_step():
    pairs, facts = made(80)
    cell = {
        "sequence": [
            {"kind": "uniform_flip", "rate": 0.3},
            {"kind": "contradictory_dup", "rate": 0.2},
            {"kind": "truncate", "rate": 0.2},
            {"kind": "bt_flip"},
            {"kind": "mnar", "form": "rate", "rate": 0.1},
        ]
    }
    done = apply_spec(resolve(cell), pairs, seed=2, facts=facts)
    out, ledger = list(done.pairs), done.ledger
    manifest = ledger.attrs["manifest"]
    assert replay(pairs, ledger) == out
    assert [m["kind"] for m in manifest["composition"]] == [step["kind"] for step in cell["sequence"]]
    assert manifest["before_hash"] == set_hash(pairs) and manifest["after_hash"] == set_hash(out)
    for earlier, later in itertools.pairwise(manifest["composition"]):
        assert earlier["after_hash"] == later["before_hash"] and earlier["composition"] == []
    assert sorted(ledger["step"].unique()) == [0, 1, 2, 3, 4]
    # The draws of the later steps are those of the clean ids.
    truncated = ledger[ledger["kind"] == "truncate"]
    assert truncated["u"].tolist() == [uniform(2, "truncate", i) for i in truncated["id"]]
    assert manifest["k_realised"] == len(masked_ids(ledger))


@pytest.mark.parametrize(("kind", "params"), CASES, ids=NAMES)
def test_the_corrupted_set_knows_what_the_texts_show(kind, params):
    """Origin, label and changed text of every pair, against the texts; the kind, against the ledger."""
    pairs, facts = made(60)
    share = 0.3 if CORRUPTIONS[kind].takes_rate(params) else None
    steps = (("uniform_flip", 0.4, {}), (kind, share, {**params, **exclude(kind)}), ("contradictory_dup", 0.2, {}))
    done = apply(pairs, "sequence", None, 1, facts, {"steps": steps})
    acted = done.ledger[done.ledger["action"] != "relabel_same"]
    names = acted["new_id"].where(acted["action"] == "append", acted["id"])
    last = dict(zip(names, acted["kind"], strict=True))
    for pair, i, label, changed, touched in zip(
        done.pairs, done.origin, done.label, done.changed, done.kind, strict=True
    ):
        clean = pairs[i]
        assert pair.id == clean.id or pair.id.startswith(f"{clean.id}#")
        sides = (clean.chosen, clean.rejected) if label > 0 else (clean.rejected, clean.chosen)
        assert changed == ((pair.chosen, pair.rejected) != sides)
        assert touched == last.get(pair.id, "")
    assert set(done.label) == {1, -1} and "contradictory_dup" in done.kind
    assert done.changed.any() == (CORRUPTIONS[kind].changes == "text")


def exclude(kind):
    return {"on_missing": "exclude"} if "on_missing" in CORRUPTIONS[kind].parameters else {}


def test_two_kinds_on_one_pair_cancel_and_both_stand_in_the_ledger():
    pairs, facts = made(30)
    steps = (("uniform_flip", 1.0, {}), ("adversarial_hard", 1.0, {}))
    out, ledger = corrupt(pairs, "sequence", seed=0, facts=facts, steps=steps)
    assert out == pairs and len(ledger) == 60
    assert ledger.attrs["manifest"]["before_hash"] == ledger.attrs["manifest"]["after_hash"]
    second = ledger[ledger["step"] == 1]
    assert set(second["clean_label"]) == {-1} and set(second["observed_label"]) == {1}


def test_facts_of_replaced_text_are_missing_to_later_steps():
    pairs, facts = made(30)
    steps = (("truncate", 0.5, {}), ("curate_drop", 0.2, {}))
    with pytest.raises(InputError, match=r"15 of 30 pairs have none \(15 had their text replaced"):
        corrupt(pairs, "sequence", seed=0, facts=facts, steps=steps)
    excluding = (steps[0], ("curate_drop", 0.2, {"on_missing": "exclude"}))
    out, _ = corrupt(pairs, "sequence", seed=0, facts=facts, steps=excluding)
    assert len(out) == 27


@pytest.mark.parametrize("steps", [None, (), "x", (("sequence", None, {}),)])
def test_wrong_sequences_are_refused(steps):
    with pytest.raises(InputError, match="sequence"):
        corrupt(made(3)[0], "sequence", seed=0, steps=steps)


def test_masks():
    pairs, facts = made(20)
    out, ledger = corrupt(pairs, "contradictory_dup", 0.25, seed=0)
    masked = masked_ids(ledger)
    assert len(masked) == 5 and masked <= {p.id for p in out} and all(name.endswith("#dup") for name in masked)
    _, coin = corrupt(pairs, "near_tie", seed=0, facts=facts, quantile=1.0)
    assert masked_ids(coin) == set(coin.loc[coin["action"] == "flip", "id"]) != set(coin["id"])
    drawn, ledger = corrupt(pairs, "ref_shift", seed=0, facts=facts, form="reweight", shift=1.5)
    extra = {p.id for p in drawn} - set(by_id(pairs))
    assert extra and {name.split("#copy")[0] for name in extra} <= set(ledger.loc[ledger["copies"] > 1, "id"])


LACKING = [
    (kind, params, name)
    for kind, params in CASES
    if CORRUPTIONS[kind].rate != "none"
    for name in sorted(
        needs(resolve({"kind": kind, **params, **({"rate": 0.3} if CORRUPTIONS[kind].takes_rate(params) else {})}))
    )
    if name != "prompt_id"
]


@pytest.mark.parametrize(("kind", "params", "name"), LACKING)
def test_a_missing_fact_is_named_and_counted(kind, params, name):
    pairs, facts = made(30)
    bare = [PreferencePair(p.id, p.prompt, p.chosen, p.rejected) for p in pairs]
    for lacking, count in ((facts.drop(columns=name), 30), (facts, 4)):
        if count == 4:
            lacking = facts.astype({name: object})
            lacking.loc[lacking.index[:4], name] = None
        with pytest.raises(InputError, match=f"'{kind}' needs {name}; {count} of 30 pairs have none"):
            run(kind, params, bare, lacking)


def test_kinds_read_nothing_but_their_needs():
    for kind, params in CASES:
        pairs, facts = made(30)
        row = CORRUPTIONS[kind]
        share = {"rate": 0.3} if row.takes_rate(params) else {}
        wanted = needs(resolve({"kind": kind, **params, **share})) if row.rate != "none" else frozenset()
        bare = [PreferencePair(p.id, p.prompt, p.chosen, p.rejected) for p in pairs]
        _, full = run(kind, params, bare, facts)
        _, little = run(kind, params, bare, facts[["id", *sorted(wanted)]])
        pd.testing.assert_frame_equal(full, little)


def test_prompts_without_a_name_or_a_text_are_missing():
    pairs = [PreferencePair(str(i), "", f"a{i}", "b") for i in range(4)]
    with pytest.raises(InputError, match="needs prompt_id; 4 of 4"):
        corrupt(pairs, "prompt_clustered", 0.5, seed=0)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("delta_ref", np.inf, "values are finite"),
        ("delta_ref", "x", "numbers only"),
        ("chosen_len", 0, "at least 1"),
        ("gold_margin", -np.inf, "values are finite"),
    ],
)
def test_unusable_facts_are_refused(column, value, message):
    pairs, facts = made(10)
    facts = facts.astype({column: object})
    facts.loc[facts.index[3], column] = value
    kind = {"delta_ref": "curate_drop", "chosen_len": "length_biased", "gold_margin": "adversarial_easy"}[column]
    with pytest.raises(InputError, match=message):
        run(kind, {}, pairs, facts)
    # A kind that does not read the column does not mind.
    run("uniform_flip", {}, pairs, facts)


def test_forms_of_facts():
    pairs, facts = made(20)
    expected = run("curate_drop", {}, pairs, facts)[1]
    by_index = facts.set_index("id")
    by_name = {row["id"]: row for row in facts.to_dict("records")}
    by_column = facts.to_dict("list")
    for form in (by_index, by_name, by_column):
        pd.testing.assert_frame_equal(run("curate_drop", {}, pairs, form)[1], expected)
    for wrong, message in (
        (facts.drop(columns="id"), "no column 'id'"),
        (pd.concat([facts, facts[:2]]), "2 ids appear more than once"),
        ([1, 2], "expected a table"),
    ):
        with pytest.raises(InputError, match=message):
            run("curate_drop", {}, pairs, wrong)


def test_duplicate_and_empty_ids_are_made_unique():
    pairs = [
        PreferencePair("a", "p", "x", "y"),
        PreferencePair("a", "p", "b", "c"),
        PreferencePair("", "p", "d", "e"),
        PreferencePair("a", "p", "x", "y"),
    ]
    out, ledger = corrupt(pairs, "uniform_flip", 0.5, seed=0)
    assert ledger.attrs["manifest"]["n_duplicate_ids"] == 3
    assert {p.id for p in out} == {"a", "a#2", "a#3", content_hash(["p", "d", "e"])}
    back, _ = corrupt(pairs[::-1], "uniform_flip", 0.5, seed=0)
    contents = {(p.id, p.chosen) for p in out}
    assert contents == {(p.id, p.chosen) for p in back}


def test_too_few_positive_weights_and_one_prompt_only():
    pairs, _ = made(10)
    with pytest.raises(InputError, match="only 0 of 10 have a positive weight"):
        corrupt(pairs, "bt_flip", 0.5, seed=0, form="rate", temperature=0)
    same = [PreferencePair(str(i), "p", f"a{i}", "b") for i in range(4)]
    with pytest.raises(InputError, match="4 of 4 pairs share one prompt"):
        corrupt(same, "off_policy", 0.5, seed=0)
    with pytest.raises(InputError, match="does not tell any two"):
        corrupt(pairs, "spurious_feature", seed=0, marker="nowhere")


def test_empty_sets_and_wrong_seeds():
    for kind, params in CASES:
        out, ledger = run(kind, params, [], None)
        assert out == [] and len(ledger) == 0, kind
    with pytest.raises(InputError, match="seed must be a whole number"):
        corrupt([], "none", seed=1.5)  # type: ignore[arg-type]
    assert corrupt(made(4)[0], "uniform_flip", 0.5, seed=np.int64(3))[1].attrs["manifest"]["seed"] == 3
    clean = apply_spec(CorruptionSpec(), made(4)[0], seed=0)
    assert list(clean.pairs) == made(4)[0] and clean.ledger is None and set(clean.kind) == {""}
