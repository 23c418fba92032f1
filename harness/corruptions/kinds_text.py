"""What changes the responses themselves and leaves every label as it was."""

from __future__ import annotations

from harness.corruptions.row import CN, HERE, MODE, RATED, Corruption, by_severity
from harness.types import Parameter

TEXT = (
    Corruption(
        name="identical",
        function=f"{HERE}.text:identical",
        rank="smallest u",
        rate="fixed",
        changes="text",
        laws=CN,
        citation="",
        summary="set rejected := chosen: a pair without information",
        parameters={"mode": MODE},
        severities=by_severity(0.05, 0.1, 0.3),
    ),
    Corruption(
        name="truncate",
        function=f"{HERE}.text:truncate",
        rank="smallest u",
        rate="fixed",
        changes="text",
        laws=CN,
        citation="",
        summary="cut responses to a fraction of their words: the first ceil(fraction * n), spacing kept",
        parameters={
            "fraction": Parameter(0.5, low=0.0, low_open=True, high=1.0, doc="share of words kept"),
            "side": Parameter("chosen", "choice", choices=("chosen", "rejected", "both"), doc="which responses"),
            "unit": Parameter("words", "choice", choices=("words", "characters"), doc="unit of the cut"),
            "eos": Parameter("reappended", "choice", choices=("reappended",), doc="the tokenizer always adds it"),
            "mode": MODE,
        },
        neutral=({"fraction": 1},),
        severities=by_severity(0.75, 0.5, 0.25, "fraction"),
    ),
    Corruption(
        name="off_policy",
        function=f"{HERE}.text:off_policy",
        rank="smallest u",
        rate="fixed",
        changes="text",
        laws=CN,
        citation="2404.14367; 2404.10719",
        summary="replace both responses by those of another prompt (form=mismatched) or of another generator "
        "(form=generator: facts generator_chosen, generator_rejected)",
        parameters={
            "form": Parameter(
                "mismatched", "choice", choices=("mismatched", "generator"), doc="of another prompt, or generator"
            ),
            **RATED,
        },
        needs=("prompt_id",),
        needs_changes=(("form", "generator", ("prompt_id",), ("generator_chosen", "generator_rejected")),),
        severities=by_severity(0.1, 0.3, 1.0),
    ),
    Corruption(
        name="pointwise_quality",
        function=f"{HERE}.text:pointwise_quality",
        rank="smallest u",
        rate="fixed",
        changes="text",
        laws=CN,
        citation="2407.07880",
        summary="degrade the chosen text and keep the label",
        parameters={
            "operator": Parameter(
                "shuffle", "choice", choices=("shuffle", "drop", "repeat"), doc="what is done to the words"
            ),
            "mode": MODE,
        },
        severities=by_severity(0.1, 0.2, 0.4),
    ),
)
