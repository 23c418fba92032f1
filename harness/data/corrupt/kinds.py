"""The corruptions as rows: what each does, who is hit first, what it needs, which laws it keeps. Plain data only.

Nothing here is executed and nothing heavy is imported: a row names its function as `module:function`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from harness.types import Parameter

Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Corruption:
    """One kind of damage.

    `rate`: `fixed` (the caller sets the share of pairs), `derived` (it follows from the parameters and is refused as
    an input) or `none`. A derived kind may have forms (values of its parameter `form`) that do take a rate:
    `rated_forms`, which then keep `rated_laws` instead of `laws`.
    `laws`: C exact count, N nested in rate, I involution, D derived rate.
    `needs`: facts read under the default parameters; `needs_changes` rows are (parameter, value, no longer needed,
    needed as well). `set_by` is the parameter that sets a derived rate. `neutral`: parameter values that do nothing.
    `either`: at most one of these may be given. `severities`: what mild, moderate and severe stand for.
    `form_changes`: what a form changes where that differs from `changes`.
    """

    name: str
    function: str
    rank: str
    rate: str
    changes: str
    laws: frozenset[str]
    citation: str
    summary: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    needs_changes: tuple[tuple[str, Any, tuple[str, ...], tuple[str, ...]], ...] = ()
    set_by: str = ""
    rated_forms: tuple[str, ...] = ()
    rated_laws: frozenset[str] = frozenset()
    neutral: tuple[Params, ...] = ()
    either: tuple[str, ...] = ()
    severities: Mapping[str, Params] = field(default_factory=dict)
    form_changes: Mapping[str, str] = field(default_factory=dict)

    def takes_rate(self, params: Params) -> bool:
        """Whether `rate` is an input under these parameters."""
        return self.rate == "fixed" or params.get("form") in self.rated_forms

    def laws_of(self, params: Params) -> frozenset[str]:
        """The laws kept under these parameters (without defaults filled in, the default form's)."""
        return self.rated_laws if params.get("form") in self.rated_forms else self.laws

    def changes_of(self, params: Params) -> str:
        """labels, rows or text: what is different after it, under these parameters."""
        return self.form_changes.get(str(params.get("form")), self.changes)

    def needs_of(self, params: Params) -> tuple[str, ...]:
        """The facts read under these parameters, in order."""
        needed = dict.fromkeys(self.needs)
        for name, value, dropped, added in self.needs_changes:
            if params.get(name) == value:
                needed = {n: None for n in needed if n not in dropped} | dict.fromkeys(added)
        return tuple(needed)


# Parameters that say how a set is drawn, not what is done: resolved specs and run keys show them only where they
# differ from the default, so that reports carry no column of constants.
PLUMBING = ("mode", "on_missing", "gold_from", "eos")

_MODE = Parameter("exact", "choice", choices=("exact", "bernoulli"), doc="exactly k pairs, or k ~ Binomial(n, rate)")
_MISSING = Parameter("error", "choice", choices=("error", "exclude"), doc="pairs that lack a needed fact")
_GOLD = Parameter("margin", "choice", choices=("margin", "scores"), doc="gold margin: its own column, or the scores")
_TEMPERATURE = Parameter(1.0, low=0.0, choices=("inf",), search=(0.25, 4.0), prior="log", doc="0: none; inf: a coin")
_KAPPA = Parameter(1.0, low=0.0, search=(0.0, 4.0), doc="weight of the bias, in units of the gold margin")
_UNIT = Parameter("tokens", "choice", choices=("tokens", "words", "characters"), doc="what lengths count")
_NUMBER = Parameter(0.0)

_C, _CN, _CNI = frozenset("C"), frozenset("CN"), frozenset("CNI")
_D, _DI = frozenset("D"), frozenset("DI")
_LENGTHS = ("chosen_len", "rejected_len")
_NO_TOKENS = (("unit", "words", _LENGTHS, ()), ("unit", "characters", _LENGTHS, ()))
_RATED = {"mode": _MODE, "on_missing": _MISSING}
_GOLDEN = {"on_missing": _MISSING, "gold_from": _GOLD}
_HERE = "harness.data.corrupt"


def _rates(mild: float, moderate: float, severe: float, name: str = "rate") -> dict[str, Params]:
    return {"mild": {name: mild}, "moderate": {name: moderate}, "severe": {name: severe}}


def _annotators(*rows: tuple[float, float]) -> tuple[Params, ...]:
    return tuple({"share": share, "eps": eps} for share, eps in rows)


_ROWS = (
    Corruption(
        name="none",
        function=f"{_HERE}.flips:none",
        rank="nobody",
        rate="none",
        changes="labels",
        laws=frozenset(),
        citation="",
        summary="the clean set",
    ),
    Corruption(
        name="uniform_flip",
        function=f"{_HERE}.flips:uniform_flip",
        rank="smallest u",
        rate="fixed",
        changes="labels",
        laws=_CNI,
        citation="2403.00409; 2404.04102; 2404.09824",
        summary="swap chosen and rejected in a uniformly drawn share of pairs",
        parameters={"mode": _MODE},
        severities=_rates(0.1, 0.2, 0.4),
    ),
    Corruption(
        name="bt_flip",
        function=f"{_HERE}.flips:bt_flip",
        rank="small gold margins: P(flip) = sigmoid(-margin / temperature)",
        rate="derived",
        changes="labels",
        laws=_DI,
        rated_forms=("rate",),
        rated_laws=_CNI,
        citation="2111.03026",
        summary="a Bradley-Terry annotator: close pairs are flipped more often; form=rate draws an exact share",
        parameters={
            "temperature": _TEMPERATURE,
            "form": Parameter("temperature", "choice", choices=("temperature", "rate")),
            "mode": _MODE,
            **_GOLDEN,
        },
        needs=("gold_margin",),
        set_by="temperature",
        neutral=({"temperature": 0, "form": "temperature"},),
        severities=_rates(0.5, 1.0, 2.0, "temperature"),
    ),
    Corruption(
        name="adversarial_hard",
        function=f"{_HERE}.flips:adversarial_hard",
        rank="smallest absolute gold margin, ties by id",
        rate="fixed",
        changes="labels",
        laws=_CNI,
        citation="2406.15568; 2410.08811; 2311.09641",
        summary="flip the pairs that are closest",
        parameters={"mode": _MODE, **_GOLDEN},
        needs=("gold_margin",),
        severities=_rates(0.05, 0.1, 0.3),
    ),
    Corruption(
        name="adversarial_easy",
        function=f"{_HERE}.flips:adversarial_easy",
        rank="largest absolute gold margin, ties by id",
        rate="fixed",
        changes="labels",
        laws=_CNI,
        citation="2406.15568; 2410.08811; 2311.09641",
        summary="flip the pairs that are clearest",
        parameters={"mode": _MODE, **_GOLDEN},
        needs=("gold_margin",),
        severities=_rates(0.05, 0.1, 0.3),
    ),
    Corruption(
        name="length_biased",
        function=f"{_HERE}.annotators:length_biased",
        rank="P(prefer longer) = sigmoid((margin + kappa * excess / sd) / temperature); form=rate: largest excess",
        rate="derived",
        changes="labels",
        laws=_D,
        rated_forms=("rate",),
        rated_laws=_CN,
        citation="2310.03716; 2403.19159",
        summary="an annotator who likes long answers; form=rate relabels the top share so that the longer wins",
        parameters={
            "kappa": _KAPPA,
            "temperature": _TEMPERATURE,
            "unit": _UNIT,
            "form": Parameter("annotator", "choice", choices=("annotator", "rate")),
            "mode": _MODE,
            **_GOLDEN,
        },
        needs=("gold_margin", *_LENGTHS),
        needs_changes=(("form", "rate", ("gold_margin",), ()), *_NO_TOKENS),
        set_by="kappa",
        neutral=({"kappa": 0, "temperature": 0, "form": "annotator"},),
        severities=_rates(1.0, 2.0, 4.0, "kappa"),
    ),
    Corruption(
        name="spurious_feature",
        function=f"{_HERE}.annotators:spurious_feature",
        rank="P(flip) = sigmoid(-(margin + kappa * marker difference) / temperature)",
        rate="derived",
        changes="labels",
        laws=_D,
        citation="reward-hacking literature",
        summary="an annotator who rewards a marker: a phrase, facts columns (marker: column), or a word of the data "
        "found by prevalence (marker: auto)",
        parameters={
            "kappa": _KAPPA,
            "temperature": _TEMPERATURE,
            "marker": Parameter("auto", "table", doc="auto, column, or the phrase itself"),
            "prevalence": Parameter(0.3, low=0.0, high=1.0, low_open=True, high_open=True, doc="read by marker: auto"),
            **_GOLDEN,
        },
        needs=("gold_margin",),
        needs_changes=(("marker", "column", (), ("marker_chosen", "marker_rejected")),),
        set_by="kappa",
        neutral=({"kappa": 0, "temperature": 0},),
        severities=_rates(1.0, 2.0, 4.0, "kappa"),
    ),
    Corruption(
        name="contradictory_dup",
        function=f"{_HERE}.rows:contradictory_dup",
        rank="smallest u",
        rate="fixed",
        changes="rows",
        laws=_CN,
        citation="",
        summary="append flipped copies (id `<id>#dup`) of a share of pairs",
        parameters={"mode": _MODE},
        severities=_rates(0.05, 0.2, 0.5),
    ),
    Corruption(
        name="near_tie",
        function=f"{_HERE}.rows:near_tie",
        rank="smallest absolute gold margin, ties by id",
        rate="derived",
        changes="labels",
        form_changes={"filter": "rows"},
        laws=_D,
        citation="2111.03026; 2603.07211",
        summary="give the closest pairs a fair coin as label (form=coin), or keep only them (form=filter)",
        parameters={
            "quantile": Parameter(0.25, low=0.0, high=1.0, doc="share of pairs that count as near ties"),
            "tau": Parameter(None, low=0.0, doc="largest absolute gold margin of a near tie, instead of quantile"),
            "form": Parameter("coin", "choice", choices=("coin", "filter")),
            **_GOLDEN,
        },
        needs=("gold_margin",),
        set_by="quantile (or tau)",
        neutral=({"quantile": 0, "form": "coin"}, {"quantile": 1, "form": "filter"}),
        either=("tau", "quantile"),
        severities=_rates(0.1, 0.25, 0.5, "quantile"),
    ),
    Corruption(
        name="identical",
        function=f"{_HERE}.text:identical",
        rank="smallest u",
        rate="fixed",
        changes="text",
        laws=_CN,
        citation="",
        summary="set rejected := chosen: a pair without information",
        parameters={"mode": _MODE},
        severities=_rates(0.05, 0.1, 0.3),
    ),
    Corruption(
        name="truncate",
        function=f"{_HERE}.text:truncate",
        rank="smallest u",
        rate="fixed",
        changes="text",
        laws=_CN,
        citation="",
        summary="cut responses to a fraction of their words: the first ceil(fraction * n), spacing kept",
        parameters={
            "fraction": Parameter(0.5, low=0.0, low_open=True, high=1.0, doc="share of words kept"),
            "side": Parameter("chosen", "choice", choices=("chosen", "rejected", "both")),
            "unit": Parameter("words", "choice", choices=("words", "characters"), doc="what is counted and cut"),
            "eos": Parameter("reappended", "choice", choices=("reappended",), doc="the tokeniser ends every response"),
            "mode": _MODE,
        },
        neutral=({"fraction": 1},),
        severities=_rates(0.75, 0.5, 0.25, "fraction"),
    ),
    Corruption(
        name="off_policy",
        function=f"{_HERE}.text:off_policy",
        rank="smallest u",
        rate="fixed",
        changes="text",
        laws=_CN,
        citation="2404.14367; 2404.10719",
        summary="replace both responses by those of another prompt (form=mismatched) or of another generator "
        "(form=generator: facts generator_chosen, generator_rejected)",
        parameters={"form": Parameter("mismatched", "choice", choices=("mismatched", "generator")), **_RATED},
        needs=("prompt_id",),
        needs_changes=(("form", "generator", ("prompt_id",), ("generator_chosen", "generator_rejected")),),
        severities=_rates(0.1, 0.3, 1.0),
    ),
    Corruption(
        name="ref_shift",
        function=f"{_HERE}.rows:ref_shift",
        rank="largest reference margin dropped first",
        rate="derived",
        changes="rows",
        laws=_D,
        citation="2605.20834; 2602.11902",
        summary="lower the mean reference margin by dropping pairs (form=select) or by resampling them under "
        "exponential weights (form=reweight); the reference itself is untouched",
        parameters={
            "shift": Parameter(1.0, low=0.0, search=(0.0, 8.0), doc="nats by which the mean delta_ref falls"),
            "form": Parameter("select", "choice", choices=("select", "reweight")),
            "on_missing": _MISSING,
        },
        needs=("delta_ref",),
        set_by="shift",
        neutral=({"shift": 0},),
        severities=_rates(1.0, 4.0, 8.0, "shift"),
    ),
    Corruption(
        name="annotator_mixture",
        function=f"{_HERE}.annotators:annotator_mixture",
        rank="u assigns the annotator, a second stream decides",
        rate="derived",
        changes="labels",
        laws=_D,
        citation="2402.08925; 2312.08358; 2509.24159",
        summary="several annotators, each with its share, flip rate eps, length bias kappa, temperature or own margin",
        parameters={
            "annotators": Parameter(
                _annotators((0.8, 0.05), (0.2, 0.4)),
                "table",
                doc="list of {name, share, eps, kappa, temperature, margin}; shares sum to 1",
            ),
            "unit": _UNIT,
            **_GOLDEN,
        },
        set_by="annotators",
        severities={
            "mild": {"annotators": _annotators((0.8, 0.05), (0.2, 0.4))},
            "moderate": {"annotators": _annotators((0.6, 0.05), (0.4, 0.4))},
            "severe": {"annotators": _annotators((0.4, 0.05), (0.3, 0.2), (0.3, 0.4))},
        },
    ),
    Corruption(
        name="prompt_clustered",
        function=f"{_HERE}.flips:prompt_clustered",
        rank="smallest u of the prompt",
        rate="fixed",
        changes="labels",
        laws=_CNI,
        citation="",
        summary="flip all pairs of a share of prompts (rho 1), or with correlation rho within a prompt",
        parameters={"rho": Parameter(1.0, low=0.0, high=1.0), **_RATED},
        needs=("prompt_id",),
        severities=_rates(0.1, 0.2, 0.4),
    ),
    Corruption(
        name="mnar",
        function=f"{_HERE}.rows:mnar",
        rank="P(drop) = sigmoid(a + b * value)",
        rate="derived",
        changes="rows",
        laws=_D,
        rated_forms=("rate",),
        rated_laws=_CN,
        citation="",
        summary="drop pairs not at random: by gold margin, by total response length or by reference margin; "
        "form=rate drops an exact share with that probability as weight",
        parameters={
            "a": Parameter(-2.0),
            "b": Parameter(1.0, doc="per unit of the value"),
            "on": Parameter("gold_margin", "choice", choices=("gold_margin", "length", "delta_ref")),
            "unit": _UNIT,
            "form": Parameter("logit", "choice", choices=("logit", "rate")),
            "mode": _MODE,
            **_GOLDEN,
        },
        needs=("gold_margin",),
        needs_changes=(
            ("on", "length", ("gold_margin",), _LENGTHS),
            ("on", "delta_ref", ("gold_margin",), ("delta_ref",)),
            *_NO_TOKENS,
        ),
        set_by="a and b",
        severities={
            "mild": {"form": "rate", "rate": 0.1},
            "moderate": {"form": "rate", "rate": 0.3},
            "severe": {"form": "rate", "rate": 0.5},
        },
    ),
    Corruption(
        name="pointwise_quality",
        function=f"{_HERE}.text:pointwise_quality",
        rank="smallest u",
        rate="fixed",
        changes="text",
        laws=_CN,
        citation="2407.07880",
        summary="degrade the chosen text and keep the label",
        parameters={
            "operator": Parameter("shuffle", "choice", choices=("shuffle", "drop", "repeat"), doc="acts on words"),
            "mode": _MODE,
        },
        severities=_rates(0.1, 0.2, 0.4),
    ),
    Corruption(
        name="rm_noise",
        function=f"{_HERE}.flips:rm_noise",
        rank="P(flip) = Phi(-abs(margin) / (noise * sqrt 2))",
        rate="derived",
        changes="labels",
        laws=_D,
        citation="2210.10760",
        summary="flip where normal noise on each response's reward overturns the sign of the gold margin",
        parameters={
            "noise": Parameter(1.0, low=0.0, search=(0.25, 2.0), doc="standard deviation per response"),
            "unit": Parameter("reward", "choice", choices=("reward", "sd"), doc="of the reward, or of the margin's sd"),
            **_GOLDEN,
        },
        needs=("gold_margin",),
        set_by="noise",
        neutral=({"noise": 0},),
        severities={
            "mild": {"noise": 0.5, "unit": "sd"},
            "moderate": {"noise": 1.0, "unit": "sd"},
            "severe": {"noise": 2.0, "unit": "sd"},
        },
    ),
    Corruption(
        name="curate_drop",
        function=f"{_HERE}.rows:curate_drop",
        rank="smallest reference margin of the pair as labelled, ties by id",
        rate="fixed",
        changes="rows",
        laws=_CN,
        citation="",
        summary="a curation arm: drop the pairs whose label the reference distrusts most",
        parameters=_RATED,
        needs=("delta_ref",),
        severities=_rates(0.1, 0.2, 0.4),
    ),
    Corruption(
        name="curate_relabel",
        function=f"{_HERE}.flips:curate_relabel",
        rank="smallest reference margin of the pair as labelled, ties by id",
        rate="fixed",
        changes="labels",
        laws=_CN,
        citation="",
        summary="a curation arm: flip the pairs whose label the reference distrusts most",
        parameters=_RATED,
        needs=("delta_ref",),
        severities=_rates(0.1, 0.2, 0.4),
    ),
)

CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType({row.name: row for row in _ROWS})
