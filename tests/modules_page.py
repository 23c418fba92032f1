"""Generates docs/modules.md, every file of `harness/` in a line: `python -m tests.modules_page`."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "harness"
PAGE = ROOT / "docs" / "modules.md"
HEAD = """# Where is what

Every file of `harness/`, in the order in which a sweep flows through the folders
([the picture](../CONTRIBUTING.md#how-the-code-is-laid-out)). `python -m tests.modules_page` writes this page from the
first line of each module.

One subject keeps its name through the layers. For `frontier`: the formula is in `metrics/frontier.py`, what a report
gathers from its runs in `report/data/frontier.py`, the section of the page in `report/sections/frontier.py`. For
`gold`: the keys of a spec in `config/gold_section.py`, the command in `commands/gold.py`, the work in `sweep/gold.py`,
the files in `storage/gold.py`, the section in `report/sections/gold.py`.

Words: a *pack* is the runs that train together in one process; a *lane* is one of them. A *row* is an entry of a
registry (`row.py` holds its type), or a line of a file, table or batch; a *cell* is every setting of a run but the
seed; an *arm* is an objective with all its hyperparameters; a *condition* is what objectives are compared under: world
or data, corruption, training. A *form* is one way in which files spell preference pairs.

## A run, from the command to its result

1. `commands/sweep.py` parses the command line.
2. `api.py` has the verb as a function.
3. `config/load.py` reads the YAML.
4. `config/grid.py` multiplies its axes out to runs.
5. `sweep/run.py` locks the folder and finds which runs are missing.
6. `sweep/packing.py` puts them into packs.
7. `sweep/scheduler.py` hands the packs out,
8. `sweep/engines/process.py` to worker processes.
9. `worker/train_pack.py` takes one pack through all that follows.
10. `worker/prepare.py` makes its runs ready:
11. `inputs/mythworld.py` draws the pairs (of a data set: `inputs/text.py`),
12. `inputs/encoded.py` turns them into rows of tokens with reference log-probs,
13. `inputs/reference_cache.py` stores these,
14. `models/reference_logps.py` computes them;
15. `worker/datasets.py` has the training pairs corrupted,
16. `corruptions/apply.py` does so, by a row such as those in
17. `corruptions/flips.py`;
18. `worker/lanes.py` makes a lane of each run,
19. `worker/trainers.py` chooses the trainer.
20. `worker/checkpointing.py` drives it in blocks of steps,
21. `training/loop.py` takes the steps,
22. `objectives/pairwise.py` has a loss,
23. `evaluation/heldout.py` scores the held-out pairs.
24. `worker/commit.py` writes journal and tables,
25. `storage/runs.py` publishes `result.json`.
"""


def page() -> str:
    """docs/modules.md."""
    parts = [HEAD]
    for folder in folders():
        where = PACKAGE / folder
        files = sorted(path for path in where.glob("*.py") if path.name != "__init__.py" or folder == ".")
        title = "top level" if folder == "." else f"{folder}/"
        intro = [] if folder == "." else [f"{said(where / '__init__.py')}\n"]
        lines = [f"- `{path.name}`: {said(path)}{listed(path)}" for path in files]
        parts.append("\n".join([f"## {title}\n", *intro, *lines, ""]))
    return "\n".join(parts)


def folders() -> list[str]:
    """The folders of the package, "." for its top, each followed by those inside it, in CONTRIBUTING's order."""
    order = re.findall(r"^\| `(\w+)/`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    inside = sorted(str(path.parent.relative_to(PACKAGE)) for path in PACKAGE.rglob("__init__.py"))
    return sorted(inside, key=lambda name: (order.index(name.split("/")[0]) if name != "." else -1, name))


def said(path: Path) -> str:
    """The first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0].strip()


def listed(path: Path) -> str:
    """The rows of a registry that a file holds, under its line; nothing where it holds none."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    rows = getattr(import_module(module), "ROWS", ()) if re.search(r"^ROWS\b", path.read_text("utf-8"), re.M) else ()
    names = ", ".join(f"`{row.name}`" for row in rows if hasattr(row, "name"))
    return f"\n  Rows: {names}" if names else ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
