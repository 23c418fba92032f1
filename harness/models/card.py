"""The model card of an exported run: what it was trained by and on, what was measured, and what it is not for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.models.weights import WeightsNote

# Measures of `results.csv` that say something of the model itself, with what they mean.
MEASURES = {
    "reward_accuracy": "held-out pairs whose chosen response gained more against the reference",
    "ranking_accuracy": "held-out pairs whose chosen response has the higher log-prob",
    "undesirable_zone": "held-out pairs whose chosen response lost log-prob and is not ranked first",
    "chosen_displacement": "change of the chosen response's log-prob, nats",
    "rejected_displacement": "change of the rejected response's log-prob, nats",
    "kl": "estimated divergence from the reference on free-running samples, nats per response",
    "gold_reward": "true reward of free-running samples (embedded world only)",
    "ood_ranking_accuracy": "the ranking on pairs of another distribution",
}


def model_card(result: Mapping[str, Any], note: WeightsNote, pairs: Mapping[str, Any]) -> str:
    """The card as Markdown with the hub's front matter, from a run's `result.json` and its provenance of `pairs`."""
    config = result["config"]
    objective, corruption, training = config["objective"], config["corruption"], config["training"]
    rate = "" if corruption["rate"] is None else f" {corruption['rate']:g}"
    rows = [
        ("objective", objective["name"]),
        *((name, value) for name, value in objective["hyperparameters"]),
        ("corruption", f"{corruption['kind']}{rate}"),
        ("seed", config["seed"]),
        *training.items(),
        ("weights", f"{note.kind}, {note.rule}, after step {note.step} of {result['steps']}"),
        ("status", result["status"]),
        ("run key", result["run_key"]),
    ]
    return "\n".join(
        [
            *_front(config, note),
            f"# {result['name'].partition('-')[2]}",
            "",
            "One run of a sweep of preference objectives, trained to compare recipes under stated noise.",
            "",
            "## Recipe",
            "",
            *_table(rows),
            "",
            "## Model and data",
            "",
            *_table([*_sources(config), ("training pairs", pairs["pairs"]), ("their SHA-256", pairs["sha256"])]),
            "",
            "## Measures",
            "",
            *_table([(f"{name}: {text}", _number(result["results"].get(name))) for name, text in MEASURES.items()]),
            "",
            "On clean held-out pairs of the same source. One run says nothing of the spread over seeds: that stands in",
            "the sweep's report.",
            "",
            "## Limits",
            "",
            *_limits(config, note),
            "",
        ]
    )


def _front(config: Mapping[str, Any], note: WeightsNote) -> list[str]:
    model = config["model"] or {}
    own = [f"base_model: {model['path']!r}"] if model.get("path") else []
    library = "peft" if note.kind == "lora" else "transformers"
    tags = ["tags:", *(f"- {tag}" for tag in ("preference-harness", config["objective"]["name"]))]
    return ["---", f"library_name: {library}", *own, "pipeline_tag: text-generation", *tags, "---", ""]


def _sources(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    if config["world"] is not None:
        world = config["world"]
        return [("world", world["kind"]), ("misaligned", world["misaligned"]), ("labels", world["labels"])]
    data, model = config["data"], config["model"]
    rows = [("data SHA-256", data["sha256"]), ("data format", data["format"] or "detected")]
    rows += [(name, data[name]) for name in ("max_length", "max_prompt_length")]
    if model["kind"] == "tiny":
        return [*rows, ("model", "a small Llama trained on the chosen responses of the data itself")]
    return [*rows, ("base model", model["path"]), ("base model's hash", model["sha256"]), ("dtype", model["dtype"])]


def _limits(config: Mapping[str, Any], note: WeightsNote) -> list[str]:
    lines = ["- Prompts and responses were tokenised each on its own and longer ones cut at the lengths above."]
    if config["corruption"]["kind"] != "none":
        lines.append("- The training labels were damaged on purpose; the model learned from them.")
    if note.rule == "best":
        lines.append("- The checkpoint was chosen on the pairs it is measured on, which flatters the measures.")
    if config["world"] is not None or config["model"]["kind"] == "tiny":
        lines.append("- Far too small to be of use outside the comparison.")
    return [*lines, "- Nothing was done for safety beyond what the data and the base model hold."]


def _number(value: Any) -> str:
    return "not measured" if value is None else f"{value:.4g}"


def _table(rows: list[tuple[str, Any]]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows)]


def _cell(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return "".join(c for c in text if c.isprintable()).replace("|", "\\|").replace("<", "&lt;")
