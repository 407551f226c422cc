from __future__ import annotations

import sys
from datetime import timedelta

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from pipeline.errors import ResourceError
from pipeline.models.families import load
from pipeline.models.personal_frequency import PersonalFrequency
from pipeline.models.repeat_purchase import recipe as recipes
from pipeline.models.repeat_purchase.booster import EXAMPLES_A_TREE, grow
from pipeline.models.repeat_purchase.features import FEATURES, item_table, table
from pipeline.models.repeat_purchase.pairs import (
    HALF_LIVES,
    US_PER_DAY,
    Events,
    pairs_at,
    repurchases,
)
from pipeline.models.repeat_purchase.recipe import RepeatPurchase
from pipeline.models.topk import top_k
from tests.windows import END, window

NOW = round(END.timestamp() * 1e6)
BLOCK = 14


def random_rows(seed, events=300):
    rng = np.random.default_rng(seed)
    return [
        (
            f"u{rng.integers(6)}",
            f"i{rng.integers(8)}",
            float(rng.uniform(0.01, 90)),
            float(rng.choice([1.0, 2.0, 0.0, -1.0, -2.0])),
        )
        for _ in range(events)
    ]


def shop(days=200, n_users=120, seed=0):
    """Users who need items, each item at its own pace; a quarter of the items is given up."""
    rng = np.random.default_rng(seed)
    pace = rng.choice([4.0, 9.0, 20.0, 45.0], 60)
    gone = rng.random(60) < 0.25
    rows = []
    for u in range(n_users):
        for i in rng.choice(60, 12, replace=False).tolist():
            age = float(rng.uniform(0, days))
            while age > 0:
                if not (gone[i] and age < 75):
                    rows.append((f"u{u:03}", f"i{i:02}", age, 1.0))
                age -= pace[i] * float(rng.gamma(12, 1 / 12))
    return rows


def later(rows, days):
    """The same window, that many days earlier, and the events of these days."""
    before = [(u, i, age - days, w) for u, i, age, w in rows if age > days]
    return before, {(u, i) for u, i, age, _ in rows if age <= days}


def plainly(rows, now=0.0):
    """Days since each event that gave, of the pairs that were not taken back, oldest first."""
    had = {}
    for u, i, days, weight in sorted(rows, key=lambda row: -row[2]):
        if days > now:
            had.setdefault((u, i), []).append((days - now, weight))
    kept = {pair: seen for pair, seen in had.items() if sum(w for _, w in seen) > 0}
    return {pair: [age for age, w in seen if w > 0] for pair, seen in kept.items()}, kept


def named(history, pairs):
    users, items = history.user_ids[pairs.user].tolist(), history.item_ids[pairs.item].tolist()
    return list(zip(users, items, strict=True))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("now", [0, 30])
def test_pairs_are_a_loop_over_events(seed, now):
    rows = random_rows(seed)
    history = window(rows)
    pairs = pairs_at(Events.of(history), NOW - now * US_PER_DAY)
    ages, kept = plainly(rows, now)
    assert named(history, pairs) == sorted(ages)
    assert len(ages) > 10
    for at, pair in enumerate(sorted(ages)):
        mine = ages[pair]
        assert pairs.first[at] == pytest.approx(max(mine), abs=1e-4)
        assert pairs.last[at] == pytest.approx(min(mine), abs=1e-4)
        assert pairs.days[at] == len({int(age) for age in mine})
        assert NOW - pairs.first_at[at] == pytest.approx((max(mine) + now) * US_PER_DAY, abs=2)
        decayed = [sum(w * 0.5 ** (age / days) for age, w in kept[pair]) for days in HALF_LIVES]
        assert pairs.own[:, at] == pytest.approx(np.maximum(decayed, 0), abs=1e-5)
    for row, user in enumerate(history.user_ids.tolist()):
        mine = {int(age) for (u, _), days in ages.items() for age in days if u == user}
        assert pairs.user_days[row] == len(mine)


@pytest.mark.parametrize("seed", range(3))
def test_answers_are_a_loop_over_events(seed):
    rows = random_rows(seed, events=80)
    history = window(rows)
    events = Events.of(history)
    since, until = NOW - 30 * US_PER_DAY, NOW - 16 * US_PER_DAY
    pairs = pairs_at(events, since)
    again, came = repurchases(events, pairs, since, until)
    taken = {(u, i) for u, i, days, weight in rows if 16 < days <= 30 and weight > 0}
    assert again.tolist() == [pair in taken for pair in named(history, pairs)]
    assert 0 < again.sum() < len(again)
    users = {u for u, _ in taken}
    assert came.tolist() == [u in users for u in history.user_ids.tolist()]


@pytest.mark.parametrize("seed", range(2))
def test_features_are_a_loop_over_pairs(seed):
    rows = random_rows(seed, events=150)
    history = window(rows)
    pairs = pairs_at(Events.of(history), NOW)
    items = item_table(pairs, BLOCK)
    everything = table(pairs, items, BLOCK, np.ones(len(pairs.user), bool))
    some = np.arange(len(pairs.user)) % 3 == 0
    assert np.array_equal(table(pairs, items, BLOCK, some), everything[some], equal_nan=True)
    assert everything.dtype == np.float32

    ages, _ = plainly(rows)
    days = {pair: len({int(age) for age in mine}) for pair, mine in ages.items()}
    total = {
        u: {int(age) for p, mine in ages.items() if p[0] == u for age in mine} for u, _ in ages
    }

    def among(place, name):
        return [pair for pair in ages if pair[place] == name]

    def back(some):
        older = [pair for pair in some if max(ages[pair]) > BLOCK]
        return sum(min(ages[pair]) <= BLOCK for pair in older) / (len(older) + 20)

    def gap(some):
        several = [pair for pair in some if days[pair] > 1]
        spans = sum(max(ages[pair]) - min(ages[pair]) for pair in several)
        return spans / sum(days[pair] - 1 for pair in several) if several else np.nan

    def decayed(some, half_life):
        return sum(0.5 ** (min(ages[pair]) / half_life) for pair in some)

    for at, (u, i) in enumerate(named(history, pairs)):
        mine, of_item, last = among(0, u), among(1, i), min(ages[u, i])
        item_gap = gap(of_item)
        expected = {
            **{f"own_{d:.0f}": pairs.own[k, at] for k, d in enumerate(HALF_LIVES)},
            "days": days[u, i],
            "share_of_days": days[u, i] / len(total[u]),
            "since_first": max(ages[u, i]),
            "since_last": last,
            "gap": gap([(u, i)]),
            "overdue": last / gap([(u, i)]) if gap([(u, i)]) else np.nan,
            "overdue_for_item": last / item_gap,
            "user_days": len(total[u]),
            "user_since_last": min(min(ages[pair]) for pair in mine),
            "user_items": len(mine),
            "user_repeats": np.mean([days[pair] > 1 for pair in mine]),
            "user_back": back(mine),
            "item_7": decayed(of_item, 7),
            "item_30": decayed(of_item, 30),
            "item_users": len(of_item),
            "item_trend": decayed(of_item, 30) / len(of_item),
            "item_trend_7": decayed(of_item, 7) / decayed(of_item, 30),
            "item_repeats": np.mean([days[pair] > 1 for pair in of_item]),
            "item_gap": -1 if np.isnan(item_gap) else item_gap,
            "item_back": back(of_item),
        }
        assert tuple(expected) == FEATURES
        assert everything[at] == pytest.approx(list(expected.values()), rel=1e-4, nan_ok=True)


def test_features_use_earlier_events_only_and_labels_later_ones_only():
    rows = random_rows(0)
    cut = 30
    events, now = Events.of(window(rows)), NOW - cut * US_PER_DAY
    others = [row for row in random_rows(1) if row[2] < cut]
    changed = Events.of(window([row for row in rows if row[2] > cut] + others))
    pairs, same = pairs_at(events, now), pairs_at(changed, now)
    for name in ("user", "item", "first", "last", "days", "own", "user_days"):
        assert np.array_equal(getattr(pairs, name), getattr(same, name)), name
    changed_answers, expected = (repurchases(e, pairs, now, NOW)[0] for e in (changed, events))
    assert not np.array_equal(changed_answers, expected)
    after = events.where(events.at >= now)
    assert np.array_equal(repurchases(after, pairs, now, NOW)[0], expected)


@pytest.mark.parametrize("leak", [0, 1, BLOCK])
def test_coins_cannot_be_foretold(leak, monkeypatch):
    # Users take an item again at random each day: only a leaking feature can predict it.
    rng = np.random.default_rng(5)
    rows = [(f"u{u:02}", f"i{i:02}", 99.5, 1.0) for u in range(60) for i in range(40)]
    rows += [
        (u, i, day + 0.5, 1.0) for u, i, *_ in rows for day in range(84) if rng.random() < 0.05
    ]
    history = window(rows)
    seen = pairs_at
    monkeypatch.setattr(recipes, "pairs_at", lambda e, now: seen(e, now + leak * US_PER_DAY))
    recipe = RepeatPurchase(block_days=BLOCK, blocks=3)
    examples, again, share = recipe._examples(Events.of(history), NOW, recipes._item_phase(history))
    assert share == 1.0
    assert len(again) == 3 * 2400
    assert 0.3 < again.mean() < 0.7
    strength = np.abs(
        np.corrcoef(np.nan_to_num(examples).T[examples.std(axis=0) > 0], again)[-1, :-1]
    )
    assert (strength.max() > 0.1) == bool(leak)


def test_trees_rank_better_than_counts_in_the_block_that_follows():
    before, taken = later(shop(), BLOCK)
    history = window(before)
    wins = []
    for recipe in (RepeatPurchase(), PersonalFrequency()):
        lists = top_k(recipe.train(history).score(history), 4)
        users, items = history.user_ids[lists.row], history.item_ids[lists.item]
        hits = [pair in taken for pair in zip(users.tolist(), items.tolist(), strict=True)]
        wins.append(np.mean(hits))
    assert wins[0] > wins[1] + 0.05


@pytest.mark.parametrize(("room", "pairs"), [(450_000, "4,894"), (2_000, "2,567")])
def test_chances_are_those_of_all_pairs_however_few_were_learnt_from(room, pairs, monkeypatch):
    monkeypatch.setattr(recipes, "_ROWS", room)
    before, taken = later(shop(), 3)
    history = window(before)
    messages = []
    scorer = RepeatPurchase(block_days=3).train(history, progress=messages.append)
    assert f"on {pairs}" in messages[0]
    own = scorer.score(history).sparse_bonus.tocoo()
    here = list(
        zip(history.user_ids[own.row].tolist(), history.item_ids[own.col].tolist(), strict=True)
    )
    assert own.data.max() <= 1
    assert own.data.mean() == pytest.approx(np.mean([pair in taken for pair in here]), rel=0.1)


def test_pairs_taken_again_all_count_and_others_are_thinned_alike_every_night(monkeypatch):
    rows = shop()

    def examples(rows, room):
        monkeypatch.setattr(recipes, "_ROWS", room)
        history = window(rows)
        events = Events.of(history)
        return RepeatPurchase(block_days=3)._examples(events, NOW, recipes._item_phase(history))

    (_, every, whole), (_, thin, share) = examples(rows, 450_000), examples(rows, 2_000)
    assert (whole, thin.sum()) == (1.0, every.sum())
    assert 0.1 < share < 0.9
    assert (~thin).sum() == pytest.approx((~every).sum() * share, rel=0.15)
    # A night later, with an item more, the pairs of the night before are thinned as they were.
    phases = []
    for seen, days in ((rows, 0), ([*rows, ("new", "i00a", -0.5, 1.0)], 1)):
        history = window(seen, END + timedelta(days=days))
        pairs = pairs_at(Events.of(history), NOW + days * US_PER_DAY)
        phase = recipes._phase(pairs, recipes._item_phase(history))
        phases.append(dict(zip(named(history, pairs), phase.tolist(), strict=True)))
    assert phases[1].items() > phases[0].items()
    assert np.histogram(list(phases[0].values()), 4, (0, 1))[0].min() > len(phases[0]) / 5


def test_neither_names_nor_threads_change_a_byte():
    rows = shop(n_users=60)
    names = [f"u{u:03}" for u in range(60)]
    mixed = dict(zip(names, np.random.default_rng(1).permutation(names).tolist(), strict=True))
    first = RepeatPurchase(iterations=20).train(window(rows))
    with threadpool_limits(4):
        again = RepeatPurchase(iterations=20).train(window(rows))
    other = RepeatPurchase(iterations=20).train(window([(mixed[u], *rest) for u, *rest in rows]))
    assert first.booster.text.count("Tree=") == 20
    for arrays in (again.arrays(), other.arrays()):
        assert all(
            arrays[name].tobytes() == array.tobytes() for name, array in first.arrays().items()
        )


def test_rows_in_any_order_grow_the_same_trees():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3000, len(FEATURES))).astype(np.float32) ** 2
    rows[rng.random(rows.shape) < 0.1] = np.nan
    rows[:, FEATURES.index("own_90")] = rng.random(3000)
    again = rng.random(3000) < 0.2
    how = {"kept_share": 0.5, "iterations": 5, "learning_rate": 0.1, "leaves": 8}
    one = grow(rows, again, **how)
    order = rng.permutation(3000)
    other = grow(rows[order], again[order], **how)
    assert one.text == other.text
    assert one.line.tobytes() == other.line.tobytes()


def test_text_turns_back_to_the_bit():
    history = window(shop(n_users=60))
    scorer = RepeatPurchase(iterations=15).train(history)
    trees, again = scorer.booster, load("repeat_purchase", scorer.arrays()).booster
    pairs = pairs_at(Events.of(history), NOW)
    rows = table(pairs, item_table(pairs, BLOCK), BLOCK, np.ones(len(pairs.user), bool))
    assert again.text == trees.text
    assert again.chances(rows).tobytes() == trees.chances(rows).tobytes()
    assert len(np.unique(trees.chances(rows))) > 100
    leaves = [line for line in trees.text.splitlines() if line.startswith("num_leaves=")]
    count = sum(2 * int(line.removeprefix("num_leaves=")) - 1 for line in leaves)
    assert trees.parameters == count + 2


def test_one_more_day_changes_little():
    rows = shop(days=201)
    yesterday, today = later(rows, 1)[0], rows
    came = {u for u, *_ in (row for row in rows if row[2] <= 1)}
    lists = {}
    for name, seen in (("old", yesterday), ("new", today)):
        history = window(seen)
        shorter_window = top_k(RepeatPurchase().train(history).score(history), 5)
        lists[name] = {
            user: set(history.item_ids[shorter_window.of(row)].tolist())
            for row, user in enumerate(history.user_ids.tolist())
        }
    quiet = lists["old"].keys() - came
    assert len(quiet) > 20
    assert np.mean([len(lists["old"][user] & lists["new"][user]) for user in quiet]) > 4.4


@pytest.mark.parametrize("days", [3, 27])
def test_in_a_short_window_own_counts_take_over_and_it_is_reported(days):
    history = window([row for row in shop() if row[2] < days])
    messages = []
    scorer = RepeatPurchase().train(history, progress=messages.append)
    assert scorer.booster is load("repeat_purchase", scorer.arrays()).booster is None
    assert any("own counts replace them" in line for line in messages)
    assert not any("trees on" in line for line in messages)
    counts = PersonalFrequency().train(history).score(history).sparse_bonus
    assert np.allclose(scorer.score(history).sparse_bonus.toarray(), counts.toarray(), rtol=1e-5)


def test_few_examples_grow_few_trees():
    messages = []
    history = window(shop(n_users=12))
    scorer = RepeatPurchase().train(history, progress=messages.append)
    _, again, _ = RepeatPurchase()._examples(Events.of(history), NOW, recipes._item_phase(history))
    assert scorer.booster.text.count("Tree=") == again.sum() // EXAMPLES_A_TREE < 20
    assert "trees on" in messages[0]


def test_only_users_with_events_are_learnt_from():
    rows = shop(n_users=40)
    gone = [("gone" + u[1:], i, days, w) for u, i, days, w in rows if days > 60]
    counts = []
    for seen in (rows, rows + gone):
        history = window(seen)
        _, again, _ = RepeatPurchase(blocks=4)._examples(
            Events.of(history), NOW, recipes._item_phase(history)
        )
        counts.append(len(again))
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("missing", ["not installed", "libgomp.so.1"])
def test_without_the_library_one_sentence_names_the_next_step(missing, monkeypatch):
    if missing == "not installed":
        monkeypatch.setitem(sys.modules, "lightgbm", None)
    else:

        class Unloadable:
            def find_spec(self, name, *_):
                if name == "lightgbm":
                    raise OSError("libgomp.so.1: cannot open shared object file")

        monkeypatch.delitem(sys.modules, "lightgbm", raising=False)
        monkeypatch.setattr(sys, "meta_path", [Unloadable(), *sys.meta_path])
    with pytest.raises(ResourceError, match=f"{missing}.*make setup"):
        RepeatPurchase().train(window(shop(n_users=40)))
