"""What changes which pairs there are: copies with the other label, pairs dropped or drawn again."""

from __future__ import annotations

from harness.corruptions.row import (
    CN,
    GOLDEN,
    HERE,
    LENGTHS,
    MISSING,
    MODE,
    NO_TOKENS,
    UNIT,
    Corruption,
    D,
    by_severity,
)
from harness.types import Parameter

ROWS = (
    Corruption(
        name="contradictory_dup",
        function=f"{HERE}.rows:contradictory_dup",
        rank="smallest u",
        rate="fixed",
        changes="rows",
        laws=CN,
        citation="",
        summary="append flipped copies (id `<id>#dup`) of a share of pairs",
        parameters={"mode": MODE},
        severities=by_severity(0.05, 0.2, 0.5),
    ),
    Corruption(
        name="ref_shift",
        function=f"{HERE}.rows:ref_shift",
        rank="largest reference margin dropped first",
        rate="derived",
        changes="rows",
        laws=D,
        citation="2605.20834; 2602.11902",
        summary="lower the mean reference margin by dropping pairs (form=select) or by resampling them under "
        "exponential weights (form=reweight); the reference itself is untouched",
        parameters={
            "shift": Parameter(1.0, low=0.0, search=(0.0, 8.0), doc="nats by which the mean delta_ref falls"),
            "form": Parameter(
                "select", "choice", choices=("select", "reweight"), doc="drop pairs, or resample them by weight"
            ),
            "on_missing": MISSING,
        },
        needs=("delta_ref",),
        set_by="shift",
        neutral=({"shift": 0},),
        severities=by_severity(1.0, 4.0, 8.0, "shift"),
    ),
    Corruption(
        name="mnar",
        function=f"{HERE}.rows:mnar",
        rank="P(drop) = sigmoid(a + b * value)",
        rate="derived",
        changes="rows",
        laws=D,
        rated_forms=("rate",),
        rated_laws=CN,
        citation="",
        summary="drop pairs not at random: by gold margin, by total response length or by reference margin; "
        "form=rate drops an exact share with that probability as weight",
        parameters={
            "a": Parameter(-2.0, doc="log-odds of a drop where the value is 0; larger: more pairs dropped"),
            "b": Parameter(1.0, doc="log-odds added per unit of the value; above 0: large values go"),
            "on": Parameter("gold_margin", "choice", choices=("gold_margin", "length", "delta_ref"), doc="the value"),
            "unit": UNIT,
            "form": Parameter(
                "logit", "choice", choices=("logit", "rate"), doc="derive the rate from a and b, or set it"
            ),
            "mode": MODE,
            **GOLDEN,
        },
        needs=("gold_margin",),
        needs_changes=(
            ("on", "length", ("gold_margin",), LENGTHS),
            ("on", "delta_ref", ("gold_margin",), ("delta_ref",)),
            *NO_TOKENS,
        ),
        set_by="a and b",
        severities={
            "mild": {"form": "rate", "rate": 0.1},
            "moderate": {"form": "rate", "rate": 0.3},
            "severe": {"form": "rate", "rate": 0.5},
        },
    ),
)
