"""How a night ended, as a pure function of what its tasks left behind.

Promises: a night is green only if it kept, promoted, replayed, or had nothing to do; a task that
failed, was blocked or never ran where it should have makes it red, with a sentence that says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

PROMOTIONS = ("first", "switch", "refresh")
"""The gate's kinds that put a model before people."""
KINDS = (*PROMOTIONS, "keep", "block")


@dataclass(frozen=True)
class Verdict:
    """The end of a night.

    Attributes
    ----------
    status
        The gate's kind (``first``, ``switch``, ``refresh``, ``keep``, ``block``), or
        ``already_done``, ``nothing_to_do``, ``superseded``, ``failed``.
    sentence
        Why, for a person.
    red
        Whether the DAG run has to fail.
    exit_code
        0, or the code that the command line would have ended with.
    """

    status: str
    sentence: str
    red: bool
    exit_code: int

    @property
    def is_news(self) -> bool:
        """Whether the webhook hears of it: red nights and decisions."""
        return self.red or self.status in KINDS

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def judge(
    states: Mapping[str, str | None],
    started: Mapping[str, Any],
    decided: Mapping[str, Any],
    problems: Mapping[str, Mapping[str, Any]],
) -> Verdict:
    """Judge a night.

    Parameters
    ----------
    states
        State of each task (``train_0``, ``train_1``, … for mapped ones).
    started
        What `snapshot` handed on: ``status`` and ``sentence`` at least; empty if it failed.
    decided
        The gate's ``kind`` and ``sentence``; empty if it did not decide.
    problems
        Task -> ``sentence`` and ``exit_code`` of an expected failure.
    """
    failed = sorted(task for task, state in states.items() if state == "failed")
    if failed:
        known = [task for task in failed if task in problems]
        if not known:
            return _failure(f"{', '.join(failed)} failed by a bug: see the task's log")
        problem = problems[known[0]]
        return _failure(f"{known[0]}: {problem['sentence']}", problem["exit_code"])
    if not started or "upstream_failed" in states.values():
        return _failure("a task before this one did not run: see the graph")
    if started["status"] != "new":
        return Verdict(started["status"], started["sentence"], red=False, exit_code=0)
    if not decided:
        return _failure("the gate decided nothing: no recipe could be trained")
    kind, sentence = decided["kind"], decided["sentence"]
    if kind not in KINDS:
        return _failure(f"the gate answered {kind!r}, which no rule knows")
    blocked = kind == "block"
    return Verdict(kind, sentence, red=blocked, exit_code=5 if blocked else 0)


def _failure(sentence: str, exit_code: int = 1) -> Verdict:
    return Verdict("failed", sentence, red=True, exit_code=exit_code)
