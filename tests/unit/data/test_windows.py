"""Events of a few users are cleaned and weighted as in the window of all users."""

from datetime import UTC, datetime, timedelta

import polars as pl

from pipeline import columns as c
from pipeline.data.matrix import WEIGHT
from pipeline.data.windows import weigh_users, window
from pipeline.workspace.config import Config

END = datetime(2024, 3, 1, tzinfo=UTC)
CONFIG = Config.model_validate(
    {
        "clean": {
            "events": {
                "value": {"outliers": "winsorise", "lower": 0.0, "upper": 0.9},
            }
        },
        "features": {"value": "log"},
    }
)


def events(n=50):
    return pl.DataFrame(
        {
            c.USER_ID: [f"u{k % 10}" for k in range(n)],
            c.ITEM_ID: [f"i{k % 7}" for k in range(n)],
            c.KIND: ["purchase"] * n,
            c.VALUE: [float(1 + k) for k in range(n)],
            c.TIMESTAMP: [END - timedelta(days=1 + k) for k in range(n)],
        },
        schema_overrides={c.TIMESTAMP: c.INSTANT},
    )


def test_the_weights_of_some_are_those_they_have_in_the_window_of_all():
    whole = events()
    history, _ = window(whole, END, CONFIG, None, None)
    some = weigh_users(whole.filter(pl.col(c.USER_ID) == "u9"), whole, CONFIG)
    row = history.user_ids.tolist().index("u9")
    own = history.weight[history.indptr[row] : history.indptr[row + 1]]
    assert some.sort(c.TIMESTAMP)[WEIGHT].to_list() == own.tolist()
    alone = weigh_users(whole.filter(pl.col(c.USER_ID) == "u9"), whole.head(9), CONFIG)
    assert alone[WEIGHT].max() < some[WEIGHT].max()  # cut where others are


def test_a_kind_that_came_later_counts_for_nothing():
    rows = events(3).with_columns(pl.Series(c.KIND, ["purchase", "wish", "view"]))
    assert weigh_users(rows, events(), CONFIG).height == 2
