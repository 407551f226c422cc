from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from pipeline import columns as c
from pipeline.data.features import FeaturesConfig, weigh
from pipeline.data.matrix import History, build_history
from pipeline.data.split import Split, SplitConfig, split
from pipeline.evaluation.beyond_accuracy import COVERAGE, DIVERSITY, GINI, NOVELTY, SERENDIPITY
from pipeline.evaluation.evaluate import (
    NDCG,
    SHORT,
    SLICE,
    USERS,
    evaluate,
    evaluate_stored,
    metric_name,
)
from pipeline.evaluation.holdout import UNANSWERED, with_rows_of
from pipeline.evaluation.metrics import HIT_RATE, PER_USER, RECALL
from pipeline.evaluation.slices import SLICES, slug, user_slices
from pipeline.models.contract import Arrays, Capabilities, Scorer, Scores
from pipeline.models.topk import Lists
from tests.raising import raises

START = datetime(2024, 1, 1, tzinfo=UTC)
CUTOFF = START + timedelta(days=33)
AS_OF = START + timedelta(days=40)


@dataclass(frozen=True, eq=False)
class Ranked(Scorer):
    """All users get the same ranking: a plain scorer whose lists can be read off."""

    capabilities: ClassVar[Capabilities] = Capabilities(fold_in=True, deterministic=True)
    item_scores: NDArray[np.float32]

    def _fold_in(self, history: History) -> Scores:
        users = np.ones((history.n_users, 1), np.float32)
        return Scores(users=users, items=self.item_scores[:, None])

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Scorer:
        raise AssertionError("not needed here")


def log(*rows: tuple[str, str, float]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            c.USER_ID: [r[0] for r in rows],
            c.ITEM_ID: [r[1] for r in rows],
            c.KIND: ["purchase"] * len(rows),
            c.VALUE: [1.0] * len(rows),
            c.TIMESTAMP: pl.Series([START + timedelta(days=r[2]) for r in rows], dtype=c.INSTANT),
        }
    )


PAST = (
    ("ann", "a", 0),
    ("ann", "b", 1),
    ("ann", "c", 32),
    ("bob", "a", 0),
    ("cat", "b", 30),
    ("dan", "d", 2),
)
HOLDOUT = (
    ("ann", "a", 34),
    ("ann", "d", 34),
    ("bob", "c", 35),
    ("bob", "new", 35),
    ("cat", "leak", 36),
    ("dan", "d", 36),
)


def window(*rows: tuple[str, str, float], end: datetime = CUTOFF) -> History:
    return build_history(weigh(log(*rows), FeaturesConfig()), end)


def night(seen: str = "repeat") -> tuple[History, Split]:
    events = log(*PAST, *HOLDOUT)
    config = SplitConfig(task=seen, min_users=2, holdout_days_options=(7,))  # type: ignore[arg-type]
    return build_history(weigh(events, FeaturesConfig()), CUTOFF), split(
        events, AS_OF, config, first=False
    )


def ranked(history: History, *best: str, until: datetime | None = None) -> Ranked:
    item_scores = np.array(
        [-float([*best, i].index(i)) for i in history.item_ids.tolist()], np.float32
    )
    return Ranked(item_scores, item_ids=history.item_ids, trained_until=until or history.end)


def values(frame: pl.DataFrame, column: str) -> dict[str, float | None]:
    return dict(frame.select(c.USER_ID, column).iter_rows())


def test_users_are_evaluated_by_their_targets() -> None:
    history, holdout = night()
    evaluation = evaluate(ranked(history, "d", "c", "b", "a"), history, holdout, k=2)
    users = evaluation.users
    assert users[c.USER_ID].to_list() == ["ann", "bob", "cat", "dan"]
    second = 1 / np.log2(3)
    assert users[NDCG].to_list() == pytest.approx(
        [1 / (1 + second), second / (1 + second), 0.0, 1.0]
    )
    assert users[RECALL].to_list() == [0.5, 0.5, 0.0, 1.0]
    assert users[HIT_RATE].to_list() == [1.0, 1.0, 0.0, 1.0]
    assert evaluation.coverage == evaluation.metrics["coverage_at_2"] == 0.5
    assert evaluation.metrics["users"] == 4.0
    assert evaluation.metrics["recall_at_2"] == 0.5


def test_answers_to_a_list_are_left_out_of_their_own_column_only() -> None:
    history, holdout = night()
    answered = pl.DataFrame({c.USER_ID: ["ann", "dan", "bob"], c.ITEM_ID: ["d", "d", "other"]})
    scorer = ranked(history, "d", "c", "b", "a")
    whole = evaluate(scorer, history, holdout, k=2)
    evaluation = evaluate(scorer, history, holdout, k=2, answered=answered)
    assert evaluation.metrics == whole.metrics
    assert evaluation.users.drop(UNANSWERED).equals(whole.users)
    # ann's a is not among the first two, bob keeps c and new, dan has no other target.
    second = 1 / np.log2(3)
    assert values(evaluation.users, UNANSWERED) == pytest.approx(
        {"ann": 0.0, "bob": second / (1 + second), "cat": 0.0, "dan": None}
    )
    for seen in ("repeat", "discovery"):
        history, holdout = night(seen)
        scorer = ranked(history, "d", "c", "b", "a")
        pair = evaluate_stored(scorer, history, scorer, history, holdout, k=2, answered=answered)
        assert pair.tonight.equals(pair.stored)
        left = values(pair.tonight, UNANSWERED)
        assert left["bob"] == values(pair.tonight, NDCG)["bob"]
        assert (
            left["ann"] == (0.0 if seen == "repeat" else None) != values(pair.tonight, NDCG)["ann"]
        )


def test_discovery_neither_lists_nor_expects_earlier_items() -> None:
    history, holdout = night("discovery")
    evaluation = evaluate(ranked(history, "a", "b", "c", "d"), history, holdout, k=1)
    assert values(evaluation.users, NDCG) == {"ann": 1.0, "bob": 0.0, "cat": 0.0}
    assert evaluation.coverage == 0.75  # d for ann, b for bob, a for cat


def test_a_planted_leak_scores_zero_for_the_best_lists() -> None:
    history, holdout = night()
    for item in history.item_ids.tolist():
        evaluation = evaluate(ranked(history, item), history, holdout, k=20)
        assert values(evaluation.users, NDCG)["cat"] == 0.0
        assert values(evaluation.users, RECALL)["bob"] == 0.5


def test_slices_name_their_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.evaluation.slices.MIN_GROUP_SIZE", 1)
    history, holdout = night()
    segments = pl.DataFrame({c.USER_ID: ["ann", "bob", "dan"], c.SEGMENT: ["Ü 1", "x", None]})
    evaluation = evaluate(ranked(history, "d", "c"), history, holdout, k=2, segments=segments)
    inside = {
        name.removeprefix(SLICE): set(
            evaluation.users.filter(pl.col(name).is_not_null())[c.USER_ID]
        )
        for name in evaluation.users.columns
        if name.startswith(SLICE)
    }
    assert inside == {
        "cold": {"bob", "cat", "dan"},
        "warm": set(),
        "hot": {"ann"},
        "recent": {"ann", "cat"},
        "lapsed": {"bob", "dan"},
        "new_items": {"bob", "cat"},
        "old_items": {"ann", "dan"},
        "segment_1": {"ann"},
        "segment_x": {"bob"},
    }
    assert set(SLICES) <= set(inside)
    assert evaluation.metrics["slice.cold.users"] == 3.0
    assert evaluation.metrics["slice.hot.ndcg_at_2"] == pytest.approx(
        values(evaluation.users, NDCG)["ann"]
    )
    assert "slice.warm.ndcg_at_2" not in evaluation.metrics


@pytest.mark.parametrize(
    ("sizes", "shown"),
    [
        ({"ten": 10, "nine": 9, None: 1}, {"segment_ten"}),
        # The figures of nine users would follow from those of all users and of the others.
        ({"ten": 10, "nine": 9}, set()),
        ({"twenty": 20, "ten": 10, "nine": 9}, {"segment_twenty"}),
        ({"ten": 10, None: 1}, set()),
        ({"ten": 10}, {"segment_ten"}),
        ({"nine": 9}, set()),
    ],
)
def test_no_figure_of_fewer_than_ten_users_follows_from_the_segments(
    sizes: dict[str | None, int], shown: set[str]
) -> None:
    segment = [name for name, size in sizes.items() for _ in range(size)]
    users = [f"u{n}" for n in range(len(segment))]
    history = window(*((user, "a", 1) for user in users))
    segments = pl.DataFrame({c.USER_ID: users, c.SEGMENT: segment})
    named = {name for name in user_slices(history, segments) if name.startswith("segment")}
    assert named == shown


def test_every_metric_is_named_at_both_depths_with_its_interval() -> None:
    history, holdout = night()
    kinds = pl.DataFrame(
        {c.ITEM_ID: ["a", "b", "c", "d"], c.CATEGORIES: [["x"], ["x", "y"], None, ["y"]]},
        schema={c.ITEM_ID: pl.String, c.CATEGORIES: pl.List(pl.String)},
    )
    scorer = ranked(history, "d", "c", "b", "a")
    metrics = evaluate(scorer, history, holdout, k=3, categories=kinds).metrics
    per_user = {*PER_USER, NOVELTY, DIVERSITY, SERENDIPITY}
    named = {
        metric_name(metric, k) + end
        for k in (3, SHORT)
        for metric in per_user
        for end in ("", "_lo", "_hi")
    } | {metric_name(metric, k) for k in (3, SHORT) for metric in (COVERAGE, GINI)}
    assert named | {USERS} == {name for name in metrics if not name.startswith(SLICE)}
    assert metrics["diversity_at_3"] == 0.0  # d and b share y
    assert metrics["diversity_at_10"] == pytest.approx(1 / 3)  # d and a share nothing
    # Everybody's list is d c b: d and c were had by one of four users, b by two.
    assert metrics["novelty_at_3"] == pytest.approx((2 + 2 + 1) / 3)
    # The three most popular items are a, b and c, so d is a hit for ann; dan had it. At 10 every
    # item is expected.
    assert metrics["serendipity_at_3"] == pytest.approx(1 / 3 / 4)
    assert metrics["serendipity_at_10"] == 0.0
    assert metrics["gini_at_10"] == 0.0  # everything is shown to everybody
    assert metrics["gini_at_3"] == pytest.approx(1 / 4)
    without = evaluate(scorer, history, holdout, k=3).metrics
    assert {name for name in metrics if name not in without} == {
        f"diversity_at_{k}{end}" for k in (3, SHORT) for end in ("", "_lo", "_hi")
    }


def test_at_ten_there_is_one_depth() -> None:
    history, holdout = night()
    evaluation = evaluate(ranked(history, "d"), history, holdout, k=SHORT)
    assert {name.rpartition("_at_")[2] for name in evaluation.metrics if "_at_" in name} == {
        "10",
        "10_lo",
        "10_hi",
    }


def test_a_deeper_look_does_not_change_the_lists() -> None:
    history, holdout = night()
    short = evaluate(ranked(history, "d", "b"), history, holdout, k=2).metrics
    long = evaluate(ranked(history, "d", "b"), history, holdout, k=12).metrics
    at_ten = {name: value for name, value in short.items() if "_at_10" in name}
    assert len(at_ten) > 20
    means = {name for name in at_ten if not name.endswith(("_lo", "_hi"))}
    assert {n: at_ten[n] for n in means} == pytest.approx({n: long[n] for n in means})


def test_an_interval_holds_its_mean_and_comes_out_the_same_again() -> None:
    history, holdout = night()
    evaluation = evaluate(ranked(history, "d", "c"), history, holdout, k=2)
    bounded = [name for name in evaluation.metrics if f"{name}_lo" in evaluation.metrics]
    assert {"ndcg_at_2", "recall_at_2", "hit_rate_at_2", "slice.cold.ndcg_at_2"} <= set(bounded)
    for name in bounded:
        low, mean, high = (evaluation.metrics[name + end] for end in ("_lo", "", "_hi"))
        assert 0.0 <= low <= mean <= high <= (2.0 if "novelty" in name else 1.0)  # bits of 4 users
    again = evaluate(ranked(history, "d", "c"), history, holdout, k=2)
    assert again.metrics == evaluation.metrics
    assert again.users.equals(evaluation.users)


@pytest.mark.parametrize("late", ["scorer", "history"])
def test_a_window_that_reaches_into_the_holdout_is_refused(late: str) -> None:
    history, holdout = night()
    until = CUTOFF + timedelta(microseconds=1)
    if late == "history":
        history = window(*PAST, end=until)
    scorer = ranked(history, "d", until=until if late == "scorer" else CUTOFF)
    with raises("evaluate.leak") as caught:
        evaluate(scorer, history, holdout, k=2)
    assert late in caught.value.sentence and "2024-02-03" in caught.value.sentence


def test_a_scorer_of_another_catalogue_is_refused() -> None:
    history, holdout = night()
    other = window(("ann", "a", 0))
    with raises("evaluate.other_catalogue"):
        evaluate(ranked(other, "a"), history, holdout, k=2)


def test_a_scorer_may_list_items_that_have_no_event_yet() -> None:
    history, holdout = night()
    names = ("a", "b", "c", "d", "new", "x")
    item_scores = np.array([1, 1, 1, 1, 9, 8], np.float32)
    longer = Ranked(item_scores, item_ids=np.array(names), trained_until=CUTOFF)
    evaluation = evaluate(longer, history, holdout, k=2)
    plain = evaluate(ranked(history, "dcba"), history, holdout, k=2)
    assert evaluation.users[c.USER_ID].to_list() == plain.users[c.USER_ID].to_list()
    hits = dict(zip(evaluation.users[c.USER_ID], evaluation.users[HIT_RATE], strict=True))
    assert hits["bob"] == 1.0  # `new` is what he went for
    assert evaluation.users[f"{SLICE}new_items"].max() > 0
    assert evaluation.coverage == 2 / 6
    pair = evaluate_stored(longer, history, ranked(history, "dcba"), history, holdout, k=2)
    assert pair.stored[HIT_RATE].max() == 1.0  # what either catalogue has can be a target


def test_judged_users_must_have_a_row() -> None:
    _, holdout = night()
    other = window(*(row for row in PAST if row[0] != "bob"))
    with raises("evaluate.users_without_history"):
        evaluate(ranked(other, "a"), other, holdout, k=2)


def test_an_empty_holdout_is_an_evaluation_of_no_users() -> None:
    events = log(*PAST)
    holdout = split(events, AS_OF, SplitConfig(holdout_days_options=(7,)), first=False)
    history = window(*PAST)
    evaluation = evaluate(ranked(history, "a"), history, holdout, k=2)
    assert evaluation.users.is_empty()
    assert evaluation.metrics == {
        "users": 0.0,
        "coverage_at_2": 0.0,
        "coverage_at_10": 0.0,
        **{f"slice.{name}.users": 0.0 for name in SLICES},
    }


def test_a_scorer_against_itself_differs_nowhere() -> None:
    for seen in ("repeat", "discovery"):
        history, holdout = night(seen)
        scorer = ranked(history, "d", "c")
        pair = evaluate_stored(scorer, history, scorer, history, holdout, k=2)
        assert not pair.tonight.is_empty()
        assert pair.tonight.equals(pair.stored)


def test_a_stored_scorer_answers_over_its_own_catalogue() -> None:
    history, holdout = night()
    past = window(("ann", "a", 0), ("ann", "gone", 0), ("bob", "a", 0), end=START + timedelta(9))
    stored = ranked(past, "gone", "a")
    pair = evaluate_stored(stored, past, ranked(history, "c", "d"), history, holdout, k=2)
    # cat and dan are unknown to it; items outside both windows are in no ground truth.
    assert pair.tonight[c.USER_ID].to_list() == pair.stored[c.USER_ID].to_list() == ["ann", "bob"]
    assert values(pair.tonight, RECALL) == {"ann": 0.5, "bob": 1.0}
    assert values(pair.stored, RECALL) == {"ann": 0.5, "bob": 0.0}


def test_in_discovery_an_older_scorer_is_not_charged_for_later_purchases() -> None:
    history, holdout = night("discovery")
    past = window(*PAST[:2], ("bob", "b", 0), ("dan", "d", 0), ("cat", "c", 0), end=CUTOFF)
    stored = ranked(past, "a", "c", "d")
    pair = evaluate_stored(stored, past, ranked(history, "a", "c", "d"), history, holdout, k=1)
    # ann bought a long ago and c since; both are out of the way, and d is what she took next.
    assert values(pair.stored, NDCG)["ann"] == values(pair.tonight, NDCG)["ann"] == 1.0


def test_in_discovery_items_that_tonight_lost_do_not_count() -> None:
    full = log(*PAST, *HOLDOUT)
    damaged = full.filter((pl.col(c.USER_ID) != "dan") | (pl.col(c.TIMESTAMP) >= CUTOFF))
    damaged = pl.concat([damaged, log(("dan", "a", 5), ("bob", "d", 5))])
    config = SplitConfig(task="discovery", min_users=2, holdout_days_options=(7,))
    holdout = split(damaged, AS_OF, config, first=False)
    history = build_history(weigh(damaged, FeaturesConfig()), CUTOFF)
    assert "dan" in holdout.users.to_list()  # his d looks new, because the damage lost it
    past = window(*PAST)
    pair = evaluate_stored(ranked(past, "d"), past, ranked(history, "d"), history, holdout, k=1)
    assert pair.tonight[c.USER_ID].to_list() == ["ann", "bob"]


def test_lost_history_reads_as_a_loss() -> None:
    # 40 users buy one of two items again; tonight's lake has lost one of the two, and some users.
    rows = [(f"u{n:02}", "ab"[n % 2], day) for n in range(40) for day in (1.0, 20.0)]
    again = [(f"u{n:02}", "ab"[n % 2], 36.0) for n in range(40)]
    config = SplitConfig(task="repeat", min_users=2, holdout_days_options=(7,))
    past = window(*rows)
    stored = ranked(past, "a", "b")
    lost = [row for row in rows if row[1] != "a"]
    holdout = split(log(*lost, *again), AS_OF, config, first=False)
    history = window(*lost)
    fallback = ranked(history, "b")
    pair = evaluate_stored(
        stored, past, ranked(history, "b"), history, holdout, k=1, fallback=fallback
    )
    # All users of the stored window count, with the items that it knows.
    assert pair.tonight.height == 40
    assert pair.tonight[c.USER_ID].equals(pair.stored[c.USER_ID])
    assert pair.stored[NDCG].mean() == 0.5
    # Users who lost their history get the fallback list, which has b alone.
    assert values(pair.tonight, NDCG) == {f"u{n:02}": float(n % 2) for n in range(40)}
    both = evaluate_stored(
        ranked(past, "a", "b"), past, ranked(history, "b"), history, holdout, k=2
    )
    assert both.tonight[NDCG].mean() / both.stored[NDCG].mean() - 1 < -0.3
    # Without a fallback they get no list.
    assert values(both.tonight, HIT_RATE)["u00"] == 0.0


def test_rows_of_lists_can_be_replaced() -> None:
    own = Lists(np.array([0, 2, 2, 3]), np.array([1, 2, 3], np.int32), np.ones(3, np.float32))
    others = Lists(
        np.array([0, 1, 3, 4]), np.array([7, 8, 9, 6], np.int32), np.zeros(4, np.float32)
    )
    replaced = with_rows_of(own, others, np.array([0, 1]))
    assert [replaced.of(row).tolist() for row in range(3)] == [[7], [8, 9], [3]]
    emptied = with_rows_of(own, None, np.array([0]))
    assert [emptied.of(row).tolist() for row in range(3)] == [[], [], [3]]


def test_a_stored_scorer_that_saw_the_holdout_is_refused() -> None:
    history, holdout = night()
    late = ranked(history, "a", until=AS_OF)
    with raises("evaluate.leak"):
        evaluate_stored(late, history, ranked(history, "a"), history, holdout, k=2)


def test_no_common_users_is_a_pair_of_empty_frames() -> None:
    history, holdout = night()
    past = window(("zoe", "a", 0), end=CUTOFF)
    pair = evaluate_stored(ranked(past, "a"), past, ranked(history, "a"), history, holdout, k=2)
    assert pair.tonight.is_empty()
    assert pair.stored.columns == pair.tonight.columns


def test_names_are_made_in_one_place() -> None:
    assert metric_name("ndcg", 20) == "ndcg_at_20"
    assert metric_name("ndcg", 20, "cold") == "slice.cold.ndcg_at_20"
    assert (slug("35-49K, Renter"), slug("—")) == ("35_49k_renter", "other")
