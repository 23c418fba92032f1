"""Which of lm-eval's tasks may run, by name. Imports neither lm_eval nor torch.

A task's YAML can import the Python beside it, and some tasks run code that a model wrote. So tasks are named here:
those of lm-eval itself that score or generate text and neither need remote code nor execute any, and those of a folder
of the user's own. Groups stand for their members.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.evaluation.own_tasks import NO_TASKS, OwnTasks
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


def check_tasks(names: Sequence[str], key: str, own: OwnTasks = NO_TASKS, trusted: bool = False) -> tuple[str, ...]:
    """The names, each once. Raises InputError, a line for each that may not run; `key` is where they were given.

    `own` are the tasks of the user's folder; those that are code run only where they are `trusted`.
    """
    problems = [
        f"{key}: '{name}' of {own.folder} is a task of lm-eval itself; give it another name"
        for name in own.members
        if name in ALLOWED or name in RUNS_CODE
    ]
    for name in names:
        if name in own.members:
            if name in own.code and not trusted:
                problems.append(
                    f"{key}: '{name}' runs code ({own.code[name]}); read it, then pass --trust-task-code or set "
                    "evaluation.lm_eval.trust_task_code: true"
                )
            foreign = [one for one in own.members[name] if one not in own.members and one not in ALLOWED]
            problems += [
                f"{key}: '{name}' holds '{one}', which is neither beside it nor on the list" for one in foreign
            ]
            continue
        if name in RUNS_CODE:
            problems.append(f"{key}: '{name}' runs code that a model wrote; it is not run here")
        elif name not in ALLOWED:
            near = suggestion(name, (*ALLOWED, *own.members))
            listed = ", ".join((*own.members, *ALLOWED))
            problems.append(f"{key}: '{name}' is not on the list of tasks: {listed}{near}")
    if not names:
        problems.append(f"{key}: no task named; expected some of {', '.join(ALLOWED)}")
    if problems:
        raise InputError(*problems)
    return tuple(dict.fromkeys(names))
