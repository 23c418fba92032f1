"""The rules of the architecture and the code that checks them; tests/test_layers.py applies them to harness/.

Every check is a pure function over `{module name: source}` and returns one line per offence.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# From left to right: a module may import its own room and every layer above it, never a neighbour room of its layer.
# A module belongs to the first room that has a pattern for it.
LAYERS: tuple[dict[str, tuple[str, ...]], ...] = (
    {"types": ("harness", "harness.types", "harness.types")},
    {"names": ("harness.identity",), "palette": ("harness.palette",)},
    {
        "measure": ("harness.metrics", "harness.metrics.*"),
        "objective table": ("harness.objectives", "harness.objectives.registry*"),
        "corruption table": ("harness.data", "harness.corruptions.registry", "harness.corruptions.row*"),
        "units": ("harness.text",),
        "model files": ("harness.model_files", "harness.model_files.*"),
    },
    {"spec": ("harness.config.load", "harness.config.load.*", "harness.run_names")},
    {
        "data": ("harness.data.*",),
        "objectives": ("harness.objectives.*",),
        "tracking": ("harness.tracking", "harness.tracking.*"),
    },
    {"models": ("harness.models", "harness.models.*")},
    {"evaluation": ("harness.evaluation", "harness.evaluation.*")},
    {"training": ("harness.training", "harness.training.*")},
    {"rlhf": ("harness.rlhf", "harness.rlhf.*")},
    {"preflight": ("harness.preflight", "harness.preflight.*")},
    {"report": ("harness.report", "harness.report.*"), "listing": ("harness.commands.listing",)},
    {
        "sweep": ("harness.sweep", "harness.sweep.*"),
        "frames": ("harness.frames",),
        "doctor": ("harness.commands.doctor",),
        "starter": ("harness.commands.init",),
    },
    {"study": ("harness.study", "harness.study.*")},
    {"cli": ("harness.cli", "harness.commands", "harness.commands.*", "harness.__main__")},
)
# Importing from the right, (pattern, target), each with its reason; one that nothing uses any more is an error, too.
EXCEPTIONS = {
    ("harness.config.load.*", "harness.data.pairs"): "the content hash of the user's file enters the run key",
    ("harness.config.load.*", "harness.data.files"): "a split that a folder lacks is named before anything runs",
    ("harness.config.load.*", "harness.data.formats"): "the names that data.format may take are those of the registry",
    ("harness.config.load.*", "harness.data.hub"): "the commit of a hub data set enters the run key",
    ("harness", "harness.frames"): "the door for notebooks, `from harness import load`, opens on first use",
}
# The report is drawn from files: it never meets the engine, the spec or a tracking server.
REPORT_SOURCES = (
    "harness.types",
    "harness.identity",
    "harness.palette",
    "harness.metrics*",
    "harness.report*",
    "harness.tracking",
    "harness.storage.evaluations",
    "harness.storage.atomic",
    "harness.storage.journal",
    "harness.storage.plan_file",
    "harness.storage.runs",
)

HOMES: dict[str, tuple[str, ...]] = {
    "mlflow": ("harness.tracking.mlflow_*",),
    "optuna": ("harness.study.optuna_adapter",),
    "lm_eval": ("harness.evaluation.lm_eval",),
    "datasets": ("harness.data.hub",),
    "matplotlib": ("harness.report.figures*", "harness.report.render.figures"),
    "transformers": ("harness.models.*", "harness.data.tokenize"),
    "peft": ("harness.models.*",),
    "tokenizers": ("harness.models.*", "harness.data.tokenize"),
    "pydantic": ("harness.config.load", "harness.config.load.*"),
    "typer": ("harness.cli", "harness.commands.*"),
    "ray": ("harness.sweep.engines.*",),
    "submitit": ("harness.sweep.engines.*",),
    "trl": (),
}
TORCH_FREE = (
    *("harness", "harness.frames", "harness.types", "harness.types", "harness.identity"),
    *("harness.palette", "harness.run_names"),
    *("harness.commands.listing", "harness.metrics*"),
    *(
        "harness.config.load",
        "harness.config.load.*",
        "harness.model_files*",
        "harness.objectives",
        "harness.objectives.registry*",
    ),
    *("harness.data", "harness.corruptions", "harness.corruptions.*", "harness.data.pairs", "harness.data.files"),
    *("harness.data.formats", "harness.data.formats.*"),
    *("harness.data.rows", "harness.data.order", "harness.tracking*", "harness.report*"),
    *(
        "harness.sweep",
        "harness.sweep.plan",
        "harness.sweep.estimates",
        "harness.sweep.packing",
        "harness.sweep.detectable",
        "harness.study*",
    ),
    *("harness.sweep.status", "harness.sweep.verify", "harness.sweep.clean", "harness.sweep.rerun"),
    *("harness.sweep.signals", "harness.sweep.engines", "harness.worker.protocol", "harness.sweep.console"),
    *("harness.commands.doctor", "harness.commands.init", "harness.text"),
    *("harness.cli", "harness.commands*", "harness.__main__"),
)
BRINGS_TORCH = {"torch", "transformers", "lm_eval", "peft", "accelerate", "trl"}
ENGINE = ("harness.types", "harness.objectives*", "harness.models*", "harness.training*")
NOT_IN_ENGINE = {"mlflow", "optuna", "lm_eval", "datasets", "pydantic"}
RUNS_CODE_FROM_FILES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@dataclass(frozen=True)
class Import:
    """One import statement's target; `when` is load (runs on import), call (inside a function) or typing."""

    target: str
    line: int
    when: str


def is_typing_guard(node: ast.AST) -> bool:
    """Whether `node` is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def imports(name: str, source: str, modules: Mapping[str, str]) -> Iterator[Import]:
    """Every import of a module, relative ones resolved; a submodule is named in full, an attribute is not."""
    is_package = any(other.startswith(f"{name}.") for other in modules)

    def walk(node: ast.AST, when: str) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, when) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = name.split(".")[: None if is_package and node.level == 1 else -node.level + is_package]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield Import(full if full in modules else base, node.lineno, when)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"import_module", "importlib.import_module"}:
            if node.args and isinstance(node.args[0], ast.Constant):
                yield Import(str(node.args[0].value), node.lineno, when)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            when = "call" if when == "load" else when
        if isinstance(node, ast.If) and is_typing_guard(node):
            for guarded in node.body:
                yield from walk(guarded, "typing")
            for other in node.orelse:
                yield from walk(other, when)
        else:
            for child in ast.iter_child_nodes(node):
                yield from walk(child, when)

    yield from walk(ast.parse(source), "load")


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether one of the patterns fits the module's name."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def room_of(name: str) -> tuple[int, str] | None:
    """(layer number, room) of a module, or None where no rule places it."""
    for layer, rooms in enumerate(LAYERS):
        for room, patterns in rooms.items():
            if matches(name, patterns):
                return layer, room
    return None


def direction_problems(modules: Mapping[str, str], exceptions: Mapping[tuple[str, str], str]) -> list[str]:
    """Imports that point the wrong way, whenever they run, for types only as well."""
    problems: list[str] = []
    used: set[tuple[str, str]] = set()
    for name, source in modules.items():
        here = room_of(name)
        if here is None:
            problems.append(f"{name}: belongs to no layer of tests/layers.py; give it one")
            continue
        for found in imports(name, source, modules):
            there = room_of(found.target)
            if not found.target.startswith("harness") or there is None:
                continue
            excused = [rule for rule in exceptions if fnmatchcase(name, rule[0]) and found.target == rule[1]]
            if excused:
                used.update(excused)
            elif (there[0] >= here[0] and there != here) or (
                here[1] == "report" and not matches(found.target, REPORT_SOURCES)
            ):
                problems.append(f"{name}:{found.line}: {here[1]} must not import {found.target} ({there[1]})")
    return problems + [f"{a} -> {b}: exception no longer used" for a, b in exceptions if (a, b) not in used]


def home_problems(modules: Mapping[str, str]) -> list[str]:
    """Libraries met outside their home, whenever the import runs."""
    return [
        f"{name}:{found.line}: {library} is at home only in {', '.join(HOMES[library]) or 'the tests'}"
        for name, source in modules.items()
        for found in imports(name, source, modules)
        if (library := found.target.split(".")[0]) in HOMES and not matches(name, HOMES[library])
    ]


def loaded_by(start: str, modules: Mapping[str, str]) -> dict[str, str]:
    """What importing `start` imports at once, its packages and all that follows: target -> the module that asks."""
    seen: dict[str, str] = {start: start}
    queue = [start]
    while queue:
        name = queue.pop()
        parents = {name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)}
        wanted = {found.target for found in imports(name, modules[name], modules) if found.when == "load"}
        for target in sorted(parents | wanted):
            if target not in seen:
                seen[target] = name
                if target in modules:
                    queue.append(target)
    return seen


def load_problems(modules: Mapping[str, str], patterns: tuple[str, ...], forbidden: set[str]) -> list[str]:
    """Modules under `patterns` whose import pulls in a forbidden library, by whatever way."""
    return [
        f"{name}: importing it imports {target}, in {asker}"
        for name in modules
        if matches(name, patterns)
        for target, asker in loaded_by(name, modules).items()
        if target.split(".")[0] in forbidden
    ]


def unsafe_problems(modules: Mapping[str, str]) -> list[str]:
    """Code run from data: pickles, `eval`, `exec`, remote code, loaders that allow them."""
    problems: list[str] = []
    for name, source in modules.items():
        problems += [
            f"{name}:{found.line}: {found.target} runs code from files"
            for found in imports(name, source, modules)
            if found.target.split(".")[0] in RUNS_CODE_FROM_FILES
        ]
        for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
            function = ast.unparse(call.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            last = function.rsplit(".", 1)[-1]
            if (
                function in {"eval", "exec", "torch.save", "yaml.unsafe_load", "yaml.full_load"}
                or last in {"read_pickle", "to_pickle"}
                or (function == "torch.load" and keywords.get("weights_only") != "True")
                or keywords.get("allow_pickle", "False") != "False"
                or keywords.get("trust_remote_code", "False") != "False"
            ):
                problems.append(f"{name}:{call.lineno}: {function}(...) can run code from data")
    return problems


def read_modules() -> dict[str, str]:
    """`{module name: source}` of everything under harness/."""
    found = {}
    for path in sorted((ROOT / "harness").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text("utf-8")
    return found
