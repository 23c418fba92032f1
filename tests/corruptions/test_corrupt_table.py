"""What a user may write for one corruption, and what it resolves to. No torch, pandas or scipy is needed for it."""

import math
import subprocess
import sys

import pytest
from corrupt_cases import made

from harness.corruptions import CORRUPTIONS, corrupt
from harness.corruptions.registry import needs, resolve, steps
from harness.identity import canonical_json
from harness.types import CorruptionSpec, InputError

BAD = [
    ({"kind": "unifrom_flip", "rate": 0.1}, "did you mean 'uniform_flip'"),
    ({"rate": 0.1}, "'kind' is missing"),
    ({"kind": None}, "'kind' is missing"),
    ({"kind": 3}, "must be a name"),
    ("uniform_flip", "is a mapping"),
    ({"kind": "uniform_flip"}, "needs 'rate'"),
    ({"kind": "uniform_flip", "rate": 1.1}, r"outside \[0, 1\]"),
    ({"kind": "uniform_flip", "rate": -0.1}, r"outside \[0, 1\]"),
    ({"kind": "uniform_flip", "rate": math.nan}, "finite number"),
    ({"kind": "uniform_flip", "rate": True}, "finite number"),
    ({"kind": "uniform_flip", "rate": "0.2"}, "finite number"),
    ({"kind": "uniform_flip", "rate": 0.1, "rte": 2}, "no parameter 'rte'"),
    ({"kind": "none", "rate": 0.1}, "takes no rate"),
    ({"kind": "bt_flip", "rate": 0.1}, "set temperature; or choose form: rate"),
    ({"kind": "bt_flip", "temperature": -1}, r"outside \[0, inf\)"),
    ({"kind": "bt_flip", "temperature": -math.inf}, "finite number"),
    ({"kind": "bt_flip", "form": "rate"}, "needs 'rate'"),
    ({"kind": "rm_noise", "rate": 0.1}, "set noise"),
    ({"kind": "ref_shift", "rate": 0.1}, "set shift"),
    ({"kind": "truncate", "rate": 0.1, "fraction": 0}, r"outside \(0, 1\]"),
    ({"kind": "truncate", "rate": 0.1, "fracton": 0.5}, "did you mean 'fraction'"),
    ({"kind": "truncate", "rate": 0.1, "side": "left"}, "expected one of chosen, rejected, both"),
    ({"kind": "pointwise_quality", "rate": 0.1, "operator": "x"}, "expected one of shuffle, drop, repeat"),
    ({"kind": "near_tie", "tau": 1, "quantile": 0.1}, "only one of tau and quantile"),
    ({"kind": "uniform_flip", "severity": "huge"}, "known: mild, moderate, severe"),
    ({"kind": "uniform_flip", "severity": "mild", "rate": 0.3}, "severity sets rate"),
    ({"kind": "none", "severity": "mild"}, "has no severities"),
    ({"kind": "annotator_mixture", "annotators": []}, "expected a list"),
    ({"kind": "annotator_mixture", "annotators": 3}, "expected a list"),
    ({"kind": "annotator_mixture", "annotators": [{"share": 0.5}]}, "shares sum to 0.5"),
    ({"kind": "annotator_mixture", "annotators": [{"eps": 0.5}]}, "'share' is missing"),
    ({"kind": "annotator_mixture", "annotators": [{"share": 1, "epz": 0.5}]}, "did you mean 'eps'"),
    ({"kind": "annotator_mixture", "annotators": [{"share": 1, "eps": 2}]}, r"annotators\[0\].eps: 2.0 is outside"),
    ({"kind": "spurious_feature", "marker": 3}, "expected auto, column, or a phrase"),
    ({"kind": "spurious_feature", "prevalence": 1}, r"outside \(0, 1\)"),
    ({"kind": "sequence"}, r"\{sequence: \["),
    ({"sequence": []}, "non-empty list"),
    ({"sequence": [{"kind": "uniform_flip", "rate": 2}], "seed": 1}, "'seed' beside 'sequence'"),
    ({"sequence": [{"kind": "none"}, {"kind": "uniform_flip", "rate": 2}]}, "step 2: .*outside"),
    ({"sequence": [{"sequence": []}]}, "cannot stand inside"),
]


@pytest.mark.parametrize(("given", "message"), BAD)
def test_wrong_cells_say_what_is_wrong(given, message):
    with pytest.raises(InputError, match=message):
        resolve(given)


def test_all_problems_of_a_cell_come_at_once():
    with pytest.raises(InputError) as error:
        resolve({"kind": "truncate", "rate": 2, "fraction": 3, "sid": "chosen"})
    assert len(error.value.problems) == 3


CLEAN = [
    {"kind": "none"},
    {"kind": "none", "rate": 0},
    *({"kind": kind, "rate": 0} for kind, row in CORRUPTIONS.items() if row.rate == "fixed"),
    {"kind": "bt_flip", "temperature": 0},
    {"kind": "bt_flip", "form": "rate", "rate": 0.0},
    {"kind": "rm_noise", "noise": 0},
    {"kind": "ref_shift", "shift": 0.0},
    {"kind": "near_tie", "quantile": 0},
    {"kind": "truncate", "rate": 0.3, "fraction": 1},
    {"sequence": [{"kind": "none"}, {"kind": "uniform_flip", "rate": 0}]},
]


@pytest.mark.parametrize("given", CLEAN)
def test_what_does_nothing_is_the_clean_set(given):
    assert resolve(given) == CorruptionSpec()


def test_resolved_cells():
    assert resolve({"kind": "uniform_flip", "rate": 1}) == CorruptionSpec("uniform_flip", 1.0, ())
    assert resolve({"kind": "uniform_flip", "severity": "severe"}) == CorruptionSpec("uniform_flip", 0.4, ())
    bernoulli = resolve({"kind": "uniform_flip", "rate": 0.2, "mode": "bernoulli"})
    assert bernoulli.params == (("mode", "bernoulli"),)
    assert dict(resolve({"kind": "near_tie", "tau": 1}).params) == {"form": "coin", "tau": 1.0}
    assert dict(resolve({"kind": "bt_flip", "temperature": math.inf}).params)["temperature"] == "inf"
    flip, drop = {"kind": "uniform_flip", "rate": 0.2}, {"kind": "curate_drop", "rate": 0.1}
    steps = (("uniform_flip", 0.2, ()), ("curate_drop", 0.1, ()))
    assert resolve({"sequence": [flip, {"kind": "none"}, drop]}) == CorruptionSpec(
        "sequence", None, (("steps", steps),)
    )
    assert resolve({"sequence": [flip]}) == resolve(flip)


@pytest.mark.parametrize("kind", list(CORRUPTIONS))
def test_every_row_resolves_with_every_severity_and_stays_hashable(kind):
    row = CORRUPTIONS[kind]
    for severity in row.severities:
        rate = {"rate": 0.3} if kind == "truncate" else {}
        spec = resolve({"kind": kind, "severity": severity, **rate})
        assert spec.kind == kind and isinstance(hash(spec), int)
        assert canonical_json(spec)
        # A resolved spec is a valid call: the sweep hands it on as it is.
        pairs, facts = made(60)
        facts["delta_ref"] *= 10.0  # so that the severest shift is within reach
        _, ledger = corrupt(pairs, kind=spec.kind, rate=spec.rate, seed=1, facts=facts, **dict(spec.params))
        assert ledger.attrs["manifest"]["n_before"] == 60


@pytest.mark.parametrize("kind", list(CORRUPTIONS))
def test_rows_are_complete(kind):
    row = CORRUPTIONS[kind]
    assert row.name == kind and row.summary and row.rank and set(row.laws + row.rated_laws) <= set("CNID")
    assert row.rate in ("fixed", "derived", "none") and row.changes in ("labels", "rows", "text")
    assert (row.rate == "derived") == bool(row.set_by)
    for name, parameter in row.parameters.items():
        assert parameter.default is None or parameter.problem(parameter.default) is None, name


def test_changes_and_needs_follow_the_parameters():
    def cell(**given):
        return resolve(given)

    def changes(spec):
        return {CORRUPTIONS[kind].changes_of(dict(params)) for kind, _, params in steps(spec)}

    assert changes(CorruptionSpec()) == set()
    assert changes(cell(kind="near_tie")) == {"labels"}
    assert changes(cell(kind="near_tie", form="filter")) == {"rows"}
    two = cell(sequence=[{"kind": "truncate", "rate": 0.1}, {"kind": "uniform_flip", "rate": 0.1}])
    assert changes(two) == {"text", "labels"}
    assert needs(cell(kind="uniform_flip", rate=0.1)) == frozenset()
    assert needs(cell(kind="length_biased")) == {"gold_margin", "chosen_len", "rejected_len"}
    assert needs(cell(kind="length_biased", unit="words")) == {"gold_margin"}
    assert needs(cell(kind="length_biased", form="rate", rate=0.1)) == {"chosen_len", "rejected_len"}
    assert needs(cell(kind="mnar", on="delta_ref")) == {"delta_ref"}
    assert needs(cell(kind="annotator_mixture")) == frozenset()
    crowd = [{"share": 0.5, "kappa": 1}, {"share": 0.5, "margin": "mine"}]
    assert needs(cell(kind="annotator_mixture", annotators=crowd)) == {
        "gold_margin",
        "chosen_len",
        "rejected_len",
        "mine",
    }


def test_the_table_is_cheap_to_import():
    code = (
        "import sys; from harness.corruptions.registry import resolve; import harness.corruptions; "
        "assert not {'pandas', 'torch', 'scipy', 'pyarrow'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
