"""The page of a diagnosis, made of the report's own parts.

No text of a pair stands on it: pairs are named by row, id or hash, and by their lengths.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.diagnose.cards import cards, first_upper, gravest, named
from harness.diagnose.diagnosis import Diagnosis, PolicyDiagnosis
from harness.diagnose.measures import PROMPT, Slice
from harness.diagnose.verdict import KINDS
from harness.metrics.margin_columns import delta, delta_ref
from harness.metrics.records import size
from harness.metrics.statistics import Estimate
from harness.palette import looks
from harness.report.render.blocks import Content, Field, Lines, Table, fields, present
from harness.report.render.figures import RIGHT, SHADE, WRONG, Picture, band, line_style, picture
from harness.report.render.text import DASH, ascii_visible, interval, number, percent, quantity, shorten, visible
from harness.report.sections.row import Page, Section, make_sections
from harness.report.texts import short_hash

POINTS = 400  # of a plane: more overplots
WORST = 10
OPEN = ("measures", "trajectory", "compared", "slices")
ROWS = (
    ("ranking_accuracy", "ranked right by the policy"),
    ("reference_ranking_accuracy", "ranked right by the reference"),
    ("reward_accuracy", "improved on the reference"),
    ("undesirable_zone", "stuck wrong: improved, still ranked wrong"),
    ("both_down", "both responses less likely"),
    ("chosen_displacement", "log-prob change of the chosen response, nats"),
    ("rejected_displacement", "log-prob change of the rejected response, nats"),
    ("reward_margin", "reward margin, beta x nats"),
)
_SHARES = ("ranking_accuracy", "reference_ranking_accuracy", "reward_accuracy", "undesirable_zone", "both_down")
_ID = re.compile(r"[A-Za-z0-9_.:#-]{1,40}")


def build_page(found: Diagnosis, name: str) -> Page[Diagnosis]:
    """All texts and figures of the page."""
    beta = "beta not given" if found.beta is None else f"beta {found.beta:g}"
    return Page(
        kind="diagnosis",
        name=visible(name),
        question="Is this policy better than its charts say, or worse?",
        answer=tuple(lines(found)) if len(found.policies) > 1 else (first_upper(_said(found.policies[0])),),
        cards=cards(found),
        heroes=(_hero(found),),
        open=OPEN,
        folded="In full sentences",
        status=f"{quantity(found.pairs, 'held-out pair')} of {quantity(found.prompts, 'prompt')}; {beta}; "
        f"{'with' if found.referenced else 'without'} a reference. Intervals are 95 % and count prompts, not pairs.",
        sections=make_sections(SECTIONS, found),
        texts="ids",
        script=False,
    )


def _shown(name: str, value: Estimate | None) -> str:
    if value is None:
        return DASH
    scale, digits, unit = (100, 1, " %") if name in _SHARES else (1, 2, "")
    bounds = interval(scale * value.low, scale * value.high, digits)
    return " ".join(filter(None, [number(scale * value.mean, digits), bounds])) + unit


def _measures(found: Diagnosis) -> Content:
    charts = {
        "logps/chosen": "", "logps/rejected": "", "rewards/chosen": "", "rewards/rejected": "", "rewards/margins": "",
        "rewards/accuracies": "reward accuracy, not how often the policy prefers the chosen response",
        "per_token/rewards/margins": "as SimPO and ORPO chart it",
    }  # fmt: skip
    head = tuple(named(one) for one in found.policies)
    ours = tuple(
        (Field(text), *(Field(_shown(name, one.estimates.get(name))) for one in found.policies))
        for name, text in ROWS
        if any(name in one.estimates for one in found.policies)
    )
    usual = tuple(
        (Field(name, text), *(Field(number(one.charts.get(name))) for one in found.policies))
        for name, text in charts.items()
        if any(name in one.charts for one in found.policies)
    )
    return Content(
        "What the pairs say, and what the usual charts say",
        "The charts of a trainer compare the policy with its reference: a pair counts as accurate once it improved, "
        "though it may still be ranked wrong.",
        (
            Table("Held-out pairs", ("Measure", *head), ours),
            Table("The same pairs in a trainer's charts", ("Chart", *head), usual),
        ),
    )


def _plane_panel(panel: Any, one: PolicyDiagnosis, limit: float) -> None:
    reference, policy = delta_ref(one.columns)[:POINTS], delta(one.columns)[:POINTS]
    zone = (policy < 0) & (policy > reference)
    panel.fill([-limit, 0, -limit], [-limit, 0, 0], color=SHADE, linewidth=0)
    panel.axhline(0, color="#555555", linewidth=0.7)
    panel.plot([-limit, limit], [-limit, limit], color="#555555", linewidth=0.7, linestyle=":")
    style = {"linestyle": "none", "rasterized": True}
    panel.plot(reference[~zone], policy[~zone], marker=".", markersize=3, color=RIGHT, **style)
    panel.plot(reference[zone], policy[zone], marker="x", markersize=3, color=WRONG, markeredgewidth=0.8, **style)
    panel.set_xlim(-limit, limit)
    panel.set_ylim(-limit, limit)
    panel.set_xlabel("reference margin (nats)")
    panel.set_ylabel("policy margin (nats)")


def _histogram(panel: Any, one: PolicyDiagnosis, referenced: bool, limit: float) -> None:
    edges = np.linspace(-limit, limit, 41)
    if referenced:
        before = np.clip(delta_ref(one.columns), -limit, limit)
        panel.hist(before, edges, color="#999999", alpha=0.5, label="reference")
    now = np.clip(delta(one.columns), -limit, limit)
    panel.hist(now, edges, histtype="step", color=RIGHT, linewidth=1.6, label="policy")
    panel.axvline(0, color="#555555", linewidth=0.8)
    panel.set_xlabel("margin (nats)")
    panel.set_ylabel("pairs")
    panel.legend(fontsize=8)


def _hero(found: Diagnosis) -> Picture:
    """The margins of the policy that the cards speak of."""
    one, title = gravest(found), "Margins of the policy"
    if found.referenced:
        title = f"{percent(one.estimates['undesirable_zone'].mean)} of pairs improved and are still ranked wrong"
    return _margins(found, (one,), "margins", title)


def _pairs(found: Diagnosis) -> Content | None:
    """Several policies below each other; one stands below the cards."""
    if len(found.policies) == 1:
        return None
    return Content("Where do the pairs sit?", "", (_margins(found, found.policies, "all-margins", "Every policy"),))


def _margins(found: Diagnosis, policies: Sequence[PolicyDiagnosis], name: str, title: str) -> Picture:
    sizes = [np.abs(delta(one.columns)) for one in policies]
    sizes += [np.abs(delta_ref(one.columns)) for one in policies if found.referenced]
    limit = max(float(np.quantile(np.concatenate(sizes), 0.995)), 1e-3)

    def paint(_: Any, axes: Any) -> None:
        for row, one in zip(axes, policies, strict=True):
            if found.referenced:
                _plane_panel(row[0], one, limit)
            _histogram(row[-1], one, found.referenced, limit)
            row[0].set_title(ascii_visible(named(one)), fontsize=8.5)

    plane = (
        f"Left: each mark is a held-out pair (at most {POINTS}); orange crosses in the shaded area are stuck wrong, "
        "better than under the reference and still below 0; above the dotted line a pair improved. Right: "
    )
    return picture(
        name, title,
        f"{plane if found.referenced else ''}log-prob of chosen minus rejected; above 0 a pair is ranked right; "
        "the outermost bins hold what lies beyond.",
        f"{title}. Policy margin against reference margin with the stuck pairs marked, and both margins as histograms.",
        (len(policies), 2 if found.referenced else 1), (7.8, 3.1 * len(policies)), paint,
    )  # fmt: skip


def _trajectory(found: Diagnosis) -> Content | None:
    moving = [one for one in found.policies if one.trajectory]
    if not moving:
        return None
    names = [name for name in ("ranking_accuracy", "reward_accuracy", "undesirable_zone")
             if name in moving[0].trajectory[0].estimates]  # fmt: skip
    titles, styles = dict(ROWS), looks(one.name for one in moving)

    def paint(_: Any, axes: Any) -> None:
        for panel, name in zip(axes.flat, names, strict=True):
            for one in moving:
                steps = [point.step for point in one.trajectory]
                values = [point.estimates[name] for point in one.trajectory]
                look = styles[one.name]
                panel.plot(
                    steps, [v.mean for v in values], label=ascii_visible(shorten(one.name, 30)), **line_style(look)
                )
                band(panel, steps, values, look.colour)
                if name == "ranking_accuracy" and found.referenced:
                    before = one.estimates["reference_ranking_accuracy"].mean
                    panel.axhline(before, color="#777777", linewidth=0.9, linestyle=":")
            panel.set_title(titles[name].partition(":")[0], fontsize=8.5)
            panel.set_ylim(-0.03, 1.03)
            panel.set_xlabel("step")
        if len(moving) > 1:
            axes.flat[0].legend(fontsize=7)

    figure = picture(
        "trajectory", "Over the checkpoints",
        "Shares of held-out pairs with 95 % intervals over prompts; dotted: ranked right by the reference.",
        "Ranking accuracy, reward accuracy and the share stuck wrong over steps.",
        (1, len(names)), (2.9 * len(names), 2.6), paint, sharey=True,
    )  # fmt: skip
    rows = tuple(
        (Field(named(one) if len(moving) > 1 else f"step {point.step}", f"step {point.step}" * (len(moving) > 1)),
         *(Field(_shown(name, point.estimates[name])) for name in names),
         Field(number(point.charts.get("rewards/margins"))), Field(number(point.charts.get("rewards/accuracies"))))
        for one in moving
        for point in one.trajectory
    )  # fmt: skip
    head = ("Checkpoint", *(titles[name].partition(":")[0] for name in names), "rewards/margins", "rewards/accuracies")
    return Content(
        "Does the ranking follow the charts?",
        "Where rewards rise and the ranking does not, training improves pairs without turning them.",
        (figure,),
        (Table("Checkpoints", head, rows),),
        "All checkpoints",
    )


def _compared(found: Diagnosis) -> Content | None:
    if not found.comparisons:
        return None
    titles = dict(ROWS) | {"margin": "margin, nats"}
    rows = tuple(
        (
            Field(f"{shorten(c.first, 40)} {DASH} {shorten(c.second, 40)}", titles[c.measure].partition(":")[0]),
            Field(_shown(c.measure, c.difference)),
            Field("< 0.001" if c.p < 0.001 else number(c.p)),
            Field("different" if c.different else "no difference shown"),
        )
        for c in found.comparisons
    )
    note = "Pair by pair on the pairs that both have; p corrected (Holm) over this table. Shares: exact sign test over "
    note += "prompts, and at least one point apart; means: t over prompts. Two seeds of one method are two checkpoints."
    head = ("First minus second", "difference", "corrected p", "verdict")
    return Content("Do the policies differ?", "", (Table("On the same pairs", head, rows, note),))


def _slice_row(s: Slice) -> tuple[Field, ...]:
    change = f"{100 * s.change:+.1f} points" if "reference_ranking_accuracy" in s.estimates else DASH
    why = []
    if s.named and s.change < 0 and s.p_fell <= 0.05:
        why.append("worse than the reference")
    if s.named and s.p_behind <= 0.05:
        why.append("behind the rest")
    names = ("ranking_accuracy", "reference_ranking_accuracy", "undesirable_zone")
    return (
        Field(shorten(s.value or "(empty)", 40), s.column, mark=WRONG if s.named else ""),
        Field(str(s.n), quantity(s.prompts, "prompt")),
        *(Field(_shown(name, s.estimates.get(name))) for name in names),
        Field(change),
        Field(", ".join(why) or DASH),
    )


def _slices(found: Diagnosis) -> Content | None:
    if not any(one.slices for one in found.policies):
        return None
    head = ("Slice", "pairs", "ranked right", "by the reference", "stuck wrong", "change", "named")
    note = "Intervals hold for all slices of a policy together (Bonferroni); a slice is named where training made it "
    note += "worse than the reference, or helped it less than the other pairs, after Holm's correction."
    worse, tables = [], []
    for one in found.policies:
        worse += [f"{named(one)}: {shorten(s.value, 40)} ({s.column}), {quantity(s.n, 'pair')}, "
                  f"{100 * s.change:+.1f} points against {100 * s.rest:+.1f} elsewhere."
                  for s in one.slices if s.named]  # fmt: skip
        tables.append(Table(named(one), head, tuple(map(_slice_row, one.slices)), note))
    lines = Lines(tuple(worse)) if worse else Lines(("No slice is shown to differ from the others.",))
    return Content("Is some kind of pair worse off?", "", present(lines), tuple(tables), "All slices")


def _rewardbench(found: Diagnosis) -> Content | None:
    scored = [one for one in found.policies if one.rewardbench]
    if not scored:
        return None
    first = next(iter(scored[0].rewardbench.values()))
    head = ("Scored by", "total", *(first.sections or first.subsets))
    rows = tuple(
        (Field(name, named(one)), Field(number(100 * score.total, 1)),
         *(Field(number(100 * value, 1)) for value in (score.sections or score.subsets).values()))
        for one in scored
        for name, score in one.rewardbench.items()
    )  # fmt: skip
    parts = [
        Table(f"{named(one)}: {name}", ("Subset", "rows", "right"), tuple(
            (Field(part), Field(str(score.n[part])), Field(number(100 * value, 1)))
            for part, value in score.subsets.items()
        ))
        for one in scored
        for name, score in one.rewardbench.items()
        if score.sections
    ]  # fmt: skip
    note = "Percent. By RewardBench's own formulas; the implicit reward is the log-prob less the reference's."
    if first.missing:
        note += f" Not in the file, so the total is no published figure: {', '.join(first.missing)}."
    title = f"RewardBench{' 2' if first.version == 2 else ''}: what is the policy worth as a reward model?"
    return Content(title, "", (Table("Scores", head, rows, note),), tuple(parts), "Every subset")


def _memory(found: Diagnosis) -> Content | None:
    rows = []
    for one in found.policies:
        m = one.memorised
        if m is not None:
            ranked, gap, followed, rise = (
                _shown("ranking_accuracy", value) for value in (m.ranking_accuracy, m.gap, m.followed, m.rise)
            )
            rows.append(fields(named(one), str(m.n), ranked, gap, str(m.wrong), followed, rise))
    if not rows:
        return None
    head = ("Policy", "training pairs", "ranked as labelled", "more than held-out", "wrong labels", "followed",
            "more than the reference")  # fmt: skip
    return Content("What of the training pairs is memorised?", "A wrong label that is followed has been learned.",
                   (Table("Training pairs", head, tuple(rows)),))  # fmt: skip


def pair_name(identity: str, row: int) -> Field:
    """A pair by its row of the data file, or by an id that can be no text, else by a hash."""
    name = identity if _ID.fullmatch(identity) else short_hash(identity)
    if row > 0:
        return Field(f"row {row}", name[:12])
    return Field(shorten(name, 24))


def _worst(found: Diagnosis) -> Content:
    tables = []
    for one in found.policies:
        now, before = delta(one.columns), delta_ref(one.columns)
        rows = tuple(
            (
                pair_name(one.columns["id"][i], int(one.columns["row"][i])),
                Field(short_hash(one.columns[PROMPT][i])),
                Field(f"{one.columns['chosen_len'][i]} / {one.columns['rejected_len'][i]}"),
                Field(number(before[i], 2) if found.referenced else DASH),
                Field(number(now[i], 2)),
            )
            for i in np.argsort(now, kind="stable")[: min(WORST, size(one.columns))]
        )
        head = ("Pair", "prompt hash", "tokens, chosen / rejected", "reference margin", "policy margin")
        tables.append(Table(named(one), head, rows))
    return Content("The pairs ranked most wrongly", "Margins in nats. Texts are not shown.", tuple(tables))


def _limits(found: Diagnosis) -> Content:
    return Content("What was not looked at", "", (Lines(found.not_looked_at),))


SECTIONS = (
    Section("pairs", "Pairs", _pairs),
    Section("measures", "Measures", _measures),
    Section("trajectory", "Trajectory", _trajectory),
    Section("compared", "Compared", _compared),
    Section("rewardbench", "RewardBench", _rewardbench),
    Section("slices", "Slices", _slices),
    Section("memory", "Memory", _memory),
    Section("worst", "Worst pairs", _worst),
    Section("limits", "Not looked at", _limits),
)


def lines(found: Diagnosis) -> Sequence[str]:
    """The verdicts as the terminal shows them."""
    return [f"{named(one)}: {_said(one)}" for one in found.policies]


def _said(one: PolicyDiagnosis) -> str:
    return f"{KINDS[one.verdict.kind]}. {visible(one.verdict.text)}"
