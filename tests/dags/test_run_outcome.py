from __future__ import annotations

import pytest

from dags.verdict import KINDS, PROMOTIONS, judge

NEW = {"run_id": "r", "status": "new", "sentence": "run r begins"}
GREEN = {"snapshot": "success", "train_0": "success", "gate": "success"}


@pytest.mark.parametrize("kind", [*PROMOTIONS, "keep"])
def test_a_decision_that_is_no_block_is_green(kind: str) -> None:
    ended = judge(GREEN, NEW, {"kind": kind, "sentence": "because"}, {})

    assert (ended.status, ended.sentence, ended.red, ended.exit_code) == (kind, "because", False, 0)
    assert ended.is_news


def test_a_block_is_red_with_the_gates_sentence() -> None:
    ended = judge(GREEN, NEW, {"kind": "block", "sentence": "no baseline"}, {})

    assert (ended.status, ended.sentence, ended.red, ended.exit_code) == (
        "block",
        "no baseline",
        True,
        5,
    )


@pytest.mark.parametrize("status", ["already_done", "nothing_to_do"])
def test_a_night_without_work_is_green_and_no_news(status: str) -> None:
    started = {"status": status, "sentence": "why"}
    states = {"snapshot": "success", "validate": "skipped", "gate": "skipped"}

    ended = judge(states, started, {}, {})

    assert (ended.status, ended.red, ended.is_news) == (status, False, False)


def test_an_expected_failure_is_told_in_its_own_words_and_code() -> None:
    states = {**GREEN, "train_1": "failed", "gate": "upstream_failed"}
    problems = {"train_1": {"sentence": "als: too little memory", "exit_code": 2}}

    ended = judge(states, NEW, {}, problems)

    assert ended.sentence == "train_1: als: too little memory"
    assert (ended.red, ended.exit_code, ended.is_news) == (True, 2, True)


def test_a_bug_is_named_by_its_task() -> None:
    ended = judge({**GREEN, "refit": "failed"}, NEW, {"kind": "first", "sentence": "s"}, {})

    assert (ended.status, ended.red, ended.exit_code) == ("failed", True, 1)
    assert "refit failed" in ended.sentence


@pytest.mark.parametrize(
    ("states", "started", "decided"),
    [
        ({"snapshot": "upstream_failed"}, {}, {}),
        ({}, {}, {}),
        ({"snapshot": "success", "gate": "skipped"}, NEW, {}),
        ({"publish": "upstream_failed"}, NEW, {"kind": "first", "sentence": "s"}),
        (GREEN, NEW, {"kind": "perhaps", "sentence": "s"}),
    ],
)
def test_what_nobody_can_explain_is_red(
    states: dict[str, str], started: dict[str, str], decided: dict[str, str]
) -> None:
    ended = judge(states, started, decided, {})

    assert (ended.status, ended.red, ended.exit_code) == ("failed", True, 1)


def test_every_kind_is_either_a_promotion_or_known() -> None:
    assert set(KINDS) == {"first", "switch", "refresh", "keep", "block"}
