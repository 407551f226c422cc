from __future__ import annotations

import pytest

from dags.run_outcome import DECISIONS, PROMOTIONS, RunOutcome, determine_outcome

NEW = {"run_id": "r", "status": "new", "sentence": "run r begins"}
GREEN = {"snapshot": "success", "train_0": "success", "gate": "success"}
FIRST = {"kind": "first", "sentence": "s"}


@pytest.mark.parametrize(
    ("kind", "is_red", "exit_code"),
    [(kind, kind == "block", 5 if kind == "block" else 0) for kind in DECISIONS],
)
def test_a_decision_gives_the_outcome(kind: str, is_red: bool, exit_code: int) -> None:
    outcome = determine_outcome(GREEN, NEW, {"kind": kind, "sentence": "s"}, {})

    assert outcome == RunOutcome(kind, "s", is_red, exit_code, cause="block" if is_red else "")


def test_every_decision_is_listed() -> None:
    assert set(DECISIONS) == {"first", "switch", "refresh", "keep", "block"}
    assert set(DECISIONS) - set(PROMOTIONS) == {"keep", "block"}


@pytest.mark.parametrize("status", ["already_done", "nothing_to_do", "superseded"])
def test_a_run_without_work_is_green(status: str) -> None:
    states = {"snapshot": "success", "validate": "skipped", "gate": "skipped"}

    outcome = determine_outcome(states, {"status": status, "sentence": "why"}, {}, {})

    assert outcome == RunOutcome(status, "why", is_red=False, exit_code=0)


def test_an_expected_failure_keeps_its_sentence_and_exit_code() -> None:
    states = {**GREEN, "train als": "failed", "gate": "upstream_failed"}
    problem = {"id": "memory.needed", "sentence": "7 GB are missing", "exit_code": 2}

    outcome = determine_outcome(states, NEW, {}, {"train als": problem})

    sentence, cause = "train als failed: 7 GB are missing", "memory.needed 0 GB are missing"
    assert outcome == RunOutcome("failed", sentence, True, 2, cause, "train als")


@pytest.mark.parametrize(
    ("states", "started", "decision", "sentence"),
    [
        ({**GREEN, "refit": "failed"}, NEW, FIRST, "refit failed: the task was stopped"),
        ({"snapshot": "upstream_failed"}, {}, {}, "a task before this one did not run"),
        ({}, {}, {}, "a task before this one did not run"),
        ({"publish": "upstream_failed"}, NEW, FIRST, "a task before this one did not run"),
        ({"snapshot": "success", "gate": "skipped"}, NEW, {}, "the gate decided nothing"),
        (GREEN, NEW, {"kind": "perhaps", "sentence": "s"}, "unknown decision 'perhaps'"),
    ],
)
def test_everything_else_is_red_with_exit_code_1(
    states: dict[str, str], started: dict[str, str], decision: dict[str, str], sentence: str
) -> None:
    outcome = determine_outcome(states, started, decision, {})

    assert (outcome.status, outcome.is_red, outcome.exit_code) == ("failed", True, 1)
    assert outcome.sentence.startswith(sentence)
    assert outcome.cause
