"""Which of lm-eval's tasks may run, by name. Imports neither lm_eval nor torch.

A task's YAML can import the Python beside it, and some tasks run code that a model wrote. So tasks are named here:
those of lm-eval itself that score or generate text and neither need remote code nor execute any. Groups stand for
their members.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.evaluation.preference_task import NAME
from harness.text import suggestion
from harness.types import InputError

ALLOWED = (
    NAME,
    *("arc_easy", "arc_challenge", "boolq", "copa", "hellaswag", "openbookqa", "piqa", "sciq", "winogrande"),
    *("commonsense_qa", "lambada_openai", "logiqa", "mmlu", "race", "social_iqa", "swag", "wikitext"),
    *("gsm8k", "ifeval", "nq_open", "squadv2", "triviaqa"),
    *("truthfulqa_mc1", "truthfulqa_mc2", "toxigen", "crows_pairs_english", "bbq"),
    *("blimp", "cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "wnli", "wic"),
)
# Tasks that many would ask for and that run what a model wrote: refused with the reason.
RUNS_CODE = ("humaneval", "humaneval_instruct", "humaneval_plus", "mbpp", "mbpp_instruct", "mbpp_plus", "code_eval")


def check_tasks(names: Sequence[str], key: str) -> tuple[str, ...]:
    """The names, each once. Raises InputError, a line for each that may not run; `key` is where they were given."""
    problems = []
    for name in names:
        if name in RUNS_CODE:
            problems.append(f"{key}: '{name}' runs code that a model wrote; it is not run here")
        elif name not in ALLOWED:
            near = suggestion(name, ALLOWED)
            problems.append(f"{key}: '{name}' is not on the list of tasks: {', '.join(ALLOWED)}{near}")
    if not names:
        problems.append(f"{key}: no task named; expected some of {', '.join(ALLOWED)}")
    if problems:
        raise InputError(*problems)
    return tuple(dict.fromkeys(names))
