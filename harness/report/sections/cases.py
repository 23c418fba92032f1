"""Which setting in which case: a row per world and corruption, and the filter that leaves one of them on the screen."""

from __future__ import annotations

from harness.report.data.cells import RANKING
from harness.report.data.recommendation import Case
from harness.report.data.report_data import ReportData
from harness.report.render.blocks import Content, Field, Filter, Table, estimated, present
from harness.report.render.text import DASH, number, percents, quantity, shown
from harness.report.sections.row import Section

TALL = 7  # rows; longer tables scroll within their place
NAMED = 3  # objectives of a set that a field names


def cases(data: ReportData) -> Content | None:
    """None where one condition alone was run, or nothing can be compared."""
    found = [case for case in data.cases if case.choices]
    if len(found) < 2:
        return None
    worth = any(case.lead is not None and case.lead.estimate("gold_reward").n for case in found)
    header = ("Your case", "Use", "Ranked right", *([data.sweep.reward] if worth else []), "KL, nats", "Lead")
    worlds = len({case.world for case in found}) > 1
    table = Table(
        "What no setting is shown to beat, by case",
        header,
        tuple(_row(data, case, worth, worlds) for case in found),
        "Settings in one field are not told apart; the numbers are those of the first. The lead is in"
        f" {data.sweep.reward} where all settings have one, else in points of ranking accuracy; its interval is"
        " corrected for all settings of the case.",
        "stack" if len(found) <= TALL else "stack tall",
        row_tags=tuple(" ".join(case.tags) for case in found),
    )
    return Content("Which setting, in your case?", "", present(_filter(data), table))


def _filter(data: ReportData) -> Filter | None:
    """A group for the worlds and one for the labels, each where there are several."""
    worlds = dict.fromkeys((case.tags[0], case.world) for case in data.cases)
    labels = dict.fromkeys((case.tags[1], case.labels) for case in data.cases)
    groups = [
        (name, tuple(options)) for name, options in (("Reference", worlds), ("Labels", labels)) if len(options) > 1
    ]
    return Filter(tuple(groups)) if groups else None


def _row(data: ReportData, case: Case, worth: bool, worlds: bool) -> tuple[Field, ...]:
    lead = case.lead
    assert lead is not None, "a case without a choice has no row"
    names = [choice.text for choice in case.choices[:NAMED]]
    more = sum(len(choice.arms) for choice in case.choices[NAMED:])
    use = Field(" or ".join(names), f"and {quantity(more, 'setting')} more" if more else "")
    return (
        Field(case.labels, case.world if worlds else "", mark=data.looks[lead.first.objective].colour),
        use,
        Field(percents(lead.ranking)),
        *([estimated(lead.estimate("gold_reward"))] if worth else []),
        Field(number(lead.estimate("kl").mean, 1) if lead.estimate("kl").n else DASH),
        _over(case),
    )


def _over(case: Case) -> Field:
    if case.over is None:
        return Field(DASH)
    value = case.over.interval
    text = percents(value, "\u00a0points") if case.measure == RANKING else shown(value)
    return Field(f"{'+' if value.mean > 0 else ''}{text}", f"over {case.over.over.named}: {case.over.word}")


ROWS = (Section("cases", "Your case", cases),)
