"""Outcome of a nightly run, as a pure function of the states and results of its tasks.

Guarantees:

* A run is green only if it promoted a model, kept the champion, or had nothing to do: no retrain
  was needed, or another run had decided already.
* Airflow is not imported: `make run` imports this before it has set Airflow's environment.
* A task that failed, or did not run although it should have, makes the run red with a reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PROMOTIONS = ("first", "switch", "refresh")
"""Decisions that put a model live."""
DECISIONS = (*PROMOTIONS, "keep", "block")


@dataclass(frozen=True)
class RunOutcome:
    """End of a nightly run.

    Attributes
    ----------
    status
        The gate's decision (``first``, ``switch``, ``refresh``, ``keep``, ``block``), or
        ``already_done``, ``nothing_to_do``, ``superseded``, ``failed``.
    sentence
        The reason, in one sentence.
    is_red
        Whether the DAG run must fail.
    exit_code
        0, or the exit code that the command line would have returned.
    cause
        The same text for runs that are red for the same reason.
    task
        The task that failed, as in the sentence; empty for a decision.
    """

    status: str
    sentence: str
    is_red: bool
    exit_code: int
    cause: str = ""
    task: str = ""


def determine_outcome(
    states: Mapping[str, str | None],
    started: Mapping[str, Any],
    decision: Mapping[str, Any],
    problems: Mapping[str, Mapping[str, Any]],
) -> RunOutcome:
    """Return the outcome of a run.

    Parameters
    ----------
    states
        State of each task (``train als``, ``train blend``, … for mapped ones).
    started
        ``status`` and ``sentence`` of `snapshot`; empty if it failed.
    decision
        ``kind`` and ``sentence`` of the decision; empty if there is none.
    problems
        Task -> ``id``, ``sentence`` and ``exit_code`` of its failure, unless it was stopped.
    """
    # Failures come first: the tasks after a failed one did not run because of it.
    failed = sorted(task for task, state in states.items() if state == "failed")
    if failed:
        task = next((task for task in failed if task in problems), failed[0])
        stopped = {"id": "", "sentence": "the task was stopped: see its log", "exit_code": 1}
        problem = problems.get(task, stopped)
        sentence = f"{task} failed: {problem['sentence'].rstrip('.')}"
        return _failure(sentence, problem["exit_code"], cause=problem_key(problem), task=task)
    if not started or "upstream_failed" in states.values():
        return _failure("a task before this one did not run: see the graph")
    if started["status"] != "new":
        return RunOutcome(started["status"], started["sentence"], is_red=False, exit_code=0)
    if not decision:
        return _failure(
            "the gate decided nothing: no recipe could be trained; see the logs of train"
        )
    kind, sentence = decision["kind"], decision["sentence"]
    if kind not in DECISIONS:
        return _failure(f"unknown decision {kind!r} of the gate")
    blocked = kind == "block"
    code = 5 if blocked else 0
    return RunOutcome(kind, sentence, is_red=blocked, exit_code=code, cause=kind if blocked else "")


def _failure(sentence: str, exit_code: int = 1, cause: str = "", task: str = "") -> RunOutcome:
    return RunOutcome("failed", sentence, True, exit_code, cause or sentence, task)


def problem_key(problem: Mapping[str, Any]) -> str:
    """Return the same text for equal problems, whichever task or DAG found them."""
    # Sentences may hold numbers that change from run to run, such as ids of processes.
    return re.sub(r"\d+", "0", f"{problem['id']} {problem['sentence']}")
