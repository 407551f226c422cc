"""Answers: what people did with the items of the lists that they were shown.

Promises: an event is joined to what *we* published, never to what it claims; a claim is compared
and counted; each event answers one list at most; nothing hangs on pseudonyms or the order of rows.

Nobody reports what a screen showed, so that is taken from events: whoever does anything is there,
and can see the list that is live for them (`data.exposure`). Such a list on such a day is a
*showing*.
::

    ann    [---- list p1: a b ----)[---- list p2: b c ----)      an event of ann's
               x         a             b     a        q
               |         |             |     |        `- in no list of hers: no answer
               |         |             |     `- p2 lacks it: answers p1, her last showing with it
               |         |             `- answers p2, position 1
               |         `- answers p1, position 1
               `- no answer, but ann is there: p1 is shown

*Last touch*: an event answers the last showing, at its instant or within the window before, whose
list holds its item. An *exposure* is one entry of one list that was shown to one person, once for
each 24 hours of the span; a rate is the share of exposures that were answered so in the same 24
hours. An answer to a list that was shown last on an earlier day is *late*: it is counted and in no
rate, for only such lists of that day would be looked at as were answered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import polars as pl
from pydantic import ConfigDict, Field

from pipeline import columns as c
from pipeline.base import Frozen, Interval
from pipeline.data.exposure import OWNER, SHOWN, exposure_intervals, shown_at
from pipeline.data.split import between
from pipeline.monitoring import rates

_ROW, _TOUCH, _DAY, _LENGTH, _BACK = "row", "touch", "day", "length", "back"
_CLAIMED, _AT = "claimed", "claimed_position"
NOWHERE: Final = "(none)"
"""Segment of people of whom none is known."""


class AttributionConfig(Frozen):
    """Selection of the events that are attributed to a list."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    window_days: int = Field(default=7, ge=1)
    """Number of days after a list was shown in which an event is attributed to it."""
    clicks: tuple[str, ...] = (c.Kind.VIEW.value, c.Kind.CLICK.value)
    """Kinds of events that count as a click on a list entry."""
    conversions: tuple[str, ...] = (c.Kind.PURCHASE.value,)
    """Kinds of events that count as a purchase; their value is a quantity."""


@dataclass(frozen=True)
class ShownLists:
    """What answers need of lists: how long each is, and the entries that may have been answered.

    Attributes
    ----------
    sizes
        `publication_id`, `user_id` and, for each slot, how many entries it has.
    entries
        `publication_id`, `user_id`, `item_id`, `position`, `slot`.
    """

    sizes: pl.DataFrame
    entries: pl.DataFrame

    @classmethod
    def of(cls, parts: Iterable[pl.DataFrame], events: pl.DataFrame) -> ShownLists:
        """Reduce rows of `columns.RECOMMENDATIONS`, some publications at a time."""
        pairs = events.select(c.USER_ID, c.ITEM_ID).unique()
        keys = [c.PUBLICATION_ID, c.USER_ID]
        counts = [(pl.col(c.SLOT) == slot.value).sum().alias(slot.value) for slot in c.Slot]
        sizes, entries = [], []
        for lists in parts:
            sizes.append(lists.group_by(keys).agg(counts))
            held = lists.select(*keys, c.ITEM_ID, c.POSITION, c.SLOT)
            anyone = held.filter(pl.col(c.USER_ID) == c.ANYONE)
            entries.append(held.join(pairs, on=[c.USER_ID, c.ITEM_ID], how="semi"))
            entries.append(anyone.join(pairs, on=c.ITEM_ID, how="semi"))
        if not sizes:
            return cls.of([pl.DataFrame(schema=c.RECOMMENDATIONS)], events)
        return cls(pl.concat(sizes), pl.concat(entries))


def with_window(span: Interval, config: AttributionConfig) -> Interval:
    """Return the span and the days before it in which a list may have been shown last."""
    return Interval(span.start - timedelta(days=config.window_days), span.end)


def attribute_events(
    events: pl.DataFrame,
    publications: pl.DataFrame,
    lists: ShownLists,
    prices: pl.DataFrame,
    segments: pl.DataFrame,
    *,
    span: Interval,
    config: AttributionConfig,
) -> rates.Attribution:
    """Join the events of a span to the lists that their people were shown.

    Parameters
    ----------
    events
        `user_id`, `item_id`, `kind`, `value`, `timestamp`, `publication_id`, `position` of all
        events `with_window` of the people who did something in the span.
    publications
        Rows of `columns.PUBLICATIONS`.
    lists
        Of the publications in play `with_window`, for these people and anyone.
    prices, segments
        `item_id`, `price` and `user_id`, `segment`; either may lack some.
    """
    rows = events.sort(c.TIMESTAMP, c.ITEM_ID, c.USER_ID, c.KIND).with_row_index(_ROW)
    touches = _touches(rows, exposure_intervals(publications, lists.sizes), span)
    inside, is_return = rows.filter(between(span)), pl.col(c.KIND) == c.Kind.RETURN.value
    asked, returns = inside.filter(~is_return), inside.filter(is_return)
    joined = _last_touch(asked, touches, lists.entries, timedelta(days=config.window_days))
    prompt = joined.filter(pl.col(_DAY) == _day_of(span))
    answered = _answered(prompt, returns, prices, config)
    visits = touches.filter(between(span)).unique([c.USER_ID, SHOWN, _DAY]).drop(c.TIMESTAMP)
    return rates.Attribution(
        span=span,
        window_days=config.window_days,
        people=asked[c.USER_ID].n_unique(),
        events=asked.height,
        joined=joined.height,
        late=joined.height - prompt.height,
        unshown=asked.join(touches, on=[c.USER_ID, c.TIMESTAMP], how="anti").height,
        claims=_claims(asked, joined),
        rows=tuple(_rows(visits, lists.sizes, answered, publications, segments)),
    )


def _touches(rows: pl.DataFrame, shown: pl.DataFrame, span: Interval) -> pl.DataFrame:
    """Return at which instants which list was shown to whom, and on which day of the span."""
    seen = shown_at(rows.select(c.USER_ID, c.TIMESTAMP).unique(), shown)
    day = _day_of(span).alias(_DAY)
    return seen.select(c.USER_ID, c.TIMESTAMP, SHOWN, OWNER, c.MODEL_VERSION, c.RECIPE, day)


def _day_of(span: Interval) -> pl.Expr:
    """Number the 24 hours of an event from the span's start; those before it are below 0."""
    return (pl.col(c.TIMESTAMP) - span.start).dt.total_microseconds().floordiv(86_400_000_000)


def _last_touch(
    asked: pl.DataFrame, touches: pl.DataFrame, entries: pl.DataFrame, window: timedelta
) -> pl.DataFrame:
    """Keep the events that answer a list, with that list, the entry and when it was shown last."""
    pairs = asked.select(c.USER_ID, c.ITEM_ID).unique()
    held = entries.rename({c.PUBLICATION_ID: SHOWN, c.USER_ID: OWNER})
    lists = touches.select(c.USER_ID, SHOWN, OWNER).unique()
    may = lists.join(held, on=[SHOWN, OWNER]).join(pairs, on=[c.USER_ID, c.ITEM_ID], how="semi")
    touched = may.join(touches, on=[c.USER_ID, SHOWN, OWNER]).rename({c.TIMESTAMP: _TOUCH})
    claims = {c.PUBLICATION_ID: _CLAIMED, c.POSITION: _AT}
    return (
        asked.rename(claims)
        .sort(c.TIMESTAMP)
        .join_asof(
            touched.sort(_TOUCH),
            left_on=c.TIMESTAMP,
            right_on=_TOUCH,
            by=[c.USER_ID, c.ITEM_ID],
            strategy="backward",
            tolerance=window,
            check_sortedness=False,  # both are sorted above; with groups the library cannot tell
        )
        .filter(pl.col(SHOWN).is_not_null())
        .sort(_ROW)
    )


def _answered(
    joined: pl.DataFrame, returns: pl.DataFrame, prices: pl.DataFrame, config: AttributionConfig
) -> pl.DataFrame:
    """Return the exposures that were answered: one row each, and what was done there."""
    kind = pl.col(c.KIND)
    bought = kind.is_in(list(config.conversions))
    returned, price = bought & (pl.col(c.TIMESTAMP) <= pl.col(_BACK)), pl.col(c.PRICE)
    revenue = pl.when(bought & price.is_finite()).then(price * pl.col(c.VALUE).fill_null(1.0))
    back = returns.group_by(c.USER_ID, c.ITEM_ID).agg(pl.col(c.TIMESTAMP).max().alias(_BACK))
    answers = (
        joined.join(prices.select(c.ITEM_ID, c.PRICE).unique(c.ITEM_ID), on=c.ITEM_ID, how="left")
        .join(back, on=[c.USER_ID, c.ITEM_ID], how="left")
        .sort(_ROW)
    )
    return answers.group_by([c.USER_ID, SHOWN, _DAY, c.ITEM_ID], maintain_order=True).agg(
        pl.col(c.MODEL_VERSION, c.RECIPE, c.POSITION, c.SLOT).first(),
        pl.lit(1.0).alias(rates.ANSWERED).first(),
        kind.is_in(list(config.clicks)).any().cast(pl.Float64).alias(rates.CLICKED),
        bought.any().cast(pl.Float64).alias(rates.PURCHASED),
        (kind == c.Kind.RATING.value).any().cast(pl.Float64).alias(rates.RATED),
        returned.any().cast(pl.Float64).alias(rates.RETURNED),
        revenue.sum().alias(rates.REVENUE),
        (bought & revenue.is_null()).sum().cast(pl.Float64).alias(rates.UNPRICED),
    )


def _claims(asked: pl.DataFrame, joined: pl.DataFrame) -> rates.Claims:
    """Compare what events say they answer with what was joined."""
    claimed = int(asked[c.PUBLICATION_ID].is_not_null().sum())
    claims = joined.filter(pl.col(_CLAIMED).is_not_null())
    place = pl.col(_AT).is_null() | (pl.col(_AT) == pl.col(c.POSITION))
    agree = claims.filter((pl.col(_CLAIMED) == pl.col(SHOWN)) & place).height
    return rates.Claims(agree, claims.height - agree, claimed - claims.height)


def _rows(
    visits: pl.DataFrame,
    sizes: pl.DataFrame,
    answered: pl.DataFrame,
    publications: pl.DataFrame,
    segments: pl.DataFrame,
) -> Iterable[rates.AttributionRow]:
    """Count exposures and answers of each group and person, and let `rows_of` take the rates."""
    slots = [slot.value for slot in c.Slot]
    held = sizes.rename({c.PUBLICATION_ID: SHOWN, c.USER_ID: OWNER})
    shown = visits.join(held, on=[SHOWN, OWNER]).with_columns(
        pl.sum_horizontal(slots).alias(_LENGTH)
    )
    segment = pl.col(c.SEGMENT).fill_null(NOWHERE)
    of_people = segments.select(c.USER_ID, c.SEGMENT).unique(c.USER_ID)
    shown, answered = (
        frame.join(of_people, on=c.USER_ID, how="left").with_columns(segment)
        for frame in (shown, answered)
    )
    order = publications.sort(c.GENERATION)
    named: dict[str, tuple[pl.Expr, list[str]]] = {
        rates.EVERYBODY: (pl.lit(rates.EVERYBODY), [rates.EVERYBODY]),
        rates.PUBLICATION: (pl.col(SHOWN), order[c.PUBLICATION_ID].to_list()),
        rates.VERSION: (pl.col(c.MODEL_VERSION), _distinct(order[c.MODEL_VERSION])),
        c.RECIPE: (pl.col(c.RECIPE), _distinct(order[c.RECIPE])),
        c.SEGMENT: (pl.col(c.SEGMENT), _distinct(shown[c.SEGMENT].sort())),
    }
    length = pl.col(_LENGTH)
    for by, (group, names) in named.items():
        exposed = shown.group_by(group.alias(by), c.USER_ID).agg(length.sum().alias(rates.EXPOSED))
        yield from rates.rows_of(by, names, exposed, answered.with_columns(group.alias(by)))
    sizes_by_slot = shown.unpivot(
        slots, index=c.USER_ID, variable_name=c.SLOT, value_name=rates.EXPOSED
    )
    exposed = sizes_by_slot.group_by(c.SLOT, c.USER_ID).agg(pl.col(rates.EXPOSED).sum())
    yield from rates.rows_of(c.SLOT, slots, exposed, answered)
    place = pl.col(c.POSITION).cast(pl.String)
    exposed = (
        shown.group_by(c.USER_ID, _LENGTH)
        .agg(pl.len().alias(rates.EXPOSED))
        # A list of n entries has the positions 1 to n.
        .with_columns(pl.int_ranges(1, length + 1).alias(c.POSITION))
        .explode(c.POSITION)
        .group_by(place, c.USER_ID)
        .agg(pl.col(rates.EXPOSED).sum())
    )
    longest = shown[_LENGTH].to_list()
    places = [str(at) for at in range(1, max(longest, default=0) + 1)]
    yield from rates.rows_of(c.POSITION, places, exposed, answered.with_columns(place))


def _distinct(names: pl.Series) -> list[str]:
    distinct: list[str] = names.unique(maintain_order=True).to_list()
    return distinct
