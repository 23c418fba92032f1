"""A known surface in place of training: each run's score is a function of its settings, with noise from its seed.

Run as a script it is a study over that surface which can be killed at any moment, as the real one can.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.config.study import StudySpec, load_study
from harness.config.study_targets import Constraint, Target
from harness.identity import plain, stream_seed
from harness.storage.runs import commit, find_run, is_final, load_result, open_run
from harness.study.files import TrialRun, all_runs, fresh_runs, write_study_plan
from harness.study.run import cost
from harness.study.search import Bench, search
from harness.study.storage import write_storage
from harness.study.trials import Ledger

BEST_BETA, BEST_RATE, PEAK, NOISE = 1.0, 1e-3, 0.8, 0.02


def surface(beta: float, rate: float) -> float:
    """One peak in log-beta and log-rate, height `PEAK`."""
    return PEAK - 0.05 * math.log10(beta / BEST_BETA) ** 2 - 0.02 * math.log10(rate / BEST_RATE) ** 2


def noise(item: TrialRun) -> float:
    """The luck of a seed: of the run's own settings as well, so that the best of many trials is a lucky one."""
    return NOISE * float(np.random.Generator(np.random.Philox(stream_seed(item.run.seed, "luck", item.key))).normal())


def score(item: TrialRun) -> float:
    """What a run scores."""
    beta = item.run.objective.beta
    return surface(1.0 if beta is None else beta, item.run.training.learning_rate) + noise(item)


def bench(folder: Path, seconds: float = 0.0, broken: Sequence[str] = ()) -> Bench:
    """Trains by waiting `seconds` a run and committing its score; runs whose key is in `broken` commit none."""

    def train(runs: Sequence[TrialRun]) -> None:
        for item in runs:
            if is_final(folder, item.key):
                continue
            with (folder / "trained.log").open("a") as log:
                log.write(f"{item.key}\n")
            place, _ = open_run(folder, item.key, item.name)
            time.sleep(seconds)
            found = {} if item.key in broken else {"ranking_accuracy": score(item)}
            result = {"run_key": item.key, "status": "done", "steps": 1, "results": found, "name": item.name}
            commit(place, {**result, "config": plain(item.run), "costs": {"tokens": 100, "seconds": 1.0}, "t0_ms": 1})

    def value(item: TrialRun, _: Target | Constraint) -> float | None:
        place = find_run(folder, item.key)
        result = load_result(place) if place is not None else None
        return None if result is None else result["results"].get("ranking_accuracy")

    return Bench(train, value, lambda item: cost(folder, item))


def play(spec: StudySpec, out: Path, seconds: float = 0.0) -> Ledger:
    """The whole study on the surface: search, storage, fresh seeds. Slow ones write the storage after every round."""
    folder = out / spec.name
    folder.mkdir(parents=True, exist_ok=True)
    ledger, known = Ledger(folder, spec.key), bench(folder, seconds)
    search(spec, ledger, known, lambda _: print(write_storage(spec, ledger, folder) if seconds else "", end=""))
    known.train(fresh_runs(spec, ledger))
    write_study_plan(folder, spec, all_runs(spec, ledger))
    print(write_storage(spec, ledger, folder), end="")
    return ledger


def stored(url: str) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    """(state, values) of every trial in a storage, by study name."""
    import optuna

    storage = optuna.storages.RDBStorage(url)
    try:
        studies = {name: optuna.load_study(study_name=name, storage=storage)
                   for name in optuna.get_all_study_names(storage)}  # fmt: skip
        return {name: [(t.state.name, tuple(t.values or ())) for t in study.trials] for name, study in studies.items()}
    finally:
        storage.remove_session()
        storage.engine.dispose()


if __name__ == "__main__":
    play(load_study(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
