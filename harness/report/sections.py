"""The page's tables as plain texts: a caption, a header, rows of fields. HTML and Markdown show the same ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.measure.statistics import paired_difference
from harness.report.answer import named, shown, spread, survives
from harness.report.cells import Cell
from harness.report.conditions import Condition, find
from harness.report.contrasts import Contrast
from harness.report.reading import STATUSES, Sweep
from harness.report.text import DASH, interval, number, plain, shorten, visible
from harness.tracking.store import read_table

RLHF = ("ppo", "rloo", "grpo", "reinforce", "best_of_n", "online_dpo")
FAMILY_NAMES = {"dpo": "DPO", "cpo_smooth": "Constrained preference optimization", "ppo": "RLHF", "rloo": "RLHF"}


@dataclass(frozen=True, slots=True)
class Field:
    """One table field: main text, a smaller second line, a background colour (`#rrggbb` or empty)."""

    main: str
    sub: str = ""
    shade: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the first column heads its rows. `note` stands below."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Field, ...], ...]
    note: str = ""


def fields(*texts: str) -> tuple[Field, ...]:
    """A row of one-line fields."""
    return tuple(Field(text) for text in texts)


def approaches(condition: Condition, conditions: Sequence[Condition]) -> Table:
    """Approach x (alignment fidelity, loss behaviour under assumption violation, stability), measured here."""
    noisy = [c for c in conditions if c.labels == condition.labels and c.misaligned == condition.misaligned]
    noisiest = max((c for c in noisy if not c.clean), key=lambda c: c.rate, default=None)
    rows = []
    for name, cells in condition.by_objective.items():
        measured = [cell for cell in cells if cell.values("ranking_accuracy")]
        if measured:
            rows.append(_approach(name, measured, noisiest if condition.clean else None))
        else:
            rows.append((Field(visible(name)), *fields("no finished run", DASH, DASH)))
    if not set(condition.by_objective) & set(RLHF):
        rows.append((Field("RLHF", ", ".join(RLHF[:3]) + ", \u2026"), *fields(*["not in this sweep"] * 3)))
    return Table(
        f"Approaches under {condition.title}, each at its own worst beta",
        ("Approach", "Alignment fidelity: ranked right", "Loss behaviour when violated", "Stability"),
        tuple(rows),
        "Worst beta: the one with the lowest ranking accuracy. Losses are comparable within a row only."
        " \u201cFell while wrong\u201d: held-out pairs whose own loss ended below where it began although"
        " the policy ranks them wrong.",
    )


def _approach(name: str, cells: Sequence[Cell], noisy: Condition | None) -> tuple[Field, ...]:
    worst = min(cells, key=lambda cell: cell.estimate("ranking_accuracy").mean)
    best = max(cells, key=lambda cell: cell.estimate("ranking_accuracy").mean)
    wrong = worst.fact_estimate("fell_while_wrong")
    first, last = (number(worst.estimate(f"train_loss_{end}").mean) for end in ("first", "last"))
    other = "" if len(cells) < 2 else f"best: {number(best.estimate('ranking_accuracy').mean)} at beta {_beta(best)}"
    sd = spread(worst)
    return (
        Field(FAMILY_NAMES.get(name, visible(name)), visible(name) if name in FAMILY_NAMES else ""),
        Field(f"{shown(worst.estimate('ranking_accuracy'))} at beta {_beta(worst)}", other),
        Field(f"{shown(wrong)} fell while wrong" if wrong.n else "no per-pair records", f"loss {first} \u2192 {last}"),
        Field(
            f"sd over seeds {number(sd)}" if math.isfinite(sd) else "one seed: no spread",
            _from_clean_to_noise(worst, noisy),
        ),
    )


def _from_clean_to_noise(cell: Cell, noisy: Condition | None) -> str:
    if noisy is None:
        return ""
    twins = [c for c in noisy.cells if c.first.config["objective"] == cell.first.config["objective"]]
    if not twins or not twins[0].values("ranking_accuracy"):
        return ""
    change = paired_difference(twins[0].values("ranking_accuracy"), cell.values("ranking_accuracy"))
    return f"{shown(change)} from clean to {noisy.corruption} {noisy.rate:.3g}"


def _beta(cell: Cell) -> str:
    return plain(cell.first.beta)


def heat(condition: Condition, axes: Sequence[str]) -> Table:
    """Ranking accuracy by objective and beta: the betas of a row ascend, each field names its own."""
    rows = []
    for name, cells in condition.by_objective.items():
        rows.append((Field(visible(name)), *(_heat_field(cell, axes) for cell in cells)))
    width = max(len(row) for row in rows)
    header = ("Objective", *(_place(i, width - 1) for i in range(width - 1)))
    filled = tuple(row + (Field(DASH),) * (width - len(row)) for row in rows)
    return Table(condition.title, header, filled)


def _place(i: int, n: int) -> str:
    return {1: ("beta",), 2: ("low beta", "high beta"), 3: ("low beta", "middle beta", "high beta")}.get(
        n, tuple(f"beta {k + 1}" for k in range(n))
    )[i]


def _heat_field(cell: Cell, axes: Sequence[str]) -> Field:
    found = cell.estimate("ranking_accuracy")
    own = cell.first.settings()
    extra = [f"{a[3:]} {visible(own[a])}" for a in axes if a.startswith("hp.") and own.get(a) is not None]
    label = ", ".join([f"\u03b2\u00a0{_beta(cell)}", *extra])
    if cell.done < cell.planned:
        states = [run.status for run in cell.runs]
        lost = [f"{states.count(word)} {word}" for word in STATUSES[1:] if word in states]
        label += f"; incomplete: {cell.done} of {cell.planned} seeds ({', '.join(lost)})"
    if not found.n:
        return Field(DASH, label)
    bounds = interval(found.low, found.high, 2).replace(" ", "\u00a0")
    return Field(number(found.mean, 3), f"{bounds} {label}".strip(), _shade(found.mean))


def _shade(share: float) -> str:
    """White at one half, towards light blue at 1 and light orange at 0: dark text stays legible on every step."""
    end = (0xA9, 0xCF, 0xE8) if share >= 0.5 else (0xF6, 0xC9, 0xA8)
    weight = min(abs(share - 0.5) * 2, 1.0)
    return "#" + "".join(f"{round(255 + (channel - 255) * weight):02x}" for channel in end)


def survival(conditions: Sequence[Condition]) -> list[Table]:
    """Per corruption kind: the largest tested rate up to which ranking accuracy stays clearly above a yardstick."""
    tables = []
    for kind in sorted({c.corruption for c in conditions if not c.clean} - {"sequence"}):
        settings = sorted({(c.labels, c.misaligned) for c in conditions if c.corruption == kind}, key=repr)
        families = [find(conditions, *setting, kind) for setting in settings]
        heads = ["" if dial is None else f"misaligned {plain(dial)}: " for _, dial in settings]
        rows = []
        for cell in families[0][0].cells:
            row = [Field(named(cell))]
            for family in families:
                row += [Field(_survived(cell, family, against)) for against in ("half", "reference")]
            rows.append(tuple(row))
        header = tuple(f"{head}{text}" for head in heads for text in ("above chance", "above the reference"))
        tables.append(
            Table(
                f"Largest rate of {visible(kind)} survived",
                ("Objective and beta", *header),
                tuple(rows),
                "Rule: at this rate and at every lower one tested, the lower end of the 95 % interval of ranking"
                " accuracy lies above .5 (chance), or the paired interval of its difference to the untrained reference"
                " lies above 0. \u201cnone\u201d: not even on clean labels. One seed has no interval, hence a"
                " dash.",
            )
        )
    return tables


def _survived(cell: Cell, family: Sequence[Condition], against: str) -> str:
    reached = None
    for condition in family:
        twins = [c for c in condition.cells if c.first.config["objective"] == cell.first.config["objective"]]
        if not twins or len(twins[0].values("ranking_accuracy")) < 2:
            return DASH if reached is None else f"{reached:.3g} (then untested)"
        if not survives(twins[0], against):
            return "none" if reached is None else f"{reached:.3g}"
        reached = condition.rate
    return DASH if reached is None else f"{reached:.3g} (all tested)"


def contrast_table(contrasts: Sequence[Contrast], condition: Condition) -> Table | None:
    """Ranking accuracy against the baseline in the headline condition."""
    rows = tuple(
        fields(
            f"{named(c.cell)} \u2212 {named(c.base)}",
            str(c.plain.n),
            shown(c.plain),
            interval(c.corrected.low, c.corrected.high) or DASH,
            DASH if c.p is None else number(c.p),
            c.word,
        )
        for c in contrasts
        if c.cell in condition.cells
    )
    if not rows:
        return None
    corrected = f"corrected for {contrasts[0].family}"
    header = ("Difference", "seeds", "ranking accuracy, 95 %", corrected, "p (Holm)", "verdict")
    note = "Other conditions and measures: contrasts.csv. Below 6 seeds no p-value and no verdict is given."
    return Table(f"Against the baseline, paired by seed, under {condition.title}", header, rows, note)


def sample_table(cells: Sequence[Cell], count: int = 4) -> Table | None:
    """What two cells' policies answer to the same prompts (first common seed), as data and never as markup."""
    found: list[dict[str, str]] = []
    for cell in cells:
        paths = [run.folder / "samples.parquet" for run in cell.runs if run.folder and run.status == "done"]
        if not paths or not paths[0].is_file():
            return None
        table = read_table(paths[0])
        found.append(dict(sorted(zip(map(str, table["prompt"]), map(str, table["response"]), strict=True))))
    prompts = sorted(set.intersection(*map(set, found)))[:: max(1, len(found[0]) // count)][:count] if found else []
    if not prompts:
        return None
    rows = tuple(fields(shorten(prompt), *(shorten(answers[prompt]) for answers in found)) for prompt in prompts)
    return Table("Free-running samples to the same prompts", ("Prompt", *map(named, cells)), rows)


def group_table(cells: Sequence[Cell]) -> Table | None:
    """Ranking accuracy by the pairs' own group, for the cells of the answer."""
    names = sorted({name for cell in cells for groups in _groups(cell) for name in groups})
    if len(names) < 2:
        return None
    rows = tuple((Field(shorten(name, 60)), *(_group_field(cell, name) for cell in cells)) for name in names)
    return Table("Ranking accuracy by kind of pair, mean over seeds", ("Kind", *map(named, cells)), rows)


def _groups(cell: Cell) -> list[Mapping[str, tuple[int, float]]]:
    return [cell.facts[run.key].groups for run in cell.runs if run.key in cell.facts]


def _group_field(cell: Cell, name: str) -> Field:
    found = [groups[name] for groups in _groups(cell) if name in groups]
    if not found:
        return Field(DASH)
    pairs = sum(count for count, _ in found)
    return Field(number(math.fsum(share for _, share in found) / len(found)), f"{pairs} pairs")


def status_line(sweep: Sweep) -> str:
    """`444 runs: 440 done, 2 diverged, 2 pending`."""
    parts = [f"{sweep.count(word)} {word}" for word in STATUSES if sweep.count(word) or word == "done"]
    return f"{len(sweep.runs)} run{'s' if len(sweep.runs) != 1 else ''}: {', '.join(parts)}"
