from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.base import Interval
from pipeline.evaluation.prequential import list_quality

START = datetime(2024, 3, 1, tzinfo=UTC)
SPAN = Interval(START, START + timedelta(days=2))


def log(*rows):
    return pl.DataFrame(
        [(user, item, START + timedelta(days=days)) for user, item, days in rows],
        schema={c.USER_ID: pl.String, c.ITEM_ID: pl.String, c.TIMESTAMP: c.INSTANT},
        orient="row",
    )


def lists(**items):
    rows = [(u, p, i) for u, own in items.items() for p, i in enumerate(own, start=1)]
    schema = {c.USER_ID: pl.String, c.POSITION: pl.Int32, c.ITEM_ID: pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def scored(rows, did, past=(), task="discovery"):
    events = log(*did)
    past = log(*past, *did)
    return list_quality(rows, events, past, span=SPAN, k=2, task=task)


def test_lists_are_scored_as_if_they_had_been_live():
    scores = scored(lists(ann="ab", bob="bc"), [("ann", "a", 0.5), ("bob", "a", 0.5)])
    assert (scores.users, scores.events) == (2, 2)
    assert scores.ndcg.mean == pytest.approx(0.5)  # the one first, the other not at all
    assert scores.hit_rate.mean == pytest.approx(0.5)


def test_earlier_items_are_in_no_list_of_new_items():
    did, before = [("ann", "a", 0.5), ("ann", "b", 0.6)], [("ann", "b", -3.0)]
    assert scored(lists(ann="ab"), did, before).events == 1
    assert scored(lists(ann="ab"), did, before, task="repeat").events == 2


def test_users_without_a_list_and_events_outside_count_for_nothing():
    did = [("ann", "a", -0.5), ("ann", "a", 2.0), ("zoe", "a", 0.5)]
    assert scored(lists(ann="ab"), did) is None
    assert scored(lists(ann="ab"), [*did, ("ann", "b", 1.9)]).events == 1
