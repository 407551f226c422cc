"""Days cut out of events, and the sample of users of a large day."""

from datetime import timedelta

import polars as pl

from pipeline import columns as c
from pipeline.monitoring.drift_windows import USER_WINDOW, WINDOW, DriftWindows, cut, sample_users
from tests.unit.monitoring.shops import END, shop

DAY = timedelta(days=1)
WINDOWS = DriftWindows(END, 3, 28)


def test_windows_are_half_open_days_counted_back_from_the_end():
    instants = [END - timedelta(microseconds=1), END - DAY, END, END - 31 * DAY]
    rows = pl.DataFrame({c.USER_ID: ["a"] * 4, c.TIMESTAMP: instants})
    rows = rows.cast({c.TIMESTAMP: c.INSTANT})
    cut_rows = cut(rows, WINDOWS, most=9).sort(c.TIMESTAMP)
    assert cut_rows[WINDOW].to_list() == [30, 0, 0]
    assert WINDOWS.start(0) == END - DAY and WINDOWS.span.start == END - 31 * DAY
    assert WINDOWS.folds.tolist() == [-1] * 3 + [week for week in range(4) for _ in range(7)]
    assert WINDOWS.reference(END - 10 * DAY).nonzero()[0].tolist() == [3, 4, 5, 6, 7, 8, 9]


def test_of_many_users_a_hashed_sample_is_compared():
    rows = cut(shop(days=31), WINDOWS, most=100)
    n_users = rows.group_by(WINDOW).agg(pl.col(USER_WINDOW).n_unique()).sort(WINDOW)
    assert n_users[USER_WINDOW].min() > 20
    assert sample_users(rows, 60).equals(rows)
    few = sample_users(rows, 20)
    counted = few.group_by(WINDOW).agg(pl.col(USER_WINDOW).n_unique()).sort(WINDOW)
    assert counted[USER_WINDOW].to_list() == [20] * 31
    # Either all events of a user are kept, or none.
    whole = rows.join(few.select(USER_WINDOW).unique(), on=USER_WINDOW, how="semi")
    assert whole.height == few.height
    names = {f"u{n:03}": f"q{(n * 37) % 60:03}" for n in range(60)}
    other = rows.with_columns(pl.col(c.USER_ID).replace(names)).sample(fraction=1, shuffle=True)
    again = sample_users(cut(other.drop(WINDOW, USER_WINDOW), WINDOWS, most=100), 20)
    back = {new: old for old, new in names.items()}
    known = [WINDOW, c.USER_ID, c.ITEM_ID, c.TIMESTAMP]
    renamed = again.with_columns(pl.col(c.USER_ID).replace(back)).select(known).sort(known)
    assert renamed.equals(few.select(known).sort(known))
