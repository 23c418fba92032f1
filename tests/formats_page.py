"""docs/formats.md out of the registry of forms: `python -m tests.formats_page` writes it, a test compares."""

from __future__ import annotations

from pathlib import Path

from harness.data.formats.ranked import RULES
from harness.data.formats.registry import FORMATS
from harness.data.formats.row import Format
from harness.data.formats.trl import SCORES
from harness.data.notes import DROPPED, JUDGED, REFUSED

PAGE = Path(__file__).parents[1] / "docs" / "formats.md"
HEAD = """\
# Formats of preference data

`harness formats` lists every format; `harness formats --json` adds the columns and an example row of each. This page is
written from the same registry (`harness/data/formats/`).

- **Recognised by the rows.** The first 1,000 rows decide. A format is used where its columns are there, hold what they
  should, and no other format fits. Otherwise the error names what fits or what is missing, with row and column, and
  `data.format: NAME` decides. `harness plan SPEC` names the format and shows the first pair as it is trained on;
  `harness init SPEC --data FILE` writes down what it saw.
- **Turns and text.** Formats of questions and turns become conversations: a model from a path writes them with its chat
  template, the tiny model as `Human:` and `Assistant:` turns. `pairs`, `hh`, `unpaired` and `reward_bench` with plain
  text are trained on as they stand, and so are `summaries`.
- **Margins.** Scores, ratings, votes and strengths become `gold_margin`: the score of chosen less that of rejected.
- **System prompts** in a `system` column are used by every format that lists it; elsewhere the plan names the column.
- **Tools.** Turns of tools in a prompt are kept where the model's chat template writes them. An answer that is a call
  of a tool cannot be scored and is dropped.
- **Slices.** `data.slices: [category, source]` keeps columns with each pair, to break results down by.

## Files

JSONL, JSON arrays (read as a stream), CSV and TSV with a header, Parquet; all but Parquet also as `.gz` or `.zst`. In a
folder the split is named by the file (`train-00000-of-00002.parquet`, with or without a hash, `test.jsonl`) or by a
folder above it (`default/train/0000.parquet`, `train/data.jsonl`). `dataset_infos.json` and the like are no data, CSV
is data only in a folder that holds nothing else.

"""


def _columns(form: Format) -> str:
    needed = ", ".join(f"`{name.replace('|', '` or `')}`" for name in form.needs)
    more = [name for name in form.optional if name not in SCORES]
    return needed + (f"; also {', '.join(f'`{name}`' for name in more)}" if more else "")


def page() -> str:
    """The whole page."""
    lines = [
        HEAD + "## Formats",
        "",
        "| `data.format` | what it is | columns | usual slices |",
        "| --- | --- | --- | --- |",
    ]
    for form in FORMATS.values():
        note = f" {form.note[0].upper()}{form.note[1:]}." if form.note else ""
        slices = ", ".join(f"`{name}`" for name in form.slices)
        lines.append(f"| `{form.name}` | {form.doc}.{note} | {_columns(form)} | {slices} |")
    scores = ", ".join(f"`{name}`" for name in SCORES)
    lines += ["", f"Formats with `chosen` and `rejected` also read the scores {scores}.", ""]
    lines += ["## Several answers to a prompt", "", "| `data.pairs` | pairs |", "| --- | --- |"]
    lines += [f"| `{rule}` | {doc} |" for rule, doc in RULES.items()]
    lines += [
        "",
        "`data.pairs_per_prompt: N` keeps the first N pairs of a prompt, over all rows that ask it. Answers of one",
        "grade are never set against each other. Rows of one answer each (`helpsteer`) are gathered by prompt first;",
        "those with a label (`unpaired`, `kto`) are paired in order, the first good answer with the first bad one.",
        "",
        "## Rows that are dropped",
        "",
        "Each is counted and named in the plan and the report. `on_bad_row: error` refuses the file instead, with a",
        f"line for each kind of fault; {' and '.join(f'`{kind}`' for kind in JUDGED)} rows are dropped under either",
        "policy.",
        "",
        "| kind | why |",
        "| --- | --- |",
    ]
    lines += [f"| `{kind}` | {why} |" for kind, why in DROPPED.items()]
    refused = ", ".join(f"`{kind}`" for kind in REFUSED)
    lines += ["", f"Refused under either policy, as the file as a whole is not what was meant: {refused}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
