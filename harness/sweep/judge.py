"""`harness judge`: an endpoint compares the runs' free answers with the reference's, or with another run's.

Every comparison is asked in both orders. Verdicts go into the sweep's journal as they come, by the content of the
comparison, so a judge that was stopped continues, and equal answers of two runs are judged once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np

from harness.evaluation.chat_endpoint import ChatEndpoint, NoReply, Retries, check_endpoint, read_key
from harness.evaluation.judge import Comparison, Judge, comparison_key, message, read_template, read_verdict
from harness.identity import content_hash
from harness.metrics.judge import TIE, Judged, bias_text, from_plain, plain, win_rate
from harness.metrics.records import column, select
from harness.metrics.samples import EVALUATION_SPLITS
from harness.report.data.sweep import Run, read_sweep
from harness.signals import Interrupted, Stop
from harness.storage.journal import Journal, JournalDamaged
from harness.storage.judgements import FOLDER, REFERENCE, VERDICTS, Judgement, read_verdicts, write_judgement
from harness.storage.lock import sweep_lock
from harness.storage.runs import RESULT
from harness.types import InputError

Say = Callable[[str], None]
GIVE_UP = 3  # comparisons in a row without a reply: the endpoint is down, and more attempts only cost time


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """What `harness judge` was asked for. `limit`: first prompts of each run; `most`: new comparisons (None: all)."""

    endpoint: str
    model: str
    against: str = ""
    template: Path | None = None
    limit: int | None = None
    most: int | None = None
    concurrency: int = 4
    max_tokens: int = 512
    key_env: str = ""
    send_texts: bool = False
    retries: Retries = field(default_factory=Retries)


@dataclass(frozen=True, slots=True)
class _Pair:
    """One prompt with the run's answer and its opponent's."""

    prompt: str
    answer: str
    opponent: str

    @property
    def same(self) -> bool:
        return self.answer == self.opponent

    @property
    def orders(self) -> tuple[Comparison, Comparison]:
        """The answer shown first, and shown second."""
        return (
            Comparison(self.prompt, self.answer, self.opponent),
            Comparison(self.prompt, self.opponent, self.answer),
        )


def judge_folder(
    folder: Path, options: JudgeOptions, say: Say, stop: Stop
) -> tuple[list[tuple[Path, Judgement]], list[str]]:
    """Judge a run, or the runs of a sweep: each run's folder with its judgement, and what failed.

    The judgement stands in `judge.json` of the run's folder, made of all verdicts that there are. Raises InputError for
    what cannot be asked, and Interrupted after a signal, when the answers under way have come.
    """
    check_endpoint(options.endpoint, options.send_texts)
    key = read_key(options.key_env)
    judge = Judge(options.endpoint.rstrip("/"), options.model, read_template(options.template), options.max_tokens)
    alone = (folder / RESULT).exists()
    sweep_folder = folder.resolve().parent if alone else folder
    runs = [run for run in read_sweep(sweep_folder).runs if run.done and run.folder is not None]
    opponent = _opponent(runs, options.against)
    chosen = [run for run in runs if run is not opponent and (not alone or run.folder == folder.resolve())]
    pairs = {run.key: paired for run in chosen if (paired := _pairs(run, opponent, options.limit))}
    if not pairs:
        raise InputError(f"{folder}: no finished run with answers to judge; " + (
            f"none shares a prompt with {options.against}" if opponent else "run the sweep with evaluation.samples"
        ))  # fmt: skip
    place = sweep_folder / FOLDER
    place.mkdir(mode=0o700, exist_ok=True)
    with sweep_lock(place):
        try:
            verdicts = read_verdicts(sweep_folder)
        except JournalDamaged as error:
            raise InputError(f"{error}; move the file away to judge anew") from None
        missing = _missing(list(pairs.values()), judge, verdicts)
        todo = dict(islice(missing.items(), options.most))
        say(f"judge    {sum(map(len, pairs.values()))} prompts of {len(pairs)} runs: "
            f"{len(missing)} comparisons to ask, {len(todo)} of them now")  # fmt: skip
        endpoint = ChatEndpoint(judge.endpoint, judge.model, judge.max_tokens, key, options.retries)
        failures = _ask(endpoint, judge, todo, verdicts, place / VERDICTS, options.concurrency, say, stop)
        template = content_hash(judge.template)
        against = opponent.folder.name if opponent is not None and opponent.folder is not None else REFERENCE
        found = []
        for run in chosen:
            if run.key in pairs and run.folder is not None and run.result is not None:
                result = win_rate([_judged(pair, judge, verdicts) for pair in pairs[run.key]])
                step = int(run.result["steps"])
                judgement = Judgement(judge.model, judge.endpoint, template, against, step, plain(result))
                write_judgement(run.folder, judgement)
                found.append((run.folder, judgement))
    if stop.received:
        raise Interrupted(stop.received)
    return found, failures


def _opponent(runs: Sequence[Run], name: str) -> Run | None:
    """The run that `--against` names by its folder or the beginning of it; None for the reference."""
    if not name:
        return None
    wanted = Path(name).name
    named = [run for run in runs if run.folder is not None and run.folder.name.startswith(wanted)]
    exact = [run for run in named if run.folder is not None and run.folder.name == wanted]
    if len(exact or named) != 1:
        what = f"matches {len(named)} finished runs" if named else "is no finished run of this sweep"
        raise InputError(f"--against {name}: {what}; name one run's folder")
    return (exact or named)[0]


def _pairs(run: Run, opponent: Run | None, limit: int | None) -> list[_Pair]:
    """The held-out prompts of a run with its answer and the opponent's; empty where there are none."""
    own = _answers(run)
    if opponent is None:
        found = [_Pair(prompt, answer, reference) for (prompt, _), (answer, reference) in own.items()]
    else:
        theirs = _answers(opponent)
        found = [_Pair(place[0], answer, theirs[place][0]) for place, (answer, _) in own.items() if place in theirs]
    return found[:limit]


def _answers(run: Run) -> dict[tuple[str, int], tuple[str, str]]:
    """(prompt, how often it came before) -> the run's answer and its reference's."""
    try:
        table = run.table("samples.parquet", ("prompt", "split", "response", "reference_response"))
    except (OSError, ValueError):
        raise InputError(f"{run.folder}: samples.parquet cannot be read; `harness verify` says more") from None
    if table is None:
        return {}
    table = select(table, np.isin(column(table, "split").astype(str), EVALUATION_SPLITS))
    found: dict[tuple[str, int], tuple[str, str]] = {}
    seen: dict[str, int] = {}
    for row in zip(*(map(str, table[name]) for name in ("prompt", "response", "reference_response")), strict=True):
        prompt, response, reference = row
        found[prompt, seen.get(prompt, 0)] = response, reference
        seen[prompt] = seen.get(prompt, 0) + 1
    return found


def _missing(pairs: Sequence[Sequence[_Pair]], judge: Judge, verdicts: Mapping[str, str]) -> dict[str, Comparison]:
    """The comparisons without a verdict by key: prompt by prompt over all runs, so that a budget serves all alike."""
    rows = (pair for row in zip_longest(*pairs) for pair in row if pair is not None and not pair.same)
    asked = ((comparison_key(judge, one), one) for pair in rows for one in pair.orders)
    return {key: one for key, one in asked if key not in verdicts}


def _judged(pair: _Pair, judge: Judge, verdicts: Mapping[str, str]) -> Judged:
    longer = len(pair.answer) - len(pair.opponent)
    if pair.same:
        return Judged(pair.prompt, longer, TIE, TIE, same=True)
    first, second = (verdicts.get(comparison_key(judge, one)) for one in pair.orders)
    return Judged(pair.prompt, longer, first, second)


def _ask(
    endpoint: ChatEndpoint,
    judge: Judge,
    todo: Mapping[str, Comparison],
    verdicts: dict[str, str],
    path: Path,
    concurrency: int,
    say: Say,
    stop: Stop,
) -> list[str]:
    """Ask the comparisons of `todo` and add their verdicts to the journal and to `verdicts`; a line per failure.

    A signal, a refusal, or `GIVE_UP` failures in a row end it when the replies under way have come.
    """
    failures: list[str] = []
    in_a_row = done = 0
    refused: InputError | None = None
    waiting = iter(todo.items())
    journal = Journal(path)
    try:
        with stop.deferring(), ThreadPoolExecutor(concurrency) as threads:
            running: dict[Future[str], str] = {}
            while True:
                if stop.received or refused is not None or in_a_row >= GIVE_UP:
                    endpoint.stop.set()
                    waiting = iter(())
                for key, one in islice(waiting, concurrency - len(running)):
                    running[threads.submit(endpoint.ask, message(judge, one))] = key
                if not running:
                    break
                for future in wait(running, timeout=0.5, return_when=FIRST_COMPLETED).done:
                    key = running.pop(future)
                    try:
                        reply = future.result()
                    except NoReply as error:
                        failures.append(f"{key[:8]}: {error}")
                        in_a_row += 1
                        continue
                    except InputError as error:
                        refused = error
                        continue
                    in_a_row, done = 0, done + 1
                    verdicts[key] = read_verdict(reply)
                    said = endpoint.without_key(reply)[-2000:]
                    journal.append({"kind": "verdict", "key": key, "verdict": verdicts[key], "model": judge.model,
                                    "endpoint": judge.endpoint, "reply": said})  # fmt: skip
                    if done % 100 == 0:
                        say(f"judge    {done} of {len(todo)}")
        journal.sync()
    finally:
        journal.close()
        endpoint.close()
    if refused is not None:
        raise refused
    if in_a_row >= GIVE_UP and done + len(failures) < len(todo):
        failures.append(f"gave up after {in_a_row} comparisons in a row without a reply; the same command continues")
    return failures


def lines(found: Sequence[tuple[Path, Judgement]]) -> list[str]:
    """A line per run, and one where the judge goes by the order."""
    out = []
    for folder, judgement in found:
        one = from_plain(judgement.result)
        controlled = one.length_controlled
        more = f", {controlled.mean:.3f} at equal length" if controlled is not None else ""
        counts = ((one.prompts, "prompts"), (one.unreadable, "unreadable"), (one.missing, "not judged"))
        of = ", ".join(f"{count} {what}" for count, what in counts if count)
        rate = f"{one.win_rate.mean:.3f} [{one.win_rate.low:.3f}, {one.win_rate.high:.3f}]"
        counted = f"{one.wins} won, {one.ties} tied, {one.losses} lost"
        out.append(f"judge    {folder.name} against {judgement.against}: win rate {rate}{more} ({counted}; {of})")
        if one.position_bias:
            out.append(f"warning  {folder.name}: {bias_text(one)}")
    return out
